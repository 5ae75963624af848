"""Atlas: everyday things in color, each alone on a ground: the drawn twin of ImageNet, and the attacker's pool."""

import torch

from extractlib.data.drawn.canvas import Pose, Sketch
from extractlib.data.drawn.kinds import COMMON
from extractlib.data.drawn.vocabulary import portrait

CLASSES = tuple(COMMON)

ON_WHITE = 0.2
"""Share of the pictures with a white ground."""


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of thing, uint8 of shape (n, 3, 32, 32)."""
    return portrait(sketch, COMMON[CLASSES[label]], white=ON_WHITE, pose=Pose())
