"""Execute the book's chapters, each in its own kernel, and only those whose inputs have changed."""

import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from extractlib.store import digest

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
PACKAGES = {"extractlib": ROOT / "extractlib", "extractbook": BOOK / "extractbook"}
LOCK = ROOT / "requirements.txt"
EXECUTED = ROOT / "_build" / "executed"

SUFFIXES = {".py", ".json", ".jsonl", ".mplstyle", ".toml", ".txt", ".npz", ".safetensors"}
TRACEBACK_LINES = 15
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ChapterError(Exception):
    """A chapter that failed; the message is what its author needs to see."""


@dataclass(frozen=True)
class Run:
    """One execution of a chapter: its inputs, the seconds it took, and its peak memory (MB)."""

    fingerprint: str
    scale: str
    cells: int
    seconds: float
    peak_megabytes: int


def notebooks() -> list[Path]:
    """Return the book's notebooks in the order of their names."""
    return sorted(BOOK.glob("*.ipynb"))


def sources(notebook: Path) -> set[Path]:
    """Return the packages' files that decide what `notebook` shows: all but build, sphinx and other chapters' files."""
    others = re.compile(rf"/(build|sphinx|assigned)/|/cli\.py$|/chapter_(?!{notebook.stem[:2]}\.)")
    files = (path for package in PACKAGES.values() for path in package.rglob("*") if path.suffix in SUFFIXES)
    return {path for path in files if not others.search(path.relative_to(ROOT).as_posix())}


def fingerprint(notebook: Path, *, scale: str) -> str:
    """Return the digest of all that decides what `notebook` shows.

    This covers its source, the packages' code and data (including the committed results), the lock, the scale and the
    way it is executed.
    """
    return digest_files({notebook, LOCK, Path(__file__), *sources(notebook)}, scale, sys.version)


def pinned(lock: str, python: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the version of each package that a lock pins.

    Args:
        lock: Its text, one pin per line, some only for certain Pythons.
        python: What its markers see for another Python, as ``{"python_full_version": "3.11.0"}``; None for this one.
    """
    from packaging.requirements import Requirement

    lines = (line.strip() for line in lock.splitlines() if "==" in line and not line.strip().startswith("#"))
    wanted = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate(dict(python or {}))]
    return {one.name: next(iter(one.specifier)).version for one in wanted}


def digest_files(files: Iterable[Path], *words: str) -> str:
    """Return the digest of `words` and of the names and contents of `files`, in whatever order they are given."""
    content = (part for path in sorted(files) for part in (str(path.relative_to(ROOT)), path.read_bytes()))
    return digest(repr(words), *content)


def recorded() -> dict[str, Run]:
    """Return the last successful run of each notebook by its name, as stored in the executed copies."""
    copies = [copy for copy in (EXECUTED / path.name for path in notebooks()) if copy.exists()]
    return {
        copy.stem: Run(**json.loads(copy.read_text(encoding="utf-8"))["metadata"]["extractbook"]) for copy in copies
    }


def stale(scale: str) -> dict[Path, str]:
    """Return the notebooks with no executed copy or one of other inputs, and the fingerprint that each will get."""
    done = {name: run.fingerprint for name, run in recorded().items()}
    values = {notebook: fingerprint(notebook, scale=scale) for notebook in notebooks()}
    return {notebook: value for notebook, value in values.items() if done.get(notebook.stem) != value}


def execute_all(waiting: dict[Path, str], *, scale: str, jobs: int) -> list[str]:
    """Execute the notebooks in `waiting`, `jobs` at a time, into the folder of executed copies.

    Returns:
        What went wrong, one text for each notebook that failed, which then has no executed copy.
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    problems = []
    spawn = multiprocessing.get_context("spawn")
    # A fresh worker for each chapter: peak memory is read from the worker's children.
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        # The first chapters are the quickest: run last, they leave no process waiting long for another.
        last_first = reversed(waiting.items())
        runs = [pool.submit(execute, path, EXECUTED / path.name, value, scale=scale) for path, value in last_first]
        for run in as_completed(runs):
            try:
                print(run.result(), flush=True)
            except ChapterError as error:
                problems.append(str(error))
    return problems


def execute(notebook: Path, copy: Path, value: str, *, scale: str) -> str:
    """Execute `notebook` and return a line on the time and memory it took.

    Args:
        notebook: The chapter's source, without outputs.
        copy: Where to save its executed copy.
        value: Its fingerprint, for the record.
        scale: What the chapter's parameter is set to.

    Raises:
        ChapterError: A cell raised an error, or the kernel died. No executed copy is left then.
    """
    copy.unlink(missing_ok=True)
    started = time.monotonic()
    executed = run_notebook(notebook, scale=scale)
    # Linux counts in kilobytes, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // unit
    run = Run(value, scale, len(executed.cells), round(time.monotonic() - started, 1), peak)
    executed.metadata["extractbook"] = asdict(run)
    partial = copy.with_suffix(".partial")
    nbformat.write(executed, partial)
    partial.replace(copy)
    return f"{notebook.stem}: {run.cells} cells, {run.seconds:.0f} s, {run.peak_megabytes:,} MB"


def run_notebook(notebook: Path, *, scale: str) -> NotebookNode:
    """Return `notebook` executed at a scale, if it has a parameter for it; raise the same errors as `execute`."""
    # Only a worker needs papermill, and it takes a second to import.
    import papermill
    from traitlets.config import Config

    # The first would silently remove the figures; with the others, which make sets, a kernel keeps more memory than a
    # reader's does.
    for name in ("MPLBACKEND", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):
        os.environ.pop(name, None)
    os.environ.update(OMP_NUM_THREADS="1", JUPYTER_PREFER_ENV_PATH="1")
    parameters = {"scale": scale} if has_parameters(notebook) else {}
    try:
        # Sockets in a separate folder instead of ports: two kernels that start at once cannot take each other's.
        with tempfile.TemporaryDirectory() as sockets:
            config = Config(KernelManager=Config(transport="ipc", ip=f"{sockets}/kernel"))
            options = {"kernel_name": "python3", "cwd": BOOK, "progress_bar": False, "config": config}
            # A kernel that is asked to shut down reports, in red, that it was interrupted.
            options["shutdown_kernel"] = "immediate"
            return papermill.execute_notebook(notebook, None, parameters, **options)
    except papermill.PapermillExecutionError as error:
        trace = ANSI.sub("", "\n".join(error.traceback)).rstrip().splitlines()[-TRACEBACK_LINES:]
        cell = f"{notebook.stem}: cell {error.cell_index + 1} failed\n\n{textwrap.indent(error.source, '    ')}\n"
        raise ChapterError("\n".join([cell, *trace])) from None
    except Exception as error:
        raise ChapterError(f"{notebook.stem}: {type(error).__name__}: {error}") from None


def has_parameters(notebook: Path) -> bool:
    """Return whether `notebook` has a cell with the tag ``parameters``."""
    return any("parameters" in cell.metadata.get("tags", ()) for cell in nbformat.read(notebook, as_version=4).cells)
