"""What makes a great chapter, in twenty points: each chapter meets each, and each check can fail.

A check is given a chapter and yields what it lacks. What only a reader can judge is checked by the part of it that can
be measured, and the check's docstring says so. What shows only on the built pages, such as outputs, alternative texts
and what a phone or an accessibility checker makes of them, is checked by ``make check-pages``, and that a solution
passes and a broken one fails by test_exercises.py.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from chapters import CHAPTERS, FENCE, FILES, MAGIC, Chapter, crowded_lines, plain, prose

from extractbook.build import courses, execute
from extractbook.build.stubs import BEGIN
from extractbook.exercises.exercise import KINDS
from extractbook.reproduction.claims import claims
from extractbook.reproduction.ledger import ledger
from extractbook.sphinx import furniture, quiz

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.chapters import ASKS, RESULT, Counts, visible  # noqa: E402

ATTACK_AND_DEFENSE = {f"{number:02}" for number in (*range(4, 11), 13)}
"""Numbers of the chapters in which the attack or a defense is built on the page."""

SHOWN = re.compile(r"\.verdict\b|book\.(cards|matrix)\(")
NUMBER = re.compile(r"\d*\.\d+|\d+ ?%")
CLAIM = re.compile(r"\b[CB]\d+\b")
BLOCK = re.compile(r"^```\{quiz\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
VERDICT = re.compile(
    r"\b((?:[CB]\d+(?:, | and |, and )?)+) (holds?|do(?:es)? not hold|(?:is|are) (?:undecided|not testable|not run))\b"
)
COUNT = re.compile(r"\d|\b[Oo]ne\b|\{[^{}]*(?:len\(|:,|epochs|seeds\()[^{}]*\}")
BULLET = re.compile(r"^- ", re.MULTILINE)

# Decimals and shares of a chapter's text that nobody measured here: settings, bounds, examples, the authors' figures.
NOT_MEASURED = {
    "03_victims": {"70%"},  # what confidence means
    "04_api": {"0.002"},  # a price
    "05_knockoff": {"96%", "70%", "60%", "0.97", "0.75", "0.80"},  # examples of exercises and questions
    "06_granularity": {"0.05"},  # half a unit of one decimal
    # Bounds of the claims, and others' figures.
    "07_architecture": {"0.15", "0.10", "0.05", "0.06", "94.28", "73.20"},
    "08_diversity": {"4.7"},  # others'
    "09_detection": {"95%"},  # the share that a threshold accepts
    "11_scale": {"1.50"},  # a price
    "12_ledger": {"1.25", "1.25%"},  # the error of a look
}

# Figures made by hand that are given no data: two pictures, and a plot that has its own.
NO_DATA = {"images-seven-sets", "images-disc", "threat-main"}

# The claims that a chapter is about.
CLAIMS = {
    "05_knockoff": ["C1", "C2", "B1", "B5"],
    "06_granularity": ["C3", "C4"],
    "07_architecture": ["C5", "C6", "B10"],
    "08_diversity": ["C7", "C8"],
    "09_detection": ["C9", "C10", "C11", "C12", "C15", "B4", "B6", "B7", "B8", "B9"],
    "10_realistic": ["C13", "C14", "B2", "B3", "B11", "B12"],
    "13_since": ["B13"],
}


def head_block(chapter: Chapter) -> Iterator[str]:
    """At most 120 words with question, objectives, linked prerequisites, times, threat model; the verbs are read."""
    head = chapter.cells[0].source
    words = len(FENCE.sub("", head).split())
    if words > 120:
        yield f"{words} words in the head block"
    if not re.match(rf"# {int(chapter.name[:2])}\. \w", head):
        yield "the head does not begin with the chapter's number and title"
    if not re.search(r"^\*\*Question\.\*\* .+\?$", head, re.MULTILINE):
        yield "no question"
    if not 3 <= len(objectives(chapter)) <= 5:
        yield f"{len(objectives(chapter))} objectives"
    if "](" not in line(head, "Prerequisites."):
        yield "no link to a prerequisite"
    time = line(head, "Time.")
    if "to read" not in time or not ({"drawn", "smoke"} <= set(re.findall(r"\w+", time)) or "every scale" in time):
        yield "no time to read it and to run it in the scales drawn and smoke"
    if not re.search(r"^\| Who \| knows \| may \w+ \|\n\|---\|---\|---\|\n\| ", head, re.MULTILINE):
        yield "no threat model in a row"


def line(head: str, begin: str) -> str:
    """Return what follows a bold beginning on its line of the head block."""
    found = re.search(rf"^\*\*{re.escape(begin)}\*\* (.*)$", head, re.MULTILINE)
    return found[1] if found else ""


def objectives(chapter: Chapter) -> list[str]:
    """Return the objectives in the head block."""
    return [text for text in line(chapter.cells[0].source, "You will be able to").split(";") if text.strip()]


def result_first(chapter: Chapter) -> Iterator[str]:
    """A figure or a table stands within the first 400 words; that it is the main one is read."""
    words = 0
    for kind, cells in chapter.runs():
        if kind == "markdown":
            words += len(prose(cells).split())
        elif any(RESULT.search(cell.source) for cell in cells):
            break
    if words > 400:
        yield f"{words} words before the first result"


def size(chapter: Chapter) -> Iterator[str]:
    """1,200 to 2,500 words, and 8 to 20 code cells that are on the page."""
    words, code = len(chapter.text.split()), len(visible(chapter.cells))
    if not 1200 <= words <= 2500:
        yield f"{words} words"
    if not 8 <= code <= 20:
        yield f"{code} code cells"


def predict_run_read(chapter: Chapter) -> Iterator[str]:
    """The text before each figure and table asks, and text follows; that it says what is seen, and why, is read."""
    groups = chapter.runs()
    for place, (kind, cells) in enumerate(groups):
        if kind == "code" and any(RESULT.search(cell.source) for cell in cells):
            if not ASKS.search(prose(groups[place - 1][1])):
                yield f"nothing is asked before {cells[0].id}"
            if place + 1 == len(groups) or not prose(groups[place + 1][1]).strip():
                yield f"no text after {cells[-1].id}"
    yield from crowded_lines(chapter)


def from_scratch(chapter: Chapter) -> Iterator[str]:
    """A cell ``…by-hand`` of at most 15 lines, and in it or the next two an assertion that two things are equal."""
    code = chapter.own("code")
    for place, cell in enumerate(code):
        if cell.id.endswith("by-hand") and len(cell.source.splitlines()) <= 15:
            if any(asserts_equality(later.source) for later in code[place : place + 3]):
                return
    yield "no mechanism in at most 15 lines that is shown equal to the package's by an assertion"


def asserts_equality(source: str) -> bool:
    """Say whether a cell asserts that two things are equal, or near."""
    tests = [node.test for node in ast.walk(ast.parse(MAGIC.sub(r"\1pass", source))) if type(node) is ast.Assert]
    return any(re.search(r"==|equal|close|abs\(.+<", ast.unparse(test)) for test in tests)


def numbers_and_figures(chapter: Chapter) -> Iterator[str]:
    """No decimal or share is typed unless `NOT_MEASURED` has it; a figure has texts, data, n, and a spread with seeds.

    Whole numbers, units and what the alternative text tells are read.
    """
    typed = set(NUMBER.findall(chapter.text)) - NOT_MEASURED.get(chapter.name, set())
    yield from (f"{number} is typed into the text" for number in sorted(typed))
    for call in figure_calls(chapter):
        texts = {option.arg: ast.unparse(option.value) for option in call.keywords}
        if not {"name", "caption", "alt"} <= set(texts):
            yield f"a figure has only {', '.join(sorted(texts))}"
        elif not COUNT.search(texts["caption"]):
            yield f"the caption of {texts['name']} does not say of how many"
        elif re.search(r"(\d|\}) seeds", texts["caption"]) and not re.search("±|interval", texts["caption"]):
            yield f"the caption of {texts['name']} does not say what the spread over the seeds is"
        made = ast.unparse(call.args[0])
        if "data" not in texts and not made.startswith("book.") and texts.get("name", "").strip("'") not in NO_DATA:
            yield f"no data is below {made}"


def figure_calls(chapter: Chapter) -> list[ast.Call]:
    """Return the calls of `book.show` in the chapter's own code."""
    tree = ast.parse(MAGIC.sub(r"\1pass", chapter.code))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == "book.show"]


