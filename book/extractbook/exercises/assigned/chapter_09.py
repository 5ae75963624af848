"""Queries from elsewhere, scored before anybody has seen them."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

FEATURES, CLASSES = 12, 5


def features(seed: int) -> list[tuple]:
    """Return features of benign images with their labels, and of queries, whose latter half is from elsewhere."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = []
    for _ in range(3):
        stretch = torch.logspace(-1, 1, FEATURES, dtype=torch.float64) * torch.linalg.qr(normal(FEATURES, FEATURES))[0]
        centers = 2 * normal(CLASSES, FEATURES) @ stretch
        labels = torch.randint(CLASSES, (1_500,), generator=generator)
        benign = centers[labels] + normal(1_500, FEATURES) @ stretch
        elsewhere = (1.6 * normal(500, FEATURES)) @ stretch + centers.mean(0)
        cases.append((benign[:1_000], labels[:1_000], torch.cat([benign[1_000:], elsewhere])))
    return cases


def distance(train: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Return the Mahalanobis distance of each query to the nearest class, with one covariance for all."""
    centers = torch.stack([train[labels == label].mean(0) for label in range(CLASSES)])
    inverse = torch.linalg.inv((train - centers[labels]).T.cov())
    apart = queries[:, None] - centers
    return (apart @ inverse * apart).sum(2).amin(1)


def tnr(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the mean TNR at 95% TPR; the first half of the queries is benign.

    Raises:
        InputError: There is not one score for each query.
    """
    shares = []
    for scores, ours in zip(found, wanted, strict=True):
        if scores.shape != ours.shape:
            raise InputError(f"shape {scores.shape} where {ours.shape} is wanted")
        benign, elsewhere = np.split(scores, 2)
        shares.append((elsewhere > np.sort(benign)[int(0.95 * len(benign)) - 1]).mean())
    return float(np.mean(shares)), "TNR at 95% TPR"


EXERCISE = Exercise(
    id="9.A",
    title="Queries from elsewhere",
    kind="attack or defend",
    minutes=25,
    variants={"seed": SEEDS},
    cases=features,
    right=distance,
    score=tnr,
    marks=(0.2, 0.8),
)
