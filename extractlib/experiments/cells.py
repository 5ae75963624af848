"""One cell: train a victim, query its API, train a surrogate on the answers, compare the two."""

import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from extractlib import networks
from extractlib.api import PredictionAPI
from extractlib.attacks.knockoff import Knockoff
from extractlib.backbones import backbone_for
from extractlib.datasets import pool_parts, task_parts
from extractlib.images import ImageSet
from extractlib.metrics import accuracy, agreement, constant_accuracy, per_class_accuracy, recovery
from extractlib.profiles import Profile, profile
from extractlib.store import Store, code_hash, fingerprint
from extractlib.training import default_device, predict
from extractlib.transfer import TransferSet, load
from extractlib.victims import Victim, train_victim

ROOMS = (
    "drawn",
    "images",
    "datasets",
    "networks",
    "training",
    "backbones",
    "victims",
    "api",
    "meter",
    "transfer",
    "attacks.knockoff",
    "metrics",
    "experiments.cells",
)
"""The modules that decide what a row says; its provenance holds their hash."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run with every setting fixed.

    Attributes:
        profile: Name of the profile, which fixes sizes and recipes.
        task: The victim's task.
        pool: Whose images the attacker sends.
        victim: The victim's network.
        surrogate: The surrogate's network.
        granularity: What an answer shows.
        budget: Queries the attacker may send.
        seed: Seed of the drawn images or the split, the victim, the choice of queries and the surrogate.
        attack: How queries are chosen.
        defence: What stands in front of the victim.
    """

    profile: str
    task: str
    pool: str
    victim: str
    surrogate: str
    granularity: str
    budget: int
    seed: int
    attack: str = "knockoff-random"
    defence: str = "none"


@dataclass(frozen=True)
class Row:
    """What came out of a cell.

    Attributes:
        cell: The cell.
        result: Accuracies, recovery and agreement in [0, 1]; lists per class in the order of the task's classes.
        provenance: Commit, date, seconds, device, versions, fingerprints of data and code.
    """

    cell: Cell
    result: Mapping
    provenance: Mapping

    def to_json(self) -> dict:
        """Return the row as JSON-ready dictionaries."""
        return {"cell": asdict(self.cell), "result": dict(self.result), "provenance": dict(self.provenance)}

    @classmethod
    def from_json(cls, row: Mapping) -> "Row":
        """Return the row that `to_json` wrote."""
        return cls(Cell(**row["cell"]), row["result"], row["provenance"])


def run_cell(
    cell: Cell,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    device: str | None = None,
    part: str = "test",
    progress: bool = False,
) -> Row:
    """Run one cell from images to row (the paper's section 4).

    Args:
        cell: The settings.
        store: Keeps images, backbones, victims and transfer sets.
        folders: Where each ``"folder:NAME"`` of the cell lies.
        device: Where to train; the best at hand if None.
        part: The task's part on which victim and surrogate are compared: ``"test"``, or ``"validation"`` while
            settings are being chosen.
        progress: Whether to show bars.

    Raises:
        InputError: A name is unknown, or the budget does not fit the pool.
    """
    started = time.monotonic()
    device = device or default_device()
    settings = profile(cell.profile)
    task = task_parts(cell.task, settings, seed=cell.seed, store=store, folders=folders)
    pool = pool_parts(cell.pool, settings, seed=cell.seed, store=store, folders=folders)
    backbones = {
        network: backbone_for(
            settings, pool.get("pretraining"), network=network, store=store, device=device, progress=progress
        )
        for network in {cell.victim, cell.surrogate}
    }
    victim = train_victim(
        task["victim"],
        network=cell.victim,
        recipe=settings.victim,
        seed=cell.seed,
        store=store,
        backbone=backbones[cell.victim],
        device=device,
        progress=progress,
    )
    # One transfer set serves all budgets up to the profile's: a smaller budget is its first part.
    attack = Knockoff(budget=max(cell.budget, min(settings.budget, len(pool["queries"]))), seed=cell.seed)
    transfer = collected(attack, victim, pool["queries"], granularity=cell.granularity, store=store, progress=progress)
    transfer = transfer.first(cell.budget)
    surrogate = attack.train_surrogate(
        transfer,
        pool["queries"],
        network=cell.surrogate,
        recipe=settings.surrogate,
        classes=len(victim.classes),
        seed=cell.seed,
        backbone=backbones[cell.surrogate],
        device=device,
        progress=progress,
    )
    result = compare(victim, surrogate, task[part])
    result["queries_per_class"] = transfer.answers.labels.bincount(minlength=len(victim.classes)).tolist()
    provenance = {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "device": describe(device),
        "versions": versions(),
        "data": {
            "victim": task["victim"].fingerprint,
            part: task[part].fingerprint,
            "pool": pool["queries"].fingerprint,
        },
        "code": code_of(settings, backbones),
    }
    return Row(cell, result, provenance)


def collected(
    attack: Knockoff, victim: Victim, pool: ImageSet, *, granularity: str, store: Store, progress: bool = False
) -> TransferSet:
    """Return the transfer set of `attack` against `victim`, collected once and then read from the store."""
    api = PredictionAPI(victim, granularity=granularity, budget=attack.budget)
    key = {
        "api": api.fingerprint,
        "pool": pool.fingerprint,
        "attack": asdict(attack),
        "code": code_hash("api", "meter", "transfer", "attacks.knockoff"),
    }
    folder = store.get(
        "transfer", key, lambda folder: attack.collect(api, pool, folder / "transfer.bin", progress=progress)
    )
    return load(folder / "transfer.bin")


def compare(victim: Victim, surrogate: torch.nn.Module, held_out: ImageSet) -> dict:
    """Return how well the surrogate does on labelled images beside the victim.

    Returns:
        ``victim_accuracy``, ``surrogate_accuracy``, ``recovery`` (their ratio), ``agreement`` (share of equal labels),
        ``constant_accuracy`` (of the best single class), and both accuracies per class.
    """
    classes = len(victim.classes)
    theirs = victim.logits(held_out.images).argmax(1)
    ours = predict(surrogate, held_out.images).argmax(1)
    victim_accuracy, surrogate_accuracy = accuracy(theirs, held_out.labels), accuracy(ours, held_out.labels)
    return {
        "victim_accuracy": victim_accuracy,
        "surrogate_accuracy": surrogate_accuracy,
        "recovery": recovery(surrogate_accuracy, victim_accuracy),
        "agreement": agreement(ours, theirs),
        "constant_accuracy": constant_accuracy(held_out.labels),
        "victim_per_class": _rounded(per_class_accuracy(theirs, held_out.labels, classes)),
        "surrogate_per_class": _rounded(per_class_accuracy(ours, held_out.labels, classes)),
    }


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def code_of(settings: Profile, backbones: Mapping[str, Mapping[str, torch.Tensor]]) -> str:
    """Return the fingerprint of all code, settings and weights that decide a row."""
    weights = {network: networks.fingerprint_of(state) for network, state in backbones.items()}
    return fingerprint({"rooms": code_hash(*ROOMS), "profile": asdict(settings), "weights": weights})


# -- provenance --------------------------------------------------------------


def commit() -> str:
    """Return the commit the package is at, with ``+`` behind it where tracked files differ from it."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--dirty=+",
        "--exclude=*",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def describe(device: str) -> str:
    """Return a device in words: the accelerator's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{device}: {names[0] if names else platform.machine()}, {torch.get_num_threads()} thread(s)"


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
