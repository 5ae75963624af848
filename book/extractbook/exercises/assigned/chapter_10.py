"""Copies distinguished from honest models by the marks that they repeat."""

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

MARKS = 80


def trials(seed: int) -> list[tuple]:
    """Return which marks honest models repeat, bool (40, 80), and which marks suspects repeat, bool (200, 80)."""
    return [(honest, suspects) for honest, suspects, _ in _drawn(seed)]


def _drawn(seed: int) -> list[tuple]:
    generator = np.random.default_rng(seed)
    cases = []
    for _ in range(3):
        rates = np.where(generator.random(MARKS) < 0.6, generator.uniform(0.3, 0.8, MARKS), 0.02)
        copied = generator.random(200) < 0.5
        chances = np.where(copied[:, None], rates + 0.15 * (1 - rates), rates)
        cases.append((generator.random((40, MARKS)) < rates, generator.random((200, MARKS)) < chances, copied))
    return cases


def power(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of copies that are accused, minus five times that of honest models, and its name.

    Raises:
        InputError: The number of answers is not the number of suspects.
    """
    shares = []
    for told, copied in zip(found, wanted, strict=True):
        if told.shape != copied.shape:
            raise InputError(f"the shape is {told.shape}: expected {copied.shape}")
        shares.append(told[copied].mean() - 5 * told[~copied].mean())
    return float(np.mean(shares)), "the share of copies accused, minus five times that of honest models,"


EXERCISE = Exercise(
    id="10.A",
    title="Two hundred suspects",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=trials,
    key=lambda seed: [copied for *_, copied in _drawn(seed)],
    slips={
        "nobody is accused: a rate of 0 makes a weight infinite, and no sum exceeds a threshold that is not a number": (
            lambda honest, suspects: np.zeros(len(suspects), bool)
        ),
    },
    score=power,
    marks=(0.2, 0.65),
)
