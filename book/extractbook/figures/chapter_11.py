"""Figures of chapter 11, Real images, real scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from extractbook.claim_cards import explored, rows_of
from extractbook.figures import pictures
from extractbook.figures.base import Plot, signed
from extractbook.figures.notebook import table
from extractbook.figures.origin import seeds
from extractbook.figures.plots import constant_recovery, dots, grouped
from extractbook.ledger_page import met
from extractbook.reproduction import paper, results
from extractbook.reproduction.cells import plain_cell
from extractbook.reproduction.claims import Claim, claims
from extractbook.reproduction.experiments.extraction import control_of, surrogate_of
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.ledger import Ledger
from extractbook.reproduction.scales import Scale, scale
from extractbook.reproduction.setups import Setup, evenly
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import layouts, sets
from extractlib.store import default_store

NAMES = {
    "caltech101": "Caltech101",
    "cub2010": "CUB-200-2010",
    "eyepacs": "EyePACS",
    "gtsrb": "GTSRB",
    "cifar10": "CIFAR-10",
    "tinyimagenet": "Tiny ImageNet, the pool",
    "miniplaces": "MiniPlaces, the second pool",
}
"""The data sets of the scale photos, with their names in figures."""

SIDE = 64
"""Height and width of a photograph on the contact sheet, in pixels."""

MISSING = "*The rows of this experiment on photographs have not been computed yet.*"

NEAR = 0.03
"""How far an independent control's accuracy may be from the copy's."""

FEW = 2
"""Up to how many tasks of a claim's bounds the table of verdicts names."""

SHOWN = 8
"""Number of queries that are shown with their answers, and of errors."""


def rows(table: str, *, beside: Sequence[str] = ()) -> pd.DataFrame | None:
    """Return a table's rows on photographs that the chapter shows (see `results.newest`); None if there are none."""
    try:
        return results.newest(table, scale="photos", beside=beside)
    except results.NoRows:
        return None


def compared(*tables: str) -> list[pd.DataFrame] | None:
    """Return the rows on photographs of tables that stand side by side, of one edition; None if a table has none.

    Only rows whose task and seed all of them have are returned, so that figures that are compared share victims.
    """
    found = [shown for table in tables if (shown := rows(table, beside=tables)) is not None]
    return paired(*found) if len(found) == len(tables) else None


