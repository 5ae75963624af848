"""Shared by all figures: width, style, colors, and the class of plots.

Figures are drawn on a white card, so that they are readable in light and dark mode, in colors that color-blind readers
can distinguish (Okabe and Ito, Color Universal Design, 2008), with text that stays legible on a phone, 360 px wide.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from extractlib.metrics import summary

WIDTH = 6.0
"""Width of a figure, in inches."""

STYLE = Path(__file__).with_name("book.mplstyle")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"


class Plot(Figure):
    """A figure of the book's width that holds the data it shows.

    Attributes:
        data: One line per mark, with the columns of the table below the figure.
    """

    def __init__(self, data: pd.DataFrame, *, height: float):
        super().__init__(figsize=(WIDTH, height), layout="constrained")
        self.data = data


def render(figure: Figure, *, kind: str = "svg") -> bytes:
    """Return a figure as the bytes of an SVG or PNG file; equal figures, newly created, give equal bytes."""
    buffer = io.BytesIO()
    with style.context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date" if kind == "svg" else "Software": None})
    return buffer.getvalue()


@contextmanager
def plotting(
    data: pd.DataFrame, *, height: float, xlabel: str, ylabel: str = "", columns: int = 3
) -> Iterator[tuple[Plot, Axes]]:
    """Yield a new plot of `data` and its axes, which get their labels and legend afterward."""
    with style.context(STYLE):
        figure = Plot(data, height=height)
        axes = figure.subplots()
        yield figure, axes
        axes.set(xlabel=xlabel, ylabel=ylabel)
        _add_legend(figure, columns)


def _add_legend(figure: Figure, columns: int) -> None:
    """Add a legend above the axes, with as many columns as fit and at most `columns`."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for count in range(columns, 0, -1):
        legend = figure.legend(loc="outside upper center", ncols=count)
        if count == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot, the first on top; a name with several parts gets two lines."""
    axes.set_yticks(range(len(names)), [re.sub(r"(?<=[,;:]) | (?=\()", "\n", name, count=1) for name in names])
    axes.invert_yaxis()


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, such as ``"−0.02"``; what is rounded to zero is ``"+0.00"``."""
    return f"{round(float(value), digits) + 0.0:+.{digits}f}".replace("-", "−")


def summaries(marks: Iterable[tuple[str, object, Sequence[float]]], place: str, value: str) -> pd.DataFrame:
    """Return the series, place, mean and standard deviation of each mark; a single value has no standard deviation.

    Args:
        marks: Series, place and values (one per seed) of each mark.
        place, value: The headings of these columns.
    """
    lines = [(*mark, *(summary(values) if len(values) > 1 else (values[0], np.nan))) for *mark, values in marks]
    return pd.DataFrame(lines, columns=["Series", place, value, "±"])
