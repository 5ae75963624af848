"""Run a cell to get its row."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from extractbook.reproduction.cells import Cell, Row, commit, describe, libraries, lock, plain_cell, processor
from extractbook.reproduction.experiments.accounts import accounts
from extractbook.reproduction.experiments.answers import answers
from extractbook.reproduction.experiments.detection import detection, overlap
from extractbook.reproduction.experiments.extraction import classes, control, extraction
from extractbook.reproduction.experiments.shortcut import shortcut
from extractbook.reproduction.experiments.twice import asked_twice
from extractbook.reproduction.freshness import settings_of, versions_of
from extractbook.reproduction.scales import scale
from extractbook.reproduction.setups import Setup
from extractlib.data.pixels import USUAL, Reading
from extractlib.errors import InputError, check_choice, shown
from extractlib.models.devices import default_device
from extractlib.models.networks import fingerprint_of
from extractlib.store import Store


@dataclass(frozen=True)
class Experiment:
    """One kind of measurement.

    Attributes:
        measure: Computes the result for a setup.
        headline: Path to the number in the result by which two runs are compared.
    """

    measure: Callable[[Setup], dict]
    headline: tuple[str, ...]


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "extraction": Experiment(extraction, ("recovery",)),
        "control": Experiment(control, ("surrogate_accuracy",)),
        "classes": Experiment(classes, ("recovery",)),
        "answers": Experiment(answers, ("on_test", "mutual_information")),
        "asked_twice": Experiment(asked_twice, ("recovery_consistent",)),
        "detection": Experiment(detection, ("binary", "pool", "balanced_accuracy")),
        "overlap": Experiment(overlap, ("balanced_accuracy",)),
        "shortcut": Experiment(shortcut, ("sides", "compression-differs", "balanced_accuracy")),
        "accounts": Experiment(accounts, ("prada", "sybil_flagged")),
    }
)
"""The kinds of measurement by name; `freshness.EXPERIMENT_KEYS` says what each depends on."""


def run_cell(
    cell: Cell,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    reading: Reading = USUAL,
    device: str | None = None,
    part: str = "test",
    progress: bool = False,
) -> Row:
    """Run one cell from images to row.

    Args:
        cell: The settings.
        store: Keeps images, backbones, victims, detectors, transfer sets and surrogates.
        folders: The path of each published data set and each ``"folder:NAME"`` of the cell, as for `Setup`.
        reading: How files are read, and how a task in files is split.
        device: Where to train; the best available device if None.
        part: The task's part to compare models on: ``"test"``, or ``"validation"`` while settings are chosen.
        progress: Whether to show progress bars.

    Raises:
        InputError: A name is unknown, or there are fewer images than the cell needs.
    """
    started = time.monotonic()
    experiment = EXPERIMENTS[check_choice("experiment", cell.experiment, EXPERIMENTS)]
    device = device or default_device()
    setup = Setup(cell, store=store, folders=folders, reading=reading, device=device, part=part, progress=progress)
    data = data_of(setup)  # first, so that missing images are reported before anything is trained
    result = experiment.measure(setup)
    provenance = {
        "commit": commit(),
        "lock": lock(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "device": describe(setup.device),
        "processor": processor(),
        "libraries": libraries(),
        "versions": versions_of(cell),
        "settings": settings_of(cell),
        "data": data,
    }
    return Row(cell, result, provenance)


def data_of(setup: Setup) -> dict[str, str]:
    """Return the fingerprints of what a row rests on: images of victim, comparison and pool, and public weights."""
    images = {"victim": setup.task["victim"], setup.part: setup.held_out, "pool": setup.queries()}
    prints = {name: found.fingerprint for name, found in images.items()}
    if setup.settings.other_weights:
        prints["weights"] = fingerprint_of(setup.backbone(setup.settings.network))
    return prints


def headline(row: Row) -> float:
    """Return the number by which a row is compared with a second run of its cell."""
    value: Any = row.result
    path = EXPERIMENTS[check_choice("experiment", row.cell.experiment, EXPERIMENTS)].headline
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float):
        raise InputError(f"{'.'.join(path)} of a row of {row.cell.task} is {shown(value)}: recompute it")
    return value


def name_of(cell: Cell) -> str:
    """Return a cell in words, naming what differs from the scale's plain cell."""
    plain = plain_cell(scale(cell.scale), task=cell.task, seed=cell.seed)
    if cell.experiment in ("extraction", "classes"):
        told = [f"{cell.budget:,} queries to {cell.pool}", f"{cell.granularity} answers"]
        kind = f"{cell.attack} {cell.reward}".rstrip()
    else:
        told, kind = [f"{cell.experiment}" + (f" {cell.overlap}" if cell.experiment == "overlap" else "")], "random"
        told += [str(cell.pool)] if cell.pool != plain.pool else []
    if cell.experiment == "classes":
        told.append("by class")
    weights = f"weights {cell.victim_weights} to {cell.surrogate_weights}"
    kinds = {
        kind: "random",
        f"defense {cell.defense}": "defense none",
        f"{cell.victim} to {cell.surrogate}": f"{plain.victim} to {cell.surrogate and plain.victim}",
        weights: "weights A to A",
        f"{cell.steps:,} steps": f"{cell.steps and plain.steps:,} steps",
        f"filled in {cell.fill}": "filled in even",
    }
    told += [found for found, usual in kinds.items() if found != usual]
    return f"{cell.task}, {', '.join(told)}, seed {cell.seed}"
