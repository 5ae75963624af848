"""Twenty claims judged at once."""

from functools import partial

import numpy as np
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError


def claims(seed: int) -> list[tuple]:
    """Return values of 20 claims over a few seeds, of shape (20, seeds), and their bounds; some hold, some do not."""
    generator, cases = np.random.default_rng(seed), []
    for seeds in (5, 8, 12) * 3:
        held = plainly = np.zeros(20, bool)
        while held.sum() == plainly.sum():  # until the order of the claims matters
            bounds = generator.uniform(0.5, 0.9, 20)
            above = generator.permutation(np.repeat([0.0, 0.02, 0.04, 0.08], 5))
            values = bounds[:, None] + above[:, None] + 0.03 * generator.standard_normal((20, seeds))
            held, plainly = holm(values, bounds), chances(values, bounds) <= 0.05 / len(bounds)
        cases.append((values, bounds))
    return cases + [_all_but_two(generator, seeds) for seeds in (5, 8, 12)]


def _all_but_two(generator: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a ledger whose last claim but one, in order, fails, and whose last would hold if it were tested."""
    p = generator.uniform(0.5, 0.9, 20) * 0.05 / np.arange(20, 0, -1)
    p[-2:] = generator.uniform((0.03, 0.04), (0.035, 0.045))
    noise = generator.standard_normal((20, seeds))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
    bounds, above = generator.uniform(0.5, 0.9, 20), stats.t.isf(generator.permutation(p), seeds - 1) / np.sqrt(seeds)
    return bounds[:, None] + 0.03 * (noise + above[:, None]), bounds


def chances(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return for each claim the chance of a mean this far above its bound, if the bound were the true mean."""
    return stats.ttest_1samp(values, bounds[:, None], axis=1, alternative="greater").pvalue


def holm(values: np.ndarray, bounds: np.ndarray, *, ends: bool = True) -> np.ndarray:
    """Return which claims hold under Holm's procedure at 5%: in order of their chances, until one is too large.

    A mistake can be switched on: if nothing `ends` the procedure, later claims are tested as well.
    """
    p = chances(values, bounds)
    order, holds = np.argsort(p), np.zeros(len(p), bool)
    for place, claim in enumerate(order):
        holds[claim] = p[claim] <= 0.05 / (len(p) - place)
        if ends and not holds[claim]:
            break
    return holds


def share_right(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of ledgers in which every claim is judged as it should be, and the name of this number.

    Raises:
        InputError: The number of answers is not the number of claims.
    """
    for told, true in zip(found, wanted, strict=True):
        if told.shape != true.shape:
            raise InputError(f"the shape is {told.shape}: expected {true.shape}")
    right = [np.array_equal(*pair) for pair in zip(found, wanted, strict=True)]
    return float(np.mean(right)), "the share of ledgers judged correctly"


EXERCISE = Exercise(
    id="12.A",
    title="Twenty claims at once",
    kind="attack or defend",
    minutes=20,
    variants={"seed": SEEDS},
    cases=claims,
    right=holm,
    slips={
        "each claim is judged at 5% on its own, so one of twenty false claims holds by chance": lambda values, bounds: (
            chances(values, bounds) <= 0.05
        ),
        "once a claim holds, one fewer claim is left to judge": lambda values, bounds: (
            chances(values, bounds) <= 0.05 / len(bounds)
        ),
        "the first claim that fails ends the procedure, also if a later one would hold": partial(holm, ends=False),
        "only a mean above the bound counts": lambda values, bounds: (
            stats.ttest_1samp(values, bounds[:, None], axis=1).pvalue <= 0.05
        ),
    },
    score=share_right,
    marks=(0.3, 1.0),
)
