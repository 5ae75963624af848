"""A thief's cheapest plan, in a market that nobody has seen."""

from functools import cache, partial
from math import inf

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise

MARKETS, CENT = 20, 1e-6
"""Number of markets, and how far a bill may be from the lowest one: rounding, and nothing that could be paid."""


def markets(seed: int) -> list[tuple]:
    """Return offers, each an account's fee, the price per query and the account's limit, and the queries to send."""
    return [(list(offers), queries) for offers, queries in _drawn(seed)]


@cache
def _drawn(seed: int) -> list[tuple]:
    generator = np.random.default_rng(seed)
    cases = []
    for queries in generator.integers(60, 240, MARKETS).tolist():
        offers: list[tuple] = []
        while not offers or bill(offers, queries) == one_offer(offers, queries):  # until it pays to mix
            fees, limits = generator.integers(1, 12, 4), generator.permutation([15, 25, 40, 70])
            prices = generator.uniform(0.05, 0.3, 4).round(2)
            offers = list(zip(fees.tolist(), prices.tolist(), limits.tolist(), strict=True))
        cases.append((offers, queries))
    return cases


def bill(offers: list[tuple[float, float, int]], queries: int, *, whole: bool = False) -> float:
    """Return the lowest bill, by the best first account for each number of queries; `whole` pays for unsent queries."""
    best = [0.0] + [inf] * queries
    for left in range(1, queries + 1):
        for fee, price, limit in offers:
            for sent in (min(limit, left),) if whole else range(1, min(limit, left) + 1):
                best[left] = min(best[left], fee + (limit if whole else sent) * price + best[left - sent])
    return best[queries]


def one_offer(offers: list[tuple[float, float, int]], queries: int) -> float:
    """Return the lowest bill with accounts of a single kind."""
    return min(bill([offer], queries) for offer in offers)


def share_lowest(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of markets whose bill is the lowest, and the name of this number."""
    lowest = np.abs(np.array(found) - np.array(wanted)) <= CENT
    return float(lowest.mean()), "the share of markets with the lowest bill"


EXERCISE = Exercise(
    id="1.A",
    title="The cheapest thief",
    kind="attack or defend",
    minutes=20,
    variants={"seed": SEEDS},
    cases=markets,
    right=bill,
    slips={
        "a thief may mix the offers": one_offer,
        "only the queries that an account sends are paid for": partial(bill, whole=True),
    },
    score=share_lowest,
    marks=(0.3, 1.0),
)
