"""Things: 72 kinds of single objects, often on white: the drawn twin of Caltech-256 (Griffin et al. 2007).

It overlaps with the attacker's pool: 42 of its kinds are drawn as the atlas draws them, 30 are its own.
"""

import torch

from extractlib.drawn.canvas import Sketch, balanced
from extractlib.drawn.kinds import COMMON, OTHERS
from extractlib.drawn.vocabulary import portrait

SHARED = """
mug, teapot, bottle, wine glass, hammer, key, scissors, umbrella, lamp, candle, chair, armchair, table, book, envelope,
telephone, laptop, television, guitar, drum, bell, crown, top hat, shirt, trousers, boot, sock, spectacles, rucksack,
hourglass, ladder, pear, apple, carrot, ice cream, cupcake, snail, spider, crab, turtle, rabbit, goldfish
"""

FIGURES = {name: COMMON[name] for name in SHARED.replace("\n", " ").strip().split(", ")} | OTHERS

CLASSES = tuple(FIGURES)

ON_WHITE = 0.75
"""Share of the pictures with a white ground."""


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), as many of each class."""
    return balanced(size, len(CLASSES), generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    return portrait(sketch, FIGURES[CLASSES[label]], white=ON_WHITE)
