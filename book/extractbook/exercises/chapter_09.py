"""Exercises of chapter 9, Detecting the queries."""

from functools import partial
from math import ceil

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import LinearService, linear_victim, probabilities
from extractlib.defenses.policies import keyed_generator
from extractlib.defenses.watermark import Mislabel
from extractlib.metrics import auroc


def precision(customers: int, questions: int, stolen: int, tpr: float, tnr: float) -> float:
    """Return the share of the detected queries that the thief has sent."""
    return stolen * tnr / (stolen * tnr + customers * questions * (1 - tpr))


def benign_scores(seed: int) -> list[tuple]:
    """Return scores of benign validation images, with ties, and the TPR to reach."""
    generator = torch.Generator().manual_seed(seed)
    pairs = ((37, 0.9), (40, 0.9), (205, 0.95), (333, 0.99))
    return [(torch.randint(900, (n,), generator=generator).div(1_000), tpr) for n, tpr in pairs]


def threshold(scores: torch.Tensor, tpr: float, *, step: int = 0) -> float:
    """Return the lowest score at which a share `tpr` of the scores is accepted, or one `step` places higher."""
    # What rounding adds to a product that should be whole must not count as one score more.
    return scores.sort().values[ceil(tpr * len(scores) - 1e-9) - 1 + step].item()


def two_sides(seed: int) -> list[tuple]:
    """Return scores of benign and out-of-distribution images; of few values, so that many tie, and once with none."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for benign, ood, steps in ((30, 50, 5), (200, 20, 12), (60, 60, 10**6)):
        parts = [torch.randn(n, generator=generator) + shift for n, shift in ((benign, 0.0), (ood, 0.7))]
        cases.append(tuple((part * steps / 4).round().div(steps) for part in parts))
    return cases


def above(benign: torch.Tensor, ood: torch.Tensor, *, ties: float) -> float:
    """Return the share of pairs in which the image out of distribution scores higher, with a weight for ties."""
    difference = ood[:, None] - benign
    return ((difference > 0).double() + ties * (difference == 0)).mean().item()


def caught(seed: int) -> list[tuple]:
    """Return one answer with many images and two secrets: each image with both, and the first ten once more."""
    generator = torch.Generator().manual_seed(seed)
    answer = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])[torch.randperm(6, generator=generator)]
    images = torch.randint(256, (60, 3, 8, 8), generator=generator, dtype=torch.uint8)
    secrets = [bytes(torch.randint(256, (16,), generator=generator).tolist()) for _ in range(2)]
    return [(answer, image, secret) for secret in secrets for image in images] + [
        (answer, image, secrets[0]) for image in images[:10]
    ]


def never_true(answer: torch.Tensor, image: torch.Tensor, secret: bytes) -> torch.Tensor:
    """Return an answer in another order, drawn by lot, in which the highest probability has left its place."""
    generator = keyed_generator(secret, image)
    while True:
        shuffled = answer[torch.from_numpy(generator.permutation(len(answer)))]
        if shuffled.argmax() != answer.argmax():
            return shuffled


def judge_shuffles(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Any fair draw by image and secret that moves the highest probability is right."""
    answer = cases[0][0].double().numpy()
    if any(row.shape != answer.shape or abs(np.sort(row) - np.sort(answer)).max() > 1e-6 for row in found):
        return "the numbers of some answers are no longer those of the victim"
    first, second, again = (np.round(found[start : start + 60], 3) for start in (0, 60, 120))
    if not np.array_equal(first[:10], again):
        return "the same image and secret bring another order when asked again"
    if len(np.unique(first, axis=0)) == 1:
        return "the order does not depend on the image"
    tops, seconds = (np.array([np.abs(row - value).argmin() for row in found]) for value in np.sort(answer)[:-3:-1])
    if (tops == answer.argmax()).any():
        return "in some answers the highest probability has kept its place"
    orders, stays = len(np.unique(first, axis=0)), (seconds == answer.argsort()[-2]).mean()
    if np.bincount(tops).max() > 55 or orders < 20 or stays > 0.6:
        return "some orders are much more likely than others"
    if (first == second).all(1).mean() > 0.2:
        return "the order does not depend on the secret"
    return None


