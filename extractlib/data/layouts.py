"""How each published data set lies on disk, and which of its images are for what.

Where a split is published it is used: CUB-200-2011, GTSRB, CIFAR-10, Tiny ImageNet. Where the field draws it at random
(Knockoff nets: 25 test images a class of Caltech-256, 200 of Diabetic5; ImageNet, 100 images a class), it follows here
from the names of the files: they are put in the order of their keyed hash, and the first ones are taken. So every
reader of the same files has the same split, with no list to be shipped; for a missing one the next takes its place.

A layout is a function from a folder to a `Listing`. `register` adds one, from inside or outside the package.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from extractlib.errors import InputError, check_choice

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

RECORD_PATH = r"(.+\.bin)#(\d+)"
"""What the path of an image in a file of records looks like: the file and the record's number."""

DIABETIC_CLASSES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")


@dataclass(frozen=True, eq=False)
class Listing:
    """What a data set holds.

    Attributes:
        root: Its folder.
        classes: Name of each class; empty where the images have no labels.
        splits: A table for each split, such as ``"train"`` and ``"test"``, with a row for each image. Column ``path``
            says where it lies below `root`, in a file of records with ``#`` and the record's number; ``label`` is the
            number of its class, 0 where the set has none; ``group``, if there is one, is what the images of one track
            or one patient share, which are never parted.
        published: Whether it is a data set that has a name here, not just any folder.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, pd.DataFrame]
    published: bool = True

    def named(self, split: str) -> pd.DataFrame:
        """Return the table of a split with each image's ``class`` by name and its ``group``, empty if there is none."""
        table = self.splits[split]
        names = np.array(self.classes or ("",), dtype=object)
        return table.assign(**{"class": names[table["label"]], "group": table.get("group", "")})

    def index(self) -> str:
        """Return the split as a CSV file: half, path, class and group of each image."""
        # Fingerprints of rows rest on these very bytes, hence the column's name.
        tables = [self.named(split).assign(half=split) for split in self.splits]
        columns = ["half", "path", "class", "group"]
        return pd.concat(tables).to_csv(columns=columns, index=False, lineterminator="\n")

    def files(self, split: str) -> list[str]:
        """Return the paths of the files of a split, each once."""
        return self.splits[split]["path"].str.replace(f"^{RECORD_PATH}$", r"\1", regex=True).unique().tolist()


Layout = Callable[[Path], Listing]
TASKS: dict[str, Layout] = {}
POOLS: dict[str, Layout] = {}


def register(name: str, *, kind: str = "task") -> Callable[[Layout], Layout]:
    """Return a decorator that adds a layout by the name of its data set.

    Args:
        name: What the data set, and its folder, is called.
        kind: ``"task"`` or ``"pool"``.

    Raises:
        InputError: The name is taken, or the kind is unknown.
    """
    registry = {"task": TASKS, "pool": POOLS}[check_choice("kind of data set", kind, ("task", "pool"))]
    if name in TASKS or name in POOLS:
        raise InputError(f"there is a data set {name!r} already: choose another name")

    def add(layout: Layout) -> Layout:
        registry[name] = layout
        return layout

    return add


def listing(name: str, root: Path) -> Listing:
    """Return what a data set with a name holds.

    Args:
        name: One of `TASKS` or `POOLS`.
        root: The folder that holds it in its published layout (see the page on data).

    Raises:
        InputError: The name is unknown, or something is missing or not as published.
    """
    layouts = TASKS | POOLS
    check_choice("data set", name, layouts)
    if not root.is_dir():
        raise InputError(f"{name} is not at hand, as {root} is no folder: extractlib data get {name}")
    return layouts[name](root)


def folder(path: Path) -> Listing:
    """Return what a folder of images holds: one folder a class, directly or under ``train`` and ``test``.

    Files with other suffixes than `SUFFIXES` are passed over.

    Raises:
        InputError: There is no such folder, it has no images or only one class, or train and test differ in classes.
    """
    if not path.is_dir():
        raise InputError(f"{path} is no folder: name one with a folder of images for each class")
    place = "train" if (path / "train").is_dir() else ""
    classes, train = _class_folders(path, place)
    if len(classes) < 2:
        raise InputError(f"{path} has images of one class only ({classes[0]}): at least two class folders are needed")
    splits = {"train": train}
    if place and (path / "test").is_dir():
        names, test = _class_folders(path, "test")
        if unknown := sorted(set(names) - set(classes)):
            raise InputError(f"{path / 'test'} has a class {unknown[0]!r} that {path / place} lacks")
        splits["test"] = test.assign(label=np.searchsorted(classes, names)[test["label"]])
    return Listing(path, classes, splits, published=False)


def by_hash(images: pd.DataFrame) -> pd.DataFrame:
    """Return images in the order of the keyed hash of their paths: at random, and the same for every reader."""

    def key(path: str) -> str:
        return hashlib.blake2b(path.encode(), key=SPLIT_KEY, digest_size=8).hexdigest()

    return images.sort_values("path", key=lambda paths: paths.map(key), kind="stable")


