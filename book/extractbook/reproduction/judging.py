"""How a claim is judged on a task: bounds over seeds in two looks, preconditions, verdicts.

A bound is one-sided, at 1.25% a look: it holds where the two-sided 97.5% interval lies on its side. Of the bounds of
one claim on one task, each must hold, without correction; that one is violated is judged by Holm's procedure.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from extractlib.errors import InputError

CONFIDENCE = 0.975
"""Of the printed two-sided intervals."""

ERROR = (1 - CONFIDENCE) / 2
"""Chance, a look, that a bound at its very limit is decided falsely on one side."""

DRAWS = 4_000
"""Draws of the bootstrap over seeds and test images."""


class Verdict(StrEnum):
    """What is said of a claim, on a task or in all."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    UNDECIDED = "undecided"
    NOT_TESTABLE = "not testable"
    NOT_RUN = "not run"


# -- quantities over seeds -----------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """A number by seed. Arithmetic is by seed, on the seeds that both sides have.

    Attributes:
        values: A line a seed. Its first column is the number; the others, if any, are the same under resamples of the
            test images, which are the same ones in all quantities of a task.
        images: How many images, or accounts, are behind a value; of a difference the fewer.
        rows: Index, in the frame, of the rows that it was computed from.
    """

    values: pd.DataFrame
    images: float
    rows: frozenset[int]

    def __add__(self, other: "Quantity | float") -> "Quantity":
        return self._by_seed(operator.add, other)

    def __sub__(self, other: "Quantity | float") -> "Quantity":
        return self._by_seed(operator.sub, other)

    def __mul__(self, other: "Quantity | float") -> "Quantity":
        return self._by_seed(operator.mul, other)

    def __truediv__(self, other: "Quantity | float") -> "Quantity":
        return self._by_seed(operator.truediv, other)

    def above(self, other: "Quantity | float") -> "Quantity":
        """Return 1 where this is above the other, and 0 elsewhere."""
        return self._by_seed(lambda ours, theirs: (ours - theirs > 0).astype(float), other)

    @property
    def by_seed(self) -> pd.Series:
        """The numbers themselves, by seed."""
        return self.values.iloc[:, 0]

    def _by_seed(self, operate: Callable, other: "Quantity | float") -> "Quantity":
        if not isinstance(other, Quantity):
            return Quantity(operate(self.values, other), self.images, self.rows)
        seeds = self.values.index.intersection(other.values.index)
        values = operate(self.values.loc[seeds], other.values.loc[seeds])
        return Quantity(values, float(np.minimum(self.images, other.images)), self.rows | other.rows)


@dataclass(frozen=True)
class Counts:
    """Hits in trials, by seed, which are judged together.

    Attributes:
        hits, trials: How many there are.
        control: The hits, in as many trials, of what the hits are set against; None for a limit of the bound's own.
    """

    hits: Quantity
    trials: Quantity
    control: Quantity | None = None

    @property
    def sides(self) -> tuple[Quantity, ...]:
        """The quantities that there are."""
        return tuple(side for side in (self.hits, self.trials, self.control) if side)

    @property
    def by_seed(self) -> pd.Series:
        """The share of hits, by seed; none where one of the sides has no value."""
        shares = (self.hits / self.trials).by_seed
        return shares if self.control is None else shares[shares.index.isin(self.control.by_seed.dropna().index)]

    @property
    def rows(self) -> frozenset[int]:
        """Index of the rows behind them."""
        return frozenset().union(*(side.rows for side in self.sides))


# -- bounds ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One bound of a claim, or one of its preconditions, as ``claims.toml`` has it.

    Attributes:
        name: What the test calls it.
        quantity: What is bounded, in words, with names in braces.
        sign: ``"≥"``, ``">"``, ``"≤"`` or ``"<"``; ``"±"`` for at most the limit in size (a precondition); empty for a
            number that is shown and not judged.
        limit: What it is bounded by. Of hits with a control, the p value below which the bound holds.
        tasks: The drawn tasks whose verdict it enters, or ``"across"`` for the mean over tasks, in the claim's summary.
        terms: What the quantity is the sum of. Each is a ``column`` (``recovery`` if not said) of the rows of a
            ``task`` (its own), ``times`` a factor; the other keys change the plain cell.
        counts: In place of terms, those of hits, trials and, if any, the control's hits.
        each: What names in braces stand for, of each bound of a family.
        others: The drawn tasks that ``{other}`` stands for in turn.
        range: Lowest and highest value of the quantity, to which the interval is cut.
        only: Of a precondition, the one bound that is not testable where it fails; empty for all.
    """

    name: str
    quantity: str
    tasks: Sequence[str]
    sign: str = ""
    limit: float = 0.0
    range: Sequence[float] = (-np.inf, np.inf)
    only: str = ""
    terms: Sequence[Mapping[str, Any]] = ({},)
    counts: Sequence[Mapping[str, Any]] = ()
    each: Sequence[Mapping[str, Any]] = ()
    others: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One bound, precondition or shown number on one task.

    Attributes:
        stated: What it is one of.
        statement: In words, for example ``"r(signs) ≥ 0.75"``.
        limit: What the mean is bounded by; of hits with a control, the upper end of the control's interval.
        values: By seed.
        mean: Of the values, or all hits in all trials; NaN without values.
        interval: The 97.5% interval of the mean; NaN without two values, or the number of images behind them.
        holds: Whether it holds (True), is violated on its own (False) or neither (None).
        violation: The p value of a mean on the wrong side.
        authors: The authors' value of the same quantity, or None.
        rows: Index, in the frame, of the rows that it was computed from.
        missing: The seeds of the look that have no value.
    """

    stated: Limit
    statement: str
    limit: float
    values: Mapping[int, float]
    mean: float
    interval: tuple[float, float]
    holds: bool | None
    violation: float
    authors: float | None
    rows: tuple[int, ...]
    missing: tuple[int, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its values."""
        return tuple(self.values)

    def __str__(self) -> str:
        if self.missing:
            return f"{self.statement}: no value at seed {', '.join(map(str, self.missing))}"
        mean, low, high = (f"{number:.3f}".replace("-", "−") for number in (self.mean, *self.interval))
        return f"{self.statement}: {mean}, interval {low} to {high}, {len(self.values)} seeds"


