"""Queries from elsewhere, scored before anyone has seen them."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

FEATURES, IMAGES = 12, (91, 91, 90, 7, 7, 7, 7)
"""Number of features, and of training images of each class."""
QUERIES = 2
"""Number of benign queries for each training image, and of queries from elsewhere."""


def features(seed: int) -> list[tuple]:
    """Return features and labels of benign images, and features of queries, half of them from elsewhere."""
    return [case[:-1] for case in _drawn(seed)]


def elsewhere(seed: int) -> list[np.ndarray]:
    """Return for each case which queries are from elsewhere, as 0 and 1."""
    return [case[-1] for case in _drawn(seed)]


def _drawn(seed: int) -> list[tuple]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def turned(decades: float) -> torch.Tensor:
        scale = torch.logspace(-decades, decades, FEATURES, dtype=torch.float64)
        return scale[:, None] * torch.linalg.qr(normal(FEATURES, FEATURES))[0]

    cases, count = [], sum(IMAGES)
    for _ in range(3):
        spread = torch.stack([turned(0.6) for _ in IMAGES])  # each class has a covariance of its own
        labels = torch.arange(len(IMAGES)).repeat_interleave(torch.tensor(IMAGES)).repeat(1 + QUERIES)
        centers = 2 * normal(len(IMAGES), FEATURES)
        benign = centers[labels] + (normal(len(labels), 1, FEATURES) @ spread[labels])[:, 0]
        # Mean and covariance of all customers together say nothing: only the classes do.
        others = benign.mean(0) + normal(QUERIES * count, FEATURES) @ torch.linalg.cholesky(benign.T.cov()).T
        stretch = turned(0.0) * torch.logspace(-1, 1, FEATURES, dtype=torch.float64)
        first, order = (torch.randperm(n, generator=generator) for n in (count, 2 * QUERIES * count))
        queries, far = torch.cat([benign[count:], others])[order], (order >= QUERIES * count).double().numpy()
        cases.append((benign[first] @ stretch, labels[first], queries @ stretch, far))
    return cases


def tnr(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the mean TNR at 95% TPR, and the name of this number.

    Raises:
        InputError: The number of scores is not the number of queries.
    """
    shares = []
    for scores, far in zip(found, wanted, strict=True):
        if scores.shape != far.shape:
            raise InputError(f"the shape is {scores.shape}: expected {far.shape}")
        benign = np.sort(scores[far == 0])
        shares.append((scores[far == 1] > benign[int(0.95 * len(benign)) - 1]).mean())
    return float(np.mean(shares)), "TNR at 95% TPR"


EXERCISE = Exercise(
    id="9.A",
    title="Queries from elsewhere",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=features,
    key=elsewhere,
    score=tnr,
    marks=(0.4, 0.88),
)
