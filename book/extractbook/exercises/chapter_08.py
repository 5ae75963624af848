"""Exercises of chapter 8, Diversity and classes."""

import numpy as np
import torch
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import LabelService

SHARES = ([1 / 6] * 6, [0.7, *[0.03] * 10], [0.5, 0.3, 0.2])
"""Shares of classes in pools: few equal ones are worth more than many of which most are rare."""


def halves(seed: int) -> list[tuple]:
    """Return recoveries on two halves, of shape (2, classes): equal classes, and classes one of which is lost."""
    generator = np.random.default_rng(seed)
    cases = [(generator.binomial(50, 0.9, (2, classes)) / 50,) for classes in (43, 10)]
    cases[1][0][:, generator.integers(10)] -= 0.4
    # Without ties it is clear which class is the lowest.
    return [(recovered + generator.uniform(0, 1e-3, recovered.shape),) for (recovered,) in cases]


def one_way(recovered: np.ndarray) -> float:
    """Return how far the class that is lowest in the first row is below the mean of the second."""
    return recovered[1].mean() - recovered[1, recovered[0].argmin()]


def confusions(seed: int) -> list[tuple]:
    """Return two confusion matrices of the same images, in the last of which agreement cannot be avoided."""
    generator, cases = np.random.default_rng(seed), []
    for classes, right in ((3, 0.3), (5, 0.4), (4, 0.8)):
        shares = right * np.eye(classes) + (1 - right) / classes
        cases.append(tuple(np.stack([generator.multinomial(60, row) for row in shares]) for _ in range(2)))
    return cases


def possible_agreement(victim: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest agreement of models with these answers to the images of each true class."""
    forced = (victim + surrogate - victim.sum(1, keepdims=True)).clip(min=0)
    return forced.sum() / victim.sum(), np.minimum(victim, surrogate).sum() / victim.sum()


def blind_to_truth(victim: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the same, had nobody told which answers were to images of which class."""
    return possible_agreement(victim.sum(0, keepdims=True), surrogate.sum(0, keepdims=True))


def pools(seed: int) -> list[tuple]:
    """Return label services with three pools that stand kind beside kind, and numbers of probes."""
    generator, cases = np.random.default_rng(seed), []
    for best in generator.permutation(3):
        kinds, made = generator.permutation(11), []
        for shares in np.roll(np.array(SHARES, object), best):
            classes = np.repeat(kinds[: len(shares)], np.multiply(shares, 1_200).round().astype(int))
            made.append(torch.eye(11)[classes] + torch.from_numpy(generator.uniform(0, 0.2, (len(classes), 11))))
        cases.append((LabelService(torch.eye(11).double(), torch.zeros(11), 600), made, 600))
    return cases


def effective_classes(pool: torch.Tensor) -> float:
    """Return the effective number of classes among vectors that are labeled by their highest number."""
    return float(np.exp(stats.entropy(pool.argmax(1).bincount().numpy())))


def widest(pools: list[torch.Tensor]) -> int:
    """Return the place of the pool with the largest effective number of classes."""
    return int(np.argmax([effective_classes(pool) for pool in pools]))


EXERCISES = (
    Exercise(
        id="8.1",
        title="Classes that never come up",
        kind="understand",
        minutes=6,
        variants={
            "rare": (10, *range(5, 30)),
            "share": (0.001, *(part / 10_000 for part in range(8, 20))),
            "budget": (1_000, *range(500, 1_500, 50)),
        },
        right=lambda rare, share, budget: rare * (1 - share) ** budget,
        slips={
            "those are the classes that do come up": lambda rare, share, budget: rare * (1 - (1 - share) ** budget),
            "that is the chance of a single class": lambda rare, share, budget: (1 - share) ** budget,
            "that is the chance that all of them are missed": lambda rare, share, budget: (1 - rare * share) ** budget,
        },
    ),
    Exercise(
        id="8.2",
        title="Each half in both parts",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=halves,
        right=lambda recovered: (one_way(recovered) + one_way(recovered[::-1])) / 2,
        slips={
            "the second half has not chosen yet": one_way,
            "a class is measured on the half that it was chosen on": lambda recovered: (
                recovered.mean(1) - recovered.min(1)
            ).mean(),
            "a class is chosen on all images, and measured on the same": lambda recovered: (
                recovered.mean() - recovered.mean(0).min()
            ),
        },
    ),
    Exercise(
        id="8.3",
        title="What two matrices cannot tell",
        kind="implement",
        minutes=20,
        variants={"seed": SEEDS},
        cases=confusions,
        right=possible_agreement,
        slips={"the matrices also tell which answers were to images of the same true class": blind_to_truth},
    ),
    Exercise(
        id="8.4",
        title="A pool worth its money",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=pools,
        right=lambda service, pools, probes: widest(pools),
        slips={
            "a pool's first images are of one kind: draw those that you ask about": lambda service, pools, probes: (
                widest([pool[: probes // len(pools)] for pool in pools])
            ),
            "many classes of which most are rare are worth less than fewer equal ones": lambda service, pools, probes: (
                int(np.argmax([len(pool.argmax(1).unique()) for pool in pools]))
            ),
        },
    ),
    Exercise(
        id="8.5",
        title="Chosen for what it shows",
        kind="discuss",
        minutes=12,
    ),
)
