"""Where an experiment's images come from: drawn on the spot, or a folder of image files.

A task or a pool is named by a word (``"signs"``) or by a folder (``"folder:photos"``), and is handed out in its
disjoint parts.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from extractlib import drawn
from extractlib.errors import InputError, one_of
from extractlib.images import ImageSet, digest
from extractlib.profiles import Profile
from extractlib.store import Store

FOLDER = "folder:"
NOISE = "noise"
SHIFTED = "shifted"
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}
MOST_PIXELS = 50_000_000
"""Larger pictures are refused: decoding one would take more memory than the rest of the experiment."""

TASK_SHARES = {"victim": 0.7, "detector": 0.1, "adversary": 0.1, "validation": 0.1}
TEST_SHARE = 0.15
"""Share of the images kept for testing where a folder has no ``test`` folder of its own."""
POOL_SHARES = {"pretraining": 0.49, "queries": 0.41, "detector": 0.05, "validation": 0.025, "test": 0.025}


def task_parts(
    name: str, profile: Profile, *, seed: int, store: Store, folders: Mapping[str, Path] | None = None
) -> dict[str, ImageSet]:
    """Return a task in its disjoint parts: victim, detector, adversary, validation, test.

    Args:
        name: A drawn task, or ``"folder:NAME"``.
        profile: Gives the sizes of a drawn task.
        seed: Seed of the drawing, or of the split of a folder.
        store: Keeps decoded images.
        folders: Where each ``"folder:NAME"`` lies.

    Raises:
        InputError: The task is unknown, the profile does not hold it, or its folder cannot be used.
    """
    if name.startswith(FOLDER):
        return split_task(decoded(_place(name, folders), name=name, store=store), seed=seed)
    one_of("task", name, drawn.TASKS)
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
    adaptive strategy needs it. Arguments and errors are those of `task_parts`.
    """
    hide = dict if labelled else _hide_labels
    if name.startswith(FOLDER):
        images = decoded(_place(name, folders), name=name, store=store)
        # One cut for all seeds, so that one backbone serves them all.
        return hide(images["train"].split(POOL_SHARES, seed=0, groups=look_alikes(images["train"])))
    one_of("pool", name, drawn.POOLS)
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
            another source; or ``"noise"``, uniform random pixels.
        profile: Gives the sizes.
        seed: Seed of the drawing, of the cut and of the noise.
        store: Keeps decoded images.
        folders: Where each ``"folder:NAME"`` lies.
        labelled: Whether labels are kept where the images have any.

    Raises:
        InputError: There are no such images.
    """
    if name == NOISE:
        return noise(profile.budget, seed=seed)
    source, _, variant = (name, "", "") if name.startswith(FOLDER) else name.partition("/")
    if source in drawn.TASKS:
        if variant == SHIFTED:
            size = task_size(source, profile, "adversary")
            images = drawn.draw(source, part="adversary", size=size, seed=seed, shifted=True)
        else:
            one_of(f"variant of {source}", variant, ("", SHIFTED))
            images = task_parts(source, profile, seed=seed, store=store, folders=folders)["adversary"]
        return images if labelled else images.unlabelled()
    parts = pool_parts(source, profile, seed=seed, store=store, folders=folders, labelled=labelled or bool(variant))
    if not variant:
        return parts["queries"]
    cut = fewer_classes(parts["queries"], variant, seed=seed)
    return cut if labelled else cut.unlabelled()


def noise(size: int, *, seed: int) -> ImageSet:
    """Return unlabelled images of uniform random pixels, 32 x 32."""
    generator = np.random.default_rng([seed, *b"noise"])
    images = torch.from_numpy(generator.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8))
    return ImageSet(NOISE, images, None, (), digest(NOISE, str(size), str(seed)))


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


def split_task(images: Mapping[str, ImageSet], *, seed: int) -> dict[str, ImageSet]:
    """Cut a decoded task in its parts; a published test split stays what it is, near-duplicates stay together."""
    train = images["train"]
    if "test" in images:
        parts = train.split(TASK_SHARES, seed=seed, groups=look_alikes(train))
        return parts | {"test": images["test"]}
    shares = {part: share * (1 - TEST_SHARE) for part, share in TASK_SHARES.items()}
    return train.split(shares | {"test": TEST_SHARE}, seed=seed, groups=look_alikes(train))


def look_alikes(images: ImageSet) -> torch.Tensor:
    """Return the group of each image, int64 of shape (n,): near-duplicates share one.

    Two images are near-duplicates if their 64-bit difference hashes agree: the image is reduced to 9 x 8 grey
    values, and each is compared with its right neighbour.
    """
    bits = []
    for chunk in images.images.split(4_096):
        grey = torch.nn.functional.interpolate(chunk.float().mean(1, keepdim=True), (8, 9), mode="area")
        bits.append((grey[..., 1:] > grey[..., :-1]).flatten(1))
    packed = np.packbits(torch.cat(bits).numpy(), axis=1)
    _, group = np.unique(packed, axis=0, return_inverse=True)
    return torch.from_numpy(group.reshape(-1).astype(np.int64))


def decoded(path: Path, *, name: str, store: Store, size: int = 32) -> dict[str, ImageSet]:
    """Return the images of a folder, decoded once and then read from the store.

    The layout is one folder a class, either directly under `path` or under ``path/train`` and ``path/test``.

    Args:
        path: The folder.
        name: What the sets are called.
        store: Keeps the decoded images by the content of the files.
        size: Height and width in pixels: each image is resized on its shorter side and cut to its centre.

    Returns:
        The sets ``"train"`` and, if the folder has one, ``"test"``, with the class folders' names as classes.

    Raises:
        InputError: There is no such folder, it has no images or only one class, train and test differ in their
            classes, or a file is no image or too large.
    """
    files = {part: _list_images(folder) for part, folder in _halves(path).items()}
    classes = tuple(sorted({file.parent.name for file in files["train"]}))
    if len(classes) < 2:
        raise InputError(f"{path} has images of one class only ({classes[0]}): at least two class folders are wanted")
    unknown = sorted({file.parent.name for half in files.values() for file in half} - set(classes))
    if unknown:
        raise InputError(f"{path / 'test'} has a class {unknown[0]!r} that {path / 'train'} lacks")
    contents = digest(*(part for half in files.values() for file in half for part in (file.name, file.read_bytes())))
    key = {"images": contents, "classes": list(classes), "size": size}
    kept = load_file(
        store.get("folder", key, lambda folder: _decode(files, classes, size, folder)) / "images.safetensors"
    )
    return {
        part: ImageSet(
            f"{name}/{part}", kept[f"{part}.images"], kept[f"{part}.labels"], classes, digest(contents, part)
        )
        for part in files
    }


def _place(name: str, folders: Mapping[str, Path] | None) -> Path:
    if not folders or name not in folders:
        raise InputError(f"{name} is not at hand: name its folder, as in --task folder:PATH")
    return folders[name]


def _hide_labels(parts: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    return {part: images if part == "pretraining" else images.unlabelled() for part, images in parts.items()}


def _halves(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        raise InputError(f"{path} is no folder: name one with a folder of images for each class")
    if (path / "train").is_dir():
        return {part: path / part for part in ("train", "test") if (path / part).is_dir()}
    return {"train": path}


def _list_images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            f"{folder} has no images in class folders: files like {folder.name}/CLASS/1.png are wanted"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return files


def _decode(files: Mapping[str, list[Path]], classes: tuple[str, ...], size: int, folder: Path) -> None:
    """Write all images and labels of both halves into `folder`."""
    number = {name: label for label, name in enumerate(classes)}
    tensors = {}
    for part, half in files.items():
        images = np.empty((len(half), 3, size, size), dtype=np.uint8)
        for place, file in enumerate(tqdm(half, desc=f"decoding {part}", unit="image")):
            images[place] = read_image(file, size=size)
        tensors[f"{part}.images"] = torch.from_numpy(images)
        tensors[f"{part}.labels"] = torch.tensor([number[file.parent.name] for file in half])
    save_file(tensors, folder / "images.safetensors")


def read_image(file: Path, *, size: int) -> np.ndarray:
    """Return one image, uint8 of shape (3, size, size), its shorter side resized to `size` and its centre cut out.

    Raises:
        InputError: The file cannot be decoded, or has more than `MOST_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise InputError(
                        f"{file} has {image.width} x {image.height} pixels: at most {MOST_PIXELS:,} can be used"
                    )
                image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read as an image ({error}): repair it or take it away") from None
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    image = image.crop((left, top, left + shorter, top + shorter))
    if shorter != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)