def ledger_rows(chapter: Chapter) -> Iterator[str]:
    """The claims that the chapter is about or names are shown with their verdicts; a typed verdict is the ledger's."""
    code = "\n".join(cell.source for cell in chapter.own("code") if SHOWN.search(cell.source))
    shown = set(re.findall(r"[\"']([CB]\d+)[\"']", code))
    shown |= {claim.id for claim in claims() if re.search(rf"[\"']{claim.id[0]}[\"']|book\.matrix\(", code)}
    touched = {*CLAIMS.get(chapter.name, []), *CLAIM.findall(chapter.text)}
    yield from (f"{claim} is not shown with its verdict" for claim in sorted(touched - shown))
    for several, typed in VERDICT.findall(chapter.text):
        bare = typed.removeprefix("is ").removeprefix("are ")
        word = {"hold": "holds", "do not hold": "does not hold"}.get(bare, bare)
        for claim in CLAIM.findall(several):
            if word != verdicts()[claim]:
                yield f"{claim} {typed}, but the ledger says {verdicts()[claim]}"


@cache
def verdicts() -> dict[str, str]:
    """Return the ledger's word on each claim on drawn images."""
    found = ledger("drawn")
    return {claim.id: str(found.word(claim)) for claim in claims()}


def provenance(chapter: Chapter) -> Iterator[str]:
    """Where rows are read and where something is computed live a provenance line tells of it."""
    if re.search(r"book\.(rows|frame)\(", chapter.code) and not re.search(r"(?<!run_)provenance\w*\(", chapter.code):
        yield "no provenance of the committed rows"
    if "started" in chapter.code or re.search(r"Setup\(|parts\(|PredictionAPI\(", chapter.code):
        if "run_provenance(" not in chapter.code:
            yield "no provenance of the live run"


