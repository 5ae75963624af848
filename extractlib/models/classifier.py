"""Classifiers: any module with its class names, on the device where it lives.

A victim and a surrogate are both a `Classifier`; the difference is who holds them.
"""

import copy
import json
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from extractlib.data.images import ImageSet, Rows, check_images, check_shape
from extractlib.data.images import images as as_images
from extractlib.errors import (
    InputError,
    check_choice,
    check_classes,
    check_name,
    check_output,
    check_positive,
    described,
    one_line,
    shown,
)
from extractlib.models import devices, networks
from extractlib.models.attributes import attributes_of, checksums_of
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.store import Store, digest
from extractlib.tensors import CLOSE, is_plain

ENOUGH = 8
"""How many single logits, all from 0 to 1, cannot be a coincidence."""

VICTIM = Recipe(epochs=12, learning_rate=0.05)
"""How a victim is trained unless specified otherwise: as at the scale `drawn`."""

SAID, USE = "extractlib", ("mean", "std", "outputs", "layer")
"""Key under which a file of weights describes them, and what it says about your own module."""

SHIPPED = Path(__file__).parent / "weights" / "victims"
"""The victims that ship with the package."""


class OtherOrder(InputError):
    """A file has the named classes in another order."""


class Classifier:
    """A trained classifier: the model behind an API, or a copy of one.

    Args:
        module: One of the package's networks, which take uint8 images, or any module that takes floats. It is not
            copied, and is put into evaluation mode: to go on training it yourself, call ``module.train()`` first.
        classes: Name of each class.
        mean, std: What the pixels in [0, 1] are shifted and divided by for a module that takes floats: a number per
            channel, or one for all. Without them, it gets the pixels in [0, 1].
        image_shape: (channels, height, width) of the images it takes; any if None.
        outputs: What a module that takes floats returns: ``"logits"``, ``"probabilities"`` (after a softmax),
            or, with two classes, only the second one's ``"logit"`` or ``"probability"`` (after a sigmoid). Checked
            whenever it answers.
        layer: Name of the inner layer whose input is what `MahalanobisDetector` looks at, such as ``"fc"`` in
            torchvision's ResNets; `LayeredMahalanobisDetector` takes the names of several, as ``layers``.
        name: What to call it.
        fingerprint: Digest of everything that determines its answers; by default, that of the weights as they are
            now, the layers and their plain attributes, the class names and how the module is used. A module without
            weights, or with an attribute that cannot be digested, such as an open file, may answer from anywhere, so by
            default its fingerprint is new each time: give one to resume an attack on it. A given one also saves
            summing the weights at each query, to see whether they have changed.

    Attributes:
        model: Takes uint8 images and returns logits; in evaluation mode, on the device where the module was.

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
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        outputs: str = "logits",
        layer: str | None = None,
        name: str = "model",
        fingerprint: str | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise InputError(f"the module is a {type(module).__name__}: expected a torch.nn.Module")
        self.name, self.classes = name, check_classes(classes)
        self.image_shape = None if image_shape is None else check_shape(image_shape)
        self._given = None if fingerprint is None else check_name("fingerprint", fingerprint)
        self._digested: tuple[object, str] | None = None
        self._unknown = uuid.uuid4().hex
        if outputs in ("logit", "probability") and len(self.classes) != 2:
            raise InputError(
                f"a single {outputs} is for two classes, but there are {len(self.classes)}: use outputs='logits'"
            )
        if not isinstance(module, networks.Network):
            module = networks.FromFloats(module, mean=mean, std=std, outputs=outputs, layer=layer)
        elif outputs != "logits" or any(value is not None for value in (mean, std, layer)):
            raise InputError(f"a {type(module).__name__} takes uint8 images: leave out mean, std, outputs and layer")
        self.model = module.eval()

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines the answers; computed anew when weights or attributes have changed."""
        if self._given is not None:
            return self._given
        plain = attributes_of(self.model, unknown=self._unknown)
        state = checksums_of(self.model), plain
        if self._digested is None or self._digested[0] != state:
            state_dict = {name: one for name, one in self.model.state_dict().items() if is_plain(one)}
            weights = networks.fingerprint_of(state_dict)
            found = digest(weights, repr(self.classes), repr(self.model), *([repr(plain)] if plain else []))
            self._digested = state, found
        return self._digested[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.classes)} classes, {self.fingerprint[:12]})"

    @classmethod
    def train(
        cls,
        images: ImageSet,
        *,
        network: "str | nn.Module | Classifier" = "resnet",
        recipe: Recipe = VICTIM,
        seed: int = 0,
        backbone: networks.Backbone = "shipped",
        store: Store | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Self:
        """Train a classifier on labeled images (the paper, section 3.2).

        Args:
            images: The training images, labeled, as `images` returns them.
            network: Architecture (see `networks.build`), or any module that takes floats of the images' shape and
                returns as many logits as there are classes, or a `Classifier` of such a module; a copy is trained.
            recipe: How it is trained.
            seed: Seed of the head's first weights and of the order of the images.
            backbone: Weights of everything but the head to start from; ``"shipped"`` for those that ship with the
                package, ``"imagenet"`` for ImageNet's; None to train from scratch.
            store: Keeps what is trained, so that nothing is trained twice; None to keep nothing.
            device: Where to train, and where the model is afterward.
            progress: Whether to show a bar.

        Raises:
            InputError: The images have no labels, or the network or backbone does not fit.
        """
        images = as_images(images)
        labels = images.known_labels("a victim needs them")
        trainer = Trainer(
            network=network.model if isinstance(network, Classifier) else network,
            recipe=recipe,
            seed=seed,
            backbone=backbone,
            store=store,
            device=device,
            progress=progress,
            activations=store,
        )
        trainer.check(images, classes=len(images.classes), who="network")
        model = trainer.fit_or_load("victim", images, labels, classes=len(images.classes))
        return cls(model, classes=images.classes, image_shape=images.image_shape, name=images.name)

    def to(self, device: str | torch.device) -> Self:
        """Move the model, in place, and return the classifier; its answers are on the CPU and its fingerprint stays.

        Args:
            device: ``"cpu"``, ``"cuda"`` or ``"cuda:NUMBER"``.

        Raises:
            InputError: There is no such device.

        Examples:
            >>> import extractlib as xl
            >>> victim = xl.load_victim("signs").to("cpu")
            >>> next(victim.model.parameters()).device
            device(type='cpu')
        """
        self.model.to(devices.resolve(device))
        return self

    def logits(self, images: torch.Tensor | Rows, *, batch_size: int = 512) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), on the CPU, of uint8 images (n, channels, height, width).

        Args:
            images: The images.
            batch_size: Images at a time, at least 1.

        Raises:
            InputError: The images are of another kind or shape, the module cannot take them, or it does not return what
                `outputs` says.
        """
        check_images(images, self.image_shape)
        count, classes = len(images), len(self.classes)
        try:
            logits = predict(self.model, images, batch_size=check_positive("batch size", batch_size))
        except InputError:
            raise
        except Exception as error:  # a module can fail in any way
            raise InputError(
                f"{self.name} failed on images of shape {tuple(images.shape[1:])} ({described(error)}): give images of"
                " the size and channels that it and its mean and std expect, or mend the module"
            ) from error
        if logits.shape != (count, classes):
            one = getattr(self.model, "outputs", "logits") in ("logit", "probability")
            rows = not one and logits.ndim == 2 and len(logits) == count and logits.shape[1] > 1
            remedy = f"give classes=… {logits.shape[1]} names" if rows else "say what it returns with outputs=…"
            raise InputError(
                f"{self.name} returned logits of shape {tuple(logits.shape)} for {count} images: expected"
                f" ({count}, {classes}) with {classes} classes; {remedy}"
            )
        self._check_outputs(logits)
        return logits

    def predict(self, images: torch.Tensor | Rows, *, batch_size: int = 512) -> torch.Tensor:
        """Return the label of each image, int64 of shape (n,).

        Raises:
            InputError: As for `logits`, or a logit is NaN or infinite.
        """
        return labels_of(self.logits(images, batch_size=batch_size), who=self.name)

    def _check_outputs(self, logits: torch.Tensor) -> None:
        """Check that a module returns probabilities if it is declared to, and only then."""
        outputs = getattr(self.model, "outputs", "logits")
        if outputs in ("probability", "probabilities") and not bool((logits.logsumexp(1).abs() < CLOSE).all()):
            raise InputError(f"{self.name} returned rows that are not probabilities: use outputs='logits'")
        if outputs == "logit" and len(logits) >= ENOUGH and bool(((logits[:, 1] >= 0) & (logits[:, 1] <= 1)).all()):
            warnings.warn(
                f"{self.name} returns only numbers from 0 to 1, as after a sigmoid: use outputs='probability' if it"
                " ends in one",
                stacklevel=3,
            )
        sums_to_one = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < CLOSE).all())
        if outputs == "logits" and len(logits) and sums_to_one:
            warnings.warn(
                f"{self.name} returns rows that sum to 1, as after a softmax: use outputs='probabilities' if it ends"
                " in one, or its answers will be far too flat",
                stacklevel=3,
            )

    def as_module(self) -> nn.Module:
        """Return a module with gradients, as other libraries expect it.

        It takes floats in [0, 1] of shape (n, channels, height, width) and returns logits, float of shape (n, classes).
        It shares the model's weights, and both are then in evaluation mode. For foolbox it is
        ``PyTorchModel(module, bounds=(0, 1))``, for ART ``PyTorchClassifier(module, …, clip_values=(0, 1))``.

        Examples:
            >>> import extractlib as xl
            >>> module = xl.load_victim("signs").as_module()
            >>> images = xl.load("signs").test.images[:2].float() / 255
            >>> module(images.requires_grad_()).sum().backward()
            >>> images.grad.shape
            torch.Size([2, 3, 32, 32])
        """
        return _OnFloats(self.model).eval()

    def save(self, path: Path | str) -> None:
        """Write the weights as safetensors, with name, class names, a given fingerprint, and how a module is used.

        Raises:
            InputError: The file cannot be written.
        """
        said = {"classes": list(self.classes), "image_shape": self.image_shape, "name": self.name}
        said |= {} if self._given is None else {"fingerprint": self._given}
        if isinstance(self.model, networks.FromFloats):
            said |= {name: getattr(self.model, name) for name in USE}
        try:
            save_file(networks.state_of(self.model), check_output(Path(path)), metadata={SAID: json.dumps(said)})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({one_line(error)}): free up space, or name another file"
            ) from None

    @classmethod
    def load(
        cls, path: Path | str, *, network: str | nn.Module, classes: Sequence[str] | None = None, **options: Any
    ) -> Self:
        """Return the classifier whose weights `save` wrote.

        Args:
            path: The weights, as safetensors.
            network: Architecture (see `networks.build`); for your own module, another instance, which gets them.
            classes: Name of each class; those that the file names if None. Names none of which are in the file are
                new names for its classes, in their order.
            options: Further arguments of the class.

        Raises:
            InputError: The file is missing or damaged, is of another network, or has the given classes only in part or
                in another order.
        """
        path = Path(path)
        if not path.is_file():
            reason = "is not a regular file" if path.exists() else "does not exist"
            raise InputError(f"{path} {reason}: name a file of weights, as save writes it")
        classes = None if classes is None else check_classes(classes)
        what = f"weights of {_name_of(network)}" + ("" if classes is None else f" with {len(classes)} classes")
        try:
            with safe_open(path, "pt") as file:
                said = json.loads((file.metadata() or {}).get(SAID, "{}"))
            names = _classes_of(path, said.get("classes"), classes)
            if isinstance(network, nn.Module):
                options = {name: said[name] for name in USE if name in said} | options
            kept = ("image_shape", "name", "fingerprint")
            options = {name: said[name] for name in kept if said.get(name)} | options
            if isinstance(network, nn.Module):
                found = cls(copy.deepcopy(network), classes=names, **options)
            else:
                found = cls(networks.build(network, classes=len(names), seed=0), classes=names, **options)
            what = f"weights of {_name_of(network)} with {len(names)} classes"
            found.model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} holds no {what} ({one_line(error)})") from None
        return found


def _classes_of(path: Path, named: Sequence[str] | None, given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the name of each class of weights in a file.

    Args:
        path: The file.
        named: The names in it, if it has any.
        given: The names that the caller gives, if any.

    Raises:
        InputError: There are none, or the given ones are not names for the file's classes.
    """
    if named is None and given is None:
        raise InputError(f"{path} names no classes: give classes=…")
    if named is None or given is None or list(given) == list(named):
        return tuple(given or named or ())
    if set(given) == set(named):
        raise OtherOrder(f"{path} has the classes in another order, {shown(named)}: leave out classes=…")
    if set(given) & set(named):
        raise InputError(
            f"{path} has the classes {shown(named)}, which agree only in part with {shown(given)}: leave out"
            " classes=…, or rename all"
        )
    if len(given) != len(named):
        raise InputError(
            f"{path} has {len(named)} classes, {shown(named)}, but {len(given)} are given, {shown(given)}: give a name"
            " for each of its classes, or leave out classes=…"
        )
    return given


