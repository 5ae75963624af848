"""A victim that nobody has seen, stolen with few queries."""

import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import NetworkService, agreement


def services(seed: int) -> list[tuple]:
    """Return a service with 400 queries, a pool of 4,000 vectors, and 2,000 vectors to label."""
    generator = torch.Generator().manual_seed(seed)
    service = NetworkService(generator, budget=400)
    return [(service, *(service.vectors(count, generator) for count in (4_000, 2_000)))]


EXERCISE = Exercise(
    id="5.A",
    title="A victim that nobody has seen",
    kind="attack or defend",
    minutes=30,
    variants={"seed": SEEDS},
    cases=services,
    right=lambda service, pool, wanted: service.labels(wanted),
    score=agreement,
    marks=(0.6, 0.85),
)