def runs(chapter: Chapter) -> Iterator[str]:
    """The scale is set by the second code cell, and nothing else names one; test_book.py runs it, at scale smoke.

    Seconds and memory at scale drawn are measured by ``make book`` and held to the limits by ``make check-pages``.
    """
    second = chapter.all("code")[1]
    if "parameters" not in second.metadata.get("tags", []) or 'scale = "drawn"' not in second.source.splitlines():
        yield "the second code cell does not set the scale"
    if len(re.findall(r"^scale\s*=", chapter.code, re.MULTILINE)) > 1:
        yield "the scale is set again"


def exercises(chapter: Chapter) -> Iterator[str]:
    """Four to six, numbered, of all kinds, each with minutes and hint; a check and a folded solution, or a rubric."""
    tasks = list(courses._tasks(chapter.cells, chapter.name).values())
    if not 4 <= len(tasks) <= 6:
        yield f"{len(tasks)} exercises"
    if [task.id for task in tasks] != [f"{int(chapter.name[:2])}.{place}" for place in range(1, len(tasks) + 1)]:
        yield "the exercises are not numbered in order"
    titles = [re.fullmatch(r"[\d.]+ .+: ([\w ]+), \d+ minutes", task.title) for task in tasks]
    yield from (f"{task.title} has no kind and minutes" for task, title in zip(tasks, titles, strict=True) if not title)
    found = {title[1] for title in titles if title}
    yield from (f"no exercise of the kind {kind}" for kind in KINDS if kind not in found)
    yield from (f"{task.id} has no hint" for task in tasks if len(task.hint.split()) <= 5)
    coded = [task for task in tasks if task.code]
    yield from (f"{task.id} has no check" for task in coded if f'book.check("{task.id}", ' not in task.code)
    yield from (f"{task.id} has no solution" for task in coded if BEGIN not in task.code)
    graded = "**How it is graded.**"
    yield from (f"{task.id} has no rubric" for task in tasks if not task.code and graded not in task.explanation)


