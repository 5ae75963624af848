"""Exercises of chapter 11, Real images, real scale."""

from collections.abc import Callable
from functools import cache
from itertools import count

import numpy as np
import torch
from scipy import stats

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import OneAccount
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import drawn, transforms
from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.defenses.detectors import BinaryDetector
from extractlib.defenses.policies import Deny
from extractlib.metrics import t_interval
from extractlib.models.classifier import load_victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe

VICTIM, SOFT = "things", "size-12"
"""The victim of exercise 11.4, and how its owner's images were processed."""


def bill(queries: int, free: int, until: int, price: float, less: float) -> float:
    """Return the cost of one month's queries, at prices per thousand."""
    return (max(min(queries, until) - free, 0) * price + max(queries - until, 0) * less) / 1_000


def frames(seed: int) -> list[tuple]:
    """Return which frames a victim gets right, and the names of their equally long tracks, in random order."""
    generator, cases = np.random.default_rng(seed), []
    for tracks, long in ((25, 30), (8, 12), (60, 5)):
        names, right = np.repeat(generator.choice(1_000, tracks, replace=False), long), np.ones(tracks * long, bool)
        while not right.reshape(tracks, long).mean(1).std():  # tracks that are all alike have no interval
            right = generator.random(len(names)) < np.repeat(generator.beta(0.8, 0.2, tracks), long)
        order = generator.permutation(len(names))
        cases.append((right[order], names[order]))
    return cases


def by_track(right: np.ndarray, tracks: np.ndarray) -> tuple[float, float]:
    """Return the confidence interval of the share that is right, with each track as one observation."""
    return t_interval([right[tracks == track].mean() for track in np.unique(tracks)])


def side_by_side(right: np.ndarray, tracks: np.ndarray) -> tuple[float, float]:
    """Return the same for as many groups of adjacent frames, regardless of their tracks."""
    return t_interval(right.reshape(len(np.unique(tracks)), -1).mean(1))


def pilots(seed: int) -> list[tuple]:
    """Return recoveries of a few seeds at two budgets, and a bound near their mean difference or far from it."""
    generator, cases = np.random.default_rng(seed), []
    for seeds, gap in 4 * ((3, 0.8), (5, -0.4), (4, 3.0), (3, 14.0)):
        noise = generator.standard_normal(seeds)
        bound, spread = generator.uniform(0.01, 0.03), generator.uniform(0.004, 0.006)
        second = 0.85 + 0.01 * generator.standard_normal(seeds)
        apart = (noise - noise.mean()) / noise.std(ddof=1) + gap * generator.uniform(0.7, 1.3)
        cases.append((second + bound + spread * apart, second, bound))
    return cases


def enough(half: Callable[[int], float], distance: float) -> int:
    """Return the smallest number of seeds, from 2, for which half an interval is shorter than a distance."""
    return next(seeds for seeds in count(2) if half(seeds) < abs(distance))


def seeds_needed(first: np.ndarray, second: np.ndarray, bound: float, *, ddof: int = 1) -> int:
    """Return how many seeds it takes until the interval of the mean difference no longer contains the bound."""
    apart = first - second
    spread = apart.std(ddof=ddof)
    return enough(lambda seeds: stats.t.ppf(0.975, seeds - 1) * spread / np.sqrt(seeds), apart.mean() - bound)


def fixed_quantile(quantile: Callable[[int], float]) -> Callable[..., int]:
    """Return `seeds_needed` with a quantile that depends at most on the pilot's number of seeds."""

    def needed(first: np.ndarray, second: np.ndarray, bound: float) -> int:
        apart = first - second
        wide = quantile(len(apart)) * apart.std(ddof=1)
        return enough(lambda seeds: wide / np.sqrt(seeds), apart.mean() - bound)

    return needed


def unpaired(first: np.ndarray, second: np.ndarray, bound: float) -> int:
    """Return the number of seeds as if the two columns were independent."""
    spread = np.sqrt(first.var(ddof=1) + second.var(ddof=1))
    distance = first.mean() - second.mean() - bound
    return enough(lambda seeds: stats.t.ppf(0.975, 2 * seeds - 2) * spread / np.sqrt(seeds), distance)


