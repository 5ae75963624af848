"""What all figures share: width, style, colors, the class of a plot.

Figures are drawn on a white card, so that they read in light and dark, in colors that the color-blind can tell apart
(Okabe and Ito, Color Universal Design, 2008), with letters that stay legible where a phone shows them 360 px wide.
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
from matplotlib.figure import Figure

from extractlib.metrics import summary

WIDTH = 6.0
"""Of a figure, in inches."""

STYLE = Path(__file__).with_name("book.mplstyle")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"


class Plot(Figure):
    """A figure of the book's width that carries the data it shows.

    Attributes:
        data: A line for each mark; its columns are those of the table below the figure.
    """

    def __init__(self, data: pd.DataFrame, *, height: float):
        super().__init__(figsize=(WIDTH, height), layout="constrained")
        self.data = data


def render(figure: Figure, *, kind: str = "svg") -> bytes:
    """Return a figure as the bytes of an SVG or PNG file: equal figures, freshly made, give equal bytes."""
    buffer = io.BytesIO()
    with style.context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date" if kind == "svg" else "Software": None})
    return buffer.getvalue()


@contextmanager
def plotting(
    data: pd.DataFrame, *, height: float, xlabel: str, ylabel: str = "", columns: int = 3
) -> Iterator[tuple[Plot, Axes]]:
    """Yield a new plot of `data` and its axes, which get their labels and their legend afterward."""
    with style.context(STYLE):
        figure = Plot(data, height=height)
        axes = figure.subplots()
        yield figure, axes
        axes.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=columns)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot, the first on top; a name of several parts gets two lines."""
    axes.set_yticks(range(len(names)), [re.sub(r"(?<=[,;:]) | (?=\()", "\n", name, count=1) for name in names])
    axes.invert_yaxis()


def summaries(marks: Iterable[tuple[str, object, Sequence[float]]], place: str, value: str) -> pd.DataFrame:
    """Return of each mark its series, its place, and mean and standard deviation of its values, none of a single one.

    Args:
        marks: Series, place and values, one a seed, of each.
        place, value: The heads of these columns.
    """
    lines = [(*mark, *(summary(values) if len(values) > 1 else (values[0], np.nan))) for *mark, values in marks]
    return pd.DataFrame(lines, columns=["Series", place, value, "±"])
