"""The rows of the first edition: kept as they were made, read-only, and outside of every check of what is up to date.

A row's ``"code"`` is the fingerprint of the code that made it. While the edition grew, rows were let stand under newer
code if a sample of them, computed anew by it, came out equal. A row's ``"history"`` holds the fingerprint of each such
code, with commit and date, the oldest first; it says nothing more of the rows outside of the sample.
"""

import json
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

from extractbook.reproduction.cells import Cell, Row
from extractlib.errors import InputError

FOLDER = Path(__file__).parents[1] / "results" / "edition-1"
NEW_NAMES = {"profile": "scale", "defence": "defense"}

TRUTH = "{rows} the first edition's: made at {commits} {dates}{checked}."
CHECKED = "; {count:,} of them {were} checked later only by computing a sample anew"


def read(path: Path) -> list[Row]:
    """Return all rows of a file of the first edition.

    Raises:
        InputError: The file is missing, or is not to the last character as it was committed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it with git checkout -- {path}") from None
    if sha256(text.encode()).hexdigest() not in _sums():
        raise InputError(f"{path} is not as it was committed: restore it with git checkout -- {path}")
    return [Row(_cell(row["cell"]), row["result"], row["provenance"]) for row in json.loads(text)["rows"]]


@cache
def _sums() -> frozenset[str]:
    """Return the digests of all files, which ``sha256sum -c`` checks too."""
    return frozenset((FOLDER / "SHA256SUMS").read_text(encoding="utf-8").split()[::2])


def _cell(record: dict) -> Cell:
    """Return a cell under today's names."""
    cell = {NEW_NAMES.get(name, name): value for name, value in record.items()}
    cell["victim_weights"] = "A" if cell.pop("pretrained") else "none"
    kind, _, reward = cell["attack"].removeprefix("knockoff-").partition("-")
    return Cell(**cell if kind == "own" else cell | {"attack": kind, "reward": reward})


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
