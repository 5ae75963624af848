"""Figures of chapter 10, The realistic adversary."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import style
from scipy import stats

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
    signed,
    summaries,
)
from extractbook.figures.chapter_09 import TASKS, constant, mean, nearest, of_tasks, series
from extractbook.figures.notebook import mean_sd, table
from extractbook.figures.origin import seed_count
from extractbook.figures.plots import dots
from extractbook.reproduction.scales import scale
from extractlib.defenses.accounts import CountingDetector

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

SURE = 0.975
"""Confidence of the upper bound on the control's rate (claim B3)."""


def caught(frame: pd.DataFrame) -> Plot:
    """Return the share of each kind of query that the binary detector catches, one row per task."""
    kinds = {"customers": "benign", "public images": "pool", "attacker's own images": "shifted"}
    columns = {name: of_tasks(frame, f"caught.{kind}") for name, kind in kinds.items()}
    return dots(series(columns), xlabel="share that the detector catches", limits=(-0.02, 1.05))


def extra(frame: pd.DataFrame) -> dict[str, float]:
    """Return by task how much more often the attacker's own images are caught than customers'."""
    own, benign = (mean(of_tasks(frame, f"caught.{kind}")) for kind in ("shifted", "benign"))
    return {task: own[task] - benign[task] for task in own}


