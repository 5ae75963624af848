"""Build the book: execute what has changed, tidy the executed copies, render the pages.

The pages are in _build/html only if all of them are up to date and free of warnings.
"""

import platform
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from extractbook.build import execute
from extractbook.build.stubs import without_markers
from extractbook.sphinx import furniture
from extractlib.errors import InputError

ROOT = execute.ROOT
SOURCE, PAGES = ROOT / "_build" / "source", ROOT / "_build" / "html"
STAMP = PAGES / ".inputs"
CONFIGURATION = [ROOT / "_config.yml", ROOT / "_toc.yml"]

# The source, never shown, of a cell that is made only to hold outputs: a cell without source would be skipped.
BESIDE = "# What the cell above shows beside its figure."
WIDGET = "application/vnd.jupyter.widget-view+json"
# What every tqdm bar has: the elapsed time, then the remaining time or the rate.
PROGRESS = re.compile(r"\[(\d+:)?\d\d:\d\d[<,]")


def build(*, scale: str, jobs: int) -> int:
    """Build the book with its chapters executed at a scale, `jobs` at a time, and return the exit status."""
    waiting = execute.stale(scale)
    done = f"The book is in {PAGES / 'index.html'}"
    if not waiting and STAMP.exists() and STAMP.read_text() == inputs():
        return finish(f"Nothing has changed. {done}")
    for folder in (PAGES, SOURCE, ROOT / "_build" / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    problems = execute.execute_all(waiting, scale=scale, jobs=jobs)
    if problems:
        rule = "\n" + "-" * 79 + "\n"
        return finish(rule + rule.join(problems) + rule + f"No pages built: {len(problems)} failed", status=1)
    value = inputs()  # taken before rendering: an edit made in the meantime is noticed next time
    stage()
    if not render():
        shutil.rmtree(PAGES, ignore_errors=True)
        return finish("No pages built: fix the warnings above first", status=1)
    STAMP.write_text(value)
    return finish(f"{status()}\n{done}")


def finish(message: str, *, status: int = 0) -> int:
    """Print `message`, on standard error if `status` signals a failure, and return `status`."""
    print(message, file=sys.stderr if status else sys.stdout, flush=True)
    return status


def inputs() -> str:
    """Return the digest of all that decides what the pages show."""
    folders = (execute.BOOK, execute.PACKAGES["extractlib"], execute.EXECUTED)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    passed_over = {"__pycache__", ".ipynb_checkpoints"}
    return execute.digest_files([*CONFIGURATION, *(path for path in files if not passed_over & set(path.parts))])


def stage() -> None:
    """Collect what Sphinx reads: the configuration, the pages and the tidied notebooks."""
    elsewhere = shutil.ignore_patterns("extractbook", "launch", "_static", "*.ipynb", ".*")
    shutil.copytree(execute.BOOK, SOURCE / "book", ignore=elsewhere)
    shutil.copytree(execute.BOOK / "_static", SOURCE / "_static")
    for path in CONFIGURATION:
        shutil.copy(path, SOURCE)
    making = SOURCE / "book" / "making.md"
    text = making.read_text()
    for word, make in {"STATUS": status, "COSTS": costs, "VERSIONS": made_with, "VERIFIED": verified}.items():
        text = text.replace(word, make())
    making.write_text(text)
    for chapter in execute.notebooks():
        notebook = nbformat.read(execute.EXECUTED / chapter.name, as_version=4)
        # These name this machine's paths and times, or make the page request the widgets' scripts from other hosts.
        for name in ("papermill", "widgets", "extractbook"):
            notebook.metadata.pop(name, None)
        cells, notebook.cells = notebook.cells, []
        for cell in cells:
            cell.metadata.pop("papermill", None)
            if cell.get("id") == "setup":
                cell.source = furniture.setup_cell(furniture.commit())
            notebook.cells += [cell, *(tidy(cell, chapter.stem) if cell.cell_type == "code" else [])]
        nbformat.write(notebook, SOURCE / "book" / chapter.name)


def tidy(cell: NotebookNode, chapter: str) -> list[NotebookNode]:
    """Prepare an executed cell for the page, in place.

    The parameter cell that papermill injected is hidden; an exercise's markers, progress bars and widgets are dropped;
    and what `figures.show` says about its figure is moved to where Sphinx reads it, so that the figure gets its number,
    caption and alternative text.

    Args:
        cell: A code cell with its outputs.
        chapter: Name of its chapter, for the error message.

    Returns:
        Cells to put after it: one with the data of its figure, and one with its other outputs, since Sphinx treats all
        outputs of a cell with a figure as part of that figure.

    Raises:
        InputError: The cell shows more than one figure.
    """
    cell.source = without_markers(cell.source)
    if "injected-parameters" in cell.metadata.get("tags", []):
        cell.metadata.tags.append("remove-cell")
    for output in cell.outputs:
        if output.get("name") == "stderr":
            lines = re.split(r"(?<=[\r\n])", output.text)
            output.text = "".join(line for line in lines if line.strip() and not PROGRESS.search(line))
    shown = [output for output in cell.outputs if WIDGET not in output.get("data", ()) and output.get("text") != ""]
    said = {output.metadata["extractlib"]: output for output in shown if "extractlib" in output.get("metadata", ())}
    figures = [output for output in shown if any(kind.startswith("image/") for kind in output.get("data", ()))]
    texts = [text for output in figures for text in output.metadata.values() if "alt" in text]
    if len(texts) > 1:
        names = ", ".join(text["name"] for text in texts)
        raise InputError(f"{chapter}: one cell shows the figures {names}: give each its own cell")
    cell.outputs = figures if texts else shown
    if not texts:
        return []
    alt, caption, name = (texts[0].pop(key) for key in ("alt", "caption", "name"))
    cell.metadata["mystnb"] = {"image": {"alt": alt}, "figure": {"name": name, "caption": caption}}
    others = [output for output in shown if output not in figures and output not in said.values()]
    after = [new_markdown_cell(said["data"]["data"]["text/html"])] if "data" in said else []
    return after + ([new_code_cell(BESIDE, metadata={"tags": ["remove-input"]}, outputs=others)] if others else [])


def render() -> bool:
    """Render the staged source into the folder of pages and return whether there were no warnings or errors."""
    # Imported here, since it takes seconds: a build that finds nothing to do does not need it.
    from extractbook.build import data

    book = Path(sys.executable).with_name("jupyter-book")
    # --all: Sphinx repeats warnings only for pages that it reads again.
    options = ("-W", "--keep-going", "--all", "-q")
    if subprocess.run([book, "build", SOURCE, "--path-output", ROOT, *options], cwd=ROOT).returncode:
        return False
    # Copied afterwards, since Jupyter Book makes every page load each script that it finds among the static files.
    mathjax = import_module("sphinx-mathjax-offline").__path__[0]
    unused = shutil.ignore_patterns("*svg*", "*full*", "mml*", "node-main.js")  # the pages use 10 of 24 MB
    shutil.copytree(Path(mathjax, "static", "mathjax"), PAGES / "_static" / "mathjax", ignore=unused)
    data.write_rows(PAGES / "data")
    shutil.copytree(execute.BOOK / "launch", PAGES / "launch")
    return True


def status() -> str:
    """Return the time and memory that each chapter took, as a table in Markdown."""
    runs = execute.recorded().items()
    lines = [(f"`{name}`", run.scale, run.cells, f"{run.seconds:.0f}", f"{run.peak_megabytes:,}") for name, run in runs]
    return table(lines, ["Chapter", "Scale", "Cells", "Seconds", "Peak MB"])


def verified() -> str:
    """Return a sentence on the committed cells that were recomputed, from the record of these checks."""
    from extractbook.reproduction.results import FOLDER
    from extractbook.reproduction.verify import RECORD, recorded

    entries = recorded(FOLDER / "edition-2" / RECORD)
    dates, commits = sorted(entry["date"][:10] for entry in entries), {entry["commit"] for entry in entries}
    apart = max(entry["difference"] for entry in entries)
    others = [entry for entry in entries if entry["difference"] > entry["allowed"]]
    listed = "; ".join(
        f"{entry['name']}: {entry['difference']:.4f}, where {entry['allowed']:.4f} was allowed (processor:"
        f" {entry['processor']})"
        for entry in others
    )
    return (
        f"The record holds {len(entries)} cells recomputed from {dates[0]} to {dates[-1]} at {len(commits)}"
        f" commit{'s' if len(commits) > 1 else ''}:"
        f" {len(entries) - len(others)} of them agree with their row, and the largest difference is {apart:.4f}."
        + (f" Those that do not agree: {listed}." if others else "")
    )


def costs() -> str:
    """Return the time that one exploring seed took, table by table, and what was cut, in Markdown."""
    from extractbook.reproduction import grids, results, scales

    settings, lines, total = scales.scale("drawn"), [], 0.0
    for path in sorted((results.FOLDER / "exploring" / settings.name).glob("*.jsonl")):
        seconds = [row.provenance["seconds"] for row in results.read_rows(path)]
        lines.append((path.stem, len(seconds), f"{sum(seconds):,.0f}"))
        total += sum(seconds)
    lines.append(("**all**", sum(line[1] for line in lines), f"**{total:,.0f}**"))
    cut = "; ".join(one.what for one in grids.CUTS[: settings.cuts])
    return f"{table(lines, ['Table', 'Cells', 'Seconds'])}\n\nCut to keep a seed from taking longer: {cut}."


def made_with() -> str:
    """Return the commit and the versions of the most important packages, as a table in Markdown."""
    names = ("torch", "torchvision", "numpy", "matplotlib", "jupyter-book", "sphinx", "sphinx-book-theme", "papermill")
    lines = [("commit", f"`{furniture.commit()[:12]}`"), ("Python", platform.python_version())]
    return table([*lines, *((name, version(name)) for name in names)], ["Part", "Version"])


def table(lines: list[tuple], columns: list[str]) -> str:
    """Return a table in Markdown, without the book's own figures, which take seconds to import."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [columns, [":--"] * len(columns), *lines])
