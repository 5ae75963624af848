"""Queries from elsewhere, scored before anyone has seen them."""

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.errors import InputError

FEATURES, CLASSES = 12, 5


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

    cases = []
    for _ in range(3):
        scale = torch.logspace(-1, 1, FEATURES, dtype=torch.float64)  # on both sides: the features also vary together
        stretch = scale[:, None] * torch.linalg.qr(normal(FEATURES, FEATURES))[0] * scale
        centers = 2 * normal(CLASSES, FEATURES) @ stretch
        labels = torch.randint(CLASSES, (1_500,), generator=generator)
        benign = centers[labels] + normal(1_500, FEATURES) @ stretch
        others = (1.6 * normal(500, FEATURES)) @ stretch + centers.mean(0)
        order = torch.randperm(1_000, generator=generator)
        queries, far = torch.cat([benign[1_000:], others])[order], (order >= 500).double().numpy()
        cases.append((benign[:1_000], labels[:1_000], queries, far))
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
    marks=(0.2, 0.8),
)