@cache
def grained(seed: int) -> tuple[BinaryDetector, torch.Tensor, ImageSet]:
    """Return a detector trained on an owner's soft and a pool's sharp images, an attacker's pool, and test images."""
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=128)
    trainer = Trainer(network="resnet", recipe=recipe, seed=seed, backbone="shipped")
    owner, ood = (drawn.draw(name, part="detector", size=600, seed=seed).unlabeled() for name in (VICTIM, "atlas"))
    return (
        BinaryDetector.train(transforms.apply_to_set(owner, SOFT), ood, trainer),
        drawn.draw("atlas", part="queries", size=1_500, seed=seed).images[:],
        drawn.draw(VICTIM, part="test", size=600, seed=seed),
    )


def denying_services(seed: int) -> list[tuple]:
    """Return an API of 1,500 queries that denies the answers it detects, a pool, and images to label."""
    detector, pool, test = grained(seed)
    return [(OneAccount(load_victim(VICTIM), budget=1_500, detector=detector, policy=Deny()), pool, test.images)]


@cache
def unprocessed(seed: int) -> np.ndarray:
    """Return the labels of a copy whose queries are the pool's unprocessed images."""
    api, pool, images = denying_services(seed)[0]
    return Knockoff(budget=len(pool))(api, as_images(pool), progress=False).predict(images).numpy()


def passed(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the recovery above that of the unprocessed pool (see `held_out.gained`), and its name."""
    victim = load_victim(VICTIM).predict(cases[0][2]).numpy()
    return held_out.gained(found, wanted, victim), "recovery above that of the unprocessed pool"


EXERCISES = (
    Exercise(
        id="11.1",
        title="The bill of a whole paper",
        kind="understand",
        minutes=6,
        variants={
            "budget": (100_000, 80_000, 90_000, 110_000, 120_000),
            "attacks": (80, *range(72, 100)),
            "free": (1_000, 2_000, 5_000),
            "until": (5_000_000, 2_000_000, 3_000_000, 4_000_000),
            "price": (1.5, 1.2, 1.6, 2.0),
            "less": (1.0, 0.6, 0.8),
        },
        right=lambda budget, attacks, **tiers: bill(budget * attacks, **tiers),
        slips={
            "prices are for a thousand queries": lambda budget, attacks, **tiers: (
                1_000 * bill(budget * attacks, **tiers)
            ),
            "the account gets its free queries once a month, not once per attack": lambda budget, attacks, **tiers: (
                bill(budget * attacks, **tiers | {"free": attacks * tiers["free"]})
            ),
            "the free queries are not paid for": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"free": 0}
            ),
            "the lower price applies to the queries above the limit, not to all": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"price": tiers["less"]}
            ),
            "no single attack reaches the lower price, but all of them together do": lambda budget, attacks, **tiers: (
                bill(budget * attacks, **tiers | {"less": tiers["price"]})
            ),
            "all attacks are billed in one month, not each as the only one of its month": (
                lambda budget, attacks, **tiers: attacks * bill(budget, **tiers)
            ),
        },
        tolerance=1e-6,
    ),
    Exercise(
        id="11.2",
        title="Thirty frames, one witness",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=frames,
        right=by_track,
        slips={
            "frames of one track count as if they were independent": lambda right, tracks: t_interval(right),
            "the frames of a track need not be next to each other": side_by_side,
        },
    ),
    Exercise(
        id="11.3",
        title="How many seeds to pay for",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=pilots,
        right=seeds_needed,
        slips={
            "both columns share their seeds": unpaired,
            "with few seeds, the normal distribution's quantile is too small": fixed_quantile(lambda pilot: 1.96),
            "more seeds also give more degrees of freedom": fixed_quantile(lambda pilot: stats.t.ppf(0.975, pilot - 1)),
            "that tests whether the difference is zero, not whether it is the bound": lambda first, second, bound: (
                seeds_needed(first, second, 0.0)
            ),
            "the spread of a sample of seeds divides by one less than their number": lambda *case: seeds_needed(
                *case, ddof=0
            ),
        },
    ),
    Exercise(
        id="11.4",
        title="The grain that gives it away",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=denying_services,
        key=lambda seed: [np.stack([grained(seed)[2].known_labels().numpy(), unprocessed(seed)])],
        score=passed,
        marks=(0.05, 0.25),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="11.5",
        title="What a small scale says",
        kind="discuss",
        minutes=14,
    ),
)
