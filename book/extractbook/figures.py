"""How the book shows things: figures with alternative text, tables, and sentences with measured numbers.

Figures are drawn on a white card, so that they read in light and dark, in colors that the color-blind can tell apart
(Okabe and Ito, Color Universal Design, 2008), with letters that stay legible where a phone shows them 360 px wide.
"""

import base64
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extractbook.reproduction import edition_1, paper
from extractbook.reproduction.cells import Row, commit, describe, libraries
from extractbook.reproduction.edition_1 import Entry
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.ledger import Evidence, Provenance, reproduction
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.metrics import summary
from extractlib.store import digest

WIDTH = 6.0
"""Of a figure, in inches."""

STYLE = Path(__file__).with_suffix(".mplstyle")

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

FILLS = ((BLUE, ""), (ORANGE, "//"), (GREEN, "\\\\"), (SKY, ".."), (VERMILION, "xx"), (PURPLE, "++"), (YELLOW, "oo"))
"""Color and hatch of the bars of a group."""

SITUATIONS: Mapping[str, Mapping] = MappingProxyType(
    tomllib.loads(Path(__file__).with_name("situations.toml").read_text(encoding="utf-8"))
)
"""What the front page's figure compares: changes to the reproduction's cell. A star marks half the budget."""


# -- in a notebook -----------------------------------------------------------


class Plot(Figure):
    """A figure of the book's width that carries the data it shows.

    Attributes:
        data: A line for each mark; its columns are those of the table below the figure.
    """

    def __init__(self, data: pd.DataFrame, *, height: float):
        super().__init__(figsize=(WIDTH, height), layout="constrained")
        self.data = data


def show(figure: Figure, *, name: str, caption: str, alt: str, data: pd.DataFrame | Mapping | None = None) -> None:
    """Display a figure in a notebook, its caption and a folded table of its data below it, and close it.

    A figure with data is a plot and shown as SVG; one without is a picture and shown as PNG.

    Args:
        figure: What one of the functions below returns, or any other figure of matplotlib.
        name: By which text refers to it; unique in the book, for example ``"fig-reproduction"``.
        caption: What it shows, with units, the number of seeds and what the spread is. Markdown.
        alt: What somebody who does not see it needs to know.
        data: What it shows, a line for each mark, as a data frame or its columns by name; None for a picture, and for
            a `Plot`, which has its own.

    Raises:
        InputError: A text is empty.
    """
    import matplotlib.pyplot
    from IPython.display import publish_display_data

    texts = {"alt": alt, "caption": caption, "name": name}
    empty = [key for key, text in texts.items() if not text.strip()]
    if empty:
        raise InputError(f"figure {name!r} has no {' and no '.join(empty)}: describe it in words")
    data = getattr(figure, "data", None) if data is None else data
    mime, content = "image/png", base64.b64encode(render(figure, kind="png")).decode()
    if data is not None:
        mime, content = "image/svg+xml", render(figure).decode()
    matplotlib.pyplot.close(figure)
    # The book's build moves these texts to where the page's numbered figure takes them from.
    publish_display_data({mime: content, "text/plain": alt}, metadata={mime: texts})
    publish_display_data({"text/markdown": caption, "text/plain": caption}, metadata={"extractlib": "caption"})
    if data is not None:
        values = {"text/html": data_table(pd.DataFrame(data)), "text/plain": ""}
        publish_display_data(values, metadata={"extractlib": "data"})


def data_table(data: pd.DataFrame) -> str:
    """Return a figure's data as a folded table in HTML; a column that holds nothing is left out."""
    with pd.option_context("display.max_colwidth", None):
        filled = data.dropna(axis=1, how="all")
        table = filled.to_html(index=False, border=0, na_rep="", float_format="{:,.4g}".format)
    return f'<details class="fold"><summary>Data of this figure</summary>{table}</details>'


def render(figure: Figure, *, kind: str = "svg") -> bytes:
    """Return a figure as the bytes of an SVG or PNG file: equal figures, freshly made, give equal bytes."""
    buffer = io.BytesIO()
    with style.context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date" if kind == "svg" else "Software": None})
    return buffer.getvalue()


