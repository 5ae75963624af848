"""Image sets: what victims are trained on, attackers query with and detectors tell apart."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from extractlib.data.pixels import of_pillow
from extractlib.errors import InputError, shown
from extractlib.store import Store, digest, digest_of
from extractlib.tensors import is_plain, kind_of

LARGE = 2**27
"""Bytes above which a subset is a view that reads its images on demand."""


class Rows:
    """Some images of a large, memory-mapped tensor, in any order: read on demand, never all at once.

    It takes the place of the tensor in an `ImageSet`, and has those methods of a tensor that image sets need.

    Args:
        images: uint8 tensor of shape (n, channels, height, width), or rows of one.
        indices: int64 of shape (m,): which of them.
    """

    def __init__(self, images: "torch.Tensor | Rows", indices: torch.Tensor):
        if isinstance(images, Rows):
            indices = images._indices[indices]
            images = images._images
        self._images: torch.Tensor = images
        self._indices: torch.Tensor = indices
        self.shape = torch.Size((len(indices), *images.shape[1:]))
        self.dtype, self.device, self.ndim = images.dtype, images.device, images.ndim

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def nbytes(self) -> int:
        """Bytes that these images would take as a tensor."""
        return self.shape.numel() * self.dtype.itemsize

    def __getitem__(self, chosen: int | slice | torch.Tensor) -> torch.Tensor:
        """Return images as a tensor: one by its index, or several by a slice, by indices or by a mask."""
        return self._images[self._indices[chosen]]

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """Yield the images in tensors of `size`, one after the other."""
        return (self._images[chosen] for chosen in torch.split(self._indices, size))

    def to(self, device: torch.device | str) -> "torch.Tensor | Rows":
        """Return the images themselves if they are already on the device, else a copy there."""
        return self if torch.device(device) == self.device else self[:].to(device)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, with or without labels.

    Attributes:
        name: What the set is, for example ``"signs/test"``.
        images: uint8 tensor of shape (n, 1 or 3, height, width); may be memory-mapped. A large subset has `Rows`
            instead.
        labels: int64 tensor of shape (n,), or None for an unlabeled set.
        classes: Name of each class; empty for an unlabeled set.
        fingerprint: Hexadecimal digest of everything that made the set, or else of its bytes. Equal fingerprints mean
            equal sets.

    Raises:
        InputError: Shape, dtype or labels do not fit.

    Examples:
        >>> import extractlib as xl, torch
        >>> pets = xl.ImageSet("pets", torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("a", "b"))
        >>> len(pets), pets.image_shape, pets.unlabeled().labels
        (3, (3, 8, 8), None)
    """

    name: str
    images: torch.Tensor | Rows
    labels: torch.Tensor | None = None
    classes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] not in (1, 3) or self.images.dtype != torch.uint8:
            raise InputError(
                f"{self.name}: images are {self.images.dtype} of shape {tuple(self.images.shape)}:"
                " expected uint8 of shape (n, 1 or 3, height, width)"
            )
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _bytes_digest(self.images, self.labels, self.classes))
        if self.labels is None:
            return
        if self.labels.ndim != 1 or self.labels.dtype != torch.long:
            found = f"{self.labels.dtype} of shape {tuple(self.labels.shape)}"
            raise InputError(f"{self.name}: labels are {found}: expected int64 of shape (n,)")
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"{self.name}: two of the classes {shown(self.classes)} have one name: rename one")
        if len(self.labels) != len(self.images):
            raise InputError(f"{self.name}: {len(self.labels)} labels for {len(self.images)} images")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(
                f"{self.name}: labels run from {int(self.labels.min())} to {int(self.labels.max())},"
                f" outside 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def known_labels(self, remedy: str = "give labeled images") -> torch.Tensor:
        """Return the labels.

        Raises:
            InputError: There are none; the message ends with the remedy.
        """
        if self.labels is None:
            raise InputError(f"{self.name} has no labels: {remedy}")
        return self.labels

    def __repr__(self) -> str:
        kind = f"{len(self.classes)} classes" if self.labels is not None else "unlabeled"
        return f"ImageSet({self.name!r}, {len(self)} images, {kind}, {self.fingerprint[:12]})"

    def subset(self, indices: torch.Tensor, *, name: str | None = None) -> "ImageSet":
        """Return the images at `indices`, in that order, as a new set.

        The indices are int64 of shape (m,), or a mask, bool of shape (n,).
        Up to `LARGE` bytes are copied; more are read from this set on demand.

        Raises:
            InputError: The mask is of another length, an index is of no image, or the indices are not a list of whole
                numbers.
        """
        try:
            indices = torch.as_tensor(indices)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{self.name}: indices are {shown(indices)}: expected whole numbers, or a mask") from None
        if indices.numel() and (indices.is_floating_point() or indices.is_complex()):
            raise InputError(f"{self.name}: indices are {indices.dtype}: expected int64, or a mask of bool")
        if indices.ndim != 1:
            raise InputError(f"{self.name}: indices are of shape {tuple(indices.shape)}: expected (m,)")
        if indices.dtype == torch.bool and tuple(indices.shape) != (len(self),):
            raise InputError(
                f"{self.name}: a mask of {kind_of(indices)} for {len(self)} images: give one value for each"
            )
        indices = (indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices).long()
        if len(indices) and not -len(self) <= int(indices.min()) <= int(indices.max()) < len(self):
            low, high = int(indices.min()), int(indices.max())
            raise InputError(f"{self.name}: indices from {low} to {high} of {len(self)} images: leave others out")
        size = len(indices) * self.images.shape[1:].numel()
        return replace(
            self,
            name=name or self.name,
            images=Rows(self.images, indices) if size > LARGE else self.images[indices],
            labels=None if self.labels is None else self.labels[indices],
            fingerprint=digest(self.fingerprint, indices.numpy().tobytes()),
        )

    def unlabeled(self) -> "ImageSet":
        """Return the same images without labels or class names: what an attacker's pool shows."""
        return replace(self, labels=None, classes=(), fingerprint=digest(self.fingerprint, "unlabelled"))

    def split(
        self,
        shares: Mapping[str, float],
        *,
        seed: int,
        groups: torch.Tensor | None = None,
        shuffled: Container[str] = (),
    ) -> dict[str, "ImageSet"]:
        """Cut the set into disjoint parts at random.

        Args:
            shares: Share of each part by name; they add up to at most 1. The last part takes what rounding leaves
                when they add up to 1.
            seed: Seed of the cut.
            groups: int64 of shape (n,); images of one group (a track, a near-duplicate) stay together. Without it,
                every image is its own group.
            shuffled: The parts whose groups come in random order, one group's images after another's; in all other
                parts the images keep their order.

        Returns:
            A dictionary from part name to `ImageSet`, each named ``"<set>/<part>"``, in the order of `shares`.

        Raises:
            InputError: A share is not positive, or they add up to more than 1.
        """
        parts = split_indices(len(self), shares, seed=seed, groups=groups, shuffled=shuffled)
        return {part: self.subset(chosen, name=f"{self.name}/{part}") for part, chosen in parts.items()}


def split_indices(
    count: int,
    shares: Mapping[str, float],
    *,
    seed: int,
    groups: torch.Tensor | None = None,
    shuffled: Container[str] = (),
) -> dict[str, torch.Tensor]:
    """Return which of `count` images are in which part, int64 of shape (m,) for each, as `ImageSet.split` cuts them.

    The arguments and errors are those of `ImageSet.split`.
    """
    if count < 1:
        raise InputError("a set without images cannot be split: give at least one")
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
        raise InputError(f"shares {dict(shares)} must be positive and add up to at most 1")
    _, member = np.unique(np.arange(count) if groups is None else groups.numpy(), return_inverse=True)
    place = np.random.default_rng(seed).permutation(member.max() + 1)[member]
    ends = np.round(np.cumsum(list(shares.values())) * (member.max() + 1))
    part_of = np.searchsorted(ends, place, side="right")
    parts = {}
    for number, part in enumerate(shares):
        chosen = np.flatnonzero(part_of == number)
        if part in shuffled:
            chosen = chosen[np.argsort(place[chosen], kind="stable")]
        parts[part] = torch.from_numpy(chosen)
    return parts


def mix(first: ImageSet, second: ImageSet, *, name: str) -> ImageSet:
    """Return both sets one after the other as one unlabeled set."""
    if first.images.shape[1:] != second.images.shape[1:]:
        raise InputError(
            f"{name}: {first.name} has images of {tuple(first.images.shape[1:])} and {second.name} of"
            f" {tuple(second.images.shape[1:])}: resize them to one size first"
        )
    images = torch.cat([first.images[:], second.images[:]])
    return ImageSet(name, images, None, (), digest(first.fingerprint, second.fingerprint, "mix"))


def from_tensor(
    images: torch.Tensor,
    labels: torch.Tensor | Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> ImageSet:
    """Return your own images as a set whose fingerprint is computed from their bytes.

    Args:
        images: Of shape (n, channels, height, width) or, if gray, (n, height, width); uint8, or floats in [0, 1].
        labels: Whole numbers of shape (n,) from 0, class names as a list or an array, or None.
        classes: Name of each class; numbers if None, or the labels' names in alphabetical order.
        name: What the set is called.

    Raises:
        InputError: Shape, dtype or range does not fit, or classes are given without labels.
    """
    if labels is None and classes is not None:
        raise InputError(f"{name}: classes without labels: give both or neither")
    classes = None if classes is None else tuple(map(str, classes))
    images = _tensor(images, name).cpu()
    if images.ndim == 3:
        images = images[:, None]
    if images.is_floating_point():
        if not len(images) or not bool(((images >= 0) & (images <= 1)).all()):
            raise InputError(f"{name}: floats outside of 0 to 1, NaN or no images at all: scale them, or give uint8")
        images = (images * 255).round().to(torch.uint8)
    if labels is None:
        return ImageSet(name, images)
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if isinstance(labels, list | tuple) and labels and all(isinstance(label, str) for label in labels):
        classes = tuple(sorted(set(labels))) if classes is None else classes
        unknown = sorted(set(labels) - set(classes))
        if unknown:
            raise InputError(f"{name}: label {unknown[0]!r} is not one of the classes {shown(classes)}")
        labels = torch.tensor([classes.index(label) for label in labels], dtype=torch.long)
    try:
        labels = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: labels are {shown(labels)}: expected whole numbers, or names") from None
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"{name}: labels are {labels.dtype} of shape {tuple(labels.shape)}: expected whole numbers of shape (n,)"
        )
    labels = labels.long()
    names = tuple(map(str, range(int(labels.max()) + 1 if len(labels) else 0))) if classes is None else classes
    return ImageSet(name, images, labels, names)


class Dataset(Protocol):
    """What `from_dataset` reads, such as a torch data set or a list."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""


def from_dataset(
    dataset: Dataset,
    labels: torch.Tensor | Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> ImageSet:
    """Return a torch or torchvision data set as a set of images (see `from_tensor`).

    Args:
        dataset: Its items are images of one size (tensors and arrays as in `from_tensor`, or Pillow images), alone or
            followed by their labels; its attribute `classes`, if it has one, names the classes.
        labels: Labels of items that have none.
        classes: Names of the classes of a data set that does not name them.
        name: What the set is called.

    Raises:
        InputError: It is empty, its images are of another kind or differ in size, or labels or classes are given
            although it has its own.
    """
    if not len(dataset):
        raise InputError(f"{name}: the data set is empty")
    items = [
        item if isinstance(item, tuple | list) else (item,) for item in map(dataset.__getitem__, range(len(dataset)))
    ]
    images = [_pixels(image, name) for image, *_ in items]
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise InputError(f"{name}: images have the shapes {sorted(sizes)[:3]}: bring them to one size and mode first")
    own = getattr(dataset, "classes", None)
    labeled = len(items[0]) > 1 and items[0][1] is not None
    if (labeled and labels is not None) or (own is not None and classes is not None):
        raise InputError(f"{name}: the data set has its own {'labels' if labeled else 'classes'}: give none")
    if labeled:
        told: list[Any] = [item[1] if len(item) > 1 else None for item in items]
        bare = next((number for number, label in enumerate(told) if label is None), None)
        if bare is not None:
            raise InputError(f"{name}: item {bare} has no label, although the first one has: label all or none")
        words = all(isinstance(label, str) for label in told)
        labels = told if words else torch.stack([_number(label, name) for label in told])
    if own is not None:
        classes = None if labels is None else own
    return from_tensor(torch.stack(images), labels, classes=classes, name=name)


def images(
    source: object,
    labels: torch.Tensor | Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "images",
) -> ImageSet:
    """Return a tensor, an array, a torch data set or a list as a set of images (see `from_tensor`, `from_dataset`).

    Raises:
        InputError: It is none of these, its values do not fit, or labels are given although the data set has its own.

    Examples:
        >>> import extractlib as xl, torch
        >>> xl.images(torch.rand(5, 3, 8, 8)).image_shape
        (3, 8, 8)
    """
    if isinstance(source, torch.Tensor | np.ndarray):
        return from_tensor(_tensor(source, name), labels, classes=classes, name=name)
    if isinstance(source, ImageSet):
        if labels is not None or classes is not None:
            raise InputError(f"{name}: a set of images has its own labels and classes: give neither")
        return source
    if isinstance(source, tuple) and len(source) == 2 and all(isinstance(p, torch.Tensor | np.ndarray) for p in source):
        raise InputError(f"{name}: images are a pair of tensors: for a pair (x, y), call images(x, y)")
    if isinstance(source, Mapping):
        raise InputError(f"{name}: images are several parts, {shown(tuple(source))}: take one of them")
    if isinstance(source, str | Path) or type(source).__name__ == "Source":
        raise InputError(f"{name}: images are {shown(str(source))}: load them, as in load(…, role='pool').queries")
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise InputError(f"images are a {type(source).__name__}: expected a tensor, an array or a torch data set")
    return from_dataset(source, labels, classes=classes, name=name)


def _pixels(image: object, name: str) -> torch.Tensor:
    """Return a Pillow image as uint8 of shape (channels, height, width); tensors and arrays as they are."""
    if isinstance(image, torch.Tensor | np.ndarray):
        return _tensor(image, name)
    if not isinstance(image, Image.Image):
        raise InputError(f"{name}: an image is a {type(image).__name__}: expected a tensor, an array or a Pillow image")
    return torch.from_numpy(of_pillow(image))


def _tensor(images: torch.Tensor | np.ndarray, name: str) -> torch.Tensor:
    """Return an array, also one that runs backward as after ``[..., ::-1]``, as a tensor.

    Raises:
        InputError: It is not of numbers.
    """
    try:
        return torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: images are an array of {images.dtype}: expected one of numbers in this machine's byte order"
        ) from None


def _number(label: object, name: str) -> torch.Tensor:
    """Return the label of an item.

    Raises:
        InputError: It is not a single number.
    """
    try:
        number = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or number.ndim:
        raise InputError(f"{name}: the label of an item is {shown(label)}: expected a whole number, or a name")
    return number


def _bytes_digest(images: torch.Tensor | Rows, labels: torch.Tensor | None, classes: tuple[str, ...]) -> str:
    pixels = (part.contiguous().numpy().tobytes() for part in images.split(1_024))
    told = b"" if labels is None else labels.numpy().tobytes()
    return digest_of(chain([repr((tuple(images.shape), classes)), told], pixels))


def made_or_kept(
    make: Callable[[], torch.Tensor], store: Store | None, kind: str, key: Mapping[str, Any]
) -> torch.Tensor:
    """Return images that are made now or, with a store, kept in it and memory-mapped.

    Args:
        make: Makes them, uint8 of shape (n, channels, height, width).
        store: Keeps them; None to keep them only in memory.
        kind: What they are, for the store.
        key: Everything that determines them.
    """
    if store is None:
        return make()

    def write(folder: Path) -> None:
        np.save(folder / "images.npy", make().numpy(), allow_pickle=False)

    return mapped(store.get(kind, key, write) / "images.npy")


def mapped(path: Path) -> torch.Tensor:
    """Return the images in a NumPy file, memory-mapped.

    The map is copy-on-write: torch wants a writable array, and nothing ever reaches the file.
    """
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def check_shape(shape: object) -> tuple[int, int, int]:
    """Return the (channels, height, width) of images.

    Raises:
        InputError: They are something else.
    """
    if not isinstance(shape, tuple | list) or [type(size) for size in shape] != [int] * 3 or min(shape) < 1:
        raise InputError(f"image_shape is {shown(shape)}: expected (channels, height, width)")
    channels, height, width = shape
    return channels, height, width


def check_images(
    images: torch.Tensor | Rows, shape: tuple[int, ...] | None = None, *, at_least: int = 0
) -> torch.Tensor | Rows:
    """Return `images` if they are uint8 of shape (n, channels, height, width).

    Args:
        images: The value given.
        shape: The expected (channels, height, width); any if None.
        at_least: The smallest number of images.

    Raises:
        InputError: They are something else.
    """
    if isinstance(images, ImageSet):
        found = "an ImageSet, whose tensor is its attribute images"
    elif isinstance(images, np.ndarray):
        found = "an array of NumPy, of which torch.from_numpy makes a tensor"
    elif not (isinstance(images, Rows) or is_plain(images)):
        found = kind_of(images)
    else:
        found = f"{images.dtype} of shape {tuple(images.shape)}"
        fits = images.ndim == 4 and (shape is None or tuple(images.shape[1:]) == tuple(shape))
        if images.dtype == torch.uint8 and fits and len(images) >= at_least:
            return images
    sizes = ", ".join(map(str, shape or ("channels, height, width",)))
    raise InputError(f"images are {found}: expected uint8 of shape (n, {sizes}), n at least {at_least}")
