"""Grading: whatever a submission does, it gets its grade and a reason, and the one beside it gets its own."""

import csv
import json

import nbformat
import pytest

from extractbook.build import courses, grading, submission
from extractlib.errors import InputError

SEED = 7
ANSWERS = {task.id: task.answer for task in courses.tasks(courses.chapter_notebook(5))}
# Generous on the clock, so that a busy machine changes no outcome; to import torch takes 3 to 7 seconds of processor.
LIMITS = grading.Limits(seconds=300, processor=25, memory=1024, file=20)


def solved() -> nbformat.NotebookNode:
    """Return the assignment with its solutions, as a good student hands it in."""
    notebook = courses.assignment(5, SEED)
    notebook.cells = [cell for cell in notebook.cells if not cell.metadata.get("nbgrader", {}).get("grade")]
    for cell in notebook.cells:
        cell.source = courses.without_markers(cell.source)
        cell.metadata.pop("nbgrader", None)
    return notebook


def with_cells(*, first: str = "", last: str = "") -> str:
    """Return the solved assignment with a cell put before or after its own, as a file's text."""
    notebook = solved()
    notebook.cells.insert(1, nbformat.v4.new_code_cell(first))
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    return nbformat.writes(notebook)


def outdated() -> str:
    """Return the assignment solved with the numbers of another seed."""
    notebook = solved()
    other = courses.numbers(courses.lookup("5.1"), SEED + 1)
    notebook.cells[3].source = other + "held = (requests - breaks) * chunk"
    return nbformat.writes(notebook)


