"""How good a surrogate is, and a detector: accuracy, recovery, agreement, TPR and TNR, and intervals over seeds.

Examples:
    >>> import extractlib as xl
    >>> xl.metrics.recovery(0.76, 0.95)
    0.8
"""

import math
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


def share(flags: torch.Tensor) -> float:
    """Return the share, in [0, 1], of the flags, bool of shape (n,), that are true."""
    return flags.double().mean().item()


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


# -- detection -----------------------------------------------------------------
#
# Scores are the higher, the more out of distribution; in-distribution images are the positives (the paper, section 5).


def tpr_tnr(benign: torch.Tensor, strangers: torch.Tensor, threshold: float) -> tuple[float, float]:
    """Return TPR and TNR of the rule "out of distribution if the score is above the threshold".

    TPR is the share of in-distribution images that are accepted, TNR the share of out-of-distribution ones that are
    caught (the paper, section 5).

    Args:
        benign: Scores of in-distribution images, float of shape (n,).
        strangers: Scores of out-of-distribution images, float of shape (m,).
        threshold: The highest score that is accepted.

    Raises:
        InputError: There are no scores on a side, or one is NaN.
    """
    benign, strangers = _scores("benign", benign), _scores("out-of-distribution", strangers)
    return (benign <= threshold).double().mean().item(), (strangers > threshold).double().mean().item()


def balanced_accuracy(tpr: float, tnr: float) -> float:
    """Return (TPR + TNR) / 2: 0.5 for a detector that guesses."""
    return (tpr + tnr) / 2


def auroc(benign: torch.Tensor, strangers: torch.Tensor) -> float:
    """Return the chance that a stranger's score is above a benign one's, ties counted half: the area under the ROC.

    Arguments and errors are those of `tpr_tnr`.
    """
    benign, strangers = _scores("benign", benign), _scores("out-of-distribution", strangers)
    above = stats.mannwhitneyu(strangers.numpy(), benign.numpy()).statistic
    return float(above / (len(benign) * len(strangers)))


def roc_curve(benign: torch.Tensor, strangers: torch.Tensor, *, points: int = 101) -> tuple[torch.Tensor, torch.Tensor]:
    """Return TPR and TNR over all thresholds, each float64 of shape (points,), from accepting nothing to everything.

    The thresholds are benign scores at equal steps of their ranks. Other arguments and errors are those of `tpr_tnr`.
    """
    benign, strangers = _scores("benign", benign).sort().values, _scores("out-of-distribution", strangers).sort().values
    ranks = torch.linspace(0, len(benign), points).round().long()
    thresholds = torch.cat([benign.new_tensor([-math.inf]), benign])[ranks]
    # Accepting everything, strangers too, ends the curve.
    thresholds[-1] = math.inf
    accepted = [torch.searchsorted(side, thresholds, right=True).double() / len(side) for side in (benign, strangers)]
    return accepted[0], 1 - accepted[1]


def _scores(side: str, scores: torch.Tensor) -> torch.Tensor:
    if scores.ndim != 1 or not len(scores) or scores.isnan().any():
        raise InputError(f"{side} scores of shape {tuple(scores.shape)} or with NaN: at least one number is wanted")
    return scores
