"""Near-duplicates: images that must not be parted by a split."""

import imagehash
import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from scipy.sparse.csgraph import connected_components
from torchvision.transforms.v2.functional import to_pil_image

BITS_APART = 4
"""Bits of 64 in which the hashes of near-duplicates differ at most.

More chain images that are merely of one kind: at 6 bits a twelfth of EyePACS's retinas becomes one group.
"""


def near_duplicate_groups(images: torch.Tensor) -> torch.Tensor:
    """Return the group of each image, int64 of shape (n,): near-duplicates, and theirs, share one.

    Two images are near-duplicates if their perceptual hashes (`imagehash.phash`: which of the 64 lowest frequencies of
    the gray image are above their median) differ in at most `BITS_APART` bits. So a copy that was saved again, resized
    or made brighter is found; one that was cropped is found less often (data.md has the figures).

    Args:
        images: uint8 of shape (n, 3, height, width).
    """
    hashes = torch.from_numpy(np.stack([imagehash.phash(to_pil_image(image)).hash.ravel() for image in images]))
    signs = torch.where(hashes, 1.0, -1.0)
    # The product of two rows of signs is the number of bits that agree less those that differ.
    alike = [csr_array((part @ signs.T >= 64 - 2 * BITS_APART).numpy()) for part in torch.split(signs, 512)]
    return torch.from_numpy(connected_components(vstack(alike), directed=False)[1].astype(np.int64))
