"""The book as one PDF, run by ``make check-pages`` after ``make pdf``."""

import re
import unicodedata

from bs4 import BeautifulSoup
from pypdf import PdfReader

from extractbook.build import pdf
from extractbook.sphinx import furniture


def titles() -> list[str]:
    parsed = (BeautifulSoup((pdf.pages.PAGES / f"{name}.html").read_text(), "html.parser") for name in pdf.order())
    return [page.select_one("article h1").find(string=True, recursive=False).strip() for page in parsed]


def test_pdf_holds_every_page_in_order():
    assert pdf.PDF.exists(), f"no {pdf.PDF.name}: run make pdf first"
    document = PdfReader(pdf.PDF)
    assert [item.title.strip() for item in document.outline] == ["Contents", *titles()]
    contents, *starts = [document.get_destination_page_number(item) for item in document.outline]
    assert contents == 0 and starts == sorted(set(starts))
    assert not any(name.startswith("book/api") for name in pdf.order())
    # A chapter fills several sheets; the book is neither cut off nor blown up by a figure that will not fit.
    assert 2 * len(starts) <= len(document.pages) <= 25 * len(starts)
    for title, start in zip(titles(), starts, strict=True):
        text = unicodedata.normalize("NFKC", document.pages[start].extract_text())  # undoes ligatures
        assert " ".join(title.split()) in " ".join(text.split())


def test_pages_are_numbered_through_and_listed():
    document = PdfReader(pdf.PDF)
    starts = {item.title.strip(): document.get_destination_page_number(item) for item in document.outline}
    listed = " ".join(" ".join(document.pages[number].extract_text() for number in range(starts[titles()[0]])).split())
    for title in titles():
        number = starts[title] + 1
        assert re.search(rf"{re.escape(' '.join(title.split()))} ?{number}\b", unicodedata.normalize("NFKC", listed))
        assert document.pages[number - 1].extract_text().rstrip().endswith(str(number))


def test_links_lead_to_the_published_book_and_the_file_says_what_it_is():
    document = PdfReader(pdf.PDF)
    links = {
        note.get_object()["/A"]["/URI"]
        for sheet in document.pages
        for note in sheet.get("/Annots", [])
        if "/URI" in note.get_object().get("/A", {})
    }
    assert len(links) > 50 and any(link.startswith(furniture.site()) for link in links)
    assert [link for link in links if re.search(r"127\.0\.0\.1|localhost|file:", link)] == []
    cited = furniture.configuration("CITATION.cff")
    assert document.metadata.title == cited["title"] and document.metadata.author == cited["authors"][0]["name"]
