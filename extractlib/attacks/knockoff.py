"""Knockoff nets (Orekondy et al. 2019): query images of a pool, train a surrogate on the answers."""

import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from extractlib.api.granularity import FILLS, Answers, Granularity
from extractlib.api.meter import BudgetExceeded, RequestReused
from extractlib.attacks.transfer import Header, TransferFile, TransferSet, check_fits_pool
from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.errors import (
    InputError,
    ResultWarning,
    check_choice,
    check_has,
    check_name,
    check_positive,
    check_seed,
    keep,
    kind_name,
)
from extractlib.models import devices, networks
from extractlib.models.classifier import Classifier, Surrogate
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.progress import bar as progress_bar
from extractlib.store import Store
from extractlib.tensors import is_plain, kind_of
from extractlib.versions import versions

SURROGATE = Recipe(epochs=16, learning_rate=0.1, batch_size=128, weight_decay=0.0, shift=0)
"""How a surrogate is trained unless specified otherwise: without augmentation or weight decay, as in the original."""

GENTLER = 0.1
"""Share of that recipe's learning rate that your own module is trained with: without normalization layers, the rate
that suits the package's networks drives many to a constant."""

FEWEST = 2
"""Answers below which a surrogate stays untrained: a batch of one image has no spread to normalize by."""

PROBED = 1_000
"""Number of queries on which a finished surrogate is checked."""

NEEDED = ("query", "classes", "granularity", "fingerprint")
"""What an API must have (see `API`)."""

Choices = Generator[torch.Tensor, Answers, None]
"""Yields which images of the pool to query next, int64 of shape (n,), and is sent the answers to them."""


class OutOfBudget(BudgetExceeded):
    """The API answered fewer queries than the attack needs.

    Attributes:
        transfer: The queries that were answered, which `Knockoff.train` can use.
    """

    def __init__(self, message: str, transfer: TransferSet | None = None):
        super().__init__(message)
        self.transfer = transfer


def recipe_for(network: str | nn.Module, recipe: Recipe) -> Recipe:
    """Return a recipe of the package's networks for any network: for your own module, at a tenth of its rate."""
    own = not isinstance(network, str | networks.Network) or isinstance(network, networks.FromFloats)
    return replace(recipe, learning_rate=GENTLER * recipe.learning_rate) if own else recipe


class API(Protocol):
    """What an attack needs from a victim, local or remote: it answers, and says what an answer is.

    It may also have ``usage(client)``, which returns a `Usage`: then a budget that is too low is noticed at the start.
    An attack that is stopped sends its last request again under the same id, and nothing is lost or paid twice if the
    API then returns the same answers for free.
    """

    @property
    def classes(self) -> Sequence[str]:
        """Name of each of the victim's classes."""

    @property
    def granularity(self) -> Granularity:
        """What an answer shows."""

    @property
    def fingerprint(self) -> str:
        """Anything that stays the same as long as the answers do, such as an address."""

    def query(self, images: torch.Tensor, *, client: str = ..., request: str | None = ...) -> Answers:
        """Return the answers for uint8 images of shape (n, channels, height, width)."""


