"""Figures, tables and sentences of chapter 7, Architecture and initial weights."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from matplotlib.figure import Figure

from extractbook.figures.base import BLACK, STYLE, WIDTH, Plot, summaries
from extractbook.figures.notebook import table
from extractbook.figures.origin import seed_count
from extractbook.figures.plots import constant_recovery, dots, grouped
from extractlib.models import networks

STARTS = {
    ("resnet", "A"): "ResNet A, as the victim",
    ("resnet", "B"): "ResNet B",
    ("vgg", "A"): "VGG A",
    ("vgg", "B"): "VGG B",
}
"""What a surrogate of the pre-trained ResNet victim starts from, and its name in the figures."""

REPEATED = "share of the victim's errors repeated"

KINDS = {"same": "copy, same weights", "other": "copy, other weights", "control": "control, same weights"}
"""Models that are compared by the errors that they repeat, and their names in the figure."""

VICTIMS = {
    ("resnet", "A"): "pre-trained ResNet",
    ("resnet", "none"): "ResNet from scratch",
    ("cnn", "none"): "small CNN from scratch",
}


def grid(rows: pd.DataFrame, column: str, names: Mapping[str, str]) -> Plot:
    """Return recovery by the initial weights or networks of victim and surrogate, one grid for each task.

    The victim's are listed down and the surrogate's across; an entry without rows stays white.

    Args:
        rows: Rows of `book.frame`, only the cells of the grid.
        column: What differs, ``"weights"`` for the columns ``victim_weights`` and ``surrogate_weights``, or
            ``"network"`` for ``victim`` and ``surrogate``.
        names: The values of these columns, and the name of each in the figure.
    """
    sides = ["victim_weights", "surrogate_weights"] if column == "weights" else ["victim", "surrogate"]
    parts = {key: part["recovery"].tolist() for key, part in rows.groupby(["task", *sides])}
    known = [(*key, values) for key, values in parts.items() if {key[1], key[2]} <= set(names)]
    data = summaries(
        ((task, (names[one], names[other]), values) for task, one, other, values in known), "pair", "recovery"
    )
    data[["victim", "surrogate"]] = data.pop("pair").tolist()
    data = data[["Series", "victim", "surrogate", "recovery", "±"]]
    words, tasks = list(names.values()), list(dict.fromkeys(data["Series"]))
    with style.context([STYLE, {"axes.grid": False}]):
        figure = Plot(data, height=0.6 + WIDTH / max(2, len(tasks)))
        for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
            shares = np.full((len(words), len(words)), np.nan)
            for _, line in data[data["Series"] == task].iterrows():
                place = words.index(line["victim"]), words.index(line["surrogate"])
                shares[place] = line["recovery"]
                text = f"{line['recovery']:.2f}" + ("" if np.isnan(line["±"]) else f"\n± {line['±']:.2f}")
                color = "white" if line["recovery"] > 0.6 else BLACK
                axes.text(place[1], place[0], text, ha="center", va="center", color=color)
            axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
            axes.set(title=task, xlabel="surrogate", ylabel="victim" if axes.get_subplotspec().is_first_col() else "")
            axes.set_xticks(range(len(words)), words)
            axes.set_yticks(range(len(words)), words, rotation=90, va="center")
    return figure


def crossed(rows: pd.DataFrame) -> pd.Series:
    """Return what shared weights gain by task: the mean of ½ [(AA + BB) − (AB + BA)] over the recoveries."""
    wide = rows.pivot_table(index=["task", "seed"], columns=["victim_weights", "surrogate_weights"], values="recovery")
    same, other = wide["A", "A"] + wide["B", "B"], wide["A", "B"] + wide["B", "A"]
    return ((same - other) / 2).dropna().groupby("task").mean()


def crossed_words(rows: pd.DataFrame) -> str:
    """Return a sentence on what shared initial weights gain, task by task."""
    steps = " or ".join(f"{count:,.0f}" for count in sorted(rows["steps"].unique()))
    return (
        f"At {steps} steps, starting from the same weights as the victim raises recovery by"
        f" {_listed(crossed(rows))}, averaged over both directions."
    )


def starts(rows: pd.DataFrame) -> Plot:
    """Return the recovery of the pre-trained ResNet victim by what the surrogate starts from, one row for each task.

    Args:
        rows: Rows of the tables reproduction and architecture; tasks without another network are left out.
    """
    kept = rows[(rows["victim"] == "resnet") & (rows["victim_weights"] == "A")]
    kept = _named(kept, "surrogate", "surrogate_weights", STARTS)
    return dots(grouped(kept, "start", _words(STARTS)), xlabel="recovery", constant=constant_recovery(kept), columns=2)


def scratch(rows: pd.DataFrame) -> Plot:
    """Return the recovery of victims by what they start from, with one row for each task.

    The surrogate is the pre-trained ResNet.

    Args:
        rows: Rows of the tables reproduction and architecture.
    """
    kept = rows[(rows["surrogate"] == "resnet") & (rows["surrogate_weights"] == "A")]
    kept = kept.assign(victim=kept["victim"].str.replace(r"cnn.*", "cnn", regex=True))
    kept = _named(kept, "victim", "victim_weights", VICTIMS)
    return dots(grouped(kept, "start", _words(VICTIMS)), xlabel="recovery", constant=constant_recovery(kept), columns=2)


def _named(rows: pd.DataFrame, network: str, weights: str, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return the rows that have a name, with the name in a column ``start``, for tasks with several names."""
    starts = [names.get(pair, "") for pair in zip(rows[network], rows[weights], strict=True)]
    known = rows.assign(start=starts).query("start != ''")
    return known[known.groupby("task")["start"].transform("nunique") > 1]


