"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from extractlib.api.meter import BudgetExceeded, Meter, Request, Terms, Usage
from extractlib.errors import InputError, positive
from extractlib.models.victims import Victim
from extractlib.store import digest

__all__ = ["Answers", "BudgetExceeded", "Detector", "Granularity", "Policy", "PredictionAPI", "Usage"]

MOST_CLASSES = 65_535
"""Classes are stored as 16-bit numbers, of which the last stands for a denied answer."""

DENIED = -1
"""The label of an answer that was denied."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the API returns for n images.

    Attributes:
        labels: int64 of shape (n,): the most probable class, the lowest of equals; -1 where the answer is denied.
        classes: int64 of shape (n, m): the classes shown, by falling probability; None where all are or none is.
        probabilities: float32 of shape (n, m) in [0, 1], of `classes` or of all classes in order, zeros where
            the answer is denied; None where only the label is shown.
    """

    labels: torch.Tensor
    classes: torch.Tensor | None
    probabilities: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | torch.Tensor) -> "Answers":
        shown = (self.labels, self.classes, self.probabilities)
        return Answers(*(None if part is None else part[rows] for part in shown))

    @property
    def denied(self) -> torch.Tensor:
        """bool of shape (n,): which queries were not answered."""
        return self.labels == DENIED

    def targets(self, class_count: int) -> torch.Tensor:
        """Return soft targets to train a surrogate on.

        What a top-k answer does not show is spread evenly over the other classes. Rounded probabilities are scaled to
        the sum 1. A label, and an answer rounded to nothing but zeros, count as certain.

        Args:
            class_count: Number of the victim's classes.

        Returns:
            float32 of shape (n, class_count) with rows that sum to 1.

        Raises:
            InputError: An answer was denied.
        """
        if self.denied.any():
            raise InputError(f"{int(self.denied.sum())} of {len(self)} answers were denied: leave those out first")
        certain = F.one_hot(self.labels, class_count).float()
        if self.probabilities is None:
            return certain
        targets = self.probabilities
        if self.classes is not None:
            hidden = (1 - targets.sum(1, keepdim=True)).clamp(min=0) / max(1, class_count - targets.shape[1])
            targets = hidden.expand(-1, class_count).scatter(1, self.classes, targets)
        sums = targets.sum(1, keepdim=True)
        return torch.where(sums > 0, targets / sums, certain)


FORMS: Mapping[str, tuple[type, float, float] | None] = {
    "full": None,
    "top": (int, 1, MOST_CLASSES),
    "rounded": (int, 0, 6),
    "label": None,
    "temperature": (float, 0.01, 100.0),
}
"""Kinds of granularity, each with the type and the range of its value."""


