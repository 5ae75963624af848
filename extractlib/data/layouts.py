"""How each published data set lies on disk, and which of its images are for what.

Where a split is published it is used: CUB-200-2011, GTSRB, CIFAR-10, Tiny ImageNet. Where the field draws it at random
(Knockoff nets: 25 test images a class of Caltech-256, 200 of Diabetic5; ImageNet, 100 images a class), it follows here
from the names of the files: they are put in the order of their keyed hash, and the first ones are taken. So every
reader of the same files has the same split, with no list to be shipped; for a missing one the next takes its place.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from extractlib.errors import InputError, one_of

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}
SPLIT_KEY = b"extractlib split 1"
"""Key of the hash that orders files. Another key is another split."""

CALTECH_TEST, DIABETIC_TEST = 25, 200
"""Test images a class (Orekondy et al. 2019)."""

IMAGENET_PARTS = {"queries": 100, "detector": 10, "validation": 5, "test": 5}
"""Images a class of each part; the attacker's 100,000 are those of the paper, section 3.2."""

OPENIMAGES_PARTS = {"queries": 0.8, "detector": 0.1, "validation": 0.05, "test": 0.05}
"""Share of each part: of the 125,436 images of Open Images' test set, the attacker has 100,349."""

RECORD = 1 + 3 * 32 * 32
"""Bytes of a record of CIFAR-10's binary version: a label, then 32 x 32 red, green and blue values."""

DIABETIC_CLASSES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


class Entry(NamedTuple):
    """One image of a data set.

    Its `path` is where it lies below the data set's folder, in a file of records with ``#`` and the record's number;
    its `label` the number of its class, 0 where the set has none; and its `group` what the images of one track or one
    patient share, which are never parted, or empty where each stands alone.
    """

    path: str
    label: int
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """What a data set holds.

    Attributes:
        root: Its folder.
        classes: Name of each class; empty where the images have no labels.
        halves: The images by half, such as ``"train"`` and ``"test"``, in order.
        published: Whether it is a data set that has a name here, not just any folder.
    """

    root: Path
    classes: tuple[str, ...]
    halves: Mapping[str, tuple[Entry, ...]]
    published: bool = True

    def index(self) -> str:
        """Return the split as a CSV file: half, path, class and group of each image."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("half", "path", "class", "group"))
        for half, entries in self.halves.items():
            for path, label, group in entries:
                writer.writerow((half, path, self.classes[label] if self.classes else "", group))
        return text.getvalue()


def listing(name: str, root: Path) -> Listing:
    """Return what a published data set holds.

    Args:
        name: One of `TASKS` or `POOLS`.
        root: The folder that holds it in its published layout (see the page on data).

    Raises:
        InputError: The name is unknown, or something is missing or not as published.
    """
    one_of("data set", name, LAYOUTS)
    if not root.is_dir():
        raise InputError(f"{name} is not at hand, as {root} is no folder: extractlib data get {name}")
    return LAYOUTS[name](root)


def folder(path: Path) -> Listing:
    """Return what a folder of images holds: one folder a class, directly or under ``train`` and ``test``.

    Files with other suffixes than `SUFFIXES` are passed over.

    Raises:
        InputError: There is no such folder, it has no images or only one class, or train and test differ in classes.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no folder: name one with a folder of images for each class")
    halves = {half: path / half for half in ("train", "test") if (path / half).is_dir()}
    files = {
        half: _in_class_folders(place) for half, place in (halves if "train" in halves else {"train": path}).items()
    }
    classes = tuple(sorted({file.parent.name for file in files["train"]}))
    if len(classes) < 2:
        raise InputError(f"{path} has images of one class only ({classes[0]}): at least two class folders are wanted")
    unknown = sorted({file.parent.name for half in files.values() for file in half} - set(classes))
    if unknown:
        raise InputError(f"{path / 'test'} has a class {unknown[0]!r} that {path / 'train'} lacks")
    number = {name: label for label, name in enumerate(classes)}
    entries = {
        half: tuple(Entry(file.relative_to(path).as_posix(), number[file.parent.name]) for file in found)
        for half, found in files.items()
    }
    return Listing(path, classes, entries, published=False)


