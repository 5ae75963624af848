"""Print the built pages as one PDF."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from playwright.sync_api import Browser, Route, sync_playwright
from pypdf import PdfReader, PdfWriter

from extractbook.build import pages
from extractbook.sphinx import furniture
from extractlib.errors import InputError

PDF = pages.PAGES / "stealing-classifiers.pdf"
SHEET: dict[str, Any] = {
    "format": "A4",
    "margin": {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
    "scale": 0.75,  # or the widest tables are cut off
    "print_background": True,
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>',
}
UNFOLD = "document.querySelectorAll('details').forEach(fold => { fold.open = !fold.matches('.fold') })"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
PATIENCE = 300_000
"""How long a page may take before it counts as broken, in milliseconds: busy machines are slow."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a headless chromium.

    Raises:
        InputError: There is none on this machine.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InputError(f"no {' or '.join(BROWSERS)} here: install one, as with apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=list(QUIET))


def order() -> list[str]:
    """Return the book's pages, without suffix, in the order of its table of contents."""
    toc = yaml.safe_load((pages.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def answer(route: Route) -> None:
    """Give a browser that asks for the published pages the built ones, and nothing of any other host."""
    path = pages.PAGES / urlsplit(route.request.url).path.removeprefix(urlsplit(furniture.site()).path)
    if route.request.url.startswith(furniture.site()) and path.is_file():
        route.fulfill(path=path)
    else:
        route.abort()


def print_book() -> int:
    """Print every page in light, its folds open, write them as one file with an outline, and return the exit status."""
    if not pages.STAMP.exists():
        return pages.finish("no complete book in _build/html: run make book first", status=1)
    book = PdfWriter()
    with browser() as chromium:
        page = chromium.new_page(color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.route("**/*", answer)
        for name in order():
            page.goto(f"{furniture.site()}{name}.html", wait_until="networkidle")
            page.evaluate(UNFOLD)
            title = page.locator("article h1").first.evaluate("heading => heading.firstChild.textContent")
            book.append(PdfReader(BytesIO(page.pdf(**SHEET))), outline_item=title)
            print(f"{title}: {len(book.pages)} pages so far", flush=True)
    partial = Path(f"{PDF}.partial")
    book.write(partial)
    partial.replace(PDF)
    return pages.finish(f"The book is in {PDF}")
