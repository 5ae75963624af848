"""Make course material from the chapters: notebooks for students and instructors, and assessed assignments.

A chapter's notebook is the one source: its exercises, each a cell with the tag ``exercise`` and two with the tag
``solution``, are rewritten, and the rest stays as it is.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from extractbook.build import execute
from extractbook.exercises import Exercise
from extractbook.exercises.exercise import lookup
from extractlib.errors import InputError

COURSES = execute.ROOT / "_build" / "courses"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
BLOCK = re.compile(rf"^(?P<indent> *){BEGIN}\n(?P<code>.*?)^ *{END}\n?", re.MULTILINE | re.DOTALL)
MARKER = re.compile(rf"^ *({BEGIN}|{END})\n?", re.MULTILINE)
# What the page reads as an exercise with a folded hint and the start of its folded solution.
STATEMENT = re.compile(
    r"::::\{exercise\} (?P<title>[^\n]+)\n:label: exercise-(?P<id>\d+\.\d+)\n:nonumber:\n\n"
    r"(?P<statement>.+)\n\n:::\{admonition\} Hint\n:class: dropdown\n\n(?P<hint>.+)\n:::\n::::\n\n"
    r":::\{solution-start\} exercise-(?P=id)\n:class: dropdown\n:::",
    re.DOTALL,
)
SOLUTION_END = "\n\n:::{solution-end}\n:::"
HOW_TO_HAND_IN = """# Chapter {chapter}: exercises

Write each answer where the cell says so, and keep its name.
Hand in this notebook, under the same file name."""

HIDDEN_TEST = """### BEGIN HIDDEN TESTS
from extractbook.exercises import check

verdict = check("{id}", {answer}, seed={seed})
assert verdict.right, verdict.reason
### END HIDDEN TESTS"""
NBGRADER = {"schema_version": 3, "task": False}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@dataclass(frozen=True)
class Task:
    """An exercise as its chapter's notebook has it.

    Attributes:
        id: Its id, for example ``"5.2"``.
        title: Id, title, kind and minutes, as the page shows them.
        statement: What is asked, in Markdown.
        hint: The hint, in Markdown.
        code: The solution's cell, markers included.
        explanation: What the page says after the solution, in Markdown.
    """

    id: str
    title: str
    statement: str
    hint: str
    code: str
    explanation: str

    @property
    def answer(self) -> str:
        """The name that holds the answer: what the cell's last line checks."""
        found = re.fullmatch(rf'book\.check\("{self.id}", (\w+)\)', self.code.splitlines()[-1])
        if not found:
            raise InputError(f'the solution of exercise {self.id} does not end in book.check("{self.id}", NAME)')
        return found[1]

    @property
    def plain(self) -> str:
        """Statement and hint in Markdown that every notebook program shows."""
        hint = f"<details>\n<summary>Hint</summary>\n\n{self.hint}\n\n</details>"
        return f"### Exercise {self.title}\n\n{self.statement}\n\n{hint}"


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Say whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def tasks(path: Path) -> list[Task]:
    """Return the exercises of a chapter's notebook, in order.

    Raises:
        InputError: One is not of the form that chapter 5 shows.
    """
    return list(_tasks(nbformat.read(path, as_version=4).cells, path.stem).values())


def _tasks(cells: list[NotebookNode], chapter: str) -> dict[int, Task]:
    """Return the exercises by the place of their first cell."""
    found = {}
    for place, cell in enumerate(cells):
        if "{exercise}" not in cell.source or not tagged(cell, "exercise"):
            continue
        form, following = STATEMENT.fullmatch(cell.source), cells[place + 1 : place + 3]
        kinds = [part.cell_type for part in following if tagged(part, "solution")]
        if not form or kinds != ["code", "markdown"] or not following[1].source.endswith(SOLUTION_END):
            raise InputError(f"{chapter}: cell {cell.id} is no exercise with its solution, as chapter 5 has them")
        explanation = following[1].source.removesuffix(SOLUTION_END)
        found[place] = Task(**form.groupdict(), code=following[0].source, explanation=explanation)
    return found


def without_markers(code: str) -> str:
    """Return code without the lines that mark a solution."""
    return MARKER.sub("", code)


def stub(code: str) -> str:
    """Return a solution's cell with its solution taken out.

    Within a function a stub raises NotImplementedError; outside one each name that the solution sets becomes ``...``.
    """
    return BLOCK.sub(_placeholder, code)


