"""How a graded notebook hands in its answers: over a socket, as plain data, to a judge outside its sandbox.

The sandbox contains no chapter's exercises: neither the right answers nor anything that decides an assessed variant. A
value is sent to the judge. A function is called here with the arguments that the judge sends, doing without what the
judge names; if one of them is a service, each call to it goes back to the judge. Messages are JSON preceded by their
length, and nothing in them is ever executed.
"""

import base64
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from extractbook.exercises.without import check_own, without
from extractlib.api.granularity import Answers, Granularity
from extractlib.api.meter import Usage
from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet, Rows
from extractlib.models.classifier import Victim, load_victim

SOCKET = "/tmp/answers/socket"
LARGEST = 128 * 2**20
"""Most bytes of a message."""
DTYPES = "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()


class Refused(Exception):
    """The error of a service that does not answer."""


class FarAPI:
    """The judge's prediction API as a function in the notebook sees it, with everything that an attack uses.

    Args:
        classes: Names of the victim's classes.
        granularity: How much an answer shows.
        fingerprint: Digest of everything that decides the answers.
        query: The judge's function, which returns the parts of its answers.
        usage: The judge's function, which returns the parts of a client's account.
    """

    def __init__(self, classes: list[str], granularity: str, fingerprint: str, query: Callable, usage: Callable):
        self.classes, self.granularity, self.fingerprint = classes, Granularity.parse(granularity), fingerprint
        self._query, self._usage = query, usage

    def query(self, images: torch.Tensor, *, client: str = "anonymous", request: str | None = None) -> Answers:
        """Return the answers to uint8 images of shape (n, channels, height, width)."""
        return Answers(**self._query(images, client, request))

    def usage(self, client: str) -> Usage:
        """Return how many queries a client has sent and how many are left."""
        return Usage(**self._usage(client))


def send(connection: socket.socket, **message: object) -> None:
    """Send a message whose parts are plain data."""
    text = json.dumps(message).encode()
    connection.sendall(struct.pack("!Q", len(text)) + text)


def receive(connection: socket.socket) -> dict:
    """Return the next message.

    Raises:
        ValueError: It is not a message, or it is too large.
        EOFError: The other side has closed the connection.
    """
    (size,) = struct.unpack("!Q", _exactly(connection, 8))
    if size > LARGEST:
        raise ValueError(f"an answer of {size:,} bytes is too large: {LARGEST:,} are allowed")
    message = json.loads(_exactly(connection, size))
    if not isinstance(message, dict):
        raise ValueError("that is not a message")
    return message


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 2**20))
        if not part:
            raise EOFError("the notebook's process has ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def encode(value: object, services: list | None = None) -> object:
    """Return a value in a form that JSON can hold; a function is added to `services`, and its position stands for it.

    Of a shipped victim, only the name is sent.

    Raises:
        TypeError: It is of a kind that cannot be sent.
        InputError: It is a victim that is not shipped.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.kind == "O":
            return encode(array.tolist(), services)
        if array.dtype.name not in DTYPES or array.nbytes > LARGEST // 2:
            raise TypeError(f"{array.size:,} values of type {array.dtype} cannot be handed in")
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return {"kind": kind, "dtype": array.dtype.name, "shape": array.shape, "data": data}
    if isinstance(value, bytes):
        return {"kind": "bytes", "data": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple | set | frozenset):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        return {"kind": kind, "items": [encode(item, services) for item in value]}
    if isinstance(value, dict):
        return {"kind": "dict", "items": [[encode(part, services) for part in item] for item in value.items()]}
    if isinstance(value, Rows):
        return encode(value[:], services)
    if isinstance(value, ImageSet):
        parts = value.name, value.images, value.labels, value.classes, value.fingerprint
        return {"kind": "images", "items": [encode(part, services) for part in parts]}
    if isinstance(value, Victim) and load_victim(value.name).fingerprint == value.fingerprint:
        return {"kind": "victim", "items": [value.name]}
    if services is not None and isinstance(value, PredictionAPI):
        far = list(value.classes), str(value.granularity), value.fingerprint, *_services_of(value)
        return {"kind": "api", "items": [encode(part, services) for part in far]}
    if services is not None and callable(value):
        services.append(value)
        return {"kind": "service", "place": len(services) - 1}
    raise TypeError(f"a value of type {type(value).__name__} cannot be handed in")


def _services_of(api: PredictionAPI) -> tuple[Callable, Callable]:
    def query(images: torch.Tensor, client: str, request: str | None) -> dict:
        answers = api.query(images, client=client, request=request)
        return {"labels": answers.labels, "classes": answers.classes, "probabilities": answers.probabilities}

    return query, lambda client: asdict(api.usage(client))


def decode(value: object, ask: Callable[[int, list], object] | None = None) -> Any:
    """Return the value that `encode` was given; a service calls `ask` with its position and its arguments."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if not isinstance(value, dict):
        return value
    kind = value["kind"]
    if kind in ("tensor", "array"):
        if value["dtype"] not in DTYPES:
            raise ValueError(f"an array of type {value['dtype']!r} is not allowed")
        array = np.frombuffer(base64.b64decode(value["data"]), value["dtype"]).reshape(value["shape"]).copy()
        return torch.from_numpy(array) if kind == "tensor" else array
    if kind == "bytes":
        return base64.b64decode(value["data"])
    if kind == "service" and ask:
        place = int(value["place"])
        return lambda *arguments: ask(place, list(arguments))
    items: list[Any] = [
        [decode(part, ask) for part in item] if kind == "dict" else decode(item, ask) for item in value["items"]
    ]
    if kind == "images":
        return ImageSet(*items)
    if kind == "victim":
        return load_victim(*items)
    if kind == "api":
        return FarAPI(*items)
    return {"list": list, "tuple": tuple, "set": set, "dict": dict}[kind](items)


def hand_in(exercise: str, answer: Any) -> None:
    """Hand an answer in and, if it is a function, call it as often as the judge asks."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)

        def ask(place: int, arguments: list) -> object:
            send(connection, ask=place, arguments=encode(arguments))
            reply = receive(connection)
            if "refused" in reply:
                raise Refused(reply["refused"])
            return decode(reply["answer"])

        function = callable(answer)
        try:
            send(connection, exercise=exercise, function=function, value=None if function else encode(answer))
        except (TypeError, ValueError, RecursionError) as error:
            return send(connection, exercise=exercise, error=[type(error).__name__, str(error)])
        while "call" in (message := receive(connection)):
            try:
                case, forbidden = decode(message["call"], ask), message["without"]
                check_own(answer, forbidden)
                with without(forbidden):
                    returned = answer(*case)
                result = encode(returned)
            except BaseException as error:  # whatever a student's function raises, SystemExit included, is its result
                send(connection, error=[type(error).__name__, _told(error)])
            else:
                send(connection, result=result)


def _told(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
