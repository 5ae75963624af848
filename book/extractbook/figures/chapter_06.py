"""Figures and sentences for chapter 6, Granularity."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from extractbook.figures.base import BLACK, BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot, signed
from extractbook.figures.notebook import mean_sd, table
from extractbook.figures.origin import seed_count
from extractbook.figures.plots import constant_recovery, dots, grouped
from extractbook.reproduction import paper
from extractlib.api.granularity import Answers, Granularity
from extractlib.metrics import agreement, hidden_and_divergence

ANSWERS = {"full": "full", "rounded-1": "one decimal", "top-5": "top-5", "top-2": "top-2", "label": "label"}
"""The granularities that decide a claim, from more to less, and what the figures call them."""

REPEATED = "share of the victim's errors repeated"

MOST, LETTERS = 4, 14
"""How many classes of an answer are written out, and how many letters of a name."""

FILLS = {"even": "evenly", "renormalized": "renormalized"}


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per granularity, task and seed: the fill that agrees better with the API on held-out queries."""
    ordered = rows.sort_values(["held_out_agreement", "fill"], ascending=[True, False], kind="stable")
    kept = ordered.drop_duplicates(["task", "seed", "granularity"], keep="last").sort_index()
    return kept[kept["granularity"].isin(ANSWERS)]


def recoveries(rows: pd.DataFrame) -> Plot:
    """Return a plot of recovery by granularity, a row per task.

    Args:
        rows: Rows of the tables reproduction and granularity.
    """
    kept = filled(rows)
    return dots(grouped(kept, "granularity", ANSWERS), xlabel="recovery", constant=constant_recovery(kept))


def fills(rows: pd.DataFrame, granularity: str = "top-2") -> Plot:
    """Return a plot of the recovery with each way to fill in truncated answers, a row per task."""
    kept = rows[rows["granularity"] == granularity]
    return dots(
        grouped(kept, "fill", FILLS), xlabel=f"recovery, {granularity} answers", constant=constant_recovery(kept)
    )


def repeated(rows: pd.DataFrame, control: pd.DataFrame) -> Plot:
    """Return a plot of the share of the victim's errors that copies and the control repeat, a row per task.

    Args:
        rows: Rows of the tables reproduction and granularity.
        control: Rows of the table control.
    """
    names = {"full": "copy, full answers", "top-2": "copy, top-2", "label": "copy, labels", "control": "control"}
    both = pd.concat([filled(rows), control.assign(granularity="control")])
    return dots(grouped(both, "granularity", names, "errors_repeated"), xlabel=REPEATED, columns=2)


def drops(rows: pd.DataFrame, granularity: str = "label") -> pd.Series:
    """Return the mean recovery that a granularity costs per task against full answers, seed by seed, largest first."""
    kept = filled(rows).pivot_table(index=["task", "seed"], columns="granularity", values="recovery")
    return (kept["full"] - kept[granularity]).dropna().groupby("task").mean().sort_values(ascending=False)


def drop_words(rows: pd.DataFrame) -> str:
    """Return on which tasks labels cost most and least, and what each granularity costs on average."""
    labels = drops(rows)
    costs = {name: drops(rows, word) for word, name in ANSWERS.items() if word != "full"}
    tasks = sorted(set.intersection(*(set(cost.index) for cost in costs.values())))
    return (
        f"Labels alone cost most on *{labels.index[0]}* ({labels.iloc[0]:.2f} of recovery) and least on"
        f" *{labels.index[-1]}* ({labels.iloc[-1]:.2f}).\nThe mean loss over the tasks that have all of"
        f" these answers ({', '.join(f'*{task}*' for task in tasks)}): "
        + ", ".join(f"{cost[tasks].mean():.3f} for {name}" for name, cost in costs.items())
        + "."
    )


def gains(rows: pd.DataFrame, granularity: str = "top-2") -> pd.Series:
    """Return per task how much more renormalized answers recover than evenly filled ones on average, largest first."""
    kept = rows[rows["granularity"] == granularity]
    both = kept.pivot_table(index=["task", "seed"], columns="fill", values="recovery")
    return (both["renormalized"] - both["even"]).groupby("task").mean().sort_values(ascending=False)


