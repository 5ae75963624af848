"""Accounts judged by all of their queries together."""

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

CLASSES, FEATURES, QUERIES, ACCOUNTS = 6, 10, 40, 60


def trials(seed: int) -> list[tuple]:
    """Return reference features (360, 10) with labels, and 120 accounts' features (120, 40, 10) with labels."""
    return [trial[:-1] for trial in _drawn(seed)]


def attackers(seed: int) -> list[np.ndarray]:
    """Return for each trial which accounts are an attacker's, as 0 and 1."""
    return [trial[-1] for trial in _drawn(seed)]


def _drawn(seed: int) -> list[tuple]:
    generator = np.random.default_rng(seed)
    return [_trial(generator) for _ in range(3)]


def _trial(generator: np.random.Generator) -> tuple:
    means = 3 * generator.normal(size=(CLASSES, FEATURES))
    known = np.repeat(np.arange(CLASSES), 60)
    reference = means[known] + generator.normal(size=(len(known), FEATURES))
    attacks = generator.permutation(np.repeat([0, 1], ACCOUNTS))
    said = generator.integers(CLASSES, size=(len(attacks), QUERIES))
    offset = generator.normal(size=FEATURES)
    offset /= np.linalg.norm(offset)
    # An attacker's queries are as far from the class means as customers' are, but all to one side.
    spread = np.where(attacks == 1, np.sqrt(1 - 1 / FEATURES), 1.0)[:, None, None]
    noise = spread * generator.normal(size=(*said.shape, FEATURES))
    queries = means[said] + noise + attacks[:, None, None] * offset
    return reference, known, queries, said, attacks.astype(float)


def caught(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the mean share of attackers' accounts that score above all but 5% of the customers', and its name.

    Raises:
        InputError: The number of scores is not the number of accounts.
    """
    shares = []
    for scores, attacks in zip(found, wanted, strict=True):
        if np.shape(scores) != np.shape(attacks):
            raise InputError(f"the shape is {np.shape(scores)}: expected {np.shape(attacks)}")
        limit = np.quantile(np.asarray(scores, float)[attacks == 0], 0.95, method="higher")
        shares.append((np.asarray(scores, float)[attacks == 1] > limit).mean())
    return float(np.mean(shares)), "the share of attackers' accounts above all but 5% of the customers'"


EXERCISE = Exercise(
    id="13.A",
    title="An account is more than its queries",
    kind="attack or defend",
    minutes=20,
    variants={"seed": SEEDS},
    cases=trials,
    key=attackers,
    score=caught,
    marks=(0.2, 0.9),
)
