"""Where images come from: drawn on the spot, a published data set, any folder of image files, or noise.

A `Source` names images; a `Loader` holds what all sources of a run share, and returns their images in disjoint parts.
`load` does both for a set at the sizes of the book.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from extractlib.data import drawn, layouts
from extractlib.data.decoding import ImageFiles, decode
from extractlib.data.drawn.canvas import SIZE
from extractlib.data.images import ImageSet
from extractlib.data.pixels import USUAL, Reading
from extractlib.data.sets import SETS, Listing, Parts, data_folders, names_of
from extractlib.data.splits import Cut, Overlap, cut, groups_of, overlap, split
from extractlib.data.transforms import shift_domain
from extractlib.errors import DataWarning, InputError, check_choice, check_positive, check_seed, keep, shown
from extractlib.store import Store, default_store, digest, own_path

FOLDER = "folder:"
NOISE = "noise"
SHIFTED = "shifted"
SHIFTED_FOLDER = f"{SHIFTED}:"  # before the name, since a path may end in any word

LARGEST = 4_096
"""The largest height and width of images, in pixels."""

LEAK = 0.01
"""Share of test images that resemble the victim's above which there is a warning."""


@dataclass(frozen=True)
class Source:
    """Images by name, optionally from another distribution or cut to fewer classes.

    Attributes:
        name: A registered set (`SETS`), ``"folder:NAME"``, or ``"noise"``.
        is_shifted: Whether the images come from another source of the same classes: an adversary's own (the paper,
            section 6).
        class_count: Number of classes that a pool is cut to; None for all.

    Raises:
        InputError: There is no such set, or it cannot be shifted or cut.
    """

    name: str
    is_shifted: bool = False
    class_count: int | None = None

    def __post_init__(self) -> None:
        if self.folder is None and self.name != NOISE:
            check_choice("task or pool", self.name, (*SETS, f"{FOLDER}PATH"))
        if self.is_shifted and not self.is_task and self.folder is None:
            raise InputError(f"{self.name} is not a task: only a task has a shifted source")
        if self.class_count is not None:
            if self.role != "pool":
                raise InputError(f"{self.name} is not a registered pool: only such a pool can be cut to fewer classes")
            keep(self, class_count=check_positive("number of classes", self.class_count))

    def __str__(self) -> str:
        if self.is_shifted and self.folder is not None:
            return f"{SHIFTED_FOLDER}{self.name}"
        variant = SHIFTED if self.is_shifted else "" if self.class_count is None else str(self.class_count)
        return f"{self.name}/{variant}" if variant else self.name

    @classmethod
    def parse(cls, text: "str | Source") -> "Source":
        """Return the source written as ``"signs"``, ``"signs/shifted"``, ``"atlas/27"``: the inverse of `str`.

        A folder's shifted source is written as ``"shifted:folder:PATH"``.

        Raises:
            InputError: The text does not name a source.
        """
        if isinstance(text, Source):
            return text
        if not isinstance(text, str):
            raise InputError(f"the source of images is {shown(text)}: expected a name or a Source")
        if text.removeprefix(SHIFTED_FOLDER).startswith(FOLDER):
            return cls(text.removeprefix(SHIFTED_FOLDER), is_shifted=text.startswith(SHIFTED_FOLDER))
        name, slash, variant = text.partition("/")
        if not slash or variant == SHIFTED:
            return cls(name, is_shifted=variant == SHIFTED)
        if not re.fullmatch("0|[1-9][0-9]{0,8}", variant):
            if name not in SETS:
                raise InputError(f"unknown source of images {shown(text)}: for a folder write {FOLDER}{text}")
            raise InputError(f"unknown variant {variant!r} of {name}: use {SHIFTED!r}, or a number of classes")
        return cls(name, class_count=int(variant))

    @property
    def folder(self) -> Path | None:
        """The path in ``"folder:PATH"``, with the home directory in place of ``~``; None for other sources."""
        return own_path("the folder", self.name.removeprefix(FOLDER)) if self.name.startswith(FOLDER) else None

    @property
    def role(self) -> str | None:
        """``"task"`` or ``"pool"``; None for noise and for a folder, which can be either."""
        return SETS[self.name].role if self.name in SETS else None

    @property
    def is_task(self) -> bool:
        """Whether it is one of the registered tasks."""
        return self.role == "task"

    @property
    def in_files(self) -> bool:
        """Whether it is stored in files: a published data set or a folder."""
        return self.folder is not None or (self.role is not None and SETS[self.name].layout is not None)

    def shifted(self) -> "Source":
        """Return the same classes from another source."""
        return replace(self, is_shifted=True)

    def cut(self, class_count: int) -> "Source":
        """Return the pool cut to this number of its classes."""
        return replace(self, class_count=class_count)


