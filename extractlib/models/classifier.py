"""Classifiers: any module with its class names, on the device where it lives.

A victim and a surrogate are both a `Classifier`; what tells them apart is who holds them.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from extractlib.data.images import ImageSet, Rows
from extractlib.errors import InputError, check_choice, shown
from extractlib.models import networks
from extractlib.models.devices import device_of
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.store import Store, digest

OUTPUTS = ("logits", "probabilities", "logit")
"""What a module may return: logits or probabilities of shape (n, classes), or one logit, that of the second of two
classes, of shape (n,) or (n, 1)."""

CLOSE = 1e-3
"""How far a row of probabilities may be from the sum 1."""


class FromFloats(nn.Module):
    """A module that wants floats, made to take uint8 images and to return logits.

    Args:
        module: Takes floats of shape (n, channels, height, width): (x / 255 - mean) / std.
        mean, std: One number a channel.
        outputs: One of `OUTPUTS`.
        layer: Name of a module inside, as ``named_modules`` gives it, whose input is what detectors call features.
    """

    def __init__(
        self, module: nn.Module, *, mean: Sequence[float], std: Sequence[float], outputs: str, layer: str | None
    ):
        super().__init__()
        self.module, self.outputs, self.layer, self.mean, self.std = module, outputs, layer, tuple(mean), tuple(std)
        # Where the module's weights are, and of their kind.
        like = next((weight for weight in module.parameters() if weight.is_floating_point()), torch.empty(0))
        self.register_buffer("_mean", like.new_tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("_std", like.new_tensor(std).view(-1, 1, 1), persistent=False)

    def extra_repr(self) -> str:
        """Return how the module is used."""
        return f"mean={self.mean}, std={self.std}, outputs={self.outputs!r}, layer={self.layer!r}"

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return the floats that the module wants of uint8 images."""
        return (images.to(self._mean.dtype) / 255 - self._mean) / self._std

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, float of shape (n, classes), of normalized images."""
        return as_logits(self.module(x), self.outputs)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what goes into the layer, float of shape (n, width), of normalized images."""
        if self.layer is None:
            raise InputError("no feature layer is named: give layer='…', a name of module.named_modules()")
        caught: list[torch.Tensor] = []
        hook = self.module.get_submodule(self.layer).register_forward_pre_hook(
            lambda _, inputs: caught.append(inputs[0].flatten(1))
        )
        try:
            self.module(x)
        finally:
            hook.remove()
        if not caught:
            raise InputError(f"layer {self.layer!r} is not used in answering: name another of module.named_modules()")
        return caught[0].to(torch.get_default_dtype())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.normalize(images))


def as_logits(returned: torch.Tensor, outputs: str) -> torch.Tensor:
    """Return logits, shape (n, classes), of what a module returns (`OUTPUTS`)."""
    if outputs == "logits":
        return returned
    if outputs == "probabilities":
        return returned.clamp(min=torch.finfo(returned.dtype).tiny).log()
    second = returned.reshape(len(returned), -1)
    return torch.cat([torch.zeros_like(second), second], 1)


