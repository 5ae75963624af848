"""Execute the book's chapters, each in a kernel of its own, and only those whose inputs have changed."""

import ast
import hashlib
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "book"
PACKAGES = {"extractlib": ROOT / "extractlib", "extractbook": BOOK / "extractbook"}
LOCK = ROOT / "requirements.txt"
EXECUTED = ROOT / "_build" / "executed"
TIMINGS = EXECUTED / "timings.json"

TRACEBACK_LINES = 15
ANSI = re.compile(r"\x1b\[[0-9;]*m")
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)


class ChapterError(Exception):
    """A chapter that failed; the message is what its author needs to see."""


@dataclass(frozen=True)
class Run:
    """One execution of a chapter: of what inputs, in how many seconds, with how much memory (MB, at its peak)."""

    fingerprint: str
    profile: str
    cells: int
    seconds: float
    peak_megabytes: int


def notebooks() -> list[Path]:
    """Return the book's notebooks in the order of their names."""
    return sorted(BOOK.glob("*.ipynb"))


def rooms(notebook: Path) -> set[Path]:
    """Return the package's source files that `notebook` imports, directly or through others, and its checks."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    checks = PACKAGES["extractbook"] / "exercises" / f"chapter_{notebook.stem[:2]}.py"
    found = {checks} if checks.exists() else set()
    waiting = [MAGIC.sub(r"\1pass", code), *(path.read_text(encoding="utf-8") for path in found)]
    while waiting:
        new = set(imported(waiting.pop())) - found
        found |= new
        waiting += [path.read_text(encoding="utf-8") for path in new]
    return found


def imported(code: str) -> Iterator[Path]:
    """Yield the package's source files that the import statements of `code` name, with the packages they are in."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(f"import from {'.' * node.level}{node.module or ''}: name the module in full")
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] not in PACKAGES:
                continue
            for length in range(1, len(parts) + 1):
                stem = PACKAGES[parts[0]].joinpath(*parts[1:length])
                files = list(filter(Path.is_file, (stem / "__init__.py", stem.with_suffix(".py"))))
                yield from files
                if any("lazy_loader.attach(" in file.read_text(encoding="utf-8") for file in files):
                    yield from stem.rglob("*.py")  # loaded when first asked for, by any name


def fingerprint(notebook: Path, *, profile: str) -> str:
    """Return the digest of all that decides what `notebook` shows.

    That is its source, the rooms it imports, the packages' data files, the committed results among them, the lock, the
    profile and the way it is executed.
    """
    kinds = {".json", ".jsonl", ".mplstyle", ".toml", ".safetensors"}
    data = (path for package in PACKAGES.values() for path in package.rglob("*") if path.suffix in kinds)
    files = [notebook, LOCK, Path(__file__), *rooms(notebook), *data]
    return digest_files(files, profile, sys.version)


def digest_files(files: Iterable[Path], *words: str) -> str:
    """Return the digest of `words` and of the names and contents of `files`, whatever their order."""
    state = hashlib.blake2b(repr(words).encode(), digest_size=20)
    for path in sorted(files):
        content = path.read_bytes()
        state.update(f"\n{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return state.hexdigest()


def recorded() -> dict[str, Run]:
    """Return the last good run of each notebook by its name."""
    if not TIMINGS.exists():
        return {}
    return {name: Run(**run) for name, run in json.loads(TIMINGS.read_text()).items()}


def stale(profile: str) -> dict[Path, str]:
    """Return the notebooks whose executed copy is missing or of other inputs, with the fingerprint each will get."""
    runs = recorded()
    wanted = {notebook: fingerprint(notebook, profile=profile) for notebook in notebooks()}
    return {
        notebook: value
        for notebook, value in wanted.items()
        if not (EXECUTED / notebook.name).exists()
        or notebook.stem not in runs
        or runs[notebook.stem].fingerprint != value
    }


def execute_all(waiting: dict[Path, str], *, profile: str, jobs: int) -> list[str]:
    """Execute the notebooks in `waiting`, `jobs` at a time, and record each good run.

    Returns:
        What went wrong, one text for each notebook that failed.
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    runs = {name: run for name, run in recorded().items() if (BOOK / f"{name}.ipynb").exists()}
    for notebook in waiting:
        (EXECUTED / notebook.name).unlink(missing_ok=True)
        runs.pop(notebook.stem, None)
    problems = []
    spawn = multiprocessing.get_context("spawn")
    # A fresh worker for each chapter: peak memory is read from the worker's children.
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        chapter_of = {pool.submit(execute, path, value, profile=profile): path for path, value in waiting.items()}
        for future in as_completed(chapter_of):
            try:
                runs[chapter_of[future].stem] = future.result()
            except ChapterError as error:
                problems.append(str(error))
            TIMINGS.write_text(json.dumps({name: asdict(run) for name, run in sorted(runs.items())}, indent=1))
    return problems


def execute(notebook: Path, value: str, *, profile: str) -> Run:
    """Execute `notebook` into the folder of executed copies, saying which cell is under way.

    Args:
        notebook: The chapter's source, without outputs.
        value: Its fingerprint, for the record.
        profile: What the chapter's parameter `profile` is set to.

    Raises:
        ChapterError: A cell raised, or the kernel died. No executed copy is left then.
    """
    started = time.monotonic()
    partial = EXECUTED / f"{notebook.stem}.partial.ipynb"
    cells = run_notebook(notebook, partial, profile=profile)
    partial.replace(EXECUTED / notebook.name)
    # Linux counts in kilobytes, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // unit
    return Run(value, profile, cells, round(time.monotonic() - started, 1), peak)


def run_notebook(notebook: Path, output: Path, *, profile: str) -> int:
    """Execute `notebook` into `output` and return its number of cells; raises as `execute` does."""
    # Only a worker needs it, and it takes a second to import.
    import papermill
    from traitlets.config import Config

    os.environ.pop("MPLBACKEND", None)  # it would silently remove the figures
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    bar = f"{notebook.stem}: {{n_fmt}} of {{total_fmt}} cells, {{elapsed}}"
    try:
        # Sockets in a folder of its own instead of ports: two kernels that start at once cannot take each other's.
        with tempfile.TemporaryDirectory() as sockets:
            executed = papermill.execute_notebook(
                notebook,
                output,
                parameters={"profile": profile} if has_parameters(notebook) else {},
                kernel_name="python3",
                cwd=BOOK,
                config=Config(KernelManager=Config(transport="ipc", ip=f"{sockets}/kernel")),
                progress_bar={"file": Lines(), "mininterval": 0, "bar_format": bar},
            )
    except papermill.PapermillExecutionError as error:
        trace = ANSI.sub("", "\n".join(error.traceback)).rstrip().splitlines()
        raise ChapterError(
            f"{notebook.stem}: cell {error.cell_index + 1} failed\n\n"
            + "\n".join(f"    {line}" for line in error.source.splitlines())
            + "\n\n"
            + "\n".join(trace[-TRACEBACK_LINES:])
        ) from None
    except Exception as error:
        raise ChapterError(f"{notebook.stem}: {type(error).__name__}: {error}") from None
    return len(executed.cells)


def has_parameters(notebook: Path) -> bool:
    """Say whether `notebook` has a cell with the tag ``parameters``."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return any("parameters" in cell["metadata"].get("tags", ()) for cell in cells)


class Lines:
    """A progress bar's file that prints each state on a line of its own, so that two chapters do not overwrite."""

    last = ""

    def write(self, text: str) -> None:
        if text.strip() not in ("", self.last):
            self.last = text.strip()
            print(self.last, flush=True)

    def flush(self) -> None:
        pass