def gain_words(rows: pd.DataFrame) -> str:
    """Return how much renormalizing changes, task by task, and how often it is the better fill."""
    found = gains(rows)
    listed = _signed(found, 2)
    better = f"{(found > 0).sum()} of {len(found)} tasks"
    return (
        f"Compared with evenly filled answers, renormalized ones change recovery by {listed}: they recover more on"
        f" {better}."
    )


def rule_words(rows: pd.DataFrame, granularity: str = "top-2") -> str:
    """Return where the rule of `filled` does not choose the fill that recovers more, and what that costs."""
    cells = ["task", "seed"]
    kept = filled(rows)
    taken = kept[kept["granularity"] == granularity].set_index(cells)["recovery"]
    lost = rows[rows["granularity"] == granularity].groupby(cells)["recovery"].max() - taken
    by_task, cost = lost.groupby("task").mean(), drops(rows, granularity).mean()
    wrong = (lost > 0).groupby("task").agg(["sum", "count"])
    failed = ", ".join(
        f"*{task}* in {wrong.loc[task, 'sum']} of {wrong.loc[task, 'count']} ({loss:.3f} of recovery lost on average)"
        for task, loss in by_task.items()
        if loss > 0
    )
    return (
        f"With this rule, the attacker chooses the fill that recovers more in {(lost == 0).sum()} of {len(lost)} runs;"
        f" it chooses the other on {failed or 'no task'}.\n"
        f"With the better fill each time, {granularity} answers would cost {cost - by_task.mean():.2f} of recovery, the"
        f" mean of {len(by_task)} tasks, instead of the {cost:.2f} in the main figure."
    )


def temperature_words(rows: pd.DataFrame, granularity: str = "temperature-4.0") -> str:
    """Return what targets that keep the API's temperature change, against full answers, or nothing without such rows.

    Args:
        rows: Rows of the tables reproduction and granularity.
    """
    soft = rows[rows["granularity"] == granularity]
    if soft.empty:
        return ""
    cell = ["task", "seed"]
    full = rows[rows["granularity"] == "full"].set_index(cell)["recovery"]
    gain = (soft.set_index(cell)["recovery"] - full).dropna().groupby("task").mean().sort_values(ascending=False)
    return (
        f"Training on answers at temperature {float(granularity.partition('-')[2]):g} as they are changes recovery,"
        f" compared with full answers, by {_signed(gain)} ({seed_count(soft)})."
    )


def _signed(values: pd.Series, digits: int = 3) -> str:
    """Return the values of tasks in a row, each with its sign."""
    return ", ".join(f"{signed(value, digits)} on *{task}*" for task, value in values.items())


def hidden_table(answers: Mapping[str, torch.Tensor]) -> str:
    """Return a table of what granularities hide of answers: hidden mass and divergence on what is shown, in nats.

    Args:
        answers: Full answers, float of shape (n, classes), by the name of the images.
    """
    lines = []
    for word in ("rounded-2", "rounded-1", "top-5", "top-2", "label"):
        line = [ANSWERS.get(word, "two decimals")]
        for full in answers.values():
            kind = Granularity.parse(word)
            told = kind.show(full).targets(full.shape[1], fill="renormalized")
            mass, divergence = (part.mean().item() for part in hidden_and_divergence(full, told))
            line += [f"{mass:.3f}", f"{divergence:.4f}"]
        lines.append(line)
    columns = ["Answer", *(f"{what}, {name}" for name in answers for what in ("Hidden mass", "Divergence"))]
    counts = ", ".join(f"{len(full):,} images of {name}" for name, full in answers.items())
    return table(lines, columns, caption=f"What an answer hides, mean over {counts}")


