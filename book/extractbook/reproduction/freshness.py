"""Which rows are up to date: those whose versions and settings match what their cell would be run with today."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache, partial
from typing import Any

from extractbook.reproduction.cells import WATERMARK, Cell, Row, plain_cell
from extractbook.reproduction.scales import Scale, scale
from extractlib.data import drawn
from extractlib.data.sources import Source
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import Recipe
from extractlib.versions import versions

STAGE = ("split", "network", "backbone", "train", "augment", "metrics", "experiment")
QUERIES = ("api", "knockoff")
EXPERIMENT_KEYS: Mapping[str, tuple[str, ...]] = {
    "extraction": QUERIES,
    "control": ("control",),
    "classes": QUERIES,
    "answers": QUERIES,
    "asked_twice": (*QUERIES, "detect", "policy"),
    "detection": ("detect",),
    "overlap": ("detect",),
    "accounts": (*QUERIES, "detect", "accounts"),
    "shortcut": (*QUERIES, "detect", "policy", "transform"),
}
"""The behaviors that each experiment uses besides those in `STAGE`."""


def versions_of(cell: Cell) -> dict[str, int]:
    """Return the versions of all behaviors that a cell's row depends on, by key.

    Raises:
        InputError: There is no such experiment.
    """
    if cell.experiment not in EXPERIMENT_KEYS:
        raise InputError(f"unknown experiment {cell.experiment!r}: use one of {', '.join(EXPERIMENT_KEYS)}")
    keys = {*STAGE, *EXPERIMENT_KEYS[cell.experiment]}
    if cell.attack == "adaptive":
        keys.add("adaptive")
    if cell.attack == "own-labels":
        keys = keys - set(QUERIES) | {"control"}
    if cell.defense == WATERMARK:
        keys |= {"watermark", "policy", "control"}
    elif cell.defense != "none":
        keys |= {"policy", "detect"}
    if _accused(cell):
        keys.add("ownership")
    task, pool = Source.parse(cell.task), cell.pool
    if task.in_files or pool.in_files:
        keys.add("decode")
    if task.name in drawn.PARTS or pool.name in drawn.PARTS:
        keys.add("drawn")
    shifted = pool.is_shifted or cell.experiment in ("detection", "accounts")
    if task.in_files and (shifted or cell.task in scale(cell.scale).matched):
        keys.add("transform")
    return versions(*keys)


def _accused(cell: Cell) -> bool:
    """Return whether a cell's row compares a copy with an independent model."""
    settings = scale(cell.scale)
    plain = cell == plain_cell(settings, task=cell.task, seed=cell.seed)
    return cell.task in settings.accused and (plain or cell.experiment == "control")


def settings_of(cell: Cell) -> dict[str, Any]:
    """Return the scale's settings and the shipped weights that a cell's row depends on, JSON-ready.

    Fields of a recipe with their default value are left out, so that a new field with a default changes nothing.
    """
    return json.loads(_settings(cell))


@cache
def _settings(cell: Cell) -> str:
    settings = scale(cell.scale)
    detected = cell.defense not in ("none", WATERMARK)
    recipe = partial(settings.recipe, task=cell.task)
    surrogate = {"surrogate": stated(recipe("surrogate", steps=cell.steps))}
    control = {"control_images": settings.control_images.get(cell.task)}
    if cell.attack == "adaptive":  # one collection serves all smaller budgets
        collected = {"collected": settings.middle_budget, "bandit": asdict(settings.bandit)}
    else:
        collected = {"collected": settings.budget}
    attack = surrogate | collected
    detector = {"detector": stated(recipe("detector")), "network": settings.network}
    found = {
        "victim": stated(recipe("scratch_victim" if cell.victim_weights == "none" else "victim")),
        "sizes": _sizes(cell, settings),
        "image_size": settings.image_size,
        "backbone": _backbones(cell, settings),
    }
    used: dict[str, dict[str, Any]] = {
        "extraction": attack | (detector if detected else {}),
        "control": surrogate | control,
        "classes": attack,
        "answers": collected | {"granularities": settings.granularities},
        "asked_twice": attack | detector,
        "shortcut": attack | detector,
        "detection": detector | {"second_pool": settings.second_pool},
        "overlap": detector | {"overlap_images": settings.overlap_images},
        "accounts": detector
        | {"stream": settings.stream, "streams": settings.streams}
        | {"flag_times": dict(settings.flag_times.get(cell.task, {}))}
        | _crafted(settings),
    }
    found |= used[cell.experiment]
    found |= _of_photographs(cell.task, settings)
    if cell.task in settings.balanced:
        found["balanced"] = True
    if cell.defense == WATERMARK:
        found |= control | {"watermark_rate": settings.watermark_rate}
    if _accused(cell):
        found["accused_images"] = settings.accused_images
    return json.dumps(found, sort_keys=True)


def _crafted(settings: Scale) -> dict[str, Any]:
    """Return how the surrogate of an attack that crafts its queries is trained, where it is not by the default."""
    given = settings.surrogate
    differs = given.optimizer != Recipe.optimizer
    return {"crafted": {"optimizer": given.optimizer, "learning_rate": given.learning_rate}} if differs else {}


BY_TASK = ("matched", "shifts")
OF_PHOTOGRAPHS = (
    *("task_shares", "pool_shares", "judged_on", "tuned_on", "fitted_on", "asked", "trained_on", "played"),
    *("accounts_apart", "account_size", "resamples", "other_weights"),
)
"""Settings that decide rows of photographs, by task and in general; in other rows they have their defaults."""


def _of_photographs(task: str, settings: Scale) -> dict[str, Any]:
    """Return the settings for photographs that differ from their defaults."""
    values = stated(settings)
    found = {name: values[name] for name in OF_PHOTOGRAPHS if name in values}
    found |= {name: values[name][task] for name in BY_TASK if task in values.get(name, {})}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()}


def stated(settings: Recipe | Scale) -> dict[str, Any]:
    """Return the fields of a recipe or a scale that have no default or differ from it, by name."""
    found = {}
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if default is MISSING or getattr(settings, field.name) != default:
            found[field.name] = getattr(settings, field.name)
    return found


def _sizes(cell: Cell, settings: Scale) -> dict[str, Any]:
    """Return the sizes of the drawn sets that the cell can use."""
    names = dict.fromkeys((cell.task, cell.pool.name, settings.pool, settings.second_pool))
    sizes = {**settings.task_sizes, **settings.pool_sizes}
    return {name: dict(sizes[name]) for name in names if name in sizes}


def _backbones(cell: Cell, settings: Scale) -> dict[str, Any]:
    """Return what decides the public weights: the digests of the shipped ones, or how they are trained."""
    if settings.imagenet:
        return {"weights": "ImageNet's" if settings.other_weights else "torchvision"}
    if not settings.shipped:
        return stated(settings.backbone)
    # The detector starts from the network's public weights.
    used = {(cell.victim, cell.victim_weights), (cell.surrogate or cell.victim, cell.surrogate_weights)}
    used |= {(settings.network, "A")}
    shipped = sorted(
        (network, weights)
        for network, weights in used
        if weights != "none" and network in (settings.network, settings.other_network)
    )
    return {networks.backbone_name(*one): _weights(*one) for one in shipped}


@cache
def _weights(network: str, initial: str) -> str:
    return networks.fingerprint_of(networks.shipped_backbone(network, initial=initial))


def is_current(row: Row) -> bool:
    """Return whether the row was made with today's behaviors and settings."""
    made = row.provenance
    return made.get("versions") == versions_of(row.cell) and made.get("settings") == settings_of(row.cell)
