"""Atlas: everyday things in colour, each alone on a ground: the drawn twin of ImageNet, and the attacker's pool."""

import torch

from extractlib.drawn.canvas import Sketch, balanced
from extractlib.drawn.grounds import anywhere
from extractlib.drawn.kinds import COMMON
from extractlib.drawn.vocabulary import paint

CLASSES = tuple(COMMON)


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), as many of each class."""
    return balanced(size, len(CLASSES), generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    anywhere(sketch)
    sketch.place(
        sketch.normal(0, 0.14),
        sketch.normal(0, 0.14),
        sketch.uniform(0.55, 1.0),
        sketch.normal(0, 0.2),
        flip=sketch.sign(),
        shear=sketch.normal(0, 0.08),
        stretch=1 + sketch.normal(0, 0.1),
    )
    paint(sketch, COMMON[CLASSES[label]])
    return sketch.finish()
