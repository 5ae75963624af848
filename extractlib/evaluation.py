"""How close a surrogate comes to its victim, both evaluated on the same labeled images."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch

from extractlib.api.granularity import DENIED
from extractlib.data.images import ImageSet, Rows
from extractlib.errors import InputError, ResultWarning, check_classes, check_has, shown
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
from extractlib.models.classifier import labels_of


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
        balanced: Whether the accuracies are means over the classes.
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
    balanced: bool = False

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
        """The 95% interval of the recovery over test images (see `metrics`).

        Raises:
            InputError: The accuracies are balanced, for which it is not known.
        """
        if self.balanced:
            raise InputError("there is no interval for balanced accuracies: evaluate with balanced=False")
        return recovery_interval(self.surrogate_accuracy, self.victim_accuracy, self.both_right, self.n)

    def to_json(self) -> dict[str, float | None]:
        """Return the values by name, with NaN as None, since JSON has no NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def evaluate(
    victim: Model | torch.Tensor,
    surrogate: Model | torch.Tensor,
    images: ImageSet,
    *,
    classes: Sequence[str] | None = None,
    balanced: bool = False,
) -> Evaluation:
    """Return how well a surrogate does on labeled images compared with its victim.

    Args:
        victim: The model that was attacked, or its labels, int64 of shape (n,), such as ``api.query(…).labels``.
        surrogate: The copy, or its labels. A bare module, as `Knockoff.train` and `train_alone` return, is given as
            ``Surrogate(module, classes=…)``.
        images: Labeled images that neither was trained on. Where its classes are some of a model's by name, labels are
            compared by name, with a `ResultWarning` where these names are numbers that stand elsewhere in its order;
            where none of them are, by number.
        classes: Name of each class, for two tensors of labels; without it, their numbers are those of the images'
            classes.
        balanced: Whether accuracy is the mean over the classes, for when some are rare (`mean_class_accuracy`).

    Raises:
        InputError: The images have no labels, the victim gets none of them right, a model returns no finite logits,
            labels are of denied answers or of no class, or the classes of models and images do not fit.

    Examples:
        >>> import extractlib as xl
        >>> victim = xl.load_victim("signs")
        >>> print(xl.evaluate(victim, victim, xl.load("signs").test))
        recovery 1.00, agreement 1.00 (victim 0.98, surrogate 0.98; n = 8,600)
    """
    check_has("set of images", images, ("known_labels", "images"), remedy="make it with images(…, labels)")
    images.known_labels()
    names = _classes(victim, surrogate, *([] if classes is None else [check_classes(classes)]))
    labels, count = numbered_as(names, images), max(len(names), len(images.classes))
    theirs, ours = (
        _labels(who, model, images, count) for who, model in {"victim": victim, "surrogate": surrogate}.items()
    )
    return evaluate_labels(theirs, ours, labels, balanced=balanced)


def _labels(who: str, model: Model | torch.Tensor, images: ImageSet, count: int) -> torch.Tensor:
    """Return a model's labels, or those given in its place."""
    if not isinstance(model, torch.Tensor):
        kind = who.capitalize()
        remedy = f"wrap a module in {kind}(module, classes=…), or give labels, such as api.query(images).labels"
        check_has(who, model, ("logits",), remedy=remedy)
        return labels_of(model.logits(images.images), who=f"the {who}")
    if tuple(model.shape) != (len(images),) or model.is_floating_point() or model.dtype == torch.bool:
        found = f"{model.dtype} of shape {tuple(model.shape)}"
        raise InputError(f"the {who}'s labels are {found}: expected whole numbers of shape ({len(images)},)")
    if denied := int((model == DENIED).sum()):
        raise InputError(
            f"{denied} of the {who}'s {len(model)} labels are those of denied answers: leave those images out, with"
            " images.subset(labels >= 0)"
        )
    if bool(((model < 0) | (model >= count)).any()):
        found = f"{int(model.min())} to {int(model.max())}"
        raise InputError(f"the {who}'s labels are {found} for {count} classes: number the classes from 0")
    return model.cpu()


def _classes(*models: object) -> tuple[str, ...]:
    """Return the names of the models' classes, or nothing if neither has any; reject two that do not fit."""
    named = [model if isinstance(model, tuple) else getattr(model, "classes", None) for model in models]
    first, *others = [tuple(names) for names in named if isinstance(names, tuple | list)] or [()]
    for other in others:
        if len(first) != len(other) or (set(first) & set(other) and first != other):
            raise InputError(
                f"the classes of victim and surrogate differ, {shown(first)} and {shown(other)}: give both the same"
                " classes in the same order"
            )
    return first


def numbered_as(names: tuple[str, ...], images: ImageSet) -> torch.Tensor:
    """Return the labels of images, int64 of shape (n,), with the numbers of a model's classes.

    Raises:
        InputError: The images have classes that the model does not have.
    """
    labels = images.known_labels()
    by_number = tuple(map(str, range(len(images.classes)))) == tuple(images.classes)
    if names and set(images.classes) <= set(names):
        places = [names.index(name) for name in images.classes]
        first = next((number for number, place in enumerate(places) if number != place), None)
        if by_number and first is not None:
            warnings.warn(
                f"{images.name}: labels are compared by the classes' names, so label {first} is the models' number"
                f" {places[first]}; if labels are the models' numbers, make the set with images(…, labels,"
                " classes=victim.classes)",
                ResultWarning,
                stacklevel=3,
            )
        return torch.tensor(places)[labels]
    alike = len(names) == len(images.classes) and not set(names) & set(images.classes)
    if not names or alike or (by_number and len(images.classes) < len(names)):
        return labels
    raise InputError(
        f"{images.name} has {len(images.classes)} classes, {shown(tuple(images.classes))}, and the models"
        f" {len(names)}, {shown(names)}: call its classes by the same names"
    )


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
        balanced,
    )
