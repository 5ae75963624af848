"""Which file went to which part: a data set's cut as a list, to keep or to compare with another reader's."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from extractlib.data import decoding, layouts
from extractlib.data.decoding import Photographs
from extractlib.data.images import ImageSet
from extractlib.data.sources import FOLDER, split_pool, split_task
from extractlib.errors import InputError
from extractlib.store import Store


def parts_list(name: str, *, size: int, seed: int, store: Store, folders: Mapping[str, Path]) -> str:
    """Return the part, path, class and group of each image as a CSV file.

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
    place = folders[name]
    listing = layouts.folder(place) if name.startswith(FOLDER) else layouts.listing(name, place)
    images = decoding.decoded(listing, name=name, store=store, size=size)
    entries = list(chain(*listing.halves.values()))
    groups = [] if images.groups is None else images.groups.tolist()
    shared = dict(zip(listing.halves.get("train", ()), groups, strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("part", "path", "class", "group"))
    numbered, as_task = _numbered(images), name.startswith(FOLDER) or name in layouts.TASKS
    parts = split_task(numbered, seed=seed) if as_task else split_pool(numbered)
    for part, numbers in parts.items():
        for entry in map(entries.__getitem__, _read(numbers)):
            label = listing.classes[entry.label] if listing.classes else ""
            writer.writerow((part, entry.path, label, shared.get(entry, "")))
    return text.getvalue()


def _numbered(images: Photographs) -> Photographs:
    """Return a set of the same sizes whose images are their numbers, one pixel each, so that a cut can be followed."""
    first, halves = 0, {}
    for half, found in images.halves.items():
        numbers = torch.arange(first, first + len(found), dtype=torch.int32)
        pixels = numbers.view(torch.uint8).reshape(-1, 4)[:, :3].reshape(-1, 3, 1, 1)
        halves[half], first = replace(found, images=pixels), first + len(found)
    return replace(images, halves=halves)


def _read(numbers: ImageSet) -> list[int]:
    return (numbers.images[:].flatten(1).int() * torch.tensor([1, 2**8, 2**16])).sum(1).tolist()
