"""The ledger's page: which claims hold, at a glance; behind each verdict, its bounds, its rows and how to make them.

All of it is HTML that needs no script: a claim's entry is a fold, and the table at the top is as wide as a phone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from html import escape
from types import MappingProxyType

import numpy as np
import pandas as pd
from matplotlib import style

from extractbook.figures.base import BLUE, ORANGE, STYLE, VERMILION, Plot
from extractbook.remarks import remarks
from extractbook.reproduction import editions, judging, paper, results
from extractbook.reproduction.cells import Cell
from extractbook.reproduction.claims import ACROSS, Claim, claims
from extractbook.reproduction.judging import Bound, Entry, Verdict
from extractbook.reproduction.ledger import Ledger

MARKS: Mapping[Verdict, tuple[str, str]] = MappingProxyType(
    {
        Verdict.HOLDS: ("holds", "✓"),
        Verdict.DOES_NOT_HOLD: ("fails", "✗"),
        Verdict.UNDECIDED: ("open", "?"),
        Verdict.NOT_TESTABLE: ("untestable", "∅"),
        Verdict.NOT_RUN: ("none", "·"),
    }
)
"""What a verdict looks like in the matrix: the class of its cell, and a sign for readers who cannot see colors."""

REDESIGNED = (("C9", "things"), ("C1", "retina"), *(("C2", task) for task in ("things", "birds", "signs", "objects")))
"""The claims and tasks for which images were redrawn after a look at a result."""

FARTHEST = 0.5
"""Distance from its limit beyond which the forest plot cuts off a bound's interval."""

FEWEST = 3
"""Lines of the forest plot that a claim's name needs."""

SIDES: Mapping[bool | None, tuple[str, str, str]] = MappingProxyType(
    {True: ("holds", BLUE, "o"), False: ("violated", VERMILION, "X"), None: ("open", ORANGE, "s")}
)
"""How a bound's outcome looks in the forest plot: its name, color and marker."""


# -- the first screen ------------------------------------------------------------


def matrix(ledger: Ledger, *, heading: str = "", explored: Mapping[str, Sequence[Bound]] = MappingProxyType({})) -> str:
    """Return a ledger's verdicts as a table with a line per claim: first the overall verdict, then a cell per task.

    A cell has a sign and the number of seeds behind it, and the claim's name links to its entry.

    Args:
        ledger: The verdicts at one scale.
        heading: Heading of the table; the scale's name if empty.
        explored: Each claim's bounds as the exploration has them, which decide nothing: a column says how many of them
            have their mean on the side on which they hold. No column if empty.
    """
    tasks = [*ledger.scale.tasks, ACROSS]
    columns = ["claim", "verdict", *(["explored"] if explored else []), *tasks]
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = []
    for claim in claims():
        found = {entry.task: entry for entry in ledger.of(claim.id)}
        word = ledger.word(claim)
        cells = "".join(_cell(found.get(task)) for task in tasks)
        name = f'<a href="#{_anchor(ledger, claim)}">{claim.id}</a>'
        lines.append(
            f'<tr><th scope="row" title="{escape(claim.statement)}">{name}</th>'
            f'<td class="word {MARKS[word][0]}">{word}</td>{_explored(explored, claim)}{cells}</tr>'
        )
    body = "".join(lines)
    caption = f"<caption>{escape(heading or ledger.scale.name)}</caption>"
    return f'<table class="ledger">{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _explored(explored: Mapping[str, Sequence[Bound]], claim: Claim) -> str:
    if not explored:
        return ""
    found = met(explored.get(claim.id, ()))
    return f"<td>{f'{sum(found)} of {len(found)}' if found else ''}</td>"


def met(bounds: Iterable[Bound]) -> list[bool]:
    """Return whether the mean of each bound is on the side on which it holds, whatever its interval.

    Bounds of hits have no word here: hits are judged together with a control's, which one seed cannot do.
    """
    means = [
        replace(bound, mean=float(np.mean(list(bound.values.values()))))
        for bound in bounds
        if bound.values and not bound.stated.counts
    ]
    return [judging.fulfilled(bound) for bound in means]


def legend() -> str:
    """Return what the signs of the matrix mean, as a line of HTML."""
    signs = (f'<span class="{kind}">{sign}</span> {verdict}' for verdict, (kind, sign) in MARKS.items())
    redesigned = "†: images were redrawn for this cell after a look at a result, as explained below"
    return f'<p class="ledger">{", ".join(signs)}; the number next to a sign: seeds; {redesigned}.</p>'


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return "<td></td>"
    kind, sign = MARKS[entry.verdict]
    seeds = f" <small>{len(entry.seeds)}</small>" if entry.seeds else ""
    seeds += "†" if (entry.claim, entry.task) in REDESIGNED else ""
    return f'<td class="{kind}" title="{entry.verdict}"><span aria-label="{entry.verdict}">{sign}</span>{seeds}</td>'


