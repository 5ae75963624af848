"""What the first edition's rows were shown by."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from extractbook.figures.base import Plot, name_rows, plotting, summaries
from extractbook.figures.notebook import mean_sd, table
from extractbook.figures.plots import bars, lines
from extractbook.reproduction import paper
from extractbook.reproduction.cells import Row
from extractbook.reproduction.edition_1 import Entry
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.ledger import Evidence, reproduction

SITUATIONS: Mapping[str, Mapping] = MappingProxyType(
    tomllib.loads(Path(__file__).with_name("situations.toml").read_text(encoding="utf-8"))
)
"""What the front page's figure compares: changes to the reproduction's cell. A star marks half the budget."""


def reproduction_table(rows: Iterable[Row]) -> str:
    """Return our reproduction table beside the authors' and Orekondy's, as Markdown.

    Accuracies are in percent, mean ± standard deviation over the seeds; recovery is surrogate / victim, per seed. The
    constant column is the recovery of the best single class. What is to be known of the authors' row of a task stands
    below the table.
    """
    quantities = ("victim", "surrogate", "recovery")
    columns = ["Task", "Victim", "Surrogate", "Recovery", "Constant"]
    columns += [f"{whose} {quantity}" for whose in ("Authors'", "Orekondy's") for quantity in quantities]
    ours = {"victim_accuracy": (100, 1), "surrogate_accuracy": (100, 1), "recovery": (1, 3), "constant": (1, 2)}
    lines, notes = [], ""
    for task, results in _by_task(rows):
        values = [mean_sd(list(unit * results[key]), digits=digits) for key, (unit, digits) in ours.items()]
        authors = _authors(task)
        theirs = [authors.get(whose + quantity) for whose in ("", "orekondy_") for quantity in quantities]
        lines.append([_task_name(task), *values, *theirs])
        notes += f"\n\n{_task_name(task)}: {authors['note']}." if "note" in authors else ""
    return table(lines, columns, caption=f"Ours beside the paper's ({paper.LABEL})") + notes


def ledger_table(entries: Iterable[Entry], *, beside: Mapping[str, Iterable[Entry]] | None = None) -> str:
    """Return the ledger as Markdown, what does not hold first.

    Args:
        entries: The claims with their verdicts.
        beside: By the name of another scale its entries, whose verdicts get a column of their own.
    """
    others = {scale: {entry.claim.id: entry for entry in there} for scale, there in (beside or {}).items()}
    first = (Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED, Verdict.NOT_TESTABLE, Verdict.HOLDS, Verdict.NOT_RUN)
    lines = []
    for entry in sorted(entries, key=lambda entry: first.index(entry.verdict)):
        claim, elsewhere = entry.claim, [_elsewhere(there.get(entry.claim.id)) for there in others.values()]
        lines.append([claim.id, claim.statement, claim.authors, claim.test, entry.verdict, entry.reason, *elsewhere])
    columns = ["Claim", "Statement", f"Figures ({paper.LABEL})", "Test", "Verdict", "Why"]
    return table(lines, [*columns, *(f"In {scale}" for scale in others)], words=True)


def _elsewhere(entry: Entry | None) -> str:
    """Return a verdict at another scale with the number of seeds behind its bounds, the fewest where they differ."""
    if entry is None or entry.verdict is Verdict.NOT_RUN:
        return str(Verdict.NOT_RUN)
    seeds = min((len(bound.values) for bound in entry.bounds), default=0)
    return f"{entry.verdict} ({seeds} seeds)" if seeds else str(entry.verdict)


def reproduction_bars(rows: Iterable[Row]) -> Plot:
    """Return the recovery of each task as `bars`, ours beside the authors' and Orekondy's.

    The mark on each of ours is what a constant predictor, of the best single class, would recover.
    """
    groups, constant = {}, {}
    for task, results in _by_task(rows):
        name, authors = _task_name(task), _authors(task)
        theirs = {"the authors": authors.get("recovery"), "Orekondy et al.": authors.get("orekondy_recovery")}
        groups[name] = {"ours": list(results["recovery"])}
        groups[name] |= {who: [value] for who, value in theirs.items() if value is not None}
        constant[name] = {"ours": results["constant"].mean()}
    xlabel = "recovery: surrogate's / victim's accuracy"
    return bars(groups, xlabel=xlabel, marks=constant, marked="constant predictor")


def budget_curve(rows: Iterable[Row]) -> Plot:
    """Return recovery over the number of queries: a line a task, mean ± standard deviation over the seeds."""
    series: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        series.setdefault(row.cell.task, {}).setdefault(row.cell.budget, []).append(row.result["recovery"])
    return lines(series, xlabel="queries", ylabel="recovery", logarithmic=True)


def threat_or_boogeyman(evidence: Evidence) -> Plot:
    """Return recovery of every attack under every API and defense: a row each, a mark a task.

    A mark is at the mean over the seeds, and its whisker is as long as their standard deviation on either side.
    The columns of its data are Series (the task), Situation, recovery (the mean) and ±.
    """
    marks = []
    for name, changes in SITUATIONS.items():
        for task in evidence.tasks:
            cell = {key: value.format(task=task) if key == "pool" else value for key, value in changes.items()}
            values = list(evidence.values(task, **cell).values())
            marks += [(task, name, values)] if values else []
    data = summaries(marks, "Situation", "recovery")
    situations = list(data["Situation"].unique())
    with plotting(data, height=1.3 + 0.5 * len(situations), xlabel="recovery") as (figure, axes):
        for number, (task, line) in enumerate(data.groupby("Series", sort=False)):
            y = [situations.index(name) + (number - 2) * 0.12 for name in line["Situation"]]
            axes.errorbar(line["recovery"], y, xerr=line["±"], label=task, linestyle="none", capsize=0, markersize=7)
        name_rows(axes, situations)
        axes.set_xlim(0, 1.05)
    return figure


def _by_task(rows: Iterable[Row]) -> Iterable[tuple[str, pd.DataFrame]]:
    """Return the results of the reproduction's rows by task, with the recovery of a constant predictor."""
    results = pd.DataFrame([{"task": row.cell.task, **row.result} for row in reproduction(rows)])
    results["constant"] = results["constant_accuracy"] / results["victim_accuracy"]
    return results.groupby("task", sort=False)


def _authors(task: str) -> dict:
    return paper.tables()["reproduction"]["rows"].get(paper.victim(task), {})


def _task_name(task: str) -> str:
    victim = paper.victim(task)
    return f"{task} ({victim.removesuffix('-RN34')})" if victim else task
