"""Drawn images: five tasks and two pools of 32 x 32 pictures, made by program from a seed, without any file.

Each set is the twin of one of the paper's. Every part of a set is drawn from a seed of its own, so parts share no
picture.
"""

import importlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from extractlib.data.drawn.canvas import draw_by_class, seed_from
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, one_of
from extractlib.store import digest
from extractlib.versions import VERSIONS

TASKS = ("signs", "objects", "birds", "retina", "things")
POOLS = ("atlas", "web")
TASK_PARTS = ("victim", "detector", "adversary", "validation", "test")
PARTS = dict.fromkeys(TASKS, TASK_PARTS) | {
    "atlas": ("pretraining", "queries", "detector", "validation", "test"),
    "web": ("queries", "validation", "test"),
}
"""The disjoint parts of each set."""

CACHE = "cache"


def draw(
    name: str, *, part: str, size: int, seed: int, shifted: bool = False, cache: Path | str | None = CACHE
) -> ImageSet:
    """Draw one part of a task or pool.

    Args:
        name: One of `TASKS` or `POOLS`.
        part: One of the set's `PARTS`.
        size: How many pictures; the same pictures are not the first of a larger set.
        seed: Seed of the pictures and of their labels. The kinds of things that are drawn do not depend on it.
        shifted: Whether a task's pictures come from another source: the same classes in another pose, on other grounds,
            through another camera, as an adversary with images of its own would have them (the paper, section 6).
        cache: Folder that keeps the pictures, which are then read memory-mapped; by default ``drawn`` in the folder
            that EXTRACTLIB_CACHE names or in the user's cache. None draws without keeping.

    Returns:
        The pictures with their labels. Its fingerprint depends on the recipe's version and the arguments, never on
        pixels, which may differ by a grey level between processors.

    Raises:
        InputError: Name or part are unknown, the size is below 1, or a pool is wanted shifted.
    """
    one_of("drawn set", name, PARTS)
    one_of(f"part of {name}", part, PARTS[name])
    if size < 1:
        raise InputError(f"{name}/{part}: a size of {size} was asked for: at least 1 is wanted")
    if shifted and name in POOLS:
        raise InputError(f"{name} is a pool: only a task ({', '.join(TASKS)}) has a shifted source")
    module = importlib.import_module(f"extractlib.data.drawn.{name}")
    source = "shifted " + name if shifted else name
    own_seed = seed_from(source, part, seed)
    labels = module.labels(size, part=part, generator=torch.Generator().manual_seed(own_seed))
    fingerprint = digest("drawn", source, str(VERSIONS["drawn"]), part, str(size), str(seed))

    def pictures() -> torch.Tensor:
        return draw_by_class(labels, module.draw, seed=own_seed, shifted=shifted)

    if cache is None:
        images = pictures()
    else:
        folder = _default_folder() if cache == CACHE else Path(cache)
        images = _kept(folder / f"{source.replace(' ', '-')}-{part}-{size}-{seed}-{fingerprint[:12]}.npy", pictures)
    return ImageSet(f"{source}/{part}", images, labels, module.CLASSES, fingerprint)


def _default_folder() -> Path:
    named = os.environ.get("EXTRACTLIB_CACHE")
    return (Path(named) if named else user_cache_path("extractlib")) / "drawn"


def _kept(path: Path, make) -> torch.Tensor:
    """Return the array in `path`, memory-mapped, written now and atomically if it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=".", suffix=".npy", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, make().numpy(), allow_pickle=False)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    # Copy on write: torch wants a writable array, and nothing ever reaches the file.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