def own_and_public(frame: pd.DataFrame) -> Plot:
    """Return recovery over the number of queries, own images next to public ones, on undefended APIs, by task."""
    plain = frame[(frame["attack"] == "random") & (frame["granularity"] == "full") & (frame["defense"] == "none")]
    x, y = "queries", "recovery"
    kinds = {"own images": plain["pool"].str.endswith("/shifted"), "public images": plain["pool"] == "atlas"}
    marks = [
        (f"{task}: {name}", budget, rows[y].tolist())
        for task in TASKS
        for name, kept in kinds.items()
        for budget, rows in plain[kept & (plain["task"] == task)].groupby("budget")
    ]
    data = summaries(marks, x, y)
    with style.context(STYLE):
        figure = Plot(data, height=3.3)
        panels = figure.subplots(1, len(TASKS), sharey=True)
        for axes, task in zip(panels, TASKS, strict=True):
            for name, color, marker in zip(kinds, (GREEN, VERMILION), ("D", "s"), strict=True):  # as in chapter 1
                line = data[data["Series"] == f"{task}: {name}"]
                axes.errorbar(line[x], line[y], line["±"], color=color, marker=marker, label=name)
            axes.set(title=task, xscale="log", ylim=(0, 1.05))
            ticks = sorted({data[x].min(), data[x].max()})
            axes.set_xticks(ticks, [f"{tick / 1000:g}k" for tick in ticks])
            axes.minorticks_off()
            axes.set_xlim(ticks[0] / 1.6, ticks[-1] * 1.6)
        panels[0].set_ylabel(y)
        figure.supxlabel(f"{x} (logarithmic)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def shuffled(frame: pd.DataFrame) -> Plot:
    """Return recovery with and without shuffled answers, own images next to four times as many public ones, by task."""
    columns = {
        f"{name}, {'shuffled' if defense == 'shuffle' else 'no defense'}": of_tasks(rows, "recovery", defense=defense)
        for name, rows in _own_and_four_times_public(frame).items()
        for defense in ("none", "shuffle")
    }
    return dots(series(columns), xlabel="recovery: surrogate's / victim's accuracy", columns=2)


def shuffled_words(frame: pd.DataFrame) -> str:
    """Return in words what shuffled answers cost the attack with own images, and how many queries were detected."""
    own = _own_and_four_times_public(frame)["own images"]
    plain, left = (mean(of_tasks(own, "recovery", defense=defense)) for defense in ("none", "shuffle"))
    caught = mean(of_tasks(own, "caught", defense="shuffle"))
    honest = mean(of_tasks(own, "honest_caught", defense="shuffle"))
    cost = {task: plain[task] - left[task] for task in left}
    most = max(cost, key=lambda task: cost[task])
    others = [by for task, by in cost.items() if task != most]
    return (
        f"Shuffling costs the attack with own images {cost[most]:.2f} of recovery on *{most}* and at most"
        f" {max(0.0, *others):.2f} on the other tasks. On *{most}*, the detector catches {caught[most]:.0%} of these"
        f" queries, and {honest[most]:.0%} of the customers' images; on the others, at most"
        f" {max(share for task, share in caught.items() if task != most):.1%} of the queries."
    )


def _own_and_four_times_public(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the most public images, and of a quarter as many own ones."""
    plain = frame[(frame["attack"] == "random") & (frame["granularity"] == "full")]
    most, own = int(plain["budget"].max()), plain["pool"].str.endswith("/shifted")
    return {
        "own images": plain[own & (plain["budget"] == most // 4)],
        "public images": plain[(plain["pool"] == "atlas") & (plain["budget"] == most)],
    }


def gains(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return by task how much more own images recover than the same number of public ones, and than four times as many.

    Where the frame has no rows of the same number of public ones, the first is NaN.
    """
    own = frame[
        frame["pool"].str.endswith("/shifted") & (frame["attack"] == "random") & (frame["granularity"] == "full")
    ]
    public, most = frame[frame["pool"] == "atlas"], int(frame["budget"].max())
    number = most // 4
    r = mean(of_tasks(own, "recovery", budget=number))
    same, more = (mean(of_tasks(public, "recovery", budget=budget)) for budget in (number, most))
    return {task: (r[task] - same.get(task, np.nan), r[task] - more[task]) for task in r}


def labels_table(frame: pd.DataFrame, alone: pd.DataFrame) -> str:
    """Return what own images recover as queries, next to their true labels and a label-only API, as Markdown.

    Args:
        frame: Rows of the own images.
        alone: Rows of the independent controls.
    """
    own = frame[frame["pool"].str.endswith("/shifted") & (frame["budget"] == frame["budget"].median())]
    asked = own[own["attack"] == "random"]
    columns = {
        "queries, full answers": of_tasks(asked, "recovery", granularity="full"),
        "queries, labels": of_tasks(asked, "recovery", granularity="label"),
        "true labels, no API": of_tasks(own, "recovery", attack="own-labels"),
        "independent control": of_tasks(alone, "recovery"),
        "constant predictor": constant(asked[asked["granularity"] == "full"]),
    }
    columns = {name: found for name, found in columns.items() if found}
    body = [[task, *(mean_sd(found.get(task, []), digits=2) for found in columns.values())] for task in TASKS]
    count = int(own["budget"].iloc[0])
    seeds = {name: max(map(len, found.values())) for name, found in columns.items()}
    fewer = [
        f"the column “{name}” has {number} of {max(seeds.values())} seeds"
        for name, number in seeds.items()
        if number < max(seeds.values())
    ]
    said = [f"Recovery with {count:,} own images", *fewer, "the control has more images, from the victim's own source"]
    return table(body, ["Task", *columns], caption="; ".join(said))


def answers_words(frame: pd.DataFrame) -> str:
    """Return what the API's labels, and its full answers, are worth compared with true labels, as sentences.

    Args:
        frame: Rows of the own images; seeds that lack one of the three are left out.
    """
    own = frame[frame["pool"].str.endswith("/shifted") & (frame["budget"] == frame["budget"].median())]
    asked, alone = own[own["attack"] == "random"], own[own["attack"] == "own-labels"]
    asked = asked[asked["seed"].isin(set(alone["seed"]))]
    true = mean(of_tasks(alone, "recovery"))
    worth = {}
    for shown in ("label", "full"):
        found = mean(of_tasks(asked, "recovery", granularity=shown))
        worth[shown] = ", ".join(f"{signed(value - true[task])} ({task})" for task, value in found.items())
    return (
        f"Compared with true labels of the same images, the API's labels alone are worth {worth['label']} of recovery,"
        f" and its full answers {worth['full']}; averaged over {seed_count(alone)}."
    ).replace("-", "−")


def against_control(frame: pd.DataFrame) -> str:
    """Return in words where copies from own images recover more than the independent control, as much, and less."""
    own = frame[
        frame["pool"].str.endswith("/shifted") & (frame["attack"] == "random") & (frame["granularity"] == "full")
    ]
    copy = mean(of_tasks(own[own["budget"] == own["budget"].median()], "recovery"))
    alone = mean(of_tasks(frame[frame["experiment"] == "control"], "recovery"))
    apart = {task: copy[task] - alone[task] for task in copy}
    level = {task for task, by in apart.items() if abs(by) <= 0.005}
    kinds = {
        "": [task for task, by in apart.items() if by > 0 and task not in level],
        "level with it (to within 0.005) on ": [task for task in apart if task in level],
        "behind it on ": [task for task, by in apart.items() if by < 0 and task not in level],
    }
    return ", ".join(
        f"{kind}{' and '.join(f'*{task}*' for task in tasks) or 'no task'}"
        for kind, tasks in kinds.items()
        if tasks or not kind
    )


def counts(flags: Mapping[str, torch.Tensor], *, rate: float, chance: float = 1e-6, highest: int = 60) -> Plot:
    """Return how many of each sender's first queries were caught, and how many chance explains.

    Args:
        flags: By sender, whether each query was caught, bool of shape (n,).
        rate, chance: See `CountingDetector`.
        highest: Where the vertical axis ends.
    """
    x, y = "queries from one account", "queries caught"
    longest = max(map(len, flags.values()))
    numbers = np.arange(1, longest + 1)
    bound = stats.binom.isf(chance, numbers, rate) + 1
    lines = {"flagged from here on": bound, **{name: one.cumsum(0).numpy() for name, one in flags.items()}}
    data = pd.concat([pd.DataFrame({"Series": name, x: numbers[: len(line)], y: line}) for name, line in lines.items()])
    with plotting(data[data[x] % 25 == 1], height=4.4, xlabel=x, ylabel=y, columns=2) as (figure, axes):
        for name, line in lines.items():
            look: dict[str, Any] = {"color": BLACK, "linestyle": "--"} if name == "flagged from here on" else {}
            axes.plot(numbers[: len(line)], line, marker="", label=name, linewidth=2, **look)
        detector = CountingDetector(rate=rate, chance=chance)
        for name, one in flags.items():
            if until := detector.queries_until_flagged(one):
                axes.plot(until, lines[name][until - 1], "D", color=BLACK, markersize=8)
        axes.set_ylim(0, highest)
    return figure


def accounts_table(frame: pd.DataFrame) -> str:
    """Return how the adversary's accounts fare with both stateful detectors, as Markdown."""
    body = []
    for task in TASKS:
        rows = frame[frame["task"] == task]
        for name, shown in (("counting", "count"), ("prada", "PRADA")) if len(rows) else ():
            times = [time for seed in rows[f"{name}.flag_times"] for time in seed]
            # An account that was never flagged is later than all others.
            middle = np.median([np.inf if time is None else time for time in times])
            flagged = sum(time is not None for time in times)
            shares = (f"{name}.sybil_flagged", f"{name}.honest_flagged")
            body.append(
                [
                    f"{task}, {shown}",
                    f"{flagged} of {len(times)}",
                    f"{middle:,.0f}" if np.isfinite(middle) else "–",
                    f"{rows[f'{name}.accounts'].mean():,.0f}",
                    *(mean_sd((100 * rows[column]).tolist(), digits=1) for column in shares),
                ]
            )
    heads = [
        "Task, detector",
        "Accounts flagged",
        "Median query",
        "Sybils",
        "Sybils flagged, %",
        "Customers flagged, %",
    ]
    watched = scale("drawn").stream
    said = f"10,000 own images, sent from one account and split among many; each customer sends {watched} queries"
    return table(body, heads, caption=said)


def accounts_sentence(frame: pd.DataFrame) -> str:
    """Return in words how often each detector flags crafted queries, the adversary's accounts and its Sybils."""
    said = []
    for name, shown in (("counting", "The count"), ("prada", "PRADA")):
        tasks = [task for task in TASKS if task in set(frame["task"])]
        times = {task: list(frame.loc[frame["task"] == task, f"{name}.flag_times"]) for task in tasks}
        # The accounts of a seed send the same images, so a seed is one trial.
        most = {
            task: sum(2 * sum(t is not None for t in seed) > len(seed) for seed in of_task)
            for task, of_task in times.items()
        }
        crafted = frame[f"{name}.positive_control_flagged"].astype(bool).groupby(frame["task"]).all().sum()
        worst = frame.groupby("task")[f"{name}.sybil_flagged"].mean().max()
        said.append(
            f"{shown} flags crafted queries on {crafted} of {len(tasks)} tasks; it flags most of the adversary's single"
            f" accounts at this many seeds: {', '.join(f'{count} ({task})' for task, count in most.items())};"
            f" and it flags at most {worst:.1%} of the Sybils on any task."
        )
    watched = scale("drawn").stream
    flags = [time for task in frame["counting.flag_times"] for time in task]
    early = sum(time is not None and time <= watched for time in flags)
    said.append(
        f"Within as many queries as a customer sends, {watched}, the count flags {early} of the {len(flags)} accounts"
        " of the adversary, so the last column does not say whether a customer who sends thousands would be flagged."
    )
    return " ".join(said)


SUSPECTS = {
    "independent, shared start": {"table": "accusation", "surrogate_weights": "A"},
    "independent, other start": {"table": "accusation", "surrogate_weights": "B"},
    "independent, own images": {"table": "own_images", "attack": "own-labels"},
    "copy, full answers": {"table": "reproduction", "surrogate": "resnet"},
    "copy, labels": {"table": "granularity", "granularity": "label"},
    "copy, own images": {"table": "own_images", "attack": "random", "granularity": "full"},
    "copy, other start": {"table": "weights", "victim_weights": "A", "surrogate_weights": "B"},
    "copy, another network": {
        "table": "architecture",
        "victim": "resnet",
        "surrogate": "vgg",
        "victim_weights": "A",
        "surrogate_weights": "A",
    },
}
"""Models that repeat errors of the pre-trained victim, by what they were trained on, with their rows."""


def suspects(frame: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Return by task and kind of model the shares of the victim's errors that models repeat, one per model.

    Args:
        frame: Rows of the tables accusation, reproduction, granularity, weights, architecture and own_images.
    """
    frame = frame[frame["task"].isin(set(frame.loc[frame["table"] == "accusation", "task"]))]
    own = frame["table"] == "own_images"
    frame = frame[~own | (frame["pool"].str.endswith("/shifted") & (frame["budget"] == frame.loc[own, "budget"].max()))]
    found = {}
    for task, rows in frame.groupby("task"):
        chosen = {kind: rows[(rows[list(like)] == pd.Series(like)).all(axis=1)] for kind, like in SUSPECTS.items()}
        found[str(task)] = {kind: part["errors_repeated"].tolist() for kind, part in chosen.items() if len(part)}
    return found


def thresholds(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, float]:
    """Return by task the share above which a model is accused: the third largest among 60 independent controls (5%)."""
    controls = list(SUSPECTS)[:2]
    return {
        task: float(np.sort(np.concatenate([kinds.get(kind, []) for kind in controls]))[-3])
        for task, kinds in found.items()
    }


def repeated_errors(frame: pd.DataFrame) -> Plot:
    """Return the share of the victim's errors that each model repeats, one row per kind, and each task's threshold.

    Args:
        frame: See `suspects`.
    """
    found = suspects(frame)
    limits, x = thresholds(found), "share of the victim's errors repeated"
    marks = [(task, kind, values) for task, kinds in found.items() for kind, values in kinds.items()]
    data = summaries(marks, "Model", x)
    data["accused"] = [f"{sum(value > limits[task] for value in values)} of {len(values)}" for task, _, values in marks]
    names = list(SUSPECTS)
    with plotting(data, height=5.6, xlabel=x, columns=2) as (figure, axes):
        for number, (task, kinds) in enumerate(found.items()):
            look: dict[str, Any] = {"color": (BLUE, ORANGE)[number], "linestyle": "none", "alpha": 0.6}
            shown = [(value, names.index(kind) + 0.3 * number - 0.15) for kind in kinds for value in kinds[kind]]
            axes.plot(*zip(*shown, strict=True), "os"[number], label=task, markersize=6, **look)
            axes.axvline(limits[task], color=look["color"], linestyle=("--", ":")[number], label=f"threshold, {task}")
        name_rows(axes, names)
        axes.set_xlim(0, 1)
    return figure


def repeated_errors_words(frame: pd.DataFrame) -> str:
    """Return in words how many models of each kind repeat more errors than the threshold allows.

    Args:
        frame: See `suspects`.
    """
    found = suspects(frame)
    limits = thresholds(found)
    told = []
    for kind in SUSPECTS:
        counts = [
            f"{sum(value > limits[task] for value in kinds[kind])} of {len(kinds[kind])} (*{task}*)"
            for task, kinds in found.items()
            if kind in kinds
        ]
        told.append(f"{kind.replace(', ', ' (', 1)}): {' and '.join(counts)}" if counts else "")
    return "Above the threshold are " + "; ".join(filter(None, told)) + "."


def distances(senders: Mapping[str, torch.Tensor], *, highest: float = 25.0) -> Plot:
    """Return how far each query is from the nearest earlier one with the same label, one histogram per sender.

    Args:
        senders: By name, distances, float of shape (n,), NaN where there is no earlier query with the label.
        highest: Where the horizontal axis ends.
    """
    x, y = "distance to the nearest earlier query with the same label", "share of the queries"
    edges = np.linspace(0, highest, 26)
    shares = {name: np.histogram(one[~one.isnan()].numpy(), edges)[0] for name, one in senders.items()}
    data = pd.concat(
        [pd.DataFrame({"Series": name, x: edges[:-1], y: one / one.sum()}) for name, one in shares.items()]
    )
    with plotting(data, height=3.6, xlabel=x, ylabel=y) as (figure, axes):
        for (name, line), dash in zip(data.groupby("Series", sort=False), ("-", "--", ":"), strict=False):
            axes.stairs(line[y], edges, label=name, linewidth=2, linestyle=dash, color=f"C{list(senders).index(name)}")
    return figure


ASKED_TWICE = (
    "10,000 queries to an API that shuffles: 5,000 images sent twice; in the last column, 10,000 images sent once"
)
"""The caption of `twice_table`."""


def twice_table(frame: pd.DataFrame) -> str:
    """Return what asking twice finds and gains, as Markdown."""
    columns = {
        "queries shuffled": "shuffled",
        "AUROC": "auroc",
        "pairs kept": "consistent",
        "r, consistent answers": "recovery_consistent",
        "r, all answers": "recovery_all",
    }
    tasks = [task for task in TASKS if task in set(frame["task"])]
    body = [[task, *(mean_sd(of_tasks(frame, key)[task], digits=3) for key in columns.values())] for task in tasks]
    return table(body, ["Task", *columns], caption=ASKED_TWICE)


def twice_words(frame: pd.DataFrame, budgets: pd.DataFrame) -> str:
    """Return in words what the images with consistent answers recover, beside the nearest budget without a defense.

    Args:
        frame: Rows of table ``asked_twice``, in which every image is sent twice.
        budgets: Rows of the tables ``reproduction`` and ``budget``.
    """
    kept = mean(of_tasks(frame.assign(kept=frame["consistent"] * frame["budget"] / 2), "kept"))
    after, before = (mean(of_tasks(frame, f"recovery_{name}")) for name in ("consistent", "all"))
    curve = budgets.groupby(["task", "budget"])["recovery"].mean()
    said = []
    for task in kept:
        line = curve[task]
        near = nearest(line, kept[task])
        said.append(
            f"on *{task}*, the copy recovers {after[task]:.2f} from the {kept[task]:,.0f} images with consistent"
            f" answers instead of {before[task]:.2f}, and {line[near]:.2f} from {near:,} queries without a defense"
        )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}."


def starts_table(shared: Mapping[str, float], another: Mapping[str, float], *, caption: str) -> str:
    """Return recovery by images and by the surrogate's initial weights, and the difference, as Markdown.

    Args:
        shared, another: Recovery by the images sent, from the victim's initial weights and from others.
        caption: On which task and images, and with how many seeds.
    """
    body = [
        [images, f"{shared[images]:.2f}", f"{another[images]:.2f}", signed(another[images] - shared[images])]
        for images in shared
    ]
    return table(body, ["Images sent", "Victim's start", "Another start", "Difference"], caption=caption)


def marks_table(frame: pd.DataFrame) -> str:
    """Return by task and steps how many marks copy and control repeat, with claim B3's p value and Fisher's, as
    Markdown."""
    body = []
    for steps, cells in frame.groupby("steps"):
        for task in TASKS:
            rows = cells[cells["task"] == task]
            if rows.empty:
                continue
            marked, copy, control = (
                int(rows[name].sum()) for name in ("marked", "marks_repeated", "marks_repeated_by_control")
            )
            half = "yes" if copy >= marked / 2 else "no"
            both = [p_words(test(copy, marked, control)) for test in (p_value, fisher)]
            body.append([f"{task}, {steps:,} steps", marked, copy, control, *both, half])
    rate = scale("drawn").watermark_rate
    heads = ["Task", "Marks", "Copy repeats", "Control repeats", "p, bound given", "p, Fisher", "Half of them"]
    many = frame["seed"].nunique() if "seed" in frame else 1
    pooled = f"; counts of {many} seeds together" if many > 1 else ""
    return table(body, heads, caption=f"Marks among 10,000 public queries, {rate:.1%} of which get one{pooled}")


def accused(frame: pd.DataFrame, level: float = 0.001) -> str:
    """Return in how many lines of `marks_table` a copy is accused by each p value, and by half of the marks."""
    counts = frame.groupby(["task", "steps"])[["marked", "marks_repeated", "marks_repeated_by_control"]].sum()
    lines = [tuple(map(int, line)) for line in counts.itertuples(index=False)]
    by_p, by_fisher = (
        sum(test(copy, marks, control) < level for marks, copy, control in lines) for test in (p_value, fisher)
    )
    by_half = sum(copy >= marks / 2 for marks, copy, _ in lines)
    return (
        f"At one in a thousand, the p value with the bound as given accuses in {by_p} of these {len(lines)} lines,"
        f" Fisher's in {by_fisher}, and the rule of half the marks in {by_half}."
    )


SMALLEST = 1e-300
"""A p value below which floating-point numbers soon end."""


def p_words(p: float) -> str:
    """Return a p value with three decimals, a small one as a power of ten."""
    if p >= 0.001:
        return f"{p:.3f}"
    if p < SMALLEST:
        return "below 10⁻³⁰⁰"
    factor, power = f"{p:.0e}".split("e")
    return f"{factor} × 10⁻{str(abs(int(power))).translate(RAISED)}"


def longer(frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return by task what share of the marks copies repeat, at the fewest and at the most steps, if both were run."""
    found = frame.groupby(["task", "steps"])[["marks_repeated", "marked"]].sum()
    shares = (found["marks_repeated"] / found["marked"]).unstack().dropna()
    return {task: (row.iloc[0], row.iloc[-1]) for task, row in shares.iterrows()}


def p_value(repeated: int, marks: int, by_control: int) -> float:
    """Return how probable this many repeated marks are at the upper bound on the control's rate (claim B3).

    The bound is taken as given: a p value without that condition is larger by how often the bound fails, 1 − `SURE`.
    """
    rate = stats.beta.ppf(SURE, by_control + 1, marks - by_control) if by_control < marks else 1.0
    return float(stats.binom.sf(repeated - 1, marks, rate))


def fisher(repeated: int, marks: int, by_control: int) -> float:
    """Return Fisher's exact one-sided p value for copy and control repeating marks at one rate, independently."""
    counts = [[repeated, marks - repeated], [by_control, marks - by_control]]
    return float(stats.fisher_exact(counts, alternative="greater").pvalue)
