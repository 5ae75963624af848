"""How each published data set is laid out on disk, and which of its images serve which purpose.

A published split is used if there is one: CUB-200-2011, GTSRB, CIFAR-10, Tiny ImageNet. Where the field draws it at
random (Knockoff nets: 25 test images per class of Caltech-256, 200 of Diabetic5; ImageNet, 100 images per class), the
split here follows from the file names: they are sorted by their keyed hash, and the first ones are taken. So everyone
with the same files gets the same split, and no list has to be shipped.

A layout is a function from a folder to a `Listing`, registered as a set. Some sets also have small copies in class
folders (`PACKS`), with a different split.
"""

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from extractlib.data.files import Found, image_files, subfolders
from extractlib.data.sets import RECORD, SETS, Listing, register
from extractlib.data.tables import read_table
from extractlib.errors import InputError, check_choice

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the split folders may be called in a user's own folder, in upper or lower case."""

SPLIT_KEY = b"extractlib split 1"
"""Key of the hash that orders files. Another key is another split."""

CALTECH_TEST, DIABETIC_TEST = 25, 200
"""Test images per class (Orekondy et al. 2019)."""

CALTECH101_TEST = 0.2
"""Share of test images in each class of Caltech101, for which no split is published."""

CALTECH101_DROPPED = ("BACKGROUND_Google", "Faces_easy")
"""A folder that is not a class, and one that repeats another class's photographs as crops."""

IMAGENET_PARTS = {"queries": 100, "detector": 10, "validation": 5, "test": 5}
"""Images per class in each part; the attacker's 100,000 follow the paper, section 3.2."""

OPENIMAGES_PARTS = {"queries": 0.8, "detector": 0.1, "validation": 0.05, "test": 0.05}
"""Share of each part: of the 125,436 images of Open Images' test set, the attacker has 100,349."""

DIABETIC_CLASSES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


@dataclass(frozen=True)
class Pack:
    """Small copies of a data set, in ``FOLDER/train/CLASS/FILE`` and, for a task, ``FOLDER/test/CLASS/FILE``.

    Attributes:
        folder: Their folder, inside the data set's folder or in place of it.
        classes: How many classes there are.
        group: The part of a path that images of one track or one patient share, as a pattern with one group.
        drop: Class folders that are skipped.
        names: Names of the classes; the names of their folders if empty.
    """

    folder: str
    classes: int
    group: str = ""
    drop: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


PACKS: Mapping[str, Pack] = {
    "caltech101": Pack("caltech101", 100, drop=CALTECH101_DROPPED),
    "cub2010": Pack("cub200-2010", 200),
    "eyepacs": Pack("diabetic5-128", 5, group="([^/]*)_[^/]*$", names=DIABETIC_CLASSES),
    "gtsrb": Pack("gtsrb", 43, group="([^/]*/[^/]*)_[^/]*$"),
    "cifar10": Pack("cifar10", 10),
    "tinyimagenet": Pack("tinyimagenet64", 200),
    "miniplaces": Pack("miniplaces64", 100),
}
"""The small copies by data set."""


def listing(name: str, root: Path) -> Listing:
    """Return what the data set with the given name holds.

    Args:
        name: A registered set that is stored in files.
        root: The folder that holds it, in its published layout (see the page on data) or as small copies.

    Raises:
        InputError: The name is unknown, or something is missing or not as published.
    """
    layouts = {known: provider.layout for known, provider in SETS.items() if provider.layout}
    layout = layouts[check_choice("data set", name, layouts)]
    if not root.is_dir():
        raise InputError(f"{name} is not available, since {root} is not a folder: run extractlib data get {name}")
    return packed(name, root) or layout(root)


