"""What a cell runs on: images, backbones, victim and detector, each made on first use."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from extractbook.reproduction.backbones import backbone_for, write_card
from extractbook.reproduction.cells import DENY_FREE, PERTURBATIONS, WATERMARK, Cell
from extractbook.reproduction.scales import Scale, scale
from extractlib.api import service as api
from extractlib.data import download
from extractlib.data.images import ImageSet
from extractlib.data.pixels import USUAL, Reading
from extractlib.data.sets import Parts
from extractlib.data.sources import Loader, Source
from extractlib.defenses.detectors import BinaryDetector, Detector, Everything
from extractlib.defenses.perturbations import (
    AdaptiveMisinformation,
    ReverseSigmoid,
    choose_strength,
    misinformation_model,
)
from extractlib.defenses.policies import policy
from extractlib.defenses.watermark import KeyedSample
from extractlib.errors import InputError, check_choice
from extractlib.evaluation import evaluate
from extractlib.models.classifier import Victim
from extractlib.models.devices import default_device
from extractlib.models.fitted import Trainer
from extractlib.models.networks import fingerprint_of
from extractlib.models.training import Recipe
from extractlib.store import Store

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "misinformation": tuple(number / 20 for number in range(21)),
    "reverse-sigmoid": tuple(number / 20 for number in range(41)),
}
"""The strengths that each perturbation is chosen from; the first changes nothing."""


@dataclass(frozen=True)
class Defense:
    """What is put in front of a victim.

    Attributes:
        detector: Inspects each query.
        policy: Alters the answers to the queries that the detector flags.
        strength: The chosen strength of a perturbation; None for other defenses.
    """

    detector: Detector | KeyedSample
    policy: api.Policy
    strength: float | None = None


@dataclass(frozen=True)
class Setup:
    """A cell with everything it needs.

    Attributes:
        cell: The settings of the run.
        store: Keeps images, backbones, victims, detectors, transfer sets and surrogates.
        folders: The path of each published data set and each ``"folder:NAME"`` of the cell; if None, the data sets are
            looked for in `download.default_data`.
        reading: How files are read, and how a task in files is split.
        device: Where to train; the best available device by default.
        part: The task's part to compare models on: ``"test"``, or ``"validation"`` while settings are chosen.
        progress: Whether to show progress bars.
        other_detector: Is put in front of the victim instead of the cell's own detector, if there is a defense.

    Raises:
        InputError: Scale or part is unknown; other values that do not fit are refused when they are used.
    """

    cell: Cell
    _: KW_ONLY
    store: Store
    folders: Mapping[str, Path] | None = None
    reading: Reading = USUAL
    device: str = field(default_factory=default_device)
    part: str = "test"
    progress: bool = False
    other_detector: Detector | None = None

    def __post_init__(self) -> None:
        check_choice("part", self.part, ("test", "validation"))
        scale(self.cell.scale)

    def but(self, *, detector: Detector | None = None, **changes: Any) -> "Setup":
        """Return the setup of the cell with `changes` to its fields, and another detector in front of the victim."""
        return replace(self, cell=replace(self.cell, **changes), other_detector=detector)

    @property
    def settings(self) -> Scale:
        """The sizes and recipes."""
        return scale(self.cell.scale)

    @cached_property
    def loader(self) -> Loader:
        """The loader that all images come from."""
        return Loader(
            sizes={**self.settings.task_sizes, **self.settings.pool_sizes},
            image_size=self.settings.image_size,
            noise_size=self.settings.budget,
            store=self.store,
            folders=download.data_folders() if self.folders is None else self.folders,
            reading=self.reading,
            shares={"task": self.settings.task_shares, "pool": self.settings.pool_shares},
            shifts=self.settings.shifts,
        )

    @property
    def in_files(self) -> bool:
        """Whether the task or the pool is stored in files."""
        return Source.parse(self.cell.task).in_files or self.cell.pool.in_files

    @property
    def is_at_hand(self) -> bool:
        """Whether the folders of a task and a pool in files exist."""
        named = (source.name for source in (Source.parse(self.cell.task), self.cell.pool) if source.in_files)
        return all(name in self.loader.folders and self.loader.folders[name].is_dir() for name in named)

    @cached_property
    def task(self) -> Parts:
        """The task's parts."""
        return self.loader.task(self.cell.task, seed=self.cell.seed)

    @property
    def balanced(self) -> bool:
        """Whether an accuracy on the task is the mean over its classes."""
        return self.cell.task in self.settings.balanced

    @property
    def chain(self) -> str:
        """The transform that a detector applies to every image before inspecting it (see `transforms`)."""
        size = self.settings.matched.get(self.cell.task)
        return f"chain-{size}" if size else "none"

    @property
    def held_out(self) -> ImageSet:
        """The labeled images that victim and surrogate are compared on."""
        return self.task[self.part]

    @cached_property
    def pool(self) -> Parts:
        """The parts of the pool that the defense knows: the scale's, or the attacker's if that is in files."""
        sent = replace(self.cell.pool, is_shifted=False, class_count=None)
        own = sent.in_files and not sent.is_task
        return self.loader.pool(sent if own else self.settings.pool, seed=self.cell.seed)

    @cached_property
    def second_pool(self) -> Parts:
        """The parts of the second pool, of a different origin, which no detector is trained against."""
        return self.loader.pool(self.settings.second_pool, seed=self.cell.seed)

    def queries(self, source: Source | str | None = None, *, labeled: bool = False) -> ImageSet:
        """Return the images that the attacker sends: the cell's pool, or another source."""
        return self.loader.queries(source or self.cell.pool, seed=self.cell.seed, labeled=labeled)

    def backbone(self, network: str, *, initial: str = "A") -> Mapping[str, torch.Tensor]:
        """Return a network's public weights, or those of a second seed; of another network if the scale says so."""
        images, settings = None, self.settings
        if not (settings.shipped or settings.imagenet):
            images = self.pool.get("pretraining")
            if images is None and self.cell.pool.in_files:
                raise InputError(
                    f"pool {self.cell.pool} has no part for pre-training, which scale {settings.name!r} needs: use"
                    " tinyimagenet or a folder with classes"
                )
        store, device, progress = self.store, self.device, self.progress
        return backbone_for(
            settings, images, network=network, initial=initial, store=store, device=device, progress=progress
        )

    def trainer(
        self, network: str, recipe: Recipe, *, weights: str = "A", salt: str = "", keep: bool = True
    ) -> Trainer:
        """Return a trainer for a model of the cell, with the cell's seed.

        Args:
            network: Architecture.
            recipe: How it is trained.
            weights: The initial weights, one of `cells.WEIGHTS`.
            salt: Word that makes the draw of its head differ from the victim's.
            keep: Whether to keep it in the store.
        """
        if weights == "B" and self.settings.other_weights:
            network = self.settings.other_weights
        return Trainer(
            network=network,
            recipe=recipe,
            seed=self.cell.seed,
            salt=salt,
            backbone=None if weights == "none" else self.backbone(network, initial=weights),
            store=self.store if keep else None,
            device=self.device,
            progress=self.progress,
            activations=self.store,
        )

    def victim_trainer(self, *, salt: str = "") -> Trainer:
        """Return the victim's trainer, or with a salt, one for another model by the same recipe."""
        cell = self.cell
        recipe = self.settings.recipe("scratch_victim" if cell.victim_weights == "none" else "victim", task=cell.task)
        return self.trainer(cell.victim, recipe, weights=cell.victim_weights, salt=salt)

    def surrogate_trainer(self, *, keep: bool = True) -> Trainer:
        """Return the trainer of the surrogate and the independent control; their head differs from the victim's."""
        cell = self.cell
        recipe = self.settings.recipe("surrogate", task=cell.task, steps=cell.steps)
        return self.trainer(cell.surrogate, recipe, weights=cell.surrogate_weights, salt="surrogate", keep=keep)

    @cached_property
    def victim(self) -> Victim:
        """The victim: fine-tuned from the backbone, or trained from scratch."""
        images = self.task["victim"]
        labels = images.known_labels("a victim needs them")
        model = self.victim_trainer().fit_or_load("victim", images, labels, classes=len(images.classes))
        return Victim(model, classes=images.classes, image_shape=images.image_shape, name=images.name)

    @cached_property
    def detector(self) -> Detector:
        """The paper's detector: the task's images against the pool's, none of which are ever sent as queries."""
        return self.other_detector or self.detector_of(self.task["detector"], self.pool["detector"], chain=self.chain)

    @cached_property
    def defense(self) -> Defense:
        """The defense in front of the victim that the cell names; an InputError if it names none."""
        name, secret = self.cell.defense, f"the server's secret {self.cell.seed}".encode()
        if name == "none":
            raise InputError("the cell's defense is none: name one")
        if name == WATERMARK:
            return Defense(
                KeyedSample(rate=self.settings.watermark_rate, secret=secret), policy("mislabel", secret=secret)
            )
        if name in PERTURBATIONS:
            return self._perturbation(policy("shuffle", secret=secret))
        return Defense(self.detector, policy("deny" if name == DENY_FREE else name, secret=secret))

    def _perturbation(self, reference: api.Policy) -> Defense:
        """Return the cell's perturbation, at the highest strength that costs honest users no more than `reference`."""
        if self.cell.defense == "misinformation":
            wrong = misinformation_model(self.task["victim"], self.victim_trainer(salt="misinformation"))

        def make(strength: float) -> api.Policy:
            if self.cell.defense == "misinformation":
                return AdaptiveMisinformation(strength=strength, wrong=wrong)
            return ReverseSigmoid(strength=strength)

        validation = evenly(self.task["validation"], self.settings.judged_on)
        strength = choose_strength(
            make,
            STRENGTHS[self.cell.defense],
            reference=reference,
            detected=self.detector.detect(validation.images),
            probabilities=self.cell.granularity.probabilities(self.victim.logits(validation.images)),
            images=validation,
        )
        return Defense(Everything(), make(strength), strength)

    def detector_of(self, benign: ImageSet, ood: ImageSet, *, chain: str = "none") -> BinaryDetector:
        """Return a detector trained to tell `benign` images from out-of-distribution ones, both after a transform."""
        trainer = self.trainer(self.settings.network, self.settings.recipe("detector", task=self.cell.task))
        return BinaryDetector.train(benign, ood, trainer, chain=chain)


