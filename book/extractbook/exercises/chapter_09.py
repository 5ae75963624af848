"""Exercises of chapter 9, Detecting the queries."""

from functools import cache, partial
from math import ceil

import numpy as np
import torch

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.api.service import PredictionAPI
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.defenses.detectors import BinaryDetector
from extractlib.defenses.policies import Shuffle
from extractlib.errors import InputError
from extractlib.metrics import auroc, threshold_at, tpr_tnr
from extractlib.models.classifier import load_victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe

VICTIM = "objects"
SIZES = {(VICTIM, "detector"): 800, ("atlas", "detector"): 800, (VICTIM, "test"): 400, ("atlas", "test"): 400}
"""Number of images of each part of exercise 9.4."""


def precision(customers: int, questions: int, stolen: int, tpr: float, tnr: float) -> float:
    """Return the share of the detected queries that were sent by the attacker."""
    return stolen * tnr / (stolen * tnr + customers * questions * (1 - tpr))


def benign_scores(seed: int) -> list[tuple]:
    """Return scores of benign validation images, with ties, and the TPR to reach."""
    generator = torch.Generator().manual_seed(seed)
    # The one share that can be reached exactly is exact in float32 too: else its rounding would decide.
    pairs = ((37, 0.9), (40, 0.875), (205, 0.95), (333, 0.99))
    return [(torch.randint(900, (n,), generator=generator).div(1_000), tpr) for n, tpr in pairs]


def threshold(scores: torch.Tensor, tpr: float, *, step: int = 0) -> float:
    """Return the lowest score at which a share `tpr` of the scores is accepted, or one `step` places higher."""
    # The rounding error of a product that should be whole must not count as one more score.
    return scores.sort().values[ceil(tpr * len(scores) - 1e-9) - 1 + step].item()


def two_sides(seed: int) -> list[tuple]:
    """Return scores of benign and out-of-distribution images: with many ties, with fewer, and with none."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for benign, ood, steps in ((30, 50, 5), (200, 20, 12), (60, 60, 10**6)):
        parts = [torch.randn(n, generator=generator) + shift for n, shift in ((benign, 0.0), (ood, 0.7))]
        cases.append(tuple((part * steps / 4).round().div(steps) for part in parts))
    return cases


def above(benign: torch.Tensor, ood: torch.Tensor, *, ties: float) -> float:
    """Return the share of pairs in which the out-of-distribution image scores higher; ties have a weight."""
    difference = ood[:, None] - benign
    return ((difference > 0).double() + ties * (difference == 0)).mean().item()


def taken(pixels: torch.Tensor, seed: int) -> torch.Tensor:
    """Return images as a camera with little contrast and a color cast takes them, uint8 as before."""
    generator = torch.Generator().manual_seed(seed)
    contrast = 0.55 + 0.2 * torch.rand(3, 1, 1, generator=generator)
    darkest = 255 * (1 - contrast) * torch.rand(3, 1, 1, generator=generator)  # so no pixel leaves the range
    return (darkest + contrast * pixels).round().to(torch.uint8)


@cache
def archive(seed: int) -> tuple[ImageSet, ImageSet, torch.Tensor, torch.Tensor]:
    """Return images of an owner's camera, a pool's images, shuffled queries of both sides, and which are an attacker's.

    Half of each side's queries are taken by the owner's camera. Before shuffling, the customers' come first.
    """
    parts = {(name, part): drawn.draw(name, part=part, size=size, seed=seed) for (name, part), size in SIZES.items()}
    owner, pool = (parts[name, "detector"] for name in (VICTIM, "atlas"))
    sides = [parts[name, "test"].images for name in (VICTIM, "atlas")]
    mixed = [torch.cat([side[::2], taken(side[1::2], seed)]) for side in sides]
    is_attack = torch.arange(2).repeat_interleave(len(mixed[0])).double()
    order = torch.randperm(len(is_attack), generator=torch.Generator().manual_seed(seed))
    owned, public = as_images(taken(owner.images[:], seed)), as_images(pool.images[:])
    return owned, public, torch.cat(mixed)[order], is_attack[order]


def tnr(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the TNR at 95% TPR of the queries' scores, and the name of this number.

    Raises:
        InputError: The number of scores is not the number of queries.
    """
    scores, is_attack = _scores(found[0], wanted[0])
    threshold = threshold_at(scores[~is_attack], 0.95)
    return tpr_tnr(scores[~is_attack], scores[is_attack], threshold)[1], "TNR at 95% TPR"


