"""How the book shows things: figures with alternative text, tables, and sentences with measured numbers.

Figures are drawn on a white card, so that they read in light and dark, in colours that the colour-blind can tell apart
(Okabe and Ito, Color Universal Design, 2008), with letters that stay legible where a phone shows them 360 px wide.
"""

import base64
import html
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from extractbook.reproduction import edition_1, paper
from extractbook.reproduction.cells import commit, describe, libraries
from extractbook.reproduction.ledger import Entry, Evidence, Provenance, Row, Verdict, reproduction
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, one_of
from extractlib.metrics import summary
from extractlib.store import digest

WIDTH = 6.0
"""Of a figure, in inches."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
MARKS = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"))
"""Colour and marker of each line of a plot: either alone tells the lines apart."""

FILLS = ((BLUE, ""), (ORANGE, "//"), (GREEN, "\\\\"), (SKY, ".."), (VERMILION, "xx"), (PURPLE, "++"), (YELLOW, "oo"))
"""Colour and hatch of the bars of a group."""

STYLE: Mapping = MappingProxyType(
    {
        "font.size": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#DDDDDD",
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "hatch.linewidth": 0.8,
        "svg.fonttype": "path",
        "svg.hashsalt": "extractlib",  # or the names inside an SVG differ each time
    }
)

FORMATS = MappingProxyType({"svg": "image/svg+xml", "png": "image/png"})


# -- in a notebook -----------------------------------------------------------


def show(figure: Figure, *, name: str, caption: str, alt: str, kind: str = "svg") -> None:
    """Display a figure in a notebook, its caption and a folded table of its data below it, and close it.

    The table is read from the figure's bars, lines and matrices; pictures have none.

    Args:
        figure: What one of the functions below returns, or any other figure of matplotlib.
        name: By which text refers to it; unique in the book, for example ``"fig-reproduction"``.
        caption: What it shows, with units, the number of seeds and what the spread is. Markdown.
        alt: What somebody who does not see it needs to know.
        kind: ``"svg"`` for plots, ``"png"`` for pictures.

    Raises:
        InputError: A text is empty or `kind` is unknown.
    """
    import matplotlib.pyplot
    from IPython.display import publish_display_data

    texts = {"alt": alt, "caption": caption, "name": name}
    empty = [key for key, text in texts.items() if not text.strip()]
    if empty:
        raise InputError(f"figure {name!r} has no {' and no '.join(empty)}: describe it in words")
    mime = FORMATS[one_of("kind of figure", kind, FORMATS)]
    content, values = render(figure, kind=kind), data_table(figure) if kind == "svg" else ""
    matplotlib.pyplot.close(figure)
    data = content.decode() if kind == "svg" else base64.b64encode(content).decode()
    # The book's build moves these texts to where the page's numbered figure takes them from.
    publish_display_data({mime: data, "text/plain": alt}, metadata={mime: texts})
    publish_display_data({"text/markdown": caption, "text/plain": caption}, metadata={"extractlib": "caption"})
    if values:
        publish_display_data({"text/html": values, "text/plain": ""}, metadata={"extractlib": "data"})


def data_table(figure: Figure) -> str:
    """Return what a figure's bars, lines and matrices show as a folded table in HTML, or nothing if it has none."""
    panels = [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]
    lines = []
    for axes in panels:
        panel = (axes.get_title() or axes.get_ylabel()) if len(panels) > 1 else ""
        lines += [[": ".join(filter(None, (panel, name))), *rest] for name, *rest in _plotted(axes)]
    if not lines:
        return ""
    across = next(filter(None, (axes.get_xlabel() for axes in panels)), "")
    upward = next(filter(None, (axes.get_ylabel() for axes in figure.axes[::-1])), "")  # of a colour bar first
    place, value = (upward, across) if _flat(panels[0]) else (across, upward)
    heads = ["Series", place if place and not panels[0].images else "Place", value or "Value", "±"]
    used = [column for column in range(4) if any(line[column] for line in lines)]
    rows = [[html.escape(line[column]) for column in used] for line in (heads, *lines)]
    head, *body = ("".join(f"<td>{text}</td>" for text in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in body)
    table = f"<table><thead><tr>{head.replace('td>', 'th>')}</tr></thead><tbody>{body}</tbody></table>"
    return f'<details class="fold"><summary>Data of this figure</summary>{table}</details>'


def _plotted(axes: Axes) -> Iterator[tuple[str, str, str, str]]:
    """Yield name of the series, place, value and half the whisker of all that `axes` show."""
    flat = _flat(axes)
    axis = axes.yaxis if flat else axes.xaxis
    whiskers = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    drawn = {part for container in whiskers for part in (container.lines[0], *container.lines[1], *container.lines[2])}
    for container in axes.containers:
        if isinstance(container, BarContainer):
            boxes = [bar.get_bbox() for bar in container]
            points = [((box.y0 + box.y1) / 2, box.x1) if flat else ((box.x0 + box.x1) / 2, box.y1) for box in boxes]
            spreads = _spreads(container.errorbar)
        else:
            points = container.lines[0].get_xydata()[:, :: -1 if flat else 1] if container.lines[0] else []
            spreads = _spreads(container) if container.lines[0] else []
        for (place, value), spread in zip_longest(points, spreads, fillvalue=""):
            yield _series(container), _place(axis, place), _number(value), spread
    for line in (line for line in axes.lines if line not in drawn):
        level = line.get_transform() != axes.transData
        for point in line.get_xydata()[: 1 if level else None]:
            place, value = point[::-1] if flat else point
            yield _series(line), "" if level else _place(axis, place), _number(value), ""
    for collection in axes.collections:
        if isinstance(collection, LineCollection) and collection not in drawn:
            for (value, low), (_, high) in collection.get_segments():
                yield _series(collection), _place(axis, (low + high) / 2), _number(value), ""
    for image in axes.images:
        values, first = np.asarray(image.get_array()), axes.figure.axes[0]  # whose labels stand for all
        for row, column in np.argwhere(values) if values.ndim == 2 else ():
            true = f"{first.get_ylabel()} {_place(first.yaxis, row)}"
            yield "", f"{true}, {axes.get_xlabel()} {_place(axes.xaxis, column)}", _number(values[row, column]), ""


def _flat(axes: Axes) -> bool:
    """Say whether the places are on the vertical axis, as those of horizontal bars are."""
    return _named(axes.yaxis) and not _named(axes.xaxis) and not axes.images


def _named(axis: Axis) -> bool:
    return isinstance(axis.get_major_formatter(), FuncFormatter) and len(axis.get_ticklocs()) > 0


def _series(artist) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _spreads(container: ErrorbarContainer | None) -> list[str]:
    if container is None:
        return []
    halves = (np.abs(ends[1] - ends[0]).max() / 2 for ends in container.lines[2][0].get_segments())
    return [_number(half) if half else "" for half in halves]


def _place(axis: Axis, value: float) -> str:
    """Return the label of the tick nearest to `value` where the ticks have names, or else the value."""
    if not _named(axis):
        return _number(value)
    nearest = int(np.abs(axis.get_ticklocs() - value).argmin())
    return axis.get_ticklabels()[nearest].get_text().replace("\n", " ")


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def render(figure: Figure, *, kind: str = "svg") -> bytes:
    """Return a figure as the bytes of an SVG or PNG file: equal figures, freshly made, give equal bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def say(text: str) -> None:
    """Display Markdown in a notebook: how a chapter quotes a number that it measured."""
    from IPython.display import publish_display_data

    publish_display_data({"text/markdown": text, "text/plain": text})


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
    lines = [list(columns), [":---", *[":---" if words else "---:"] * (len(columns) - 1)]]
    for row in rows:
        if len(row) != len(columns):
            raise InputError(f"a table of {len(columns)} columns has a line of {len(row)} values: {list(row)}")
        lines.append(["–" if value is None else str(value).replace("|", "\\|") for value in row])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{caption}**\n\n{body}" if caption else body


def mean_and_spread(values: Sequence[float], *, digits: int) -> str:
    """Return ``"mean ± standard deviation"`` of the values, the value where there is but one, a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if len(values) else "–"
    mean, spread = summary(values)
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def reproduction_table(rows: Iterable[Row]) -> str:
    """Return our reproduction table beside the authors' and Orekondy's, as Markdown.

    Accuracies are in percent, mean ± standard deviation over the seeds; recovery is surrogate / victim, per seed. The
    constant column is the recovery of the best single class.
    """
    quantities = ("victim", "surrogate", "recovery")
    columns = ["Task", "Victim", "Surrogate", "Recovery", "Constant"]
    columns += [f"{whose} {quantity}" for whose in ("Authors'", "Orekondy's") for quantity in quantities]
    lines = []
    for task, group in _by_task(reproduction(rows)).items():
        percent = [[100 * row.result[f"{who}_accuracy"] for row in group] for who in ("victim", "surrogate")]
        authors = _authors(task)
        lines.append(
            [
                _task_name(task),
                *(mean_and_spread(values, digits=1) for values in percent),
                mean_and_spread([row.result["recovery"] for row in group], digits=3),
                mean_and_spread([_constant_recovery(row) for row in group], digits=2),
                *(authors.get(quantity) for quantity in quantities),
                *(authors.get(f"orekondy_{quantity}") for quantity in quantities),
            ]
        )
    return table(lines, columns, caption=f"Ours beside the paper's ({paper.LABEL})")


def ledger_table(entries: Iterable[Entry], *, beside: Mapping[str, Iterable[Entry]] | None = None) -> str:
    """Return the ledger as Markdown, what does not hold first.

    Args:
        entries: The claims with their verdicts.
        beside: By the name of another scale its entries, whose verdicts get a column of their own.
    """
    others = {scale: {entry.claim.id: entry for entry in found} for scale, found in (beside or {}).items()}
    first = (Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED, Verdict.NOT_TESTABLE, Verdict.HOLDS, Verdict.NOT_RUN)
    lines = [
        [
            entry.claim.id,
            entry.claim.statement,
            entry.claim.authors,
            entry.claim.test,
            str(entry.verdict),
            entry.reason,
            *(_elsewhere(found.get(entry.claim.id)) for found in others.values()),
        ]
        for entry in sorted(entries, key=lambda entry: first.index(entry.verdict))
    ]
    columns = ["Claim", "Statement", f"Figures ({paper.LABEL})", "Test", "Verdict", "Why"]
    return table(lines, [*columns, *(f"In {scale}" for scale in others)], words=True)


def _elsewhere(entry: Entry | None) -> str:
    """Return a verdict at another scale with the tasks and seeds that it rests on."""
    if entry is None or entry.verdict is Verdict.NOT_RUN:
        return str(Verdict.NOT_RUN)
    seeds = len(entry.seeds)
    return f"{entry.verdict} ({', '.join(entry.tasks)}; {seeds} {'seed' if seeds == 1 else 'seeds'})"


def provenance(rows: Iterable[Row]) -> str:
    """Return where rows come from, as one line of Markdown; those of the first edition get a sentence of their own.

    Raises:
        InputError: There are no rows.
    """
    rows = list(rows)
    if not rows:
        raise InputError("no rows: there is nothing to tell the provenance of")
    facts = Provenance.of(rows)
    first, last = (date[:10] for date in facts.dates)
    old = [row for row in rows if edition_1.made(row)]
    line = "; ".join(
        [
            "commit " + ", ".join(f"`{commit}`" for commit in facts.commits),
            first if first == last else f"{first} to {last}",
            "seed " + ", ".join(map(str, facts.seeds)),
            f"{facts.cells} {'cell' if facts.cells == 1 else 'cells'} in {facts.seconds:,.0f} s",
            ", ".join(facts.devices),
            ", ".join(facts.versions),
            f"data `{facts.data[:12]}`",
        ]
    )
    return f"*Provenance*: {line}" + (f". {edition_1.truth(old)}" if old else "")


def run_provenance(images: Iterable[ImageSet], *, seed: int, seconds: float, device: str = "cpu") -> str:
    """Return where a chapter's own run comes from, as one line of Markdown.

    Args:
        images: All images that it used.
        seed: Its seed.
        seconds: How long it took.
        device: Where it ran.
    """
    facts = [
        f"commit `{commit()}`",
        datetime.now(UTC).date().isoformat(),
        f"seed {seed}",
        f"live in {seconds:,.0f} s",
        describe(device),
        *(f"{name} {version}" for name, version in libraries().items()),
        f"data `{digest(*(image_set.fingerprint for image_set in images))[:12]}`",
    ]
    return "*Provenance*: " + "; ".join(facts)


# -- figures -----------------------------------------------------------------


def contact_sheet(image_set: ImageSet, *, rows: int, columns: int, names: bool = True) -> Figure:
    """Return a sheet of images, the classes in turn.

    Args:
        image_set: Where they are taken from. An unlabelled set is shown in its own order.
        rows, columns: Of the sheet; places for which there is no image stay empty.
        names: Whether each image has the name of its class above it.

    Raises:
        InputError: The sheet has no place.
    """
    if min(rows, columns) < 1:
        raise InputError(f"a contact sheet of {rows} rows and {columns} columns: at least one of each is needed")
    size = WIDTH / columns
    letters = max(int(size * 10), 5)  # how many fit above an image
    labelled = names and image_set.labels is not None
    with matplotlib.rc_context({**STYLE, "font.size": 11, "axes.titlesize": "medium"}):
        figure = Figure(figsize=(WIDTH, rows * (size + 0.36 * labelled)), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in places:
            place.set_axis_off()
        for place, index in zip(places, _classes_in_turn(image_set, rows * columns), strict=False):
            place.imshow(image_set.images[index].permute(1, 2, 0).numpy(), interpolation="nearest")
            if labelled:
                name = image_set.classes[int(image_set.labels[index])]
                place.set_title("\n".join(textwrap.wrap(name, letters, max_lines=2, placeholder="…")), pad=2)
    return figure


def reproduction_bars(rows: Iterable[Row]) -> Figure:
    """Return the recovery of each task, ours beside the authors' and Orekondy's.

    Our bars are the mean over the seeds, their whiskers the standard deviation. The dotted mark on each is what a
    constant predictor, of the best single class, would recover.
    """
    groups = _by_task(reproduction(rows))
    centres = np.arange(len(groups))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.95 * len(groups)), layout="constrained")
        axes = figure.subplots()
        ours = [_summary([row.result["recovery"] for row in group]) for group in groups.values()]
        means, spreads = zip(*ours, strict=True)
        axes.barh(centres - 0.27, means, 0.25, xerr=spreads, color=BLUE, capsize=3, label="ours")
        for shift, key, color, hatch, label in (
            (0, "recovery", ORANGE, "//", "the authors"),
            (0.27, "orekondy_recovery", SKY, "..", "Orekondy et al."),
        ):
            known = [(centre, _authors(task).get(key)) for centre, task in zip(centres, groups, strict=True)]
            known = [(centre + shift, value) for centre, value in known if value is not None]
            if known:
                axes.barh(*zip(*known, strict=True), 0.25, color=color, hatch=hatch, edgecolor="white", label=label)
        constant = [_summary([_constant_recovery(row) for row in group])[0] for group in groups.values()]
        axes.vlines(constant, centres - 0.42, centres - 0.12, BLACK, "dotted", linewidth=2, label="constant predictor")
        axes.set_yticks(centres, [_task_name(task).replace(" (", "\n(") for task in groups])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 1.05)
        axes.set_xlabel("recovery: surrogate's / victim's accuracy")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def budget_curve(rows: Iterable[Row]) -> Figure:
    """Return recovery over the number of queries: a line a task, mean ± standard deviation over the seeds."""
    series: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        series.setdefault(row.cell.task, {}).setdefault(row.cell.budget, []).append(row.result["recovery"])
    return lines(series, across="queries", upward="recovery", logarithmic=True)


