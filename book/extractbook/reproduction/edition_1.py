"""The rows of the first edition: kept as they were made, read-only, and outside of every check of what is up to date.

A row's ``"code"`` is the fingerprint of the code that made it. While the edition grew, rows were let stand under newer
code if a sample of them, computed anew by it, came out equal. A row's ``"history"`` holds the fingerprint of each such
code, with commit and date, the oldest first; it says nothing more of the rows outside of the sample.

Its verdicts: a claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies
wholly on one side of the bound.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from extractbook.reproduction import paper
from extractbook.reproduction.cells import Cell, Row
from extractbook.reproduction.judging import Verdict
from extractlib.errors import InputError, check_choice

FOLDER = Path(__file__).parents[1] / "results" / "edition-1"
NEW_NAMES = {"profile": "scale", "defence": "defense"}


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


# -- its verdicts, reached once and kept as data ------------------------------------


@dataclass(frozen=True)
class Bound:
    """One bound of a test, on one task.

    Attributes:
        statement: The bound in words, for example ``"r(signs) ≥ 0.75"``.
        authors: The authors' value beside it, or None; of the same quantity but for C12, whose bounds are differences.
        values: Our value of each seed, in the order of the seeds.
        interval: The 95% t interval of the values, or None where there are fewer than two.
        holds: Whether the interval lies wholly on the bound's right side (True) or wrong side (False); None where it
            reaches across, or where there is none.
    """

    statement: str
    authors: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    holds: bool | None


@dataclass(frozen=True)
class Entry:
    """A claim with what came of its test.

    Attributes:
        claim: The claim.
        verdict: The verdict by the rules above.
        reason: Why, in words: the bounds that decided.
        bounds: Each bound of the test; empty where the claim was not run.
        tasks: The tasks of the scale; a bound's statement says which of them it is about.
        seeds: The seeds of the scale's rows; a bound may have fewer values.
    """

    claim: paper.Claim
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@cache
def _kept() -> dict[str, Any]:
    return json.loads((FOLDER / "verdicts.json").read_text(encoding="utf-8"))


def verdicts(rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return an entry for each claim of the paper and each of ours, in their order.

    Args:
        rows: Rows of the first edition, of one scale.

    Raises:
        InputError: The rows are of several scales, or of one that the first edition has not judged.
    """
    names = sorted({row.cell.scale for row in rows})
    if len(names) > 1:
        raise InputError(f"rows of the scales {', '.join(names)}: verdicts are of one scale")
    name = names[0] if names else ""
    claims = {claim["id"]: paper.Claim(**claim) for claim in _kept()["claims"]}
    return tuple(
        Entry(
            claims[entry["claim"]],
            Verdict(entry["verdict"]),
            entry["reason"],
            tuple(Bound(**bound) for bound in entry["bounds"]),
            tuple(entry["tasks"]),
            tuple(entry["seeds"]),
        )
        for entry in _kept()["scales"][check_choice("scale with verdicts", name, _kept()["scales"])]
    )