def agreements(
    victim: Callable[[torch.Tensor], torch.Tensor],
    copies: Callable[[int, int], Sequence[Any]],
    budgets: Sequence[int],
    *,
    seeds: int,
    within: float,
) -> list[list[str]]:
    """Return how often copies of a victim in the plane agree with it on 5,000 points, as the rows of a table.

    The points are uniform in a circle around the origin.

    Args:
        victim: Returns logits of points of shape (n, 2).
        copies: Given a number of queries and a seed, returns the points and the copies from full answers and labels.
        budgets: The numbers of queries, one column each.
        seeds: Number of seeds.
        within: The radius of the circle.
    """
    points = within * (2 * torch.rand(10_000, 2, generator=torch.Generator().manual_seed(99)) - 1)
    points = points[points.norm(dim=1) < within][:5_000]
    truth: torch.Tensor = victim(points).argmax(1)
    found: dict = {}
    for budget in budgets:
        for seed in range(seeds):
            for name, copy in zip(("full answers", "labels"), copies(budget, seed)[1:], strict=True):
                found.setdefault((name, budget), []).append(agreement(copy(points).argmax(1), truth))
    return [
        [name, *(mean_sd(found[name, budget], digits=3) for budget in budgets)] for name in ("full answers", "labels")
    ]


def repeated_words(rows: pd.DataFrame, control: pd.DataFrame) -> str:
    """Return on how many tasks copies from labels repeat fewer errors than other copies, and more than the control."""
    kept = filled(rows).pivot_table(index=["task", "seed"], columns="granularity", values="errors_repeated")
    kept["control"] = control.set_index(["task", "seed"])["errors_repeated"]
    means = kept.groupby("task").mean()
    recovered = filled(rows).groupby(["task", "granularity"])["recovery"].mean().unstack()
    less, more = (means["label"] < means["full"]).sum(), (means["label"] > means["control"]).sum()
    ahead = (control.groupby("task")["recovery"].mean() - recovered["full"]).dropna().sort_values(ascending=False)
    return (
        f"Copies from labels repeat fewer of the victim's errors than copies from full answers do on {less} of"
        f" {len(means)} tasks, and more than the independent control does on {more} of {len(means)}.\nOn average, the"
        f" control recovers {control['recovery'].mean():.2f}, copies from full answers"
        f" {recovered['full'].mean():.2f}, and copies from labels {recovered['label'].mean():.2f}.\nThe control's"
        f" recovery minus that of copies from full answers is {_signed(ahead)}."
    )


def label_words(rows: pd.DataFrame) -> str:
    """Return where labels cost most and where that differs most from the paper, regardless of the verdict."""
    labels = drops(rows)
    first = list(labels.index[:2])
    same = "as in the paper" if set(first) == {"birds", "things"} else "which is not the paper's pattern"
    theirs = pd.Series({task: _authors_drop(str(task)) for task in labels.index})
    far = (labels - theirs).abs().sort_values(ascending=False).index[:2]
    apart = " and ".join(f"*{task}* ({labels[task]:.2f} here, {theirs[task]:.2f} there)" for task in far)
    return (
        f"Labels cost most on *{first[0]}* and *{first[1]}*, {same}; the paper's figures are largest for the twins of"
        f" *birds* and *things*.\nThe largest differences from the paper are those on {apart}."
    )


def between_words(rows: pd.DataFrame) -> str:
    """Return on how many tasks answers of two classes cost less than labels do."""
    between = pd.DataFrame({word: drops(rows, word) for word in ("top-2", "label")})
    ordered = (between["top-2"] < between["label"]).sum()
    return f"Two classes cost less than labels do on {ordered} of {len(between)} tasks."


def _authors_drop(task: str) -> float:
    """Return how much recovery labels cost against full answers in the authors' tables."""
    full, label = (paper.tables()[table]["rows"][paper.victim(task)] for table in ("reproduction", "granularity"))
    return float(full["recovery"] - label["recovery"])