def questions(chapter: Chapter) -> Iterator[str]:
    """Two to four, not always with the same letter right, with feedback of at least five words for each choice."""
    text = "\n".join(cell.source for cell in chapter.own("markdown"))
    found = [question for block in BLOCK.findall(text) for question in quiz.questions(block)]
    if not 2 <= len(found) <= 4:
        yield f"{len(found)} questions"
    elif len({question["answer"] for question in found}) == 1:
        yield "always the same letter is right"
    told = [text for question in found for text in question["feedback"].values()]
    yield from (f"too short a feedback: {text}" for text in told if len(text.split()) < 5)


def limits(chapter: Chapter) -> Iterator[str]:
    """A section with three limits or more, one of use and one of what the code is fit for; that they bite is read."""
    text = chapter.section("Limits")
    if len(BULLET.findall(text)) < 3:
        yield f"{len(BULLET.findall(text))} limits"
    if not re.search(r"owner's (?:leave|permission)|(?:leave|permission) to test|licenses an attack", text):
        yield "nothing on responsible use"
    if not re.search(r"for learning|is no server|is not meant for", text):
        yield "nothing on what the teaching code is not fit for"


def close(chapter: Chapter) -> Iterator[str]:
    """As many key points as objectives, the next step, how to cite; all that is cited can be found by a DOI or URL."""
    points = len(BULLET.findall(chapter.section("Key points")))
    if points != len(objectives(chapter)):
        yield f"{points} key points for {len(objectives(chapter))} objectives"
    last = chapter.cells[-1].source
    yield from (f"no {part}" for part in ("Next", "How to cite") if f"**{part}.**" not in last)
    bibliography = (execute.BOOK / "references.bib").read_text(encoding="utf-8").split("\n@")
    entries = {entry.partition("{")[2].partition(",")[0]: entry for entry in bibliography}
    cited = {key for keys in re.findall(r"\{cite(?::t)?\}`([\w, ]+)`", chapter.text) for key in keys.split(",")}
    for key in sorted(key.strip() for key in cited):
        if not re.search(r"^\s*(doi|url)\s*=", entries.get(key, ""), re.MULTILINE):
            yield f"{key} is cited and has neither DOI nor URL"


def ways(chapter: Chapter) -> Iterator[str]:
    """It is in the table of contents, and its first cell sets it up on Colab; the page's own links need the page."""
    first = chapter.all("code")[0]
    if (first.id, first.metadata.get("tags"), first.source) != ("setup", ["remove-cell"], furniture.setup_cell()):
        yield "the first code cell does not fetch what is missing"
    if f"book/{chapter.name}" not in FILES:
        yield "it is not in _toc.yml"


def short_cells(chapter: Chapter) -> Iterator[str]:
    """Of the visible cells the median has at most 5 lines, 90% at most 12, none more than 20; 79 columns."""
    yield from (
        f"more than 79 columns: {line}"
        for cell in visible(chapter.cells)
        for line in cell.source.splitlines()
        if len(line) > 79
    )
    found = Counts.of(chapter.cells)
    if found.median > 5:
        yield f"the median cell has {found.median:g} lines"
    if found.most > 12:
        yield f"one cell in ten has more than {found.most - 1} lines"
    if max(found.lines, default=0) > 20:
        yield f"a cell has {max(found.lines)} lines"


def teaches(chapter: Chapter) -> Iterator[str]:
    """At least 65% of the visible code lines teach, and 60 of chapters 4 to 10 (`benchmarks.chapters`)."""
    found = Counts.of(chapter.cells)
    if found.share < 0.65:
        yield f"{found.share:.0%} of the visible lines teach"
    if chapter.name[:2] in ATTACK_AND_DEFENSE and found.teaching < 60:
        yield f"{found.teaching} visible lines teach"


def pictures(chapter: Chapter) -> Iterator[str]:
    """At least three figures that are no bar charts where the attack or a defense is built; what they show is read."""
    found = Counts.of(chapter.cells).pictures
    if chapter.name[:2] in ATTACK_AND_DEFENSE and found < 3:
        yield f"{found} pictures"


