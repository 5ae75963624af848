"""Make course material from the chapters: notebooks to launch, with and without solutions, and graded assignments.

A chapter's notebook is the only source. Its exercises, each a cell with the tag ``exercise`` and two with the tag
``solution`` (or one if the answer is a text), are rewritten, and the rest becomes Markdown that every notebook program
shows. An assignment adds exercises that are not on any page.
"""

import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from extractbook import exercises
from extractbook.build import execute
from extractbook.build.plain import address, placed, plain
from extractbook.build.stubs import BEGIN, END, marked, stub, without_markers
from extractbook.exercises import Exercise
from extractbook.exercises.exercise import lookup
from extractbook.sphinx import furniture
from extractlib.errors import HIGHEST_SEED, InputError, shown

COURSES = execute.ROOT / "courses"
LAUNCH = execute.BOOK / "launch"
ASSIGNED = Path(exercises.__file__).parent / "assigned"
# What the page shows as an exercise with a folded hint and the start of its folded solution.
STATEMENT = re.compile(
    r"::::\{exercise\} (?P<title>[^\n]+)\n:label: exercise-(?P<id>\d+\.\w+)\n:nonumber:\n\n"
    r"(?P<statement>.+)\n\n:::\{admonition\} Hint\n:class: dropdown\n\n(?P<hint>.+)\n:::\n::::\n\n"
    r":::\{solution-start\} exercise-(?P=id)\n:class: dropdown\n:::",
    re.DOTALL,
)
SOLUTION_END = "\n\n:::{solution-end}\n:::"
HOW_TO_HAND_IN = """# Chapter {chapter}: exercises

These exercises belong to [chapter {chapter}]({page}) of the book.
Write each answer where a line ends in `# your answer`, and keep the name that is given there.
The cell below an answer tries it: a function runs on the book's own inputs, and a value is checked for its type.
The grade comes from other inputs, with Python, torch, numpy, scipy and the book's package available, but no network,
no GPU and no other packages.
An exercise is worth as many points as it has minutes.
Hand in this notebook under the same file name."""
ABOUT = """This notebook belongs to [the page of the same name]({page}): {what}.
The first code cell installs the book's package if it is missing."""
TRIAL = """from extractbook.exercises import trial

trial("{id}", {answer})
### BEGIN HIDDEN TESTS
# Graded outside of this notebook: exercise {id}, answer {answer}
### END HIDDEN TESTS"""
CONFIG = '''"""Configuration of nbgrader for this course: run its commands in this folder."""

from extractbook.build.grading import configure

configure(get_config(), seeds={seeds!r}, course="{course}")
'''
SECRET = "secret_seed"
"""File with a course's seed, which determines what is graded: anyone who has it can work out all inputs."""
NBGRADER = {"schema_version": 3, "task": False}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


@dataclass(frozen=True)
class Task:
    """An exercise as it is in its notebook.

    Attributes:
        page: The name of its chapter's page.
        id: Its id, for example ``"5.2"``.
        title: Id, title, kind and minutes, as the page shows them.
        statement: What is asked, in Markdown.
        hint: The hint, in Markdown.
        code: The solution's cell, including markers; empty if the answer is a text.
        explanation: What the page says after the solution, in Markdown.
    """

    page: str
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
    def asked(self) -> str:
        """Statement and hint in Markdown that every notebook program shows, on any page."""
        hint = f"<details>\n<summary>Hint</summary>\n\n{self.hint}\n\n</details>"
        text = placed(f"{self.statement}\n\n{hint}", self.page)
        return f"### Exercise {self.title}\n\n{plain(text, self.page)}"

    @property
    def explained(self) -> str:
        """What the page says after the solution, in the same Markdown."""
        return plain(placed(self.explanation, self.page), self.page)


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Return whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def tasks(path: Path) -> list[Task]:
    """Return the exercises of a notebook, in order.

    Raises:
        InputError: An exercise does not have the form shown in chapter 5.
    """
    page = chapter_notebook(int(path.stem[-2:])).stem if path.parent == ASSIGNED else path.stem
    return list(_tasks(nbformat.read(path, as_version=4).cells, page).values())


