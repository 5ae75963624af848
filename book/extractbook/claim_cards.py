"""Claims as cards for the chapter about them: first the verdict, then the paper's figures, ours, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML

from extractbook.ledger_page import MARKS
from extractbook.remarks import remarks
from extractbook.reproduction import claims, judging, paper, results
from extractbook.reproduction.cells import Row
from extractbook.reproduction.judging import Bound, Entry, Limit, Verdict
from extractbook.reproduction.ledger import Ledger
from extractbook.reproduction.scales import Scale
from extractbook.reproduction.scales import scale as read_scale
from extractlib.errors import check_choice

UNMEASURED = {"B2": "says so (section 6), but does not measure it"}
"""What the paper says about a claim for which it has no figure."""

NO_ROWS = "The rows of the deciding seeds have not been computed yet"

REASONS = 2
"""How many bounds a card names as the reason for its verdict; the ledger has all."""


OPEN = 3
"""How many claims a chapter shows in full; of more, each shows its verdict and statement and folds the rest."""


def cards(*names: str, scale: str = "drawn") -> HTML:
    """Return claims as cards, narrow enough for a phone, and folded if there are more than `OPEN`.

    A claim whose deciding rows are missing is "not run yet", and its card shows what the exploration's rows have for
    its bounds, which decides nothing.

    Args:
        names: The claims' ids, such as ``"C3"``.
        scale: The scale's name.

    Raises:
        InputError: There is no such claim or scale.
    """
    known, settings = {claim.id: claim for claim in claims.claims()}, read_scale(scale)
    texts = []
    for claim in (known[check_choice("claim", name, known)] for name in names):
        ledger = Ledger.of_rows(rows_of("edition-2", claim, settings), settings, only=claim.id)
        seen = explored(rows_of("exploring", claim, settings), claim, settings)
        texts.append(card(claim, ledger, *seen, folded=len(names) > OPEN))
    return HTML(f'<div class="cards">{"".join(texts)}</div>')


def card(
    claim: claims.Claim,
    ledger: Ledger,
    explored: Sequence[Bound],
    failing: Sequence[Bound] = (),
    *,
    folded: bool = False,
) -> str:
    """Return a claim as a card in HTML.

    Args:
        claim: The claim.
        ledger: Verdicts, including the claim's.
        explored, failing: What to show if its deciding rows are missing (see `explored`).
        folded: Whether all but verdict and statement is folded.
    """
    entries, word = ledger.of(claim.id), ledger.word(claim)
    counted = [bound for entry in entries for bound in (*entry.bounds, *entry.preconditions)]
    seeds = sorted({len(bound.seeds) for bound in counted if bound.seeds})
    kind, sign = MARKS[word]
    lines = {"Paper": escape(claim.authors or UNMEASURED.get(claim.id, "makes no such claim"))}
    if word is Verdict.NOT_RUN:
        said, of = "not run yet", {seed for bound in (*explored, *failing) for seed in bound.seeds}
        head = f"Explored, seed {', '.join(map(str, sorted(of)))}" if of else "Explored"
        told = [*map(_line, explored), *(f"not testable: {_line(one)}" for one in failing)]
        lines[head] = _list(told) if told else "nothing yet"
    else:
        said = f"{word} <small>{' to '.join(dict.fromkeys([str(seeds[0]), str(seeds[-1])]))} seeds</small>"
        told = [_line(bound, _word(bound, entry)) for entry in entries for bound in entry.bounds]
        lines["Ours"] = _list(told or map(_line, _unmet(entries)))
    there = {seed for bound in counted for seed in bound.seeds}
    lines["Why"] = escape(" ".join([_why(entries, word, len(there)), *remarks(ledger, claim.id)]))
    lines["Test"] = f"<details><summary>how it is judged</summary>{escape(claim.test)}</details>"
    listed = f"<dl>{''.join(f'<dt>{head}</dt><dd>{text}</dd>' for head, text in lines.items())}</dl>"
    if folded:
        # Not of the class "fold", which the PDF leaves closed.
        listed = f"<details><summary>{claim.id}: bounds and reasons</summary>{listed}</details>"
    # The ledger's page has no entries for photographs before their first deciding rows.
    page = ledger.scale.name if there else "drawn"
    link = f'<a href="12_ledger.html#{page}-{claim.id}">{claim.id}</a>'
    return (
        f'<section class="card {kind}"><p class="word"><span aria-hidden="true">{sign}</span> {said}</p>'
        f'<p class="statement">{link} {escape(claim.statement)}</p>{listed}</section>'
    )


def explored(rows: Sequence[Row], claim: claims.Claim, scale: Scale) -> tuple[list[Bound], list[Bound]]:
    """Return the bounds of a claim that have a value, task by task, as rows of the exploration have them.

    Returns:
        The bounds that can be tested, and the preconditions that fail; the latter's bounds are left out.
    """
    frame = results.frame(rows)
    # A bootstrap is for intervals over deciding seeds; if a cell is missing, it has nothing to draw from.
    frame = frame.loc[:, [column for column in frame if not str(column).startswith(claims.RESAMPLED)]]
    evidence = claims.Evidence(frame, _as_explored(frame, scale), sorted({row.cell.seed for row in rows}))

    def bounds(limits: Iterable[Limit], task: str) -> list[Bound]:
        entered = (limit for limit in limits if (paper.drawn(task) or task) in limit.tasks)
        return [bound for limit in entered for bound in evidence.bounds(limit, task) if bound.values]

    found, failing = [], []
    for task in (*scale.tasks, claims.ACROSS) if rows else ():
        # One seed has no interval, and so no mean.
        means = (replace(one, mean=_mean(one)) for one in bounds(claim.preconditions, task))
        failed = [one for one in means if not judging.fulfilled(one)]
        skipped = {one.stated.only for one in failed}
        found += bounds((limit for limit in claim.bounds if not skipped & {"", limit.name}), task)
        failing += failed
    return found, failing


def _as_explored(frame: pd.DataFrame, scale: Scale) -> Scale:
    """Return the scale with the number of steps that was explored, if another one was chosen since."""
    steps = frame.loc[frame["steps"] > 0, "steps"]
    if steps.empty or (steps == scale.surrogate.steps).any():
        return scale
    return replace(scale, surrogate=replace(scale.surrogate, steps=int(steps.mode()[0])))


def all_explored(scale: str = "drawn") -> dict[str, list[Bound]]:
    """Return each claim's testable bounds as rows of the exploration have them (see `explored`), by claim id."""
    settings = read_scale(scale)
    return {claim.id: explored(rows_of("exploring", claim, settings), claim, settings)[0] for claim in claims.claims()}


