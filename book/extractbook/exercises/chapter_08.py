"""Exercises of chapter 8, Diversity and classes."""

from functools import cache

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.metrics import share
from extractlib.models import Recipe, fit, networks, predict
from extractlib.models.classifier import load_victim

HELD_OUT, BUDGET = "objects", 400
"""A victim that the chapter does not attack, and how many queries it answers."""


def halves(seed: int) -> list[tuple]:
    """Return recoveries on two halves, of shape (2, classes): once for equal classes, once with one class lost."""
    generator = np.random.default_rng(seed)
    cases = [(generator.binomial(50, 0.9, (2, classes)) / 50,) for classes in (43, 10)]
    cases[1][0][:, generator.integers(10)] -= 0.4
    # This breaks ties, so it is clear which class is the lowest.
    return [(recovered + generator.uniform(0, 1e-3, recovered.shape),) for (recovered,) in cases]


def one_way(recovered: np.ndarray) -> float:
    """Return how far the class that is lowest in the first row is below the mean of the second."""
    return recovered[1].mean() - recovered[1, recovered[0].argmin()]


def confusions(seed: int) -> list[tuple]:
    """Return pairs of confusion matrices on the same images; in the last, some agreement cannot be avoided."""
    generator, cases = np.random.default_rng(seed), []
    # In the last, both models take the first class for the second: they must agree on a wrong label.
    for classes, right, first in ((3, 0.3, 0), (5, 0.4, 0), (4, 0.8, 1)):
        shares, sizes = right * np.eye(classes) + (1 - right) / classes, 30 * (1 + generator.permutation(classes))
        shares[0] = np.roll(shares[0], first)
        cases.append(tuple(generator.multinomial(sizes, shares) for _ in range(2)))
    return cases


def possible_agreement(victim: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the lowest and the highest agreement of models with these answers to the images of each true class."""
    forced = (victim + surrogate - victim.sum(1, keepdims=True)).clip(min=0)
    return forced.sum() / victim.sum(), np.minimum(victim, surrogate).sum() / victim.sum()


def blind_to_truth(victim: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the same, without knowing the true class of the images behind the answers."""
    return possible_agreement(victim.sum(0, keepdims=True), surrogate.sum(0, keepdims=True))


def each_class_alike(victim: np.ndarray, surrogate: np.ndarray) -> tuple[float, float]:
    """Return the mean over the true classes, whatever their numbers of images."""
    rows = zip(victim[:, None], surrogate[:, None], strict=True)
    low, high = np.mean([possible_agreement(*pair) for pair in rows], 0)
    return float(low), float(high)


@cache
def _collected(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 2,000 uint8 images, 400 from the diverse pool and the others retinas, and which are from the pool."""
    parts = (("atlas", "queries", BUDGET), ("retina", "adversary", 2_000 - BUDGET))
    images = torch.cat([drawn.draw(name, part=part, size=size, seed=seed).images[:] for name, part, size in parts])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    return images[order], order < BUDGET


def pools(seed: int) -> list[tuple]:
    """Return the collected images and the budget."""
    return [(_collected(seed)[0], BUDGET)]


def stolen(images: torch.Tensor, seed: int) -> float:
    """Return how often a copy trained on the victim's answers to images agrees with it on test images."""
    victim, test = load_victim(HELD_OUT), drawn.draw(HELD_OUT, part="test", size=1_000, seed=seed).images
    recipe = Recipe(steps=200, learning_rate=0.1, batch_size=64, weight_decay=0.0, shift=0)
    model = networks.build("resnet", classes=len(victim.classes), seed=0, backbone=networks.shipped_backbone())
    fit(model, images, victim.logits(images).softmax(1), recipe, seed=0)
    return share(predict(model, test).argmax(1) == victim.predict(test))


@cache
def diverse(seed: int) -> np.ndarray:
    """Return the positions of the diverse images, followed by the seed for the score, int64 of shape (401,)."""
    return np.append(_collected(seed)[1].nonzero()[:, 0].numpy(), seed)


@cache
def _stolen_by_diverse(seed: int) -> float:
    images, known = _collected(seed)
    return stolen(images[known], seed)


def of_diverse(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the copy's agreement, relative to that of a copy trained on the diverse images, and its name.

    Raises:
        InputError: The number of different places is not the budget.
    """
    (places,), ((images, budget),), seed = found, cases, int(wanted[0][-1])
    if (
        places.shape != (budget,)
        or len(set(places.tolist())) != budget
        or not 0 <= places.min() <= places.max() < 2_000
    ):
        raise InputError(f"expected {budget} different places in the pool, whole numbers below {len(images):,}")
    reached = stolen(images[torch.from_numpy(places)], seed) / _stolen_by_diverse(seed)
    return reached, "agreement, relative to that of a copy trained on the diverse images,"


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
        title="Each half in both roles",
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
            "a class is chosen on all images and measured on the same images": lambda recovered: (
                recovered.mean() - recovered.mean(0).min()
            ),
        },
    ),
    Exercise(
        id="8.3",
        title="What two matrices cannot tell",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=confusions,
        right=possible_agreement,
        slips={
            "the matrices also show which answers were for images of the same true class": blind_to_truth,
            "classes have different numbers of images: an image counts once, whatever its class": each_class_alike,
        },
    ),
    Exercise(
        id="8.4",
        title="A pool with dead weight",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=pools,
        key=lambda seed: [diverse(seed)],
        score=of_diverse,
        marks=(0.75, 0.85),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="8.5",
        title="Chosen for what it shows",
        kind="discuss",
        minutes=10,
    ),
)
