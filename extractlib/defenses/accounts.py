"""Detection per client, from all its queries, and how Sybil accounts share the work.

PRADA (Juuti et al. 2019) looks at the distances between a client's queries: an honest client's are spread like a normal
distribution, but those of an attacker who crafts queries are not. The other detector here counts how many of a
client's queries were caught as out of distribution.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from extractlib.errors import InputError, ResultWarning, check_positive, keep

BLOCK = 500
"""Queries whose distances to all earlier ones are computed at a time."""

NEWEST = 5_000
"""Most distances that the statistic looks at, the newest: scipy's Shapiro-Wilk test is meant for up to 5,000."""

GRID = np.arange(70, 100) / 100
"""Thresholds to choose from."""


def nearest_earlier_distances(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return how far each query is from the nearest earlier one that got the same label.

    The distances are computed from a matrix product, whose rounding can give equal images one of some hundredths.

    Unlike in PRADA, all earlier queries count, not a set that grows only by distant ones: that set saves the server
    memory but needs a loop over the queries.

    Args:
        images: A client's queries in order, uint8 of shape (n, 3, height, width).
        labels: The victim's labels for them, int64 of shape (n,).

    Returns:
        Euclidean distances of the pixels in [0, 1], float32 of shape (n,); NaN where there is no earlier query of that
        label.
    """
    distances = torch.full((len(images),), torch.nan)
    for label in labels.unique():
        where = (labels == label).nonzero()[:, 0]
        pixels, order = images[where].flatten(1).to(torch.get_default_dtype()) / 255, torch.arange(len(where))
        for rows in order.split(BLOCK):
            apart = torch.cdist(pixels[rows], pixels[: rows[-1] + 1])
            not_earlier = order[: rows[-1] + 1] >= rows[:, None]
            distances[where[rows]] = apart.masked_fill(not_earlier, torch.inf).min(1).values
    return distances.masked_fill(distances.isinf(), torch.nan)


@dataclass(frozen=True, kw_only=True)
class StatefulDetector:
    """Flags a client once the Shapiro-Wilk statistic W of its distances falls below a threshold.

    Attributes:
        delta: The threshold of W, in (0, 1): the lower, the fewer clients are flagged.
        first: Queries after which W is first looked at.
        every: Queries after which it is looked at again.

    Raises:
        InputError: A value does not fit.
    """

    delta: float
    first: int = 100
    every: int = 100

    def __post_init__(self) -> None:
        keep(self, first=check_positive("first", self.first), every=check_positive("every", self.every))
        if not 0 < self.delta < 1:
            raise InputError(f"delta is {self.delta}: expected a number above 0 and below 1")

    def statistics(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[list[int], list[float]]:
        """Return the numbers of queries at which W is looked at, and W at each (see `nearest_earlier_distances`)."""
        distances = nearest_earlier_distances(images, labels).numpy()
        counts = list(range(self.first, len(images) + 1, self.every))
        return counts, [normality(distances[:count]) for count in counts]

    def queries_until_flagged(self, images: torch.Tensor, labels: torch.Tensor) -> int | None:
        """Return after how many queries the client is flagged, or None if it never is."""
        counts, statistics = self.statistics(images, labels)
        return next((count for count, value in zip(counts, statistics, strict=True) if value < self.delta), None)


def normality(distances: np.ndarray) -> float:
    """Return the Shapiro-Wilk statistic W, in (0, 1], of distances: 1 if they look normal.

    NaN, and values more than three standard deviations from the mean, are left out, as in PRADA. Fewer than three
    distances, or equal ones, say nothing: W is then 1.
    """
    values = distances[~np.isnan(distances)][-NEWEST:]
    if len(values):
        values = values[np.abs(values - values.mean()) <= 3 * values.std()]
    return 1.0 if len(values) < 3 or np.ptp(values) == 0 else float(stats.shapiro(values).statistic)


def choose_delta(clients: Iterable[tuple[torch.Tensor, torch.Tensor]], *, first: int = 100, every: int = 100) -> float:
    """Return the highest threshold of `GRID` at which no honest client is ever flagged; the lowest if there is none.

    If no client has sent enough queries for the detector to look at, this is the highest threshold, with a warning.

    Args:
        clients: Images and labels of each honest client (see `nearest_earlier_distances`).
        first, every: When the detector looks (see `StatefulDetector`); looking more often needs a lower threshold.

    Raises:
        InputError: One of them is not above 0.
    """
    detector = StatefulDetector(delta=0.5, first=first, every=every)
    seen = [value for client in clients for value in detector.statistics(*client)[1]]
    if not seen:
        reason = f"no honest client has sent {detector.first} queries, so there is no evidence for delta"
        warnings.warn(reason, ResultWarning, stacklevel=2)
    lowest = min(seen, default=1.0)
    fitting = GRID[lowest >= GRID]
    return float(fitting.max() if len(fitting) else GRID.min())


@dataclass(frozen=True, kw_only=True)
class CountingDetector:
    """Flags a client once more of its queries were caught than chance explains.

    With a share p of honest queries caught, at least k of n are caught with probability P(Binomial(n, p) ≥ k); the
    client is flagged at the first n at which that falls below `chance`.

    It looks after every query, so an honest client is flagged more often than `chance`, and the more so the more it
    sends. A rate that was estimated from few queries is also off, which over many queries looks like an attack: fit it
    on many more queries than a client may send, or give a `rate` above the estimate.

    Attributes:
        rate: p, the share of honest queries that a detector catches, in (0, 1).
        chance: How improbable an honest client's count may be at one look if the rate is right, in (0, 1).

    Raises:
        InputError: A value does not fit.
    """

    rate: float
    chance: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or not 0 < self.chance < 1:
            raise InputError(f"rate is {self.rate} and chance {self.chance}: expected numbers above 0 and below 1")

    @classmethod
    def fit(cls, caught: torch.Tensor) -> "CountingDetector":
        """Return a detector whose rate is that of honest queries, bool of shape (n,), with one more caught to be safe.

        Raises:
            InputError: All but at most one were caught, or there are none.
        """
        return cls(rate=(int(caught.sum()) + 1) / max(len(caught), 1))

    def queries_until_flagged(self, caught: torch.Tensor) -> int | None:
        """Return after how many queries the client is flagged, or None if it never is.

        Args:
            caught: Whether each query of the client, in order, was caught: bool of shape (n,).
        """
        counts = caught.cumsum(0).numpy()
        numbers = np.arange(1, len(counts) + 1)
        found = np.flatnonzero(stats.binom.sf(counts - 1, numbers, self.rate) < self.chance)
        return int(numbers[found[0]]) if len(found) else None


def accounts_needed(budget: int, until_flagged: int | None) -> int:
    """Return how many accounts must share a budget so that each sends fewer queries than get an account flagged.

    ⌈budget / (until_flagged - 1)⌉; 1 if an account is never flagged.

    Raises:
        InputError: The budget is not a whole number of at least 1, or one query is enough to be flagged.
    """
    budget = check_positive("budget", budget)
    if until_flagged is None:
        return 1
    if until_flagged < 2:
        raise InputError(f"flagged after {until_flagged} queries: no number of accounts can stay below that")
    return math.ceil(budget / (until_flagged - 1))


def split_among(count: int, accounts: int) -> list[torch.Tensor]:
    """Return the queries of each account, int64 in order: dealt in turn, so that no two differ by more than one."""
    accounts = check_positive("accounts", accounts)
    everything = torch.arange(count)
    return [everything[first::accounts] for first in range(accounts)]


def entry_cost(*, accounts: int, upfront: float, queries: int, price: float) -> float:
    """Return what an API costs its user: accounts · upfront + queries · price, in the currency of both."""
    return accounts * upfront + queries * price
