"""Image sets: what victims are trained on, attackers query with and detectors tell apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from extractlib.errors import InputError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, with or without labels.

    Attributes:
        name: What the set is, for example ``"signs/test"``.
        images: uint8 tensor of shape (n, 3, height, width); may be memory-mapped.
        labels: int64 tensor of shape (n,), or None for an unlabelled set.
        classes: Name of each class; empty for an unlabelled set.
        fingerprint: Hexadecimal digest of all that made the set. Equal fingerprints mean equal sets.

    Raises:
        InputError: Shape, dtype or labels do not fit.
    """

    name: str
    images: torch.Tensor
    labels: torch.Tensor | None
    classes: tuple[str, ...]
    fingerprint: str

    def __post_init__(self):
        if self.images.ndim != 4 or self.images.shape[1] != 3 or self.images.dtype != torch.uint8:
            raise InputError(
                f"{self.name}: images are {self.images.dtype} of shape {tuple(self.images.shape)}:"
                " uint8 of shape (n, 3, height, width) is wanted"
            )
        if self.labels is None:
            return
        if len(self.labels) != len(self.images):
            raise InputError(f"{self.name}: {len(self.labels)} labels for {len(self.images)} images")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())},"
                f" outside 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        kind = f"{len(self.classes)} classes" if self.labels is not None else "unlabelled"
        return f"ImageSet({self.name!r}, {len(self)} images, {kind}, {self.fingerprint[:12]})"

    def subset(self, indices: torch.Tensor, *, name: str | None = None) -> "ImageSet":
        """Return the images at `indices` (int64 of shape (m,)), in that order, as a set of its own."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return replace(
            self,
            name=name or self.name,
            images=self.images[indices],
            labels=None if self.labels is None else self.labels[indices],
            fingerprint=digest(self.fingerprint, indices.numpy().tobytes()),
        )

    def unlabelled(self) -> "ImageSet":
        """Return the same images without labels or class names: what an attacker's pool shows."""
        return replace(self, labels=None, classes=(), fingerprint=digest(self.fingerprint, "unlabelled"))

    def split(self, shares: Mapping[str, float], *, seed: int, groups: torch.Tensor | None = None) -> dict:
        """Cut the set into disjoint parts at random.

        Args:
            shares: Share of each part by name; they add up to at most 1. The last part takes what rounding leaves
                when they add up to 1.
            seed: Seed of the cut.
            groups: int64 of shape (n,); images of one group (a track, a near-duplicate) stay together. Without it
                every image is a group of its own.

        Returns:
            A dictionary from part name to `ImageSet`, each named ``"<set>/<part>"``, in the order of `shares`.

        Raises:
            InputError: A share is not positive, or they add up to more than 1.
        """
        if min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
            raise InputError(f"{self.name}: shares {dict(shares)} must be positive and add up to at most 1")
        groups = np.arange(len(self)) if groups is None else groups.numpy()
        _, member = np.unique(groups, return_inverse=True)
        place = np.random.default_rng(seed).permutation(member.max() + 1)[member]
        ends = np.round(np.cumsum(list(shares.values())) * (member.max() + 1))
        part_of = np.searchsorted(ends, place, side="right")
        return {
            part: self.subset(torch.from_numpy(np.flatnonzero(part_of == number)), name=f"{self.name}/{part}")
            for number, part in enumerate(shares)
        }


def digest(*parts: str | bytes) -> str:
    """Return the hexadecimal digest (40 digits) of `parts`, each delimited, in order."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def mix(first: ImageSet, second: ImageSet, *, name: str) -> ImageSet:
    """Return both sets one after the other as one unlabelled set."""
    if first.images.shape[1:] != second.images.shape[1:]:
        raise InputError(
            f"{name}: {first.name} has images of {tuple(first.images.shape[1:])} and {second.name} of"
            f" {tuple(second.images.shape[1:])}: bring them to one size first"
        )
    images = torch.cat([first.images, second.images])
    return ImageSet(name, images, None, (), digest(first.fingerprint, second.fingerprint, "mix"))
