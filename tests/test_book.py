"""The book's sources: every notebook runs, and the build repeats what it must."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import pytest
from chapters import CHAPTERS, MAGIC, Chapter, crowded_lines, long_cells, not_plain, plain, prose

from extractbook import book
from extractbook.build import execute
from extractbook.build import pages as build
from extractbook.reproduction import append_row, read_rows, results
from extractbook.sphinx import furniture
from extractlib.errors import InputError

NOTEBOOKS = execute.notebooks()
PAGES = [path for path in NOTEBOOKS if path.stem not in CHAPTERS]

named = {"ids": lambda path: path.stem}


@pytest.mark.book
@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_notebook_runs_at_scale_smoke(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    # Solutions, which know no scale, take most of the time: the tests of exercises run them, and so does the build.
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ())]
    nbformat.write(notebook, tmp_path / path.name)
    try:
        executed = execute.run_notebook(tmp_path / path.name, scale="smoke")
    except execute.ChapterError as error:
        pytest.fail(str(error), pytrace=False)
    assert len(executed.cells) == len(notebook.cells) + execute.has_parameters(path)


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_notebook_is_stored_without_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def shown_more_than_once(source: str) -> bool:
    """Return whether a cell calls `book.show` in two places or in a loop: a page can take one figure from a cell."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not MAGIC.match(line)))
    calls = {node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "book.show"}
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While)]
    return len(calls) > 1 or any(calls & set(ast.walk(loop)) for loop in loops)


def test_a_loop_or_two_calls_show_more_than_once():
    """Which figures a loop shows may depend on rows that do not exist yet: the build would fail only with them."""
    assert shown_more_than_once("for name in names:\n    book.show(name)")
    assert shown_more_than_once("if photographs:\n    book.show(1)\nbook.show(2)")
    assert not shown_more_than_once("for name in names:\n    book.say(name)\nbook.show(name)")


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_no_cell_shows_more_than_one_figure(path):
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.id for cell in cells if cell.cell_type == "code" and shown_more_than_once(cell.source)] == []


@pytest.mark.parametrize("path", PAGES, **named)
def test_notebook_that_is_no_chapter_has_a_chapters_form(path):
    page = Chapter.read(path.stem)
    assert [*long_cells(page), *crowded_lines(page)] == []
    assert page.all("code")[0].source == furniture.setup_cell()


PAGES = [*sorted(execute.BOOK.glob("*.md")), *(execute.ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_are_plain(path):
    text = nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))
    assert list(not_plain(prose([text]))) == []


def test_the_front_page_is_plain():
    assert list(plain(Chapter.read("index"))) == []


def test_a_word_that_is_not_plain_is_found_with_what_is_better():
    found = list(not_plain("Whoever asks.\nThe two are told apart.\nIt has a key of its own."))
    assert len(found) == 2
    assert found[0] == "whoever|whomever (anyone who: two words that every reader knows): Whoever asks."
    assert found[1].endswith(": It has a key of its own.")


OUTSIDE = {"matplotlib", "numpy", "torch", "scipy", "PIL", "ipywidgets"}


@pytest.mark.parametrize("path", NOTEBOOKS, **named)
def test_a_notebook_imports_the_library_and_the_book_by_one_name_each(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    code = "\n".join(MAGIC.sub(r"\1pass", cell.source) for cell in cells if cell.get("id") != "setup")
    found = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)}
    ours = {line for line in found if re.search(r"\bextract(lib|book)\b", line)}
    assert ours <= {"import extractlib as xl", "from extractbook import book"}
    others = {line.split()[1].partition(".")[0] for line in found - ours}
    assert others - OUTSIDE <= sys.stdlib_module_names


def test_every_name_that_the_book_offers_is_there():
    assert len(dir(book)) > 30
    assert [name for name in dir(book) if getattr(book, name) is None] == []


# The build.


