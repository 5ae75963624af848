"""Exercises of chapter 10, The realistic adversary."""

import math

import numpy as np
import torch
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import LabelService
from extractlib.defenses.policies import keyed_generator

CLASSES, MARKS = 6, 0.1


class MarkingService(LabelService):
    """A label service that gives a keyed share of all vectors a wrong label, the same one whenever it is asked."""

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        labels = super().__call__(vectors)
        for row, vector in enumerate(vectors.double()):
            lot = keyed_generator(b"owner", vector)
            if lot.random() < MARKS:
                labels[row] = (labels[row] + int(lot.integers(1, CLASSES))) % CLASSES
        return labels


def bill(budget: int, until: int, fee: float, price: float) -> float:
    """Return what a budget costs that is shared among accounts so that none sends its query number `until`."""
    return math.ceil(budget / (until - 1)) * fee + budget * price


def histories(seed: int) -> list[tuple]:
    """Return which queries of an account were caught, with honest rate, window and chance.

    A thief, one with an honest past, one whose hits are just too many for the window from its first place to its last,
    and an honest customer.
    """
    generator = np.random.default_rng(seed)
    honest, stolen, few = generator.random(300) < 0.02, generator.random(60) < 0.9, np.zeros(50, bool)
    few[[0, 6, 12, 18, 24, 30, 36, 42, 49]] = True
    quiet = np.zeros(generator.integers(60, 200), bool)
    streams = (stolen, np.append(honest, stolen), np.concatenate([quiet, few, quiet]), honest)
    return [(caught, 0.02, 50, 1e-6) for caught in streams]


def until_flagged(caught: np.ndarray, rate: float, window: int, chance: float, *, more: int = 0) -> int:
    """Return after how many queries an account is flagged, 0 if never; `more` hits than there were are looked for."""
    numbers = np.arange(1, len(caught) + 1)
    counts = np.convolve(caught, np.ones(window))[: len(caught)]
    found = numbers[stats.binom.sf(counts - 1 + more, numbers.clip(max=window), rate) < chance]
    return int(found[0]) if len(found) else 0


def marked_surrogates(seed: int) -> list[tuple]:
    """Return numbers of repeated and of all marks, with the share that an honest model repeats."""
    generator = np.random.default_rng(seed)
    shares = ((50, 0.1, 0.02), (200, 0.6, 0.1), (100, 0.2, 0.2), (300, 0.5, 0.05), (4, 1, 0.3))
    return [(min(int(marks * share + generator.integers(4)), marks), marks, rate) for marks, share, rate in shares]


def marking_services(seed: int) -> list[tuple]:
    """Return a marking service and vectors that lie off its victim's borders."""
    generator = torch.Generator().manual_seed(seed)
    weights, vectors = torch.randn(CLASSES, 8, generator=generator), torch.randn(300, 8, generator=generator)
    first, second = (vectors @ weights.T).topk(2).values.T
    vectors = vectors[first - second > 0.2][:150]
    return [(MarkingService(weights.double(), torch.zeros(CLASSES), 7 * len(vectors)), vectors)]


def judge_labels(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """A few wrong labels are bad luck."""
    for labels, true in zip(found, wanted, strict=True):
        if labels.shape != true.shape:
            return f"shape {labels.shape} where {true.shape} is wanted"
        wrong = (labels != true).mean()
        if wrong > 0.01:
            return "as many labels are wrong as without the attack" if wrong > 0.07 else "too many labels are wrong"
    return None


EXERCISES = (
    Exercise(
        id="10.1",
        title="The bill of a Sybil",
        kind="understand",
        minutes=6,
        variants={
            "budget": (10_000, 4_000, 5_000, 8_000),
            "until": (14, *range(8, 60, 10)),
            "fee": (2.5, 0.5, 1.5, 3.5, 4.5),
            "price": (0.001, 0.002, 0.003, 0.005),
        },
        right=bill,
        slips={
            "its query number `until` gets an account flagged": lambda budget, until, **costs: bill(
                budget, until + 1, **costs
            ),
            "each account pays the fee": lambda budget, until, **costs: bill(budget, budget + 1, **costs),
            "the queries are to be paid too": lambda budget, until, fee, price: bill(budget, until, fee, 0),
            "there is no part of an account": lambda budget, until, fee, price: (
                budget / (until - 1) * fee + budget * price
            ),
        },
    ),
    Exercise(
        id="10.2",
        title="An account with a past",
        kind="modify",
        minutes=12,
        variants={"seed": SEEDS},
        cases=histories,
        right=until_flagged,
        slips={
            "the account's past still counts": lambda caught, rate, window, chance: until_flagged(
                caught, rate, len(caught), chance
            ),
            "at least so many: exactly so many count too": lambda *case: until_flagged(*case, more=1),
        },
    ),
    Exercise(
        id="10.3",
        title="How often by chance",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=marked_surrogates,
        right=lambda repeated, marks, rate: stats.binom.sf(repeated - 1, marks, rate),
        slips={
            "exactly so many count too": lambda repeated, *case: stats.binom.sf(repeated, *case),
            "still more count too": stats.binom.pmf,
        },
    ),
    Exercise(
        id="10.4",
        title="Washing out the marks",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=marking_services,
        right=lambda service, vectors: (vectors.double() @ service._weights.T).argmax(1),
        judge=judge_labels,
    ),
    Exercise(
        id="10.5",
        title="When a mark accuses",
        kind="discuss",
        minutes=12,
    ),
)
