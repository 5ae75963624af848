"""The outputs of a network's frozen layers: computed once for each image, kept in files, memory-mapped.

An image is identified by its pixels, so all cells, seeds and parts that show it share the result. There are two files:
the values, one row per image, and the images' digests in the same order. A row counts once its digest is written, which
happens last, so a killed process leaves nothing wrong behind.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from extractlib.data.images import Rows

TOGETHER = 1_024
"""Images that are computed, and then written, at a time."""

FEWEST = 256
"""Fewer images at once are not kept: they are the steps of a walk, or a bandit's batch, and never come up again."""

DIGEST = np.dtype("<u8")
Compute = Callable[[torch.Tensor], torch.Tensor]
Index = tuple[np.ndarray, np.ndarray]


class Activations:
    """The activations of images of one size, after the same frozen layers.

    Args:
        folder: Where they are kept; created when first needed. Several processes can use it at once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        # Digests, sorted, and their places in the files: one attribute, since other threads may be reading it.
        self._index = np.empty(0, DIGEST), np.empty(0, np.int64)

    def of(self, images: torch.Tensor | Rows, compute: Compute) -> torch.Tensor | Rows:
        """Return the layers' output for images, in order, float16 of shape (n, channels, height, width).

        Args:
            images: uint8 of shape (n, channels, height, width).
            compute: Given some of them, returns this output.
        """
        digests = digests_of(images)
        each, first = np.unique(digests, return_index=True)
        first = np.sort(first[_places(self._load(), each) < 0])  # in the order of the images
        if len(first) and len(images) < FEWEST:
            return compute(images[:])
        for start in range(0, len(first), TOGETHER):
            some = first[start : start + TOGETHER]
            self._append(digests[some], compute(images[torch.from_numpy(some)]))
        places = _places(self._load(), digests)  # before the values, which are written first
        return Rows(self._values(), torch.from_numpy(places))

    def _load(self) -> Index:
        """Return the digests that are kept, sorted, and the place of each, read again if there are others now."""
        file = self.folder / "digests"
        size = file.stat().st_size if file.exists() else 0  # the folder may have been deleted, and filled anew
        index = self._index
        if size // DIGEST.itemsize != len(index[0]):
            kept = np.fromfile(file, DIGEST) if size else np.empty(0, DIGEST)
            order = np.argsort(kept, kind="stable")
            self._index = index = kept[order], order
        return index

    def _append(self, digests: np.ndarray, made: torch.Tensor) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            index = self._load()
            new = _places(index, digests) < 0  # another process may have come first
            if not (self.folder / "shape").exists():  # all at once, since others may be reading it
                (self.folder / "shape.new").write_text(" ".join(map(str, made.shape[1:])))
                os.replace(self.folder / "shape.new", self.folder / "shape")
            for name, rows in (("values", made.numpy()), ("digests", digests)):
                with open(self.folder / name, "ab") as file:
                    file.truncate(len(index[0]) * rows[:1].nbytes)  # a killed process may have left more
                    file.write(rows[new].tobytes())
                    file.flush()
                    os.fsync(file.fileno())

    def _values(self) -> torch.Tensor:
        shape = tuple(map(int, (self.folder / "shape").read_text().split()))
        # Copy-on-write, since torch wants a writable array.
        mapped = np.memmap(self.folder / "values", np.float16, mode="c")
        return torch.from_numpy(mapped[: len(mapped) // np.prod(shape) * np.prod(shape)].reshape(-1, *shape))


def _places(index: Index, digests: np.ndarray) -> np.ndarray:
    """Return the place of each image, int64 of shape (n,); -1 where it is not kept."""
    known, places = index
    if not len(known):
        return np.full(len(digests), -1)
    number = np.searchsorted(known, digests).clip(max=len(known) - 1)
    return np.where(known[number] == digests, places[number], -1)


def digests_of(images: torch.Tensor | Rows) -> np.ndarray:
    """Return the first eight bytes of the digest of each image's pixels, of shape (n,)."""
    found = [
        hashlib.blake2b(image.tobytes(), digest_size=DIGEST.itemsize).digest()
        for batch in images.split(TOGETHER)
        for image in batch.numpy()
    ]
    return np.frombuffer(b"".join(found), DIGEST)
