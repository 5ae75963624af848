"""Where images come from: drawn on the spot, a published data set, any folder of image files, or noise.

A `Source` names images; a `Loader` has what all sources of a run share, and hands them out in disjoint parts. `load`
does both for a set at the sizes of the book.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from extractlib.data import drawn, layouts
from extractlib.data.decoding import ImageFiles, decode
from extractlib.data.images import ImageSet, split_indices
from extractlib.data.transforms import shift_domain
from extractlib.errors import InputError, check_choice, check_positive
from extractlib.registry import Registry
from extractlib.store import Store, default_store, digest

FOLDER = "folder:"
NOISE = "noise"
SHIFTED = "shifted"

TASK_SHARES = {"victim": 0.7, "detector": 0.1, "adversary": 0.1, "validation": 0.1}
TEST_SHARE = 0.15
"""Share of the images kept for testing where a folder has no ``test`` folder of its own."""
POOL_SHARES = {"pretraining": 0.49, "queries": 0.41, "detector": 0.05, "validation": 0.025, "test": 0.025}
SHUFFLED = ("detector", "adversary", "validation", "test")
"""Parts whose images come in random order: an experiment may need only the first, and files lie class by class."""


@dataclass(frozen=True)
class Source:
    """Images by name, perhaps from another distribution or cut to fewer classes.

    Attributes:
        name: A registered set (`SETS`), ``"folder:NAME"``, or ``"noise"``.
        is_shifted: Whether the images come from another source of the same classes: an adversary's own (the paper,
            section 6).
        class_count: To how many of its classes a pool is cut; None for all.

    Raises:
        InputError: There is no such set, or it cannot be shifted or cut.
    """

    name: str
    is_shifted: bool = False
    class_count: int | None = None

    def __post_init__(self):
        if not (self.name.startswith(FOLDER) or self.name == NOISE):
            check_choice("task or pool", self.name, SETS)
        if self.is_shifted and (self.name not in SETS or SETS[self.name].role == "pool"):
            raise InputError(f"{self.name} is no task: only a task has a shifted source")
        if self.class_count is not None:
            if self.name not in SETS or SETS[self.name].role != "pool":
                raise InputError(f"{self.name} is no registered pool: only such a pool is cut to fewer classes")
            check_positive("number of classes", self.class_count)

    def __str__(self) -> str:
        variant = SHIFTED if self.is_shifted else "" if self.class_count is None else str(self.class_count)
        return f"{self.name}/{variant}" if variant else self.name

    @classmethod
    def parse(cls, text: "str | Source") -> "Source":
        """Return the source that is written as ``"signs"``, ``"signs/shifted"``, ``"atlas/27"``: the inverse of `str`.

        Raises:
            InputError: The text names none.
        """
        if isinstance(text, Source):
            return text
        if text.startswith(FOLDER):
            return cls(text)
        name, slash, variant = text.partition("/")
        if not slash:
            return cls(name)
        if variant == SHIFTED:
            return cls(name, is_shifted=True)
        if not re.fullmatch("[0-9]{1,9}", variant):
            raise InputError(f"unknown variant {variant!r} of {name}: use {SHIFTED!r}, or a number of classes")
        return cls(name, class_count=int(variant))

    @property
    def in_files(self) -> bool:
        """Whether it lies in files: a published data set or a folder."""
        return self.name.startswith(FOLDER) or (self.name in SETS and SETS[self.name].in_files)

    @property
    def is_task(self) -> bool:
        """Whether it is one of the registered tasks."""
        return self.name in SETS and SETS[self.name].role == "task"

    def shifted(self) -> "Source":
        """Return the same classes from another source."""
        return replace(self, is_shifted=True)

    def cut(self, class_count: int) -> "Source":
        """Return the pool cut to so many of its classes."""
        return replace(self, class_count=class_count)


def Folder(path: Path | str) -> Source:
    """Return the source of a folder of images: one folder for each class, directly or under ``train`` and ``test``."""
    return Source(f"{FOLDER}{path}")


Maker = Callable[[], ImageSet]


class Parts(Mapping[str, ImageSet]):
    """The disjoint parts of a set by name, each made when first asked for; each also an attribute: ``signs.test``.

    Args:
        makers: Makes each part.
    """

    def __init__(self, makers: Mapping[str, Maker]):
        self._makers, self._made = dict(makers), {}

    @classmethod
    def ready(cls, parts: Mapping[str, ImageSet]) -> "Parts":
        """Return parts that are at hand."""
        return cls({name: lambda one=one: one for name, one in parts.items()})

    def __getitem__(self, part: str) -> ImageSet:
        if part not in self._made:
            self._made[part] = self._makers[part]()
        return self._made[part]

    def __getattr__(self, part: str) -> ImageSet:
        if part.startswith("_") or part not in self._makers:
            raise AttributeError(f"no part {part!r}: use one of {', '.join(self._makers)}")
        return self[part]

    def __contains__(self, part: object) -> bool:
        return part in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return f"Parts({', '.join(self)})"


@dataclass(frozen=True)
class Provider:
    """How the parts of a set are made.

    Attributes:
        role: ``"task"`` (parts victim, detector, adversary, validation, test) or ``"pool"`` (parts pretraining,
            queries, detector, validation, test; the first is missing where it is not needed).
        parts: Given a loader, the set's name and a seed, returns what makes each part.
        shifted: The same for the adversary's images from another source; None where the adversary's part is shifted.
        in_files: Whether it lies in files.
    """

    role: str
    parts: Callable[["Loader", str, int], Mapping[str, Maker]]
    shifted: Callable[["Loader", str, int], ImageSet] | None = None
    in_files: bool = False


class Sets(Registry[Provider]):
    """Sets that are made by a provider, and those in files whose layout is registered."""

    def __getitem__(self, name: str) -> Provider:
        files = {**dict.fromkeys(layouts.TASKS, FILED_TASK), **dict.fromkeys(layouts.POOLS, FILED_POOL)}
        return files[name] if name in files else super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in layouts.TASKS or name in layouts.POOLS or super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return chain(super().__iter__(), layouts.TASKS, layouts.POOLS)

    def __len__(self) -> int:
        return super().__len__() + len(layouts.TASKS) + len(layouts.POOLS)


SETS = Sets("task or pool")
"""The sets by name; a set of one's own is added with `SETS.add`, or its layout with `layouts.register`."""


