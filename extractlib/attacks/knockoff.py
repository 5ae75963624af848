"""Knockoff nets (Orekondy et al. 2019): ask about images of a pool, train a surrogate on the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from extractlib.api.granularity import Answers, Granularity
from extractlib.attacks.transfer import Header, TransferFile, TransferSet
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, check_has, check_name, check_positive, check_seed
from extractlib.models import devices, networks
from extractlib.models.classifier import Surrogate
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.versions import versions

SURROGATE = Recipe(epochs=16, learning_rate=0.1, batch_size=128, weight_decay=0.0, shift=0)
"""How a surrogate is trained unless said otherwise: without augmentation and weight decay, as in the original."""


NEEDED = ("query", "classes", "granularity", "fingerprint")
"""What an API must have (see `API`)."""


class API(Protocol):
    """What an attack needs of a victim, near or remote: it answers, and says what an answer is.

    Attributes:
        classes: Name of each of the victim's classes.
        granularity: What an answer shows.
        fingerprint: Anything that stays the same as long as the answers do, such as an address.
    """

    classes: Sequence[str]
    granularity: Granularity
    fingerprint: str

    def query(self, images: torch.Tensor, *, client: str = ..., request: str | None = ...) -> Answers:
        """Return the answers for uint8 images of shape (n, channels, height, width)."""


@dataclass(frozen=True, kw_only=True)
class Knockoff:
    """The random strategy: queries are drawn uniformly from the pool, without replacement (section 4.1.1).

    Called, it collects and trains; `collect` and `train` do either alone.

    Attributes:
        budget: Queries to send, from 1 to the size of the pool.
        seed: Seed of the draw, from 0.
        chunk: Queries of one request.
        client: The name the attacker goes by.

    Raises:
        InputError: A value does not fit.

    Examples:
        >>> import extractlib as xl
        >>> signs, atlas = xl.load("signs"), xl.load("atlas")
        >>> api = xl.PredictionAPI(xl.load_victim("signs"), answers="full", budget=300)
        >>> attack = xl.attacks.Knockoff(budget=300, seed=0)
        >>> surrogate = attack(api, atlas.queries, progress=False)
        >>> api.usage("attacker").remaining
        0
    """

    budget: int
    seed: int = 0
    chunk: int = 256
    client: str = "attacker"

    def __post_init__(self):
        check_positive("budget", self.budget)
        check_positive("chunk", self.chunk)
        check_seed(self.seed)
        check_name("client", self.client)

    def __call__(
        self,
        api: API,
        pool: ImageSet,
        *,
        surrogate: str | nn.Module = "resnet",
        recipe: Recipe = SURROGATE,
        backbone: networks.Backbone = "shipped",
        keep: Path | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Surrogate:
        """Spend the budget, then train a surrogate on the answers.

        Args:
            api: The victim's API.
            pool: The attacker's images.
            surrogate: The copy's architecture (see `networks.build`), or any module, trained in place, that takes
                floats of the images' shape, (x / 255 - 0.5) / 0.25 of the pixels x, and returns a logit a class.
            recipe: How it is trained.
            backbone: What an architecture starts from: ``"shipped"`` for the weights that ship with the package, other
                weights, or None to train from scratch. A module starts from what it is.
            keep: File that keeps the answers as they come, so that a killed attack goes on where it stopped; None keeps
                them in memory.
            device: Where to train, and where the surrogate is afterwards.
            progress: Whether to show bars.

        Raises:
            InputError: As `collect` and `train`.
            BudgetExceeded: The API allows fewer queries.
        """
        trainer = Trainer(
            network=surrogate, recipe=recipe, seed=self.seed, backbone=backbone, device=device, progress=progress
        )
        check_has("API", api, NEEDED, remedy="give the object one (see attacks.API)")
        _check_fits(trainer, pool, len(api.classes))
        model = self.train(self._collect(api, pool, keep, trainer), pool, trainer)
        return Surrogate(model, classes=api.classes, image_shape=pool.image_shape, name="surrogate")

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

    def _collect(self, api: API, pool: ImageSet, path: Path | None, trainer: Trainer) -> TransferSet:
        """Collect for a surrogate that `trainer` will make."""
        return self.collect(api, pool, path, progress=trainer.progress)

    def collect(self, api: API, pool: ImageSet, path: Path | None = None, *, progress: bool = False) -> TransferSet:
        """Spend the budget and keep the answers.

        Killed anywhere and called again, it goes on and ends with the same set and the same charge: a request's id
        follows from the header and the chunk's number, and the API answers an id it knows for free.

        Args:
            api: The victim's API.
            pool: The attacker's images.
            path: The transfer set's file, new or to be resumed; None keeps it in memory.
            progress: Whether to show a bar.

        Returns:
            The transfer set, as it was stored.

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
                request = f"{header.digest}-{file.chunks}"
                file.append(chosen, api.query(pool.images[chosen], client=self.client, request=request))
                bar.update(len(chosen))
            return file.transfer

    def header(self, api: API, pool: ImageSet, *, strategy: str) -> Header:
        """Return what a transfer set of this attack says of itself.

        Raises:
            InputError: The API does not say what a surrogate needs to know.
        """
        check_has("API", api, NEEDED, remedy="give the object one (see attacks.API)")
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

    def train(self, transfer: TransferSet, pool: ImageSet, trainer: Trainer) -> nn.Module:
        """Train a fresh surrogate to give the victim's answers (section 4.2); denied ones teach it nothing.

        Args:
            transfer: Queries and answers; its first part for a smaller budget.
            pool: The pool that was queried.
            trainer: How the surrogate is made.

        Returns:
            A module that takes uint8 images and returns logits, in evaluation mode.

        Raises:
            InputError: The transfer set is of another pool.
        """
        if transfer.header.pool != pool.fingerprint:
            raise InputError(f"the transfer set's queries are not of {pool.name}: give the pool that was queried")
        classes, answered = transfer.header.classes, ~transfer.answers.denied
        if not answered.any():
            return trainer.build(classes).to(devices.resolve(trainer.device)).eval()
        images = pool.subset(transfer.indices[answered])  # a large set is not copied
        targets = transfer.answers[answered].targets(classes)
        return trainer.fit_or_load("surrogate", images, targets, classes=classes, key=versions("knockoff"))


def _check_fits(trainer: Trainer, pool: ImageSet, classes: int) -> None:
    """Refuse what is no classifier of such images, or cannot be made, before anything is asked."""
    device = devices.resolve(trainer.device)
    try:
        returned = tuple(predict(trainer.build(classes).to(device), pool.images[:1]).shape)
    except RuntimeError as error:
        raise InputError(
            f"the surrogate cannot take images of shape {pool.image_shape} ({str(error).splitlines()[0]}): bring them"
            " to the size and channels that it wants"
        ) from None
    if returned[1:] != (classes,):
        raise InputError(f"the surrogate returned {returned} for 1 image: logits of shape (1, {classes}) are wanted")