def rows_of(edition: str, claim: claims.Claim, scale: Scale) -> list[Row]:
    """Return an edition's rows of a claim's tables, if there are any."""
    paths = [results.FOLDER / edition / scale.name / f"{table}{results.SUFFIX}" for table in claim.tables]
    return [row for path in paths if path.exists() for row in results.read_rows(path)]


def _mean(bound: Bound) -> float:
    return float(np.mean(list(bound.values.values()))) if bound.values else np.nan


def _unmet(entries: Iterable[Entry]) -> list[Bound]:
    return [one for entry in entries for one in entry.preconditions if not judging.fulfilled(one)]


def _word(bound: Bound, entry: Entry) -> Verdict:
    """Return what a task's bound says by itself; for a task that is not judged, the task's verdict."""
    if entry.verdict in (Verdict.NOT_RUN, Verdict.NOT_TESTABLE):
        return entry.verdict
    # A violation that does not survive the correction leaves its task undecided.
    failing = Verdict.UNDECIDED if entry.verdict is Verdict.UNDECIDED else Verdict.DOES_NOT_HOLD
    return {True: Verdict.HOLDS, False: failing, None: Verdict.UNDECIDED}[bound.holds]


def _line(bound: Bound, verdict: Verdict | None = None) -> str:
    low, high = bound.interval
    interval = "" if np.isnan(low) else f" <small>{_number(low)} to {_number(high)}</small>"
    mark = f'<span title="{verdict}">{MARKS[verdict][1]}</span> ' if verdict else ""
    mean = _mean(bound) if np.isnan(bound.mean) else bound.mean
    return f"{mark}{escape(bound.statement)}: <b>{_number(mean)}</b>{interval}"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    # A count is whole, and above what a share or a recovery can be.
    return (f"{value:.0f}" if value == round(value) and abs(value) > 1 else f"{value:.3f}").replace("-", "−")


def _why(entries: list[Entry], word: Verdict, seeds: int) -> str:
    """Return why a claim has its verdict: the tasks that decide it, with their first reasons.

    Args:
        entries: The claim on each task.
        word: Its verdict as a whole.
        seeds: How many deciding seeds have rows of it.
    """
    if word is Verdict.NOT_RUN:
        several = "s" * (seeds > 1)
        there = f"There are rows from {seeds} deciding seed{several}, too few for a verdict" if seeds else NO_ROWS
        return f"{there}; what was explored decides nothing."
    deciding = [entry for entry in entries if entry.verdict is word] or entries
    if word is Verdict.HOLDS:
        on = [entry.task for entry in deciding if entry.task != claims.ACROSS]
        mean = " and in the mean over the tasks" * (len(on) < len(deciding))
        unmet = "; ".join(one.statement for one in _unmet(entries))
        untested = f" Not tested, because a precondition fails: {unmet}." if unmet else ""
        return f"All bounds hold on {', '.join(on)}{mean}.{untested}"
    reasons = [reason for entry in deciding for reason in entry.reason.split("; ")]
    more = f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
    return "; ".join(reasons[:REASONS]) + more + "."
