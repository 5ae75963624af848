"""How nbgrader grades here: each submission runs in its own sandbox, and its answers are judged outside of it.

A course folder's ``nbgrader_config.py`` calls `configure`. Then ``nbgrader autograde`` runs each notebook in a kernel
under bubblewrap: no network, a read-only system without the course's folder and without the exercises' solutions, its
own processes, and limits on time, memory, processes and files. A graded cell hands its answer to this process, which
alone decides on the points, so nothing that a notebook does to its own kernel earns any.
"""

import copy
import csv
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat
import psutil
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters.autograde import Autograde
from nbgrader.converters.generate_assignment import GenerateAssignment
from nbgrader.plugins import ExportPlugin
from nbgrader.preprocessors import ClearSolutions, Execute, NbGraderPreprocessor
from traitlets import Dict, Integer

import extractbook
import extractlib
from extractbook.build.stubs import stub
from extractbook.exercises import check, hand_in, run_submission
from extractbook.exercises.exercise import Verdict, lookup
from extractbook.exercises.run_submission import NOTEBOOK
from extractlib.errors import InputError

GRADED = re.compile(r"# Graded outside of this notebook: exercise (?P<exercise>[\w.]+), answer (?P<answer>\w+)")
HAND_IN = "from hand_in import hand_in\n\nhand_in({exercise!r}, {answer})"
RUNNER = f"/tmp/answers/{Path(run_submission.__file__).name}"
PACKAGES = [Path(str(package.__file__)).parent for package in (extractlib, extractbook)]
SYSTEM = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ssl", "/etc/fonts", sys.base_prefix]
LIMITS = {"as": 12 * 2**30, "fsize": 64 * 2**20, "nofile": 1024, "core": 0}
MOST_PROCESSES, MOST_MEMORY = 128, 6 * 2**30
"""Limits for one submission, needed because no system limit on processes applies to root."""
SPACE = 64 * 2**20
"""Bytes of a submission's scratch folder."""
LARGEST_OUTPUT, LONGEST_TEXT = 32 * 2**20, 20_000
"""Bytes that a notebook may show in total, and characters of one text."""
DOWNLOADED = r".*/(?P<student_id>[^/_]+)_(late_)?\d+_(assignsubmission_file_?/|\d+_)(?P<file_id>chapter-\d\d)"
"""The names that Moodle and Canvas give to the files handed in, in an archive of all of them."""
FORMULA = tuple("=+-@\t\r")
NO_SANDBOX = (
    "no submission is run without a sandbox, and bubblewrap cannot start one here: {why}. Install it, for example with "
    "apt-get install bubblewrap, and allow unprivileged user namespaces, or grade on a Linux machine"
)


def configure(config: Any, *, seeds: dict[str, int], course: str) -> None:
    """Set nbgrader up: stubs that keep the answers' names, the sandbox, the judge, and tables for other systems.

    Args:
        config: nbgrader's configuration.
        seeds: The seed of each assignment's numbers, by the assignment's name.
        course: The course's name.
    """

    def exchanged(preprocessors: list[type], old: type, new: type) -> list[type]:
        return [new if one is old else one for one in preprocessors]

    config.CourseDirectory.course_id = course
    config.CourseDirectory.student_id_exclude = "__MACOSX,.DS_Store,@eaDir"
    config.CourseDirectory.ignore = ["*"]  # a submission is its notebook: no other file, and no link, is copied
    config.GenerateAssignment.preprocessors = exchanged(GenerateAssignment.preprocessors.default_args[0], *STUBS)
    config.Autograde.autograde_preprocessors = exchanged(
        Autograde.autograde_preprocessors.default_args[0], Execute, Sandboxed
    )
    config.OverwriteCells.add_missing_cells = True
    config.ExportApp.plugin_class = Grades
    config.FileNameCollectorPlugin.named_regexp = DOWNLOADED
    config.Sandboxed.seeds = seeds


class Stubs(ClearSolutions):
    """Removes solutions as the book's own notebooks do, and keeps the line that names the answer."""

    def _replace_solution_region(self, cell: NotebookNode, language: str) -> bool:
        if cell.cell_type != "code":
            return super()._replace_solution_region(cell, language)
        code, cell.source = cell.source, stub(cell.source).rstrip()
        return cell.source != code


