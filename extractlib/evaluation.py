"""How close a surrogate comes to its victim, both evaluated on the same labeled images."""

import math
from dataclasses import asdict, dataclass
from typing import Protocol

import torch

from extractlib.data.images import ImageSet, Rows
from extractlib.errors import InputError, check_has, shown
from extractlib.metrics import (
    accuracy,
    agreement,
    errors_repeated,
    mean_class_accuracy,
    recovery,
    recovery_above_constant,
    recovery_interval,
    share,
)


class Model(Protocol):
    """A model that can be compared: anything that returns logits for uint8 images."""

    def logits(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes)."""


@dataclass(frozen=True)
class Evaluation:
    """The result of a comparison; all shares are in [0, 1].

    Attributes:
        victim_accuracy, surrogate_accuracy: Share of images labeled correctly; if balanced, the mean over the classes.
        recovery: The surrogate's accuracy divided by the victim's (the paper, table 2).
        agreement: Share of images to which both give the same label, also called fidelity.
        constant_accuracy: Accuracy of always answering the most frequent label.
        errors: Number of images that the victim gets wrong.
        errors_repeated: Share of those to which the surrogate gives the same wrong label; NaN if there are none.
            Like agreement, it means little without the same share for an independent model.
        n: Number of images.
        both_right: Share of images that both get right.
    """

    victim_accuracy: float
    surrogate_accuracy: float
    recovery: float
    agreement: float
    constant_accuracy: float
    errors: int
    errors_repeated: float
    n: int
    both_right: float

    def __str__(self) -> str:
        return (
            f"recovery {self.recovery:.2f}, agreement {self.agreement:.2f} (victim {self.victim_accuracy:.2f},"
            f" surrogate {self.surrogate_accuracy:.2f}; n = {self.n:,})"
        )

    @property
    def recovery_above_constant(self) -> float:
        """r₀ = (surrogate - constant) / (victim - constant) of the accuracies (see `metrics`)."""
        return recovery_above_constant(self.surrogate_accuracy, self.victim_accuracy, self.constant_accuracy)

    @property
    def recovery_interval(self) -> tuple[float, float]:
        """The 95% interval of the recovery over test images, for accuracies over images (see `metrics`)."""
        return recovery_interval(self.surrogate_accuracy, self.victim_accuracy, self.both_right, self.n)

    def to_json(self) -> dict[str, float | None]:
        """Return the values by name, with NaN as None, since JSON has no NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def evaluate(victim: Model, surrogate: Model, images: ImageSet, *, balanced: bool = False) -> Evaluation:
    """Return how well a surrogate does on labeled images compared with its victim.

    Args:
        victim: The model that was attacked.
        surrogate: The copy.
        images: Labeled images that neither was trained on.
        balanced: Whether accuracy is the mean over the classes, for when some are rare (`mean_class_accuracy`).

    Raises:
        InputError: The images have no labels, the victim gets none of them right, a model returns no logits, or its
            classes are those of the images in another order.

    Examples:
        >>> import extractlib as xl
        >>> victim = xl.load_victim("signs")
        >>> print(xl.evaluate(victim, victim, xl.load("signs").test))
        recovery 1.00, agreement 1.00 (victim 0.98, surrogate 0.98; n = 8,600)
    """
    check_has("set of images", images, ("known_labels", "images"), remedy="make it with images(…, labels)")
    for who, model in (("victim", victim), ("surrogate", surrogate)):
        check_has(who, model, ("logits",), remedy="wrap a module in Victim(module, classes=…); an API has only answers")
        named = getattr(model, "classes", None)
        named = tuple(named) if isinstance(named, tuple | list) else images.classes
        if set(named) == set(images.classes) and named != tuple(images.classes):
            raise InputError(
                f"the {who}'s classes are those of {images.name} in another order, {shown(named)} and"
                f" {shown(tuple(images.classes))}: put the labels in the order of the {who}"
            )
    labels = images.known_labels()
    theirs, ours = victim.logits(images.images).argmax(1), surrogate.logits(images.images).argmax(1)
    return evaluate_labels(theirs, ours, labels, balanced=balanced)


def evaluate_labels(
    theirs: torch.Tensor, ours: torch.Tensor, labels: torch.Tensor, *, balanced: bool = False
) -> Evaluation:
    """Return the same for the labels that victim and surrogate give, each int64 of shape (n,), and the true labels.

    Raises:
        InputError: The victim gets none right.
    """
    measure = mean_class_accuracy if balanced else accuracy
    victim_accuracy, surrogate_accuracy = measure(theirs, labels), measure(ours, labels)
    return Evaluation(
        victim_accuracy,
        surrogate_accuracy,
        recovery(surrogate_accuracy, victim_accuracy),
        agreement(ours, theirs),
        measure(labels.mode().values.expand_as(labels), labels),
        int((theirs != labels).sum()),
        errors_repeated(ours, theirs, labels),
        len(labels),
        share((theirs == labels) & (ours == labels)),
    )