def Folder(path: Path | str) -> Source:
    """Return the source of a folder of images: one folder for each class, directly or under ``train`` and ``test``.

    A pool's images may also be directly in the folder, without labels.

    Examples:
        >>> import extractlib as xl
        >>> str(xl.Folder("photos/pets"))
        'folder:photos/pets'
    """
    return Source(f"{FOLDER}{path}")


@dataclass(frozen=True, kw_only=True)
class Loader:
    """What all sources of a run share.

    Attributes:
        sizes: Number of images of each part of each drawn set.
        image_size: Height and width to which files are resized, in pixels.
        noise_size: Number of noise images.
        store: Keeps drawn and decoded images; None draws without keeping anything, and reads no files.
        folders: Where each published data set and each ``"folder:NAME"`` is stored.
        shares: By role, ``"task"`` or ``"pool"``, the share of each part of a set in files that names no parts; the
            usual shares where a role is missing. If a task has no share for the detector, that part has the same images
            as the victim, which are all that its owner has.
        shifts: By task in files, how strongly its shifted source is shifted (see `transforms.shift_domain`); 1 if the
            task is missing.
        reading: How files are read, and how a task in files is cut.

    Raises:
        InputError: A size is not a positive whole number, or the image size is above `LARGEST`.
    """

    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: drawn.SIZES)
    image_size: int = 32
    noise_size: int = 10_000
    store: Store | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shifts: Mapping[str, float] = field(default_factory=dict)
    reading: Reading = USUAL

    def __post_init__(self) -> None:
        keep(self, image_size=check_positive("image size", self.image_size, at_most=LARGEST))
        keep(self, noise_size=check_positive("number of noise images", self.noise_size))

    def task(self, source: Source | str, *, seed: int) -> Parts:
        """Return a task as its disjoint parts: victim, detector, adversary, validation, test.

        Args:
            source: A task or a folder.
            seed: Seed of the drawing, or of the cut of the training images; published test images stay as they are.

        Raises:
            InputError: The task is unknown, has no sizes, or its folder cannot be used or has fewer than two classes.
        """
        return self._parts(source, "task", seed)

    def pool(self, source: Source | str, *, seed: int, labeled: bool = False) -> Parts:
        """Return a pool as its disjoint parts: pretraining, queries, detector, validation, test.

        Only the part for pre-training, which is public, keeps its labels, unless the pool should be `labeled`, as the
        adaptive strategy requires. The images of a folder need no classes. Otherwise the errors are those of `task`.
        """
        parts, shown = self._parts(source, "pool", seed), ("pretraining",)
        return parts if labeled else Parts(parts, lambda one: parts[one] if one in shown else parts[one].unlabeled())

    def queries(self, source: Source | str, *, seed: int, labeled: bool = False) -> ImageSet:
        """Return the images that an attacker sends: a pool's part for queries, or a task's adversary's part.

        Args:
            source: Where they come from, shifted or cut as specified.
            seed: Seed of the drawing, of the cut and of the noise.
            labeled: Whether labels are kept where the images have any.

        Raises:
            InputError: There are no such images.
        """
        source = Source.parse(source)
        seed = check_seed(seed)
        if source.name == NOISE:
            return noise(self.noise_size, seed=seed, image_size=self.image_size)
        if source.is_task or source.is_shifted:
            found = self._own(source, seed)
        else:
            found = self.pool(source, seed=seed, labeled=True)["queries"]
        if source.class_count is not None:
            found = fewer_classes(found, source.class_count, seed=seed)
        return found if labeled else found.unlabeled()

    def listing(self, name: str) -> Listing:
        """Return which images a set in files has.

        Raises:
            InputError: It is not available, or cannot be used.
        """
        if name not in self.folders:
            option = "--task folder:PATH" if name.startswith(FOLDER) else "--data DIR"
            raise InputError(f"{name} is not available: name its folder, as in {option}")
        place = self.folders[name]
        return layouts.folder(place) if name.startswith(FOLDER) else layouts.listing(name, place)

    def files(self, name: str, role: str) -> ImageFiles:
        """Return the decoded images of a set in files, which is used as a task or as a pool.

        Raises:
            InputError: It is not available, is a task without two classes, or cannot be used.
        """
        listing = self.listing(name)
        if role == "task" and len(listing.classes) < 2:
            only = f"images of one class only ({listing.classes[0]})" if listing.classes else "no class folders"
            remedy = 'a task needs at least two class folders, a pool (role="pool") none'
            raise InputError(f"{listing.root} has {only}: {remedy}")
        if self.store is None:
            raise InputError(f"{name} is stored in files, which are decoded into a store: give one")
        return decode(listing, name=name, store=self.store, size=self.image_size, reading=self.reading)

    def cut(self, name: str, files: ImageFiles, role: str, *, seed: int) -> Cut:
        """Return how a set in files is cut (see `splits.cut`), and warn of anything that a reader may not expect.

        Raises:
            InputError: The group pattern matches no image.
        """
        how = self.reading
        parts = cut(files, role, seed=seed, shares=self.shares.get(role), group=how.group, drop=how.drop_copies)
        notes = _of_a_task(files, parts, self.reading.group) if role == "task" else _of_a_pool(files, parts)
        for note in notes if role == "task" or name.startswith(FOLDER) else ():
            warnings.warn(f"{name}: {note}", DataWarning, stacklevel=2)
        return parts

    def size(self, name: str, part: str) -> int:
        """Return the number of images of a part of a drawn set.

        Raises:
            InputError: There is no such size.
        """
        if name not in self.sizes or part not in self.sizes[name]:
            raise InputError(f"there is no size for {name}/{part}: use one of {', '.join(self.sizes) or 'folder:PATH'}")
        return self.sizes[name][part]

    def _parts(self, source: Source | str, role: str, seed: int) -> Parts:
        source = Source.parse(source)
        seed = check_seed(seed)
        if source.role != role and source.folder is None:
            raise InputError(f"{source.name} is not a {role}: use one of {', '.join(names_of(role))}")
        make = SETS[source.name].parts if source.role else None
        if make is None:  # it is stored in files
            files = self.files(source.name, role)
            made: Mapping[str, ImageSet] = split(files, self.cut(source.name, files, role, seed=seed))
        else:
            made = make(self, source.name, seed)

        def part(name: str) -> ImageSet:
            if not len(made[name]):
                raise InputError(
                    f"{source}: no image is left for part {name!r}, since images that look alike or belong together"
                    " stay together: add images, or say what belongs together with group=… (--group)"
                )
            return made[name]

        return Parts(made, part)

    def _own(self, task: Source, seed: int) -> ImageSet:
        """Return the adversary's own images of a task, from another source if it is shifted."""
        draw_shifted = SETS[task.name].shifted if task.name in SETS else None
        if task.is_shifted and draw_shifted is not None:
            return draw_shifted(self, task.name, seed)
        own = self.task(task, seed=seed)["adversary"]
        if not task.is_shifted:
            return own
        strength = self.shifts.get(task.name, 1.0)
        return shift_domain(own, seed=seed, strength=strength, store=self.store)