@dataclass(frozen=True)
class Granularity:
    """What an answer shows (the paper, section 3.4; temperature: softmax of the logits divided by it).

    Attributes:
        kind: ``"full"``, ``"top"``, ``"rounded"``, ``"label"`` or ``"temperature"``.
        value: Number of classes shown, number of decimals from 0 to 6, or temperature from 0.01 to 100; else None.

    Raises:
        InputError: The kind is unknown or its value does not fit.
    """

    kind: str
    value: int | float | None = None

    def __post_init__(self):
        form = FORMS.get(self.kind)
        if form is None:
            fits = self.kind in FORMS and self.value is None
        else:
            number, lowest, highest = form
            fits = type(self.value) is number and lowest <= self.value <= highest
        if not fits:
            raise _unknown(self)

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}-{self.value}"

    @classmethod
    def parse(cls, text: "str | Granularity") -> "Granularity":
        """Return the granularity that is written as `text`, such as ``"top-5"``; the inverse of `str`.

        Raises:
            InputError: The text names none.
        """
        kind, dash, value = str(text).partition("-")
        form = FORMS.get(kind)
        try:
            return cls(kind, form[0](value) if form else value if dash else None)
        except ValueError:
            raise _unknown(text) from None

    def apply(self, logits: torch.Tensor) -> Answers:
        """Return the answers for logits of shape (n, classes)."""
        return self.show(self.probabilities(logits))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return all probabilities, float32 of shape (n, classes), before anything is hidden."""
        return F.softmax(logits.to(torch.get_default_dtype()) / (self.value if self.kind == "temperature" else 1), 1)

    def show(self, probabilities: torch.Tensor) -> Answers:
        """Return the part of the probabilities, shape (n, classes), that this granularity shows.

        The label is always that of the probabilities given, also where rounding makes classes equal. A row of NaN is a
        denied answer.
        """
        denied = probabilities.isnan().any(1)
        labels = probabilities.argmax(1).masked_fill(denied, DENIED)
        probabilities = probabilities.masked_fill(denied[:, None], 0.0)
        if self.kind == "label":
            return Answers(labels, None, None)
        if self.kind == "top":
            values, classes = probabilities.sort(dim=1, descending=True, stable=True)
            # Copies: a slice would carry the hidden rest in its storage.
            return Answers(labels, classes[:, : self.value].clone(), values[:, : self.value].clone())
        if self.kind == "rounded":
            probabilities = ((probabilities.double() * self._scale).round() / self._scale).float()
        return Answers(labels, None, probabilities)

    def record(self, class_count: int, *, real: str = "<f4") -> np.dtype:
        """Return the layout of one answer of `class_count` classes in bytes.

        Args:
            class_count: Number of the victim's classes.
            real: Type of a probability; where it is rounded, it is stored as a whole number, exactly.

        Raises:
            InputError: There are too many classes, or fewer than the granularity shows.
        """
        if class_count > MOST_CLASSES:
            raise InputError(f"the victim has {class_count} classes: at most {MOST_CLASSES} are possible")
        if self.kind == "top" and self.value > class_count:
            raise InputError(f"granularity {self}: the victim has only {class_count} classes")
        fields: list[tuple] = [("label", "<u2")]
        shown = self.value if self.kind == "top" else class_count
        if self.kind == "top":
            fields.append(("classes", "<u2", (shown,)))
        if self.kind == "rounded":
            real = np.min_scalar_type(self._scale).newbyteorder("<")
        if self.kind != "label":
            fields.append(("probabilities", real, (shown,)))
        return np.dtype(fields)

    def pack(self, answers: Answers, record: np.dtype) -> np.ndarray:
        """Return the answers as an array of shape (n,) whose dtype is `record`."""
        packed = np.empty(len(answers), record)
        packed["label"] = answers.labels.numpy().astype(np.uint16)  # -1 wraps around to the last number
        if answers.classes is not None:
            packed["classes"] = answers.classes.numpy()
        if answers.probabilities is not None:
            probabilities = answers.probabilities.numpy()
            if self.kind == "rounded":
                probabilities = np.rint(probabilities.astype(np.float64) * self._scale)
            packed["probabilities"] = probabilities
        return packed

    def unpack(self, packed: np.ndarray) -> Answers:
        """Return what `pack` was given, in tensors that share no memory with anything."""
        labels = torch.from_numpy(packed["label"].astype(np.int64))
        parts: list[torch.Tensor | None] = [labels.masked_fill(labels == MOST_CLASSES, DENIED), None, None]
        if self.kind == "top":
            parts[1] = torch.from_numpy(packed["classes"].astype(np.int64))
        if self.kind != "label":
            probabilities = packed["probabilities"]
            if self.kind == "rounded":
                probabilities = probabilities / np.float64(self._scale)
            parts[2] = torch.from_numpy(probabilities.astype(np.float32))
        return Answers(*parts)

    @property
    def _scale(self) -> int:
        return 10**self.value


def _unknown(granularity: object) -> InputError:
    return InputError(
        f"unknown granularity {str(granularity)!r}: use full, top-K with K from 1, rounded-D with 0 to 6 decimals,"
        " label, or temperature-T with T from 0.01 to 100"
    )


class Detector(Protocol):
    """Tells an attacker's queries from benign ones."""

    fingerprint: str

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,) for uint8 images: True for out-of-distribution, an attacker's."""


