"""One shared canvas: a batch of 32 x 32 pictures drawn with signed distances.

A shape is a *signed distance*: a tensor of shape (n, 32, 32), negative inside
the shape and positive outside, in units of the sketch's local frame. `fill`
turns it into a soft-edged mask and blends a color through it. Coordinates run
from -1 (left, top) to 1 (right, bottom).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SIZE = 32
"""Height and width of every drawn picture, in pixels."""

CHUNK = 64
"""Pictures drawn together. Part of the recipe: it fixes the order of random numbers."""

Number = torch.Tensor | float
"""A number, or one for each picture: float32 of shape (n, 1, 1)."""

Plane = torch.Tensor
"""A number at each place of each picture: float32 of shape (n, 32, 32)."""

Range = tuple[float, float]
"""The lowest and the highest of something."""

_AXIS = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
Y, X = (axis[None] for axis in torch.meshgrid(_AXIS, _AXIS, indexing="ij"))


def seed_from(*parts: object) -> int:
    """Return a seed in [0, 2**63) that depends on all of `parts` and on their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How freely a photographer frames a thing.

    Attributes:
        size: Range of its size; 1 fills the picture.
        shift: Standard deviations of its place, horizontal and vertical, in picture coordinates.
        turn: Standard deviation of its angle, in radians.
        shear: Standard deviation of its slant and of its width; at 0 it has neither.
    """

    size: tuple[float, float] = (0.55, 1.0)
    shift: tuple[float, float] = (0.14, 0.14)
    turn: float = 0.22
    shear: float = 0.1


class Sketch:
    """A batch of pictures in progress, with its own generator.

    Numbers that vary from picture to picture have shape (n, 1, 1); colors have
    shape (n, 3, 1, 1) or (1, 3, 1, 1), float32 in [0, 1].

    Args:
        count: Number n of pictures.
        seed: Seed of this batch's generator.
        shift: How far the pictures are from the usual ones, as if someone else took them: the same things in another
            pose, on other grounds, with another camera. 0 is not at all, 1 is far.

    Attributes:
        image: The pictures, float32 of shape (n, 3, 32, 32), nominally in [0, 1].
        x: Horizontal coordinate in the picture, shape (n or 1, 32, 32): `X`, or moved and turned if shifted.
        y: Vertical coordinate in the picture, likewise.
        u: Horizontal local coordinate, shape (n, 32, 32), set by `place`.
        v: Vertical local coordinate, shape (n, 32, 32), set by `place`.
    """

    def __init__(self, count: int, *, seed: int, shift: float = 0.0):
        self.count = count
        self.shift = shift
        self.generator = torch.Generator().manual_seed(seed)
        self.image = torch.zeros(count, 3, SIZE, SIZE)
        self.x, self.y = self._moved() if shift else (X, Y)
        self.reset()

    def _moved(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coordinates in which the whole picture is a little smaller, turned and moved."""
        dx, dy = (axis - self.normal(0, 0.08 * self.shift) for axis in (X, Y))
        angle, scale = self.normal(0, 0.15 * self.shift), self.uniform(1 - 0.15 * self.shift, 1 + 0.05 * self.shift)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return (cosine * dx + sine * dy) / scale, (cosine * dy - sine * dx) / scale

    # -- random numbers ----------------------------------------------------

    def uniform(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """Return uniform numbers in [low, high), shape (n, 1, 1)."""
        return torch.rand(self.count, 1, 1, generator=self.generator) * (high - low) + low

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> torch.Tensor:
        """Return normal numbers, shape (n, 1, 1)."""
        return torch.randn(self.count, 1, 1, generator=self.generator) * deviation + mean

    def integer(self, choices: int) -> torch.Tensor:
        """Return integers in [0, choices), int64 of shape (n,)."""
        return torch.randint(0, choices, (self.count,), generator=self.generator)

    def chance(self, probability: float) -> torch.Tensor:
        """Return 1.0 with the given probability and 0.0 otherwise, shape (n, 1, 1)."""
        return (self.uniform() < probability).float()

    def sign(self) -> torch.Tensor:
        """Return -1.0 or 1.0, each with probability one half, shape (n, 1, 1)."""
        return self.chance(0.5) * 2 - 1

    def noise(self, cells: int, channels: int = 1) -> torch.Tensor:
        """Return smooth noise in [0, 1), shape (n, channels, 32, 32), with `cells` cells a side."""
        coarse = torch.rand(self.count, channels, cells, cells, generator=self.generator)
        return F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=False)

    # -- colors -----------------------------------------------------------

    def color(self, rgb: Sequence[float], jitter: float = 0.05) -> torch.Tensor:
        """Return a fixed color, varied a little from picture to picture, shape (n, 3, 1, 1)."""
        shift = torch.randn(self.count, 3, 1, 1, generator=self.generator) * jitter
        return (torch.tensor(rgb).view(1, 3, 1, 1) + shift).clamp(0, 1)

    def pick(self, palette: Sequence[Sequence[float]], jitter: float = 0.07) -> torch.Tensor:
        """Return for each picture one color of `palette`, rgb triples, varied a little."""
        chosen = torch.tensor(palette)[self.integer(len(palette))].view(self.count, 3, 1, 1)
        return (chosen + torch.randn(self.count, 3, 1, 1, generator=self.generator) * jitter).clamp(0, 1)

    def any_color(self, saturation: Range = (0.0, 0.9), value: Range = (0.3, 1.0)) -> torch.Tensor:
        """Return a random color of any hue for each picture, shape (n, 3, 1, 1)."""
        return hsv(self.uniform(), self.uniform(*saturation), self.uniform(*value))

    # -- the local frame ---------------------------------------------------

    def reset(self) -> None:
        """Make the local frame the whole picture again."""
        self.u, self.v = self.x.expand(self.count, -1, -1), self.y.expand(self.count, -1, -1)
        self.scale = torch.ones(1, 1, 1)

    def place(
        self,
        x: Number = 0.0,
        y: Number = 0.0,
        scale: Number = 1.0,
        rotation: Number = 0.0,
        *,
        flip: Number = 1.0,
        shear: Number = 0.0,
        stretch: Number = 1.0,
    ) -> None:
        """Set the local frame: the place, size and rotation of what is drawn next.

        Args:
            x: Horizontal center in picture coordinates; like all arguments a number or a (n, 1, 1) tensor.
            y: Vertical center.
            scale: Size of one local unit in picture coordinates.
            rotation: Radians, clockwise on the screen.
            flip: 1 or -1; -1 mirrors left and right.
            shear: Horizontal shift per vertical unit.
            stretch: Factor by which the shape is narrowed horizontally.
        """
        rotation = torch.as_tensor(rotation, dtype=torch.float32)
        scale = torch.as_tensor(scale, dtype=torch.float32)
        cosine, sine = torch.cos(rotation), torch.sin(rotation)
        dx, dy = self.x - x, self.y - y
        v = (cosine * dy - sine * dx) / scale
        u = (cosine * dx + sine * dy) / scale * flip * stretch + shear * v
        self.u, self.v = torch.broadcast_tensors(u, v)
        self.scale = scale

    def pose(self, pose: Pose, x: Number = 0.0, y: Number = 0.0) -> None:
        """Set the local frame at random about (x, y), as freely as `pose` says, mirrored or not."""
        self.place(
            x + self.normal(0, pose.shift[0]),
            y + self.normal(0, pose.shift[1]),
            self.uniform(*pose.size),
            self.normal(0, pose.turn),
            flip=self.sign(),
            shear=self.normal(0, pose.shear) if pose.shear else 0.0,
            stretch=1 + self.normal(0, pose.shear) if pose.shear else 1.0,
        )

    # -- painting ----------------------------------------------------------

    def backdrop(self, image: torch.Tensor) -> None:
        """Make `image`, float32 of shape (n, 3, 32, 32), the ground; if shifted, with stripes of another color."""
        self.image = image
        if self.shift:
            angle, width = self.uniform(0, 2 * math.pi), self.uniform(3, 9)
            stripes = torch.sin((torch.cos(angle) * X + torch.sin(angle) * Y) * width + self.uniform(0, 6)) > 0
            self.image = image.clone()
            self.blend(stripes * self.uniform(0.1, 0.45) * self.shift, self.any_color())

    def mask(self, distance: torch.Tensor, softness: float = 1.0) -> torch.Tensor:
        """Return the soft-edged inside of a shape, in [0, 1]; the edge is `softness` pixels wide."""
        return (0.5 - distance * (self.scale * (SIZE / 2 / softness))).clamp_(0, 1)

    def blend(self, mask: torch.Tensor, color: torch.Tensor) -> None:
        """Blend `color` into the pictures through `mask`, shape (n, 32, 32), in [0, 1]."""
        self.image.lerp_(color.expand_as(self.image), mask.unsqueeze(1).expand_as(self.image))

    def fill(self, distance: Plane, color: torch.Tensor, *, opacity: Number = 1.0, softness: float = 1.0) -> None:
        """Fill a shape given by its signed distance with `color`."""
        mask = self.mask(distance, softness)
        self.blend(mask if isinstance(opacity, float) and opacity == 1.0 else mask * opacity, color)

    def fade(self, weight: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return `first` where `weight` (n, 32, 32) is 0, `second` where it is 1, a mixture between."""
        return torch.lerp(first, second, weight.unsqueeze(1))

    def finish(
        self, *, brightness: Range, contrast: Range = (0.75, 1.15), noise: float, blur: float = 0.5
    ) -> torch.Tensor:
        """Return the pictures as a camera would: contrast, light, blur and noise, then uint8.

        Args:
            brightness: Range of the factor on all values.
            contrast: Range of the factor on the distance from mid-gray.
            noise: Mean standard deviation of the pixel noise, in [0, 1] units.
            blur: Half the largest weight of a 3 x 3 box blur, before clamping.
        """
        if self.shift:
            cast = 1 + (torch.rand(self.count, 3, 1, 1, generator=self.generator) - 0.5) * 0.4 * self.shift
            self.image = self.image * cast
            noise, blur = noise * (1 + 0.2 * self.shift) + 0.005 * self.shift, blur + 0.1 * self.shift
        image = (self.image - 0.5) * self.uniform(*contrast).unsqueeze(1) + 0.5
        image = image * self.uniform(*brightness).unsqueeze(1)
        weight = self.uniform(-0.6, blur * 2).clamp(0, 1).unsqueeze(1)
        blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        image = torch.lerp(image, blurred, weight)
        grain = torch.randn(image.shape, generator=self.generator)
        image = image + grain * (noise * self.uniform(0.3, 1.7)).unsqueeze(1)
        return (image.clamp(0, 1) * 255).to(torch.uint8)


def draw_by_class(
    labels: torch.Tensor, draw: Callable[[int, Sketch], torch.Tensor], *, seed: int, shift: float = 0.0
) -> torch.Tensor:
    """Draw one picture per label, class by class, in chunks of `CHUNK`.

    Args:
        labels: Class of each picture, int64 of shape (n,).
        draw: Given a class and a sketch, paints and returns uint8 pictures of shape (m, 3, 32, 32).
        seed: Seed of the whole set; each chunk gets its own generator from it.
        shift: How far the pictures are from the usual ones (see `Sketch`).

    Returns:
        The pictures, uint8 of shape (n, 3, 32, 32), in the order of `labels`.
    """
    images = torch.empty(len(labels), 3, SIZE, SIZE, dtype=torch.uint8)
    for label in labels.unique().tolist():
        for number, where in enumerate((labels == label).nonzero()[:, 0].split(CHUNK)):
            images[where] = draw(label, Sketch(len(where), seed=seed_from(seed, label, number), shift=shift))
    return images


# -- colors and signed distances ------------------------------------------


def hsv(hue: Number, saturation: Number, value: Number) -> torch.Tensor:
    """Return the color of given hue, saturation and value (each in [0, 1]), shape (n or 1, 3, 1, 1)."""
    parts = [torch.as_tensor(part, dtype=torch.float32).reshape(-1, 1, 1) for part in (hue, saturation, value)]
    h, s, v = torch.broadcast_tensors(*parts)

    def channel(offset: int) -> torch.Tensor:
        k = (offset + h * 6) % 6
        return torch.sub(v, v * s * torch.minimum(k, 4 - k).clamp(0, 1))

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def turn(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    """Return the coordinates turned by `angle` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * u + sine * v, cosine * v - sine * u


def ellipse(u: Plane, v: Plane, x: Number, y: Number, a: Number, b: Number, angle: float = 0.0) -> Plane:
    """Signed distance (first order) to an ellipse at (x, y) with half-axes a and b."""
    p, q = turn(u - x, v - y, angle) if angle else (u - x, v - y)
    small = torch.minimum(torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32))
    return (torch.sqrt((p / a) ** 2 + (q / b) ** 2) - 1) * small


