"""The book's Markdown for any notebook program: no roles, no directives, and links that work from anywhere."""

import re
from functools import cache
from html import escape
from pathlib import Path

import nbformat
from pybtex.database import BibliographyData, parse_file
from pybtex.richtext import Text

from extractbook.build.execute import BOOK
from extractbook.sphinx import furniture
from extractbook.sphinx.quiz import questions

PAGE = re.compile(r"\]\((?P<page>\w+)\.(?:ipynb|md)(?P<anchor>#[^)\s]*)?\)")
CITATION = re.compile(r"\{cite(?P<textual>:t)?\}`(?P<keys>[^`]+)`")
TERM = re.compile(r"\{term\}`(?P<text>[^`<]+?)(?: <(?P<entry>[^`>]+)>)?`")
QUIZ = re.compile(r"^```\{quiz\}\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SLIDERS = re.compile(r"^```\{sliders\}\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
CHAPTER = re.compile(r"\b[Tt]h(e|is) chapter\b(?!\])|\bstep (?P<step>\d)\b(?!\])")
STEP = re.compile(r"^### (Step (\d): .+)$", re.MULTILINE)
RAW = re.compile(r"^:{3,}|\{[a-z:-]+\}`|^`{3,}\{", re.MULTILINE)
"""What only Sphinx understands."""


def address(page: str, anchor: str = "") -> str:
    """Return the public address of a page of the book, for example of ``05_knockoff``."""
    return f"{furniture.site()}book/{page}.html{anchor}"


def plain(text: str, page: str) -> str:
    """Return Markdown of a page without what only Sphinx understands, and with absolute links to other pages."""
    text = CITATION.sub(lambda found: citation(found["keys"].split(","), textual=bool(found["textual"])), text)
    text = TERM.sub(lambda found: term(found["text"], found["entry"] or found["text"]), text)
    text = QUIZ.sub(lambda found: "\n\n".join(map(question, questions(found["text"]))), text)
    text = SLIDERS.sub(lambda found: f"*{found['text'].strip()}* Move the slider on [the page]({address(page)}).", text)
    return PAGE.sub(lambda found: f"]({address(found['page'], found['anchor'] or '')})", text)


def placed(text: str, page: str) -> str:
    """Return a text of a chapter for use elsewhere: "the chapter" and "step 3" become links to where they are."""

    def link(found: re.Match) -> str:
        anchor = steps(page).get(found["step"], "") if found["step"] else ""
        return f"[{found[0]}]({address(page, anchor)})" if anchor or not found["step"] else found[0]

    return CHAPTER.sub(link, text)


@cache
def steps(page: str) -> dict[str, str]:
    """Return the anchors of a chapter's steps, by number."""
    cells = nbformat.read(BOOK / f"{page}.ipynb", as_version=4).cells
    headings = [found for cell in cells if cell.cell_type == "markdown" for found in STEP.findall(cell.source)]
    return {number: "#" + re.sub(r"[^\w]+", "-", title.lower()).strip("-") for title, number in headings}


def question(asked: dict) -> str:
    """Return a question of a quiz as a list, with its answer and the reasons folded."""
    choices = [f"- {letter}: {text}" for letter, text in asked["choices"].items()]
    reasons = [
        f"- {letter} is {'right' if letter == asked['answer'] else 'wrong'}: {text}"
        for letter, text in asked["feedback"].items()
    ]
    folded = ["<details>\n<summary>Answer</summary>\n", *reasons, "\n</details>"]
    return "\n".join([f"**{asked['question']}**\n", *choices, "", *folded])


def term(text: str, entry: str) -> str:
    """Return a text that links to an entry of the glossary."""
    return f"[{text}]({address('glossary', '#term-' + re.sub(r'[^A-Za-z0-9]+', '-', entry).strip('-'))})"


def citation(keys: list[str], *, textual: bool) -> str:
    """Return works as linked authors and years, either as part of the sentence or in parentheses."""
    shown = [_work(key.strip(), textual=textual) for key in keys]
    return " and ".join(shown) if textual else f"({'; '.join(shown)})"


@cache
def bibliography(path: Path) -> BibliographyData:
    """Return the works that the book cites."""
    return parse_file(str(path))


@cache
def _work(key: str, *, textual: bool) -> str:
    entry = bibliography(BOOK / "references.bib").entries[key]
    people = entry.persons["author"]
    names = [escape(str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))) for person in people]
    who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    year, fields = entry.fields["year"], entry.fields
    link = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", address("bibliography"))
    return f"[{who} ({year})]({link})" if textual else f"[{who}, {year}]({link})"
