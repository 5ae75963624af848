"""A watermark in the answers (DAWN: Szyller et al. 2021): a few images, chosen under a secret, are answered wrongly.

A surrogate that is trained on the answers learns the wrong ones too, which its owner cannot explain. `KeyedSample`
chooses the images, and the policy `Mislabel` answers them.
"""

import hashlib
from dataclasses import dataclass

import torch

from extractlib.data.images import Rows
from extractlib.defenses.policies import Mislabel, Secret, keyed_generator
from extractlib.errors import InputError
from extractlib.store import digest

__all__ = ["KeyedSample", "Mislabel"]


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
