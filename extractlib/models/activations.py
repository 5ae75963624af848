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


class Activations:
    """The activations of images of one size, after the same frozen layers.

    Args:
        folder: Where they are kept; created when first needed. Several processes can use it at once.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._digests = np.empty(0, DIGEST)  # sorted
        self._places = np.empty(0, np.int64)

    def of(self, images: torch.Tensor | Rows, compute: Compute) -> torch.Tensor | Rows:
        """Return the layers' output for images, in order, float16 of shape (n, channels, height, width).

        Args:
            images: uint8 of shape (n, channels, height, width).
            compute: Given some of them, returns this output.
        """
        digests = digests_of(images)
        each, first = np.unique(digests, return_index=True)
        first = np.sort(first[self._find(each) < 0])  # in the order of the images
        if len(first) and len(images) < FEWEST:
            return compute(images[:])
        for start in range(0, len(first), TOGETHER):
            some = first[start : start + TOGETHER]
            self._append(digests[some], compute(images[torch.from_numpy(some)]))
        return Rows(self._values(), torch.from_numpy(self._find(digests)))

    def _find(self, digests: np.ndarray) -> np.ndarray:
        """Return the place of each image, int64 of shape (n,); -1 where it is not kept."""
        file = self.folder / "digests"
        size = file.stat().st_size if file.exists() else 0  # the folder may have been deleted, and filled anew
        if size // DIGEST.itemsize != len(self._digests):
            kept = np.fromfile(file, DIGEST) if size else np.empty(0, DIGEST)
            self._places = np.argsort(kept, kind="stable")
            self._digests = kept[self._places]
        if not len(self._digests):
            return np.full(len(digests), -1)
        number = np.searchsorted(self._digests, digests).clip(max=len(self._digests) - 1)
        return np.where(self._digests[number] == digests, self._places[number], -1)

    def _append(self, digests: np.ndarray, made: torch.Tensor) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            new = self._find(digests) < 0  # another process may have come first
            if not (self.folder / "shape").exists():  # all at once, since others may be reading it
                (self.folder / "shape.new").write_text(" ".join(map(str, made.shape[1:])))
                os.replace(self.folder / "shape.new", self.folder / "shape")
            for name, rows in (("values", made.numpy()), ("digests", digests)):
                with open(self.folder / name, "ab") as file:
                    file.truncate(len(self._digests) * rows[:1].nbytes)  # a killed process may have left more
                    file.write(rows[new].tobytes())
                    file.flush()
                    os.fsync(file.fileno())

    def _values(self) -> torch.Tensor:
        shape = tuple(map(int, (self.folder / "shape").read_text().split()))
        # Copy-on-write, since torch wants a writable array.
        mapped = np.memmap(self.folder / "values", np.float16, mode="c")
        return torch.from_numpy(mapped[: len(mapped) // np.prod(shape) * np.prod(shape)].reshape(-1, *shape))


def digests_of(images: torch.Tensor | Rows) -> np.ndarray:
    """Return the first eight bytes of the digest of each image's pixels, of shape (n,)."""
    found = [
        hashlib.blake2b(image.tobytes(), digest_size=DIGEST.itemsize).digest()
        for batch in images.split(TOGETHER)
        for image in batch.numpy()
    ]
    return np.frombuffer(b"".join(found), DIGEST)
