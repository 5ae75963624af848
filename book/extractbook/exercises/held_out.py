"""Victims that no chapter shows being attacked: what exercises try an attack or a defense on.

A victim is one of those that ship. An attack is cut to what a check can wait for: few queries, short training, and
agreement with the victim as the score.
"""

from functools import cache

import torch

from extractlib.data.drawn import draw
from extractlib.data.images import ImageSet
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
