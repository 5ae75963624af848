"""What a cell is played on: images, backbones, victim and detector, each made when first asked for."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from extractbook.reproduction.cells import Cell
from extractbook.reproduction.scales import Scale, scale
from extractlib import data as photographs
from extractlib.data import download
from extractlib.data.images import ImageSet
from extractlib.data.sources import FOLDER, in_files, pool_parts, query_images, task_parts
from extractlib.defenses.detectors import BinaryDetector, train_detector
from extractlib.errors import InputError, one_of
from extractlib.models.backbones import backbone_for
from extractlib.models.training import Recipe, default_device
from extractlib.models.victims import Victim, train_victim
from extractlib.store import Store


class Scene:
    """A cell with everything it needs.

    Args:
        cell: The settings.
        store: Keeps images, backbones, victims, detectors, transfer sets and surrogates.
        folders: Where each published data set and each ``"folder:NAME"`` of the cell lies; if None the data sets are
            looked for in `download.default_data`.
        device: Where to train; the best at hand if None.
        part: The task's part on which things are compared: ``"test"``, or ``"validation"`` while settings are chosen.
        progress: Whether to show bars.

    Raises:
        InputError: Profile or part is unknown; what else does not fit is refused where it is asked for.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        store: Store,
        folders: Mapping[str, Path] | None = None,
        device: str | None = None,
        part: str = "test",
        progress: bool = False,
    ):
        self.cell, self.store, self.progress = cell, store, progress
        self.settings: Scale = scale(cell.profile)
        self.device = device or default_device()
        self.part = one_of("part", part, ("test", "validation"))
        self._folders = download.data_folders() if folders is None else folders
        self._backbones: dict[str, Mapping[str, torch.Tensor]] = {}

    def but(self, **changes) -> "Scene":
        """Return the scene of the cell with `changes` to its fields."""
        return Scene(
            replace(self.cell, **changes),
            store=self.store,
            folders=self._folders,
            device=self.device,
            part=self.part,
            progress=self.progress,
        )

    @cached_property
    def task(self) -> dict[str, ImageSet]:
        """The task's parts."""
        return task_parts(self.cell.task, self.settings, seed=self.cell.seed, store=self.store, folders=self._folders)

    @property
    def held_out(self) -> ImageSet:
        """The labelled images that victim and surrogate are compared on."""
        return self.task[self.part]

    @cached_property
    def pool(self) -> dict[str, ImageSet]:
        """The parts of the pool that the defence knows: the profile's, or the one in files that the attacker sends."""
        sent = self.cell.pool if self.cell.pool.startswith(FOLDER) else self.cell.pool.partition("/")[0]
        name = sent if sent.startswith(FOLDER) or sent in photographs.POOLS else self.settings.pool
        return pool_parts(name, self.settings, seed=self.cell.seed, store=self.store, folders=self._folders)

    @cached_property
    def second_pool(self) -> dict[str, ImageSet]:
        """The parts of the pool of another hand, which no detector is trained against."""
        name = self.settings.second_pool
        return pool_parts(name, self.settings, seed=self.cell.seed, store=self.store, folders=self._folders)

    def queries(self, name: str | None = None, *, labelled: bool = False) -> ImageSet:
        """Return the images that the attacker sends: the cell's, or those of another name."""
        return query_images(
            name or self.cell.pool,
            self.settings,
            seed=self.cell.seed,
            store=self.store,
            folders=self._folders,
            labelled=labelled,
        )

    def backbone(self, network: str) -> Mapping[str, torch.Tensor]:
        """Return the public weights of a network."""
        if network not in self._backbones:
            shipped, published = self.settings.shipped, self.settings.imagenet
            if not (shipped or published) and in_files(self.cell.pool) and "pretraining" not in self.pool:
                raise InputError(
                    f"pool {self.cell.pool} has no part for pre-training, which profile {self.settings.name!r} needs:"
                    " use tinyimagenet or a folder with classes"
                )
            self._backbones[network] = backbone_for(
                self.settings,
                None if shipped or published else self.pool.get("pretraining"),
                network=network,
                store=self.store,
                device=self.device,
                progress=self.progress,
            )
        return self._backbones[network]

    @cached_property
    def victim(self) -> Victim:
        """The victim: fine-tuned from the backbone, or trained from scratch."""
        pretrained = self.cell.pretrained
        return train_victim(
            self.task["victim"],
            network=self.cell.victim,
            recipe=self.settings.victim if pretrained else self.settings.scratch_victim,
            seed=self.cell.seed,
            store=self.store,
            backbone=self.backbone(self.cell.victim) if pretrained else None,
            device=self.device,
            progress=self.progress,
        )

    @cached_property
    def detector(self) -> BinaryDetector:
        """The paper's detector: the task's images against the pool's, none of which anybody sends."""
        return self.detector_of(self.task["detector"], self.pool["detector"], recipe=self.settings.detector)

    def detector_of(self, benign: ImageSet, strangers: ImageSet, *, recipe: Recipe) -> BinaryDetector:
        """Return a detector trained to tell `benign` images from `strangers`."""
        return train_detector(
            benign,
            strangers,
            network=self.settings.network,
            recipe=recipe,
            seed=self.cell.seed,
            store=self.store,
            backbone=self.backbone(self.settings.network),
            device=self.device,
            progress=self.progress,
        )
