"""A remote prediction API, which an attack uses just like one in its own process."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
import torch

from extractlib.api import wire
from extractlib.api.granularity import Answers, Granularity
from extractlib.api.meter import BudgetExceeded, RequestReused, Usage
from extractlib.data.images import check_images
from extractlib.database import Database
from extractlib.errors import InputError, pip_install, shown
from extractlib.store import default_store, digest

try:
    import httpx
except ModuleNotFoundError:
    httpx = None  # type: ignore[assignment]

LONGEST_WAIT = 30.0
"""Most seconds between two attempts, unless the server asks for more."""

HEADER = 200
"""Bytes that are left for an npy file's header."""

TABLES = sql.MetaData()
PENDING = sql.Table(
    "pending",
    TABLES,
    sql.Column("request", sql.Text, primary_key=True),
    sql.Column("digest", sql.Text, nullable=False),
)


def connect(
    url: str, *, key: str | None = None, journal: Path | str | None = None, patience: float = 300.0
) -> RemoteAPI:
    """Return the prediction API at an address.

    Args:
        url: Address of the server; if it serves several victims, with the victim's name at the end.
        key: The client's key; the one in the environment variable EXTRACTLIB_KEY if None.
        journal: File of the requests in progress; if None, one in the cache for each address and key.
        patience: Seconds for which a request is retried while the server cannot be reached or asks to wait.

    Raises:
        InputError: There is no server, it does not know the key, or httpx is not installed.

    Examples:
        >>> import extractlib as xl
        >>> api = xl.connect("http://127.0.0.1:8000", key="xl-…")  # doctest: +SKIP
    """
    key = os.environ.get("EXTRACTLIB_KEY") if key is None else key
    if not key or not key.isascii() or not key.isprintable():
        raise InputError("there is no key: pass key=…, or set EXTRACTLIB_KEY")
    url = url.rstrip("/")  # with or without the slash, it is one address and one journal
    if journal is None:
        journal = default_store().root / "journals" / f"{digest(url, key)}.db"
    return RemoteAPI(url, key=key, journal=Path(journal), patience=patience)


