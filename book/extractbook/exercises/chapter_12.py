"""Exercises of chapter 12, The ledger."""

from functools import partial
from math import sqrt

import numpy as np
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.metrics import t_interval


def seeds_needed(distance: float, deviation: float, *, normal: bool = False, one_sided: bool = False) -> int:
    """Return the least number of seeds whose interval is narrower than `distance` on either side of its mean.

    Two mistakes can be made: the normal distribution is taken for the t distribution, or one end of it for both.
    """
    share = 0.95 if one_sided else 0.975
    count = 2
    while (stats.norm.ppf(share) if normal else stats.t.ppf(share, count - 1)) * deviation / sqrt(count) >= distance:
        count += 1
    return count


def outcomes(seed: int) -> list[tuple]:
    """Return what came of some bounds (True, False, or None for undecided) and how many of them must hold."""
    generator = np.random.default_rng(seed)
    drawn = [[(True, False, None)[place] for place in generator.integers(3, size=5)] for _ in range(8)]
    fixed = [[True, True, None, False], [True, None, None], [False, True, True], [None, False, False]]
    return [(case, int(generator.integers(1, 5))) for case in drawn] + [
        (case, needed) for case in fixed for needed in (1, 2, 3)
    ]


def judged(holds: list, needed: int, *, doubtful: bool = False) -> str:
    """Return the verdict on a claim of which `needed` bounds must hold; `doubtful` takes undecided for failed."""
    if holds.count(True) >= needed:
        return "holds"
    possible = holds.count(True) + (0 if doubtful else holds.count(None))
    return "does not hold" if possible < needed else "undecided"


def two_attacks(seed: int) -> list[tuple]:
    """Return the recoveries of two attacks by seed, in no order; most seeds are those of both."""
    generator = np.random.default_rng(seed)
    cases = []
    for count in (3, 5, 9):
        hard = generator.normal(0.7, 0.1, size=count + 2)  # how hard a seed is to both
        first, second = hard + generator.normal(0.03, 0.01, size=(2, 1)) + generator.normal(0, 0.01, (2, count + 2))
        order = generator.permutation(count + 2)
        kept = [int(place) for place in order if place != 0], [int(place) for place in order[::-1] if place != 1]
        cases.append(tuple({n: float(v[n]) for n in names} for names, v in zip(kept, (first, second), strict=True)))
    return cases


def paired(first: dict[int, float], second: dict[int, float]) -> np.ndarray:
    """Return the t interval of the difference of two attacks over the seeds that both have."""
    return np.array(t_interval([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]))


def unpaired(first: dict[int, float], second: dict[int, float]) -> np.ndarray:
    """Return the interval of the difference of two means, as if the seeds had nothing to do with each other."""
    seeds = sorted(first.keys() & second.keys())
    values = [np.array([attack[seed] for seed in seeds]) for attack in (first, second)]
    half = stats.t.ppf(0.975, len(seeds) - 1) * sqrt(sum(v.var(ddof=1) for v in values) / len(seeds))
    difference = values[0].mean() - values[1].mean()
    return np.array([difference - half, difference + half])


def patient_authors(seed: int) -> list[tuple]:
    """Return values of many seeds, a bound that is their true mean or off it, and with how many the author begins."""
    generator = np.random.default_rng(seed)
    cases = []
    for shift, first in ((0.0, 2), (0.0, 3), (0.05, 5), (-0.3, 3), (0.02, 4), (0.3, 3)):
        cases.append((generator.normal(0.8 + shift, 0.05, size=40).tolist(), 0.8, first))
    # Whatever the seed: a stop at the first look, one that only an earlier look finds, and one late in the values.
    lucky = [0.9, 0.91, 0.92, 0.5, 0.5, 0.5]
    return [*cases, (lucky, 0.8, 3), (lucky, 0.8, 4), ([0.9, 0.7] + [0.9] * 10, 0.8, 2)]


def stopped(values: list[float], bound: float, first: int, *, late: int = 0) -> int:
    """Return after how many seeds the interval first lies above the bound, or 0; `late` adds to where it begins."""
    for count in range(first + late, len(values) + 1):
        if t_interval(values[:count])[0] > bound:
            return count
    return 0


EXERCISES = (
    Exercise(
        id="12.1",
        title="How many seeds would decide",
        kind="understand",
        minutes=10,
        variants={
            "distance": (0.03, *(part / 1_000 for part in range(20, 51))),
            "deviation": (0.06, *(part / 1_000 for part in range(50, 81, 5))),
        },
        right=seeds_needed,
        slips={
            "with few seeds the interval is wider than the normal distribution says": partial(
                seeds_needed, normal=True
            ),
            "a 95% interval leaves half of the rest out at each end": partial(seeds_needed, one_sided=True),
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
            "what is undecided has not failed": partial(judged, doubtful=True),
            "not all of them must hold": lambda holds, needed: judged(holds, len(holds)),
        },
    ),
    Exercise(
        id="12.3",
        title="Seed against seed",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=two_attacks,
        right=paired,
        slips={
            "what a seed does to both attacks is still in the spread": unpaired,
            "the second is taken from the first": lambda first, second: paired(second, first),
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
            "it looks once, at the end": lambda values, bound, first: stopped(values, bound, len(values)),
            "it looks before the next seed as well": partial(stopped, late=1),
        },
    ),
    Exercise(
        id="12.5",
        title="A verdict not to be trusted",
        kind="discuss",
        minutes=12,
    ),
)
