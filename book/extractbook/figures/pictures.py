"""Pictures that several chapters share: the threat model, queries with answers, errors repeated or corrected."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from extractbook.figures.base import BLACK, BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot
from extractlib.errors import InputError, check_choice

BOXES: Mapping[str, tuple[str, float, float, float]] = {
    "data": ("victim's images", 0.2, 5.7, 2.9),
    "victim": ("victim", 0.2, 3.5, 2.9),
    "meter": ("meter", 4.2, 5.35, 2.6),
    "detector": ("detector", 4.2, 3.95, 2.6),
    "policy": ("policy", 4.2, 2.55, 2.6),
    "pool": ("pool of images", 8.8, 5.7, 3.0),
    "transfer": ("transfer set", 8.8, 3.5, 3.0),
    "surrogate": ("surrogate", 8.8, 1.3, 3.0),
    "weights": ("public weights", 4.0, 0.1, 3.0),
}
"""Boxes of the threat model's drawing: text, and the left, bottom and width of each, in half inches."""

ARROWS: Mapping[str, tuple[tuple[float, float], tuple[float, float], str]] = {
    "training": ((1.65, 5.7), (1.65, 4.6), "trains"),
    "serving": ((3.1, 4.05), (3.85, 4.05), ""),
    "queries": ((8.8, 6.25), (7.15, 6.25), "queries"),
    "answers": ((7.15, 4.05), (8.8, 4.05), "answers"),
    "stealing": ((10.3, 3.5), (10.3, 2.4), "trains"),
    "victim's start": ((4.0, 0.65), (1.65, 3.5), ""),
    "shared start": ((7.0, 0.65), (8.8, 1.6), ""),
}
"""Arrows of the drawing: start, end and label of each."""

API = "api"
"""Name of the frame around meter, detector and policy."""

LINES, LETTERS = 4, 28
"""Most lines of text beside an image, and most letters in a line."""


def threat_model(highlight: str | Collection[str] = ()) -> Figure:
    """Return a drawing of the threat model: what the owner has, what the attacker has, and what passes between them.

    Args:
        highlight: Parts to color: names from `BOXES` and `ARROWS`, or ``"api"`` for the whole service.

    Raises:
        InputError: There is no such part.
    """
    parts = {highlight} if isinstance(highlight, str) else set(highlight)
    for part in parts:
        check_choice("part of the threat model", part, (*BOXES, *ARROWS, API))
    with style.context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.9))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 12), ylim=(-0.1, 7.8))
        axes.set_axis_off()
        for left, width, text, color in ((0, 7.4, "the owner", BLUE), (8.4, 3.6, "the attacker", VERMILION)):
            _box(axes, (left, 1.0, width, 6.0), fill="none", edge=color, dashed=True)
            axes.text(left + width / 2, 7.3, text, ha="center", va="center", color=color, weight="bold")
        _box(axes, (3.85, 2.3, 3.3, 4.55), fill=_fill(API, parts), edge=BLACK, label=API)
        axes.text(5.5, 6.62, "prediction API", ha="center", va="center", fontsize=11)
        for name, (text, left, bottom, width) in BOXES.items():
            _box(axes, (left, bottom, width, 1.1), fill=_fill(name, parts), edge=BLACK, label=name)
            axes.text(left + width / 2, bottom + 0.55, text, ha="center", va="center", fontsize=11)
        for name, (start, end, text) in ARROWS.items():
            color, thick = (VERMILION, 2.5) if name in parts else (BLACK, 1.2)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": thick})
            x, y, upright = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, start[0] == end[0]
            written = axes.text(x + 0.12 * upright, y + 0.05, text, color=color, fontsize=10.5)
            written.set(ha="left" if upright else "center", va="center" if upright else "bottom")
            if text:
                written.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
    return figure


def _fill(name: str, parts: Collection[str]) -> str:
    return ORANGE if name in parts else "white"


def _box(
    axes: Axes, place: tuple[float, float, float, float], *, fill: str, edge: str, dashed: bool = False, label: str = ""
) -> None:
    left, bottom, width, height = place
    look: dict[str, Any] = {"facecolor": fill, "edgecolor": edge, "linestyle": "--" if dashed else "-", "label": label}
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.15", **look))


# -- images with text beside them ------------------------------------------------