def _tasks(cells: list[NotebookNode], page: str) -> dict[int, Task]:
    """Return the exercises by the position of their first cell."""
    found = {}
    for place, cell in enumerate(cells):
        if "{exercise}" not in cell.source or not tagged(cell, "exercise"):
            continue
        form = STATEMENT.fullmatch(cell.source)
        text = ": discuss, " in cell.source
        following = cells[place + 1 : place + (2 if text else 3)]
        kinds = [part.cell_type for part in following if tagged(part, "solution")]
        wanted = ["markdown"] if text else ["code", "markdown"]
        if not form or kinds != wanted or not following[-1].source.endswith(SOLUTION_END):
            raise InputError(f"{page}: cell {cell.id} is not an exercise with its solution: use the form in chapter 5")
        explanation = following[-1].source.removesuffix(SOLUTION_END)
        code = "" if text else following[0].source
        found[place] = Task(page, **form.groupdict(), code=code, explanation=explanation)
    return found


# -- notebooks to launch ---------------------------------------------------------


def launch_notebook(path: Path, *, solved: bool) -> NotebookNode:
    """Return a page's notebook as services open it, with stubs for the exercises or, `solved`, their solutions."""
    notebook = nbformat.read(path, as_version=4)
    page, cells = path.stem, notebook.cells
    found = _tasks(cells, page)
    for place, task in found.items():
        if task.code:
            code = without_markers(task.code) if solved else stub(marked(task.code, task.answer))
            cells[place + 1].source = code
        cells[place].source = task.asked
        cells[place + (2 if task.code else 1)].source = f"**Solution.** {task.explained}" if solved else ""
    about = "it has the exercises' solutions" if solved else "its exercises wait for your answers"
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, page)
        elif {"remove-cell", "remove-input", "hide-input"} & set(cell.metadata.get("tags", [])):
            cell.metadata["jupyter"] = {"source_hidden": True}
    head = new_markdown_cell(ABOUT.format(page=address(page), what=about), id="about")
    notebook.cells = [cells[0], head, *(cell for cell in cells[1:] if cell.source)]
    return notebook


def launch_notebooks() -> dict[Path, str]:
    """Return the contents of each notebook under ``book/launch``, without solutions and with them, by its path."""
    pages = {path: bool(tasks(path)) for path in execute.notebooks()}
    kinds = [(LAUNCH, False, list(pages)), (LAUNCH / "solutions", True, [path for path, has in pages.items() if has])]
    return {
        folder / path.name: nbformat.writes(launch_notebook(path, solved=solved), ensure_ascii=False) + "\n"
        for folder, solved, paths in kinds
        for path in paths
    }


def write_launch() -> None:
    """Write the notebooks that services open, which are committed."""
    shutil.rmtree(LAUNCH, ignore_errors=True)
    for path, text in launch_notebooks().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(LAUNCH)


# -- assignments -----------------------------------------------------------------


def chapter_notebook(chapter: int) -> Path:
    """Return the notebook of a chapter that has exercises.

    Raises:
        InputError: There is no such chapter, or it has no exercises.
    """
    found = [path for path in execute.notebooks() if path.name.startswith(f"{chapter:02}_")]
    if not found or not tasks(found[0]):
        raise InputError(f"chapter {chapter} has no exercises: name one that does, such as 5")
    return found[0]


def assigned(chapter: int) -> list[Task]:
    """Return the exercises of a chapter that are not on any page."""
    return tasks(own(chapter)) if own(chapter).exists() else []


def own(chapter: int) -> Path:
    """Return the path of the notebook with a chapter's exercises that are not on any page; it may not exist."""
    return ASSIGNED / f"chapter_{chapter:02}.ipynb"


def imported(path: Path) -> list[str]:
    """Return what the first cell of a notebook's exercises imports, except for the book's own package."""
    cells = nbformat.read(path, as_version=4).cells
    set_up = next(cell for cell in cells if cell.cell_type == "code" and tagged(cell, "exercise"))
    return [line for line in set_up.source.splitlines() if line and "extractbook" not in line]


def numbers(exercise: Exercise, seed: int | None = None) -> str:
    """Return the line that sets the numbers of a value exercise, in the book or in an assessed variant, or ``""``."""
    parameters = {} if exercise.cases else exercise.parameters(seed)
    return f"{', '.join(parameters)} = {', '.join(map(repr, parameters.values()))}\n" if parameters else ""