def lines(
    series: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    across: str,
    upward: str,
    limits: tuple[float, float] = (0, 1.05),
    logarithmic: bool = False,
) -> Figure:
    """Return a line for each series, mean ± standard deviation of the values at each place.

    Args:
        series: By name, the values, one a seed, at each place on the horizontal axis.
        across, upward: What the axes show, with units.
        limits: Of the vertical axis.
        logarithmic: Whether the horizontal axis is.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        axes = figure.subplots()
        if logarithmic:
            axes.set_xscale("log")
        for number, (name, places) in enumerate(series.items()):
            color, marker = MARKS[number % len(MARKS)]
            ordered = sorted(places)
            means, spreads = zip(*(_summary(places[place]) for place in ordered), strict=True)
            axes.errorbar(ordered, means, spreads, color=color, marker=marker, capsize=3, label=name)
        ticks = sorted({place for places in series.values() for place in places})
        axes.set_xticks(ticks, [f"{place:,}" for place in ticks])
        axes.minorticks_off()
        axes.set_ylim(*limits)
        axes.set_xlabel(across)
        axes.set_ylabel(upward)
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def bars(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    across: str,
    marks: Mapping[str, Mapping[str, float | None]] | None = None,
    marked: str = paper.LABEL,
    limits: tuple[float, float] = (0, 1.05),
) -> Figure:
    """Return horizontal bars in groups, mean ± standard deviation of the values.

    Args:
        groups: By name of the group, by name of the bar, the values, one a seed.
        across: What the axis shows, with units.
        marks: A number to set beside each bar, such as the authors'; None where there is none.
        marked: What the marks are.
        limits: Of the axis.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    height = 0.8 / len(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.4 + len(groups) * (0.25 + 0.24 * len(names))), layout="constrained")
        axes = figure.subplots()
        places: dict[tuple[str, str], float] = {}
        for number, name in enumerate(names):
            color, hatch = FILLS[number % len(FILLS)]
            there = [(row, group[name]) for row, group in enumerate(groups.values()) if len(group.get(name, ()))]
            centres = [row + (number - (len(names) - 1) / 2) * height for row, _ in there]
            means, spreads = zip(*(_summary(values) for _, values in there), strict=True)
            whiskers = {"ecolor": BLACK, "capsize": 2}
            axes.barh(
                centres,
                means,
                0.9 * height,
                xerr=spreads,
                color=color,
                hatch=hatch,
                edgecolor="white",
                error_kw=whiskers,
                label=name,
            )
            titles = list(groups)
            places |= {(titles[row], name): centre for (row, _), centre in zip(there, centres, strict=True)}
        beside = [
            (value, places[group, name])
            for group, found in (marks or {}).items()
            for name, value in found.items()
            if value is not None and (group, name) in places
        ]
        if beside:
            axes.plot(*zip(*beside, strict=True), "D", color=BLACK, markerfacecolor="white", label=marked)
        axes.set_yticks(range(len(groups)), groups)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(*limits)
        axes.set_xlabel(across)
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    upward: str,
    level: tuple[str, float] | None = None,
) -> Figure:
    """Return plain curves, such as a ROC or a statistic over time.

    Args:
        series: By name, the places on both axes.
        across, upward: What the axes show, with units.
        level: Name and height of a dotted horizontal line.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        axes = figure.subplots()
        for number, (name, (x, y)) in enumerate(series.items()):
            color, marker = MARKS[number % len(MARKS)]
            axes.plot(x, y, color=color, marker=marker, markevery=max(1, len(x) // 8), label=name)
        if level:
            axes.axhline(level[1], color=BLACK, linestyle="dotted", linewidth=2, label=level[0])
        axes.set_xlabel(across)
        axes.set_ylabel(upward)
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def confusions(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """Return confusion matrices side by side: a row a true class, in shares of its images.

    Args:
        matrices: By name, counts of shape (classes, classes).
        classes: Names of the classes; left out where there are more than 12.
    """
    few = len(classes) <= 12
    with matplotlib.rc_context({**STYLE, "font.size": 10, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 3.9 if few else 3.4), layout="constrained")
        for number, (name, counts) in enumerate(matrices.items()):
            axes = figure.add_subplot(1, len(matrices), number + 1)
            counts = np.asarray(counts, dtype=float)
            image = axes.imshow(counts / counts.sum(1, keepdims=True), vmin=0, vmax=1, cmap="Blues")
            axes.set_title(name)
            axes.set_xlabel("predicted")
            axes.set_xticks(range(len(classes)) if few else [], classes if few else [], rotation=90)
            axes.set_yticks(range(len(classes)) if few and not number else [], classes if few and not number else [])
        figure.axes[0].set_ylabel("true")
        figure.colorbar(image, ax=figure.axes, shrink=0.7, label="share of the class's images")
    return figure


SITUATIONS: Mapping[str, Mapping] = MappingProxyType(
    {
        "public images, full answers": {},
        "public images, label only": {"granularity": "label"},
        "public images of retinas alone": {"pool": "retina"},
        "public images, chosen adaptively*": {"attack": "knockoff-adaptive-all", "budget": 5_000},
        "public images; detected: shuffled": {"defence": "shuffle"},
        "public images; detected: denied": {"defence": "deny"},
        "public images; detected: label only": {"defence": "label"},
        "own images, full answers*": {"pool": "{task}/shifted", "budget": 5_000},
        "own images, label only*": {"pool": "{task}/shifted", "budget": 5_000, "granularity": "label"},
        "own images; detected: shuffled*": {"pool": "{task}/shifted", "budget": 5_000, "defence": "shuffle"},
    }
)
"""What the front page's figure compares: changes to the reproduction's cell. A star marks half the budget."""


def threat_or_boogeyman(evidence: Evidence) -> tuple[Figure, dict[str, dict[str, list[float]]]]:
    """Return recovery of every attack under every API and defence: a row each, a mark a task.

    A mark is at the mean over the seeds, and its whisker is as long as their standard deviation on either side.

    Returns:
        The figure, and what it shows: by situation, by task, the recoveries of the seeds.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for name, changes in SITUATIONS.items():
        for task in evidence.tasks:
            cell = {key: value.format(task=task) if key == "pool" else value for key, value in changes.items()}
            values = list(evidence.values(task, **cell).values())
            if values:
                found.setdefault(name, {})[task] = values
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.5 * len(found)), layout="constrained")
        axes = figure.subplots()
        for number, task in enumerate(evidence.tasks):
            color, marker = MARKS[number % len(MARKS)]
            rows = [row for row, tasks in enumerate(found.values()) if task in tasks]
            means, spreads = zip(*(_summary(tasks[task]) for tasks in found.values() if task in tasks), strict=True)
            heights = [row + (number - 2) * 0.12 for row in rows]
            axes.errorbar(means, heights, xerr=spreads, fmt=marker, color=color, label=task, markersize=7)
        axes.set_yticks(range(len(found)), [name.replace(", ", ",\n", 1).replace("; ", ";\n", 1) for name in found])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.05)
        axes.set_xlabel("recovery")
        figure.legend(loc="outside upper center", ncols=3)
    return figure, found


def _summary(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the values; the deviation of one value is 0."""
    return summary(values) if len(values) > 1 else (values[0], 0.0)


def _classes_in_turn(image_set: ImageSet, count: int) -> list[int]:
    """Return where the first image of each class is, then the second of each, and so on, `count` in all."""
    if image_set.labels is None:
        return list(range(min(count, len(image_set))))
    labels = image_set.labels.numpy()
    grouped = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[grouped], labels[grouped])
    turn = np.empty(len(labels), dtype=np.int64)
    turn[grouped] = np.arange(len(labels)) - starts
    return np.lexsort((labels, turn))[:count].tolist()


def _by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cell.task, []).append(row)
    return groups


def _authors(task: str) -> dict:
    return paper.tables()["reproduction"]["rows"].get(paper.victim(task), {})


def _task_name(task: str) -> str:
    victim = paper.victim(task)
    return f"{task} ({victim.removesuffix('-RN34')})" if victim else task


def _constant_recovery(row: Row) -> float:
    return row.result["constant_accuracy"] / row.result["victim_accuracy"]
