"""Things: 100 kinds of single objects, half of them on white: the drawn twin of Caltech-256 (Griffin et al. 2007).

It overlaps with the attacker's pool: 84 of its kinds are drawn as in the atlas. The other 16 are its own, and most of
them resemble one of the 84: a mug, an espresso cup, a beer mug, and a teacup, which is not in the atlas.
The share is our choice, not a published figure: the paper says that Caltech-256 and ImageNet overlap.
"""

import torch

from extractlib.data.drawn.canvas import Pose, Sketch
from extractlib.data.drawn.kinds import COMMON, OTHERS
from extractlib.data.drawn.tables import read_table
from extractlib.data.drawn.vocabulary import portrait

FIGURES = COMMON | OTHERS

CLASSES = tuple(read_table("things")["kinds"])

ON_WHITE = 0.45
"""Share of the pictures with a white ground."""

SHIFT = 0.6
"""How far the shifted source is from this one: see `Sketch`."""

FREE = Pose(size=(0.33, 1.0), shift=(0.19, 0.19), turn=0.5, shear=0.15)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    return portrait(sketch, FIGURES[CLASSES[label]], white=ON_WHITE, pose=FREE, vary=0.045)
