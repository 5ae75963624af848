"""Exercises of chapter 3, Victims."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.exercises import held_out
from extractbook.exercises.answers import share_named
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import logits_and_targets
from extractlib.models import networks
from extractlib.models.classifier import Victim
from extractlib.models.training import Recipe


def answers(seed: int) -> list[tuple]:
    """Return confidences, whether each answer is right, and a number of groups that divides the number of answers.

    High confidences are too high, and low ones are too low.
    """
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, lowest, groups in ((400, 0.1, 10), (60, 0.65, 4), (2_000, 0.0, 8)):
        confidence = lowest + (1 - lowest) * torch.rand(count, generator=generator, dtype=torch.float64) ** 2
        right = torch.rand(count, generator=generator) < 0.3 + 0.5 * confidence
        cases.append((confidence, right, groups))
    return cases


def gaps(confidence: torch.Tensor, right: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the confidence minus the share right of each of `groups` equally large groups, float64 (groups,)."""
    order = confidence.argsort()
    return (confidence - right.double())[order].view(groups, -1).mean(1)


def wide_gaps(confidence: torch.Tensor, right: torch.Tensor, groups: int) -> float:
    """Return the expected calibration error with groups of equal width, as on the page."""
    group = (groups * confidence).long().clamp(max=groups - 1)
    return group.bincount(weights=confidence - right.double()).abs().sum().item() / len(group)


def with_zeros(seed: int) -> list[tuple]:
    """Return logits and soft targets with some zeros, as in a hard label."""
    cases = []
    for logits, targets in logits_and_targets(seed):
        targets = torch.where(targets < targets.mean(), 0.0, targets)
        targets[0] = F.one_hot(targets[0].argmax(), targets.shape[1]).double()
        cases.append((logits, targets / targets.sum(1, keepdim=True)))
    return cases


def excess(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the mean soft cross-entropy minus the least that these targets allow."""
    return (F.cross_entropy(logits, targets) + torch.xlogy(targets, targets).sum(1).mean()).item()


STARTS = {"A": "shipped", "B": "shipped-B", "none": None}
"""Weights from which the victims of exercise 3.4 start."""

TRAINED, ASKED, STEPS = 1_000, 600, 80


@cache
def victims(seed: int) -> dict[str, torch.Tensor]:
    """Return the full answers of six victims to the same public images, float64, by name, such as ``"objects A"``."""
    asked, recipe = public(), Recipe(steps=STEPS, learning_rate=0.05)
    found = {}
    for own_seed, task in enumerate(("objects", "birds"), start=2 * seed):
        images = held_out.images(task, "victim", TRAINED, own_seed)
        for start, backbone in STARTS.items():
            victim = Victim.train(images, recipe=recipe, seed=own_seed, backbone=backbone, progress=False)
            found[f"{task} {start}"] = victim.logits(asked).double().softmax(1)
    return found


def public() -> torch.Tensor:
    """Return the images that were sent to the victims, uint8 of shape (600, 3, 32, 32)."""
    return held_out.images("atlas", "queries", ASKED, 0).images[:]


@cache
def features() -> dict[str, torch.Tensor]:
    """Return the features of the same images under both public weights, float64 of shape (600, 64), by name."""
    found = {}
    for start in ("A", "B"):
        backbone = networks.shipped_backbone(initial=start)
        model = networks.build("resnet", classes=2, seed=0, backbone=backbone).eval()
        with torch.inference_mode():
            found[start] = model.features(model.normalize(public())).double().clone()
    return found


def order(seed: int) -> list[str]:
    """Return the names of the six victims in an order that depends on the seed."""
    return [str(name) for name in np.random.default_rng(seed).permutation(sorted(victims(seed)))]


def starts(seed: int) -> list[tuple]:
    """Return the answers of each victim, each with the features under both public weights."""
    return [
        (victims(seed)[name].clone(), {key: value.clone() for key, value in features().items()}) for name in order(seed)
    ]


EXERCISES = (
    Exercise(
        id="3.1",
        title="How much two good models agree",
        kind="understand",
        minutes=8,
        variants={
            "victim": (0.9, 0.92, 0.95, 0.97, 0.88, 0.94, 0.96, 0.93),
            "copy": (0.8, 0.7, 0.75, 0.85, 0.82, 0.78, 0.72, 0.84),
        },
        right=lambda victim, copy: [victim + copy - 1, 1 - abs(victim - copy)],
        slips={
            "that is right if they err independently, and they need not": lambda victim, copy: [
                victim * copy,
                victim * copy + (1 - victim) * (1 - copy),
            ],
            "where only one of them is right, they differ": lambda victim, copy: [victim + copy - 1, 1.0],
            "two models can both be wrong and name the same class": lambda victim, copy: [
                victim + copy - 1,
                min(victim, copy),
            ],
            "they agree where both are wrong only if they name the same class": lambda victim, copy: [
                victim + copy - 1 + min(1 - victim, 1 - copy),
                1 - abs(victim - copy),
            ],
        },
    ),
    Exercise(
        id="3.2",
        title="Groups of equal size",
        kind="modify",
        minutes=8,
        variants={"seed": SEEDS},
        cases=answers,
        right=lambda *case: gaps(*case).abs().mean().item(),
        slips={
            "the groups have equally many answers, not equal widths": wide_gaps,
            "too much confidence in one group does not make up for too little in another": lambda *case: abs(
                gaps(*case).mean().item()
            ),
            "the sign of a gap does not matter": lambda *case: gaps(*case).mean().item(),
            "the exercise asks for the mean over the groups": lambda *case: gaps(*case).abs().sum().item(),
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
            "the exercise asks for the mean over the images": lambda logits, targets: (
                len(logits) * excess(logits, targets)
            ),
            "the entropy has the wrong sign": lambda logits, targets: (
                2 * F.cross_entropy(logits, targets).item() - excess(logits, targets)
            ),
        },
    ),
    Exercise(
        id="3.4",
        title="Which weights did it start from?",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=starts,
        key=lambda seed: [name.split()[1] for name in order(seed)],
        score=share_named,
        marks=(0.5, 1.0),
    ),
    Exercise(
        id="3.5",
        title="A number to rely on",
        kind="discuss",
        minutes=10,
    ),
)
