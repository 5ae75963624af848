"""Exercises of chapter 4, The prediction API."""

from functools import partial

import numpy as np
import torch

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.data.images import ImageSet
from extractlib.errors import InputError


def most_hidden(classes: int, shown: tuple[float, ...]) -> float:
    """Return the largest distance of an answer's target from the full answer: one class has all that is hidden."""
    others = classes - len(shown)
    return 2 * (1 - sum(shown)) * (others - 1) / others


def rounded_answers(seed: int) -> list[tuple]:
    """Return answers rounded to one decimal, some of which are all zeros, and the labels that come with them."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, classes, scale in ((8, 5, 2.0), (10, 40, 0.3), (12, 30, 1.0)):
        logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
        logits[::3] /= 10
        full = logits.softmax(1)
        cases.append(((10 * full).round() / 10, full.argmax(1)))
    return cases


def scaled(rounded: torch.Tensor, labels: torch.Tensor, *, certain: bool = True) -> torch.Tensor:
    """Return targets that sum to 1; an answer of zeros becomes its label alone or, by mistake, equal shares."""
    empty = rounded.sum(1) == 0
    targets = rounded.clone()
    targets[empty] = torch.eye(rounded.shape[1], dtype=rounded.dtype)[labels[empty]] if certain else 1.0
    return targets / targets.sum(1, keepdim=True)


def journals(seed: int) -> list[tuple]:
    """Return requests, each with a client, an id and image numbers, and the budget of every client."""
    generator = np.random.default_rng(seed)
    few = [("ann", "r1", (1, 2, 3)), ("ann", "r1", (1, 2, 3)), ("ben", "r1", (4, 5)), ("ann", "r1", (1, 2, 4))]
    few += [("ann", "r2", (5, 6)), ("ann", "r2", (5,)), ("ann", "r2", (5,)), ("ann", "r1", (1, 2, 3))]
    few += [("ben", "r2", (7, 7)), ("ben", "r3", (8,)), ("ann", "r1", (2, 1, 3)), ("ben", "r2", (7, 7))]
    cases = [(few, 4)]
    for count in (30, 60):
        batches = [tuple(generator.integers(100, size=generator.integers(1, 6)).tolist()) for _ in range(count // 6)]
        names, ids, places = (generator.integers(n, size=count) for n in (2, count // 5, len(batches)))
        asked = [(("ann", "ben")[n], f"r{i}", batches[p]) for n, i, p in zip(names, ids, places, strict=True)]
        for place in range(2, count, 3):
            asked[place] = asked[generator.integers(place)]
        cases.append((asked, count // 4))
    return cases


def charged(
    requests: list,
    budget: int,
    *,
    free: bool = True,
    own: bool = True,
    kept: bool = False,
    shared: bool = False,
    money_first: bool = False,
) -> np.ndarray:
    """Return how much each request is charged, 0 for a retry and -1 for a refusal, int64 of shape (n,).

    Five mistakes can be switched on: a retry is not `free`, clients do not have their `own` ids, a refused id is
    `kept`, the budget is `shared` by all clients, and the budget is checked before the id (`money_first`).
    """
    left: dict = {}
    known: dict = {}
    charges = []
    for client, name, images in requests:
        key = (client if own else None, name)
        client = "all" if shared else client
        refused = known.get(key, images) != images
        refused = refused or (money_first and len(images) > left.setdefault(client, budget))
        if not refused and key in known and free:
            charges.append(0)
            continue
        refused = refused or len(images) > left.setdefault(client, budget)
        if not refused or kept:
            known.setdefault(key, images)
        left[client] = left.get(client, budget) - (0 if refused else len(images))
        charges.append(-1 if refused else len(images))
    return np.array(charges)


QUERIES, PATIENCE = 2_000, 0.045
"""Queries of the attacker in exercise 4.4, and the largest mean total variation distance that customers accept."""


def sent() -> ImageSet:
    """Return the images that an attacker sends to the victim of exercise 4.4."""
    return held_out.images("atlas", "queries", QUERIES, 0)


def asked(seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Return the full answers to the images of the attacker and the customers, mixed, and their order."""
    images = [sent(), held_out.images("objects", "test", held_out.TESTED, seed)]
    answers = torch.cat([held_out.answers("objects", one.images[:]) for one in images])
    order = held_out.order_of(len(answers), seed)
    return answers[order], order


def disagreement(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return one minus the agreement of a copy trained on the served answers, and the name of this number.

    Raises:
        InputError: A served row is not an answer or has another label, or the customers' answers change too much.
    """
    [served], [(full, *_)], order = found, cases, wanted[0].astype(int)
    full = full.numpy()
    if served.shape != full.shape:
        raise InputError(f"the shape is {served.shape}: expected {full.shape}")
    if not (np.isfinite(served).all() and (served >= 0).all() and np.allclose(served.sum(1), 1, atol=1e-4)):
        raise InputError("a row is not an answer: its numbers must be at least 0 and sum to 1")
    if changed := held_out.changed_labels(served, full):
        raise InputError(f"{changed} answers have another most probable class than the victim's, or two: none may")
    change = np.abs(served - full)[order >= QUERIES].sum(1).mean() / 2
    if change > PATIENCE:
        raise InputError(f"the customers' answers change by {change:.3f} on average: at most {PATIENCE} is allowed")
    targets = torch.from_numpy(served[order.argsort()[:QUERIES]])
    agreement = held_out.copied("objects", sent().images[:], targets, seed=0)
    return 1 - agreement, "the copy's disagreement with the victim"


EXERCISES = (
    Exercise(
        id="4.1",
        title="The most that an answer hides",
        kind="understand",
        minutes=8,
        variants={
            "classes": (10, *range(8, 40)),
            "shown": ((0.6, 0.25), (0.7, 0.2), (0.5, 0.25, 0.15), (0.55, 0.3), (0.4, 0.3, 0.2)),
        },
        right=most_hidden,
        slips={
            "what one class has too little of, others have too much of": lambda classes, shown: (
                most_hidden(classes, shown) / 2
            ),
            "the target also gives the hidden class its share": lambda classes, shown: 2 * (1 - sum(shown)),
            "the rest is spread over the classes that are not shown": lambda classes, shown: (
                2 * (1 - sum(shown)) * (classes - 1) / classes
            ),
            "that is how much is hidden, not how far the target can be off": lambda classes, shown: 1 - sum(shown),
        },
    ),
    Exercise(
        id="4.2",
        title="Nothing but zeros",
        kind="modify",
        minutes=6,
        variants={"seed": SEEDS},
        cases=rounded_answers,
        right=scaled,
        slips={"the label that comes with the zeros is thrown away": partial(scaled, certain=False)},
    ),
    Exercise(
        id="4.3",
        title="Charged once",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=journals,
        right=charged,
        slips={
            "a retry is charged again": partial(charged, free=False),
            "two clients may choose the same id": partial(charged, own=False),
            "a refused request does not count, and its id is still free": partial(charged, kept=True),
            "each client has its own budget": partial(charged, shared=True),
            "a client with no budget left cannot fetch again what it has paid for: check the id first": partial(
                charged, money_first=True
            ),
        },
    ),
    Exercise(
        id="4.4",
        title="Show less in doubt",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=lambda seed: [asked(seed)[:1]],
        key=lambda seed: [asked(seed)[1].astype(float)],
        score=disagreement,
        marks=(0.16, 0.24),
    ),
    Exercise(
        id="4.5",
        title="What the meter must remember",
        kind="discuss",
        minutes=10,
    ),
)
