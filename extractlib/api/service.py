"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query."""

import hashlib
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from extractlib.api.granularity import Answers, Granularity
from extractlib.api.meter import Meter, Request, Terms, Usage
from extractlib.data.images import check_images
from extractlib.errors import InputError, ResultWarning, check_classes, check_has, check_name, check_positive, described
from extractlib.store import digest
from extractlib.tensors import CLOSE, is_plain, kind_of

__all__ = ["Answers", "Detector", "Granularity", "Model", "Policy", "PredictionAPI"]


ANONYMOUS = "anonymous"
"""The name of a client that gives none."""

NEEDED = ("classes", "fingerprint", "image_shape", "logits")
"""What a victim must have (see `Model`)."""


class Model(Protocol):
    """What the API serves: any classifier with class names, an image shape and a digest of its weights."""

    @property
    def classes(self) -> Sequence[str]:
        """Name of each class."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines the answers."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(channels, height, width) of the images it takes; any if None."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, channels, height, width)."""


class Detector(Protocol):
    """Distinguishes an attacker's queries from benign ones."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines what is caught."""

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,) for uint8 images: True for out-of-distribution ones, an attacker's."""


class Policy(Protocol):
    """Alters the answers to detected queries."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines what is shown."""

    def answer(self, probabilities: torch.Tensor, detected: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities to show, shape (n, classes), given the true ones, the detection and the images.

        A row of NaN denies the answer. The query is charged all the same: a client's charges must not reveal which of
        its queries were detected.
        """


class Fault(InputError):
    """Victim, detector or policy failed or returned nonsense: its owner can fix that, a client cannot."""


class PredictionAPI:
    """Serves a victim to clients, each with a budget, and meters every query.

    Args:
        victim: The model behind the API.
        answers: What an answer shows, as a name (``"top-5"``) or as a `Granularity`.
        budget: Queries each client may send; None for no limit.
        price: Cost of one query.
        meter: Keeps accounts and answers, or the file or address of one (see `Meter`); a new one in memory if None.
        detector: Looks at each query; needs a policy.
        policy: Alters the answers to queries that the detector flags; needs a detector.
        batch_size: Images that go through the victim at a time, 1 to 65,536.

    Attributes:
        granularity: What an answer shows.
        classes: Name of each of the victim's classes.

    Raises:
        InputError: A value is not allowed, or only one of detector and policy is given.

    Examples:
        >>> import extractlib as xl
        >>> api = xl.PredictionAPI(xl.load_victim("signs"), answers="top-2", budget=100)
        >>> api.query(xl.load("signs").test.images[:3]).probabilities.shape
        torch.Size([3, 2])
        >>> api.usage().queries, api.usage().remaining
        (3, 97)
    """

    def __init__(
        self,
        victim: Model,
        *,
        answers: str | Granularity = "full",
        budget: int | None = None,
        price: float = 0.0,
        meter: Meter | Path | str | None = None,
        detector: Detector | None = None,
        policy: Policy | None = None,
        batch_size: int = 512,
    ):
        if (detector is None) != (policy is None):
            raise InputError("detector and policy belong together: give both or neither")
        check_has("victim", victim, NEEDED, remedy="wrap a module in Victim(module, classes=…)")
        self.granularity = Granularity.parse(answers)
        self.classes = check_classes(victim.classes)
        check_name("fingerprint of the victim", victim.fingerprint)
        if detector is not None and policy is not None:
            check_part("detector", detector, "detect")
            check_part("policy", policy, "answer")
        self._victim, self._detector, self._policy = victim, detector, policy
        self._record = self.granularity.record(len(self.classes))
        self._terms = Terms(budget=budget, price=price)
        self._meter = meter if isinstance(meter, Meter) else Meter(meter)
        self._batch_size = check_positive("batch size", batch_size, at_most=65_536)
        self._answered = False

    @property
    def fingerprint(self) -> str:
        """Digest of everything that determines the answers: victim, granularity, detector and policy.

        A detector's threshold may be set later, and makes it another one.
        """
        defense = [part.fingerprint for part in (self._detector, self._policy) if part is not None]
        threshold = getattr(self._detector, "threshold", None)  # which your own detector's fingerprint may leave out
        defense += [] if threshold is None else [repr(threshold)]
        return digest(self._victim.fingerprint, str(self.granularity), *defense)

    def query(self, images: torch.Tensor, *, client: str = ANONYMOUS, request: str | None = None) -> Answers:
        """Answer a batch of images and charge the client for them, all or nothing.

        Args:
            images: uint8 of shape (n, channels, height, width), n at least 1.
            client: Who sends the queries.
            request: The client's id of this request. Sent again with the same images, it returns the same answers for
                free. If None, a new one is generated.

        Returns:
            Answers that hold nothing but what the granularity shows.

        Raises:
            InputError: The images are not such a tensor, the id was used for other images, or the victim's output is
                not an answer (wrong shape, NaN). Nothing is charged.
            BudgetExceeded: Fewer queries are left than there are images. Nothing is charged.
        """
        images = check_images(images, self._victim.image_shape, at_least=1)[:].cpu().contiguous()
        request_id = uuid.uuid4().hex if request is None else request
        before = self.fingerprint
        state = hashlib.sha256(before.encode())
        if self._victim.image_shape is None:  # otherwise there is only one
            state.update(repr(tuple(images.shape)).encode())
        state.update(images.numpy().data)
        asked = Request(client=client, id=request_id, digest=state.digest(), queries=len(images))
        terms = self._terms_of(client)
        answer = self._meter.check(asked, terms)
        if answer is None:
            # Outside any lock; what happened meanwhile is checked again when the request is charged.
            answer = self._meter.charge(asked, self._compute(images), terms)
            self._check_same(before)
        # Read back from what the meter stored: a retry returns the same, and nothing hidden can ride along.
        return self._unpack(answer)

    def __repr__(self) -> str:
        return f"PredictionAPI({len(self.classes)} classes, answers {self.granularity}, budget {self._terms.budget})"

    def usage(self, client: str | None = None) -> Usage:
        """Return how many queries a client has sent, how many are left, and what they cost.

        For None, it is that of the meter's only client, whatever its name. Several have no common budget: then it is
        what they have sent together, without one.
        """
        if client is None:
            clients = self._meter.clients() or [ANONYMOUS]
            if len(clients) > 1:
                return self._meter.total()
            [client] = clients
        return self._meter.usage(client, self._terms_of(client))

    def answers(self, client: str, *, after: str = "", most: int = 100) -> list[tuple[str, Answers]]:
        """Return earlier answers to a client, in the order of its requests' ids: at most `most` after `after`.

        Args:
            client: Who was answered; it has used no other API of this meter.
            after: The last id of the previous part; empty for the first part.
            most: Most requests in a part.
        """
        found = self._meter.answers(client, after=after, most=most)
        return [(request, self._unpack(answer)) for request, answer in found]

    def _terms_of(self, client: str) -> Terms:
        return self._terms

    def _unpack(self, answer: bytes) -> Answers:
        return self.granularity.unpack(np.frombuffer(answer, self._record))

    def _check_same(self, fingerprint: str) -> None:
        """Warn, once, if the first answer has changed the victim, as where a module keeps what it has seen."""
        if not self._answered and self.fingerprint != fingerprint:
            warnings.warn(
                "the API's fingerprint changes when it answers, as if the module keeps something of each image: give"
                " Victim(…, fingerprint='…'), or requests that are repeated will be refused",
                ResultWarning,
                stacklevel=3,
            )
        self._answered = True

    @torch.no_grad()
    def _compute(self, images: torch.Tensor) -> bytes:
        packed = []
        for batch in images.split(self._batch_size):
            shape = len(batch), len(self.classes)
            logits = self._ask("victim", self._victim.logits, batch, shape=shape)
            if not logits.isfinite().all():
                raise _fault("victim", "returned NaN or infinite logits")
            probabilities = self.granularity.probabilities(logits)
            if self._detector is not None and self._policy is not None:
                detected = self._ask("detector", self._detector.detect, batch, shape=shape[:1])
                if detected.dtype != torch.bool:
                    raise _fault("detector", f"returned {detected.dtype}, not bool")
                probabilities = self._ask("policy", self._policy.answer, probabilities, detected, batch, shape=shape)
                rows = probabilities.double()
                right = (rows >= 0).all(1) & ((rows.sum(1) - 1).abs() < CLOSE)
                if not (right | rows.isnan().all(1)).all():
                    raise _fault("policy", "returned rows that are neither probabilities nor entirely NaN")
            packed.append(self.granularity.pack(self.granularity.show(probabilities), self._record).tobytes())
        return b"".join(packed)

    def _ask(
        self, who: str, call: Callable[..., torch.Tensor], *given: torch.Tensor, shape: Sequence[int]
    ) -> torch.Tensor:
        """Return the output of victim, detector or policy, if it is numbers of that shape.

        Raises:
            Fault: It is something else, or the call failed.
        """
        try:
            answer = call(*given)
        except InputError as error:  # says itself what to mend
            raise Fault(str(error)) from error
        except Exception as error:  # someone else's code can fail in any way
            raise _fault(who, f"failed ({described(error)})") from error
        if not is_plain(answer) or tuple(answer.shape) != tuple(shape):
            classes = f" and {len(self.classes)} classes" if len(shape) > 1 else ""
            wanted = f"{'bool' if who == 'detector' else 'float'} of shape {tuple(shape)}"
            raise _fault(who, f"returned {kind_of(answer)} for {shape[0]} images{classes}, not a tensor, {wanted}")
        return answer


def check_part(who: str, part: Detector | Policy, verb: str) -> None:
    """Reject a detector or policy that lacks the method `verb` or a fingerprint.

    Raises:
        InputError: It does.
    """
    check_has(who, part, ("fingerprint", verb), remedy=f"give it a fingerprint and {verb}()")
    check_name(f"fingerprint of the {who}", part.fingerprint)


def _fault(who: str, what: str) -> Fault:
    return Fault(f"the {who} {what}: fix the {who}; nothing was charged")
