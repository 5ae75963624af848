"""Signs: 43 traffic signs, the drawn twin of GTSRB (Stallkamp et al. 2012). Shape, border and glyph tell them apart."""

import math

import torch

from extractlib.data.drawn.canvas import Sketch, balanced, bitmap, box, polygon, sampled, stamp, stroke
from extractlib.data.drawn.grounds import blotches

DIGITS = dict(
    zip(
        "0123456789",
        [
            ("###", "#.#", "#.#", "#.#", "###"),
            (".#.", "##.", ".#.", ".#.", "###"),
            ("###", "..#", "###", "#..", "###"),
            ("###", "..#", "###", "..#", "###"),
            ("#.#", "#.#", "###", "..#", "..#"),
            ("###", "#..", "###", "..#", "###"),
            ("###", "#..", "###", "#.#", "###"),
            ("###", "..#", ".#.", ".#.", ".#."),
            ("###", "#.#", "###", "#.#", "###"),
            ("###", "#.#", "###", "..#", "###"),
        ],
        strict=True,
    )
)

GLYPHS = {
    "nothing": [".....", ".....", ".....", ".....", "....."],
    "ahead": ["..#..", ".###.", "#.#.#", "..#..", "..#.."],
    "exclamation": ["..#..", "..#..", "..#..", ".....", "..#.."],
    "curve left": ["###..", "..#..", ".##..", ".#...", ".##.."],
    "double curve": ["#....", "##...", ".##..", "..##.", "...##"],
    "bump": [".....", "..#..", ".###.", "#####", "....."],
    "slippery": [".##..", "####.", ".....", ".#.#.", "#.#.."],
    "narrow": [".#.#.", ".#.#.", ".##..", "#..#.", "#..#."],
    "digger": [".#...", "###..", ".#.#.", "#.###", "#.###"],
    "traffic light": [".###.", ".#.#.", ".###.", ".#.#.", ".###."],
    "walker": ["..#..", ".###.", "..#..", ".#.#.", "#...#"],
    "children": [".#.#.", "#####", ".#.#.", "#.#.#", "#.#.#"],
    "bicycle": ["..##.", "#.#.#", ".###.", "#.#.#", "#...#"],
    "snowflake": ["#.#.#", ".###.", "#####", ".###.", "#.#.#"],
    "deer": ["#.#..", ".##..", "..###", "..#.#", "..#.#"],
    "crossroads": ["..#..", "..#..", "#####", "..#..", "..#.."],
    "two cars": [".....", "##.##", "#####", "##.##", "....."],
    "lorry and car": [".....", "###.#", "#####", "###.#", "....."],
    "turn right": ["..##.", ".#.##", ".#...", ".#...", ".#..."],
    "ahead or right": [".#..#", ".#.##", ".####", ".#.##", ".#..."],
    "keep right": ["#....", "##...", ".##..", "..##.", ".####"],
    "roundabout": [".##..", "#..#.", "#...#", ".#..#", "..##."],
    "stop": ["#.#.#", "#.#.#", "#####", "#.#.#", "#.#.#"],
    "bar": [".....", ".....", "#####", ".....", "....."],
}

SIGNS = (
    *((f"speed limit {limit}", "prohibition", limit) for limit in ("20", "30", "50", "60", "70", "80")),
    ("end of speed limit 80", "end", "80"),
    ("speed limit 100", "prohibition", "100"),
    ("speed limit 120", "prohibition", "120"),
    ("no overtaking", "prohibition", "two cars"),
    ("no overtaking by lorries", "prohibition", "lorry and car"),
    ("right of way at next crossing", "warning", "ahead"),
    ("priority road", "priority", "nothing"),
    ("give way", "give way", "nothing"),
    ("stop", "stop", "stop"),
    ("no vehicles", "prohibition", "nothing"),
    ("no lorries", "prohibition", "bump"),
    ("no entry", "no entry", "bar"),
    ("danger", "warning", "exclamation"),
    ("curve to the left", "warning", "curve left"),
    ("curve to the right", "warning", "mirrored curve left"),
    ("double curve", "warning", "double curve"),
    ("bumpy road", "warning", "bump"),
    ("slippery road", "warning", "slippery"),
    ("road narrows", "warning", "narrow"),
    ("road works", "warning", "digger"),
    ("traffic lights", "warning", "traffic light"),
    ("pedestrians", "warning", "walker"),
    ("children", "warning", "children"),
    ("bicycles", "warning", "bicycle"),
    ("snow or ice", "warning", "snowflake"),
    ("wild animals", "warning", "deer"),
    ("end of all limits", "end", "nothing"),
    ("turn right ahead", "order", "turn right"),
    ("turn left ahead", "order", "mirrored turn right"),
    ("ahead only", "order", "ahead"),
    ("ahead or right", "order", "ahead or right"),
    ("ahead or left", "order", "mirrored ahead or right"),
    ("keep right", "order", "keep right"),
    ("keep left", "order", "mirrored keep right"),
    ("roundabout", "order", "roundabout"),
    ("end of no overtaking", "end", "two cars"),
    ("end of no overtaking by lorries", "end", "lorry and car"),
)
"""Name, kind and glyph of each class, in GTSRB's order."""

CLASSES = tuple(name for name, _, _ in SIGNS)

FREQUENT = {1, 2, 4, 5, 8, 10, 12, 13, 25, 38}
RARE = {0, 19, 24, 27, 29, 32, 37, 39, 41, 42}
PRIOR = [2.0 if label in FREQUENT else 0.3 if label in RARE else 0.8 for label in range(len(SIGNS))]
"""Weight of each class outside the test part: GTSRB's frequent and rare signs."""

