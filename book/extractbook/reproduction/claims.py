"""The second edition's claims, as ``paper/claims.toml`` states them, and what each test takes from the rows.

A test is a function of the rows and a task. It yields an `Outcome` for each bound, precondition and number that is
shown; which of them enter the verdict on that task, and what they are bounded by, stands in the file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from extractbook.reproduction import editions, paper
from extractbook.reproduction.judging import (
    ERROR,
    Bound,
    Counts,
    Judged,
    Limit,
    Outcome,
    Quantity,
    Verdict,
    bound,
    fulfilled,
    judge,
    summarize,
)
from extractbook.reproduction.scales import read_toml
from extractlib.errors import InputError

FILE = Path(paper.__file__).with_name("claims.toml")

ACROSS = "across"
"""Stands for a task where a bound is across tasks."""

RESAMPLED = "resampled."
"""What the column begins with that holds, as a list, a number under resamples of the test images."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim with its test, as ``claims.toml`` has it.

    Attributes:
        id: ``"C1"`` to ``"C15"`` for the paper's, ``"B1"`` and on for ours.
        statement: The claim in a sentence.
        authors: The figures it rests on, in words.
        test: What has to come out for it to hold, in words.
        tables: The tables whose rows it needs.
        command: What makes these rows.
        bounds, preconditions, shown: The numbers of the test.
        needed: How many of five tasks must hold; 0 for all that are testable.
        photos: Why it has no verdict on photographs; empty where it has one.
        photos_looks: First and last seed of each look on photographs, where they are not the edition's.
    """

    id: str
    statement: str
    authors: str
    test: str
    tables: tuple[str, ...]
    command: str
    bounds: tuple[Limit, ...]
    preconditions: tuple[Limit, ...] = ()
    shown: tuple[Limit, ...] = ()
    needed: int = 0
    photos: str = ""
    photos_looks: tuple[tuple[int, int], ...] = ()


@cache
def claims() -> tuple[Claim, ...]:
    """Return the claims in their order, the paper's and then ours."""
    content = read_toml(FILE)
    groups, command = content["groups"], content["command"]
    return tuple(_claim(entry, groups, command) for entry in content["claims"])


def _claim(entry: Mapping[str, Any], groups: Mapping[str, list[str]], command: str) -> Claim:
    limits = {
        kind: tuple(Limit(**{**limit, "tasks": tuple(groups[limit["tasks"]])}) for limit in entry.get(kind, ()))
        for kind in ("bounds", "preconditions", "shown")
    }
    tables = "".join(f" --table {table}" for table in entry["tables"])
    return Claim(**{**entry, **limits, "tables": tuple(entry["tables"]), "command": command + tables})


# -- the rows that a test reads ----------------------------------------------------


class Scale(Protocol):
    """What the tests ask of a scale (see `scales.Scale`)."""

    name: str
    tasks: Sequence[str]
    pool: str
    network: str
    other_network: str
    scratch_networks: Mapping[str, str]
    budget: int
    middle_budget: int
    realistic_budgets: Sequence[int]
    narrow_pool: str
    narrow_budget: int
    flag_times: Mapping[str, Mapping[str, int]]
    surrogate: Any


IDENTIFYING = {
    "control": ("victim", "victim_weights", "surrogate", "surrogate_weights"),
    "detection": ("pool",),
    "overlap": ("pool", "overlap"),
    "accounts": (),
    "asked_twice": (),
    "shortcut": (),
}
"""The settings, beside task and seed, by which the rows of an experiment are told apart; elsewhere all of them."""


