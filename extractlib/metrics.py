"""How good a surrogate or a detector is: accuracy, recovery, agreement, TPR and TNR, and intervals over seeds.

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
from extractlib.tensors import is_plain, kind_of


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


def recovery_interval(
    surrogate_accuracy: float, victim_accuracy: float, both_right: float, n: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval for the recovery on other test images, by the delta method for its logarithm.

    With accuracies a and b on the same n images, a share c of which both models classify correctly, the variance of
    log(a / b) is (a + b - 2c) / (n a b): images that both get right, or both get wrong, do not make the ratio
    uncertain. The interval says nothing about other seeds.

    Args:
        surrogate_accuracy, victim_accuracy: a and b, in (0, 1].
        both_right: c, in [0, 1].
        n: Number of images.
        confidence: In (0, 1).

    Raises:
        InputError: An accuracy is 0.
    """
    a, b = surrogate_accuracy, victim_accuracy
    if not (a > 0 and b > 0):
        raise InputError(f"the accuracies are {a} and {b}: an interval of recovery needs both above 0")
    half = stats.norm.ppf((1 + confidence) / 2) * math.sqrt(max(a + b - 2 * both_right, 0) / (n * a * b))
    return a / b * math.exp(-half), a / b * math.exp(half)


def recovery_above_constant(surrogate_accuracy: float, victim_accuracy: float, constant: float) -> float:
    """Return r₀ = (surrogate - constant) / (victim - constant): 0 if a surrogate knows only the most frequent label.

    Args:
        surrogate_accuracy, victim_accuracy: Accuracies on the same images, in [0, 1].
        constant: Accuracy of always answering the most frequent label, on these images.

    Raises:
        InputError: The victim is no better than that.
    """
    if victim_accuracy <= constant:
        raise InputError(
            f"the victim's accuracy is {victim_accuracy} and a constant's {constant}: r₀ needs a better victim"
        )
    return (surrogate_accuracy - constant) / (victim_accuracy - constant)


