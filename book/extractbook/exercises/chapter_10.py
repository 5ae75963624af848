"""Exercises of chapter 10, The realistic adversary."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from scipy import stats

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import OneAccount
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.attacks.knockoff import SURROGATE, Knockoff
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.defenses.detectors import BinaryDetector
from extractlib.defenses.policies import Shuffle
from extractlib.models.classifier import load_victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe

VICTIM = "objects"


def bill(budget: int, until: int, fee: float, price: float) -> float:
    """Return the cost of a budget that is split among accounts so that none of them sends its query number `until`."""
    return math.ceil(budget / (until - 1)) * fee + budget * price


def histories(seed: int) -> list[tuple]:
    """Return which queries of an account were caught, with the honest rate, the window and the chance.

    The accounts, for two rates, windows and chances: a thief, a thief with an honest past, one with just too many hits
    for a window that begins with the first hit and ends with the last, one whose last hit comes a query later, and an
    honest customer.
    """
    generator, cases = np.random.default_rng(seed), []
    for rate, window, chance, apart in ((0.02, 50, 1e-6, 6), (0.05, 20, 0.004, 4)):
        honest, stolen = generator.random(300) < 0.02, generator.random(60) < 0.9
        quiet = np.zeros(generator.integers(60, 200), bool)
        few = []
        for last in (window - 1, window):
            hits = np.zeros(last + 1, bool)
            hits[[*range(0, window - apart, apart), last]] = True
            few.append(np.concatenate([quiet, hits, quiet]))
        streams = (stolen, np.append(honest, stolen), *few, honest)
        cases += [(caught, rate, window, chance) for caught in streams]
    return cases


def until_flagged(
    caught: np.ndarray, rate: float, window: int, chance: float, *, more: int = 0, most: int | None = None
) -> int:
    """Return after how many queries an account is flagged, 0 if never.

    Two mistakes can be switched on: `more` hits are looked for, and at `most` so many queries are taken to be there.
    """
    numbers = np.arange(1, len(caught) + 1)
    counts = np.convolve(caught, np.ones(window))[: len(caught)]
    found = numbers[stats.binom.sf(counts - 1 + more, numbers.clip(max=most or window), rate) < chance]
    return int(found[0]) if len(found) else 0


def marked_models(seed: int) -> list[tuple]:
    """Return the numbers of repeated marks and of all marks, and how many each control repeats."""
    generator = np.random.default_rng(seed)
    shares = ((50, 0.1, 0.02, 3), (200, 0.6, 0.1, 1), (100, 0.2, 0.2, 5), (300, 0.5, 0.05, 10), (4, 1, 0.3, 2))
    return [
        (
            min(int(marks * share + generator.integers(4)), marks),
            marks,
            generator.binomial(marks - 1, rate, size).tolist(),
        )
        for marks, share, rate, size in shares
    ]


def p_value(repeated: int, marks: int, by_controls: Sequence[int], *, bound: float = 0.975) -> float:
    """Return the chance of this many repeats at the upper bound of the controls' rate; 0.5 takes the rate itself."""
    hits, trials = sum(by_controls), marks * len(by_controls)
    rate = stats.beta.ppf(bound, hits + 1, trials - hits) if bound > 0.5 else hits / trials
    return float(stats.binom.sf(repeated - 1, marks, rate))


@cache
def defended(seed: int) -> tuple[BinaryDetector, torch.Tensor, torch.Tensor, ImageSet]:
    """Return a detector for objects, an adversary's own images, a pool's images, and test images."""
    recipe = Recipe(epochs=4, learning_rate=0.05, batch_size=128)
    trainer = Trainer(network="resnet", recipe=recipe, seed=seed, backbone="shipped")
    benign, ood = (drawn.draw(name, part="detector", size=1_000, seed=seed).unlabeled() for name in (VICTIM, "atlas"))
    own = drawn.draw(VICTIM, part="adversary", size=100, seed=seed, shifted=True)
    pool = drawn.draw("atlas", part="queries", size=1_000, seed=seed)
    return (
        BinaryDetector.train(benign, ood, trainer),
        own.images[:],
        pool.images[:],
        drawn.draw(VICTIM, part="test", size=600, seed=seed),
    )


