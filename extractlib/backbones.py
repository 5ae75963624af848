"""Pre-training: the public weights that victims and surrogates both start from.

In the paper these are ImageNet's (section 3.2); here they come from the labelled part of the pool that is kept for
it, which no attack queries with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from extractlib import drawn, networks
from extractlib.images import ImageSet
from extractlib.metrics import accuracy
from extractlib.profiles import Profile, Recipe
from extractlib.store import Store, code_hash
from extractlib.training import fit, predict

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
    if pretraining is None:
        pretraining = _drawn_pretraining(profile)
    key = {
        "images": pretraining.fingerprint,
        "network": network,
        "recipe": asdict(profile.backbone),
        "seed": SEED,
        "code": code_hash("networks", "training", "backbones"),
    }

    def make(folder: Path) -> None:
        model = pretrain(
            pretraining, network=network, recipe=profile.backbone, seed=SEED, device=device, progress=progress
        )
        save_file(networks.backbone_state(model), folder / "backbone.safetensors")

    return load_file(store.get("backbone", key, make) / "backbone.safetensors")


def make_weights(
    profile: Profile, folder: Path, *, network: str, device: str = "cpu", progress: bool = True
) -> Mapping:
    """Pre-train a backbone that ships with the package, and write it and its recipe into `folder`.

    Every network gets the same images and the same recipe, so that none has the advantage.

    Returns:
        What is written beside the weights: network, recipe, images, seed and accuracy on the pool's validation part.
    """
    images = _drawn_pretraining(profile)
    model = pretrain(images, network=network, recipe=profile.backbone, seed=SEED, device=device, progress=progress)
    held_out = drawn.draw(
        profile.pool, part="validation", size=profile.pool_sizes[profile.pool]["validation"], seed=SEED
    )
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
    folder.mkdir(parents=True, exist_ok=True)
    save_file(networks.backbone_state(model), folder / f"{network}.safetensors")
    (folder / f"{network}.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def _drawn_pretraining(profile: Profile) -> ImageSet:
    size = profile.pool_sizes[profile.pool]["pretraining"]
    return drawn.draw(profile.pool, part="pretraining", size=size, seed=SEED)