def errors_repeated(surrogate: torch.Tensor, victim: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of the victim's errors to which the surrogate gives the same wrong label; NaN if there are none.

    All int64 of shape (n,).

    Raises:
        InputError: They differ in number.
    """
    _check_alike(surrogate, labels)
    _check_alike(victim, labels)
    return share((surrogate == victim)[victim != labels])


def share(flags: torch.Tensor) -> float:
    """Return the share, in [0, 1], of the flags, bool of shape (n,), that are true."""
    return flags.double().mean().item()


def per_class_accuracy(predicted: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the accuracy on the images of each class, float64 of shape (classes,); NaN where a class has none.

    Raises:
        InputError: Predictions and labels differ in number.
    """
    _check_alike(predicted, labels)
    right = torch.bincount(labels[predicted == labels], minlength=classes)
    return right.double() / torch.bincount(labels, minlength=classes)


def mean_class_accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean over the labels' classes of the accuracy on each, also called balanced accuracy, in [0, 1].

    Both int64 of shape (n,). A constant answer scores one over the number of classes.

    Raises:
        InputError: They differ in number, or there are none.
    """
    _share(predicted, labels)  # refuses what cannot be compared
    return per_class_accuracy(predicted, labels, int(labels.max()) + 1).nanmean().item()


def constant_accuracy(labels: torch.Tensor) -> float:
    """Return the accuracy of always answering the most frequent label."""
    return _share(labels.mode().values.expand_as(labels), labels)


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation (with n - 1) of at least two values.

    Raises:
        InputError: There are fewer than two values.
    """
    several = _several(values)
    return float(several.mean()), float(several.std(ddof=1))


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the t interval of the mean of at least two values: mean ± t(n - 1) · sd / √n.

    Raises:
        InputError: There are fewer than two values.
    """
    several = _several(values)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * several.std(ddof=1) / np.sqrt(len(values))
    return float(several.mean() - half), float(several.mean() + half)


def _share(first: torch.Tensor, second: torch.Tensor) -> float:
    _check_alike(first, second, least=1)
    return share(first == second)


def _check_alike(first: torch.Tensor, second: torch.Tensor, *, least: int = 0) -> None:
    if not all(is_plain(labels) and labels.ndim == 1 for labels in (first, second)):
        raise InputError(
            f"labels are {kind_of(first)} and {kind_of(second)}: expected two tensors of shape (n,); for logits, take"
            " argmax(1)"
        )
    if len(first) != len(second) or len(first) < least:
        raise InputError(
            f"{len(first)} and {len(second)} labels cannot be compared: expected the same number of both"
            + f", at least {least}" * bool(least)
        )


def _several(values: Sequence[float]) -> np.ndarray:
    if len(values) < 2:
        raise InputError(f"{len(values)} value(s) have no spread: expected at least 2")
    return np.asarray(values, dtype=np.float64)


# -- answers -------------------------------------------------------------------


def mutual_information(probabilities: torch.Tensor) -> float:
    """Return how varied answers are, in nats: the entropy of the mean answer minus the mean entropy of the answers.

    0 if all answers are equal, however uncertain each is; log(classes) if each is certain and all classes are equally
    frequent. (The mean entropy alone measures uncertainty, not variety.)

    Args:
        probabilities: float of shape (n, classes) with rows that sum to 1, n at least 1.
    """
    answers = probabilities.double()
    return float(torch.special.entr(answers.mean(0)).sum() - torch.special.entr(answers).sum(1).mean())


def hidden_and_divergence(probabilities: torch.Tensor, shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what answers hide: the probability mass of the classes not shown, and how far off the shown ones are.

    The second is the Kullback-Leibler divergence, in nats, of the shown classes' true probabilities from the answer,
    both scaled to sum to 1 over those classes: 0 for top-k answers and labels, which lose only the first part.
    The shares are not smoothed.

    Args:
        probabilities: The victim's, float of shape (n, classes) with rows that sum to 1.
        shown: What the answers show, of the same shape, 0 where a class is hidden; each row shows at least one class
            (``Answers.targets`` with ``fill="renormalized"``).

    Returns:
        Mass in [0, 1] and divergence of at least 0, each float64 of shape (n,).
    """
    true, told = probabilities.double(), shown.double()
    seen = true * (told > 0)
    mass = seen.sum(1, keepdim=True)
    true_shares, told_shares = seen / mass, told / told.sum(1, keepdim=True)
    divergence = torch.special.xlogy(true_shares, true_shares) - torch.special.xlogy(true_shares, told_shares)
    return (1 - mass[:, 0]).clamp(0, 1), divergence.sum(1)


# -- detection -----------------------------------------------------------------
#
# A higher score means further out of distribution; in-distribution images are the positives (the paper, section 5).


def tpr_tnr(benign: torch.Tensor, ood: torch.Tensor, threshold: float) -> tuple[float, float]:
    """Return the TPR and TNR of the rule "out of distribution if the score is above the threshold".

    TPR is the share of in-distribution images that are accepted, TNR the share of out-of-distribution ones that are
    caught (the paper, section 5).

    Args:
        benign: Scores of in-distribution images, float of shape (n,); on any device, and with or without gradients.
        ood: Scores of out-of-distribution images, float of shape (m,).
        threshold: The highest score that is accepted.

    Raises:
        InputError: One side has no scores, or a score is NaN.
    """
    benign, ood = _scores("benign", benign), _scores("out-of-distribution", ood)
    return (benign <= threshold).double().mean().item(), (ood > threshold).double().mean().item()


def threshold_at(scores: torch.Tensor, accepted: float) -> float:
    """Return the lowest threshold that accepts at least a share `accepted`, in [0, 1], of benign images.

    Args:
        scores: Scores of benign images, float of shape (n,).
        accepted: The share; 0 accepts none.

    Raises:
        InputError: There are no scores, one is NaN, or the share is out of range.
    """
    if not len(scores) or not 0 <= accepted <= 1:
        raise InputError(f"share {accepted} of {len(scores)} scores: expected a share in [0, 1] of at least one")
    scores = _scores("benign", scores)
    # The tolerance undoes the rounding of a share that was itself computed from counts.
    needed = math.ceil(accepted * len(scores) - 1e-9)
    return scores.sort().values[needed - 1].item() if needed else -math.inf


def tnr_at_tpr(validation: torch.Tensor, ood: torch.Tensor, *, tpr: float = 0.95) -> float:
    """Return the TNR, in [0, 1], at the threshold that accepts a share `tpr` of benign validation images.

    At 0.95 it is one minus the commonly reported FPR95, with a threshold that does not depend on any test image.

    Args:
        validation: Scores of benign images that are not test images, float of shape (n,).
        ood: Scores of out-of-distribution images, float of shape (m,).
        tpr: The share, in [0, 1].

    Raises:
        InputError: One side has no scores, a score is NaN, or the share is out of range.
    """
    return tpr_tnr(validation, ood, threshold_at(validation, tpr))[1]


def balanced_accuracy(tpr: float, tnr: float) -> float:
    """Return (TPR + TNR) / 2: 0.5 for a detector that guesses."""
    return (tpr + tnr) / 2


def auroc(benign: torch.Tensor, ood: torch.Tensor) -> float:
    """Return the area under the ROC: the chance that an ood score is above a benign one, with ties counted half.

    Arguments and errors are those of `tpr_tnr`.
    """
    benign, ood = _scores("benign", benign), _scores("out-of-distribution", ood)
    above = stats.mannwhitneyu(ood.numpy(), benign.numpy()).statistic
    return float(above / (len(benign) * len(ood)))


def roc_curve(benign: torch.Tensor, ood: torch.Tensor, *, points: int = 101) -> tuple[torch.Tensor, torch.Tensor]:
    """Return TPR and TNR over all thresholds, each float64 of shape (points,), from accepting nothing to everything.

    They are on the CPU. The thresholds are benign scores at equal steps of their ranks. Other arguments and errors are
    those of `tpr_tnr`.
    """
    benign, ood = _scores("benign", benign).sort().values, _scores("out-of-distribution", ood).sort().values
    ranks = torch.linspace(0, len(benign), points).round().long()
    thresholds = torch.cat([benign.new_tensor([-math.inf]), benign])[ranks]
    # The curve ends with accepting everything, ood scores too.
    thresholds[-1] = math.inf
    accepted = [torch.searchsorted(side, thresholds, right=True).double() / len(side) for side in (benign, ood)]
    return accepted[0], 1 - accepted[1]


def _scores(side: str, scores: torch.Tensor) -> torch.Tensor:
    """Return scores of shape (n,) as all metrics take them: on the CPU, without gradients, at least float32.

    Raises:
        InputError: There are none, or one is NaN.
    """
    if not is_plain(scores) or scores.ndim != 1 or not len(scores) or scores.isnan().any():
        raise InputError(f"{side} scores are {kind_of(scores)} or have NaN: expected a tensor of at least one number")
    scores = scores.detach().cpu()  # SciPy takes nothing else, and no metric is trained on
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
