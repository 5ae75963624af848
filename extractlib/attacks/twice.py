"""The attacker that queries twice: an image and the same image moved by one pixel (beyond the paper).

A policy that draws at random under a secret and the image answers the two differently, while a victim answers them
alike. So an attacker who queries twice finds out which answers are false, and learns only from the others. Each image
costs two queries.
"""

from dataclasses import dataclass

import torch

from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.transfer import TransferSet
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.store import digest


@dataclass(frozen=True, kw_only=True)
class TwiceKnockoff(Knockoff):
    """Knockoff nets with the random strategy, each image queried twice; only consistent answers are learned from.

    Attributes:
        budget: Queries to send, an even number: twice the number of images.
        tolerance: The highest disagreement of a pair, in [0, 1], that counts as consistent.

    Raises:
        InputError: A value does not fit.
    """

    tolerance: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget % 2:
            raise InputError(f"budget is {self.budget}: expected an even number, two queries per image")
        if not 0 <= self.tolerance <= 1:
            raise InputError(f"tolerance is {self.tolerance}: expected a number from 0 to 1")

    def asked(self, pool: ImageSet) -> ImageSet:
        """Return the queries: the images drawn from a pool, then each moved right by one pixel, in the same order.

        Raises:
            InputError: The budget is above twice the size of the pool.
        """
        if self.budget // 2 > len(pool):
            raise InputError(
                f"budget is {self.budget} for {self.budget // 2} images, but the pool holds {len(pool)}: query at most"
                f" {2 * len(pool)} times"
            )
        drawn = pool.subset(Knockoff(budget=self.budget // 2, seed=self.seed).indices(len(pool)))
        images = drawn.images[:]
        moved = torch.cat([images[..., :1], images[..., :-1]], -1)  # the edge is repeated
        return ImageSet(f"{pool.name}, twice", torch.cat([images, moved]), None, (), digest(drawn.fingerprint, "twice"))

    def disagreement(self, transfer: TransferSet) -> torch.Tensor:
        """Return the total variation distance ½ Σ abs(y - y'), in [0, 1], between an image's two answers.

        Args:
            transfer: The complete transfer set.

        Returns:
            float32 of shape (budget / 2,), in the order of `asked`; 1 where an answer was denied.
        """
        answered = ~transfer.answers.denied
        targets = torch.zeros(self.budget, transfer.header.classes, dtype=torch.float32)
        targets[transfer.indices[answered]] = transfer.answers[answered].targets(transfer.header.classes)
        first, second = targets.chunk(2)
        apart = (first - second).abs().sum(1) / 2
        return apart.masked_fill((first.sum(1) == 0) | (second.sum(1) == 0), 1.0)

    def lesson(self, transfer: TransferSet) -> TransferSet:
        """Return what of a transfer set a surrogate learns from: both answers of the consistent pairs."""
        consistent = (self.disagreement(transfer) <= self.tolerance).repeat(2)[transfer.indices]
        return super().lesson(TransferSet(transfer.indices[consistent], transfer.answers[consistent], transfer.header))

    def _too_few(self, transfer: TransferSet) -> str:
        apart = self.disagreement(transfer)
        count = f"{int((apart <= self.tolerance).sum())} of {len(apart)} pairs are consistent"
        return f"{count}, but at least 1 is needed; raise the tolerance, {self.tolerance}, or query more images"
