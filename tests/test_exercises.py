"""Exercises: every solution passes its check, every stub and every solution broken in a stated way fails it."""

import ast
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mistakes import MISTAKES

from extractbook import exercises
from extractbook.build import courses, execute
from extractbook.build.stubs import ANSWER, BLOCK
from extractbook.exercises import (
    chapter_03,
    chapter_05,
    chapter_06,
    chapter_09,
    chapter_13,
    check,
    held_out,
    known,
    services,
    trial,
)
from extractbook.exercises.answers import difference, fitted
from extractbook.exercises.assigned import chapter_09 as assigned_09
from extractbook.exercises.exercise import Exercise, assigned, lookup
from extractlib import metrics
from extractlib.data.drawn import draw
from extractlib.errors import InputError
from extractlib.metrics import auroc, threshold_at

TASKS = {task.id: task for path in execute.notebooks() for task in courses.tasks(path)}
CHAPTERS = sorted({int(id.partition(".")[0]) for id in TASKS})
ASSIGNED = {task.id: task for chapter in CHAPTERS for task in courses.assigned(chapter)}
CHECKED = {id: task for id, task in (TASKS | ASSIGNED).items() if task.code}


def set_up(id: str) -> str:
    """Return the first code cell of the exercises' section: all that a solution may need."""
    chapter = int(id.partition(".")[0])
    return "\n".join(courses.imported(courses.own(chapter) if id in ASSIGNED else courses.chapter_notebook(chapter)))


def verdict(id: str, code: str, *, seed: int | None = None):
    """Run an exercise's cell as a reader would and return what its last line says."""
    space = {}
    exec(set_up(id), space)
    body = ast.parse(code).body
    exec(compile(ast.Module(body[:-1], []), id, "exec"), space)
    return check(id, space[body[-1].value.args[1].id], seed=seed)


broken = [pytest.param(id, *rest, id=f"{id} {what}") for id, rows in MISTAKES.items() for what, *rest in rows]


@pytest.mark.parametrize("id", CHECKED)
def test_the_solution_passes(id):
    found = verdict(id, CHECKED[id].code)
    assert found.right and found.reason == "" and found.share == 1
    assert str(found).startswith(f"Exercise {id}: right")


@pytest.mark.parametrize("id", CHECKED)
def test_the_solution_passes_in_an_assessed_variant(id):
    first, *rest = CHECKED[id].code.splitlines(keepends=True)
    line = courses.numbers(lookup(id), 3)
    assert verdict(id, line + "".join(rest) if line else CHECKED[id].code, seed=3).right


@pytest.mark.parametrize("id", CHECKED)
def test_the_stub_fails(id):
    task = CHECKED[id]
    stub = courses.stub(courses.marked(task.code, task.answer))
    assert "SOLUTION" not in stub
    assert [found["name"] for found in ANSWER.finditer(stub)] == [task.answer]
    found = verdict(id, stub)
    assert not found.right and found.reason == "there is no answer yet"


@pytest.mark.parametrize(("id", "old", "new", "reason"), broken)
def test_a_broken_solution_fails_and_is_told_why(id, old, new, reason):
    assert CHECKED[id].code.count(old) >= 1
    found = verdict(id, CHECKED[id].code.replace(old, new))
    assert not found.right and found.share < 1
    assert reason in found.reason and "\n" not in found.reason
    exercise = lookup(id)
    if exercise.cases is None and not exercise.choices:
        assert str(exercise.right(**exercise.parameters())) not in str(found)


@pytest.mark.parametrize("id", CHECKED)
def test_each_exercise_is_broken_in_two_ways_at_least(id):
    assert len(MISTAKES[id]) >= 2


def test_notebooks_and_checks_have_the_same_exercises():
    assert [exercise.id for exercise in known()] == list(TASKS)
    assert [exercise.id for exercise in assigned()] == list(ASSIGNED) == [f"{chapter}.A" for chapter in CHAPTERS]


