"""What two numbers of an answer reveal about the hidden ones."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

CLASSES = 8


def answers(seed: int) -> list[tuple]:
    """Return old full answers, (600, 8), and new ones with only the two highest numbers left, (1,500, 8)."""
    return [(full[:600], shown(full[600:])) for full in _drawn(seed)]


def _drawn(seed: int) -> list[torch.Tensor]:
    """Return the full answers of two victims to which some classes look alike, float64 of shape (2,100, 8)."""
    generator = torch.Generator().manual_seed(seed)
    return [_full(generator), _full(generator)]


def _full(generator: torch.Generator) -> torch.Tensor:
    alike = 2 * torch.randn(CLASSES, CLASSES, generator=generator, dtype=torch.float64)
    true = torch.randint(CLASSES, (2_100,), generator=generator)
    noise = torch.randn(2_100, CLASSES, generator=generator, dtype=torch.float64)
    return (alike[true] + 4 * torch.eye(CLASSES, dtype=torch.float64)[true] + 0.8 * noise).softmax(1)


def shown(full: torch.Tensor) -> torch.Tensor:
    """Return answers with zeros for all but the two highest of each row."""
    highest = full.topk(2)
    return torch.zeros_like(full).scatter(1, highest.indices, highest.values)


def gap_closed(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return how much closer the targets are to the full answers than targets that divide the rest equally.

    Raises:
        InputError: The shape differs, a shown number was changed, or rows do not sum to 1.
    """
    shares = []
    for given, full, (_, new) in zip(found, wanted, cases, strict=True):
        new = new.numpy()
        if given.shape != full.shape:
            raise InputError(f"the shape is {given.shape}: expected {full.shape}")
        if np.abs(given - new)[new > 0].max() > 1e-6 or np.abs(given.sum(1) - 1).max() > 1e-6 or given.min() < 0:
            raise InputError("the two shown numbers must stay the same, and each row must sum to 1")
        even = new + (new == 0) * (1 - new.sum(1, keepdims=True)) / (CLASSES - 2)
        away = [np.abs(part - full).sum(1).mean() for part in (given, even)]
        shares.append(1 - away[0] / away[1])
    return float(np.mean(shares)), "the closed share of the gap to the full answers"


EXERCISE = Exercise(
    id="4.A",
    title="The six that are hidden",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=answers,
    key=lambda seed: [full[600:] for full in _drawn(seed)],
    score=gap_closed,
    marks=(0.0, 0.25),
)
