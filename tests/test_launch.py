"""What Colab, Binder and others open: the chapters as plain Markdown, with stubs and, beside them, with solutions."""

import json
import re

import nbformat
import pytest

from extractbook.build import courses, execute
from extractbook.build.plain import RAW, citation, plain, question
from extractbook.build.stubs import BLOCK
from extractbook.sphinx import furniture, quiz

GENERATED = courses.launch_notebooks()
each = pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.relative_to(courses.LAUNCH).as_posix())


def cells(path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.reads(GENERATED[path], 4).cells if cell.cell_type == kind]


def test_what_is_committed_is_what_the_chapters_make():
    committed = {path: path.read_text(encoding="utf-8") for path in courses.LAUNCH.rglob("*.ipynb")}
    assert set(committed) == set(GENERATED)
    assert [path.name for path, text in committed.items() if text != GENERATED[path]] == [], "run make launch"


def test_the_folder_that_a_visitor_sees_holds_notebooks_alone():
    names = sorted(path.name for path in courses.LAUNCH.iterdir())
    assert names == [*(path.name for path in execute.notebooks()), "solutions"]


@each
def test_nothing_stands_there_raw(path):
    """No role, fence or directive, no marker of a solution, and no link that leads nowhere from there."""
    text = "\n\n".join(cells(path, "markdown"))
    assert RAW.findall(text) == [] and ":label:" not in text
    links = re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`]*`", "", text))
    assert [link for link in links if not link.startswith(("https://", "http://"))] == []
    assert "### BEGIN" not in GENERATED[path] and nbformat.validate(nbformat.reads(GENERATED[path], 4)) is None


@each
def test_solutions_stand_in_the_solution_notebooks_alone(path):
    code, text = "\n".join(cells(path, "code")), "\n".join(cells(path, "markdown"))
    solved = path.parent.name == "solutions"
    tasks = courses.tasks(execute.BOOK / path.name)
    assert bool(tasks) == path.name[0].isdigit()
    for task in tasks:
        assert (task.explained in text) == solved
        if task.code:
            assert (f"{task.answer} = None  # your answer" in code or "raise NotImplementedError" in code) != solved
            blocks = [block["code"] for block in BLOCK.finditer(task.code)]
            assert all((block in code) == solved for block in blocks if len(block) > 30)


@each
def test_all_else_is_the_chapters_own(path):
    """The first code cell installs the package; cells that the page does not show are folded."""
    notebook = nbformat.reads(GENERATED[path], 4)
    chapter = [cell for cell in nbformat.read(execute.BOOK / path.name, 4).cells if cell.cell_type == "code"]
    own = [cell.source for cell in chapter if not courses.tagged(cell, "solution")]
    assert [source for source in own if source not in cells(path, "code")] == []
    assert cells(path, "code")[0] == furniture.setup_cell()
    for cell in notebook.cells:
        hidden = {"remove-cell", "remove-input", "hide-input"} & set(cell.metadata.get("tags", []))
        assert cell.cell_type != "code" or bool(hidden) == ("jupyter" in cell.metadata)
    assert json.loads(GENERATED[path])["cells"][1]["id"] == "about"


def test_every_service_opens_a_launch_notebook():
    assert "Solutions" in furniture.launch("05_knockoff") and "Solutions" not in furniture.launch("index")
    buttons = furniture.launch("05_knockoff")
    assert set(buttons) >= {"Colab", "Binder", "Kaggle", "JupyterHub", "Codespaces", "Download"}
    for service, url in buttons.items():
        if service == "Download":
            assert url == f"{furniture.site()}launch/05_knockoff.ipynb"
        elif service != "Codespaces":  # it opens the whole repository
            file = re.search(r"book/launch/.*\.ipynb", url)[0]
            assert execute.ROOT / file in GENERATED, service
            assert ("solutions" in file) == (service == "Solutions")


def test_roles_become_what_every_program_shows():
    assert plain("by {cite:t}`tramer2016stealing` ({cite}`he2016deep`)", "05_knockoff").startswith(
        "by [Tramèr et al. (2016)](https://www.usenix.org/"
    )
    assert citation(["he2016deep", "simonyan2015very"], textual=False) == (
        "([He et al., 2016](https://doi.org/10.1109/CVPR.2016.90); "
        "[Simonyan and Zisserman, 2015](https://arxiv.org/abs/1409.1556))"
    )
    words = "a {term}`prediction API` and {term}`budgets <budget>`"
    assert re.sub(r"https[^)]*/book/", "", plain(words, "05_knockoff")) == (
        "a [prediction API](glossary.html#term-prediction-API) and [budgets](glossary.html#term-budget)"
    )
    assert plain("see [four](04_api.ipynb#x) and [words](glossary.md)", "05_knockoff") == (
        f"see [four]({furniture.site()}book/04_api.html#x) and [words]({furniture.site()}book/glossary.html)"
    )
    [asked] = quiz.questions("- {question: 'One?', choices: {a: x, b: y}, feedback: {a: bad, b: fine}, answer: o}")
    assert question(asked).splitlines()[:4] == ["**One?**", "", "- a: x", "- b: y"]
    assert "- b is right: fine" in question(asked) and "- a is wrong: bad" in question(asked)
