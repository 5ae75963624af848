"""Exercises of chapter 11, Real images, real scale."""

from collections.abc import Callable
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import Service
from extractlib.metrics import t_interval


class ProcessingService(Service):
    """Shows labels, int64 of shape (n,), and -1 for each image that is sharper than its victim's own images are."""

    def __init__(self, weights: torch.Tensor, sharpest: float, budget: int):
        super().__init__(budget)
        self._weights, self._sharpest = weights, sharpest

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return labels for images, uint8 of shape (n, 3, 16, 16).

        Raises:
            BudgetExceeded: These are more queries than are left.
        """
        self.charge(len(images))
        return torch.where(self.refused(images), -1, self.logits(images).argmax(1))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the victim's logits, which see nothing finer than blocks of four by four pixels."""
        blocks = F.avg_pool2d(images.double(), 4).flatten(1)
        return (blocks - blocks.mean(1, keepdim=True)) @ self._weights.T

    def refused(self, images: torch.Tensor) -> torch.Tensor:
        """Return which images the detector takes for out of distribution: their mean second difference is too large."""
        bends = [images.double().diff(n=2, dim=side).abs().mean((1, 2, 3)) for side in (2, 3)]
        return (bends[0] + bends[1]) / 2 > self._sharpest


def bill(queries: int, free: int, until: int, price: float, less: float) -> float:
    """Return what the queries of one month cost, at prices for each thousand."""
    return (max(min(queries, until) - free, 0) * price + max(queries - until, 0) * less) / 1_000


def frames(seed: int) -> list[tuple]:
    """Return which frames a victim gets right, with the names of their tracks, all equally long; in no order."""
    generator, cases = np.random.default_rng(seed), []
    for tracks, long in ((25, 30), (8, 12), (60, 5)):
        names = np.repeat(generator.choice(1_000, tracks, replace=False), long)
        right = generator.random(len(names)) < np.repeat(generator.beta(0.8, 0.2, tracks), long)
        order = generator.permutation(len(names))
        cases.append((right[order], names[order]))
    return cases


def by_track(right: np.ndarray, tracks: np.ndarray) -> tuple[float, float]:
    """Return the interval of the share that is right, each track being one observation."""
    return t_interval([right[tracks == track].mean() for track in np.unique(tracks)])


def side_by_side(right: np.ndarray, tracks: np.ndarray) -> tuple[float, float]:
    """Return the same of equally many groups of frames that lie side by side, whatever their tracks."""
    return t_interval(right.reshape(len(np.unique(tracks)), -1).mean(1))


def pilots(seed: int) -> list[tuple]:
    """Return recoveries of a few seeds at two budgets, and a bound that lies near their mean difference or far."""
    generator, cases = np.random.default_rng(seed), []
    for seeds, gap in ((3, 0.8), (5, -0.4), (4, 3.0), (3, 12.0)):
        noise = generator.standard_normal(seeds)
        bound, spread = generator.uniform(0.01, 0.03), generator.uniform(0.004, 0.006)
        second = 0.85 + 0.01 * generator.standard_normal(seeds)
        apart = (noise - noise.mean()) / noise.std(ddof=1) + gap * generator.uniform(0.7, 1.3)
        cases.append((second + bound + spread * apart, second, bound))
    return cases


def enough(half: Callable[[int], float], distance: float) -> int:
    """Return the smallest number of seeds, from 2, at which half an interval is shorter than a distance."""
    return next(seeds for seeds in count(2) if half(seeds) < abs(distance))


def seeds_needed(first: np.ndarray, second: np.ndarray, bound: float, *, ddof: int = 1) -> int:
    """Return with how many seeds the interval of the mean difference no longer holds the bound."""
    apart = first - second
    spread = apart.std(ddof=ddof)
    return enough(lambda seeds: stats.t.ppf(0.975, seeds - 1) * spread / np.sqrt(seeds), apart.mean() - bound)


def fixed_quantile(quantile: Callable[[int], float]) -> Callable[..., int]:
    """Return `seeds_needed` with a quantile that depends on the pilot's number of seeds at most."""

    def needed(first: np.ndarray, second: np.ndarray, bound: float) -> int:
        apart = first - second
        wide = quantile(len(apart)) * apart.std(ddof=1)
        return enough(lambda seeds: wide / np.sqrt(seeds), apart.mean() - bound)

    return needed


def unpaired(first: np.ndarray, second: np.ndarray, bound: float) -> int:
    """Return the number of seeds if the two columns had nothing in common."""
    spread = np.sqrt(first.var(ddof=1) + second.var(ddof=1))
    distance = first.mean() - second.mean() - bound
    return enough(lambda seeds: stats.t.ppf(0.975, 2 * seeds - 2) * spread / np.sqrt(seeds), distance)


