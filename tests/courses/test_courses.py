"""The assessed assignments, run by ``make check-courses``: nbgrader makes them and grades them."""

import copy
import csv
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from extractbook.build import courses, execute
from extractbook.exercises.exercise import lookup

CHAPTERS = [int(path.name[:2]) for path in execute.notebooks() if path.name[:2].isdigit() and courses.tasks(path)]


def test_some_chapters_have_exercises():
    assert 5 in CHAPTERS


def nbgrader(*words: str, folder: Path) -> None:
    made = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nbgrader_makes_the_student_version(chapter, tmp_path):
    courses.write_assignment(tmp_path, chapter, 7)
    folder, name = tmp_path / courses.assignment_name(chapter, 7), f"chapter-{chapter:02}"
    nbgrader("generate_assignment", name, folder=folder)
    notebook = nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    tasks = courses.tasks(courses.chapter_notebook(chapter))
    for task in tasks:
        assert courses.numbers(lookup(task.id), 7) in code
        solutions = [block["code"].strip() for block in courses.BLOCK.finditer(task.code)]
        assert solutions and not any(solution in code for solution in solutions)
    assert "HIDDEN" not in code and "check(" not in code and "### BEGIN" not in code
    points = [
        cell.metadata.nbgrader.points for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")
    ]
    assert points == [1] * len(tasks)


def test_nbgrader_gives_a_point_for_each_right_answer(tmp_path):
    """One student hands in the solutions, one all but the first of them, and one what was handed out."""
    courses.write_assignment(tmp_path, 5, 7)
    folder, file = tmp_path / courses.assignment_name(5, 7), "chapter-05/chapter-05.ipynb"
    nbgrader("generate_assignment", "chapter-05", folder=folder)
    solved = [courses.without_markers(cell.source) for cell in courses.assignment(5, 7).cells]
    handed_out = nbformat.read(folder / "release" / file, as_version=4)
    for name in ("all", "but-one", "none"):
        notebook = copy.deepcopy(handed_out)
        places = [
            place for place, cell in enumerate(notebook.cells) if cell.metadata.get("nbgrader", {}).get("solution")
        ]
        for place in {"all": places, "but-one": places[1:], "none": []}[name]:
            notebook.cells[place].source = solved[place]
        path = folder / "submitted" / name / file
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    nbgrader("autograde", "chapter-05", folder=folder)
    nbgrader("export", folder=folder)
    with (folder / "grades.csv").open() as table:
        points = {
            line["student_id"]: (float(line["score"]), float(line["max_score"])) for line in csv.DictReader(table)
        }
    count = len(courses.tasks(courses.chapter_notebook(5)))
    assert points == {"all": (count, count), "but-one": (count - 1, count), "none": (0, count)}
