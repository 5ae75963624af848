"""What chapter 12, The ledger, shows in addition to the ledger's own page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from math import floor
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from extractbook.figures.chapter_09 import TASKS
from extractbook.figures.chapter_11 import NAMES
from extractbook.figures.notebook import table
from extractbook.reproduction import claims, edition_1, editions, judging, paper, results
from extractbook.reproduction.judging import Bound, Quantity, Verdict
from extractbook.reproduction.ledger import Ledger
from extractbook.reproduction.results import first_edition
from extractbook.reproduction.scales import Scale, scale

TESTED = "C1"
"""The claim that is judged by hand."""


CLOSED = (Verdict.HOLDS, Verdict.DOES_NOT_HOLD)
"""The verdicts after which no second look is taken."""

AS_VERB: Mapping[Verdict, tuple[str, str]] = MappingProxyType(
    {
        Verdict.HOLDS: ("holds", "hold"),
        Verdict.DOES_NOT_HOLD: ("does not hold", "do not hold"),
        Verdict.UNDECIDED: ("is undecided", "are undecided"),
        Verdict.NOT_TESTABLE: ("is not testable", "are not testable"),
        Verdict.NOT_RUN: ("is not run", "are not run"),
    }
)
"""A verdict after "one claim" and after several."""


def counted(ledger: Ledger) -> str:
    """Return how many of the paper's claims and of ours got each verdict, as a sentence."""
    parts = []
    for first, whose in (("C", "of the paper's {} claims,"), ("B", "of our {},")):
        words = Counter(ledger.word(claim) for claim in claims.claims() if claim.id.startswith(first))
        said = ", ".join(f"{words[word]} {AS_VERB[word][words[word] > 1]}" for word in Verdict if words[word])
        parts.append(f"{whose.format(words.total())} {said}")
    return "; ".join(parts) + "."


def numbers(frame: pd.DataFrame) -> tuple[dict[str, list[float]], int, str]:
    """Return recoveries by task, the number of images behind each, and the edition that they are from, in words.

    Args:
        frame: Rows of the reproduction, from `book.frame`.
    """
    if frame["seed"].nunique() > 1:
        plain = frame[frame["experiment"] == "extraction"]
        found = {task: plain.loc[plain["task"] == task, "recovery"].tolist() for task in TASKS}
        return (
            {task: values for task, values in found.items() if values},
            int(frame["images"].min()),
            "the second edition",
        )
    old = results.frame(first_edition("drawn", "reproduction"))
    found = {task: old.loc[old["task"] == task, "recovery"].tolist() for task in TASKS}
    return (
        {task: values for task, values in found.items() if values},
        1_000,
        "the first edition, which no longer decide anything",
    )


def bound(values: Sequence[float], images: int) -> Bound:
    """Return the first bound of `TESTED` as the package judges it on recoveries, one per seed."""
    claim = next(claim for claim in claims.claims() if claim.id == TESTED)
    quantity = Quantity(pd.DataFrame({0: values}), images, frozenset())
    return judging.bound(claim.bounds[0], quantity, seeds=(), words={"task": "this task"})


def first_edition_fold() -> str:
    """Return the first edition's verdicts at both scales as a fold in HTML."""
    scales = {"drawn": "Drawn", "small-cpu": "Photographs"}
    found = {name: {one.claim.id: one for one in edition_1.verdicts(first_edition(name))} for name in scales}
    lines = []
    for claim, entry in found["drawn"].items():
        there = found["small-cpu"].get(claim)
        words = [str(entry.verdict), "–" if there is None else str(there.verdict)]
        lines.append(f"<tr><th scope='row'>{claim}</th><td>{escape(entry.claim.statement)}</td>")
        lines.append("".join(f"<td>{word}</td>" for word in words) + "</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Claim", "Statement", *scales.values()))
    table = f'<table class="ledger words"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<details class="fold claim"><summary>The first edition\'s verdicts</summary>{table}</details>'


