"""Figures of chapter 13, Since then."""

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    STYLE,
    VERMILION,
    Plot,
    name_rows,
    plotting,
    summaries,
)
from extractbook.figures.pictures import queries
from extractbook.reproduction.setups import STRENGTHS
from extractlib.defenses.perturbations import ReverseSigmoid

DEFENSES = {
    "none": "no defense",
    "shuffle": "shuffling",
    "misinformation": "misinformation",
    "reverse-sigmoid": "reverse sigmoid",
}
"""The defenses that are compared, with their names in the figure."""

LOOKS = {"none": ("o", BLACK), "shuffle": ("s", ORANGE), "misinformation": ("^", GREEN), "reverse-sigmoid": ("D", BLUE)}
"""Marker and color of each."""


NARROW = 0.1
"""Marks that differ by less than this, intervals included, get an axis of recovery that fits them."""


def perturbations(rows: pd.DataFrame) -> Plot:
    """Return recovery by an adversary with in-distribution images over the cost of each defense, one panel per task.

    Each panel has axes of its own; where they fit marks that are close together, the title says so.

    Args:
        rows: Rows of the tables perturbation and own_images.
    """
    own, cost = judged(rows), costs(rows)["lost"].fillna(0)
    x, y = "points of accuracy that customers lose", "recovery"
    found = own.groupby(["task", "defense"])[y]
    marks = [(f"{task}: {DEFENSES[key]}", cost[task, key], values.tolist()) for (task, key), values in found]
    data = summaries(marks, x, y)
    floors = constant(rows)
    with style.context(STYLE):
        figure = Plot(data, height=3.6)
        panels = figure.subplots(ncols=len(floors), squeeze=False)[0]
        for axes, (task, floor) in zip(panels, floors.items(), strict=True):
            here = data[data["Series"].str.startswith(f"{task}: ")]
            around = here["±"].fillna(0)
            low, high = (here[y] - around).min(), (here[y] + around).max()
            for key, (marker, color) in LOOKS.items():
                line = here[here["Series"] == f"{task}: {DEFENSES[key]}"]
                look = {"color": color, "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 2}
                axes.errorbar(line[x], line[y], line["±"], fmt=marker, label=DEFENSES[key], **look)
            axes.axhline(floor, color=BLACK, linewidth=1, label="constant predictor")
            bottom, top = (np.floor(100 * low) / 100, np.ceil(100 * high) / 100) if high - low < NARROW else (0, 1.05)
            axes.set(title=f"{task}, axis from {bottom:.2f}" if bottom else task, ylim=(bottom, top))
            axes.margins(x=0.15)
            axes.locator_params(axis="x", nbins=4)
        panels[0].set_ylabel(y)
        figure.supxlabel(x, fontsize=12)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def constant(rows: pd.DataFrame) -> dict[str, float]:
    """Return by task the constant predictor's recovery."""
    own = judged(rows)
    return own["constant_accuracy"].div(own["victim_accuracy"]).groupby(own["task"]).mean().to_dict()


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the tasks of B13: own images from a shifted source, random queries, full answers."""
    tasks = set(rows.loc[rows["table"] == "perturbation", "task"])
    like = {"attack": "random", "granularity": "full", "experiment": "extraction"}
    kept = rows[rows["task"].isin(tasks) & (rows["pool"] == rows["task"] + "/shifted")]
    kept = kept[(kept[list(like)] == pd.Series(like)).all(axis=1)]
    budget = kept.loc[kept["table"] == "perturbation", "budget"].max()
    return kept[(kept["budget"] == budget) & kept["defense"].isin(DEFENSES)]


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return recovery, the points of accuracy that customers lose, and how far their answers move (L1), by defense."""
    own = judged(rows).assign(lost=lambda kept: 100 * (kept["victim_accuracy"] - kept["honest_accuracy"]))
    return own.groupby(["task", "defense"])[["recovery", "lost", "honest_l1"]].mean()


def strengths(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return by task and defense the chosen strength in words: the smallest and the largest over the seeds."""
    found = judged(rows).groupby(["task", "defense"])["strength"].agg(["min", "max"]).dropna()
    return {key: " to ".join(dict.fromkeys((f"{low:g}", f"{high:g}"))) for key, low, high in found.itertuples()}


def smallest_tried() -> float:
    """Return the smallest strength of reverse sigmoid above zero that B13 chooses from."""
    return min(filter(None, STRENGTHS["reverse-sigmoid"]))


def greatest(answers: torch.Tensor, change: float) -> tuple[float, float]:
    """Return the greatest strength of reverse sigmoid that changes answers by at most `change`, and what it relabels.

    Args:
        answers: Probabilities, float of shape (n, classes).
        change: Mean L1 distance of the altered answers from these.

    Returns:
        The strength, to within 1%, and the share of answers whose largest probability is another class's.
    """
    everyone, none = torch.ones(len(answers), dtype=torch.bool), torch.empty(len(answers), 0)

    def bent(strength: float) -> torch.Tensor:
        return ReverseSigmoid(strength=strength).answer(answers, everyone, none)

    tried = np.geomspace(1e-6, 1, 1_390)
    place = bisect_right(tried, change, key=lambda strength: float((bent(strength) - answers).abs().sum(1).mean()))
    strength = float(tried[place - 1]) if place else 0.0
    return strength, float((bent(strength).argmax(1) != answers.argmax(1)).float().mean())


def beside(images: torch.Tensor, answers: torch.Tensor, altered: torch.Tensor, classes: tuple[str, ...]) -> Figure:
    """Return queries, each with the victim's answer to its left and the altered one to its right.

    Args:
        images: uint8 of shape (n, channels, height, width).
        answers, altered: Probabilities, float of shape (n, classes).
        classes: Name of each class.
    """
    both = torch.stack([answers, altered], dim=1).flatten(0, 1)
    return queries(images.repeat_interleave(2, dim=0), both, classes)


def below(confidence: Mapping[str, torch.Tensor], threshold: float) -> Plot:
    """Return the share of images that the victim is less sure of than each threshold, one line per kind of image.

    Args:
        confidence: By name of at most three kinds of images, the victim's largest probabilities, float of shape (n,).
        threshold: The threshold that the defense uses, drawn as a vertical line.
    """
    places = np.linspace(0, 1, 101)
    marks = [
        (name, place, [float((found < place).float().mean())]) for name, found in confidence.items() for place in places
    ]
    data = summaries(marks, "threshold τ", "share of the images")[["Series", "threshold τ", "share of the images"]]
    with plotting(data, height=3.4, xlabel="threshold τ", ylabel="share answered falsely", columns=2) as (figure, axes):
        for (name, line), (color, dashes) in zip(
            data.groupby("Series", sort=False), ((VERMILION, "--"), (BLUE, "-"), (GREEN, "-.")), strict=False
        ):
            x, y = line["threshold τ"], line["share of the images"]
            axes.plot(x, y, color=color, linestyle=dashes, label=name, marker="")
        axes.axvline(threshold, color=BLACK, linewidth=1)
        axes.set_ylim(0, 1.02)
    return figure


def attempts(recoveries: Mapping[str, float], floor: float) -> Plot:
    """Return one run's recoveries, one row per attempt.

    Args:
        recoveries: Recovery by name of the attempt.
        floor: The constant predictor's recovery.
    """
    data = pd.DataFrame(recoveries.items(), columns=["Attempt", "recovery"]).assign(Series="one run")
    with plotting(data, height=1.2 + 0.5 * len(data), xlabel="recovery", columns=2) as (figure, axes):
        axes.plot(data["recovery"], range(len(data)), "o", color=BLUE, markersize=9, label="one run")
        axes.axvline(floor, color=BLACK, linewidth=1, label="constant predictor")
        name_rows(axes, list(recoveries))
        axes.set_xlim(0, 1.05)
    return figure


def spectra(values: Mapping[str, torch.Tensor], size: int) -> Plot:
    """Return singular values in descending order, one line per kind of answer.

    Args:
        values: Singular values by what the answers show, of three kinds, float of shape (values,).
        size: Size of the hidden state, drawn as a vertical line.
    """
    data = pd.DataFrame(
        [(name, place, float(value)) for name, line in values.items() for place, value in enumerate(line, 1)],
        columns=["Series", "place", "singular value"],
    )
    with plotting(data, height=3.4, xlabel="place", ylabel="singular value", columns=3) as (figure, axes):
        for (name, line), (color, dashes) in zip(
            data.groupby("Series", sort=False), ((BLUE, "-"), (VERMILION, "--"), (GREEN, ":")), strict=True
        ):
            axes.plot(line["place"], line["singular value"], color=color, linestyle=dashes, label=name, marker="")
        axes.axvline(size, color=BLACK, linewidth=1)
        axes.set_yscale("log")
    return figure
