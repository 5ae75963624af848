"""Images are decoded once, brought to one size, and mapped into memory from then on.

What is not plain 8-bit RGB is converted: CMYK, palettes and gray to RGB; of 16 bits the high eight are kept;
transparency is dropped; of an animation the first frame is taken; the rotation that a camera notes in EXIF is carried
out. What a file is called does not matter, only what it holds. A file that is empty, cut short, of another kind or
larger than `MOST_PIXELS` is refused by name, and nothing is kept of its set.
"""

import io
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from extractlib.data.groups import near_duplicate_groups
from extractlib.data.images import ImageSet
from extractlib.data.layouts import RECORD
from extractlib.data.sets import RECORD_PATH, Listing
from extractlib.errors import InputError
from extractlib.store import Store, digest, digest_of
from extractlib.versions import versions

MOST_PIXELS = 50_000_000
"""Larger pictures are refused: decoding one would take more memory than the rest of the experiment."""

MOST_ENLARGED = 8
"""An image that had to be enlarged more than so many times shows nothing, and is refused."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
BATCH = 256
"""Images in flight between the threads that decode and the file: what bounds the memory."""


@dataclass(frozen=True)
class ImageFiles:
    """The images of a data set that lies in files, decoded.

    Attributes:
        splits: An `ImageSet` for each split of its listing, memory-mapped.
        groups: int64 of shape (n,) for the split ``"train"``: images of one track or one patient and near-duplicates
            share a group. None without such a split.
    """

    splits: Mapping[str, ImageSet]
    groups: torch.Tensor | None


def decode(listing: Listing, *, name: str, store: Store, size: int = 32) -> ImageFiles:
    """Return the images of a data set, decoded once and then mapped from the store.

    Beside the images the store keeps the split as ``index.csv``. Files are recognized by path, size and modification
    time; the sets' fingerprints depend on what the files hold.

    Args:
        listing: The data set.
        name: What the sets are called.
        store: Keeps the decoded images.
        size: Height and width in pixels: each image is cut to its central square and resized.

    Raises:
        InputError: A file is missing, is no image or too large, or the disk has too little space.
    """
    index = listing.index()
    key = {"files": _state(listing), "index": digest(index), "size": size, "versions": versions("decode")}
    folder = store.get("decoded", key, lambda folder: _write(listing, index, size, folder))
    contents = (folder / "contents").read_text()
    # A plain folder at 32 pixels has the fingerprint that rows of earlier runs name.
    source = (contents, digest(index), str(size)) if listing.published or size != 32 else (contents,)
    splits = {}
    for split, table in listing.splits.items():
        numbers = pd.Index(listing.classes)
        labels = torch.from_numpy(numbers.get_indexer(table["class"])) if listing.classes else None
        pixels = torch.from_numpy(np.load(folder / f"{split}.npy", mmap_mode="c", allow_pickle=False))
        splits[split] = ImageSet(f"{name}/{split}", pixels, labels, listing.classes, digest(*source, split))
    groups = torch.from_numpy(np.load(folder / "groups.npy")) if "train" in splits else None
    return ImageFiles(splits, groups)


def read_image(file: Path | BinaryIO, *, size: int, name: str | None = None) -> np.ndarray:
    """Return one image, uint8 of shape (3, size, size): its central square, resized.

    Args:
        file: Path or open file.
        size: Height and width in pixels.
        name: What the file is called in an error; its path if None.

    Raises:
        InputError: It cannot be decoded, has more than `MOST_PIXELS` pixels, or is too small for the size.
    """
    name = name or str(file)
    try:
        with Image.open(file, formats=FORMATS) as opened:
            width, height = opened.size
            image = _to_rgb(ImageOps.exif_transpose(opened)) if width * height <= MOST_PIXELS else None
    except Exception as error:  # a decoder fails on arbitrary bytes in whatever way it happens to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be read as an image ({reason}): repair or delete it") from None
    if image is None:
        raise InputError(f"{name} has {width} x {height} pixels: at most {MOST_PIXELS:,} can be used")
    if size > MOST_ENLARGED * min(image.size):
        least = -(-size // MOST_ENLARGED)
        raise InputError(f"{name} has {width} x {height} pixels: at size {size} at least {least} x {least} are needed")
    return _square(image, size)


def require_free_space(folder: Path, size: int, what: str) -> None:
    """Refuse to begin where `size` bytes of `what` do not fit on a folder's disk.

    Raises:
        InputError: They do not.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InputError(
            f"{what} take {size / 1e9:,.1f} GB and {folder} has {free / 1e9:,.1f} GB free: free some, or name another"
            " folder by EXTRACTLIB_CACHE (for what is decoded) or --data (for what is downloaded)"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its values are no whole numbers")
    if image.mode.startswith("I"):
        # Pillow would cut off at 255 what lies in 16 bits.
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _square(image: Image.Image, size: int) -> np.ndarray:
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    image = image.crop((left, top, left + shorter, top + shorter))
    if shorter != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def _read(root: Path, path: str, size: int) -> tuple[str, bytes, np.ndarray]:
    """Return an image's name, its bytes and its pixels."""
    record = re.fullmatch(RECORD_PATH, path)
    try:
        with open(root / (record[1] if record else path), "rb") as file:
            file.seek(int(record[2]) * RECORD if record else 0)
            data = file.read(RECORD if record else -1)
    except OSError as error:
        raise InputError(f"{root / path} cannot be read ({error.strerror})") from None
    if not record:
        return Path(path).name, data, read_image(io.BytesIO(data), size=size, name=str(root / path))
    pixels = np.frombuffer(data, np.uint8, offset=1).reshape(3, 32, 32)
    return path, data, _square(Image.fromarray(pixels.transpose(1, 2, 0)), size)


def _state(listing: Listing) -> str:
    """Return the digest of where the files lie, how large they are and when they were changed."""
    state = [str(listing.root.resolve())]
    for file in listing.files():
        try:
            stat = os.stat(listing.root / file)
        except FileNotFoundError:
            raise InputError(f"{listing.root / file} is missing: the data set names it") from None
        state.append(f"{file} {stat.st_size} {stat.st_mtime_ns}")
    return digest(*state)


def _write(listing: Listing, index: str, size: int, folder: Path) -> None:
    """Write the pixels of each split, the groups of the training images, the index and the digest of the contents."""
    needed = sum(map(len, listing.splits.values())) * 3 * size * size
    require_free_space(folder.parent, needed, f"the images of {listing.root.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata; what matters becomes an error
        contents = digest_of(_write_pixels(listing, size, folder))
    (folder / "contents").write_text(contents)
    (folder / "index.csv").write_text(index, encoding="utf-8")
    if "train" in listing.splits:
        np.save(folder / "groups.npy", _groups(listing.splits["train"], folder / "train.npy"))


def _groups(table: pd.DataFrame, pixels: Path) -> np.ndarray:
    """Return the group of each training image: that of the listing, or that of its near-duplicates."""
    if "group" in table:
        return np.unique(table["group"], return_inverse=True)[1]
    return near_duplicate_groups(torch.from_numpy(np.load(pixels, mmap_mode="c"))).numpy()


def _write_pixels(listing: Listing, size: int, folder: Path) -> Iterator[str | bytes]:
    """Write the images in order, a few at a time, and yield name and bytes of each file."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for split, table in listing.splits.items():
            shape = (len(table), 3, size, size)
            written = np.lib.format.open_memmap(folder / f"{split}.npy", mode="w+", dtype=np.uint8, shape=shape)
            for first in tqdm(range(0, len(table), BATCH), desc=f"decoding {split}", unit=f"{BATCH} images"):
                batch = table["path"].iloc[first : first + BATCH]
                read = threads.map(partial(_read, listing.root, size=size), batch)
                for place, (name, data, pixels) in enumerate(read, start=first):
                    written[place] = pixels
                    yield from (name, data)
            written.flush()
