"""The bibliography: each entry is whole and has its line in the table of checks, as has each key that is cited."""

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import nbformat
import pytest
from pybtex.database import Entry, Person, parse_file

from extractbook.build import execute

KEY = re.compile(r"[a-z0-9]+?(\d{4})[a-z]+\d*")
CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ENTRIES = parse_file(execute.BOOK / "references.bib").entries
LINES = {
    line["key"]: line
    for line in csv.DictReader((execute.BOOK / "extractbook" / "references.csv").read_text("utf-8").splitlines())
}


def faults(entries: Mapping[str, Entry], lines: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield what is amiss with a bibliography and its table of checks, one sentence a fault."""
    for key, entry in entries.items():
        fields, year = entry.fields, KEY.fullmatch(key)
        if not year or year[1] != fields.get("year"):
            yield f"{key} is not a name, the entry's year and a word"
        if not entry.persons.get("author") or not fields.get("title"):
            yield f"{key} has no author or no title"
        if not {"doi", "eprint", "url"} & set(fields):
            yield f"{key} has neither DOI nor arXiv number nor address"
        if not re.fullmatch(r"10\.\d{4,}/\S+", fields.get("doi", "10.1000/1")):
            yield f"{key} has no DOI in {fields['doi']}"
        if not re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1910.05429")):
            yield f"{key} has no arXiv number in {fields['eprint']}"
    yield from (f"{key} has no line" for key in entries if key not in lines)
    for key, line in lines.items():
        if key not in entries:
            yield f"{key} has no entry"
        if not re.search(r"https?://|[\w.-]+/[\w.-]+|stored files? \d+", line["found"]) or not line["agreed"]:
            yield f"{key} does not say where it was found, and what agreed"
        if date.fromisoformat(line["checked"]) < date(2026, 1, 1):
            yield f"{key} was not checked in this edition"


def cited(path: Path) -> set[str]:
    """Return the keys that a page or a notebook cites."""
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    else:
        text = path.read_text(encoding="utf-8")
    return {key.strip() for keys in CITE.findall(text) for key in keys.split(",")}


def test_every_entry_is_whole_and_was_checked():
    assert list(faults(ENTRIES, LINES)) == []


def test_there_are_seventy_at_least_and_half_of_them_are_later_than_the_paper():
    years = [int(entry.fields["year"]) for entry in ENTRIES.values()]
    assert len(years) >= 70
    assert sum(year > 2019 for year in years) > len(years) / 2


@pytest.mark.parametrize(
    "path", sorted({*execute.BOOK.glob("*.ipynb"), *execute.BOOK.glob("*.md")}), ids=lambda p: p.stem
)
def test_what_a_page_cites_has_an_entry_and_a_line(path):
    assert cited(path) <= set(ENTRIES)
    assert cited(path) <= set(LINES)


SOUND = Entry("misc", {"title": "T", "year": "2020", "eprint": "1910.05429"}, {"author": [Person("Atli, Buse")]})
LINE = {"found": "https://arxiv.org/abs/1910.05429", "checked": "2026-11-27", "agreed": "title"}


@pytest.mark.parametrize(
    ("key", "changes", "line", "fault"),
    [
        ("atli2019x", {}, {}, "is not a name"),
        ("atli2020x", {"title": ""}, {}, "no title"),
        ("atli2020x", {"eprint": None}, {}, "neither DOI"),
        ("atli2020x", {"eprint": "abs/19"}, {}, "no arXiv number in abs/19"),
        ("atli2020x", {"doi": "11.1/2"}, {}, "no DOI in 11.1/2"),
        ("atli2020x", {}, {"found": "by heart"}, "where it was found"),
        ("atli2020x", {}, {"agreed": ""}, "what agreed"),
        ("atli2020x", {}, {"checked": "2019-01-01"}, "not checked"),
    ],
)
def test_a_faulty_entry_is_found_out(key, changes, line, fault):
    assert list(faults({"atli2020x": SOUND}, {"atli2020x": LINE})) == []
    fields = {name: text for name, text in {**SOUND.fields, **changes}.items() if text is not None}
    broken = Entry("misc", fields, SOUND.persons)
    assert any(fault in text for text in faults({key: broken}, {key: {**LINE, **line}}))


def test_a_missing_line_and_a_missing_entry_are_found_out():
    assert list(faults({"atli2020x": SOUND}, {})) == ["atli2020x has no line"]
    assert list(faults({}, {"atli2020x": LINE})) == ["atli2020x has no entry"]