class Classifier:
    """A trained classifier: the model behind an API, or the copy of one.

    Args:
        module: One of the package's networks, which take uint8 images, or any module that takes floats.
        classes: Name of each class.
        mean, std: What a module that takes floats wants its pixels in [0, 1] shifted and divided by: a number for each
            channel, or one for all. Without them it gets the pixels in [0, 1].
        image_shape: (channels, height, width) of the images it takes; any if None.
        outputs: What a module that takes floats returns: ``"logits"``, ``"probabilities"`` (after a softmax) or
            ``"logit"`` (a single one, of two classes). Checked on the first images of each size.
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
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise InputError(f"classes are {shown(classes)}: a name for each class is wanted")
        self.name, self.classes = name, tuple(map(str, classes))
        self.image_shape = None if image_shape is None else tuple(image_shape)
        if len(self.classes) < 2:
            raise InputError(f"{len(self.classes)} class(es) cannot be told apart: at least 2 are wanted")
        check_choice("kind of outputs", outputs, OUTPUTS)
        if outputs == "logit" and len(self.classes) != 2:
            raise InputError(
                f"a single logit is of two classes and there are {len(self.classes)}: name outputs='logits'"
            )
        if isinstance(module, networks.Network | FromFloats):
            if outputs != "logits" or any(value is not None for value in (mean, std, layer)):
                raise InputError(
                    f"a {type(module).__name__} takes uint8 images: leave mean, std, outputs and layer out"
                )
            self.model = module.eval()
        else:
            options = {"outputs": outputs, "layer": _checked_layer(module, layer), **_checked_spread(mean, std)}
            self.model = FromFloats(module, **options).eval()
        self._looked_at: tuple[int, ...] = ()

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
        recipe: Recipe | None = None,
        seed: int = 0,
        backbone: "networks.Backbone" = "shipped",
        store: Store | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> "Classifier":
        """Train a classifier on labeled images (the paper, section 3.2).

        Args:
            images: The training images, labeled.
            network: Architecture (see `networks.build`), or any module, trained in place, that takes floats of the
                images' shape and returns as many logits as there are classes.
            recipe: How it is trained; `VICTIM` if None.
            seed: Seed of the head's first weights and of the order of the images.
            backbone: Weights of everything but the head to start from; ``"shipped"`` for those that ship with the
                package; None to train from scratch.
            store: Keeps what is trained, so that the same is not trained twice; None to keep nothing.
            device: Where to train, and where the model is afterwards.
            progress: Whether to show a bar.

        Raises:
            InputError: The images have no labels, or network or backbone do not fit.
        """
        if images.labels is None:
            raise InputError(f"{images.name} has no labels: a victim needs them")
        trainer = trainer_of(
            network,
            recipe=recipe or VICTIM,
            seed=seed,
            backbone=backbone,
            store=store,
            device=device,
            progress=progress,
        )
        model = trainer.fit_or_load("victim", images, images.labels, classes=len(images.classes))
        return cls(model, classes=images.classes, image_shape=images.image_shape, name=images.name)

    def logits(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), on the CPU, of uint8 images (n, channels, height, width).

        Raises:
            InputError: The images are of another kind or shape, the module cannot take them, or what it returns is not
                what `outputs` says.
        """
        shape = tuple(images.shape[1:])
        if images.dtype != torch.uint8 or images.ndim != 4 or self.image_shape not in (None, shape):
            wanted = ", ".join(map(str, self.image_shape or ("channels", "height", "width")))
            raise InputError(
                f"images are {images.dtype} of shape {tuple(images.shape)}: uint8 of shape (n, {wanted}) is wanted"
            )
        if self._looked_at != shape and len(images):
            self._look(images[:64])
        return predict(self.model, images)

    def predict(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the label of each image, int64 of shape (n,)."""
        return self.logits(images).argmax(1)

    def _look(self, images: torch.Tensor) -> None:
        """Check what the module returns for the first images of a shape."""
        model = self.model
        outputs = model.outputs if isinstance(model, FromFloats) else "logits"
        try:
            with torch.inference_mode():
                asked = images.to(device_of(model))
                found = model.module(model.normalize(asked)) if isinstance(model, FromFloats) else model(asked)
        except InputError:
            raise
        except Exception as error:  # a module fails in whatever way it happens to
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{self.name} cannot take images of shape {tuple(images.shape[1:])} ({said}): bring them to the size"
                " and channels that it wants"
            ) from None
        if not isinstance(found, torch.Tensor):
            raise InputError(f"{self.name} returned a {type(found).__name__}: wrap it so that it returns a tensor")
        count = 1 if outputs == "logit" else len(self.classes)
        if found.numel() != len(images) * count or (count > 1 and found.shape != (len(images), count)):
            raise InputError(
                f"{self.name} returned {tuple(found.shape)} for {len(images)} images: {outputs} of"
                f" {len(self.classes)} classes have shape ({len(images)}, {count})"
            )
        found = found.float()
        sums_to_one = count > 1 and bool((found >= 0).all()) and bool(((found.sum(1) - 1).abs() < CLOSE).all())
        if outputs == "probabilities" and not sums_to_one:
            raise InputError(f"{self.name} returned rows that are no probabilities: name outputs='logits'")
        if outputs == "logits" and sums_to_one and not self._looked_at:
            warnings.warn(
                f"{self.name} returns rows that sum to 1, as after a softmax: name outputs='probabilities' if it ends"
                " in one, or its answers will be far too flat",
                stacklevel=3,
            )
        self._looked_at = tuple(images.shape[1:])

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        # Copies, since tied weights may not share their memory in the file.
        save_file({name: value.cpu().contiguous().clone() for name, value in self.model.state_dict().items()}, path)

    @classmethod
    def load(cls, path: Path, *, network: str, classes: Sequence[str], **options) -> "Classifier":
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
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"{path} holds no weights of {network!r} with {len(classes)} classes ({said})") from None
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


def trainer_of(
    network: str | nn.Module,
    *,
    recipe: Recipe,
    seed: int,
    backbone: networks.Backbone = None,
    store: Store | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Trainer:
    """Return the trainer of an architecture by name, or of any module that takes floats: (x / 255 - 0.5) / 0.25."""
    options = {"recipe": recipe, "seed": seed, "store": store, "device": device, "progress": progress}
    if isinstance(network, str):
        return Trainer(network=network, backbone=networks.backbone_of(network, backbone), **options)
    ready = isinstance(network, networks.Network | FromFloats)
    module = network if ready else FromFloats(network, mean=(0.5,), std=(0.25,), outputs="logits", layer=None)
    return Trainer(network=module, **options)


VICTIM = Recipe(epochs=12, learning_rate=0.05)
"""How a victim is trained unless said otherwise: as at the scale `drawn`."""


def _checked_spread(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, tuple[float, ...]]:
    try:
        shift = (0.0,) if mean is None else tuple(map(float, mean))
        spread = (1.0,) if std is None else tuple(map(float, std))
        fits = {len(shift), len(spread)} <= {1, 3} and all(map(math.isfinite, shift + spread)) and min(spread) > 0
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(f"mean is {shown(mean)} and std {shown(std)}: one or three numbers each, std above 0")
    return {"mean": shift, "std": spread}


def _checked_layer(module: nn.Module, layer: str | None) -> str | None:
    if layer is not None:
        check_choice("layer", layer, [name for name, _ in module.named_modules() if name])
    return layer
