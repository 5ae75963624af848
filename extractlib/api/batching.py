"""A prediction API for many clients at once: one thread holds the model and answers waiting requests together."""

import math
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Self

import torch

from extractlib.api.meter import Terms
from extractlib.api.service import Model, Policy, PredictionAPI, check_part
from extractlib.data.images import check_images
from extractlib.errors import InputError, described


@dataclass(frozen=True)
class Job:
    """Images that wait for the model, and where their packed answers go."""

    images: torch.Tensor
    packed: Future[bytes] = field(default_factory=Future)


class ServedAPI(PredictionAPI):
    """A prediction API whose model runs on its own thread, on the images of all waiting requests.

    A request that finds the model idle is answered as by `PredictionAPI`, in equal batches. The policy does its work
    for every query, so response times do not reveal which queries were detected.

    Args:
        victim: The model behind the API.
        policy: Alters the answers to queries that the detector flags.
        terms: Terms of clients that have their own.
        options: Further arguments of `PredictionAPI`.

    Attributes:
        image_shape: (channels, height, width) of the images it takes.

    Raises:
        InputError: As for `PredictionAPI`, the victim does not say which images it takes, as clients must know, or the
            detector has no threshold yet.
    """

    def __init__(
        self, victim: Model, *, policy: Policy | None = None, terms: Mapping[str, Terms] | None = None, **options: Any
    ):
        super().__init__(victim, policy=None if policy is None else EveryQuery(policy), **options)
        threshold = getattr(self._detector, "threshold", None)  # which your own detector may lack
        if isinstance(threshold, Real) and not threshold < math.inf:
            raise InputError(f"the detector's threshold is {threshold}: set it before the API is served")
        self._own_terms = dict(terms or {})
        if victim.image_shape is None:
            raise InputError("the victim has no image_shape: set it to the shape of the images that it takes")
        self.image_shape = tuple(victim.image_shape)
        self._jobs: deque[Job] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread is running."""
        return self._thread.is_alive()

    def check(self, images: torch.Tensor) -> torch.Tensor:
        """Return images that can be queried.

        Raises:
            InputError: They cannot.
        """
        return check_images(images, self.image_shape, at_least=1)[:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer waiting requests, and end the thread, as at the end of a with statement."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _terms_of(self, client: str) -> Terms:
        return self._own_terms.get(client, self._terms)

    def _compute(self, images: torch.Tensor) -> bytes:
        job = Job(images)
        with self._changed:
            if self._closed:
                raise InputError("the API is closed: try again when it is served again")
            self._jobs.append(job)
            self._changed.notify()
        return job.packed.result()

    def _work(self) -> None:
        while jobs := self._next():
            try:
                self._answer(jobs)
            except BaseException:  # one of them may be the cause: answer each on its own
                for job in jobs:
                    try:
                        self._answer([job])
                    except Exception as error:
                        job.packed.set_exception(error)
                    except BaseException as error:  # from someone's module: this thread must go on
                        job.packed.set_exception(RuntimeError(described(error)))

    def _next(self) -> list[Job]:
        """Wait, and return jobs that fit in one batch, with images of one shape; none once the API is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            jobs: list[Job] = []
            room = self._batch_size
            while self._jobs and (not jobs or self._fits(self._jobs[0].images, jobs[0].images, room)):
                jobs.append(self._jobs.popleft())
                room -= len(jobs[-1].images)
            return jobs

    def _fits(self, images: torch.Tensor, first: torch.Tensor, room: int) -> bool:
        return images.shape[1:] == first.shape[1:] and len(images) <= room

    def _answer(self, jobs: list[Job]) -> None:
        packed = super()._compute(torch.cat([job.images for job in jobs]))
        for job in jobs:
            size = len(job.images) * self._record.itemsize
            job.packed.set_result(packed[:size])
            packed = packed[size:]


class EveryQuery:
    """A policy that does its work for every query, but shows the result only for detected ones.

    Args:
        policy: The policy.

    Attributes:
        fingerprint: That of the policy: the answers are the same.

    Raises:
        InputError: The policy lacks a method or a fingerprint.
    """

    def __init__(self, policy: Policy):
        check_part("policy", policy, "answer")
        self._policy, self.fingerprint = policy, policy.fingerprint

    def answer(self, probabilities: torch.Tensor, detected: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities to show."""
        # A clone, since a policy may work in place.
        altered = self._policy.answer(probabilities.clone(), torch.ones_like(detected), images)
        # An output of another shape is not an answer, and the API reports it.
        fits = altered.shape == probabilities.shape
        return torch.where(detected[:, None], altered, probabilities) if fits else altered
