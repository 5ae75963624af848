"""Things: 72 kinds of single objects, often on white: the drawn twin of Caltech-256 (Griffin et al. 2007).

It overlaps with the attacker's pool: 42 of its kinds are drawn as the atlas draws them, 30 are its own.
"""

import torch

from extractlib.drawn.canvas import Sketch, balanced
from extractlib.drawn.grounds import anywhere, studio
from extractlib.drawn.kinds import COMMON, OTHERS
from extractlib.drawn.vocabulary import paint

SHARED = """
mug, teapot, bottle, wine glass, hammer, key, scissors, umbrella, lamp, candle, chair, armchair, table, book, envelope,
telephone, laptop, television, guitar, drum, bell, crown, top hat, shirt, trousers, boot, sock, spectacles, rucksack,
hourglass, ladder, pear, apple, carrot, ice cream, cupcake, snail, spider, crab, turtle, rabbit, goldfish
"""

FIGURES = {name: COMMON[name] for name in SHARED.replace("\n", " ").strip().split(", ")} | OTHERS

CLASSES = tuple(FIGURES)

ON_WHITE = 0.6
"""Share of the pictures with a white ground."""


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), as many of each class."""
    return balanced(size, len(CLASSES), generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    anywhere(sketch)
    scene = sketch.image
    studio(sketch)
    sketch.image = torch.where(sketch.chance(ON_WHITE).unsqueeze(1) > 0, sketch.image, scene)
    sketch.place(
        sketch.normal(0, 0.15),
        sketch.normal(0, 0.15),
        sketch.uniform(0.4, 1.0),
        sketch.normal(0, 0.35),
        flip=sketch.sign(),
        shear=sketch.normal(0, 0.12),
        stretch=1 + sketch.normal(0, 0.14),
    )
    paint(sketch, FIGURES[CLASSES[label]], vary=0.05)
    return sketch.finish(brightness=(0.7, 1.15), noise=0.05, blur=0.6)
