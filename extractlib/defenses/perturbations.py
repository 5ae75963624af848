"""Policies of 2018 to 2020 that perturb answers with a given strength, and how to choose it (beyond the paper).

As published, they need no detector: put them behind `detectors.Everything`. Behind another detector, they alter what it
catches.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from extractlib.api.service import Model, Policy
from extractlib.data.images import ImageSet
from extractlib.defenses.policies import Altered
from extractlib.errors import InputError
from extractlib.metrics import accuracy
from extractlib.models.classifier import Classifier
from extractlib.models.fitted import Trainer
from extractlib.store import digest
from extractlib.versions import versions

ROUNDING = 1e-6
"""How far apart two costs may be that are equal except for float32 rounding."""


@dataclass(frozen=True, kw_only=True)
class ReverseSigmoid(Altered):
    """Reverse sigmoid (Lee et al. 2018): y' ∝ y - β (S(γ S⁻¹(y)) - 1/2), S the sigmoid; no class goes below 0.

    High probabilities fall and low ones rise, all of them by at most β / 2.

    Attributes:
        strength: β, from 0.
        slope: γ, above 0: the higher, the sooner a probability away from 1/2 is moved by the full β / 2.

    Raises:
        InputError: A value does not fit.
    """

    leaks: ClassVar[str] = "all probabilities, perturbed; where that keeps their order, the victim's label"

    strength: float
    slope: float = 0.2

    def __post_init__(self) -> None:
        if not self.strength >= 0 or not self.slope > 0:
            raise InputError(f"strength is {self.strength} and slope {self.slope}: expected at least 0 and above 0")

    @property
    def fingerprint(self) -> str:
        return digest("ReverseSigmoid", repr((self.strength, self.slope)))

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        moved = torch.sigmoid(self.slope * torch.logit(probabilities, eps=1e-7)) - 0.5
        shown = (probabilities - self.strength * moved).clamp(min=0)
        return shown / shown.sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class AdaptiveMisinformation(Altered):
    """Adaptive misinformation (Kariyappa and Qureshi 2020): y' = (1 - α) y + α ŷ, α = S(ν (τ - max y)).

    ŷ is the answer of a model that is trained to be wrong (`misinformation_model`), and S the sigmoid: queries that
    the victim is unsure of, such as most queries from a foreign pool, are answered by that model.

    Attributes:
        strength: τ, in [0, 1]: the confidence below which an answer is false.
        wrong: Answers with ŷ.
        sharpness: ν, above 0.

    Raises:
        InputError: A value does not fit.
    """

    leaks: ClassVar[str] = "the probabilities where the victim is sure, and a wrong model's where it is not"

    strength: float
    wrong: Model
    sharpness: float = 1_000.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1 or not self.sharpness > 0:
            raise InputError(f"strength is {self.strength}, sharpness {self.sharpness}: expected [0, 1] and above 0")

    @property
    def fingerprint(self) -> str:
        return digest("AdaptiveMisinformation", repr((self.strength, self.sharpness)), self.wrong.fingerprint)

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        unsure = torch.sigmoid(self.sharpness * (self.strength - probabilities.max(1, keepdim=True).values))
        false = F.softmax(self.wrong.logits(images).to(probabilities.dtype), 1)
        return torch.lerp(probabilities, false, unsure)


def misinformation_model(images: ImageSet, trainer: Trainer) -> Classifier:
    """Train a model to give any label but the right one, or read the one that was trained before.

    Its targets are uniform over the wrong classes. That cross-entropy is an upper bound, up to a constant, of the
    published loss -log(1 - ŷ of the right class).

    Args:
        images: The victim's training images, labeled.
        trainer: How the model is made.

    Raises:
        InputError: The images have no labels.
    """
    labels, classes = images.known_labels("the model that should be wrong needs them"), len(images.classes)
    targets = (1 - F.one_hot(labels, classes).to(torch.get_default_dtype())) / (classes - 1)
    model = trainer.fit_or_load("misinformation", images, targets, classes=classes, key=versions("policy"))
    return Classifier(model, classes=images.classes, image_shape=images.image_shape, name="misinformation")


def choose_strength(
    make: Callable[[float], Policy],
    strengths: Iterable[float],
    *,
    reference: Policy,
    detected: torch.Tensor,
    probabilities: torch.Tensor,
    images: ImageSet,
    slack: float = 0.005,
) -> float:
    """Return the greatest strength that costs an honest user no more than another policy behind its detector.

    The cost is the mean L1 change of the answers, at most the other's, and the accuracy lost, at most the other's plus
    `slack`.

    Args:
        make: Given a strength, makes the policy, which alters every answer.
        strengths: Those to choose from.
        reference: The other policy.
        detected: Which of the images its detector catches, bool of shape (n,).
        probabilities: The victim's, float of shape (n, classes).
        images: Honest validation images, labeled.
        slack: Share of the images.

    Raises:
        InputError: The images have no labels, the reference denies answers, or none of the strengths is that cheap.
    """
    labels, everything = images.known_labels(), torch.ones(len(images), dtype=torch.bool)

    def cost(policy: Policy, caught: torch.Tensor) -> tuple[float, float]:
        shown = policy.answer(probabilities, caught, images.images[:])
        return (shown - probabilities).abs().sum(1).mean().item(), 1 - accuracy(shown.argmax(1), labels)

    change, wrong = cost(reference, detected)
    if math.isnan(change):
        raise InputError("the reference denies answers, which is no change of them: give a policy that alters answers")
    for strength in sorted(strengths, reverse=True):
        changed, lost = cost(make(strength), everything)
        if changed <= change + ROUNDING and lost <= wrong + slack + ROUNDING:
            return strength
    raise InputError(f"none of the strengths changes answers by at most {change:.4g}: add a smaller one")
