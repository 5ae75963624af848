"""Objects: ten kinds of vehicle and animal, the drawn twin of CIFAR-10 (Krizhevsky 2009)."""

import torch

from extractlib.data.drawn.birds import ANY, Species, perched
from extractlib.data.drawn.canvas import Number, Pose, Sketch, box, ellipse, hsv, polygon, stroke
from extractlib.data.drawn.grounds import anywhere, blotches, branch, horizon
from extractlib.data.drawn.tables import read_table

TABLE = read_table("objects")
"""Colors of grounds, animals and metal: see the file."""

BIRD = Species(ANY, ANY, ANY, ANY, ANY, "", "yellow", 0.22, 0.5, 0.33, crest=False, wing_bar=False, eye_ring=False)
BLACK = torch.full((1, 3, 1, 1), 0.06)
FREE = Pose(size=(0.6, 1.08), shift=(0.16, 0.13), turn=0.2, shear=0.15)
GLASS = (0.62, 0.78, 0.88)

ELSEWHERE = 0.2
"""Share of the pictures whose ground says nothing about the object on it."""


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw one kind of object among other things, uint8 of shape (n, 3, 32, 32)."""
    ground, paint = OBJECTS[CLASSES[label]]
    ground(sketch)
    usual = sketch.image
    anywhere(sketch)
    sketch.image = torch.where(sketch.chance(ELSEWHERE).unsqueeze(1) > 0, sketch.image, usual)
    _clutter(sketch)
    sketch.pose(FREE)
    paint(sketch)
    sketch.reset()
    _in_front(sketch)
    return sketch.finish(brightness=(0.7, 1.2), noise=0.028, blur=0.4)


def _clutter(sketch: Sketch) -> None:
    """Put a box and a bush behind the object in some pictures."""
    for shape, width in ((box, (0.08, 0.3)), (ellipse, (0.12, 0.4))):
        x, y = sketch.uniform(-1, 1), sketch.uniform(-0.5, 1)
        distance = shape(sketch.x, sketch.y, x, y, sketch.uniform(*width), sketch.uniform(0.1, 0.5))
        sketch.fill(distance, sketch.any_color((0.05, 0.6), (0.2, 0.9)), opacity=sketch.chance(0.35), softness=2)


def _in_front(sketch: Sketch) -> None:
    """Hide part of some pictures behind leaves, and cut others with a post or a twig."""
    x, y, leaves = sketch.x, sketch.y, sketch.any_color((0.1, 0.6), (0.3, 0.8))
    blob = ellipse(x, y, sketch.uniform(-0.7, 0.7), sketch.uniform(-0.3, 0.8), 0.3, sketch.uniform(0.2, 0.4))
    sketch.fill(blob, leaves, opacity=sketch.chance(0.25), softness=3)
    lean = sketch.normal(0, 0.4)
    post = stroke(x, y, sketch.uniform(-0.6, 0.6) + lean, -1.2, sketch.uniform(-0.6, 0.6) - lean, 1.2, 0.07)
    sketch.fill(post, sketch.pick(TABLE["wood"]), opacity=sketch.chance(0.15))


# -- grounds -----------------------------------------------------------------


def _in_the_sky(sketch: Sketch) -> None:
    blotches(sketch, TABLE["sky"], cells=4, contrast=0.15)


def _on_land(sketch: Sketch) -> None:
    blotches(sketch, TABLE["land"], contrast=0.3)


def _in_a_room(sketch: Sketch) -> None:
    blotches(sketch, TABLE["room"], contrast=0.3)


def _on_a_road(sketch: Sketch) -> None:
    horizon(sketch, sketch.pick(TABLE["sky"] + TABLE["land"]), sketch.color((0.5, 0.5, 0.52)), at=(0.1, 0.4))


def _at_sea(sketch: Sketch) -> None:
    horizon(sketch, sketch.pick(TABLE["sky"]), sketch.color((0.2, 0.45, 0.65), 0.08), at=(0.15, 0.45))


def _in_a_tree(sketch: Sketch) -> None:
    blotches(sketch, TABLE["sky"] + TABLE["land"], contrast=0.25)
    branch(sketch, (0.4, 0.8), 0.06, (0.4, 0.29, 0.18))


# -- vehicles ----------------------------------------------------------------


def _airplane(sketch: Sketch) -> None:
    u, v, sway = sketch.u, sketch.v, sketch.normal(0, 0.06)
    metal = sketch.pick(TABLE["metal"])
    sketch.fill(stroke(u, v, 0.1, -0.05, -0.25, -0.42 - sway, 0.07), metal * 0.85)
    sketch.fill(stroke(u, v, -0.75, 0.0, -0.95, -0.4, 0.09), sketch.any_color((0.4, 0.9)))
    sketch.fill(stroke(u, v, -0.8, 0.0, 0.8, -0.02, 0.14), metal)
    sketch.fill(stroke(u, v, -0.55, -0.05, 0.5, -0.06, 0.025), metal * 0.4)
    sketch.fill(stroke(u, v, 0.15, 0.05, -0.35, 0.52 + sway, 0.1), metal * 0.75)


def _automobile(sketch: Sketch) -> None:
    """Paint a sedan, or a van, whose cabin is as long as a truck's load."""
    u, v = sketch.u, sketch.v
    paint, cabin, van = sketch.any_color((0.1, 0.9), (0.3, 1.0)), sketch.uniform(-0.2, 0.15), sketch.chance(0.35)
    height = sketch.uniform(0.28, 0.4)
    saloon, long = ellipse(u, v, cabin, -0.12, 0.5, height), box(u, v, -0.1, -0.2, 0.7, height)
    sketch.fill(torch.lerp(saloon, long, van), paint * 0.9)
    sketch.fill(torch.lerp(saloon + 0.1, box(u, v, -0.02, -0.25, 0.52, 0.14), van), sketch.color(GLASS, 0.1))
    sketch.fill(box(u, v, cabin, -0.15, 0.035, 0.3), paint * 0.9)
    sketch.fill(box(u, v, 0, 0.1, 0.85, 0.19), paint)
    sketch.fill(ellipse(u, v, 0.8, 0.05, 0.07, 0.07), sketch.color((0.98, 0.95, 0.7)))
    for x in (-0.5, 0.5):
        _wheel(sketch, x, 0.3, 0.18)


