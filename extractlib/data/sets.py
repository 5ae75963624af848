"""The registered sets: which tasks and pools there are, and where the images of each come from.

A set is drawn, made by your own code, or stored in files. `SETS` holds them by name; `SETS.add` adds one that is made
by code, and `register` one that is stored in files, from inside or outside the package.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import pandas as pd
from platformdirs import user_data_path

from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.errors import check_choice
from extractlib.registry import Registry
from extractlib.store import Store, own_path

RECORD_PATH = r"(.+\.bin)#(\d+)"
"""What the path of an image in a file of records looks like: the file and the record's number."""

RECORD = 1 + 3 * 32 * 32
"""Bytes of a record of CIFAR-10's binary version: a label, then 32 x 32 red, green and blue values."""


class Caller(Protocol):
    """What the parts of a set are made for: a `sources.Loader`, which keeps images and knows how large each part is."""

    @property
    def store(self) -> Store | None:
        """What keeps drawn images, if anything does."""

    def size(self, name: str, part: str) -> int:
        """Return how many images a part has."""


@dataclass(frozen=True, eq=False)
class Listing:
    """What a data set in files holds.

    Attributes:
        root: Its folder.
        classes: Name of each class; empty where the images have no labels.
        splits: A table for each split, such as ``"train"`` and ``"test"``, with a row for each image. Column ``path``
            is its path below `root`, followed by ``#`` and the record's number in a file of records; ``class`` is the
            name of its class; ``group``, if there is one, is the same for all images of one track or one patient, which
            are never separated.
        empty: Folders of classes that hold no images.
        notes: What a reader may not expect, such as files that are skipped.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, pd.DataFrame]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def index(self) -> str:
        """Return the split as CSV text: half, path, class and group of each image."""
        # Fingerprints of rows depend on these exact bytes, so the column keeps its name.
        whole = pd.concat([table.assign(half=split) for split, table in self.splits.items()])
        whole = whole.reindex(columns=["half", "path", "class", "group"])
        return str(whole.to_csv(index=False, lineterminator="\n"))

    def files(self) -> list[str]:
        """Return the paths of all files, each once."""
        return list(dict.fromkeys(file_of(path) for table in self.splits.values() for path in table["path"]))


def file_of(path: str) -> str:
    """Return the file that contains the image with that path."""
    record = re.fullmatch(RECORD_PATH, path)
    return record[1] if record else path


Layout = Callable[[Path], Listing]


class Parts(Mapping[str, ImageSet]):
    """The disjoint parts of a set by name, each made on first use and also available as an attribute: ``signs.test``.

    Args:
        names: Names of the parts.
        make: Given a name, makes the part.
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], ImageSet]):
        self._names, self._make = tuple(names), cache(make)

    def __getitem__(self, part: str) -> ImageSet:
        """Return a part.

        Raises:
            KeyError: There is no such part.
        """
        if part not in self._names:
            raise KeyError(part)
        return self._make(part)

    def __getattr__(self, part: str) -> ImageSet:
        if part.startswith("_"):  # before __init__, as in copy.copy, there are no names
            raise AttributeError(part)
        if part not in self._names:
            role = {"queries": "pool", "victim": "task"}.get(part)
            other = f"load it with role={role!r}, or " if role else ""
            raise AttributeError(f"no part {part!r}: {other}use one of {', '.join(self._names)}")
        return self[part]

    def __contains__(self, part: object) -> bool:
        return part in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Parts({', '.join(self)})"


@dataclass(frozen=True)
class Provider:
    """Where the images of a set come from: it has `parts` or a `layout`.

    Attributes:
        role: ``"task"`` (parts victim, detector, adversary, validation, test) or ``"pool"`` (parts pretraining,
            queries, detector, validation, test; the first is missing if it is not needed).
        parts: Given what the run's sources share, the set's name and a seed, returns the parts by name.
        shifted: Given the same, returns the adversary's images from another source; None if the adversary's part is
            shifted instead.
        layout: Given its folder, returns what a set in files holds.

    Raises:
        InputError: There is no such role.
    """

    role: str
    parts: Callable[[Caller, str, int], Mapping[str, ImageSet]] | None = None
    shifted: Callable[[Caller, str, int], ImageSet] | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        check_choice("role", self.role, ("task", "pool"))


SETS: Registry[Provider] = Registry("task or pool")
"""The sets by name."""


def register(name: str, *, role: str = "task") -> Callable[[Layout], Layout]:
    """Return a decorator that adds a set in files, given the function that lists what its folder holds.

    Args:
        name: What the data set and its folder are called.
        role: ``"task"`` or ``"pool"``.

    Raises:
        InputError: The name is taken, or the role is unknown.
    """

    def add(layout: Layout) -> Layout:
        SETS.add(name, Provider(role, layout=layout))
        return layout

    return add


def default_data() -> Path:
    """Return the folder of the data sets: the one that EXTRACTLIB_DATA names, or else one in the user's data."""
    named = os.environ.get("EXTRACTLIB_DATA")
    return own_path("EXTRACTLIB_DATA", named) if named else user_data_path("extractlib")


def data_folders(data: Path | None = None) -> dict[str, Path]:
    """Return the folder of each registered set in files, within the one that holds all (`default_data` if None)."""
    return {name: (data or default_data()) / name for name, provider in SETS.items() if provider.layout}


def names_of(role: str) -> list[str]:
    """Return the names of the registered sets of a role, ``"task"`` or ``"pool"``."""
    return [name for name, provider in SETS.items() if provider.role == role]


def _draw(loader: Caller, name: str, seed: int) -> Parts:
    """Return the parts of a set; a pool's part for pre-training is drawn where it is needed."""

    def make(part: str) -> ImageSet:
        return drawn.draw(name, part=part, size=loader.size(name, part), seed=seed, store=loader.store)

    return Parts((part for part in drawn.PARTS[name] if part != "pretraining"), make)


def _draw_shifted(loader: Caller, name: str, seed: int) -> ImageSet:
    size = loader.size(name, "adversary")
    return drawn.draw(name, part="adversary", size=size, seed=seed, shifted=True, store=loader.store)


for _name in drawn.PARTS:
    SETS.add(_name, Provider("pool", _draw) if _name in drawn.POOLS else Provider("task", _draw, _draw_shifted))

import extractlib.data.layouts  # noqa: E402, F401  # the sets in files, which register themselves above
