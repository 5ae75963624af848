"""Numbers under resamples of the test images, for when these are the same at every seed (see `Scale.resamples`).

A resample says how often each image was drawn; it is the same for all models and all rows of a task, so that the
difference between two rows is a difference on the same images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from extractbook.reproduction.setups import Setup

COLUMN = "resampled"
"""The key under which a row has them, by the paths of the numbers (see `claims.RESAMPLED`)."""

DIGITS = 4


def resamples(setup: Setup, count: int, name: str) -> np.ndarray:
    """Return how often each of `count` images is drawn, float64 of shape (resamples, count).

    Args:
        setup: The setup, whose scale says how many resamples there are.
        count: Number of images.
        name: What the images are; another name gives another draw.
    """
    if not count:
        return np.zeros((setup.settings.resamples, 0))
    generator = np.random.default_rng([count, *name.encode()])
    return generator.multinomial(count, np.full(count, 1 / count), size=setup.settings.resamples).astype(float)


def means(weights: np.ndarray, values: torch.Tensor) -> np.ndarray:
    """Return the mean of values, bool or float of shape (n,), under each resample; NaN if none of them was drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights @ values.double().numpy() / weights.sum(1)


def accuracies(weights: np.ndarray, predicted: torch.Tensor, labels: torch.Tensor, balanced: bool) -> np.ndarray:
    """Return the accuracy under each resample; if `balanced`, the mean over the classes that were drawn."""
    right = predicted == labels
    if not balanced:
        return means(weights, right)
    classes = [labels == label for label in labels.unique()]
    return np.nanmean([means(weights * one.numpy(), right) for one in classes], axis=0)


def kept(setup: Setup, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row keeps of its numbers under resamples: nothing if the scale has no resamples."""
    return {COLUMN: _lists(numbers)} if setup.settings.resamples else {}


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return two results as one, with the numbers that both have under resamples."""
    both = {**first.get(COLUMN, {}), **second.get(COLUMN, {})}
    return {**first, **second} | ({COLUMN: both} if both else {})


def _lists(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _lists(value) if isinstance(value, Mapping) else np.round(value, DIGITS).tolist()
        for name, value in numbers.items()
    }