def closed_early(ledger: Ledger) -> str:
    """Return which verdicts of the first look would differ at the seeds of both, where those have rows, as sentences.

    Such rows are there because other entries needed a second look.
    """
    scale = ledger.scale
    evidence = claims.Evidence(ledger.frame, scale, editions.looks(editions.of_scale(scale.name))[1])
    closed = [entry for entry in ledger.entries if entry.looks == 1 and entry.verdict in CLOSED]
    compared, differing = 0, []
    for entry in closed:
        limits = {id(one.stated): one.stated for one in entry.bounds}.values()
        bounds = [one for stated in limits for one in evidence.bounds(stated, entry.task)]
        if any(one.missing for one in bounds):
            continue
        compared += 1
        verdict = judging.judge(partial(tuple, bounds))[0]
        if verdict is not entry.verdict:
            pairs = zip(entry.bounds, bounds, strict=True)
            first, both = next((first, both) for first, both in pairs if first.holds != both.holds)
            differing.append(
                f"{entry.claim} on *{entry.task}* {AS_VERB[entry.verdict][0]} by the first seeds ({first}), and"
                f" {AS_VERB[verdict][0]} by all of them ({both})"
            )
    if not compared:
        return ""
    told = "; ".join(differing) or "none"
    return (
        f"Of the {len(closed)} entries that were closed at the first look, {compared} can be judged at all seeds of"
        " the second look too, since other entries needed these rows. A different verdict comes out for"
        f" {len(differing)}: {told}. The matrix and the chapters keep the first look's."
    )


def deviated() -> str:
    """Return how many deviations there are from each freeze so far, as a sentence."""
    counts = {name: len(editions.deviations(name)) for name in ("drawn", "photos") if editions.frozen(name)}
    return f"Deviations so far: {', '.join(f'{count} from the freeze of {name}' for name, count in counts.items())}."


def changed(ledger: Ledger) -> str:
    """Return which claims of the first edition have a different verdict now, among those that were run, as sentences.

    A claim whose statement has changed is not compared.
    """
    name = {"photos": "small-cpu"}.get(ledger.scale.name, ledger.scale.name)
    first = {one.claim.id: one for one in edition_1.verdicts(first_edition(name))}
    words = {claim.id: str(ledger.word(claim)) for claim in claims.claims() if claim.id in first}
    run = {name: word for name, word in words.items() if word != Verdict.NOT_RUN}
    images = {"photos": "photographs"}.get(ledger.scale.name, "drawn images")
    if not run:
        return f"On {images}, none of its {len(first)} claims has a verdict from the second edition's rows yet."
    stated = {claim.id: claim.statement for claim in claims.claims()}
    restated = [name for name in run if stated[name] != first[name].claim.statement]
    was = {name: str(first[name].verdict) for name in run if name not in restated}
    other = [f"{name} ({word}, now {run[name]})" for name, word in was.items() if word != run[name]]
    have = "has" if len(run) == 1 else "have"
    return (
        f"On {images}, {len(run)} of its {len(first)} claims {have} a verdict from the second edition's rows. "
        + (f"Stated differently now, and so not compared: {', '.join(restated)}. " if restated else "")
        + f"Among the others, the verdict is different for {', '.join(other) or 'none'}; their experiments and tests "
        "are new, so it is not one and the same result that changed."
    )


def redesigned() -> str:
    """Return which images were redrawn after a look at a result, in sentences."""
    [first] = [one for one in edition_1.verdicts(first_edition("drawn")) if one.claim.id == "C9"]
    statement = "balanced accuracy(things) < "
    [bound] = [one for one in first.bounds if one.statement.startswith(statement)]
    rates = paper.tables()["detection"]["rows"]["Caltech-RN34"]["imagenet"]
    return (
        "Images were redrawn twice after a look at a result. In the first edition, the detector's balanced accuracy"
        f" on *things* was {fmean(bound.values):.3f}, where claim C9 has its bound at"
        f" {bound.statement.removeprefix(statement)}, and the mean of the authors' two rates on Caltech is"
        f" {fmean(rates) / 100:.3f}: the drawn twin overlapped less with its pool. *Things* now shares most of its"
        " kinds with *atlas* ([datasheets](datasheets.md)), and the bound was kept. So on *things*, C9 says that a"
        " detector is weak against a pool of mostly the same kinds. All other entries of *things* are from that world"
        " too, including those of C13 and B2, which rest on the same detector. The other time, an early prototype,"
        " whose *atlas* had nothing round or spotted, did not recover *retina*; so C1 on *retina*, and C2, which"
        " compares every other task with it, hold for a pool that has these. † marks the entries of C9 on *things*, of"
        " C1 on *retina*, and of C2."
    )