def _words(names: Mapping[tuple[str, str], str]) -> dict[str, str]:
    return {word: word for word in names.values()}


def _lost(rows: pd.DataFrame, which: pd.Series) -> pd.Series:
    """Return by task how much less other cells recover than the plain attack, as a mean over the seeds."""
    return _gap(_attacks(rows, "resnet", "A"), rows[which].set_index(["task", "seed"])["recovery"])


def _attacks(rows: pd.DataFrame, network: str, weights: str) -> pd.Series:
    """Return by task and seed what a surrogate recovers of the pre-trained ResNet victim."""
    sides = rows[["victim", "victim_weights", "surrogate", "surrogate_weights"]]
    kept = rows[(sides == ["resnet", "A", network, weights]).all(axis=1)]
    return kept.groupby(["task", "seed"])["recovery"].first()


def _gap(before: pd.Series, after: pd.Series) -> pd.Series:
    """Return by task the mean difference at the seeds that have both."""
    return (before - after).dropna().groupby("task").mean()


def _listed(values: pd.Series, digits: int = 2) -> str:
    return " and ".join(f"{value:.{digits}f} on *{task}*" for task, value in values.items()).replace("-", "−")


def _other_weights(rows: pd.DataFrame) -> pd.Series:
    return _gap(_attacks(rows, "resnet", "A"), _attacks(rows, "resnet", "B"))


def _small_victim(rows: pd.DataFrame) -> pd.Series:
    attacked = (rows["surrogate"] == "resnet") & (rows["surrogate_weights"] == "A")
    return _lost(rows, rows["victim"].str.startswith("cnn") & attacked)


def start_words(rows: pd.DataFrame) -> str:
    """Return what a surrogate with another network loses, and with other weights alone, task by task, as sentences."""
    plain, network, weights = (_attacks(rows, *start) for start in (("resnet", "A"), ("vgg", "A"), ("resnet", "B")))
    alone = _gap(plain, weights)
    said = f"The other network lowers recovery by {_listed(_gap(plain, network), 3)}."
    if alone.empty:
        return said
    both = pd.DataFrame({"network": plain - network, "weights": plain - weights}).dropna().groupby("task")
    shares = " and ".join(
        f"{loss['weights'] / loss['network']:.0%} on *{task}* ({seed_count(both.get_group(task).reset_index())})"
        for task, loss in both.mean().iterrows()
    )
    said += (
        f" Other weights for the victim's own network lower it by {_listed(alone, 3)}; as a share of that loss at the"
        f" same seeds, {shares}."
    )
    unshared = _gap(_attacks(rows, "resnet", "B"), _attacks(rows, "vgg", "B"))
    if unshared.empty:
        return said
    return f"{said} Where neither has the victim's weights, the other network recovers less by {_listed(unshared)}."


def scratch_words(rows: pd.DataFrame) -> str:
    """Return what victims from scratch cost the attacker and the owner, next to what other weights cost the attacker.

    Args:
        rows: Rows of the tables reproduction, architecture and weights.
    """
    scratch = (rows["victim"] == "resnet") & (rows["victim_weights"] == "none")
    small, other, alone = _small_victim(rows), _other_weights(rows), _lost(rows, scratch)
    said = f"The small victim from scratch lowers the attacker's recovery by {_listed(small, 3)}"
    said += f", other weights against the pre-trained victim by {_listed(other, 3)}." if len(other) else "."
    price = _accuracy_lost(rows, rows["victim"].str.startswith("cnn"))
    said += f" The small network costs the owner {_listed(price, 3)} of accuracy."
    if alone.empty:
        return f"{said} Rows of a ResNet from scratch, which would keep the architecture, are missing."
    seeds = set(rows.loc[scratch, "seed"])
    same = _other_weights(rows[rows["seed"].isin(seeds)])
    beside = f", where other weights cost {_listed(same, 3)}" if len(same) else ""
    return (
        f"{said} A ResNet from scratch, which keeps the architecture, lowers recovery by {_listed(alone, 3)}"
        f" ({seed_count(rows[scratch])}{beside}), and costs the owner"
        f" {_listed(_accuracy_lost(rows, scratch), 3)} of accuracy."
    )