def evenly(images: ImageSet, most: int) -> ImageSet:
    """Return at most `most` images, evenly spaced, so that they include as many tracks as possible."""
    count = min(most, len(images))
    return images.subset(torch.arange(count) * len(images) // count)


def ship_victim(setup: Setup, folder: Path) -> Mapping:
    """Write a setup's victim and its card into a folder of the library, where `load_victim` finds it.

    Returns:
        The card, written next to the weights: network, classes, image shape, recipe, seed, backbone, test accuracy.
    """
    task, victim = setup.cell.task, setup.victim
    card = {
        "network": setup.cell.victim,
        "classes": list(victim.classes),
        "image_shape": list(setup.task["victim"].image_shape),
        "recipe": asdict(setup.victim_trainer().recipe),
        "seed": setup.cell.seed,
        "images": len(setup.task["victim"]),
        "fingerprint": setup.task["victim"].fingerprint,
        "backbone": fingerprint_of(setup.backbone(setup.cell.victim)),
        "test_accuracy": round(evaluate(victim, victim, setup.held_out).victim_accuracy, 4),
        "versions": {"torch": torch.__version__},
    }
    folder.mkdir(parents=True, exist_ok=True)
    victim.save(folder / f"{task}.safetensors")
    write_card(folder / f"{task}.json", card)
    return card