def authors() -> str:
    """Return the authors' tables as their slides print them, each with its notes and with what cannot be right."""
    parts = []
    for name, entry in paper.tables().items():
        if isinstance(entry, dict) and "rows" in entry:
            parts.append(f"<p><b>{escape(name.replace('_', ' '))}</b>: {escape(entry['setting'])}.</p>")
            parts.append(_printed(entry["rows"]))
            notes = paper.notes(name)
            notes += [text for key, text in entry.items() if key != "setting" and isinstance(text, str)]
            parts += [f"<p>Note: {escape(note)}.</p>" for note in (*notes, *slips(name))]
    summary = "The authors' figures, as their slides print them, with notes"
    return f'<details class="fold claim"><summary>{summary}</summary>{"".join(parts)}</details>'


def _printed(rows: Mapping[str, Any]) -> str:
    """Return the authors' rows as a table in HTML; a pair is victim and surrogate, or TPR and TNR."""
    pair = "victim / surrogate"
    named = {row: values if isinstance(values, dict) else {pair: values} for row, values in rows.items()}
    columns = [name for name in dict.fromkeys(key for values in named.values() for key in values) if name != "note"]
    heads = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in ("row", *columns))
    lines = []
    for row, values in named.items():
        cells = [" / ".join(map(str, value)) if isinstance(value, list) else str(value)
                 for value in (values.get(name, "–") for name in columns)]  # fmt: skip
        told = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f"<tr><th scope='row'>{escape(row)}</th>{told}</tr>")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def slips(name: str) -> Iterator[str]:
    """Yield what cannot be right as printed in one of the authors' tables.

    That is a ratio that differs from that of its two figures, rounded or cut to two decimals, or a surrogate far below
    what guessing reaches on as many balanced classes.
    """
    known = paper.tables()["reproduction"]["rows"]
    for row, values in paper.tables()[name]["rows"].items():
        if not isinstance(values, dict) or "surrogate" not in values:
            continue
        victim, copy, printed = known[row]["victim"], values["surrogate"], values["recovery"]
        if printed not in (round(copy / victim, 2), floor(100 * copy / victim) / 100):
            yield f"{row}: {copy} / {victim} is {copy / victim:.2f}, but the slides print {printed:.2f}"
        chance = 100 / known[row]["classes"]
        if copy < chance / 2:
            yield f"{row}: {copy}% is far below the {chance:.0f}% that guessing among balanced classes reaches"


def untested(ledger: Ledger) -> str:
    """Return which claims hold although a task could not be tested, and on how many tasks, as a sentence."""
    found = []
    for claim in claims.claims():
        of_task = [entry.verdict for entry in ledger.of(claim.id) if entry.task != claims.ACROSS]
        if ledger.word(claim) is Verdict.HOLDS and Verdict.NOT_TESTABLE in of_task:
            found.append(f"{claim.id} holds on {of_task.count(Verdict.HOLDS)} of {len(of_task)}")
    return f"Some claims that hold could not be tested on every task: {', '.join(found)}." if found else ""


def mixed(ledger: Ledger) -> str:
    """Return which claims hold on some tasks and not on others, as a sentence."""
    names = []
    for claim in claims.claims():
        found = {entry.verdict for entry in ledger.of(claim.id)}
        names += [claim.id] if {Verdict.HOLDS, Verdict.DOES_NOT_HOLD} <= found else []
    return f"claims that hold on some tasks and not on others: {', '.join(names) or 'none so far'}."


