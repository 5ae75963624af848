"""Web: crowded pictures of several things in outline, as posters: the drawn twin of OpenImages.

A second pool of another hand than the atlas: other kinds, other mixture, another finish. The labels name the largest
thing; no attack sees them.
"""

import math

import torch

from extractlib.drawn.canvas import Sketch, X, Y, sampled
from extractlib.drawn.kinds import COMMON, OTHERS, SURFACES
from extractlib.drawn.vocabulary import paint, read_figures

FLAT = set(read_figures(SURFACES))
FIGURES = OTHERS | {name: figure for name, figure in COMMON.items() if name not in FLAT}

CLASSES = tuple(FIGURES)

PRIOR = [1 / math.sqrt(1 + place) for place in range(len(CLASSES))]
"""Weight of each kind: as on the web, a few are common and many are rare."""

PLACES = ((-0.45, -0.4), (0.45, 0.45), (0.5, -0.45), (-0.5, 0.5))


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), some kinds far more often than others."""
    return sampled(size, PRIOR, generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw pictures whose first thing is of one kind, uint8 of shape (n, 3, 32, 32)."""
    _poster(sketch)
    for number, (x, y) in enumerate(PLACES):
        kind = label if number == 0 else int(sketch.integer(len(CLASSES))[0])
        sketch.place(
            x + sketch.normal(0, 0.1),
            y + sketch.normal(0, 0.1),
            sketch.uniform(0.4, 0.6) if number == 0 else sketch.uniform(0.28, 0.5),
            sketch.normal(0, 0.5),
            flip=sketch.sign(),
        )
        present = 1.0 if number < 2 else sketch.chance(0.6)
        paint(sketch, FIGURES[CLASSES[kind]], outline=0.12, present=present)
    return sketch.finish(brightness=(0.85, 1.1), contrast=(0.95, 1.2), noise=0.015, blur=0.2)


def _poster(sketch: Sketch) -> None:
    """Fill the pictures with two or three flat bands of light colours, in any direction."""
    angle = sketch.uniform(0, 2 * math.pi)
    along = torch.cos(angle) * X + torch.sin(angle) * Y
    sketch.image = sketch.any_colour((0.1, 0.5), (0.75, 1.0)).expand(-1, -1, *along.shape[1:]).clone()
    for low, high in ((-0.3, 0.3), (0.3, 1.2)):
        band = ((along - sketch.uniform(low, high)) * 16 + 0.5).clamp(0, 1)
        sketch.blend(band, sketch.any_colour((0.1, 0.6), (0.7, 1.0)))
