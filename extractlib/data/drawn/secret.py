"""A task known only to those who hold its secret: signs whose shapes, colors and marks follow from 128 bits.

The program is public, but its output is not: what the classes look like, and which label each has, follows from the
secret alone. So drawing images with this program reveals nothing about a task with another secret.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from extractlib.data.drawn.canvas import Sketch, bitmap, box, draw_by_class, polygon, seed_from, stamp, star
from extractlib.data.drawn.grounds import blotches
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.store import digest
from extractlib.versions import VERSIONS

SECRET_BYTES = 16
MOST_CLASSES = 100

ALIKE = 4
"""Number of classes that differ only in their marks."""

Rgb = tuple[float, float, float]

OUTLINES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "disc": lambda u, v: torch.sqrt(u**2 + v**2) - 0.95,
    "triangle": lambda u, v: polygon(u, v, 3, 0, 0.2, 1.2, math.pi / 2),
    "triangle on its tip": lambda u, v: polygon(u, v, 3, 0, -0.2, 1.2, -math.pi / 2),
    "square": lambda u, v: box(u, v, 0, 0, 0.85, 0.85),
    "diamond": lambda u, v: polygon(u, v, 4, 0, 0, 1.1),
    "pentagon": lambda u, v: polygon(u, v, 5, 0, 0, 1.05, math.pi / 2),
    "octagon": lambda u, v: polygon(u, v, 8, 0, 0, 1.0, math.pi / 8),
    "upright": lambda u, v: box(u, v, 0, 0, 0.6, 0.95),
    "flat": lambda u, v: box(u, v, 0, 0, 0.95, 0.6),
    "star": lambda u, v: star(u, v, 6, 0, 0, 1.05, 0.14),
}
"""Signed distances of the shapes that a sign may have."""


@dataclass(frozen=True)
class Design:
    """What the signs of one class look like.

    Attributes:
        outline: One of `OUTLINES`.
        edge, face, ink: Colors of the border, of the inside and of the mark: red, green and blue in [0, 1].
        rows: The mark, a bitmap as rows of text.
    """

    outline: str
    edge: Rgb
    face: Rgb
    ink: Rgb
    rows: tuple[str, ...]


@dataclass(frozen=True)
class SecretTask:
    """The task that follows from a secret.

    Classes come in fours that share everything but their marks, so the shape alone does not distinguish them.

    Attributes:
        secret: 16 random bytes.
        count: Number of classes.

    Raises:
        InputError: The secret has another length, or there are fewer than 2 or more than 100 classes.
    """

    secret: bytes = field(repr=False)
    count: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes) or len(self.secret) != SECRET_BYTES:
            raise InputError(f"the secret is not {SECRET_BYTES} bytes: make one with secrets.token_bytes")
        if not 2 <= self.count <= MOST_CLASSES:
            raise InputError(f"{self.count} classes: expected 2 to {MOST_CLASSES}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that reveal nothing."""
        return tuple(f"class {number}" for number in range(self.count))

    @cached_property
    def designs(self) -> tuple[Design, ...]:
        """What each class looks like."""
        draw = np.random.default_rng(list(self.secret))  # seeded with all 128 bits
        outlines: list[str] = []
        designs: list[Design] = []
        while len(designs) < self.count:
            outlines = outlines or draw.permutation(list(OUTLINES)).tolist()
            outline, edge, (face, ink) = outlines.pop(), _color(draw, 0.2, 0.9), _contrast(draw)
            for _ in range(min(ALIKE, self.count - len(designs))):
                designs.append(Design(outline, edge, face, ink, _mark(draw, {design.rows for design in designs})))
        return tuple(designs[number] for number in draw.permutation(self.count))

    def draw(self, part: str, size: int) -> ImageSet:
        """Return labeled images of a part, uint8 of shape (size, 3, 32, 32), with all classes equally often.

        Args:
            part: Any name: parts with different names share no pictures.
            size: How many, from 1.
        """
        seed = seed_from("secret", self.secret, part)
        generator = torch.Generator().manual_seed(seed)
        labels = (torch.arange(size) % self.count)[torch.randperm(size, generator=generator)]
        images = draw_by_class(labels, lambda label, sketch: _draw(self.designs[label], sketch), seed=seed)
        made_of = digest("secret", str(VERSIONS["drawn"]), self.secret, part, str(size), str(self.count))
        return ImageSet(f"secret/{part}", images, labels, self.classes, made_of)


def _draw(design: Design, sketch: Sketch) -> torch.Tensor:
    """Draw signs of one design in front of a blotchy ground, in any light, uint8 of shape (n, 3, 32, 32)."""
    blotches(sketch, [(0.3, 0.4, 0.25), (0.6, 0.7, 0.85), (0.5, 0.5, 0.5), (0.35, 0.3, 0.25), (0.8, 0.85, 0.9)])
    sketch.place(
        sketch.normal(0, 0.1),
        sketch.normal(0, 0.1),
        sketch.uniform(0.45, 0.9),
        sketch.normal(0, 0.12),
        shear=sketch.normal(0, 0.08),
        stretch=1 + sketch.uniform(-0.1, 0.2),
    )
    distance = OUTLINES[design.outline](sketch.u, sketch.v)
    sketch.fill(distance, sketch.color(design.edge, 0.09))
    sketch.fill(distance + 0.2, sketch.color(design.face, 0.09))
    sketch.blend(stamp(bitmap(list(design.rows)), sketch.u, sketch.v, 0.5), sketch.color(design.ink, 0.09))
    return sketch.finish(brightness=(0.35, 1.25), noise=0.1, blur=0.9)


def _color(draw: np.random.Generator, low: float, high: float) -> Rgb:
    red, green, blue = draw.uniform(low, high, 3)
    return float(red), float(green), float(blue)


def _contrast(draw: np.random.Generator) -> tuple[Rgb, Rgb]:
    """Return a light and a dark color, or a dark and a light one."""
    light, dark = _color(draw, 0.6, 1.0), _color(draw, 0.0, 0.35)
    return (light, dark) if draw.integers(2) else (dark, light)


def _mark(draw: np.random.Generator, others: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return a 5 x 5 bitmap, the same left and right, that differs from all others."""
    while True:
        left = draw.integers(2, size=(5, 3))
        whole = np.concatenate([left, left[:, 1::-1]], 1)
        rows = tuple("".join("#" if dot else "." for dot in row) for row in whole.tolist())
        if 8 <= whole.sum() <= 17 and rows not in others:
            return rows
