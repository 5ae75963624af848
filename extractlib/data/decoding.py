"""Images are decoded once, brought to one size, and mapped into memory from then on.

What is not plain 8-bit RGB is converted: CMYK, palettes and grey to RGB; of 16 bits the high eight are kept;
transparency is dropped; of an animation the first frame is taken; the rotation that a camera notes in EXIF is carried
out. What a file is called does not matter, only what it holds. A file that is empty, cut short, of another kind or
larger than `MOST_PIXELS` is refused by name, and nothing is kept of its set.
"""

import errno
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from extractlib.data.images import ImageSet
from extractlib.data.layouts import RECORD, Listing, record
from extractlib.errors import InputError
from extractlib.store import Store, digest, digest_of
from extractlib.versions import versions

MOST_PIXELS = 50_000_000
"""Larger pictures are refused: decoding one would take more memory than the rest of the experiment."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
AT_A_TIME = 256
"""Images in flight between the threads that decode and the file: what bounds the memory."""


@dataclass(frozen=True)
class Photographs:
    """A data set, decoded.

    Attributes:
        halves: An `ImageSet` for each half of its listing, memory-mapped.
        groups: int64 of shape (n,) for the half ``"train"``: images of one track, one patient or alike share a group.
            None without such a half.
    """

    halves: dict[str, ImageSet]
    groups: torch.Tensor | None


def decoded(listing: Listing, *, name: str, store: Store, size: int = 32) -> Photographs:
    """Return the images of a data set, decoded once and then mapped from the store.

    Beside the images the store keeps the split as ``index.csv``. Files are known again by path, size and time of
    change; the sets' fingerprints depend on what the files hold.

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
    kept = store.get("photographs", key, lambda folder: _decode(listing, index, size, folder))
    contents = (kept / "contents").read_text()
    # A plain folder at 32 pixels has the fingerprint that rows of earlier runs tell.
    source = (contents, digest(index), str(size)) if listing.published or size != 32 else (contents,)
    halves = {}
    for half, entries in listing.halves.items():
        labels = torch.tensor([entry.label for entry in entries]) if listing.classes else None
        images = torch.from_numpy(np.load(kept / f"{half}.npy", mmap_mode="c", allow_pickle=False))
        halves[half] = ImageSet(f"{name}/{half}", images, labels, listing.classes, digest(*source, half))
    groups = load_file(kept / "groups.safetensors")["groups"] if "train" in halves else None
    return Photographs(halves, groups)


def read_image(file: Path | BinaryIO, *, size: int, name: str | None = None) -> np.ndarray:
    """Return one image, uint8 of shape (3, size, size): its central square, resized.

    Args:
        file: Path or open file.
        size: Height and width in pixels.
        name: What the file is called in an error; its path if None.

    Raises:
        InputError: It cannot be decoded, or has more than `MOST_PIXELS` pixels.
    """
    name = name or str(file)
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{name} has {image.width} x {image.height} pixels: at most {MOST_PIXELS:,} can be used"
                )
            image = _rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Exception as error:  # a decoder fails on arbitrary bytes in whatever way it happens to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be read as an image ({reason}): repair it or take it away") from None
    return _square(image, size)