def command() -> str:
    """Return the command that makes the rows of `TESTED`."""
    return next(claim for claim in claims.claims() if claim.id == TESTED).command("drawn")


class Condition(NamedTuple):
    """A line of the table that answers the paper's title.

    Attributes:
        name: What the attacker has and what the owner does.
        table: The table with its rows.
        cell: The values of its rows' cells; names in braces are the task, settings of the scale, or the fewest
            steps.
        claims: The claims that it rests on.
        column: The column with its recovery.
    """

    name: str
    table: str
    cell: Mapping[str, str]
    claims: tuple[str, ...]
    column: str = "recovery"


OWN = {"pool": "{task}/shifted", "budget": "{own_number}", "granularity": "full"}

CONDITIONS = {
    "plain": Condition("public images, the victim's start", "reproduction", {}, ("C1",)),
    "start": Condition(
        "public images, another start", "weights", {"victim_weights": "A", "surrogate_weights": "B"}, ("B10",)
    ),
    "label": Condition("public images, labels only", "granularity", {"granularity": "label"}, ("C3",)),
    "own": Condition("own images, a quarter of the queries or fewer", "own_images",
                     {**OWN, "attack": "random"}, ("C14",)),
    "alone": Condition("the same own images, true labels, no API", "own_images",
                       {**OWN, "attack": "own-labels"}, ("C14",)),
    "shuffle": Condition(
        "public images, detector and shuffled answers", "defended", {"defense": "shuffle", "pool": "{pool}"},
        ("C9", "C12"),
    ),
    "twice": Condition("the same, each image asked twice", "asked_twice", {}, ("B12",), "recovery_consistent"),
    "evade": Condition("own images, detector and shuffled answers", "defended", {**OWN, "defense": "shuffle"},
                       ("C13",)),
    "marks": Condition("public images, marks in the answers", "watermark", {"steps": "{fewest}"}, ("B3",)),
}  # fmt: skip
"""The lines of the table that answers the paper's title, by the names that its sentences use."""


def _of(rows: pd.DataFrame, condition: Condition, settings: Scale) -> pd.DataFrame:
    """Return the rows of a condition among those of its table."""
    kept = pd.Series(True, index=rows.index)
    names = {"own_number": settings.own_number, "pool": settings.pool, "fewest": rows["steps"].min()}
    for column, value in condition.cell.items():
        expected = [value.format(task=task, **names) for task in rows["task"]]
        kept &= rows[column].astype(str) == pd.Series(expected, index=rows.index)
    return rows[kept]


def threat(name: str) -> pd.DataFrame:
    """Return the recovery under each of `CONDITIONS` at a scale, with the plain attack's on the same tasks and seeds.

    Args:
        name: The scale.

    Returns:
        By the names of `CONDITIONS`: ``recovery`` and ``plain``, each a mean over the tasks of the means over their
        seeds; ``tasks`` and ``seeds`` as tuples; ``edition``. A condition without rows is missing.
    """
    lines, settings = {}, scale(name)
    tables: dict[str, pd.DataFrame] = {}
    copies: dict[str, pd.DataFrame] = {}
    for key, condition in CONDITIONS.items():
        try:
            if condition.table not in tables:
                tables[condition.table] = results.newest(condition.table, scale=name)
            found = _of(tables[condition.table], condition, settings)
            edition = tables[condition.table]["edition"].iloc[0]
            if edition not in copies:
                copies[edition] = results.newest("reproduction", scale=name, beside=[condition.table])
        except results.NoRows:
            continue
        if found.empty:
            continue
        shared = found[["task", "seed"]].drop_duplicates().merge(copies[edition], on=["task", "seed"])
        means = [rows.groupby("task")[column].mean().mean()
                 for rows, column in ((found, condition.column), (shared, "recovery"))]  # fmt: skip
        tasks = tuple(task for task in settings.tasks if task in set(found["task"]))
        seeds = tuple(sorted(set(found["seed"])))
        lines[key] = {"recovery": means[0], "plain": means[1], "tasks": tasks, "seeds": seeds, "edition": edition}
    return pd.DataFrame.from_dict(lines, orient="index")


