"""What an answer shows of the victim's probabilities (the paper, section 3.4), and how it is stored.

`Full`, `TopK`, `Rounded` and `Label` show less and less; `Temperature` shows all of a flattened distribution. Each is
also a word, such as ``"top-5"``: `parse` reads it and `str` writes it, in JSON and elsewhere.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from extractlib.errors import InputError, check_choice, keep, kind_name, whole
from extractlib.registry import Registry
from extractlib.tensors import CLOSE, is_plain, kind_of

MOST_CLASSES = 65_535
"""Classes are stored as 16-bit numbers, the last of which stands for a denied answer."""

DENIED = -1
"""The label of an answer that was denied."""

FILLS = ("even", "renormalized")
"""What a surrogate is told about the classes that a truncated answer hides (`Answers.targets`)."""

WORDS = "full, top-K with K at least 1, rounded-D with 0 to 6 decimals, label, or temperature-T with T from 0.01 to 100"


@dataclass(frozen=True, eq=False)
class Answers:
    """What the API returns for n images.

    Attributes:
        labels: int64 of shape (n,): the most probable class, the lowest if several are; -1 where the answer is denied.
        classes: int64 of shape (n, m): the classes shown, by decreasing probability; None if all or none are.
        probabilities: float32 of shape (n, m) in [0, 1], of `classes` or of all classes in order, zeros where
            the answer is denied; None if only the label is shown.
    """

    labels: torch.Tensor
    classes: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | torch.Tensor) -> "Answers":
        shown = (None if part is None else part[rows] for part in (self.classes, self.probabilities))
        return Answers(self.labels[rows], *shown)

    @classmethod
    def cat(cls, parts: Sequence["Answers"]) -> "Answers":
        """Return the answers of several requests at one granularity, at least one, as those of one."""
        labels, classes, probabilities = zip(
            *((one.labels, one.classes, one.probabilities) for one in parts), strict=True
        )
        shown = (None if column[0] is None else torch.cat(column) for column in (classes, probabilities))
        return cls(torch.cat(labels), *shown)

    @property
    def denied(self) -> torch.Tensor:
        """bool of shape (n,): which queries were not answered."""
        return self.labels == DENIED

    def targets(self, class_count: int, *, fill: str = "even") -> torch.Tensor:
        """Return soft targets to train a surrogate on.

        Rounded probabilities are scaled to sum to 1. A label, and an answer in which everything is rounded to zero,
        count as certain.

        Args:
            class_count: Number of the victim's classes.
            fill: What to do with the probability that a top-k answer hides: ``"even"`` spreads it over the other
                classes, ``"renormalized"`` gives them nothing and scales what is shown to sum to 1.

        Returns:
            float32 of shape (n, class_count) with rows that sum to 1.

        Raises:
            InputError: An answer was denied, or the fill is unknown.
        """
        check_choice("fill", fill, FILLS)
        if self.denied.any():
            raise InputError(f"{int(self.denied.sum())} of {len(self)} answers were denied: leave those out first")
        if self.probabilities is None:
            return F.one_hot(self.labels, class_count).float()
        targets = self.probabilities
        if self.classes is not None:
            hidden = (1 - targets.sum(1, keepdim=True)).clamp(min=0) / max(1, class_count - targets.shape[1])
            hidden *= fill == "even"
            targets = hidden.expand(-1, class_count).scatter(1, self.classes, targets)
        sums = targets.sum(1, keepdim=True)
        targets, empty = targets / sums, sums[:, 0] == 0
        targets[empty] = F.one_hot(self.labels[empty], class_count).to(targets.dtype)
        return targets


KINDS: Registry[Callable[..., "Granularity"]] = Registry("granularity")
"""The kinds of granularity by the first word of their names; a subclass adds itself."""


@dataclass(frozen=True)
class Granularity:
    """What an answer shows; a subclass defines `kind`, at most one number as its field, and what it shows (`_shown`).

    Examples:
        >>> import extractlib as xl
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Confidence(xl.api.Granularity, kind="confidence"):
        ...     "The label and its probability."
        ...
        ...     def _shown(self, probabilities):
        ...         values, classes = probabilities.max(1, keepdim=True)
        ...         return classes, values
        >>> victim, signs = xl.load_victim("signs"), xl.load("signs").test
        >>> xl.PredictionAPI(victim, answers="confidence").query(signs.images[:3]).probabilities.shape
        torch.Size([3, 1])

    Raises:
        InputError: The subclass's value is not allowed.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, *, kind: str):
        if not re.fullmatch("[a-z]+", kind, re.ASCII):
            raise InputError(f"the kind of a granularity is {kind!r}: use small letters only, so that its name is read")
        cls.kind = kind
        KINDS.add(kind, cls)

    def __str__(self) -> str:
        return "-".join(map(str, (self.kind, *astuple(self))))

    @classmethod
    def parse(cls, text: "str | Granularity") -> "Granularity":
        """Return the granularity with that name, such as ``"top-5"``; the inverse of `str`.

        Raises:
            InputError: There is none with that name.
        """
        if isinstance(text, Granularity):
            if cls.parse(str(text)) != text:  # a transfer set stores the name
                raise InputError(f"granularity {text} is not what its name is read as: decorate it as a dataclass")
            return text
        try:
            named = re.fullmatch(r"([a-z]+)(?:-([0-9.]+))?", str(text), re.ASCII)
            kind, number = named.groups() if named else (str(text), None)
            return KINDS[kind]() if number is None else KINDS[kind](json.loads(number))
        except (InputError, TypeError, ValueError):
            raise InputError(f"unknown granularity {str(text)[:100]!r}: use {WORDS}") from None

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return all probabilities, float32 of shape (n, classes), before anything is hidden."""
        return F.softmax(logits.to(torch.get_default_dtype()), 1)

    def apply(self, logits: torch.Tensor) -> Answers:
        """Return the answers for logits of shape (n, classes)."""
        return self.show(self.probabilities(logits))

    def show(self, probabilities: torch.Tensor) -> Answers:
        """Return the part of the probabilities, shape (n, classes), that this granularity shows.

        The label is always that of the given probabilities, even if rounding makes classes equal. A row of NaN is a
        denied answer.
        """
        denied = probabilities.isnan().any(1)
        labels = probabilities.argmax(1).masked_fill(denied, DENIED)
        return Answers(labels, *self._shown(probabilities.masked_fill(denied[:, None], 0.0)))

    def check(self, answers: object, *, count: int, classes: int) -> Answers:
        """Return what an API returned if these can be answers to `count` images with so many classes.

        They come back in memory, without gradients, with int64 labels and float32 or float64 probabilities.

        Raises:
            InputError: It is something else, or its labels or probabilities are outside their range.
        """
        found, precision = "", CLOSE
        if isinstance(answers, Answers):
            if is_plain(answers.probabilities) and answers.probabilities.is_floating_point():
                precision = max(CLOSE, torch.finfo(answers.probabilities.dtype).eps)
            answers = _in_memory(answers)
        if not isinstance(answers, Answers):
            found = f"are {kind_name(answers)}"
        elif not is_plain(answers.labels) or tuple(answers.labels.shape) != (count,) or not _whole(answers.labels):
            found = f"have labels {kind_of(answers.labels)} for {count} images"
        elif not bool(((answers.labels >= DENIED) & (answers.labels < classes)).all()):
            found = f"have labels from {int(answers.labels.min())} to {int(answers.labels.max())} for {classes} classes"
        elif not all(part is None or is_plain(part) for part in (answers.classes, answers.probabilities)):
            found = f"have classes and probabilities {kind_of(answers.classes)} and {kind_of(answers.probabilities)}"
        elif answers.classes is not None and not _whole(answers.classes):
            found = f"have classes {kind_of(answers.classes)}"
        elif answers.classes is not None and not bool(((answers.classes >= 0) & (answers.classes < classes)).all()):
            found = f"have classes from {int(answers.classes.min())} to {int(answers.classes.max())} of {classes}"
        elif answers.classes is not None and bool((answers.classes.sort(1).values.diff() == 0)[~answers.denied].any()):
            found = "have the same class twice for an image"
        elif answers.classes is not None and bool((answers.classes[:, 0] != answers.labels)[~answers.denied].any()):
            found = "have a label that is not the first of the classes"
        elif answers.probabilities is not None:
            rows = answers.probabilities.double()
            if not bool(((rows >= 0) & (rows <= 1)).all()):
                found = f"have probabilities from {float(rows.min()):.9g} to {float(rows.max()):.9g}"
            elif self.scale is None and bool((rows.sum(1) > 1 + precision).any()):
                found = f"have probabilities that sum to {float(rows.sum(1).max()):.9g}"
        if not isinstance(answers, Answers) or found:
            raise InputError(f"the API's answers {found}: return granularity.show(…) of probabilities (n, classes)")
        return answers

    def _shown(self, probabilities: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return `Answers.classes` and `Answers.probabilities` for probabilities without NaN; None for what is hidden.

        The only method that a granularity has to define.
        """
        raise InputError(f"granularity {self} does not say what it shows: define {type(self).__name__}._shown")

    # -- as bytes ------------------------------------------------------------

    @property
    def scale(self) -> int | None:
        """The factor that makes stored probabilities exact whole numbers; None if they are not decimals."""
        return None

    def record(self, class_count: int, *, real: str = "<f4") -> np.dtype:
        """Return the layout of one answer in bytes.

        Args:
            class_count: Number of the victim's classes.
            real: Type of a probability that is not stored as a whole number.

        Raises:
            InputError: There are too many classes, or fewer than the granularity shows.
        """
        if class_count > MOST_CLASSES:
            raise InputError(f"the victim has {class_count} classes: at most {MOST_CLASSES} are possible")
        shown = self.show(torch.zeros(1, class_count))
        stored = real if self.scale is None else np.min_scalar_type(self.scale).newbyteorder("<")
        fields = {"classes": (shown.classes, "<u2"), "probabilities": (shown.probabilities, stored)}
        layout = [(name, kind, tuple(part.shape[1:])) for name, (part, kind) in fields.items() if part is not None]
        return np.dtype([("label", "<u2"), *layout])

    def pack(self, answers: Answers, record: np.dtype) -> np.ndarray:
        """Return the answers as an array of shape (n,) whose dtype is `record`.

        Raises:
            InputError: They do not show what this granularity shows.
        """
        packed = np.empty(len(answers), record)
        packed["label"] = answers.labels.numpy().astype(np.uint16)  # -1 wraps around to the last number
        for name in (record.names or ())[1:]:
            shown = getattr(answers, name)
            if shown is None or shown.shape != (len(answers), *record[name].shape):
                raise InputError(f"the answers' {name} are not those of granularity {self}: fix the API")
            whole = name == "probabilities" and self.scale is not None
            packed[name] = np.rint(shown.double().numpy() * self.scale) if whole else shown.numpy()
        return packed

    def unpack(self, packed: np.ndarray) -> Answers:
        """Return what `pack` was given, in tensors that share no memory with anything."""
        labels, names = torch.from_numpy(packed["label"].astype(np.int64)), packed.dtype.names or ()
        classes = torch.from_numpy(packed["classes"].astype(np.int64)) if "classes" in names else None
        probabilities = None
        if "probabilities" in names:
            values = packed["probabilities"]
            values = values if self.scale is None else values / np.float64(self.scale)
            probabilities = torch.from_numpy(values.astype(np.float32))
        return Answers(labels.masked_fill(labels == MOST_CLASSES, DENIED), classes, probabilities)