def packed(name: str, root: Path) -> Listing | None:
    """Return the small copies of a data set that a folder holds, or None if there are none.

    Raises:
        InputError: Classes are missing.
    """
    pack = PACKS.get(name)
    places = [] if pack is None else [one for one in (pack.folder, "") if (root / one / "train").is_dir()]
    if pack is None or not places:
        return None
    place, splits, empty = places[0], {}, list[str]()
    for split in ("train", "test"):
        if split == "train" or (root / place / split).is_dir():
            found = _class_folders(root, Path(place, split).as_posix(), drop=pack.drop)
            if len(found.classes) != pack.classes:
                raise InputError(
                    f"{root / place / split} has images of {len(found.classes)} classes, but {name} has {pack.classes}:"
                    " get it again"
                )
            names = dict(zip(found.classes, pack.names or found.classes, strict=True))
            images = found.images.assign(**{"class": found.images["class"].map(names)})
            if pack.group and split == "train":
                images["group"] = images["path"].str.extract(pack.group)[0]
            splits[split] = images
            empty += found.empty
    return Listing(root, tuple(names.values()), splits, tuple(empty))


def folder(path: Path) -> Listing:
    """Return what a folder of images holds: one folder per class, directly or under the splits that `PARTS` names.

    The images of a class may be in subfolders. Images directly in the folder and in no subfolder have no labels.

    Raises:
        InputError: There is no such folder, it has no images, a split appears twice or without ``train``, or a split
            has a class that ``train`` does not have.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: name one with a folder of images for each class")
    if flat := _flat(path):
        return flat
    places = _places(path)
    found = {split: _class_folders(path, place, deep=True) for split, place in places.items()}
    classes = found["train"].classes
    notes = _strays(path, places)
    for split, place in places.items():
        others = found[split].classes
        if unknown := sorted(set(others) - set(classes)):
            raise InputError(f"{path / place} has a class {unknown[0]!r} that {path / places['train']} does not have")
        if lacking := sorted(set(classes) - set(others)):
            notes.append(f"{place} has no images of {len(lacking)} classes, starting with {lacking[0]!r}")
        notes += found[split].notes
    splits = {split: one.images for split, one in found.items()}
    return Listing(path, classes, splits, tuple(empty for one in found.values() for empty in one.empty), tuple(notes))


def _flat(path: Path) -> Listing | None:
    """Return the unlabeled images of a folder without class folders, or None if it has some, or no images."""
    found = image_files(path)
    if not found.images or any(image_files(path / name, deep=True).images for name in subfolders(path)):
        return None
    images = pd.DataFrame({"path": found.images}, dtype=object)
    return Listing(path, (), {"train": images}, notes=tuple(_skipped(found.others)))


def _places(path: Path) -> dict[str, str]:
    """Return the folder of each split; the whole folder is ``train``'s if it directly contains classes."""
    names, places = subfolders(path), dict[str, str]()
    for split, called in PARTS.items():
        for name in names:
            if name.lower() in called and _has_classes(path / name):
                if split in places:
                    raise InputError(f"{path} has {places[split]} and {name}, which are both for {split}: keep one")
                places[split] = name
    if "train" in places:
        return places
    if places and len(places) == len(names):
        raise InputError(f"{path} has {', '.join(places.values())} but no train: rename the training folder to train")
    return {"train": ""}


def _has_classes(path: Path) -> bool:
    """Return whether a folder is a split's: a class may also be called "train", but its images are directly in it."""
    return bool(subfolders(path)) and len(image_files(path, deep=True).images) > 2 * len(image_files(path).images)


def _strays(path: Path, places: Mapping[str, str]) -> list[str]:
    """Return notes on skipped folders other than those of the splits, and on images outside any class folder."""
    notes = []
    if places["train"]:
        others = sorted(set(subfolders(path)) - set(places.values()))
        if others:
            notes.append(f"folders other than those of the splits are skipped: {', '.join(others)}")
    for place in {"", *places.values()}:
        loose = image_files(path / place).images
        if loose:
            notes.append(f"{len(loose):,} images in {path / place} are not in a class folder and are skipped")
    return notes


