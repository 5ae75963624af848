"""Sliders over measured grids, which need no kernel, as a Sphinx extension.

A grid is put on a page by a block in a notebook's Markdown, whose text says what it shows:

    ```{sliders} budget
    How much is stolen, by task, granularity and budget.
    ```

The numbers come from the committed results when the page is built, and _static/sliders.js moves among them: a choice
for each of a grid's first settings, a slider for the last, and what was measured there as a sentence and in a plot.
"""

import html
import json
import math
import tomllib
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from extractbook.figures import mean_sd
from extractbook.reproduction import first_edition
from extractbook.reproduction.ledger import Evidence
from extractbook.reproduction.results import FOLDER
from extractlib.errors import InputError

TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""What is said of each grid, by its name."""


@dataclass(frozen=True)
class Grid:
    """What was measured, by the choices and then along the slider.

    Attributes:
        choices: Options of each choice, by its name.
        series: By the numbers of the options, such as ``"0,2"``: the points along the slider, each as its place on the
            axes and its words, the first of which names the stop. What was not measured is missing.
    """

    choices: dict[str, list[str]]
    series: dict[str, list[tuple[float, float, list[str]]]]


def points(rows, columns, stops, measured) -> dict[str, list[tuple[float, float, list[str]]]]:
    """Return the means along the slider of what was measured, by row and column.

    Args:
        rows, columns: Options of the two choices.
        stops: Of what the slider sets, in order: its place on the axis and its words.
        measured: Function of a row, a column and a stop that returns the values by seed, which may be none.
    """
    found = {}
    for (row, first), (column, second) in product(enumerate(rows), enumerate(columns)):
        values = {stop: list(measured(first, second, stop).values()) for stop in stops}
        found[f"{row},{column}"] = [
            (place, sum(seeds) / len(seeds), [words, mean_sd(seeds, digits=2), str(len(seeds))])
            for (place, words), seeds in zip(stops.values(), values.values(), strict=True)
            if seeds
        ]
    return {choice: line for choice, line in found.items() if line}


def budget(evidence: Evidence) -> Grid:
    """Return recovery by task and granularity, along the budgets."""
    settings = evidence.scale
    answers, low, high = ["full", *settings.granularities], math.log(settings.budgets[0]), math.log(settings.budget)
    stops = {queries: ((math.log(queries) - low) / (high - low), f"{queries:,}") for queries in settings.budgets}

    def measured(task, shown, queries):
        return evidence.values(task, granularity=shown, budget=queries)

    return Grid({"Task": list(evidence.tasks), "Answers": answers}, points(evidence.tasks, answers, stops, measured))


def threshold(evidence: Evidence) -> Grid:
    """Return the ROC by task, detector and pool, along the detector's threshold."""
    detectors, pools, series = ["binary", "odin", "mahalanobis"], ["pool", "second"], {}
    for (row, task), (column, who), (layer, pool) in product(*map(enumerate, (evidence.tasks, detectors, pools))):
        curves = list(evidence.values(task, who, pool, "roc", experiment="detection").values())
        if curves:
            # The thresholds are ranks among benign scores: those of different seeds belong together.
            series[f"{row},{column},{layer}"] = [
                (x, y, [f"{x:.1%}", f"{y:.1%}", f"{100 * (1 - x):.1f}", f"{100 * (1 - y):.1f}", str(len(curves))])
                for x, y in np.mean(curves, axis=0).T.tolist()
            ]
    choices = {"Task": list(evidence.tasks), "Detector": detectors, "Queries from": ["first pool", "second pool"]}
    return Grid(choices, series)


def overlap(evidence: Evidence) -> Grid:
    """Return the detector's balanced accuracy by task and source, along the overlap of pool and task."""
    sources = {"another source": "{}/shifted", "the very same": "{}"}
    stops = {share: (share, f"{share:.0%}") for share in evidence.scale.overlaps}

    def measured(task, source, share):
        cell = {"experiment": "overlap", "pool": source.format(task), "overlap": share}
        return evidence.values(task, "balanced_accuracy", **cell)

    choices = {"Task": list(evidence.tasks), "Own images from": list(sources)}
    return Grid(choices, points(evidence.tasks, sources.values(), stops, measured))


GRIDS = {grid.__name__: grid for grid in (budget, threshold, overlap)}


class Sliders(SphinxDirective):
    """A block that shows a grid."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the grid as data for the script, with its text as the title."""
        name, title = self.arguments[0], " ".join(self.content).strip()
        if name not in GRIDS or not title:
            raise self.error(f"sliders: {name!r} with a text saying what it shows; the grids are {', '.join(GRIDS)}")
        for path in (FOLDER / "edition-1" / "drawn").glob("*.json"):
            self.env.note_dependency(str(path))
        try:
            grid = GRIDS[name](Evidence(first_edition("drawn")))
        except InputError as error:
            raise self.error(f"sliders {name}: {error}") from error
        if not grid.series:
            raise self.error(f"sliders {name}: nothing of it is measured at scale drawn")
        data = json.dumps(TEXTS[name] | asdict(grid), separators=(",", ":")).replace("</", "<\\/")
        text = (
            f'<fieldset class="sliders"><legend>{html.escape(title)}</legend>'
            f'<script type="application/json">{data}</script></fieldset>'
        )
        return [nodes.raw("", text, format="html")]


def setup(app) -> dict:
    """Register with Sphinx."""
    app.add_directive("sliders", Sliders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