def load(
    source: Source | str | Path,
    *,
    role: str | None = None,
    seed: int = 0,
    labeled: bool = False,
    store: Store | None = None,
    folder: Path | str | None = None,
    image_size: int = 32,
    reading: Reading = USUAL,
) -> Parts:
    """Return a task or a pool as its disjoint parts, at the sizes of the book.

    Of a folder, the parts are `splits.TASK_SHARES` or `splits.POOL_SHARES` of the images: of a pool, 41% are queries,
    and 49% are for pre-training.

    Args:
        source: A drawn set (``"signs"``), a published one (``"cifar10"``), or a folder of images.
        role: ``"task"`` or ``"pool"``, whose parts it is cut into; if None, its own role, or ``"task"`` for a folder.
        seed: Seed of the drawing, or of the cut of a task in files; a pool in files is cut the same way for all seeds.
        labeled: Whether all parts of a pool keep their labels, as the adaptive strategy needs them.
        store: Keeps drawn and decoded images; None keeps no drawn images, and decoded files in the user's cache.
        folder: Where a published set is stored, a path.
        image_size: Height and width to which files are resized, in pixels; drawn images have 32.
        reading: How files are read, and how a task in files is cut.

    Raises:
        InputError: There is no such set, it is shifted or cut, its folder cannot be used, or an image size or a reading
            is given for a drawn set.

    Examples:
        >>> import extractlib as xl
        >>> signs = xl.load("signs")
        >>> signs.test
        ImageSet('signs/test', 8600 images, 43 classes, 7d5eb7a61fa1)
    """
    if isinstance(source, str) and source not in SETS:
        path = own_path("the folder", source)
        if path.is_dir():
            source = path
        elif source.startswith((".", "~", "/")):
            raise InputError(f"{source} is not a folder: name one with images, or one of the book's sets")
    found = Folder(source) if isinstance(source, Path) else Source.parse(str(source))
    if str(found) != found.name:
        raise InputError(f"{found} has no parts: load {found.name!r}, or get its images from Loader().queries")
    for option, given in {"image_size (--size)": image_size != SIZE, "reading": reading != USUAL}.items():
        if given and not found.in_files:
            raise InputError(f"{found} is drawn, with {SIZE} pixels, and {option} is for files: leave it out")
    kept = default_store() if store is None and found.in_files else store
    own = found.folder if folder is None else Path(folder)
    places = data_folders() if own is None else {found.name: own}
    loader = Loader(store=kept, folders=places, image_size=image_size, reading=reading)
    if check_choice("role", role or found.role or "task", ("task", "pool")) == "task":
        return loader.task(found, seed=seed)
    return loader.pool(found, seed=seed, labeled=labeled)