def _ship(sketch: Sketch) -> None:
    u, v = sketch.u, sketch.v
    hull = torch.maximum((v - 0.25).abs() - 0.2, u.abs() - (0.9 - 0.6 * (v - 0.05)))
    sketch.fill(stroke(u, v, 0.35, 0.1, 0.35, -0.65, 0.03), sketch.color((0.4, 0.4, 0.4)))
    sketch.fill(box(u, v, -0.2, -0.35, 0.1, 0.24), sketch.any_color((0.4, 0.9)))
    sketch.fill(box(u, v, -0.1, -0.06, 0.42, 0.14), sketch.color((0.95, 0.95, 0.95)))
    for x in (-0.35, -0.1, 0.15):
        sketch.fill(box(u, v, x, -0.06, 0.06, 0.05), sketch.color((0.3, 0.4, 0.5)))
    sketch.fill(hull, sketch.any_color((0.1, 0.8), (0.3, 0.9)))


def _truck(sketch: Sketch) -> None:
    """Paint a truck with a high or a low load, of any color or of the usual ones, on three or on two axles."""
    u, v = sketch.u, sketch.v
    usual = sketch.pick([(0.95, 0.95, 0.95), (0.78, 0.78, 0.78), (0.62, 0.4, 0.26), (0.4, 0.52, 0.72)])
    load = torch.lerp(usual, sketch.any_color((0.1, 0.9), (0.3, 1.0)), sketch.chance(0.5).unsqueeze(1))
    cab = sketch.any_color((0.1, 0.9), (0.3, 1.0))
    top = sketch.uniform(-0.6, 0.05)
    sketch.fill(box(u, v, -0.25, (top + 0.26) / 2, 0.6, (0.26 - top) / 2), load)
    sketch.fill(box(u, v, -0.25, 0.2, 0.6, 0.05), load * 0.5)
    sketch.fill(box(u, v, 0.6, 0.03, 0.25, sketch.uniform(0.24, 0.36)), cab)
    sketch.fill(box(u, v, 0.67, -0.07, 0.14, 0.11), sketch.color(GLASS, 0.1))
    for x, present in ((-0.6, 1.0), (-0.25, sketch.chance(0.6)), (0.58, 1.0)):
        _wheel(sketch, x, 0.34, 0.16, present)


