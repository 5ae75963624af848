"""Exercises of chapter 5, Knockoff nets."""

import math
from typing import Any

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import (
    LinearService,
    OneAccount,
    agreement,
    linear_victim,
    probabilities,
)
from extractbook.exercises.without import DERIVATIVES, SHIPPED_AND_DRAWN
from extractlib import load_victim
from extractlib.api.granularity import Answers
from extractlib.attacks.adaptive import Bandit
from extractlib.data.drawn import draw
from extractlib.data.images import ImageSet
from extractlib.errors import InputError


def epochs_for(few: int, many: int, batch: int, epochs: int) -> int:
    """Return the epochs that give a small transfer set as many training steps as a large one has in `epochs`."""
    return math.ceil(math.ceil(many / batch) * epochs / math.ceil(few / batch))


def preferences(seed: int) -> list[tuple]:
    """Return preferences and images left: one class, no class or several have none left; the third would overflow.

    In the last, all preferences are far below zero.
    """
    generator = np.random.default_rng(seed)
    cases = []
    for classes, scale, gone in ((4, 1.0, [-1]), (6, 2.0, []), (5, 2_000.0, [-1]), (7, 1.0, [-1, 0, 2]), (5, 1.0, [1])):
        values, left = scale * generator.normal(size=classes), generator.integers(1, 9, classes)
        left[values.argsort()[gone]] = 0
        cases.append((values, left))
    values, left = cases[0]
    return [*cases, (values - 5_000, left)]