class Journal:
    """The requests that were sent, or are about to be, and have not been answered; threads may share one.

    Args:
        path: The file; its folder is created if it does not exist.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = Database(path, TABLES, what="journal", journal="WAL")
        self.close = self._database.close
        self._lock, self._left = threading.Lock(), defaultdict[str, list[str]](list)
        with self._database.transaction() as connection:
            for request, images in connection.execute(sql.select(PENDING)):
                self._left[images].append(request)

    def begin(self, images: str) -> str:
        """Return the id of a request for images of this digest, which is on the disk before the request is sent.

        If an earlier request for them was sent and never answered, because its process was killed or gave up, its id is
        returned.
        """
        with self._lock:
            if left := self._left.get(images):
                return left.pop()
        request = uuid.uuid4().hex
        with self._database.transaction() as connection:
            connection.execute(sql.insert(PENDING), {"request": request, "digest": images})
        return request

    def settle(self, images: str, request: str, *, answered: bool) -> None:
        """Note that a request was answered or refused, or else that the next one for these images uses its id again.

        If the former cannot be written, it is not lost with the answer: the id is used again.
        """
        if answered:
            with suppress(InputError), self._database.transaction() as connection:
                connection.execute(sql.delete(PENDING).where(PENDING.c.request == request))
                return
        with self._lock:
            self._left[images].append(request)


class RemoteAPI:
    """A remote prediction API (see `connect`); threads may share one.

    Attributes:
        classes: Name of each of the victim's classes.
        granularity: What an answer shows.
        fingerprint: Changes when the answers do.
        image_shape: (channels, height, width) of the images it takes; any if None.

    Raises:
        InputError: There is no such server, it does not know the key, or httpx is not installed.
    """

    def __init__(self, url: str, *, key: str, journal: Path, patience: float):
        if httpx is None:
            raise InputError(f"httpx is not installed: run {pip_install('serve')}")
        self.url, self._patience = url, patience
        try:
            self._http = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(30, read=300))
            said = self._json("GET", "/victim", patience=0.0)
            self.classes = tuple(map(str, said["classes"]))
            self.granularity = Granularity.parse(said["granularity"])
            self.fingerprint = str(said["fingerprint"])
            self._most, self._bytes = int(said["limits"]["images"]), int(said["limits"]["megabytes"]) * 2**20
            shape = said["image_shape"]
            self.image_shape = None if shape is None else tuple(map(int, shape))
        except (KeyError, TypeError, ValueError, httpx.InvalidURL) as error:
            if isinstance(error, InputError):
                raise
            raise self._strange() from None
        self._record = self.granularity.record(len(self.classes))
        self._journal = Journal(journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteAPI({self.url!r}, {len(self.classes)} classes, answers {self.granularity})"

    def query(self, images: torch.Tensor, *, client: str = "anonymous", request: str | None = None) -> Answers:
        """Answer images; they are charged only once, however often they had to be sent.

        More images or bytes than the server takes at a time are several requests. Each is charged all or nothing, and
        if one fails, the answers to those before it are free when the same images are sent again.

        Args:
            images: uint8 of shape (n, channels, height, width), n at least 1.
            client: Ignored: the key identifies the client.
            request: Id of this request, which has at most as many images as the server takes at a time; if None, one is
                generated for each and kept in the journal.

        Returns:
            Answers that hold nothing but what the granularity shows.

        Raises:
            InputError: The server cannot use the images, or cannot be reached.
            RequestReused: The id was used for other images.
            BudgetExceeded: Fewer queries are left than there are images. Nothing is charged.
        """
        images = check_images(images, at_least=1)[:].cpu().contiguous()
        most = max(1, min(self._most, (self._bytes - HEADER) // max(1, images[0].nbytes)))
        if request is not None:  # the caller remembers it
            if len(images) > most:
                raise InputError(f"{len(images)} images: {self.url} takes at most {most} at a time: set batch=…")
            if not wire.REQUEST_ID.fullmatch(request):
                raise InputError(f"request is {shown(request)}: expected 1 to 255 visible ASCII characters")
            return self._query(wire.to_npy(images.numpy()), request, len(images))
        answers, begun, answered = list[Answers](), list[tuple[str, str]](), False
        try:
            for part in images.split(most):
                body = wire.to_npy(part.contiguous().numpy())
                asked = digest(self.fingerprint, body)
                begun.append((asked, self._journal.begin(asked)))
                answers.append(self._query(body, begun[-1][1], len(part)))
            answered = True
            return Answers.cat(answers)
        except InputError as error:
            if not isinstance(error, Unanswered):
                self._journal.settle(*begun.pop(), answered=True)  # it was refused
            raise
        finally:  # also when the user interrupts
            for each in begun:
                self._journal.settle(*each, answered=answered)

    def usage(self, client: str = "anonymous") -> Usage:
        """Return how many queries this key's team has sent, how many are left, and what they cost."""
        said = self._json("GET", "/usage")
        return Usage(queries=said["queries"], budget=said["budget"], cost=said["cost"])

    def answers(self) -> Iterator[tuple[str, Answers]]:
        """Yield all requests of this key's team again with their answers, in the order of their ids, for free."""
        after: str | None = ""
        while after is not None:
            said = self._json("GET", "/answers", params={"after": after})
            for each in said["answers"]:
                yield each["request"], wire.answers_from_json(each, self.granularity, self._record)
            after = said["next"]

    def submit(self, path: Path | str, *, network: str | None = None) -> dict[str, Any]:
        """Hand in a copy to a challenge, wait until it is scored, and return what the server says about it.

        Args:
            path: A model in ONNX, or weights in safetensors.
            network: The architecture, for weights.

        Raises:
            InputError: The file cannot be read, its network is not named, the server serves no challenge or does not
                accept the file, or it could not be scored.
        """
        if network is None and Path(path).suffix == ".safetensors":
            raise InputError(f"{path} holds weights, but no network is named: give it, as in network='resnet'")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): name the file that holds the copy") from None
        where = {} if network is None else {"network": network}
        try:
            said = self._json("POST", "/submissions", content=content, params=where)
        except Missing:
            raise InputError(
                f"{self.url} serves no challenge and scores no copies: evaluate yours against the labels that it gives"
                " to test images, as in xl.evaluate(api.query(test.images).labels, copy, test)"
            ) from None
        while said["state"] == "waiting":
            time.sleep(0.5)
            said = self._json("GET", f"/submissions/{said['id']}")
        if said["state"] == "failed":
            raise InputError(f"{path} was not scored: {said['reason']}")
        return {name: value for name, value in said.items() if value is not None}

    def close(self) -> None:
        """Close the connections and the journal."""
        self._http.close()
        self._journal.close()

    def _query(self, body: bytes, request: str, count: int) -> Answers:
        headers = {"Idempotency-Key": request, "Content-Type": wire.NPY, "Accept": wire.NPY}
        content = self._sent("POST", "/query", content=body, headers=headers).content
        try:
            packed = wire.from_npy(content)
        except InputError:
            raise self._strange() from None
        if packed.dtype != self._record or packed.shape != (count,):
            raise self._strange()
        return self.granularity.unpack(packed)

    def _json(self, method: str, path: str, *, patience: float | None = None, **options: Any) -> Any:
        return self._sent(method, path, patience=patience, **options).json()

    def _sent(self, method: str, path: str, *, patience: float | None = None, **options: Any) -> httpx.Response:
        """Return the response to a request, which is sent again while the server cannot be reached or asks to wait.

        Raises:
            Unanswered: The patience has run out, or the server or its victim has failed.
            InputError: The server refuses.
        """
        end, wait = time.monotonic() + (self._patience if patience is None else patience), 0.1
        while True:
            asked = None
            try:
                response = self._http.request(method, self.url + path, **options)
                if response.is_success:
                    return response
                reason, asked = _detail(response), response.headers.get("Retry-After", "")
                if _kind(response) == "fault":  # it would fail again
                    raise Unanswered(f"{self.url} failed: {reason}")
                if response.status_code < 500 and not asked:
                    raise _refusal(response, reason)
            except (httpx.TransportError, httpx.DecodingError) as error:
                reason = f"{type(error).__name__}: {error}"
            pause = float(asked) if asked and asked.isdecimal() else wait
            if time.monotonic() + pause > end:
                raise Unanswered(f"{self.url} does not answer ({' '.join(reason.split())}): check that it is running")
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    def _strange(self) -> Unanswered:
        return Unanswered(f"{self.url} does not answer like a server of this version: check the address")


class Missing(InputError):
    """The server has nothing at this address."""


class Unanswered(InputError):
    """No answer came, or none that can be read; it may have been charged, and is free when sent again."""


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"


def _kind(response: httpx.Response) -> str:
    """Return the kind of a problem, one of the server's `PROBLEMS`; empty if the response is none."""
    try:
        return str(response.json()["type"]).partition("#")[2]
    except (ValueError, KeyError, TypeError):
        return ""


def _refusal(response: httpx.Response, detail: str) -> InputError:
    errors: dict[str, type[InputError]] = {"budget": BudgetExceeded, "reused": RequestReused}
    usual = Missing if response.status_code == HTTPStatus.NOT_FOUND else InputError
    return errors.get(_kind(response), usual)(f"{response.url.host}: {detail}")
