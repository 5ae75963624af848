"""Classifiers: any module with its class names, on the device where it lives.

A victim and a surrogate are both a `Classifier`; what tells them apart is who holds them.
"""

import json
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from extractlib.data.images import ImageSet, Rows, check_images
from extractlib.errors import InputError, check_choice, check_classes, one_line
from extractlib.models import networks
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.store import Store, digest

CLOSE = 1e-3
"""How far a row of probabilities may be from the sum 1."""


ENOUGH = 8
"""Single logits from 0 to 1 that are no accident."""

VICTIM = Recipe(epochs=12, learning_rate=0.05)
"""How a victim is trained unless said otherwise: as at the scale `drawn`."""

SHIPPED = Path(__file__).parent / "weights" / "victims"
"""The victims that ship with the package."""


class Classifier:
    """A trained classifier: the model behind an API, or the copy of one.

    Args:
        module: One of the package's networks, which take uint8 images, or any module that takes floats.
        classes: Name of each class.
        mean, std: What a module that takes floats wants its pixels in [0, 1] shifted and divided by: a number for each
            channel, or one for all. Without them it gets the pixels in [0, 1].
        image_shape: (channels, height, width) of the images it takes; any if None.
        outputs: What a module that takes floats returns: ``"logits"``, ``"probabilities"`` (after a softmax),
            or, of two classes, of the second one alone: ``"logit"`` or ``"probability"`` (after a sigmoid). Checked
            whenever it answers.
        layer: Name of the layer inside whose input detectors look at, as ``"fc"`` in torchvision's ResNets.
        name: What to call it.

    Attributes:
        model: Takes uint8 images and returns logits; in evaluation mode.

    Raises:
        InputError: A value does not fit.

    Examples:
        >>> import extractlib as xl, torch
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> victim = xl.Victim(module, classes=["cat", "dog"], mean=[0.5] * 3, std=[0.25] * 3)
        >>> victim.logits(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        outputs: str = "logits",
        layer: str | None = None,
        name: str = "model",
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"the module is a {type(module).__name__}: a torch.nn.Module is wanted")
        self.name, self.classes = name, check_classes(classes)
        self.image_shape = None if image_shape is None else tuple(image_shape)
        if outputs in ("logit", "probability") and len(self.classes) != 2:
            raise InputError(
                f"a single {outputs} is of two classes and there are {len(self.classes)}: name outputs='logits'"
            )
        if not isinstance(module, networks.Network):
            module = networks.FromFloats(module, mean=mean, std=std, outputs=outputs, layer=layer)
        elif outputs != "logits" or any(value is not None for value in (mean, std, layer)):
            raise InputError(f"a {type(module).__name__} takes uint8 images: leave mean, std, outputs and layer out")
        self.model = module.eval()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, as they are when it is first asked for, layers, class names and how the module is used."""
        weights = networks.fingerprint_of(self.model.state_dict())
        return digest(weights, repr(self.classes), repr(self.model))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.classes)} classes, {self.fingerprint[:12]})"

    @classmethod
    def train(
        cls,
        images: ImageSet,
        *,
        network: str | nn.Module = "resnet",
        recipe: Recipe = VICTIM,
        seed: int = 0,
        backbone: networks.Backbone = "shipped",
        store: Store | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Self:
        """Train a classifier on labeled images (the paper, section 3.2).

        Args:
            images: The training images, labeled.
            network: Architecture (see `networks.build`), or any module, trained in place, that takes floats of the
                images' shape and returns as many logits as there are classes.
            recipe: How it is trained.
            seed: Seed of the head's first weights and of the order of the images.
            backbone: Weights of everything but the head to start from; ``"shipped"`` for those that ship with the
                package, ``"imagenet"`` for ImageNet's; None to train from scratch.
            store: Keeps what is trained, so that the same is not trained twice; None to keep nothing.
            device: Where to train, and where the model is afterward.
            progress: Whether to show a bar.

        Raises:
            InputError: The images have no labels, or network or backbone do not fit.
        """
        labels = images.known_labels("a victim needs them")
        trainer = Trainer(
            network=network,
            recipe=recipe,
            seed=seed,
            backbone=backbone,
            store=store,
            device=device,
            progress=progress,
            activations=store,
        )
        model = trainer.fit_or_load("victim", images, labels, classes=len(images.classes))
        return cls(model, classes=images.classes, image_shape=images.image_shape, name=images.name)

    def logits(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), on the CPU, of uint8 images (n, channels, height, width).

        Raises:
            InputError: The images are of another kind or shape, the module cannot take them, or what it returns is not
                what `outputs` says.
        """
        check_images(images, self.image_shape)
        count, classes = len(images), len(self.classes)
        try:
            logits = predict(self.model, images)
        except InputError:
            raise
        except Exception as error:  # a module fails in whatever way it happens to
            raise InputError(
                f"{self.name} cannot take images of shape {tuple(images.shape[1:])} ({one_line(error)}): bring them to"
                " the size and channels that it wants"
            ) from None
        if logits.shape != (count, classes):
            raise InputError(
                f"{self.name} returned logits of shape {tuple(logits.shape)} for {count} images: with {classes} classes"
                f" ({count}, {classes}) is wanted; name what it returns by outputs=…"
            )
        self._check_outputs(logits)
        return logits

    def predict(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the label of each image, int64 of shape (n,)."""
        return self.logits(images).argmax(1)

    def _check_outputs(self, logits: torch.Tensor) -> None:
        """Check that a module returns probabilities where it is said to, and only there."""
        outputs = getattr(self.model, "outputs", "logits")
        if outputs in ("probability", "probabilities") and not bool((logits.logsumexp(1).abs() < CLOSE).all()):
            raise InputError(f"{self.name} returned rows that are no probabilities: name outputs='logits'")
        if outputs == "logit" and len(logits) >= ENOUGH and bool(((logits[:, 1] >= 0) & (logits[:, 1] <= 1)).all()):
            warnings.warn(
                f"{self.name} returns numbers from 0 to 1 alone, as after a sigmoid: name outputs='probability' if it"
                " ends in one",
                stacklevel=3,
            )
        sums_to_one = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < CLOSE).all())
        if outputs == "logits" and len(logits) and sums_to_one:
            warnings.warn(
                f"{self.name} returns rows that sum to 1, as after a softmax: name outputs='probabilities' if it ends"
                " in one, or its answers will be far too flat",
                stacklevel=3,
            )

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file(networks.state_of(self.model), path)

    @classmethod
    def load(cls, path: Path, *, network: str, classes: Sequence[str], **options: Any) -> Self:
        """Return the classifier whose weights `save` wrote.

        Args:
            path: The weights, as safetensors.
            network: Architecture (see `networks.build`).
            classes: Name of each class.
            options: Further arguments of the class.

        Raises:
            InputError: The file is missing or damaged, or is of another network or number of classes.
        """
        model = networks.build(network, classes=len(classes), seed=0)
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is no regular file: name a file of weights")
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            what = f"weights of {network!r} with {len(classes)} classes"
            raise InputError(f"{path} holds no {what} ({one_line(error)})") from None
        return cls(model, classes=classes, **options)


