"""What the front page shows: how much is recovered under which conditions, and at which size the tables ran."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from extractbook.figures.base import BLACK, BLUE, Plot, name_rows, plotting, summaries
from extractbook.reproduction import editions, results
from extractbook.reproduction.scales import scale

TABLES = ("reproduction", "granularity", "architecture", "weights", "defended", "diversity", "own_images")

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "own images, a quarter of the queries": {"pool": "{task}/shifted", "budget": "{own_number}"},
    "public images, full answers": {},
    "public images, labels only": {"granularity": "label"},
    "other initial weights": {"surrogate_weights": "B"},
    "other architecture": {"surrogate": "{other_network}"},
    "queries detected, answers shuffled": {"defense": "shuffle"},
    "images of one other task": {"pool": "{narrow_pool}", "budget": "{narrow_budget}"},
}
"""What each condition changes in the plain cell; names in braces are settings of the scale, or the task."""

ONLY = {"granularity": ("full", "label"), "defense": ("none", "shuffle")}
"""Which cells of the tables these conditions show; the figure does not wait for the others."""

PAPER = 224
"""Height and width of the paper's images, in pixels."""

SCALES = {
    "drawn": "Drawn images",
    "photos": "photographs",
    "photos-gpu": "photographs",
    "paper": "the paper's images",
}


def conditions(rows: pd.DataFrame, *, name: str = "drawn") -> Plot:
    """Return a plot of recovery under each of `CONDITIONS` and of a constant predictor, with one mark per task.

    All tasks have the same mark, because chapters 1, 5 and 6 ask their readers to predict which task is which.

    Args:
        rows: Rows of the tables `TABLES`, from the cells `ONLY`.
        name: The scale of the rows.
    """
    settings = scale(name)
    groups: dict[str, dict[str, list[float]]] = {}
    plain: dict[str, Any] = {"pool": settings.pool, "victim": settings.network, "surrogate": settings.network}
    plain |= {"budget": settings.budget, "granularity": "full", "defense": "none", "attack": "random"}
    plain |= {"experiment": "extraction", "fill": "even"}
    plain |= {"victim_weights": "A", "surrogate_weights": "A"}
    names = {key: getattr(settings, key) for key in ("other_network", "narrow_pool", "narrow_budget", "own_number")}
    for condition, changes in CONDITIONS.items():
        for task in settings.tasks:
            if changes.get("pool") == "{narrow_pool}" and task == settings.narrow_pool:
                continue  # there these images are the task's own
            cell = {"task": task, **plain, **changes}
            cell = {key: _named(value, names | {"task": task}) for key, value in cell.items()}
            found = rows[(rows[list(cell)] == pd.Series(cell)).all(axis=1)]
            if len(found):
                groups.setdefault(condition, {})[task] = list(found["recovery"])
    copies = rows[rows["table"] == "reproduction"]
    constant = (copies["constant_accuracy"] / copies["victim_accuracy"]).groupby(copies["task"])
    groups["constant predictor"] = {task: list(values) for task, values in constant}
    marks = [(task, title, values) for title, tasks in groups.items() for task, values in tasks.items()]
    data, titles = summaries(marks, "Group", "recovery"), list(groups)
    means = data.groupby("Group")["recovery"].mean()[titles]
    with plotting(data, height=1.3 + 0.5 * len(titles), xlabel="recovery", columns=2) as (figure, axes):
        look: dict[str, Any] = {"color": BLUE, "capsize": 0, "markersize": 8, "markerfacecolor": "none"}
        rows_of = data["Group"].map(titles.index)
        axes.errorbar(data["recovery"], rows_of, xerr=data["±"], fmt="o", label="one task", **look)
        axes.plot(means, range(len(titles)), "|", color=BLACK, markersize=18, label="mean of the tasks")
        name_rows(axes, titles)
        axes.set_xlim(0, 1.05)
    return figure


def _named(value: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        return value
    alone = value[1:-1] if value.startswith("{") else ""
    return names[alone] if alone in names else value.format(**names)


def sizes() -> str:
    """Return which tables ran at which size, and whether any ran at the paper's, as sentences of Markdown."""
    parts, largest = [], 0
    for name, what in SCALES.items():
        decided, explored = _tables("edition-2", name), _tables("exploring", name)
        pixels = scale(name).image_size
        largest = max(largest, pixels) if decided | explored else largest
        done = f"{_many(decided)} on one or more of the deciding seeds" if decided else ""
        waiting = f"{_many(explored - decided)} on one seed of exploration" if explored - decided else ""
        ran = ", ".join(filter(None, [done, waiting]))
        parts += [f"{what} at {pixels} px: {ran}"] if ran else []
    none = "" if largest == PAPER else f" None of them is at the paper's {PAPER} px."
    return f"{'; '.join(parts)}.{none}"


def _tables(edition: str, name: str) -> set[str]:
    """Return the tables that have rows in an edition at a scale; in the second edition, only rows that count."""
    paths = (results.FOLDER / edition / name).glob(f"*{results.SUFFIX}")
    counts = editions.counts if edition == "edition-2" else lambda row: True
    return {path.stem for path in paths if any(map(counts, results.read_rows(path)))}


def _many(tables: set[str]) -> str:
    return "1 table" if len(tables) == 1 else f"{len(tables)} tables"