class Evidence:
    """The rows of one scale at the seeds of one look.

    Args:
        frame: Rows of any tables of one scale that count (see `results.frame`).
        scale: The scale.
        seeds: The seeds.
    """

    def __init__(self, frame: pd.DataFrame, scale: Scale, seeds: Sequence[int]):
        others = set(frame["scale"]) - {scale.name}
        if others:
            raise InputError(f"rows of scale {min(others)!r} among those of {scale.name!r}: claims are of one scale")
        self.frame, self.scale, self.seeds = frame, scale, seeds
        lists = (column for column in frame if str(column).startswith(RESAMPLED))
        self._resamples = max((len(values) for column in lists for values in frame[column].dropna()), default=0)
        self._plain = {
            "pool": scale.pool,
            "victim": scale.network,
            "surrogate": scale.network,
            "granularity": "full",
            "budget": scale.budget,
            "attack": "random",
            "reward": "",
            "defense": "none",
            "overlap": 0.0,
            "victim_weights": "A",
            "surrogate_weights": "A",
            "steps": scale.surrogate.steps,
            "fill": "even",
        }

    def like(self, *drawn: str) -> list[str]:
        """Return the scale's tasks that stand for the same of the authors' victims as one of the drawn tasks."""
        return [task for task in self.scale.tasks if paper.drawn(task) in drawn]

    def rows(
        self, task: str, *, experiment: str = "extraction", seeds: Sequence[int] = (), **changes: Any
    ) -> pd.DataFrame:
        """Return the rows of a task's plain cell with changes, by seed, at the look's seeds or others.

        Raises:
            InputError: There is no such setting, or two rows of one cell differ.
        """
        if changes.keys() - self._plain.keys():
            raise InputError(f"a cell has no {min(changes.keys() - self._plain.keys())!r}")
        settings = self._plain | changes
        names = {*IDENTIFYING.get(experiment, settings), *changes}
        wanted = {"task": task, "experiment": experiment} | {name: settings[name] for name in names}
        chosen = self.frame["seed"].isin(seeds or self.seeds)
        for name, value in wanted.items():
            chosen &= self.frame[name] == value
        return self.frame[chosen].sort_values("seed")

    def find(self, column: str, task: str, *, images: str = "images", **changes: Any) -> Quantity:
        """Return one column of `rows`; `images` is the one that says how many images or accounts are behind it.

        Raises:
            InputError: There is no such setting, or two rows of one cell differ.
        """
        rows = self.rows(task, **changes)
        rows = rows.dropna(subset=column) if column in rows else rows.iloc[:0]
        return self.quantity(rows, rows.get(column, []), rows.get(images), rows.get(RESAMPLED + column))

    def quantity(self, rows: pd.DataFrame, values: Any, images: Any, resampled: Any = None) -> Quantity:
        """Return numbers, one a row, as a quantity.

        Raises:
            InputError: Two numbers of one seed differ.
        """
        found = pd.DataFrame({0: np.asarray(values, dtype=float)}, index=rows["seed"].to_numpy())
        for seed, same in found.groupby(level=0)[0]:
            if same.nunique() > 1:
                task = rows["task"].iloc[0]
                raise InputError(f"two rows for task {task!r} and seed {seed} of one cell differ: give one")
        draws = np.repeat(found.to_numpy(), self._resamples, axis=1) if resampled is None else np.stack(resampled)
        found = pd.concat(
            [found, pd.DataFrame(draws, index=found.index, columns=range(1, 1 + self._resamples))], axis=1
        )
        fewest = np.nan if images is None else np.min(images, initial=np.inf)
        return Quantity(found[~found.index.duplicated()], float(fewest), frozenset(rows.index))

    def number(self, value: float) -> Quantity:
        """Return a number that is the same at each seed."""
        values = pd.DataFrame(value, index=list(self.seeds), columns=range(1 + self._resamples), dtype=float)
        return Quantity(values, np.inf, frozenset())

    def recovery(self, task: str, **changes: Any) -> Quantity:
        """Return the recovery of the plain cell with changes."""
        return self.find("recovery", task, **changes)

    def above_constant(self, task: str, **changes: Any) -> Quantity:
        """Return the recovery above the constant predictor's."""
        return self.find("recovery_above_constant", task, **changes)

    def constant(self, task: str) -> Quantity:
        """Return the constant predictor's recovery."""
        return self.find("constant_accuracy", task) / self.find("victim_accuracy", task)

    def detection(self, task: str, column: str = "binary.pool.balanced_accuracy") -> Quantity:
        """Return a column of the detectors' rows."""
        return self.find(column, task, experiment="detection")

    def own(self, task: str) -> dict[str, Any]:
        """Return the settings of the adversary with its own images at the number at which it is judged."""
        scale = self.scale
        return {
            "pool": f"{task}/shifted",
            "budget": max(number for number in scale.realistic_budgets if 4 * number <= scale.budget),
        }


