"""The built pages, run by ``make check-pages`` after ``make book``: nothing missing, nothing broken."""

import ast
import re
from collections import Counter
from copy import copy
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from chapters import MAGIC

from extractbook.build import execute
from extractbook.sphinx import furniture

BUILD = Path(__file__).resolve().parents[2] / "_build"
HTML = BUILD / "html"
BOOK_PAGES = sorted((HTML / "book").glob("*.html"))
NOTEBOOKS = sorted((BUILD / "source" / "book").glob("*.ipynb"))
SHOWING = {"print", "display", "show", "say"}

pages = pytest.mark.parametrize("path", BOOK_PAGES, ids=lambda path: path.stem)
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def parse(path: Path) -> BeautifulSoup:
    """Return a page, which no test may change: each is asked about many things, and takes up to a second to parse."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return what a link can lead to in a page: all pages link to each other."""
    return frozenset(tag["id"] for tag in parse(path).select("[id]"))


def should_show(source: str) -> bool:
    """Say whether a cell's code ends in a value or calls, on its top level, something that displays."""
    statements = ast.parse(MAGIC.sub(r"\1pass", source)).body
    expressions = [statement.value for statement in statements if isinstance(statement, ast.Expr)]
    ends_in_value = bool(statements) and isinstance(statements[-1], ast.Expr) and not source.rstrip().endswith(";")
    calls = [expression.func for expression in expressions if isinstance(expression, ast.Call)]
    return ends_in_value or any(getattr(call, "attr", getattr(call, "id", "")) in SHOWING for call in calls)


def test_the_book_is_built_and_complete():
    assert (HTML / ".inputs").exists(), "no complete book in _build/html: run make book first"
    written = {path.stem for path in execute.BOOK.iterdir() if path.suffix in {".md", ".ipynb"}}
    assert {path.stem for path in BOOK_PAGES} == written
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in execute.notebooks()}


def test_chapters_keep_within_their_memory():
    """At scale drawn: 1.5 GB for each chapter. What each takes in seconds is on the page on how the book is made."""
    runs = {name: run for name, run in execute.recorded().items() if run.scale == "drawn"}
    assert {name: run.peak_megabytes for name, run in runs.items() if run.peak_megabytes > 1536} == {}


@notebooks
def test_every_cell_has_the_output_it_should_have(path):
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    checked = [cell for cell in code if "no-output" not in cell.metadata.get("tags", [])]
    silent = [cell.source for cell in checked if should_show(cell.source) and not cell.outputs]
    assert silent == []


@notebooks
def test_every_output_is_on_the_page(path):
    cells = nbformat.read(path, as_version=4).cells
    hidden = {"remove-cell", "remove-output"}
    shown = [cell for cell in cells if cell.get("outputs") and not hidden & set(cell.metadata.get("tags", []))]
    outputs = parse(HTML / "book" / f"{path.stem}.html").select("div.cell div.cell_output")
    assert len(outputs) == len(shown)
    assert [output for output in outputs if not output.get_text(strip=True) and not output.find(["img", "svg"])] == []


@pages
def test_no_error_or_warning_shows(path):
    page = parse(path)
    assert [str(tag) for tag in page.select(".traceback, .stderr, .system-message, .problematic")] == []
    assert "Traceback (most recent call last)" not in page.get_text()


@pages
def test_no_markup_shows_as_text(path):
    """A table, a formatted word or a citation that was not rendered would stand in the text as it was written."""
    article = copy(parse(path).select_one("article"))
    for code in article.select("pre, code, .math, dt.sig"):
        code.decompose()
    assert re.findall(r"\| :?[-–—]+:? \||:-{3}|\*\*[A-Z]|\]\(\w|\{cite", article.get_text()) == []


@pages
def test_every_image_has_alternative_text(path):
    images = parse(path).find_all("img")
    # Without a text Sphinx writes the file's name.
    wanting = [image["src"] for image in images if not re.search(r"\w+ \w+", image.get("alt", ""))]
    assert [source for source in wanting if "_static" not in source] == []


@pages
def test_every_figure_is_numbered_and_captioned(path):
    for figure in parse(path).select("article figure"):
        assert re.match(r"Fig\. \d+", figure.select_one("figcaption .caption-number").get_text())
        assert len(figure.select_one("figcaption .caption-text").get_text().split()) > 2