def queries(images: torch.Tensor, answers: torch.Tensor, classes: Sequence[str], *, top: int = 3) -> Figure:
    """Return queries with the victim's most probable classes beside each image.

    Args:
        images: uint8 of shape (n, channels, height, width).
        answers: The victim's answers: probabilities, float of shape (n, classes), or labels, int64 of shape (n,).
            A class below 0.005 is not shown.
        classes: Name of each class.
        top: How many classes to name, at most four.

    Raises:
        InputError: The numbers of images and answers differ, or there are none.
    """
    if answers.ndim == 1:
        answers = torch.nn.functional.one_hot(answers, len(classes)).float()
    best = answers.topk(min(top, LINES, answers.shape[1]), dim=1)
    texts = [
        [(f"{share:.2f} {classes[number]}", BLACK) for share, number in zip(*row, strict=True) if share >= 0.005]
        for row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return beside(images, texts)


def errors(
    images: torch.Tensor,
    labels: torch.Tensor,
    victim: torch.Tensor,
    copy: torch.Tensor,
    control: torch.Tensor,
    classes: Sequence[str],
    *,
    shown: int = 8,
    named: str = "control",
) -> Plot:
    """Return errors of a victim, with the answers of a copy and an independent control to the same test images.

    A model's line says whether it repeats the victim's error (=), corrects it (✓) or makes a different error (≠). The
    images are the first that the victim gets wrong; the data counts all images.

    Args:
        images: The test images, uint8 of shape (n, channels, height, width).
        labels: The true labels, int64 of shape (n,).
        victim, copy, control: The labels that the three models give, int64 of shape (n,).
        classes: Name of each class.
        shown: How many errors to show at most.
        named: The control's name in the picture.

    Returns:
        The picture. Its data has a line each for copy and control: the number of images on which it ``agrees`` with
        the victim (right or wrong), the number of the victim's ``errors``, and how many of them are ``repeated``,
        ``corrected`` and ``other``.

    Raises:
        InputError: The victim makes no errors.
    """
    wrong = (victim != labels).nonzero()[:, 0]
    models = {"copy": copy, named: control}
    counts = []
    for name, model in models.items():
        repeats, corrects = int((model == victim)[wrong].sum()), int((model == labels)[wrong].sum())
        agrees = int((model == victim).sum())
        counts.append((name, len(labels), agrees, len(wrong), repeats, corrects, len(wrong) - repeats - corrects))
    columns = ["Series", "images", "agrees", "errors", "repeated", "corrected", "other"]
    texts = []
    for number in wrong[:shown].tolist():
        truth, said = int(labels[number]), int(victim[number])
        lines = [(f"true: {classes[truth]}", BLACK), (f"victim: {classes[said]}", BLACK)]
        for name, model in models.items():
            label = int(model[number])
            sign, color = {said: ("=", VERMILION), truth: ("✓", BLUE)}.get(label, ("≠", BLACK))
            lines.append((f"{sign} {name}: {classes[label]}", color))
        texts.append(lines)
    return beside(images[wrong[:shown]], texts, data=pd.DataFrame(counts, columns=columns))


def beside(
    images: torch.Tensor, texts: Sequence[Sequence[tuple[str, str]]], *, data: pd.DataFrame | None = None
) -> Any:
    """Return images in two columns, each with lines of colored text to its right.

    Raises:
        InputError: The numbers of images and texts differ, or there are none.
    """
    if len(images) != len(texts) or not texts:
        raise InputError(f"{len(images)} images and {len(texts)} answers: expected equal numbers, at least one")
    rows = (len(texts) + 1) // 2
    with style.context([STYLE, {"axes.grid": False, "font.size": 10}]):
        height = 0.1 + 0.86 * rows
        figure = Figure(figsize=(WIDTH, height)) if data is None else Plot(data, height=height)
        figure.set_layout_engine("none")
        side, step = 0.76 / WIDTH, 0.86 / height
        for place, (image, lines) in enumerate(zip(images, texts, strict=True)):
            left, bottom = 0.01 + 0.5 * (place % 2), 1 - step * (place // 2 + 1)
            axes = figure.add_axes((left, bottom, side, 0.76 / height))
            axes.set_axis_off()
            axes.imshow(image.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
            for line, (text, color) in enumerate(lines):
                text = text if len(text) <= LETTERS else f"{text[: LETTERS // 2]}…{text[1 - LETTERS // 2 :]}"
                figure.text(left + side + 0.01, bottom + (0.64 - 0.19 * line) / height, text, color=color, va="center")
    return figure


def gallery(rows: Mapping[str, torch.Tensor], *, columns: int = 8) -> Figure:
    """Return rows of images, each row under its name; a row with fewer images than columns ends early.

    Args:
        rows: Images by row name, uint8 of shape (n, channels, height, width), with 1 or 3 channels.
        columns: Most images in a row.
    """
    side, height = WIDTH / columns, len(rows) * (WIDTH / columns + 0.32)
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, height))
        for number, (name, images) in enumerate(rows.items()):
            top = height - number * (side + 0.32) - 0.3
            figure.text(0.005, (top + 0.05) / height, name)
            for place, image in enumerate(images[:columns]):
                box = (place / columns, (top - side) / height, 0.96 / columns, 0.96 * side / height)
                axes = figure.add_axes(box)
                axes.set_axis_off()
                axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    return figure
