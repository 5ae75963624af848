"""Run the cells of a table: one after another, in several processes, or on a Ray cluster."""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from extractbook.reproduction import editions
from extractbook.reproduction.cells import Cell, Row
from extractbook.reproduction.freshness import is_current
from extractbook.reproduction.results import append_row, check_suffix, read_rows
from extractbook.reproduction.run import data_of, run_cell
from extractbook.reproduction.setups import Setup
from extractlib.data.pixels import USUAL, Reading
from extractlib.data.sources import Source
from extractlib.errors import InputError, pip_install
from extractlib.models import devices
from extractlib.models.devices import default_device
from extractlib.progress import bar as progress_bar
from extractlib.store import Store

OWN_CLUSTER = "local"
"""The address that stands for a local cluster on this machine."""


def run_table(
    cells: Iterable[Cell],
    path: Path | None,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    reading: Reading = USUAL,
    jobs: int = 1,
    device: str | None = None,
    part: str = "test",
    ray: str | None = None,
) -> list[Row]:
    """Run cells and return their rows, except that cells with an up-to-date row in `path` are not run again.

    A row is up to date if it was made with today's behaviors and settings and from the images that are there now.

    Args:
        cells: The cells to run.
        path: Results file (``.jsonl``) that each row is appended to; None keeps the rows in memory.
        store: Keeps images, victims and transfer sets.
        folders: The path of each ``"folder:NAME"``.
        reading: How files are read, and how a task in files is split.
        jobs: Number of parallel processes, each with one thread if there are several.
        device: Where to train; the best available device if None.
        part: The task's part that is evaluated.
        ray: Address of a Ray cluster that runs the cells, one on each GPU or core, and whose machines share the store's
            folder; ``"local"`` starts one on this machine, with `jobs` processes or one per GPU, whichever is more.

    Returns:
        The rows of `cells`, in the same order.

    Raises:
        InputError: A seed decides claims that are not frozen, `path` is not a results file or has another part, Ray
            is not installed, or a cell cannot be run.
    """
    cells = list(cells)
    for cell in cells:
        editions.check_seeds(cell.scale, [cell.seed])
    if path:
        check_suffix(path)
    kept = read_rows(path) if path and path.exists() else []
    if any(part not in row.provenance["data"] for row in kept):
        raise InputError(f"{path} holds rows of a part other than {part!r}: name another file")
    rows = {row.cell: row for row in kept if is_current(row)}
    # For cells in files, keep only rows of the same images that are there now, if the folders exist to compare with.
    found: dict[tuple[str, Source, int], Mapping[str, str]] = {}
    for cell in set(cells) & rows.keys():
        setup = Setup(cell, store=store, folders=folders, reading=reading, part=part)
        if setup.in_files and setup.is_at_hand:
            key = cell.task, cell.pool, cell.seed
            found[key] = found.get(key) or data_of(setup)
            if rows[cell].provenance["data"] != found[key]:
                del rows[cell]
    waiting = [cell for cell in cells if cell not in rows]
    options = {"store": store, "folders": folders, "reading": reading, "device": device, "part": part}
    made = _on_ray(waiting, options, jobs, ray) if ray else run_cells(waiting, jobs=jobs, **options)
    with progress_bar(len(waiting), what=path.stem if path else "table", unit="cells", show=bool(waiting)) as bar:
        for row in made:
            rows[row.cell] = row
            if path:
                append_row(path, row)
            bar.update()
    return [rows[cell] for cell in cells]


def missing(cells: Iterable[Cell], path: Path) -> list[Cell]:
    """Return the cells that have no current row in `path`, which may not exist."""
    done = {row.cell for row in read_rows(path) if is_current(row)} if path.exists() else set()
    return [cell for cell in cells if cell not in done]


def run_cells(cells: list[Cell], *, jobs: int, **options) -> Iterator[Row]:
    """Run cells on this machine with the options of `run_cell`, and yield each row when it is done.

    Several jobs are processes with one thread each.
    """
    if jobs == 1:
        for cell in cells:
            yield run_cell(cell, progress=True, **options)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start_worker) as workers:
        try:
            yield from _finished([workers.submit(run_cell, cell, **options) for cell in cells])
        finally:
            workers.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Use one thread, and end with the process that started this one, even if that is killed."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _finished(futures: Sequence[Future[Row]]) -> Iterator[Row]:
    """Yield each row when it is done; after a failure, cells that already run are finished and kept, and no others."""
    failure: Exception | None = None
    for future in as_completed(futures):
        try:
            row = future.result()
        except CancelledError:
            continue
        except Exception as error:  # told once those that run are finished
            failure = failure or error
            for other in futures:
                other.cancel()
        else:
            yield row
    if failure is not None:
        raise failure


def _on_ray(cells: list[Cell], options: Mapping, jobs: int, address: str) -> Iterator[Row]:
    """Yield each row when it is done; a failure is raised once all other cells are finished and kept."""
    try:
        import ray  # an extra of the package
    except ImportError:
        raise InputError(f"a Ray cluster needs Ray, which is not installed: {pip_install('grid')}") from None
    on_gpu = devices.resolve(options["device"] or default_device()).type == "cuda"
    processes = max(jobs, torch.cuda.device_count() if on_gpu else 0)
    own: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False} if address == OWN_CLUSTER else {}
    variables = {name: value for name, value in os.environ.items() if name.startswith("EXTRACTLIB_")}
    with ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False, **own):
        work = ray.remote(num_cpus=1, num_gpus=int(on_gpu))(_alone)
        waiting, failure = [work.remote(cell, options) for cell in cells], None
        while waiting:
            [done], waiting = ray.wait(waiting)
            try:
                row = ray.get(done)
            except ray.exceptions.RayError as error:
                failure = failure or error
            else:
                yield row
    cause = getattr(failure, "cause", None)
    if failure is not None:
        raise (cause if isinstance(cause, InputError) else failure) from None


def _alone(cell: Cell, options: Mapping) -> Row:
    torch.set_num_threads(1)
    return run_cell(cell, **options)
