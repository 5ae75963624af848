"""The rows of the first edition: kept as they were made, read-only, and exempt from checks of what is up to date.

A row's ``"code"`` is the fingerprint of the code that made it. While the edition grew, rows were kept under newer
code if a sample of them, recomputed with it, came out equal. A row's ``"history"`` holds the fingerprint of each such
code, with commit and date, oldest first; it says nothing more about the rows outside the sample.

Its verdicts: a claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies
entirely on one side of the bound.
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
        InputError: The file is missing, or differs in any character from the committed one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): restore it with git checkout -- {path}") from None
    if sha256(text.encode()).hexdigest() not in _sums():
        raise InputError(f"{path} has been changed: restore it with git checkout -- {path}")
    return [Row(_cell(row["cell"]), row["result"], row["provenance"]) for row in json.loads(text)["rows"]]


@cache
def _sums() -> frozenset[str]:
    """Return the digests of all files, which ``sha256sum -c`` checks too."""
    return frozenset((FOLDER / "SHA256SUMS").read_text(encoding="utf-8").split()[::2])


def _cell(record: dict) -> Cell:
    """Return a cell with today's names."""
    cell = {NEW_NAMES.get(name, name): value for name, value in record.items()}
    cell["victim_weights"] = "A" if cell.pop("pretrained") else "none"
    kind, _, reward = cell["attack"].removeprefix("knockoff-").partition("-")
    return Cell(**cell if kind == "own" else cell | {"attack": kind, "reward": reward})


# -- its verdicts, computed once and kept as data ------------------------------------


@dataclass(frozen=True)
class Bound:
    """One bound of a test, on one task.

    Attributes:
        statement: The bound in words, for example ``"r(signs) ≥ 0.75"``.
        authors: The authors' value of the same quantity, or None; only for C12 are the bounds differences instead.
        values: Our value for each seed, in the order of the seeds.
        interval: The 95% t interval of the values, or None if there are fewer than two.
        holds: Whether the interval lies entirely on the bound's right side (True) or wrong side (False); None if it
            crosses the bound, or if there is no interval.
    """

    statement: str
    authors: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    holds: bool | None


@dataclass(frozen=True)
class Entry:
    """A claim with the result of its test.

    Attributes:
        claim: The claim.
        verdict: The verdict by the rules above.
        reason: The reason in words: the bounds that decided.
        bounds: Each bound of the test; empty if the claim was not run.
        tasks: The tasks of the scale; a bound's statement says which task it is about.
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
    """Return an entry for each of the paper's claims and each of ours, in order.

    Args:
        rows: Rows of the first edition, all of one scale.

    Raises:
        InputError: The rows are of several scales, or of one that the first edition has not judged.
    """
    names = sorted({row.cell.scale for row in rows})
    if len(names) > 1:
        raise InputError(f"the rows are of the scales {', '.join(names)}: use those of one scale")
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
