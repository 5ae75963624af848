"""The scale of an experiment, as TOML files: its sizes and recipes, and which rows its tables have.

``scales/NAME.toml`` holds what decides a row, ``grids/NAME.toml`` which rows there are. A chapter's code is the same at
each scale. To add your own scale, write a pair of such files.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from extractlib.errors import InputError, check_choice
from extractlib.models.training import Augmentation, Recipe

FOLDER = Path(__file__).parent
GRIDS = FOLDER.parent / "grids"
RESTORE = "restore it with git checkout"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Cells that are left out: because a seed takes too long (``cut.toml``), or because a scale cannot have them.

    Attributes:
        what: Which cells these are, in words, or why they are left out.
        table: Their table.
        cells: The values of their fields; a list means one of several values.
        tasks: Tasks that keep them nevertheless.
    """

    what: str
    table: str
    cells: Mapping[str, Any]
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Which rows the tables have at a scale (``grids/NAME.toml``). No row depends on it, except for `granularities`.

    Attributes:
        budgets: Query budgets of the budget curve, ascending, with the whole budget last.
        other_steps: Training steps of the surrogate besides the scale's own, the other axis of the budget curve.
        realistic_budgets: Query budgets of the adversary with in-distribution images, ascending: the last is half of
            the whole budget, or what the adversary's part of a real task holds.
        adaptive_budgets: Query budgets at which the adaptive strategy is compared with the random one, ascending; it is
            judged at the middle one.
        granularities: What an answer can show, from more to less.
        shown_granularities: The granularities that decide no claim.
        narrow_pool: The task whose images, which are much alike, are queries of low diversity.
        narrow_budget: Number of queries with them: the whole budget, or what a part of a task in files holds.
        pool_classes: Numbers of classes that the pool is cut to, descending, for queries of less diversity.
        diversity_budget: Number of queries from those cut pools, and from noise.
        overlaps: Shares of the pool's images that show the victim's own classes, ascending.
        fewer_seeds: Number of seeds of the cells that decide no claim.
        cuts: How many cuts of ``cut.toml`` are made, starting with the first.
        left_out: What this scale cannot have, besides those cuts.
        rate: How many images a second a process is assumed to train on; only plans depend on it.
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
    shown_granularities: tuple[str, ...] = ()
    other_steps: tuple[int, ...] = ()
    cuts: int = 0
    left_out: tuple[Cut, ...] = ()

    @property
    def middle_budget(self) -> int:
        """The adaptive budget in the middle, at which the adaptive strategy is judged."""
        return self.adaptive_budgets[len(self.adaptive_budgets) // 2]


@dataclass(frozen=True, kw_only=True)
class BanditSettings:
    """How the adaptive strategy chooses (see `AdaptiveKnockoff`).

    Attributes:
        batch: Number of queries per decision.
        window: Number of most recent steps that the mean reward is taken over.
        clusters: Number of coarse clusters of the pool's classes.
    """

    batch: int = 8
    window: int = 25
    clusters: int = 30


@dataclass(frozen=True, kw_only=True)
class Scale(Axes):
    """The sizes and recipes of every experiment (``scales/NAME.toml``), with the axes of its tables.

    Attributes:
        name: Name of the scale.
        tasks: The victims' tasks.
        pool: The attacker's pool.
        second_pool: A pool of a different origin, which the defense is not trained against; empty if there is none.
        network: Architecture of victims and surrogates (see `networks`).
        other_network: Another architecture, for surrogates that are not built like their victim; empty if there is
            none.
        other_weights: The network whose ImageNet weights are the second public ones, if they are not this network's.
        scratch_networks: By task, the architecture of a victim that starts from no public weights.
        backbone: Recipe of the pre-training on the pool's labeled part, the same for both architectures.
        victim: Recipe of the victims, fine-tuned from the backbone.
        scratch_victim: Recipe of the victims that are trained from scratch.
        surrogate: Recipe of the surrogates and of the independent controls, fine-tuned from the same backbone; its
            length is in steps, whatever the budget, so that more queries do not mean more training.
        detector: Recipe of the detectors, fine-tuned from the same backbone.
        budget: Number of queries of an attack.
        overlap_images: Number of images of each side that a detector of the overlap experiment is trained on, and
            tested on.
        stream: Number of queries of one honest account that detectors of accounts watch.
        streams: Number of honest accounts that their thresholds are set on, and that they are judged on.
        watermark_rate: Share of the queries that a watermarking API answers wrongly.
        augmentation: By task, what may be done to its images, in place of a recipe's shifts and mirroring.
        balanced: Tasks whose accuracy is the mean over the classes.
        control_images: By task, how many of the adversary's own images the independent control is trained on, chosen to
            bring its validation accuracy nearest to the surrogate's; by default, the surrogate's number of queries.
        bandit: How the adaptive strategy chooses.
        flag_times: By task and detector of accounts, after how many queries an account is flagged: the 5th percentile
            over accounts of exploring seeds (`experiments.accounts.flag_time`); missing if fewer than half are flagged.
        accused: Tasks on which copies are distinguished from independent models.
        accused_images: Number of images of each side that dataset inference uses.
        shipped: Whether the pre-trained backbones ship with the package. Otherwise they are trained and cached.
        imagenet: Whether the backbones are ImageNet's, and none is trained (see `networks.imagenet_backbone`).
        image_size: Height and width that photographs are resized to, in pixels.
        task_sizes: Number of images of each part of each drawn task.
        pool_sizes: Number of images of each part of each drawn pool.
        task_shares, pool_shares: Share of each part of a set in files; the usual shares if empty. Without a part for
            the detector, it is trained on all images that the victim's owner has.
        shifts: By task in files, how strongly its shifted source is shifted, as a multiple of the usual strength.
        weighted: Tasks whose classes count equally in training.
        matched: By task, the size in pixels to which the detector resizes every image and back, saved as JPEG while it
            is small, so that both sides were processed alike; images of other tasks are left as they are.
        judged_on, tuned_on, fitted_on: At most how many images of each source detectors are evaluated on, of each side
            ODIN and Mahalanobis are tuned on, and of the victim's Mahalanobis is fitted to.
        asked, trained_on: At most how many images of each side the shortcut's detectors are evaluated and trained on.
        played: Whether the shortcut's attacks are run to the end, and ODIN and Mahalanobis evaluated; no claim rests on
            these.
        accounts_apart: Whether honest accounts share no image, which limits their number if the task's part is small.
        account_size: Height and width at which PRADA compares images; 0 for their original size.
        resamples: Number of resamples of the test images for which a row has its numbers; 0 if each seed has other
            test images.
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
    augmentation: Mapping[str, Augmentation] = field(default_factory=dict)
    balanced: tuple[str, ...] = ()
    control_images: Mapping[str, int] = field(default_factory=dict)
    bandit: BanditSettings = BanditSettings()
    flag_times: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    accused: tuple[str, ...] = ()
    accused_images: int = 100
    other_weights: str = ""
    task_shares: Mapping[str, float] = field(default_factory=dict)
    pool_shares: Mapping[str, float] = field(default_factory=dict)
    shifts: Mapping[str, float] = field(default_factory=dict)
    weighted: tuple[str, ...] = ()
    matched: Mapping[str, int] = field(default_factory=dict)
    judged_on: int = 2_000
    tuned_on: int = 500
    fitted_on: int = 0
    asked: int = 1_000
    trained_on: int = 2_000
    played: bool = True
    accounts_apart: bool = False
    account_size: int = 0
    resamples: int = 0

    @property
    def own_number(self) -> int:
        """The number of its own images that the realistic adversary is judged with: at most a quarter of the budget."""
        return max((number for number in self.realistic_budgets if 4 * number <= self.budget), default=0)

    def recipe(self, name: str, *, task: str, steps: int = 0) -> Recipe:
        """Return a recipe with the augmentation that a task allows.

        Args:
            name: Name of the recipe, such as ``"victim"`` or ``"surrogate"``.
            task: The task.
            steps: Steps of the optimizer instead of the recipe's own length; 0 to keep that.
        """
        recipe: Recipe = getattr(self, name)
        if task in self.augmentation and (recipe.shift or recipe.flip):
            recipe = recipe.on(self.augmentation[task])
        if task in self.weighted:
            recipe = replace(recipe, class_weights=True)
        return replace(recipe, epochs=0, steps=steps) if steps else recipe


def scale(name: str) -> Scale:
    """Return the scale of that name.

    Raises:
        InputError: There is no scale of that name.
    """
    return SCALES[check_choice("scale", name, SCALES)]


def read_scale(path: Path, grid: Path) -> Scale:
    """Return the scale defined by two files together; its name is that of the first.

    Raises:
        InputError: A file is missing or not TOML; or a key is unknown, missing, in both files, or of another type than
            `Scale` says. The message names file, key, value and remedy.
    """
    own, axes = read_toml(path), read_toml(grid)
    for key in own.keys() & axes.keys():
        raise InputError(f"{path}: {key} = {own[key]!r} is in {grid} too: keep it in one of them")
    in_grid = {*axes, *(field.name for field in fields(Axes))}
    return checked(Scale, {"name": path.stem} | own | axes, lambda key: grid if key in in_grid else path)


_parsed = lru_cache(maxsize=64)(tomllib.loads)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of a TOML file, which must not be changed: the same dictionary until the file changes.

    Raises:
        InputError: There is no such file, or it is not TOML.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): write it or {RESTORE}") from None
    except ValueError as error:
        raise InputError(f"{path} is not TOML ({error}): fix that line or {RESTORE}") from None


Kind = TypeVar("Kind")


def checked(kind: type[Kind], content: Mapping[str, Any], where: Callable[[str], object]) -> Kind:
    """Return a TOML table as an object of a dataclass, whose annotations are checked strictly.

    Args:
        kind: The dataclass.
        content: The table.
        where: Returns the file that a key is in.

    Raises:
        InputError: A key is unknown, missing or of another type.
    """
    # Within a tuple, so that the outermost class is checked as strictly as those within it; as JSON, since otherwise
    # strict validation does not accept a list as a tuple.
    adapter = TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid", strict=True))  # type: ignore[valid-type]
    try:
        return adapter.validate_json(json.dumps([content]))[0]
    except ValidationError as error:
        unknown = "unexpected_keyword_argument"  # a misspelled key also shows up as missing, which says less
        fault = min(error.errors(), key=lambda fault: fault["type"] != unknown)
        key, *below = map(str, fault["loc"][1:])
        words = {unknown: "unknown key", "missing": "this key is missing"}
        value = "" if fault["type"] == "missing" else f" = {fault['input']!r}"
        message = words.get(fault["type"], fault["msg"])
        raise InputError(f"{where(key)}: {'.'.join([key, *below])}{value}: {message}: fix it or {RESTORE}") from None


SCALES: dict[str, Scale] = {
    found.name: found
    for found in sorted(
        (read_scale(path, GRIDS / path.name) for path in FOLDER.glob("*.toml")),
        key=lambda scale: (scale.budget, scale.name),
    )
}
"""The scales by name, from the smallest to the largest."""