class Policy(Protocol):
    """Alters the answers to detected queries."""

    fingerprint: str

    def answer(self, probabilities: torch.Tensor, detected: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities to show, shape (n, classes), given the true ones, the detection and the images.

        A row of NaN denies the answer. The query is charged all the same: what a client is charged must not tell which
        of its queries were detected.
        """


class PredictionAPI:
    """Serves a victim to clients, each with a budget, and meters every query.

    Args:
        victim: The model behind the API.
        granularity: What an answer shows, as text or as `Granularity`.
        budget: Queries each client may send; None for no limit.
        price: Cost of one query.
        meter: Keeps accounts and answers; a new one in memory if None.
        detector: Looks at each query; needs a policy.
        policy: Alters the answers to what the detector found; needs a detector.
        batch_size: Images that go through the victim at a time.

    Attributes:
        granularity: What an answer shows.
        classes: Name of each of the victim's classes.
        fingerprint: Digest of all that decides the answers: victim, granularity, detector and policy.

    Raises:
        InputError: A value does not fit, or detector and policy are not both there.
    """

    def __init__(
        self,
        victim: Victim,
        *,
        granularity: str | Granularity = "full",
        budget: int | None = None,
        price: float = 0.0,
        meter: Meter | None = None,
        detector: Detector | None = None,
        policy: Policy | None = None,
        batch_size: int = 512,
    ):
        if (detector is None) != (policy is None):
            raise InputError("detector and policy belong together: give both or neither")
        self.granularity = Granularity.parse(granularity)
        self.classes = victim.classes
        defence = [] if detector is None else [detector.fingerprint, policy.fingerprint]
        self.fingerprint = digest(victim.fingerprint, str(self.granularity), *defence)
        self._victim, self._detector, self._policy = victim, detector, policy
        self._record = self.granularity.record(len(victim.classes))
        self._terms = Terms(budget=budget, price=price)
        self._meter = Meter() if meter is None else meter
        self._batch_size = positive("batch size", batch_size)

    def query(self, images: torch.Tensor, *, client: str = "anonymous", request: str | None = None) -> Answers:
        """Answer a batch of images and charge the client for them, all or nothing.

        Args:
            images: uint8 of shape (n, 3, height, width), n from 1.
            client: Who asks.
            request: The client's id of this request. Sent again with the same images it returns the same answers for
                free. A new one is made up if None.

        Returns:
            Answers that hold nothing but what the granularity shows.

        Raises:
            InputError: The images are no such tensor, or the id was used for others. Nothing is charged.
            BudgetExceeded: Fewer queries are left than there are images. Nothing is charged.
        """
        images = self._checked(images)
        request = Request(
            client=client,
            id=uuid.uuid4().hex if request is None else request,
            digest=self._digest(images),
            queries=len(images),
        )
        answer = self._meter.check(request, self._terms)
        if answer is None:
            # Outside any lock; what happened meanwhile is checked again when it is charged.
            answer = self._meter.charge(request, self._compute(images), self._terms)
        # Read back from what the meter stored: a retry returns the same, and nothing hidden can ride along.
        return self.granularity.unpack(np.frombuffer(answer, self._record))

    def register(self, client: str, *, budget: int | None = None, price: float | None = None) -> None:
        """Give a client a budget or a price of its own; None leaves the API's.

        Raises:
            InputError: Budget or price is out of range.
        """
        self._meter.register(client, Terms(budget=budget, price=price))

    def usage(self, client: str) -> Usage:
        """Return what a client has asked, what is left, and what it cost."""
        return self._meter.usage(client, self._terms)

    def _checked(self, images: torch.Tensor) -> torch.Tensor:
        shape = self._victim.image_shape
        wanted = f"uint8 of shape (n, {', '.join(map(str, shape))}) is wanted"
        if not isinstance(images, torch.Tensor):
            raise InputError(f"images are a {type(images).__name__}: a tensor, {wanted}")
        if images.is_floating_point() and images.isnan().any():
            raise InputError(f"images are {images.dtype} and hold NaN: {wanted}")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise InputError(f"images are {images.dtype} of shape {tuple(images.shape)}: {wanted}")
        if not len(images):
            raise InputError(f"images are of shape {tuple(images.shape)}, none at all: at least one is wanted")
        return images.cpu().contiguous()

    def _digest(self, images: torch.Tensor) -> bytes:
        state = hashlib.sha256(self.fingerprint.encode())
        state.update(images.numpy())
        return state.digest()

    @torch.no_grad()
    def _compute(self, images: torch.Tensor) -> bytes:
        packed = []
        for batch in images.split(self._batch_size):
            probabilities = self.granularity.probabilities(self._victim.logits(batch))
            if self._detector is not None:
                probabilities = self._policy.answer(probabilities, self._detector.detect(batch), batch)
            packed.append(self.granularity.pack(self.granularity.show(probabilities), self._record).tobytes())
        return b"".join(packed)
