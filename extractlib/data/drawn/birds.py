"""Birds: ten genera of four species each, the drawn twin of CUB-200 (Wah et al. 2011). Species differ in two marks."""

from dataclasses import dataclass

import torch

from extractlib.data.drawn.canvas import Pose, Sketch, ellipse, hsv, stroke
from extractlib.data.drawn.grounds import blotches, branch
from extractlib.data.drawn.tables import read_table

TABLE = read_table("birds")
"""Genera, plumage and grounds: see the file."""

ANY = "any"
"""A color that differs from bird to bird."""


@dataclass(frozen=True)
class Species:
    """What a bird looks like: colors are names of plumage or `ANY`, lengths are in units of the bird's size.

    A bird whose throat has no separate color has ``""`` there.
    """

    body: str
    wing: str
    belly: str
    crown: str
    tail: str
    throat: str
    bill: str
    bill_length: float
    tail_length: float
    girth: float
    crest: bool
    wing_bar: bool
    eye_ring: bool


SPECIES = {
    f"{epithet} {genus}": Species(**look["common"] | marks)
    for genus, look in TABLE["genera"].items()
    for epithet, marks in ({"common": {}} | look["others"]).items()
}

CLASSES = tuple(SPECIES)

SHIFT = 0.75
"""How far the shifted source is from this one: see `Sketch`."""

PERCHED = Pose(size=(0.65, 1.05), shift=(0.1, 0.1), turn=0.2, shear=0.0)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw birds of one species on a branch, uint8 of shape (n, 3, 32, 32)."""
    blotches(sketch, TABLE["grounds"], contrast=0.4)
    branch(sketch, (0.3, 0.8), 0.08, (0.35, 0.25, 0.15))
    sketch.pose(PERCHED)
    perched(sketch, SPECIES[CLASSES[label]])
    return sketch.finish(brightness=(0.8, 1.15), noise=0.028)


def perched(sketch: Sketch, bird: Species) -> None:
    """Paint a bird that looks to the right into the local frame."""
    u, v = sketch.u, sketch.v

    def color(name: str) -> torch.Tensor:
        own = sketch.any_color((0.2, 0.9), (0.25, 0.95)) if name == ANY else hsv(*TABLE["plumage"][name])
        return (own + torch.randn(sketch.count, 3, 1, 1, generator=sketch.generator) * 0.08).clamp(0, 1)

    sway = sketch.normal(0, 0.05)
    head = -0.38 + sketch.normal(0, 0.05)
    for x in (-0.05, 0.1):
        sketch.fill(stroke(u, v, x, 0.2, x + sway, 0.62, 0.025), sketch.color((0.4, 0.26, 0.16)))
    sketch.fill(stroke(u, v, -0.35, 0.05, -0.4 - bird.tail_length, 0.2 + sway * 2, 0.09), color(bird.tail))
    body = color(bird.body)
    sketch.fill(ellipse(u, v, 0.0, 0.0, 0.48, bird.girth, -0.25), body)
    sketch.fill(ellipse(u, v, 0.1, 0.12, 0.34, bird.girth * 0.6, -0.2), color(bird.belly))
    sketch.fill(ellipse(u, v, 0.38, head, 0.21, 0.2), body)
    if bird.throat:
        sketch.fill(ellipse(u, v, 0.4, head + 0.17, 0.13, 0.1), color(bird.throat))
    sketch.fill(ellipse(u, v, 0.36, head - 0.11, 0.18, 0.1), color(bird.crown))
    if bird.crest:
        sketch.fill(stroke(u, v, 0.33, head - 0.12, 0.16, head - 0.38, 0.06), color(bird.crown))
    sketch.fill(ellipse(u, v, -0.12, -0.02, 0.36, 0.17, -0.15), color(bird.wing))
    if bird.wing_bar:
        sketch.fill(stroke(u, v, -0.05, -0.14, -0.1, 0.12, 0.035), color("white"))
    sketch.fill(stroke(u, v, 0.52, head, 0.56 + bird.bill_length, head + 0.04, 0.05), color(bird.bill))
    if bird.eye_ring:
        sketch.fill(ellipse(u, v, 0.44, head - 0.02, 0.085, 0.085), color("white"))
    sketch.fill(ellipse(u, v, 0.44, head - 0.02, 0.045, 0.045), torch.zeros(1, 3, 1, 1))
