"""Which public weights a victim started from, inferred from its labels."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import agreement

FEATURES, HIDDEN, CLASSES, VICTIMS = 10, 12, 4, 20


def victims(seed: int) -> list[tuple]:
    """Return, for each of 20 victims, 600 vectors with its labels and four public first layers, float64."""
    return [(vectors, labels, layers) for vectors, labels, layers, _ in _drawn(seed)]


def _drawn(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = []
    for _ in range(VICTIMS):
        layers, start = [normal(FEATURES, HIDDEN) for _ in range(4)], int(torch.randint(4, (), generator=generator))
        vectors, tuned = normal(600, FEATURES), layers[start] + 0.5 * normal(FEATURES, HIDDEN)
        labels = ((vectors @ tuned).tanh() @ normal(HIDDEN, CLASSES)).argmax(1)
        cases.append((vectors, labels, layers, start))
    return cases


def share_right(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of victims whose start was named correctly, and the name of this number."""
    return agreement([np.array(found)], [np.array(wanted)], cases)[0], "the share of victims named correctly"


EXERCISE = Exercise(
    id="7.A",
    title="Where did it start?",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=victims,
    key=lambda seed: [start for *_, start in _drawn(seed)],
    score=share_right,
    marks=(0.4, 0.8),
)
