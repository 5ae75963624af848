"""Near-duplicates: images that must not be parted by a split."""

import numpy as np
import torch


def near_duplicate_groups(images: torch.Tensor) -> torch.Tensor:
    """Return the group of each image, int64 of shape (n,): near-duplicates share one.

    Two images are near-duplicates if their 64-bit difference hashes agree: the image is reduced to 9 x 8 gray
    values, and each is compared with its right neighbor.

    Args:
        images: uint8 of shape (n, 3, height, width).
    """
    # Not imagehash.dhash: it weighs the channels and rounds, so a quarter of the bits differ, and with them the splits.
    bits = []
    for chunk in images.split(max(1, 2**24 // images.shape[1:].numel())):
        gray = torch.nn.functional.interpolate(chunk.float().mean(1, keepdim=True), (8, 9), mode="area")
        bits.append((gray[..., 1:] > gray[..., :-1]).flatten(1))
    packed = np.packbits(torch.cat(bits).numpy(), axis=1)
    _, group = np.unique(packed, axis=0, return_inverse=True)
    return torch.from_numpy(group.reshape(-1).astype(np.int64))