def say(text: str) -> None:
    """Display Markdown in a notebook: how a chapter quotes a number that it measured."""
    from IPython.display import publish_display_data

    publish_display_data({"text/markdown": text, "text/plain": text})


def show_html(text: str) -> None:
    """Display HTML that needs no script in a notebook, such as the ledger's tables and folds."""
    from IPython.display import publish_display_data

    publish_display_data({"text/html": text, "text/plain": ""})


# -- text --------------------------------------------------------------------


def table(rows: Iterable[Sequence], columns: Sequence[str], *, caption: str = "", words: bool = False) -> str:
    """Return a table as Markdown: the first column to the left, the others to the right.

    Args:
        rows: Lines of as many values as there are columns; None shows as a dash.
        columns: The heads.
        caption: A line above the table.
        words: Whether all columns hold words, not numbers, and so are put to the left.

    Raises:
        InputError: A line has another number of values.
    """
    rows = [["–" if value is None else str(value).replace("|", "\\|") for value in row] for row in rows]
    for row in rows:
        if len(row) != len(columns):
            raise InputError(f"a table of {len(columns)} columns has a line of {len(row)} values: {row}")
    rule = [":---", *[":---" if words else "---:"] * (len(columns) - 1)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *rows])
    return f"**{caption}**\n\n{body}" if caption else body