@dataclass(frozen=True, kw_only=True)
class Knockoff:
    """The random strategy: queries are drawn uniformly from the pool, without replacement (section 4.1.1).

    When called, it collects and trains; `collect` and `train` each do one of the two.

    Attributes:
        budget: Queries to send, from 1 to the size of the pool.
        seed: Seed of the draw, from 0.
        batch: Queries per request.
        fill: What the surrogate learns about classes that a truncated answer hides: ``"even"`` or ``"renormalized"``
            (see `Answers.targets`).
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
    batch: int = 256
    fill: str = "even"
    client: str = "attacker"

    def __post_init__(self) -> None:
        keep(self, budget=check_positive("budget", self.budget), batch=check_positive("batch", self.batch))
        check_choice("fill", self.fill, FILLS)
        keep(self, seed=check_seed(self.seed))
        check_name("client", self.client)

    def __call__(
        self,
        api: API,
        pool: ImageSet,
        *,
        surrogate: str | nn.Module | Classifier = "resnet",
        recipe: Recipe | None = None,
        backbone: networks.Backbone = "shipped",
        keep: Path | str | None = None,
        activations: Store | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Surrogate:
        """Spend the budget, then train a surrogate on the answers.

        Args:
            api: The victim's API.
            pool: The attacker's images, or anything that `images` accepts.
            surrogate: The copy's architecture (see `networks.build`), or any module that takes floats of the images'
                shape, (x / 255 - 0.5) / 0.25 for pixels x, and returns a logit per class; a copy of it is trained.
                Where pixels should be scaled otherwise, as for ImageNet's weights, give a `Surrogate` of the module
                with its ``mean`` and ``std``.
            recipe: How it is trained; if None, `SURROGATE`, with a tenth of its learning rate for your own module.
            backbone: What an architecture starts from: ``"shipped"`` for the weights that ship with the package, which
                the shipped victims started from too, as both start from ImageNet's in the paper; ``"shipped-B"`` for
                ones trained alike with another seed; ``"imagenet"`` for ImageNet's; a state dict; or None to train from
                scratch. A module starts from its current weights.
            keep: File that keeps the answers as they arrive, so that a killed attack continues where it stopped; None
                keeps them in memory. `transfer.load` reads it.
            activations: Keeps the outputs of a network's frozen layers, which the victim may already have computed;
                None to recompute them. It does not keep the surrogate.
            device: Where to train, and where the surrogate is afterward.
            progress: Whether to show bars.

        Raises:
            InputError: As for `collect` and `train`, or the surrogate does not answer with numbers once it is trained.
                Whatever is raised after the budget is spent has the transfer set as its attribute `transfer`.
            BudgetExceeded: The API allows fewer queries.
        """
        pool = as_images(pool, name="pool")
        trainer = self.trainer(
            surrogate, recipe=recipe, backbone=backbone, activations=activations, device=device, progress=progress
        )
        check_has("API", api, NEEDED, remedy="give the object one (see attacks.API)")
        trainer.check(pool, classes=len(api.classes), who="surrogate")
        transfer = self.collect(api, pool, keep, trainer=trainer, progress=progress)
        try:
            model = self.train(transfer, pool, trainer)
            self._check_learned(model, transfer, self.asked(pool))
        except Exception as error:
            error.transfer = transfer  # type: ignore[attr-defined]  # what is paid for is not lost
            error.add_note("The answers are in this error's attribute transfer: train(error.transfer, pool, trainer).")
            raise
        return Surrogate(model, classes=api.classes, image_shape=pool.image_shape, name="surrogate")

    def trainer(
        self,
        surrogate: str | nn.Module | Classifier = "resnet",
        *,
        recipe: Recipe | None = None,
        backbone: networks.Backbone = "shipped",
        activations: Store | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> Trainer:
        """Return how calling the attack with these arguments trains the surrogate; a control may be trained alike.

        Examples:
            >>> import extractlib as xl
            >>> xl.attacks.Knockoff(budget=300, seed=1).trainer("vgg").network
            'vgg'

        Raises:
            InputError: The surrogate is neither a name nor a module, or the recipe is none.
        """
        surrogate = surrogate.model if isinstance(surrogate, Classifier) else surrogate
        if not isinstance(surrogate, str | nn.Module):
            raise InputError(f"the surrogate is {kind_name(surrogate)}: expected a network's name or an instance")
        if not isinstance(recipe, Recipe | None):
            raise InputError(f"the recipe is {kind_name(recipe)}: expected a models.Recipe")
        return Trainer(
            network=surrogate,
            recipe=recipe_for(surrogate, SURROGATE) if recipe is None else recipe,
            seed=self.seed,
            backbone=backbone,
            device=str(device),
            progress=progress,
            activations=activations,
        )

    def indices(self, pool_size: int) -> torch.Tensor:
        """Return which images of the pool are queried, int64 of shape (budget,), in order.

        The order is random too, so the first b of them are a draw of size b.

        Raises:
            InputError: The budget is above the size of the pool.
        """
        check_fits_pool(self.budget, pool_size)
        # A separate random stream: the same seed may have cut the pool.
        generator = np.random.default_rng([self.seed, *b"knockoff"])
        return torch.from_numpy(generator.choice(pool_size, self.budget, replace=False))

    def asked(self, pool: ImageSet) -> ImageSet:
        """Return the images that the attack makes of a pool and then queries: here, the pool itself."""
        return pool

    def choices(self, pool: ImageSet, classes: int, trainer: Trainer | None) -> Choices:
        """Yield the images to query, batch by batch; the answers change nothing here."""
        indices = self.indices(len(pool))
        for start in range(0, self.budget, self.batch):
            yield indices[start : start + self.batch]

    def collect(
        self,
        api: API,
        pool: ImageSet,
        keep: Path | str | None = None,
        *,
        trainer: Trainer | None = None,
        progress: bool = False,
    ) -> TransferSet:
        """Spend the budget and keep the answers.

        If killed at any point and called again, it continues and ends with the same set and the same charge: a
        request's id follows from the header and the batch's number, and the API answers an id it knows for free.
        Answers already held are replayed, so anything that learns from them ends as in an uninterrupted run.

        Args:
            api: The victim's API.
            pool: The attacker's images, or anything that `images` accepts.
            keep: The transfer set's file, new or to be resumed; None keeps it in memory. Collecting resumes what
                calling the attack began, and the other way around.
            trainer: How to make a surrogate that learns while queries are chosen, if the strategy needs one; if None,
                as calling the attack makes the copy.
            progress: Whether to show a bar.

        Returns:
            The transfer set, as it was stored.

        Raises:
            InputError: The budget exceeds the pool, the file is of another collection, or a choice is not a batch.
            BudgetExceeded: The API allows fewer queries; a client that has sent no queries yet is charged nothing, and
                for another it is an `OutOfBudget` with the answers that were given.
        """
        pool = as_images(pool, name="pool")
        path = None if keep is None else Path(keep)
        pool = self.asked(pool)
        header = self.header(api, pool)
        choices = self.choices(pool, header.classes, trainer)
        chosen, answers = self._chosen(choices), None  # before a file is created: it may reject the pool
        if path is None or not path.exists():
            check_budget(api, self.client, self.budget)
        with (
            TransferFile(path, header) as file,
            progress_bar(self.budget, what="collecting", unit="queries", show=progress) as bar,
        ):
            held = file.transfer
            check_budget(api, self.client, self.budget - len(held))
            for start in range(0, self.budget, self.batch):
                if answers is not None:
                    chosen = self._chosen(choices, answers)
                self._check_batch(chosen, min(self.batch, self.budget - start), len(pool))
                chosen = chosen.long()  # bytes would be a mask
                rows = slice(start, start + len(chosen))
                if start >= len(held):
                    try:
                        answers = file.append(chosen, self._ask(api, header, pool.images[chosen], file.chunks))
                    except BudgetExceeded as error:
                        kept = "" if path is None else f", and transfer.load({str(path)!r}, partial=True) reads them"
                        given = f"the {start:,} answers that were given are in this error's transfer{kept}"
                        raise OutOfBudget(f"{error}; in an attack: {given}", file.transfer) from None
                elif torch.equal(held.indices[rows], chosen):
                    answers = held.answers[rows]
                else:
                    raise InputError(
                        f"{path} holds other queries than this attack sends, as if from another surrogate or another"
                        " strategy: give the one that collected it, or name another file"
                    )
                bar.update(len(chosen))
            return file.transfer

    def _chosen(self, choices: Choices, answers: Answers | None = None) -> torch.Tensor:
        """Return the next batch to query, given the answers to the previous one."""
        if not isinstance(choices, Generator):
            raise InputError(f"{type(self).__name__}.choices returned {kind_name(choices)}: yield the batches instead")
        try:
            return next(choices) if answers is None else choices.send(answers)
        except StopIteration:
            raise InputError(
                f"{type(self).__name__} chose too few images: yield batches until the budget is spent"
            ) from None

    def _check_batch(self, chosen: torch.Tensor, wanted: int, pool_size: int) -> None:
        """Reject an invalid batch before it is paid for."""
        if not is_plain(chosen) or chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise InputError(f"{type(self).__name__} chose {kind_of(chosen)}: expected int64 of shape (n,)")
        if len(chosen) != wanted:
            raise InputError(
                f"{type(self).__name__} chose {len(chosen)} images: expected {wanted} here, batch={self.batch} at a"
                " time and the rest of the budget at the end"
            )
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or high >= pool_size:
            raise InputError(f"{type(self).__name__} chose images {low} to {high} of a pool of {pool_size:,}")

    def _ask(self, api: API, header: Header, images: torch.Tensor, chunk: int) -> Answers:
        try:
            answers = api.query(images, client=self.client, request=f"{header.digest}-{chunk}")
            return header.shown.check(answers, count=len(images), classes=header.classes)
        except RequestReused as error:
            raise RequestReused(
                f"{error}; in an attack: give it another client=…, or give its class a different strategy"
            ) from None

    @property
    def strategy(self) -> str:
        """How queries are chosen, for the transfer set: for a class that chooses otherwise, its name and own fields."""
        cls = type(self)
        if cls.indices is Knockoff.indices and cls.choices is Knockoff.choices:
            return "random"
        common = {field.name for field in fields(Knockoff)}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in common}
        return f"{cls.__qualname__}({', '.join(f'{name}={value!r}' for name, value in own.items())})"

    def header(self, api: API, pool: ImageSet) -> Header:
        """Return what a transfer set of this attack says about itself.

        Raises:
            InputError: The API does not say what a surrogate needs to know, or the budget is above the pool.
        """
        check_has("API", api, NEEDED, remedy="give the object one (see attacks.API)")
        return Header(
            pool=pool.fingerprint,
            pool_size=len(pool),
            api=check_name("fingerprint of the API", api.fingerprint),
            granularity=str(api.granularity),
            classes=len(api.classes),
            strategy=self.strategy,
            seed=self.seed,
            budget=self.budget,
            chunk=self.batch,
        )

    def train(self, transfer: TransferSet, pool: ImageSet, trainer: Trainer | None = None) -> nn.Module:
        """Train a fresh surrogate to give the victim's answers (section 4.2); it learns nothing from denied ones.

        With fewer than `FEWEST` answers, it stays untrained.

        Args:
            transfer: Queries and answers; its first part for a smaller budget.
            pool: The pool that was queried, or anything that `images` accepts.
            trainer: How the surrogate is made; if None, as by calling the attack. A `Trainer` of your own starts from
                scratch unless it is given a backbone.

        Returns:
            A module that takes uint8 images and returns logits, in evaluation mode. Calling the attack returns it as
            ``xl.Surrogate(module, classes=api.classes)``, which is what `evaluate` takes.

        Raises:
            InputError: The transfer set is of another pool.
        """
        trainer = self.trainer() if trainer is None else trainer
        pool = self.asked(as_images(pool, name="pool"))
        if transfer.header.pool != pool.fingerprint:
            raise InputError(f"the transfer set's queries are not from {pool.name}: give the pool that was queried")
        classes, taught = transfer.header.classes, self.lesson(transfer)
        if len(taught) < FEWEST:
            return trainer.build(classes).to(devices.resolve(trainer.device)).eval()
        images = pool.subset(taught.indices)  # a large set is not copied
        targets = taught.answers.targets(classes, fill=self.fill)
        return trainer.fit_or_load("surrogate", images, targets, classes=classes, key=versions("knockoff"))

    def lesson(self, transfer: TransferSet) -> TransferSet:
        """Return what of a transfer set a surrogate learns from: here, all answers that were not denied."""
        answered = ~transfer.answers.denied
        return TransferSet(transfer.indices[answered], transfer.answers[answered], transfer.header)

    def _too_few(self, transfer: TransferSet) -> str:
        """Return why a surrogate stays untrained."""
        answered = int((~transfer.answers.denied).sum())
        return f"{answered} of {len(transfer)} queries were answered, but at least {FEWEST} are needed"

    def _check_learned(self, model: nn.Module, transfer: TransferSet, pool: ImageSet) -> None:
        """Warn if a surrogate has learned nothing from the answers, judging by some of the queries.

        Raises:
            InputError: Its logits are not finite.
        """
        taught = self.lesson(transfer)
        if len(taught) < FEWEST:
            warnings.warn(f"{self._too_few(transfer)}: the surrogate is untrained", ResultWarning, stacklevel=3)
            return
        logits = predict(model, pool.images[taught.indices[:PROBED]])
        if not logits.isfinite().all():
            raise InputError(
                "the surrogate returns NaN or infinite logits: train it with a lower learning rate, recipe=…"
            )
        told = taught.answers.labels[:PROBED].unique()
        if len(told) == 1:
            warnings.warn(
                f"the answers all have the same label, number {int(told)}: query with other images, or check the"
                " victim",
                ResultWarning,
                stacklevel=3,
            )
        elif len(logits.argmax(1).unique()) == 1:
            warnings.warn(
                f"the surrogate gives all queries one label, but the answers have {len(told)}: give a recipe=… with a"
                " lower learning rate or more steps",
                ResultWarning,
                stacklevel=3,
            )


def check_budget(api: API, client: str, needed: int) -> None:
    """Reject an attack that a client cannot finish, before it sends anything; later, repeated requests may be free.

    Raises:
        BudgetExceeded: The API allows the client fewer than `needed` queries.
    """
    usage = api.usage(client) if hasattr(api, "usage") else None
    if usage is not None and not usage.queries and usage.budget is not None and usage.budget < needed:
        raise BudgetExceeded(
            f"client {client!r} may send {usage.budget} queries, but the attack needs {needed}: give it a budget of at"
            f" most {usage.budget}"
        )
