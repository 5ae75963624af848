"""A chapter's notebook taken apart, for the tests of the book's sources."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import nbformat
import yaml

from extractbook.build import execute

TOC = yaml.safe_load((execute.ROOT / "_toc.yml").read_text(encoding="utf-8"))
FILES = [entry["file"] for part in TOC["parts"] for entry in part["chapters"]]
CHAPTERS = [file.removeprefix("book/") for file in FILES if re.match(r"book/\d\d_", file)]

EXERCISES = {"exercise", "solution"}
FENCE = re.compile(r"^(```|:::|~~~).*?^\1", re.MULTILINE | re.DOTALL)
QUIZ = re.compile(r"^```\{quiz\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)
"""A line of a cell that only IPython understands."""

SENTENCE_END = re.compile(r"[a-z0-9)`*][.?!] +[A-Z]")


NOT_PLAIN = {
    "dear|dearer": "a high price is expensive; nobody says dear of a price today",
    "whoever|whomever": "anyone who: two words that every reader knows",
    "of (?:its|their) own": "says nothing, or from another distribution: a translated idiom",
    "look of (?:its|their|his) own": "with another style, from another distribution: a look cannot be measured",
    "afterwards|towards": "afterward, toward: American English",
    "strangers?": "out-of-distribution images, an unknown client: the field's terms",
    "rivals?": "baselines: the field's term",
    "told(?! apart)": "given, said, known: nobody tells an experiment anything",
    "stands? on": "builds on, rests on: a chapter stands nowhere",
    "thief|thieves": "the attacker, the adversary: the field's terms, and no verdict on a person",
    "minutes of patience": "takes about two minutes",
    "ask(?:s|ed)? often enough": "is allowed to query it often enough",
    "gives? itself away|convicts?": "a model does nothing on purpose: say what is measured",
}
"""What the text does not say, as patterns of whole words, and beside each the reason or what is better."""


@dataclass(frozen=True)
class Chapter:
    """A notebook of the book.

    Attributes:
        name: Its file's name without the ending, for example ``"05_knockoff"``.
        cells: Its cells.
    """

    name: str
    cells: list

    @classmethod
    def read(cls, name: str) -> "Chapter":
        """Return the chapter as it is stored."""
        return cls(name, stored(name))

    def changed(self, old: str, new: str) -> "Chapter":
        """Return the chapter with a text replaced in all its cells; it must be there."""
        cells = copy.deepcopy(self.cells)
        assert any(old in cell.source for cell in cells), f"{self.name} does not say {old!r}"
        for cell in cells:
            cell.source = cell.source.replace(old, new)
        return Chapter(self.name, cells)

    def all(self, kind: str) -> list:
        """Return the cells of a kind, ``"markdown"`` or ``"code"``."""
        return [cell for cell in self.cells if cell.cell_type == kind]

    def own(self, kind: str) -> list:
        """Return the cells of the chapter's own text or code: those of its exercises have tags that say so."""
        return [cell for cell in self.all(kind) if not EXERCISES & set(cell.metadata.get("tags", []))]

    @property
    def text(self) -> str:
        """The chapter's own text."""
        return prose(self.own("markdown"))

    @property
    def code(self) -> str:
        """The chapter's own code."""
        return "\n".join(cell.source for cell in self.own("code"))

    def runs(self) -> list[tuple[str, list]]:
        """Return the chapter's own cells in order, neighbors of one kind together, each group with its kind."""
        cells = [cell for cell in self.cells if not EXERCISES & set(cell.metadata.get("tags", []))]
        return [(kind, list(group)) for kind, group in groupby(cells, lambda cell: cell.cell_type)]

    def section(self, title: str) -> str:
        """Return the text below a heading of the second level, or nothing where there is no such heading."""
        everything = "\n\n".join(cell.source for cell in self.own("markdown"))
        found = re.search(rf"^## {title}\n(.*?)(?=^## |^\*\*Next|\Z)", everything, re.MULTILINE | re.DOTALL)
        return found[1] if found else ""


@cache
def stored(name: str) -> list:
    """Return the cells of a notebook of the book."""
    return nbformat.read(execute.BOOK / f"{name}.ipynb", as_version=4).cells


def prose(cells: list) -> str:
    """Return the Markdown of cells without fenced blocks and tables."""
    text = "\n\n".join(FENCE.sub("", cell.source) for cell in cells)
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|"))


# What holds for every notebook, chapter or not: each yields what is amiss.


def long_cells(notebook: Chapter) -> Iterator[str]:
    """At least 90% of the visible code cells have at most 15 lines, none more than 25, no line more than 79 columns."""
    visible = (cell for cell in notebook.all("code") if "remove-cell" not in cell.metadata.get("tags", []))
    lines = [cell.source.splitlines() for cell in visible]
    yield from (f"more than 79 columns: {line}" for cell in lines for line in cell if len(line) > 79)
    yield from (f"{len(cell)} lines: {cell[0]}" for cell in lines if len(cell) > 25)
    if sum(len(cell) <= 15 for cell in lines) < 0.9 * len(lines):
        yield "more than one cell in ten has more than 15 lines"


def plain(notebook: Chapter) -> Iterator[str]:
    """No word of `NOT_PLAIN` is in its text, the exercises' and the quizzes' among it."""
    yield from not_plain(prose(notebook.all("markdown")))
    yield from not_plain("\n".join(quiz for cell in notebook.all("markdown") for quiz in QUIZ.findall(cell.source)))


def not_plain(text: str) -> Iterator[str]:
    """Yield each word of `NOT_PLAIN` in a text, with what is better and the line that has it."""
    for pattern, better in NOT_PLAIN.items():
        for line in text.splitlines():
            if re.search(rf"\b(?:{pattern})\b", line, re.IGNORECASE):
                yield f"{pattern} ({better}): {line}"


def crowded_lines(notebook: Chapter) -> Iterator[str]:
    """At most one line of text in twenty holds more than one sentence."""
    text = prose(notebook.all("markdown")).splitlines()
    lines = [line for line in text if line.strip() and not line.startswith("#")]
    crowded = [line for line in lines if SENTENCE_END.search(line)]
    if len(crowded) > 0.05 * len(lines):
        yield from (f"more than one sentence: {line}" for line in crowded)