def _anchor(ledger: Ledger, claim: Claim) -> str:
    return f"{ledger.scale.name}-{claim.id}"


# -- a claim's entry ---------------------------------------------------------------


def entries(ledger: Ledger) -> str:
    """Return all claims of a ledger as folds with test, bounds by task, rows, and the command that makes them."""
    return "".join(entry(ledger, claim) for claim in claims())


def entry(ledger: Ledger, claim: Claim) -> str:
    """Return one claim as a fold in HTML."""
    found, name = ledger.of(claim.id), ledger.scale.name
    # Links to here name a paragraph inside the fold, so browsers open the fold.
    parts = [f'<p id="{_anchor(ledger, claim)}">Test: {escape(claim.test)}.</p>']
    parts += [f"<p>The authors: {escape(claim.authors)}.</p>"] if claim.authors else []
    if any(bound.authors is not None for one in found for bound in (*one.bounds, *one.preconditions, *one.shown)):
        parts += [f"<p>Note: {escape(note)}.</p>" for table in claim.tables for note in paper.notes(table)]
    columns = ("", "quantity", "mean", "97.5% interval", "seeds", "authors")
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    lines = "".join(_of_task(one) for one in found)
    parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>")
    parts += [f"<p>{escape(remark)}</p>" for remark in remarks(ledger, claim.id)]
    files = ", ".join(_link(ledger, table, "csv", f"<code>{table}</code>") for table in claim.tables)
    parts.append(
        f"<p>Rows: {_cells(ledger, found):,} of {files}; <code>{escape(claim.command(name))} --results FOLDER</code> "
        "makes those of the first look again.</p>"
    )
    summary = f"<b>{claim.id}</b> {escape(claim.statement)}: <b>{ledger.word(claim)}</b>"
    return f'<details class="fold claim"><summary>{summary}</summary>{"".join(parts)}</details>'


def _cells(ledger: Ledger, found: Sequence[Entry]) -> int:
    """Return the number of rows that entries rest on; a row in several tables counts once."""
    rows = ledger.frame.loc[sorted({row for one in found for row in one.rows})]
    return len(rows.drop_duplicates([one.name for one in fields(Cell) if one.name in rows]))


def _of_task(entry: Entry) -> str:
    looks = "" if entry.looks == 1 else ", second look"
    bare = not entry.bounds and not entry.preconditions
    why = f": {escape(entry.reason)}" if bare else ""
    head = f'<tr><th colspan="6">{escape(entry.task)}: {entry.verdict}{looks}{why}</th></tr>'
    kinds = {"bound": entry.bounds, "precondition": entry.preconditions, "shown": entry.shown}
    return head + "".join(_line(kind, bound) for kind, bounds in kinds.items() for bound in bounds if not bare)


def _line(kind: str, bound: Bound) -> str:
    word = kind
    if bound.missing:
        there, all_seeds = len(bound.seeds), len(bound.seeds) + len(bound.missing)
        word = f"{kind}: {f'{there} of {all_seeds} seeds' if there else 'not run'}"
    elif kind == "precondition":
        word = f"{kind}: {'met' if judging.fulfilled(bound) else 'not met'}"
    elif kind == "bound":
        word = {True: "holds", False: "violated", None: "open"}[bound.holds]
    low, high = map(_number, bound.interval)
    # A precondition is judged by its mean alone, and for whole numbers, such as yes or no per seed, t has no interval.
    whole = not bound.stated.counts and all(value == round(value) for value in bound.values.values())
    interval = "–" if kind == "precondition" or (whole and kind == "shown") else f"{low} to {high}"
    statement = bound.statement
    if len(bound.stated.counts) == 3:  # the statement is about a p value
        statement += f", of more than {_number(bound.limit)}, the control's upper end"
    values = [word, statement, _mean(bound), interval, len(bound.seeds)]
    values.append("–" if bound.authors is None else _number(bound.authors))
    return "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in values) + "</tr>"


def _mean(bound: Bound) -> str:
    """Return a bound's mean; a flag time of 0 means that most accounts are never flagged."""
    is_time = any(term.get("column") == "flag_time" for term in bound.stated.terms)
    return "most are never flagged" if is_time and bound.mean == 0 else _number(bound.mean)


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    whole = abs(value) >= 100 or (value == round(value) and abs(value) > 1)
    return (f"{value:,.0f}" if whole else f"{round(value, 3) + 0.0:.3f}").replace("-", "−")


# -- all bounds ---------------------------------------------------------------------


def forest(ledger: Ledger) -> Plot:
    """Return a forest plot: each bound's distance from its limit, with its interval; bounds right of 0 hold.

    A claim's bounds are grouped, task by task, in a band next to the claim's name. Bounds that are missing a seed of
    their look are left out: nothing can be said about them yet.
    """
    lines = [
        {"claim": entry.claim, "task": entry.task, "bound": bound.statement, "holds": bound.holds, **_distance(bound)}
        for entry in ledger.entries
        for bound in entry.bounds
        if not (bound.missing or np.isnan(bound.mean))
    ]
    data = pd.DataFrame(lines, columns=["claim", "task", "bound", "holds", "distance", "low", "high"])
    with style.context(STYLE):
        return _forest(data)