def by_hash(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order of the keyed hash of their paths: at random, and the same for every reader."""
    return sorted(
        entries, key=lambda entry: hashlib.blake2b(entry.path.encode(), key=SPLIT_KEY, digest_size=8).digest()
    )


# -- the layouts ---------------------------------------------------------------


def _caltech256(root: Path) -> Listing:
    """``256_ObjectCategories/001.ak47/001_0001.jpg``; the class of clutter is dropped."""
    classes, entries = _class_folders(root, "256_ObjectCategories", drop=("257.clutter",))
    return Listing(root, classes, _held_out(root, classes, entries, CALTECH_TEST))


def _cub200(root: Path) -> Listing:
    """``CUB_200_2011`` with ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``, ``classes.txt``."""
    base = root / "CUB_200_2011"
    names, labels, training, paths = (
        _pairs(base / f"{file}.txt") for file in ("classes", "image_class_labels", "train_test_split", "images")
    )
    numbers = {identity: label for label, identity in enumerate(names)}
    halves: dict[str, list[Entry]] = {"train": [], "test": []}
    for identity, path in paths.items():
        if identity not in training:
            raise InputError(f"{base / 'train_test_split.txt'} has no line for image {identity}: get it again")
        label = _label(labels.get(identity, ""), numbers, base / "image_class_labels.txt", f"image {identity}")
        halves["train" if training[identity] == "1" else "test"].append(Entry(f"{base.name}/images/{path}", label))
    return Listing(root, tuple(names.values()), _frozen(halves))


def _diabetic5(root: Path) -> Listing:
    """``trainLabels.csv`` and ``train/10_left.jpeg``; both eyes of a patient are one group."""
    table = root / "trainLabels.csv"
    numbers = {str(label): label for label in range(len(DIABETIC_CLASSES))}
    entries = [
        Entry(
            f"train/{row['image']}.jpeg",
            _label(row["level"], numbers, table, f"image {row['image']}"),
            row["image"].partition("_")[0],
        )
        for row in _rows(table, ("image", "level"))
    ]
    return Listing(root, DIABETIC_CLASSES, _held_out(root, DIABETIC_CLASSES, entries, DIABETIC_TEST))


def _gtsrb(root: Path) -> Listing:
    """``GTSRB/Final_Training/Images/00000/00000_00000.ppm``, ``GTSRB/Final_Test/Images``, ``GT-final_test.csv``.

    A track is one sign driven past: its frames share the class folder and the first field of their names.
    """
    classes, entries = _class_folders(root, "GTSRB/Final_Training/Images")
    train = [entry._replace(group=entry.path.rpartition("_")[0].rpartition("Images/")[2]) for entry in entries]
    table = root / "GT-final_test.csv"
    numbers = {str(int(name)): label for label, name in enumerate(classes) if name.isdecimal()}
    test = [
        Entry(
            f"GTSRB/Final_Test/Images/{row['Filename']}",
            _label(row["ClassId"], numbers, table, f"image {row['Filename']}"),
        )
        for row in _rows(table, ("Filename", "ClassId"), delimiter=";")
    ]
    return Listing(root, classes, _frozen({"train": train, "test": test}))


def _cifar10(root: Path) -> Listing:
    """``cifar-10-batches-bin``, the binary version: the one for Python is pickled, and no pickle is ever read here."""
    base = root / "cifar-10-batches-bin"
    if not base.is_dir() and (root / "cifar-10-batches-py").is_dir():
        raise InputError(f"{root} has CIFAR-10 as pickles, which are not read: extractlib data get cifar10")
    classes = tuple(_text(base / "batches.meta.txt").split())
    numbers = {str(label): label for label in range(len(classes))}
    halves: dict[str, list[Entry]] = {"train": [], "test": []}
    for batch in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        file = base / batch
        if not file.is_file() or not file.stat().st_size or file.stat().st_size % RECORD:
            raise InputError(
                f"{file} is missing or cut short (records of {RECORD:,} bytes): extractlib data get cifar10"
            )
        labels = np.memmap(file, dtype=np.uint8, mode="r")[::RECORD]
        halves["test" if batch.startswith("test") else "train"] += [
            Entry(f"{base.name}/{batch}#{number}", _label(str(label), numbers, file, f"record {number}"))
            for number, label in enumerate(labels)
        ]
    return Listing(root, classes, _frozen(halves))


def _tinyimagenet(root: Path) -> Listing:
    """``tiny-imagenet-200`` with ``train/n01443537/images`` and ``val/images``, ``val/val_annotations.txt``."""
    base = root / "tiny-imagenet-200"
    classes, train = _class_folders(root, "tiny-imagenet-200/train", inner="images")
    numbers = {name: label for label, name in enumerate(classes)}
    table = base / "val" / "val_annotations.txt"
    lines = [line.split("\t") for line in _text(table).splitlines() if line.strip()]
    test = [
        Entry(f"{base.name}/val/images/{line[0]}", _label("".join(line[1:2]), numbers, table, f"image {line[0]}"))
        for line in lines
    ]
    return Listing(root, classes, _frozen({"train": train, "test": test}))


def _imagenet(root: Path) -> Listing:
    """``train/n01440764/n01440764_10026.JPEG`` (ILSVRC2012); some images of each class, not all 1,281,167."""
    classes, entries = _class_folders(root, "train")
    wanted = sum(IMAGENET_PARTS.values())
    halves: dict[str, list[Entry]] = {part: [] for part in IMAGENET_PARTS}
    for label, found in enumerate(_by_class(classes, entries)):
        if len(found) < wanted:
            raise InputError(f"{root / 'train' / classes[label]} has {len(found)} images: at least {wanted} are wanted")
        first = 0
        for part, count in IMAGENET_PARTS.items():
            halves[part] += found[first : first + count]
            first += count
    return Listing(root, classes, _frozen(halves))


def _openimages(root: Path) -> Listing:
    """Images anywhere below the folder; of an ``images.csv`` with the column ImageID, as published, only its images."""
    found = sorted(
        Path(place, name).relative_to(root).as_posix()
        for place, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES
    )
    if not found:
        raise InputError(f"{root} has no images: see the page on data for how to get Open Images")
    if (root / "images.csv").is_file():
        at = {Path(path).stem: path for path in found}
        wanted = [row["ImageID"] for row in _rows(root / "images.csv", ("ImageID",))]
        lacking = [identity for identity in wanted if identity not in at]
        if lacking:
            raise InputError(
                f"{root} lacks {len(lacking):,} of the images that images.csv names: {lacking[0]} is the first"
            )
        found = [at[identity] for identity in wanted]
    ordered = by_hash(Entry(path, 0) for path in found)
    ends = np.round(np.cumsum([0, *OPENIMAGES_PARTS.values()]) * len(ordered)).astype(int)
    return Listing(
        root,
        (),
        {part: tuple(ordered[ends[place] : ends[place + 1]]) for place, part in enumerate(OPENIMAGES_PARTS)},
    )


LAYOUTS: Mapping[str, Callable[[Path], Listing]] = MappingProxyType(
    {
        "caltech256": _caltech256,
        "cub200": _cub200,
        "diabetic5": _diabetic5,
        "gtsrb": _gtsrb,
        "cifar10": _cifar10,
        "imagenet": _imagenet,
        "openimages": _openimages,
        "tinyimagenet": _tinyimagenet,
    }
)
TASKS = ("caltech256", "cub200", "diabetic5", "gtsrb", "cifar10")
POOLS = ("imagenet", "openimages", "tinyimagenet")


# -- what they share -------------------------------------------------------------


def _class_folders(
    root: Path, place: str, *, inner: str = "", drop: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], list[Entry]]:
    """Return the class folders below ``root/place`` and their images, which may lie in a folder `inner` of each."""
    base = root / place
    if not base.is_dir():
        raise InputError(f"{base} is missing: it should hold a folder of images for each class")
    classes = tuple(sorted(name for name in os.listdir(base) if (base / name).is_dir() and name not in drop))
    entries = []
    for label, name in enumerate(classes):
        middle = f"{name}/{inner}" if inner else name
        if not (base / middle).is_dir():
            raise InputError(f"{base / middle} is missing: it should hold the images of class {name}")
        files = sorted(file for file in os.listdir(base / middle) if Path(file).suffix.lower() in SUFFIXES)
        entries += [Entry(f"{place}/{middle}/{file}", label) for file in files]
    if not entries:
        raise InputError(f"{base} has no images in class folders")
    return classes, entries


def _in_class_folders(place: Path) -> list[Path]:
    files = sorted(file for file in place.glob("*/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            f"{place} has no images in class folders: files like {place.name}/CLASS/1.png are wanted"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return files


def _by_class(classes: tuple[str, ...], entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return the entries of each class in the order of their hashes."""
    found: list[list[Entry]] = [[] for _ in classes]
    for entry in by_hash(entries):
        found[entry.label].append(entry)
    return found


def _held_out(root: Path, classes: tuple[str, ...], entries: Iterable[Entry], count: int) -> dict:
    """Return the halves where the first `count` images of each class, in the order of their hashes, are for testing."""
    halves: dict[str, list[Entry]] = {"train": [], "test": []}
    for name, found in zip(classes, _by_class(classes, entries), strict=True):
        if len(found) <= count:
            raise InputError(f"{root} has {len(found)} images of class {name}: more than {count} are wanted")
        halves["test"] += found[:count]
        halves["train"] += found[count:]
    return _frozen(halves)


def _frozen(halves: Mapping[str, list[Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {half: tuple(entries) for half, entries in halves.items()}


def _label(value: str, numbers: Mapping[str, int], file: Path, what: str) -> int:
    value = value.strip()
    if value not in numbers:
        names = list(numbers)
        raise InputError(f"{file} gives {what} the class {value!r}: one of {names[0]} to {names[-1]} is wanted")
    return numbers[value]


def _pairs(file: Path) -> dict[str, str]:
    """Return the second word of each line by the first."""
    lines = [line.split(maxsplit=1) for line in _text(file).splitlines() if line.strip()]
    short = [line for line in lines if len(line) < 2]
    if short or not lines:
        raise InputError(f"{file} has no line, or one of a single word: get it again from its source")
    return dict(lines)


def _rows(file: Path, columns: tuple[str, ...], *, delimiter: str = ",") -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(_text(file)), delimiter=delimiter, skipinitialspace=True))
    lacking = [name for name in columns if not rows or rows[0].get(name) is None]
    if lacking:
        raise InputError(f"{file} has no column {lacking[0]!r}, or no rows: get it again from its source")
    short = [number for number, row in enumerate(rows, start=2) if None in (row[name] for name in columns)]
    if short:
        raise InputError(f"{file} is cut short in line {short[0]}: get it again from its source")
    return rows


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{file} is missing: it is a part of the data set as published") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is no text: get it again from its source") from None


def record(path: str) -> tuple[str, int] | None:
    """Return file and number of an entry that is a record, None of one that is a file."""
    match = re.fullmatch(r"(.+\.bin)#(\d+)", path)
    return (match[1], int(match[2])) if match else None
