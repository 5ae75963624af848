"""Exercises of chapter 6, Granularity."""

import math

import numpy as np
import torch

from extractbook.exercises.answers import difference
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import LabelService

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def bits(classes: int, share: float) -> float:
    """Return the entropy of a label, where one class has `share` and the others have equal parts of the rest."""
    return -share * math.log2(share) - (1 - share) * math.log2((1 - share) / (classes - 1))


def rounded_answers(seed: int) -> list[tuple]:
    """Return answers with each class rounded for itself, and their decimals: the sums are below 1, above 1, and 1."""
    generator, cases = np.random.default_rng(seed), []
    for units, decimals, zeros in ((-1, 1, 0), (1, 2, 3), (0, 1, 1)):
        shown = np.zeros(3)
        while round((shown.sum() - 1) * 10**decimals) != units:
            shown = generator.dirichlet(np.ones(3)).round(decimals)
        cases.append((np.append(shown, np.zeros(zeros)), decimals))
    return cases


def alone(shown: np.ndarray, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest probability of each class as far as its own number tells."""
    return (shown - 0.5 / 10**decimals).clip(min=0), (shown + 0.5 / 10**decimals).clip(max=1)


def together(shown: np.ndarray, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest probability of each class, given that all sum to 1."""
    low, high = alone(shown, decimals)
    return np.maximum(low, 1 - (high.sum() - high)), np.minimum(high, 1 - (low.sum() - low))


def softened(seed: int) -> list[tuple]:
    """Return softened answers of a calibrated victim, the images' true labels, and the temperatures to choose from."""
    generator, cases = np.random.default_rng(seed), []
    for temperature in generator.choice(TEMPERATURES, 4, replace=False).tolist():
        logits = torch.from_numpy(2 * generator.standard_normal((500, 6)))
        # The highest of logits with Gumbel noise is a draw from their softmax.
        labels = (logits + torch.from_numpy(generator.gumbel(size=logits.shape))).argmax(1)
        cases.append(((logits / temperature).softmax(1), labels, TEMPERATURES))
    return cases


def likeliest(soft: torch.Tensor, labels: torch.Tensor, temperatures: tuple[float, ...]) -> float:
    """Return the temperature whose plain answers make the labels most likely."""
    plain = [(soft.log() * temperature).log_softmax(1) for temperature in temperatures]
    return temperatures[int(np.argmax([logs[range(len(labels)), labels].mean() for logs in plain]))]


def label_services(seed: int) -> list[tuple]:
    """Return label services of two classes, whose border crosses each axis within 10 of zero, and their features."""
    generator, cases = np.random.default_rng(seed), []
    for features in (2, 9, 9):
        crossings = generator.uniform(0.5, 9.5, features) * generator.choice([-1, 1], features)
        bias = generator.choice([-1.0, 1.0])
        weights = torch.from_numpy(np.stack([0 * crossings, -bias / crossings]))
        cases.append((LabelService(weights, torch.tensor([0.0, bias]), 40 * features), features))
    return cases


def judge_crossings(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Right is what is near the border; if all that is missed lies on one side of zero, that is told."""
    reason = next(filter(None, (difference(*pair, tolerance=1e-4) for pair in zip(found, wanted, strict=True))), None)
    if not reason or any(crossings.shape != true.shape for crossings, true in zip(found, wanted, strict=True)):
        return reason
    crossings, true = np.concatenate(found), np.concatenate(wanted)
    wrong = np.abs(crossings - true) > 1e-4 * np.abs(true).max()
    if np.array_equal(wrong, true < 0) or np.array_equal(wrong, true > 0):
        return "the border crosses some axes on the other side of zero, and there it is missed"
    return reason


EXERCISES = (
    Exercise(
        id="6.1",
        title="What a label carries",
        kind="understand",
        minutes=6,
        variants={"classes": (43, *range(6, 200)), "share": (0.75, *(part / 100 for part in range(30, 95)))},
        right=bits,
        slips={
            "labels that can be foreseen carry less": lambda classes, share: math.log2(classes),
            "bits go by powers of 2": lambda classes, share: bits(classes, share) * math.log(2),
            "the frequent class counts too": lambda classes, share: (
                (1 - share) * math.log2((classes - 1) / (1 - share))
            ),
        },
    ),
    Exercise(
        id="6.2",
        title="A temperature that nobody told",
        kind="modify",
        minutes=15,
        variants={"seed": SEEDS},
        cases=softened,
        right=likeliest,
        slips={
            "the first candidate comes out: accuracy is the same at all of them, so it cannot choose": (
                lambda soft, labels, known: known[0]
            ),
            "undo the temperature: multiply the logarithms, do not divide them": lambda soft, labels, known: (
                likeliest(soft, labels, tuple(1 / one for one in known)) ** -1
            ),
        },
    ),
    Exercise(
        id="6.3",
        title="What rounding leaves open",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=rounded_answers,
        right=together,
        slips={"the other classes' numbers tell something too, since all sum to 1": alone},
    ),
    Exercise(
        id="6.4",
        title="A border found by labels",
        kind="attack or defend",
        minutes=25,
        variants={"seed": SEEDS},
        cases=label_services,
        right=lambda service, features: -service._bias[1] / service._weights[1],
        judge=judge_crossings,
    ),
    Exercise(
        id="6.5",
        title="Hidden or only disguised",
        kind="discuss",
        minutes=12,
    ),
)
