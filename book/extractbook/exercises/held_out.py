"""Victims that are not attacked in any chapter: exercises try attacks and defenses on them.

Each is one of the shipped victims. Attacks are small enough for a check to wait for them: few queries, short training,
and agreement with the victim as the score.
"""

from functools import cache

import numpy as np
import torch

from extractlib.data.drawn import draw
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.classifier import Victim, load_victim
from extractlib.models.training import Recipe, fit, predict

RECIPE = Recipe(steps=250, learning_rate=0.1, weight_decay=0.0, shift=0)
"""How a check trains a copy: a few seconds."""

TESTED = 1_500
"""Number of test images on which copy and victim are compared."""


@cache
def victim(task: str) -> Victim:
    """Return the shipped victim of a task."""
    return load_victim(task)


@cache
def images(name: str, part: str, size: int, seed: int) -> ImageSet:
    """Return a part of a drawn set (see `extractlib.data.drawn.draw`)."""
    return draw(name, part=part, size=size, seed=seed)


def answers(task: str, asked: torch.Tensor) -> torch.Tensor:
    """Return a victim's full answers, float64 of shape (n, classes), to uint8 images of shape (n, 3, 32, 32)."""
    return victim(task).logits(asked).double().softmax(1)


def order_of(count: int, seed: int) -> np.ndarray:
    """Return an order for mixing the images of attackers and customers, so that their position does not give them away.

    Indexing with ``order.argsort()`` restores the original order.
    """
    return np.random.default_rng([seed, count]).permutation(count)


SAMPLE = 16
"""Queries generated again to check that they follow from the seed: fewer, since each pixel takes eight bytes."""


def trials(count: int, seed: int) -> list[tuple[int, int]]:
    """Return the numbers of queries and the seeds with which a reader's function is called, as `made` needs."""
    return [(count, seed), (SAMPLE, seed), (SAMPLE, seed), (SAMPLE, seed + 1)]


def made(found: list[np.ndarray], count: int) -> torch.Tensor:
    """Return queries that a reader's function generated, uint8 of shape (count, 3, 32, 32).

    Args:
        found: What the function returned for each of the `trials`.
        count: The expected number of queries.

    Raises:
        InputError: They are not such images, or do not follow from the seed alone.
    """
    images, first, again, other = found
    if images.shape != (count, 3, 32, 32):
        raise InputError(f"the shape is {images.shape}: expected {(count, 3, 32, 32)}")
    if len(first) != SAMPLE:
        raise InputError(f"the function made {len(first)} images when asked for {SAMPLE}: make as many as asked for")
    if images.min() < 0 or images.max() > 255:
        outside = images.min() if images.min() < 0 else images.max()
        raise InputError(f"a pixel is {outside}: expected uint8 values from 0 to 255")
    if not np.array_equal(first, again):
        raise InputError("the same seed gives different images when called again")
    if np.array_equal(first, other):
        raise InputError("a different seed gives the same images")
    return torch.from_numpy(images.astype(np.uint8))


def changed_labels(served: np.ndarray, full: np.ndarray) -> int:
    """Return how many rows, both of shape (n, classes), have another largest value than before, or two."""
    first = np.sort(served, 1)[:, -2:]
    return int(((served.argmax(1) != full.argmax(1)) | (first[:, 0] == first[:, 1])).sum())


def copied(task: str, asked: torch.Tensor, targets: torch.Tensor, *, seed: int, recipe: Recipe = RECIPE) -> float:
    """Return the agreement, in [0, 1], of a victim and a copy that is trained from the public weights.

    Args:
        task: The victim's task.
        asked: The queries, uint8 of shape (n, 3, 32, 32).
        targets: The copy's targets for them, float of shape (n, classes).
        seed: Seed of the copy's head, of its training and of the test images.
        recipe: How the copy is trained.
    """
    model = networks.build("resnet", classes=targets.shape[1], seed=seed, backbone=networks.shipped_backbone())
    fit(model, asked, targets.float(), recipe, seed=seed)
    test = images(task, "test", TESTED, seed).images
    return (predict(model, test).argmax(1) == victim(task).predict(test)).double().mean().item()


def gained(found: list, wanted: list, victim: np.ndarray) -> float:
    """Return by how much a copy's recovery, a share of the victim's accuracy, exceeds a baseline's.

    Args:
        found: A list with one element: the copy's labels, int64 of shape (n,).
        wanted: A list with one element: the true labels and the baseline's, int64 of shape (2, n).
        victim: The victim's labels, int64 of shape (n,).

    Raises:
        InputError: The number of labels is not the number of images.
    """
    labels, (truth, baseline) = found[0], wanted[0]
    if labels.shape != truth.shape:
        raise InputError(f"the shape is {labels.shape}: expected {truth.shape}")
    return float(((labels == truth).mean() - (baseline == truth).mean()) / (victim == truth).mean())
