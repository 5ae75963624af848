"""What chapter 12, The ledger, shows beside the ledger's own page."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import pandas as pd

from extractbook.figures.chapter_09 import TASKS
from extractbook.reproduction import claims, edition_1, judging, results
from extractbook.reproduction.judging import Bound, Quantity, Verdict
from extractbook.reproduction.ledger import Ledger
from extractbook.reproduction.results import first_edition

TESTED = "C1"
"""The claim that is judged by hand."""


def counted(ledger: Ledger) -> str:
    """Return how many of the paper's claims and of ours got which word, as a sentence."""
    parts = []
    for first, whose in (("C", "of the paper's claims"), ("B", "of ours")):
        words = Counter(ledger.word(claim) for claim in claims.claims() if claim.id.startswith(first))
        said = ", ".join(f"{words[word]} {word}" for word in Verdict if words[word])
        parts.append(f"{words.total()} {whose}: {said}")
    return "; ".join(parts) + "."


def numbers(frame: pd.DataFrame) -> tuple[dict[str, list[float]], int, str]:
    """Return recoveries by task, images behind each, and whose they are: the second edition's, or the first one's.

    Args:
        frame: The reproduction's, of `book.frame`.
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
        "the first edition, which decide nothing now",
    )


def bound(values: Sequence[float], images: int) -> Bound:
    """Return the first bound of `TESTED` as the package judges it on recoveries, one a seed."""
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


def mixed(ledger: Ledger) -> str:
    """Return which claims hold on some tasks and do not on others, as a sentence."""
    names = []
    for claim in claims.claims():
        found = {entry.verdict for entry in ledger.of(claim.id)}
        names += [claim.id] if {Verdict.HOLDS, Verdict.DOES_NOT_HOLD} <= found else []
    return f"Claims that hold on some tasks and not on others: {', '.join(names) or 'none so far'}."


def command() -> str:
    """Return the command that makes the rows of `TESTED`."""
    return next(claim for claim in claims.claims() if claim.id == TESTED).command("drawn")
