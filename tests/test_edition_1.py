"""The rows of the first edition: all there, with the code that made them, and read strictly."""

import json
from pathlib import Path

import pytest

from extractbook.reproduction import Row, edition_1
from extractlib.errors import InputError

FOLDER = Path(__file__).parents[1] / "book" / "extractbook" / "results" / "edition-1"


@pytest.fixture(scope="module")
def files() -> dict[str, list[Row]]:
    """All rows, by scale and table."""
    paths = sorted(FOLDER.glob("*/*.json"))
    return {f"{path.parent.name}/{path.stem}": edition_1.read(path) for path in paths}


def test_all_rows_are_there(files):
    counts = {scale: [len(files[name]) for name in files if name.startswith(scale)] for scale in ("drawn", "small-cpu")}
    assert [len(found) for found in counts.values()] == [14, 14]
    assert [sum(found) for found in counts.values()] == [1_006, 254]
    assert len(files["drawn/overlap"]) == 200
    assert sum(row.cell.overlap == 0.25 for row in files["drawn/overlap"]) == 40


def test_results_are_what_the_files_say_to_the_last_digit(files):
    for name, rows in files.items():
        lines = (FOLDER / f"{name}.json").read_text(encoding="utf-8").splitlines()
        kept = [json.loads(line.rstrip(",")) for line in lines[1:-1]]
        assert [record["result"] for record in kept] == [row.result for row in rows]
        assert [record["provenance"] for record in kept] == [row.provenance for row in rows]


def test_a_row_has_its_first_code_and_all_later_ones(files):
    row = files["drawn/granularity"][0]
    assert (row.cell.task, str(row.cell.granularity), row.cell.seed) == ("birds", "label", 0)
    assert row.result["recovery"] == 0.7535330695308083
    assert row.provenance["commit"] == "152f2ebe4fb2"
    assert row.provenance["code"] == "98fabc920d8fd9af18f914e40524fbe6bd792847"
    assert [(check["code"][:8], check["commit"], check["date"][:10]) for check in row.provenance["history"]] == [
        ("a066fbb1", "8946af3b9402+", "2026-11-25"),
        ("01b48440", "0e8acdcab167+", "2026-11-25"),
        ("6afed618", "7294e3625244+", "2026-11-25"),
        ("30bbed23", "89b64c201ca3", "2026-11-26"),
        ("4388a16e", "f92759a0120d", "2026-11-26"),
    ]


def test_no_row_was_checked_before_it_was_made_or_by_the_code_that_made_it(files):
    for row in (row for rows in files.values() for row in rows):
        made, history = row.provenance, row.provenance.get("history", [])
        assert "confirmed" not in made
        dates = [made["date"], *(check["date"] for check in history)]
        assert dates == sorted(dates)
        codes = [made["code"], *(check["code"] for check in history)]
        assert len(set(codes)) == len(codes)


# -- files that are not as they were committed ----------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("0.7535330695308083", "0.7535330695308084", 1),
        lambda text: text[: len(text) // 2],
        lambda text: "".join(text.splitlines(keepends=True)[:11]),
        lambda text: "[]",
    ],
    ids=["one digit", "cut", "cut between two rows", "no rows"],
)
def test_a_changed_file_is_refused(change, tmp_path):
    text = (FOLDER / "drawn" / "granularity.json").read_text(encoding="utf-8")
    path = tmp_path / "granularity.json"
    path.write_text(text, encoding="utf-8")
    assert len(edition_1.read(path)) == 135
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")
    with pytest.raises(InputError, match=f"{path} has been changed: restore it with git checkout -- {path}"):
        edition_1.read(path)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    for name in ("none.json", "bytes.json"):
        with pytest.raises(InputError, match=f"{name} cannot be read .*: restore it with git checkout -- "):
            edition_1.read(tmp_path / name)
