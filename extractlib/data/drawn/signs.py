"""Signs: 43 traffic signs, the drawn twin of GTSRB (Stallkamp et al. 2012). They differ in shape, border and glyph."""

import math
from collections.abc import Callable, Mapping

import torch

from extractlib.data.drawn.canvas import Plane, Sketch, bitmap, box, polygon, stamp, stroke
from extractlib.data.drawn.grounds import blotches
from extractlib.data.drawn.tables import read_table

TABLE = read_table("signs")
"""Signs, kinds, glyphs and colors: see the file."""

CLASSES = tuple(name for name, *_ in TABLE["signs"])

PRIOR = [weight for *_, weight in TABLE["signs"]]
"""Weight of each class outside the test part: GTSRB's frequent and rare signs."""


def glyph(name: str) -> torch.Tensor:
    """Return the mark on a sign as a bitmap: digits for a number, else a glyph, which may be ``"mirrored ..."``."""
    if name.isdigit():
        digits = [TABLE["digits"][digit].split() for digit in name]
        return bitmap([".".join(rows) for rows in zip(*digits, strict=True)])
    mark = bitmap(TABLE["glyphs"][name.removeprefix("mirrored ")].split())
    return mark.flip(1) if name.startswith("mirrored ") else mark


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw signs of one class, uint8 of shape (n, 3, 32, 32), on a pole in front of a blotchy ground, in any light."""
    _, kind, mark, _ = TABLE["signs"][label]
    blotches(sketch, TABLE["grounds"], contrast=0.5)
    sketch.place(
        sketch.normal(0, 0.09),
        sketch.normal(0, 0.09),
        sketch.uniform(0.6, 0.95),
        sketch.normal(0, 0.09),
        shear=sketch.normal(0, 0.08),
        stretch=1 + sketch.uniform(-0.05, 0.25),
    )
    u, v = sketch.u, sketch.v
    sketch.fill(box(u, v, 0, 1.4, 0.06, 0.6), sketch.color((0.45, 0.45, 0.45)))
    for outline, size, color, *below in TABLE["kinds"][kind]:
        *rgb, jitter = TABLE["colors"][color]
        if outline == "mark":
            sketch.blend(stamp(glyph(mark), u, v, size, 0.0, *below), sketch.color(rgb, jitter))
        else:
            sketch.fill(OUTLINES[outline](u, v) - size, sketch.color(rgb, jitter))
    return sketch.finish(brightness=(0.3, 1.3), noise=0.05, blur=0.6)


def _disc(u: Plane, v: Plane) -> Plane:
    return torch.sqrt(u**2 + v**2)


def _slash(u: Plane, v: Plane) -> Plane:
    return torch.maximum(stroke(u, v, -0.6, 0.7, 0.6, -0.7, 0.09), _disc(u, v) - 0.9)


OUTLINES: Mapping[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "triangle": lambda u, v: polygon(u, v, 3, 0, 0.2, 1.2, math.pi / 2),
    "triangle on its tip": lambda u, v: polygon(u, v, 3, 0, -0.2, 1.2, -math.pi / 2),
    "octagon": lambda u, v: polygon(u, v, 8, 0, 0, 1.0, math.pi / 8),
    "diamond": lambda u, v: polygon(u, v, 4, 0, 0, 1.05),
    "bar": lambda u, v: box(u, v, 0, 0, 0.65, 0.17),
    "slash": _slash,
}
"""Signed distances of the shapes in a sign: the disc is a point, which its size turns into a disc."""