def _wheel(sketch: Sketch, x: float, y: float, radius: float, present: Number = 1.0) -> None:
    sketch.fill(ellipse(sketch.u, sketch.v, x, y, radius, radius), BLACK, opacity=present)
    hub = ellipse(sketch.u, sketch.v, x, y, radius * 0.45, radius * 0.45)
    sketch.fill(hub, sketch.color((0.7, 0.7, 0.7)), opacity=present)


# -- animals -----------------------------------------------------------------


def _bird(sketch: Sketch) -> None:
    """Paint a bird of any plumage: unlike in `birds`, it only matters that it is a bird."""
    perched(sketch, BIRD)


def _cat(sketch: Sketch) -> None:
    u, v = sketch.u, sketch.v
    fur, pale = sketch.pick(TABLE["fur"]), sketch.pick([(0.95, 0.92, 0.88), (0.75, 0.6, 0.45)])
    stripes = ((u * 16).sin() * 3).clamp(0, 1)
    sketch.fill(stroke(u, v, -0.6, 0.5, -0.85, 0.0 + sketch.normal(0, 0.15), 0.07), fur)
    body = ellipse(u, v, -0.15, 0.35, 0.5, 0.42)
    sketch.fill(body, fur)
    sketch.blend(sketch.mask(body + 0.05) * stripes * sketch.chance(0.6), fur * 0.5)
    _legs(sketch, (-0.4, 0.1), 0.45, 0.85, 0.1, fur * 0.9)
    for side in (-1, 1):
        ear = polygon(u, v, 3, 0.3 + side * 0.24, -0.58, 0.24, 0.5236)
        sketch.fill(ear, fur * 0.85)
    sketch.fill(ellipse(u, v, 0.3, -0.25, 0.38, 0.34), fur)
    sketch.fill(ellipse(u, v, 0.3, -0.1, 0.14, 0.1), pale)
    eyes = sketch.pick([(0.55, 0.78, 0.25), (0.88, 0.78, 0.15)])
    for side in (-1, 1):
        sketch.fill(ellipse(u, v, 0.3 + side * 0.15, -0.32, 0.08, 0.08), eyes)
        sketch.fill(ellipse(u, v, 0.3 + side * 0.15, -0.32, 0.03, 0.07), BLACK)
    sketch.fill(ellipse(u, v, 0.3, -0.15, 0.045, 0.035), sketch.color((0.85, 0.5, 0.5)))


def _deer(sketch: Sketch) -> None:
    u, v, nod = sketch.u, sketch.v, sketch.normal(0, 0.06)
    fur = sketch.pick(TABLE["deer"])
    _four_legged(sketch, fur, leg=0.05, girth=0.2, neck=0.1, nod=nod)
    stag, antler = sketch.chance(0.6), sketch.color((0.42, 0.3, 0.2))
    for x in (-0.12, 0.1):
        sketch.fill(stroke(u, v, 0.58, -0.5 + nod, 0.58 + x, -0.92, 0.035), antler, opacity=stag)
        tine = stroke(u, v, 0.58 + x * 0.7, -0.72, 0.44 + x * 0.7, -0.87, 0.03)
        sketch.fill(tine, antler, opacity=stag)
        sketch.fill(stroke(u, v, 0.56, -0.5 + nod, 0.52 + x, -0.66 + nod, 0.05), fur * 0.9, opacity=1 - stag)
    sketch.fill(stroke(u, v, -0.48, -0.05, -0.55, 0.03, 0.06), sketch.color((0.95, 0.95, 0.92)))
    sketch.fill(ellipse(u, v, 0.0, 0.17, 0.4, 0.07), fur * 0.4 + 0.55)


def _horse(sketch: Sketch) -> None:
    u, v, nod = sketch.u, sketch.v, sketch.normal(0, 0.06)
    coat = sketch.pick(TABLE["horse"])
    mane = coat * 0.4
    sketch.fill(stroke(u, v, -0.48, -0.05, -0.66, 0.42 + nod, 0.08), mane)
    _four_legged(sketch, coat, leg=0.07, girth=0.26, neck=0.15, nod=nod)
    sketch.fill(stroke(u, v, 0.34, -0.12, 0.5, -0.52 + nod, 0.075), mane)
    sketch.fill(stroke(u, v, 0.55, -0.52 + nod, 0.55, -0.62 + nod, 0.04), coat * 0.8)