@dataclass(frozen=True, kw_only=True)
class Loader:
    """What all sources of a run share.

    Attributes:
        sizes: Number of images of each part of each drawn set.
        image_size: Height and width that files are brought to, in pixels.
        noise_size: How many images of noise there are.
        store: Keeps drawn and decoded images; None draws without keeping, and reads no files.
        folders: Where each published data set and each ``"folder:NAME"`` lies.
    """

    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: drawn.SIZES)
    image_size: int = 32
    noise_size: int = 10_000
    store: Store | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)

    def task(self, source: Source | str, *, seed: int) -> Parts:
        """Return a task in its disjoint parts: victim, detector, adversary, validation, test.

        Args:
            source: A task or a folder.
            seed: Seed of the drawing, or of the cut of the training images; published test images stay what they are.

        Raises:
            InputError: The task is unknown, the sizes lack it, or its folder cannot be used.
        """
        source = Source.parse(source)
        if source.name.startswith(FOLDER):
            return Parts.ready(split_task(self.files(source.name), seed=seed))
        self._check_role(source, "task")
        return Parts(SETS[source.name].parts(self, source.name, seed))

    def pool(self, source: Source | str, *, seed: int, labeled: bool = False) -> Parts:
        """Return a pool in its disjoint parts: pretraining, queries, detector, validation, test.

        Only the part for pre-training, which is public, keeps its labels, unless the pool is wanted `labeled`, as the
        adaptive strategy needs it. Errors are those of `task`.
        """
        source = Source.parse(source)
        if source.name.startswith(FOLDER):
            parts = Parts.ready(split_pool(self.files(source.name)))
        else:
            self._check_role(source, "pool")
            parts = Parts(SETS[source.name].parts(self, source.name, seed))
        if labeled:
            return parts
        public = ("pretraining",)
        return Parts(
            {name: lambda name=name: parts[name] if name in public else parts[name].unlabeled() for name in parts}
        )

    def queries(self, source: Source | str, *, seed: int, labeled: bool = False) -> ImageSet:
        """Return the images that an attacker sends: a pool's part for queries, or a task's adversary's part.

        Args:
            source: Where they come from, shifted or cut as it says.
            seed: Seed of the drawing, of the cut and of the noise.
            labeled: Whether labels are kept where the images have any.

        Raises:
            InputError: There are no such images.
        """
        source = Source.parse(source)
        if source.name == NOISE:
            return noise(self.noise_size, seed=seed, image_size=self.image_size)
        if source.is_task:
            found = self._own(source, seed)
        else:
            found = self.pool(source, seed=seed, labeled=labeled or source.class_count is not None)["queries"]
            if source.class_count is None:
                return found
            found = fewer_classes(found, source.class_count, seed=seed)
        return found if labeled else found.unlabeled()

    def listing(self, name: str) -> layouts.Listing:
        """Return what images a set in files has.

        Raises:
            InputError: It is not at hand, or cannot be used.
        """
        if name not in self.folders:
            option = "--task folder:PATH" if name.startswith(FOLDER) else "--data DIR"
            raise InputError(f"{name} is not at hand: name its folder, as in {option}")
        place = self.folders[name]
        return layouts.folder(place) if name.startswith(FOLDER) else layouts.listing(name, place)

    def files(self, name: str) -> ImageFiles:
        """Return a set that lies in files, decoded.

        Raises:
            InputError: It is not at hand, or cannot be used.
        """
        listing = self.listing(name)
        if self.store is None:
            raise InputError(f"{name} lies in files, which are decoded into a store: give one")
        return decode(listing, name=name, store=self.store, size=self.image_size)

    def _own(self, source: Source, seed: int) -> ImageSet:
        provider = SETS[source.name]
        if source.is_shifted and provider.shifted is not None:
            return provider.shifted(self, source.name, seed)
        own = self.task(replace(source, is_shifted=False), seed=seed)["adversary"]
        return shift_domain(own, seed=seed) if source.is_shifted else own

    def size(self, name: str, part: str) -> int:
        """Return the number of images of a part of a drawn set.

        Raises:
            InputError: The sizes lack it.
        """
        if name not in self.sizes or part not in self.sizes[name]:
            raise InputError(f"there is no size for {name}/{part}: use one of {', '.join(self.sizes) or 'folder:PATH'}")
        return self.sizes[name][part]

    @staticmethod
    def _check_role(source: Source, role: str) -> None:
        if SETS[source.name].role != role:
            raise InputError(f"{source.name} is no {role}: use one of {', '.join(names_of(role))}")


