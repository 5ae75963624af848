"""Marks and images in rows, a name beside each."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import STYLE, WIDTH, Plot, name_rows, plotting, summaries


def dots(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    xlabel: str,
    limits: tuple[float, float] = (0, 1.05),
    columns: int = 3,
) -> Plot:
    """Return a row of marks for each group, a color and a shape each series, mean ± standard deviation of the values.

    Args:
        groups: By name of the row, by name of the series, the values, one a seed; a series may be missing.
        xlabel: What the axis shows, with units.
        limits: Of the axis.
        columns: Of the legend.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    marks = [(name, row, group[name]) for name in names for row, group in groups.items() if len(group.get(name, ()))]
    data, rows = summaries(marks, "Row", xlabel), list(groups)
    height = 0.8 + 0.28 * math.ceil(len(names) / columns) + 0.6 * len(rows)
    with plotting(data, height=height, xlabel=xlabel, columns=columns) as (figure, axes):
        for name, line in data.groupby("Series", sort=False):
            place = 0.6 * (names.index(name) + 0.5) / len(names) - 0.3
            y = [rows.index(row) + place for row in line["Row"]]
            axes.errorbar(line[xlabel], y, xerr=line["±"], label=name, linestyle="none", markersize=8, capsize=0)
        name_rows(axes, rows)
        axes.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5))
    return figure


def gallery(rows: Mapping[str, torch.Tensor], *, columns: int = 8) -> Figure:
    """Return rows of images, each row under its name; a row with fewer images than columns ends early.

    Args:
        rows: By name, uint8 of shape (n, channels, height, width), channels 1 or 3.
        columns: Images of a row, at most.
    """
    side, height = WIDTH / columns, len(rows) * (WIDTH / columns + 0.32)
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, height))
        for number, (name, images) in enumerate(rows.items()):
            top = height - number * (side + 0.32) - 0.3
            figure.text(0.005, (top + 0.05) / height, name)
            for place, image in enumerate(images[:columns]):
                box = (place / columns, (top - side) / height, 0.96 / columns, 0.96 * side / height)
                axes = figure.add_axes(box)
                axes.set_axis_off()
                axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    return figure
