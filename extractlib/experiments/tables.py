"""The paper's tables as lists of cells, and the JSON files that hold their rows."""

import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from extractlib.errors import InputError, one_of
from extractlib.experiments.cells import Cell, Row, run_cell
from extractlib.metrics import summary
from extractlib.profiles import Profile
from extractlib.store import Store

FORMAT = "extractlib results 1"


def reproduction(profile: Profile, *, seed: int) -> list[Cell]:
    """The paper's main table: each victim attacked with the whole budget and full answers."""
    return [
        Cell(
            profile=profile.name,
            task=task,
            pool=profile.pool,
            victim=profile.network,
            surrogate=profile.network,
            granularity="full",
            budget=profile.budget,
            seed=seed,
        )
        for task in profile.tasks
    ]


def budget(profile: Profile, *, seed: int) -> list[Cell]:
    """The budget curve below the whole budget, whose cells are those of the reproduction."""
    return [
        replace(cell, budget=queries)
        for cell in reproduction(profile, seed=seed)
        for queries in reversed(profile.budgets[:-1])
    ]


TABLES = {"reproduction": reproduction, "budget": budget}


def table_cells(table: str, profile: Profile, *, seeds: Iterable[int]) -> list[Cell]:
    """Return the cells of a table, seed by seed.

    Raises:
        InputError: There is no such table, or the profile names no task or pool of its own.
    """
    make = TABLES[one_of("table", table, TABLES)]
    if not profile.tasks or not profile.pool:
        raise InputError(
            f"profile {profile.name!r} has no images of its own: name them, as in --task folder:PATH --pool folder:PATH"
        )
    return [cell for seed in seeds for cell in make(profile, seed=seed)]


def run_table(
    cells: Iterable[Cell],
    path: Path | None,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    jobs: int = 1,
    device: str | None = None,
    part: str = "test",
    code: str | None = None,
) -> list[Row]:
    """Run cells and keep their rows; what `path` already holds is not run again.

    Args:
        cells: What to run.
        path: JSON file the rows are added to after each cell; None keeps them in memory.
        store: Keeps images, victims and transfer sets.
        folders: Where each ``"folder:NAME"`` lies.
        jobs: Processes at a time, of one thread each where there are several.
        device: Where to train; the best at hand if None.
        part: The task's part that is evaluated.
        code: Rows of `path` made by other code than this fingerprint are run again; None keeps them.

    Returns:
        The rows of `cells`, in their order.

    Raises:
        InputError: `path` is no results file, or a cell cannot be run.
    """
    cells = list(cells)
    kept = read_rows(path) if path and path.exists() else []
    rows = {row.cell: row for row in kept if code in (None, row.provenance["code"])}
    waiting = [cell for cell in cells if cell not in rows]
    options = {"store": store, "folders": folders, "device": device, "part": part}
    bar = tqdm(total=len(waiting), unit="cell", desc=path.stem if path else "cells")
    with bar:
        for row in _run(waiting, options, jobs):
            rows[row.cell] = row
            if path:
                write_rows(path, rows.values())
            bar.update()
    return [rows[cell] for cell in cells]


def _run(cells: list[Cell], options: Mapping, jobs: int) -> Iterable[Row]:
    if jobs == 1:
        for cell in cells:
            yield run_cell(cell, progress=True, **options)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        try:
            for future in as_completed([workers.submit(run_cell, cell, **options) for cell in cells]):
                yield future.result()
        finally:
            workers.shutdown(cancel_futures=True)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a results file.

    Raises:
        InputError: The file is missing or is no results file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: make it with extractlib results") from None
    except ValueError as error:
        raise InputError(f"{path} is no results file ({error}): move it away") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no results file of format {FORMAT!r}: move it away")
    return [Row.from_json(row) for row in content["rows"]]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a results file atomically, its rows sorted by seed, task and budget."""
    ordered = sorted(rows, key=lambda row: (row.cell.seed, row.cell.task, row.cell.granularity, row.cell.budget))
    lines = ",\n".join(json.dumps(row.to_json()) for row in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(f'{{"format": "{FORMAT}", "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    partial.replace(path)


def tolerance(rows: Iterable[Row], cell: Cell) -> float:
    """Return how far a new run's recovery may lie from a committed one.

    Four standard deviations over the seeds of the same cell, and at least 0.03: another processor rounds otherwise,
    and a training run that rounds otherwise ends like one of another seed.
    """
    alike = [row.result["recovery"] for row in rows if replace(row.cell, seed=cell.seed) == cell]
    return max(0.03, 4 * summary(alike)[1]) if len(alike) > 1 else 0.03


def verify(path: Path, *, choice: int, store: Store) -> tuple[Row, Row, float]:
    """Run one committed cell anew.

    Args:
        path: A committed results file.
        choice: Which of its rows, modulo their number.
        store: Keeps images and victims; an empty one makes the check complete.

    Returns:
        The committed row, the new one and the tolerance between their recoveries.

    Raises:
        InputError: A committed row is of other code or settings, or the new recovery is out of tolerance.
    """
    rows = read_rows(path)
    old = rows[choice % len(rows)]
    new = run_cell(old.cell, store=store, progress=True)
    stale = [row.cell for row in rows if row.provenance["code"] != new.provenance["code"]]
    if stale:
        raise InputError(
            f"{path.name}: {len(stale)} of {len(rows)} rows were made by other code or settings, as the one of"
            f" {name_of(stale[0])}: run make results and commit"
        )
    allowed = tolerance(rows, old.cell)
    if abs(new.result["recovery"] - old.result["recovery"]) > allowed:
        raise InputError(
            f"{path.name}: {name_of(old.cell)} recovers {new.result['recovery']:.3f}, and"
            f" {old.result['recovery']:.3f} is committed: more than {allowed:.3f} apart"
        )
    return old, new, allowed


def name_of(cell: Cell) -> str:
    """Return a cell in words."""
    return f"{cell.task}, {cell.budget:,} queries to {cell.pool}, {cell.granularity} answers, seed {cell.seed}"