@dataclass(frozen=True)
class Full(Granularity, kind="full"):
    """All probabilities.

    Examples:
        >>> import extractlib as xl, torch
        >>> xl.Full().show(torch.tensor([[0.2, 0.5, 0.3]])).probabilities
        tensor([[0.2000, 0.5000, 0.3000]])
    """

    def _shown(self, probabilities: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, probabilities


@dataclass(frozen=True)
class TopK(Granularity, kind="top"):
    """The k most probable classes with their probabilities.

    Attributes:
        k: How many, at least 1.

    Examples:
        >>> import extractlib as xl, torch
        >>> xl.TopK(2).show(torch.tensor([[0.125, 0.625, 0.25]])).classes
        tensor([[1, 2]])
    """

    k: int

    def __post_init__(self) -> None:
        keep(self, k=_check(self, whole(self.k), self.k, 1, MOST_CLASSES))

    def _shown(self, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.k > probabilities.shape[1]:
            raise InputError(f"granularity {self}: the victim has only {probabilities.shape[1]} classes")
        values, classes = probabilities.sort(dim=1, descending=True, stable=True)
        # Copies: a slice would carry the hidden rest in its storage.
        return classes[:, : self.k].clone(), values[:, : self.k].clone()


@dataclass(frozen=True)
class Rounded(Granularity, kind="rounded"):
    """All probabilities, rounded.

    Attributes:
        decimals: The number of decimals, 0 to 6.

    Examples:
        >>> import extractlib as xl, torch
        >>> xl.Rounded(1).show(torch.tensor([[0.12, 0.61, 0.27]])).probabilities
        tensor([[0.1000, 0.6000, 0.3000]])
    """

    decimals: int

    def __post_init__(self) -> None:
        keep(self, decimals=_check(self, whole(self.decimals), self.decimals, 0, 6))

    @property
    def scale(self) -> int:
        """The factor that makes stored probabilities exact whole numbers."""
        return int(10**self.decimals)

    def _shown(self, probabilities: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, ((probabilities.double() * self.scale).round() / self.scale).float()


@dataclass(frozen=True)
class Label(Granularity, kind="label"):
    """The label alone.

    Examples:
        >>> import extractlib as xl, torch
        >>> answers = xl.Label().show(torch.tensor([[0.2, 0.5, 0.3]]))
        >>> answers.labels, answers.probabilities
        (tensor([1]), None)
    """

    def _shown(self, probabilities: torch.Tensor) -> tuple[None, None]:
        return None, None


@dataclass(frozen=True)
class Temperature(Granularity, kind="temperature"):
    """All probabilities, the softmax of the logits divided by a temperature.

    Attributes:
        temperature: 0.01 to 100; above 1 it flattens the distribution.

    Examples:
        >>> import extractlib as xl, torch
        >>> xl.Temperature(1000 / 10).apply(torch.tensor([[0.0, 100.0]])).probabilities
        tensor([[0.2689, 0.7311]])
    """

    temperature: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.temperature, Real) and not isinstance(self.temperature, bool)
        number = float(self.temperature) if is_number else None
        keep(self, temperature=_check(self, number, self.temperature, 0.01, 100.0))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return all probabilities, float32 of shape (n, classes), before anything is hidden."""
        return super().probabilities(logits.to(torch.get_default_dtype()) / self.temperature)

    def _shown(self, probabilities: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, probabilities


def _whole(numbers: torch.Tensor) -> bool:
    return not (numbers.is_floating_point() or numbers.dtype == torch.bool)


def _in_memory(answers: Answers) -> Answers:
    """Return answers of any device and precision as the package's own are; what is no such number stays as it is."""

    def numbers(part: torch.Tensor | None) -> Any:
        return part.detach().cpu().long() if is_plain(part) and _whole(part) else part

    rows = answers.probabilities
    if is_plain(rows):
        rows = rows.detach().cpu()
        rows = rows if rows.dtype == torch.float64 else rows.float()
    return Answers(numbers(answers.labels), numbers(answers.classes), rows)


def _check(granularity: Granularity, number: float | None, given: object, lowest: float, highest: float) -> float:
    """Return a number, or reject what was given in its place: None stands for something else than such a number."""
    if number is None or not lowest <= number <= highest:
        raise InputError(f"unknown granularity '{granularity.kind}-{str(given)[:100]}': use {WORDS}")
    return number