class Victim(Classifier):
    """The model that an attacker wants (see `Classifier`).

    Examples:
        >>> import extractlib as xl, torch
        >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> victim = xl.Victim(module, classes=("cat", "dog"), mean=[0.5] * 3, std=[0.25] * 3)
        >>> victim.logits(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([4, 2])
    """


class Surrogate(Classifier):
    """The copy that an attack ends with (see `Classifier`).

    Examples:
        >>> import extractlib as xl
        >>> api = xl.PredictionAPI(xl.load_victim("signs"), budget=50)
        >>> copy = xl.attacks.Knockoff(budget=50)(api, xl.load("atlas").queries, progress=False)
        >>> isinstance(copy, xl.Surrogate), copy.predict(xl.load("signs").test.images[:5]).shape
        (True, torch.Size([5]))
    """


def load_victim(name: str) -> Victim:
    """Return the shipped victim of a drawn task, trained at the scale `drawn` with seed 0.

    Args:
        name: ``"signs"``, ``"objects"``, ``"birds"``, ``"retina"`` or ``"things"``.

    Raises:
        InputError: No victim of that name ships.

    Examples:
        >>> import extractlib as xl
        >>> xl.load_victim("retina").classes
        ('no retinopathy', 'mild', 'moderate', 'severe', 'proliferative')
    """
    check_choice("shipped victim", name, sorted(path.stem for path in SHIPPED.glob("*.json")))
    card = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    options = {"image_shape": tuple(card["image_shape"]), "name": name}
    return Victim.load(SHIPPED / f"{name}.safetensors", network=card["network"], classes=card["classes"], **options)
