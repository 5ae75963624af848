"""What chapter 6, Granularity, shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLACK, BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot
from extractbook.figures.plots import constant_recovery, dots, grouped
from extractlib.api.granularity import Answers

ANSWERS = {"full": "full", "rounded-1": "one decimal", "top-5": "top-5", "top-2": "top-2", "label": "label"}
"""The granularities that decide a claim, from more to less, and what the figures call them."""

FILLS = {"even": "evenly", "renormalized": "renormalized"}


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one line a granularity, task and seed: the fill that agrees better with the API on held-out queries."""
    ordered = rows.sort_values(["held_out_agreement", "fill"], ascending=[True, False], kind="stable")
    kept = ordered.drop_duplicates(["task", "seed", "granularity"], keep="last").sort_index()
    return kept[kept["granularity"].isin(ANSWERS)]


def recoveries(rows: pd.DataFrame) -> Plot:
    """Return recovery by granularity, a row a task.

    Args:
        rows: Of the tables reproduction and granularity.
    """
    kept = filled(rows)
    return dots(grouped(kept, "granularity", ANSWERS), xlabel="recovery", constant=constant_recovery(kept))


def fills(rows: pd.DataFrame, granularity: str = "top-2") -> Plot:
    """Return the recovery that each way to fill in truncated answers brings, a row a task."""
    kept = rows[rows["granularity"] == granularity]
    return dots(
        grouped(kept, "fill", FILLS), xlabel=f"recovery, {granularity} answers", constant=constant_recovery(kept)
    )


def repeated(rows: pd.DataFrame, control: pd.DataFrame) -> Plot:
    """Return which share of the victim's errors copies repeat, and the independent control, a row a task.

    Args:
        rows: Of the tables reproduction and granularity.
        control: Of the table control.
    """
    names = {"full": "copy, full answers", "top-2": "copy, top-2", "label": "copy, labels", "control": "control"}
    both = pd.concat([filled(rows), control.assign(granularity="control")])
    return dots(grouped(both, "granularity", names, "errors_repeated"), xlabel="share of the victim's errors repeated")


def drops(rows: pd.DataFrame, granularity: str = "label") -> pd.Series:
    """Return by task how much recovery a granularity costs against full answers, seed by seed, in the mean; falling."""
    table = filled(rows).pivot_table(index=["task", "seed"], columns="granularity", values="recovery")
    return (table["full"] - table[granularity]).groupby("task").mean().sort_values(ascending=False)


def shown(images: torch.Tensor, answers: Mapping[str, Answers], classes: Sequence[str], *, most: int = 5) -> Figure:
    """Return queries, a row each, with what answers of several granularities show of them.

    Args:
        images: uint8 of shape (n, 3, height, width).
        answers: The n answers by what the granularity is called.
        classes: Name of each class.
        most: Classes that an answer is written out for.
    """
    with style.context([STYLE, {"font.size": 9, "axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, 1.25 * len(images) + 0.3), layout="constrained")
        all_axes = figure.subplots(
            len(images), 1 + len(answers), squeeze=False, width_ratios=[1, *[1.25] * len(answers)]
        )
        for row, axes_row in enumerate(all_axes):
            axes_row[0].imshow(images[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            for axes, (name, answer) in zip(axes_row[1:], answers.items(), strict=True):
                axes.text(
                    0, 1, "\n".join(_lines(answer[row : row + 1], classes, most)), va="top", transform=axes.transAxes
                )
                axes.set_title(name if row == 0 else "", loc="left")
            for axes in axes_row:
                axes.set_axis_off()
    return figure


def _lines(answer: Answers, classes: Sequence[str], most: int) -> list[str]:
    """Return an answer's most probable classes with what is shown of each."""
    if answer.probabilities is None:
        return [classes[int(answer.labels)]]
    values, order = answer.probabilities[0].sort(descending=True, stable=True)
    names = order if answer.classes is None else answer.classes[0, order]
    pairs = [(classes[int(name)], float(value)) for name, value in zip(names, values, strict=True) if value >= 0.005]
    return [f"{value:.2f} {name}" for name, value in pairs[:most]] + (["…"] if len(pairs) > most else [])


def borders(
    victim: Callable[[torch.Tensor], torch.Tensor],
    copies: Mapping[str, Sequence[tuple[str, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]]],
    *,
    extent: float = 2.0,
) -> Figure:
    """Return the regions that copies of a victim in the plane give each class, and the victim's borders in black.

    Args:
        victim: Returns logits, float of shape (n, 3), of points of shape (n, 2).
        copies: By name of the row, for each panel its title, the points that were asked about, and the copy.
        extent: The plane is shown from minus this to this on both axes.
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
                axes.set(title=title, xticks=(), yticks=())
    return figure


def _light(classes: np.ndarray) -> np.ndarray:
    """Return the light color of each class, float of shape (height, width, 3)."""
    colors = np.array([[int(code[place : place + 2], 16) for place in (1, 3, 5)] for code in (BLUE, ORANGE, VERMILION)])
    return 1 - 0.45 * (1 - colors[classes] / 255)
