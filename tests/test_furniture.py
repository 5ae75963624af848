"""What the book's own Sphinx extensions make: addresses, citations, questions and grids."""

import re
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest
from pybtex.database import Entry, Person

from benchmarks import sizes
from extractbook.build import execute
from extractbook.reproduction.results import newest
from extractbook.sphinx import furniture, quiz, sliders
from extractlib import errors

TRACKED = [path for name in ("book", "binder", ".github") for path in (execute.ROOT / name).rglob("*")]


# The address.


def test_the_address_stands_in_one_place():
    """Elsewhere it is only in the cells that other machines begin with, and those are compared with it."""
    texts = [(path, path.read_text()) for path in TRACKED if path.suffix in {".ipynb", ".md", ".py", ".yml", ".txt"}]
    texts += [(path, path.read_text()) for path in execute.ROOT.glob("*") if path.is_file() and path.name[0] != "."]
    naming = {path.name for path, text in texts if "github.com/extractlib" in text or "extractlib.github" in text}
    compared = {"README.md", "CITATION.cff", "pyproject.toml"}  # by test_publication.py
    assert naming - {path.name for path in execute.notebooks()} == {"_config.yml"} | compared


def test_messages_install_from_the_repository():
    assert f"{furniture.repository()}/archive/main.zip" == errors.SOURCE
    assert errors.pip_install("serve") == f"pip install 'extractlib[serve] @ {errors.SOURCE}'"


@pytest.fixture
def elsewhere(monkeypatch):
    """Another address in the configuration."""
    settings = deepcopy(furniture.configuration())
    settings["repository"]["url"] = "https://github.com/Ann/copies"
    stored = furniture.configuration
    monkeypatch.setattr(furniture, "configuration", lambda *names: stored(*names) if names else settings)


def test_all_addresses_follow_from_the_repositorys(elsewhere):
    assert furniture.site() == "https://ann.github.io/copies/"
    cell = furniture.setup_cell("c0de")
    assert 'url = "https://github.com/Ann/copies/archive/c0de.zip"\n' in cell
    assert "url = {https://ann.github.io/copies/book/05_knockoff.html}" in furniture.bibtex("book/05_knockoff", "X")


def test_bibtex():
    lines = furniture.bibtex("book/05_knockoff", "Knockoff nets").splitlines()
    assert lines[:3] == [
        "@incollection{extractlib-05-knockoff,",
        "  author = {{The extractlib authors}},",
        "  title = {Knockoff nets},",
    ]
    assert lines[-1] == "}" and all(re.fullmatch(r"  \w+ = \{.+\},", line) for line in lines[1:-1])


# The reference.


def test_every_module_is_on_one_page_of_the_reference():
    pages = {path: path.read_text(encoding="utf-8") for path in execute.BOOK.glob("api_*.md")}
    named = [name for text in pages.values() for name in re.findall(r"^\.\. automodule:: (\S+)$", text, re.M)]
    modules = {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        for folder in execute.PACKAGES.values()
        for path in folder.rglob("*.py")
        if sizes.code_lines(path.read_bytes())
    }
    inner = re.compile(
        r"extractbook\.(build|sphinx|cli|__main__|figures\.chapter_|exercises\.(chapter_|assigned|hand_in|run_submission))|extractlib\.(cli|__main__|exercises)"
        r"|extractlib\.data\.drawn\.(?!canvas|vocabulary)|extract(lib|book)(\.(api|attacks|data|defenses|models|reproduction))?$"
    )
    assert len(named) == len(set(named))
    assert set(named) == {name for name in modules if not inner.match(name)}
    for text in pages.values():
        introduction = text.split("\n\n")[1]
        assert len(introduction.splitlines()) == 2 and introduction.count(".\n") == 1


# Ids.


def test_repeated_ids_are_numbered():
    part = '<section id="{0}-content"><p>id="{0}-content"</p></section><section id="{0}-content">'
    body = furniture.ids_apart(part.format("exercise") + part.format("solution") + '<p id="limits">')
    found = re.findall(r'(?<!>)id="([\w-]+)"', body)
    assert found == ["exercise-content-1", "exercise-content-2", "solution-content-1", "solution-content-2", "limits"]
    assert body.count('<p>id="exercise-content"</p>') == 1


@dataclass(frozen=True)
class Script:
    filename: str
    attributes: str = ""


def test_a_page_is_completed():
    scripts = [Script("_static/quiz.js"), Script("https://unpkg.com/thebe@0.8.2/lib/index.js"), Script("", "initThebe")]
    page = {"body": '<div role="list" class="citation-list">', "title": "5. Knockoff nets", "script_files": scripts}
    furniture.finish(None, "book/05_knockoff", "page.html", page, doctree=object())
    assert page["script_files"] == scripts[:1]
    assert page["body"].startswith('<div><details class="fold" id="cite">')
    assert "title = {Knockoff nets}," in page["body"]
    page = {"body": "<p>", "title": "Glossary", "script_files": []}
    furniture.finish(None, "book/glossary", "page.html", page, doctree=object())
    assert page["body"] == "<p>"


def test_the_buttons_open_what_has_no_solutions():
    groups = [
        {"label": "launch-buttons", "buttons": [{"url": "https://colab.example/book/05_knockoff.ipynb"}]},
        {
            "label": "download-buttons",
            "buttons": [{"url": "_sources/book/05_knockoff.ipynb"}, {"javascript": "print()"}],
        },
    ]
    page = {"body": "", "title": "5. Knockoff nets", "script_files": [], "header_buttons": groups}
    furniture.finish(None, "book/05_knockoff", "page.html", page, doctree=object())
    assert {one["text"]: one["url"] for one in groups[0]["buttons"]} == furniture.launch("05_knockoff")
    assert groups[1]["buttons"] == [{"javascript": "print()"}]


