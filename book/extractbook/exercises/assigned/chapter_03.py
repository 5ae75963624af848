"""A victim that is too sure and leans toward some classes."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError


def victims(seed: int) -> list[tuple]:
    """Return logits and labels for calibration, and logits to turn into probabilities; float64, four classes."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for _ in range(3):
        true = 1.5 * torch.randn(4_000, 4, generator=generator, dtype=torch.float64)
        labels = true.softmax(1).multinomial(1, generator=generator)[:, 0]
        lean = 2 * torch.randn(4, generator=generator, dtype=torch.float64)
        shown = (2 + torch.rand(1, generator=generator, dtype=torch.float64)) * true + lean
        cases.append((shown[:2_000], labels[:2_000], shown[2_000:]))
    return cases


def calibrated(logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return probabilities with the scale and bias of the logits that make the labels most likely."""
    scale, bias = torch.ones(1, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    settings = [scale.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.LBFGS(settings, max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(scale * logits + bias, labels)
        value.backward()
        return value

    optimizer.step(loss)
    return (scale * wanted + bias).detach().softmax(1)


def gap_closed(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return how much of the gap between the victim's own and the best calibrated probabilities is closed.

    The gap is the mean Kullback-Leibler divergence from the best probabilities, over all images.

    Raises:
        InputError: The shape differs, or the rows are not probabilities.
    """
    shares = []
    for given, best, (_, _, logits) in zip(found, wanted, cases, strict=True):
        if given.shape != best.shape:
            raise InputError(f"the shape is {given.shape}: expected {best.shape}")
        if given.min() < 0 or abs(given.sum(1) - 1).max() > 1e-3:
            raise InputError("the rows are not probabilities: none may be below 0, and each row must sum to 1")
        own = logits.softmax(1).numpy()
        away = [float((best * np.log(best / part.clip(1e-9))).sum(1).mean()) for part in (given, own)]
        shares.append(1 - away[0] / away[1])
    return float(np.mean(shares)), "the closed share of the gap to the best probabilities"


EXERCISE = Exercise(
    id="3.A",
    title="Too sure, and leaning",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=victims,
    right=calibrated,
    score=gap_closed,
    marks=(0.85, 0.98),
)
