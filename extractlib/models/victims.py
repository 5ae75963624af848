"""Victims: classifiers trained on a task, the models that an attacker wants."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import Recipe, fit, predict
from extractlib.store import Store, fingerprint
from extractlib.versions import versions


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained classifier.

    Attributes:
        name: What it was trained on.
        model: Takes uint8 images and returns logits; in evaluation mode.
        classes: Name of each class.
        fingerprint: Digest of all that made it: images, network, recipe, seed, backbone and versions.
        image_shape: (3, height, width) of the images it was trained on.
    """

    name: str
    model: nn.Module
    classes: tuple[str, ...]
    fingerprint: str
    image_shape: tuple[int, int, int]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, 3, height, width)."""
        return predict(self.model, images)


def train_victim(
    task: ImageSet,
    *,
    network: str,
    recipe: Recipe,
    seed: int,
    store: Store,
    backbone: Mapping[str, torch.Tensor] | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> Victim:
    """Train a victim, or read the one that was trained before with the same settings (the paper, section 3.2).

    Args:
        task: The victim's labelled training part.
        network: Architecture (see `networks.build`).
        recipe: How it is trained.
        seed: Seed of the head's first weights and of the order of the images.
        store: Keeps trained victims; two processes that ask for the same one train it once.
        backbone: Pre-trained weights to start from; None to train from scratch.
        device: Where to train.
        progress: Whether to show a bar.

    Raises:
        InputError: The task has no labels, or network or backbone do not fit.
    """
    if task.labels is None:
        raise InputError(f"{task.name} has no labels: a victim needs them")
    key = {
        "task": task.fingerprint,
        "classes": list(task.classes),
        "network": network,
        "recipe": asdict(recipe),
        "seed": seed,
        "backbone": None if backbone is None else networks.fingerprint_of(backbone),
        "versions": versions("network", "train", "augment"),
    }
    model = networks.build(network, classes=len(task.classes), seed=seed, backbone=backbone)

    def make(folder: Path) -> None:
        fit(model, task.images, task.labels, recipe, seed=seed, device=device, progress=progress)
        save_file(_contiguous(model.state_dict()), folder / "victim.safetensors")

    folder = store.get("victim", key, make)
    model.load_state_dict(load_file(folder / "victim.safetensors"))
    shape = tuple(task.images.shape[1:])
    return Victim(task.name, model.eval(), task.classes, fingerprint(key), shape)


def _contiguous(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in state.items()}
