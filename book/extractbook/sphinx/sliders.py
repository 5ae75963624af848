"""Sliders over measured grids, which need no kernel, as a Sphinx extension.

A grid is put on a page by a block in a notebook's Markdown, whose text says what it shows:

    ```{sliders} budget
    How much is stolen, by task, granularity and budget.
    ```

The numbers come from the committed results when the page is built, and _static/sliders.js moves among them: a choice
for each of a grid's first settings, a slider for the last, and what was measured there as a sentence and in a plot.

A grid has ``choices``, the options of each by name, and ``series``: by the numbers of the options, such as ``"0,2"``,
the points along the slider, each as its place on the axes and its words, the first of which names the stop. What was
not measured is missing. Its other words stand in sliders.toml.
"""

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from extractbook.figures.notebook import mean_sd
from extractbook.reproduction import first_edition
from extractbook.reproduction.ledger import Evidence
from extractbook.reproduction.results import FOLDER
from extractbook.reproduction.scales import scale
from extractbook.sphinx import template
from extractlib.errors import InputError

TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
"""What is said of each grid, by its name."""

Point = tuple[float, float, list[str]]


def grid(choices: Mapping[str, Iterable[str]], line: Callable[..., list[Point]]) -> dict[str, dict]:
    """Return the grid of what `line` makes of one option of each choice: its points, which may be none."""
    series = {}
    for options in product(*map(enumerate, choices.values())):
        numbers, names = zip(*options, strict=True)
        series[",".join(map(str, numbers))] = line(*names)
    return {
        "choices": {name: list(options) for name, options in choices.items()},
        "series": {numbers: points for numbers, points in series.items() if points},
    }


def line(stops: Mapping[str, tuple[float, Mapping[int, float]]]) -> list[Point]:
    """Return the points of stops by their words, each with its place on the axis and the values by seed, if any."""
    measured = {words: (place, list(seeds.values())) for words, (place, seeds) in stops.items() if seeds}
    return [
        (place, sum(seeds) / len(seeds), [words, mean_sd(seeds, digits=2), str(len(seeds))])
        for words, (place, seeds) in measured.items()
    ]


def budget(evidence: Evidence) -> dict[str, dict]:
    """Return recovery by task and granularity, along the budgets."""
    settings = scale("drawn")
    low, high = math.log(settings.budgets[0]), math.log(settings.budget)
    places = {queries: (math.log(queries) - low) / (high - low) for queries in settings.budgets}

    def along(task: str, answers: str) -> list[Point]:
        values = {count: evidence.values(task, granularity=answers, budget=count) for count in places}
        return line({f"{count:,}": (place, values[count]) for count, place in places.items()})

    return grid({"Task": evidence.tasks, "Answers": ["full", *settings.granularities]}, along)


def threshold(evidence: Evidence) -> dict[str, dict]:
    """Return the ROC by task, detector and pool, along the detector's threshold."""

    def along(task: str, detector: str, queries: str) -> list[Point]:
        pool = {"first pool": "pool", "second pool": "second"}[queries]
        curves = list(evidence.values(task, detector, pool, "roc", experiment="detection").values())
        # The thresholds are ranks among benign scores: those of different seeds belong together.
        return [
            (x, y, [f"{x:.1%}", f"{y:.1%}", f"{100 * (1 - x):.1f}", f"{100 * (1 - y):.1f}", str(len(curves))])
            for x, y in (np.mean(curves, axis=0).T.tolist() if curves else ())
        ]

    detectors = ["binary", "odin", "mahalanobis"]
    return grid({"Task": evidence.tasks, "Detector": detectors, "Queries from": ["first pool", "second pool"]}, along)


def overlap(evidence: Evidence) -> dict[str, dict]:
    """Return the detector's balanced accuracy by task and source, along the overlap of pool and task."""

    def along(task: str, source: str) -> list[Point]:
        cell = {"experiment": "overlap", "pool": sources[source].format(task)}
        measured = partial(evidence.values, task, "balanced_accuracy", **cell)
        return line({f"{share:.0%}": (share, measured(overlap=share)) for share in scale("drawn").overlaps})

    sources = {"another source": "{}/shifted", "the very same": "{}"}
    return grid({"Task": evidence.tasks, "Own images from": sources}, along)


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
            found = GRIDS[name](Evidence(first_edition("drawn")))
        except InputError as error:
            raise self.error(f"sliders {name}: {error}") from error
        if not found["series"]:
            raise self.error(f"sliders {name}: nothing of it is measured at scale drawn")
        data = json.dumps(TEXTS[name] | found, separators=(",", ":")).replace("</", "<\\/")
        return [nodes.raw("", template("sliders", title=title, data=data), format="html")]


def setup(app) -> dict:
    """Register with Sphinx."""
    app.add_directive("sliders", Sliders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
