"""Drawn images: five tasks and two pools of 32 x 32 pictures, made by a program from a seed, without image files.

Each set is the twin of one of the paper's. Every part of a set is drawn from a different seed, so parts share no
pictures.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType

import lazy_loader
import torch

from extractlib.data.drawn.canvas import draw_by_class, seed_from
from extractlib.data.drawn.tables import read_table
from extractlib.data.images import ImageSet, made_or_kept
from extractlib.errors import InputError, check_choice, check_positive, check_seed
from extractlib.store import Store, digest
from extractlib.versions import VERSIONS, versions

_SIZES = read_table("sizes")
TASKS = tuple(_SIZES["tasks"])
POOLS = tuple(_SIZES["pools"])
__getattr__, _, _ = lazy_loader.attach(__name__, submodules=[*TASKS, *POOLS, "kinds"])
TASK_PARTS = ("victim", "detector", "adversary", "validation", "test")

SIZES: Mapping[str, Mapping[str, int]] = _SIZES["tasks"] | _SIZES["pools"]
"""Usual number of images in each part of each set."""

PARTS = {name: tuple(sizes) for name, sizes in SIZES.items()}
"""The disjoint parts of each set."""


def draw(name: str, *, part: str, size: int, seed: int, shifted: bool = False, store: Store | None = None) -> ImageSet:
    """Draw one part of a task or pool.

    Args:
        name: One of `TASKS` or `POOLS`.
        part: One of the set's `PARTS`.
        size: How many pictures (`SIZES` has the usual numbers); they are not the first pictures of a larger set.
        seed: Seed of the pictures and of their labels. Which kinds of things are drawn does not depend on it.
        shifted: Whether a task's pictures come from another source: the same classes in another pose, on other grounds,
            through another camera, like those of an adversary who has other images (the paper, section 6).
        store: Keeps the pictures, which are then memory-mapped. None draws without keeping them.

    Returns:
        The pictures, uint8 of shape (size, 3, 32, 32), with their labels. The set's fingerprint depends on the recipe's
        version and the arguments, never on pixels, which may differ by a gray level between processors.

    Raises:
        InputError: The name or part is unknown, the size is below 1, or a shifted pool is requested.
    """
    check_choice("drawn set", name, PARTS)
    check_choice(f"part of {name}", part, PARTS[name])
    size, seed = check_positive(f"size of {name}/{part}", size), check_seed(seed)
    if shifted and name in POOLS:
        raise InputError(f"{name} is a pool: only a task ({', '.join(TASKS)}) has a shifted source")
    module = _module(name)
    source = f"shifted {name}" if shifted else name
    own_seed = seed_from(source, part, seed)
    of_each = labels(name, size, part=part, generator=torch.Generator().manual_seed(own_seed))

    def pictures() -> torch.Tensor:
        return draw_by_class(of_each, module.draw, seed=own_seed, shift=_shift(name) if shifted else 0.0)

    key = {"name": name, "part": part, "size": size, "seed": seed, "shifted": shifted, "versions": versions("drawn")}
    images = made_or_kept(pictures, store, "drawn", key)
    fingerprint = digest("drawn", source, str(VERSIONS["drawn"]), part, str(size), str(seed))
    return ImageSet(f"{source}/{part}", images, of_each, module.CLASSES, fingerprint)


def labels(name: str, size: int, *, part: str, generator: torch.Generator) -> torch.Tensor:
    """Return labels for a part of a set, int64 of shape (size,), in random order.

    All classes are equally frequent, give or take one image. Only if the set's module has a ``PRIOR``, the weight of
    each class, are labels drawn by it instead, except in the test part of a task.
    """
    module = _module(name)
    if hasattr(module, "PRIOR") and (name in POOLS or part != "test"):
        return torch.multinomial(torch.tensor(module.PRIOR), size, replacement=True, generator=generator)
    return (torch.arange(size) % len(module.CLASSES))[torch.randperm(size, generator=generator)]


def _shift(name: str) -> float:
    """Return how far a task's shifted source is from its own; 1.0 if the set's module has no ``SHIFT``.

    Chosen on validation parts so that victims lose 3 to 10 points there: classes with fine differences need less.
    """
    return getattr(_module(name), "SHIFT", 1.0)


def _module(name: str) -> ModuleType:
    """Return the module that draws a set, so that only the sets that are drawn read their figures."""
    return importlib.import_module(f"extractlib.data.drawn.{name}")