def unjudged(ledger: Ledger) -> str:
    """Return how many bounds with rows `forest` leaves out, as a sentence; empty if there are none."""
    count = sum(bool(bound.values and bound.missing) for entry in ledger.entries for bound in entry.bounds)
    have = "bound has" if count == 1 else "bounds have"
    return f"{count} {have} rows, but from too few seeds to be judged." if count else ""


def _forest(data: pd.DataFrame) -> Plot:
    sizes = data.groupby("claim", sort=False).size()
    bands = sizes.clip(lower=FEWEST).cumsum()
    plot = Plot(data, height=1.2 + 0.09 * int(bands.iloc[-1] if len(bands) else 0))
    axes = plot.subplots()
    starts = bands - sizes.clip(lower=FEWEST)
    places = [place for size, start in zip(sizes, starts, strict=True) for place in start + np.arange(size)]
    numbers = data[["low", "distance", "high"]].clip(-FARTHEST, FARTHEST)
    for holds, (name, color, marker) in SIDES.items():
        kept = [one is holds for one in data["holds"]]
        if any(kept):
            of, y = numbers[kept], np.array(places)[kept]
            axes.hlines(y, of["low"], of["high"], color=color, linewidth=1.2)
            axes.plot(of["distance"], y, marker, color=color, markersize=4, linestyle="none", label=name)
    for start, end in list(zip(starts, bands, strict=True))[1::2]:
        axes.axhspan(start - 0.5, end - 0.5, color="#000000", alpha=0.05, linewidth=0)
    axes.set_yticks((starts + bands - 1) / 2, sizes.index)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color="#777777", linewidth=0.8)
    axes.set(xlim=(-FARTHEST * 1.04, FARTHEST * 1.04), ylim=(bands.max() - 0.5, -0.5) if len(bands) else None)
    axes.set_xlabel("distance from the limit, on the bound's side to the right")
    if len(data):
        plot.legend(loc="outside upper center", ncols=len(SIDES))
    return plot


def _distance(bound: Bound) -> dict[str, float]:
    against_control = len(bound.stated.counts) == 3  # its sign is that of the p value
    right = 1 if bound.stated.sign in ("≥", ">") or against_control else -1
    low, high = sorted(right * (end - bound.limit) for end in bound.interval)
    return {"distance": right * (bound.mean - bound.limit), "low": low, "high": high}


# -- what is shown around it ----------------------------------------------------------------


def refused(ledger: Ledger) -> str:
    """Return how many rows do not count, and why, as a sentence of Markdown; empty if all do."""
    if not ledger.refused:
        return ""
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in ledger.refused.items())
    return f"Rows that do not count: {reasons}."


def downloads(ledger: Ledger) -> str:
    """Return links to the published rows of a ledger, a CSV and a Parquet file per table, and to their data card."""
    tables = dict.fromkeys(table for claim in claims() for table in claim.tables)
    files = ", ".join(
        f"{table} {_link(ledger, table, 'csv', 'CSV')} {_link(ledger, table, 'parquet', 'Parquet')}" for table in tables
    )
    return f'<p class="ledger">All rows (<a href="../data/README.md">data card</a>): {files}.</p>'


def _link(ledger: Ledger, table: str, kind: str, text: str) -> str:
    """Return a link to a table's published rows, or the text alone if none are committed yet."""
    place = f"edition-2/{ledger.scale.name}/{table}"
    there = (results.FOLDER / f"{place}{results.SUFFIX}").exists()
    return f'<a href="../data/{place}.{kind}">{text}</a>' if there else text


def expected(ledgers: Iterable[Ledger]) -> str:
    """Return how many entries were judged, and how many false ones to expect, as a sentence of Markdown."""
    cells, false = (sum(values) for values in zip(*(ledger.expected_false for ledger in ledgers), strict=True))
    if not cells:
        return "No entry has been judged yet."
    return (
        f"{cells} entries are judged; chance in the bounds alone is expected to make at most {false:.1f} of them wrong."
    )


def deviations(names: Sequence[str] = ("drawn", "photos")) -> str:
    """Return the freezes and the deviations from them as a table in HTML."""
    lines = []
    for name in names:
        frozen = editions.frozen(name)
        if frozen:
            lines.append((str(frozen["date"])[:10], name, "frozen", f"commit {frozen['commit'][:12]}"))
        lines += [(str(one["date"])[:10], name, one["what"], one["reason"]) for one in editions.deviations(name)]
    if not lines:
        return '<p class="ledger">Nothing is frozen yet.</p>'
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in line) + "</tr>" for line in lines)
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("date", "freeze", "what", "why"))
    return f'<table class="ledger words"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
