"""Figures for chapter 5: recovery by task and budget, what answers are worth, repeated errors, a bandit's queries."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLUE, STYLE, WIDTH, Plot
from extractbook.figures.notebook import table
from extractbook.figures.origin import seed_count
from extractbook.figures.plots import dots, lines
from extractbook.reproduction import paper
from extractlib.attacks.adaptive import REWARDS

EVEN = 0.01
"""How far a control's mean accuracy on validation images may be from the copy's to count as equal."""


def recoveries(copies: pd.DataFrame, controls: pd.DataFrame, labels: Mapping[str, int]) -> Plot:
    """Return a plot of each task's recovery beside the authors', Orekondy's, the control's and a constant's.

    Args:
        copies: Rows of table ``reproduction``.
        controls: Rows of table ``control``.
        labels: By task, how many labeled images the control is trained on.
    """
    groups, constant = {}, {}
    for task in by_recovery(copies):
        rows, authors = copies[copies["task"] == task], _authors(task)
        theirs = {"authors": authors.get("recovery"), "Orekondy et al.": authors.get("orekondy_recovery")}
        name = _task_name(task, labels[task])
        groups[name] = {
            "copy": list(rows["recovery"]),
            "independent control": list(controls[controls["task"] == task]["recovery"]),
            **{name: [value] for name, value in theirs.items() if value},
        }
        constant[name] = (rows["constant_accuracy"] / rows["victim_accuracy"]).mean()
    return dots(groups, xlabel="recovery: surrogate's / victim's accuracy", constant=constant, columns=2)


def worth_table(
    copies: pd.DataFrame, controls: pd.DataFrame, labels: Mapping[str, int], *, label_price: float = 10
) -> str:
    """Return what an answer is worth in labels and in cents, as Markdown, a line per task.

    The control needs no answers, so the labels that make it as accurate as the copy are what the answers are worth.
    Where it is more accurate than the copy by over `EVEN`, they are worth at most that; where it is less, at least.

    Args:
        copies, controls, labels: As in `recoveries`.
        label_price: What a label costs, in cents.
    """
    ours, alone = (rows.groupby("task")["validation_accuracy"].mean() for rows in (copies, controls))
    body = []
    for task in by_recovery(copies):
        answers, above = int(copies.loc[copies["task"] == task, "budget"].iloc[0]), alone[task] - ours[task]
        bound = "" if abs(above) <= EVEN else "at most " if above > 0 else "at least "
        worth = labels[task] / answers
        cells = [f"{labels[task]:,}", f"{answers:,}", f"{bound}{worth:.2f}", f"{bound}{label_price * worth:.1f} cents"]
        body.append([task, *cells])
    heads = ["Task", "Control's labels", "Copy's answers", "Labels per answer", "Querying stops paying above"]
    said = (
        f"What an answer is worth if a label costs {label_price:g} cents; at most or at least: the control is over"
        f" {100 * EVEN:g} point more or less accurate than the copy on validation images ({seed_count(copies)})"
    )
    return table(body, heads, caption=said)


def solved_table(found: Mapping[tuple[str, int, str], float], *, images: int) -> str:
    """Return how often a last layer that was solved from answers agrees with the victim, as Markdown.

    Args:
        found: The agreement, by whose features, how many answers and the kind of images that were sent.
        images: On how many images it was measured.
    """
    places = list(dict.fromkeys((count, kind) for _, count, kind in found))
    body = [
        [whose, *(f"{found[whose, count, kind]:.2f}" for count, kind in places)]
        for whose in dict.fromkeys(whose for whose, _, _ in found)
    ]
    heads = ["Features", *(f"{count:,} answers to {kind}" for count, kind in places)]
    return table(body, heads, caption=f"Agreement with the victim on {images:,} test images; one seed, live")


def by_recovery(copies: pd.DataFrame) -> list[str]:
    """Return the tasks, best recovered first."""
    return list(copies.groupby("task")["recovery"].mean().sort_values(ascending=False).index)


def repeated(copies: pd.DataFrame, controls: pd.DataFrame) -> Plot:
    """Return a plot of the share of the victim's errors that copies and independent controls repeat, a row per task.

    Args:
        copies, controls: As in `recoveries`.
    """
    kinds = {"copy": copies, "independent control": controls}
    groups = {}
    for task in by_recovery(copies):
        errors = copies[copies["task"] == task]["errors"].mean()
        shares = {name: list(rows[rows["task"] == task]["errors_repeated"]) for name, rows in kinds.items()}
        groups[f"{task} ({errors:,.0f} errors)"] = shares
    return dots(groups, xlabel="share of the victim's errors repeated")


def agreement_words(copies: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return how often copies and independent controls agree with the victim, task by task, as a sentence."""
    pairs = pd.concat([rows.groupby("task")["agreement"].mean() for rows in (copies, controls)], axis=1, join="inner")
    told = ", ".join(f"{copy:.2f} against {control:.2f} (*{task}*)" for task, copy, control in pairs.itertuples())
    more = int((pairs.iloc[:, 0] > pairs.iloc[:, 1]).sum())
    return (
        f"The copies agree with their victims on more of the test images than the controls do on {more} of {len(pairs)}"
        f" tasks: {told}."
    )


