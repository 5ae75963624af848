"""The format between server and client: images and answers as bytes, none of which is ever unpickled."""

import base64
import binascii
import io
import json
import math
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image

from extractlib.api.granularity import DENIED, Answers, Granularity
from extractlib.data.pixels import read_image
from extractlib.errors import InputError, shown

NPY, JSON, PROBLEM = "application/x-npy", "application/json", "application/problem+json"
ENCODED = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
REQUEST_ID = re.compile(r"[!-~]{1,255}")
"""The ids that a request may have: those that every header and every database can hold."""

MOST_PIXELS = 2**24
"""Most pixels of an encoded image before it is resized."""

MOST_PIXELS_OF_A_REQUEST = 2**28
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
PARSING = threading.Lock()
"""Held while NumPy parses a header: in Python 3.11 threads that parse at the same time can fail (CPython's 106905)."""

ATTEMPTS = 9
"""How often a header is parsed: a traceback that is written to a log meanwhile parses too, and without the lock."""

SPARE = 100
"""More values than images that a body in JSON may have."""


class TooLarge(InputError):
    """There are too many images, or they are too large."""


def to_npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of an npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def from_npy(data: bytes) -> np.ndarray:
    """Return the array of an npy file, which shares its memory; its size is checked before anything is allocated.

    Raises:
        InputError: The bytes are not such a file, hold objects, or are more or fewer than the header says.
    """
    file = io.BytesIO(data)
    try:
        read_header = HEADERS[np.lib.format.read_magic(file)]
        for _ in range(ATTEMPTS):
            with PARSING, suppress(SystemError):
                shape, by_columns, dtype = read_header(file)
                break
            file.seek(np.lib.format.MAGIC_LEN)
        else:
            raise ValueError
        content = memoryview(data)[file.tell() :]
        if dtype.hasobject or min(shape, default=0) < 0 or len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError
        return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
    except Exception:  # a crafted header can fail in any way
        raise InputError("the body is not a complete npy file of numbers: send what numpy.save writes") from None


def images_from_npy(data: bytes) -> torch.Tensor:
    """Return uint8 images of any shape.

    Raises:
        InputError: The bytes are not an npy file, or are of another type.
    """
    array = from_npy(data)
    if array.dtype != np.uint8:
        raise InputError(f"the array is of type {array.dtype.str[:20]}: expected uint8")
    return torch.from_numpy(array.copy())


def images_from_files(files: Sequence[bytes], shape: tuple[int, ...] | None) -> torch.Tensor:
    """Return encoded images, cropped to their central squares and resized, uint8 of shape (n, 3, height, width).

    Raises:
        InputError: One is not an image, or the victim takes something other than square RGB images.
        TooLarge: One is larger than `MOST_PIXELS`, or all together are larger than `MOST_PIXELS_OF_A_REQUEST`.
    """
    if shape is None or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise InputError(f"the victim takes images of shape {shape}, not any picture: send one npy array")
    sizes = [_pixels(file, number) for number, file in enumerate(files)]
    if max(sizes, default=0) > MOST_PIXELS or sum(sizes) > MOST_PIXELS_OF_A_REQUEST:
        raise TooLarge(
            f"the largest image has {max(sizes):,} pixels and all together {sum(sizes):,}: at most {MOST_PIXELS:,} and"
            f" {MOST_PIXELS_OF_A_REQUEST:,} can be sent; resize them to {shape[2]} x {shape[1]}"
        )
    images = np.empty((len(files), *shape), np.uint8)
    for number, file in enumerate(files):
        images[number] = read_image(io.BytesIO(file), size=shape[1], name=f"image {number}")
    return torch.from_numpy(images)


def files_from_json(data: bytes, *, most: int) -> list[bytes]:
    """Return the encoded images of ``{"images": ["…", …]}``, each in base64.

    Raises:
        InputError: The bytes are not such JSON.
        TooLarge: There are more than `most`.
    """
    if data.count(b",") > most + SPARE:  # before they take many times their size as objects
        raise TooLarge(f"the request has {data.count(b',') + 1:,} values: send at most {most:,} images at a time")
    try:
        images = json.loads(data)["images"]
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise ValueError
        check_count(len(images), most)
        return [base64.b64decode(image, validate=True) for image in images]
    except TooLarge:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        raise InputError('the body is not {"images": [BASE64, …]}: send encoded images in base64') from None


def check_count(images: int, most: int) -> None:
    """Refuse more images than a request may have.

    Raises:
        TooLarge: There are more than `most`.
    """
    if images > most:
        raise TooLarge(f"the request has {images:,} images: send at most {most:,} at a time")


def answers_to_json(answers: Answers) -> dict[str, Any]:
    """Return answers in JSON types; the label of a denied answer is null, and its probabilities are zeros."""
    shown_parts = {"labels": [None if label == DENIED else label for label in answers.labels.tolist()]}
    if answers.classes is not None:
        shown_parts["classes"] = answers.classes.tolist()
    if answers.probabilities is not None:
        # Via text: the shortest number that means the same float32, so 0.3 and not 0.30000001192092896.
        shown_parts["probabilities"] = answers.probabilities.numpy().astype(str).astype(float).tolist()
    return shown_parts


def answers_from_json(said: dict[str, Any], granularity: Granularity, record: np.dtype) -> Answers:
    """Return the answers that `answers_to_json` was given.

    Raises:
        InputError: They do not show what the granularity shows.
    """
    try:
        labels = torch.tensor([DENIED if label is None else label for label in said["labels"]], dtype=torch.int64)
        classes = None if said.get("classes") is None else torch.tensor(said["classes"], dtype=torch.int64)
        numbers = said.get("probabilities")
        probabilities = None if numbers is None else torch.tensor(numbers, dtype=torch.float32)
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{shown(said)} are not answers of granularity {granularity}") from None
    return granularity.unpack(granularity.pack(Answers(labels, classes, probabilities), record))


def _pixels(file: bytes, number: int) -> int:
    """Return the number of pixels that an encoded image claims to have, before any is decoded."""
    try:
        with Image.open(io.BytesIO(file), formats=list(ENCODED.values())) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise TooLarge(f"image {number} has too many pixels: at most {MOST_PIXELS:,} can be used") from None
    except Exception:  # a decoder can fail on arbitrary bytes in any way
        raise InputError(f"image {number} is not a PNG, JPEG or WebP: send a complete file of one of these") from None
