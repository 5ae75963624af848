"""The ledger: the paper's claims beside our results, with a verdict on each.

A claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies wholly on one
side of the bound. The tests stand in `paper.claims` and were written before any result.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from extractlib import paper
from extractlib.errors import InputError
from extractlib.images import digest
from extractlib.metrics import summary, t_interval

FEWEST_SEEDS = 2
"""An interval over fewer seeds does not exist."""


class Verdict(StrEnum):
    """What the ledger says of a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable"
    NOT_RUN = "not run"


class Cell(Protocol):
    """What the ledger reads of a cell (see `experiments.Cell`)."""

    profile: str
    task: str
    seed: int
    attack: str
    granularity: str
    budget: int
    defence: str


class Row(Protocol):
    """What the ledger reads of a result (see `experiments.Row`)."""

    cell: Cell
    result: Mapping
    provenance: Mapping


@dataclass(frozen=True)
class Bound:
    """One bound of a test, on one task.

    Attributes:
        statement: The bound in words, for example ``"r(signs) ≥ 0.75"``.
        authors: The authors' value of the same quantity, or None.
        values: Our value of each seed, in the order of the seeds.
        interval: The 95% t interval of the values, or None where there are fewer than `FEWEST_SEEDS`.
        holds: Whether the interval lies wholly on the bound's right side (True) or wrong side (False); None where it
            reaches across, or where there is none.
    """

    statement: str
    authors: float | None
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    holds: bool | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.statement}: {len(self.values)} of at least {FEWEST_SEEDS} seeds"
        low, high = self.interval
        return f"{self.statement}: {summary(self.values)[0]:.3f}, interval {low:.3f} to {high:.3f}"


@dataclass(frozen=True)
class Provenance:
    """Where results come from, over all their rows.

    Attributes:
        commits, devices, versions: Each that occurs, once; a version is ``"torch 2.6.0"``.
        dates: Of the first and the last row (ISO 8601, UTC).
        seeds: Ascending.
        cells: Number of rows.
        seconds: Sum over the rows.
        data: Digest of the fingerprints of all images that were used.
        code: Each fingerprint of the code that made them, once.
    """

    commits: tuple[str, ...]
    dates: tuple[str, str]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: int
    seconds: float
    data: str
    code: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Provenance":
        """Return the provenance of at least one row."""
        rows = list(rows)
        records = [row.provenance for row in rows]
        dates = sorted(record["date"] for record in records)
        return cls(
            commits=_distinct(record["commit"] for record in records),
            dates=(dates[0], dates[-1]),
            devices=_distinct(record["device"] for record in records),
            versions=_distinct(f"{name} {value}" for record in records for name, value in record["versions"].items()),
            seeds=_distinct(row.cell.seed for row in rows),
            cells=len(rows),
            seconds=sum(record["seconds"] for record in records),
            data=digest(*_distinct(json.dumps(record["data"], sort_keys=True) for record in records)),
            code=_distinct(record["code"] for record in records),
        )


@dataclass(frozen=True)
class Entry:
    """A claim with what came of its test.

    Attributes:
        claim: The claim.
        verdict: The verdict by the rules above.
        reason: Why, in words: the bounds that decided.
        bounds: Each bound of the test; empty where the claim was not run.
        tasks: The tasks the test was run on; a scale may have fewer than the paper.
        provenance: Where the rows come from; None where there are none.
    """

    claim: paper.Claim
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...] = ()
    tasks: tuple[str, ...] = ()
    provenance: Provenance | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the rows."""
        return self.provenance.seeds if self.provenance else ()


Recoveries = Mapping[str, Mapping[int, float]]
"""Recovery by task and seed."""


def verdicts(rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return an entry for each claim of the paper, in their order.

    Args:
        rows: Rows of one profile. Those of other tables than a claim's are passed over.

    Raises:
        InputError: The rows are of several profiles, or two have the same task and seed.
    """
    rows = reproduction(rows)
    return tuple(_entry(claim, rows) for claim in paper.claims())


