"""Recompute cells of committed rows, a few kinds at a time, and keep the record of it that the pages quote."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from extractbook.reproduction.cells import Cell, Row
from extractbook.reproduction.freshness import is_current
from extractbook.reproduction.results import append_line, read_lines
from extractbook.reproduction.run import headline, name_of
from extractbook.reproduction.schedule import run_cells
from extractbook.reproduction.setups import Setup
from extractlib.data.sources import NOISE, Source
from extractlib.errors import InputError, one_line
from extractlib.metrics import summary
from extractlib.store import Store, fingerprint

KINDS_A_RUN = 4
"""How many kinds of cells one run recomputes, in rotation, at most."""

SECONDS_A_RUN = 400
"""How long the rows of one run took together when they were committed, at most."""

RECORD = "verified.jsonl"


class Entry(TypedDict):
    """What the record stores about a check."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    cell: str
    name: str
    commit: str
    date: str
    processor: str
    difference: float
    allowed: float


ENTRY = TypeAdapter(Entry)

LEAST = 0.03
"""The difference between the headlines of a cell's two rows that is always allowed."""


@dataclass(frozen=True)
class Check:
    """A committed row and the recomputed one.

    Attributes:
        old, new: The rows.
        allowed: How far apart their headlines may be.
    """

    old: Row
    new: Row
    allowed: float

    @property
    def difference(self) -> float:
        """How far apart the headlines are."""
        return abs(headline(self.new) - headline(self.old))

    @property
    def agrees(self) -> bool:
        """Whether the headlines agree within the tolerance."""
        return self.difference <= self.allowed


def kind_of(cell: Cell) -> tuple[str, ...]:
    """Return the kind of a cell: its experiment, attack, reward, granularity without its number, defense and source."""
    return (cell.experiment, cell.attack, cell.reward, cell.granularity.kind, cell.defense, _source(cell.pool))


def _source(source: Source) -> str:
    if source.folder is not None or source.name == NOISE:
        return source.name.partition(":")[0]
    cut = "cut " if source.class_count is not None else ""
    return "shifted" if source.is_shifted else "task" if source.is_task else f"{cut}pool"


def chosen(rows: Iterable[Row], *, turn: int, kinds: int | None = KINDS_A_RUN) -> list[Row]:
    """Return the rows to recompute: one of each of some kinds; the next turn takes the next kinds and other rows.

    A run takes fewer kinds where their rows took more than `SECONDS_A_RUN` in all. A row that took more alone, because
    it had to make what others found in the store, is taken only if its kind has no other.

    Args:
        rows: Rows of any tables.
        turn: Number of the run, from 0.
        kinds: Number of kinds; all if None.
    """
    by_kind: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_kind.setdefault(kind_of(row.cell), []).append(row)
    groups = [_short(by_kind[kind]) for kind in sorted(by_kind)]
    runs = [groups] if kinds is None else _runs(groups, kinds)
    number, place = divmod(turn, len(runs))
    # After a full round, another row of the same kind is taken.
    return [group[number % len(group)] for group in runs[place]]


def _short(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.provenance["seconds"] <= SECONDS_A_RUN] or rows


def _runs(groups: list[list[Row]], kinds: int) -> list[list[list[Row]]]:
    """Return groups of rows, one of each kind, cut into runs of at most `kinds` groups and `SECONDS_A_RUN` seconds."""
    runs: list[list[list[Row]]] = []
    left = 0.0
    for group in groups:
        longest = max(row.provenance["seconds"] for row in group)
        if not runs or len(runs[-1]) == kinds or longest > left:
            runs.append([])
            left = SECONDS_A_RUN
        runs[-1].append(group)
        left -= longest
    return runs


def at_hand(rows: Iterable[Row], *, store: Store, folders: Mapping[str, Path] | None = None) -> list[Row]:
    """Return the rows whose images are drawn, or are in folders that exist.

    Args:
        rows: Rows of any scales.
        store: As in `verify`.
        folders: As in `verify`.
    """
    found: dict[tuple, bool] = {}
    kept = []
    for row in rows:
        key = row.cell.scale, row.cell.task, row.cell.pool
        if key not in found:
            setup = Setup(row.cell, store=store, folders=folders)
            found[key] = not setup.in_files or setup.is_at_hand
        if found[key]:
            kept.append(row)
    return kept


def tolerance(rows: Iterable[Row], cell: Cell) -> float:
    """Return how far the headline of a new run may be from a committed one.

    This is four standard deviations over the seeds of the same cell, and at least 0.03: another processor rounds
    differently, and a training run that rounds differently ends like one of another seed.
    """
    alike = [headline(row) for row in rows if replace(row.cell, seed=cell.seed) == cell]
    return max(LEAST, 4 * summary(alike)[1]) if len(alike) > 1 else LEAST


def allowed_between(rows: Iterable[Row], old: Row, new: Row) -> float:
    """Return how far apart the headlines of a cell's two rows may be.

    This is `LEAST` on the same kind of processor with the same libraries, where runs are equal or nearly so, and
    otherwise `tolerance`.
    """
    alike = all(old.provenance[name] == new.provenance[name] for name in ("device", "processor", "libraries"))
    return LEAST if alike else tolerance(rows, old.cell)


def verify(
    rows: Iterable[Row],
    *,
    turn: int,
    store: Store,
    kinds: int | None = KINDS_A_RUN,
    jobs: int = 1,
    folders: Mapping[str, Path] | None = None,
) -> Iterator[Check]:
    """Recompute one row of each of some kinds, and yield each check when it is done.

    Args:
        rows: Committed rows; those that are not up to date are skipped.
        turn: Number of the run, from 0 (see `chosen`).
        store: Keeps images and victims; an empty one makes the check complete.
        kinds: Number of kinds; all if None.
        jobs: Number of parallel processes, each with one thread.
        folders: The path of each data set and each ``"folder:NAME"``.

    Raises:
        InputError: No row is up to date.
    """
    rows = list(rows)
    current = [row for row in rows if is_current(row)]
    if not current:
        raise InputError(f"none of {len(rows)} rows is up to date: recompute them with extractbook results")
    taken = {row.cell: row for row in chosen(current, turn=turn, kinds=kinds)}
    for new in run_cells(list(taken), jobs=jobs, store=store, folders=folders):
        old = taken[new.cell]
        yield Check(old, new, allowed_between(current, old, new))


def record(path: Path, checks: Iterable[Check]) -> None:
    """Add checks to the committed record: what was recomputed, at which commit, when, and how far off it was."""
    for check in checks:
        made = {name: check.new.provenance[name] for name in ("commit", "date", "processor")}
        name = {"cell": fingerprint(check.old.cell.to_json()), "name": name_of(check.old.cell)}
        append_line(path, name | made | {"difference": check.difference, "allowed": check.allowed})


def recorded(path: Path) -> list[Entry]:
    """Return the entries of the committed record.

    Raises:
        InputError: The record is damaged.
    """
    try:
        return [ENTRY.validate_json(line) for line in read_lines(path)]
    except ValidationError as error:
        reason = one_line(error)
        raise InputError(f"{path} is not a record of checks ({reason}): restore it with git checkout") from None