def assignment(chapter: int, seed: int) -> NotebookNode:
    """Return a chapter's exercises as nbgrader source: solutions between markers, trials, and what grades them.

    Raises:
        InputError: The chapter has no exercises, or the seed is not a whole number from 0.
    """
    path = chapter_notebook(chapter)
    imports = dict.fromkeys(line for one in (path, own(chapter)) if one.exists() for line in imported(one))
    head = HOW_TO_HAND_IN.format(chapter=chapter, page=address(path.stem))
    # The notebooks that are handed out and graded use the same version of the exercises.
    set_up = furniture.setup_cell(furniture.commit())
    cells = [new_markdown_cell(head), new_code_cell(set_up), new_code_cell("\n".join(imports))]
    for task in [*tasks(path), *assigned(chapter)]:
        cells += _graded(task, seed)
    for number, cell in enumerate(cells):  # ids that do not change from one call to the next
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def _graded(task: Task, seed: int) -> list[NotebookNode]:
    """Return an exercise's cells: what is asked, where the answer goes, and what grades it."""
    exercise, name = lookup(task.id), task.id.replace(".", "-")
    points = {"grade": True, "points": exercise.minutes}
    if not task.code:
        text = f"{BEGIN}\n{task.explained}\n{END}"
        graded = {"grade_id": f"exercise-{name}", "solution": True, "locked": False} | points
        _, _, criteria = task.explained.partition("**How it is graded.**")
        asked = f"{task.asked}\n\n**How it is graded.**{criteria}"
        return [new_markdown_cell(asked), new_markdown_cell(text, metadata={"nbgrader": graded | NBGRADER})]
    code = marked(task.code.removeprefix(numbers(exercise)), task.answer)
    source = numbers(exercise, seed) + "\n".join(code.splitlines()[:-1]).rstrip()
    trial = TRIAL.format(id=task.id, answer=task.answer)
    written_in = {"grade_id": f"exercise-{name}", "grade": False, "solution": True, "locked": False}
    graded = {"grade_id": f"check-{name}", "solution": False, "locked": True} | points
    return [
        new_markdown_cell(task.asked),
        new_code_cell(source, metadata={"nbgrader": written_in | NBGRADER}),
        new_code_cell(trial, metadata={"nbgrader": graded | NBGRADER}),
    ]


def course_folder(name: str) -> Path:
    """Return the folder of a course.

    Raises:
        InputError: The name cannot be that of a folder.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"course is {shown(name)}: use letters, digits, dots and dashes, as in autumn")
    return COURSES / name


def write_assignment(course: Path, chapter: int) -> None:
    """Write a chapter's graded variant into a course's nbgrader folder, whose seed is drawn when that is created.

    Raises:
        InputError: The chapter has no exercises, its assignment already exists, or the course's seed is not a number.
    """
    name = f"chapter-{chapter:02}"
    place, secret = course / "source" / name, course / SECRET
    if place.exists():
        raise InputError(f"{place} already exists, perhaps with your own points: delete it to make it again")
    text = secret.read_text().strip() if secret.exists() else str(secrets.randbelow(HIGHEST_SEED))
    if not text.isdecimal():
        raise InputError(f"{secret} holds {shown(text)}: put the course's seed there, a whole number, from your backup")
    seed = int(text)
    notebook = assignment(chapter, seed)
    course.mkdir(parents=True, exist_ok=True)
    if not secret.exists():
        secret.write_text(f"{seed}\n")
    with tempfile.TemporaryDirectory(dir=course) as partial:  # an assignment is there whole, or not at all
        made = Path(partial, name)
        made.mkdir()
        nbformat.write(notebook, made / f"{name}.ipynb")
        place.parent.mkdir(exist_ok=True)
        made.rename(place)
    seeds = {one.name: seed for one in sorted((course / "source").iterdir())}
    (course / "nbgrader_config.py").write_text(CONFIG.format(seeds=seeds, course=course.name))
    print(f"{course}\nFor the student's version: cd there and run nbgrader generate_assignment {name}")