def _four_legged(sketch: Sketch, coat: torch.Tensor, *, leg: float, girth: float, neck: float, nod: Number) -> None:
    u, v = sketch.u, sketch.v
    _legs(sketch, (-0.42, -0.28, 0.25, 0.38), 0.1, 0.75, leg, coat * 0.8)
    sketch.fill(ellipse(u, v, -0.02, 0.05, 0.5, girth), coat)
    sketch.fill(stroke(u, v, 0.4, 0.0, 0.58, -0.4 + nod, neck), coat)
    sketch.fill(stroke(u, v, 0.58, -0.42 + nod, 0.8, -0.3 + nod, 0.09), coat)
    sketch.fill(ellipse(u, v, 0.62, -0.45 + nod, 0.035, 0.035), BLACK)


def _dog(sketch: Sketch) -> None:
    u, v = sketch.u, sketch.v
    fur, pale = sketch.pick(TABLE["fur"]), sketch.pick([(0.95, 0.92, 0.88), (0.35, 0.25, 0.18), (0.7, 0.52, 0.34)])
    sketch.fill(stroke(u, v, -0.6, 0.2, -0.88, -0.15 + sketch.normal(0, 0.12), 0.06), fur)
    sketch.fill(ellipse(u, v, -0.15, 0.35, 0.5, 0.36), fur)
    _legs(sketch, (-0.45, -0.3, 0.05, 0.2), 0.45, 0.88, 0.085, fur * 0.9)
    pricked = sketch.chance(0.35)
    for side in (-1, 1):
        ear = polygon(u, v, 3, 0.28 + side * 0.22, -0.56, 0.22, 0.5236)
        sketch.fill(ear, fur * 0.8, opacity=pricked)
    sketch.fill(ellipse(u, v, 0.28, -0.25, 0.3, 0.33), fur)
    sketch.fill(stroke(u, v, 0.4, -0.1, 0.68, -0.03, 0.15), pale)
    for side in (-1, 1):
        ear = stroke(u, v, 0.28 + side * 0.26, -0.42, 0.28 + side * 0.36, -0.02, 0.1)
        sketch.fill(ear, fur * 0.55, opacity=1 - pricked)
        sketch.fill(ellipse(u, v, 0.32 + side * 0.14, -0.3, 0.05, 0.05), BLACK)
    sketch.fill(ellipse(u, v, 0.76, -0.08, 0.08, 0.065), BLACK)


def _frog(sketch: Sketch) -> None:
    u, v = sketch.u, sketch.v
    skin = hsv(sketch.uniform(0.2, 0.4), sketch.uniform(0.4, 0.9), sketch.uniform(0.5, 0.9))
    for side in (-1, 1):
        sketch.fill(ellipse(u, v, side * 0.52, 0.5, 0.26, 0.18), skin * 0.75)
    sketch.fill(ellipse(u, v, 0, 0.25, 0.58, 0.4), skin)
    sketch.fill(ellipse(u, v, 0, 0.42, 0.34, 0.2), skin * 0.5 + 0.45)
    sketch.fill(ellipse(u, v, 0.05, -0.05, 0.42, 0.28), skin)
    for x in (-0.22, 0.32):
        sketch.fill(ellipse(u, v, x, -0.3, 0.14, 0.14), skin * 1.1)
        sketch.fill(ellipse(u, v, x, -0.31, 0.095, 0.095), sketch.color((0.95, 0.92, 0.6)))
        sketch.fill(ellipse(u, v, x, -0.31, 0.05, 0.05), BLACK)
    sketch.fill(stroke(u, v, -0.22, 0.08, 0.32, 0.08, 0.03), skin * 0.35)


def _legs(
    sketch: Sketch, places: tuple[float, ...], top: float, bottom: float, width: float, color: torch.Tensor
) -> None:
    stride = sketch.normal(0, 0.06)
    for number, x in enumerate(places):
        swing = stride if number % 2 else -stride
        sketch.fill(stroke(sketch.u, sketch.v, x, top, x + swing, bottom, width), color)


OBJECTS = {
    "airplane": (_in_the_sky, _airplane),
    "automobile": (_on_a_road, _automobile),
    "bird": (_in_a_tree, _bird),
    "cat": (_in_a_room, _cat),
    "deer": (_on_land, _deer),
    "dog": (_in_a_room, _dog),
    "frog": (_on_land, _frog),
    "horse": (_on_land, _horse),
    "ship": (_at_sea, _ship),
    "truck": (_on_a_road, _truck),
}
"""Ground and painter of each class, in CIFAR-10's order."""

CLASSES = tuple(OBJECTS)
