"""A watermark in the answers (DAWN: Szyller et al. 2021): a few images, chosen under a secret, are answered wrongly.

A surrogate that is trained on the answers learns the wrong ones too, which its owner cannot explain.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from extractlib.data.images import Rows
from extractlib.defenses.policies import POLICIES, Keyed, Secret, keyed_generator
from extractlib.errors import InputError
from extractlib.store import digest


@POLICIES.register("mislabel")
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


@dataclass(frozen=True, kw_only=True)
class KeyedSample(Secret):
    """Picks a share of all images at random, in place of a detector: with `Mislabel`, it is DAWN's watermark.

    Attributes:
        rate: The share, in (0, 1).
        secret: Known to the server only.

    Raises:
        InputError: The rate is out of range, or the secret is empty.
    """

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1:
            raise InputError(f"rate is {self.rate}: expected a share above 0 and below 1")

    @property
    def fingerprint(self) -> str:
        """Digest of what it does."""
        return digest("KeyedSample", repr(self.rate), hashlib.sha256(self.secret).digest())

    def detect(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return bool of shape (n,): whether each image is picked."""
        # The pick and the wrong class must not depend on each other.
        secret = b"sample" + self.secret
        one_by_one = (image for some in images.split(512) for image in some)
        return torch.tensor([keyed_generator(secret, image).random() < self.rate for image in one_by_one])
