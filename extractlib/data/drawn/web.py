"""Web: crowded posters of several things in outline: the drawn twin of OpenImages.

A second pool of another hand than the atlas: things come together by theme, on flat bands of colour. The label of a
picture is its theme; no attack sees it.
"""

import math

import torch

from extractlib.data.drawn.canvas import Sketch, X, Y, sampled
from extractlib.data.drawn.kinds import COMMON, OTHERS
from extractlib.data.drawn.vocabulary import paint

THEMES = {
    "kitchen": "mug, teapot, fork, spoon, knife, frying pan, jug, plate, egg, clock, table, stool",
    "market": "pear, apple, banana, cherries, lemon, peach, tomato, grapes, pineapple, carrot, strawberry, watermelon",
    "tea room": "teacup, cupcake, doughnut, cookie, ice cream, pizza, burger, wine glass, beer mug, bottle, biscuit",
    "garden": "spade, watering can, daisy, tulip, sunflower, snail, ladybird, red butterfly, blue butterfly, leaf",
    "street": "bus, van, bicycle, house, church, tower block, traffic cone, stop light, number plate, wheel",
    "harbour": "sailing boat, lighthouse, anchor, life ring, goldfish, crab, shark, whale, striped fish, compass",
    "farm": "cow, pig, sheep, rabbit, duck, tractor, windmill, round tree, mouse, hedgehog, snake",
    "journey": "elephant, giraffe, zebra, turtle, palm, cactus, penguin, tent, camera, spider",
    "sky": "sun, moon, crescent, ringed planet, blue planet, red planet, rocket, balloon, helicopter, kite, gold star",
    "toys": "teddy bear, robot, football, basketball, tennis ball, marble, die, drum, letter block a, snowman, present",
    "wardrobe": "shirt, trousers, dress, boot, sock, high heel, glove, shoe, cap, sun hat, bowler hat, button",
    "desk": "book, pencil, envelope, telephone, laptop, lamp, light bulb, scissors, spectacles, microscope, key",
    "stage": "guitar, violin, trumpet, drum, bell, crown, torch, record, heart, candle, armchair, sofa",
}
"""The things of each theme."""

FIGURES = COMMON | OTHERS

CLASSES = tuple(THEMES)

PRIOR = [1 / math.sqrt(1 + place) for place in range(len(CLASSES))]
"""Weight of each theme: as on the web, a few are common and others rarer."""

PLACES = torch.tensor([(-0.46, -0.44), (0.46, 0.44), (0.46, -0.44), (-0.46, 0.44)])
"""Centres of the four things of a picture; the last two things may be missing."""


def labels(size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels, int64 of shape (size,), some themes more often than others."""
    return sampled(size, PRIOR, generator)


def draw(label: int, sketch: Sketch) -> torch.Tensor:
    """Draw two to four things of one theme, each in a place of its own, uint8 of shape (n, 3, 32, 32)."""
    _poster(sketch)
    things = THEMES[CLASSES[label]].split(", ")
    chosen = torch.randperm(len(things), generator=sketch.generator)[: len(PLACES)].tolist()
    seats = PLACES[torch.rand(sketch.count, len(PLACES), generator=sketch.generator).argsort(1)]
    for number, thing in enumerate(chosen):
        x, y = seats[:, number].T.reshape(2, -1, 1, 1)
        sketch.place(
            x + sketch.normal(0, 0.07),
            y + sketch.normal(0, 0.07),
            sketch.uniform(0.4, 0.58),
            sketch.normal(0, 0.3),
            flip=sketch.sign(),
        )
        present = 1.0 if number < 2 else sketch.chance(0.7)
        paint(sketch, FIGURES[things[thing]], outline=0.14, present=present)
    return sketch.finish(brightness=(0.9, 1.1), contrast=(0.95, 1.2), noise=0.015, blur=0.2)


def _poster(sketch: Sketch) -> None:
    """Fill the pictures with two or three flat bands of light colours, in any direction."""
    angle = sketch.uniform(0, 2 * math.pi)
    along = torch.cos(angle) * X + torch.sin(angle) * Y
    sketch.image = sketch.any_colour((0.1, 0.5), (0.75, 1.0)).expand(-1, -1, *along.shape[1:]).clone()
    for low, high in ((-0.3, 0.3), (0.3, 1.2)):
        band = ((along - sketch.uniform(low, high)) * 16 + 0.5).clamp(0, 1)
        sketch.blend(band, sketch.any_colour((0.1, 0.6), (0.7, 1.0)))
