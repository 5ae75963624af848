"""The paper's tables as lists of cells, and the JSON files that hold their rows."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tqdm.auto import tqdm

from extractlib import acceleration
from extractlib.datasets import FOLDER, in_files
from extractlib.errors import InputError, one_of
from extractlib.experiments.cells import ADAPTIVE, OWN_LABELS, WATERMARK, Cell, Row
from extractlib.experiments.run import code_of, headline, run_cell
from extractlib.metrics import summary
from extractlib.profiles import Profile, profile
from extractlib.store import Store
from extractlib.training import default_device

FORMAT = "extractlib results 1"

NARROW = ("retina", "diabetic5", "gtsrb")
"""Tasks whose images are much alike, the first at hand of which is asked with."""

OUR_SEEDS = 3
"""Seeds of the cells that decide a claim of ours and none of the paper's."""

REWARDS = ("certainty", "diversity", "loss", "all")


def reproduction(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The paper's main table: each victim attacked with the whole budget and full answers."""
    for task in profile.tasks:
        yield Cell(
            profile=profile.name,
            task=task,
            pool=profile.pool,
            victim=profile.network,
            surrogate=profile.network,
            budget=profile.budget,
            seed=seed,
        )


def classes(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """What the reproduction recovers class by class, of the tasks with enough test images a class."""
    for cell in _of(reproduction(profile, seed=seed), ("signs", "objects", "gtsrb", "cifar10")):
        yield replace(cell, experiment="classes")


def budget(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The budget curve below the whole budget, whose cells are those of the reproduction."""
    for cell in reproduction(profile, seed=seed):
        for queries in reversed(profile.budgets[:-1]):
            yield replace(cell, budget=queries)


def granularity(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The reproduction with answers that show less; a temperature, which decides no claim, for fewer seeds."""
    for cell in reproduction(profile, seed=seed):
        for shown in profile.granularities:
            few = cell.task in ("retina", "diabetic5") and shown == "top-5"  # all of its classes
            if not few and (seed < profile.fewer_seeds or not shown.startswith("temperature")):
                yield replace(cell, granularity=shown)


def architecture(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """Victim and surrogate of different architectures, and victims that start from no public weights."""
    for cell in _of(reproduction(profile, seed=seed), profile.scratch_networks):
        scratch = replace(cell, victim=profile.scratch_networks[cell.task], pretrained=False)
        other = profile.other_network
        yield from (replace(cell, surrogate=other), scratch, replace(scratch, surrogate=other))
        yield replace(cell, pretrained=False)


def diversity(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """Queries of low diversity: images of one medical task, of a pool cut to fewer classes, and noise."""
    narrow = next((task for task in NARROW if task in profile.tasks), profile.tasks[0])
    for cell in reproduction(profile, seed=seed):
        yield replace(cell, pool=narrow, budget=narrow_budget(narrow, profile))
        for pool in (*(f"{profile.pool}/{count}" for count in profile.pool_classes), "noise"):
            yield replace(cell, pool=pool, budget=profile.diversity_budget)


def narrow_budget(task: str, profile: Profile) -> int:
    """Return the queries to images of one task: the whole budget, or what a part of a task in files holds."""
    return profile.realistic_budgets[-1] if in_files(task) else profile.budget


def detection(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The detectors against both pools and against the adversary's own images."""
    for task in profile.tasks:
        yield Cell(
            profile=profile.name,
            experiment="detection",
            task=task,
            pool=profile.pool,
            victim=profile.network,
            seed=seed,
        )


def overlap(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """Detectors against pools with more and more images of the victim's classes, shifted or of its very source."""
    for cell in detection(profile, seed=seed):
        for source in (f"{cell.task}/shifted", cell.task) if seed < profile.fewer_seeds else (f"{cell.task}/shifted",):
            for share in profile.overlaps:
                yield replace(cell, experiment="overlap", pool=source, overlap=share)


def defended(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """Both adversaries behind the detector; policies that are not the paper's for fewer seeds."""
    policies = ("shuffle", "deny", "label") if seed < OUR_SEEDS else ("shuffle",)
    for cell in reproduction(profile, seed=seed):
        for policy in policies:
            yield replace(cell, defence=policy)
        yield replace(cell, defence="shuffle", pool=f"{cell.task}/shifted", budget=profile.realistic_budgets[-1])


def realistic(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The adversary with in-distribution images: from a shifted source, the very same, and without any API."""
    most = profile.realistic_budgets[-1]
    for cell in reproduction(profile, seed=seed):
        shifted = replace(cell, pool=f"{cell.task}/shifted")
        for queries in reversed(profile.realistic_budgets):
            yield replace(shifted, budget=queries)
        yield replace(shifted, budget=most, attack=OWN_LABELS)
        if seed < profile.fewer_seeds:
            yield replace(shifted, budget=most, granularity="label")
            yield replace(cell, pool=cell.task, budget=most)


def adaptive(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The adaptive strategy with each reward, and with all of them at each budget; what decides is in the middle."""
    middle = profile.adaptive_budgets[len(profile.adaptive_budgets) // 2]
    for cell in reproduction(profile, seed=seed) if seed < OUR_SEEDS else ():
        for queries in reversed(profile.adaptive_budgets):
            for reward in REWARDS if queries == middle else REWARDS[-1:]:
                if seed < profile.fewer_seeds or (queries, reward) == (middle, REWARDS[-1]):
                    yield replace(cell, budget=queries, attack=ADAPTIVE + reward)


def stateful(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The detector that watches a client's queries, and Sybil accounts that share the work."""
    for cell in detection(profile, seed=seed):
        yield replace(cell, experiment="stateful", budget=profile.budget)


def shortcut(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """What the detector detects: on photographs, and as a control on the drawings that stand for them."""
    for cell in _of(reproduction(profile, seed=seed), profile.scratch_networks) if seed < OUR_SEEDS else ():
        yield replace(cell, experiment="shortcut", budget=shortcut_budget(profile))


def shortcut_budget(profile: Profile) -> int:
    """Return the queries of each of the sixteen attacks of the table `shortcut`: those in the middle of the curve."""
    return profile.adaptive_budgets[len(profile.adaptive_budgets) // 2]


def watermark(profile: Profile, *, seed: int) -> Iterator[Cell]:
    """The reproduction against an API that marks its answers."""
    for cell in reproduction(profile, seed=seed) if seed < OUR_SEEDS else ():
        yield replace(cell, defence=WATERMARK)


@dataclass(frozen=True)
class Table:
    """A list of cells for each seed.

    Attributes:
        cells: Makes the cells of a seed.
        folders: Whether tasks and pool may be folders of any images.
    """

    cells: Callable[..., Iterator[Cell]]
    folders: bool = False


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "reproduction": Table(reproduction, folders=True),
        "classes": Table(classes, folders=True),
        "detection": Table(detection),
        "defended": Table(defended),
        "realistic": Table(realistic),
        "architecture": Table(architecture, folders=True),
        "diversity": Table(diversity),
        "overlap": Table(overlap),
        "stateful": Table(stateful),
        "shortcut": Table(shortcut),
        "watermark": Table(watermark, folders=True),
        "adaptive": Table(adaptive),
        "budget": Table(budget, folders=True),
        "granularity": Table(granularity, folders=True),
    }
)
"""The tables in the order in which they are computed."""


def _of(cells: Iterable[Cell], tasks: Iterable[str]) -> Iterator[Cell]:
    return (cell for cell in cells if cell.task in tasks)


def table_cells(table: str, profile: Profile, *, seeds: Iterable[int]) -> list[Cell]:
    """Return the cells of a table, seed by seed.

    Raises:
        InputError: There is no such table, or it has no cell for the profile's tasks.
    """
    chosen = TABLES[one_of("table", table, TABLES)]
    if table not in tables_for(profile):
        fitting = ", ".join(tables_for(profile))
        raise InputError(f"table {table!r} needs more than folders hold: for them use one of {fitting}")
    seeds = list(seeds)
    cells = [cell for seed in seeds for cell in chosen.cells(profile, seed=seed)]
    if not cells:
        tasks, numbers = ", ".join(profile.tasks), ", ".join(map(str, seeds))
        raise InputError(f"table {table!r} has no cell for {tasks} and seed {numbers}: use reproduction")
    return cells


def tables_for(profile: Profile) -> list[str]:
    """Return the names of the tables that a profile's tasks and pool can fill."""
    folders = any(name.startswith(FOLDER) for name in (*profile.tasks, profile.pool))
    return [name for name, table in TABLES.items() if table.folders or not folders]


def expected_seconds(cell: Cell, *, rate: int | None = None) -> float:
    """Return about how long a cell takes, in seconds, what its task and seed share being at hand.

    Args:
        cell: The cell.
        rate: Images a second that a process trains, which dominates; the profile's if None.
    """
    settings = profile(cell.profile)
    rate = rate or settings.rate
    surrogate = cell.budget * settings.surrogate.epochs / rate
    detector = settings.detector.epochs / rate
    return {
        "extraction": surrogate + 4,
        "classes": 2,
        "detection": 2 * 4_000 * detector + 40,
        "overlap": 2 * settings.overlap_images * detector + 2,
        "shortcut": 8 * 2 * 4_000 * detector + 16 * surrogate + 60,
        "stateful": 55,
    }[cell.experiment]


def run_table(
    cells: Iterable[Cell],
    path: Path | None,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    jobs: int = 1,
    device: str | None = None,
    part: str = "test",
    current: bool = False,
    engine: str = "local",
) -> list[Row]:
    """Run cells and keep their rows; what `path` already holds is not run again.

    Args:
        cells: What to run.
        path: JSON file the rows are added to after each cell; None keeps them in memory.
        store: Keeps images, victims and transfer sets.
        folders: Where each ``"folder:NAME"`` lies.
        jobs: Processes at a time, of one thread each where there are several; Ray asks the cluster of RAY_ADDRESS, and
            without it starts one of so many processes on this machine, or of one for each GPU if those are more.
        device: Where to train; the best at hand if None.
        part: The task's part that is evaluated.
        current: Whether rows of `path` that other code or settings made are run again, and rows of no cell dropped.
        engine: ``"local"``, or ``"ray"`` for a cluster whose machines share the store's folder.

    Returns:
        The rows of `cells`, in their order.

    Raises:
        InputError: `path` is no results file or of another part, the engine is unknown or not installed, or a cell
            cannot be run.
    """
    cells, run = list(cells), ENGINES[one_of("engine", engine, ENGINES)]
    kept = read_rows(path) if path and path.exists() else []
    if current:
        kept = [row for row in kept if row.cell in cells and is_current(row)]
    if any(part not in row.provenance["data"] for row in kept):
        raise InputError(f"{path} holds rows of another part than {part!r}: name another file")
    rows = {row.cell: row for row in kept}
    waiting = [cell for cell in cells if cell not in rows]
    options = {"store": store, "folders": folders, "device": device, "part": part}
    bar = tqdm(total=len(waiting), unit="cell", desc=path.stem if path else "cells")
    with bar:
        for row in run(waiting, options, jobs):
            rows[row.cell] = row
            if path:
                write_rows(path, rows.values())
            bar.update()
    return [rows[cell] for cell in cells]


def _on_this_machine(cells: list[Cell], options: Mapping, jobs: int) -> Iterable[Row]:
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


def _on_ray(cells: list[Cell], options: Mapping, jobs: int) -> Iterable[Row]:
    try:
        import ray  # an extra of the package
    except ImportError:
        raise InputError("engine 'ray' needs Ray, which is not installed: pip install 'extractlib[grid]'") from None
    variables = {name: value for name, value in os.environ.items() if name.startswith("EXTRACTLIB_")}
    device = acceleration.usable(options["device"] or default_device())
    # Without an address, in RAY_ADDRESS, a cluster of this machine's own is started, and never another one joined.
    processes = max(jobs, torch.cuda.device_count() if device.type == "cuda" else 0)
    own = {"address": "local", "num_cpus": processes, "include_dashboard": False}
    cluster = {} if "RAY_ADDRESS" in os.environ else own
    with ray.init(runtime_env={"env_vars": variables}, log_to_driver=False, **cluster):
        work = ray.remote(num_cpus=1, num_gpus=int(device.type == "cuda"))(_alone)
        waiting = [work.remote(cell, options) for cell in cells]
        while waiting:
            [done], waiting = ray.wait(waiting)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, InputError) else error) from None


def _alone(cell: Cell, options: Mapping) -> Row:
    torch.set_num_threads(1)
    return run_cell(cell, **options)


ENGINES: Mapping[str, Callable[[list[Cell], Mapping, int], Iterable[Row]]] = MappingProxyType(
    {"local": _on_this_machine, "ray": _on_ray}
)
"""Where the cells of a table are run, by name."""


def is_current(row: Row) -> bool:
    """Say whether the code and settings of today would make the row."""
    return row.provenance["code"] == code_of(row.cell)


def missing(cells: Iterable[Cell], path: Path) -> list[Cell]:
    """Return the cells of which `path`, if it is there, holds no current row."""
    done = {row.cell for row in read_rows(path) if is_current(row)} if path.exists() else set()
    return [cell for cell in cells if cell not in done]


def read_all(folder: Path) -> list[Row]:
    """Return the rows of all tables in a folder of results, in the order of the tables.

    Raises:
        InputError: There is none, or one is no results file.
    """
    paths = [path for path in (folder / f"{name}.json" for name in TABLES) if path.exists()]
    if not paths:
        raise InputError(f"{folder} holds no results: make them with extractlib results")
    return [row for path in paths for row in read_rows(path)]


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
    """Write a results file atomically, its rows sorted by seed and task."""
    ordered = sorted(rows, key=lambda row: (row.cell.seed, row.cell.task, json.dumps(asdict(row.cell))))
    lines = ",\n".join(json.dumps(row.to_json()) for row in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(f'{{"format": "{FORMAT}", "rows": [\n{lines}\n]}}\n', encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def tolerance(rows: Iterable[Row], cell: Cell) -> float:
    """Return how far the headline of a new run may lie from a committed one.

    Four standard deviations over the seeds of the same cell, and at least 0.03: another processor rounds otherwise,
    and a training run that rounds otherwise ends like one of another seed.
    """
    alike = [headline(row) for row in rows if replace(row.cell, seed=cell.seed) == cell]
    return max(0.03, 4 * summary(alike)[1]) if len(alike) > 1 else 0.03


def verify(
    path: Path, *, choice: int, store: Store, folders: Mapping[str, Path] | None = None, progress: bool = True
) -> tuple[Row, Row, float]:
    """Run one committed cell anew.

    Args:
        path: A committed results file.
        choice: Which of its rows, modulo their number.
        store: Keeps images and victims; an empty one makes the check complete.
        folders: Where each data set and each ``"folder:NAME"`` lies.
        progress: Whether to show bars.

    Returns:
        The committed row, the new one and the tolerance between their headlines.

    Raises:
        InputError: A committed row is of other code or settings, or the new headline is out of tolerance.
    """
    rows = read_rows(path)
    stale = [row.cell for row in rows if not is_current(row)]
    if stale:
        raise InputError(
            f"{path.name}: {len(stale)} of {len(rows)} rows were made by other code or settings, as the one of"
            f" {name_of(stale[0])}: run make results and commit"
        )
    old = rows[choice % len(rows)]
    new = run_cell(old.cell, store=store, folders=folders, progress=progress)
    allowed = tolerance(rows, old.cell)
    if abs(headline(new) - headline(old)) > allowed:
        raise InputError(
            f"{path.name}: {name_of(old.cell)} gives {headline(new):.3f}, and {headline(old):.3f} is committed: more"
            f" than {allowed:.3f} apart"
        )
    return old, new, allowed


def confirm(
    path: Path, *, choice: int, store: Store, folders: Mapping[str, Path] | None = None, progress: bool = True
) -> list[tuple[Row, Row, bool]]:
    """Run a sample of the rows that other code made, and let those stand that today's code makes bit for bit.

    Rows are alike if the same code made them and the same code would make them today. Of each task's alike rows one is
    run anew. Where all of them come out equal, which takes a processor that rounds alike, the code has changed and what
    it computes has not: the rows get today's fingerprint, and ``"confirmed"`` in their provenance says which they had,
    and when and at which commit it was replaced. Rows that differ stay as they are, to be computed again.

    Args:
        path: A results file.
        choice: Which of a task's alike rows is run, modulo their number.
        store: Keeps images and victims; an empty one makes the check complete.
        folders: Where each data set and each ``"folder:NAME"`` lies.
        progress: Whether to show bars.

    Returns:
        Each committed row that was run anew, the new one, and whether their results are equal.
    """
    rows, checked, stands = read_rows(path), [], {}
    alike: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if not is_current(row):
            codes = row.provenance["code"], code_of(row.cell)
            alike.setdefault(codes, {}).setdefault(row.cell.task, []).append(row)
    for (before, now), tasks in alike.items():
        old = [group[choice % len(group)] for group in tasks.values()]
        new = [run_cell(row.cell, store=store, folders=folders, progress=progress) for row in old]
        equal = [_timeless(first.result) == _timeless(second.result) for first, second in zip(old, new, strict=True)]
        checked += zip(old, new, equal, strict=True)
        if all(equal):
            seal = {"was": before} | {key: new[0].provenance[key] for key in ("commit", "date")}
            for row in chain(*tasks.values()):
                stands[row.cell] = replace(row, provenance={**row.provenance, "code": now, "confirmed": seal})
    if stands:
        write_rows(path, [stands.get(row.cell, row) for row in rows])
    return checked


def _timeless(result: Mapping) -> dict:
    """Return a result without the times in it, which differ from run to run."""
    kept = {name: value for name, value in result.items() if name != "milliseconds"}
    return {name: _timeless(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def each_file(
    check: Callable[..., Any],
    paths: Iterable[Path],
    *,
    choices: Iterable[int],
    store: Store,
    jobs: int,
    folders: Mapping[str, Path] | None = None,
) -> Iterator[Any]:
    """Run `verify` or `confirm` on each file, `jobs` at a time, and yield what it returns."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        checks = [
            workers.submit(check, path, choice=choice, store=store, folders=folders, progress=False)
            for path, choice in zip(paths, choices, strict=True)
        ]
        try:
            for done in as_completed(checks):
                yield done.result()
        finally:
            workers.shutdown(cancel_futures=True)


def name_of(cell: Cell) -> str:
    """Return a cell in words."""
    if cell.experiment in ("extraction", "classes"):
        told = f"{cell.budget:,} queries to {cell.pool}, {cell.granularity} answers"
        kinds = [cell.attack, f"defence {cell.defence}", f"{cell.victim} to {cell.surrogate}"]
        plain = ("knockoff-random", "defence none", "resnet to resnet")
        told = ", ".join([told, *(kind for kind, usual in zip(kinds, plain, strict=True) if kind != usual)])
    else:
        told = f"{cell.experiment}" + (f" {cell.overlap}" if cell.experiment == "overlap" else "")
    return f"{cell.task}, {told}, seed {cell.seed}"
