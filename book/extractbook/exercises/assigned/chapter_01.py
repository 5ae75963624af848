"""A thief's cheapest plan, in a market that nobody has seen."""

from functools import partial
from math import inf

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise


def markets(seed: int) -> list[tuple]:
    """Return offers, each an account's fee, the price per query and the account's limit, and the queries to send."""
    generator = np.random.default_rng(seed)
    cases = []
    for queries in (90, 173, 260, 307):
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
)