def _accuracy_lost(rows: pd.DataFrame, which: pd.Series) -> pd.Series:
    """Return by task how much lower a victim's mean accuracy is than the pre-trained victim's, at the same seeds."""
    plain = (rows["victim"] == "resnet") & (rows["victim_weights"] == "A")
    before, after = (rows[kept].groupby(["task", "seed"])["victim_accuracy"].first() for kept in (plain, which))
    return _gap(before, after)


def repeated_words(rows: pd.DataFrame, control: pd.DataFrame) -> str:
    """Return what share of the victim's errors is repeated, out of how many and at what accuracy, task by task.

    Args:
        rows: Rows of the table weights.
        control: Rows of the table control, for the same tasks.
    """
    both = _kinds(rows, control)
    means = both.groupby(["task", "kind"])[["errors_repeated", "surrogate_accuracy"]].mean()
    errors = rows.groupby(["task", "victim_weights"])["errors"].mean()
    lines = []
    for task in sorted(set(both["task"])):
        found = [means.loc[task, kind] for kind in KINDS]
        shares = [f"{of['errors_repeated']:.0%} (accuracy {of['surrogate_accuracy']:.3f})" for of in found]
        count = " and ".join(f"{errors[task, initial]:,.0f} ({initial})" for initial in errors[task].index)
        lines.append(
            f"on *{task}*, where the victims make {count} errors, copies from the same weights repeat {shares[0]},"
            f" copies from other weights {shares[1]}, and the control {shares[2]}"
        )
    return f"Shares of the victim's errors that are repeated: {'; '.join(lines)}."


def repeated(rows: pd.DataFrame, control: pd.DataFrame) -> Plot:
    """Return what share of the victim's errors is repeated, with one row for each task.

    Args:
        rows: Rows of the table weights.
        control: Rows of the table control, for the same tasks.
    """
    # Each seed has two victims, one from each backbone: their mean is one value.
    both = _kinds(rows, control).groupby(["task", "seed", "kind"])["errors_repeated"].mean().reset_index()
    return dots(grouped(both, "kind", KINDS, "errors_repeated"), xlabel=REPEATED, columns=2)


def _kinds(rows: pd.DataFrame, control: pd.DataFrame) -> pd.DataFrame:
    """Return copies and controls of the same tasks, with the kind of each in a column ``kind``."""
    shared = rows["victim_weights"] == rows["surrogate_weights"]
    both = pd.concat([rows.assign(kind=np.where(shared, "same", "other")), control.assign(kind="control")])
    return both[both["task"].isin(set(rows["task"]))]


def backbones() -> str:
    """Return a table of the public backbones: weights, training images, accuracy on images that none has seen."""
    lines = []
    for network in ("resnet", "vgg"):
        count = sum(weight.numel() for weight in networks.build(network, classes=2, seed=0).parameters())
        for initial in networks.INITIAL:
            name = networks.backbone_name(network, initial)
            card = json.loads((networks.WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
            steps = card["recipe"]["epochs"] * card["images"] // card["recipe"]["batch_size"]
            right = f"{card['validation_accuracy']:.1%}"
            lines.append(
                [f"{network} {initial}", f"{count:,}", f"{card['images']:,}", f"{steps:,}", card["seed"], right]
            )
    columns = ["Backbone", "Weights", "Images", "Steps", "Seed", "Validation accuracy"]
    return table(lines, columns, caption="The public backbones, from their cards")


def filters(models: Mapping[str, torch.Tensor]) -> Figure:
    """Return first-layer filters as small images, each scaled to its own range, with one row for each model.

    Args:
        models: By name, float of shape (filters, 3, height, width).
    """
    count = max(map(len, models.values()))
    with style.context([STYLE, {"font.size": 11, "axes.grid": False}]):
        figure = Figure(figsize=(WIDTH, 0.62 * len(models)))
        grids = figure.subplots(len(models), count, squeeze=False, gridspec_kw={"wspace": 0.12, "hspace": 0.65})
        figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.02)
        for (name, weights), axes_row in zip(models.items(), grids, strict=True):
            axes_row[0].set_title(name, loc="left", pad=3)
            for axes, weight in zip(axes_row, weights.detach(), strict=False):
                low, high = weight.min(), weight.max()
                axes.imshow(((weight - low) / (high - low)).permute(1, 2, 0).numpy(), interpolation="nearest")
            for axes in axes_row:
                axes.set_axis_off()
    return figure


def fits(found: Mapping[str, Mapping[str, float]]) -> Plot:
    """Return how well each public backbone explains a victim's answers, with one row for each victim.

    Args:
        found: By victim, by backbone, the share of the variance of held-out answers that a linear head explains.
    """
    groups: dict[str, dict[str, Any]] = {
        victim: {name: [fit] for name, fit in of.items()} for victim, of in found.items()
    }
    return dots(groups, xlabel="explained variance of held-out answers")
