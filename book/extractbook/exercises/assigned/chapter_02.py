"""Copies that were moved by a few pixels."""

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

MOVED = 2


def pictures(seed: int) -> list[tuple]:
    """Return training and test images, uint8 of shape (60, 3, 16, 16)."""
    return [images for images, _ in _drawn(seed)]


def _drawn(seed: int) -> list[tuple]:
    """Return the images and which test images are copies."""
    generator = torch.Generator().manual_seed(seed)

    def patches(count: int) -> torch.Tensor:
        coarse = torch.rand(count, 3, 6, 6, generator=generator)
        return 60 + 120 * F.interpolate(coarse, size=16 + 2 * MOVED, mode="bilinear")

    cases = []
    for _ in range(2):
        train, test, copied = patches(60), patches(60), torch.zeros(60, dtype=torch.bool)
        copied[torch.randperm(60, generator=generator)[:20]] = True
        test[copied] = train[torch.randperm(60, generator=generator)[:20]]
        places = torch.randint(2 * MOVED + 1, (60, 2), generator=generator).tolist()
        moved = torch.stack(
            [image[:, y : y + 16, x : x + 16] for image, (y, x) in zip(test, places, strict=True)],
        )
        gain, shift = (torch.rand(60, 1, 1, 1, generator=generator) - 0.5 for _ in range(2))
        moved = (moved - 120) * (1 + 0.6 * gain) + 120 + 60 * shift + 4 * torch.randn(moved.shape, generator=generator)
        seen = train[:, :, MOVED:-MOVED, MOVED:-MOVED]
        images = [part.round().clamp(0, 255).to(torch.uint8) for part in (seen, moved)]
        cases.append((tuple(images), copied))
    return cases


def f1(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the mean F1 of the detected copies, and the name of this number.

    Raises:
        InputError: The number of answers is not the number of images.
    """
    if any(told.shape != true.shape for told, true in zip(found, wanted, strict=True)):
        raise InputError(f"the shape is {found[0].shape}: expected {wanted[0].shape}")
    shares = [
        2 * (told & true).sum() / max(told.sum() + true.sum(), 1) for told, true in zip(found, wanted, strict=True)
    ]
    return float(np.mean(shares)), "F1"


EXERCISE = Exercise(
    id="2.A",
    title="Copies that were moved",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=pictures,
    key=lambda seed: [copied for _, copied in _drawn(seed)],
    score=f1,
    marks=(0.5, 0.95),
)
