"""The vocabulary of everyday things that `atlas`, `things` and `web` are drawn with.

A figure is a line of parts, painted one after the other; a part is a shape, its numbers and a colour:

    mug = white red blue: ring .45 .05 .24 .08 main; box 0 .05 .42 .5 main; ellipse 0 -.45 .42 .1 dark

Before the colon stand the colours that ``main`` may be; ``second`` is another of them, ``dark`` and ``light`` are
shades of main. A ``+`` keeps a shape within the last one that has none. Coordinates run from -1 to 1, x to the right
and y down. A long figure goes on in the next line, after a semicolon.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from extractlib.data.drawn.canvas import Sketch, box, ellipse, polygon, star, stroke, turn
from extractlib.data.drawn.grounds import studio_or_anywhere

COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "orange": (0.95, 0.55, 0.15),
    "yellow": (0.95, 0.85, 0.25),
    "green": (0.3, 0.65, 0.25),
    "lime": (0.6, 0.8, 0.3),
    "teal": (0.15, 0.6, 0.6),
    "blue": (0.2, 0.4, 0.85),
    "sky": (0.55, 0.78, 0.95),
    "violet": (0.55, 0.3, 0.7),
    "pink": (0.95, 0.6, 0.72),
    "brown": (0.5, 0.32, 0.18),
    "tan": (0.82, 0.65, 0.42),
    "cream": (0.97, 0.92, 0.78),
    "white": (0.96, 0.96, 0.96),
    "silver": (0.75, 0.77, 0.8),
    "grey": (0.5, 0.5, 0.52),
    "slate": (0.32, 0.36, 0.42),
    "black": (0.1, 0.1, 0.11),
    "gold": (0.85, 0.68, 0.22),
    "navy": (0.12, 0.18, 0.42),
    "maroon": (0.5, 0.1, 0.16),
}


LINE_COLOUR = torch.full((1, 3, 1, 1), 0.12)


@dataclass(frozen=True)
class Part:
    """A shape or pattern, its numbers, the name of its colour, and whether it stays within the shape before it."""

    shape: str
    numbers: tuple[float, ...]
    colour: str
    angle: float = 0.0
    within: bool = False


@dataclass(frozen=True)
class Figure:
    """A thing: the colours its main colour may be, and its parts in the order of painting."""

    palette: tuple[str, ...]
    parts: tuple[Part, ...]


def read_figures(*texts: str) -> dict[str, Figure]:
    """Return the figures of texts in the form that the head of this module shows, by name."""
    figures = {}
    joined = "\n".join(texts).replace(";\n   ", ";")
    for line in filter(None, joined.splitlines()):
        name, _, body = line.partition(" = ")
        palette, _, parts = body.partition(": ")
        figures[name] = Figure(tuple(palette.split()), tuple(_read_part(part) for part in parts.split("; ")))
    return figures


def _read_part(text: str) -> Part:
    shape, *words = text.split()
    colour = next(word for word in words if word.isalpha())
    place = words.index(colour)
    angle = float(words[place + 1]) if words[place + 1 :] else 0.0
    return Part(shape.removeprefix("+"), tuple(map(float, words[:place])), colour, angle, shape.startswith("+"))


def paint(sketch: Sketch, figure: Figure, *, outline: float = 0.0, ink=1.0, vary: float = 0.03, present=1.0) -> None:
    """Paint a figure into the sketch's local frame.

    Args:
        sketch: The pictures.
        figure: What to paint.
        outline: Width of a dark line round the figure; 0 for none.
        ink: Opacity of that line.
        vary: Standard deviation of each part's place.
        present: 1.0, or a tensor of shape (n, 1, 1) that is 0 where the figure is left out.
    """
    colours = _palette(sketch, figure)
    layers, inside, silhouette = [], None, None
    for part in figure.parts:
        if part.shape in PATTERNS:
            mask = inside * PATTERNS[part.shape](sketch.u, sketch.v, *part.numbers)
        elif part.shape == "dots":
            mask = inside * _dots(sketch, *part.numbers)
        else:
            distance = _distance(sketch, part, vary)
            mask = sketch.mask(distance) * (inside if part.within else 1.0)
            if not part.within:
                inside = mask
                silhouette = distance if silhouette is None else torch.minimum(silhouette, distance)
        colour = colours[part.colour] if part.colour in colours else sketch.colour(COLOURS[part.colour], 0.05)
        layers.append((mask, colour))
    if outline:
        sketch.fill(silhouette - outline, LINE_COLOUR, opacity=torch.as_tensor(ink * present))
    for mask, colour in layers:
        sketch.blend(mask * present, colour)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How freely a photographer frames a thing: standard deviations, and the smallest size.

    Attributes:
        smallest: Least size of the thing; the largest is 1, which fills the picture.
        shift: Of its place, in picture coordinates.
        turn: Of its angle, in radians.
        shear: Of its slant and of its width.
        vary: Of the place of each of its parts, in its own coordinates.
    """

    smallest: float = 0.55
    shift: float = 0.14
    turn: float = 0.22
    shear: float = 0.1
    vary: float = 0.03