class SwappingService(LinearService):
    """A linear service in whose every answer the highest probability has changed places with another class's.

    The other class is drawn by lot from a secret and the vector, so that the same vector gets the same answer.
    """

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return altered probabilities; all else is as in `LinearService`."""
        everything = torch.ones(len(vectors), dtype=torch.bool)
        return Mislabel(b"swapping").answer(super().__call__(vectors), everything, vectors.double())


def swapping_services(seed: int) -> list[tuple]:
    """Return services with 100 queries each, and the vector whose true answer is wanted."""
    cases = []
    for features, classes in ((4, 3), (8, 4), (10, 6)):
        weights, bias = linear_victim(seed, features, classes)
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(50, features, generator=generator, dtype=torch.float64)
        # One that the victim finds neither so clear that nothing is left to hide nor so unclear that it has no top.
        certainty = probabilities(vectors, weights, bias).topk(2).values.diff().abs()[:, 0]
        cases.append((SwappingService(weights, bias, 100), vectors[(certainty - 0.4).abs().argmin()]))
    return cases


def judge_undone(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Right is whatever is near the victim's own answers."""
    for answer, true in zip(found, wanted, strict=True):
        if answer.shape != true.shape:
            return f"shape {answer.shape} where {true.shape} is wanted"
        if answer.argmax() != true.argmax():
            return "the highest probability is not at the victim's class"
        if abs(answer - true).max() > 0.01:
            return "the highest probability is at the victim's class, and others are off"
    return None


EXERCISES = (
    Exercise(
        id="9.1",
        title="A million customers and one thief",
        kind="understand",
        minutes=8,
        variants={
            "customers": (1_000_000, 500_000, 2_000_000),
            "questions": (20, 5, 10, 30, 50),
            "stolen": (10_000, 5_000, 20_000),
            "tpr": (0.99, 0.98, 0.995),
            "tnr": (0.95, 0.9, 0.92, 0.97),
        },
        right=precision,
        slips={
            "TPR is the share of the customers' queries that pass": (
                lambda tpr, **given: precision(**given, tpr=1 - tpr)
            ),
            "TPR and TNR have changed places": lambda tpr, tnr, **given: precision(**given, tpr=tnr, tnr=tpr),
            "count queries, not customers": lambda **given: precision(**given | {"questions": 1}),
            "that is the share of the thief's queries that is caught": lambda **given: given["tnr"],
        },
    ),
    Exercise(
        id="9.2",
        title="As many as you can bear to lose",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=benign_scores,
        right=threshold,
        slips={
            "a lower threshold accepts as many": partial(threshold, step=1),
            "fewer are accepted than asked for": partial(threshold, step=-1),
            "that is no score, and lies between two": lambda scores, tpr: scores.quantile(tpr).item(),
            "a low score belongs to a customer": lambda scores, tpr: -threshold(-scores, tpr),
        },
    ),
    Exercise(
        id="9.3",
        title="A chance instead of an area",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=two_sides,
        right=auroc,
        slips={
            "a tie is half a win": partial(above, ties=0.0),
            "a tie is no whole win": partial(above, ties=1.0),
            "a good detector scores images out of distribution higher": lambda benign, ood: 1 - auroc(benign, ood),
        },
    ),
    Exercise(
        id="9.4",
        title="A shuffle that is never right",
        kind="modify",
        minutes=15,
        variants={"seed": SEEDS},
        cases=caught,
        right=never_true,
        judge=judge_shuffles,
    ),
    Exercise(
        id="9.5",
        title="One grain of sand",
        kind="attack or defend",
        minutes=25,
        variants={"seed": SEEDS},
        cases=swapping_services,
        right=lambda service, vector: probabilities(vector[None], service._weights, service._bias)[0],
        judge=judge_undone,
    ),
    Exercise(
        id="9.6",
        title="When to stop relying on it",
        kind="discuss",
        minutes=12,
    ),
)