STUBS = (ClearSolutions, Stubs)


class Sandboxed(NbGraderPreprocessor):
    """Runs a submission in a sandbox and sets the points that its graded cells earn."""

    cell_seconds = Integer(600, help="seconds that a cell may take, on a slow machine").tag(config=True)
    notebook_seconds = Integer(1800, help="seconds that a notebook may take").tag(config=True)
    processor_seconds = Integer(900, help="seconds of processor time that a notebook may take").tag(config=True)
    seeds = Dict(help="by assignment, the seed of its numbers").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Execute a submission; its graded cells report any failure, which does not stop other submissions.

        Raises:
            InputError: No sandbox can be started here.
        """
        seed = self.seeds[resources["nbgrader"]["assignment"]]
        named = {place: found for place, cell in enumerate(nb.cells) if (found := graded(cell))}
        sent = copy.deepcopy(nb)
        for place, found in named.items():
            sent.cells[place].source = HAND_IN.format(**found.groupdict())
        with tempfile.TemporaryDirectory(prefix="grading-") as folder:
            shared, wanted = Path(folder), {found["exercise"] for found in named.values()}
            (shared / NOTEBOOK.name).write_text(nbformat.writes(sent), encoding="utf-8", errors="replace")
            for module in (hand_in, run_submission):
                shutil.copy(str(module.__file__), shared)
            (shared / "passwd").write_text("student:x:1000:1000::/tmp/work:/bin/sh\n")
            command = sandbox(shared, self.processor_seconds)
            try_out(command)
            with judge(shared / "socket", wanted, seed=seed) as verdicts:
                shown, fault = run([*command, sys.executable, RUNNER, str(self.cell_seconds)], self.notebook_seconds)
        for place, cell in enumerate(nb.cells):
            if cell.cell_type == "code":
                cell.outputs = safe(shown[place]) if place < len(shown) else []
        for place, found in named.items():
            raised = [f"{one.ename}: {one.evalue}" for one in nb.cells[place].outputs if one.output_type == "error"]
            reason = next(iter([*raised, fault, "nothing was handed in"]))
            nothing = Verdict(found["exercise"], reason or "nothing was handed in", 0.0)
            nb.cells[place].outputs = outputs(verdicts.get(found["exercise"], nothing), nb.cells[place])
        return nb, resources


def graded(cell: NotebookNode) -> re.Match | None:
    """Return a match with the exercise and the answer that a cell grades, or None."""
    return GRADED.search(cell.source) if cell.cell_type == "code" and utils.is_grade(cell) else None


def run(command: list[str], seconds: int) -> tuple[list, str]:
    """Run a program in a sandbox and return what it prints as JSON, and what went wrong, if anything."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdout=printed, stderr=said) as ran:
            fault = watch(ran, seconds)
            ran.kill()  # this also ends everything that it has started
        printed.seek(0)
        said.seek(0)
        try:
            shown = json.loads(printed.read(LARGEST_OUTPUT))
        except (ValueError, RecursionError):
            told = said.read(2_000).decode(errors="replace").strip()[-300:]
            return [], fault or f"the notebook ended early or showed too much: {told}"
    return shown if isinstance(shown, list) else [], fault