def policy(preferences: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the softmax over the classes that have images left, as a bandit does."""
    bandit = Bandit(len(preferences))
    bandit.preferences = preferences
    return bandit.policy(left > 0)


def softmax(values: np.ndarray) -> np.ndarray:
    """Return the softmax of values, which may be large."""
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def last_layers(seed: int) -> list[tuple]:
    """Return weights (K, d), features (n, d) and answers (n, K); the last logits are so large that exp overflows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = ((4, 3, 7, 1.0), (1, 5, 2, 2.0), (6, 10, 4, 1_500.0))
    return [
        (normal(classes, width), scale * normal(count, width), normal(count, classes).softmax(1))
        for count, classes, width, scale in sizes
    ]


def logit_gradient(head: torch.Tensor, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean soft cross-entropy with respect to the logits."""
    return ((features @ head.T).softmax(1) - targets) / len(features)


def gradient(head: torch.Tensor, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean soft cross-entropy with respect to the weights of the last layer."""
    return logit_gradient(head, features, targets).T @ features


HELD_OUT, QUERIES, WANTED = "birds", 1_000, 2_000
"""The task of a shipped victim that the chapter does not attack, the budget, and the number of labels to return."""


def thousand(seed: int) -> list[tuple]:
    """Return an API with full answers, a pool, and the images whose labels the attacker must return."""
    pool = draw("atlas", part="queries", size=2 * QUERIES, seed=seed).unlabeled()
    return [(PoolAPI(pool), pool, wanted_images(seed))]


class PoolAPI(OneAccount):
    """An API that answers only images from a pool: the attacker of the chapter has no others."""

    def __init__(self, pool: ImageSet):
        super().__init__(load_victim(HELD_OUT), budget=QUERIES)
        self._known = {image.numpy().tobytes() for image in pool.images[:]}

    def query(self, images: torch.Tensor, **options: Any) -> Answers:
        """Answer as `OneAccount` does.

        Raises:
            InputError: An image is not from the pool, or `OneAccount` raises it. Nothing is charged.
        """
        if isinstance(images, torch.Tensor) and not self._known.issuperset(one.numpy().tobytes() for one in images):
            raise InputError("an image is not from the pool: send images from the pool, unchanged")
        return super().query(images, **options)


def wanted_images(seed: int) -> torch.Tensor:
    """Return test images of the task, uint8 of shape (n, 3, 32, 32)."""
    return draw(HELD_OUT, part="test", size=WANTED, seed=seed).images[:]


def linear_services(seed: int) -> list[tuple]:
    """Return linear services whose budget is one query more than they have features, and the numbers of features."""
    cases = []
    for features, classes in ((4, 3), (12, 5)):
        weights, bias = linear_victim(seed, features, classes)
        cases.append((LinearService(weights, bias, features + 1), features))
    return cases


def answers_as(weights: np.ndarray, bias: np.ndarray, victim: torch.Tensor, vectors: torch.Tensor) -> tuple[bool, bool]:
    """Say whether a copy gives the victim's classes on all but 1% of the vectors, and whether its probabilities."""
    copy = probabilities(vectors, torch.from_numpy(weights).double(), torch.from_numpy(bias).double())
    same = (copy.argmax(1) != victim.argmax(1)).double().mean() <= 0.01
    return bool(same), bool((copy - victim).abs().max() <= 1e-3)


def judge_copies(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Return why the copies are wrong; any that answers as the victim does is right, since weights may be shifted."""
    for (weights, bias), (true_weights, true_bias) in zip(found, wanted, strict=True):
        for part, true_part in ((weights, true_weights), (bias, true_bias)):
            if part.shape != true_part.shape:
                return f"the shape is {part.shape}: expected {true_part.shape}"
        vectors = torch.randn(200, weights.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        victim = probabilities(vectors, torch.from_numpy(true_weights), torch.from_numpy(true_bias))
        same, equal = answers_as(weights, bias, victim, vectors)
        if not equal and all(answers_as(weights - bias[:, None], bias, victim, vectors)):
            return "the answer to a vector with one feature still contains the bias: subtract the answer to zeros"
        if not equal and all(answers_as(weights, true_bias, victim, vectors)):
            return "the weights are the victim's, but the bias is not: the vector of zeros reveals it"
        if not same:
            return "the copy names a different class on some new vectors"
        if not equal:
            return "the copy names the same classes, but with different probabilities"
    return None


EXERCISES = (
    Exercise(
        id="5.1",
        title="Steps, not epochs",
        kind="understand",
        minutes=5,
        variants={
            "few": (1_000, *range(650, 1_900, 100)),
            "many": (10_000, *range(8_050, 20_000, 500)),
            "batch": (128, 64, 100),
            "epochs": (17, *range(10, 20)),
        },
        right=epochs_for,
        slips={
            "that is the number of steps": lambda few, many, batch, epochs: math.ceil(many / batch) * epochs,
            "count batches, not images: the last one of an epoch may be smaller": (
                lambda few, many, batch, epochs: epochs * many / few
            ),
            "with the same number of epochs, the small set gets fewer steps": lambda few, many, batch, epochs: epochs,
        },
    ),
    Exercise(
        id="5.2",
        title="A class runs dry",
        kind="modify",
        minutes=7,
        variants={"seed": SEEDS},
        cases=preferences,
        right=policy,
        slips={
            "a class without images is still chosen": lambda preferences, left: softmax(preferences),
            "the probabilities of the classes that are left must sum to 1": (
                lambda preferences, left: softmax(preferences) * (left > 0)
            ),
        },
    ),
    Exercise(
        id="5.3",
        title="The gradient that steals",
        kind="implement",
        minutes=10,
        variants={"seed": SEEDS},
        cases=last_layers,
        right=gradient,
        slips={
            "it is the loss's mean over the images": lambda head, features, targets: (
                len(features) * gradient(head, features, targets)
            ),
            "a gradient has the shape of the weights": lambda *case: gradient(*case).T,
            "that is the gradient with respect to the logits: go on to the weights": logit_gradient,
        },
        without=DERIVATIVES,
    ),
    Exercise(
        id="5.4",
        title="More from a thousand queries",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=thousand,
        key=lambda seed: [load_victim(HELD_OUT).predict(wanted_images(seed))],
        score=agreement,
        marks=(0.51, 0.52),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="5.5",
        title="A victim stolen to the last digit",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=linear_services,
        right=lambda service, features: (service._weights, service._bias),
        judge=judge_copies,
    ),
    Exercise(
        id="5.6",
        title="An accusation",
        kind="discuss",
        minutes=8,
    ),
)
