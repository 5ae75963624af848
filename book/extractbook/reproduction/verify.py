"""Cells of committed rows computed anew, a few kinds at a time, and the record of it that the pages quote."""

import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from extractbook.reproduction.cells import Cell, Row
from extractbook.reproduction.freshness import is_current
from extractbook.reproduction.run import headline, name_of, run_cell
from extractlib.data.sources import FOLDER, Source
from extractlib.errors import InputError
from extractlib.metrics import summary
from extractlib.store import Store, fingerprint

KINDS_A_RUN = 4
"""Kinds of cells that one run computes, in rotation."""

RECORD = "verified.json"

LEAST = 0.03
"""How far apart the headlines of a cell's two rows may always lie."""


@dataclass(frozen=True)
class Check:
    """A committed row beside the one that was computed anew.

    Attributes:
        old, new: The rows.
        allowed: How far their headlines may lie apart.
    """

    old: Row
    new: Row
    allowed: float

    @property
    def difference(self) -> float:
        """How far the headlines lie apart."""
        return abs(headline(self.new) - headline(self.old))

    @property
    def agrees(self) -> bool:
        """Whether the headlines lie within the tolerance."""
        return self.difference <= self.allowed


def kind_of(cell: Cell) -> tuple[str, ...]:
    """Return the kind of a cell: its experiment, attack, reward, granularity without its number, policy and source."""
    return (cell.experiment, cell.attack, cell.reward, cell.granularity.kind, cell.defense, _source(cell.pool))


def _source(source: Source) -> str:
    if source.name.startswith(FOLDER):
        return "folder"
    if source.is_shifted:
        return "shifted"
    if source.class_count is not None:
        return "cut pool"
    return "task" if source.is_task else "pool" if source.name != "noise" else "noise"


def chosen(rows: Iterable[Row], *, turn: int, kinds: int | None = KINDS_A_RUN) -> list[Row]:
    """Return the rows to compute anew: one of each of some kinds, the next ones and other rows at the next turn.

    Args:
        rows: Rows of any tables.
        turn: Number of the run, from 0.
        kinds: How many kinds; all if None.
    """
    by_kind: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_kind.setdefault(kind_of(row.cell), []).append(row)
    groups = [by_kind[kind] for kind in sorted(by_kind)]
    count = len(groups) if kinds is None else min(kinds, len(groups))
    places = [(turn * count + number) % len(groups) for number in range(count)]
    # A full round later another row of the same kind is taken.
    return [groups[place][(turn * count // len(groups)) % len(groups[place])] for place in places]


def tolerance(rows: Iterable[Row], cell: Cell) -> float:
    """Return how far the headline of a new run may lie from a committed one.

    Four standard deviations over the seeds of the same cell, and at least 0.03: another processor rounds otherwise,
    and a training run that rounds otherwise ends like one of another seed.
    """
    alike = [headline(row) for row in rows if replace(row.cell, seed=cell.seed) == cell]
    return max(LEAST, 4 * summary(alike)[1]) if len(alike) > 1 else LEAST


def allowed_between(rows: Iterable[Row], old: Row, new: Row) -> float:
    """Return how far apart the headlines of a cell's two rows may lie.

    On the same kind of processor with the same libraries, where runs are equal or nearly so, `LEAST`; else `tolerance`.
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
    """Compute one row of each of some kinds anew, and yield each as it is done.

    Args:
        rows: Committed rows; those that are not up to date are passed over.
        turn: Number of the run, from 0 (see `chosen`).
        store: Keeps images and victims; an empty one makes the check complete.
        kinds: How many kinds; all if None.
        jobs: Processes at a time, of one thread each.
        folders: Where each data set and each ``"folder:NAME"`` lies.

    Raises:
        InputError: No row is up to date.
    """
    rows = list(rows)
    current = [row for row in rows if is_current(row)]
    if not current:
        raise InputError(f"none of {len(rows)} rows is up to date: compute them with extractbook results")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        waiting = {
            workers.submit(run_cell, row.cell, store=store, folders=folders): row
            for row in chosen(current, turn=turn, kinds=kinds)
        }
        try:
            for done in as_completed(waiting):
                old = waiting[done]
                yield Check(old, done.result(), allowed_between(current, old, done.result()))
        finally:
            workers.shutdown(cancel_futures=True)


def record(path: Path, checks: Iterable[Check]) -> None:
    """Add checks to the committed record: what was computed anew, at which commit, when, and how far off it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        entries = recorded(path) if path.exists() else []
        for check in checks:
            made = check.new.provenance
            entries.append(
                {
                    "cell": fingerprint(check.old.cell.to_json()),
                    "name": name_of(check.old.cell),
                    **{name: made[name] for name in ("commit", "date", "processor")},
                    "difference": check.difference,
                    "allowed": check.allowed,
                }
            )
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n", encoding="utf-8")
        partial.replace(path)


def recorded(path: Path) -> list[dict]:
    """Return the entries of the committed record.

    Raises:
        InputError: It is damaged.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no record of checks ({error}): restore it with git checkout") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "cell" in entry for entry in entries):
        raise InputError(f"{path} is no record of checks: restore it with git checkout")
    return entries