CHEAT = """
import extractbook.exercises, extractbook.exercises.exercise as room
check = extractbook.exercises.check = lambda *a, **o: True
room.Exercise.judged = lambda *a, **o: room.Verdict("5.1", True, "")
held = -1
"""
SABOTAGE = """
import extractbook.exercises.exercise as room
room.Exercise.parameters = lambda *a, **o: {}
"""
FORGED = """
import json, os, pathlib
forged = {"answers": {"5.1": {"outputs": [{"array": "x", "dtype": "O"}]}, "5.2": 3}, "points": 6}
pathlib.Path("answers.json").write_text(json.dumps(forged))
os._exit(0)
"""
# Of each nasty submission: its file, its points, and a part of the reason it is given.
NASTY = {
    "raises": (with_cells(first="1 / 0", last="del held"), 5, "there is no held"),
    "loops": (with_cells(last="while True: pass"), 0, "more than 25 seconds of processor time"),
    "loops in an answer": (
        with_cells(last="def draw(*case):\n    while True:\n        pass"),
        0,
        "more than 25 seconds of processor time",
    ),
    "prints 50 MB": (with_cells(last="for _ in range(50):\n    print('x' * 2**20)"), 0, "printed more than 1 MB"),
    "takes 8 GB": (with_cells(last="import numpy\nbig = numpy.ones(2**30)"), 0, "more memory than is allowed"),
    "takes 8 GB by torch": (with_cells(last="big = torch.ones(2**31)"), 0, "more memory than is allowed"),
    "writes 1 GB": (
        with_cells(last="with open('big', 'wb') as file:\n    for _ in range(1024):\n        file.write(bytes(2**20))"),
        0,
        "wrote more than 20 MB",
    ),
    "writes many files": (
        with_cells(last="for n in range(60):\n    open(f'{n}.bin', 'wb').write(bytes(2**20))"),
        0,
        "wrote more than 20 MB",
    ),
    "sys.exit": (with_cells(last="import sys; sys.exit(0)"), 6, ""),
    "os._exit": (with_cells(last="import os; os._exit(0)"), 0, "ended before the answers were complete (status 0)"),
    "kills itself": (with_cells(last="import os; os.kill(os.getpid(), 15)"), 0, "ended before the answers"),
    "overwrites check": (with_cells(last=CHEAT), 5, "too small"),
    "breaks the package": (with_cells(last=SABOTAGE), 2, "its answer cannot be taken (TypeError)"),
    "forges its answers": (with_cells(last=FORGED), 0, "the answer is no array that can be read"),
    "no notebook": ("print('hello')", 0, "it is no notebook that can be read"),
    "empty": ("", 0, "it is no notebook that can be read"),
    "another course": (outdated(), 5, "the number is too"),
    "asks": (with_cells(last="input('points? ')"), 6, ""),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The grades by name of all nasty submissions with a good one before and one after them, and where they lie."""
    folder = tmp_path_factory.mktemp("submissions")
    for name, (text, *_) in NASTY.items():
        (folder / f"{name}.ipynb").write_text(text)
    (folder / "a good one.ipynb").write_text(nbformat.writes(solved()))
    (folder / "zoe" / "late").mkdir(parents=True)
    (folder / "zoe" / "late" / "chapter-05.ipynb").write_text(nbformat.writes(solved()))
    (folder / "two").mkdir()
    for name in ("one.ipynb", "other.ipynb"):
        (folder / "two" / name).write_text(nbformat.writes(solved()))
    (folder / "text.txt").write_text("my answers")
    output = tmp_path_factory.mktemp("grades")
    grades = grading.grade_all(folder, output, chapter=5, seed=SEED, limits=LIMITS)
    return {grade.name: grade for grade in grades}, output


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_submission_gets_its_points_and_a_reason(graded, name):
    grades, output = graded
    _, points, reason = NASTY[name]
    assert grades[name].points == points
    assert any(reason in told for told in grades[name].reasons.values())
    assert reason in (output / "feedback" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", ["a good one", "zoe"])
def test_the_good_ones_beside_them_get_full_marks(graded, name):
    grades, output = graded
    assert grades[name].points == 6 and not grades[name].problem
    assert (output / "feedback" / f"{name}.md").read_text().startswith(f"# {name}: 6 of 6\n\n- Exercise 5.1: right.\n")


@pytest.mark.parametrize(
    ("name", "reason"), [("two", "there are 2 notebooks in it where one is wanted"), ("text", "it is no notebook")]
)
def test_what_holds_no_single_notebook_gets_nothing(graded, name, reason):
    assert graded[0][name].points == 0 and graded[0][name].problem == reason


def test_the_table_has_a_line_for_each_submission(graded):
    grades, output = graded
    with (output / "grades.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["submission"] for line in lines] == list(grades)
    by_name = {line["submission"]: line for line in lines}
    marks = dict.fromkeys(ANSWERS, "1")
    assert by_name["a good one"] == {"submission": "a good one", "points": "6", "of": "6", **marks, "reason": ""}
    assert by_name["raises"]["points"] == "5" and by_name["raises"]["5.1"] == "0" and by_name["raises"]["5.2"] == "1"
    assert by_name["prints 50 MB"]["reason"] == "it printed more than 1 MB"
    assert not list(output.glob("*.partial"))


def test_feedback_names_the_cells_that_stopped(graded):
    text = (graded[1] / "feedback" / "raises.md").read_text()
    assert "- code cell 1 stopped: ZeroDivisionError: division by zero" in text


def test_one_that_sleeps_is_ended_and_takes_its_children_along(tmp_path):
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(8); pathlib.Path({str(mark)!r}).touch()"
    sleeps = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sleeps)])
    nbformat.write(notebook, tmp_path / "sleeps.ipynb")
    limits = grading.Limits(seconds=3)
    grade = grading.grade("sleeps", tmp_path / "sleeps.ipynb", ANSWERS, seed=SEED, limits=limits)
    assert grade.problem == "it did not end within 3 seconds" and grade.points == 0
    assert not mark.exists()


def test_a_notebook_that_is_too_large_is_not_taken(tmp_path):
    (tmp_path / "large.ipynb").write_bytes(bytes(2**20 + 1))
    limits = grading.Limits(notebook=1)
    grade = grading.grade("large", tmp_path / "large.ipynb", ANSWERS, seed=SEED, limits=limits)
    assert grade.problem == "it is no notebook of at most 1 MB"


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, '{"problem": 3}', '{"answers": 4, "stopped": 5}', "null"])
def test_forged_reports_are_survived(tmp_path, monkeypatch, text):
    (tmp_path / "one.ipynb").write_text("{}")

    def forge(folder, *args, **options):
        (folder / submission.REPORT).write_text(text)
        return ""

    monkeypatch.setattr(grading, "run", forge)
    grade = grading.grade("one", tmp_path / "one.ipynb", ANSWERS, seed=SEED, limits=LIMITS)
    assert grade.points == 0 and all(grade.reasons.values())


def test_answers_that_are_too_large_are_not_read(tmp_path):
    (tmp_path / submission.REPORT).write_text(json.dumps("x" * 2**21))
    assert grading.read_report(tmp_path, LIMITS) == {"problem": "its answers take more than 1 MB"}


def test_two_submissions_of_one_name_are_refused(tmp_path):
    (tmp_path / "ann.ipynb").touch()
    (tmp_path / "ann").mkdir()
    with pytest.raises(InputError, match=r"ann\.ipynb and ann have one name: rename one of them"):
        grading.submissions(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is empty: NAME.ipynb or NAME/"):
        grading.submissions(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chapter=5", "--seed=7"], "grade: SUBMISSIONS is '': the folder of the submissions is wanted"),
        (["--submissions=nowhere", "--chapter=5", "--seed=7"], "grade: SUBMISSIONS is 'nowhere'"),
        (["--submissions=.", "--chapter=5", "--seed=x"], "grade: SEED is 'x': a whole number from 0 is wanted"),
        (["--submissions=.", "--chapter=13", "--seed=1"], "grade: chapter 13 has no exercises"),
    ],
)
def test_grading_nothing_is_refused_in_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(courses, "COURSES", tmp_path / "courses")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["grading.py", *arguments])
    assert grading.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
    assert not (tmp_path / "courses").exists()
