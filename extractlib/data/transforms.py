"""How an image was saved, resized or blurred on its way, and how another source would show it.

A transform of the first kind has a name: ``"none"``, ``"jpeg-75"`` and ``"webp-75"`` (saved at that quality and read
again), ``"bicubic"``, ``"bilinear"`` and ``"lanczos"`` (enlarged by a quarter with that filter and resized
back), ``"blur"`` (Gaussian, of half a pixel), ``"size-32"`` (resized to 32 pixels and back with the bicubic filter) and
``"chain-32"`` (the same, saved as JPEG while it is small). It changes an image's pixels but not what it shows.

`shift_domain` moves an image in its frame and changes its lighting. It neither resamples nor compresses, so a detector
cannot recognize the shifted images by how they were processed.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from extractlib.data.images import ImageSet, made_or_kept
from extractlib.errors import InputError
from extractlib.store import Store, digest
from extractlib.tensors import own_draws
from extractlib.versions import later, versions

FORMATS = ("jpeg", "webp")
FILTERS = ("bilinear", "bicubic", "lanczos")
CHAINS = ("size", "chain")
ENLARGED = 1.25
BLUR = 0.5
"""Standard deviation of the blur, in pixels."""

CHAIN_QUALITY = 75
"""Quality at which an image is saved in a chain."""

HARDENING = ("none", "jpeg", "resampling", "blur")
"""Each image of a hardened detector's training set goes through one of these."""

MOVED = 0.1
"""The farthest that a shifted image is moved in each direction, as a share of its size; the border is mirrored."""

LIGHT = 0.3
"""How far the brightness, contrast and saturation of a shifted image may be from 1."""

Step = Callable[[Image.Image], Image.Image]


def apply(images: torch.Tensor, name: str) -> torch.Tensor:
    """Return images after a transform.

    Args:
        images: uint8 of shape (n, 1 or 3, height, width).
        name: Name of the transform, or several in sequence, as in ``"size-32+jpeg-75"``.

    Raises:
        InputError: There is no such transform.
    """
    for one in name.split("+"):
        images = images if one == "none" else _each(images, repeat(_step(one), len(images)))
    return images


def apply_to_set(images: ImageSet, name: str) -> ImageSet:
    """Return a set after a transform; with ``"none"`` the set itself."""
    return images if name == "none" else _with(images, apply(images.images[:], name), name)


def harden(images: ImageSet, *, seed: int, smallest: int = 0) -> ImageSet:
    """Return a set in which each image went through one of `HARDENING`, drawn at random along with its strength.

    JPEG has a quality of 60 to 95; resampling enlarges by a factor of 1.1 to 1.5, with any of `FILTERS`, and resizes
    back; the blur is 0.2 to 0.8 pixels. WebP is left out: it stands for what a defender did not think of.

    Args:
        images: The set.
        seed: Seed of the draws.
        smallest: If above 0, resampling resizes an image to between this size and its own, and back; it enlarges none.
    """
    generator = np.random.default_rng([seed, *b"hardening"])
    kinds = generator.integers(len(HARDENING), size=len(images))
    steps = [_random_step(HARDENING[kind], generator, smallest, images.images.shape[-1]) for kind in kinds]
    below = f", from {smallest} pixels" if smallest else ""
    return _with(images, _each(images.images[:], steps), f"hardened with seed {seed}{below}")


def shift_domain(images: ImageSet, *, seed: int, strength: float = 1.0, store: Store | None = None) -> ImageSet:
    """Return the same images, each moved in its frame and shown in different lighting.

    Args:
        images: Any images that fit in memory.
        seed: Seed of the moves and of the lighting.
        strength: How strongly, in multiples of `MOVED` and `LIGHT`.
        store: Keeps them, memory-mapped; None to keep them only in memory.
    """
    stronger = () if strength == 1 else (str(strength),)
    fingerprint = digest(images.fingerprint, "shifted", str(seed), *stronger, *later(transform=1))

    def make() -> torch.Tensor:
        margins = [round(strength * MOVED * size) for size in images.image_shape[1:]]
        light = v2.ColorJitter(*[strength * LIGHT] * 3)
        with own_draws(torch.get_default_device(), seed=seed):
            return torch.stack([light(_moved(image, *margins)) for image in images.images[:]])

    pixels = made_or_kept(make, store, "shifted", {"images": fingerprint, "versions": versions("transform")})
    return replace(images, name=f"{images.name}/shifted", images=pixels, fingerprint=fingerprint)


def _step(name: str) -> Step:
    kind, _, quality = name.partition("-")
    if kind in FORMATS and quality.isdecimal() and 1 <= int(quality) <= 100:
        return partial(_saved, format=kind, quality=int(quality))
    if name in FILTERS:
        return partial(_resampled, filter=name, factor=ENLARGED)
    if name == "blur":
        return partial(_blurred, radius=BLUR)
    if kind in CHAINS and quality.isdecimal() and int(quality) > 0:
        return partial(_shrunk, size=int(quality), saved=kind == "chain")
    known = f"none, jpeg-75, webp-75, {', '.join(FILTERS)}, blur, size-32, chain-32"
    raise InputError(f"unknown transform {name!r}: use one of {known}")


def _random_step(kind: str, generator: np.random.Generator, smallest: int, size: int) -> Step:
    if kind == "jpeg":
        return partial(_saved, format="jpeg", quality=int(generator.integers(60, 96)))
    if kind == "resampling" and smallest:
        return partial(_shrunk, size=int(generator.integers(smallest, size + 1)), saved=False)
    if kind == "resampling":
        name = FILTERS[generator.integers(len(FILTERS))]
        return partial(_resampled, filter=name, factor=generator.uniform(1.1, 1.5))
    return partial(_blurred, radius=generator.uniform(0.2, 0.8)) if kind == "blur" else Image.Image.copy


def _saved(image: Image.Image, *, format: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, quality=quality)
    return Image.open(file).convert(image.mode)


def _resampled(image: Image.Image, *, filter: str, factor: float) -> Image.Image:
    resampling = Image.Resampling[filter.upper()]
    larger = (round(image.width * factor), round(image.height * factor))
    return image.resize(larger, resampling).resize(image.size, resampling)


def _shrunk(image: Image.Image, *, size: int, saved: bool) -> Image.Image:
    small = image.resize((size, size), Image.Resampling.BICUBIC)
    return (_saved(small, format="jpeg", quality=CHAIN_QUALITY) if saved else small).resize(
        image.size, Image.Resampling.BICUBIC
    )


def _blurred(image: Image.Image, *, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _moved(image: torch.Tensor, margin_y: int, margin_x: int) -> torch.Tensor:
    height, width = image.shape[-2:]
    down, right = (int(torch.randint(0, 2 * margin + 1, (1,))) for margin in (margin_y, margin_x))
    margins = (margin_x, margin_x, margin_y, margin_y)
    framed = F.pad(image[None].float(), margins, mode="reflect")[0].to(torch.uint8)
    return framed[:, down : down + height, right : right + width]


def _each(images: torch.Tensor, steps: Iterable[Step]) -> torch.Tensor:
    """Return each image after its own step."""
    pictures = map(to_pil_image, images)
    return torch.stack([pil_to_tensor(step(picture)) for picture, step in zip(pictures, steps, strict=True)])


def _with(images: ImageSet, pixels: torch.Tensor, name: str) -> ImageSet:
    fingerprint = digest(images.fingerprint, "processed", name, *later(transform=1))
    return replace(images, name=f"{images.name}, {name}", images=pixels, fingerprint=fingerprint)
