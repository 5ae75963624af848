"""Exercises of chapter 7, Architecture and initial weights."""

from functools import cache

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from extractbook.exercises.answers import share_named
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import Service
from extractlib.data import drawn
from extractlib.models import Recipe, fit, networks, predict
from extractlib.models.classifier import load_victim

STARTS = ("resnet A", "resnet B", "vgg A", "vgg B")


def layers(seed: int) -> list[tuple]:
    """Return pairs of layers: reordered with noise, with nothing in common, and with rows that are alike."""
    generator = np.random.default_rng(seed)
    first = generator.standard_normal((3, 16, 27))
    noise = 0.3 * generator.standard_normal((16, 27))
    alike = np.repeat(first[2, :8], 2, axis=0) + 0.1 * noise
    return [
        (first[0], (first[0] + noise)[generator.permutation(16)]),
        (first[1], generator.standard_normal((16, 27))),
        (alike, first[2]),
    ]


def similarity(first: np.ndarray, second: np.ndarray, order: np.ndarray | slice = slice(None)) -> float:
    """Return the cosine similarity of two layers of the same shape, with the second's rows in this order."""
    return (first * second[order]).sum() / np.sqrt((first**2).sum() * (second**2).sum())


def matched(first: np.ndarray, second: np.ndarray) -> float:
    """Return the similarity under the best one-to-one assignment of the rows."""
    return similarity(first, second, linear_sum_assignment(first @ second.T, maximize=True)[1])


def nearest(first: np.ndarray, second: np.ndarray) -> float:
    """Return the same if each row takes the row that fits it best, even if another row takes it too."""
    return similarity(first, second, (first @ second.T).argmax(1))


def by_filter(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean of the similarities of single rows under the best one-to-one assignment."""
    order = linear_sum_assignment(first @ second.T, maximize=True)[1]
    return float(np.mean([similarity(one, other) for one, other in zip(first, second[order], strict=True)]))


def by_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Return the same if rows are assigned by the absolute values of their products."""
    return similarity(first, second, linear_sum_assignment(np.abs(first @ second.T), maximize=True)[1])


def factorial_tables(seed: int) -> list[tuple]:
    """Return factorial tables for a few seeds; in each, either step makes the other one worse."""
    generator, cases = np.random.default_rng(seed), []
    for seeds in (1, 5):
        losses = generator.uniform(0.03, 0.12, (3, seeds))
        by_row = [[0 * losses[0], losses[0]], [losses[1], losses.sum(0)]]
        cases.append((0.95 - np.moveaxis(np.array(by_row), 2, 0),))
    return cases


def pretraining_first(table: np.ndarray) -> np.ndarray:
    """Return the losses from pre-training and architecture, of shape (2, seeds), changed in this order."""
    return np.stack([table[:, 0, 0] - table[:, 1, 0], table[:, 1, 0] - table[:, 1, 1]])


def architecture_first(table: np.ndarray) -> np.ndarray:
    """Return the same losses with the architecture changed first."""
    return np.stack([table[:, 0, 1] - table[:, 1, 1], table[:, 0, 0] - table[:, 0, 1]])


class ImageService(Service):
    """A model behind an API with full answers to uint8 images, float of shape (n, classes)."""

    def __init__(self, model: networks.Network, budget: int):
        super().__init__(budget)
        self._model = model

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the victim's probabilities.

        Raises:
            BudgetExceeded: There are more queries than are left.
        """
        self.charge(len(images))
        return predict(self._model, images).softmax(1)


@cache
def _victims(seed: int) -> tuple[tuple[str, networks.Network], ...]:
    """Return five victims with their starting weights, shuffled: one shipped, four fine-tuned briefly."""
    images = drawn.draw("objects", part="victim", size=1_000, seed=seed)
    recipe, made = Recipe(steps=60, learning_rate=0.05), [("resnet A", load_victim("birds").model)]
    for name in STARTS:
        network, initial = name.split()
        backbone = networks.shipped_backbone(network, initial=initial)
        model = networks.build(network, classes=len(images.classes), seed=seed, backbone=backbone)
        made.append((name, fit(model, images.images, images.known_labels(), recipe, seed=seed)))
    return tuple(made[place] for place in np.random.default_rng(seed).permutation(len(made)))


@cache
def _pool(seed: int) -> torch.Tensor:
    """Return 500 images of the pool."""
    return drawn.draw("atlas", part="queries", size=500, seed=seed).images[:]


def services(seed: int) -> list[tuple]:
    """Return for each victim a service with a budget of 500 queries, and 500 images of the pool."""
    return [(ImageService(model, len(_pool(seed))), _pool(seed)) for _, model in _victims(seed)]


EXERCISES = (
    Exercise(
        id="7.1",
        title="The same points, a different recovery",
        kind="understand",
        minutes=5,
        variants={
            "strong": (0.98, 0.99, 0.97, 0.96, 0.95, 0.94),
            "weak": (0.70, *(part / 100 for part in range(50, 90))),
            "recovery": (0.92, *(part / 100 for part in range(75, 99))),
        },
        right=lambda strong, weak, recovery: 1 - (1 - recovery) * strong / weak,
        slips={
            "that would be right if both victims were equally good": lambda strong, weak, recovery: recovery,
            "a point weighs more for the weaker victim": lambda strong, weak, recovery: (
                1 - (1 - recovery) * weak / strong
            ),
            "the first recovery is a share too, of its own victim's accuracy": lambda strong, weak, recovery: (
                1 - (1 - recovery) / weak
            ),
        },
    ),
    Exercise(
        id="7.2",
        title="Filters in another order",
        kind="modify",
        minutes=12,
        variants={"seed": SEEDS},
        cases=layers,
        right=matched,
        slips={
            "the order still matters: assign the filters to each other first": similarity,
            "two filters take the same one: assign them one to one": nearest,
            "a filter and its opposite are not alike: the sign of a product counts": by_angle,
            "each layer is one long vector: that is the mean over its filters": by_filter,
        },
    ),
    Exercise(
        id="7.3",
        title="Shares that do not depend on the order",
        kind="implement",
        minutes=10,
        variants={"seed": SEEDS},
        cases=factorial_tables,
        right=lambda table: np.mean([pretraining_first(table), architecture_first(table)], axis=0),
        slips={
            "if the architecture is changed first, the shares are different": pretraining_first,
            "if pre-training is removed first, the shares are different": architecture_first,
        },
    ),
    Exercise(
        id="7.4",
        title="Name the weights",
        kind="attack or defend",
        minutes=22,
        variants={"seed": SEEDS},
        cases=services,
        key=lambda seed: [name for name, _ in _victims(seed)],
        score=share_named,
        marks=(0.4, 1.0),
    ),
    Exercise(
        id="7.5",
        title="What one comparison says",
        kind="discuss",
        minutes=10,
    ),
)
