"""Print the built pages as one PDF."""

from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from pypdf import PdfReader, PdfWriter

from extractbook.build import pages
from extractbook.build.browser import browser, serve
from extractbook.sphinx import furniture

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


def order() -> list[str]:
    """Return the book's pages, without suffix, in the order of its table of contents."""
    toc = yaml.safe_load((pages.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def print_book() -> int:
    """Print every page in light, its folds open, write them as one file with an outline, and return the exit status."""
    if not pages.STAMP.exists():
        return pages.finish("no complete book in _build/html: run make book first", status=1)
    book = PdfWriter()
    with browser() as chromium:
        context = chromium.new_context(color_scheme="light")
        serve(context, pages.PAGES, furniture.site())
        page = context.new_page()
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