def load(
    source: Source | str | Path,
    *,
    role: str | None = None,
    seed: int = 0,
    labeled: bool = False,
    store: Store | None = None,
    folder: Path | None = None,
    image_size: int = 32,
) -> Parts:
    """Return a task or a pool in its disjoint parts, at the sizes of the book.

    Args:
        source: A drawn set (``"signs"``), a published one (``"cifar10"``), or a folder of images.
        role: ``"task"`` or ``"pool"``, into whose parts it is cut; its own if None, a folder being a task.
        seed: Seed of the drawing or of the cut.
        labeled: Whether all parts of a pool keep their labels, as the adaptive strategy needs them.
        store: Keeps drawn and decoded images; None draws without keeping, and keeps decoded files in the user's cache.
        folder: Where a published set lies.
        image_size: Height and width that files are brought to, in pixels.

    Raises:
        InputError: There is no such set, it is shifted or cut, or its folder cannot be used.

    Examples:
        >>> import extractlib as xl
        >>> signs = xl.load("signs")
        >>> signs.test
        ImageSet('signs/test', 8600 images, 43 classes, 7d5eb7a61fa1)
    """
    path = Path(source) if isinstance(source, str | Path) else None
    is_path = isinstance(source, Path) or (path is not None and str(source) not in SETS and path.is_dir())
    found = Folder(path) if is_path and path is not None else Source.parse(str(source))
    if found.is_shifted or found.class_count is not None:
        raise InputError(f"{found} has no parts: load {found.name!r}, or ask Loader().queries for its images")
    folders = {found.name: Path(found.name.removeprefix(FOLDER)) if folder is None else folder}
    kept = default_store() if store is None and found.in_files else store
    loader = Loader(store=kept, folders=folders, image_size=image_size)
    own = "task" if found.is_task or found.name.startswith(FOLDER) else "pool"
    if check_choice("role", role or own, ("task", "pool")) == "task":
        return loader.task(found, seed=seed)
    return loader.pool(found, seed=seed, labeled=labeled)


