"""The vocabulary of everyday things that `atlas`, `things` and `web` are drawn with.

A figure is a line of parts, painted one after the other; a part is a shape, its numbers and a color:

    mug = white red blue: ring .45 .05 .24 .08 main; box 0 .05 .42 .5 main; ellipse 0 -.45 .42 .1 dark

The colors that ``main`` may be come before the colon; ``second`` is another of them, ``dark`` and ``light`` are shades
of main. A ``+`` keeps a shape within the last one without it. Coordinates run from -1 to 1, x to the right and y down;
a number after the color turns the shape, in radians. A long figure continues on the next line, indented. Lines that
begin with ``#`` are comments.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from extractlib.data.drawn.canvas import Number, Plane, Pose, Sketch, box, ellipse, polygon, star, stroke, turn
from extractlib.data.drawn.grounds import studio_or_anywhere
from extractlib.data.drawn.tables import read_table, read_text

COLORS: Mapping[str, tuple[float, float, float]] = read_table("colors")
"""Red, green and blue of each color that a figure may name."""

LINE_COLOR = torch.full((1, 3, 1, 1), 0.12)


@dataclass(frozen=True)
class Part:
    """A shape or pattern, its numbers, the name of its color, and whether it stays within the shape before it."""

    shape: str
    numbers: tuple[float, ...]
    color: str
    angle: float = 0.0
    within: bool = False


@dataclass(frozen=True)
class Figure:
    """A thing: the colors its main color may be, and its parts in the order of painting."""

    palette: tuple[str, ...]
    parts: tuple[Part, ...]


def read_figures(name: str) -> dict[str, Figure]:
    """Return the figures of a file, in the form shown at the top of this module, by name."""
    lines = read_text(name).replace("\n    ", " ").splitlines()
    return dict(_read_figure(line) for line in lines if line and not line.startswith("#"))


def _read_figure(line: str) -> tuple[str, Figure]:
    name, _, body = line.partition(" = ")
    palette, _, parts = body.partition(": ")
    return name, Figure(tuple(palette.split()), tuple(_read_part(part) for part in parts.split("; ")))


def _read_part(text: str) -> Part:
    shape, *words = text.split()
    color = next(word for word in words if word.isalpha())
    place = words.index(color)
    angle = float(words[place + 1]) if words[place + 1 :] else 0.0
    return Part(shape.removeprefix("+"), tuple(map(float, words[:place])), color, angle, shape.startswith("+"))


def paint(
    sketch: Sketch, figure: Figure, *, outline: float = 0.0, ink: float = 1.0, vary: float = 0.03, present: Number = 1.0
) -> None:
    """Paint a figure into the sketch's local frame.

    Args:
        sketch: The pictures.
        figure: What to paint.
        outline: Width of a dark line around the figure; 0 for none.
        ink: Opacity of that line.
        vary: Standard deviation of each part's place.
        present: 1.0, or a tensor of shape (n, 1, 1) that is 0 where the figure is left out.
    """
    colors = _palette(sketch, figure)
    layers, inside, silhouette = [], torch.zeros(()), torch.tensor(math.inf)
    for part in figure.parts:
        if part.shape in PATTERNS:
            mask = inside * _pattern(sketch, part.shape, *part.numbers)
        elif part.shape == "dots":
            mask = inside * _dots(sketch, *part.numbers)
        else:
            distance = _distance(sketch, part, vary)
            mask = sketch.mask(distance) * (inside if part.within else 1.0)
            if not part.within:
                inside = mask
                silhouette = torch.minimum(silhouette, distance)
        color = colors[part.color] if part.color in colors else sketch.color(COLORS[part.color], 0.05)
        layers.append((mask, color))
    if outline:
        sketch.fill(silhouette - outline, LINE_COLOR, opacity=torch.as_tensor(ink * present))
    for mask, color in layers:
        sketch.blend(mask * present, color)


def portrait(sketch: Sketch, figure: Figure, *, white: float, pose: Pose, vary: float = 0.03) -> torch.Tensor:
    """Draw one thing alone: some on white paper, the others on any ground.

    Args:
        sketch: The pictures.
        figure: The thing.
        white: Share of the pictures with a white ground.
        pose: How freely it is framed.
        vary: Standard deviation of each part's place, in the thing's own coordinates.

    Returns:
        The pictures, uint8 of shape (n, 3, 32, 32).
    """
    studio_or_anywhere(sketch, white=white)
    sketch.pose(pose)
    paint(sketch, figure, outline=0.07, ink=0.45, vary=vary)
    return sketch.finish(brightness=(0.8, 1.12), contrast=(0.85, 1.1), noise=0.024, blur=0.45)


def _distance(sketch: Sketch, part: Part, vary: float) -> torch.Tensor:
    u, v = sketch.u + sketch.normal(0, vary), sketch.v + sketch.normal(0, vary)
    return SHAPES[part.shape](u, v, *part.numbers, *([part.angle] if part.angle else []))


def _palette(sketch: Sketch, figure: Figure) -> dict[str, torch.Tensor]:
    table = torch.tensor([COLORS[name] for name in figure.palette])
    chosen = sketch.integer(len(table))
    step = torch.randint(1, max(2, len(table)), (sketch.count,), generator=sketch.generator)
    shift = torch.randn(sketch.count, 3, 1, 1, generator=sketch.generator) * 0.07
    main = (table[chosen].view(-1, 3, 1, 1) + shift).clamp(0, 1)
    second = table[(chosen + step) % len(table)].view(-1, 3, 1, 1)
    second = torch.where((chosen == (chosen + step) % len(table)).view(-1, 1, 1, 1), main * 0.6, second)
    return {"main": main, "second": second, "dark": main * 0.6, "light": main * 0.55 + 0.45}


def _dots(sketch: Sketch, count: float, spread: float, size: float) -> torch.Tensor:
    """Return the mask of dots scattered within `spread` of the center, at different places in every picture."""
    shape = (int(count), sketch.count, 1, 1)
    angle = torch.rand(shape, generator=sketch.generator) * 2 * math.pi
    distance = torch.rand(shape, generator=sketch.generator).sqrt() * spread
    du, dv = sketch.u - distance * torch.cos(angle), sketch.v - distance * torch.sin(angle)
    nearest = (du * du + dv * dv).amin(0).sqrt()
    return sketch.mask(nearest - size)


# -- shapes: signed distances, shape (n, 32, 32); numbers in their order in a figure ------


def ring(u: Plane, v: Plane, x: float, y: float, radius: float, half_width: float) -> Plane:
    """A ring with the given radius in the middle of its band."""
    return (torch.sqrt((u - x) ** 2 + (v - y) ** 2) - radius).abs() - half_width


def dome(u: Plane, v: Plane, x: float, y: float, a: float, b: float) -> Plane:
    """The upper half of an ellipse."""
    return torch.maximum(ellipse(u, v, x, y, a, b), v - y)


def bowl(u: Plane, v: Plane, x: float, y: float, a: float, b: float) -> Plane:
    """The lower half of an ellipse."""
    return torch.maximum(ellipse(u, v, x, y, a, b), y - v)


def bowl_ring(u: Plane, v: Plane, x: float, y: float, radius: float, half_width: float) -> Plane:
    """The lower half of a ring."""
    return torch.maximum(ring(u, v, x, y, radius, half_width), y - v)


def crescent(u: Plane, v: Plane, x: float, y: float, radius: float, thickness: float) -> Plane:
    """A disc minus another one a little above it."""
    outer = torch.sqrt((u - x) ** 2 + (v - y) ** 2) - radius
    hole = torch.sqrt((u - x) ** 2 + (v - y + thickness) ** 2) - radius * 0.95
    return torch.maximum(outer, -hole)


def wedge(u: Plane, v: Plane, x: float, y: float, half_width: float, base: float) -> Plane:
    """A triangle with its tip at (x, y) and a base of the given half-width at the height `base`."""
    height = base - y
    along = (v - y) / height
    sides = ((u - x).abs() - along * half_width) * abs(height) / math.hypot(height, half_width)
    return torch.maximum(sides, (along - 1) * abs(height))


def side_wedge(u: Plane, v: Plane, x: float, y: float, length: float, half_height: float) -> Plane:
    """A triangle with its tip at (x, y); its base lies `length` to the left."""
    return wedge(v, u, y, x, half_height, x - length)


def funnel(u: Plane, v: Plane, x: float, y: float, half_width: float, height: float) -> Plane:
    """A triangle that stands on its tip at (x, y)."""
    return wedge(u, v, x, y, half_width, y - height)


def trapezoid(u: Plane, v: Plane, x: float, y: float, top: float, bottom: float, half_height: float) -> Plane:
    """A trapezoid with the given half-widths at its top and its bottom."""
    along = ((v - y) / half_height + 1) / 2
    return torch.maximum((u - x).abs() - (top + (bottom - top) * along), (v - y).abs() - half_height)


def side_trapezoid(u: Plane, v: Plane, x: float, y: float, left: float, right: float, half_width: float) -> Plane:
    """A trapezoid on its side, with the given half-heights at its left and its right."""
    return trapezoid(v, u, y, x, left, right, half_width)


def four_dots(u: Plane, v: Plane, spread: float, size: float) -> Plane:
    """Four dots around the center, in a square."""
    return torch.sqrt((u.abs() - spread) ** 2 + (v.abs() - spread) ** 2) - size


def three_dots(u: Plane, v: Plane, spread: float, size: float) -> Plane:
    """Three dots in a row below the center."""
    aside = (u.abs() - spread).abs()
    return torch.sqrt(torch.minimum(aside, u.abs()) ** 2 + (v - spread) ** 2) - size


ROUND = (ellipse, ring, dome, bowl, bowl_ring, crescent, four_dots, three_dots)
STRAIGHT = (box, stroke, wedge, side_wedge, funnel, trapezoid, side_trapezoid, polygon, star)
SHAPES: Mapping[str, Callable[..., torch.Tensor]] = {shape.__name__: shape for shape in ROUND + STRAIGHT}
"""What the word for a shape in a figure means."""


# -- patterns: waves that are turned into masks over the shape before them -------


def stripes(u: Plane, v: Plane, frequency: float) -> Plane:
    """Stripes across v."""
    return torch.sin(v * frequency)


def checks(u: Plane, v: Plane, frequency: float) -> Plane:
    """A chessboard."""
    return torch.sin(u * frequency) * torch.sin(v * frequency)


def spots(u: Plane, v: Plane, frequency: float) -> Plane:
    """Round spots in rows."""
    return torch.cos(u * frequency) + torch.cos(v * frequency) - 0.9


def weave(u: Plane, v: Plane, frequency: float) -> Plane:
    """Bricks, or a weave: wide in u and narrow in v."""
    return torch.maximum(torch.cos(u * frequency * 0.6), torch.cos(v * frequency)) - 0.75


def ripples(u: Plane, v: Plane, frequency: float) -> Plane:
    """Wavy stripes."""
    return torch.sin(v * frequency + torch.sin(u * 5) * 1.5)


def circles(u: Plane, v: Plane, frequency: float) -> Plane:
    """Rings within rings."""
    return torch.sin(torch.sqrt(u * u + v * v) * frequency)


def sectors(u: Plane, v: Plane, count: float) -> Plane:
    """Slices of a cake."""
    return torch.sin(torch.atan2(v, u) * count)


WAVES = (stripes, checks, spots, weave, ripples, circles, sectors)
PATTERNS: Mapping[str, Callable[..., torch.Tensor]] = {wave.__name__: wave for wave in WAVES}
"""What the word for a pattern in a figure means; its numbers there are its frequency and its angle."""


def _pattern(sketch: Sketch, shape: str, frequency: float, angle: float) -> torch.Tensor:
    wave = PATTERNS[shape](*turn(sketch.u, sketch.v, angle), frequency)
    return (wave * 3 + 0.5).clamp(0, 1)
