"""Exercises of chapter 12, The ledger."""

from functools import partial

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.metrics import t_interval


def any_false(bounds: int, looks: int, error: float) -> float:
    """Return the probability that at least one of several independent looks gives a false verdict."""
    return 1 - (1 - error) ** (bounds * looks)


def outcomes(seed: int) -> list[tuple]:
    """Return the results of some bounds (True, False, or None for undecided) and how many of them must hold."""
    generator = np.random.default_rng(seed)
    drawn = [[(True, False, None)[place] for place in generator.integers(3, size=5)] for _ in range(8)]
    fixed = [[True, True, None, False], [True, None, None], [False, True, True], [None, False, False]]
    return [(case, int(generator.integers(1, 5))) for case in drawn] + [
        (case, needed) for case in fixed for needed in (1, 2, 3)
    ]


def judged(holds: list, needed: int, *, doubtful: bool = False) -> str:
    """Return the verdict on a claim for which `needed` bounds must hold; `doubtful` counts undecided as failed."""
    if holds.count(True) >= needed:
        return "holds"
    possible = holds.count(True) + (0 if doubtful else holds.count(None))
    return "does not hold" if possible < needed else "undecided"


def resampled_images(seed: int) -> list[tuple]:
    """Return whether victim and copy are right about each test image, and how often each resample draws it."""
    generator = np.random.default_rng(seed)
    cases = []
    for count, draws in ((40, 5), (200, 30), (1_000, 8)):
        hard = generator.random(count)
        sides = [(hard < share) ^ (generator.random(count) < 0.05) for share in (0.9, 0.7)]
        cases.append((*sides, generator.multinomial(count, np.full(count, 1 / count), size=draws)))
    return cases


def resampled(victim: np.ndarray, copy: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the recovery under each resample of the test images."""
    return (weights @ copy) / (weights @ victim)


def patient_authors(seed: int) -> list[tuple]:
    """Return the values of many seeds, a bound at or off their true mean, and the number of seeds to begin with."""
    generator = np.random.default_rng(seed)
    cases = []
    for shift, first in ((0.0, 2), (0.0, 3), (0.05, 5), (-0.3, 3), (0.02, 4), (0.3, 3)):
        cases.append((generator.normal(0.8 + shift, 0.05, size=40).tolist(), 0.8, first))
    # For every seed: a stop at the first look, one that only an earlier look finds, one late in the values, one at the
    # last of them, and an interval that is above the bound only if its spread or its quantile is wrong.
    lucky, even = [0.9, 0.91, 0.92, 0.5, 0.5, 0.5], [0.8087, 0.8287, 0.8487, 0.8687]
    return [
        *cases,
        *((lucky, 0.8, 3), (lucky, 0.8, 4), ([0.9, 0.7] + [0.9] * 10, 0.8, 2)),
        *((lucky[:3], 0.8, 3), (even, 0.8, 4)),
    ]


def stopped(values: list[float], bound: float, first: int, *, late: int = 0) -> int:
    """Return after how many seeds the interval is first above the bound, or 0; `late` delays the first look."""
    for count in range(first + late, len(values) + 1):
        if t_interval(values[:count])[0] > bound:
            return count
    return 0


EXERCISES = (
    Exercise(
        id="12.1",
        title="A false verdict somewhere",
        kind="understand",
        minutes=8,
        variants={
            "bounds": (100, *range(40, 151, 5)),
            "looks": (2, 3),
            "error": (0.0125, 0.01, 0.02, 0.005),
        },
        right=any_false,
        slips={
            "each look is one more chance": lambda looks, **given: any_false(looks=1, **given),
            "a probability is at most 1: that is the expected number of false verdicts": lambda bounds, looks, error: (
                bounds * looks * error
            ),
            "that is the probability that none is false": lambda **given: 1 - any_false(**given),
        },
    ),
    Exercise(
        id="12.2",
        title="Four tasks of five",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=outcomes,
        choices=("holds", "does not hold", "undecided"),
        right=judged,
        slips={
            "an undecided bound has not failed": partial(judged, doubtful=True),
            "not all of them must hold": lambda holds, needed: judged(holds, len(holds)),
        },
    ),
    Exercise(
        id="12.3",
        title="The same images drawn again",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=resampled_images,
        right=resampled,
        slips={
            "both models are scored on the same resample": lambda victim, copy, weights: (
                (weights @ copy) / (weights[::-1] @ victim)
            ),
            "the victim's accuracy is resampled too": lambda victim, copy, weights: (
                (weights @ copy) / (victim.mean() * weights.sum(1))
            ),
            "the surrogate's accuracy is the numerator": lambda victim, copy, weights: (
                1 / resampled(victim, copy, weights)
            ),
        },
    ),
    Exercise(
        id="12.4",
        title="An author who looks too often",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=patient_authors,
        right=stopped,
        slips={
            "that looks only once, at the end": lambda values, bound, first: stopped(values, bound, len(values)),
            "the author also looks before the next seed": partial(stopped, late=1),
            "the author also looks after the last seed": lambda values, bound, first: stopped(
                values[:-1], bound, first
            ),
        },
    ),
    Exercise(
        id="12.5",
        title="A verdict not to be trusted",
        kind="discuss",
        minutes=12,
    ),
)