def names_of(role: str) -> list[str]:
    """Return the names of the registered sets of a role, ``"task"`` or ``"pool"``."""
    return [name for name, provider in SETS.items() if provider.role == role]


def in_files(name: str) -> bool:
    """Say whether a task or a pool, by name, lies in files."""
    return Source.parse(name).in_files


def noise(size: int, *, seed: int, image_size: int = 32) -> ImageSet:
    """Return unlabeled images of uniform random pixels, `image_size` pixels high and wide."""
    generator = np.random.default_rng([seed, *b"noise"])
    images = torch.from_numpy(generator.integers(0, 256, (size, 3, image_size, image_size), dtype=np.uint8))
    larger = () if image_size == 32 else (str(image_size),)
    return ImageSet(NOISE, images, None, (), digest(NOISE, str(size), str(seed), *larger))


def fewer_classes(images: ImageSet, count: int, *, seed: int) -> ImageSet:
    """Return the images of `count` classes chosen at random.

    Raises:
        InputError: It is no number from 1 to the number of classes.
    """
    if not 1 <= count <= len(images.classes) or images.labels is None:
        raise InputError(
            f"{images.name} cannot be cut to {count} classes: name a number from 1 to {len(images.classes)}"
        )
    # One order for all counts: fewer classes are a part of more.
    order = np.random.default_rng([seed, *b"classes"]).permutation(len(images.classes))
    chosen = torch.isin(images.labels, torch.from_numpy(order[:count]))
    return images.subset(chosen.nonzero()[:, 0], name=f"{images.name}/{count}")


Cut = Mapping[str, tuple[str, torch.Tensor | None]]
"""By part: the split of a data set that it comes from, and which images of it; None stands for all, in order."""


def split_task(files: ImageFiles, *, seed: int) -> dict[str, ImageSet]:
    """Cut a decoded task in its parts.

    Test images that the data set names stay what they are; near-duplicates, the frames of one track and both eyes of
    one patient stay together.
    """
    return _take(files, task_cut(files, seed=seed))


def split_pool(files: ImageFiles) -> dict[str, ImageSet]:
    """Cut a decoded pool in its parts, those of ImageNet and Open Images as their listing says.

    The cut is one for all seeds, so that one backbone serves them all.
    """
    return _take(files, pool_cut(files))


def task_cut(files: ImageFiles, *, seed: int) -> Cut:
    """Return the cut that `split_task` makes."""
    if "test" in files.splits:
        return _cut_train(files, TASK_SHARES, seed=seed) | {"test": ("test", None)}
    shares = {part: share * (1 - TEST_SHARE) for part, share in TASK_SHARES.items()}
    return _cut_train(files, shares | {"test": TEST_SHARE}, seed=seed)


