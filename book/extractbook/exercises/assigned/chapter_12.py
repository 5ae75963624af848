"""Twenty claims judged at once."""

import numpy as np
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError


def claims(seed: int) -> list[tuple]:
    """Return values of 20 claims over a few seeds, of shape (20, seeds), and their bounds; some hold, some do not."""
    generator, cases = np.random.default_rng(seed), []
    for seeds in (5, 8, 12) * 4:
        held = plainly = np.zeros(20, bool)
        while held.sum() == plainly.sum():  # until the order of the claims matters
            bounds = generator.uniform(0.5, 0.9, 20)
            above = generator.permutation(np.repeat([0.0, 0.02, 0.04, 0.08], 5))
            values = bounds[:, None] + above[:, None] + 0.03 * generator.standard_normal((20, seeds))
            held, plainly = holm(values, bounds), chances(values, bounds) <= 0.05 / len(bounds)
        cases.append((values, bounds))
    return cases


def chances(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return for each claim the chance of a mean this far above its bound, if the bound were the true mean."""
    return stats.ttest_1samp(values, bounds[:, None], axis=1, alternative="greater").pvalue


def holm(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return which claims hold under Holm's procedure at 5%: in order of their chances, until one is too large."""
    p = chances(values, bounds)
    order, holds = np.argsort(p), np.zeros(len(p), bool)
    for place, claim in enumerate(order):
        if p[claim] > 0.05 / (len(p) - place):
            break
        holds[claim] = True
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
        "only a mean above the bound counts": lambda values, bounds: (
            stats.ttest_1samp(values, bounds[:, None], axis=1).pvalue <= 0.05
        ),
    },
    score=share_right,
    marks=(0.3, 1.0),
)