@pytest.mark.parametrize("exercise", (*known(), *assigned()), ids=lambda exercise: exercise.id)
def test_the_notebook_says_what_the_check_knows(exercise):
    task = (TASKS | ASSIGNED)[exercise.id]
    assert task.title == f"{exercise.id} {exercise.title}: {exercise.kind}, {exercise.minutes} minutes"
    assert len(task.hint.split()) > 5 and len(task.explanation.split()) > 5
    assert bool(task.code) == (exercise.kind != "discuss") == exercise.checked
    assert not task.code or task.code.startswith(courses.numbers(exercise))
    for mark in exercise.marks if exercise.score else ():
        assert f"{mark:.2f}" in task.statement


@pytest.mark.parametrize("id", [id for id, task in TASKS.items() if not task.code])
def test_a_text_has_a_rubric_worth_its_minutes_and_no_check(id):
    criteria = re.findall(r"^- (\d+) points: .+\.$", TASKS[id].explanation.partition("**How it is graded.**")[2], re.M)
    assert len(criteria) >= 3 and sum(map(int, criteria)) == lookup(id).minutes
    with pytest.raises(InputError, match=f"exercise {id} asks for a written answer, which no program checks: compare"):
        check(id, ["full answers"])


@pytest.mark.parametrize("id", ASSIGNED)
def test_what_is_assessed_stands_on_no_page(id):
    """Neither its title nor a line of its solution is in a chapter, in what services open, or in another's solution."""
    shown = [path.read_text(encoding="utf-8") for path in (*execute.notebooks(), *courses.LAUNCH.rglob("*.ipynb"))]
    long = [line.strip() for line in courses.without_markers(ASSIGNED[id].code).splitlines() if len(line.strip()) > 50]
    for text in shown:
        assert lookup(id).title not in text and [line for line in long if line in text] == []


def test_an_attack_that_comes_near_its_mark_earns_a_part():
    exercise = Exercise(
        id="5.9", title="", kind="attack or defend", minutes=10, cases=lambda: [()], right=lambda: 1.0,
        score=lambda found, wanted, cases: (found[0], "agreement"), marks=(0.5, 0.9),
    )  # fmt: skip
    verdicts = [exercise.check(lambda share=share: share) for share in (0.4, 0.6, 0.9, 1.0)]
    assert [verdict.share for verdict in verdicts] == pytest.approx([0, 0.25, 1, 1])
    assert str(verdicts[1]) == (
        "Exercise 5.9: not yet; agreement is 0.600; points start above 0.5, and 0.9 earns all of them."
    )
    assert str(verdicts[2]) == "Exercise 5.9: right; agreement is 0.900."


def test_a_trial_tells_no_more_than_a_student_may_know():
    assert str(trial("5.1", 0)) == "Exercise 5.1: the answer is of the right kind; the grade says whether it is right."
    assert trial("5.1", "many").reason == "the answer is text, 'many': expected a whole number"
    right = lookup("5.2").right
    assert str(trial("5.2", right)) == "Exercise 5.2: right on these inputs; the grade is decided on others."
    assert "the shape is (" in trial("5.2", lambda preferences, left: right(preferences, left)[1:]).reason


def test_no_chapter_imports_anothers_exercises():
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(exercises.__file__).parent.glob("*.py")}
    assert [name for name, text in sources.items() if "exercises.chapter_" in text] == []


# What `check` makes of bad input.


@pytest.mark.parametrize(("id", "message"), [("5.9", r"unknown exercise '5\.9': use one of .*5\.1"), (5.1, "5.1: use")])
def test_an_exercise_that_is_not_there_is_refused_in_one_line(id, message):
    with pytest.raises(InputError, match=message) as caught:
        check(id, 1)
    assert "\n" not in str(caught.value)


