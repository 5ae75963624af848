"""Exercises of chapter 7, Architecture and pre-training."""

from functools import partial

import numpy as np
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.metrics import t_interval

SIZES = (8, 60, 8, 8)
"""Features of the public backbones; the victim is never built on the one that is large enough to fit noise."""


def columns(seed: int) -> list[tuple]:
    """Return two columns of recoveries over the same seeds, which differ more from seed to seed than the columns do."""
    generator, cases = np.random.default_rng(seed), []
    for count in (5, 3, 8):
        first = 0.9 + 0.03 * generator.standard_normal(count)
        cases.append((first, first - generator.uniform(0.01, 0.05) + 0.005 * generator.standard_normal(count)))
    return cases


def unpaired(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the interval of the difference of two columns that have nothing in common."""
    error = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / len(first))
    return stats.t.interval(0.95, 2 * len(first) - 2, first.mean() - second.mean(), error)


def factorial_tables(seed: int) -> list[tuple]:
    """Return factorial tables of a few seeds, in which each step makes the other worse."""
    generator, cases = np.random.default_rng(seed), []
    for seeds in (1, 5):
        losses = generator.uniform(0.03, 0.12, (3, seeds))
        by_row = [[0 * losses[0], losses[0]], [losses[1], losses.sum(0)]]
        cases.append((0.95 - np.moveaxis(np.array(by_row), 2, 0),))
    return cases


def pretraining_first(table: np.ndarray) -> np.ndarray:
    """Return the losses by pre-training and by architecture, of shape (2, seeds), in this order."""
    return np.stack([table[:, 0, 0] - table[:, 1, 0], table[:, 1, 0] - table[:, 1, 1]])


def architecture_first(table: np.ndarray) -> np.ndarray:
    """Return the same losses in the other order."""
    return np.stack([table[:, 0, 1] - table[:, 1, 1], table[:, 0, 0] - table[:, 0, 1]])


def victims(seed: int) -> list[tuple]:
    """Return a victim's answers and the features of the public backbones, one of which the victim was built on."""
    generator, cases = np.random.default_rng(seed), []
    for true in generator.permutation([0, 2, 3, 0, 2, 3]):
        features = [generator.standard_normal((80, size)) for size in SIZES]
        logits = features[true] @ generator.standard_normal((SIZES[true], 5)) / np.sqrt(SIZES[true])
        answers = np.exp(2 * (logits + 0.7 * generator.standard_normal(logits.shape)))
        cases.append((answers / answers.sum(1, keepdims=True), features))
    return cases


def best_backbone(answers: np.ndarray, features: list[np.ndarray], *, held_out: bool = True) -> int:
    """Return which features tell the answers best, by a linear head that was fitted to the other half of them.

    By mistake it is measured on the half that it was fitted to: not `held_out`.
    """
    logs = np.log(answers) - np.log(answers).mean(1, keepdims=True)
    inputs = [np.column_stack([vectors, np.ones(len(vectors))]) for vectors in features]
    half = len(logs) // 2
    asked = slice(half, None) if held_out else slice(half)
    heads = [np.linalg.lstsq(x[:half], logs[:half], rcond=None)[0] for x in inputs]
    return int(
        np.argmin([((x[asked] @ head - logs[asked]) ** 2).mean() for x, head in zip(inputs, heads, strict=True)])
    )


EXERCISES = (
    Exercise(
        id="7.1",
        title="The same points, another recovery",
        kind="understand",
        minutes=5,
        variants={
            "strong": (0.98, 0.99, 0.97, 0.96, 0.95, 0.94),
            "weak": (0.70, *(part / 100 for part in range(50, 90))),
            "recovery": (0.92, *(part / 100 for part in range(75, 99))),
        },
        right=lambda strong, weak, recovery: 1 - (1 - recovery) * strong / weak,
        slips={
            "that would be so if both victims were equally good": lambda strong, weak, recovery: recovery,
            "a point weighs more on the weaker victim": lambda strong, weak, recovery: (
                1 - (1 - recovery) * weak / strong
            ),
            "the first recovery is a share too, of its own victim's accuracy": lambda strong, weak, recovery: (
                1 - (1 - recovery) / weak
            ),
        },
    ),
    Exercise(
        id="7.2",
        title="The same seeds on both sides",
        kind="modify",
        minutes=12,
        variants={"seed": SEEDS},
        cases=columns,
        right=lambda first, second: t_interval(first - second),
        slips={"the columns are treated as independent, and they have their seeds in common": unpaired},
    ),
    Exercise(
        id="7.3",
        title="Shares that do not depend on the order",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=factorial_tables,
        right=lambda table: np.mean([pretraining_first(table), architecture_first(table)], axis=0),
        slips={
            "if the architecture is changed first, other shares come out": pretraining_first,
            "if pre-training is taken away first, other shares come out": architecture_first,
        },
    ),
    Exercise(
        id="7.4",
        title="On which backbone it stands",
        kind="attack or defend",
        minutes=25,
        variants={"seed": SEEDS},
        cases=victims,
        right=best_backbone,
        slips={
            "the most features fit even noise: measure on answers that the head was not fitted to": partial(
                best_backbone, held_out=False
            )
        },
    ),
    Exercise(
        id="7.5",
        title="What one comparison says",
        kind="discuss",
        minutes=12,
    ),
)