def watch(ran: subprocess.Popen, seconds: int) -> str:
    """Wait until a program ends, and return why it must be stopped before, if it must."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            ran.wait(0.2)
            return ""
        except subprocess.TimeoutExpired:
            memory = processes = 0
            with suppress(psutil.Error):
                for process in psutil.Process(ran.pid).children(recursive=True):
                    processes += 1
                    with suppress(psutil.Error):
                        memory += process.memory_info().rss
        if processes > MOST_PROCESSES or memory > MOST_MEMORY:
            return f"the notebook had {processes} processes with {memory / 2**30:.1f} GiB, which is too much"
    return f"the notebook took more than {seconds} seconds"


def safe(shown: Any) -> list[NotebookNode]:
    """Return outputs that are safe to show on a page: texts, errors and pictures, nothing that a browser runs."""
    kept = []
    for one in shown if isinstance(shown, list) else []:
        try:
            if one["output_type"] == "stream":
                kept.append(nbformat.v4.new_output("stream", name="stdout", text=writable(one["text"])[:LONGEST_TEXT]))
            elif one["output_type"] == "error":
                told = {name: writable(str(one[name]))[:LONGEST_TEXT] for name in ("ename", "evalue")}
                trace = [writable(str(line)) for line in one["traceback"]]
                kept.append(nbformat.v4.new_output("error", **told, traceback=trace))
            elif one["output_type"] in ("display_data", "execute_result"):
                data = {
                    kind: writable(one["data"][kind]) for kind in ("text/plain", "image/png") if kind in one["data"]
                }
                kept.append(nbformat.v4.new_output("display_data", data=data))
        except (KeyError, TypeError, AttributeError):  # not an output that a kernel gives
            continue
    return kept


def writable(text: str) -> str:
    """Return a text without what UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def outputs(verdict: Verdict, cell: NotebookNode) -> list[NotebookNode]:
    """Return a graded cell's outputs, from which nbgrader reads its points: all, none with the reason, or a number."""
    text = writable(str(verdict))
    if verdict.right:
        return [nbformat.v4.new_output("stream", name="stdout", text=f"{text}\n")]
    if not verdict.share:
        return [nbformat.v4.new_output("error", ename="NotYet", evalue=text, traceback=[text])]
    points = f"{verdict.share * cell.metadata.nbgrader.points:.2f}"
    earned = nbformat.v4.new_output("execute_result", data={"text/plain": points}, execution_count=None)
    return [earned, nbformat.v4.new_output("stream", name="stdout", text=f"{text}\n")]


# -- the judge -------------------------------------------------------------------


@contextmanager
def judge(path: Path, wanted: set[str], *, seed: int) -> Iterator[dict[str, Verdict]]:
    """Wait at a socket for the answers to the `wanted` exercises, and yield a dictionary that the verdicts fill."""
    verdicts: dict[str, Verdict] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        thread = Thread(target=_wait, args=(listener, wanted, seed, verdicts), daemon=True)
        thread.start()
        try:
            yield verdicts
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _wait(listener: socket.socket, wanted: set[str], seed: int, verdicts: dict[str, Verdict]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the notebook has ended
            return
        with connection:
            judged(connection, wanted - set(verdicts), seed, verdicts)


def judged(connection: socket.socket, wanted: set[str], seed: int, verdicts: dict[str, Verdict]) -> None:
    """Judge the answer at the other end, which may be anything; the first answer to an exercise counts."""
    exercise = None
    try:
        message = hand_in.receive(connection)
        exercise = message["exercise"] if message["exercise"] in wanted else None
        if exercise is None:
            return
        if "error" in message:
            raise InputError(": ".join(map(str, message["error"])))
        forbidden = lookup(exercise).without
        answer = _called(connection, forbidden) if message["function"] is True else hand_in.decode(message["value"])
        verdicts[exercise] = check(exercise, answer, seed=seed)
        hand_in.send(connection, done=True)
    except Exception as error:  # whatever comes from a sandbox is judged and is never an error of the grader
        if exercise:
            reason = f"the answer cannot be read: {type(error).__name__}: {str(error):.200}"
            verdicts.setdefault(exercise, Verdict(exercise, reason, 0.0))


def _called(connection: socket.socket, forbidden: Mapping[str, str]) -> Any:
    """Return a function that runs at the other end without what is forbidden; its services answer from here."""

    def call(*case: object) -> object:
        services: list = []
        hand_in.send(connection, call=hand_in.encode(case, services), without=dict(forbidden))
        while "ask" in (message := hand_in.receive(connection)):
            try:
                answer = services[int(message["ask"])](*hand_in.decode(message["arguments"]))
                hand_in.send(connection, answer=hand_in.encode(answer))
            except Exception as error:  # a question that a service cannot answer is the asker's mistake
                hand_in.send(connection, refused=str(error)[:200])
        if "error" in message:
            kind, text = map(str, message["error"])
            if kind == "NotImplementedError":
                raise NotImplementedError
            raise InputError(text) if kind in ("Refused", "InputError") else type(kind, (Exception,), {})(text)
        return hand_in.decode(message["result"])

    return call


# -- the sandbox -----------------------------------------------------------------


def sandbox(folder: Path, processor_seconds: int) -> list[str]:
    """Return the prefix that runs a command in a sandbox, which shares `folder` with this process."""
    limits = [f"--{name}={value}" for name, value in {**LIMITS, "cpu": processor_seconds}.items()]
    # Only the folders of packages, not everything on the path, which includes the course's own folder.
    found = {
        Path(getattr(find_spec(name), "origin", "")).parents[1] for name in ("torch", "numpy", "ipykernel", "nbclient")
    }
    visible = dict.fromkeys([*map(Path, SYSTEM), Path(sys.prefix), *found, *PACKAGES])
    hidden = sorted((PACKAGES[1] / "exercises").glob("**/chapter_*.*"))
    paths = dict.fromkeys(["/tmp/answers", *(str(package.parent) for package in PACKAGES), *map(str, found)])
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp/work",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "EXTRACTLIB_CACHE": "/tmp/work/cache",
        "PYTHONPATH": ":".join(paths),
    }
    return [
        *("prlimit", *limits, "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--clearenv"),
        *("--uid", "1000", "--gid", "1000"),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(SPACE), "--tmpfs", "/dev/shm"),
        *("--size", str(SPACE), "--tmpfs", "/tmp", "--dir", "/tmp/work", "--chdir", "/tmp/work"),
        *(word for path in visible for word in ("--ro-bind-try", str(path), str(path))),
        *(word for path in hidden for word in ("--ro-bind", "/dev/null", str(path))),
        *("--ro-bind", str(folder), "/tmp/answers", "--ro-bind", str(folder / "passwd"), "/etc/passwd"),
    ]