# -- verdicts --------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A claim on a task, with its verdict.

    Attributes:
        claim: The claim.
        task: The scale's task, or `ACROSS`.
        judged: The verdict and what it rests on.
    """

    claim: Claim
    task: str
    judged: Judged


def verdicts(frame: pd.DataFrame, scale: Scale) -> list[Entry]:
    """Return an entry for each claim and each task that it is judged on.

    Args:
        frame: Rows of any tables of the scale that count, at any seeds (see `editions.counts`).
        scale: The scale.

    Raises:
        InputError: A row is of another scale, two rows of one cell differ, or one does not say how many images are
            behind it.
    """
    return [entry for claim in claims() for entry in entries(claim, frame, scale)]


def entries(claim: Claim, frame: pd.DataFrame, scale: Scale) -> list[Entry]:
    """Return the entries of one claim (see `verdicts`)."""
    edition = editions.of_scale(scale.name)
    looks = (
        editions.spans(claim.photos_looks) if edition == "photos" and claim.photos_looks else editions.looks(edition)
    )
    found = [Evidence(frame, scale, look) for look in looks]
    entered = {task for limit in claim.bounds for task in limit.tasks}
    tasks = [task for task in (*scale.tasks, ACROSS) if (paper.drawn(task) or task) in entered]
    return [Entry(claim, task, _judged(claim, task, found, edition)) for task in tasks]


def _judged(claim: Claim, task: str, looks: Sequence[Evidence], edition: str) -> Judged:
    def of(limits: Sequence[Limit], look: int) -> list[Bound]:
        entered = {limit.name: limit for limit in limits if (paper.drawn(task) or task) in limit.tasks}
        outcomes = [outcome for outcome in found[look] if outcome.name in entered]
        return [bound(one, entered[one.name], task=task, seeds=looks[look].seeds) for one in outcomes]

    found = [list(TESTS[claim.id](evidence, task)) for evidence in looks]
    preconditions, shown = of(claim.preconditions, 0), of(claim.shown, -1)
    missing = [str(one) for one in preconditions if one.missing]
    failing = [one for one in preconditions if not one.missing and not fulfilled(one)]
    skipped = {limit.only for limit in claim.preconditions for one in failing if one.name == limit.name}
    limits = [limit for limit in claim.bounds if not skipped & {"", limit.name}]
    if edition == "photos" and claim.photos:
        judged = Judged(Verdict.NOT_RUN, claim.photos)
    elif missing:
        judged = Judged(Verdict.NOT_RUN, "; ".join(missing))
    elif skipped and not limits:
        judged = Judged(Verdict.NOT_TESTABLE, "")
    else:
        judged = judge(*(of(limits, look) for look in range(len(looks))))
    reason = "; ".join(filter(None, [judged.reason, *(f"not testable: {one}" for one in failing)]))
    return replace(judged, reason=reason, preconditions=tuple(preconditions), shown=tuple(shown))


def matrix(judged: Sequence[Entry]) -> pd.DataFrame:
    """Return the verdicts, a line a claim, a column a task; the column ``claim`` has the word on the whole claim."""
    words = pd.DataFrame([(one.claim.id, one.task, str(one.judged.verdict)) for one in judged]).pivot(
        index=0, columns=1, values=2
    )
    by_claim = {one.claim.id: one.claim for one in judged}
    words["claim"] = [
        str(summarize([one.judged.verdict for one in judged if one.claim.id == id], needed=by_claim[id].needed))
        for id in words.index
    ]
    return words.loc[list(by_claim)].rename_axis(index=None, columns=None)


def expected_false(judged: Sequence[Entry]) -> tuple[int, float]:
    """Return how many cells of the matrix were judged, and how many false ones to expect among them at most."""
    open_to_error = (Verdict.HOLDS, Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED)
    looks = [one.judged.looks for one in judged if one.judged.verdict in open_to_error]
    return len(looks), sum(looks) * ERROR


# -- the tests, one a claim ----------------------------------------------------------------

TESTS: dict[str, Callable[[Evidence, str], Iterator[Outcome]]] = {}


def _test(claim: str) -> Callable:
    def enter(function: Callable) -> Callable:
        TESTS[claim] = function
        return function

    return enter


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(first - second, 3)


@_test("C1")
def _each_task_is_recovered(e: Evidence, task: str) -> Iterator[Outcome]:
    yield Outcome("recovery", e.recovery(task), paper.recovery(task))
    yield Outcome("constant", e.constant(task))
    yield Outcome("above constant", e.above_constant(task))


@_test("C2")
def _retina_is_recovered_worst(e: Evidence, task: str) -> Iterator[Outcome]:
    for worst in e.like("retina"):
        theirs = _less(paper.recovery(task), paper.recovery(worst))
        yield Outcome("difference", e.recovery(task) - e.recovery(worst), theirs, {"other": worst})
        yield Outcome("above constant", e.above_constant(task) - e.above_constant(worst), words={"other": worst})


@_test("C3")
def _label_costs_most_where_classes_are_alike(e: Evidence, task: str) -> Iterator[Outcome]:
    def drop(task: str) -> Quantity:
        return e.recovery(task) - e.recovery(task, granularity="label")

    def theirs(task: str) -> float | None:
        return _less(paper.recovery(task), paper.recovery(task, "granularity"))

    yield Outcome("drop", drop(task), theirs(task))
    for other in e.like("retina", "signs", "objects"):
        words = {"other": other}
        yield Outcome("difference", drop(task) - drop(other), _less(theirs(task), theirs(other)), words)


@_test("C4")
def _granularity_in_between_costs_in_between(e: Evidence, task: str) -> Iterator[Outcome]:
    shown = {name: e.recovery(task, granularity=name) for name in ("full", "rounded-1", "label")}
    for name in ("top-5", "top-2"):
        even, renormalized = ({"granularity": name, "fill": fill} for fill in ("even", "renormalized"))
        first, second = e.recovery(task, **even), e.recovery(task, **renormalized)
        agrees = e.find("held_out_agreement", task, **renormalized).above(e.find("held_out_agreement", task, **even))
        shown[name] = first + agrees * (second - first)
        yield Outcome("fill", second - first, words={"granularity": name})
    yield Outcome("label costs", shown["full"] - shown["label"])
    for chain in (("full", "top-5", "top-2", "label"), ("full", "rounded-1", "label")):
        for more, less in pairwise(chain):
            yield Outcome("step", shown[less] - shown[more], words={"more": more, "less": less})


@_test("C5")
def _another_architecture_recovers_less(e: Evidence, task: str) -> Iterator[Outcome]:
    other = e.scale.other_network
    theirs = _less(*(paper.recovery(task, "architecture", network) for network in ("RN34", "VGG16")))
    drop = e.recovery(task) - e.recovery(task, surrogate=other)
    yield Outcome("above", drop, theirs)
    yield Outcome("below", drop, theirs)
    unshared = {"surrogate_weights": "B"}
    yield Outcome("other weights", e.recovery(task, **unshared) - e.recovery(task, surrogate=other, **unshared))


@_test("C6")
def _from_scratch_is_harder_to_steal(e: Evidence, task: str) -> Iterator[Outcome]:
    plain, network = e.recovery(task), e.scale.scratch_networks.get(task, "")
    theirs = _less(paper.recovery(task, "architecture", "RN34"), paper.scratch_recovery(task))
    yield Outcome("pre-trained", plain)
    yield Outcome("drop", plain - e.recovery(task, victim=network, victim_weights="none"), theirs)
    yield Outcome("same network", plain - e.recovery(task, victim_weights="none"))


@_test("C7")
def _narrow_queries_fail(e: Evidence, task: str) -> Iterator[Outcome]:
    narrow = e.recovery(task, pool=e.scale.narrow_pool, budget=e.scale.narrow_budget)
    yield Outcome("public", e.recovery(task, budget=e.scale.narrow_budget))
    yield Outcome("constant", e.constant(task))
    for name in ("others", "own"):
        yield Outcome(name, narrow, paper.recovery(task, "query_diversity"))
    yield Outcome("above constant", e.above_constant(task, pool=e.scale.narrow_pool, budget=e.scale.narrow_budget))


@_test("C8")
def _classes_are_recovered_unevenly(e: Evidence, task: str) -> Iterator[Outcome]:
    rows = e.rows(task, experiment="classes")
    found = [worst_class(row) for _, row in rows.iterrows()]
    shortfall, images, left_out = zip(*found, strict=True) if found else ((), (), ())
    yield Outcome("errors", e.find("errors_introduced", task, experiment="classes"))
    yield Outcome("shortfall", e.quantity(rows, shortfall, images))
    yield Outcome("left out", e.quantity(rows, left_out, images))


def worst_class(row: Mapping[str, Any]) -> tuple[float, int, int]:
    """Return how far the class that the first half of the test images recovers worst is below the mean on the second.

    Args:
        row: Of the experiment ``"classes"``.

    Returns:
        The shortfall; the images behind it; how many classes were left out, since they have fewer than 100 test images
        or a victim accuracy below 0.2 on a half.
    """
    victim, surrogate = (np.array(row[f"{model}_accuracy"]) for model in ("victim", "surrogate"))
    images = np.array(row["victim_confusion"]).sum(axis=1)
    kept = (victim >= 0.2).all(axis=0) & (images >= 100)
    if not kept.any():
        return np.nan, 0, len(kept)
    recovered = surrogate[:, kept] / victim[:, kept]
    worst = int(recovered[0].argmin())
    return float(recovered[1].mean() - recovered[1, worst]), int(images[kept][worst] // 2), int((~kept).sum())


def _authors_balanced(task: str, pool: str) -> float | None:
    rates = paper.tables()["detection"]["rows"].get(paper.victim(task), {}).get(pool)
    return rates and round(sum(rates) / 200, 3)


@_test("C9")
def _a_classifier_detects(e: Evidence, task: str) -> Iterator[Outcome]:
    ours, theirs = e.detection(task), _authors_balanced(task, "imagenet")
    yield Outcome("accurate", ours, theirs)
    yield Outcome("weak", ours, theirs)
    for other in e.scale.tasks:
        if other != task:
            more = _less(_authors_balanced(other, "imagenet"), theirs)
            yield Outcome("lowest", e.detection(other) - ours, more, {"other": other})


@_test("C10")
def _it_holds_on_an_unseen_pool(e: Evidence, task: str) -> Iterator[Outcome]:
    change = e.detection(task, "binary.second.balanced_accuracy") - e.detection(task)
    yield Outcome("change", change, _less(*(_authors_balanced(task, pool) for pool in ("openimages", "imagenet"))))


@_test("C11")
def _it_beats_others(e: Evidence, task: str) -> Iterator[Outcome]:
    def gain(task: str, other: str, column: str) -> Quantity:
        return e.detection(task, f"binary.pool.{column}") - e.detection(task, f"{other}.pool.{column}")

    for other in ("odin", "mahalanobis"):
        words = {"other": other}
        if task == ACROSS:
            total = sum((gain(each, other, "tnr_at_95") for each in e.scale.tasks), start=e.number(0))
            yield Outcome("mean", total / len(e.scale.tasks), words=words)
        else:
            yield Outcome("not lower", gain(task, other, "tnr_at_95"), words=words)
            yield Outcome("auroc", gain(task, other, "auroc"), words=words)


@_test("C12")
def _shuffling_stops_the_attack(e: Evidence, task: str) -> Iterator[Outcome]:
    yield Outcome("undefended", e.recovery(task))
    yield Outcome("left", e.above_constant(task, defense="shuffle") - e.above_constant(task) * 0.5)
    yield Outcome("defended", e.recovery(task, defense="shuffle"), paper.recovery(task, "defended"))


@_test("C13")
def _own_kind_evades(e: Evidence, task: str) -> Iterator[Outcome]:
    yield Outcome("detector", e.detection(task))
    yield Outcome("caught more", e.detection(task, "caught.shifted") - e.detection(task, "caught.benign"))
    yield Outcome("shift", e.detection(task, "victim_accuracy") - e.detection(task, "shifted_victim_accuracy"))


@_test("C14")
def _own_kind_steals(e: Evidence, task: str) -> Iterator[Outcome]:
    own = e.own(task)
    words = {"own": own["budget"], "public": 4 * own["budget"]}
    yield Outcome("gain", e.recovery(task, **own) - e.recovery(task, budget=words["public"]), words=words)
    asked = e.recovery(task, **own) - e.recovery(task, **own, attack="own-labels")
    yield Outcome("asking", asked, words=words)


@_test("C15")
def _overlap_weakens_detection(e: Evidence, task: str) -> Iterator[Outcome]:
    shares = np.array([0, 0.25, 0.5, 0.75])
    weights = (shares - shares.mean()) / ((shares - shares.mean()) ** 2).sum()
    measured = (("slope", "shifted", "balanced_accuracy"), ("public", "shifted", "tnr_public"))
    for name, pool, column in (*measured, ("very same source", "", "balanced_accuracy")):
        cell = {"experiment": "overlap", "pool": f"{task}/{pool}".rstrip("/")}
        values = [e.find(column, task, **cell, overlap=float(share)) for share in shares]
        pairs = zip(values, weights, strict=True)
        yield Outcome(name, sum((value * float(weight) for value, weight in pairs), start=e.number(0)))


@_test("B1")
def _adaptive_beats_random(e: Evidence, task: str) -> Iterator[Outcome]:
    budget = e.scale.middle_budget
    for reward in ("certainty", "diversity", "loss", "all"):
        chosen = e.recovery(task, attack="adaptive", reward=reward, budget=budget)
        words = {"reward": reward, "budget": budget}
        yield Outcome("gain", chosen - e.recovery(task, budget=budget), words=words)


@_test("B2")
def _sybils_defeat_stateful_detection(e: Evidence, task: str) -> Iterator[Outcome]:
    for detector in ("prada", "counting"):
        flagged, control = (f"{detector}.{column}" for column in ("sybil_flagged", "positive_control_flagged"))
        accounts = {"experiment": "accounts", "images": f"{detector}.accounts"}
        yield Outcome(f"{detector} works", e.find(control, task, **accounts))
        yield Outcome(f"{detector} time", e.number(e.scale.flag_times.get(task, {}).get(detector, 0)))
        yield Outcome(detector, e.find(flagged, task, **accounts))


@_test("B3")
def _the_mark_survives(e: Evidence, task: str) -> Iterator[Outcome]:
    for name, times in (("steps", 1), ("three times", 3)):
        steps = times * e.scale.surrogate.steps
        columns = ("marks_repeated", "marked", "marks_repeated_by_control")
        found = Counts(*(e.find(column, task, defense="watermark", steps=steps) for column in columns))
        yield Outcome(name, found, words={"steps": steps})
        yield Outcome("half", found.hits / found.trials, words={"steps": steps})


@_test("B4")
def _honest_users_lose_little(e: Evidence, task: str) -> Iterator[Outcome]:
    yield Outcome("detector", e.detection(task))
    for policy in ("shuffle", "deny", "label"):
        loss = e.find("victim_accuracy", task, defense=policy) - e.find("honest_accuracy", task, defense=policy)
        yield Outcome("loss", loss, words={"policy": policy})
        yield Outcome("refused", e.find("honest_refused", task, defense=policy), words={"policy": policy})


def _matched(e: Evidence, task: str) -> Quantity:
    column = "validation_accuracy"
    return e.find(column, task) - e.find(column, task, experiment="control")


@_test("B5")
def _errors_are_repeated(e: Evidence, task: str) -> Iterator[Outcome]:
    copy, control = (
        e.find("errors_repeated", task, experiment=kind, images="errors") for kind in ("extraction", "control")
    )
    yield Outcome("matched", _matched(e, task))
    yield Outcome("more", copy - control)


@_test("B10")
def _shared_weights_help(e: Evidence, task: str) -> Iterator[Outcome]:
    r = {both: e.recovery(task, victim_weights=both[0], surrogate_weights=both[1]) for both in ("AA", "BB", "AB", "BA")}
    yield Outcome("gain", (r["AA"] + r["BB"] - r["AB"] - r["BA"]) * 0.5)
    yield Outcome("one victim", r["AA"] - r["AB"])


@_test("B11")
def _repeated_errors_accuse(e: Evidence, task: str) -> Iterator[Outcome]:
    def controls(column: str) -> pd.Series:
        halves = {"A": [s for s in editions.controls() if not s % 2], "B": [s for s in editions.controls() if s % 2]}
        found = [
            e.find(column, task, experiment="control", surrogate_weights=weights, seeds=seeds)
            for weights, seeds in halves.items()
        ]
        rows.update(*(half.rows for half in found))
        return pd.concat([half.by_seed for half in found])

    rows: set[int] = set()
    copies = e.find("errors_repeated", task, images="errors")
    shares, accuracies = controls("errors_repeated"), controls("validation_accuracy")
    complete = len(shares) == len(editions.controls())
    threshold = shares.nlargest(3).iloc[-1] if complete else np.nan
    hits = copies.above(threshold) if complete else copies * np.nan
    yield Outcome("matched", e.find("validation_accuracy", task) - float(accuracies.mean()))
    yield Outcome("accused", Counts(Quantity(hits.values, hits.images, copies.rows | rows), copies * 0 + 1))
    inferred = e.find("dataset_inference_p", task)
    yield Outcome("dataset inference", e.number(0.05).above(inferred))


@_test("B12")
def _shuffled_answers_are_found_out(e: Evidence, task: str) -> Iterator[Outcome]:
    def asked(column: str) -> Quantity:
        return e.find(column, task, experiment="asked_twice")

    for name in ("some", "not all"):
        yield Outcome(name, asked("shuffled"))
    yield Outcome("told apart", asked("auroc"))
    yield Outcome("gain", asked("recovery_consistent") - asked("recovery_all"))


@_test("B13")
def _a_later_defense_does_better(e: Evidence, task: str) -> Iterator[Outcome]:
    own = e.own(task)
    shuffled = e.recovery(task, **own, defense="shuffle")
    yield Outcome("shuffling fails", shuffled - e.constant(task))
    for defense in ("misinformation", "reverse-sigmoid"):
        words = {"defense": defense}
        yield Outcome("gain", shuffled - e.recovery(task, **own, defense=defense), words=words)
        public = {"defense": defense, "budget": own["budget"]}
        yield Outcome("public", e.recovery(task, **public), words=words)


@_test("B6")
def _compression_is_what_is_detected(e: Evidence, task: str) -> Iterator[Outcome]:
    yield from _shortcut(e, task, "compression", "jpeg-75")


@_test("B8")
def _resampling_is_what_is_detected(e: Evidence, task: str) -> Iterator[Outcome]:
    yield from _shortcut(e, task, "resampling", "bicubic")


TESTS |= {"B7": TESTS["B6"], "B9": TESTS["B8"]}


def _shortcut(e: Evidence, task: str, kind: str, how: str) -> Iterator[Outcome]:
    def found(*path: str) -> Quantity:
        return e.find(".".join(path), task, experiment="shortcut")

    def caught_less(detector: str) -> Quantity:
        return found("caught", detector, "none") - found("caught", detector, how)

    quality = [found("sides", f"{kind}-{sides}", "balanced_accuracy") for sides in ("differs", "matched")]
    yield Outcome("sides", quality[0] - quality[1])
    yield Outcome("caught less", caught_less(f"{kind}-differs"))
    yield Outcome("hardened", caught_less(f"{kind}-differs-hardened"))
