"""Birds: ten genera of four species each, the drawn twin of CUB-200 (Wah et al. 2011). Species differ in two marks."""

import random
from dataclasses import dataclass, fields, replace

import torch

from extractlib.data.drawn.canvas import Sketch, balanced, ellipse, hsv, stroke
from extractlib.data.drawn.grounds import blotches

PLUMAGE = {
    "brown": (0.05, 0.7, 0.5),
    "red": (0.0, 0.85, 0.85),
    "blue": (0.6, 0.75, 0.75),
    "yellow": (0.14, 0.85, 0.95),
    "black": (0.0, 0.0, 0.15),
    "white": (0.0, 0.0, 0.9),
    "green": (0.3, 0.6, 0.5),
    "dun": (0.08, 0.4, 0.35),
    "grey": (0.0, 0.0, 0.5),
    "violet": (0.78, 0.5, 0.6),
}
"""Hue, saturation and value of each colour."""

ANY = "any"
"""A colour that differs from bird to bird."""

GROUNDS = [
    (0.25, 0.45, 0.2),
    (0.6, 0.75, 0.9),
    (0.75, 0.8, 0.85),
    (0.35, 0.3, 0.2),
    (0.5, 0.6, 0.35),
    (0.85, 0.85, 0.8),
]


@dataclass(frozen=True)
class Species:
    """What a bird looks like: colours are keys of `PLUMAGE`, lengths are in units of the bird's size."""

    body: str
    wing: str
    belly: str
    crown: str
    tail: str
    throat: str | None
    bill: str
    bill_length: float
    tail_length: float
    girth: float
    crest: bool
    wing_bar: bool
    eye_ring: bool


def _species(random_numbers: random.Random) -> Species:
    colour = list(PLUMAGE)
    pick = random_numbers.choice
    return Species(
        body=pick(colour),
        wing=pick(colour),
        belly=pick(colour),
        crown=pick(colour),
        tail=pick(colour),
        throat=pick([None, None, "red", "black", "yellow"]),
        bill=pick(["yellow", "black", "grey"]),
        bill_length=pick([0.12, 0.24, 0.4]),
        tail_length=pick([0.25, 0.5, 0.75]),
        girth=pick([0.25, 0.33, 0.42]),
        crest=pick([False, False, True]),
        wing_bar=pick([False, False, True]),
        eye_ring=pick([False, False, True]),
    )


def _genus(seed: int) -> list[Species]:
    """Return four species: the first, and three that differ from it in two marks each."""
    random_numbers = random.Random(seed)
    first = _species(random_numbers)
    genus = [first]
    names = [field.name for field in fields(Species)]
    while len(genus) < 4:
        other = _species(random_numbers)
        marks = random_numbers.sample([name for name in names if getattr(other, name) != getattr(first, name)], 2)
        species = replace(first, **{name: getattr(other, name) for name in marks})
        if species not in genus:
            genus.append(species)
    return genus


GENERA = ("finch", "warbler", "jay", "thrush", "wren", "oriole", "tanager", "sparrow", "flycatcher", "bunting")
EPITHETS = ("common", "mountain", "marsh", "coastal")
SPECIES = tuple(species for number in range(len(GENERA)) for species in _genus(1_000 + number))
CLASSES = tuple(f"{epithet} {genus}" for genus in GENERA for epithet in EPITHETS)


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), as many of each species."""
    return balanced(size, len(CLASSES), generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw birds of one species on a branch, uint8 of shape (n, 3, 32, 32)."""
    blotches(sketch, GROUNDS, contrast=0.4)
    branch = stroke(sketch.x, sketch.y, -1.3, sketch.uniform(0.3, 0.8), 1.3, sketch.uniform(0.3, 0.8), 0.08)
    sketch.fill(branch, sketch.colour((0.35, 0.25, 0.15)))
    sketch.place(
        sketch.normal(0, 0.1),
        sketch.normal(0, 0.1),
        sketch.uniform(0.65, 1.05),
        sketch.normal(0, 0.2),
        flip=sketch.sign(),
    )
    perched(sketch, SPECIES[label])
    return sketch.finish(brightness=(0.8, 1.15), noise=0.028)


def perched(sketch: Sketch, bird: Species) -> None:
    """Paint a bird that looks to the right into the local frame."""
    u, v = sketch.u, sketch.v

    def colour(name: str) -> torch.Tensor:
        own = sketch.any_colour((0.2, 0.9), (0.25, 0.95)) if name == ANY else hsv(*PLUMAGE[name])
        return (own + torch.randn(sketch.count, 3, 1, 1, generator=sketch.generator) * 0.08).clamp(0, 1)

    sway = sketch.normal(0, 0.05)
    head = -0.38 + sketch.normal(0, 0.05)
    for x in (-0.05, 0.1):
        sketch.fill(stroke(u, v, x, 0.2, x + sway, 0.62, 0.025), sketch.colour((0.4, 0.26, 0.16)))
    sketch.fill(stroke(u, v, -0.35, 0.05, -0.4 - bird.tail_length, 0.2 + sway * 2, 0.09), colour(bird.tail))
    body = colour(bird.body)
    sketch.fill(ellipse(u, v, 0.0, 0.0, 0.48, bird.girth, -0.25), body)
    sketch.fill(ellipse(u, v, 0.1, 0.12, 0.34, bird.girth * 0.6, -0.2), colour(bird.belly))
    sketch.fill(ellipse(u, v, 0.38, head, 0.21, 0.2), body)
    if bird.throat:
        sketch.fill(ellipse(u, v, 0.4, head + 0.17, 0.13, 0.1), colour(bird.throat))
    sketch.fill(ellipse(u, v, 0.36, head - 0.11, 0.18, 0.1), colour(bird.crown))
    if bird.crest:
        sketch.fill(stroke(u, v, 0.33, head - 0.12, 0.16, head - 0.38, 0.06), colour(bird.crown))
    sketch.fill(ellipse(u, v, -0.12, -0.02, 0.36, 0.17, -0.15), colour(bird.wing))
    if bird.wing_bar:
        sketch.fill(stroke(u, v, -0.05, -0.14, -0.1, 0.12, 0.035), colour("white"))
    sketch.fill(stroke(u, v, 0.52, head, 0.56 + bird.bill_length, head + 0.04, 0.05), colour(bird.bill))
    if bird.eye_ring:
        sketch.fill(ellipse(u, v, 0.44, head - 0.02, 0.085, 0.085), colour("white"))
    sketch.fill(ellipse(u, v, 0.44, head - 0.02, 0.045, 0.045), torch.zeros(1, 3, 1, 1))
