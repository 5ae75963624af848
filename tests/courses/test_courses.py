"""The graded assignments, run by ``make check-courses``: nbgrader hands them out, and grades them in its sandbox.

A submission is made of what is handed out alone: its exercises and the answers' names are read there.
Two processes have a course each; what concerns a chapter goes to one of them, in this file's order.
"""

import copy
import csv
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from mistakes import MISTAKES

from extractbook.build import courses, execute
from extractbook.build.grading import run
from extractbook.build.plain import RAW
from extractbook.build.stubs import ANSWER, BEGIN, without_markers
from extractbook.exercises import check
from extractbook.exercises.exercise import lookup

CHAPTERS = [int(path.name[:2]) for path in execute.notebooks() if path.name[:2].isdigit() and courses.tasks(path)]
EVERY = [pytest.param(chapter, marks=pytest.mark.xdist_group(f"chapter-{chapter}")) for chapter in CHAPTERS]
FIFTH = pytest.mark.xdist_group("chapter-5")
TASKS = {
    chapter: [*courses.tasks(courses.chapter_notebook(chapter)), *courses.assigned(chapter)] for chapter in CHAPTERS
}
TRIED = re.compile(r'^trial\("([\w.]+)", (\w+)\)$', re.MULTILINE)
SEED = 7


def nbgrader(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nbgrader", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | environment)


@pytest.fixture(scope="session")
def course(tmp_path_factory) -> Path:
    """A course folder, which each chapter's assignment is put into when it is first asked for."""
    folder = tmp_path_factory.mktemp("course") / "autumn"
    folder.mkdir()
    (folder / courses.SECRET).write_text(f"{SEED}\n")
    return folder


def file(chapter: int) -> str:
    return f"chapter-{chapter:02}/chapter-{chapter:02}.ipynb"


def handed_out(course: Path, chapter: int) -> nbformat.NotebookNode:
    if not (course / "release" / file(chapter)).exists():
        courses.write_assignment(course, chapter)
        made = nbgrader("generate_assignment", f"chapter-{chapter:02}", folder=course)
        assert made.returncode == 0, made.stderr
    return nbformat.read(course / "release" / file(chapter), as_version=4)


def places(notebook: nbformat.NotebookNode) -> dict[str, int]:
    """Return by exercise the cell that its answer goes into, as the notebook says."""
    tried = [(place, TRIED.search(cell.source)) for place, cell in enumerate(notebook.cells)]
    found = {}
    for place, trial in tried:
        if trial:
            written = notebook.cells[place - 1]
            assert [answer["name"] for answer in ANSWER.finditer(written.source)] == [trial[2]], trial[1]
            found[trial[1]] = place - 1
    return found


def filled(notebook: nbformat.NotebookNode, code: dict[str, str]) -> nbformat.NotebookNode:
    """Return what is handed out with answers: a value is put behind its name, a function stands in for its stub.

    Args:
        notebook: What is handed out.
        code: By exercise the code, markers included, of which the answer is taken.
    """
    notebook = copy.deepcopy(notebook)
    for id, place in places(notebook).items():
        if id not in code:
            continue
        cell, own = notebook.cells[place], without_markers(code[id]).rpartition("book.check(")[0]
        if lookup(id).cases:
            cell.source = own
            continue
        space: dict = {}
        exec(notebook.cells[2].source, space)  # what the notebook imports
        numbers = courses.numbers(lookup(id), SEED)
        assert cell.source.startswith(numbers)
        exec(numbers + own.removeprefix(courses.numbers(lookup(id))), space)
        answer = ANSWER.search(cell.source)
        cell.source = cell.source.replace(answer[0], f"{answer['name']} = {space[answer['name']]!r}")
        cell.source = cell.source.replace("np.float64(", "float(")
    return notebook


def right(chapter: int) -> dict[str, str]:
    return {task.id: task.code for task in TASKS[chapter] if task.code}


def wrong(chapter: int, number: int) -> dict[str, str]:
    """Return solutions with each exercise's mistake of this number, of those that have so many."""
    changed = {id: MISTAKES[id][number][1:3] for id in right(chapter) if number < len(MISTAKES[id])}
    return {id: right(chapter)[id].replace(*change) for id, change in changed.items()}


def submit(course: Path, chapter: int, student: str, notebook: nbformat.NotebookNode) -> None:
    path = course / "submitted" / student / file(chapter)
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)