GROUNDS = [(0.3, 0.4, 0.25), (0.6, 0.7, 0.85), (0.5, 0.5, 0.5), (0.35, 0.3, 0.25), (0.8, 0.85, 0.9), (0.2, 0.25, 0.2)]


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,): balanced in the test part, as uneven as GTSRB's elsewhere."""
    if part == "test":
        return balanced(size, len(CLASSES), generator)
    return sampled(size, PRIOR, generator)


def glyph(name: str) -> torch.Tensor:
    """Return the mark on a sign as a bitmap: digits for a number, else one of `GLYPHS`."""
    if name.isdigit():
        return bitmap([".".join(DIGITS[digit][row] for digit in name) for row in range(5)])
    mirrored = name.startswith("mirrored ")
    mark = bitmap(GLYPHS[name.removeprefix("mirrored ")])
    return mark.flip(1) if mirrored else mark


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw signs of one class, uint8 of shape (n, 3, 32, 32), on a pole before a blotchy ground, in any light."""
    _, kind, mark = SIGNS[label]
    blotches(sketch, GROUNDS, contrast=0.5)
    sketch.place(
        sketch.normal(0, 0.09),
        sketch.normal(0, 0.09),
        sketch.uniform(0.6, 0.95),
        sketch.normal(0, 0.09),
        shear=sketch.normal(0, 0.08),
        stretch=1 + sketch.uniform(-0.05, 0.25),
    )
    sketch.fill(box(sketch.u, sketch.v, 0, 1.4, 0.06, 0.6), sketch.colour((0.45, 0.45, 0.45)))
    KINDS[kind](sketch, glyph(mark))
    return sketch.finish(brightness=(0.3, 1.3), noise=0.05, blur=0.6)


def _prohibition(sketch: Sketch, mark: torch.Tensor) -> None:
    _rings(sketch, (0.95, _red(sketch)), (0.72, _white(sketch)))
    _stamp(sketch, mark, _black(sketch), half=0.58)


def _warning(sketch: Sketch, mark: torch.Tensor) -> None:
    triangle = polygon(sketch.u, sketch.v - 0.2, 3, 1.2, math.pi / 2)
    sketch.fill(triangle, _red(sketch))
    sketch.fill(triangle + 0.2, _white(sketch))
    _stamp(sketch, mark, _black(sketch), half=0.36, y=0.27)


def _order(sketch: Sketch, mark: torch.Tensor) -> None:
    _rings(sketch, (0.95, sketch.colour((0.1, 0.25, 0.7))))
    _stamp(sketch, mark, _white(sketch), half=0.6)


def _stop(sketch: Sketch, mark: torch.Tensor) -> None:
    sketch.fill(polygon(sketch.u, sketch.v, 8, 1.0, math.pi / 8), _red(sketch))
    _stamp(sketch, mark, _white(sketch), half=0.55)


def _give_way(sketch: Sketch, mark: torch.Tensor) -> None:
    triangle = polygon(sketch.u, sketch.v + 0.2, 3, 1.2, -math.pi / 2)
    sketch.fill(triangle, _red(sketch))
    sketch.fill(triangle + 0.2, _white(sketch))


def _priority(sketch: Sketch, mark: torch.Tensor) -> None:
    diamond = polygon(sketch.u, sketch.v, 4, 1.05)
    sketch.fill(diamond, _white(sketch))
    sketch.fill(diamond + 0.2, sketch.colour((0.95, 0.75, 0.1)))


def _no_entry(sketch: Sketch, mark: torch.Tensor) -> None:
    _rings(sketch, (0.95, _red(sketch)))
    sketch.fill(box(sketch.u, sketch.v, 0, 0, 0.65, 0.17), _white(sketch))


def _end(sketch: Sketch, mark: torch.Tensor) -> None:
    _rings(sketch, (0.95, _black(sketch)), (0.88, _white(sketch)))
    _stamp(sketch, mark, sketch.colour((0.5, 0.5, 0.5)), half=0.55)
    slash = stroke(sketch.u, sketch.v, -0.6, 0.7, 0.6, -0.7, 0.09)
    sketch.fill(torch.maximum(slash, _radius(sketch) - 0.9), _black(sketch))


KINDS = {
    "prohibition": _prohibition,
    "warning": _warning,
    "order": _order,
    "stop": _stop,
    "give way": _give_way,
    "priority": _priority,
    "no entry": _no_entry,
    "end": _end,
}


def _radius(sketch: Sketch) -> torch.Tensor:
    return torch.sqrt(sketch.u**2 + sketch.v**2)


def _rings(sketch: Sketch, *rings: tuple[float, torch.Tensor]) -> None:
    for radius, colour in rings:
        sketch.fill(_radius(sketch) - radius, colour)


def _stamp(sketch: Sketch, mark: torch.Tensor, colour: torch.Tensor, *, half: float, y: float = 0.0) -> None:
    sketch.blend(stamp(mark, sketch.u, sketch.v, half, y=y), colour)


def _red(sketch: Sketch) -> torch.Tensor:
    return sketch.colour((0.8, 0.1, 0.12))


def _white(sketch: Sketch) -> torch.Tensor:
    return sketch.colour((0.93, 0.93, 0.9), 0.03)


def _black(sketch: Sketch) -> torch.Tensor:
    return sketch.colour((0.07, 0.07, 0.08), 0.03)
