"""Figures, tables and sentences of chapter 9, Detecting the queries."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import style

from extractbook.figures.base import BLACK, BLUE, GREEN, STYLE, VERMILION, Plot, summaries
from extractbook.figures.notebook import mean_sd, table
from extractbook.figures.origin import seed_count, seeds
from extractbook.figures.plots import dots, lines
from extractbook.reproduction import paper
from extractlib.defenses.detectors import MahalanobisDetector, OdinDetector
from extractlib.errors import InputError

TASKS = ("things", "birds", "retina", "signs", "objects")

DETECTORS = {"binary": "binary", "ODIN": "odin", "Mahalanobis": "mahalanobis"}
"""The prefix of each detector's columns in a table's frame, by the detector's name in the figures."""


def of_tasks(frame: pd.DataFrame, column: str, **cell: object) -> dict[str, list[float]]:
    """Return a column of a frame by task, one value for each seed, from the rows that have these settings.

    Args:
        frame: As returned by `book.frame`.
        column: Its name, such as ``"recovery"``.
        cell: Settings by name, such as ``defense="shuffle"``.

    Raises:
        InputError: A task has several values at one seed, so that rows of different attacks would be averaged.
    """
    kept = frame.dropna(subset=column)
    for name, value in cell.items():
        kept = kept[kept[name] == value]
    by_seed = kept.groupby(["task", "seed"], sort=False)[column]
    for task, seed in by_seed.nunique().loc[lambda counts: counts > 1].index[:1]:
        raise InputError(f"{task} has several values of {column} at seed {seed}: choose rows by one more setting")
    first = by_seed.first()
    return {task: first[task].tolist() for task in TASKS if task in first.index.get_level_values("task")}