@pages
def test_no_id_is_used_twice(path):
    ids = Counter(tag["id"] for tag in parse(path).select("[id]"))
    assert [name for name, uses in ids.items() if uses > 1] == []


@pages
def test_every_internal_link_works(path):
    broken = []
    for tag in parse(path).select("[href], [src]"):
        link = tag.get("href") or tag.get("src") or ""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            broken.append(link)
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in anchors(target):
            broken.append(link)
    assert broken == []


def test_front_page_is_where_visitors_look():
    """The site's root leads there, and shows a picture where its address is shared."""
    page = parse(HTML / "index.html")
    assert page.select_one("a")["href"] == "book/index.html"
    meta = {tag["property"]: tag["content"] for tag in page.select("meta[property]")}
    assert (HTML / meta["og:image"].removeprefix(furniture.site())).is_file() and meta["og:url"] == furniture.site()


def test_the_front_page_leads_to_all_that_can_be_taken_along():
    links = {tag["href"] for tag in parse(HTML / "book" / "index.html").select("article a[href]")}
    names = (
        "stealing-classifiers.pdf",
        "notebooks.zip",
        "data/rows.csv",
        "data/rows.parquet",
        "slides/05_knockoff.html",
    )
    assert [name for name in names if f"{furniture.site()}{name}" not in links] == []


def test_the_map_of_the_site_has_every_page():
    addresses = re.findall(r"<loc>(.*)</loc>", (HTML / "sitemap.xml").read_text())
    assert addresses == [f"{furniture.site()}book/{path.name}" for path in BOOK_PAGES]


@pages
def test_no_spread_is_torn_from_its_number(path):
    assert re.findall(r"\d ± \d", parse(path).select_one("article").get_text()) == []


@pages
def test_every_way_out_leads_to_a_file_of_the_repository(path):
    """Edit, launch and source links name a file, which must be in this clone; what is launched lies in book/launch."""
    links = {tag["href"] for tag in parse(path).select("a[href]")}
    repository = furniture.repository()
    files = [
        unquote(re.sub(r".*/(?:edit|blob)/[^/]+/|.*urlpath=lab/tree/|[?#].*$", "", link))
        for link in links
        if link.startswith((f"{repository}/edit/", f"{repository}/blob/"))
    ]
    written = next(file for file in (execute.BOOK.glob(f"{path.stem}.*")) if file.suffix in {".md", ".ipynb"})
    assert [name for name in files if not (execute.ROOT / name).is_file()] == []
    assert files.count(f"book/{written.name}") == 1
    assert written.suffix != ".ipynb" or set(furniture.launch(path.stem).values()) <= links


@pages
def test_page_can_be_downloaded_and_reported(path):
    links = {tag["href"] for tag in parse(path).select("a[href]")}
    if (execute.BOOK / f"{path.stem}.ipynb").exists():
        download = furniture.launch(path.stem)["Download"]
        assert download in links and (HTML / download.removeprefix(furniture.site())).is_file()
        assert not any(link.endswith(".ipynb") and "_sources" in link for link in links)
    else:
        assert any("_sources/book/" in link for link in links)
    assert any(link.startswith(f"{furniture.repository()}/issues/new") for link in links)


@pages
def test_plots_have_their_data_beside_them(path):
    """A plot is an SVG; pictures, such as contact sheets, are PNG and have no table."""
    plots = [image for image in parse(path).select("article figure img") if image["src"].endswith(".svg")]
    for image in plots:
        table = image.find_parent("div", class_="cell").find_next_sibling("details")
        assert table and table.summary.get_text() == "Data of this figure", image["alt"]
        assert len(table.select("tbody tr")) >= 1 and not table.find("td", string="nan")


@pages
def test_social_preview_is_on_the_books_own_site(path):
    meta = {tag["property"]: tag["content"] for tag in parse(path).select("meta[property]")}
    assert meta["og:site_name"] == furniture.configuration()["title"]
    assert meta["og:url"] == f"{furniture.site()}book/{path.name}"
    assert (HTML / meta["og:image"].removeprefix(furniture.site())).is_file()
