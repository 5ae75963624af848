"""Image files are decoded once, resized to one size, and memory-mapped from then on.

Files that cannot be read are rejected by name, all at once, or left out on request.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from PIL import Image

from extractlib.data.files import fault_of
from extractlib.data.groups import grouped, signature
from extractlib.data.images import ImageSet, mapped
from extractlib.data.pixels import USUAL, Reading, read_square, resized
from extractlib.data.sets import RECORD, RECORD_PATH, Listing, file_of
from extractlib.errors import DataWarning, InputError, in_bytes, shown
from extractlib.progress import bar as progress_bar
from extractlib.store import Store, digest
from extractlib.versions import later, versions

BATCH = 256
"""Images in flight between the decoding threads and the file; this bounds the memory."""

TOLD = 50
"""Most bad files that a message names."""

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""What a TIFF begins with."""

STDERR = 2
SILENCE = threading.Lock()


@dataclass(frozen=True)
class ImageFiles:
    """The decoded images of a data set that is stored in files.

    Attributes:
        splits: An `ImageSet` for each split of its listing, memory-mapped.
        groups: int64 of shape (n,) for the split ``"train"``: images of one track or one patient and near-duplicates
            share a group. None without such a split.
        tables: The listing's table for each split, with only the images that were read.
        signatures: What the images of each split are compared by, uint8 of shape (n, 57) (see `groups`).
        contents: Digest of the index and of the contents of the files, regardless of image size and ground.
    """

    splits: Mapping[str, ImageSet]
    groups: torch.Tensor | None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    signatures: Mapping[str, np.ndarray] = field(default_factory=dict)
    contents: str = ""


@dataclass(frozen=True)
class _Image:
    """What is kept of a file: the digest of its bytes, pixels, signature, and whether it has more than 8 bits."""

    digest: bytes
    pixels: np.ndarray
    signature: np.ndarray
    deep: bool


def decode(listing: Listing, *, name: str, store: Store, size: int = 32, reading: Reading = USUAL) -> ImageFiles:
    """Return the images of a data set, decoded once and then mapped from the store.

    Besides the images, the store keeps the split as ``index.csv``. Files are recognized by path, size and modification
    time; the sets' fingerprints depend on the contents of the files. A `DataWarning` reports anything that a reader may
    not expect, such as files that are left out.

    Args:
        listing: The data set.
        name: What the sets are called.
        store: Keeps the decoded images.
        size: Height and width in pixels: each image is cropped to its central square and resized.
        reading: How the files are read.

    Raises:
        InputError: A file is missing, too large or not an image, and should not be left out; or a class has no image
            left, all images are identical, or the disk has too little space.
    """
    state, faults = _state(listing, reading)
    how = {"size": size, "ground": reading.ground, "most_pixels": reading.most_pixels}
    key = {"files": state, "index": digest(listing.index()), **how, "versions": versions("decode")}
    folder = store.get("decoded", key, lambda folder: _write(listing, faults, size, reading, folder))
    made = json.loads((folder / "made.json").read_text())
    if made["bad"] and not reading.skip_bad:
        raise _refusal(listing, made["bad"])
    for note in _notes(listing, made):
        warnings.warn(f"{name}: {note}", DataWarning, stacklevel=2)
    splits, tables = {}, _without(listing.splits, made["bad"])
    numbers = {name: number for number, name in enumerate(listing.classes)}
    for split, table in tables.items():
        labels = torch.tensor([numbers[name] for name in table["class"]]) if listing.classes else None
        pixels = mapped(folder / f"{split}.npy")
        fingerprint = digest(made["contents"], str(size), reading.ground, split, *later(decode=3))
        splits[split] = ImageSet(f"{name}/{split}", pixels, labels, listing.classes, fingerprint)
    groups = torch.from_numpy(np.load(folder / "groups.npy")) if "train" in splits else None
    signatures = {split: np.load(folder / f"{split}.signatures.npy") for split in splits}
    return ImageFiles(splits, groups, tables, signatures, made["contents"])


