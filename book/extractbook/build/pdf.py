"""Print the built pages as one PDF."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from playwright.sync_api import Browser, Page, Route, sync_playwright
from pypdf import PdfReader, PdfWriter

from extractbook.build import pages
from extractbook.sphinx import furniture, template
from extractlib.errors import InputError

PDF = pages.PAGES / "stealing-classifiers.pdf"
SHEET: dict[str, Any] = {
    "format": "A4",
    "margin": {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
    "scale": 0.75,  # otherwise the widest tables are cut off
    "print_background": True,
}
UNFOLD = "document.querySelectorAll('details').forEach(fold => { fold.open = !fold.matches('.fold') })"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PATIENCE = 300_000
"""How long a page may take before it is considered broken, in milliseconds: busy machines are slow."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a headless chromium.

    Raises:
        InputError: None is installed on this machine.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InputError(f"found no {' or '.join(BROWSERS)}: install one, for example with apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=list(QUIET))


def order() -> list[str]:
    """Return the book's pages, without suffix, in the order of its table of contents, except for the API reference."""
    toc = yaml.safe_load((pages.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return [name for name in listed if not name.startswith("book/api")]


def answer(route: Route) -> None:
    """Answer a browser's request for a published page with the built one, and refuse requests to other hosts."""
    path = pages.PAGES / urlsplit(route.request.url).path.removeprefix(urlsplit(furniture.site()).path)
    if route.request.url.startswith(furniture.site()) and path.is_file():
        route.fulfill(path=path)
    else:
        route.abort()


def print_book() -> int:
    """Print every page in light mode, with its folds open, as one file with contents, numbers and an outline.

    Returns:
        The exit status.
    """
    if not pages.STAMP.exists():
        return pages.finish("no complete book in _build/html: run make book first", status=1)
    with browser() as chromium:
        page = chromium.new_page(color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.route("**/*", answer)
        printed = {}
        for name in order():
            page.goto(f"{furniture.site()}{name}.html", wait_until="networkidle")
            page.evaluate(UNFOLD)
            title = page.locator("article h1").first.evaluate("heading => heading.firstChild.textContent").strip()
            printed[title] = PdfReader(BytesIO(page.pdf(**SHEET)))
            print(f"{title}: {len(printed[title].pages)} pages", flush=True)
        book = bound(page, printed)
    partial = Path(f"{PDF}.partial")
    book.write(partial)
    partial.replace(PDF)
    return pages.finish(f"The book is in {PDF}")


def bound(page: Page, printed: Mapping[str, PdfReader]) -> PdfWriter:
    """Return one document: a title page with contents, the printed pages by title, and continuous page numbers."""
    lengths = [len(part.pages) for part in printed.values()]
    front = _front(page, dict.fromkeys(printed, 0))
    starts = dict(zip(printed, accumulate(lengths, initial=len(front.pages)), strict=False))
    front = _front(page, {title: start + 1 for title, start in starts.items()})
    book = PdfWriter()
    book.append(front, outline_item="Contents")
    for title, part in printed.items():
        book.append(part, outline_item=title)
    numbers = PdfReader(BytesIO(_sheet(page, "numbers", count=len(book.pages))))
    for number, sheet in enumerate(book.pages):
        if number:
            sheet.merge_page(numbers.pages[number])
    cited = furniture.configuration("CITATION.cff")
    author = ", ".join(one.get("name") or f"{one['given-names']} {one['family-names']}" for one in cited["authors"])
    book.add_metadata({"/Title": cited["title"], "/Author": author, "/Subject": cited["abstract"]})
    return book


def _front(page: Page, starts: Mapping[str, int]) -> PdfReader:
    settings = furniture.configuration()
    facts = {"title": settings["title"], "author": settings["author"], "site": furniture.site()}
    return PdfReader(BytesIO(_sheet(page, "contents", starts=starts, commit=furniture.commit()[:12], **facts)))


def _sheet(page: Page, name: str, **values: object) -> bytes:
    page.set_content(template(name, **values))
    return page.pdf(format="A4", margin=SHEET["margin"] if name == "contents" else None)
