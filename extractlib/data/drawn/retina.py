"""Retina: photographs of the back of the eye, graded 0 to 4: the drawn twin of Diabetic5 (Kaggle 2015).

The number of red dots, yellow spots and hemorrhages follows an eye's severity, which is drawn around its grade: grades
are read with an error, like a physician's, so no classifier can get all of them right.
"""

import math

import torch
from torch import Tensor

from extractlib.data.drawn.canvas import Sketch, hsv, stroke

CLASSES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")

PRIOR = (0.35, 0.2, 0.2, 0.13, 0.12)
"""Weight of each grade outside the test part, where healthy eyes are the most frequent."""

READING_ERROR = 0.42
"""Standard deviation of the true severity around the grade."""


def draw(label: int, sketch: Sketch) -> Tensor:
    """Draw eyes of one grade, uint8 of shape (n, 3, 32, 32)."""
    severity = label + sketch.normal(0, READING_ERROR)
    x, y = sketch.normal(0, 0.04), sketch.normal(0, 0.04)
    radius = torch.sqrt((sketch.x - x) ** 2 + (sketch.y - y) ** 2)
    side = sketch.sign()
    tissue = hsv(sketch.uniform(0.03, 0.075), sketch.uniform(0.6, 0.85), sketch.uniform(0.5, 0.85))
    sketch.image = tissue * (1.1 - 0.35 * radius**2).unsqueeze(1) + 0.1 * (sketch.noise(5) - 0.5)
    nerve_x, nerve_y = x + side * sketch.uniform(0.35, 0.5), y + sketch.normal(0, 0.06)
    _vessels(sketch, nerve_x, nerve_y, side, tissue * 0.55)
    macula = torch.sqrt((sketch.x - x + side * 0.15) ** 2 + (sketch.y - y) ** 2) - 0.2
    sketch.fill(macula, tissue * 0.6, opacity=0.5, softness=6)
    nerve = torch.sqrt((sketch.x - nerve_x) ** 2 + (sketch.y - nerve_y) ** 2) - 0.13
    sketch.fill(nerve, hsv(0.13, 0.35, 0.95), softness=2)
    _spots(sketch, x, y, severity * 2, most=9, size=0.045, color=tissue * 0.35, opacity=0.9)
    yellow = sketch.color((0.95, 0.85, 0.45))
    _spots(sketch, x, y, (severity - 1.5) * 2, most=6, size=0.06, color=yellow, opacity=0.85)
    _spots(sketch, x, y, (severity - 2.6) * 1.6, most=3, size=0.13, color=tissue * 0.3, opacity=0.85)
    sketch.image = sketch.mask(radius - sketch.uniform(0.88, 1.02)).unsqueeze(1) * sketch.image + 0.02
    return sketch.finish(brightness=(0.7, 1.2), noise=0.025, blur=0.3)


def _vessels(sketch: Sketch, x: Tensor, y: Tensor, side: Tensor, color: Tensor) -> None:
    """Draw four vessels that leave the nerve at (x, y), each of two straight pieces."""
    for up in (-1, 1):
        for along, across in ((0.45, 0.55), (-0.1, 0.75)):
            start = x, y
            for bend in (1.0, 0.6):
                end_x = start[0] - side * (along * 0.5 + 0.1) + sketch.normal(0, 0.07)
                end_y = start[1] + up * across * 0.5 * bend + sketch.normal(0, 0.06)
                sketch.fill(stroke(sketch.x, sketch.y, *start, end_x, end_y, 0.018), color, opacity=0.65)
                start = end_x, end_y


def _spots(
    sketch: Sketch, x: Tensor, y: Tensor, count: Tensor, *, most: int, size: float, color: Tensor, opacity: float
) -> None:
    """Draw about `count` round spots of radius about `size` between 0.15 and 0.8 from the center (x, y)."""
    for number in range(most):
        present = (torch.sigmoid((count - number - 0.5) * 8) > sketch.uniform()).float()
        angle, distance = sketch.uniform(0, 2 * math.pi), sketch.uniform(0.15, 0.8)
        center_x, center_y = x + distance * torch.cos(angle), y + distance * torch.sin(angle)
        spot = torch.sqrt((sketch.x - center_x) ** 2 + (sketch.y - center_y) ** 2) - size * sketch.uniform(0.7, 1.3)
        sketch.fill(spot, color, opacity=present * opacity)
