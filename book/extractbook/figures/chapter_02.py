"""Figures that only chapter 2 shows: the sets side by side, nearest images, and how near a pool is to each task."""

from collections.abc import Mapping

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLACK, BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot, name_rows
from extractlib.data.drawn import TASKS, draw
from extractlib.data.images import ImageSet
from extractlib.models import networks

LABEL_WIDTH = 1.25
"""Width of the names beside rows of images, in inches."""

LOOKS = {
    "the task itself": ("o", BLUE),
    "atlas": ("s", VERMILION),
    "web": ("D", ORANGE),
    "noise": ("^", BLACK),
}
"""Marker and color of each set of images that a task's images are compared with."""


def rows(images: Mapping[str, torch.Tensor]) -> Figure:
    """Return rows of images, each with its name to the left.

    Args:
        images: The images of each row, uint8 of shape (n, 3, height, width), by the row's name, which can have several
            lines; every row has the same number of images.
    """
    columns = len(next(iter(images.values())))
    side = (WIDTH - LABEL_WIDTH) / columns
    height = side * len(images)
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, height))
        for row, (name, batch) in enumerate(images.items()):
            bottom = 1 - side * (row + 1) / height
            axes = figure.add_axes((LABEL_WIDTH / WIDTH, bottom, 1 - LABEL_WIDTH / WIDTH, side / height))
            axes.set_axis_off()
            padded = F.pad(batch, (1, 1, 1, 1), value=255)
            axes.imshow(padded.permute(2, 0, 3, 1).flatten(1, 2).numpy(), interpolation="nearest", aspect="auto")
            place = ((LABEL_WIDTH - 0.1) / WIDTH, bottom + side / height / 2)
            figure.text(*place, name, ha="right", va="center", fontsize=10)
    return figure


def of_classes(images: ImageSet, names: tuple[str, ...], *, each: int) -> dict[str, torch.Tensor]:
    """Return the first images of some classes, uint8 of shape (each, 3, height, width), by class name."""
    labels = images.known_labels()
    places = {name: (labels == images.classes.index(name)).nonzero()[:each, 0] for name in names}
    return {name: images.images[chosen] for name, chosen in places.items()}


def features(images: torch.Tensor) -> torch.Tensor:
    """Return the features of images under the public weights, float32 of shape (n, 64), each of length 1."""
    model = networks.build("resnet", classes=2, seed=0, backbone=networks.shipped_backbone()).eval()
    with torch.inference_mode():
        seen = torch.cat([model.features(model.normalize(batch)) for batch in images.split(500)])
    return F.normalize(seen.clone())


def nearness(images: Mapping[str, torch.Tensor], *, count: int, seed: int = 0) -> pd.DataFrame:
    """Return how near sets of images are to each task: the mean cosine of a test image to the nearest image of the set.

    Args:
        images: The sets by name, uint8; the other test images of the task come first, as ``"the task itself"``. The
            first count − 1 images of each set are used, as many as there are other test images.
        count: How many test images are drawn for each task.
        seed: The seed of the drawing.

    Returns:
        A line for each task and a column for each set.
    """
    sets = {name: features(batch) for name, batch in images.items()}
    lines = {}
    for task in TASKS:
        own = features(draw(task, part="test", size=count, seed=seed).images[:])
        itself = (own @ own.T).fill_diagonal_(-1).amax(1).mean().item()
        others = {name: (own @ seen[: count - 1].T).amax(1).mean().item() for name, seen in sets.items()}
        lines[task] = {"the task itself": itself, **others}
    return pd.DataFrame(lines).T.rename_axis("task")


def near(table: pd.DataFrame) -> Plot:
    """Return a plot of what `nearness` returns, one row per task, the task nearest to *atlas* on top."""
    table = table.sort_values("atlas", ascending=False)
    with style.context(STYLE):
        figure = Plot(table.reset_index(), height=3.6)
        axes = figure.subplots()
        for name, (marker, color) in LOOKS.items():
            if name in table:
                axes.plot(table[name], range(len(table)), marker, color=color, label=name, markersize=9)
        name_rows(axes, list(table.index))
        axes.margins(y=0.12)
        axes.set(xlabel="mean cosine to the nearest image", xlim=(min(0.5, table.min(axis=None) - 0.03), 1.01))
        figure.legend(loc="outside upper center", ncols=4)
    return figure
