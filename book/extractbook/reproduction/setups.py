"""What a cell is played on: images, backbones, victim and detector, each made when first asked for."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from extractbook.reproduction.backbones import backbone_for, write_card
from extractbook.reproduction.cells import Cell
from extractbook.reproduction.scales import Scale, scale
from extractlib.data import download
from extractlib.data.images import ImageSet
from extractlib.data.sets import Parts
from extractlib.data.sources import Loader, Source
from extractlib.defenses.detectors import BinaryDetector, Detector
from extractlib.errors import InputError, check_choice
from extractlib.evaluation import evaluate
from extractlib.models.classifier import Victim
from extractlib.models.devices import default_device
from extractlib.models.fitted import Trainer
from extractlib.models.networks import fingerprint_of
from extractlib.models.training import Recipe
from extractlib.store import Store


@dataclass(frozen=True)
class Setup:
    """A cell with everything it needs.

    Attributes:
        cell: What is fixed.
        store: Keeps images, backbones, victims, detectors, transfer sets and surrogates.
        folders: Where each published data set and each ``"folder:NAME"`` of the cell lies; if None the data sets are
            looked for in `download.default_data`.
        device: Where to train; the best at hand if None.
        part: The task's part on which things are compared: ``"test"``, or ``"validation"`` while settings are chosen.
        progress: Whether to show bars.
        other_detector: Stands in front of the victim in place of the cell's own, where there is a defense.

    Raises:
        InputError: Scale or part is unknown; what else does not fit is refused where it is asked for.
    """

    cell: Cell
    _: KW_ONLY
    store: Store
    folders: Mapping[str, Path] | None = None
    device: str | None = None
    part: str = "test"
    progress: bool = False
    other_detector: Detector | None = None

    def __post_init__(self) -> None:
        check_choice("part", self.part, ("test", "validation"))
        object.__setattr__(self, "device", self.device or default_device())
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
        """What all images come from."""
        return Loader(
            sizes={**self.settings.task_sizes, **self.settings.pool_sizes},
            image_size=self.settings.image_size,
            noise_size=self.settings.budget,
            store=self.store,
            folders=download.data_folders() if self.folders is None else self.folders,
        )

    @cached_property
    def task(self) -> Parts:
        """The task's parts."""
        return self.loader.task(self.cell.task, seed=self.cell.seed)

    @property
    def balanced(self) -> bool:
        """Whether an accuracy on the task is the mean over its classes."""
        return self.cell.task in self.settings.balanced

    @property
    def held_out(self) -> ImageSet:
        """The labeled images that victim and surrogate are compared on."""
        return self.task[self.part]

    @cached_property
    def pool(self) -> Parts:
        """The parts of the pool that the defense knows: the scale's, or the one in files that the attacker sends."""
        sent = replace(self.cell.pool, is_shifted=False, class_count=None)
        own = sent.in_files and not sent.is_task
        return self.loader.pool(sent if own else self.settings.pool, seed=self.cell.seed)

    @cached_property
    def second_pool(self) -> Parts:
        """The parts of the pool of another hand, which no detector is trained against."""
        return self.loader.pool(self.settings.second_pool, seed=self.cell.seed)

    def queries(self, source: Source | str | None = None, *, labeled: bool = False) -> ImageSet:
        """Return the images that the attacker sends: the cell's, or those of another source."""
        return self.loader.queries(source or self.cell.pool, seed=self.cell.seed, labeled=labeled)

    def backbone(self, network: str) -> Mapping[str, torch.Tensor]:
        """Return the public weights of a network."""
        images, settings = None, self.settings
        if not (settings.shipped or settings.imagenet):
            images = self.pool.get("pretraining")
            if images is None and self.cell.pool.in_files:
                raise InputError(
                    f"pool {self.cell.pool} has no part for pre-training, which scale {settings.name!r} needs: use"
                    " tinyimagenet or a folder with classes"
                )
        options = {"store": self.store, "device": self.device, "progress": self.progress}
        return backbone_for(settings, images, network=network, **options)

    def trainer(self, network: str, recipe: Recipe, *, pretrained: bool = True, keep: bool = True) -> Trainer:
        """Return how a model of the cell is made: from the network's public weights, with the cell's seed.

        Args:
            network: Architecture.
            recipe: How it is trained.
            pretrained: Whether it starts from the public weights.
            keep: Whether it is kept in the store.
        """
        return Trainer(
            network=network,
            recipe=recipe,
            seed=self.cell.seed,
            backbone=self.backbone(network) if pretrained else None,
            store=self.store if keep else None,
            device=self.device,
            progress=self.progress,
        )

    def surrogate_trainer(self, *, keep: bool = True) -> Trainer:
        """Return how the surrogate is made."""
        return self.trainer(self.cell.surrogate, self.settings.surrogate, keep=keep)

    @cached_property
    def victim(self) -> Victim:
        """The victim: fine-tuned from the backbone, or trained from scratch."""
        pretrained, images = self.cell.pretrained, self.task["victim"]
        if images.labels is None:
            raise InputError(f"{images.name} has no labels: a victim needs them")
        recipe = self.settings.victim if pretrained else self.settings.scratch_victim
        trainer = self.trainer(self.cell.victim, recipe, pretrained=pretrained)
        model = trainer.fit_or_load("victim", images, images.labels, classes=len(images.classes))
        return Victim(model, classes=images.classes, image_shape=images.image_shape, name=images.name)

    @cached_property
    def detector(self) -> Detector:
        """The paper's detector: the task's images against the pool's, none of which anybody sends."""
        return self.other_detector or self.detector_of(self.task["detector"], self.pool["detector"])

    def detector_of(self, benign: ImageSet, ood: ImageSet) -> BinaryDetector:
        """Return a detector trained to tell `benign` images from out-of-distribution ones."""
        trainer = self.trainer(self.settings.network, self.settings.detector)
        return BinaryDetector.train(benign, ood, trainer)


def ship_victim(setup: Setup, folder: Path) -> Mapping:
    """Write a setup's victim and what it is into a folder of the library, where `load_victim` finds it.

    Returns:
        What is written beside the weights: network, classes, image shape, recipe, seed, backbone, test accuracy.
    """
    task, victim = setup.cell.task, setup.victim
    card = {
        "network": setup.cell.victim,
        "classes": list(victim.classes),
        "image_shape": list(setup.task["victim"].image_shape),
        "recipe": asdict(setup.settings.victim),
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
