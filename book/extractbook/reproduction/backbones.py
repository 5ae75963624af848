"""Pre-training: the public weights that victims and surrogates both start from, and the models that ship.

In the paper and at its scale, these weights are ImageNet's (section 3.2); at other scales they come from pre-training
on a labeled part of the pool that is reserved for it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from extractbook.reproduction.scales import Scale
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.data.sources import Loader
from extractlib.errors import InputError, check_choice
from extractlib.metrics import accuracy
from extractlib.models import networks
from extractlib.models.fitted import Trainer
from extractlib.models.training import predict
from extractlib.store import Store
from extractlib.versions import versions

SEED = 2020
"""Seed of the images that backbones are trained on."""

INITIAL: Mapping[str, int] = {"A": SEED, "B": 2021}
"""Seed of the weights before training and of the training order, by initial weights (see `networks.INITIAL`)."""


def backbone_for(
    scale: Scale,
    pretraining: ImageSet | None,
    *,
    network: str,
    initial: str = "A",
    store: Store,
    device: str,
    progress: bool = False,
) -> Mapping[str, torch.Tensor]:
    """Return the state of the backbone that a scale's victims and surrogates start from.

    Args:
        scale: Says whether the backbone ships with the package, and gives its recipe if it does not.
        pretraining: The pool's labeled part for pre-training; None for a drawn pool, which draws it when needed.
        network: Architecture.
        initial: Which of the initial weights, one of `INITIAL`.
        store: Keeps the trained backbone.
        device: Where to train.
        progress: Whether to show a progress bar.

    Raises:
        InputError: There are no such initial weights at this scale.
    """
    seed = seed_of(scale, initial)
    if scale.shipped:
        return networks.shipped_backbone(network, initial=initial)
    if scale.imagenet:
        return networks.imagenet_backbone(network)
    images = drawn_pretraining(scale, store) if pretraining is None else pretraining
    trainer = trainer_of(scale, network, seed=seed, store=store, device=device, progress=progress)
    return networks.backbone_state(pretrain(images, trainer))


def seed_of(scale: Scale, initial: str) -> int:
    """Return the seed of a scale's initial weights.

    Raises:
        InputError: There are no such weights; ImageNet's are a single set, unless the scale names another network's.
    """
    one = scale.imagenet and not scale.other_weights
    return INITIAL[check_choice("initial weights", initial, ("A",) if one else networks.INITIAL)]


def pretrain(images: ImageSet, trainer: Trainer) -> torch.nn.Module:
    """Return a network trained from scratch to classify labeled images, trained once and then read from the store.

    Raises:
        InputError: The images have no labels, or all have the same.
    """
    labels = images.known_labels("pre-training needs them, so give class folders")
    if len(images.classes) < 2:
        raise InputError(f"{images.name} has images of one class only: pre-training needs at least two class folders")
    key = {"versions of pre-training": versions("backbone")}
    return trainer.fit_or_load("backbone", images, labels, classes=len(images.classes), key=key)


def trainer_of(
    scale: Scale, network: str, *, seed: int = INITIAL["A"], store: Store | None, device: str, progress: bool
) -> Trainer:
    """Return the trainer of a scale's backbone."""
    return Trainer(network=network, recipe=scale.backbone, seed=seed, store=store, device=device, progress=progress)


def drawn_pretraining(scale: Scale, store: Store | None) -> ImageSet:
    """Return the part of a drawn pool that is reserved for pre-training."""
    size = scale.pool_sizes[scale.pool]["pretraining"]
    return drawn.draw(scale.pool, part="pretraining", size=size, seed=SEED, store=store)


def make_weights(
    scale: Scale,
    folder: Path,
    loader: Loader,
    *,
    network: str,
    initial: str = "A",
    device: str = "cpu",
    progress: bool = True,
) -> Mapping:
    """Pre-train a scale's backbone, and write its card into `folder`.

    The weights are written next to the card if they ship with the package; otherwise they stay in the store. Every
    network gets the same images and the same recipe, so that none has an advantage.

    Returns:
        The card: network, initial weights, recipe, images, seed and accuracy on the pool's validation part,
        which is the same for all initial weights.

    Raises:
        InputError: The scale's backbones are ImageNet's, or its images are not available.
    """
    if scale.imagenet:
        raise InputError(f"scale {scale.name!r} pre-trains nothing: torchvision downloads its ImageNet weights")
    seed = seed_of(scale, initial)
    if scale.pool in drawn.POOLS:
        images = drawn_pretraining(scale, loader.store)
        size = scale.pool_sizes[scale.pool]["validation"]
        held_out = drawn.draw(scale.pool, part="validation", size=size, seed=SEED, store=loader.store)
    else:
        parts = loader.pool(scale.pool, seed=0, labeled=True)
        images, held_out = parts["pretraining"], parts["validation"]
    store = None if scale.shipped else loader.store
    trainer = trainer_of(scale, network, seed=seed, store=store, device=device, progress=progress)
    model = pretrain(images, trainer)
    card = {
        "network": network,
        "initial": initial,
        "recipe": asdict(scale.backbone),
        "pool": scale.pool,
        "images": len(images),
        "classes": len(images.classes),
        "seed": seed,
        "fingerprint": images.fingerprint,
        "validation_accuracy": round(accuracy(predict(model, held_out.images).argmax(1), held_out.known_labels()), 4),
        "versions": {"torch": torch.__version__},
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = networks.backbone_name(network, initial)
    if scale.shipped:
        save_file(networks.backbone_state(model), folder / f"{name}.safetensors")
    write_card(folder / f"{name}.json", card)
    return card


def write_card(path: Path, card: Mapping) -> None:
    """Write a model's card, which is stored next to its weights."""
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
