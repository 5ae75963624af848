"""What a detected query gets: policies, each of which says what it leaks (the paper, section 5).

Anything drawn at random is keyed by the server's secret and the image, so that querying twice gives the same answer:
repeating a query reveals nothing more, neither that it was detected nor what was hidden.

Examples:
    >>> import extractlib as xl, torch
    >>> deny = xl.policies.policy("deny", secret=b"known to the server only")
    >>> deny.answer(torch.tensor([[0.25, 0.75]]), torch.tensor([True]), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    tensor([[nan, nan]])
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from extractlib.api.service import Policy
from extractlib.errors import InputError
from extractlib.registry import Registry
from extractlib.store import digest


def keyed_generator(secret: bytes, image: torch.Tensor) -> np.random.Generator:
    """Return a generator that depends on the server's secret and on every pixel of one image, and on nothing else.

    Its seed is HMAC-SHA256 of the image's bytes under the secret, read as a whole number, most significant byte first.

    Args:
        secret: Known to the server only.
        image: uint8 of shape (3, height, width).
    """
    key = hmac.new(secret, image.contiguous().numpy().tobytes(), hashlib.sha256).digest()
    return np.random.default_rng(int.from_bytes(key, "big"))


@dataclass(frozen=True)
class Altered:
    """What all policies here have in common: detected queries get another answer than the victim's.

    Attributes:
        leaks: What such an answer still says.
    """

    leaks: ClassVar[str]

    @property
    def fingerprint(self) -> str:
        """Digest of what it does."""
        return digest(type(self).__name__)

    def answer(self, probabilities: torch.Tensor, detected: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities to show, of the same shape (n, classes); those of undetected rows are untouched."""
        if not detected.any():
            return probabilities
        shown = probabilities.clone()
        shown[detected] = self._instead(probabilities[detected], images[detected])
        return shown

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return what detected images get, float of shape (n, classes), given the victim's probabilities."""
        raise NotImplementedError


@dataclass(frozen=True)
class Unchanged(Altered):
    """Detected queries are answered like all others."""

    leaks: ClassVar[str] = "all that the API shows"

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return probabilities


@dataclass(frozen=True)
class Deny(Altered):
    """A detected query is charged but not answered: its probabilities are NaN, which the API shows as no answer."""

    leaks: ClassVar[str] = "that the query was detected, and nothing else"

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(probabilities, torch.nan)


@dataclass(frozen=True)
class LabelOnly(Altered):
    """A detected query gets only the label: probability 1 for the most probable class."""

    leaks: ClassVar[str] = "the victim's label, and that the query was detected"

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(probabilities).scatter_(1, probabilities.argmax(1, keepdim=True), 1.0)


@dataclass(frozen=True)
class Secret:
    """Something drawn at random under the server's secret.

    Attributes:
        secret: Known to the server only.

    Raises:
        InputError: The secret is empty, or is not bytes.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes) or not self.secret:
            wrong = "empty" if self.secret == b"" else "not bytes"
            raise InputError(f"the secret is {wrong}: expected at least one byte")

    @property
    def fingerprint(self) -> str:
        """Digest of what it does."""
        return digest(type(self).__name__, hashlib.sha256(self.secret).digest())


@dataclass(frozen=True)
class Keyed(Secret, Altered):
    """A policy that draws at random under the server's secret (`Secret`)."""

    def _instead(self, probabilities: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        pairs = zip(probabilities, images, strict=True)
        return torch.stack([self._row(row, keyed_generator(self.secret, image)) for row, image in pairs])

    def _row(self, probabilities: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Shuffle(Keyed):
    """A detected query gets its probabilities in a random order (the paper, section 5)."""

    leaks: ClassVar[str] = "the probabilities without their classes: how sure the victim is, not of what"

    def _row(self, probabilities: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return probabilities[torch.from_numpy(generator.permutation(len(probabilities)))]


@dataclass(frozen=True)
class Mislabel(Keyed):
    """The highest probability is swapped with another class's, drawn at random: DAWN's mark (Szyller et al. 2021)."""

    leaks: ClassVar[str] = "all probabilities, two of them under each other's class"

    def _row(self, probabilities: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        first = int(probabilities.argmax())
        second = (first + int(generator.integers(1, len(probabilities)))) % len(probabilities)
        swapped = probabilities.clone()
        swapped[[first, second]] = probabilities[[second, first]]
        return swapped


POLICIES: Registry[Callable[[bytes], Policy]] = Registry("policy")
"""The policies by name, each made from the server's secret."""

POLICIES.add("unchanged", lambda secret: Unchanged())
POLICIES.add("deny", lambda secret: Deny())
POLICIES.add("label", lambda secret: LabelOnly())
POLICIES.add("shuffle", Shuffle)
POLICIES.add("mislabel", Mislabel)


def policy(name: str, *, secret: bytes) -> Policy:
    """Return the policy of that name.

    Raises:
        InputError: There is no policy of that name, or it needs a secret that is empty.
    """
    return POLICIES[name](secret)
