"""The paper's tables as lists of cells, and how the cells are run."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from tqdm.auto import tqdm

from extractbook.reproduction.cells import ADAPTIVE, OWN_LABELS, WATERMARK, Cell, Row
from extractbook.reproduction.freshness import is_current
from extractbook.reproduction.results import append_row, check_suffix, read_rows
from extractbook.reproduction.run import run_cell
from extractbook.reproduction.scales import Profile, profile
from extractlib.data.sources import FOLDER, in_files
from extractlib.errors import InputError, one_of
from extractlib.models import devices
from extractlib.models.devices import default_device
from extractlib.store import Store

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
    engine: str = "local",
) -> list[Row]:
    """Run cells and keep their rows; those of which `path` already holds a row that is up to date are not run again.

    Args:
        cells: What to run.
        path: Results file (``.jsonl``) that each row is added to; None keeps them in memory.
        store: Keeps images, victims and transfer sets.
        folders: Where each ``"folder:NAME"`` lies.
        jobs: Processes at a time, of one thread each where there are several; Ray asks the cluster of RAY_ADDRESS, and
            without it starts one of so many processes on this machine, or of one for each GPU if those are more.
        device: Where to train; the best at hand if None.
        part: The task's part that is evaluated.
        engine: ``"local"``, or ``"ray"`` for a cluster whose machines share the store's folder.

    Returns:
        The rows of `cells`, in their order.

    Raises:
        InputError: `path` is no results file or of another part, the engine is unknown or not installed, or a cell
            cannot be run.
    """
    cells, run = list(cells), ENGINES[one_of("engine", engine, ENGINES)]
    if path:
        check_suffix(path)
    kept = read_rows(path) if path and path.exists() else []
    if any(part not in row.provenance["data"] for row in kept):
        raise InputError(f"{path} holds rows of another part than {part!r}: name another file")
    rows = {row.cell: row for row in kept if is_current(row)}
    waiting = [cell for cell in cells if cell not in rows]
    options = {"store": store, "folders": folders, "device": device, "part": part}
    bar = tqdm(total=len(waiting), unit="cell", desc=path.stem if path else "cells")
    with bar:
        for row in run(waiting, options, jobs):
            rows[row.cell] = row
            if path:
                append_row(path, row)
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
    device = devices.resolve(options["device"] or default_device())
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


def missing(cells: Iterable[Cell], path: Path) -> list[Cell]:
    """Return the cells of which `path`, if it is there, holds no current row."""
    done = {row.cell for row in read_rows(path) if is_current(row)} if path.exists() else set()
    return [cell for cell in cells if cell not in done]