def minutes(chapter: Chapter) -> Iterator[str]:
    """The minutes to read it are those of its words and cells, within five; with the exercises' own, at most 90."""
    found, labeled = Counts.of(chapter.cells), re.search(r"(\d+) minutes to read", chapter.cells[0].source)
    said = int(labeled[1]) if labeled else 0
    if abs(said - found.minutes) > 5:
        yield f"{said} minutes to read it, and its words and cells take {found.minutes}"
    if f"to read, {found.exercise_minutes} for the exercises" not in chapter.cells[0].source:
        yield f"it does not say that its exercises take {found.exercise_minutes} minutes"
    if said + found.exercise_minutes > 90:
        yield f"{said} minutes to read it and {found.exercise_minutes} for the exercises"


def distractors(chapter: Chapter) -> Iterator[str]:
    """Each question has four choices; neither the longest nor the same letter is always right."""
    text = "\n".join(cell.source for cell in chapter.own("markdown"))
    found = [question for block in BLOCK.findall(text) for question in quiz.questions(block)]
    yield from (f"{len(q['choices'])} choices: {q['question']}" for q in found if len(q["choices"]) != 4)
    if found and all(is_longest(question) for question in found):
        yield "the longest choice is always right"


def is_longest(question: dict) -> bool:
    """Say whether a question's key is its longest choice."""
    lengths = {letter: len(text) for letter, text in question["choices"].items()}
    return lengths[question["answer"]] == max(lengths.values())


class Point(NamedTuple):
    """One of the twenty."""

    name: str
    check: Callable[[Chapter], Iterator[str]]


POINTS = {
    1: Point("head block", head_block),
    2: Point("result first", result_first),
    3: Point("size", size),
    4: Point("short cells", short_cells),
    5: Point("predict, run, read", predict_run_read),
    6: Point("from scratch, then the package", from_scratch),
    7: Point("numbers injected, figures described", numbers_and_figures),
    8: Point("rows of the ledger", ledger_rows),
    9: Point("provenance", provenance),
    10: Point("runs from a clean kernel", runs),
    11: Point("exercises", exercises),
    12: Point("questions", questions),
    13: Point("limits", limits),
    14: Point("close", close),
    15: Point("ways in and out", ways),
    16: Point("visible code teaches", teaches),
    17: Point("pictures", pictures),
    18: Point("minutes", minutes),
    19: Point("distractors", distractors),
    20: Point("plain English", plain),
}

CASES = [
    pytest.param(name, number, id=f"{name}-{number}-{point.name}")
    for name in CHAPTERS
    for number, point in POINTS.items()
]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_chapter_meets_point(name, number):
    point = POINTS[number]
    found = list(point.check(Chapter.read(name)))
    assert not found, f"{name} lacks point {number}, {point.name}: " + "; ".join(found)


# Each check can fail: on a sound chapter in which one text is replaced, it says so.