def look_alikes(images: torch.Tensor) -> torch.Tensor:
    """Return the group of each image, int64 of shape (n,): near-duplicates share one.

    Two images are near-duplicates if their 64-bit difference hashes agree: the image is reduced to 9 x 8 grey
    values, and each is compared with its right neighbour.

    Args:
        images: uint8 of shape (n, 3, height, width).
    """
    bits = []
    for chunk in images.split(max(1, 2**24 // images.shape[1:].numel())):
        grey = torch.nn.functional.interpolate(chunk.float().mean(1, keepdim=True), (8, 9), mode="area")
        bits.append((grey[..., 1:] > grey[..., :-1]).flatten(1))
    packed = np.packbits(torch.cat(bits).numpy(), axis=1)
    _, group = np.unique(packed, axis=0, return_inverse=True)
    return torch.from_numpy(group.reshape(-1).astype(np.int64))


def _rgb(image: Image.Image) -> Image.Image:
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
    """Return an entry's name, its bytes and its pixels."""
    try:
        data = _bytes(root, path)
    except OSError as error:
        raise InputError(f"{root / path} cannot be read ({error.strerror})") from None
    if not record(path):
        return Path(path).name, data, read_image(io.BytesIO(data), size=size, name=str(root / path))
    pixels = np.frombuffer(data, np.uint8, offset=1).reshape(3, 32, 32)
    return path, data, pixels if size == 32 else _square(Image.fromarray(pixels.transpose(1, 2, 0)), size)


def _bytes(root: Path, path: str) -> bytes:
    place = record(path)
    if not place:
        return (root / path).read_bytes()
    with open(root / place[0], "rb") as file:
        file.seek(place[1] * RECORD)
        return file.read(RECORD)


def _state(listing: Listing) -> str:
    """Return the digest of where the files lie, how large they are and when they were changed."""

    def parts() -> Iterator[str]:
        yield str(listing.root.resolve())
        for entries in listing.halves.values():
            for entry in entries:
                file = (record(entry.path) or (entry.path,))[0]
                try:
                    found = os.stat(listing.root / file)
                except FileNotFoundError:
                    raise InputError(f"{listing.root / file} is missing: the data set names it") from None
                yield f"{file} {found.st_size} {found.st_mtime_ns}"

    return digest_of(parts())


def _decode(listing: Listing, index: str, size: int, folder: Path) -> None:
    """Write the pixels of each half, the groups of the training images, the index and the digest of the contents."""
    wanted = sum(map(len, listing.halves.values())) * 3 * size * size
    with room_for(folder.parent, wanted, f"the images of {listing.root.name}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures and odd metadata; what matters becomes an error
        contents = digest_of(_written(listing, size, folder))
    (folder / "contents").write_text(contents)
    (folder / "index.csv").write_text(index, encoding="utf-8")
    if "train" in listing.halves:
        save_file({"groups": _groups(listing, folder)}, folder / "groups.safetensors")


def _written(listing: Listing, size: int, folder: Path) -> Iterator[str | bytes]:
    """Write the images in order, a few at a time, and yield name and bytes of each file."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for half, entries in listing.halves.items():
            bar = tqdm(total=len(entries), desc=f"decoding {half}", unit="image")
            with bar, open(folder / f"{half}.npy", "wb") as file:
                shape = {"descr": "|u1", "fortran_order": False, "shape": (len(entries), 3, size, size)}
                np.lib.format.write_array_header_1_0(file, shape)
                for first in range(0, len(entries), AT_A_TIME):
                    some = entries[first : first + AT_A_TIME]
                    for name, data, pixels in threads.map(lambda entry: _read(listing.root, entry.path, size), some):
                        file.write(pixels.tobytes())
                        yield from (name, data)
                    bar.update(len(some))


@contextmanager
def room_for(folder: Path, size: int, what: str) -> Iterator[None]:
    """Refuse to begin, or to go on, where `size` bytes of `what` do not fit on a folder's disk.

    Raises:
        InputError: They do not.
    """

    def refusal(free: int) -> InputError:
        return InputError(
            f"{what} take {size / 1e9:,.1f} GB and {folder} has {free / 1e9:,.1f} GB free: free some, or name another"
            " folder by EXTRACTLIB_CACHE (for what is decoded) or --data (for what is downloaded)"
        )

    free = shutil.disk_usage(folder).free
    if free < size:
        raise refusal(free)
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise refusal(free) from None


def _groups(listing: Listing, folder: Path) -> torch.Tensor:
    tracks = [entry.group for entry in listing.halves["train"]]
    if any(tracks):
        return torch.from_numpy(np.unique(tracks, return_inverse=True)[1].astype(np.int64))
    return look_alikes(torch.from_numpy(np.load(folder / "train.npy", mmap_mode="c", allow_pickle=False)))
