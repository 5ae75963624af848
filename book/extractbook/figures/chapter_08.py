"""Figures and sentences of chapter 8, Diversity and classes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import style

from extractbook.figures.base import BLACK, BLUE, STYLE, WIDTH, Plot, signed
from extractbook.figures.origin import seed_count
from extractbook.figures.plots import constant_recovery, dots, grouped
from extractbook.reproduction import results
from extractlib.data.drawn import atlas

POOLS = {"atlas": "diverse pool", "retina": "images of retinas"}


def narrow(rows: pd.DataFrame) -> Plot:
    """Return recovery from the diverse pool and from the narrow one at the full budget, with one row for each task.

    Args:
        rows: Rows of the tables reproduction and diversity.
    """
    kept = rows[rows["budget"] == rows["budget"].max()]
    return dots(grouped(kept, "pool", POOLS), xlabel="recovery", constant=constant_recovery(kept), columns=2)


def narrow_words(rows: pd.DataFrame) -> str:
    """Return a sentence on what the narrow pool recovers on its own task and on the others."""
    kept = rows[(rows["budget"] == rows["budget"].max()) & (rows["pool"] == "retina")]
    means = kept.groupby("task")["recovery"].mean()
    others = means.drop("retina", errors="ignore").sort_values()
    listed = ", ".join(f"{value:.2f} on *{task}*" for task, value in others.items())
    whole = rows[(rows["budget"] == rows["budget"].max()) & (rows["pool"] == "atlas") & (rows["task"] == "retina")]
    return (
        f"Images of retinas recover {means['retina']:.2f} on *retina*, where the diverse pool recovers"
        f" {whole['recovery'].mean():.2f}; elsewhere, they recover {listed}."
    )


def cut_pools(rows: pd.DataFrame) -> dict[str, dict[int, list[float]]]:
    """Return recovery by task and number of the pool's classes, at one budget, from the whole pool and from cut ones.

    Args:
        rows: Rows of the tables budget and diversity.
    """
    cut = rows["pool"].str.fullmatch(r"atlas/\d+")
    alike = rows[rows["budget"].isin(set(rows.loc[cut, "budget"])) & (cut | (rows["pool"] == "atlas"))]
    alike = alike[alike["steps"] == rows["steps"].mode()[0]]
    counts = alike["pool"].str.extract(r"/(\d+)", expand=False).fillna(str(len(atlas.CLASSES))).astype(int)
    found: dict[str, dict[int, list[float]]] = {}
    for (task, count), part in alike.groupby(["task", counts]):
        found.setdefault(task, {})[count] = part["recovery"].tolist()
    return found


def fewer_words(rows: pd.DataFrame) -> str:
    """Return what a pool cut to 81 classes loses, seed by seed, or nothing if a task has no such rows.

    Args:
        rows: Rows of the tables budget and diversity.
    """
    whole = rows[(rows["pool"] == "atlas") & (rows["steps"] == rows["steps"].mode()[0])]
    pairs = rows[rows["pool"] == "atlas/81"].merge(whole, on=["task", "seed", "budget"], suffixes=("", "_whole"))
    if set(pairs["task"]) != set(rows["task"]):
        return ""
    lost = 1 - pairs["recovery"] / pairs["recovery_whole"]
    listed = ", ".join(
        f"{value:.0%} on *{task}*" for task, value in lost.groupby(pairs["task"]).mean().sort_values().items()
    ).replace("-", "−")
    return (
        f"In this edition's rows, 81 kinds instead of {len(atlas.CLASSES)} cost {listed}"
        f" ({pairs['budget'].iloc[0]:,} queries, {seed_count(pairs)}); its pool of nine kinds holds fewer"
        " images than that, so it was not run."
    )


def first_edition_cuts() -> dict[str, dict[int, list[float]]]:
    """Return what `cut_pools` returns for the first edition's rows, all with 1,000 queries and equally many steps."""
    rows = results.frame([row for table in ("budget", "diversity") for row in results.first_edition("drawn", table)])
    return cut_pools(rows.assign(steps=0))