def mean_sd(values: Sequence[float], *, digits: int) -> str:
    """Return ``"mean ± standard deviation"`` of the values, the value where there is but one, a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if len(values) else "–"
    mean, spread = summary(values)
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def reproduction_table(rows: Iterable[Row]) -> str:
    """Return our reproduction table beside the authors' and Orekondy's, as Markdown.

    Accuracies are in percent, mean ± standard deviation over the seeds; recovery is surrogate / victim, per seed. The
    constant column is the recovery of the best single class. What is to be known of the authors' row of a task stands
    below the table.
    """
    quantities = ("victim", "surrogate", "recovery")
    columns = ["Task", "Victim", "Surrogate", "Recovery", "Constant"]
    columns += [f"{whose} {quantity}" for whose in ("Authors'", "Orekondy's") for quantity in quantities]
    ours = {"victim_accuracy": (100, 1), "surrogate_accuracy": (100, 1), "recovery": (1, 3), "constant": (1, 2)}
    lines, notes = [], ""
    for task, results in _by_task(rows):
        values = [mean_sd(list(unit * results[key]), digits=digits) for key, (unit, digits) in ours.items()]
        authors = _authors(task)
        theirs = [authors.get(whose + quantity) for whose in ("", "orekondy_") for quantity in quantities]
        lines.append([_task_name(task), *values, *theirs])
        notes += f"\n\n{_task_name(task)}: {authors['note']}." if "note" in authors else ""
    return table(lines, columns, caption=f"Ours beside the paper's ({paper.LABEL})") + notes


def ledger_table(entries: Iterable[Entry], *, beside: Mapping[str, Iterable[Entry]] | None = None) -> str:
    """Return the ledger as Markdown, what does not hold first.

    Args:
        entries: The claims with their verdicts.
        beside: By the name of another scale its entries, whose verdicts get a column of their own.
    """
    others = {scale: {entry.claim.id: entry for entry in there} for scale, there in (beside or {}).items()}
    first = (Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED, Verdict.NOT_TESTABLE, Verdict.HOLDS, Verdict.NOT_RUN)
    lines = []
    for entry in sorted(entries, key=lambda entry: first.index(entry.verdict)):
        claim, elsewhere = entry.claim, [_elsewhere(there.get(entry.claim.id)) for there in others.values()]
        lines.append([claim.id, claim.statement, claim.authors, claim.test, entry.verdict, entry.reason, *elsewhere])
    columns = ["Claim", "Statement", f"Figures ({paper.LABEL})", "Test", "Verdict", "Why"]
    return table(lines, [*columns, *(f"In {scale}" for scale in others)], words=True)


def _elsewhere(entry: Entry | None) -> str:
    """Return a verdict at another scale with the number of seeds behind its bounds, the fewest where they differ."""
    if entry is None or entry.verdict is Verdict.NOT_RUN:
        return str(Verdict.NOT_RUN)
    seeds = min((len(bound.values) for bound in entry.bounds), default=0)
    return f"{entry.verdict} ({seeds} seeds)" if seeds else str(entry.verdict)


def provenance(rows: Iterable[Row]) -> str:
    """Return where rows come from, as one line of Markdown; those of the first edition get a sentence of their own.

    Raises:
        InputError: There are no rows.
    """
    rows = list(rows)
    if not rows:
        raise InputError("no rows: there is nothing to tell the provenance of")
    facts = Provenance.of(rows)
    parts = [
        "commit " + ", ".join(f"`{commit}`" for commit in facts.commits),
        " to ".join(dict.fromkeys(date[:10] for date in facts.dates)),
        "seed " + ", ".join(map(str, facts.seeds)),
        f"{facts.cells} {'cell' if facts.cells == 1 else 'cells'} in {facts.seconds:,.0f} s",
        ", ".join(facts.devices),
        ", ".join(facts.versions),
        f"data `{facts.data[:12]}`",
    ]
    old = [row for row in rows if edition_1.made(row)]
    return f"*Provenance*: {'; '.join(parts)}" + (f". {edition_1.truth(old)}" if old else "")


def run_provenance(images: Iterable[ImageSet], *, seed: int, seconds: float, device: str = "cpu") -> str:
    """Return where a chapter's own run comes from, as one line of Markdown.

    Args:
        images: All images that it used.
        seed: Its seed.
        seconds: How long it took.
        device: Where it ran.
    """
    run = f"commit `{commit()}`; {datetime.now(UTC).date()}; seed {seed}; live in {seconds:,.0f} s; {describe(device)}"
    versions = "; ".join(f"{name} {version}" for name, version in libraries().items())
    data = digest(*(image_set.fingerprint for image_set in images))
    return f"*Provenance*: {run}; {versions}; data `{data[:12]}`"


# -- figures -----------------------------------------------------------------


def contact_sheet(image_set: ImageSet, *, rows: int, columns: int) -> Figure:
    """Return a sheet of images, the classes in turn; places for which there is no image stay empty.

    Args:
        image_set: Where they are taken from. An unlabeled set is shown in its own order.
        rows, columns: Of the sheet.

    Raises:
        InputError: The sheet has no place.
    """
    if min(rows, columns) < 1:
        raise InputError(f"a contact sheet of {rows} rows and {columns} columns: at least one of each is needed")
    with style.context(STYLE):
        figure = Figure(figsize=(WIDTH, rows * WIDTH / columns), layout="constrained")
        all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in all_axes:
            axes.set_axis_off()
        for axes, index in zip(all_axes, _classes_in_turn(image_set), strict=False):
            axes.imshow(image_set.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
    return figure


def reproduction_bars(rows: Iterable[Row]) -> Plot:
    """Return the recovery of each task as `bars`, ours beside the authors' and Orekondy's.

    The mark on each of ours is what a constant predictor, of the best single class, would recover.
    """
    groups, constant = {}, {}
    for task, results in _by_task(rows):
        name, authors = _task_name(task), _authors(task)
        theirs = {"the authors": authors.get("recovery"), "Orekondy et al.": authors.get("orekondy_recovery")}
        groups[name] = {"ours": list(results["recovery"])}
        groups[name] |= {who: [value] for who, value in theirs.items() if value is not None}
        constant[name] = {"ours": results["constant"].mean()}
    xlabel = "recovery: surrogate's / victim's accuracy"
    return bars(groups, xlabel=xlabel, marks=constant, marked="constant predictor")


def budget_curve(rows: Iterable[Row]) -> Plot:
    """Return recovery over the number of queries: a line a task, mean ± standard deviation over the seeds."""
    series: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        series.setdefault(row.cell.task, {}).setdefault(row.cell.budget, []).append(row.result["recovery"])
    return lines(series, xlabel="queries", ylabel="recovery", logarithmic=True)


def lines(
    series: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] = (0, 1.05),
    logarithmic: bool = False,
) -> Plot:
    """Return a line for each series, mean ± standard deviation of the values at each place.

    Args:
        series: By name, the values, one a seed, at each place on the horizontal axis.
        xlabel, ylabel: What the axes show, with units.
        limits: Of the vertical axis.
        logarithmic: Whether the horizontal axis is.
    """
    marks = [(name, x, places[x]) for name, places in series.items() for x in sorted(places)]
    data = _summaries(marks, xlabel, ylabel)
    with _plot(data, height=4.6, xlabel=xlabel, ylabel=ylabel) as (figure, axes):
        axes.set_xscale("log" if logarithmic else "linear")
        for name, line in data.groupby("Series", sort=False):
            axes.errorbar(line[xlabel], line[ylabel], line["±"], label=name)
        ticks = sorted(set(data[xlabel]))
        axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
        axes.minorticks_off()
        axes.set_ylim(*limits)
    return figure


def bars(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    xlabel: str,
    marks: Mapping[str, Mapping[str, float | None]] | None = None,
    marked: str = paper.LABEL,
    limits: tuple[float, float] = (0, 1.05),
) -> Plot:
    """Return horizontal bars in groups, mean ± standard deviation of the values.

    Args:
        groups: By name of the group, by name of the bar, the values, one a seed.
        xlabel: What the axis shows, with units.
        marks: A number to set beside each bar, such as the authors'; None where there is none.
        marked: What the marks are.
        limits: Of the axis.
    """
    titles, names = list(groups), list(dict.fromkeys(name for group in groups.values() for name in group))
    shown = [(name, title) for name in names for title in titles if len(groups[title].get(name, ()))]
    places = {(name, title): value for title, row in (marks or {}).items() for name, value in row.items()}
    beside = {place: value for place in shown if (value := places.get(place)) is not None}
    values = [(name, title, groups[title][name]) for name, title in shown]
    values += [(f"{name} ({marked})", title, [value]) for (name, title), value in beside.items()]
    data = _summaries(values, "Group", xlabel)
    thickness, middle = 0.8 / len(names), (len(names) - 1) / 2
    y = np.array([titles.index(title) + (names.index(name) - middle) * thickness for name, title in [*shown, *beside]])
    with _plot(data, height=1.4 + len(groups) * (0.25 + 0.24 * len(names)), xlabel=xlabel, columns=2) as (figure, axes):
        for name, bar in data[: len(shown)].groupby("Series", sort=False):
            color, hatch = FILLS[names.index(name) % len(FILLS)]
            look: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white"}
            look["error_kw"] = {"ecolor": BLACK, "capsize": 2}
            axes.barh(y[bar.index], bar[xlabel], 0.9 * thickness, xerr=bar["±"], label=name, **look)
        if beside:
            x = data[xlabel][len(shown) :]
            axes.plot(x, y[x.index], "D", color=BLACK, markerfacecolor="white", label=marked)
        _name_rows(axes, titles)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(*limits)
    return figure


def confusions(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Plot:
    """Return confusion matrices side by side: a row a true class, in shares of its images.

    Args:
        matrices: By name, counts of shape (classes, classes).
        classes: Names of the classes; left out of the picture where there are more than 12.
    """
    label, ticks = "share of the class's images", classes if len(classes) <= 12 else []
    counts = pd.concat({name: pd.DataFrame(matrix, classes, classes) for name, matrix in matrices.items()})
    shares = counts.div(counts.sum(axis=1), axis=0)
    data = shares.stack()[lambda share: share > 0].rename_axis(["Series", "true", "predicted"]).reset_index(name=label)
    with style.context([STYLE, {"font.size": 10, "axes.grid": False}]):
        figure = Plot(data, height=3.9 if ticks else 3.4)
        all_axes = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
        for axes, name in zip(all_axes, matrices, strict=True):
            image = axes.imshow(shares.loc[name], vmin=0, vmax=1, cmap="Blues")
            axes.set(title=name, xlabel="predicted")
            axes.set_xticks(range(len(ticks)), ticks, rotation=90)
        all_axes[0].set_yticks(range(len(ticks)), ticks)
        all_axes[0].set_ylabel("true")
        figure.colorbar(image, ax=list(all_axes), shrink=0.7, label=label)
    return figure


def threat_or_boogeyman(evidence: Evidence) -> Plot:
    """Return recovery of every attack under every API and defense: a row each, a mark a task.

    A mark is at the mean over the seeds, and its whisker is as long as their standard deviation on either side.
    The columns of its data are Series (the task), Situation, recovery (the mean) and ±.
    """
    marks = []
    for name, changes in SITUATIONS.items():
        for task in evidence.tasks:
            cell = {key: value.format(task=task) if key == "pool" else value for key, value in changes.items()}
            values = list(evidence.values(task, **cell).values())
            marks += [(task, name, values)] if values else []
    data = _summaries(marks, "Situation", "recovery")
    situations = list(data["Situation"].unique())
    with _plot(data, height=1.3 + 0.5 * len(situations), xlabel="recovery") as (figure, axes):
        for number, (task, line) in enumerate(data.groupby("Series", sort=False)):
            y = [situations.index(name) + (number - 2) * 0.12 for name in line["Situation"]]
            axes.errorbar(line["recovery"], y, xerr=line["±"], label=task, linestyle="none", capsize=0, markersize=7)
        _name_rows(axes, situations)
        axes.set_xlim(0, 1.05)
    return figure


@contextmanager
def _plot(
    data: pd.DataFrame, *, height: float, xlabel: str, ylabel: str = "", columns: int = 3
) -> Iterator[tuple[Plot, Axes]]:
    """Yield a new plot of `data` and its axes, which get their labels and their legend afterwards."""
    with style.context(STYLE):
        figure = Plot(data, height=height)
        axes = figure.subplots()
        yield figure, axes
        axes.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(loc="outside upper center", ncols=columns)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot, the first on top; a name of several parts gets two lines."""
    axes.set_yticks(range(len(names)), [re.sub(r"(?<=[,;:]) | (?=\()", "\n", name, count=1) for name in names])
    axes.invert_yaxis()


