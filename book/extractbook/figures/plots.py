"""Plots that several chapters share."""

from collections.abc import Mapping, Sequence

import pandas as pd

from extractbook.figures.base import BLACK, Plot, name_rows, plotting, summaries
from extractbook.figures.origin import seeds


def lines(
    series: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] = (0, 1.05),
    logarithmic: bool = False,
) -> Plot:
    """Return a plot with a line for each series: mean ± standard deviation of the values at each place.

    Args:
        series: By name, the values (one per seed) at each place on the horizontal axis.
        xlabel, ylabel: What the axes show, with units.
        limits: Limits of the vertical axis.
        logarithmic: Whether the horizontal axis is logarithmic.
    """
    marks = [(name, x, places[x]) for name, places in series.items() for x in sorted(places)]
    data = summaries(marks, xlabel, ylabel)
    columns = 3 if max(map(len, series)) < 16 else 2
    with plotting(data, height=4.6, xlabel=xlabel, ylabel=ylabel, columns=columns) as (figure, axes):
        axes.set_xscale("log" if logarithmic else "linear")
        for name, line in data.groupby("Series", sort=False):
            axes.errorbar(line[xlabel], line[ylabel], line["±"], label=name)
        ticks = sorted(set(data[xlabel]))
        axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
        axes.minorticks_off()
        axes.set_ylim(*limits)
    return figure


def grouped(rows: pd.DataFrame, by: str, names: Mapping[str, str], column: str = "recovery") -> dict[str, dict]:
    """Return a column's values by task and by the words in another column, renamed and ordered by `names`.

    Args:
        rows: Rows from `book.frame`.
        by: The other column.
        names: The words to keep, each with its new name.
        column: The column with the values.
    """
    known = rows[rows[by].isin(list(names))]
    parts = {(task, word): part[column].tolist() for (task, word), part in known.groupby(["task", by])}
    return {
        task: {name: parts[task, word] for word, name in names.items() if (task, word) in parts}
        for task in sorted(set(known["task"]))
    }


def of_seeds(rows: pd.DataFrame) -> str:
    """Return, for a caption, how many seeds these rows of `book.frame` cover and on which images they were measured."""
    return f"{seeds(rows)}, {' and '.join(rows.attrs['parts'])} images"


def constant_recovery(rows: pd.DataFrame) -> dict[str, float]:
    """Return the recovery of the constant predictor by task, from rows of `book.frame`."""
    return (rows["constant_accuracy"] / rows["victim_accuracy"]).groupby(rows["task"]).mean().to_dict()


def dots(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    xlabel: str,
    constant: Mapping[str, float] | None = None,
    limits: tuple[float, float] = (0, 1.05),
    columns: int = 0,
) -> Plot:
    """Return a plot with a row per group and a mark for each of its series: mean ± standard deviation of the values.

    Args:
        groups: By name of the group and name of the series, the values (one per seed); at most five series.
        xlabel: What the axis shows, with units.
        constant: By name of the group, the constant predictor's value, shown as a short bar across the row.
        limits: Limits of the axis.
        columns: Columns of the legend; as many as fit if 0.
    """
    titles, names = list(groups), list(dict.fromkeys(name for group in groups.values() for name in group))
    marks = [
        (name, title, groups[title][name]) for name in names for title in titles if len(groups[title].get(name, ()))
    ]
    data = summaries(marks, "Group", xlabel)
    bars = pd.DataFrame((constant or {}).items(), columns=["Group", xlabel]).assign(Series="constant predictor")
    step = 0.6 / len(names)
    columns = columns or (3 if max(map(len, [*names, *bars["Series"]])) < 16 else 2)
    limits = limits[0], max(limits[1], 1.04 * (data[xlabel] + data["±"].fillna(0)).max())
    height = 1.3 + 0.25 * (len(names) // columns) + (0.3 + 0.12 * len(names)) * len(titles)
    with plotting(pd.concat([data, bars]), height=height, xlabel=xlabel, columns=columns) as (figure, axes):
        for number, name in enumerate(names):
            line = data[data["Series"] == name]
            y = line["Group"].map(titles.index) + (number - (len(names) - 1) / 2) * step
            axes.errorbar(line[xlabel], y, xerr=line["±"], label=name, linestyle="none", capsize=0, markersize=8)
        if len(bars):
            y = bars["Group"].map(titles.index)
            axes.errorbar(bars[xlabel], y, fmt="|", color=BLACK, markersize=16, capsize=0, label="constant predictor")
        name_rows(axes, titles)
        axes.set(xlim=limits, ylim=(len(titles) - 0.5, -0.5))
    return figure


def roc(
    curves: Mapping[str, Sequence[Sequence[float]]], *, points: Mapping[str, tuple[float, float]] | None = None
) -> Plot:
    """Return ROC curves: the share of queries that a detector catches against the share of benign images it refuses.

    Args:
        curves: By name, TPR and TNR as in the paper (benign images accepted, out-of-distribution queries caught), each
            in [0, 1] and of the same length, as in the rows of table ``detection`` under ``binary.pool.roc``.
        points: By name of a curve, TPR and TNR at the threshold in use, which gets a large mark.
    """
    refused, caught = "benign images refused (1 − TPR)", "queries caught (TNR)"
    lines = [(name, "curve", 1 - tpr, tnr) for name, curve in curves.items() for tpr, tnr in zip(*curve, strict=True)]
    lines += [(name, "threshold in use", 1 - tpr, tnr) for name, (tpr, tnr) in (points or {}).items()]
    data = pd.DataFrame(lines, columns=["Series", "point", refused, caught])
    with plotting(data, height=4.6, xlabel=refused, ylabel=caught, columns=2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#777777", marker="", linestyle=":", label="guessing")
        for name, line in data[data["point"] == "curve"].groupby("Series", sort=False):
            [drawn] = axes.plot(line[refused], line[caught], marker="", label=name, linewidth=2)
            at = data[(data["point"] != "curve") & (data["Series"] == name)]
            axes.plot(at[refused], at[caught], "D", color=drawn.get_color(), markersize=9, markeredgecolor=BLACK)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return figure
