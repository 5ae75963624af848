"""Exercises of chapter 2, The images."""

from collections.abc import Iterable
from functools import partial
from math import erf, sqrt

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.without import SHIPPED_AND_DRAWN


def ceiling(grades: int, error: float) -> float:
    """Return the best accuracy for equally frequent grades that are observed with a normal error."""
    phi = (1 + erf(0.5 / error / sqrt(2))) / 2
    return ((grades - 2) * (2 * phi - 1) + 2 * phi) / grades


def features(seed: int) -> list[tuple]:
    """Return features of a task's images and of a pool, float32 of shape (n, 8), of unequal lengths."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for images, pool in ((40, 60), (50, 25), (30, 200)):
        parts = [torch.randn(n, 8, generator=generator) for n in (images, pool)]
        cases.append(tuple(part * torch.rand(len(part), 1, generator=generator).mul(3).add(0.2) for part in parts))
    return cases


def covered(task: torch.Tensor, pool: torch.Tensor, *, length: bool = False, itself: bool = False) -> float:
    """Return the share of the task's images that are nearer to the pool than to the rest of the task.

    Two mistakes can be switched on: counting `length` as nearness, and comparing an image with `itself`.
    """
    if not length:
        task, pool = F.normalize(task), F.normalize(pool)
    within = task @ task.T
    if not itself:
        within.fill_diagonal_(-torch.inf)
    return ((task @ pool.T).amax(1) > within.amax(1)).double().mean().item()


LONG, TRIALS = 20, 30
"""Frames of a long film in the last cases of exercise 2.3, and the number of seeds for which they are split."""


def films(seed: int) -> list[tuple]:
    """Return each frame's film, the test part's least size, and a seed.

    Each of the first two cases comes twice, then with another seed. The last has a few films that are much longer than
    the others, and comes with many seeds.
    """
    generator = np.random.default_rng(seed)
    cases = []
    for count in (20, 40):
        names = generator.choice(10_000, count, replace=False)
        cases.append(
            (torch.from_numpy(generator.permutation(names.repeat(generator.integers(1, 9, size=count)))), count)
        )
    first = int(generator.integers(1_000))
    frames = generator.choice(10_000, 220, replace=False).repeat([1] * 200 + [LONG] * 20)
    uneven = torch.from_numpy(generator.permutation(frames))
    return [
        *((*case, s) for case in cases for s in (first, first, first + 1)),
        *((uneven, 100, first + trial) for trial in range(TRIALS)),
    ]


def split(films: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return which frames are test frames, bool of shape (n,): whole films, until there are `count` frames."""
    return taken(films, count, np.random.default_rng(seed).permutation(films.unique().numpy()))


def taken(films: torch.Tensor, count: int, order: Iterable[int]) -> torch.Tensor:
    """Return the frames of films in this order, bool of shape (n,), until there are `count` frames."""
    test = torch.zeros(len(films), dtype=torch.bool)
    for film in order:
        if test.sum() < count:
            test |= films == film
    return test


def judge_splits(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Return why the splits are wrong; any fair split of whole films that depends only on its seed is right."""
    for test, like, (names, count, _) in zip(found, wanted, cases, strict=True):
        if test.shape != like.shape:
            return f"the shape is {test.shape}: expected {like.shape}"
        names = names.numpy()
        if np.isin(names[test], names[~test]).any():
            return "frames of one film are on both sides"
        if test.sum() < count:
            return "the test part is too small"
        if test.sum() - np.unique(names[test], return_counts=True)[1].max() >= count:
            return "the test part keeps growing after it is large enough"
    drawn, uneven = found[:-TRIALS], found[-TRIALS:]
    for first, again, other in zip(drawn[::3], drawn[1::3], drawn[2::3], strict=True):
        if not np.array_equal(first, again):
            return "the same seed gives a different split when called again"
        if np.array_equal(first, other):
            return "a different seed gives the same split"
    return not_by_lot([np.unique(cases[-1][0].numpy()[test]) for test in uneven], cases[-1][0].numpy())


def not_by_lot(chosen: list[np.ndarray], names: np.ndarray) -> str | None:
    """Return why films that were chosen at many seeds are not an equal draw from all films, or None.

    Of all films, one in eleven is long.
    """
    films, frames = np.unique(names, return_counts=True)
    places = [np.isin(films, one) for one in chosen]
    share = np.mean([(frames[place] == LONG).mean() for place in places])
    if share > 0.25:
        return "long films are chosen too often: draw films, not frames"
    if share < 0.05:
        return "long films are hardly ever chosen: draw the order of all films"
    if all((place != np.roll(place, 1)).sum() <= 2 for place in places):
        return "the films that are chosen always follow each other: draw their order"
    return None


FEW, QUERIES = 20, 1_000
"""How many images the attacker of exercise 2.4 has, and how many queries it makes from them."""


def few(seed: int) -> list[tuple]:
    """Return, for each trial, twenty images of a held-out victim's task, a number of queries and a seed."""
    images = held_out.images("birds", "adversary", FEW, seed).images[:]
    return [(images.clone(), *trial) for trial in held_out.trials(QUERIES, seed)]


def from_few(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the agreement of a copy trained on a held-out victim's answers, and the name of this number."""
    images = held_out.made(found, QUERIES)
    return held_out.copied("birds", images, held_out.answers("birds", images), seed=0), "agreement"


def repeated(images: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return repeated images, uint8 of shape (count, 3, 32, 32), mirrored half of the time: the baseline."""
    generator = torch.Generator().manual_seed(seed)
    chosen = images[torch.randint(len(images), (count,), generator=generator)]
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, chosen.flip(3), chosen)


EXERCISES = (
    Exercise(
        id="2.1",
        title="A second picture of the same eye",
        kind="understand",
        minutes=8,
        variants={"grades": (4, 3, 6, 7, 8), "error": (0.6, 0.5, 0.55, 0.65, 0.7, 0.8), "pictures": (3, 2, 4, 5)},
        right=lambda grades, error, pictures: ceiling(grades, error / sqrt(pictures)),
        slips={
            "the chapter's formula is for five grades, not for this number": lambda grades, error, pictures: ceiling(
                5, error / sqrt(pictures)
            ),
            "several pictures are more informative than one": lambda grades, error, pictures: ceiling(grades, error),
            "the error of a mean does not shrink that fast": lambda grades, error, pictures: ceiling(
                grades, error / pictures
            ),
            "the grades at the two ends can be missed on one side only": lambda grades, error, pictures: erf(
                0.5 * sqrt(pictures) / error / sqrt(2)
            ),
        },
    ),
    Exercise(
        id="2.2",
        title="Nearer than its own kind",
        kind="modify",
        minutes=12,
        variants={"seed": SEEDS},
        cases=features,
        right=covered,
        slips={
            "no image is covered at all, as if each were compared with itself": partial(covered, itself=True),
            "only the direction of features counts, not their length": partial(covered, length=True),
            "that is the share of images that the task covers": lambda task, pool: 1 - covered(task, pool),
        },
    ),
    Exercise(
        id="2.3",
        title="Frames of one video",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=films,
        right=split,
        judge=judge_splits,
    ),
    Exercise(
        id="2.4",
        title="Twenty images and a thousand queries",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=few,
        right=repeated,
        score=from_few,
        marks=(0.25, 0.50),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="2.5",
        title="What a spread over seeds can say",
        kind="discuss",
        minutes=10,
    ),
)
