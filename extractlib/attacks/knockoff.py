"""Knockoff nets (Orekondy et al. 2019): ask about images of a pool, train a surrogate on the answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from extractlib.api.service import PredictionAPI
from extractlib.attacks.transfer import Header, TransferFile, TransferSet, load
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, positive
from extractlib.models import networks
from extractlib.models.training import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class Knockoff:
    """The random strategy: queries are drawn uniformly from the pool, without replacement (section 4.1.1).

    Attributes:
        budget: Queries to send, from 1 to the size of the pool.
        seed: Seed of the draw, from 0.
        chunk: Queries of one request.
        client: The name the attacker goes by.

    Raises:
        InputError: A value does not fit.
    """

    budget: int
    seed: int = 0
    chunk: int = 256
    client: str = "attacker"

    def __post_init__(self):
        positive("budget", self.budget)
        positive("chunk", self.chunk)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}: a whole number from 0 is wanted")

    def indices(self, pool_size: int) -> torch.Tensor:
        """Return which images of the pool are asked about, int64 of shape (budget,), in order.

        The order is random too, so the first b of them are a draw of size b.

        Raises:
            InputError: The budget is above the size of the pool.
        """
        if self.budget > pool_size:
            raise InputError(f"budget is {self.budget} and the pool holds {pool_size} images: ask at most that many")
        # A stream of its own: the same seed may have cut the pool.
        generator = np.random.default_rng([self.seed, *b"knockoff"])
        return torch.from_numpy(generator.choice(pool_size, self.budget, replace=False))

    def collect(self, api: PredictionAPI, pool: ImageSet, path: Path, *, progress: bool = False) -> TransferSet:
        """Spend the budget and keep the answers in a transfer file.

        Killed anywhere and called again, it goes on and ends with the same file and the same charge: a request's id
        follows from the file's header and the frame's number, and the API answers an id it knows for free.

        Args:
            api: The victim's API.
            pool: The attacker's images.
            path: The transfer file, new or to be resumed.
            progress: Whether to show a bar.

        Returns:
            The transfer set, as read from the file.

        Raises:
            InputError: The budget is above the pool, or the file is of another collection.
            BudgetExceeded: The API allows fewer queries.
        """
        indices = self.indices(len(pool))
        header = self.header(api, pool, strategy="random")
        with (
            TransferFile(path, header) as file,
            tqdm(total=self.budget, initial=file.records, desc="queries", unit="query", disable=not progress) as bar,
        ):
            for start in range(file.records, self.budget, self.chunk):
                chosen = indices[start : start + self.chunk]
                request = f"{header.digest}-{file.frames}"
                file.append(chosen, api.query(pool.images[chosen], client=self.client, request=request))
                bar.update(len(chosen))
        return load(path)

    def header(self, api: PredictionAPI, pool: ImageSet, *, strategy: str) -> Header:
        """Return what a transfer file of this attack says of itself."""
        return Header(
            pool=pool.fingerprint,
            pool_size=len(pool),
            api=api.fingerprint,
            granularity=str(api.granularity),
            classes=len(api.classes),
            strategy=strategy,
            seed=self.seed,
            budget=self.budget,
            chunk=self.chunk,
        )

    def train_surrogate(
        self,
        transfer: TransferSet,
        pool: ImageSet,
        *,
        network: str,
        recipe: Recipe,
        classes: int,
        seed: int,
        backbone: Mapping[str, torch.Tensor] | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> nn.Module:
        """Train a fresh surrogate to give the victim's answers (section 4.2); denied ones teach it nothing.

        Args:
            transfer: Queries and answers; its first part for a smaller budget.
            pool: The pool that was queried.
            network: The surrogate's architecture (see `networks.build`).
            recipe: How it is trained.
            classes: Number of the victim's classes.
            seed: Seed of the head's first weights and of the training.
            backbone: Pre-trained weights to start from; None to train from scratch.
            device: Where to train.
            progress: Whether to show a bar.

        Raises:
            InputError: The transfer set is of another pool or number of classes.
        """
        if transfer.header.pool != pool.fingerprint:
            raise InputError(f"the transfer set's queries are not of {pool.name}: give the pool that was queried")
        if transfer.header.classes != classes:
            raise InputError(f"classes is {classes}: the transfer set's answers are of {transfer.header.classes}")
        surrogate = networks.build(network, classes=classes, seed=seed, backbone=backbone)
        answered = ~transfer.answers.denied
        if not answered.any():
            return surrogate.eval()
        images = pool.subset(transfer.indices[answered]).images  # a large set is not copied
        targets = transfer.answers[answered].targets(classes)
        return fit(surrogate, images, targets, recipe, seed=seed, device=device, progress=progress)