def _summaries(marks: Iterable[tuple[str, object, Sequence[float]]], place: str, value: str) -> pd.DataFrame:
    """Return of each mark its series, its place, and mean and standard deviation of its values, none of a single one.

    Args:
        marks: Series, place and values, one a seed, of each.
        place, value: The heads of these columns.
    """
    lines = [(*mark, *(summary(values) if len(values) > 1 else (values[0], np.nan))) for *mark, values in marks]
    return pd.DataFrame(lines, columns=["Series", place, value, "±"])


def _classes_in_turn(image_set: ImageSet) -> np.ndarray:
    """Return where the first image of each class is, then the second of each, and so on."""
    labels = np.zeros(len(image_set)) if image_set.labels is None else image_set.labels.numpy()
    return np.lexsort((labels, pd.Series(labels).groupby(labels).cumcount()))


def _by_task(rows: Iterable[Row]) -> Iterable[tuple[str, pd.DataFrame]]:
    """Return the results of the reproduction's rows by task, with the recovery of a constant predictor."""
    results = pd.DataFrame([{"task": row.cell.task, **row.result} for row in reproduction(rows)])
    results["constant"] = results["constant_accuracy"] / results["victim_accuracy"]
    return results.groupby("task", sort=False)


def _authors(task: str) -> dict:
    return paper.tables()["reproduction"]["rows"].get(paper.victim(task), {})


def _task_name(task: str) -> str:
    victim = paper.victim(task)
    return f"{task} ({victim.removesuffix('-RN34')})" if victim else task