def noise(size: int, *, seed: int, image_size: int = 32) -> ImageSet:
    """Return unlabeled images of uniform random pixels, `image_size` pixels high and wide."""
    generator = np.random.default_rng([seed, *b"noise"])
    images = torch.from_numpy(generator.integers(0, 256, (size, 3, image_size, image_size), dtype=np.uint8))
    larger = () if image_size == 32 else (str(image_size),)
    return ImageSet(NOISE, images, None, (), digest(NOISE, str(size), str(seed), *larger))


def fewer_classes(images: ImageSet, count: int, *, seed: int) -> ImageSet:
    """Return the images of `count` classes chosen at random.

    Raises:
        InputError: The count is not from 1 to the number of classes.
    """
    if not 1 <= count <= len(images.classes) or images.labels is None:
        raise InputError(
            f"{images.name} cannot be cut to {count} classes: name a number from 1 to {len(images.classes)}"
        )
    # One order for all counts, so fewer classes are a subset of more.
    order = np.random.default_rng([seed, *b"classes"]).permutation(len(images.classes))
    chosen = torch.isin(images.labels, torch.from_numpy(order[:count]))
    return images.subset(chosen, name=f"{images.name}/{count}")


def _of_a_pool(files: ImageFiles, parts: Cut) -> list[str]:
    """Return notes on what a reader may not expect of a pool's cut."""
    unused = [split for split in files.splits if split not in {name for name, _ in parts.values()}]
    return [f"a pool is cut from train, leaving out {' and '.join(unused)}"] if unused else []


def _of_a_task(files: ImageFiles, parts: Cut, group: str | None) -> list[str]:
    """Return notes on what a reader may not expect of a task's cut."""
    notes = []
    found = overlap(files, parts, group=group)
    if max(found.alike, found.grouped) > LEAK * found.images:
        notes.append(
            f"{found}: say what belongs together with group=… (--group), or leave"
            " out named copies with drop_copies=True (--drop-copies)"
        )
    if group is not None:
        alone = int((groups_of(files, "train", group) == files.tables["train"]["path"].to_numpy()).sum())
        notes += [f"{alone:,} images match no group of {shown(group)}, and each is its own group"] if alone else []
    name, chosen = parts["victim"]
    known = set(files.tables[name]["class"].to_numpy()[slice(None) if chosen is None else chosen.numpy()])
    if lacking := [one for one in files.splits[name].classes if one not in known]:
        notes.append(f"{len(lacking):,} classes have no image among the victim's, starting with {shown(lacking[0])}")
    return notes


def parts_table(loader: Loader, name: str, *, seed: int) -> tuple[pd.DataFrame, Overlap | None]:
    """Return the part, path, class and group of each image of a set in files, and for a task how its parts overlap.

    Training images that share a group (a number, or a name with ``--group``) show one track or one patient or look
    alike, and are never separated. Images that are in no part, such as the published test images of a pool, are left
    out.

    Args:
        loader: Says where the set is stored, and at which size images look alike.
        name: A published data set, or ``"folder:NAME"``, which is cut as a task.
        seed: Seed of the cut of a task; a pool is cut the same way for all seeds.

    Raises:
        InputError: It is not a data set in files, or its folder cannot be used.
    """
    source = Source.parse(name)
    if not source.in_files or str(source) != source.name:
        raise InputError(f"{name} is not stored in files: name a published data set or folder:PATH")
    role = source.role or "task"
    files = loader.files(name, role)
    group = loader.reading.group if role == "task" else None
    tables = {half: table.assign(group="") for half, table in files.tables.items()}
    if files.groups is not None:
        tables["train"]["group"] = files.groups.numpy() if group is None else groups_of(files, "train", group)
    parts = loader.cut(name, files, role, seed=seed)
    rows = [
        tables[half].iloc[slice(None) if chosen is None else chosen.numpy()].assign(part=part)
        for part, (half, chosen) in parts.items()
    ]
    table = pd.concat(rows).reindex(columns=["part", "path", "class", "group"])
    return table, overlap(files, parts, group=group) if role == "task" else None