def _placeholder(block: re.Match) -> str:
    if block["indent"]:
        return f'{block["indent"]}raise NotImplementedError("your code here")\n'
    names = re.findall(r"^(\w+) = ", block["code"], re.MULTILINE)
    return "".join(f"{name} = ...  # your answer here\n" for name in dict.fromkeys(names))


def course_notebook(path: Path, *, solved: bool) -> NotebookNode:
    """Return a chapter with its exercises in plain Markdown, for students or, `solved`, for instructors."""
    notebook = nbformat.read(path, as_version=4)
    for place, task in _tasks(notebook.cells, path.stem).items():
        statement, code, explanation = notebook.cells[place : place + 3]
        statement.source = task.plain
        code.source = without_markers(task.code) if solved else stub(task.code)
        explanation.source = f"**Solution.** {task.explanation}" if solved else ""
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    return notebook


def write_courses(folder: Path) -> None:
    """Write every notebook of the book for students and for instructors."""
    for name, solved in (("student", False), ("instructor", True)):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for path in execute.notebooks():
            nbformat.write(course_notebook(path, solved=solved), folder / name / path.name)
        print(folder / name)


# -- assessed variants -----------------------------------------------------------


def chapter_notebook(chapter: int) -> Path:
    """Return the notebook of a chapter that has exercises.

    Raises:
        InputError: There is none.
    """
    found = [path for path in execute.notebooks() if path.name.startswith(f"{chapter:02}_")]
    if not found or not tasks(found[0]):
        raise InputError(f"chapter {chapter} has no exercises: name one that has, such as 5")
    return found[0]


def numbers(exercise: Exercise, seed: int | None = None) -> str:
    """Return the line that sets the numbers of a value exercise, in the book or in an assessed variant; else ''."""
    parameters = {} if exercise.cases else exercise.parameters(seed)
    return f"{', '.join(parameters)} = {', '.join(map(repr, parameters.values()))}\n" if parameters else ""


def assignment(chapter: int, seed: int) -> NotebookNode:
    """Return nbgrader's source of a chapter's exercises: markers around solutions, hidden tests, a variant's numbers.

    Raises:
        InputError: The chapter has no exercises, or the seed is no whole number from 0.
    """
    path = chapter_notebook(chapter)
    set_up = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and tagged(c, "exercise"))
    imports = [line for line in set_up.source.splitlines() if "extractbook" not in line]
    cells = [new_markdown_cell(HOW_TO_HAND_IN.format(chapter=chapter)), new_code_cell("\n".join(imports).strip())]
    for task in tasks(path):
        exercise, name = lookup(task.id), task.id.replace(".", "-")
        # Of a block that leaves the student nothing to write, such as a trial of the answer, no empty place is kept.
        written = BLOCK.sub(lambda block: block[0] if _placeholder(block) else "", task.code)
        lines = written.removeprefix(numbers(exercise)).splitlines()[:-1]
        solution = numbers(exercise, seed) + "\n".join(lines).rstrip()
        test = HIDDEN_TEST.format(id=task.id, answer=task.answer, seed=seed)
        graded = {"grade_id": f"check-{name}", "grade": True, "solution": False, "locked": True, "points": 1}
        written_in = {"grade_id": f"exercise-{name}", "grade": False, "solution": True, "locked": False}
        cells += [
            new_markdown_cell(task.plain),
            new_code_cell(solution, metadata={"nbgrader": written_in | NBGRADER}),
            new_code_cell(test, metadata={"nbgrader": graded | NBGRADER}),
        ]
    for number, cell in enumerate(cells):  # ids that do not change from one call to the next
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def write_assignment(folder: Path, chapter: int, seed: int) -> None:
    """Write nbgrader's course folder for a chapter's assessed variant."""
    notebook = assignment(chapter, seed)
    course, name = folder / assignment_name(chapter, seed), f"chapter-{chapter:02}"
    shutil.rmtree(course, ignore_errors=True)
    (course / "source" / name).mkdir(parents=True)
    nbformat.write(notebook, course / "source" / name / f"{name}.ipynb")
    (course / "nbgrader_config.py").write_text(f'c = get_config()\nc.CourseDirectory.course_id = "{course.name}"\n')
    print(f"{course}\nThe student's version: cd there, and nbgrader generate_assignment {name}")


def assignment_name(chapter: int, seed: int) -> str:
    """Return the name of a chapter's assessed variant."""
    return f"chapter-{chapter:02}-seed-{seed}"
