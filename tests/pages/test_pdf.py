"""The book as one PDF, run by ``make check-pages`` after ``make pdf``."""

import unicodedata

from bs4 import BeautifulSoup
from pypdf import PdfReader

from extractbook.build import pdf


def titles() -> list[str]:
    parsed = (BeautifulSoup((pdf.pages.PAGES / f"{name}.html").read_text(), "html.parser") for name in pdf.order())
    return [page.select_one("article h1").find(string=True, recursive=False).strip() for page in parsed]


def test_pdf_holds_every_page_in_order():
    assert pdf.PDF.exists(), f"no {pdf.PDF.name}: run make pdf first"
    document = PdfReader(pdf.PDF)
    assert [item.title.strip() for item in document.outline] == titles()
    starts = [document.get_destination_page_number(item) for item in document.outline]
    assert starts[0] == 0 and starts == sorted(set(starts))
    # A chapter fills several sheets; the book is neither cut off nor blown up by a figure that will not fit.
    assert 2 * len(starts) <= len(document.pages) <= 25 * len(starts)
    for title, start in zip(titles(), starts, strict=True):
        text = unicodedata.normalize("NFKC", document.pages[start].extract_text())  # undoes ligatures
        assert " ".join(title.split()) in " ".join(text.split())
