"""Web: crowded posters of several things in outline: the drawn twin of OpenImages.

A second pool in another style than the atlas: things are grouped by theme, on flat bands of color. The label of a
picture is its theme; no attack sees it.
"""

import math

import torch

from extractlib.data.drawn.canvas import Pose, Sketch, X, Y
from extractlib.data.drawn.kinds import COMMON, OTHERS
from extractlib.data.drawn.tables import read_table
from extractlib.data.drawn.vocabulary import paint

THEMES = read_table("web")["themes"]
"""The things of each theme."""

FIGURES = COMMON | OTHERS

CLASSES = tuple(THEMES)

PRIOR = [1 / math.sqrt(1 + place) for place in range(len(CLASSES))]
"""Weight of each theme: as on the web, a few are common and others rarer."""

PLACES = torch.tensor([(-0.46, -0.44), (0.46, 0.44), (0.46, -0.44), (-0.46, 0.44)])
"""Centers of the four things in a picture; the last two things may be missing."""

SMALL = Pose(size=(0.4, 0.58), shift=(0.07, 0.07), turn=0.3, shear=0.0)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw two to four things of one theme, each in a different place, uint8 of shape (n, 3, 32, 32)."""
    _poster(sketch)
    things = THEMES[CLASSES[label]]
    chosen = torch.randperm(len(things), generator=sketch.generator)[: len(PLACES)].tolist()
    seats = PLACES[torch.rand(sketch.count, len(PLACES), generator=sketch.generator).argsort(1)]
    for number, thing in enumerate(chosen):
        x, y = seats[:, number].T.reshape(2, -1, 1, 1)
        sketch.pose(SMALL, x, y)
        present = 1.0 if number < 2 else sketch.chance(0.7)
        paint(sketch, FIGURES[things[thing]], outline=0.14, present=present)
    return sketch.finish(brightness=(0.9, 1.1), contrast=(0.95, 1.2), noise=0.015, blur=0.2)


def _poster(sketch: Sketch) -> None:
    """Fill the pictures with two or three flat bands of light colors, in any direction."""
    angle = sketch.uniform(0, 2 * math.pi)
    along = torch.cos(angle) * X + torch.sin(angle) * Y
    sketch.image = sketch.any_color((0.1, 0.5), (0.75, 1.0)).expand(-1, -1, *along.shape[1:]).clone()
    for low, high in ((-0.3, 0.3), (0.3, 1.2)):
        band = ((along - sketch.uniform(low, high)) * 16 + 0.5).clamp(0, 1)
        sketch.blend(band, sketch.any_color((0.1, 0.6), (0.7, 1.0)))
