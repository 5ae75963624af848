"""Detect the attacker account by account, and see how Sybil accounts slip through (beyond the paper)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.reproduction.experiments.detection import first
from extractbook.reproduction.setups import Setup
from extractlib.api.service import PredictionAPI
from extractlib.attacks.jacobian import jacobian_augmentation
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet
from extractlib.data.sources import Source
from extractlib.defenses.accounts import CountingDetector, StatefulDetector, choose_delta, split_among
from extractlib.models.training import Recipe

WATCHED = 20
"""Number of the adversary's accounts whose flag times are measured, and the least number of Sybil accounts."""

CONTROL = 1_000
"""The most queries of the positive control."""

SEEDS = 16
"""One query in this many is a natural image: the others come from four rounds, each of which doubles the images."""

ROUND = Recipe(epochs=10, learning_rate=0.05, weight_decay=0.0, shift=0)
"""How the positive control's surrogate is trained in each round."""


@dataclass(frozen=True)
class Queries:
    """Images that someone may send, with what detectors of accounts look at.

    Attributes:
        images: uint8 of shape (n, 3, height, width), perhaps smaller than when they were sent.
        labels: The victim's labels, int64 of shape (n,).
        caught: Whether the detector of single queries catches each, bool of shape (n,).
    """

    images: torch.Tensor
    labels: torch.Tensor
    caught: torch.Tensor

    @classmethod
    def of(cls, setup: Setup, images: torch.Tensor) -> "Queries":
        """Return images with the victim's labels and the verdicts of the paper's detector."""
        labels, caught = setup.victim.logits(images).argmax(1), setup.detector.detect(images)
        if setup.settings.account_size:
            size = setup.settings.account_size
            images = torch.cat([F.adaptive_avg_pool2d(part.float(), size).byte() for part in images.split(512)])
        return cls(images, labels, caught)

    def account(self, chosen: torch.Tensor) -> "Queries":
        """Return the queries of an account that sends the `chosen` images (indices, int64) in this order."""
        return Queries(self.images[chosen], self.labels[chosen], self.caught[chosen])


def accounts(setup: Setup) -> dict:
    """Return when a detector that watches all queries of an account flags it, and whether Sybil accounts slip through.

    The thresholds of both detectors are set on honest accounts, whose images come from the victim's own source; the
    counting detector counts the queries that the paper's detector catches. The adversary has images of the shifted
    source. Its Sybil accounts share the cell's budget: there are at least `WATCHED` of them, and enough that each stays
    below half of the flag time in the scale's file.

    Returns:
        For ``"prada"`` and ``"counting"``: ``positive_control_flagged``, whether an account that does Jacobian
        augmentation is flagged; ``honest_flagged``, the share of other honest accounts that are flagged;
        ``flag_times``, after how many queries each of the adversary's `WATCHED` accounts, each with the whole budget,
        is flagged, or None; ``queries`` and ``accounts``, the numbers of queries and of Sybil accounts; and
        ``sybil_flagged``, the share of Sybil accounts that are flagged. Also PRADA's ``delta`` and the ``rate`` of
        honest queries caught. ``images`` is the number of honest accounts judged; if they share no image, there are
        only as many as the adversary's part can fill.
    """
    settings, seed = setup.settings, setup.cell.seed
    generator = np.random.default_rng([seed, *b"accounts"])
    half = len(setup.task["adversary"]) // 2
    # The frames of one track are adjacent: the two halves share at most one track.
    halves = [first(setup.task["adversary"], at, max(half, settings.stream)) for at in (0, half)]
    drawn = _apart if settings.accounts_apart else _drawn
    source = setup.queries(Source(setup.cell.task).shifted())
    queries = min(setup.cell.budget, len(source))
    known, judged = (
        drawn(Queries.of(setup, one.images[:]), settings.streams, settings.stream, generator) for one in halves
    )
    shifted = Queries.of(setup, source.images[:])
    alone = _drawn(shifted, WATCHED, queries, generator)
    sent = shifted.account(Knockoff(budget=queries, seed=seed).indices(len(source)))
    control = _positive_control(setup, source, min(queries, CONTROL))
    prada = StatefulDetector(delta=choose_delta((one.images, one.labels) for one in known))
    counting = CountingDetector.fit(torch.cat([one.caught for one in known]))
    watchers: dict[str, Callable[[Queries], int | None]] = {
        "prada": lambda one: prada.queries_until_flagged(one.images, one.labels),
        "counting": lambda one: counting.queries_until_flagged(one.caught),
    }
    result: dict = {"images": len(judged)}
    for name, until in watchers.items():
        number = sybil_accounts(queries, settings.flag_times.get(setup.cell.task, {}).get(name))
        result[name] = {
            "positive_control_flagged": until(control) is not None,
            "honest_flagged": _flagged(until, judged),
            "flag_times": [until(one) for one in alone],
            "queries": queries,
            "accounts": number,
            "sybil_flagged": _flagged(until, [sent.account(chosen) for chosen in split_among(queries, number)]),
        }
    result["prada"]["delta"], result["counting"]["rate"] = prada.delta, counting.rate
    return result


def sybil_accounts(queries: int, flag_time: int | None) -> int:
    """Return how many accounts an adversary uses for its queries if it knows when one account is flagged.

    There are at least `WATCHED`, and enough that none sends more queries than half of the flag time.
    """
    return max(WATCHED, math.ceil(2 * queries / flag_time)) if flag_time else WATCHED


def flag_time(times: Sequence[int | None]) -> int | None:
    """Return the 5th percentile of flag times, as it is given in a scale's file.

    Args:
        times: The flag time of each account, None if it was never flagged.

    Returns:
        The percentile, or None if fewer than half of the accounts were flagged.
    """
    found = [math.inf if time is None else time for time in times]
    if 2 * sum(map(math.isfinite, found)) < len(found):
        return None
    return int(np.percentile(found, 5, method="inverted_cdf"))


def _drawn(asked: Queries, count: int, length: int, generator: np.random.Generator) -> list[Queries]:
    """Return `count` accounts of `length` queries each, drawn independently for each account."""
    total = len(asked.labels)
    return [asked.account(torch.from_numpy(generator.permutation(total)[:length])) for _ in range(count)]


def _apart(asked: Queries, count: int, length: int, generator: np.random.Generator) -> list[Queries]:
    """Return as many accounts of `length` queries as can be made without sharing an image, at most `count`."""
    order = torch.from_numpy(generator.permutation(len(asked.labels)))
    return [asked.account(chosen) for chosen in order.split(length)[: min(count, len(order) // length)]]


def _flagged(until: Callable[[Queries], int | None], watched: Sequence[Queries]) -> float:
    return sum(until(one) is not None for one in watched) / len(watched)


def _positive_control(setup: Setup, source: ImageSet, queries: int) -> Queries:
    """Return the queries of an attack that PRADA was designed to notice, from the adversary's images."""
    seeds = source.subset(torch.arange(max(2, queries // SEEDS)))
    given = setup.settings.surrogate
    recipe = (
        ROUND
        if given.optimizer == ROUND.optimizer
        else replace(ROUND, optimizer=given.optimizer, learning_rate=given.learning_rate)
    )
    trainer = setup.trainer(setup.settings.network, recipe, keep=False)
    return Queries.of(setup, jacobian_augmentation(PredictionAPI(setup.victim), seeds, trainer, budget=queries)[0])