def bound(
    stated: Limit,
    quantity: Quantity | Counts,
    *,
    seeds: Sequence[int],
    words: Mapping[str, object],
    authors: float | None = None,
) -> Bound:
    """Return one bound as judged on some seeds.

    Args:
        stated: The bound, precondition or number to be shown.
        quantity: What the rows have for it.
        seeds: The seeds of the first look, or of both.
        words: What names in braces stand for.
        authors: The authors' value of the same quantity, or None.
    """
    values = quantity.by_seed.sort_index().dropna()
    number = f" {stated.sign} {stated.limit:g}".replace("-", "−") if stated.sign else ""
    nothing = float("nan")
    mean, interval, holds, violation, limit = nothing, (nothing, nothing), None, 1.0, stated.limit
    if len(values) >= 2:
        found = _counted(quantity, stated) if isinstance(quantity, Counts) else _averaged(quantity, stated)
        mean, interval, holds, violation, limit = found
    return Bound(
        stated=stated,
        statement=stated.quantity.format_map(words) + number,
        limit=limit,
        values=values.to_dict(),
        mean=mean,
        interval=interval,
        holds=holds,
        violation=violation,
        authors=authors,
        rows=tuple(sorted(quantity.rows)),
        missing=tuple(seed for seed in seeds if seed not in values.index),
    )


Found = tuple[float, tuple[float, float], bool | None, float, float]
"""Mean, interval, whether it holds, p value of its violation, limit."""


def _averaged(quantity: Quantity, limit: Limit) -> Found:
    values = quantity.values.dropna().to_numpy(float)
    ours, count, at = values[:, 0], len(values), limit.limit
    error = np.max([ours.std(ddof=1), 0.5 / quantity.images, 1e-12]) / np.sqrt(count)
    half = stats.t.ppf(1 - ERROR, count - 1) * error
    interval = ours.mean() - half, ours.mean() + half
    right = 1 if limit.sign in ("≥", ">") else -1
    violation = stats.t.cdf(right * (ours.mean() - at) / error, count - 1)
    if values.shape[1] > 1:
        draws = bootstrap(values[:, 1:])
        other = tuple(np.quantile(draws, [ERROR, 1 - ERROR]))
        interval = max(interval, other, key=lambda ends: ends[1] - ends[0])
        violation = max(violation, (1 + (right * (draws - at) >= 0).sum()) / (1 + len(draws)))
    low, high = (float(np.clip(end, limit.range[0], limit.range[1])) for end in interval)
    return float(ours.mean()), (low, high), _side(low, high, limit.sign, at), float(violation), at


def bootstrap(values: np.ndarray) -> np.ndarray:
    """Return means over seeds drawn with replacement, each under one resample of the test images.

    Args:
        values: A line a seed, a column a resample, float64 of shape (seeds, resamples).

    Returns:
        float64 of shape (`DRAWS`,), always the same for the same values.
    """
    generator = np.random.default_rng(0)
    seeds = generator.integers(len(values), size=(DRAWS, len(values)))
    return values[seeds, generator.integers(values.shape[1], size=(DRAWS, 1))].mean(axis=1)


def _counted(counts: Counts, limit: Limit) -> Found:
    seeds = counts.by_seed.dropna().index
    hits, trials, *control = (int(side.by_seed[seeds].sum()) for side in counts.sides)
    exact = stats.binomtest(hits, trials).proportion_ci(CONFIDENCE)
    interval = float(exact.low), float(exact.high)
    if not control:
        holds, at = _side(*interval, limit.sign, limit.limit), limit.limit
    else:
        at = float(stats.binomtest(control[0], trials, alternative="less").proportion_ci(CONFIDENCE).high)
        chance = stats.binomtest(hits, trials, at, alternative="greater").pvalue
        holds = True if chance < limit.limit else None
    violation = float(stats.binomtest(hits, trials, at, alternative="less").pvalue)
    return hits / trials, interval, holds, violation, at


