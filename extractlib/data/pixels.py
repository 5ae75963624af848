"""From a file to the pixels of one image: its central square, resized, 8-bit RGB.

CMYK, palettes and gray become RGB. Transparent images are placed on a ground. Values of 16 bits per channel are scaled
by the range of the file's own values. The first frame of an animation is used, and the rotation that a camera records
in EXIF is applied. The name of a file does not matter, only its contents.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_png

from extractlib.data.files import FORMATS
from extractlib.errors import InputError, check_positive, one_line, shown

MOST_PIXELS = 50_000_000
"""Larger pictures are rejected unless more pixels are allowed: decoding takes up to `BYTES` for each pixel."""

PILLOWS_LIMIT = 178_956_970
"""Pixels above which Pillow rejects an image, whatever is allowed here."""

MOST_ENLARGED = 8
"""An image that would have to be enlarged more than this many times shows nothing, and is rejected."""

BYTES = 12
"""Bytes of memory that a pixel takes while it is decoded, in the largest mode."""

REDUCED = 256
"""The smallest height and width to which a JPEG is reduced when it is decoded at a fraction of its size.

At image sizes up to half of this, images are recognized by the same pixels whatever the size.
"""

MEMORY = 2**30
"""Bytes that all threads together decode into at a time."""

FEWEST_LEVELS = 64
"""Fewest levels used, of the 256 that Pillow keeps of a TIFF in 16-bit colors."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the files of a set are read, and how a task in files is cut.

    Attributes:
        ground: Color that transparent images are placed on: a name such as ``"white"`` or ``"#RRGGBB"``.
        most_pixels: The largest image that is decoded. A JPEG decoded at a fraction of its size counts as that.
        skip_bad: Whether files that cannot be read, and classes without images, are left out; else they are rejected.
        group: What the images of one track or one patient have in common, so that they are not separated: a table or a
            pattern (see `splits.group_names`). None for the groups that the set itself has, or else near-duplicates.
        drop_copies: Whether to leave out named test and validation images that are near-duplicates of training images,
            or share a group with one.

    Raises:
        InputError: There is no such color, or the number of pixels is not positive or is above `PILLOWS_LIMIT`.
    """

    ground: str = "white"
    most_pixels: int = MOST_PIXELS
    skip_bad: bool = False
    group: str | None = None
    drop_copies: bool = False

    def __post_init__(self) -> None:
        check_positive("number of pixels", self.most_pixels, at_most=PILLOWS_LIMIT)
        try:
            opaque = len(ImageColor.getrgb(self.ground)) == 3
        except (ValueError, AttributeError, TypeError):
            opaque = False
        if not opaque:
            raise InputError(f"unknown color {shown(self.ground)}: write white, black or #RRGGBB")

    @property
    def most_bytes(self) -> int:
        """The largest file that is read: the bytes that so many pixels take without compression."""
        return BYTES * self.most_pixels + 2**20


USUAL = Reading()


class Allowance:
    """Bytes of memory that threads take and give back; a thread that wants more than all of them waits to be alone.

    Args:
        size: How many bytes there are.
    """

    def __init__(self, size: int):
        self._size, self._taken, self._changed = size, 0, threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold `size` bytes."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


ALLOWANCE = Allowance(MEMORY)


def read_image(file: Path | BinaryIO, *, size: int, name: str | None = None, reading: Reading = USUAL) -> np.ndarray:
    """Return one image, uint8 of shape (3, size, size): its central square, resized.

    Args:
        file: Path or open file.
        size: Height and width in pixels.
        name: What the file is called in an error; its path if None.
        reading: How it is read.

    Raises:
        InputError: It cannot be decoded, has too many pixels, or is too small for the size.
    """
    try:
        return resized(read_square(file, size=size, reading=reading)[0], size)
    except InputError as error:
        raise InputError(f"{name or file} cannot be read as an image ({error}): repair or delete it") from None


def of_pillow(image: Image.Image) -> np.ndarray:
    """Return a Pillow image as uint8 of shape (channels, height, width), converted like images in files.

    More than 8 bits per channel are scaled by their range, and transparent images are placed on white.

    Raises:
        InputError: A value is not finite.
    """
    try:
        image = ImageOps.exif_transpose(image)
        image = Image.fromarray(_scaled(np.asarray(image))) if image.mode[0] in "IF" else image
    except ValueError as error:
        raise InputError(f"an image cannot be used ({error}): leave it out") from None
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.array(image.convert("L"))[None]
    return np.array(_rgb(image, USUAL.ground)).transpose(2, 0, 1)


def read_square(file: Path | BinaryIO, *, size: int, reading: Reading = USUAL) -> tuple[Image.Image, bool]:
    """Return the central square of an image in RGB, and whether the file has more than 8 bits per channel.

    A large JPEG is decoded at a fraction of its size at which the square still has sides of at least twice `size` and
    at least `REDUCED` pixels.

    Raises:
        InputError: It cannot be decoded, or has too many pixels; the message is the reason alone.
    """
    try:
        with Image.open(file, formats=FORMATS) as opened:
            width, height = opened.size
            opened.draft(None, (max(2 * size, REDUCED),) * 2)
            # A progressive JPEG is held whole before it is reduced.
            pixels = width * height if opened.info.get("progressive") else opened.width * opened.height
            if size > MOST_ENLARGED * min(width, height):
                least = -(-size // MOST_ENLARGED)
                needed = f"at size {size} at least {least} x {least} are needed"
                raise ValueError(f"it has {width} x {height} pixels: {needed}")
            if pixels <= reading.most_pixels:
                with ALLOWANCE.take(BYTES * pixels):
                    deep = opened.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in opened.tile)
                    image = _eight_bits(opened, file) if deep else opened
                    ImageOps.exif_transpose(image, in_place=True)
                    return _rgb(_central_square(image), reading.ground), deep
    except UnidentifiedImageError:
        raise InputError("its content is not an image in a supported format") from None
    except Image.DecompressionBombError:
        raise InputError(f"it has more than {PILLOWS_LIMIT:,} pixels") from None
    except Exception as error:  # a decoder can fail in any way on arbitrary bytes
        raise InputError(one_line(error)) from None
    raise InputError(
        f"it has {width} x {height} pixels, but at most {reading.most_pixels:,} are allowed, at {BYTES}"
        " bytes of memory each"
    )


def resized(square: Image.Image, size: int) -> np.ndarray:
    """Return a square image of mode RGB as uint8 of shape (3, size, size)."""
    if square.width != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1)


def _eight_bits(opened: Image.Image, file: Path | BinaryIO) -> Image.Image:
    """Return an image with more than 8 bits per channel, its values scaled by their range, with its metadata.

    Raises:
        ValueError: A value is not finite, or it is a color TIFF that uses few of its 16 bits.
    """
    if opened.format == "PNG" and opened.mode[0] not in "IF":  # Pillow would keep only its high bits
        content = file.read_bytes() if isinstance(file, Path) else _rewound(file).read()
        decoded = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
        channels = decoded.permute(1, 2, 0).numpy()
        colors = channels.shape[2] - 1 + channels.shape[2] % 2  # if the number of channels is even, the last is alpha
        scaled = _scaled(channels[:, :, :colors])
        image = Image.fromarray(scaled[:, :, 0] if colors == 1 else scaled)
        if channels.shape[2] > colors:
            image.putalpha(Image.fromarray((channels[:, :, colors] >> 8).astype(np.uint8)))
        image.info["exif"] = opened.info.get("exif", b"")
        return image
    ImageOps.exif_transpose(opened, in_place=True)
    if opened.mode[0] in "IF":
        return Image.fromarray(_scaled(np.asarray(opened)))
    # For other formats, only the high bits are available.
    if 0 < np.ptp(np.asarray(opened.convert("RGB")), axis=(0, 1)).max() < FEWEST_LEVELS:
        raise ValueError("its colors use few of their 16 bits: save it with 8 bits, or as PNG")
    return opened


def _rewound(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    return file


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return values as uint8, from 0 for the lowest to 255 for the highest; equal 16-bit values keep the high 8.

    Raises:
        ValueError: A value is not finite.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise ValueError("its values are not all finite")
    if low == high:
        return np.full(values.shape, int(np.clip(low, 0, 65_535)) >> 8, dtype=np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # through a table, which takes no memory
        return np.asarray(_scaled(np.arange(low, high + 1))[values - int(low)])
    shares = (values.astype(np.float32) - low) / (high - low)
    return np.asarray((shares * 255).round(), dtype=np.uint8)


def _central_square(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    return image.crop((left, top, left + shorter, top + shorter))


def _rgb(image: Image.Image, ground: str) -> Image.Image:
    """Return an image in RGB, placed on a ground if it is transparent."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
    return image.convert("RGB")