class Odd:
    """An object that fails at whatever is done to it."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __iter__ = __len__ = __bool__ = __eq__ = __repr__


CYCLE: list = []
CYCLE.append(CYCLE)
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("id", "answer", "reason"),
    [
        ("5.1", None, "there is no answer yet"),
        ("5.1", "many", "the answer is text, 'many': expected a whole number"),
        ("5.1", True, "the answer is a truth value, True: expected a whole number"),
        ("5.1", 2.5, "the answer is a number, 2.5: expected a whole number"),
        ("5.1", float("nan"), "the answer is a number, nan: expected a whole number"),
        ("1.1", float("nan"), "the result contains NaN or an infinite value: look for a division by zero"),
        ("5.1", 10**30, "more than 63 bits"),
        ("5.1", np.array([1, 2]), "the answer is an array of whole numbers: expected a whole number"),
        ("5.1", object(), "a value of type object cannot be checked"),
        ("5.1", Odd(), "a value of type Odd cannot be checked"),
        ("5.1", CYCLE, "lists nested that deeply cannot be checked"),
        ("5.1", DEEP, "lists nested that deeply cannot be checked"),
        ("5.1", torch.eye(2).to_sparse(), "a tensor that is sparse, quantized, complex or without data"),
        ("5.1", torch.empty(3, device="meta"), "a tensor that is sparse, quantized, complex or without data"),
        ("5.1", torch.tensor(1j), "a tensor that is sparse, quantized, complex or without data"),
        (
            "5.1",
            np.broadcast_to(0.0, (10**5, 10**4)),
            "1,000,000,000 values cannot be checked: give at most 10,000,000",
        ),
        ("5.1", torch.zeros(1).expand(10**9), "1,000,000,000 values cannot be checked"),
        ("5.2", 3, "the answer is a whole number, 3: expected a function"),
        ("5.2", Odd(), "the answer is of type Odd: expected a function"),
        ("12.2", lambda holds, needed: "perhaps", "unknown answer 'perhaps': use one of holds, does not hold"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(id, answer, reason):
    found = check(id, answer)
    assert not found.right and reason in found.reason and "\n" not in found.reason


@pytest.mark.parametrize("seed", [-1, "7", 1.0, True])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(InputError, match=r"seed is .*: expected a whole number from 0 to 1,099,511,627,776"):
        check("5.1", 1, seed=seed)


def failing_oddly(head, features, targets):
    class Unspeakable(ValueError):
        __str__ = Odd.__repr__

    Unspeakable.__name__ = "ValueError"
    raise Unspeakable


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda head, features, targets: None, "the function returns nothing yet"),
        (lambda head, features, targets: head.sum(), "expected an array of numbers"),
        (lambda head, features, targets: sys.exit("bye"), "the function raises SystemExit: bye"),
        (lambda head, features, targets: Odd(), "a value of type Odd cannot be checked"),
        (lambda head, features, targets: [Odd()], "a value of type Odd cannot be checked"),
        (failing_oddly, "the function raises ValueError: a value of type ValueError"),
        (lambda head, features, targets: head[:, 0], "the shape is (3,): expected (3, 7)"),
        (lambda head: head, "raises TypeError"),
        (lambda head, features, targets: 1 / 0, "the function raises ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_fails_is_told_so(function, reason):
    assert reason in check("5.3", function).reason


@pytest.mark.parametrize(
    ("branch", "reason"),
    [
        ("return None", "on input 2 of 16, the function returns nothing"),
        ("raise NotImplementedError", "on input 2 of 16, the function raises NotImplementedError: "),
    ],
)
def test_a_function_that_has_answered_an_input_is_no_longer_without_answer(branch, reason):
    space = {"right": lookup("11.3").right}
    exec(f"def seeds(*pilot):\n    if len(pilot[0]) == 3:\n        return right(*pilot)\n    {branch}\n", space)
    assert check("11.3", space["seeds"]).reason == reason


def test_answers_in_other_types_are_right_too():
    assert check("5.1", 168.0).right and check("5.1", np.int32(168)).right and check("5.1", torch.tensor(168)).right
    assert check("12.2", lambda holds, needed: lookup("12.2").right(holds, needed).upper()).right
    assert check("5.3", lambda *case: chapter_05.gradient(*case).tolist()).right


def test_a_verdict_shows_in_notebooks():
    assert check("5.1", 168)._repr_markdown_() == "**Exercise 5.1: right.**"
    wrong = check("5.1", 169)
    assert repr(wrong) == "Exercise 5.1: not yet; the number, 169, is too large."
    assert wrong._repr_markdown_() == "**Exercise 5.1: not yet.** Reason: the number, 169, is too large."


def test_a_kind_or_minutes_that_cannot_be_are_refused():
    settings = {"id": "5.7", "title": "", "right": int}
    with pytest.raises(InputError, match="unknown kind 'guess'"):
        Exercise(**settings, kind="guess", minutes=5)
    with pytest.raises(InputError, match="minutes is 0"):
        Exercise(**settings, kind="discuss", minutes=0)
    with pytest.raises(InputError, match="unknown chapter with exercises 'chapter_99'"):
        known(99)


# Where `check` was before.


# How two answers differ.

ROWS = np.array([[0.2, 0.8], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("found", "wanted", "reason"),
    [
        (5, 5, None),
        (6, 5, "the number, 6, is too large"),
        (-5, 5, "the sign is reversed"),
        (0.30001, 0.3, None),
        (0.3004, 0.3, "the number, 0.3004, is too large, by less than 1%"),
        (0.3, 0.3004, "the number, 0.3, is too small, by less than 1%: give all digits"),
        ("Two  words", "two words", None),
        ("other", "two words", "a different answer is right"),
        (["b", "a"], ["a", "b"], None),
        (["a", "c", "d"], ["a", "b"], "1 of the right names is missing, and 2 too many"),
        (ROWS, ROWS, None),
        (ROWS * 2, ROWS, "the rows do not sum to 1"),
        (ROWS[0], ROWS, "the shape is (2,): expected (2, 2)"),
        (ROWS[::-1], ROWS, "the values are right, but their order is not"),
        (3 * np.arange(4.0), np.arange(4.0), "all values are too large, by the same factor"),
        (np.arange(4.0) - 1, np.arange(4.0), "all values are too small, by the same amount"),
        (np.array([0.0, 1, 2, 9]), np.arange(4.0), "1 of 4 values are wrong, the first at index 3, where yours is 9"),
        (np.zeros(2), np.array([False, True]), "1 of 2 values are wrong, the first at index 1, where yours is False"),
        (np.array([2.0, 1.0]), np.array([2, 1]), None),
        (np.zeros(3), np.array([1.0, 0, 2]), "2 of 3 values are wrong, the first at index 0, where yours is 0"),
        ([1, 2.0], [1, 3.0], "in part 2 of 2, the number, 2, is too small"),
    ],
)
def test_the_reason_names_the_kind_of_mistake(found, wanted, reason):
    assert difference(fitted(found, wanted), wanted, tolerance=1e-4) == reason


# Assessed variants and course notebooks.


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_two_courses_get_different_numbers(chapter):
    """Of fifty courses at least half have numbers of their own, and all have inputs of their own for functions."""
    varied = [exercise for exercise in known(chapter) if exercise.kind != "discuss"]
    assert [exercise.id for exercise in varied if not exercise.variants] == []
    lines = {"".join(courses.numbers(exercise, seed) for exercise in varied) for seed in range(50)}
    assert len(lines) >= 25
    for exercise in varied:
        if exercise.cases:
            assert len({exercise.parameters(seed)["seed"] for seed in range(50)}) == 50


def test_a_variant_is_the_same_when_asked_for_again():
    exercise = lookup("5.1")
    assert exercise.parameters() == {"few": 1_000, "many": 10_000, "batch": 128, "epochs": 17}
    assert exercise.parameters(7) == exercise.parameters(7)
    assert exercise.right(**exercise.parameters()) == 168


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_assignment_has_the_variants_numbers_and_hides_what_grades_it(chapter):
    notebook = courses.assignment(chapter, 7)
    courses.nbformat.validate(notebook)
    tasks = [*courses.tasks(courses.chapter_notebook(chapter)), *courses.assigned(chapter)]
    told = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert sum(one.get("points", 0) for one in told) == sum(lookup(task.id).minutes for task in tasks)
    by_name = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}
    for task in tasks:
        name = task.id.replace(".", "-")
        written, grading = by_name[f"exercise-{name}"], by_name.get(f"check-{name}")
        assert written.metadata.nbgrader.solution and not written.metadata.nbgrader.locked
        if not task.code:
            assert grading is None and written.metadata.nbgrader.grade and task.explained in written.source
            continue
        assert written.source.startswith(courses.numbers(lookup(task.id), 7)) and "check(" not in written.source
        visible, hidden = grading.source.split("### BEGIN HIDDEN TESTS\n")
        assert f'trial("{task.id}", {task.answer})' in visible and "Graded" not in visible
        assert f"exercise {task.id}, answer {task.answer}\n" in hidden and "7" not in hidden.replace(task.id, "")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_is_launched_has_stubs_and_its_twin_solutions(chapter):
    path = courses.chapter_notebook(chapter)
    for solved in (False, True):
        notebook = courses.launch_notebook(path, solved=solved)
        courses.nbformat.validate(notebook)
        text = "\n".join(cell.source for cell in notebook.cells)
        for task in courses.tasks(path):
            assert task.asked in text and (task.explained in text) == solved
            if task.code:
                assert f'check("{task.id}", {task.answer})' in text
                long = [block["code"] for block in BLOCK.finditer(task.code) if len(block["code"]) > 30]
                assert all((code in text) == solved for code in long)


def test_stubs_of_functions_raise_and_of_values_name_the_answer():
    code = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"
    assert courses.stub(courses.marked(code, "f")) == (
        'def f():  # your answer\n    raise NotImplementedError("your code here")\n'
    )
    code = "### BEGIN SOLUTION\na = 1\nb = a\na = b\n### END SOLUTION\ncheck(a)"
    assert courses.stub(courses.marked(code, "b")) == "b = None  # your answer\ncheck(a)"
    assert courses.without_markers(code) == "a = 1\nb = a\na = b\ncheck(a)"
    trial = "x = 1\n### BEGIN SOLUTION\nprint(x)\n### END SOLUTION\n"
    assert courses.marked(trial, "f") == courses.stub(trial) == "x = 1\n"


def test_an_exercise_of_another_form_is_refused(tmp_path):
    notebook = courses.nbformat.read(courses.chapter_notebook(5), as_version=4)
    cell = next(cell for cell in notebook.cells if "{exercise} 5.2" in cell.source)
    cell.source = cell.source.replace(":nonumber:", ":number:")
    courses.nbformat.write(notebook, tmp_path / "05_knockoff.ipynb")
    with pytest.raises(InputError, match="05_knockoff: cell exercise-5-2 is not an exercise with its solution"):
        courses.tasks(tmp_path / "05_knockoff.ipynb")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chapter", "5", "--course", "../autumn"], "extractbook: course is '../autumn': use letters"),
        (["--chapter", "5", "--course", ""], "extractbook: course is '': use letters"),
        (["--chapter", "5"], "Missing option '--course'"),
        (["--chapter=-5", "--course", "autumn"], "Invalid value for '--chapter'"),
        (["--chapter", "99", "--course", "autumn"], "extractbook: chapter 99 has no exercises"),
    ],
)
def test_an_assignment_of_nothing_is_refused(words, message, command, monkeypatch, tmp_path):
    monkeypatch.setattr(courses, "COURSES", tmp_path / "courses")
    status, printed, error = command("assignment", *words)
    assert (status, printed) == (2, "")
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "courses").exists()


def test_an_assignment_that_cannot_be_written_is_not_there_and_the_seed_stays(monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as changed, pytest.raises(OSError, match="no space left"):
        changed.setattr(courses.nbformat, "write", full)
        courses.write_assignment(tmp_path / "autumn", 5)
    seed = (tmp_path / "autumn/secret_seed").read_text()
    assert list((tmp_path / "autumn").iterdir()) == [tmp_path / "autumn/secret_seed"]
    courses.write_assignment(tmp_path / "autumn", 5)
    assert (tmp_path / "autumn/source/chapter-05/chapter-05.ipynb").is_file()
    assert (tmp_path / "autumn/secret_seed").read_text() == seed


def test_a_course_keeps_its_secret_seed_and_the_points_that_were_set(command, monkeypatch, tmp_path):
    monkeypatch.setattr(courses, "COURSES", tmp_path)
    seeds = iter([7, 8])
    monkeypatch.setattr(courses.secrets, "randbelow", lambda highest: next(seeds))
    for chapter in ("1", "5"):
        status, printed, _ = command("assignment", "--chapter", chapter, "--course", "autumn")
        assert status == 0 and printed.startswith(str(tmp_path / "autumn"))
    assert (tmp_path / "autumn" / "secret_seed").read_text() == "7\n"
    settings = (tmp_path / "autumn" / "nbgrader_config.py").read_text()
    assert "seeds={'chapter-01': 7, 'chapter-05': 7}" in settings
    place = tmp_path / "autumn" / "source" / "chapter-05"
    (place / "chapter-05.ipynb").write_text("with points of one's own")
    status, _, error = command("assignment", "--chapter", "5", "--course", "autumn")
    assert status == 2 and f"{place} already exists, perhaps with your own points: delete it" in error
    assert (place / "chapter-05.ipynb").read_text() == "with points of one's own"
    secret = tmp_path / "autumn" / "secret_seed"
    secret.write_text("seven")
    status, _, error = command("assignment", "--chapter", "2", "--course", "autumn")
    assert status == 2 and f"{secret} holds 'seven': put the course's seed there" in error
    assert not (tmp_path / "autumn" / "source" / "chapter-02").exists()
    command("assignment", "--chapter", "1", "--course", "spring")
    assert (tmp_path / "spring" / "secret_seed").read_text() == "8\n"


def test_one_array_of_many_vectors_is_not_one_query():
    service = services.NetworkService(torch.Generator().manual_seed(0), budget=400)
    with pytest.raises(InputError, match=r"^the queries are of shape \(1, 500, 8\): expected \(n, 8\)$"):
        service(torch.zeros(1, 500, 8))
    assert service(torch.zeros(400, 8)).shape == (400, 5)
    linear = services.LinearService(torch.zeros(3, 4), torch.zeros(3), budget=1)
    with pytest.raises(InputError, match=r"shape \(1, 2, 4\): expected \(n, 4\)"):
        linear(torch.zeros(1, 2, 4))


@pytest.mark.parametrize(
    "made",
    [
        lambda: chapter_05.thousand(3)[0][0],
        lambda: chapter_13.misinforming_services(3)[0][0],
    ],
)
def test_other_names_bring_no_other_budget(made):
    api, images = made(), draw("atlas", part="queries", size=2_000, seed=3).images
    budget = api.usage("a").remaining
    api.query(images[:10], client="a")
    assert api.usage("b").remaining == budget - 10


def test_a_false_answer_leaves_out_the_label_and_two_others_anew_in_13_4():
    api, pool, _ = chapter_13.misinforming_services(3)[0]
    images = pool.images[:60]
    true = chapter_13.load_victim(chapter_13.VICTIM).logits(images).softmax(1)
    false = true.amax(1) < chapter_13.THRESHOLD
    first, again = (api.query(images).probabilities for _ in range(2))
    assert torch.equal(first[~false], again[~false])
    left_out = first[false] < 0.001
    assert (left_out.sum(1) == 3).all() and left_out.gather(1, true[false].argmax(1, keepdim=True)).all()
    assert torch.allclose(first[false][~left_out], torch.tensor(1 / 7))
    both = left_out & (again[false] < 0.001)
    assert both.gather(1, true[false].argmax(1, keepdim=True)).all() and (both.sum(1) == 1).sum() > len(both) / 3


def test_the_order_of_queries_says_nothing_in_9_a():
    [(_, _, queries), *_], [far, *_] = assigned_09.features(3), assigned_09.elsewhere(3)
    assert len(queries) == len(far) and far.mean() == 0.5
    assert 0.4 < far[:500].mean() < 0.6


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_a_share_computed_in_float32_is_right_in_9_2(seed):
    def threshold(scores, tpr):
        return next(score for score in scores.sort().values if (scores <= score).float().mean().item() >= tpr)

    assert check("9.2", threshold, seed=seed).right


def nested(benign, ood):
    def area():
        return auroc(benign, ood)

    return area()


@pytest.mark.parametrize(
    ("id", "answer"), [("9.2", threshold_at), ("9.3", auroc), ("9.3", lambda *scores: auroc(*scores)), ("9.3", nested)]
)
def test_what_an_exercise_does_without_is_no_answer_under_any_name(id, answer):
    assert re.fullmatch(r"this exercise is about doing without `xl\.metrics\.\w+`", check(id, answer).reason)


@pytest.mark.parametrize(
    ("id", "answer"), [("9.2", chapter_09.threshold), ("9.3", partial(chapter_09.above, ties=0.5))]
)
def test_an_answer_of_ones_own_is_right(id, answer):
    assert check(id, answer).right


def test_what_was_forbidden_can_be_called_again():
    check("9.3", lambda benign, ood: metrics.auroc(benign, ood))
    assert metrics.auroc is auroc


def test_the_victims_of_3_4_depend_on_the_seed():
    first, other = (chapter_03.victims(lookup("3.4").parameters(seed)["seed"]) for seed in (None, 3))
    assert [name for name in first if torch.equal(first[name], other[name])] == []


def test_what_a_copy_gains_is_a_share_of_the_victims_accuracy():
    truth, baseline, copy = np.array([0, 1, 2, 3, 4]), np.array([0, 1, 9, 9, 9]), np.array([0, 1, 2, 9, 9])
    victim = np.array([0, 1, 2, 3, 9])
    assert held_out.gained([copy], [np.stack([truth, baseline])], victim) == pytest.approx((0.6 - 0.4) / 0.8)
    with pytest.raises(InputError, match=r"^the shape is \(4,\): expected \(5,\)$"):
        held_out.gained([copy[:4]], [np.stack([truth, baseline])], victim)


def test_the_attacker_of_exercise_5_4_sends_images_of_the_pool_alone():
    [(api, pool, wanted)] = chapter_05.thousand(3)
    with pytest.raises(InputError, match="an image is not from the pool: send images from the pool, unchanged"):
        api.query(torch.cat([pool.images[:1], wanted[:1]]))
    assert api.usage().queries == 0
    assert len(api.query(pool.images[:2])) == 2


def test_who_answers_the_customers_it_was_given_truly_is_judged_by_others():
    """Exercise 6.4: the images whose cost is counted are not those that thresholds are set by."""
    cases, order = chapter_06.full_answers(3), chapter_06.mixed(3)
    [(answers, _, customers)] = cases

    def recognizes(answers: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Keep the answers that were among those shown, and make all others labels."""
        labels = torch.nn.functional.one_hot(answers.argmax(1), answers.shape[1]).to(answers)
        return torch.where((answers[:, None] == given).all(2).any(1, keepdim=True), answers, labels)

    found = [recognizes(answers, customers).numpy()]
    with pytest.raises(InputError, match="customers' answers change 1.00 times as much as labels alone"):
        chapter_06.prevented(found, [np.append(1.0, order)], cases)
