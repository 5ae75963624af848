"""The rows of the first edition: kept as they were made, read-only, and outside of every check of what is up to date.

A row's ``"code"`` is the fingerprint of the code that made it. While the edition grew, rows were let stand under newer
code if a sample of them, computed anew by it, came out equal. A row's ``"history"`` holds the fingerprint of each such
code, with commit and date, the oldest first; it says nothing more of the rows outside of the sample.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from extractbook.reproduction.cells import Cell, Row
from extractlib.errors import InputError

FORMAT = "extractlib results 1"

ROW = {"cell": dict, "result": dict, "provenance": dict}
CELL = dict.fromkeys(("profile", "task", "pool", "victim", "experiment", "surrogate", "granularity", "attack"), str)
CELL |= {"defence": str, "seed": int, "budget": int, "pretrained": bool, "overlap": float}
NEW_NAMES = {"profile": "scale", "defence": "defense"}
CHECK = {"code": str, "commit": str, "date": str}
PROVENANCE = CHECK | {"seconds": float, "device": str, "versions": dict, "data": dict}

TRUTH = "{rows} the first edition's: made at {commits} {dates}{checked}."
CHECKED = "; {count:,} of them {were} checked later only by computing a sample anew"


def read(path: Path) -> list[Row]:
    """Return all rows of a file of the first edition.

    Raises:
        InputError: The file is missing or is not as it was committed: no JSON, cut off, of another format, a row has an
            unknown key or lacks one, or two rows are of one cell. The message counts rows from 1.
    """
    rows: dict[Cell, Row] = {}
    for number, record in enumerate(_records(path), 1):
        fault = next(_faults(record), None)
        row = None if fault else Row(_cell(record["cell"]), record["result"], record["provenance"])
        if row and row.cell in rows:
            fault = f"is of the same cell as row {list(rows).index(row.cell) + 1}"
        if fault:
            cell = json.dumps(record.get("cell") if isinstance(record, dict) else record)
            raise _unusable(path, f"row {number} {fault} (cell {cell})")
        rows[row.cell] = row
    return list(rows.values())


def made(row: Row) -> bool:
    """Say whether a row is of the first edition: later ones hold no fingerprint of code."""
    return "code" in row.provenance


def truth(rows: Iterable[Row]) -> str:
    """Return a sentence that says when rows of the first edition, at least one, were made and how they were checked."""
    rows = list(rows)
    count, commits = checked(rows), len({row.provenance["commit"].rstrip("+") for row in rows})
    days = sorted(row.provenance["date"][:10] for row in rows)
    return TRUTH.format(
        rows="This row is" if len(rows) == 1 else f"These {len(rows):,} rows are",
        commits="1 commit" if commits == 1 else f"{commits} commits",
        dates=f"on {days[0]}" if days[0] == days[-1] else f"between {days[0]} and {days[-1]}",
        checked=CHECKED.format(count=count, were="was" if count == 1 else "were") if count else "",
    )


def checked(rows: Iterable[Row]) -> int:
    """Return how many of the rows were let stand under newer code, after a sample had come out equal."""
    return sum("history" in row.provenance for row in rows)


def _cell(record: dict) -> Cell:
    """Return a cell under today's names."""
    cell = {NEW_NAMES.get(name, name): value for name, value in record.items()}
    kind, _, reward = cell["attack"].removeprefix("knockoff-").partition("-")
    return Cell(**cell if kind == "own" else cell | {"attack": kind, "reward": reward})


def _records(path: Path) -> list:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unusable(path, "there is no such file") from None
    except json.JSONDecodeError as error:  # whose line 1 is the format, and each further line a row
        raise _unusable(path, f"row {max(error.lineno - 1, 1)} is cut off or no JSON: {error}") from None
    except ValueError as error:
        raise _unusable(path, f"it is no text: {error}") from None
    shape = {"format": str, "rows": list}
    if next(_differences("file", content, shape), None) or content["format"] != FORMAT:
        raise _unusable(path, f"it is not of format {FORMAT!r}")
    return content["rows"]


def _faults(record) -> Iterator[str]:
    yield from _differences("row", record, ROW)
    yield from _differences("cell", record["cell"], CELL)
    yield from _differences("provenance", {"history": []} | record["provenance"], PROVENANCE | {"history": list})
    for check in record["provenance"].get("history", ()):
        yield from _differences("history", check, CHECK)


def _differences(name: str, found, kinds: dict[str, type]) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"has a {name} that is no object"
        return
    for key, kind in kinds.items():
        if type(found.get(key)) is not kind:
            yield f"has no {key!r} of type {kind.__name__} in its {name}"
    for key in sorted(found.keys() - kinds.keys()):
        yield f"has an unknown {key!r} in its {name}"


def _unusable(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: {fault}: restore it with git checkout -- {path}")
