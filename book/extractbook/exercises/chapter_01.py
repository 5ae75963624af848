"""Exercises of chapter 1, The threat."""

from functools import partial

import numpy as np
import torch

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.without import SHIPPED_AND_DRAWN


def requests(seed: int) -> list[tuple]:
    """Return lists of requests, each a client's name and a number of queries, and the budget of every client."""
    generator = np.random.default_rng(seed)
    budget = int(generator.integers(20, 30))
    cases = [([("ann", budget), ("ann", 1), ("ben", budget + 1), ("ben", budget - 1), ("ben", 1)], budget)]
    for count, names in ((12, ["ann"]), (40, ["ann", "ben", "cleo"])):
        asked = [(str(generator.choice(names)), int(generator.integers(3, 12))) for _ in range(count)]
        cases.append((asked, budget))
    return cases


def served(requests: list[tuple[str, int]], budget: int, *, shared: bool = False, fined: bool = False) -> np.ndarray:
    """Return whether each request is answered, bool of shape (n,).

    Two mistakes can be switched on: a budget `shared` by all clients, and refusals that are `fined` with a charge.
    """
    left: dict[str, int] = {}
    answered = []
    for name, count in requests:
        client = "all" if shared else name
        answered.append(count <= left.setdefault(client, budget))
        left[client] -= count * (answered[-1] or fined)
    return np.array(answered)


def curves(seed: int) -> list[tuple]:
    """Return points of learning curves in no particular order, each with the accuracy of a stolen copy."""
    generator = np.random.default_rng(seed)
    cases = []
    for place in (0.3, 0.8, -0.1, 1.1):
        sizes = 100 * generator.permutation(np.arange(1, 40))[:6]
        accuracies = 0.9 - 3 / np.sqrt(sizes)
        low, high = accuracies.min(), accuracies.max()
        cases.append((sizes.tolist(), accuracies.tolist(), float(low + place * (high - low))))
    return cases


def labels_worth(sizes: list[int], accuracies: list[float], stolen: float) -> float:
    """Return the number of labels an honest model needs for an accuracy, interpolated linearly on a learning curve."""
    return float(np.interp(stolen, np.sort(accuracies), np.sort(sizes)))


QUERIES = 2_000
"""Number of images sent to the victim of exercise 1.4."""


def noise(count: int, seed: int) -> torch.Tensor:
    """Return random pixels, uint8 of shape (count, 3, 32, 32): the baseline of exercise 1.4."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def from_nothing(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the agreement of a copy trained on a held-out victim's answers, and the name of this number."""
    images = held_out.made(found, QUERIES)
    return held_out.copied("objects", images, held_out.answers("objects", images), seed=0), "agreement"


def price(images: int, label_price: float, queries: int, accounts: int, upfront: float) -> float:
    """Return the price of a query at which extraction costs as much as honest training."""
    return (images * label_price - accounts * upfront) / queries


EXERCISES = (
    Exercise(
        id="1.1",
        title="When extraction stops paying",
        kind="understand",
        minutes=5,
        variants={
            "images": (4_000, *range(2_000, 9_000, 500)),
            "label_price": (0.10, 0.05, 0.08, 0.12, 0.20),
            "queries": (10_000, *range(5_000, 30_000, 1_000)),
            "accounts": (20, *range(5, 40)),
            "upfront": (2.0, 1.0, 1.5, 2.5),
        },
        right=price,
        slips={
            "every account pays its fee": lambda **given: price(**given | {"accounts": 1}),
            "the attacker also pays for its accounts": lambda **given: price(**given | {"accounts": 0}),
            "the fees are a cost of extraction, not of honest training": (
                lambda upfront, **given: price(**given, upfront=-upfront)
            ),
        },
    ),
    Exercise(
        id="1.2",
        title="A budget for each client",
        kind="modify",
        minutes=8,
        variants={"seed": SEEDS},
        cases=requests,
        right=served,
        slips={
            "one client's queries use up another's budget": partial(served, shared=True),
            "a refused request is charged, or bars its client from then on": partial(served, fined=True),
            "an answered request is not charged": lambda requests, budget: np.array([n <= budget for _, n in requests]),
        },
    ),
    Exercise(
        id="1.3",
        title="What a copy is worth in labels",
        kind="implement",
        minutes=10,
        variants={"seed": SEEDS},
        cases=curves,
        right=labels_worth,
        slips={
            "the points come in no particular order": lambda sizes, accuracies, stolen: float(
                np.interp(stolen, accuracies, sizes)
            ),
            "between two points the curve is a straight line": lambda sizes, accuracies, stolen: float(
                min([s for s, a in zip(sizes, accuracies, strict=True) if a >= stolen], default=max(sizes))
            ),
            "that is rounded": lambda sizes, accuracies, stolen: round(labels_worth(sizes, accuracies, stolen)),
            "interpolate from accuracies to labels, not the other way": lambda sizes, accuracies, stolen: float(
                np.interp(stolen, np.sort(sizes), np.sort(accuracies))
            ),
            "interpolate from accuracies to labels, not the other way, and sort the points": (
                lambda sizes, accuracies, stolen: float(np.interp(stolen, sizes, accuracies))
            ),
        },
    ),
    Exercise(
        id="1.4",
        title="Pictures of nothing",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=partial(held_out.trials, QUERIES),
        right=noise,
        score=from_nothing,
        marks=(0.30, 0.55),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="1.5",
        title="Which client would you stop?",
        kind="discuss",
        minutes=12,
    ),
)
