"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query."""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from extractlib.api.granularity import Answers, Granularity
from extractlib.api.meter import Meter, Request, Terms, Usage
from extractlib.data.images import check_images
from extractlib.errors import InputError, check_has, check_positive
from extractlib.store import digest

__all__ = ["Answers", "Detector", "Granularity", "Model", "Policy", "PredictionAPI"]


NEEDED = ("classes", "fingerprint", "image_shape", "logits")
"""What a victim must have (see `Model`)."""


class Model(Protocol):
    """What the API serves: any classifier with class names, an image shape and a digest of its weights."""

    @property
    def classes(self) -> Sequence[str]:
        """Name of each class."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the answers."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of the images it takes; any if None."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, channels, height, width)."""


class Detector(Protocol):
    """Tells an attacker's queries from benign ones."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides what is caught."""

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,) for uint8 images: True for out-of-distribution, an attacker's."""


class Policy(Protocol):
    """Alters the answers to detected queries."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides what is shown."""

    def answer(self, probabilities: torch.Tensor, detected: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities to show, shape (n, classes), given the true ones, the detection and the images.

        A row of NaN denies the answer. The query is charged all the same: what a client is charged must not tell which
        of its queries were detected.
        """


class PredictionAPI:
    """Serves a victim to clients, each with a budget, and meters every query.

    Args:
        victim: The model behind the API.
        answers: What an answer shows, as a name (``"top-5"``) or as a `Granularity`.
        budget: Queries each client may send; None for no limit.
        price: Cost of one query.
        meter: Keeps accounts and answers; a new one in memory if None.
        detector: Looks at each query; needs a policy.
        policy: Alters the answers to what the detector found; needs a detector.
        batch_size: Images that go through the victim at a time, 1 to 65,536.

    Attributes:
        granularity: What an answer shows.
        classes: Name of each of the victim's classes.
        fingerprint: Digest of all that decides the answers: victim, granularity, detector and policy.

    Raises:
        InputError: A value does not fit, or detector and policy are not both there.

    Examples:
        >>> import extractlib as xl
        >>> api = xl.PredictionAPI(xl.load_victim("signs"), answers="top-2", budget=100)
        >>> api.query(xl.load("signs").test.images[:3]).probabilities.shape
        torch.Size([3, 2])
        >>> api.usage("anonymous").remaining
        97
    """

    def __init__(
        self,
        victim: Model,
        *,
        answers: str | Granularity = "full",
        budget: int | None = None,
        price: float = 0.0,
        meter: Meter | None = None,
        detector: Detector | None = None,
        policy: Policy | None = None,
        batch_size: int = 512,
    ):
        if (detector is None) != (policy is None):
            raise InputError("detector and policy belong together: give both or neither")
        check_has("victim", victim, NEEDED, remedy="wrap a module in Victim(module, classes=…)")
        self.granularity = Granularity.parse(answers)
        self.classes = tuple(victim.classes)
        defense = [] if detector is None or policy is None else [detector.fingerprint, policy.fingerprint]
        self.fingerprint = digest(victim.fingerprint, str(self.granularity), *defense)
        self._victim, self._detector, self._policy = victim, detector, policy
        self._record = self.granularity.record(len(self.classes))
        self._terms = Terms(budget=budget, price=price)
        self._meter = Meter() if meter is None else meter
        self._batch_size = check_positive("batch size", batch_size, at_most=65_536)

    def query(self, images: torch.Tensor, *, client: str = "anonymous", request: str | None = None) -> Answers:
        """Answer a batch of images and charge the client for them, all or nothing.

        Args:
            images: uint8 of shape (n, channels, height, width), n from 1.
            client: Who asks.
            request: The client's id of this request. Sent again with the same images it returns the same answers for
                free. A new one is made up if None.

        Returns:
            Answers that hold nothing but what the granularity shows.

        Raises:
            InputError: The images are no such tensor, the id was used for others, or the victim's output is no answer
                (wrong shape, NaN). Nothing is charged.
            BudgetExceeded: Fewer queries are left than there are images. Nothing is charged.
        """
        images = check_images(images, self._victim.image_shape, at_least=1)[:].cpu().contiguous()
        request_id = uuid.uuid4().hex if request is None else request
        state = hashlib.sha256(self.fingerprint.encode())
        state.update(images.numpy().data)
        asked = Request(client=client, id=request_id, digest=state.digest(), queries=len(images))
        terms = self._terms_of(client)
        answer = self._meter.check(asked, terms)
        if answer is None:
            # Outside any lock; what happened meanwhile is checked again when it is charged.
            answer = self._meter.charge(asked, self._compute(images), terms)
        # Read back from what the meter stored: a retry returns the same, and nothing hidden can ride along.
        return self._unpack(answer)

    def usage(self, client: str) -> Usage:
        """Return what a client has asked, what is left, and what it cost."""
        return self._meter.usage(client, self._terms_of(client))

    def answers(self, client: str, *, after: str = "", most: int = 100) -> list[tuple[str, Answers]]:
        """Return what a client was answered before, in the order of its requests' ids: at most so many behind `after`.

        Args:
            client: Who asked; it asked no other API of this meter.
            after: The last id of the part returned before; empty for the first part.
            most: Requests of a part.
        """
        found = self._meter.answers(client, after=after, most=most)
        return [(request, self._unpack(answer)) for request, answer in found]

    def _terms_of(self, client: str) -> Terms:
        return self._terms

    def _unpack(self, answer: bytes) -> Answers:
        return self.granularity.unpack(np.frombuffer(answer, self._record))

    @torch.no_grad()
    def _compute(self, images: torch.Tensor) -> bytes:
        packed = []
        for batch in images.split(self._batch_size):
            logits = self._checked("victim", self._victim.logits(batch), len(batch))
            if not logits.isfinite().all():
                raise InputError("the victim returned NaN or infinite logits: mend the victim, nothing was charged")
            probabilities = self.granularity.probabilities(logits)
            if self._detector is not None and self._policy is not None:
                altered = self._policy.answer(probabilities, self._detector.detect(batch), batch)
                probabilities = self._checked("policy", altered, len(batch))
            packed.append(self.granularity.pack(self.granularity.show(probabilities), self._record).tobytes())
        return b"".join(packed)

    def _checked(self, who: str, answer: torch.Tensor, images: int) -> torch.Tensor:
        """Return what victim or policy answered, if it is a number for each image and class."""
        if not isinstance(answer, torch.Tensor) or answer.shape != (images, len(self.classes)):
            returned = tuple(answer.shape) if isinstance(answer, torch.Tensor) else f"a {type(answer).__name__}"
            raise InputError(
                f"the {who} returned {returned} for {images} images and {len(self.classes)} classes: mend the {who},"
                " nothing was charged"
            )
        return answer
