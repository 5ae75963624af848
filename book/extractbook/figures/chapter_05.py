"""What chapter 5 shows: recovery by task and budget, errors that copies repeat, what a bandit asks about."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot, name_rows, plotting, summaries
from extractbook.figures.first_edition import _authors, _task_name

LOOKS: Mapping[str, Mapping] = {
    "copy": {"color": BLUE, "marker": "o", "markersize": 9},
    "random": {"color": BLUE, "marker": "o", "markersize": 9},
    "independent control": {"color": VERMILION, "marker": "X", "markersize": 9},
    "authors": {"color": "black", "marker": "D", "markerfacecolor": "white", "markersize": 8},
    "Orekondy et al.": {"color": "black", "marker": "^", "markerfacecolor": "white", "markersize": 8},
    "constant predictor": {"color": "#666666", "marker": "|", "markersize": 14, "markeredgewidth": 3},
    "certainty": {"color": ORANGE, "marker": "s"},
    "diversity": {"color": VERMILION, "marker": "^"},
    "loss": {"color": "#009E73", "marker": "v"},
    "all": {"color": "#CC79A7", "marker": "D"},
}
"""How each series is marked: by color and shape."""


def recoveries(copies: pd.DataFrame, controls: pd.DataFrame) -> Plot:
    """Return the recovery of each task beside the authors', Orekondy's, the independent control's and a constant's.

    Args:
        copies: Rows of table ``reproduction``.
        controls: Rows of table ``control``.
    """
    marks = []
    for task in by_recovery(copies):
        rows = copies[copies["task"] == task]
        theirs = {"authors": "recovery", "Orekondy et al.": "orekondy_recovery"}
        shown = {
            "copy": rows["recovery"],
            "independent control": controls[controls["task"] == task]["recovery"],
            **{name: [value] for name, key in theirs.items() if (value := _authors(task).get(key))},
            "constant predictor": [(rows["constant_accuracy"] / rows["victim_accuracy"]).mean()],
        }
        marks += [(name, _task_name(task), list(values)) for name, values in shown.items() if len(values)]
    return _dots(summaries(marks, "Task", "recovery"), "recovery: surrogate's / victim's accuracy")


def by_recovery(copies: pd.DataFrame) -> list[str]:
    """Return the tasks, the best recovered first."""
    return list(copies.groupby("task")["recovery"].mean().sort_values(ascending=False).index)


def repeated(copies: pd.DataFrame, controls: pd.DataFrame) -> Plot:
    """Return which share of the victim's errors copies and independent controls repeat, a row a task.

    Args:
        copies, controls: As `recoveries`.
    """
    marks = []
    for task in by_recovery(copies):
        errors = copies[copies["task"] == task]["errors"].mean()
        for name, rows in (("copy", copies), ("independent control", controls)):
            values = list(rows[rows["task"] == task]["errors_repeated"])
            marks += [(name, f"{task} ({errors:,.0f} errors)", values)] if values else []
    return _dots(summaries(marks, "Task", "repeated"), "share of the victim's errors repeated")


def rewards(adaptive: pd.DataFrame, random: pd.DataFrame) -> Plot:
    """Return the recovery of adaptive queries by reward, beside that of as many random ones, a row a task.

    Args:
        adaptive: Rows of table ``adaptive``, of one budget.
        random: Rows of random queries of the same budget.
    """
    marks = []
    for task in by_recovery(random):
        marks.append(("random", task, list(random[random["task"] == task]["recovery"])))
        for reward in ("certainty", "diversity", "loss", "all"):
            values = list(adaptive[(adaptive["task"] == task) & (adaptive["reward"] == reward)]["recovery"])
            marks += [(reward, task, values)] if values else []
    return _dots(summaries(marks, "Task", "recovery"), "recovery")


def _dots(data: pd.DataFrame, xlabel: str) -> Plot:
    """Return a mark for each line of data, in the row of its task, with a whisker of ± where there is one."""
    tasks, series = list(data["Task"].unique()), list(data["Series"].unique())
    column = data.columns[2]
    with plotting(data, height=1.5 + 0.62 * len(tasks), xlabel=xlabel, columns=2) as (figure, axes):
        for place, name in enumerate(series):
            line = data[data["Series"] == name]
            y = [tasks.index(task) + (place - (len(series) - 1) / 2) * 0.13 for task in line["Task"]]
            axes.errorbar(line[column], y, xerr=line["±"].fillna(0), label=name, linestyle="none", **LOOKS[name])
        name_rows(axes, tasks)
        axes.set_xlim(0, 1.05)
    return figure


def budgets(rows: pd.DataFrame) -> Plot:
    """Return recovery over the number of random queries, a line a task, equally many steps of training everywhere.

    Args:
        rows: Rows of the tables ``reproduction`` and ``budget``.
    """
    places = [(task, budget, list(group["recovery"])) for (task, budget), group in rows.groupby(["task", "budget"])]
    data = summaries(places, "queries", "recovery")
    with plotting(data, height=4.2, xlabel="queries", ylabel="recovery") as (figure, axes):
        for name, line in data.groupby("Series", sort=False):
            axes.errorbar(line["queries"], line["recovery"], line["±"].fillna(0), label=name)
        ticks = sorted(set(data["queries"]))
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.05)
    return figure


def asked(labels: Mapping[str, torch.Tensor], classes: int) -> Figure:
    """Return which of the pool's classes each query was of, in the order of the queries, a panel a strategy.

    Args:
        labels: By strategy, class of each query in order, int64 of shape (n,).
        classes: Number of the pool's classes. They are ordered by how often the first strategy asked about them.
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
