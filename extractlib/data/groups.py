"""Near-duplicates: images that a split must not separate, and how many look alike across its parts."""

from collections.abc import Iterator

import imagehash
import numpy as np
import torch
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torchvision.transforms.v2.functional import to_pil_image

BITS_APART = 4
"""Most bits, of 64, in which the hashes of near-duplicates differ.

A higher limit chains images that are merely of one kind: at 6 bits, a twelfth of EyePACS's retinas becomes one group.
"""

HASH_BYTES = 8
"""Bytes of the hash at the start of a signature; its roughness and its colors follow."""

SMOOTH, SMOOTH_APART = 3, 2
"""Roughness up to which an image counts as smooth, like a sky; and most levels by which smooth copies' colors differ.

Smooth images have few frequencies that distinguish them, and share a hash even if they share nothing else.
"""

COLORS_APART = 0.15
"""How far the colors of near-duplicates can differ, as a share of the colors and regardless of brightness."""

ROWS, NUMBERS, PAIRS = 512, 2**27, 2**20
"""Most images that are compared with all others at a time, most numbers this may take, and most pairs by color."""


def signature(image: Image.Image) -> np.ndarray:
    """Return what an image is compared by, uint8 of shape (57,).

    The perceptual hash (`imagehash.phash`: which of the 64 lowest frequencies of the gray image are above their
    median), the roughness (mean absolute Laplacian of the gray image at 32 x 32 pixels), and the mean colors of 4 x 4
    fields.

    Args:
        image: An image of mode RGB.
    """
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float32)
    laplacian = 4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    roughness = min(255, round(float(np.abs(laplacian).mean())))
    colors = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    return np.concatenate([np.packbits(imagehash.phash(image).hash), [np.uint8(roughness)], colors.ravel()])


def near_duplicate_groups(images: torch.Tensor) -> torch.Tensor:
    """Return the group of each image, int64 of shape (n,): near-duplicates, and their near-duplicates, share one.

    Two images are near-duplicates if their perceptual hashes differ in at most `BITS_APART` bits and their colors are
    alike. So a copy that was re-encoded, resized or brightened is found; one that was cropped is found less often
    (data.md has the figures).

    Args:
        images: uint8 of shape (n, 3, height, width).
    """
    return torch.from_numpy(grouped(np.stack([signature(to_pil_image(image)) for image in images])))


def grouped(signatures: np.ndarray) -> np.ndarray:
    """Return the group of each of n signatures (uint8 of shape (n, 57)), int64 of shape (n,)."""
    count = len(signatures)
    leader = np.arange(count)
    for first, second in alike_pairs(signatures, signatures):
        if (first != second).any():
            ends = np.concatenate([first, np.arange(count)]), np.concatenate([second, leader])
            edges = csr_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
            members = connected_components(edges, directed=False)[1]
            leader = np.unique(members, return_index=True)[1][members]
    return np.unique(leader, return_inverse=True)[1].astype(np.int64)


def with_alike(signatures: np.ndarray, others: np.ndarray, *, bits: int = BITS_APART) -> np.ndarray:
    """Return which of n signatures have a near-duplicate among `others`, bool of shape (n,).

    Args:
        signatures: uint8 of shape (n, 57).
        others: uint8 of shape (m, 57).
        bits: Most bits in which hashes differ.
    """
    found = np.zeros(len(signatures), dtype=bool)
    for first, _ in alike_pairs(signatures, others, bits=bits):
        found[first] = True
    return found


def alike_pairs(
    signatures: np.ndarray, others: np.ndarray, *, bits: int = BITS_APART
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs that are alike, some at a time: the indices of both images, int64 of shape (pairs,)."""
    # The product of two rows of signs is the number of bits that agree minus the number that differ.
    ours, theirs = (_signs(one) for one in (signatures, others))
    rows = max(1, min(ROWS, NUMBERS // max(1, len(theirs))))
    for start in range(0, len(ours), rows):
        close = (ours[start : start + rows] @ theirs.T >= 64 - 2 * bits).nonzero().numpy()
        for pairs in np.array_split(close, max(1, -(-len(close) // PAIRS))):
            first, second = pairs[:, 0] + start, pairs[:, 1]
            alike = _colors_alike(signatures[first, HASH_BYTES:], others[second, HASH_BYTES:])
            yield first[alike], second[alike]


def _signs(signatures: np.ndarray) -> torch.Tensor:
    bits = torch.from_numpy(np.unpackbits(signatures[:, :HASH_BYTES], axis=1))
    return torch.where(bits == 1, 1.0, -1.0)


def _colors_alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whether the colors of each pair are alike: as they are if both are smooth, else up to brightness."""
    smooth = np.maximum(first[:, 0], second[:, 0]) <= SMOOTH
    ours, theirs = (colors[:, 1:].astype(np.float32) for colors in (first, second))
    power = np.maximum((ours**2).sum(1), 1)
    gain = (ours * theirs).sum(1) / power
    apart = np.linalg.norm(theirs - gain[:, None] * ours, axis=1)
    alike = apart <= COLORS_APART * np.linalg.norm(theirs, axis=1)
    found: np.ndarray = np.where(smooth, np.abs(ours - theirs).max(1) <= SMOOTH_APART, alike)
    return found