def of_the_pool(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of attacks with public images, from the scale's pool; other rows have the attacker's own."""
    return frame[frame["pool"] == "atlas"]


def series(columns: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, Sequence[float]]]:
    """Return values by task and series, given by series and task."""
    return {task: {name: values[task] for name, values in columns.items() if task in values} for task in TASKS}


def about(frame: pd.DataFrame) -> str:
    """Return how many seeds and images a figure's values come from, for its caption."""
    least, most, spread = int(frame["images"].min()), int(frame["images"].max()), seeds(frame)
    spread += ", so no spread" if spread.startswith("one") else ""
    images = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{spread}, {images} {' and '.join(dict.fromkeys(frame['part']))} images"


def edges(frame: pd.DataFrame) -> str:
    """Return how often validation data chose the largest perturbation of a baseline's grid, and how often none."""
    said = []
    for name, detector in (("ODIN", OdinDetector), ("Mahalanobis", MahalanobisDetector)):
        sizes, chosen = detector.SETTINGS["epsilon"], frame[f"{name.lower()}.settings.epsilon"]
        most, none = (int((chosen == size).sum()) for size in (max(sizes), 0.0))
        said.append(f"{name}, the largest, {max(sizes):g}, in {most} of {len(chosen)} runs and none at all in {none}")
    return (
        f"Validation images chose the step by which the input is perturbed: for {'; for '.join(said)}. A larger step"
        " might make both baselines better than they are here."
    )


def mean(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the mean of each task's values."""
    return {task: float(np.mean(several)) for task, several in values.items()}


def constant(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Return what a constant predictor recovers, by task."""
    return of_tasks(frame.assign(constant=frame["constant_accuracy"] / frame["victim_accuracy"]), "constant")


def authors(table: str) -> dict[str, list[float]]:
    """Return the authors' recovery in one of their tables, by task."""
    rows = paper.tables()[table]["rows"]
    return {task: [rows[name]["recovery"]] for task in TASKS if (name := paper.victim(task)) in rows}


def defended(frame: pd.DataFrame) -> Plot:
    """Return recovery without and with shuffled answers, beside the authors' and a constant predictor's."""
    plain = frame[frame["defense"] == "none"]
    columns = {
        "no defense": of_tasks(plain, "recovery"),
        "shuffled": of_tasks(frame, "recovery", defense="shuffle"),
        "constant predictor": constant(plain),
        f"shuffled ({paper.LABEL})": authors("defended"),
    }
    return dots(series(columns), xlabel="recovery: surrogate's / victim's accuracy", columns=2)


def received(frame: pd.DataFrame, defense: str) -> dict[str, float]:
    """Return how many true answers an attacker received on average, by task.

    An answer is true if the query was not detected, or if only its label is shown; a denied query has no answer.

    Args:
        frame: Rows of table ``defended``.
        defense: ``"deny"``, ``"shuffle"`` or ``"label"``.
    """
    caught = frame["caught"] * (0.0 if defense == "label" else 1.0)
    return mean(of_tasks(frame.assign(true=(1 - caught) * frame["budget"]), "true", defense=defense))


POLICIES = {"deny": "denied", "shuffle": "shuffled", "label": "label only"}
"""What a detected query gets, by the policy's name in the rows."""


def true_answers(frame: pd.DataFrame, budgets: pd.DataFrame) -> Plot:
    """Return recovery over the number of true answers: a line without a defense, a mark per policy, a panel per task.

    Args:
        frame: Rows of table ``defended`` from attacks with public images.
        budgets: Rows of the tables ``reproduction`` and ``budget``, of the same seeds at each number of queries.
    """
    x, y, line = "true answers", "recovery", "no defense"
    counts = {name: received(frame, name) for name in POLICIES}
    found = {name: of_tasks(frame, y, defense=name) for name in POLICIES}
    tasks = [task for task in TASKS if task in found["deny"]]
    marks = [
        (f"{task}: {line}", queries, rows[y].tolist())
        for task in tasks
        for queries, rows in budgets[budgets["task"] == task].groupby("budget")
    ]
    marks += [
        (f"{task}: {shown}", counts[name][task], found[name][task])
        for task in tasks
        for name, shown in POLICIES.items()
        if task in found[name]
    ]
    data, floor = summaries(marks, x, y), mean(constant(frame))
    looks = dict(zip([line, *POLICIES.values()], ("-", "o", "s", "^"), strict=True))
    with style.context(STYLE):
        figure = Plot(data, height=4.8)
        panels = list(figure.subplots(2, 3, sharex=True, sharey=True).flat)
        for axes, task in zip(panels, tasks, strict=False):
            for (name, look), color in zip(looks.items(), (BLACK, BLUE, VERMILION, GREEN), strict=True):
                at = data[data["Series"] == f"{task}: {name}"]
                axes.errorbar(at[x], at[y], at["±"], fmt=look, color=color, label=name)
            axes.axhline(floor[task], color="#777777", linestyle=":", label="constant\npredictor")
            axes.set(title=task, xscale="log", xlim=(0.7, 16_000), ylim=(0, 1.05))
            axes.set_xticks([1, 100, 10_000], ["1", "100", "10k"])
            axes.minorticks_off()
            axes.tick_params(labelbottom=True)
        for axes in panels[len(tasks) :]:
            axes.axis("off")
        panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", borderaxespad=0)
        figure.supxlabel("true answers received (logarithmic)")
        figure.supylabel(y)
    return figure


def nearest(curve: pd.Series, answers: float) -> int:
    """Return the budget in a curve's index that is nearest to a number of answers on a logarithmic axis."""
    return min(curve.index, key=lambda queries: abs(np.log(queries / max(answers, 1))))


def smaller_budget(frame: pd.DataFrame, budgets: pd.DataFrame) -> str:
    """Return in words how many true answers denial leaves and what they recover, beside the nearest budget's recovery.

    Args:
        frame, budgets: See `true_answers`.
    """
    counts, left = received(frame, "deny"), mean(of_tasks(frame, "recovery", defense="deny"))
    curve = budgets.groupby(["task", "budget"])["recovery"].mean()
    said = []
    for task in sorted(counts, key=lambda one: -counts[one]):
        line = curve[task]
        near = nearest(line, counts[task])
        said.append(f"{left[task]:.2f} from {counts[task]:,.0f} and {line[near]:.2f} from {near:,} (*{task}*)")
    return (
        "The copy recovers this much from the true answers that denial leaves, and from the nearest budget without a"
        f" defense: {'; '.join(said)}."
    )


def uncharged(frame: pd.DataFrame) -> str:
    """Return in words what denial leaves where a denied query costs nothing, at the seeds that have both."""
    both = frame[frame["seed"].isin(frame.loc[frame["defense"] == "deny-free", "seed"])]
    charged, free = (mean(of_tasks(both, "recovery", defense=name)) for name in ("deny", "deny-free"))
    told = ", ".join(f"{value:.2f} instead of {charged[task]:.2f} ({task})" for task, value in free.items())
    return (
        "In the figure, a denied query is charged. Where it is not, the attacker goes on, here to the end of its pool,"
        f" {both['asked'].max():,.0f} queries. Over {seed_count(both)} with both, the copies then"
        f" recover {told}, so charging costs the attacker at most"
        f" {max(value - charged[task] for task, value in free.items()):.2f}."
    )


def detectors(frame: pd.DataFrame, *, column: str = "tnr_at_95", xlabel: str = "TNR at 95% TPR") -> Plot:
    """Return a figure of each detector against the first pool, with one row for each task."""
    columns = {name: of_tasks(frame, f"{key}.pool.{column}") for name, key in DETECTORS.items()}
    return dots(series(columns), xlabel=xlabel)


def second_pool_words(frame: pd.DataFrame) -> str:
    """Return how Mahalanobis and the binary detector compare on the pool that no detector has seen, as a sentence."""
    binary, other = (mean(of_tasks(frame, f"{name}.second.tnr_at_95")) for name in ("binary", "mahalanobis"))
    apart = {task: other[task] - binary[task] for task in binary}
    most = max(apart, key=lambda task: abs(apart[task]))
    rest = max(abs(by) for task, by in apart.items() if task != most)
    return (
        f"At 95% TPR on that pool, Mahalanobis catches {other[most]:.0%} on *{most}* and the binary detector"
        f" {binary[most]:.0%}; on the other tasks the two differ by at most {rest:.3f}."
    )


def overlap(frame: pd.DataFrame) -> Plot:
    """Return balanced accuracy against the share of queries from the adversary's own source, one line for each task."""
    shifted = frame[frame["pool"].str.endswith("/shifted")]
    found = {
        task: {share: rows["balanced_accuracy"].tolist() for share, rows in lines.groupby("overlap")}
        for task, lines in shifted.groupby("task")
    }
    xlabel = "share of the queries that show the task's classes"
    return lines({task: found[task] for task in TASKS if task in found}, xlabel=xlabel, ylabel="balanced accuracy")


def rates_table(frame: pd.DataFrame) -> str:
    """Return the binary detector's TPR and TNR at a probability of one half, beside the authors', as Markdown."""
    rows = paper.tables()["detection"]["rows"]
    columns = {"TPR": "binary.pool.tpr", "TNR, atlas": "binary.pool.tnr", "TNR, web": "binary.second.tnr"}
    found = {name: of_tasks(frame, column) for name, column in columns.items()}
    body = []
    for task in TASKS:
        ours = [mean_sd([100 * value for value in found[name].get(task, [])], digits=1) for name in columns]
        first, second = (rows[paper.victim(task)][pool] for pool in ("imagenet", "openimages"))
        body.append([task, *ours, f"{first[0]} / {first[1]}", f"{second[0]} / {second[1]}"])
    heads = ["Task", *columns, "Authors' TPR / TNR, ImageNet", "OpenImages"]
    return table(body, heads, caption="The binary detector at a probability of one half, in %")


def _overlaps(frame: pd.DataFrame) -> pd.DataFrame:
    shifted = frame[frame["pool"].str.endswith("/shifted")]
    return shifted.groupby(["task", "overlap"])[["balanced_accuracy", "tpr", "tnr", "tnr_public"]].mean()


def overlap_ends(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the mean balanced accuracy at the least and at the most overlap, by task."""
    found = _overlaps(frame)["balanced_accuracy"]
    return {task: (found[task].iloc[0], found[task].iloc[-1]) for task in TASKS if task in found}


def overlap_rates(frame: pd.DataFrame) -> str:
    """Return how much of each kind of image is caught with no overlap and with the most, as Markdown.

    The rows have the share caught of all queries and of those from the ordinary pool; the rest show the task's classes.
    """
    found, body = _overlaps(frame), []
    for task in (task for task in TASKS if task in found.index):
        first, last, most = found.loc[task].iloc[0], found.loc[task].iloc[-1], found.loc[task].index[-1]
        new = (last["tnr"] - (1 - most) * last["tnr_public"]) / most
        shares = (1 - first["tpr"], first["tnr"], 1 - last["tpr"], last["tnr_public"], new)
        body.append([task, *(f"{100 * share:.0f}" for share in shares)])
    heads = ["Task", "None: customers", "public", "Most: customers", "public", "task's classes"]
    return table(body, heads, caption="Share caught with no overlap and with the most, in %")


def honest_table(frame: pd.DataFrame) -> str:
    """Return what policies cost an honest user, as Markdown; denied answers count as wrong ones."""
    shuffled = frame[frame["defense"] == "shuffle"]
    columns = {
        "Detected, %": of_tasks(shuffled, "honest_caught"),
        **{
            f"Accuracy lost, points: {name}": of_tasks(
                frame.assign(lost=frame["victim_accuracy"] - frame["honest_accuracy"]), "lost", defense=name
            )
            for name in ("shuffle", "deny", "label")
        },
    }
    body = [
        [task, *(mean_sd([100 * value for value in found.get(task, [])], digits=1) for found in columns.values())]
        for task in TASKS
    ]
    return table(body, ["Task", *columns], caption="What an honest user pays")
