"""Exercises of chapter 13, Since then."""

from functools import cache

import numpy as np
import torch

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import OneAccount
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import Everything
from extractlib.defenses.perturbations import AdaptiveMisinformation
from extractlib.models.classifier import Victim, load_victim

VICTIM, QUERIES, TEST, THRESHOLD = "objects", 800, 2_000, 0.9
"""In exercise 13.4: the victim, the number of the attacker's images and queries, of test images, and the threshold."""


def price(queries: int, images: int, cents: int) -> float:
    """Return the price of a query, in dollars, at which an attack costs as much as labels for a training set."""
    return images * cents / 100 / queries


def doubtful_answers(seed: int) -> list[tuple]:
    """Return probabilities, false ones, and a threshold that equals some of the largest probabilities."""
    generator = np.random.default_rng(seed)
    cases = []
    for threshold in (0.5, 0.625, 0.75):
        eighths = generator.multinomial(8, [0.6, 0.2, 0.1, 0.1], size=40) / 8
        false = generator.dirichlet(np.ones(4), size=40)
        cases.append((torch.from_numpy(eighths), torch.from_numpy(false), threshold))
    return cases


def stepped(
    answers: torch.Tensor, false: torch.Tensor, threshold: float, *, like: torch.Tensor | None = None
) -> torch.Tensor:
    """Return false answers where the largest probability (of `like`, if given) is below the threshold, or true ones."""
    decides = answers if like is None else like
    return torch.where(decides.amax(1, keepdim=True) < threshold, false, answers)


def suspects(seed: int) -> list[tuple]:
    """Return a victim's outputs on some samples, each with those of a near copy, of itself, or of another model."""
    generator = np.random.default_rng(seed)
    victim = generator.dirichlet(np.ones(6), size=15)
    near = 0.8 * victim + 0.2 * generator.dirichlet(np.ones(6), size=15)
    return [(victim, one) for one in (near, victim, generator.dirichlet(np.ones(6), size=15))]


def distance(victim: np.ndarray, suspect: np.ndarray) -> float:
    """Return the mean absolute difference between two models' correlations among samples."""
    return float(np.abs(np.corrcoef(victim) - np.corrcoef(suspect)).mean())


class AnyOther:
    """A model that gives all labels but the victim's the same probability; misinformation is trained toward this."""

    fingerprint = "any other"

    def __init__(self, victim: Victim):
        self._victim, self.classes, self.image_shape = victim, victim.classes, victim.image_shape

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float of shape (n, classes): 0, and -50 for the victim's label."""
        labels = self._victim.predict(images)
        return torch.zeros(len(labels), len(self.classes)).scatter_(1, labels[:, None], -50.0)


@cache
def world(seed: int) -> tuple[ImageSet, ImageSet]:
    """Return the attacker's images and the victim's test images."""
    pool = drawn.draw("atlas", part="detector", size=QUERIES, seed=seed).unlabeled()
    return pool, drawn.draw(VICTIM, part="test", size=TEST, seed=seed)


def misinforming_services(seed: int) -> list[tuple]:
    """Return an API that gives false answers where its victim is unsure, the attacker's images, and test images."""
    pool, test = world(seed)
    victim = load_victim(VICTIM)
    policy = AdaptiveMisinformation(strength=THRESHOLD, wrong=AnyOther(victim))
    return [(OneAccount(victim, budget=QUERIES, detector=Everything(), policy=policy), pool, test.images[:])]


@cache
def believing(seed: int) -> np.ndarray:
    """Return the labels of the copy that random Knockoff trains on all answers, false ones included."""
    api, pool, images = misinforming_services(seed)[0]
    return Knockoff(budget=QUERIES)(api, pool, progress=False).predict(images).numpy()


def gained(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the recovery above that of a copy trained on all answers (see `held_out.gained`), and its name."""
    victim = load_victim(VICTIM).predict(cases[0][2]).numpy()
    return held_out.gained(found, wanted, victim), "recovery above that of random Knockoff"


EXERCISES = (
    Exercise(
        id="13.1",
        title="When labels are cheaper",
        kind="understand",
        minutes=6,
        variants={
            "queries": (20_000_000, 2_000_000, 5_000_000, 10_000_000),
            "images": (50_000, 20_000, 100_000),
            "cents": (5, 2, 8, 12),
        },
        right=price,
        slips={
            "the exercise asks for dollars, not cents": lambda **given: 100 * price(**given),
            "that is the bill for the labels; divide it among the queries": lambda queries, images, cents: (
                images * cents / 100
            ),
            "that is how many queries a dollar buys": lambda **given: 1 / price(**given),
        },
    ),
    Exercise(
        id="13.2",
        title="A step instead of a slope",
        kind="modify",
        minutes=8,
        variants={"seed": SEEDS},
        cases=doubtful_answers,
        right=stepped,
        slips={
            "at the threshold itself, the answer stays true": lambda answers, false, threshold: stepped(
                answers, false, threshold + 1e-9
            ),
            "the victim is unsure below the threshold, not above": lambda answers, false, threshold: stepped(
                false, answers, threshold, like=answers
            ),
            "an answer is false as a whole or not at all": lambda answers, false, threshold: torch.where(
                answers < threshold, false, answers
            ),
        },
    ),
    Exercise(
        id="13.3",
        title="A fingerprint of correlations",
        kind="implement",
        minutes=10,
        variants={"seed": SEEDS},
        cases=suspects,
        right=distance,
        slips={
            "correlate samples with samples, not classes with classes": lambda victim, suspect: distance(
                victim.T, suspect.T
            ),
            "differences of either sign count": lambda victim, suspect: float(
                (np.corrcoef(victim) - np.corrcoef(suspect)).mean()
            ),
            "the diagonal counts too: n² pairs": lambda victim, suspect: distance(victim, suspect) * 15 / 14,
            "the mean difference, not the sum": lambda victim, suspect: 225 * distance(victim, suspect),
        },
    ),
    Exercise(
        id="13.4",
        title="Against an owner who misinforms",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=misinforming_services,
        key=lambda seed: [np.stack([world(seed)[1].known_labels().numpy(), believing(seed)])],
        score=gained,
        marks=(0.04, 0.07),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="13.5",
        title="Before you publish",
        kind="discuss",
        minutes=10,
    ),
)