# -- the layouts ---------------------------------------------------------------


@register("caltech256")
def _caltech256(root: Path) -> Listing:
    """``256_ObjectCategories/001.ak47/001_0001.jpg``; the class of clutter is dropped."""
    classes, images = _class_folders(root, "256_ObjectCategories", drop="257.clutter")
    return Listing(root, classes, _cut_classes(root, classes, images, {"test": CALTECH_TEST}, rest="train"))


@register("cub200")
def _cub200(root: Path) -> Listing:
    """``CUB_200_2011`` with ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``, ``classes.txt``."""
    base = root / "CUB_200_2011"
    names, answers, training, paths = (
        _table(base / f"{file}.txt", ("key", "value"), sep=r"\s+", header=None).set_index("key")["value"]
        for file in ("classes", "image_class_labels", "train_test_split", "images")
    )
    for file, values in {"train_test_split.txt": training, "image_class_labels.txt": answers}.items():
        if lacking := [key for key in paths.index if key not in values.index]:
            raise InputError(f"{base / file} has no line for image {lacking[0]}: get it again")
    labels = _labels(answers[paths.index], names.index, base / "image_class_labels.txt")
    images = pd.DataFrame({"path": f"{base.name}/images/" + paths, "label": labels})
    in_training = training[paths.index] == "1"
    return Listing(root, tuple(names), {"train": images[in_training], "test": images[~in_training]})


@register("diabetic5")
def _diabetic5(root: Path) -> Listing:
    """``trainLabels.csv`` and ``train/10_left.jpeg``; both eyes of a patient are one group."""
    levels = [str(level) for level in range(len(DIABETIC_CLASSES))]
    images = _labeled(root / "trainLabels.csv", ("image", "level"), levels, path="train/{}.jpeg")
    images["group"] = images["path"].str.extract("train/([^_]*)")[0]
    splits = _cut_classes(root, DIABETIC_CLASSES, images, {"test": DIABETIC_TEST}, rest="train")
    return Listing(root, DIABETIC_CLASSES, splits)


@register("gtsrb")
def _gtsrb(root: Path) -> Listing:
    """``GTSRB/Final_Training/Images/00000/00000_00000.ppm``, ``GTSRB/Final_Test/Images``, ``GT-final_test.csv``.

    A track is one sign driven past: its frames share the class folder and the first field of their names.
    """
    classes, train = _class_folders(root, "GTSRB/Final_Training/Images")
    train["group"] = train["path"].str.extract("Images/(.*)_")[0]
    keys = [name.lstrip("0") or "0" for name in classes]
    path = "GTSRB/Final_Test/Images/{}"
    test = _labeled(root / "GT-final_test.csv", ("Filename", "ClassId"), keys, path=path, sep=";")
    return Listing(root, classes, {"train": train, "test": test})


@register("cifar10")
def _cifar10(root: Path) -> Listing:
    """``cifar-10-batches-bin``, the binary version: the one for Python is pickled, and no pickle is ever read here."""
    base = root / "cifar-10-batches-bin"
    if not base.is_dir() and (root / "cifar-10-batches-py").is_dir():
        raise InputError(f"{root} has CIFAR-10 as pickles, which are not read: extractlib data get cifar10")
    classes = tuple(_table(base / "batches.meta.txt", ("class",), header=None)["class"])
    train = [_cifar10_batch(base / f"data_batch_{number}.bin", len(classes)) for number in range(1, 6)]
    test = _cifar10_batch(base / "test_batch.bin", len(classes))
    return Listing(root, classes, {"train": pd.concat(train), "test": test})


def _cifar10_batch(file: Path, classes: int) -> pd.DataFrame:
    if not file.is_file() or not file.stat().st_size or file.stat().st_size % RECORD:
        raise InputError(f"{file} is missing or cut short (records of {RECORD:,} bytes): extractlib data get cifar10")
    answers = pd.Series(np.memmap(file, dtype=np.uint8, mode="r")[::RECORD]).astype(str)
    paths = [f"{file.parent.name}/{file.name}#{number}" for number in range(len(answers))]
    return pd.DataFrame({"path": paths, "label": _labels(answers, map(str, range(classes)), file)})


@register("imagenet", kind="pool")
def _imagenet(root: Path) -> Listing:
    """``train/n01440764/n01440764_10026.JPEG`` (ILSVRC2012); some images of each class, not all 1,281,167."""
    classes, images = _class_folders(root, "train")
    return Listing(root, classes, _cut_classes(root, classes, images, IMAGENET_PARTS))


@register("openimages", kind="pool")
def _openimages(root: Path) -> Listing:
    """Images anywhere below the folder; of an ``images.csv`` with the column ImageID, as published, only its images."""
    files = [file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES]
    paths = pd.Series(sorted(file.relative_to(root).as_posix() for file in files))
    if paths.empty:
        raise InputError(f"{root} has no images: see the page on data for how to get Open Images")
    if (root / "images.csv").is_file():
        chosen = _table(root / "images.csv", ("ImageID",))["ImageID"]
        paths = chosen.map({Path(path).stem: path for path in paths})
        if lacking := chosen[paths.isna()].tolist():
            raise InputError(
                f"{root} lacks {len(lacking):,} of the images that images.csv names: {lacking[0]} is the first"
            )
    images = by_hash(pd.DataFrame({"path": paths, "label": 0}))
    ends = np.round(np.cumsum([0, *OPENIMAGES_PARTS.values()]) * len(images)).astype(int)
    splits = {part: images[ends[number] : ends[number + 1]] for number, part in enumerate(OPENIMAGES_PARTS)}
    return Listing(root, (), splits)