def by_hash(images: pd.DataFrame) -> pd.DataFrame:
    """Return images sorted by the keyed hash of their paths: a random order that is the same for every reader."""

    def key(path: str) -> str:
        return hashlib.blake2b(os.fsencode(path), key=SPLIT_KEY, digest_size=8).hexdigest()

    return images.sort_values("path", key=lambda paths: paths.map(key), kind="stable")


# -- the layouts ---------------------------------------------------------------


@register("caltech256")
def _caltech256(root: Path) -> Listing:
    """``256_ObjectCategories/001.ak47/001_0001.jpg``; the clutter class is dropped."""
    found = _class_folders(root, "256_ObjectCategories", drop=("257.clutter",))
    sizes = {"test": CALTECH_TEST}
    return Listing(
        root, found.classes, _cut_classes(root, found.classes, found.images, sizes, rest="train"), found.empty
    )


@register("caltech101")
def _caltech101(root: Path) -> Listing:
    """``101_ObjectCategories/accordion/image_0001.jpg``; a fifth of each class is for testing."""
    found = _class_folders(root, "101_ObjectCategories", drop=CALTECH101_DROPPED)
    order = pd.Index(found.classes, dtype=object).get_indexer
    images = by_hash(found.images).sort_values("class", key=order, kind="stable")
    by_class = images.groupby("class")["path"]
    tests = by_class.cumcount() < (CALTECH101_TEST * by_class.transform("size")).round()
    return Listing(root, found.classes, {"train": images[~tests], "test": images[tests]}, found.empty)


@register("cub200")
def _cub200(root: Path) -> Listing:
    """``CUB_200_2011`` with ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``, ``classes.txt``."""
    base = root / "CUB_200_2011"
    names, answers, training, paths = (
        read_table(base / f"{file}.txt", ("key", "value"), sep=r"\s+", header=False).set_index("key")["value"]
        for file in ("classes", "image_class_labels", "train_test_split", "images")
    )
    for file, values in {"train_test_split.txt": training, "image_class_labels.txt": answers}.items():
        if lacking := [key for key in paths.index if key not in values.index]:
            raise InputError(f"{base / file} has no line for image {lacking[0]}: get it again")
    classes = _class_names(answers[paths.index], names.to_dict(), base / "image_class_labels.txt")
    images = pd.DataFrame({"path": f"{base.name}/images/" + paths, "class": classes})
    in_training = training[paths.index] == "1"
    return Listing(root, tuple(names), {"train": images[in_training], "test": images[~in_training]})


@register("cub2010")
def _cub2010(root: Path) -> Listing:
    """``images/001.Black_footed_Albatross/NAME.jpg`` with ``lists/train.txt`` and ``lists/test.txt``, not cropped."""
    splits = {}
    for split in ("train", "test"):
        paths = read_table(root / "lists" / f"{split}.txt", ("path",), sep=",", header=False)["path"].str.strip()
        splits[split] = pd.DataFrame({"path": "images/" + paths, "class": paths.str.partition("/")[0]})
    classes = tuple(sorted(splits["train"]["class"].unique()))
    _class_names(splits["test"]["class"], dict(zip(classes, classes, strict=True)), root / "lists/test.txt")
    return Listing(root, classes, splits)


@register("eyepacs")
@register("diabetic5")
def _diabetic5(root: Path) -> Listing:
    """``trainLabels.csv`` and ``train/10_left.jpeg``; both eyes of a patient are one group."""
    levels = {str(level): name for level, name in enumerate(DIABETIC_CLASSES)}
    images = _labeled(root / "trainLabels.csv", ("image", "level"), levels, path="train/{}.jpeg")
    images["group"] = images["path"].str.extract("train/([^_]*)")[0]
    splits = _cut_classes(root, DIABETIC_CLASSES, images, {"test": DIABETIC_TEST}, rest="train")
    return Listing(root, DIABETIC_CLASSES, splits)