def _scores(found: np.ndarray, flags: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    if found.shape != flags.shape:
        raise InputError(f"the shape is {found.shape}: expected {flags.shape}")
    return torch.from_numpy(np.asarray(found, dtype=float)), torch.from_numpy(flags > 0)


@cache
def guarded(seed: int) -> tuple[BinaryDetector, torch.Tensor, torch.Tensor]:
    """Return a detector for objects, images from customers and from a pool, and which of them it detects."""
    recipe = Recipe(epochs=3, learning_rate=0.05, batch_size=128)
    trainer = Trainer(network="resnet", recipe=recipe, seed=seed, backbone="shipped")
    sides = [drawn.draw(name, part="detector", size=600, seed=seed) for name in (VICTIM, "atlas")]
    detector = BinaryDetector.train(sides[0].unlabeled(), sides[1].unlabeled(), trainer)
    images = torch.cat([drawn.draw(name, part="test", size=150, seed=seed).images[:] for name in (VICTIM, "atlas")])
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    return detector, images, detector.detect(images).double()


class ByColor(Shuffle):
    """A shuffle whose key depends on each color's rounded mean alone: a moved or mirrored image keeps its order."""

    STEP = 24

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        means = images.double().mean((2, 3), keepdim=True)
        return super()._instead(probabilities, (means / self.STEP).round().to(torch.uint8))


def shuffling_services(seed: int) -> list[tuple]:
    """Return an API that shuffles the answers to detected images, and images; each can be sent twice."""
    detector, images, _ = guarded(seed)
    policy = ByColor(seed.to_bytes(8, "big"))
    return [(PredictionAPI(load_victim(VICTIM), budget=2 * len(images), detector=detector, policy=policy), images)]


def separated(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the AUROC of the scores for telling detected images from the others, and the name of this number.

    Raises:
        InputError: The number of scores is not the number of images.
    """
    scores, is_altered = _scores(found[0], wanted[0])
    return auroc(scores[~is_altered], scores[is_altered]), "AUROC"


EXERCISES = (
    Exercise(
        id="9.1",
        title="A million customers and one attacker",
        kind="understand",
        minutes=6,
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
            "TPR and TNR are swapped": lambda tpr, tnr, **given: precision(**given, tpr=tnr, tnr=tpr),
            "count queries, not customers": lambda **given: precision(**given | {"questions": 1}),
            "that is the share of the attacker's queries that is caught": lambda **given: given["tnr"],
        },
    ),
    Exercise(
        id="9.2",
        title="The lowest threshold that accepts enough",
        kind="modify",
        minutes=7,
        variants={"seed": SEEDS},
        cases=benign_scores,
        right=threshold,
        slips={
            "a lower threshold accepts as many": partial(threshold, step=1),
            "fewer are accepted than required": partial(threshold, step=-1),
            "that is not one of the scores, and lies between two": lambda scores, tpr: scores.quantile(tpr).item(),
            "a low score belongs to a customer": lambda scores, tpr: -threshold(-scores, tpr),
        },
        without={"extractlib.metrics.threshold_at": "`xl.metrics.threshold_at`"},
    ),
    Exercise(
        id="9.3",
        title="AUROC without a curve",
        kind="implement",
        minutes=9,
        variants={"seed": SEEDS},
        cases=two_sides,
        right=auroc,
        slips={
            "a tie is half a win": partial(above, ties=0.0),
            "a tie is not a whole win": partial(above, ties=1.0),
            "a good detector scores out-of-distribution images higher": lambda benign, ood: 1 - auroc(benign, ood),
        },
        without={"extractlib.metrics.auroc": "`xl.metrics.auroc`"},
    ),
    Exercise(
        id="9.4",
        title="Customers with other cameras",
        kind="attack or defend",
        minutes=15,
        variants={"seed": SEEDS},
        cases=lambda seed: [(load_victim(VICTIM), *archive(seed)[:3])],
        key=lambda seed: [archive(seed)[3]],
        score=tnr,
        marks=(0.5, 0.8),
    ),
    Exercise(
        id="9.5",
        title="Which answers were shuffled?",
        kind="attack or defend",
        minutes=11,
        variants={"seed": SEEDS},
        cases=shuffling_services,
        key=lambda seed: [guarded(seed)[2]],
        score=separated,
        marks=(0.82, 0.9),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="9.6",
        title="When to rely on it",
        kind="discuss",
        minutes=7,
    ),
)
