"""From a cell to its row."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

from extractlib import networks
from extractlib.attacks.knockoff import Knockoff
from extractlib.datasets import in_files
from extractlib.errors import InputError, one_of
from extractlib.experiments.cells import ADAPTIVE, Cell, Row, commit, describe, versions
from extractlib.experiments.detection import detection, overlap, stateful
from extractlib.experiments.extraction import classes, extraction
from extractlib.experiments.scene import Scene
from extractlib.experiments.shortcut import shortcut
from extractlib.images import ImageSet
from extractlib.profiles import profile
from extractlib.store import Store, code_hash, fingerprint

STAGE = (
    *("drawn", "images", "datasets", "networks", "acceleration", "training", "backbones", "victims", "metrics"),
    "experiments.scene",
)
QUERIES = ("api", "meter", "transfer", "attacks.knockoff", "experiments.extraction")
DETECTORS = ("detection", "experiments.detection")


@dataclass(frozen=True)
class Experiment:
    """One kind of measurement.

    Attributes:
        measure: Makes the result of a scene.
        rooms: The modules that decide it, beside those of the stage.
        headline: Path to the number that a second run is compared by.
    """

    measure: Callable[[Scene], dict]
    rooms: tuple[str, ...]
    headline: tuple[str, ...]


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "extraction": Experiment(extraction, QUERIES, ("recovery",)),
        "classes": Experiment(classes, QUERIES, ("recovery",)),
        "detection": Experiment(detection, DETECTORS, ("binary", "pool", "balanced_accuracy")),
        "overlap": Experiment(overlap, DETECTORS, ("balanced_accuracy",)),
        "shortcut": Experiment(
            shortcut,
            (*QUERIES, *DETECTORS, "defenses", "processing", "experiments.shortcut"),
            ("sides", "compression-differs", "balanced_accuracy"),
        ),
        "stateful": Experiment(stateful, ("stateful", *DETECTORS), ("prada", "delta")),
    }
)


def run_cell(
    cell: Cell,
    *,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    device: str | None = None,
    part: str = "test",
    progress: bool = False,
) -> Row:
    """Run one cell from images to row.

    Args:
        cell: The settings.
        store: Keeps images, backbones, victims, detectors, transfer sets and surrogates.
        folders: Where each published data set and each ``"folder:NAME"`` of the cell lies, as `Scene` takes them.
        device: Where to train; the best at hand if None.
        part: The task's part on which things are compared: ``"test"``, or ``"validation"`` while settings are chosen.
        progress: Whether to show bars.

    Raises:
        InputError: A name is unknown, or there are fewer images than the cell asks for.
    """
    started = time.monotonic()
    experiment = EXPERIMENTS[one_of("experiment", cell.experiment, EXPERIMENTS)]
    scene = Scene(cell, store=store, folders=folders, device=device, part=part, progress=progress)
    # First, so that missing images are told before anything is trained.
    held_out, sent = scene.held_out, scene.queries()
    _enough(scene, sent)
    result = experiment.measure(scene)
    provenance = {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "device": describe(scene.device),
        "versions": versions(),
        "data": {
            "victim": scene.task["victim"].fingerprint,
            part: held_out.fingerprint,
            "pool": sent.fingerprint,
        },
        "code": code_of(cell),
    }
    return Row(cell, result, provenance)


def _enough(scene: Scene, sent: ImageSet) -> None:
    """Refuse a cell that would run out of images after its victim has trained."""
    cell, settings = scene.cell, scene.settings
    if cell.experiment in ("extraction", "classes", "shortcut"):
        Knockoff(budget=cell.budget, seed=cell.seed).indices(len(sent))
    wanted: list[tuple[ImageSet, int]] = []
    if cell.experiment == "stateful":
        wanted = [(scene.task["adversary"], 2 * settings.streams * settings.stream)]
    if cell.experiment == "overlap":
        count = settings.overlap_images
        own = round(count * cell.overlap)
        wanted = [(scene.pool[part], count - own) for part in ("detector", "test")]
        wanted += [(scene.task["detector"], count), (sent, count + own if own else 0)]
    for images, count in wanted:
        if len(images) < count:
            raise InputError(
                f"{images.name} holds {len(images)} images and {cell.experiment} needs {count}: use a larger data set,"
                " or a profile that asks for fewer"
            )


def code_of(cell: Cell) -> str:
    """Return the fingerprint of all code, settings and shipped weights that decide a cell's row."""
    rooms = STAGE + EXPERIMENTS[one_of("experiment", cell.experiment, EXPERIMENTS)].rooms
    if cell.attack.startswith(ADAPTIVE):
        rooms += ("attacks.adaptive",)
    if cell.defence != "none":
        rooms += ("defenses", "detection")
    if in_files(cell.task) or in_files(cell.pool):
        rooms += ("photographs.layouts", "photographs.decoding", "photographs.shifting")
    return _code(rooms, cell.profile, tuple(sorted({cell.victim, cell.surrogate or cell.victim})))


@cache
def _code(rooms: tuple[str, ...], profile_name: str, names: tuple[str, ...]) -> str:
    settings = profile(profile_name)
    weights = {
        name: networks.fingerprint_of(networks.shipped_backbone(name))
        for name in names
        if settings.shipped and name in (settings.network, settings.other_network)
    }
    return fingerprint({"rooms": code_hash(*rooms), "profile": asdict(settings), "weights": weights})


def headline(row: Row) -> float:
    """Return the number by which a second run of the row's cell is compared with it."""
    value = row.result
    for step in EXPERIMENTS[row.cell.experiment].headline:
        value = value[step]
    return value