def paired(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each table whose task and seed all of them have: figures that are compared share victims.

    Args:
        tables: Rows of `rows`.
    """
    of = [set(zip(one["task"], one["seed"], strict=True)) for one in tables]
    shared, found = set.intersection(*of), []
    for one in tables:
        kept = one[[key in shared for key in zip(one["task"], one["seed"], strict=True)]].copy()
        kept.attrs = one.attrs | {"seeds": tuple(sorted(set(kept["seed"])))}
        found.append(kept)
    return found


def tasks(rows: pd.DataFrame) -> list[str]:
    """Return the tasks on photographs that rows belong to, in the order of `NAMES`."""
    return [task for task in NAMES if task in set(rows["task"])]


def recoveries(photos: pd.DataFrame, drawn: pd.DataFrame) -> Plot:
    """Return the recovery of each task on photographs next to its drawn twin's and the authors', one row per task.

    Args:
        photos, drawn: Rows of table ``reproduction`` at both scales.
    """
    constant, groups = constant_recovery(photos), {}
    for task in tasks(photos):
        authors = paper.tables()["reproduction"]["rows"].get(paper.victim(task), {}).get("recovery")
        groups[f"{NAMES[task]} ({paper.drawn(task)})"] = {
            "photographs": photos.loc[photos["task"] == task, "recovery"].tolist(),
            "drawn twin": drawn.loc[drawn["task"] == paper.drawn(task), "recovery"].tolist(),
            "authors": [authors] if authors else [],
        }
    bars = dict(zip(groups, (constant[task] for task in tasks(photos)), strict=True))
    return dots(groups, xlabel="recovery: surrogate's / victim's accuracy", constant=bars, columns=2)


def recovery_words(photos: pd.DataFrame, drawn: pd.DataFrame) -> str:
    """Return how many tasks on photographs reach C1's bound, which are recovered most and least, and the twins."""
    found, twins = (rows.groupby("task")["recovery"].mean() for rows in (photos, drawn))
    found = found.sort_values()
    more = sum(twins[paper.drawn(task)] > value for task, value in found.items())
    return (
        f"At least three quarters are recovered from {(found >= 0.75).sum()} of {len(found)}.\n"
        f"Of the victims on photographs, *{NAMES[found.index[-1]]}* is recovered most ({found.iloc[-1]:.2f}) and"
        f" *{NAMES[found.index[0]]}* least ({found.iloc[0]:.2f}); the drawn twin is recovered more on {more} of"
        f" {len(found)}."
    )


def own(copies: pd.DataFrame, own_images: pd.DataFrame) -> Plot:
    """Return what public images and images of the task recover on photographs, one row per task.

    Args:
        copies: Rows of table ``reproduction``.
        own_images: Rows of table ``own_images``: queries from the shifted source.
    """
    constant, groups, asked = constant_recovery(copies), {}, asked_own(own_images)
    for task in tasks(asked):
        public, mine = (rows[rows["task"] == task] for rows in (copies, asked))
        groups[NAMES[task]] = {
            "public images": public["recovery"].tolist(),
            "images of the task": mine["recovery"].tolist(),
        }
    bars = dict(zip(groups, (constant[task] for task in tasks(asked)), strict=True))
    return dots(groups, xlabel="recovery: surrogate's / victim's accuracy", constant=bars, columns=2)


def own_words(copies: pd.DataFrame, own_images: pd.DataFrame) -> str:
    """Return how the recovery from images of the task compares with that from public ones, as a sentence."""
    public, mine = (rows.groupby("task")["recovery"].mean() for rows in (copies, asked_own(own_images)))
    gaps = {task: signed(mine[task] - public[task]) for task in NAMES if task in mine}
    said = ", ".join(f"{gap} ({NAMES[task]})" for task, gap in gaps.items())
    more = sum(mine[task] > public[task] for task in gaps)
    return (
        f"With {asked_own(own_images)['budget'].max():,} images of the task, the attacker recovers more than with"
        f" {copies['budget'].max():,} public ones on {more} of {len(gaps)}; the difference is {said}."
    )


def shift_words(seen: pd.DataFrame) -> str:
    """Return how much accuracy the victim loses on the shifted source, task by task, in points.

    Args:
        seen: Rows of table ``detection``.
    """
    lost = (seen["victim_accuracy"] - seen["shifted_victim_accuracy"]).groupby(seen["task"]).mean()
    listed = _and([f"{_signed(100 * lost[task], 1)} points on *{NAMES[task]}*" for task in tasks(seen)])
    return f"On that source, the victim is less accurate than on the task's test images by {listed}."


def asked_own(own_images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in which the queries are images of the shifted source and the answers are full."""
    shifted = own_images["pool"].str.endswith("/shifted") & (own_images["granularity"] == "full")
    return own_images[shifted & (own_images["attack"] == "random")]


def victims_table(rows: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return the shares of images that victims, copies and independent controls classify correctly, as Markdown.

    Args:
        rows, controls: Rows of the tables reproduction and control.
    """
    body, labels = [], scale("photos").control_images
    for task in tasks(rows):
        own, alone = (one[one["task"] == task] for one in (rows, controls))
        shares = [own["victim_accuracy"], own["surrogate_accuracy"], alone["surrogate_accuracy"]]
        shares += [own["constant_accuracy"], own["agreement"], alone["agreement"]]
        counts = [f"{own['images'].min():,}", f"{labels[task]:,}"]
        body.append([NAMES[task], *counts, *(f"{one.mean():.2f}" for one in shares)])
    heads = ["Task", "Test images", "Control's labels"]
    heads += ["Victim", "Copy", "Control", "Constant", "Copy agrees", "Control agrees"]
    balanced = " and ".join(NAMES[task] for task in scale("photos").balanced)
    said = f"Share of images classified correctly, the mean over classes on {balanced}; agreement; "
    said += seeds(rows).replace(" ± sd", "")  # tasks may have different numbers of seeds, and the table shows no spread
    return table(body, heads, caption=said)


def weakest_words(rows: pd.DataFrame) -> str:
    """Return which victim is least above a constant answer, and how its copy compares with it."""
    found = rows.groupby("task")[["victim_accuracy", "constant_accuracy", "surrogate_accuracy"]].mean()
    task = (found["victim_accuracy"] / found["constant_accuracy"]).idxmin()
    victim, constant, copy = found.loc[task]
    own = rows[rows["task"] == task]
    low, high = _range(_resampled(own)[task])
    by_image = 1 - (own["errors"] / own["images"]).mean()
    return (
        f"*{NAMES[task]}* is weakest compared with a constant answer, {victim:.2f} against {constant:.2f}, so a"
        f" constant answer alone would recover {constant / victim:.2f}.\n"
        f"The copy is right on {copy:.2f}.\n"
        f"Under resampled test images, its mean recovery is {low:.2f} to {high:.2f}, and seeds differ as well: claim"
        " C1's card has the interval of both.\n"
        f"Counted by image, this victim is right on {by_image:.0%}."
    )


def _resampled(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the mean recovery over the seeds of each task under each resample of its test images, (resamples,)."""
    lists = rows.groupby("task")["resampled.recovery"]
    return {task: np.mean(values.tolist(), axis=0) for task, values in lists}


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of the middle 95% of some values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def fair_words(copies: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return on which tasks the independent control is within three points of the copy, on validation images."""
    ours, alone = (rows.groupby("task")["validation_accuracy"].mean() for rows in (copies, controls))
    apart = (alone - ours).to_dict()
    near = [NAMES[task] for task in tasks(copies) if abs(apart[task]) <= NEAR]
    above = [NAMES[task] for task in tasks(copies) if apart[task] > NEAR]
    more = f"\nOn {_and(above)}, it is more accurate than the copy, without a single query." if above else ""
    return f"On validation images, the control is within three points of the copy on {_and(near) or 'no task'}.{more}"


FREE, PER_THOUSAND, LABEL = 1_000, 1.5, 0.1
"""Answers without a charge, dollars for a thousand further ones, and the dollars assumed for a label."""


def beaten_words(copies: pd.DataFrame, drawn: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return where the independent control beats the copy, with the drawn twin's recovery, as sentences.

    Args:
        copies, drawn: Rows of table reproduction on photographs and drawings.
        controls: Rows of table control on photographs.
    """
    ours, twins, alone = (rows.groupby("task")["recovery"].mean() for rows in (copies, drawn, controls))
    said = [
        f"On *{NAMES[task]}*, {ours[task]:.2f} is recovered, against {twins[paper.drawn(task)]:.2f} on its drawn twin;"
        f" the independent control, with {scale('photos').control_images[task]:,} labels and no API, reaches"
        f" {alone[task]:.2f} of the victim's accuracy."
        for task in tasks(copies)
        if alone[task] > ours[task]
    ]
    return "\n".join(said) or "On no task does the independent control reach more than the copy."


def dollars(answers: int) -> float:
    """Return what some answers of one month cost at the chapter's price."""
    return max(answers - FREE, 0) * PER_THOUSAND / 1_000


def worth(copies: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return by task the control's ``labels``, the copy's ``answers``, and the control's ``lead`` on validation images.

    Args:
        copies, controls: Rows of the tables reproduction and control.
    """
    ours, alone = (rows.groupby("task")["validation_accuracy"].mean() for rows in (copies, controls))
    lines = {}
    for task in tasks(copies):
        answers = int(copies.loc[copies["task"] == task, "budget"].max())
        labels, lead = scale("photos").control_images[task], alone[task] - ours[task]
        lines[task] = {"labels": labels, "answers": answers, "lead": lead}
    return pd.DataFrame.from_dict(lines, orient="index")


def _savings(copies: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of `worth`, and how many times as much as the answers the labels cost."""
    found = worth(copies, controls)
    return found.assign(saving=LABEL * found["labels"] / found["answers"].map(dollars))


def savings_table(copies: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return what the answers to one attack are worth in labels of an independent control, as Markdown.

    Where the control is more accurate than the copy by over `NEAR`, the answers are worth at most its labels, and
    where it is less accurate, at least.

    Args:
        copies, controls: Rows of the tables reproduction and control.
    """
    body = []
    for task, line in _savings(copies, controls).iterrows():
        fair = abs(line["lead"]) <= NEAR
        bound = "" if fair else "at most " if line["lead"] > 0 else "at least "
        counts = [f"{line['labels']:,.0f}", f"{line['answers']:,.0f}", f"{line['labels'] / line['answers']:.2f}"]
        said = "yes" if fair else f"no ({signed(100 * line['lead'], 1)})"
        body.append([NAMES[str(task)], *counts, f"{bound}{line['saving']:.1f} times", said])
    heads = ["Task", "Control's labels", "Answers", "Labels per answer", "Labels cost more", "Control within 3 points"]
    return table(body, heads, caption=f"Labels at {100 * LABEL:.0f} cents each against the answers to one attack")


def savings_words(copies: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return below which price of a label the answers save nothing, over the tasks with a fair control."""
    found = _savings(copies, controls)
    fair = found[found["lead"].abs() <= NEAR]
    if fair.empty:
        return "No control is within three points of its copy, so no saving is known."
    cents = sorted(100 * LABEL / fair["saving"])
    ends = f"{cents[0]:.1f}" if len(cents) == 1 else f"{cents[0]:.1f} to {cents[-1]:.1f}"
    return f"Where the control is a fair one, the saving ends at {ends} cents a label."


def _signed(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def repeated(copies: pd.DataFrame, controls: pd.DataFrame) -> Plot:
    """Return the share of the victim's errors that copies and independent controls repeat, one row per task."""
    both = pd.concat([copies.assign(kind="copy"), controls.assign(kind="independent control")])
    found = grouped(both, "kind", {kind: kind for kind in ("copy", "independent control")}, "errors_repeated")
    errors = copies.groupby("task")["errors"].mean()
    rows = {f"{NAMES[task]} ({errors[task]:,.0f} errors)": found[task] for task in tasks(copies)}
    return dots(rows, xlabel="share of the victim's errors repeated")


def repeated_words(copies: pd.DataFrame, controls: pd.DataFrame) -> str:
    """Return on how many tasks the copy repeats more of the victim's errors than the control does, with both shares."""
    ours, alone = (rows.groupby("task")["errors_repeated"].mean() for rows in (copies, controls))
    listed = ", ".join(f"*{NAMES[task]}* {ours[task]:.2f} against {alone[task]:.2f}" for task in tasks(copies))
    more = sum(ours[task] > alone[task] for task in tasks(copies))
    return f"The copy repeats more than the independent control on {more} of {len(tasks(copies))}: {listed}."


ORDER = ("most", "second most", "third most", "fourth most")
"""Words for the first places in descending order."""


def labels(copies: pd.DataFrame, less: pd.DataFrame) -> pd.Series:
    """Return by task how much mean recovery labels alone cost compared with full answers, in descending order."""
    only = less[less["granularity"] == "label"]
    full, label = (rows.groupby("task")["recovery"].mean() for rows in (copies, only))
    return (full - label).dropna().sort_values(ascending=False)


def answers(copies: pd.DataFrame, less: pd.DataFrame) -> Plot:
    """Return recovery with full answers and with labels alone, one row per task.

    Args:
        copies, less: Rows of the tables reproduction and granularity.
    """
    found = grouped(pd.concat([copies, less]), "granularity", {"full": "full answers", "label": "labels alone"})
    bars = {NAMES[task]: value for task, value in constant_recovery(copies).items()}
    return dots({NAMES[task]: found[task] for task in tasks(copies)}, xlabel="recovery", constant=bars)


def label_words(copies: pd.DataFrame, less: pd.DataFrame) -> str:
    """Return what labels alone cost by task, and which place the tasks with many similar classes take."""
    lost = labels(copies, less)
    full, label = (_resampled(rows) for rows in (copies, less[less["granularity"] == "label"]))
    alike = [task for task in NAMES if paper.drawn(task) in ("birds", "things")]
    ranks = [*ORDER[: len(lost) - 1], "least"]
    places = _and([f"{NAMES[task]} loses the {ranks[lost.index.get_loc(task)]}" for task in alike if task in lost])
    said = []
    for task, by in lost.items():
        low, high = _range(full[task] - label[task])
        said.append(f"{_signed(by)} on *{NAMES[task]}* ({_signed(low)} to {_signed(high)})")
    return (
        f"Labels alone cost {', '.join(said)} of recovery; in brackets, what it is under resampled test images.\n"
        f"Of the tasks with many similar classes, {places}."
    )


def seed_words(copies: pd.DataFrame) -> str:
    """Return how much recovery with full answers differs between seeds, which no resampling of images shows.

    Args:
        copies: Rows of table reproduction, at all seeds.
    """
    spread = copies.groupby("task")["recovery"].std().dropna().sort_values()
    if spread.empty:
        return ""
    ends = [f"{spread.iloc[place]:.2f} (*{NAMES[spread.index[place]]}*)" for place in (0, -1)]
    return (
        "The brackets leave out the seeds: with full answers, recovery has a standard deviation of"
        f" {' to '.join(ends)} over them."
    )


def explored_words(copies: pd.DataFrame, less: pd.DataFrame) -> str:
    """Return on which tasks the cost of labels had another sign at the exploring seed; nothing if on none.

    Args:
        copies, less: Rows of the tables reproduction and granularity.
    """
    [claim] = [claim for claim in claims() if claim.id == "C3"]
    found = results.frame(rows_of("exploring", claim, scale("photos")))
    now, before = labels(copies, less), labels(found[found["granularity"] == "full"], found)
    turned = [task for task in now.index if task in before and now[task] * before[task] < 0]
    listed = _and([f"{_signed(before[task])} on *{NAMES[task]}*" for task in turned])
    return f"At the exploring seed, on validation images, labels alone cost {listed}." if listed else ""


def detectors(rows: pd.DataFrame) -> Plot:
    """Return the binary detector's balanced accuracy by task: images as they come, through a chain, second pool.

    Args:
        rows: Rows of table ``detection``. A task without a chain has its detector's figures under "as they come".
    """
    groups = {}
    for task in tasks(rows):
        own = rows[rows["task"] == task]
        matched = task in scale("photos").matched
        plain = "unmatched" if matched else "binary"
        found = {"as they come": own[f"{plain}.pool.balanced_accuracy"]}
        found |= {"through one chain": own["binary.pool.balanced_accuracy"]} if matched else {}
        found["second pool"] = own["binary.second.balanced_accuracy"]
        groups[NAMES[task]] = {name: values.tolist() for name, values in found.items()}
    chance = dict.fromkeys(groups, 0.5)
    return dots(groups, xlabel="balanced accuracy (bar: guessing)", constant=chance, limits=(0.4, 1.02), columns=2)


def chain_words(rows: pd.DataFrame) -> str:
    """Return by how much the chain lowers the detector's balanced accuracy, task by task."""
    means = rows.groupby("task")[[f"{one}.pool.balanced_accuracy" for one in ("unmatched", "binary")]].mean().dropna()
    lost = (means.iloc[:, 0] - means.iloc[:, 1]).sort_values(ascending=False)
    listed = ", ".join(f"{100 * value:.1f} points on *{NAMES[task]}*" for task, value in lost.items())
    gain = "; a negative number is a gain" if (lost < 0).any() else ""
    return f"The chain lowers the detector's balanced accuracy by {listed}{gain}."


def second_pool_words(rows: pd.DataFrame) -> str:
    """Return on which task the detector is weakest against the second pool, as a sentence."""
    means = rows.groupby("task")["binary.second.balanced_accuracy"].mean()
    weakest = means.idxmin()
    return (
        "Against the second pool, which it was not trained on, the detector is weakest on"
        f" *{NAMES[weakest]}* ({means[weakest]:.2f})."
    )


DETECTORS = {
    "resampling-differs": "trained on images as they come",
    "resampling-differs-hardened": "the same, hardened",
    "plain": "every image resampled, in training and in use",
}
"""Detectors of the experiment shortcut on photographs, with their names in the table."""


def evasions_table(rows: pd.DataFrame) -> str:
    """Return the share of queries that detectors catch, as they come and resampled as the task's images are, Markdown.

    Args:
        rows: Rows of table ``shortcut``.
    """
    body = []
    for task in tasks(rows):
        own, size = rows[rows["task"] == task], scale("photos").matched[task]
        for name, said in DETECTORS.items():
            shares = (own[f"caught.{name}.{how}"].mean() for how in ("none", "bicubic"))
            body.append([f"{NAMES[task]} ({size} pixels)", said, *(f"{share:.2f}" for share in shares)])
    heads = ["Task", "Detector", "As they come", "Resampled first"]
    said = f"Share of {rows['images'].min():,} queries that is caught; {seeds(rows).replace(' ± sd', '')}"
    return table(body, heads, caption=said, words=True)


def judged(photos: Ledger) -> str:
    """Return how many claims have a verdict on photographs so far, as a sentence."""
    verdicts = [photos.word(claim) for claim in claims()]
    count = sum(verdict is not Verdict.NOT_RUN for verdict in verdicts)
    return f"So far, {count or 'none'} of the {len(verdicts)} claims {'has' if count < 2 else 'have'} a verdict there."


def verdicts_table(drawn: Ledger, photos: Ledger) -> str:
    """Return the verdicts on all claims at both scales, and how many testable bounds the means meet on photographs.

    Bounds are counted twice: as explored, and with the rows of deciding seeds that exist so far. Tasks are named where
    bounds are of one or two.

    Args:
        drawn, photos: The ledgers of the scales drawn and photos.
    """
    body, left_out = [], {cut.table for cut in photos.scale.left_out if not cut.cells and not cut.tasks}
    for claim in claims():
        reason = claim.photos.removeprefix("shown without a verdict: ")
        if left_out & set(claim.tables):
            reason = "its rows would take too long"
        word = f"no verdict: {reason}" if reason else str(photos.word(claim))
        counts = [_count(claim, edition, photos.scale) for edition in ("exploring", "edition-2")]
        body.append([claim.id, claim.statement, str(drawn.word(claim)), word, *counts])
    heads = ["Claim", "Statement", "Drawn", "Photographs", "Explored: bounds met", "Deciding seeds so far: bounds met"]
    return table(body, heads, words=True)


def _count(claim: Claim, edition: str, photos: Scale) -> str | None:
    """Return how many of a claim's testable bounds an edition's means meet, and on which tasks if on one or two."""
    rows = rows_of(edition, claim, photos)
    bounds, _ = explored(rows, claim, photos)
    found = met(bounds)
    if not found:
        return None
    of = {rows[index].cell.task for bound in bounds if not bound.stated.counts for index in bound.rows}
    names = f" on {_and([NAMES[task] for task in NAMES if task in of])}" if len(of) <= FEW else ""
    return f"{sum(found)} of {len(found)}{names}"


def missed(photos: Ledger) -> str:
    """Return of which claims the exploring seed misses at least half of the testable bounds, as a sentence."""
    names = []
    for claim in claims():
        found = met(explored(rows_of("exploring", claim, photos.scale), claim, photos.scale)[0])
        names += [claim.id] if found and sum(found) <= len(found) / 2 else []
    return f"The exploring seed misses at least half of the bounds of {_and(names) or 'no claim'}."


def cost(tables: Sequence[pd.DataFrame]) -> str:
    """Return in words how long the rows of tables on photographs took."""
    rows, hours = sum(map(len, tables)), sum(table["seconds"].sum() for table in tables) / 3600
    return (
        f"The {rows:,} rows on photographs that this chapter reads took {hours:.1f} hours"
        " on one core, which was also doing other work."
    )


# -- photographs, where they are available ------------------------------------------


def at_hand() -> list[str]:
    """Return the names of the scale's data sets that are in `download.default_data`."""
    return [name for name in NAMES if sets.data_folders()[name].is_dir()]


def photographs(*, columns: int = 8) -> Figure:
    """Return photographs of the available data sets, one row per set, each photograph of a different class.

    None of them is part of the book: they are read from where they are.
    """
    return pictures.gallery({NAMES[name]: _some(name, columns) for name in at_hand()}, columns=columns)


def _some(name: str, count: int) -> torch.Tensor:
    """Return photographs of different classes, uint8 of shape (n, 3, SIDE, SIDE)."""
    listing = layouts.listing(name, sets.data_folders()[name])
    found = next(iter(listing.splits.values())).drop_duplicates("class")
    chosen = found["path"].iloc[np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]
    # Images inside a file of records are skipped.
    files = [listing.root / path for path in chosen if sets.file_of(path) == path]
    opened = [ImageOps.fit(Image.open(file).convert("RGB"), (SIDE, SIDE)) for file in files]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in opened])


@dataclass(frozen=True)
class Attacked:
    """An attack on photographs that was run here, seed 0.

    Attributes:
        sent: Queries, uint8 of shape (n, 3, height, width).
        answers: The victim's probabilities, float of shape (n, classes).
        images: Test images, uint8.
        truth, victim, copy, control: Labels of the test images, int64 of shape (n,).
        classes: Name of each class.
    """

    sent: torch.Tensor
    answers: torch.Tensor
    images: torch.Tensor
    truth: torch.Tensor
    victim: torch.Tensor
    copy: torch.Tensor
    control: torch.Tensor
    classes: tuple[str, ...]

    def queries(self) -> Figure:
        """Return some queries with their answers."""
        return pictures.queries(self.sent, self.answers, self.classes)

    def errors(self) -> Plot:
        """Return some of the victim's errors, with the labels of copy and independent control."""
        return pictures.errors(self.images, self.truth, self.victim, self.copy, self.control, self.classes, shown=SHOWN)


@cache
def attacked(task: str = "caltech101", *, seed: int = 0) -> Attacked:
    """Return the plain attack on a task on photographs, trained if it is not in the default store: five minutes."""
    setup = Setup(plain_cell(scale("photos"), task=task, seed=seed), store=default_store(), device="cpu")
    pool, held_out = setup.queries(), evenly(setup.held_out, 600)
    sent = pool.images[Knockoff(budget=SHOWN, seed=seed).indices(len(pool))]
    models = {"victim": setup.victim, "copy": surrogate_of(setup), "control": control_of(setup)}
    said = {name: model.predict(held_out.images) for name, model in models.items()}
    return Attacked(
        sent=sent,
        answers=setup.victim.logits(sent).softmax(1),
        images=held_out.images[:],
        truth=held_out.known_labels(),
        classes=held_out.classes,
        **said,
    )
