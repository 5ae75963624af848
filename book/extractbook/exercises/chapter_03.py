"""Exercises of chapter 3, Victims."""

from functools import partial
from math import pi

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import logits_and_targets


def answers(seed: int) -> list[tuple]:
    """Return confidences and whether each answer is right: too sure where it is sure, too modest where it is not."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, lowest in ((400, 0.1), (60, 0.65), (2_000, 0.0)):
        confidence = lowest + (1 - lowest) * torch.rand(count, generator=generator, dtype=torch.float64)
        right = torch.rand(count, generator=generator) < 0.3 + 0.5 * confidence
        cases.append((confidence, right))
    return cases


def gaps(confidence: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return confidence minus share right, and the share of answers, of each group of confidence that is not empty."""
    group = (10 * confidence).long()
    count = group.bincount(minlength=10).double()
    gap = group.bincount(weights=confidence - right.double(), minlength=10)
    return (gap / count)[count > 0], (count / len(group))[count > 0]


def with_zeros(seed: int) -> list[tuple]:
    """Return logits and soft targets, some of which are zero, as in a hard label."""
    cases = []
    for logits, targets in logits_and_targets(seed):
        targets = torch.where(targets < targets.mean(), 0.0, targets)
        targets[0] = F.one_hot(targets[0].argmax(), targets.shape[1]).double()
        cases.append((logits, targets / targets.sum(1, keepdim=True)))
    return cases


def excess(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the mean soft cross-entropy minus the least that these targets allow."""
    return (F.cross_entropy(logits, targets) + torch.xlogy(targets, targets).sum(1).mean()).item()


def suspects(seed: int) -> list[tuple]:
    """Return labels that a victim and four suspects give, and true ones; one of the suspects learned from the victim.

    Another is better than the victim, and a third is mostly wrong where the victim is.
    """
    generator = np.random.default_rng(seed)
    classes, count = 10, 600
    cases = []
    for _ in range(3):

        def spoiled(labels: np.ndarray, share: float | np.ndarray) -> np.ndarray:
            other = (labels + generator.integers(1, classes, size=count)) % classes
            return np.where(generator.random(count) < share, other, labels)

        true = generator.integers(classes, size=count)
        victim = spoiled(true, 0.2)
        wrong = victim != true
        others = [
            spoiled(np.where(generator.random(count) < 0.55, victim, true), 0.22),
            spoiled(true, 0.03),
            spoiled(true, np.where(wrong, 0.97, 0.1)),
            spoiled(true, 0.3),
        ]
        names = generator.permutation(["ann", "ben", "cleo", "dan"]).tolist()
        given = {name: torch.from_numpy(said) for name, said in sorted(zip(names, others, strict=True))}
        cases.append((torch.from_numpy(victim), given, torch.from_numpy(true)))
    return cases


def suspect(victim: torch.Tensor, suspects: dict[str, torch.Tensor], true: torch.Tensor, *, sign: str = "same") -> str:
    """Return the suspect with the most of a sign: the same mistakes, any mistakes on the victim's, or any agreement."""
    wrong = victim != true
    signs = {
        "same": lambda said: (said == victim) & wrong,
        "wrong": lambda said: (said != true) & wrong,
        "agreement": lambda said: said == victim,
    }
    return max(suspects, key=lambda name: signs[sign](suspects[name]).sum())


EXERCISES = (
    Exercise(
        id="3.1",
        title="How far a recipe walks",
        kind="understand",
        minutes=8,
        variants={
            "peak": (0.2, 0.05, 0.1, 0.15, 0.25, 0.3),
            "start": (0.04, 0.1, 0.02, 0.2),
            "warm_up": (0.25, 0.1, 0.2, 0.3, 0.4),
        },
        right=lambda peak, start, warm_up: peak * (1 + warm_up * start) / 2,
        slips={
            "that is the highest rate, not the mean": lambda peak, start, warm_up: peak,
            "the line begins above zero": lambda peak, start, warm_up: peak / 2,
            "each stretch counts by its length": lambda peak, start, warm_up: peak * ((1 + start) / 2 + 0.5) / 2,
            "the falling half of a cosine, lifted to end at zero, has another mean": lambda peak, start, warm_up: (
                peak * (warm_up * (1 + start) / 2 + (1 - warm_up) * 2 / pi)
            ),
        },
    ),
    Exercise(
        id="3.2",
        title="One number for honesty",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=answers,
        right=lambda confidence, right: (torch.mul(*gaps(confidence, right)).abs()).sum().item(),
        slips={
            "a group counts by its number of answers": lambda confidence, right: (
                gaps(confidence, right)[0].abs().mean().item()
            ),
            "too sure in one group does not make good for too modest in another": lambda confidence, right: abs(
                (confidence - right.double()).mean().item()
            ),
            "the sign of a gap does not matter": lambda confidence, right: (confidence - right.double()).mean().item(),
        },
    ),
    Exercise(
        id="3.3",
        title="A loss that cannot reach zero",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=with_zeros,
        right=excess,
        slips={
            "a perfect network does not get 0": lambda logits, targets: F.cross_entropy(logits, targets).item(),
            "the mean over the images is asked for": lambda logits, targets: len(logits) * excess(logits, targets),
            "the entropy has the wrong sign": lambda logits, targets: (
                2 * F.cross_entropy(logits, targets).item() - excess(logits, targets)
            ),
        },
    ),
    Exercise(
        id="3.4",
        title="The copy among the suspects",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=suspects,
        right=suspect,
        slips={
            "a good model agrees with a good victim without having seen it": partial(suspect, sign="agreement"),
            "to fail on the same images is no proof, for they may be hard": partial(suspect, sign="wrong"),
        },
    ),
    Exercise(
        id="3.5",
        title="A figure to rely on",
        kind="discuss",
        minutes=10,
    ),
)
