"""The realistic adversary (the paper, section 6): it has images of the victim's kind, but from another source.

It queries them as Knockoff nets do (`attacks.knockoff`), with a task's shifted source as the pool. This module adds its
control.
"""

import numpy as np
import torch
from torch import nn

from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.errors import InputError, check_positive
from extractlib.models.fitted import Trainer
from extractlib.versions import versions


def train_alone(images: ImageSet, trainer: Trainer, *, budget: int) -> nn.Module:
    """Train a model on the adversary's own images with their true labels, without any API.

    Its gap to a surrogate trained on the same images is what querying the API was worth, besides the work of labeling.

    Args:
        images: The adversary's images, labeled, as `images` returns them.
        trainer: How the model is made; its seed also draws the images.
        budget: How many of them, drawn at random, are used.

    Returns:
        A module that takes uint8 images and returns logits, in evaluation mode. `evaluate` takes it as
        ``xl.Surrogate(module, classes=images.classes)``.

    Raises:
        InputError: The images have no labels, or there are fewer than `budget`.
    """
    images = as_images(images)
    labels = images.known_labels("the control needs them")
    budget = check_positive("budget", budget)
    if budget > len(images):
        raise InputError(f"budget is {budget}, but {images.name} holds {len(images)} images: use at most that many")
    generator = np.random.default_rng([trainer.seed, *b"alone"])
    drawn = torch.from_numpy(generator.choice(len(images), budget, replace=False))
    chosen, key = images.subset(drawn), versions("control")
    return trainer.fit_or_load("control", chosen, labels[drawn], classes=len(images.classes), key=key)