def _entry(found: pd.DataFrame, key: str, settings: Scale) -> str:
    """Return a condition's recovery at a scale, the plain attack's, the tasks and the seeds, for the table."""
    if key not in found.index:
        return "not run"
    line = found.loc[key]
    names = [NAMES.get(task, task) for task in line["tasks"]]
    on = f"{len(names)} tasks" if len(names) == len(settings.tasks) else ", ".join(names)
    count = len(line["seeds"])
    seeds = f"{count} seed{'s' if count > 1 else ''}" if line["edition"] == "second" else "exploring seed"
    against = "" if key == "plain" else f" against {line['plain']:.2f}"
    return f"{line['recovery']:.2f}{against} ({on}; {seeds})"


def threat_table(drawn: pd.DataFrame, photos: pd.DataFrame, ledger: Ledger) -> str:
    """Return the table that answers the paper's title, as Markdown.

    Args:
        drawn, photos: Of `threat`.
        ledger: The ledger of the scale drawn.
    """
    words = {claim.id: str(ledger.word(claim)) for claim in claims.claims()}
    body = [
        [
            condition.name,
            _entry(drawn, key, scale("drawn")),
            _entry(photos, key, scale("photos")),
            ", ".join(f"{name} {words[name]}" for name in condition.claims),
        ]
        for key, condition in CONDITIONS.items()
    ]
    heads = ["The attacker has; the owner adds", "Recovery on drawings", "On photographs", "Rests on (drawings)"]
    said = "Recovery, against the plain attack's on the same tasks and seeds; mean over the tasks in brackets"
    return table(body, heads, caption=said, words=True)


def threat_words(drawn: pd.DataFrame, photos: pd.DataFrame) -> str:
    """Return what the table of `threat_table` shows of start, own images, and shuffled answers, as sentences."""
    said, photographs = drawn["recovery"], "plain" in photos.index
    also = f", and {photos['recovery']['plain']:.2f} on photographs" if photographs else ""
    line = drawn.loc["twice"]
    by_task = []
    twice = _of(results.newest("asked_twice"), CONDITIONS["twice"], scale("drawn")).groupby("task")
    for task in line["tasks"]:
        of_task = twice.get_group(task)
        by_task.append(
            f"{of_task['recovery_consistent'].mean():.2f} on *{task}*, where {of_task['shuffled'].mean():.1%} of the"
            " answers are shuffled"
        )
    return (
        f"An attacker with public images and the victim's start recovers {said['plain']:.2f} on drawings{also}.\n"
        f"On drawings, another start leaves {said['start']:.2f} of {drawn['plain']['start']:.2f} on the tasks where it"
        f" was tried, and own images give {said['own']:.2f} against {drawn['plain']['own']:.2f}.\n"
        f"There, the detector with shuffled answers leaves {said['shuffle']:.2f} to public images and"
        f" {said['evade']:.2f} to own ones.\nAsking each image twice recovers {', and '.join(by_task)}."
    )


def kept_words(accounts: pd.DataFrame, marks: pd.DataFrame) -> str:
    """Return how accounts and marks fare on drawings, which is no recovery, as sentences.

    Args:
        accounts, marks: Rows of the tables accounts and watermark.
    """
    flagged = {
        shown: accounts.groupby("task")[f"{name}.sybil_flagged"].mean().max()
        for name, shown in (("counting", "the count of out-of-distribution queries"), ("prada", "PRADA"))
    }
    listed = " and ".join(f"{name} flags at most {worst:.1%}" for name, worst in flagged.items())
    marks = _of(marks, CONDITIONS["marks"], scale("drawn"))
    copy, control = (marks[column].sum() / marks["marked"].sum()
                     for column in ("marks_repeated", "marks_repeated_by_control"))  # fmt: skip
    return (
        f"When queries with own images are split over many accounts, {listed} of the accounts on any task (B2).\n"
        f"A copy repeats {copy:.0%} of the marks, and a control that never saw an answer {control:.0%} (B3)."
    )