def write_notebook(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.cells[0].metadata["tags"] = list(tags)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A book of two chapters, the second with exercises."""
    files = {
        "extractlib/__init__.py": "",
        "extractlib/attacks/attack.py": "",
        "book/extractbook/cli.py": "",
        "book/extractbook/figures/base.py": "",
        "book/extractbook/figures/chapter_02.py": "",
        "book/extractbook/build/pages.py": "",
        "book/extractbook/exercises/chapter_02.py": "",
        "book/extractbook/exercises/exercise.py": "",
        "book/extractbook/sphinx/quiz.py": "",
        "book/extractbook/paper/claims.toml": "{}",
        "book/extractbook/results/drawn/table.jsonl": "{}",
        "requirements.txt": "torch==1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    script = tmp_path / "book" / "execute.py"
    script.write_text("")
    write_notebook(tmp_path / "book" / "01_one.ipynb", "import extractlib as xl", "%matplotlib inline")
    write_notebook(tmp_path / "book" / "02_two.ipynb", "from extractbook import book")
    executed = tmp_path / "_build" / "executed"
    places = {"ROOT": ".", "BOOK": "book", "LOCK": "requirements.txt", "EXECUTED": executed}
    packages = {"extractlib": tmp_path / "extractlib", "extractbook": tmp_path / "book" / "extractbook"}
    monkeypatch.setattr(execute, "PACKAGES", packages)
    for name, place in places.items():
        monkeypatch.setattr(execute, name, tmp_path / place)
    monkeypatch.setattr(execute, "__file__", str(script))
    return tmp_path


def mark_as_executed(scale: str) -> None:
    """Leave an executed copy of every notebook, as a run of it does."""
    execute.EXECUTED.mkdir(parents=True, exist_ok=True)
    for path in execute.notebooks():
        run = execute.Run(execute.fingerprint(path, scale=scale), scale, cells=1, seconds=1.0, peak_megabytes=1)
        (execute.EXECUTED / path.name).write_text(json.dumps({"metadata": {"extractbook": asdict(run)}}))


@pytest.mark.parametrize(
    ("edited", "again"),
    [
        ("extractlib/attacks/attack.py", ["01_one", "02_two"]),
        ("book/extractbook/figures/base.py", ["01_one", "02_two"]),
        ("book/extractbook/figures/chapter_02.py", ["02_two"]),
        ("book/extractbook/exercises/exercise.py", ["01_one", "02_two"]),
        ("book/extractbook/exercises/chapter_02.py", ["02_two"]),
        ("book/extractbook/build/pages.py", []),
        ("book/extractbook/sphinx/quiz.py", []),
        ("book/extractbook/cli.py", []),
        ("book/extractbook/paper/claims.toml", ["01_one", "02_two"]),
        ("book/extractbook/results/drawn/table.jsonl", ["01_one", "02_two"]),
        ("requirements.txt", ["01_one", "02_two"]),
        ("book/index.md", []),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it(tree, edited, again):
    mark_as_executed("drawn")
    assert execute.stale("drawn") == {}
    with (tree / edited).open("a") as file:
        file.write("# edited\n")
    assert [path.stem for path in execute.stale("drawn")] == again


def test_another_scale_or_a_lost_copy_makes_stale(tree):
    mark_as_executed("drawn")
    assert [path.stem for path in execute.stale("smoke")] == ["01_one", "02_two"]
    (execute.EXECUTED / "02_two.ipynb").unlink()
    assert [path.stem for path in execute.stale("drawn")] == ["02_two"]


def test_a_lock_with_a_version_for_each_python_pins_the_one_of_this_python():
    lock = """
    numpy==1.0 ; python_full_version < '3.0'
    numpy==2.0 ; python_full_version >= '3.0'
    torch==3.0 ; python_full_version >= '3.0'
    torch==4.0 ; python_full_version < '3.0'
        # via a==b
    """
    assert execute.pinned(lock) == {"numpy": "2.0", "torch": "3.0"}
    assert execute.pinned(lock, {"python_full_version": "2.7.0"}) == {"numpy": "1.0", "torch": "4.0"}


def test_a_build_that_finds_nothing_to_do_imports_neither_torch_nor_pandas():
    code = "import sys; from extractbook.build import pages; print(sorted({'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_failing_chapter_shows_its_cell_and_leaves_no_copy(tree):
    path = write_notebook(tree / "book" / "3.ipynb", 'scale = "drawn"', "answer = 41\n1 / 0", tags=("parameters",))
    with pytest.raises(execute.ChapterError) as caught:
        execute.execute(path, tree / "copy.ipynb", "fingerprint", scale="smoke")
    message = str(caught.value)
    # The cell that sets the scale is injected as the second one.
    assert message.startswith("3: cell 3 failed\n\n    answer = 41\n    1 / 0\n")
    assert message.endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in message
    assert not list(tree.glob("copy*"))


def test_an_executed_copy_says_what_it_took(tree, capsys):
    path = write_notebook(tree / "book" / "3.ipynb", 'scale = "drawn"', "print(scale)", tags=("parameters",))
    assert execute.execute_all({path: "fingerprint"}, scale="smoke", jobs=1) == []
    run = execute.recorded()["3"]
    assert (run.fingerprint, run.scale, run.cells) == ("fingerprint", "smoke", 3)
    assert run.seconds > 0 and run.peak_megabytes > 10
    assert nbformat.read(execute.EXECUTED / "3.ipynb", as_version=4).cells[2].outputs[0].text == "smoke\n"
    assert capsys.readouterr().out == f"3: 3 cells, {run.seconds:.0f} s, {run.peak_megabytes} MB\n"


def figure_output(name: str):
    metadata = {"image/svg+xml": {"alt": "Two bars.", "caption": "Ours and theirs.", "name": name, "width": 3}}
    return nbformat.v4.new_output("display_data", data={"image/svg+xml": "<svg/>"}, metadata=metadata)


def code_cell(*outputs, tags=()):
    return nbformat.v4.new_code_cell("show()", outputs=list(outputs), metadata={"tags": list(tags)})


def test_figure_texts_move_to_the_cell():
    caption = nbformat.v4.new_output("display_data", data={"text/markdown": "x"}, metadata={"extractlib": "caption"})
    data = nbformat.v4.new_output("display_data", data={"text/html": "<table/>"}, metadata={"extractlib": "data"})
    cell = code_cell(figure_output("bars"), caption, data)
    [after] = build.tidy(cell, "chapter")
    assert (after.cell_type, after.source) == ("markdown", "<table/>")
    assert cell.metadata["mystnb"] == {
        "image": {"alt": "Two bars."},
        "figure": {"name": "bars", "caption": "Ours and theirs."},
    }
    assert [output.metadata for output in cell.outputs] == [{"image/svg+xml": {"width": 3}}]


def test_what_else_a_figure_s_cell_shows_stands_after_it():
    table = nbformat.v4.new_output("display_data", data={"text/markdown": "| a |"})
    cell = code_cell(figure_output("bars"), table)
    [after] = build.tidy(cell, "chapter")
    assert [list(output.data) for output in cell.outputs] == [["image/svg+xml"]]
    assert after.outputs == [table]
    assert after.metadata.tags == ["remove-input"]
    assert after.source  # Sphinx passes over a cell without


def test_two_figures_in_a_cell_are_refused():
    cell = code_cell(figure_output("first"), figure_output("second"))
    with pytest.raises(InputError, match="chapter: one cell shows the figures first, second"):
        build.tidy(cell, "chapter")


def test_injected_parameters_are_hidden():
    cell = code_cell(tags=["injected-parameters"])
    build.tidy(cell, "chapter")
    assert cell.metadata.tags == ["injected-parameters", "remove-cell"]


def test_progress_bars_and_widgets_are_dropped_and_other_messages_kept():
    bar = "\rquerying:  50%|#####     | 1/2 [00:01<00:01,  1.0s/it]\rquerying: 2it [00:02, 1.0it/s]\n"
    notebook_bar = {build.WIDGET: {}, "text/plain": "  0%|          | 0/10 [00:00<?, ?it/s]"}
    slider = {build.WIDGET: {}, "text/plain": "IntSlider(value=0)"}
    cell = code_cell(
        nbformat.v4.new_output("stream", name="stderr", text=bar),
        nbformat.v4.new_output("stream", name="stderr", text=bar + "careful: 3 left\n"),
        nbformat.v4.new_output("stream", name="stdout", text="done\n"),
        nbformat.v4.new_output("display_data", data=notebook_bar),
        nbformat.v4.new_output("display_data", data=slider),
    )
    build.tidy(cell, "chapter")
    assert [output.get("text", output.get("data")) for output in cell.outputs] == [
        "careful: 3 left\n",
        "done\n",
    ]


def test_costs_sum_up_the_seconds_of_each_table(tmp_path, monkeypatch):
    made = read_rows(results.FOLDER / "edition-2" / "smoke" / "reproduction.jsonl")[:2]
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for table, seconds in (("adaptive", (1_200.4, 0.2)), ("budget", (10.0, 2.0))):
        for row, its in zip(made, seconds, strict=True):
            changed = replace(row, provenance=row.provenance | {"seconds": its})
            append_row(tmp_path / "exploring" / "drawn" / f"{table}.jsonl", changed)
    lines = build.costs().splitlines()
    assert lines[2:5] == ["| adaptive | 2 | 1,201 |", "| budget | 2 | 12 |", "| **all** | 4 | **1,213** |"]
    assert lines[-1].startswith("Cut to keep a seed from taking longer: rewards at one budget; ")