def portrait(sketch: Sketch, figure: Figure, *, white: float, pose: Pose) -> torch.Tensor:
    """Draw one thing alone: some on white paper, the others where they were found.

    Args:
        sketch: The pictures.
        figure: The thing.
        white: Share of the pictures with a white ground.
        pose: How freely it is framed.

    Returns:
        The pictures, uint8 of shape (n, 3, 32, 32).
    """
    studio_or_anywhere(sketch, white=white)
    sketch.place(
        sketch.normal(0, pose.shift),
        sketch.normal(0, pose.shift),
        sketch.uniform(pose.smallest, 1.0),
        sketch.normal(0, pose.turn),
        flip=sketch.sign(),
        shear=sketch.normal(0, pose.shear),
        stretch=1 + sketch.normal(0, pose.shear),
    )
    paint(sketch, figure, outline=0.07, ink=0.45, vary=pose.vary)
    return sketch.finish(brightness=(0.8, 1.12), contrast=(0.85, 1.1), noise=0.024, blur=0.45)


def _distance(sketch: Sketch, part: Part, vary: float) -> torch.Tensor:
    u, v = sketch.u + sketch.normal(0, vary), sketch.v + sketch.normal(0, vary)
    return SHAPES[part.shape](u, v, *part.numbers, *([part.angle] if part.angle else []))


def _palette(sketch: Sketch, figure: Figure) -> dict[str, torch.Tensor]:
    table = torch.tensor([COLOURS[name] for name in figure.palette])
    chosen = sketch.integer(len(table))
    step = torch.randint(1, max(2, len(table)), (sketch.count,), generator=sketch.generator)
    shift = torch.randn(sketch.count, 3, 1, 1, generator=sketch.generator) * 0.07
    main = (table[chosen].view(-1, 3, 1, 1) + shift).clamp(0, 1)
    second = table[(chosen + step) % len(table)].view(-1, 3, 1, 1)
    second = torch.where((chosen == (chosen + step) % len(table)).view(-1, 1, 1, 1), main * 0.6, second)
    return {"main": main, "second": second, "dark": main * 0.6, "light": main * 0.55 + 0.45}


def _dots(sketch: Sketch, count: float, spread: float, size: float) -> torch.Tensor:
    """Return the mask of dots scattered within `spread` of the centre, elsewhere in every picture."""
    shape = (int(count), sketch.count, 1, 1)
    angle = torch.rand(shape, generator=sketch.generator) * 2 * math.pi
    distance = torch.rand(shape, generator=sketch.generator).sqrt() * spread
    du, dv = sketch.u - distance * torch.cos(angle), sketch.v - distance * torch.sin(angle)
    nearest = (du * du + dv * dv).amin(0).sqrt()
    return sketch.mask(nearest - size)


# -- shapes: signed distances; numbers in the order they stand in a figure ------


def _ring(u, v, x, y, radius, half_width):
    return (torch.sqrt((u - x) ** 2 + (v - y) ** 2) - radius).abs() - half_width


def _dome(u, v, x, y, a, b):
    return torch.maximum(ellipse(u, v, x, y, a, b), v - y)


def _bowl(u, v, x, y, a, b):
    return torch.maximum(ellipse(u, v, x, y, a, b), y - v)


def _bowl_ring(u, v, x, y, radius, half_width):
    return torch.maximum(_ring(u, v, x, y, radius, half_width), y - v)


