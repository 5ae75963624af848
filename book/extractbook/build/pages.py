"""Build the book: execute what has changed, tidy the executed copies, render the pages.

Run by ``make book``. The pages are in _build/html only if all of them are up to date and free of warnings.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from extractbook.build import courses, execute
from extractbook.sphinx import furniture

ROOT = execute.ROOT
SOURCE = ROOT / "_build" / "source"
PAGES = ROOT / "_build" / "html"
DOCTREES = ROOT / "_build" / ".doctrees"
STAMP = PAGES / ".inputs"
CONFIGURATION = ("_config.yml", "_toc.yml")

# The source, never shown, of a cell that is made for outputs alone: one without any is passed over.
BESIDE = "# What the cell above shows beside its figure."
WIDGET = "application/vnd.jupyter.widget-view+json"
# What every tqdm bar has: the time gone by, then the time left or the rate.
PROGRESS = re.compile(r"\[(\d+:)?\d\d:\d\d[<,]")


def main() -> int:
    """Build the book and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="drawn", help="at which scale the chapters run (default: drawn)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters at a time")
    options = parser.parse_args()

    waiting = execute.stale(options.profile)
    if not waiting and STAMP.exists() and STAMP.read_text() == inputs():
        return finish(f"Nothing has changed. The book is in {PAGES / 'index.html'}")
    for folder in (PAGES, DOCTREES, SOURCE):
        shutil.rmtree(folder, ignore_errors=True)
    problems = execute.execute_all(waiting, profile=options.profile, jobs=options.jobs)
    if problems:
        rule = "\n" + "-" * 79 + "\n"
        return finish(rule + rule.join(problems) + rule + f"No pages built: {len(problems)} failed", status=1)
    value = inputs()  # taken before rendering: an edit made meanwhile is seen the next time
    stage()
    if not render():
        shutil.rmtree(PAGES, ignore_errors=True)
        return finish("No pages built: the warnings above must go first", status=1)
    STAMP.write_text(value)
    return finish(f"{timings(waiting)}\nThe book is in {PAGES / 'index.html'}")


def finish(message: str, *, status: int = 0) -> int:
    """Print `message`, on standard error where `status` tells of a failure, and return `status`."""
    print(message, file=sys.stderr if status else sys.stdout, flush=True)
    return status


