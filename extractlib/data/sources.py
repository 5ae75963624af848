"""Where an experiment's images come from: drawn on the spot, a published data set, or any folder of image files.

A task or a pool is named by a word (``"signs"``, ``"cifar10"``) or by a folder (``"folder:photos"``), and is handed out
in its disjoint parts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from extractlib.data import drawn, layouts
from extractlib.data.decoding import ImageFiles, decode
from extractlib.data.images import ImageSet, split_indices
from extractlib.data.transforms import shift_domain
from extractlib.errors import InputError, one_of
from extractlib.store import Store, digest


class Profile(Protocol):
    """What is asked of a scale: how many images of each part there are, and how large they are."""

    name: str
    tasks: tuple[str, ...]
    budget: int
    image_size: int
    task_sizes: Mapping[str, Mapping[str, int]]
    pool_sizes: Mapping[str, Mapping[str, int]]


FOLDER = "folder:"
NOISE = "noise"
SHIFTED = "shifted"
TASKS = (*drawn.TASKS, *layouts.TASKS)
POOLS = (*drawn.POOLS, *layouts.POOLS)

TASK_SHARES = {"victim": 0.7, "detector": 0.1, "adversary": 0.1, "validation": 0.1}
TEST_SHARE = 0.15
"""Share of the images kept for testing where a folder has no ``test`` folder of its own."""
POOL_SHARES = {"pretraining": 0.49, "queries": 0.41, "detector": 0.05, "validation": 0.025, "test": 0.025}
SHUFFLED = ("detector", "adversary", "validation", "test")
"""Parts whose images come in random order: an experiment may need only the first, and files lie class by class."""


def task_parts(
    name: str, profile: Profile, *, seed: int, store: Store, folders: Mapping[str, Path] | None = None
) -> dict[str, ImageSet]:
    """Return a task in its disjoint parts: victim, detector, adversary, validation, test.

    Args:
        name: One of `TASKS`, or ``"folder:NAME"``.
        profile: Gives the sizes of a drawn task, and the size of photographs in pixels.
        seed: Seed of the drawing, or of the cut of the training images; published test images stay what they are.
        store: Keeps decoded images.
        folders: Where each published data set and each ``"folder:NAME"`` lies.

    Raises:
        InputError: The task is unknown, the profile does not hold it, or its folder cannot be used.
    """
    if in_files(name):
        return split_task(_files(name, profile, store, folders), seed=seed)
    one_of("task", name, TASKS)
    return {
        part: drawn.draw(name, part=part, size=task_size(name, profile, part), seed=seed) for part in drawn.TASK_PARTS
    }


def task_size(name: str, profile: Profile, part: str) -> int:
    """Return the number of images of a part of a drawn task.

    Raises:
        InputError: The profile does not hold the task.
    """
    if name not in profile.task_sizes:
        raise InputError(
            f"profile {profile.name!r} has no task {name!r}: use one of {', '.join(profile.tasks) or 'folder:PATH'}"
        )
    return profile.task_sizes[name][part]


def pool_parts(
    name: str,
    profile: Profile,
    *,
    seed: int,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    labelled: bool = False,
) -> dict[str, ImageSet]:
    """Return a pool in its disjoint parts: pretraining, queries, detector, validation, test.

    Only the part for pre-training, which is public, keeps its labels, unless the pool is wanted `labelled`, as the
    adaptive strategy needs it. ImageNet and Open Images have no part for pre-training. Arguments and errors are those
    of `task_parts`.
    """
    hide = dict if labelled else _hide_labels
    if in_files(name):
        return hide(split_pool(_files(name, profile, store, folders)))
    one_of("pool", name, POOLS)
    if name not in profile.pool_sizes:
        raise InputError(
            f"profile {profile.name!r} has no pool {name!r}: use one of"
            f" {', '.join(profile.pool_sizes) or 'folder:PATH'}"
        )
    sizes = {part: size for part, size in profile.pool_sizes[name].items() if part != "pretraining"}
    return hide({part: drawn.draw(name, part=part, size=size, seed=seed) for part, size in sizes.items()})


def query_images(
    name: str,
    profile: Profile,
    *,
    seed: int,
    store: Store,
    folders: Mapping[str, Path] | None = None,
    labelled: bool = False,
) -> ImageSet:
    """Return the images that an attacker sends.

    Args:
        name: A pool (its part for queries), such as ``"atlas"``; ``"atlas/27"``, that pool cut to 27 of its classes;
            a task (the adversary's own part), such as ``"retina"``; ``"retina/shifted"``, the same classes from
            another source (of photographs, in other framing and light); or ``"noise"``, uniform random pixels.
        profile: Gives the sizes.
        seed: Seed of the drawing, of the cut and of the noise.
        store: Keeps decoded images.
        folders: Where each published data set and each ``"folder:NAME"`` lies.
        labelled: Whether labels are kept where the images have any.

    Raises:
        InputError: There are no such images.
    """
    if name == NOISE:
        return noise(profile.budget, seed=seed, image_size=profile.image_size)
    source, _, variant = (name, "", "") if name.startswith(FOLDER) else name.partition("/")
    if source in (*drawn.TASKS, *layouts.TASKS):
        one_of(f"variant of {source}", variant, ("", SHIFTED))
        if variant and source in drawn.TASKS:
            size = task_size(source, profile, "adversary")
            images = drawn.draw(source, part="adversary", size=size, seed=seed, shifted=True)
        else:
            images = task_parts(source, profile, seed=seed, store=store, folders=folders)["adversary"]
            images = shift_domain(images, seed=seed) if variant else images
        return images if labelled else images.unlabelled()
    parts = pool_parts(source, profile, seed=seed, store=store, folders=folders, labelled=labelled or bool(variant))
    if not variant:
        return parts["queries"]
    cut = fewer_classes(parts["queries"], variant, seed=seed)
    return cut if labelled else cut.unlabelled()


def noise(size: int, *, seed: int, image_size: int = 32) -> ImageSet:
    """Return unlabelled images of uniform random pixels, `image_size` pixels high and wide."""
    generator = np.random.default_rng([seed, *b"noise"])
    images = torch.from_numpy(generator.integers(0, 256, (size, 3, image_size, image_size), dtype=np.uint8))
    larger = () if image_size == 32 else (str(image_size),)
    return ImageSet(NOISE, images, None, (), digest(NOISE, str(size), str(seed), *larger))


def fewer_classes(images: ImageSet, count: str, *, seed: int) -> ImageSet:
    """Return the images of `count` classes, written as a number, chosen at random.

    Raises:
        InputError: It is no number from 1 to the number of classes.
    """
    if not (count.isdecimal() and 1 <= int(count) <= len(images.classes)):
        raise InputError(
            f"{images.name} cannot be cut to {count!r} classes: name a number from 1 to {len(images.classes)}"
        )
    # One order for all counts: fewer classes are a part of more.
    order = np.random.default_rng([seed, *b"classes"]).permutation(len(images.classes))
    chosen = torch.isin(images.labels, torch.from_numpy(order[: int(count)]))
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


def parts_table(
    name: str, *, size: int, seed: int, store: Store, folders: Mapping[str, Path] | None = None
) -> pd.DataFrame:
    """Return part, path, class and group of each image of a data set in files, as text and numbers.

    Training images that share a group, a number, are of one track, one patient or alike, and are never parted. Images
    that no part takes, such as the published test images of a pool, are left out.

    Args:
        name: A published data set, or ``"folder:NAME"``, which is cut as a task.
        size: Height and width in pixels: which images look alike is seen at that size.
        seed: Seed of the cut of a task; a pool is cut alike for all seeds.
        store: Keeps decoded images.
        folders: Where each published data set and each ``"folder:NAME"`` lies.

    Raises:
        InputError: It is no data set in files, or its folder cannot be used.
    """
    if not name.startswith(FOLDER) and name not in (*layouts.TASKS, *layouts.POOLS):
        raise InputError(f"{name} does not lie in files: name a published data set or folder:PATH")
    listing = _listing(name, folders)
    files = decode(listing, name=name, store=store, size=size)
    tables = {split: listing.named(split).assign(group="") for split in listing.splits}
    if files.groups is not None:
        tables["train"]["group"] = files.groups.numpy()
    cut = pool_cut(files) if name in layouts.POOLS else task_cut(files, seed=seed)
    parts = [
        tables[split].iloc[slice(None) if chosen is None else chosen.numpy()].assign(part=part)
        for part, (split, chosen) in cut.items()
    ]
    return pd.concat(parts)[["part", "path", "class", "group"]]


def in_files(name: str) -> bool:
    """Say whether a task or a pool lies in files: a published data set or a folder."""
    return name.startswith(FOLDER) or name.partition("/")[0] in (*layouts.TASKS, *layouts.POOLS)


def _listing(name: str, folders: Mapping[str, Path] | None) -> layouts.Listing:
    if not folders or name not in folders:
        option = "--task folder:PATH" if name.startswith(FOLDER) else "--data DIR"
        raise InputError(f"{name} is not at hand: name its folder, as in {option}")
    return layouts.folder(folders[name]) if name.startswith(FOLDER) else layouts.listing(name, folders[name])


def _files(name: str, profile: Profile, store: Store, folders: Mapping[str, Path] | None) -> ImageFiles:
    return decode(_listing(name, folders), name=name, store=store, size=profile.image_size)


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


def _hide_labels(parts: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    return {part: images if part == "pretraining" else images.unlabelled() for part, images in parts.items()}
