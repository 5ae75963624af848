"""The ledger: the paper's claims beside our rows, with a verdict on each, and rows looked up by their cells."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from extractbook.reproduction import claims, edition_1, editions, judging, results
from extractbook.reproduction.cells import Cell, Row, plain_cell
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.scales import Scale, scale
from extractlib.errors import InputError
from extractlib.store import digest


@dataclass(frozen=True)
class Ledger:
    """The second edition's verdicts at one scale.

    Attributes:
        scale: The scale.
        entries: Of each claim and each task that it is judged on.
        refused: How many rows do not count, by the reason why.
        frame: The rows that count (see `results.frame`), by the index that the entries' rows have.
    """

    scale: Scale
    entries: tuple[judging.Entry, ...]
    refused: Mapping[str, int]
    frame: pd.DataFrame = field(default_factory=lambda: results.frame([]), compare=False, repr=False)

    @classmethod
    def of_rows(cls, rows: Iterable[Row], scale: Scale, *, only: str = "") -> "Ledger":
        """Judge the rows that count (see `editions.refusal`), or `only` one claim's.

        Raises:
            InputError: As `claims.verdicts`.
        """
        counted: list[Row] = []
        refused: Counter[str] = Counter()
        for row in rows:
            reason = editions.refusal(row)
            refused[reason] += 1
            if not reason:
                counted.append(row)
        del refused[""]
        frame = results.frame(counted)
        return cls(scale, tuple(claims.verdicts(frame, scale, only=only)), dict(refused), frame)

    def of(self, claim: str) -> list[judging.Entry]:
        """Return a claim's entries, task by task."""
        return [entry for entry in self.entries if entry.claim == claim]

    def word(self, claim: claims.Claim) -> Verdict:
        """Return the word on a claim as a whole."""
        return judging.summarize([entry.verdict for entry in self.of(claim.id)], needed=claim.needed)

    @property
    def expected_false(self) -> tuple[int, float]:
        """How many cells of the matrix were judged, and how many false ones to expect among them at most."""
        return claims.expected_false(self.entries)


def ledger(name: str, *, only: str = "", folder: Path = results.FOLDER / "edition-2") -> Ledger:
    """Return the verdicts on all claims, or `only` one, by the committed rows of a scale; perhaps there are none.

    Raises:
        InputError: There is no such scale, or the rows cannot be used.
    """
    settings, here = scale(name), folder / name
    if not folder.is_dir():
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    return Ledger.of_rows(results.read_all(here) if here.is_dir() else (), settings, only=only)


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
