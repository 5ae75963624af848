"""Figures for chapter 4 only: one query at several granularities, and what answers to several kinds of images hold."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from extractbook.figures.base import BLUE, GREEN, ORANGE, STYLE, VERMILION, Plot, name_rows
from extractlib.api.granularity import Answers, Granularity
from extractlib.data.drawn import TASKS, draw
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.metrics import mutual_information
from extractlib.models.classifier import Victim, load_victim

COLUMNS = 6
"""Number of classes that fit into the picture of one query."""

LOOKS = {
    "the task's test images": ("o", BLUE),
    "images of the pool": ("s", VERMILION),
    "noise": ("^", ORANGE),
    "own images, another source": ("D", GREEN),
}
"""Marker and color of each kind of image."""


def one_query(image: torch.Tensor, answers: Mapping[str, Answers], examples: ImageSet) -> Figure:
    """Return a picture of a query and what answers at several granularities show of it, one row each.

    Args:
        image: uint8 of shape (channels, height, width).
        answers: The answer to this image alone at each granularity, by name; ``"full"`` must be among them.
        examples: Labeled images of the victim's task; the first image of a class represents it.

    Raises:
        InputError: The answer called ``"full"`` shows no probabilities.
    """
    known = answers["full"].probabilities
    if known is None:
        raise InputError("the answer called 'full' shows no probabilities: ask with answers='full'")
    best = known[0].topk(min(COLUMNS, known.shape[1])).indices.tolist()
    labels = examples.known_labels()
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(6, 0.9 + 0.5 * len(answers)))
        width, height = 1 / (len(best) + 2), 0.9 / (0.9 + 0.5 * len(answers))
        _picture(figure, image, (0.03, 1 - height * 0.98, width * 0.9, height * 0.86))
        axes = figure.add_axes((2 * width, 0.0, 1 - 2 * width, 1 - height))
        axes.set(xlim=(0, len(best)), ylim=(len(answers), 0))
        axes.set_axis_off()
        for column, label in enumerate(best):
            first = int((labels == label).nonzero()[0])
            place = ((column + 2.1) * width, 1 - height * 0.98, width * 0.8, height * 0.86)
            _picture(figure, examples.images[first], place)
        for row, (kind, answer) in enumerate(answers.items()):
            axes.text(-0.15, row + 0.5, kind, ha="right", va="center", fontsize=12)
            for column, share in enumerate(shown(answer, label) for label in best):
                _cell(axes, column, row, share)
    return figure


def shown(answer: Answers, label: int) -> float | None:
    """Return what an answer to one image shows of a class: its probability, 1 for a bare label, None if hidden."""
    if answer.probabilities is None:
        return 1.0 if int(answer.labels[0]) == label else None
    if answer.classes is None:
        return answer.probabilities[0, label].item()
    places = (answer.classes[0] == label).nonzero()
    return answer.probabilities[0, int(places[0])].item() if len(places) else None


def _picture(figure: Figure, image: torch.Tensor, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place)
    axes.set_axis_off()
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")


def _cell(axes: Axes, column: int, row: int, share: float | None) -> None:
    """Draw what is shown of a class: darker if more likely, hatched if hidden."""
    place, size = (column + 0.04, row + 0.06), (0.92, 0.88)
    if share is None:
        axes.add_patch(Rectangle(place, *size, facecolor="white", edgecolor="#999999", hatch="////", linewidth=0.8))
        return
    fill = (1 - 0.9 * share, 1 - 0.55 * share, 1 - 0.3 * share)
    axes.add_patch(Rectangle(place, *size, facecolor=fill, edgecolor="#999999", linewidth=0.8))
    color = "white" if share > 0.6 else "black"
    axes.text(column + 0.5, row + 0.5, f"{share:.2f}", ha="center", va="center", color=color, fontsize=12)


# -- the five victims that ship ------------------------------------------------


def measured(kinds: Sequence[str], images: Mapping[str, torch.Tensor], *, count: int, seed: int = 0) -> pd.DataFrame:
    """Return what the answers of the five shipped victims hide and how varied they are.

    Args:
        kinds: Granularities by name.
        images: Images that all victims get, by name, uint8; each victim also gets its task's test images and the
            adversary's images from another source.
        count: How many of the latter two are drawn, each.
        seed: The seed for drawing them.

    Returns:
        A row for each task and kind of image, named as in `LOOKS`: for each granularity, the mean total variation
        distance of its targets from the full answers, in [0, 1]; and the ``mean entropy`` and ``mutual information``
        of the full answers, in bits.
    """
    lines = []
    for task in TASKS:
        victim = load_victim(task)
        own = {
            "the task's test images": draw(task, part="test", size=count, seed=seed),
            "own images, another source": draw(task, part="adversary", size=count, seed=seed, shifted=True),
        }
        asked = dict(images) | {name: one.images[:] for name, one in own.items()}
        lines += [{"task": task, "images": name, **_measures(victim, batch, kinds)} for name, batch in asked.items()]
    return pd.DataFrame(lines)


def _measures(victim: Victim, images: torch.Tensor, kinds: Sequence[str]) -> dict[str, float]:
    logits = victim.logits(images)
    full = logits.double().softmax(1)
    told = {kind: Granularity.parse(kind).apply(logits).targets(full.shape[1]).double() for kind in kinds}
    found = {kind: (targets - full).abs().sum(1).mean().item() / 2 for kind, targets in told.items()}
    found["mean entropy"] = torch.special.entr(full).sum(1).mean().item() / math.log(2)
    return found | {"mutual information": mutual_information(full) / math.log(2)}


def distances(data: pd.DataFrame, kinds: Sequence[str]) -> Plot:
    """Return a plot of how far targets are from the full answers, a panel per granularity and a row per task.

    Args:
        data: What `measured` returns, or some of its rows.
        kinds: The granularities.
    """
    data = data[["task", "images", *kinds]]
    tasks, names = list(dict.fromkeys(data["task"])), list(dict.fromkeys(data["images"]))
    with style.context(STYLE):
        figure = Plot(data, height=3.6)
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            wide = data.pivot(index="task", columns="images", values=kind).loc[tasks]
            axes.hlines(range(len(tasks)), wide.min(axis=1), wide.max(axis=1), color="#BBBBBB", zorder=1)
            for name in names:
                marker, color = LOOKS[name]
                axes.plot(wide[name], range(len(tasks)), marker, color=color, label=name, markersize=8)
            axes.set(title=kind, xlim=(-0.02, 1.15 * data[kind].max()))
        name_rows(panels[0], tasks)
        figure.supxlabel("total variation distance from the full answer", fontsize=12)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def varieties(data: pd.DataFrame) -> Plot:
    """Return a plot of single answers' uncertainty against all answers' variety, a mark per task and kind of image.

    Args:
        data: What `measured` returns.
    """
    data = data[["task", "images", "mean entropy", "mutual information"]]
    with style.context(STYLE):
        figure = Plot(data, height=4.4)
        axes = figure.subplots()
        for name, line in data.groupby("images", sort=False):
            marker, color = LOOKS[str(name)]
            axes.plot(line["mean entropy"], line["mutual information"], marker, color=color, label=name, markersize=8)
            for task, x, y in zip(line["task"], line["mean entropy"], line["mutual information"], strict=True):
                axes.annotate(task, (x, y), (5, 3), textcoords="offset points", fontsize=9, color=color)
        axes.set(xlabel="mean entropy of an answer, bits", ylabel="mutual information, bits", ylim=(0, None))
        axes.set_xlim(0, 1.15 * data["mean entropy"].max())
        figure.legend(loc="outside upper center", ncols=2)
    return figure