@register("gtsrb")
def _gtsrb(root: Path) -> Listing:
    """``GTSRB/Final_Training/Images/00000/00000_00000.ppm``, ``GTSRB/Final_Test/Images``, ``GT-final_test.csv``.

    A track is one sign as a car drives past it: its frames share the class folder and the first field of their names.
    """
    found = _class_folders(root, "GTSRB/Final_Training/Images")
    train = found.images.assign(group=found.images["path"].str.extract("Images/(.*)_")[0])
    keys = {str(int(name)): name for name in found.classes if name.isdecimal()}
    path = "GTSRB/Final_Test/Images/{}"
    test = _labeled(root / "GT-final_test.csv", ("Filename", "ClassId"), keys, path=path)
    return Listing(root, found.classes, {"train": train, "test": test}, found.empty)


@register("cifar10")
def _cifar10(root: Path) -> Listing:
    """``cifar-10-batches-bin``, the binary version: the Python version is pickled, and pickles are never read here."""
    base = root / "cifar-10-batches-bin"
    if not base.is_dir() and (root / "cifar-10-batches-py").is_dir():
        raise InputError(f"{root} has CIFAR-10 as pickles, which are not read: run extractlib data get cifar10")
    classes = read_table(base / "batches.meta.txt", ("class",), sep=",", header=False)["class"]
    train = [_cifar10_batch(base / f"data_batch_{number}.bin", classes) for number in range(1, 6)]
    test = _cifar10_batch(base / "test_batch.bin", classes)
    return Listing(root, tuple(classes), {"train": pd.concat(train), "test": test})


def _cifar10_batch(file: Path, classes: pd.Series) -> pd.DataFrame:
    if not file.is_file() or not file.stat().st_size or file.stat().st_size % RECORD:
        raise InputError(
            f"{file} is missing or cut short (records of {RECORD:,} bytes): run extractlib data get cifar10"
        )
    answers = pd.Series(np.memmap(file, dtype=np.uint8, mode="r")[::RECORD]).astype(str)
    paths = [f"{file.parent.name}/{file.name}#{number}" for number in range(len(answers))]
    return pd.DataFrame({"path": paths, "class": _class_names(answers, classes.rename(str).to_dict(), file)})


@register("imagenet", role="pool")
def _imagenet(root: Path) -> Listing:
    """``train/n01440764/n01440764_10026.JPEG`` (ILSVRC2012); some images of each class, not all 1,281,167."""
    found = _class_folders(root, "train")
    return Listing(root, found.classes, _cut_classes(root, found.classes, found.images, IMAGENET_PARTS), found.empty)


@register("openimages", role="pool")
def _openimages(root: Path) -> Listing:
    """Images anywhere below the folder, without labels."""
    files = sorted(image_files(root, deep=True).images)
    if not files:
        raise InputError(f"{root} has no images: see the page on data for how to get Open Images")
    images = by_hash(pd.DataFrame({"path": files}, dtype=object))
    ends = np.round(np.cumsum([0, *OPENIMAGES_PARTS.values()]) * len(images)).astype(int)
    splits = {part: images[first:end] for part, (first, end) in zip(OPENIMAGES_PARTS, pairwise(ends), strict=True)}
    return Listing(root, (), splits)


@register("tinyimagenet", role="pool")
def _tinyimagenet(root: Path) -> Listing:
    """``tiny-imagenet-200`` with ``train/n01443537/images`` and ``val/images``, ``val/val_annotations.txt``."""
    base = root / "tiny-imagenet-200"
    found = _class_folders(root, f"{base.name}/train", inner="images")
    file, path = base / "val" / "val_annotations.txt", f"{base.name}/val/images/{{}}"
    keys = {name: name for name in found.classes}
    test = _labeled(file, ("image", "class"), keys, path=path, sep="\t", header=False)
    return Listing(root, found.classes, {"train": found.images, "test": test}, found.empty)