def try_out(command: list[str]) -> None:
    """Start an empty program in the sandbox to check that it starts.

    Raises:
        InputError: It does not start.
    """
    if not shutil.which("bwrap"):
        raise InputError(NO_SANDBOX.format(why="bwrap is not installed"))
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise InputError(NO_SANDBOX.format(why=tried.stderr.strip()))


# -- tables for other systems ----------------------------------------------------


class Grades(ExportPlugin):
    """Writes points as CSV, with one row per student and one column per assignment, as Moodle imports them."""

    def export(self, gradebook: Gradebook) -> None:
        """Write grades.csv, or the file that ``--to`` names."""
        names = [one.name for one in gradebook.assignments if not self.assignment or one.name in self.assignment]
        students = [one for one in gradebook.students if not self.student or one.id in self.student]
        with Path(self.to or "grades.csv").open("w", newline="", encoding="utf-8") as table:
            rows = csv.writer(table)
            rows.writerow([*self.who(None), *names])
            rows.writerows(self.heads([gradebook.find_assignment(name).max_score for name in names]))
            for student in students:
                points = [_points(gradebook, name, student.id) for name in names]
                rows.writerow(map(escaped, [*self.who(student).values(), *points]))

    def who(self, student: Any) -> dict[str, str]:
        """Return the columns that identify a student, filled in for one student."""
        columns = {"Student ID": "id", "First name": "first_name", "Last name": "last_name", "Email address": "email"}
        return {column: getattr(student, name, None) or "" for column, name in columns.items()}

    def heads(self, points: list[float]) -> list[list]:
        """Return the rows that come before the students' rows."""
        return []


class Canvas(Grades):
    """The same in the format that Canvas imports: ``nbgrader export --exporter extractbook.build.grading.Canvas``."""

    def who(self, student: Any) -> dict[str, str]:
        """Return Canvas's own columns; Canvas finds a student by login."""
        name = f"{getattr(student, 'last_name', '')}, {getattr(student, 'first_name', '')}" if student else ""
        login = getattr(student, "id", "")
        return {"Student": name, "ID": "", "SIS User ID": "", "SIS Login ID": login, "Section": ""}

    def heads(self, points: list[float]) -> list[list]:
        """Return the row with the possible points."""
        return [["    Points Possible", "", "", "", "", *points]]


def _points(gradebook: Gradebook, name: str, student: str) -> object:
    try:
        return gradebook.find_submission(name, student).score
    except MissingEntry:
        return ""


def escaped(value: object) -> object:
    """Return a value that no spreadsheet interprets as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
