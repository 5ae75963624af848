"""Figures that only chapter 3 shows: how good the victims are, what they get wrong, and how sure they are of it."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLACK, BLUE, ORANGE, STYLE, VERMILION, WIDTH, Plot, name_rows, summaries
from extractbook.figures.pictures import beside
from extractbook.reproduction import paper
from extractlib.data.images import ImageSet

OURS, THEIRS, CONSTANT = "our victims", f"the paper's ({paper.LABEL})", "constant"

LOOKS: Mapping[str, tuple[str, str]] = {OURS: ("o", BLUE), THEIRS: ("D", ORANGE), CONSTANT: ("|", BLACK)}


def victims(frame: pd.DataFrame) -> Plot:
    """Return a plot of the accuracy of our victims, the paper's and a constant predictor, one row per task.

    Args:
        frame: Rows of the table ``"reproduction"``.
    """
    theirs = paper.tables()["reproduction"]["rows"]
    marks: list[tuple[str, object, Sequence[float]]] = []
    for task, rows in frame.groupby("task", sort=False):
        marks.append((OURS, task, list(100 * rows["victim_accuracy"])))
        marks.append((CONSTANT, task, list(100 * rows["constant_accuracy"])))
        twin = paper.victim(str(task))
        if twin:
            marks.append((THEIRS, task, [theirs[twin]["victim"]]))
    data = summaries(marks, "Task", "accuracy, %")
    tasks = list(dict.fromkeys(data["Task"]))
    with style.context(STYLE):
        figure = Plot(data, height=3.8)
        axes = figure.subplots()
        for kind, (marker, color) in LOOKS.items():
            line = data[data["Series"] == kind]
            look: dict[str, Any] = {"color": color, "markersize": 16 if marker == "|" else 9, "markeredgewidth": 2}
            y = [tasks.index(task) for task in line["Task"]]
            axes.errorbar(line["accuracy, %"], y, xerr=line["±"], fmt=marker, label=kind, **look)
        name_rows(axes, [f"{task} ({(paper.victim(task) or 'no twin').removesuffix('-RN34')})" for task in tasks])
        axes.set(xlim=(0, 102), xlabel="accuracy, %")
        axes.margins(y=0.12)
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def confident_errors(images: ImageSet, answers: torch.Tensor, *, shown: int = 8) -> Figure:
    """Return a figure of the errors that a victim is most sure of, each with the true class and the victim's answer.

    Args:
        images: Labeled test images.
        answers: The victim's probabilities, float of shape (n, classes).
        shown: How many errors to show at most.
    """
    labels, (sure, said) = images.known_labels(), answers.max(1)
    wrong = (said != labels).nonzero()[:, 0]
    worst = wrong[sure[wrong].argsort(descending=True)][:shown]
    texts = [
        [(f"true: {images.classes[labels[n]]}", BLACK), (f"{sure[n]:.2f} {images.classes[said[n]]}", VERMILION)]
        for n in worst.tolist()
    ]
    return beside(images.images[worst], texts)


def confused(sets: Mapping[str, tuple[ImageSet, torch.Tensor]], *, pairs: int = 4) -> Plot:
    """Return a plot of the pairs of classes that victims confuse most: an image of each class, and how often.

    Args:
        sets: The labeled test images of each task and the victim's probabilities, float of shape (n, classes). Each
            class is represented by its image with the highest contrast.
        pairs: How many pairs to show for each task.
    """
    counts = {task: _counts(task, images, answers.argmax(1)).head(pairs) for task, (images, answers) in sets.items()}
    contrast = {task: images.images[:].float().flatten(1).std(1) for task, (images, _) in sets.items()}
    with style.context([STYLE, {"axes.grid": False, "font.size": 8}]):
        height = 0.3 + 0.85 * pairs
        figure = Plot(pd.concat(counts.values(), ignore_index=True), height=height)
        figure.set_layout_engine("none")
        for column, (task, (images, _)) in enumerate(sets.items()):
            left, labels = column / len(sets), images.known_labels()
            figure.text(left + 0.01, 1 - 0.15 / height, task, weight="bold", va="center", fontsize=11)
            for row, line in enumerate(counts[task].to_dict("records")):
                bottom = 1 - (0.3 + 0.85 * (row + 1)) / height
                for place, name in enumerate((line["true"], line["taken for"])):
                    label = images.classes.index(name)
                    clearest = int(contrast[task].where(labels == label, -1.0).argmax())
                    spot = (left + 0.01 + place * 0.7 / WIDTH, bottom + 0.12 / height, 0.66 / WIDTH, 0.66 / height)
                    axes = figure.add_axes(spot)
                    axes.set_axis_off()
                    axes.imshow(images.images[clearest].permute(1, 2, 0).numpy(), interpolation="nearest")
                text = f"{line['true']} taken for {line['taken for']}: {line['images']} of {line['of']}"
                figure.text(left + 0.02 + 1.4 / WIDTH, bottom + 0.45 / height, fill(text, 21), va="center")
    return figure


def shared_start_words(frame: pd.DataFrame) -> str:
    """Return what share of the victim's errors controls repeat from its initial weights and from others, as a sentence.

    Args:
        frame: Rows of the independent controls from both initial weights, of the table accusation.
    """
    found = frame.groupby(["task", "surrogate_weights"])["errors_repeated"].agg(["mean", "std", "count"])
    right, told = frame.groupby(["task", "surrogate_weights"])["recovery"].mean(), []
    for task in found.index.unique("task"):
        (same, apart), (by, also) = (found.loc[task, key].loc[["A", "B"]].round(3) for key in ("mean", "std"))
        told.append(
            f"{same:.3f} ± {by:.3f} against {apart:.3f} ± {also:.3f} on *{task}*, with a recovery of"
            f" {right[task, 'A']:.2f} and {right[task, 'B']:.2f}"
        )
    fewest = int(found["count"].min())
    return (
        "Controls that start from the victim's initial weights repeat more of its errors than those that start from"
        f" other weights of the same network: {'; '.join(told)} (mean ± sd over {fewest} controls each)."
    )


def _counts(task: str, images: ImageSet, said: torch.Tensor) -> pd.DataFrame:
    """Return how often each class is taken for another, the most frequent pair first."""
    names = np.array(images.classes)
    labels = images.known_labels()
    wrong = labels != said
    pairs = pd.DataFrame({"true": names[labels[wrong]], "taken for": names[said[wrong]]})
    counts = pairs.value_counts(sort=True).reset_index(name="images")
    counts["of"] = [int((labels == images.classes.index(name)).sum()) for name in counts["true"]]
    return counts.assign(Task=task)


def reliability(answers: Mapping[str, tuple[torch.Tensor, torch.Tensor]], *, groups: int = 5) -> Plot:
    """Return a plot of the share of right answers against confidence in groups of equal size, one panel per task.

    Args:
        answers: For each task, confidences, float of shape (n,), and whether each answer is right, bool of shape (n,).
        groups: How many groups.

    Returns:
        The plot; ± is the standard error of a share.
    """
    lines = []
    for task, (confidence, right) in answers.items():
        order = confidence.argsort()
        for part in order.chunk(groups):
            share = right[part].double().mean().item()
            error = (share * (1 - share) / len(part)) ** 0.5
            lines.append((task, confidence[part].double().mean().item(), share, error, len(part)))
    data = pd.DataFrame(lines, columns=["Series", "confidence", "share correct", "±", "answers"])
    with style.context([STYLE, {"axes.titlesize": 11}]):
        figure = Plot(data, height=2.4)
        panels = figure.subplots(ncols=len(answers), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (task, line) in zip(panels, data.groupby("Series", sort=False), strict=True):
            axes.plot([0, 1], [0, 1], color="#777777", linestyle=":", marker="")
            axes.errorbar(line["confidence"], line["share correct"], line["±"], color=BLUE, markersize=5)
            axes.set(title=task, xlim=(0.2, 1.1), ylim=(0.2, 1.1), xticks=(0.5, 1), yticks=(0.2, 0.4, 0.6, 0.8, 1))
        panels[0].set_ylabel("share correct")
        figure.supxlabel("confidence", fontsize=12)
    return figure