@register("miniplaces", role="pool")
def _miniplaces(root: Path) -> Listing:
    """``images/train/a/abbey/00000001.jpg`` and ``train.txt``, whose lines are ``train/a/abbey/00000001.jpg 0``."""
    paths = read_table(root / "train.txt", ("path", "label"), sep=" ", header=False)["path"]
    images = pd.DataFrame({"path": "images/" + paths, "class": paths.str.extract("^train/[^/]*/(.*)/")[0]})
    return Listing(root, tuple(sorted(images["class"].unique())), {"train": images})


# -- what they share -------------------------------------------------------------


@dataclass(frozen=True)
class ClassFolders:
    """What class folders hold.

    Attributes:
        classes: Names of those that hold images.
        images: ``path`` and ``class`` of each image.
        empty: Paths of those that hold none.
        notes: What is skipped.
    """

    classes: tuple[str, ...]
    images: pd.DataFrame
    empty: tuple[str, ...]
    notes: tuple[str, ...]


def _class_folders(
    root: Path, place: str, *, inner: str = "", drop: Sequence[str] = (), deep: bool = False
) -> ClassFolders:
    """Return what the class folders below ``root/place`` hold, in a folder `inner` of each, or anywhere if `deep`.

    Names that differ only in how a system composes accents count as the same.
    """
    base = root / place
    if not base.is_dir():
        raise InputError(f"{base} is missing: it should hold a folder of images for each class")
    rows, empty, others = list[tuple[str, str]](), list[str](), list[str]()
    for name in subfolders(base):
        if name in drop:
            continue
        below = Path(place, name, inner)
        found = image_files(root / below, deep=deep) if (root / below).is_dir() else Found([], [])
        rows += [((below / file).as_posix(), unicodedata.normalize("NFC", name)) for file in found.images]
        others += [(below / file).as_posix() for file in found.others]
        empty += [] if found.images else [Path(place, name).as_posix()]
    if not rows:
        raise InputError(f"{base} has no images in class folders: files like {base.name}/CLASS/1.png are needed")
    images = pd.DataFrame(rows, columns=["path", "class"], dtype=object)
    return ClassFolders(tuple(images["class"].unique()), images, tuple(empty), tuple(_skipped(others)))


def _skipped(others: Sequence[str]) -> list[str]:
    return [f"{len(others):,} files that are not images are skipped, starting with {others[0]}"] if others else []


def _cut_classes(
    root: Path, classes: Sequence[str], images: pd.DataFrame, sizes: Mapping[str, int], *, rest: str | None = None
) -> dict[str, pd.DataFrame]:
    """Cut the images of each class, in the order of their hashes: some for each split, and what is left for `rest`."""
    needed = sum(sizes.values()) + (rest is not None)
    for name, count in images["class"].value_counts().reindex(classes, fill_value=0).items():
        if count < needed:
            raise InputError(f"{root} has {count} images of class {name}: at least {needed} are needed")
    images = by_hash(images).sort_values("class", key=pd.Index(classes, dtype=object).get_indexer, kind="stable")
    place = np.searchsorted(np.cumsum(list(sizes.values())), images.groupby("class").cumcount(), side="right")
    splits = {split: images[place == number] for number, split in enumerate(sizes)}
    return splits if rest is None else {rest: images[place == len(sizes)]} | splits


def _labeled(
    file: Path, columns: tuple[str, str], names: Mapping[str, str], *, path: str, **layout: Any
) -> pd.DataFrame:
    """Return the images named in a table's first column, each with the class whose key is in the second column."""
    table = read_table(file, columns, **layout).set_index(columns[0])
    classes = _class_names(table[columns[1]], names, file)
    return pd.DataFrame({"path": classes.index.map(path.format), "class": classes.array})


def _class_names(answers: pd.Series, names: Mapping[str, str], file: Path) -> pd.Series:
    """Return the name of each image's class, whose key is in `answers`."""
    classes = answers.str.strip().map(names)
    for image, answer in answers[classes.isna()].items():
        known = list(names)
        raise InputError(f"{file} gives image {image} the class {answer!r}: expected one of {known[0]} to {known[-1]}")
    return classes