def _side(low: float, high: float, sign: str, limit: float) -> bool | None:
    """Return on which side of a limit an interval lies, None for neither: touching it is neither."""
    if low <= limit <= high or not sign:
        return None
    return (low > limit) == (sign in ("≥", ">"))


def fulfilled(precondition: Bound) -> bool:
    """Return whether a precondition's mean is as it says."""
    mean, limit, sign = precondition.mean, precondition.limit, precondition.stated.sign
    signs = {"≥": mean >= limit, ">": mean > limit, "≤": mean <= limit, "<": mean < limit, "±": abs(mean) <= limit}
    return bool(signs[sign])


# -- verdicts ----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A claim on a task, with its verdict and what this rests on.

    Attributes:
        claim: The claim's id.
        task: The scale's task, or ``"across"``.
        verdict: The verdict.
        reason: Why, in words.
        bounds, preconditions, shown: Those of this claim and task.
        looks: How many looks were taken.
    """

    claim: str
    task: str
    verdict: Verdict
    reason: str
    bounds: tuple[Bound, ...] = ()
    preconditions: tuple[Bound, ...] = ()
    shown: tuple[Bound, ...] = ()
    looks: int = 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the bounds, ascending."""
        return tuple(sorted({seed for bound in self.bounds for seed in bound.seeds}))

    @property
    def rows(self) -> tuple[int, ...]:
        """Index, in the frame, of all rows that the verdict rests on."""
        return tuple(sorted({row for bound in (*self.bounds, *self.preconditions) for row in bound.rows}))


Judged = tuple[Verdict, str, tuple[Bound, ...], int]
"""Verdict, reason, bounds, how many looks were taken."""


def judge(*looks: Callable[[], Sequence[Bound]]) -> Judged:
    """Return what is to be said of the bounds of one claim and one task.

    A second look is taken where the first decides nothing, and counts where all bounds that were left open have their
    rows; a bound that held at the first look stays as it was.

    Args:
        looks: Each returns the bounds, the same ones, on the seeds of the first look and on those of both.

    Raises:
        InputError: It is not known how many images or accounts are behind a value.
    """
    bounds = tuple(looks[0]())
    missing = [str(bound) for bound in bounds if bound.missing]
    if missing or not bounds:
        return Verdict.NOT_RUN, "; ".join(missing) or "no bound has rows", bounds, 1
    for bound in bounds:
        if np.isnan(bound.interval).any():
            raise InputError(f"{bound.statement}: its rows do not say how many images or accounts are behind it")
    taken = 1
    if _verdict(bounds)[0] is Verdict.UNDECIDED and len(looks) > 1:
        both = tuple(old if old.holds else new for old, new in zip(bounds, looks[1](), strict=True))
        if not any(bound.missing for bound in both):
            bounds, taken = both, 2
    return *_verdict(bounds), bounds, taken


def _verdict(bounds: Sequence[Bound]) -> tuple[Verdict, str]:
    violated = holm(bounds)
    if all(bound.holds for bound in bounds):
        return Verdict.HOLDS, "; ".join(map(str, bounds))
    if violated:
        return Verdict.DOES_NOT_HOLD, "; ".join(map(str, violated))
    return Verdict.UNDECIDED, "; ".join(str(bound) for bound in bounds if not bound.holds)


def holm(bounds: Sequence[Bound]) -> list[Bound]:
    """Return the bounds that are violated, by Holm's procedure over all of them at `ERROR`."""
    ordered = sorted(bounds, key=lambda bound: bound.violation)
    kept = next(
        (place for place, bound in enumerate(ordered) if bound.violation > ERROR / (len(ordered) - place)), len(ordered)
    )
    return ordered[:kept]


def summarize(verdicts: Sequence[Verdict], *, needed: int = 0) -> Verdict:
    """Return the word on a claim from its verdicts by task.

    Args:
        verdicts: By task, and of its bounds across tasks.
        needed: How many of five must hold; 0 for all that are testable.
    """
    testable = [verdict for verdict in verdicts if verdict is not Verdict.NOT_TESTABLE]
    failing = testable.count(Verdict.DOES_NOT_HOLD)
    if failing > (1 if needed else 0):
        return Verdict.DOES_NOT_HOLD
    if Verdict.NOT_RUN in testable or not verdicts:
        return Verdict.NOT_RUN
    if not testable:
        return Verdict.NOT_TESTABLE
    return Verdict.HOLDS if testable.count(Verdict.HOLDS) >= (needed or len(testable)) else Verdict.UNDECIDED
