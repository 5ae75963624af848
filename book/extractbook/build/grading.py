"""Grade a folder of submissions into a table and one feedback file each, offline.

Run by ``make grade``. Each notebook runs in a process of its own under limits on time, memory, files and output. That
process returns its answers as data, and the points are given here, so no submission can give itself any. This keeps
accidents apart; it is no sandbox against malice: a submission runs with the rights of whoever grades it.
"""

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extractbook.build import courses, submission
from extractbook.exercises.answers import from_json
from extractbook.exercises.exercise import lookup
from extractlib.errors import InputError

# Loaded once, before the processes are forked; installed packages only, since the server sees no other folders.
PRELOADED = ["torch", "nbformat", "IPython.core.interactiveshell", "extractbook.exercises.exercise"]
STEP = 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one submission may take.

    Attributes:
        seconds: Of time on the clock.
        processor: Seconds of processor time.
        memory: In MB, beyond what Python and torch take.
        file: Size of all it writes, in MB.
        output: Size of what it prints, in MB; also of its answers.
        notebook: Size of the notebook itself, in MB.
    """

    seconds: int = 600
    processor: int = 120
    memory: int = 2048
    file: int = 50
    output: int = 1
    notebook: int = 20


@dataclass(frozen=True)
class Grade:
    """What a submission gets.

    Attributes:
        name: Of the submission.
        problem: Why it gets nothing at all; empty where its answers were judged.
        reasons: Of each exercise's id, why it gets no point; empty where it gets one.
        stopped: What cells have stopped, and why.
    """

    name: str
    problem: str
    reasons: Mapping[str, str]
    stopped: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """One for each exercise that is right."""
        return sum(not reason for reason in self.reasons.values())


def submissions(folder: Path) -> dict[str, Path]:
    """Return the submissions in a folder by name, in order: NAME.ipynb, or a folder NAME with a notebook in it.

    Raises:
        InputError: None is in it, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        name = path.name if path.is_dir() else path.stem
        if found.setdefault(name, path) != path:
            raise InputError(f"{path.name} and {found[name].name} have one name: rename one of them")
    if not found:
        raise InputError(f"{folder} is empty: NAME.ipynb or NAME/ with a notebook in it is wanted for each submission")
    return found


def grade_all(folder: Path, output: Path, *, chapter: int, seed: int, limits: Limits) -> list[Grade]:
    """Grade every submission in `folder`, one after the other, into `output`: grades.csv, and feedback/NAME.md.

    Raises:
        InputError: The folder holds none, the chapter has no exercises, or the system knows no limits.
    """
    if sys.platform != "linux":
        raise InputError(f"the limits on memory need Linux, and this is {sys.platform}: grade in a virtual machine")
    tasks = courses.tasks(courses.chapter_notebook(chapter))
    answers = {task.id: task.answer for task in tasks}
    (output / "feedback").mkdir(parents=True, exist_ok=True)
    grades = []
    for name, path in submissions(folder).items():
        grades.append(grade(name, path, answers, seed=seed, limits=limits))
        print(f"{name}: {grades[-1].points} of {len(answers)} {grades[-1].problem}".rstrip(), flush=True)
        (output / "feedback" / f"{name}.md").write_text(feedback(grades[-1]), encoding="utf-8")
    write_table(output / "grades.csv", grades)
    return grades


def grade(name: str, path: Path, answers: Mapping[str, str], *, seed: int, limits: Limits) -> Grade:
    """Return the grade of one submission; whatever it does, there is one.

    Args:
        name: Of the submission.
        path: Its notebook, or the folder that holds it.
        answers: Of each exercise's id, the name that holds the answer.
        seed: Of the assessed variant.
        limits: What it may take.
    """
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        problem = take(path, folder, limits) or run(folder, answers, seed=seed, limits=limits)
        report = {} if problem else read_report(folder, limits)
    problem = problem or report.get("problem", "")
    if problem:
        return Grade(name, str(problem), dict.fromkeys(answers, str(problem)))
    found = report["answers"] if isinstance(report.get("answers"), dict) else {}
    stopped = report["stopped"] if isinstance(report.get("stopped"), list) else []
    reasons = {id: judged(id, found.get(id), seed=seed) for id in answers}
    return Grade(name, "", reasons, tuple(map(str, stopped)))


def take(path: Path, folder: Path, limits: Limits) -> str:
    """Copy the notebook to `folder` and return "", or why it is not taken."""
    inside = path.rglob("*.ipynb") if path.is_dir() else [path]
    found = [file for file in inside if ".ipynb_checkpoints" not in file.parts]
    if len(found) != 1 or found[0].suffix != ".ipynb":
        return f"there are {len(found)} notebooks in it where one is wanted" if path.is_dir() else "it is no notebook"
    if not found[0].is_file() or found[0].stat().st_size > limits.notebook * submission.MEGABYTE:
        return f"it is no notebook of at most {limits.notebook} MB"
    shutil.copyfile(found[0], folder / submission.NOTEBOOK)
    return ""


