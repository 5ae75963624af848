"""A slider over the thresholds of detectors that needs no kernel, as a Sphinx extension.

A block in a notebook's Markdown puts it on a page, and the block's text says what it shows:

    ```{sliders}
    What a threshold costs, by task, detector and pool.
    ```

The numbers come from the committed results when the page is built, and _static/sliders.js moves among them: there is a
choice for each of ``choices``, by name, and a slider along ``series``. Its keys are the numbers of the chosen options,
such as ``"0,2,1"``, and its values the points: each has its place on the axes and its words, and the first word names
the slider's stop.
"""

import json
from itertools import product

import numpy as np
import pandas as pd
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from extractbook.reproduction.results import FOLDER, newest
from extractbook.sphinx import template

CHOICES = {
    "Detector": {"binary": "binary", "ODIN": "odin", "Mahalanobis": "mahalanobis"},
    "Queries from": {"atlas": "pool", "web": "second"},
}
"""Words on the page, and parts of a column's name."""

WORDS = {
    "slider": "Benign queries accepted",
    "across": "TPR: share of benign queries accepted",
    "upward": "TNR: share of the pool's queries detected",
    "sentence": "At this threshold, {0} of benign queries are accepted (TPR) and {1} of the pool's are detected (TNR). "
    "Of 100 answers, an honest user loses {2}, and the attacker keeps {3} (seeds: {4}).",
}


def thresholds(rows: pd.DataFrame) -> dict[str, dict]:
    """Return the mean ROC by task, detector and pool.

    Args:
        rows: Rows of the table ``detection`` (see `newest`).
    """
    tasks, series = list(dict.fromkeys(rows["task"])), {}
    options = [list(enumerate(tasks)), *(list(enumerate(names.values())) for names in CHOICES.values())]
    for chosen in product(*options):
        numbers, (task, detector, pool) = zip(*chosen, strict=True)
        curves = rows.loc[rows["task"] == task, f"{detector}.{pool}.roc"].tolist()
        # The thresholds are ranks among benign scores: the same ranks of different seeds belong together.
        series[",".join(map(str, numbers))] = [
            (tpr, tnr, [f"{tpr:.1%}", f"{tnr:.1%}", f"{100 * (1 - tpr):.1f}", f"{100 * (1 - tnr):.1f}", len(curves)])
            for tpr, tnr in np.mean(curves, axis=0).T.tolist()
        ]
    return {"choices": {"Task": tasks} | {name: list(names) for name, names in CHOICES.items()}, "series": series}


class Sliders(SphinxDirective):
    """The block that shows the sliders."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the numbers as data for the script, with the block's text as the title."""
        title = " ".join(self.content).strip()
        if not title:
            raise self.error("sliders: the block is empty: write a text that says what they show")
        for path in FOLDER.glob("*/drawn/detection.jsonl"):
            self.env.note_dependency(str(path))
        data = json.dumps(WORDS | thresholds(newest("detection")), separators=(",", ":")).replace("</", "<\\/")
        return [nodes.raw("", template("sliders", title=title, data=data), format="html")]


def setup(app) -> dict:
    """Register with Sphinx."""
    app.add_directive("sliders", Sliders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
