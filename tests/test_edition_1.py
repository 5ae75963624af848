"""The rows of the first edition: all there, with the code that made them, and read strictly."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from extractbook.reproduction import Row, edition_1
from extractlib.errors import InputError

FOLDER = Path(__file__).parents[1] / "book" / "extractbook" / "results" / "edition-1"
CELL = '"task": "birds", "pool": "atlas", "victim": "resnet", "seed": 0'
"""Part of the cell of the first row of granularity."""


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


def test_truth_counts_the_rows(files):
    rows = [row for found in files.values() for row in found]
    assert edition_1.truth(rows) == (
        "These 1,260 rows are the first edition's: made at 11 commits between 2026-11-24 and 2026-11-26; 1,089 of them"
        " were checked later only by computing a sample anew."
    )
    assert edition_1.checked(rows) == 1_089
    assert all(map(edition_1.made, rows))


def test_truth_of_a_few_rows(files):
    never, once = files["drawn/stateful"][0], files["drawn/granularity"][0]
    assert edition_1.truth([never]) == "This row is the first edition's: made at 1 commit on 2026-11-26."
    assert edition_1.truth([never, once]) == (
        "These 2 rows are the first edition's: made at 2 commits between 2026-11-25 and 2026-11-26; 1 of them was"
        " checked later only by computing a sample anew."
    )


# -- files that are not as they were committed ----------------------------------


def changed(folder: Path, change: Callable[[list], None]) -> Path:
    """Return a copy of a file in which its rows are changed."""
    content = json.loads((FOLDER / "drawn" / "granularity.json").read_text(encoding="utf-8"))
    change(content["rows"])
    return written(folder, json.dumps(content))


def written(folder: Path, text: str) -> Path:
    path = folder / "granularity.json"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """Return the message about a file without the file's name and the remedy, which every message has."""
    with pytest.raises(InputError) as error:
        edition_1.read(path)
    message, remedy = str(error.value), f": restore it with git checkout -- {path}"
    assert message.startswith(f"{path}: ") and message.endswith(remedy) and "\n" not in message
    return message.removeprefix(f"{path}: ").removesuffix(remedy)


CHANGES: dict[str, tuple[str, Callable[[dict], object]]] = {
    "no result": ("has no 'result' of type dict in its row", lambda row: row.pop("result")),
    "another part": ("has an unknown 'note' in its row", lambda row: row.update(note="")),
    "no task": ("has no 'task' of type str in its cell", lambda row: row["cell"].pop("task")),
    "no default": ("has no 'overlap' of type float in its cell", lambda row: row["cell"].pop("overlap")),
    "another setting": ("has an unknown 'temperature' in its cell", lambda row: row["cell"].update(temperature=1)),
    "a text for a number": ("has no 'seed' of type int in its cell", lambda row: row["cell"].update(seed="0")),
    "no code": ("has no 'code' of type str in its provenance", lambda row: row["provenance"].pop("code")),
    "a seal": ("has an unknown 'confirmed' in its provenance", lambda row: row["provenance"].update(confirmed={})),
    "no date": ("has no 'date' of type str in its history", lambda row: row["provenance"]["history"][1].pop("date")),
    "no history": (
        "has no 'history' of type list in its provenance",
        lambda row: row["provenance"].update(history=None),
    ),
    "half a check": ("has a history that is no object", lambda row: row["provenance"].update(history=["98fa"])),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_row_with_other_keys_is_refused(case, tmp_path):
    fault, change = CHANGES[case]
    message = refusal(changed(tmp_path, lambda rows: change(rows[2])))
    assert message.startswith(f'row 3 {fault} (cell {{"profile": "drawn", ')
    assert '"granularity": "rounded-2"' in message


def test_what_is_no_row_is_refused(tmp_path):
    def change(rows):
        rows[4] = "birds"

    assert refusal(changed(tmp_path, change)) == 'row 5 has a row that is no object (cell "birds")'


def test_two_rows_of_one_cell_are_refused(tmp_path):
    message = refusal(changed(tmp_path, lambda rows: rows.insert(6, rows[0])))
    assert message.startswith('row 7 is of the same cell as row 1 (cell {"profile": "drawn", ')
    assert CELL in message


@pytest.mark.parametrize(("share", "row"), [(0.5, 68), (0.999, 135)])
def test_a_file_that_is_cut_is_refused(share, row, tmp_path):
    text = (FOLDER / "drawn" / "granularity.json").read_text(encoding="utf-8")
    kept = text[: int(share * len(text))]
    assert kept.count("\n") == row
    assert refusal(written(tmp_path, kept)).startswith(f"row {row} is cut off or no JSON: ")


def test_a_file_that_is_cut_between_two_rows_is_refused(tmp_path):
    lines = (FOLDER / "drawn" / "granularity.json").read_text(encoding="utf-8").splitlines(keepends=True)
    assert refusal(written(tmp_path, "".join(lines[:11]))).startswith("row 11 is cut off or no JSON: ")


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "granularity.json") == "there is no such file"


@pytest.mark.parametrize(
    "text",
    ["[]", '{"rows": []}', '{"format": "extractlib results 2", "rows": []}', '{"format": "extractlib results 1"}'],
)
def test_another_format_is_refused(text, tmp_path):
    assert refusal(written(tmp_path, text)) == "it is not of format 'extractlib results 1'"


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "granularity.json"
    path.write_bytes(b"\x80\x81")
    assert refusal(path).startswith("it is no text: ")
    assert refusal(written(tmp_path, "")).startswith("row 1 is cut off or no JSON: ")