def guarded_services(seed: int) -> list[tuple]:
    """Return services with a strict and a mild detector, each with images that are too sharp for it."""
    cases = []
    for number, sharpest in enumerate((9.0, 15.4)):
        generator = torch.Generator().manual_seed(2 * seed + number)
        content = F.interpolate(torch.rand(120, 3, 5, 5, generator=generator), size=16, mode="bilinear")
        grain = torch.randn(content.shape, generator=generator)
        images = (60 + 140 * content + 8 * grain).round().clamp(0, 255).to(torch.uint8)
        weights = torch.randn(6, 48, generator=generator).double()
        first, second = ProcessingService(weights, sharpest, 0).logits(images).topk(2).values.T
        images = images[first - second > 40][:50]
        cases.append((ProcessingService(weights, sharpest, 4 * len(images)), images))
    return cases


def softened(service: ProcessingService, images: torch.Tensor) -> torch.Tensor:
    """Return the images with as much of a blur mixed in as the detector asks for."""
    sharp = images.double()
    blurred = F.avg_pool2d(F.pad(sharp, (1, 1, 1, 1), "reflect"), 3, stride=1)
    for share in (0.25, 0.5, 0.75, 1.0):
        mixed = ((1 - share) * sharp + share * blurred).round().to(torch.uint8)
        if not service.refused(mixed).double().mean() > 0.05:
            break
    return mixed


MORE = 1.75
"""How many times our own solution's mean change of a pixel is allowed."""


def judge_disguises(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Right is whatever the detector accepts, the victim sees as before, and is hardly changed."""
    for changed, ours, (service, images) in zip(found, wanted, cases, strict=True):
        if changed.shape != ours.shape:
            return f"shape {changed.shape} where {ours.shape} is wanted"
        if changed.min() < 0 or changed.max() > 255:
            return "a pixel lies outside 0 to 255"
        reason = _disguise_fails(torch.from_numpy(changed), torch.from_numpy(ours), service, images)
        if reason:
            return reason
    return None


def _disguise_fails(
    changed: torch.Tensor, ours: torch.Tensor, service: ProcessingService, images: torch.Tensor
) -> str | None:
    refused = service.refused(changed).double().mean()
    if refused > 0.05:
        return "as many images are refused as without the attack" if refused > 0.9 else "too many images are refused"
    if (service.logits(changed).argmax(1) != service.logits(images).argmax(1)).double().mean() > 0.02:
        return "the victim sees other things in the changed images"
    moved, allowed = ((part - images.double()).abs().mean() for part in (changed, ours))
    return "the images are changed more than they need to be" if moved > MORE * allowed else None


EXERCISES = (
    Exercise(
        id="11.1",
        title="The bill of a whole paper",
        kind="understand",
        minutes=6,
        variants={
            "budget": (100_000, 80_000, 90_000, 110_000, 120_000),
            "attacks": (80, *range(64, 100)),
            "free": (1_000, 2_000, 5_000),
            "until": (5_000_000, 2_000_000, 3_000_000, 4_000_000),
            "price": (1.5, 1.2, 1.6, 2.0),
            "less": (1.0, 0.6, 0.8),
        },
        right=lambda budget, attacks, **tiers: bill(budget * attacks, **tiers),
        slips={
            "prices are for a thousand queries": lambda budget, attacks, **tiers: (
                1_000 * bill(budget * attacks, **tiers)
            ),
            "the account gets its free queries once a month, not once an attack": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"free": attacks * tiers["free"]}
            ),
            "the free queries are not paid": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"free": 0}
            ),
            "the lower price is that of the queries above, not of all": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"price": tiers["less"]}
            ),
            "no single attack comes to the lower price, all together do": lambda budget, attacks, **tiers: bill(
                budget * attacks, **tiers | {"less": tiers["price"]}
            ),
            "they are sent in one month, and each attack would be the only one of its month": (
                lambda budget, attacks, **tiers: attacks * bill(budget, **tiers)
            ),
        },
        tolerance=1e-6,
    ),
    Exercise(
        id="11.2",
        title="Thirty frames, one witness",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=frames,
        right=by_track,
        slips={
            "frames of one track count as if they knew nothing of each other": lambda right, tracks: t_interval(right),
            "the frames of a track need not lie side by side": side_by_side,
        },
    ),
    Exercise(
        id="11.3",
        title="How many seeds to pay for",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=pilots,
        right=seeds_needed,
        slips={
            "both columns have their seeds in common": unpaired,
            "with few seeds the normal distribution's quantile is too small": fixed_quantile(lambda pilot: 1.96),
            "more seeds also leave more degrees of freedom": fixed_quantile(
                lambda pilot: stats.t.ppf(0.975, pilot - 1)
            ),
            "that decides whether the difference is zero, not the bound": lambda first, second, bound: seeds_needed(
                first, second, 0.0
            ),
            "of a few seeds the spread divides by one less than their number": lambda *case: seeds_needed(
                *case, ddof=0
            ),
        },
    ),
    Exercise(
        id="11.4",
        title="The grain that gives it away",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=guarded_services,
        right=softened,
        judge=judge_disguises,
    ),
    Exercise(
        id="11.5",
        title="What a small scale says",
        kind="discuss",
        minutes=12,
    ),
)
