"""A victim that returns nothing but labels, stolen all the same."""

import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import NetworkService, agreement


class LabelNetworkService(NetworkService):
    """The same victim behind an API that returns only labels, int64 of shape (n,)."""

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return super().__call__(vectors).argmax(1)


def services(seed: int) -> list[tuple]:
    """Return a service with 1,000 queries, a pool of 4,000 vectors, and 2,000 vectors to label."""
    generator = torch.Generator().manual_seed(seed)
    service = LabelNetworkService(generator, budget=1_000)
    return [(service, *(service.vectors(count, generator) for count in (4_000, 2_000)))]


EXERCISE = Exercise(
    id="6.A",
    title="Labels are enough",
    kind="attack or defend",
    minutes=30,
    variants={"seed": SEEDS},
    cases=services,
    right=lambda service, pool, wanted: service.labels(wanted),
    score=agreement,
    marks=(0.6, 0.85),
)
