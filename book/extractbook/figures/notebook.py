"""How a chapter shows things: figures with captions and alternative text, tables, sentences with measured numbers."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from extractbook.figures.base import render
from extractlib.errors import InputError
from extractlib.metrics import summary


def show(figure: Figure, *, name: str, caption: str, alt: str, data: pd.DataFrame | Mapping | None = None) -> None:
    """Display a figure in a notebook, with its caption and a folded table of its data below, and close it.

    A figure with data is a plot and shown as SVG; one without is a picture and shown as PNG.

    Args:
        figure: A figure from a function of this package, or any other Matplotlib figure.
        name: The name by which the text refers to it; unique in the book, for example ``"fig-reproduction"``.
        caption: What it shows, with units, the number of seeds and what the spread is. Markdown.
        alt: What a reader who cannot see it needs to know.
        data: The data it shows, one line per mark, as a data frame or as columns by name; None for a picture, and for
            a `Plot`, which has its own.

    Raises:
        InputError: A text is empty.
    """
    import matplotlib.pyplot
    from IPython.display import publish_display_data

    alt = alt.replace("*", "")  # it is read aloud, and the asterisks around a task's name would be read too
    texts = {"alt": alt, "caption": caption, "name": name}
    empty = [key for key, text in texts.items() if not text.strip()]
    if empty:
        raise InputError(f"figure {name!r} has no {' and no '.join(empty)}: describe it in words")
    data = getattr(figure, "data", None) if data is None else data
    mime, content = "image/png", base64.b64encode(render(figure, kind="png")).decode()
    if data is not None:
        mime, content = "image/svg+xml", render(figure).decode()
    matplotlib.pyplot.close(figure)
    # The book's build moves these texts to where the page's numbered figure reads them.
    publish_display_data({mime: content, "text/plain": alt}, metadata={mime: texts})
    publish_display_data({"text/markdown": caption, "text/plain": caption}, metadata={"extractlib": "caption"})
    if data is not None:
        values = {"text/html": data_table(pd.DataFrame(data)), "text/plain": ""}
        publish_display_data(values, metadata={"extractlib": "data"})


def data_table(data: pd.DataFrame) -> str:
    """Return a figure's data as a folded table in HTML; an empty column is left out."""
    with pd.option_context("display.max_colwidth", None):
        filled = data.dropna(axis=1, how="all")
        table = filled.to_html(index=False, border=0, na_rep="", float_format="{:,.4g}".format)
    return f'<details class="fold"><summary>Data of this figure</summary>{table}</details>'


HYPHEN = re.compile(r"(?<=[\s(])-(?=\d)")
"""A hyphen used as a minus sign: before a digit, after a space or an opening bracket."""


def say(text: str) -> None:
    """Display Markdown in a notebook, with true minus signs; this is how a chapter quotes a number that it measured."""
    from IPython.display import publish_display_data

    told = HYPHEN.sub("−", text)
    publish_display_data({"text/markdown": told, "text/plain": told})


def show_html(text: str) -> None:
    """Display HTML that needs no script in a notebook, such as the ledger's tables and folds."""
    from IPython.display import publish_display_data

    publish_display_data({"text/html": text, "text/plain": ""})


def table(rows: Iterable[Sequence], columns: Sequence[str], *, caption: str = "", words: bool = False) -> str:
    """Return a table as Markdown, with the first column aligned left and the others right.

    Args:
        rows: Lines with as many values as there are columns; None shows as a dash.
        columns: The headings.
        caption: A line above the table.
        words: Whether all columns hold words, not numbers, and are therefore aligned left.

    Raises:
        InputError: A line has a different number of values.
    """
    rows = [["–" if value is None else str(value).replace("|", "\\|") for value in row] for row in rows]
    for row in rows:
        if len(row) != len(columns):
            raise InputError(f"a table with {len(columns)} columns has a line with {len(row)} values: {row}")
    rule = [":---", *[":---" if words else "---:"] * (len(columns) - 1)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *rows])
    return f"**{caption}**\n\n{body}" if caption else body


def mean_sd(values: Sequence[float], *, digits: int) -> str:
    """Return ``"mean ± standard deviation"`` of the values, a single value as it is, or a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if len(values) else "–"
    mean, spread = summary(values)
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"