def reproduction(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the reproduction table: full answers, no defence, and the whole budget.

    Raises:
        InputError: The rows are of several profiles, or two have the same task and seed.
    """
    wanted = ("knockoff-random", "full", "none")
    plain = [row for row in rows if (row.cell.attack, row.cell.granularity, row.cell.defence) == wanted]
    profiles = _distinct(row.cell.profile for row in plain)
    if len(profiles) > 1:
        raise InputError(f"rows of the profiles {', '.join(profiles)}: a ledger is of one profile")
    budget = max((row.cell.budget for row in plain), default=0)
    chosen = {}
    for row in plain:
        if row.cell.budget != budget:
            continue
        place = (row.cell.task, row.cell.seed)
        if chosen.setdefault(place, row) is not row:
            raise InputError(f"two rows for task {place[0]!r} and seed {place[1]}: give one for each")
    return list(chosen.values())


def bound(
    statement: str, values: Iterable[float], *, least: float, strict: bool = False, authors: float | None = None
) -> Bound:
    """Return a bound from below, judged by the 95% t interval of its values.

    Args:
        statement: The bound in words.
        values: One value a seed.
        least: What the quantity must reach.
        strict: Whether it must exceed `least`: reaching it is then the wrong side.
        authors: The authors' value.
    """
    values = tuple(values)
    if len(values) < FEWEST_SEEDS:
        return Bound(statement, authors, values, None, None)
    low, high = t_interval(values)
    right, wrong = (low > least, high <= least) if strict else (low >= least, high < least)
    return Bound(statement, authors, values, (low, high), right if right or wrong else None)


def judge(bounds: Iterable[Bound]) -> tuple[Verdict, str]:
    """Return the verdict on a claim with these bounds, all of which must hold, and the reason for it."""
    bounds = list(bounds)
    if not bounds:
        return Verdict.NOT_RUN, "a task that the test names is missing"
    parts = {
        Verdict.NOT_RUN: [bound for bound in bounds if bound.interval is None],
        Verdict.DOES_NOT_HOLD: [bound for bound in bounds if bound.holds is False],
        Verdict.UNDECIDED: [bound for bound in bounds if bound.holds is None],
        Verdict.HOLDS: bounds,
    }
    verdict = next(verdict for verdict, deciding in parts.items() if deciding)
    return verdict, "; ".join(map(str, parts[verdict]))


def _entry(claim: paper.Claim, rows: list[Row]) -> Entry:
    if claim.id not in TESTS:
        return Entry(claim, Verdict.NOT_RUN, "its experiment is not part of the results yet")
    if not rows:
        return Entry(claim, Verdict.NOT_RUN, "there are no rows of its table")
    bounds = tuple(TESTS[claim.id](claim, _recoveries(rows)))
    verdict, reason = judge(bounds)
    return Entry(claim, verdict, reason, bounds, _distinct(row.cell.task for row in rows), Provenance.of(rows))


def _each_task_is_recovered(claim: paper.Claim, recoveries: Recoveries) -> Iterable[Bound]:
    least = claim.bounds["recovery"]
    for task, values in recoveries.items():
        yield bound(f"r({task}) ≥ {least}", values.values(), least=least, authors=_authors_recovery(task))


def _retina_is_recovered_worst(claim: paper.Claim, recoveries: Recoveries) -> Iterable[Bound]:
    diabetic = paper.VICTIMS["retina"]
    worst = next((task for task in recoveries if paper.victim(task) == diabetic), None)
    if worst is None:
        return
    for task in recoveries:
        if task == worst:
            continue
        seeds = [seed for seed in recoveries[task] if seed in recoveries[worst]]
        differences = [recoveries[task][seed] - recoveries[worst][seed] for seed in seeds]
        theirs, authors_worst = _authors_recovery(task), _authors_recovery(worst)
        yield bound(
            f"r({task}) − r({worst}) > 0",
            differences,
            least=claim.bounds["difference"],
            strict=True,
            authors=None if theirs is None else round(theirs - authors_worst, 2),
        )


TESTS: Mapping[str, Callable[[paper.Claim, Recoveries], Iterable[Bound]]] = MappingProxyType(
    {"C1": _each_task_is_recovered, "C2": _retina_is_recovered_worst}
)
"""How each claim that can be tested so far gets its bounds."""


def _recoveries(rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    recoveries: dict[str, dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: (row.cell.task, row.cell.seed)):
        recoveries.setdefault(row.cell.task, {})[row.cell.seed] = row.result["recovery"]
    return recoveries


def _authors_recovery(task: str) -> float | None:
    return paper.tables()["reproduction"]["rows"].get(paper.victim(task), {}).get("recovery")


def _distinct(values: Iterable) -> tuple:
    return tuple(sorted(set(values)))