def test_numbers_keep_their_spread_and_pictures_wait():
    body = furniture.mended('<p>0.73 ± 0.04 and a ± b</p><img src="a"><img src="b"><img src="c">')
    assert body.startswith("<p>0.73\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.04 and a ± b</p>")
    assert body.endswith('<img src="a"><img loading="lazy" src="b"><img loading="lazy" src="c">')


def test_icons_come_from_fonts_and_the_sidebar_is_a_landmark():
    script = '<script src="../_static/scripts/fontawesome.js?digest=1"></script>'
    page = f'<head>\n  {script}\n  <script src="a.js"></script></head><div class="bd-sidebar-primary bd-sidebar">'
    assert furniture.lightened(page) == (
        '<head>\n  <script src="a.js"></script></head>'
        '<div class="bd-sidebar-primary bd-sidebar" role="navigation" aria-label="Book">'
    )


def test_what_is_no_page_is_added(tmp_path):
    builder = SimpleNamespace(format="html")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "05_knockoff.html").touch()
    (tmp_path / "404.html").write_text('<html><head><link href="/extractlib/_static/a.css"></head></html>')
    furniture.complete(SimpleNamespace(builder=builder, outdir=tmp_path), None)
    assert f"<loc>{furniture.site()}book/05_knockoff.html</loc>" in (tmp_path / "sitemap.xml").read_text()
    assert f"Sitemap: {furniture.site()}sitemap.xml" in (tmp_path / "robots.txt").read_text()
    front = (tmp_path / "index.html").read_text()
    assert f'property="og:image" content="{furniture.site()}_static/front.png"' in front
    assert 'content="0; url=book/index.html"' in front
    missing = (tmp_path / "404.html").read_text()
    assert 'href="_static/a.css"' in missing and missing.index("<base") < missing.index("<link")


# Questions.

GOOD = """
- question: One?
  choices: {a: x, b: y}
  feedback: {a: no, b: yes}
  answer: o
"""


def test_the_answer_is_moved_by_13_letters():
    [question] = quiz.questions(GOOD)
    assert question["answer"] == "b"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b: yes", "c: yes", "question 1 has choices a, b and feedback for a, c"),
        ("answer: o", "answer: b", "question 1: 'o' is not one of its choices a, b"),
        (
            "  answer: o\n",
            "",
            "question 1 needs question, choices, feedback, answer, but has question, choices, feedback",
        ),
        ("{a: x, b: y}\n  feedback: {a: no, b: yes}", "{b: y}\n  feedback: {b: yes}", "question 1 has choices b"),
    ],
)
def test_a_question_that_lacks_something_is_refused(old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        quiz.questions(GOOD.replace(old, new))


# Grids.


def test_a_threshold_has_the_means_of_the_curves_of_all_seeds():
    curves = [[[0.0, 0.5, 1.0], [1.0, 0.8, 0.0]], [[0.0, 0.5, 1.0], [1.0, 0.6, 0.0]]]
    other = [[0.0, 1.0], [1.0, 0.0]]
    columns = [f"{who}.{pool}.roc" for who in ("binary", "odin", "mahalanobis") for pool in ("pool", "second")]
    rows = [{"task": "birds"} | dict.fromkeys(columns, other) for _ in curves]
    rows += [{"task": "signs"} | dict.fromkeys(columns, other) | {"odin.second.roc": curve} for curve in curves]
    grid = sliders.thresholds(pd.DataFrame(rows))
    assert grid["choices"]["Task"] == ["birds", "signs"]
    assert [len(grid["choices"][name]) for name in ("Task", "Detector", "Queries from")] == [2, 3, 2]
    assert len(grid["series"]) == 12
    assert grid["series"]["0,0,0"] == [
        (0.0, 1.0, ["0.0%", "100.0%", "100.0", "0.0", 2]),
        (1.0, 0.0, ["100.0%", "0.0%", "0.0", "100.0", 2]),
    ]
    assert grid["series"]["1,1,1"][1] == (0.5, pytest.approx(0.7), ["50.0%", "70.0%", "50.0", "30.0", 2])


def test_thresholds_of_the_book_are_measured():
    grid = sliders.thresholds(newest("detection"))
    assert len(grid["choices"]["Task"]) == 5 and len(grid["series"]) == 30
    for points in grid["series"].values():
        for tpr, tnr, words in points:
            assert 0 <= tpr <= 1 and 0 <= tnr <= 1
            assert "{" not in sliders.WORDS["sentence"].format(*words)


def test_works_of_the_same_authors_and_year_are_told_apart():
    """By letters in the order of their titles, where a citation names one author, two, or the first of more."""

    def entry(authors, title, year="2020"):
        return Entry("misc", {"title": title, "year": year}, {"author": [Person(name) for name in authors.split("; ")]})

    entries = [
        entry("Atli, Buse; Szyller, Sebastian; Asokan, N.", "Slides"),
        entry("Atli, Buse; Juuti, Mika; Marchal, Samuel; Asokan, N.", "Extraction"),
        entry("Atli, Buse; Asokan, N.", "Two"),
        entry("Atli, Buse; Asokan, N.", "Later", "2021"),
        entry("Jia, H.", "Proof"),
        entry("Jia, H.", "Marks"),
    ]
    for _ in range(2):
        furniture.years_apart(entries)
    assert [one.fields["year"] for one in entries] == ["2020b", "2020a", "2020", "2021", "2020b", "2020a"]
