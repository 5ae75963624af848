"""The grounds behind the drawn things."""

import math
from collections.abc import Sequence

import torch

from extractlib.data.drawn.canvas import Sketch, X, Y, stroke


def blotches(sketch: Sketch, palette: Sequence[Sequence[float]], *, cells: int = 6, contrast: float = 0.35) -> None:
    """Fill the pictures with smooth blotches between two colors of `palette`, and a little colored noise."""
    mixed = sketch.fade(sketch.noise(cells)[:, 0], sketch.pick(palette, 0.0), sketch.pick(palette, 0.0))
    sketch.backdrop(mixed + (sketch.noise(10, 3) - 0.5) * (contrast / 2))


def horizon(sketch: Sketch, above: torch.Tensor, below: torch.Tensor, *, at: tuple[float, float]) -> None:
    """Fill the pictures with two flat colors that meet at a horizon, at a height within the range `at`."""
    weight = _ramp(Y - sketch.uniform(*at), 16)
    sketch.backdrop(sketch.fade(weight, above, below) + (sketch.noise(8) - 0.5) * 0.1)


def branch(sketch: Sketch, heights: tuple[float, float], width: float, rgb: tuple[float, float, float]) -> None:
    """Paint a branch across the pictures; its two ends are at heights within a range, `width` is its half-width."""
    shape = stroke(sketch.x, sketch.y, -1.3, sketch.uniform(*heights), 1.3, sketch.uniform(*heights), width)
    sketch.fill(shape, sketch.color(rgb))


def studio_or_anywhere(sketch: Sketch, *, white: float) -> None:
    """Fill a share `white` of the pictures with paper, and the others with any ground."""
    anywhere(sketch)
    scene = sketch.image
    _studio(sketch)
    sketch.image = torch.where(sketch.chance(white).unsqueeze(1) > 0, sketch.image, scene)


def _studio(sketch: Sketch) -> None:
    """Fill the pictures with nearly white paper, a little darker toward one side."""
    paper = sketch.color((0.95, 0.95, 0.94), 0.02)
    shade = paper * sketch.uniform(0.85, 1.0).unsqueeze(1)
    sketch.backdrop(sketch.fade(_gradient(sketch), paper, shade))


def anywhere(sketch: Sketch) -> None:
    """Fill the pictures with a gradient, blotches or a horizon, each about a third of the time."""
    first, second = (sketch.any_color((0.0, 0.65), (0.35, 1.0)) for _ in range(2))
    grain, kind = sketch.noise(6), sketch.uniform()
    skyline = _ramp(Y - sketch.uniform(-0.3, 0.6), 16)
    weight = torch.where(kind < 0.35, _gradient(sketch), torch.where(kind < 0.7, grain[:, 0], skyline))
    sketch.backdrop(sketch.fade(weight, first, second) + (grain - 0.5) * 0.16)


def _gradient(sketch: Sketch) -> torch.Tensor:
    """Return a weight that rises from 0 to 1 across the pictures, in any direction, shape (n, 32, 32)."""
    angle = sketch.uniform(0, 2 * math.pi)
    return _ramp(torch.cos(angle) * X + torch.sin(angle) * Y, 0.5)


def _ramp(along: torch.Tensor, steepness: float) -> torch.Tensor:
    """Return a weight in [0, 1] that is one half where `along` is 0."""
    return (along * steepness + 0.5).clamp(0, 1)