def inputs() -> str:
    """Return the digest of all that decides what the pages show."""
    book = (path for path in execute.BOOK.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    others = (execute.TIMINGS, execute.LOCK, *(ROOT / name for name in CONFIGURATION))
    files = [*book, *execute.PACKAGES["extractlib"].rglob("*.py"), *(path for path in others if path.exists())]
    return execute.digest_files(path for path in files if ".ipynb_checkpoints" not in path.parts)


def stage() -> None:
    """Gather what Sphinx reads: the configuration, the pages and the tidied notebooks."""
    (SOURCE / "book").mkdir(parents=True)
    for name in CONFIGURATION:
        shutil.copy(ROOT / name, SOURCE)
    shutil.copytree(execute.BOOK / "_static", SOURCE / "_static")
    for pattern in ("*.md", "*.bib"):
        for page in execute.BOOK.glob(pattern):
            shutil.copy(page, SOURCE / "book")
    making = SOURCE / "book" / "making.md"
    making.write_text(making.read_text().replace("STATUS", status()).replace("VERSIONS", made_with()))
    for chapter in execute.notebooks():
        notebook = nbformat.read(execute.EXECUTED / chapter.name, as_version=4)
        for part in (notebook, *notebook.cells):
            part.metadata.pop("papermill", None)  # it names this machine's paths and times
        cells, notebook.cells = notebook.cells, []
        for cell in cells:
            if cell.get("id") == "setup":
                cell.source = furniture.setup_cell(furniture.commit())
            notebook.cells += [cell, *(tidy(cell, chapter.stem) if cell.cell_type == "code" else [])]
        notebook.metadata.pop("widgets", None)  # or the page asks other hosts for the widgets' scripts
        nbformat.write(notebook, SOURCE / "book" / chapter.name)


def tidy(cell, chapter: str) -> list:
    """Make an executed cell fit for the page, in place.

    The parameter cell that papermill injected is hidden, an exercise's markers, progress bars and widgets are dropped,
    and what `figures.display_figure` said of its figure moves to where Sphinx reads it, so that the figure gets its
    number, caption and alternative text.

    Args:
        cell: A code cell with its outputs.
        chapter: Name of its chapter, for the message.

    Returns:
        Cells to stand after it: with the data of its figure, and with what else it shows, since Sphinx takes all that a
        cell with a figure shows for that figure.

    Raises:
        ValueError: The cell shows more than one figure.
    """
    cell.source = courses.without_markers(cell.source)
    if "injected-parameters" in cell.metadata.get("tags", []):
        cell.metadata.tags.append("remove-cell")
    cell.outputs = [output for output in map(without_live_parts, cell.outputs) if output is not None]
    described = [texts for output in cell.outputs for texts in figure_texts(output)]
    if not described:
        return []
    if len(described) > 1:
        names = ", ".join(texts["name"] for texts in described)
        raise ValueError(f"{chapter}: one cell shows the figures {names}: give each a cell of its own")
    [texts] = described
    cell.metadata["mystnb"] = {
        "image": {"alt": texts["alt"]},
        "figure": {"name": texts["name"], "caption": texts["caption"]},
    }
    said = {output.get("metadata", {}).get("extractlib"): output for output in cell.outputs}
    shown = [output for output in cell.outputs if "extractlib" not in output.get("metadata", {})]
    cell.outputs = [output for output in shown if is_picture(output)]
    others = [output for output in shown if not is_picture(output)]
    after = [new_markdown_cell(said["data"]["data"]["text/html"])] if "data" in said else []
    return after + ([new_code_cell(BESIDE, metadata={"tags": ["remove-input"]}, outputs=others)] if others else [])


def is_picture(output) -> bool:
    """Say whether a cell's output is an image."""
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def figure_texts(output) -> Iterator[dict]:
    """Yield the alternative text, caption and name in the metadata of `output`, taking them out of it."""
    for texts in output.get("metadata", {}).values():
        if isinstance(texts, dict) and "alt" in texts:
            yield {key: texts.pop(key) for key in ("alt", "caption", "name")}


def without_live_parts(output):
    """Return `output` without progress bars and widgets, which need a kernel, or None if nothing else is in it."""
    if output.output_type == "stream" and output.name == "stderr":
        output.text = "".join(
            line for line in re.split(r"(?<=[\r\n])", output.text) if line.strip() and not PROGRESS.search(line)
        )
        return output if output.text else None
    if WIDGET in output.get("data", {}):
        return None
    return output


def render() -> bool:
    """Render the staged source into the folder of pages and say whether there was neither warning nor error."""
    book = Path(sys.executable).with_name("jupyter-book")
    # --all: Sphinx repeats a warning only for pages that it reads again.
    command = [book, "build", SOURCE, "--path-output", ROOT, "-W", "--keep-going", "--all", "-q"]
    if subprocess.run(command, cwd=ROOT).returncode:
        return False
    # Afterwards, since Jupyter Book makes every page load each script that it finds among the static files.
    [mathjax] = find_spec("sphinx-mathjax-offline").submodule_search_locations
    unused = shutil.ignore_patterns("*svg*", "*full*", "mml*", "node-main.js")  # of 24 MB the pages use 10
    shutil.copytree(Path(mathjax, "static", "mathjax"), PAGES / "_static" / "mathjax", ignore=unused)
    return True


def status() -> str:
    """Return what each chapter took, as a table in Markdown."""
    lines = [
        f"| `{name}` | {run.profile} | {run.cells} | {run.seconds:.0f} | {run.peak_megabytes:,} |"
        for name, run in execute.recorded().items()
    ]
    return "\n".join(["| Chapter | Profile | Cells | Seconds | Peak MB |", "|:--|:--|--:|--:|--:|", *lines])


def made_with() -> str:
    """Return the commit and the versions of what matters most, as a table in Markdown."""
    names = ("torch", "torchvision", "numpy", "matplotlib", "jupyter-book", "sphinx", "sphinx-book-theme", "papermill")
    lines = [f"| {name} | {version(name)} |" for name in names]
    lines = [f"| commit | `{furniture.commit()[:12]}` |", f"| Python | {platform.python_version()} |", *lines]
    return "\n".join(["| Part | Version |", "|:--|:--|", *lines])


def timings(executed: dict[Path, str]) -> str:
    """Return the table of what each chapter took; a chapter that did not run again is marked."""
    lines = [f"{'chapter':<20}{'cells':>7}{'seconds':>9}{'peak MB':>9}"]
    now = {notebook.stem for notebook in executed}
    for name, run in execute.recorded().items():
        again = "" if name in now else "  (kept)"
        lines.append(f"{name:<20}{run.cells:>7}{run.seconds:>9.1f}{run.peak_megabytes:>9}{again}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
