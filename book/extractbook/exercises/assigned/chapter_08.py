"""A mix of kinds of images that shows the most of a victim."""

import numpy as np

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import Service
from extractlib.errors import InputError

CLASSES, KINDS = 8, 10


class KindService(Service):
    """A service that takes the number of a kind and returns the victim's label for the next image of that kind."""

    def __init__(self, seed: int, budget: int):
        super().__init__(budget)
        generator = np.random.default_rng(seed)
        common = 1 / (1 + np.arange(CLASSES)) ** 2
        self.shares = np.stack([generator.dirichlet(8 * common / common.sum()) for _ in range(KINDS)])
        rare = generator.permutation(KINDS)[:3]
        self.shares[rare] = generator.dirichlet(np.ones(CLASSES), 3)
        self._draws = np.random.default_rng([seed, 1])

    def __call__(self, kind: int) -> int:
        """Return a label.

        Raises:
            BudgetExceeded: No query is left.
        """
        self.charge(1)
        return int(self._draws.choice(CLASSES, p=self.shares[int(kind)]))


def services(seed: int) -> list[tuple]:
    """Return services with 400 queries each, and the numbers of kinds and classes."""
    return [(KindService(2 * seed + number, 400), KINDS, CLASSES) for number in range(2)]


def effective(mix: np.ndarray, shares: np.ndarray) -> float:
    """Return the effective number of classes among images in this mix."""
    labels = mix @ shares
    return float(np.exp(-(labels * np.log(labels.clip(1e-12))).sum()))


def widest(shares: np.ndarray) -> np.ndarray:
    """Return the mix with the largest effective number of classes, by exponentiated gradient steps."""
    mix = np.full(len(shares), 1 / len(shares))
    for _ in range(2_000):
        mix = mix * np.exp(-0.2 * shares @ np.log((mix @ shares).clip(1e-12)))
        mix /= mix.sum()
    return mix


def share_of_best(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the effective classes of the mixes as a share of those of the best mixes, and the name of this number.

    Raises:
        InputError: A mix is not valid.
    """
    shares = []
    for mix, best, (service, *_) in zip(found, wanted, cases, strict=True):
        if mix.shape != best.shape or mix.min() < 0 or abs(mix.sum() - 1) > 1e-6:
            raise InputError(f"a mix is not valid: expected {KINDS} shares of at least 0 that sum to 1")
        shares.append(effective(mix, service.shares) / effective(best, service.shares))
    return float(np.mean(shares)), "the share of the best mix's effective classes"


EXERCISE = Exercise(
    id="8.A",
    title="A mix that shows the most",
    kind="attack or defend",
    minutes=30,
    variants={"seed": SEEDS},
    cases=services,
    right=lambda service, kinds, classes: widest(service.shares),
    score=share_of_best,
    marks=(0.7, 0.9),
)
