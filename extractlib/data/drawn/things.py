"""Things: 81 kinds of single objects, mostly on white: the drawn twin of Caltech-256 (Griffin et al. 2007).

It overlaps with the attacker's pool: 45 of its kinds are drawn as the atlas draws them. The other 36 are its own, and
most of them are like one of those: a mug, an espresso cup, a teacup and a beer mug.
"""

import torch

from extractlib.data.drawn.canvas import Sketch, balanced
from extractlib.data.drawn.kinds import COMMON, OTHERS
from extractlib.data.drawn.vocabulary import Pose, portrait

KINDS = """
mug, espresso cup, teacup, beer mug, bucket, teapot, coffee pot, watering can, jug, vase, bottle, flask,
wine glass, goblet, hourglass, hammer, mallet, axe, spanner, spade, spoon, fork, knife, candle, key, scissors, pencil,
guitar, violin, cello, banjo, frying pan, drum, bell, lamp, umbrella, cap, bowler hat, top hat, sun hat, boot, sock,
shoe, high heel, shirt, tunic, dress, trousers, chair, stool, table, bed, armchair, sofa, book, envelope, present,
rucksack, laptop, television, oven, camera, telephone, apple, pear, peach, tomato, orange slice, lemon, pumpkin,
cupcake, ice cream, cookie, biscuit, button, clock, ladder, rabbit, teddy bear, penguin, owl
"""

FIGURES = {name: (COMMON | OTHERS)[name] for name in " ".join(KINDS.split()).split(", ")}

CLASSES = tuple(FIGURES)

ON_WHITE = 0.75
"""Share of the pictures with a white ground."""

FREE = Pose(smallest=0.33, shift=0.19, turn=0.5, shear=0.15, vary=0.045)


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), as many of each class."""
    return balanced(size, len(CLASSES), generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    return portrait(sketch, FIGURES[CLASSES[label]], white=ON_WHITE, pose=FREE)
