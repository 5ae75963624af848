"""At which scale an experiment runs: its sizes and recipes, and which rows its tables have, as TOML files.

``scales/NAME.toml`` holds what decides a row, ``grids/NAME.toml`` which rows there are. A chapter's code is the same at
each scale. A scale of one's own is a pair of such files.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from extractlib.errors import InputError, check_choice
from extractlib.models.training import Recipe

FOLDER = Path(__file__).parent
GRIDS = FOLDER.parent / "grids"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Which rows the tables have at a scale (``grids/NAME.toml``). No row depends on it, but for `adaptive_budgets`.

    Attributes:
        budgets: Query budgets of the budget curve, ascending, the whole budget last.
        realistic_budgets: Query budgets of the adversary with in-distribution images, ascending: its last is half of
            the whole budget, or what the adversary's part of a real task holds.
        adaptive_budgets: Query budgets at which the adaptive strategy is set against the random one, ascending. The
            last decides a row: one collection of so many queries serves them all.
        granularities: What an answer may show, from more to less.
        narrow_pool: The task whose images, much alike, are queries of low diversity.
        narrow_budget: Queries to them: the whole budget, or what a part of a task in files holds.
        pool_classes: To how many of its classes the pool is cut, descending, for queries of less diversity.
        diversity_budget: Queries to those cut pools, and to noise.
        overlaps: Shares of the pool's images that show the victim's own classes, ascending.
        fewer_seeds: Seeds of the cells that decide no claim.
        rate: Images a second that a process is assumed to train, on which only plans depend.
    """

    budgets: tuple[int, ...]
    realistic_budgets: tuple[int, ...]
    adaptive_budgets: tuple[int, ...]
    granularities: tuple[str, ...]
    narrow_pool: str
    narrow_budget: int
    pool_classes: tuple[int, ...]
    diversity_budget: int
    overlaps: tuple[float, ...]
    fewer_seeds: int
    rate: int

    @property
    def own_budget(self) -> int:
        """The largest budget of the adversary with in-distribution images."""
        return self.realistic_budgets[-1]

    @property
    def middle_budget(self) -> int:
        """The adaptive budget in the middle, at which the adaptive strategy is judged."""
        return self.adaptive_budgets[len(self.adaptive_budgets) // 2]


@dataclass(frozen=True, kw_only=True)
class Scale(Axes):
    """The sizes and recipes of every experiment (``scales/NAME.toml``), with the axes of its tables.

    Attributes:
        name: Name of the scale.
        tasks: The victims' tasks.
        pool: The attacker's pool.
        second_pool: A pool of another hand, which the defense is not trained against; empty where there is none.
        network: Architecture of victims and surrogates (see `networks`).
        other_network: Another architecture, for surrogates that are not built like their victim.
        scratch_networks: Architecture of a task's victim that starts from no public weights.
        backbone: Recipe of the pre-training on the pool's labeled part, the same for both architectures.
        victim: Recipe of the victims, fine-tuned from the backbone.
        scratch_victim: Recipe of the victims that are trained from scratch.
        surrogate: Recipe of the surrogates, fine-tuned from the same backbone.
        detector: Recipe of the detectors, fine-tuned from the same backbone.
        budget: Queries of an attack.
        overlap_images: Images of each side that a detector of the overlap experiment is trained on, and tested on.
        stream: Queries of one honest client that a stateful detector watches.
        streams: Honest clients of each of its two sides, validation and test.
        watermark_rate: Share of the queries that a watermarking API answers wrongly.
        shipped: Whether the pre-trained backbones ship with the package. Elsewhere they are trained and cached.
        imagenet: Whether the backbones are ImageNet's, which torchvision downloads, and none is trained.
        image_size: Height and width that photographs are brought to, in pixels.
        task_sizes: Number of images of each part of each drawn task.
        pool_sizes: Number of images of each part of each drawn pool.
    """

    name: str
    tasks: tuple[str, ...]
    pool: str
    network: str
    other_network: str
    scratch_networks: Mapping[str, str]
    backbone: Recipe
    victim: Recipe
    scratch_victim: Recipe
    surrogate: Recipe
    detector: Recipe
    budget: int
    overlap_images: int
    stream: int
    streams: int
    watermark_rate: float
    second_pool: str = ""
    shipped: bool = False
    imagenet: bool = False
    image_size: int = 32
    task_sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pool_sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def scale(name: str) -> Scale:
    """Return the scale of that name.

    Raises:
        InputError: There is none of that name.
    """
    return SCALES[check_choice("scale", name, SCALES)]


def read_scale(path: Path, grid: Path) -> Scale:
    """Return the scale that two files hold together, the first of which gives it its name.

    Raises:
        InputError: A file is missing or no TOML; or a key is unknown, missing or of another type than `Scale` says. The
            message names file, key, value and remedy.
    """
    axes = checked_fields(Axes, read_toml(grid), str(grid))
    own = checked_fields(Scale, read_toml(path), str(path), elsewhere={"name", *axes})
    return Scale(name=path.stem, **own, **axes)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        InputError: There is no such file, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): write it, or restore it with git checkout"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is no TOML ({error}): mend that line, or restore it with git checkout") from None


def checked_fields(
    kind: type, table: Mapping[str, Any], where: str, *, elsewhere: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the fields of a dataclass as a TOML table has them.

    Args:
        kind: The dataclass.
        table: The table.
        where: Its file, and below the file's top its key, for messages.
        elsewhere: Fields that are not to be in the table.

    Raises:
        InputError: A key is unknown, missing or of another type than the field's annotation.
    """
    kinds = {name: hint for name, hint in get_type_hints(kind).items() if name not in elsewhere}
    for name in table.keys() - kinds.keys():
        raise InputError(f"{where}: unknown key {name} = {table[name]!r}: use one of {', '.join(kinds)}")
    for known in fields(kind):
        optional = known.default is not MISSING or known.default_factory is not MISSING
        if known.name in kinds and known.name not in table and not optional:
            raise InputError(f"{where}: key {known.name} is missing: add one, of type {name_of(kinds[known.name])}")
    return {name: _checked(kinds[name], value, f"{where}: {name}") for name, value in table.items()}


def _checked(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        entries = checked_fields(kind, value, where)
        try:
            return kind(**entries)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(inner[0], entry, where) for entry in value)
    if origin is Mapping and isinstance(value, dict):
        return {name: _checked(inner[1], entry, f"{where}.{name}") for name, entry in value.items()}
    if kind is not Any and type(value) is not kind:
        raise InputError(f"{where} is {value!r}: give a value of type {name_of(kind)}")
    return value


def name_of(kind: Any) -> str:
    """Return a type as TOML calls it."""
    if get_origin(kind) is tuple:
        return f"list of {name_of(get_args(kind)[0])}"
    return {int: "integer", float: "float", str: "string", bool: "boolean"}.get(kind, "table")


SCALES: dict[str, Scale] = {
    found.name: found
    for found in sorted(
        (read_scale(path, GRIDS / path.name) for path in FOLDER.glob("*.toml")),
        key=lambda scale: (scale.budget, scale.name),
    )
}
"""The scales by name, from the smallest to the largest."""

# Until every caller says scale.
Profile, PROFILES, profile = Scale, SCALES, scale