def run(folder: Path, answers: Mapping[str, str], *, seed: int, limits: Limits) -> str:
    """Run the notebook in `folder` in a process of its own and return "", or why it was ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    options = {"seed": seed, "memory": limits.memory, "file": limits.file, "seconds": limits.processor}
    process = context.Process(target=submission.work, args=(folder, dict(answers)), kwargs=options, daemon=True)
    process.start()
    deadline, problem = time.monotonic() + limits.seconds, ""
    while process.exitcode is None and not problem:
        process.join(STEP)
        late = f"it did not end within {limits.seconds} seconds" if time.monotonic() > deadline else ""
        problem = over(folder, limits) or late
    for end in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
        try:
            end()
        except ProcessLookupError:
            pass  # nothing is left of it
    process.join()
    problem = problem or over(folder, limits)
    if not problem and process.exitcode == -signal.SIGXFSZ:
        problem = f"it wrote more than {limits.file} MB"
    elif not problem and process.exitcode == -signal.SIGXCPU:
        problem = f"it took more than {limits.processor} seconds of processor time"
    elif not problem and not (folder / submission.REPORT).is_file():
        problem = f"its process ended before the answers were complete (status {process.exitcode})"
    return problem


def over(folder: Path, limits: Limits) -> str:
    """Return which limit what lies in `folder` exceeds, or ""."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            sizes[path] = path.lstat().st_size if path.exists() else 0
    if sizes.pop(folder / submission.OUTPUT, 0) > limits.output * submission.MEGABYTE:
        return f"it printed more than {limits.output} MB"
    sizes.pop(folder / submission.NOTEBOOK, 0)
    return f"it wrote more than {limits.file} MB" if sum(sizes.values()) > limits.file * submission.MEGABYTE else ""


def read_report(folder: Path, limits: Limits) -> dict:
    """Return what the process has written down, which may be anything: it is data of the submission's."""
    path = folder / submission.REPORT
    if path.stat().st_size > limits.output * submission.MEGABYTE:
        return {"problem": f"its answers take more than {limits.output} MB"}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        report = None
    return report if isinstance(report, dict) else {"problem": "its answers cannot be read"}


def judged(id: str, found: object, *, seed: int) -> str:
    """Return why an answer gets no point, or "" if it gets one."""
    if not isinstance(found, dict) or not isinstance(found.get("outputs"), list):
        return str(found.get("problem", "there is no answer")) if isinstance(found, dict) else "there is no answer"
    try:
        return lookup(id).judged([from_json(output) for output in found["outputs"]], seed=seed).reason
    except InputError as error:
        return str(error)
    except Exception as error:  # forged answers must cost no other submission its grade
        return f"the answer cannot be judged ({type(error).__name__})"


def feedback(grade: Grade) -> str:
    """Return what a submission's author is told, in Markdown."""
    lines = [f"# {grade.name}: {grade.points} of {len(grade.reasons)}", ""]
    if grade.problem:
        return "\n".join([*lines, f"Nothing could be graded: {grade.problem}.", ""])
    lines += [f"- Exercise {id}: {reason or 'right'}." for id, reason in grade.reasons.items()]
    if grade.stopped:
        lines += ["", "What stopped on the way:", "", *(f"- {text}" for text in grade.stopped)]
    return "\n".join([*lines, ""])


def write_table(path: Path, grades: list[Grade]) -> None:
    """Write one line a submission, whole or not at all."""
    ids = list(grades[0].reasons)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["submission", "points", "of", *ids, "reason"])
        for grade in grades:
            marks = [int(not grade.reasons[id]) for id in ids]
            table.writerow([grade.name, grade.points, len(ids), *marks, grade.problem])
    partial.replace(path)


def named_folder(name: str) -> Path:
    """Return the folder of this name.

    Raises:
        InputError: There is none.
    """
    if not name or not Path(name).is_dir():
        raise InputError(
            f"SUBMISSIONS is {name!r}: the folder of the submissions is wanted, as in SUBMISSIONS=handed-in"
        )
    return Path(name)


def main() -> int:
    """Grade what the arguments name and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submissions", default="", help="folder of NAME.ipynb or NAME/ with one in it")
    parser.add_argument("--chapter", default="", help="number of the assignment's chapter")
    parser.add_argument("--seed", default="", help="seed of the assignment's variant")
    options = parser.parse_args()
    try:
        chapter, seed = courses.whole("CHAPTER", options.chapter), courses.whole("SEED", options.seed)
        output = courses.COURSES / "grades" / courses.assignment_name(chapter, seed)
        grade_all(named_folder(options.submissions), output, chapter=chapter, seed=seed, limits=Limits())
        print(f"{output / 'grades.csv'}")
    except InputError as error:
        print(f"grade: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
