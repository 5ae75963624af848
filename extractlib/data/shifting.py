"""Photographs as another source would show them: moved in the frame and in other light.

Neither step resamples or compresses, so that a detector cannot tell the shifted images by how they were processed.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from extractlib.data.images import ImageSet
from extractlib.store import digest

MOVED = 0.1
"""Share of its size by which an image is moved at most, in each direction; the border is mirrored."""

LIGHT = v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
"""What is done to the light of each image."""


def shifted(images: ImageSet, *, seed: int) -> ImageSet:
    """Return the same images, each moved in its frame and shown in other light.

    Args:
        images: Any images that fit in memory.
        seed: Seed of the moves and of the light.
    """
    most = round(MOVED * images.images.shape[-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        moved = torch.stack([LIGHT(_moved(image, most)) for image in images.images[:]])
    return replace(
        images,
        name=f"{images.name}/shifted",
        images=moved,
        fingerprint=digest(images.fingerprint, "shifted", str(seed)),
    )


def _moved(image: torch.Tensor, most: int) -> torch.Tensor:
    size = image.shape[-1]
    down, right = torch.randint(0, 2 * most + 1, (2,)).tolist()
    framed = F.pad(image[None].float(), (most, most, most, most), mode="reflect")[0].to(torch.uint8)
    return framed[:, down : down + size, right : right + size]