def defended_services(seed: int) -> list[tuple]:
    """Return an API of 500 queries that shuffles the answers it detects, the attacker's images, and images to label."""
    detector, own, pool, test = defended(seed)
    policy = Shuffle(seed.to_bytes(8, "big"))
    return [(OneAccount(load_victim(VICTIM), budget=500, detector=detector, policy=policy), own, pool, test.images)]


STEPS = replace(SURROGATE, epochs=0, steps=64, shift=2)
"""How the copy of the adversary's images alone is trained: for as many steps as 500 queries, with moved images."""


@cache
def alone(seed: int) -> np.ndarray:
    """Return the labels of a copy trained on the answers to the adversary's own images alone, each sent once.

    It is trained for as many steps as five hundred queries are, so what more queries add is not what more steps add.
    """
    api, own, _, images = defended_services(seed)[0]
    attack = Knockoff(budget=len(own))
    return attack(api, as_images(own), recipe=STEPS, progress=False).predict(images).numpy()


def gained(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the recovery above that of the adversary's images alone (see `held_out.gained`), and its name."""
    victim = load_victim(VICTIM).predict(cases[0][3]).numpy()
    return held_out.gained(found, wanted, victim), "recovery above that of the 100 images alone"


EXERCISES = (
    Exercise(
        id="10.1",
        title="The bill of a Sybil",
        kind="understand",
        minutes=6,
        variants={
            "budget": (10_000, 4_000, 5_000, 8_000),
            "until": (14, 8, 18, 28, 58),
            "fee": (2.5, 0.5, 1.5, 3.5, 4.5),
            "price": (0.001, 0.002, 0.003, 0.005),
        },
        right=bill,
        slips={
            "an account is flagged at its query number `until`": lambda budget, until, **costs: bill(
                budget, until + 1, **costs
            ),
            "each account pays the fee": lambda budget, until, **costs: bill(budget, budget + 1, **costs),
            "the queries must be paid for too": lambda budget, until, fee, price: bill(budget, until, fee, 0),
            "accounts cannot be divided": lambda budget, until, fee, price: budget / (until - 1) * fee + budget * price,
            "the last account need not send all the queries that it could": lambda budget, until, fee, price: (
                math.ceil(budget / (until - 1)) * (fee + (until - 1) * price)
            ),
        },
        tolerance=1e-7,
    ),
    Exercise(
        id="10.2",
        title="An account with a past",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=histories,
        right=until_flagged,
        slips={
            "the account's past still counts": lambda caught, rate, window, chance: until_flagged(
                caught, rate, len(caught), chance
            ),
            "at least that many: exactly that many counts too": lambda *case: until_flagged(*case, more=1),
            "that window is a query too long": lambda caught, rate, window, chance: until_flagged(
                caught, rate, window + 1, chance, most=window
            ),
        },
    ),
    Exercise(
        id="10.3",
        title="More than one control",
        kind="implement",
        minutes=10,
        variants={"seed": SEEDS},
        cases=marked_models,
        right=p_value,
        slips={
            "exactly that many counts too": lambda repeated, *case: p_value(repeated + 1, *case),
            "the rate is uncertain: take its upper bound": partial(p_value, bound=0.5),
            "the bound is one-sided": partial(p_value, bound=0.9875),
            "all controls count, not only the first": lambda repeated, marks, by: p_value(repeated, marks, by[:1]),
        },
        tolerance=5e-3,
    ),
    Exercise(
        id="10.4",
        title="A hundred images",
        kind="attack or defend",
        minutes=16,
        variants={"seed": SEEDS},
        cases=defended_services,
        key=lambda seed: [np.stack([defended(seed)[3].known_labels().numpy(), alone(seed)])],
        score=gained,
        marks=(0.01, 0.04),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="10.5",
        title="When a mark accuses",
        kind="discuss",
        minutes=8,
    ),
)
