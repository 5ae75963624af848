"""What a submission's own process does: run the notebook under limits, and write its answers down as data.

Nothing here decides about points. The modules imported are those that the process before the fork has loaded already.
"""

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from extractbook.exercises.answers import to_json
from extractbook.exercises.exercise import lookup
from extractlib.errors import InputError

NOTEBOOK, OUTPUT, REPORT = "submission.ipynb", "output.txt", "answers.json"
MEGABYTE = 2**20


def work(folder: Path, answers: Mapping[str, str], *, seed: int, memory: int, file: int, seconds: int) -> None:
    """Run the notebook in `folder` and write the report beside it; the caller's process is given up to this.

    Args:
        folder: Holds the notebook, and takes whatever is printed or written.
        answers: Of each exercise's id, the name that holds the answer.
        seed: Of the assessed variant.
        memory: What may be taken, in MB.
        file: How large one file may grow, in MB.
        seconds: Of processor time.
    """
    os.setsid()  # a group of its own, so that all it starts can be ended with it
    os.chdir(folder)
    redirect(folder / OUTPUT)
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    os.environ.clear()
    places = dict.fromkeys(("HOME", "TMPDIR", "EXTRACTLIB_CACHE"), str(folder))
    os.environ.update(kept, OMP_NUM_THREADS="1", MPLBACKEND="agg", **places)
    limit(memory=memory, file=file, seconds=seconds)
    (folder / REPORT).write_text(json.dumps(report(folder / NOTEBOOK, answers, seed=seed)))


def redirect(path: Path) -> None:
    """Send what is printed to a file, and let nothing be read from the terminal."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))


def limit(*, memory: int, file: int, seconds: int) -> None:
    """Set the limits of this process and of those it starts; memory (MB) counts from what is mapped now."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it otherwise, and goes on
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory * MEGABYTE,
        resource.RLIMIT_FSIZE: file * MEGABYTE,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        # A second more is the hard limit, so that the first signal tells which limit it was.
        resource.setrlimit(kind, (value, value + 1 if kind == resource.RLIMIT_CPU else value))


def report(path: Path, answers: Mapping[str, str], *, seed: int) -> dict:
    """Return the answers as data, what went wrong with each, and which cells stopped."""
    try:
        notebook = nbformat.read(path, as_version=4)
        cells = [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:  # whatever a file that is no notebook makes the reader raise
        return {"problem": f"it is no notebook that can be read ({type(error).__name__})"}
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}), colors="NoColor")
    shell.showtraceback = shell.showsyntaxerror = lambda *args, **options: None  # what stopped is told below
    stopped = []
    for number, cell in enumerate(cells, start=1):
        result = shell.run_cell(cell)
        error = result.error_before_exec or result.error_in_exec
        if out_of_memory(error):
            return {"problem": "it asked for more memory than is allowed"}
        if error:
            stopped.append(f"code cell {number} stopped: {type(error).__name__}: {str(error)[:200]}")
    found = {id: answer(id, name, shell.user_ns, seed=seed) for id, name in answers.items()}
    return {"answers": found, "stopped": stopped}


def answer(id: str, name: str, namespace: Mapping[str, object], *, seed: int) -> dict:
    """Return what the exercise judges of the answer in the namespace, or why there is nothing to judge."""
    if name not in namespace:
        return {"problem": f"there is no {name}"}
    try:
        return {"outputs": [to_json(output) for output in lookup(id).outputs(namespace[name], seed=seed)]}
    except InputError as error:
        return {"problem": str(error)}
    except Exception as error:  # the notebook may have changed the package under our feet
        return {"problem": f"its answer cannot be taken ({type(error).__name__})"}


def out_of_memory(error: BaseException | None) -> bool:
    """Say whether an error tells of memory that was refused; torch says it in words."""
    refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return refused or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