def _crescent(u, v, x, y, radius, thickness):
    outer = torch.sqrt((u - x) ** 2 + (v - y) ** 2) - radius
    hole = torch.sqrt((u - x) ** 2 + (v - y + thickness) ** 2) - radius * 0.95
    return torch.maximum(outer, -hole)


def _wedge(u, v, x, y, half_width, base):
    """A triangle with its tip at (x, y) and a base of the given half-width at the height `base`."""
    height = base - y
    along = (v - y) / height
    sides = ((u - x).abs() - along * half_width) * abs(height) / math.hypot(height, half_width)
    return torch.maximum(sides, (along - 1) * abs(height))


def _sideways_wedge(u, v, x, y, length, half_height):
    """A triangle with its tip at (x, y); its base lies `length` to the left."""
    return _wedge(v, u, y, x, half_height, x - length)


def _trapezoid(u, v, x, y, top, bottom, half_height):
    along = ((v - y) / half_height + 1) / 2
    return torch.maximum((u - x).abs() - (top + (bottom - top) * along), (v - y).abs() - half_height)


def _sideways_trapezoid(u, v, x, y, left, right, half_width):
    return _trapezoid(v, u, y, x, left, right, half_width)


def _funnel(u, v, x, y, half_width, height):
    """A triangle that stands on its tip at (x, y)."""
    return _wedge(u, v, x, y, half_width, y - height)


def _polygon(u, v, corners, x, y, radius, angle):
    return polygon(u, v, int(corners), radius, angle, x, y)


def _star(u, v, points, x, y, radius, depth):
    return star(u, v, int(points), radius, depth, math.pi / 2, x, y)


def _four_dots(u, v, spread, size):
    return torch.sqrt((u.abs() - spread) ** 2 + (v.abs() - spread) ** 2) - size


def _three_dots(u, v, spread, size):
    aside = (u.abs() - spread).abs()
    return torch.sqrt(torch.minimum(aside, u.abs()) ** 2 + (v - spread) ** 2) - size


SHAPES: Mapping[str, Callable[..., torch.Tensor]] = {
    "ellipse": ellipse,
    "box": box,
    "stroke": stroke,
    "ring": _ring,
    "dome": _dome,
    "bowl": _bowl,
    "bowlring": _bowl_ring,
    "crescent": _crescent,
    "wedge": _wedge,
    "wedge2": _sideways_wedge,
    "funnel": _funnel,
    "trapezoid": _trapezoid,
    "trapezoid2": _sideways_trapezoid,
    "polygon": _polygon,
    "star": _star,
    "dots4": _four_dots,
    "dots3": _three_dots,
}


# -- patterns: masks in [0, 1] that cover the shape before them ------------------


def _edge(wave: torch.Tensor) -> torch.Tensor:
    return (wave * 3 + 0.5).clamp(0, 1)


def _stripes(u, v, frequency, angle):
    return _edge(torch.sin(turn(u, v, angle)[1] * frequency))


def _checks(u, v, frequency, angle):
    p, q = turn(u, v, angle)
    return _edge(torch.sin(p * frequency) * torch.sin(q * frequency))


def _spots(u, v, frequency, angle):
    p, q = turn(u, v, angle)
    return _edge(torch.cos(p * frequency) + torch.cos(q * frequency) - 0.9)


def _weave(u, v, frequency, angle):
    p, q = turn(u, v, angle)
    return _edge(torch.maximum(torch.cos(p * frequency * 0.6), torch.cos(q * frequency)) - 0.75)


def _ripples(u, v, frequency, angle):
    p, q = turn(u, v, angle)
    return _edge(torch.sin(q * frequency + torch.sin(p * 5) * 1.5))


def _circles(u, v, frequency, angle):
    return _edge(torch.sin(torch.sqrt(u * u + v * v) * frequency))


def _sectors(u, v, count, angle):
    return _edge(torch.sin((torch.atan2(v, u) + angle) * count))


PATTERNS: Mapping[str, Callable[..., torch.Tensor]] = {
    "stripes": _stripes,
    "checks": _checks,
    "spots": _spots,
    "weave": _weave,
    "ripples": _ripples,
    "circles": _circles,
    "sectors": _sectors,
}