def rewards(adaptive: pd.DataFrame, random: pd.DataFrame) -> Plot:
    """Return a plot of recovery with adaptive queries by reward, and with as many random ones, a row per task.

    Args:
        adaptive: Rows of table ``adaptive``, all with the same budget.
        random: Rows of random queries with that budget.
    """
    ran = [name for name in REWARDS if name in set(adaptive["reward"])]
    kinds = {"random": random} | {name: adaptive[adaptive["reward"] == name] for name in ran}
    groups = {
        task: {name: list(rows[rows["task"] == task]["recovery"]) for name, rows in kinds.items()}
        for task in by_recovery(random)
    }
    return dots(groups, xlabel="recovery")


def with_every_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the seeds that have every number of queries, so that each line joins the same victims.

    Args:
        rows: Rows of the tables ``reproduction`` and ``budget``, all with the same number of steps.
    """
    counts = rows.groupby(["task", "seed"])["budget"].transform("nunique")
    return rows[counts == rows["budget"].nunique()]


def budgets(rows: pd.DataFrame) -> Plot:
    """Return a plot of recovery by number of random queries, a line per task, all with the same number of steps.

    Args:
        rows: Rows of the tables ``reproduction`` and ``budget``, of the same seeds at each number of queries.
    """
    series: dict[str, dict[float, list[float]]] = {}
    for (task, budget), group in rows.groupby(["task", "budget"]):
        series.setdefault(task, {})[budget] = list(group["recovery"])
    return lines(series, xlabel="queries", ylabel="recovery", logarithmic=True)


def asked(labels: Mapping[str, torch.Tensor], classes: int) -> Figure:
    """Return a plot of the pool's class that each query belongs to, in order, a panel per strategy.

    Args:
        labels: The class of each query in order, by strategy, int64 of shape (n,).
        classes: Number of the pool's classes. They are ordered by how often the first strategy queried them.
    """
    order = np.argsort(-np.bincount(next(iter(labels.values())), minlength=classes), kind="stable")
    place = np.empty(classes, int)
    place[order] = np.arange(classes)
    with style.context([STYLE, {"font.size": 11}]):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        all_axes = figure.subplots(1, len(labels), sharey=True, squeeze=False)[0]
        for axes, (name, found) in zip(all_axes, labels.items(), strict=True):
            kinds = len(found.unique())
            axes.plot(place[found.numpy()], "s", color=BLUE, markersize=1.5)
            axes.set(title=f"{name}:\n{kinds} of {classes} classes", xlabel="query")
        all_axes[0].set_ylabel("class of the pool")
    return figure


def _authors(task: str) -> dict:
    return paper.tables()["reproduction"]["rows"].get(paper.victim(task), {})


def _task_name(task: str, labels: int) -> str:
    victim = paper.victim(task)
    original = f"; {victim.removesuffix('-RN34')}" if victim else ""
    return f"{task} ({labels:,} labels{original})"
