"""The realistic adversary (the paper, section 6): it has images of the victim's own kind, from a source of its own.

It queries them as Knockoff nets do (`attacks.knockoff`), with `datasets.query_images` of ``"TASK/shifted"`` for a pool.
What is added here is its control.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from extractlib.data.images import ImageSet
from extractlib.errors import InputError, positive
from extractlib.models import networks
from extractlib.models.training import Recipe, fit


def train_alone(
    images: ImageSet,
    *,
    budget: int,
    network: str,
    recipe: Recipe,
    seed: int,
    backbone: Mapping[str, torch.Tensor] | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> nn.Module:
    """Train a model on the adversary's own images with their true labels, without any API.

    What it lacks of a surrogate of the same images is what asking the API was worth, beside the work of labelling.

    Args:
        images: The adversary's images, labelled.
        budget: How many of them, drawn at random, are used.
        network: Architecture (see `networks.build`).
        recipe: How it is trained.
        seed: Seed of the draw, of the head's first weights and of the training.
        backbone: Pre-trained weights to start from; None to train from scratch.
        device: Where to train.
        progress: Whether to show a bar.

    Raises:
        InputError: The images have no labels, or there are fewer than `budget`.
    """
    if images.labels is None:
        raise InputError(f"{images.name} has no labels: the control needs them")
    if positive("budget", budget) > len(images):
        raise InputError(f"budget is {budget} and {images.name} holds {len(images)} images: use at most that many")
    chosen = torch.from_numpy(np.random.default_rng([seed, *b"alone"]).choice(len(images), budget, replace=False))
    model = networks.build(network, classes=len(images.classes), seed=seed, backbone=backbone)
    return fit(model, images.images[chosen], images.labels[chosen], recipe, seed=seed, device=device, progress=progress)
