"""The assessed assignments, run by ``make check-courses``: nbgrader makes the students' versions of them."""

import subprocess
import sys

import nbformat
import pytest

from extractbook.build import courses, execute
from extractbook.exercises.exercise import lookup

CHAPTERS = [int(path.name[:2]) for path in execute.notebooks() if path.name[:2].isdigit() and courses.tasks(path)]


def test_some_chapters_have_exercises():
    assert 5 in CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nbgrader_makes_the_student_version(chapter, tmp_path):
    courses.write_assignment(tmp_path, chapter, 7)
    folder, name = tmp_path / courses.assignment_name(chapter, 7), f"chapter-{chapter:02}"
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", name]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
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
