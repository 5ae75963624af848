"""How an image was saved, resized or blurred on its way: what changes its pixels and not what it shows.

A processing has a name: ``"none"``, ``"jpeg-75"`` and ``"webp-75"`` (saved at that quality and read again),
``"bicubic"``, ``"bilinear"`` and ``"lanczos"`` (enlarged by a quarter with that filter and brought back), ``"blur"``
(Gaussian, of half a pixel).
"""

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter

from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.store import digest

FORMATS = ("jpeg", "webp")
FILTERS = ("bilinear", "bicubic", "lanczos")
ENLARGED = 1.25
BLUR = 0.5
"""Standard deviation of the blur, in pixels."""

HARDENING = ("none", "jpeg", "resampling", "blur")
"""What each image of a hardened detector's training set goes through one of."""

Step = Callable[[Image.Image], Image.Image]


def processed(images: torch.Tensor, how: str) -> torch.Tensor:
    """Return images after a processing.

    Args:
        images: uint8 of shape (n, 3, height, width).
        how: Name of the processing.

    Raises:
        InputError: There is no such processing.
    """
    step = _step(how)
    return images if step is None else _each(images, lambda number: step)


def processed_set(images: ImageSet, how: str) -> ImageSet:
    """Return a set after a processing; with ``"none"`` the set itself."""
    if how == "none":
        return images
    return _with(images, processed(images.images[:], how), how)


def hardened_set(images: ImageSet, *, seed: int) -> ImageSet:
    """Return a set each image of which went through one of `HARDENING`, drawn at random with its strength.

    JPEG of quality 60 to 95; enlarged by a factor of 1.1 to 1.5, with any of `FILTERS`, and brought back; blurred by
    0.2 to 0.8 pixels. WebP is left out: it stands for what a defender did not think of.
    """
    generator = np.random.default_rng([seed, *b"hardening"])
    steps = [_drawn(HARDENING[kind], generator) for kind in generator.integers(len(HARDENING), size=len(images))]
    return _with(images, _each(images.images[:], steps.__getitem__), f"hardened with seed {seed}")


def _drawn(kind: str, generator: np.random.Generator) -> Step | None:
    if kind == "jpeg":
        return partial(_saved, format="jpeg", quality=int(generator.integers(60, 96)))
    if kind == "resampling":
        name = FILTERS[generator.integers(len(FILTERS))]
        return partial(_there_and_back, filter=name, factor=generator.uniform(1.1, 1.5))
    return partial(_blurred, radius=generator.uniform(0.2, 0.8)) if kind == "blur" else None


def _step(how: str) -> Step | None:
    kind, _, quality = how.partition("-")
    if kind in FORMATS and quality.isdecimal() and 1 <= int(quality) <= 100:
        return partial(_saved, format=kind, quality=int(quality))
    if how in FILTERS:
        return partial(_there_and_back, filter=how, factor=ENLARGED)
    if how == "blur":
        return partial(_blurred, radius=BLUR)
    if how == "none":
        return None
    raise InputError(f"unknown processing {how!r}: use one of none, jpeg-75, webp-75, {', '.join(FILTERS)}, blur")


def _saved(image: Image.Image, *, format: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, quality=quality)
    return Image.open(file).convert("RGB")


def _there_and_back(image: Image.Image, *, filter: str, factor: float) -> Image.Image:
    resampling = Image.Resampling[filter.upper()]
    larger = tuple(round(side * factor) for side in image.size)
    return image.resize(larger, resampling).resize(image.size, resampling)


def _blurred(image: Image.Image, *, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _each(images: torch.Tensor, step_of: Callable[[int], Step | None]) -> torch.Tensor:
    done = np.empty(tuple(images.shape), np.uint8)
    for number, image in enumerate(images.numpy()):
        step = step_of(number)
        pixels = image.transpose(1, 2, 0)
        done[number] = (np.asarray(step(Image.fromarray(pixels))) if step else pixels).transpose(2, 0, 1)
    return torch.from_numpy(done)


def _with(images: ImageSet, pixels: torch.Tensor, how: str) -> ImageSet:
    return replace(
        images, name=f"{images.name}, {how}", images=pixels, fingerprint=digest(images.fingerprint, "processed", how)
    )