def pool_cut(files: ImageFiles) -> Cut:
    """Return the cut that `split_pool` makes."""
    if "queries" not in files.splits:
        return _cut_train(files, POOL_SHARES, seed=0)
    order = np.random.default_rng(0).permutation
    return {
        part: (part, torch.from_numpy(order(len(images))) if part in SHUFFLED else None)
        for part, images in files.splits.items()
    }


def parts_table(loader: Loader, name: str, *, seed: int) -> pd.DataFrame:
    """Return part, path, class and group of each image of a data set in files, as text and numbers.

    Training images that share a group, a number, are of one track, one patient or alike, and are never parted. Images
    that no part takes, such as the published test images of a pool, are left out.

    Args:
        loader: Says where the set lies, and at which size images look alike.
        name: A published data set, or ``"folder:NAME"``, which is cut as a task.
        seed: Seed of the cut of a task; a pool is cut alike for all seeds.

    Raises:
        InputError: It is no data set in files, or its folder cannot be used.
    """
    source = Source.parse(name)
    if not source.in_files or str(source) != source.name:
        raise InputError(f"{name} does not lie in files: name a published data set or folder:PATH")
    listing, files = loader.listing(name), loader.files(name)
    tables = {split: listing.named(split).assign(group="") for split in listing.splits}
    if files.groups is not None:
        tables["train"]["group"] = files.groups.numpy()
    is_pool = name in SETS and not source.is_task
    cut = pool_cut(files) if is_pool else task_cut(files, seed=seed)
    parts = [
        tables[split].iloc[slice(None) if chosen is None else chosen.numpy()].assign(part=part)
        for part, (split, chosen) in cut.items()
    ]
    return pd.concat(parts)[["part", "path", "class", "group"]]


def _cut_train(files: ImageFiles, shares: Mapping[str, float], *, seed: int) -> dict[str, tuple[str, torch.Tensor]]:
    count = len(files.splits["train"])
    parts = split_indices(count, shares, seed=seed, groups=files.groups, shuffled=SHUFFLED)
    return {part: ("train", chosen) for part, chosen in parts.items()}


def _take(files: ImageFiles, cut: Cut) -> dict[str, ImageSet]:
    parts = {}
    for part, (split, chosen) in cut.items():
        images = files.splits[split]
        name = images.name if part == split else f"{images.name}/{part}"
        parts[part] = images if chosen is None else images.subset(chosen, name=name)
    return parts


def _draw(loader: Loader, name: str, seed: int) -> dict[str, Maker]:
    """Return what draws each part of a set; the pool's for pre-training is drawn where it is needed."""

    def drawn_part(part: str) -> ImageSet:
        return drawn.draw(name, part=part, size=loader.size(name, part), seed=seed, store=loader.store)

    return {part: partial(drawn_part, part) for part in drawn.PARTS[name] if part != "pretraining"}


def _draw_shifted(loader: Loader, name: str, seed: int) -> ImageSet:
    size = loader.size(name, "adversary")
    return drawn.draw(name, part="adversary", size=size, seed=seed, shifted=True, store=loader.store)


def _cut_task(loader: Loader, name: str, seed: int) -> dict[str, Maker]:
    return Parts.ready(split_task(loader.files(name), seed=seed))._makers


def _cut_pool(loader: Loader, name: str, seed: int) -> dict[str, Maker]:
    return Parts.ready(split_pool(loader.files(name)))._makers


FILED_TASK, FILED_POOL = Provider("task", _cut_task, in_files=True), Provider("pool", _cut_pool, in_files=True)

for _name in drawn.TASKS:
    SETS.add(_name, Provider("task", _draw, _draw_shifted))
for _name in drawn.POOLS:
    SETS.add(_name, Provider("pool", _draw))

TASKS, POOLS = tuple(names_of("task")), tuple(names_of("pool"))