def require_free_space(folder: Path, size: int, what: str) -> None:
    """Reject a write of `size` bytes of `what` that do not fit on a folder's disk.

    Raises:
        InputError: They do not fit.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"{what} take {in_bytes(size)}, but {folder} has {in_bytes(free)} free: free up some, or name another"
            " folder with EXTRACTLIB_CACHE (for decoded images) or --data (for downloads)"
        )


def _notes(listing: Listing, made: Mapping[str, Any]) -> list[str]:
    """Return the notes for a reader on a set that was decoded."""
    notes = list(listing.notes)
    if made["bad"]:
        notes.append(f"{len(made['bad']):,} files or empty folders are left out, {_told(made['bad'])}")
    if made["deep"]:
        notes.append(f"{made['deep']:,} images have more than 8 bits per channel; each is scaled by its own range")
    return notes


def _told(bad: Mapping[str, str]) -> str:
    """Return bad files and what is wrong with each, in words."""
    told = [f"{shown(path)} ({reason})" for path, reason in list(bad.items())[:TOLD]]
    return ", ".join(told + [f"{len(bad) - TOLD:,} more"] * (len(bad) > TOLD))


def _refusal(listing: Listing, bad: Mapping[str, str]) -> InputError:
    remedy = "repair or delete them, or leave them out with skip_bad=True (--skip-bad)"
    total = len(listing.files()) + len(listing.empty)
    return InputError(
        f"{listing.root}: {len(bad):,} of {total:,} files and empty folders cannot be used, {_told(bad)}: {remedy}"
    )


def _state(listing: Listing, reading: Reading) -> tuple[str, dict[str, str]]:
    """Return a digest of the files' paths, sizes and modification times, and which of the files are unusable."""
    faults = dict.fromkeys(listing.empty, "it holds no images")
    state = [str(listing.root.resolve()), *(f"{path} {fault}" for path, fault in faults.items())]
    for path in listing.files():
        file, is_image = listing.root / path, file_of(path) == path
        fault = fault_of(file, most_bytes=reading.most_bytes if is_image else sys.maxsize)
        if fault is None:
            stat = os.stat(file)
            state.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
        else:
            state.append(f"{path} {fault}")
            faults[path] = fault
    return digest(*state), faults


def _without(splits: Mapping[str, pd.DataFrame], bad: Container[str]) -> dict[str, pd.DataFrame]:
    """Return the tables of the splits without the images in bad files."""
    return {
        split: table[[not (path in bad or file_of(path) in bad) for path in table["path"]]]
        for split, table in splits.items()
    }


def _write(listing: Listing, faults: Mapping[str, str], size: int, reading: Reading, folder: Path) -> None:
    """Write the pixels and signatures of each split, the groups of the training images, the index, and the notes."""
    needed = sum(map(len, listing.splits.values())) * 3 * size * size
    require_free_space(folder.parent, needed, f"the images of {listing.root.name}")
    bad, contents, deep = dict(faults), [], 0
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        warnings.simplefilter("ignore")  # about large pictures and odd metadata; what matters becomes an error
        for split, table in _without(listing.splits, faults).items():
            read = partial(_read, listing.root, size=size, reading=reading)
            with closing(_Split(folder, split, size)) as written:
                for path, image in _decoded(table["path"], read, threads, what=f"decoding {split}"):
                    if isinstance(image, str):
                        bad[path] = image
                    else:
                        written.add(image)
                        contents.append(image.digest)
                        deep += image.deep
    if bad and not reading.skip_bad:
        raise _refusal(listing, bad)
    kept = replace(listing, splits=_without(listing.splits, bad))
    _check_kept(listing, kept, folder)
    index = kept.index()
    (folder / "index.csv").write_text(index, encoding="utf-8", errors="surrogateescape")
    made = {"bad": bad, "deep": deep, "contents": digest(index, *contents)}
    (folder / "made.json").write_text(json.dumps(made))
    if "train" in kept.splits:
        np.save(folder / "groups.npy", _groups(kept.splits["train"], folder / "train.signatures.npy"))