def box(u: Plane, v: Plane, x: Number, y: Number, a: Number, b: Number, angle: float = 0.0) -> Plane:
    """Signed distance to a box at (x, y) with half-width a and half-height b."""
    p, q = turn(u - x, v - y, angle) if angle else (u - x, v - y)
    return torch.maximum(p.abs() - a, q.abs() - b)


def polygon(u: Plane, v: Plane, corners: float, x: Number, y: Number, radius: Number, angle: float = 0.0) -> Plane:
    """Signed distance to a regular polygon at (x, y) with the given number of corners and circumradius."""
    p, q = u - x, v - y
    sector = 2 * math.pi / corners
    theta = torch.remainder(torch.atan2(q, p) + angle, sector) - sector / 2
    return torch.sqrt(p * p + q * q) * torch.cos(theta) - radius * math.cos(sector / 2)


def star(u: Plane, v: Plane, points: float, x: Number, y: Number, radius: Number, depth: float) -> Plane:
    """Signed distance (rough) to a wavy star at (x, y); `depth` in [0, 0.5) is how deep the bays are."""
    p, q = u - x, v - y
    bays = torch.cos(points * (torch.atan2(q, p) + math.pi / 2))
    return torch.sqrt(p * p + q * q) - radius * (1 - depth + depth * bays)