def shown(images: torch.Tensor, answers: Mapping[str, Answers], classes: Sequence[str]) -> Figure:
    """Return a picture of queries, one row each, with what answers at several granularities show of them.

    Args:
        images: uint8 of shape (n, 3, height, width).
        answers: The n answers, by the name of the granularity; at most three granularities.
        classes: Name of each class.
    """
    height, step = 0.35 + 1.15 * len(images), (WIDTH - 1) / len(answers)
    with style.context([STYLE, {"font.size": 11, "axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, height))
        for column, name in enumerate(answers):
            figure.text((1.05 + column * step) / WIDTH, 1 - 0.2 / height, name, weight="bold")
        for row, image in enumerate(images):
            bottom = height - 0.35 - 1.15 * (row + 1)
            axes = figure.add_axes((0.05 / WIDTH, (bottom + 0.15) / height, 0.9 / WIDTH, 0.9 / height))
            axes.set_axis_off()
            axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            for column, answer in enumerate(answers.values()):
                text = "\n".join(_lines(answer[row : row + 1], classes))
                figure.text((1.05 + column * step) / WIDTH, (bottom + 1.05) / height, text, va="top")
    return figure


def _lines(answer: Answers, classes: Sequence[str]) -> list[str]:
    """Return an answer's most probable classes as shown; long names are cut in the middle, long lists at the end."""
    half = LETTERS // 2
    names = [name if len(name) <= LETTERS else f"{name[: half - 1]}…{name[-half:]}" for name in classes]
    if answer.probabilities is None:
        return [names[int(answer.labels)]]
    values, order = answer.probabilities[0].sort(descending=True, stable=True)
    places = order if answer.classes is None else answer.classes[0, order]
    pairs = [(names[int(place)], float(value)) for place, value in zip(places, values, strict=True) if value >= 0.005]
    return [f"{value:.2f} {name}" for name, value in pairs[:MOST]] + (["…"] if len(pairs) > MOST else [])


def borders(
    victim: Callable[[torch.Tensor], torch.Tensor],
    copies: Mapping[str, Sequence[tuple[str, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]]],
    *,
    extent: float = 2.0,
    circle: float = 0.0,
) -> Figure:
    """Return a plot of the regions that copies of a victim in the plane give each class, with its borders in black.

    Args:
        victim: Returns logits, float of shape (n, 3), of points of shape (n, 2).
        copies: By the row's name, for each panel: its title, the points that were queried, and the copy.
        extent: The plane is shown from minus this to this on both axes.
        circle: The radius of a dashed circle around the origin, in which no point was queried; 0 for none.
    """
    side = torch.linspace(-extent, extent, 160)
    x, y = torch.meshgrid(side, side, indexing="xy")
    points = torch.stack([x.ravel(), y.ravel()], 1)

    def classes(model: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return model(points).argmax(1).view(x.shape).numpy()

    columns = max(map(len, copies.values()))
    look: dict[str, Any] = {"extent": 2 * (-extent, extent), "origin": "lower", "interpolation": "nearest"}
    with style.context([STYLE, {"font.size": 10, "axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, 2.25 * len(copies)), layout="constrained")
        all_axes = figure.subplots(len(copies), columns, squeeze=False, sharex=True, sharey=True)
        for (name, row), axes_row in zip(copies.items(), all_axes, strict=True):
            axes_row[0].set_ylabel(name)
            for axes, (title, asked, copy) in zip(axes_row, row, strict=True):
                axes.imshow(_light(classes(copy)), **look)
                for label in range(3):
                    axes.contour(x, y, classes(victim) == label, levels=[0.5], colors=BLACK, linewidths=1.2)
                axes.plot(*asked.T, ".", color=BLACK, markersize=5 if len(asked) < 50 else 2)
                if circle:
                    axes.add_patch(Circle((0, 0), circle, fill=False, color=BLACK, linestyle="--", linewidth=1.2))
                axes.set(title=title, xticks=(), yticks=())
    return figure


def _light(classes: np.ndarray) -> np.ndarray:
    """Return the light color of each class, float of shape (height, width, 3)."""
    colors = np.array([[int(code[place : place + 2], 16) for place in (1, 3, 5)] for code in (BLUE, ORANGE, VERMILION)])
    return 1 - 0.45 * (1 - colors[classes] / 255)