def _decoded(
    paths: pd.Series, read: Callable[[str], _Image | str], threads: ThreadPoolExecutor, *, what: str
) -> Iterator[tuple[str, _Image | str]]:
    """Yield each path with the image read from it, or with what is wrong with it, in order."""
    with progress_bar(len(paths), what=what, unit="images") as bar:
        for first in range(0, len(paths), BATCH):
            batch = paths.iloc[first : first + BATCH]
            yield from zip(batch, threads.map(read, batch), strict=True)
            bar.update(len(batch))


def _check_kept(listing: Listing, kept: Listing, folder: Path) -> None:
    """Reject a set that has too little left, or whose images show nothing.

    Raises:
        InputError: A split or a class has no image left, or all images are identical.
    """
    for split, table in kept.splits.items():
        if table.empty:
            raise InputError(f"{kept.root}: no image of {split} can be read: get the set again")
        if listing.classes and (lost := sorted(set(listing.splits[split]["class"]) - set(table["class"]))):
            raise InputError(
                f"{kept.root}: no image of class {shown(lost[0])} in {split} can be read: repair one, or drop the class"
            )
        pixels = np.load(folder / f"{split}.npy", mmap_mode="r")
        if len(pixels) > 1 and all(np.array_equal(image, pixels[0]) for image in pixels[1:]):
            raise InputError(
                f"{kept.root}: all {len(pixels):,} images of {split} are identical once they are read: if they are"
                " transparent, name another color with ground=… (--ground)"
            )


def _groups(table: pd.DataFrame, signatures: Path) -> np.ndarray:
    """Return the group of each training image: that of the listing, or that of its near-duplicates."""
    if "group" in table:
        return np.unique(table["group"], return_inverse=True)[1]
    return grouped(np.load(signatures))


class _Split:
    """The images of a split as they are written to disk one after another; their number is known only at the end.

    Args:
        folder: Where to write them.
        name: The split.
        size: Height and width in pixels.
    """

    def __init__(self, folder: Path, name: str, size: int):
        self._folder, self._name, self._size = folder, name, size
        self._signatures: list[np.ndarray] = []
        self._file = open(folder / f"{name}.npy", "wb")
        self._write_header()

    def _write_header(self) -> None:
        shape = (len(self._signatures), 3, self._size, self._size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)  # of the same length for any number of images

    def add(self, image: _Image) -> None:
        """Write an image after the others."""
        self._file.write(image.pixels.tobytes())
        self._signatures.append(image.signature)

    def close(self) -> None:
        """Finish the files."""
        with self._file:
            self._file.seek(0)
            self._write_header()
        np.save(self._folder / f"{self._name}.signatures.npy", np.array(self._signatures, dtype=np.uint8))


def _read(root: Path, path: str, *, size: int, reading: Reading) -> _Image | str:
    """Return an image, or why it cannot be read."""
    record = re.fullmatch(RECORD_PATH, path)
    try:
        with open(root / (record[1] if record else path), "rb") as file:
            if record:
                file.seek(int(record[2]) * RECORD)
                data = file.read(RECORD)
                values = np.frombuffer(data, np.uint8, offset=1).reshape(3, 32, 32)
                content: Any = hashlib.blake2b(data)
                square, deep = Image.fromarray(values.transpose(1, 2, 0)), False
            else:
                content = hashlib.file_digest(file, hashlib.blake2b)
                file.seek(0)
                with _silent(file):
                    square, deep = read_square(file, size=size, reading=reading)
    except OSError as error:
        return f"it cannot be read, {error.strerror}"
    except InputError as error:
        return str(error)
    return _Image(content.digest(), resized(square, size), signature(square), deep)


@contextmanager
def _silent(file: BinaryIO) -> Iterator[None]:
    """Keep what libtiff says about a damaged file off the error stream, since the file is reported anyway.

    Other formats print nothing. The stream belongs to the process, so only one thread does this at a time.
    """
    is_tiff = file.read(4) in TIFF
    file.seek(0)
    if not is_tiff:
        yield
        return
    with SILENCE, open(os.devnull, "wb") as nothing:
        stream = os.dup(STDERR)
        os.dup2(nothing.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(stream, STDERR)
            os.close(stream)