def stroke(u: Plane, v: Plane, x0: Number, y0: Number, x1: Number, y1: Number, width: Number) -> Plane:
    """Signed distance to a thick line with round ends; `width` is its half-width."""
    dx, dy = x1 - x0, y1 - y0
    p, q = u - x0, v - y0
    along = ((p * dx + q * dy) / (dx * dx + dy * dy + 1e-6)).clamp(0, 1)
    return torch.sqrt((p - dx * along) ** 2 + (q - dy * along) ** 2) - width


def bitmap(rows: list[str]) -> torch.Tensor:
    """Return a glyph from rows of text, float32 of shape (height, width); ``.`` and space are empty."""
    return torch.tensor([[float(mark not in ". ") for mark in row] for row in rows])


def stamp(glyph: torch.Tensor, u: Plane, v: Plane, half: Number, x: Number = 0.0, y: Number = 0.0) -> Plane:
    """Return the mask, shape (n, 32, 32), of a glyph pasted on the square of half-side `half` at (x, y)."""
    grid = torch.stack(torch.broadcast_tensors((u - x) / half, (v - y) / half), -1)
    glyphs = glyph.expand(len(grid), 1, *glyph.shape)
    sampled = F.grid_sample(glyphs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]
    return (sampled * 1.6 - 0.3).clamp(0, 1)