def cut_words(found: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Return how much of the recovery is lost between all kinds and the fewest, task by task, from `cut_pools`."""
    lost = {task: 1 - np.mean(of[min(of)]) / np.mean(of[max(of)]) for task, of in found.items()}
    most = max(lost, key=lambda task: lost[task])
    fewest = min(min(of) for of in found.values())
    falling = sorted(lost.items(), key=lambda pair: pair[1])
    listed = ", ".join(f"*{task}* {value:.0%}" for task, value in falling if value >= 0)
    gained = "".join(f"; *{task}* gains {-value:.0%}" for task, value in falling if value < 0)
    return (
        f"With {fewest} kinds instead of {len(atlas.CLASSES)}, the recovery is lower by these shares:"
        f" {listed}{gained}. So *{most}* depended most on many kinds."
    )


def budget_words(rows: pd.DataFrame) -> str:
    """Return how much recovery the last three quarters of the budget add, at the most common number of steps.

    Args:
        rows: Rows of the tables budget and reproduction.
    """
    found = rows[rows["steps"] == rows["steps"].mode()[0]].pivot_table(
        index=["task", "seed"], columns="budget", values="recovery"
    )
    most = found.columns[-1]
    quarter = max((budget for budget in found.columns if budget <= most / 4), default=found.columns[0])
    gain = (found[most] - found[quarter]).dropna().groupby("task").mean().sort_values()
    listed = ", ".join(f"{signed(value)} on *{task}*" for task, value in gain.items())
    return f"From {quarter:,} to {most:,} queries, recovery changes by {listed}."


def scatter(
    points: Mapping[str, Sequence], *, xlabel: str, ylabel: str, named: bool = False, logarithmic: bool = False
) -> Plot:
    """Return a scatter plot.

    Args:
        points: Names of the points, and their values in two columns named like the axes.
        xlabel, ylabel: What the axes show, with units.
        named: Whether each point has its name beside it.
        logarithmic: Whether the horizontal axis is logarithmic, from 1.
    """
    data = pd.DataFrame(points)
    with style.context(STYLE):
        figure = Plot(data, height=4.4)
        axes = figure.subplots()
        axes.plot(data[xlabel], data[ylabel], "o", color=BLUE, markersize=8)
        for number, (name, x, y) in enumerate(data.itertuples(index=False) if named else ()):
            axes.annotate(name, (x, y), (6, -16 if number % 2 else 6), textcoords="offset points")
        axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.03, 1.05 * max(1e-9, data[ylabel].max())))
        if logarithmic:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=-0.2)
        else:
            axes.set_xlim(0, 1.25 * data[xlabel].max())
    return figure


def steps_grid(found: Mapping[tuple[int, int], float]) -> Plot:
    """Return recovery by queries and steps as a grid of colored squares.

    Args:
        found: The recovery, by number of queries and number of steps.
    """
    data = pd.DataFrame([(*place, value) for place, value in found.items()], columns=["queries", "steps", "recovery"])
    table = data.pivot_table(index="steps", columns="queries", values="recovery")
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Plot(data, height=1.2 + 0.9 * len(table))
        axes = figure.subplots()
        axes.imshow(table, vmin=0, vmax=1, cmap="Blues", origin="lower", aspect="auto")
        for (y, x), value in np.ndenumerate(table.to_numpy()):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else BLACK)
        axes.set_xticks(range(len(table.columns)), [f"{count:,}" for count in table.columns])
        axes.set_yticks(range(len(table)), [f"{count:,}" for count in table.index])
        axes.set(xlabel="queries", ylabel="steps")
    return figure


def difference(victim: Sequence[Sequence[int]], copy: Sequence[Sequence[int]], classes: Sequence[str]) -> Plot:
    """Return how a copy's confusion matrix differs from its victim's, each row in shares of a true class's images.

    Args:
        victim, copy: Counts of shape (classes, classes).
        classes: Name of each class; the figure's data list only the pairs whose share differs by a tenth or more.
    """
    first, second = (pd.DataFrame(counts, classes, classes) for counts in (victim, copy))
    apart = second.div(second.sum(axis=1), axis=0) - first.div(first.sum(axis=1), axis=0)
    label = "copy's share − victim's share"
    data = apart.stack()[lambda share: share.abs() >= 0.1].rename_axis(["true", "predicted"]).reset_index(name=label)
    with style.context([STYLE, {"font.size": 11, "axes.grid": False}]):
        figure = Plot(data, height=WIDTH * 0.8)
        axes = figure.subplots()
        image = axes.imshow(apart, vmin=-1, vmax=1, cmap="RdBu")
        axes.set(xlabel="predicted class", ylabel="true class", xticks=(), yticks=())
        figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return figure


def class_words(rows: pd.DataFrame) -> str:
    """Return how unevenly classes are recovered, task by task, from rows of the table classes."""
    texts = []
    for task, part in rows.groupby("task"):
        shares = []
        for _, row in part.iterrows():
            both = [np.array(row[f"{model}_confusion"]) for model in ("victim", "surrogate")]
            victim, copy = (matrix.diagonal() / matrix.sum(axis=1).clip(min=1) for matrix in both)
            shares.append((copy[victim > 0] / victim[victim > 0]).min())
        added = part["errors_introduced"].sum() / part["images"].sum()
        low, errors = np.mean(shares), f"the copy adds errors on {added:.1%} of the images"
        close = np.mean([_rank_correlation(row) for _, row in part.iterrows()])
        related = f"and the rank correlation of queries and accuracy is {close:.2f}".replace("-", "−")
        texts.append(f"on *{task}* the lowest recovery of a class is {low:.2f}, {errors}, {related}")
    return f"With 10,000 queries, {'; '.join(texts)}."


def _rank_correlation(row: pd.Series) -> float:
    """Return the rank correlation of the copy's accuracy on each class and the queries that the victim put into it."""
    copy = np.array(row["surrogate_confusion"])
    known = pd.Series(copy.diagonal() / copy.sum(axis=1).clip(min=1))
    return pd.Series(row["queries"]).corr(known, method="spearman")
