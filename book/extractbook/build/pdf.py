"""Print the built pages as one PDF, run by ``make pdf`` after ``make book``."""

import sys
from io import BytesIO
from pathlib import Path

import yaml
from pypdf import PdfReader, PdfWriter

from extractbook.build import pages as build
from extractbook.build.browser import PATIENCE, browser, served

PDF = build.PAGES / "stealing-classifiers.pdf"
MARGIN = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
NUMBER = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'


def order() -> list[str]:
    """Return the book's pages, without suffix, in the order of its table of contents."""
    toc = yaml.safe_load((build.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def main() -> int:
    """Print every page in light, its folds open, and write them as one file with an outline."""
    if not build.STAMP.exists():
        return build.finish("no complete book in _build/html: run make book first", status=1)
    book = PdfWriter()
    with browser() as chromium, served(build.PAGES) as address:
        page = chromium.new_page(color_scheme="light")
        page.set_default_timeout(PATIENCE)
        for name in order():
            page.goto(f"{address}{name}.html", wait_until="networkidle")
            page.evaluate(
                "document.querySelectorAll('details').forEach(fold => { fold.open = !fold.matches('.fold') })"
            )
            title = page.locator("article h1").first.evaluate("heading => heading.firstChild.textContent")
            printed = page.pdf(
                format="A4",
                margin=MARGIN,
                scale=0.75,  # or the widest tables are cut off
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=NUMBER,
            )
            book.append(PdfReader(BytesIO(printed)), outline_item=title)
            print(f"{title}: {len(book.pages)} pages so far", flush=True)
    partial = Path(f"{PDF}.partial")
    book.write(partial)
    partial.replace(PDF)
    return build.finish(f"The book is in {PDF}")


if __name__ == "__main__":
    sys.exit(main())
