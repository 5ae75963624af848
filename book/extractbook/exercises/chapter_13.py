"""Exercises of chapter 13, Since then."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import OneAccount, Service
from extractbook.exercises.without import SHIPPED_AND_DRAWN
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import Everything
from extractlib.defenses.perturbations import AdaptiveMisinformation
from extractlib.errors import InputError
from extractlib.models.classifier import Victim, load_victim

VICTIM, IMAGES, QUERIES, TEST, THRESHOLD = "objects", 800, 1_600, 2_000, 0.9
"""In exercise 13.4: the victim, the numbers of the attacker's images, of queries and of test images; the threshold."""

OTHERS = 2
"""In exercise 13.4: the number of classes that a false answer leaves out besides the victim's label."""


def recoveries(victim: int, copy: int, drop: int) -> list[float]:
    """Return the copy's recovery behind a defense that makes it less accurate: by points, and by a share of itself."""
    return [(copy - drop) / victim, copy * (1 - drop / 100) / victim]


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


class TopTokens(Service):
    """The API of a language model for one prompt: it takes a bias, and names the most probable next tokens."""

    SHOWN = 5

    def __init__(self, logits: np.ndarray):
        super().__init__(budget=-(-len(logits) // (self.SHOWN - 1)))
        self._logits = logits

    def __call__(self, bias: Mapping[int, float]) -> dict[int, float]:
        """Return the log probabilities of the most probable tokens, after numbers were added to the logits of some.

        Raises:
            BudgetExceeded: No call is left.
            InputError: There is no such token.
        """
        unknown = set(bias) - set(range(len(self._logits)))
        if unknown:
            raise InputError(f"there is no token {unknown.pop()!r}: expected 0 to {len(self._logits) - 1}")
        self.charge(1)
        return self._answer(bias)

    def _answer(self, bias: Mapping[int, float]) -> dict[int, float]:
        """Return the answer to a call, without charging it."""
        raised = self._logits.copy()
        for token, by in bias.items():
            raised[token] += by
        shown = raised - np.logaddexp.reduce(raised)
        return {int(token): float(shown[token]) for token in shown.argsort()[: -self.SHOWN - 1 : -1]}


def language_models(seed: int) -> list[tuple]:
    """Return APIs of language models, each with its number of tokens."""
    generator = np.random.default_rng(seed)
    return [(TopTokens(3 * generator.normal(size=tokens)), tokens) for tokens in (41, 59)]


def uncompared(api: TopTokens, tokens: int) -> np.ndarray:
    """Return what log probabilities of different calls give if they are not compared with one token's."""
    found = np.zeros(tokens)
    for first in range(1, tokens, 4):
        four = range(first, min(first + 4, tokens))
        shown = api._answer(dict.fromkeys((0, *four), 100.0))
        found[list(four)] = [shown[token] for token in four]
    return found - found.mean()


class LeavesOut:
    """A model that gives no probability to the victim's label and to `OTHERS` more, and to all others the same.

    The others are drawn anew for each query, so the same image gets another answer.
    """

    fingerprint = "leaves out the label and others"

    def __init__(self, victim: Victim, *, seed: int):
        self._victim, self.classes, self.image_shape = victim, victim.classes, victim.image_shape
        self._generator = torch.Generator().manual_seed(seed)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float of shape (n, classes): 0, and -50 for the classes that are left out."""
        drawn = torch.rand(len(images), len(self.classes), generator=self._generator)
        drawn.scatter_(1, self._victim.predict(images)[:, None], 2.0)
        return torch.zeros(drawn.shape).scatter_(1, drawn.topk(1 + OTHERS, dim=1).indices, -50.0)


@cache
def world(seed: int) -> tuple[ImageSet, ImageSet]:
    """Return the attacker's images and the victim's test images."""
    pool = drawn.draw("atlas", part="detector", size=IMAGES, seed=seed).unlabeled()
    return pool, drawn.draw(VICTIM, part="test", size=TEST, seed=seed)


def misinforming_services(seed: int) -> list[tuple]:
    """Return an API that gives false answers where its victim is unsure, the attacker's images, and test images."""
    pool, test = world(seed)
    victim = load_victim(VICTIM)
    # So steep that no answer is a mixture of a true and a false one.
    policy = AdaptiveMisinformation(strength=THRESHOLD, wrong=LeavesOut(victim, seed=seed), sharpness=1e6)
    return [(OneAccount(victim, budget=QUERIES, detector=Everything(), policy=policy), pool, test.images[:])]


@cache
def believing(seed: int) -> np.ndarray:
    """Return the labels of the copy that random Knockoff trains on all answers, false ones included."""
    api, pool, images = misinforming_services(seed)[0]
    return Knockoff(budget=IMAGES)(api, pool, progress=False).predict(images).numpy()


def gained(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the recovery above that of a copy trained on all answers (see `held_out.gained`), and its name."""
    victim = load_victim(VICTIM).predict(cases[0][2]).numpy()
    return held_out.gained(found, wanted, victim), "recovery above that of random Knockoff"


EXERCISES = (
    Exercise(
        id="13.1",
        title="Forty percent of what",
        kind="understand",
        minutes=6,
        variants={"victim": (92, 95, 88, 97), "copy": (80, 75, 84, 70), "drop": (40, 20, 30, 25)},
        right=recoveries,
        slips={
            "recovery is a share, not a percentage": lambda **given: [100 * share for share in recoveries(**given)],
            "recovery is a share of the victim's accuracy": lambda victim, copy, drop: [
                (copy - drop) / 100,
                copy * (1 - drop / 100) / 100,
            ],
            "the one in points comes first": lambda **given: recoveries(**given)[::-1],
            "the share is one of the undefended copy's accuracy": lambda victim, copy, drop: [
                (copy - drop) / victim,
                (copy - victim * drop / 100) / victim,
            ],
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
        title="Five tokens at a time",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=language_models,
        right=lambda api, tokens: api._logits - api._logits.mean(),
        slips={
            "the mean of all logits is to be 0": lambda api, tokens: api._logits - api._logits[0],
            "log probabilities of different calls have different sums: compare each with one token's": uncompared,
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
        marks=(0.03, 0.07),
        without=SHIPPED_AND_DRAWN,
    ),
    Exercise(
        id="13.5",
        title="Before you publish",
        kind="discuss",
        minutes=10,
    ),
)
