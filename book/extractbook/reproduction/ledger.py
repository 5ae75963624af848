"""The ledger: the paper's claims beside our results, with a verdict on each.

A claim holds or does not hold only if, for each bound of its test, the 95% interval over the seeds lies wholly on one
side of the bound. The first edition's verdicts were reached once, on rows that no longer change, and are kept as data.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from extractbook.reproduction import edition_1, paper
from extractbook.reproduction.cells import Cell, Row, plain_cell
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.results import FOLDER
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError, check_choice
from extractlib.store import digest


@dataclass(frozen=True)
class Bound:
    """One bound of a test, on one task.

    Attributes:
        statement: The bound in words, for example ``"r(signs) ≥ 0.75"``.
        authors: The authors' value of the same quantity, or None.
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
        tasks: The tasks the test was run on; a scale may have fewer than the paper.
        seeds: The seeds of the rows.
    """

    claim: paper.Claim
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@cache
def _kept() -> dict[str, Any]:
    return json.loads((FOLDER / "edition-1" / "verdicts.json").read_text(encoding="utf-8"))


def verdicts(rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return an entry for each claim of the paper and each of ours, in their order.

    Args:
        rows: Rows of the first edition, of one scale.

    Raises:
        InputError: The rows are of several scales, or of one that the first edition has not judged.
    """
    [name] = {row.cell.scale for row in rows} or {""}
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
        checked: Number of rows of the first edition that were checked by a sample (see `edition_1`).
    """

    commits: tuple[str, ...]
    dates: tuple[str, str]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: int
    seconds: float
    data: str
    checked: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Provenance":
        """Return the provenance of at least one row."""
        rows = list(rows)
        records = [row.provenance for row in rows]
        dates = sorted(record["date"] for record in records)
        # Rows of the first edition have the versions of the libraries as their only ones.
        libraries = [record.get("libraries") or record["versions"] for record in records]
        return cls(
            commits=_distinct(record["commit"] for record in records),
            dates=(dates[0], dates[-1]),
            devices=_distinct(record["device"] for record in records),
            versions=_distinct(" ".join(pair) for names in libraries for pair in names.items()),
            seeds=_distinct(row.cell.seed for row in rows),
            cells=len(rows),
            seconds=sum(record["seconds"] for record in records),
            data=digest(*_distinct(json.dumps(record["data"], sort_keys=True) for record in records)),
            checked=edition_1.checked(rows),
        )


class Evidence:
    """The rows of one scale, looked up by what their cells are.

    Args:
        rows: Rows of any tables, of one scale.

    Attributes:
        rows: The rows.
        scale: The scale.
        tasks: The tasks of the reproduction, in order of their names.

    Raises:
        InputError: There are no rows, they are of several scales, or two of the same cell differ.
    """

    def __init__(self, rows: Iterable[Row]):
        self.rows = list(rows)
        scales = _distinct(row.cell.scale for row in self.rows)
        if len(scales) != 1:
            raise InputError(f"rows of the scales {', '.join(scales) or 'none'}: a ledger is of one scale")
        self.scale = scale(scales[0])
        self._seeds: dict[Cell, dict[int, Row]] = {}
        for row in sorted(self.rows, key=lambda row: row.cell.seed):
            alike = self._seeds.setdefault(replace(row.cell, seed=0), {})
            if alike.setdefault(row.cell.seed, row).result != row.result:  # two tables may share a cell
                raise InputError(
                    f"two rows for task {row.cell.task!r} and seed {row.cell.seed} of the same cell differ: give one"
                )
        self._plain: dict[str, Cell] = {}
        for cell in sorted(self._seeds, key=lambda cell: cell.budget):  # the whole budget last
            sides = replace(plain_cell(self.scale, task=cell.task, seed=0), victim=cell.victim, surrogate=cell.victim)
            plain = replace(sides, budget=cell.budget, steps=cell.steps)
            # A row of the first edition says no steps.
            if cell == plain and cell.steps in (0, self.scale.surrogate.steps):
                self._plain[cell.task] = cell
        self.tasks = tuple(sorted(self._plain))

    @property
    def reproduction(self) -> list[Row]:
        """The rows of the reproduction table: the plain attack with the whole budget."""
        return [row for task in self.tasks for row in self.seeds_of(task).values()]

    def seeds_of(self, task: str, **changes) -> dict[int, Row]:
        """Return the rows, by seed, of a task's plain cell with `changes`; perhaps none.

        What a cell of the experiment lacks, as one that attacks nothing a budget, need not be changed.
        """
        if task not in self._plain:
            return {}
        none = {"surrogate": "", "budget": 0, "steps": 0}
        lacks: dict[Any, dict[str, Any]] = {
            "detection": none,
            "overlap": none,
            "accounts": {"surrogate": "", "steps": 0},
            "stateful": {"surrogate": ""},  # of the first edition
            "shortcut": {"budget": self.scale.middle_budget},
        }
        changes = lacks.get(changes.get("experiment"), {}) | changes
        return self._seeds.get(replace(self._plain[task], **changes), {})

    def values(self, task: str, *path: str, **changes) -> dict[int, Any]:
        """Return what lies at `path` (``"recovery"`` if none) in the results of `seeds_of`, by seed, where it is there.

        Args:
            task: The task.
            path: Keys of nested results, one after the other.
            changes: To the task's plain cell.
        """
        found = {}
        for seed, row in self.seeds_of(task, **changes).items():
            value: Any = row.result
            for key in path or ("recovery",):
                value = value.get(key) if isinstance(value, Mapping) else None
            if value is not None:
                found[seed] = value
        return found

    def series(self, task: str, *path: str, **changes) -> pd.Series:
        """Return the numbers of `values` as a series over the seeds, so that two can be subtracted seed by seed."""
        return pd.Series(self.values(task, *path, **changes), dtype=float)


def reproduction(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the reproduction table: the plain attack with the whole budget.

    Raises:
        InputError: There are no rows, they are of several scales, or two of the same cell differ.
    """
    return Evidence(rows).reproduction


def worst_class(result: Mapping, least: float) -> tuple[int, float]:
    """Return the class that is recovered worst on the first half, and how far it is below the mean on the second.

    Args:
        result: Of the experiment ``"classes"``.
        least: Classes whose victim accuracy is below it on either half are left out.
    """
    victim, surrogate = (np.array(result[f"{who}_accuracy"]) for who in ("victim", "surrogate"))
    recovered = np.where((victim >= least).all(0), surrogate / np.maximum(victim, least), np.nan)
    worst = int(np.nanargmin(recovered[0]))
    return worst, float(np.nanmean(recovered[1]) - recovered[1, worst])


def _distinct(values: Iterable) -> tuple:
    return tuple(sorted(set(values)))
