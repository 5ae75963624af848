"""What only chapter 1 shows: three copies on the same images, what attackers recover, the bill on photographs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLACK, BLUE, GREEN, STYLE, VERMILION, Plot, name_rows, summaries
from extractbook.figures.chapter_11 import NAMES, NEAR, worth
from extractbook.figures.pictures import beside
from extractbook.reproduction.scales import scale

PUBLIC, OWN, CONSTANT = "public images", "own images", "constant"

LOOKS = {PUBLIC: ("s", VERMILION), OWN: ("D", GREEN), CONSTANT: ("|", BLACK)}
"""Marker and color of each attacker, and of the constant predictor, which needs none."""


def same_images(
    images: torch.Tensor, labels: torch.Tensor, copies: Mapping[str, torch.Tensor], classes: Sequence[str]
) -> Figure:
    """Return test images with what each copy answers: ✓ where it is right, ✗ and its label where it is wrong.

    Args:
        images: uint8 of shape (n, channels, height, width).
        labels: The true labels, int64 of shape (n,).
        copies: The labels that each copy gives, by the copy's name; at most three copies.
        classes: The name of each class.
    """
    texts = []
    for number, truth in enumerate(labels.tolist()):
        lines = [(classes[truth], BLACK)]
        for name, said in copies.items():
            label = int(said[number])
            lines.append((f"✓ {name}", BLUE) if label == truth else (f"✗ {name}: {classes[label]}", VERMILION))
        texts.append(lines)
    return beside(images, texts)


def recovered(frame: pd.DataFrame, *, name: str = "drawn") -> pd.DataFrame:
    """Return what two attackers and a constant predictor recover, one line per task, seed and entry of `LOOKS`.

    Args:
        frame: Rows of the tables ``"reproduction"`` and ``"own_images"``.
        name: The scale of the rows.
    """
    settings = scale(name)
    plain = frame[(frame["granularity"].astype(str) == "full") & (frame["attack"] == "random")]
    public = plain[(plain["table"] == "reproduction") & (plain["budget"] == settings.budget)]
    own = plain[(plain["pool"].astype(str) == plain["task"] + "/shifted") & (plain["budget"] == settings.own_number)]
    constant = public.assign(recovery=public["constant_accuracy"] / public["victim_accuracy"])
    kinds = {PUBLIC: public, OWN: own, CONSTANT: constant}
    lines = pd.concat({kind: part[["task", "seed", "recovery"]] for kind, part in kinds.items()}, names=["attacker"])
    return lines.reset_index("attacker").reset_index(drop=True)


def attackers(lines: pd.DataFrame) -> Plot:
    """Return a plot of what `recovered` returns, one row per task: mean ± standard deviation over several seeds."""
    grouped = lines.groupby(["attacker", "task"], sort=False)["recovery"]
    data = summaries([(kind, task, list(values)) for (kind, task), values in grouped], "Task", "recovery")
    tasks = list(dict.fromkeys(lines["task"]))
    with style.context(STYLE):
        figure = Plot(data, height=3.4)
        axes = figure.subplots()
        for place, (kind, (marker, color)) in enumerate(LOOKS.items()):
            line = data[data["Series"] == kind]
            y = [tasks.index(task) + 0.15 * (place - 0.5) for task in line["Task"]]
            look: dict[str, Any] = {"color": color, "markersize": 16 if marker == "|" else 9, "markeredgewidth": 2}
            axes.errorbar(line["recovery"], y, xerr=line["±"], fmt=marker, label=kind, **look)
        name_rows(axes, tasks)
        axes.set(xlim=(0, 1.05), xlabel="recovery: copy's / victim's accuracy")
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def factors(
    copies: pd.DataFrame, controls: pd.DataFrame, *, label_price: float, query_price: float
) -> dict[str, float]:
    """Return by task how many times as much the control's labels cost as the copy's queries, on photographs.

    Tasks whose control is not within `NEAR` of the copy on validation images are left out: there its labels do not say
    what a copy is worth.

    Args:
        copies, controls: Rows of the tables reproduction and control at scale photos.
        label_price, query_price: What a label and a query cost.
    """
    found = worth(copies, controls)
    near = found[found["lead"].abs() <= NEAR]
    return (near["labels"] * label_price / (near["answers"] * query_price)).to_dict()


def factor_words(copies: pd.DataFrame, controls: pd.DataFrame, *, label_price: float, query_price: float) -> str:
    """Return what `factors` returns, as a sentence."""
    found = factors(copies, controls, label_price=label_price, query_price=query_price)
    listed = " and ".join(f"about {value:.0f} on {NAMES[task]}" for task, value in found.items())
    return (
        "On photographs, whose independent controls need far fewer labels ([chapter 11](11_scale.ipynb)), the factor is"
        f" much smaller at the same prices: {listed}; on the other tasks, no control is about as accurate as the copy."
    )