def points(course: Path, chapter: int) -> dict[str, dict[str, float]]:
    """Return by student and exercise what the gradebook has."""
    query = """
        select student.id, base_cell.name, grade.auto_score from grade
        join base_cell on base_cell.id = grade.cell_id
        join submitted_notebook on submitted_notebook.id = grade.notebook_id
        join submitted_assignment on submitted_assignment.id = submitted_notebook.assignment_id
        join student on student.id = submitted_assignment.student_id
        join assignment on assignment.id = submitted_assignment.assignment_id where assignment.name = ?"""
    with sqlite3.connect(course / "gradebook.db") as book:
        found: dict = {}
        for student, name, score in book.execute(query, [f"chapter-{chapter:02}"]):
            if name.startswith("check-"):
                found.setdefault(student, {})[name.removeprefix("check-").replace("-", ".")] = score
    return found


# What is handed out.


@pytest.mark.parametrize("chapter", EVERY)
def test_what_is_handed_out_names_the_answers_and_hides_solutions(course, chapter):
    notebook = handed_out(course, chapter)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert list(places(notebook)) == [task.id for task in TASKS[chapter] if task.code]
    for task in TASKS[chapter]:
        assert courses.numbers(lookup(task.id), SEED) in text
        long = [line for line in without_markers(task.code).splitlines() if line not in text]
        assert long or not task.code
        assert task.code or task.explained.partition("**How")[0] not in text
    assert "HIDDEN" not in text and BEGIN not in text and "Graded outside" not in text and f"seed={SEED}" not in text
    graded = [cell.metadata.nbgrader for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert [cell.points for cell in graded] == [lookup(task.id).minutes for task in TASKS[chapter]]


@pytest.mark.parametrize("chapter", EVERY)
def test_what_is_handed_out_reads_and_leads_anywhere(course, chapter):
    text = "\n\n".join(cell.source for cell in handed_out(course, chapter).cells if cell.cell_type == "markdown")
    assert RAW.findall(text) == []
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and [link for link in links if not link.startswith("https://")] == []
    # What is not in this notebook is where a link leads.
    bare = re.sub(r"\[[^]]*\]\([^)]*\)", "", text)
    assert re.findall(r"[Tt]h(?:e|is) chapter|step \d", bare) == []


# Whole points for right answers, and those of a mistake alone lost for it.


@pytest.mark.slow
@pytest.mark.parametrize("chapter", EVERY)
def test_solutions_are_right_and_every_mistake_is_wrong(course, chapter):
    """The answers as the judge gets them: of each notebook in one process, first all solutions, then the mistakes."""
    solved = [(right(chapter), True)]
    mistaken = [(wrong(chapter, number), False) for number in range(max(len(MISTAKES[id]) for id in right(chapter)))]
    for code, is_right in solved + mistaken:
        notebook = filled(handed_out(course, chapter), code)
        space: dict = {}
        judged = set()
        for place, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or place == 1:  # the cell that installs the package
                continue
            if not (tried := TRIED.search(cell.source)):
                exec(cell.source, space)
            elif tried[1] in code:
                verdict = check(tried[1], space[tried[2]], seed=SEED)
                assert verdict.right == is_right, verdict
                judged.add(tried[1])
        assert judged == set(code)


@pytest.mark.parametrize("chapter", EVERY)
def test_nbgrader_gives_the_points_that_are_earned(course, chapter):
    released = handed_out(course, chapter)
    mistaken = wrong(chapter, 0)
    first = next(iter(mistaken))
    del mistaken[first]
    submit(course, chapter, "all", filled(released, right(chapter)))
    submit(course, chapter, "mistaken", filled(released, right(chapter) | mistaken))
    submit(course, chapter, "none", released)
    graded = nbgrader("autograde", f"chapter-{chapter:02}", folder=course)
    assert graded.returncode == 0, graded.stderr
    full = {id: lookup(id).minutes for id in right(chapter)}
    found = points(course, chapter)
    assert found["all"] == full
    assert found["none"] == dict.fromkeys(full, 0)
    assert found["mistaken"][first] == full[first]
    assert [id for id in full if found["mistaken"][id] == full[id]] == [id for id in full if id not in mistaken]


# What a submission may do, and what it cannot.

FAULTS = {
    "wrong": {
        "5.2": "def policy(preferences, left):\n    raise SystemExit",
        "5.3": "def gradient(logits, targets):\n    raise KeyboardInterrupt",
        "5.4": "def steal(*case):\n    raise ValueError('\\udc80')",
        "5.5": "solve = []\nsolve.append(solve)",
        "5.A": "from extractbook.exercises.assigned.chapter_05 import EXERCISE\nextract = EXERCISE.right",
    },
    "another's-name": {"5.2": "import hand_in\nhand_in.hand_in('5.4', lambda *case: 1.0)\npolicy = None"},
    "patches": {"5.2": "import hand_in\nhand_in.hand_in = lambda *answer: None"},
    "memory": {"5.2": "policy = bytearray(16 * 2**30)"},
}
"""Of each student the answers that are worth nothing; the others are right."""
LOST = {"another's-name": {"5.2", "5.4"}, "patches": {"5.2", "5.3", "5.4", "5.5", "5.A"}}
ENDS = {
    "kills-all": "import os\nos.kill(-1, 9)",
    "forks": "import os, time\nfor _ in range(400):\n    if not os.fork():\n        time.sleep(60)",
}
"""What ends the kernel in exercise 5.2: what was answered before counts."""
HARMLESS = """%matplotlib inline
import glob, pathlib, socket
from IPython.display import HTML, display
display(HTML("<script>alert(1)</script>"))
for _ in range(20):
    print("x" * 10_000_000)
print("\\udc80")
assert not glob.glob("{course}/*") and not glob.glob("{root}/tests/*"), "the course can be seen"
for one in ("/usr/x", "{course}/x", "/tmp/answers/x"):
    try:
        pathlib.Path(one).write_text("x")
    except OSError:
        continue
    raise SystemError(one)
try:
    for one in "ab":
        pathlib.Path("/tmp/work", one).write_bytes(bytes(60 * 2**20))
except OSError:
    pathlib.Path("/tmp/work/a").unlink()
else:
    raise SystemError("the disk")
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5)
except OSError:
    pass
else:
    raise SystemError("the network")
"""
"""What comes to nothing, in the cell of exercise 5.2 and above its right answer."""


@FIFTH
def test_a_submission_harms_nobody_and_pays_for_itself_alone(course):
    """All are graded in one call, beside a file that is no notebook, a link, and a Mac's companions."""
    released, full = handed_out(course, 5), {id: lookup(id).minutes for id in right(5)}
    expected = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names = {"{course}": str(course), "{port}": str(listener.getsockname()[1]), "{root}": str(execute.ROOT)}
        rude = re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], HARMLESS)
        codes = {name: {"5.2": code} for name, code in ENDS.items()} | FAULTS | {"rude": {}}
        for name, changed in codes.items():
            notebook = filled(released, right(5))
            for id, code in changed.items():
                notebook.cells[places(released)[id]].source = code
            if name == "rude":
                cell = notebook.cells[places(released)["5.2"]]
                cell.source = f"{rude}\n{cell.source}"
            submit(course, 5, name, notebook)
            lost = LOST.get(name, set(changed)) if name not in ENDS else set(full) - {"5.1"}
            expected[name] = {id: 0 if id in lost else points for id, points in full.items()}
        (course / "submitted" / "__MACOSX" / "chapter-05").mkdir(parents=True)
        (course / "submitted" / "__MACOSX" / "chapter-05" / "chapter-05.ipynb").write_text("")
        broken = course / "submitted" / "broken" / file(5)
        broken.parent.mkdir(parents=True)
        broken.write_text("{" * 100_000)
        (course / "submitted" / "rude" / "chapter-05" / "link").symlink_to(course / "gradebook.db")
        graded = nbgrader("autograde", "chapter-05", folder=course)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert graded.returncode != 0 and "student 'broken'" in graded.stderr and "student '__MACOSX'" not in graded.stderr
    found = points(course, 5)
    assert {name: found[name] for name in expected} == expected
    assert "__MACOSX" not in found and not (course / "autograded" / "rude" / "chapter-05" / "link").exists()
    feedback = nbgrader("generate_feedback", "chapter-05", "--student", "rude", folder=course)
    assert feedback.returncode == 0, feedback.stderr
    page = (course / "feedback" / "rude" / "chapter-05" / "chapter-05.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "Exercise 5.2: right" in page


@FIFTH
def test_the_tables_for_other_systems_hold_no_formula(course):
    """Moodle's has an address for each student, Canvas's the points that can be had above them."""
    submit(course, 5, "=1+1", handed_out(course, 5))
    assert nbgrader("autograde", "chapter-05", "--student", "=1+1", folder=course).returncode == 0
    assert nbgrader("export", folder=course).returncode == 0
    with (course / "grades.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert list(rows[0])[:4] == ["Student ID", "First name", "Last name", "Email address"]
    [row] = [row for row in rows if row["Student ID"] == "'=1+1"]
    assert float(row["chapter-05"]) == 0
    canvas = ("export", "--exporter", "extractbook.build.grading.Canvas", "--to", "canvas.csv")
    assert nbgrader(*canvas, folder=course).returncode == 0
    with (course / "canvas.csv").open(newline="") as table:
        heads, possible, *students = csv.reader(table)
    assert heads[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert possible[:5] == ["    Points Possible", *4 * [""]]
    assert possible[heads.index("chapter-05")] == str(float(sum(lookup(task.id).minutes for task in TASKS[5])))
    assert "'=1+1" in {row[3] for row in students}


def test_a_program_without_an_end_is_ended():
    shown, fault = run(["sleep", "60"], 1)
    assert shown == [] and fault == "the notebook took more than 1 seconds"


@FIFTH
def test_where_no_sandbox_starts_nothing_is_run(course, tmp_path):
    """The remedy is named, and the submission has no points and no output."""
    submit(course, 5, "unlucky", handed_out(course, 5))
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no user namespaces >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ran = nbgrader("autograde", "chapter-05", "--student", "unlucky", folder=course, PATH=path)
    assert ran.returncode != 0
    assert "no submission is run without a sandbox" in ran.stderr and "no user namespaces" in ran.stderr
    assert "apt-get install bubblewrap" in ran.stderr


@FIFTH
def test_archives_of_other_systems_are_collected(course):
    """As Moodle and Canvas name what was handed in, one submission too late and for the second time."""
    handed_out(course, 5)
    names = [
        "Ada Lovelace_123_assignsubmission_file/chapter-05.ipynb",
        "Alan Turing_124_assignsubmission_file_/chapter-05.ipynb",
        "hoppergrace_1234_5678_chapter-05.ipynb",
        "noetheremmy_late_1235_5679_chapter-05-1.ipynb",
    ]
    archive = course / "downloaded" / "chapter-05" / "archive"
    archive.mkdir(parents=True)
    with zipfile.ZipFile(archive / "all.zip", "w") as all_of_them:
        for name in names:
            all_of_them.writestr(name, "{}")
    collected = nbgrader("zip_collect", "chapter-05", folder=course)
    assert collected.returncode == 0, collected.stderr
    for student in ("Ada Lovelace", "Alan Turing", "hoppergrace", "noetheremmy"):
        assert (course / "submitted" / student / file(5)).read_text() == "{}"
        shutil.rmtree(course / "submitted" / student)