def labels_of(logits: torch.Tensor, *, who: str) -> torch.Tensor:
    """Return the label of each image, int64 of shape (n,), for logits of shape (n, classes).

    Raises:
        InputError: A logit is NaN or infinite.
    """
    if not bool(logits.isfinite().all()):
        raise InputError(f"{who} returned NaN or infinite logits: use float32 if it computes in half precision")
    return logits.argmax(1)


class _OnFloats(nn.Module):
    """A model that takes uint8 images, wrapped to take floats in [0, 1]."""

    def __init__(self, model: networks.Network):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.classify(self.model.normalize(images * 255))
        return logits


def _name_of(network: str | nn.Module) -> str:
    return repr(network) if isinstance(network, str) else f"a {type(network).__name__}"


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
    """The copy that an attack produces (see `Classifier`).

    Examples:
        >>> import extractlib as xl
        >>> api = xl.PredictionAPI(xl.load_victim("signs"), budget=50)
        >>> copy = xl.attacks.Knockoff(budget=50)(api, xl.load("atlas").queries, progress=False)
        >>> isinstance(copy, xl.Surrogate), copy.predict(xl.load("signs").test.images[:5]).shape
        (True, torch.Size([5]))
    """


def load_victim(name: str) -> Victim:
    """Return the shipped victim of a drawn task, trained at the scale `drawn` with seed 0.

    It is on the CPU; ``load_victim("signs").to("cuda")`` answers on a GPU.

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