SOUND = "05_knockoff"
LAST_QUESTION = next(
    "- question: " + cell.source.rpartition("- question: ")[2] for cell in Chapter.read(SOUND).all("markdown")
    if "```{quiz}" in cell.source
)  # fmt: skip
BREAKAGES = [
    (1, "write its draw", "WORD " * 121 + "write its draw", "words in the head block"),
    (1, "# 5. Knockoff", "# Knockoff", "number and title"),
    (1, "**Question.**", "**Aim.**", "no question"),
    (1, "judge adaptive queries.", "judge; claim; report.", "7 objectives"),
    (1, "[Victims](03_victims.ipynb) and [the prediction API](04_api.ipynb)", "Two others", "no link"),
    (1, ", seconds at smoke", "", "scales drawn and smoke"),
    (1, "| Who | knows", "| Who | is", "no threat model"),
    (2, "## What is recovered\n", "## What is recovered\n" + "word " * 400, "before the first result"),
    (3, "## What is recovered\n", "## What is recovered\n" + "word " * 2000, "words"),
    (4, "ours.round(2)", "ours.round(2)  #" + "x" * 70, "more than 79 columns"),
    (4, "ours.round(2)", "ours = ours + 0\n" * 10 + "ours", "a cell has 22 lines"),
    (4, "print(", "f(1)\n" * 10 + "print(", "one cell in ten has more than"),
    (
        5,
        "Predict: how many labeled images of the {term}`task` does it take to train a model as accurate as the copy?",
        "Here it is.",
        "nothing is asked before main-figure",
    ),
    (5, ".\n", ". And so on.\n", "more than one sentence"),
    (6, "assert ", "", "shown equal"),
    (7, "They send the images", "Recovery is 0.81; they send the images", "0.81 is typed"),
    (7, "n = {budget // 2:,} queries each, one seed", "live", "how many"),
    (7, "book.chapter_05.asked(", "own(", "no data is below own(asked"),
    (7, "alt=", "title=", "a figure has only caption, name, title"),
    (8, '"B1", ', "", "B1 is not shown"),
    (8, "C1 and C2 are the paper's", "C12 is the paper's", "C12 is not shown"),
    (8, "B1 does not hold:", "B1 and C1 are not run:", "C1 are not run, but the ledger says holds"),
    (9, "run_provenance(", "str(", "live run"),
    (9, "book.provenance_of(", "str(", "committed rows"),
    (10, 'scale = "drawn"', 'scale = "smoke"', "does not set the scale"),
    (10, "started = time", 'scale = "drawn"\nstarted = time', "set again"),
    (11, ": attack or defend,", ": implement,", "no exercise of the kind attack or defend"),
    (11, "**How it is graded.**", "**The grade.**", "5.6 has no rubric"),
    (11, "exercise-5.1", "exercise-5.9", "not numbered in order"),
    (11, ": understand, 5 minutes", "", "no kind and minutes"),
    (11, 'check("5.1"', 'print("5.1"', "5.1 has no check"),
    (12, "```{quiz}", "```{query}", "0 questions"),
    (12, "It says that someone sent queries, not that this model was trained on the answers.", "No.", "feedback: No."),
    (13, "## Limits", "## Bounds", "0 limits"),
    (13, "owner's permission", "owner's blessing", "responsible use"),
    (13, "for learning", "for teaching", "teaching code"),
    (14, "- Six lines", "Six lines", "4 key points for 5 objectives"),
    (14, "**Next.**", "Next.", "no Next"),
    (14, "{cite}`maini2021dataset`", "{cite}`nobody2015`", "nobody2015 is cited"),
    (15, "subprocess.run(", "subprocess.call(", "does not fetch what is missing"),
    (16, "print(first)", "print(first)\n" * 60, "visible lines teach"),
    (17, "book.show(", "book.see(", "0 pictures"),
    (18, "30 minutes to read", "55 minutes to read", "55 minutes to read it, and its words and cells take"),
    (18, "15 minutes\n:label: exercise-5.4", "16 minutes\n:label: exercise-5.4", "its exercises take 61 minutes"),
    (18, "15 minutes\n:label: exercise-5.4", "75 minutes\n:label: exercise-5.4", "for the exercises"),
    (19, LAST_QUESTION, re.sub(r"^    d: .*\n", "", LAST_QUESTION, flags=re.MULTILINE), "3 choices: A model"),
    (20, "Suppose the owner", "Suppose whoever owns it", "whoever|whomever (anyone who"),
    (
        20,
        "It is an independent model, since",
        "It is a model of their own, since",
        "of (?:its|their) own (says nothing",
    ),
]


@pytest.mark.parametrize(("number", "old", "new", "finding"), BREAKAGES)
def test_a_broken_chapter_is_found_out(number, old, new, finding):
    assert list(POINTS[number].check(Chapter.read(SOUND))) == []
    found = list(POINTS[number].check(Chapter.read(SOUND).changed(old, new)))
    assert any(finding in text for text in found), found


def test_in_all_chapters_neither_a_letter_nor_the_longest_choice_is_right_too_often():
    texts = [cell.source for name in CHAPTERS for cell in Chapter.read(name).own("markdown")]
    found = [question for text in texts for block in BLOCK.findall(text) for question in quiz.questions(block)]
    assert sum(map(is_longest, found)) <= max(1, 0.4 * len(found))
    for letter in "abcd":
        assert sum(question["answer"] == letter for question in found) <= max(1, 0.4 * len(found))


def test_every_point_is_broken():
    assert {number for number, *_ in BREAKAGES} == set(POINTS) == set(range(1, 21))


def test_each_claim_has_a_chapter():
    assert sorted(one for several in CLAIMS.values() for one in several) == sorted(claim.id for claim in claims())
