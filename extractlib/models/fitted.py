"""Fitted models: trained once, then read from the store."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from extractlib.data.images import ImageSet, Rows, check_images
from extractlib.errors import InputError, check_seed, described, keep
from extractlib.models import devices, networks
from extractlib.models.training import Recipe, check_trainable, fit, predict, try_step
from extractlib.store import Store, digest
from extractlib.versions import versions

FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a model is made: victim, backbone, detector and surrogate alike.

    Attributes:
        network: Its architecture, by name; or any module (a copy of it is trained). A module that is not a
            `networks.Network` gets floats, (x / 255 - 0.5) / 0.25 for pixels x.
        recipe: How it is trained.
        seed: Seed of the first weights and of the training.
        salt: Word that makes the first weights another draw of the same seed: without it, a victim and a surrogate with
            the same seed, architecture and number of classes start from the same head.
        backbone: Weights of everything but the head that a named network starts from, or a word for them (see
            `networks.backbone_of`); None to train from scratch.
        store: Keeps what is trained; None to keep nothing.
        device: Where to train, and where the model is afterward.
        progress: Whether to show a bar.
        activations: Keeps the outputs of frozen layers (see `networks.LiteNet`); None to compute them each time.
    """

    network: str | nn.Module
    recipe: Recipe
    seed: int
    salt: str = ""
    backbone: networks.Backbone = None
    store: Store | None = None
    device: str = "cpu"
    progress: bool = False
    activations: Store | None = None

    def __post_init__(self) -> None:
        keep(self, seed=check_seed(self.seed))

    def build(self, classes: int) -> networks.Network:
        """Return the network before training.

        Raises:
            InputError: It is a module that cannot be copied, or the network or backbone does not fit.
        """
        if isinstance(self.network, nn.Module):
            # A copy, so that two attacks with the same module do not train each other's surrogate.
            try:
                module = copy.deepcopy(self.network)
            except Exception as error:  # a module can hold anything
                raise InputError(
                    f"the module cannot be copied ({described(error)}): give one that copy.deepcopy takes, such as"
                    " without a lock or a tensor that was computed from its weights"
                ) from error
            if isinstance(module, networks.Network):
                return module
            return networks.FromFloats(module, mean=(0.5,), std=(0.25,))
        seed = int(digest(self.salt, str(self.seed))[:15], 16) if self.salt else self.seed
        model = networks.build(self.network, classes=classes, seed=seed, backbone=self._start())
        if isinstance(model, networks.LiteNet):
            model.keep_in(self.activations)
        return model

    def check(self, images: ImageSet, *, classes: int, who: str) -> None:
        """Reject a network that cannot be made or trained, or cannot classify such images, before any work.

        It is tried on a copy, for one step too; the random draws of its layers are undone.

        Args:
            images: What it will be trained on.
            classes: Number of classes.
            who: What it is called in messages, for example ``"surrogate"``.

        Raises:
            InputError: It does not fit.
        """
        check_images(images.images, at_least=1)
        place, model = devices.resolve(self.device), self.build(classes)
        check_trainable(model, self.recipe)
        learner, one = copy.deepcopy(model), images.images[:1]
        try:
            returned = tuple(predict(model.to(place), one).shape), tuple(try_step(learner.to(place), one).shape)
        except InputError:
            raise
        except Exception as error:  # a module can fail in any way
            raise InputError(
                f"the {who} cannot take images of shape {images.image_shape} ({described(error)}): give images of the"
                " size and channels that it expects, or mend the module"
            ) from error
        for count, (found, what) in enumerate(zip(returned, ("1 image", "2 images in training"), strict=True), start=1):
            if found != (count, classes):
                raise InputError(f"the {who} returned {found} for {what}: expected logits of shape {(count, classes)}")

    def fit(self, images: torch.Tensor | Rows, targets: torch.Tensor, *, classes: int) -> networks.Network:
        """Return the network, trained (see `training.fit`)."""
        model, recipe = self.build(classes), self.recipe
        return fit(model, images, targets, recipe, seed=self.seed, device=self.device, progress=self.progress)

    def fit_or_load(
        self, kind: str, images: ImageSet, targets: torch.Tensor, *, classes: int, key: Mapping[str, Any] | None = None
    ) -> networks.Network:
        """Return the network, trained now or read from the store.

        Args:
            kind: What it is, for example ``"victim"``: a folder of the store.
            images: What it is trained on.
            targets: Labels or probabilities (see `training.fit`).
            classes: Number of classes.
            key: What else determines it, JSON-ready: for a surrogate, the transfer set and its versions.

        Raises:
            InputError: As for `training.fit`, or your own module would have to be kept.
        """
        if self.store is None:
            return self.fit(images.images, targets, classes=classes)
        if isinstance(self.network, nn.Module):
            raise InputError("your own module is not kept in a store: give store=None, or a network's name")

        def make(folder: Path) -> None:
            save_file(networks.trained_state(self.fit(images.images, targets, classes=classes)), folder / FILE)

        model = self.build(classes)
        found = self.store.get(kind, self._key(images, targets, classes) | dict(key or {}), make)
        model.load_state_dict(model.state_dict() | load_file(found / FILE))
        return model.to(devices.resolve(self.device)).eval()

    def _start(self) -> Mapping[str, torch.Tensor] | None:
        """Return the weights that a named network starts from."""
        return networks.backbone_of(self.network, self.backbone) if isinstance(self.network, str) else None

    def _key(self, images: ImageSet, targets: torch.Tensor, classes: int) -> dict[str, Any]:
        start = self._start()
        return {
            "images": images.fingerprint,
            "targets": digest(targets.contiguous().numpy().tobytes()),
            "classes": classes,
            "network": self.network,
            "recipe": _stated(self.recipe),
            "seed": self.seed,
            "salt": self.salt,
            "backbone": None if start is None else networks.fingerprint_of(start),
            "versions": versions("network", "train", "augment"),
        }


def _stated(recipe: Recipe) -> dict[str, object]:
    """Return a recipe's fields, those added later only if not at their default, so that older keys stay the same."""
    later = {"optimizer": "sgd", "class_weights": False}
    return {name: value for name, value in asdict(recipe).items() if later.get(name, ...) != value}
