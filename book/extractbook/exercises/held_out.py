"""Victims that no chapter shows being attacked: what exercises try an attack or a defense on.

A victim is one of those that ship. An attack is cut to what a check can wait for: few queries, short training, and
agreement with the victim as the score.
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
"""Test images on which copy and victim are compared."""


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
    """Return an order in which images of attackers and customers are mixed, so that no function tells them by it.

    What was mixed by it stands as before at ``order.argsort()``.
    """
    return np.random.default_rng([seed, count]).permutation(count)


SAMPLE = 16
"""Queries made anew to see whether they follow from the seed: fewer, since each pixel is kept in eight bytes."""


def trials(count: int, seed: int) -> list[tuple[int, int]]:
    """Return the numbers of queries and the seeds with which a reader's function is called, for `made`."""
    return [(count, seed), (SAMPLE, seed), (SAMPLE, seed), (SAMPLE, seed + 1)]


def made(found: list[np.ndarray], count: int) -> torch.Tensor:
    """Return queries that a reader made, uint8 of shape (count, 3, 32, 32).

    Args:
        found: What was made for each of the `trials`.
        count: How many are wanted.

    Raises:
        InputError: They are no such images, or do not follow from the seed alone.
    """
    images, first, again, other = found
    if images.shape != (count, 3, 32, 32):
        raise InputError(f"shape {images.shape} where {(count, 3, 32, 32)} is wanted")
    if images.min() < 0 or images.max() > 255:
        outside = images.min() if images.min() < 0 else images.max()
        raise InputError(f"a pixel is {outside}: uint8 from 0 to 255 is wanted")
    if not np.array_equal(first, again):
        raise InputError("the same seed makes other images when asked again")
    if np.array_equal(first, other):
        raise InputError("another seed makes the same images")
    return torch.from_numpy(images.astype(np.uint8))


def copied(task: str, asked: torch.Tensor, targets: torch.Tensor, *, seed: int, recipe: Recipe = RECIPE) -> float:
    """Return the agreement, in [0, 1], of a victim and a copy that learns from the public weights on.

    Args:
        task: The victim's.
        asked: The queries, uint8 of shape (n, 3, 32, 32).
        targets: What the copy is to say to them, float of shape (n, classes).
        seed: Of the copy's head, of its training and of the test images.
        recipe: How it is trained.
    """
    model = networks.build("resnet", classes=targets.shape[1], seed=seed, backbone=networks.shipped_backbone())
    fit(model, asked, targets.float(), recipe, seed=seed)
    test = images(task, "test", TESTED, seed).images
    return (predict(model, test).argmax(1) == victim(task).predict(test)).double().mean().item()


def gained(found: list, wanted: list, victim: np.ndarray) -> float:
    """Return how far a copy's recovery is above a baseline's: shares of the victim's accuracy.

    Args:
        found: The copy's labels, alone in a list, int64 of shape (n,).
        wanted: The true labels and the baseline's, alone in a list, int64 of shape (2, n).
        victim: The victim's labels, int64 of shape (n,).

    Raises:
        InputError: There is not one label for each image.
    """
    labels, (truth, baseline) = found[0], wanted[0]
    if labels.shape != truth.shape:
        raise InputError(f"shape {labels.shape} where {truth.shape} is wanted")
    return float(((labels == truth).mean() - (baseline == truth).mean()) / (victim == truth).mean())
