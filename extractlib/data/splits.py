"""How a set in files is cut into parts, what is never separated, and how much alike the parts are nevertheless."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extractlib.data.decoding import ImageFiles
from extractlib.data.groups import BITS_APART, with_alike
from extractlib.data.images import ImageSet, split_indices
from extractlib.data.tables import read_table
from extractlib.errors import InputError, shown

TASK_SHARES = {"victim": 0.7, "detector": 0.1, "adversary": 0.1, "validation": 0.1}
TEST_SHARE = 0.15
"""Share of the images kept for testing if a folder contains no ``test`` folder."""
POOL_SHARES = {"pretraining": 0.49, "queries": 0.41, "detector": 0.05, "validation": 0.025, "test": 0.025}
SHUFFLED = ("detector", "adversary", "validation", "test")
"""Parts whose images come in random order: an experiment may need only the first, and files come class by class."""

NAMED = ("validation", "test")
"""Parts of a task that its listing may name."""

LOOK_ALIKE = 8
"""Most bits, of 64, in which hashes of look-alikes differ: often frames of one recording, rarely unrelated images."""

Cut = Mapping[str, tuple[str, torch.Tensor | None]]
"""For each part, the split it comes from and which of its images are used (int64), None for all in order."""


@dataclass(frozen=True)
class Overlap:
    """How far the test images of a task resemble those that its victim is trained on.

    Attributes:
        images: Number of test images.
        copies: How many of them have a near-duplicate among the victim's images.
        alike: How many have a look-alike there (see `LOOK_ALIKE`).
        grouped: How many share a group with one of them: a track, a patient.
    """

    images: int
    copies: int
    alike: int
    grouped: int

    def __str__(self) -> str:
        found = {
            "have a near-duplicate among the victim's images": self.copies,
            f"have a look-alike there (at most {LOOK_ALIKE} of 64 bits of their hashes differ)": self.alike,
            "share a group with one of them": self.grouped,
        }
        told = (f"{count:,} ({count / max(1, self.images):.1%}) {what}" for what, count in found.items())
        return f"of {self.images:,} test images, {', '.join(told)}"


def split(files: ImageFiles, parts: Cut) -> dict[str, ImageSet]:
    """Return the parts of a decoded task or pool, as given by `cut`."""
    sets = {}
    for part, (name, chosen) in parts.items():
        images = files.splits[name]
        own_name = images.name if part == name else f"{images.name}/{part}"
        sets[part] = images if chosen is None else images.subset(chosen, name=own_name)
    return sets


def cut(
    files: ImageFiles,
    role: str,
    *,
    seed: int,
    shares: Mapping[str, float] | None = None,
    group: str | None = None,
    drop: bool = False,
) -> Cut:
    """Return, for each part, the split it comes from and which of its images are used.

    Test and validation images that a task names stay as they are, and so do the parts that a pool's listing names.
    Near-duplicates, the frames of one track and both eyes of one patient stay together.

    Args:
        files: The decoded data set.
        role: ``"task"`` or ``"pool"``, whose parts it is cut into.
        seed: Seed of the cut of a task; a pool is cut the same way for all seeds, so that one backbone serves them all.
        shares: Share of each part, if the listing names no parts; the usual shares of the role if None. If a task has
            no share for the detector, that part has the same images as the victim.
        group: What stays together instead (see `group_names`).
        drop: Whether to leave out named test and validation images that have a near-duplicate among the training images
            or share a group with one.

    Raises:
        InputError: `group` matches no image.
    """
    if role == "pool" and "queries" in files.splits:
        order = np.random.default_rng(0).permutation
        return {
            part: (part, torch.from_numpy(order(len(images))) if part in SHUFFLED else None)
            for part, images in files.splits.items()
        }
    named: dict[str, tuple[str, torch.Tensor | None]] = {}
    usual = dict(shares or (POOL_SHARES if role == "pool" else TASK_SHARES))
    shares = usual
    if role == "pool":
        seed = 0
    else:
        named = {part: (part, _apart(files, part, group) if drop else None) for part in NAMED if part in files.splits}
        shares = {part: share for part, share in usual.items() if part not in named}
        shares["victim"] += sum(usual.values()) - sum(shares.values())
        if "test" not in named:
            shares = {part: share * (1 - TEST_SHARE) for part, share in shares.items()} | {"test": TEST_SHARE}
    groups = files.groups
    if group is not None and role == "task":
        groups = torch.from_numpy(np.unique(groups_of(files, "train", group), return_inverse=True)[1])
    chosen = split_indices(len(files.splits["train"]), shares, seed=seed, groups=groups, shuffled=SHUFFLED)
    if role == "task" and "detector" not in chosen:
        mixed = np.random.default_rng([seed, *b"detector"]).permutation(len(chosen["victim"]))
        chosen["detector"] = chosen["victim"][torch.from_numpy(mixed)]
    return {part: ("train", indices) for part, indices in chosen.items()} | named


def _apart(files: ImageFiles, part: str, group: str | None) -> torch.Tensor:
    """Return which images of a split have no near-duplicate and no group in common with the training images."""
    near = with_alike(files.signatures[part], files.signatures["train"])
    near |= np.isin(groups_of(files, part, group), groups_of(files, "train", group))
    return torch.from_numpy(np.flatnonzero(~near))


def overlap(files: ImageFiles, parts: Cut, *, group: str | None = None) -> Overlap:
    """Return how far the test images of a task resemble those of its victim.

    Args:
        files: The decoded data set.
        parts: How it is cut.
        group: What stays together (see `group_names`).
    """
    chosen = {}
    for part in ("test", "victim"):
        name, indices = parts[part]
        places = np.arange(len(files.splits[name])) if indices is None else indices.numpy()
        chosen[part] = files.signatures[name][places], groups_of(files, name, group)[places]
    (test, tests), (victim, victims) = chosen["test"], chosen["victim"]
    copies, alike = (int(with_alike(test, victim, bits=bits).sum()) for bits in (BITS_APART, LOOK_ALIKE))
    return Overlap(len(test), copies, alike, int(np.isin(tests, victims).sum()))


def groups_of(files: ImageFiles, split: str, group: str | None) -> np.ndarray:
    """Return the name of the group of each image of a split, or its own path if it has no group."""
    table = files.tables[split]
    if group is not None:
        return np.array(group_names(table["path"], group), dtype=object)
    return np.array(table["group" if "group" in table else "path"], dtype=object)


def group_names(paths: Sequence[str], group: str) -> list[str]:
    """Return the name of the group of each image, or its own path if it is in no group.

    Args:
        paths: Paths of the images below their folder.
        group: A table (``.csv`` or ``.tsv``) with columns ``path`` and ``group``, or a pattern that is searched for in
            each path: what its groups in parentheses match, or else the whole match, is the name.

    Raises:
        InputError: The table cannot be read, the pattern is not valid, or it matches no image.
    """
    if Path(group).suffix in (".csv", ".tsv"):
        table = read_table(Path(group), ("path", "group")).set_index("path")["group"].to_dict()
        found = {path: table[path] for path in paths if path in table}
    else:
        try:
            pattern = re.compile(group)
        except re.error as error:
            raise InputError(
                f"{shown(group)} is not a valid pattern ({error}): write one like '[^_]+', or name a .csv"
            ) from None
        matches = {path: pattern.search(path) for path in paths}
        found = {path: "/".join(map(str, one.groups() or (one[0],))) for path, one in matches.items() if one}
    if not found:
        raise InputError(
            f"{shown(group)} matches none of {len(paths):,} images, starting with {shown(paths[0])}: correct it"
        )
    return [found.get(path, path) for path in paths]
