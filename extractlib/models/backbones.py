"""Pre-training: the public weights that victims and surrogates both start from.

In the paper these are ImageNet's (section 3.2), and so they are in its profile; elsewhere they come from the labelled
part of the pool that is kept for it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.data.sources import Profile, pool_parts
from extractlib.errors import InputError
from extractlib.metrics import accuracy
from extractlib.models import devices as acceleration
from extractlib.models import networks
from extractlib.models.training import Recipe, fit, predict
from extractlib.store import Store
from extractlib.versions import versions

SEED = 2020
"""Seed of the shipped backbone's images, its first weights and the order of its training."""


def pretrain(
    images: ImageSet, *, network: str, recipe: Recipe, seed: int, device: str = "cpu", progress: bool = False
) -> torch.nn.Module:
    """Return a network trained from scratch to classify the labelled `images`."""
    model = networks.build(network, classes=len(images.classes), seed=seed)
    return fit(model, images.images, images.labels, recipe, seed=seed, device=device, progress=progress)


def backbone_for(
    profile: Profile, pretraining: ImageSet | None, *, network: str, store: Store, device: str, progress: bool = False
) -> dict[str, torch.Tensor]:
    """Return the state of the backbone that a profile's victims and surrogates start from.

    Args:
        profile: Says whether the backbone ships with the package, and its recipe where it does not.
        pretraining: The pool's labelled part for pre-training; None for a drawn pool, whose part is drawn when needed.
        network: Architecture.
        store: Keeps what is trained.
        device: Where it is trained.
        progress: Whether to show a bar.
    """
    if profile.shipped:
        return networks.shipped_backbone(network)
    if profile.imagenet:
        return networks.imagenet_backbone(network)
    if pretraining is None:
        pretraining = _drawn_pretraining(profile, store)
    model = _pretrained(profile, pretraining, network=network, store=store, device=device, progress=progress)
    return networks.backbone_state(model)


def _pretrained(
    profile: Profile, pretraining: ImageSet, *, network: str, store: Store, device: str, progress: bool
) -> torch.nn.Module:
    """Return the network with its head, trained once and then read from the store."""
    key = {
        "images": pretraining.fingerprint,
        "network": network,
        "recipe": asdict(profile.backbone),
        "seed": SEED,
        "versions": versions("network", "train", "augment", "backbone"),
    }

    def train() -> torch.nn.Module:
        return pretrain(
            pretraining, network=network, recipe=profile.backbone, seed=SEED, device=device, progress=progress
        )

    # Processes that train together must not wait for the one that holds the store's lock: all train, then one writes.
    rank, processes = acceleration.ranks()
    trained = train() if processes > 1 else None
    if rank > 0:
        return trained

    def make(folder: Path) -> None:
        state = (trained or train()).state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "backbone.safetensors")

    model = networks.build(network, classes=len(pretraining.classes), seed=SEED)
    model.load_state_dict(load_file(store.get("backbone", key, make) / "backbone.safetensors"))
    return model.eval()


def make_weights(
    profile: Profile,
    folder: Path,
    *,
    network: str,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Mapping:
    """Pre-train a profile's backbone, and write its recipe and figures into `folder`.

    The weights are written beside them if they ship with the package; else they stay in the store. Every network gets
    the same images and the same recipe, so that none has the advantage.

    Returns:
        What is written: network, recipe, images, seed and accuracy on the pool's validation part.

    Raises:
        InputError: The profile's backbones are ImageNet's, or its images are not at hand.
    """
    if profile.imagenet:
        raise InputError(f"profile {profile.name!r} pre-trains nothing: torchvision downloads its ImageNet weights")
    options = {"network": network, "device": device, "progress": progress}
    if profile.pool in drawn.POOLS:
        size = profile.pool_sizes[profile.pool]["validation"]
        images = _drawn_pretraining(profile, store)
        held_out = drawn.draw(profile.pool, part="validation", size=size, seed=SEED, store=store)
    else:
        parts = pool_parts(profile.pool, profile, seed=0, store=store, folders=folders, labelled=True)
        images, held_out = parts["pretraining"], parts["validation"]
    if profile.shipped:
        model = pretrain(images, recipe=profile.backbone, seed=SEED, **options)
    else:
        model = _pretrained(profile, images, store=store, **options)
    card = {
        "network": network,
        "recipe": asdict(profile.backbone),
        "pool": profile.pool,
        "images": len(images),
        "classes": len(images.classes),
        "seed": SEED,
        "fingerprint": images.fingerprint,
        "validation_accuracy": round(accuracy(predict(model, held_out.images).argmax(1), held_out.labels), 4),
        "versions": {"torch": torch.__version__},
    }
    if acceleration.ranks()[0] == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if profile.shipped:
            save_file(networks.backbone_state(model), folder / f"{network}.safetensors")
        (folder / f"{network}.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def _drawn_pretraining(profile: Profile, store: Store) -> ImageSet:
    size = profile.pool_sizes[profile.pool]["pretraining"]
    return drawn.draw(profile.pool, part="pretraining", size=size, seed=SEED, store=store)
