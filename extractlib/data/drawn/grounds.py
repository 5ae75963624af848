"""What stands behind the drawn things."""

import math

import torch

from extractlib.data.drawn.canvas import Sketch, X, Y


def blotches(sketch: Sketch, palette, *, cells: int = 6, contrast: float = 0.35) -> None:
    """Fill the pictures with smooth blotches between two colours of `palette`, and a little coloured noise."""
    mixed = sketch.fade(sketch.noise(cells)[:, 0], sketch.pick(palette, 0.0), sketch.pick(palette, 0.0))
    sketch.backdrop(mixed + (sketch.noise(10, 3) - 0.5) * (contrast / 2))


def slope(sketch: Sketch, first: torch.Tensor, second: torch.Tensor) -> None:
    """Fill the pictures with a gradient from one colour to another, in any direction."""
    angle = sketch.uniform(0, 2 * math.pi)
    weight = ((torch.cos(angle) * X + torch.sin(angle) * Y) / 2 + 0.5).clamp(0, 1)
    sketch.backdrop(sketch.fade(weight, first, second))


def horizon(sketch: Sketch, above: torch.Tensor, below: torch.Tensor, *, at=(-0.4, 0.5)) -> torch.Tensor:
    """Fill the pictures with two flat colours that meet at a horizon, and return its height, shape (n, 1, 1)."""
    height = sketch.uniform(*at)
    weight = ((Y - height) * 16 + 0.5).clamp(0, 1)
    sketch.backdrop(sketch.fade(weight, above, below) + (sketch.noise(8) - 0.5) * 0.1)
    return height


def studio(sketch: Sketch) -> None:
    """Fill the pictures with nearly white paper, a little darker towards one side."""
    paper = sketch.colour((0.95, 0.95, 0.94), 0.02)
    slope(sketch, paper, paper * sketch.uniform(0.85, 1.0).unsqueeze(1))


def anywhere(sketch: Sketch, *, saturation: float = 0.65) -> None:
    """Fill the pictures with a gradient, blotches or a horizon, each about a third of the time."""
    low, high = (0.0, saturation), (0.35, 1.0)
    first, second = sketch.any_colour(low, high), sketch.any_colour(low, high)
    grain = sketch.noise(6)
    kind = sketch.uniform()
    height = sketch.uniform(-0.3, 0.6)
    angle = sketch.uniform(0, 2 * math.pi)
    gradient = ((torch.cos(angle) * X + torch.sin(angle) * Y) / 2 + 0.5).clamp(0, 1)
    skyline = ((Y - height) * 16 + 0.5).clamp(0, 1)
    weight = torch.where(kind < 0.35, gradient, torch.where(kind < 0.7, grain[:, 0], skyline))
    sketch.backdrop(sketch.fade(weight, first, second) + (grain - 0.5) * 0.16)


def studio_or_anywhere(sketch: Sketch, *, white: float) -> None:
    """Fill a share `white` of the pictures with paper, and the others with any ground."""
    anywhere(sketch)
    scene = sketch.image
    studio(sketch)
    sketch.image = torch.where(sketch.chance(white).unsqueeze(1) > 0, sketch.image, scene)
