"""What the book's own Sphinx extensions make: addresses, citations, questions and grids."""

import re
from dataclasses import dataclass
from types import SimpleNamespace

import nbformat
import pytest
import test_ledger

from benchmarks import sizes
from extractbook.build import execute
from extractbook.reproduction.ledger import Evidence
from extractbook.sphinx import furniture, quiz, sliders

TRACKED = [path for name in ("book", "binder", ".github") for path in (execute.ROOT / name).rglob("*")]
BLOCK = re.compile(r"^```\{sliders\} ?(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SLIDERS = [
    (path.stem, name, text)
    for path in execute.notebooks()
    for cell in nbformat.read(path, as_version=4).cells
    for name, text in BLOCK.findall(cell.source)
]


# The address.


def test_the_address_stands_in_one_place():
    """Elsewhere it is only in the cells that other machines begin with, and those are compared with it."""
    texts = [(path, path.read_text()) for path in TRACKED if path.suffix in {".ipynb", ".md", ".py", ".yml", ".txt"}]
    texts += [(path, path.read_text()) for path in execute.ROOT.glob("*") if path.is_file() and path.name[0] != "."]
    naming = {path.name for path, text in texts if "github.com/extractlib" in text or "extractlib.github" in text}
    compared = {"README.md", "CITATION.cff", "pyproject.toml"}  # by test_publication.py
    assert naming - {path.name for path in execute.notebooks()} == {"_config.yml"} | compared


@pytest.fixture
def elsewhere(monkeypatch):
    """Another address in the configuration."""
    settings = furniture.configuration()
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
        ("answer: o", "answer: b", "question 1: 'o' is none of its choices a, b"),
        (
            "  answer: o\n",
            "",
            "question 1 needs question, choices, feedback, answer and has question, choices, feedback",
        ),
        ("{a: x, b: y}\n  feedback: {a: no, b: yes}", "{b: y}\n  feedback: {b: yes}", "question 1 has choices b"),
    ],
)
def test_a_question_that_lacks_something_is_refused(old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        quiz.questions(GOOD.replace(old, new))


# Grids.


def row(task: str, seed: int, recovery: float, **changes):
    result = {"recovery": recovery, "victim_accuracy": 0.8, "surrogate_accuracy": 0.8 * recovery}
    return test_ledger.row(task, seed, result, **({"budget": 10_000} | changes))


def test_budget_grid_holds_the_means_where_something_was_measured():
    rows = [row("signs", seed, 0.8 + 0.1 * seed) for seed in range(2)] + [row("signs", 0, 0.4, budget=1_000)]
    rows += [row("signs", 0, 0.7, granularity="label")]
    grid = sliders.budget(Evidence(rows))
    full, label = grid["choices"]["Answers"].index("full"), grid["choices"]["Answers"].index("label")
    assert grid["choices"]["Task"] == ["signs"]
    assert set(grid["series"]) == {f"0,{full}", f"0,{label}"}
    assert grid["series"][f"0,{full}"] == [
        (0.0, 0.4, ["1,000", "0.40", "1"]),
        (pytest.approx(1.0), pytest.approx(0.85), ["10,000", "0.85 ± 0.07", "2"]),
    ]


def test_threshold_grid_is_the_mean_of_the_curves():
    curves = [[[0.0, 0.5, 1.0], [1.0, 0.8, 0.0]], [[0.0, 0.5, 1.0], [1.0, 0.6, 0.0]]]
    measured = [
        {who: {pool: {"roc": roc} for pool in ("pool", "second")} for who in ("binary", "odin", "mahalanobis")}
        for roc in curves
    ]
    cell = {"experiment": "detection", "surrogate": "", "budget": 0}
    rows = [test_ledger.row("signs", seed, result, **cell) for seed, result in enumerate(measured)]
    rows += [row("signs", 0, 0.9)]
    grid = sliders.threshold(Evidence(rows))
    assert len(grid["series"]) == 6
    assert grid["series"]["0,0,0"][1] == (0.5, pytest.approx(0.7), ["50.0%", "70.0%", "50.0", "30.0", "2"])


def test_overlap_grid():
    rows = [row("signs", 0, 0.9)]
    options = {"experiment": "overlap", "surrogate": "", "budget": 0, "pool": "signs/shifted", "overlap": 0.5}
    rows += [test_ledger.row("signs", seed, {"balanced_accuracy": 0.6}, **options) for seed in range(2)]
    assert sliders.overlap(Evidence(rows))["series"] == {"0,0": [(0.5, 0.6, ["50%", "0.60 ± 0.00", "2"])]}


@pytest.mark.parametrize(("chapter", "name", "text"), SLIDERS)
def test_grids_of_the_book_are_measured(chapter, name, text):
    grid = sliders.GRIDS[name](Evidence(sliders.first_edition("drawn")))
    assert text.strip() and grid["series"]
    for points in grid["series"].values():
        for across, upward, words in points:
            assert 0 <= across <= 1 and 0 <= upward <= 1.2
            assert "{" not in sliders.TEXTS[name]["sentence"].format(*words)
