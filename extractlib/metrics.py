"""How good a surrogate is: accuracy, recovery, agreement, and intervals over seeds."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from extractlib.errors import InputError


def accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share, in [0, 1], of images whose predicted label is right; both int64 of shape (n,)."""
    return _share(predicted, labels)


def agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share, in [0, 1], of images to which both models give the same label, right or wrong.

    Also called fidelity (Jagielski et al. 2020). Both int64 of shape (n,).
    """
    return _share(first, second)


def recovery(surrogate_accuracy: float, victim_accuracy: float) -> float:
    """Return the surrogate's accuracy divided by the victim's (the paper, table 2).

    Raises:
        InputError: The victim's accuracy is not positive.
    """
    if victim_accuracy <= 0:
        raise InputError(f"the victim's accuracy is {victim_accuracy}: recovery needs one above 0")
    return surrogate_accuracy / victim_accuracy


def per_class_accuracy(predicted: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the accuracy on the images of each class, float64 of shape (classes,); NaN where a class has none."""
    right = torch.bincount(labels[predicted == labels], minlength=classes)
    return right.double() / torch.bincount(labels, minlength=classes)


def constant_accuracy(labels: torch.Tensor) -> float:
    """Return the accuracy of always answering the most frequent label."""
    return _share(labels.mode().values.expand_as(labels), labels)


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (with n - 1) of at least two values.

    Raises:
        InputError: There are fewer than two values.
    """
    values = _several(values)
    return float(values.mean()), float(values.std(ddof=1))


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the t interval of the mean of at least two values: mean ± t(n - 1) · sd / √n.

    Raises:
        InputError: There are fewer than two values.
    """
    values = _several(values)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _share(first: torch.Tensor, second: torch.Tensor) -> float:
    if first.shape != second.shape or not len(first):
        raise InputError(
            f"{len(first)} and {len(second)} labels cannot be compared: equally many are wanted, at least 1"
        )
    return (first == second).double().mean().item()


def _several(values: Sequence[float]) -> np.ndarray:
    if len(values) < 2:
        raise InputError(f"{len(values)} value(s) have no spread: at least 2 are wanted")
    return np.asarray(values, dtype=np.float64)