@register("tinyimagenet", kind="pool")
def _tinyimagenet(root: Path) -> Listing:
    """``tiny-imagenet-200`` with ``train/n01443537/images`` and ``val/images``, ``val/val_annotations.txt``."""
    base = root / "tiny-imagenet-200"
    classes, train = _class_folders(root, f"{base.name}/train", inner="images")
    file, path = base / "val" / "val_annotations.txt", f"{base.name}/val/images/{{}}"
    test = _labeled(file, ("image", "class"), classes, path=path, sep="\t", header=None)
    return Listing(root, classes, {"train": train, "test": test})


# -- what they share -------------------------------------------------------------


def _class_folders(root: Path, place: str, *, inner: str = "", drop: str = "") -> tuple[tuple[str, ...], pd.DataFrame]:
    """Return the class folders below ``root/place`` and their images, which may lie in a folder `inner` of each."""
    base = root / place
    if not base.is_dir():
        raise InputError(f"{base} is missing: it should hold a folder of images for each class")
    names = [name for name in sorted(os.listdir(base)) if name != drop and (base / name / inner).is_dir()]
    rows = [
        (name, Path(place, name, inner, file).as_posix())
        for name in names
        for file in sorted(os.listdir(base / name / inner))
        if Path(file).suffix.lower() in SUFFIXES
    ]
    if not rows:
        needed = f"files like {base.name}/CLASS/1.png are needed ({', '.join(sorted(SUFFIXES))})"
        raise InputError(f"{base} has no images in class folders: {needed}")
    images = pd.DataFrame(rows, columns=["class", "path"])
    labels, classes = pd.factorize(images["class"])
    return tuple(classes), pd.DataFrame({"path": images["path"], "label": labels})


def _cut_classes(
    root: Path, classes: Sequence[str], images: pd.DataFrame, sizes: Mapping[str, int], *, rest: str | None = None
) -> dict[str, pd.DataFrame]:
    """Cut the images of each class, in the order of their hashes: some for each split, and what is left for `rest`."""
    needed = sum(sizes.values()) + (rest is not None)
    counts = np.bincount(images["label"], minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count < needed:
            raise InputError(f"{root} has {count} images of class {name}: at least {needed} are needed")
    images = by_hash(images).sort_values("label", kind="stable")
    place = np.searchsorted(np.cumsum(list(sizes.values())), images.groupby("label").cumcount(), side="right")
    splits = {split: images[place == number] for number, split in enumerate(sizes)}
    return splits if rest is None else {rest: images[place == len(sizes)]} | splits


def _labeled(file: Path, columns: tuple[str, str], keys: Iterable[str], *, path: str, **layout) -> pd.DataFrame:
    """Return the images that a table names in its first column and labels, with one of `keys`, in its second."""
    table = _table(file, columns, **layout)
    answers = table.set_index(columns[0])[columns[1]]
    return pd.DataFrame({"path": table[columns[0]].map(path.format), "label": _labels(answers, keys, file).to_numpy()})


def _labels(answers: pd.Series, keys: Iterable[str], file: Path) -> pd.Series:
    """Return the number of each image's class: the place of its answer among `keys`."""
    keys = list(keys)
    numbers = pd.Index(keys).get_indexer(answers.str.strip())
    for image, answer in answers[numbers < 0].items():
        raise InputError(f"{file} gives image {image} the class {answer!r}: one of {keys[0]} to {keys[-1]} is needed")
    return pd.Series(numbers, index=answers.index)


def _table(file: Path, columns: Sequence[str], *, sep: str = ",", header: int | None = 0) -> pd.DataFrame:
    """Return columns of a text file as text: those with these names or, where it has no header, the first ones."""
    options = {"names": columns, "usecols": range(len(columns))} if header is None else {"skipinitialspace": True}
    try:
        table = pd.read_csv(file, sep=sep, header=header, dtype=str, keep_default_na=False, index_col=False, **options)
    except FileNotFoundError:
        raise InputError(f"{file} is missing: it is a part of the data set as published") from None
    except ValueError as error:  # of pandas, or since it is no text
        raise InputError(
            f"{file} is not the table it should be ({' '.join(str(error).split())}): get it again"
        ) from None
    for name in columns:
        if name not in table or table.empty:
            raise InputError(f"{file} has no column {name!r}, or no rows: get it again from its source")
        if (table[name] == "").any():
            line = (table[name] == "").argmax() + (1 if header is None else 2)
            raise InputError(f"{file} is cut short in line {line}: get it again from its source")
    return table[list(columns)]
