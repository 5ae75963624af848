"""A prediction API on the network: the meter's guarantees over HTTP, for clients identified by keys.

Errors are problem details (RFC 9457). The id of a request is its ``Idempotency-Key``: sent again, it is answered from
the meter, for free. Whatever a client sends is either answered or refused, and a refused request is not charged.
"""

import asyncio
import json
import logging
import math
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
import torch
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from extractlib.api import wire
from extractlib.api.batching import ServedAPI
from extractlib.api.keys import Keys
from extractlib.api.meter import BudgetExceeded, RequestReused
from extractlib.api.service import Fault
from extractlib.errors import InputError, check_positive, keep, shown

Returned = TypeVar("Returned")

ASKING = 40
"""Queries of a victim that wait for its answer at a time, on threads of their own: nothing else waits for them."""

LOG = logging.getLogger("extractlib.server")

PROBLEMS = {
    "key": (401, "No valid key"),
    "closed": (403, "The challenge is over"),
    "missing": (404, "Not found"),
    "slow": (408, "The body arrived too slowly"),
    "too-large": (413, "The request is too large"),
    "format": (415, "The format of the body is unknown"),
    "invalid": (422, "The request cannot be used"),
    "reused": (422, "The Idempotency-Key belongs to another request"),
    "rate": (429, "Too many requests"),
    "budget": (429, "The budget is not sufficient"),
    "submissions": (429, "No more copies for now"),
    "fault": (500, "The server failed"),
    "unavailable": (503, "The server cannot answer now"),
}
"""Kinds of problems with status and title; none of them leads to a charge."""

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            wire.NPY: {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            wire.JSON: {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}},
                }
            },
        },
    }
}
"""What the API page says about the body of a query, which is parsed by hand."""


class Problem(Exception):
    """What a client gets instead of an answer.

    Args:
        kind: One of `PROBLEMS`.
        detail: One line that names the value and the remedy.
        headers: Headers of the response.
    """

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None):
        super().__init__(detail)
        self.kind, self.detail, self.headers = kind, detail, dict(headers or {})

    def response(self) -> Response:
        """Return the problem as a response."""
        status, title = PROBLEMS[self.kind]
        return _problem(f"/problems#{self.kind}", title, status, self.detail, self.headers)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on requests.

    Attributes:
        images: Most images in a request.
        megabytes: Largest size of a body, in 2^20 bytes.
        seconds: Time within which a body must arrive.
        bodies: Bodies per team that are held in memory at a time; further ones wait.
        rate: Requests per minute and team; None for no limit.
        rates: The same for teams that have their own rate.

    Raises:
        InputError: A value is out of range.
    """

    images: int = 1024
    megabytes: int = 32
    seconds: int = 60
    bodies: int = 16
    rate: int | None = None
    rates: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("images", "megabytes", "seconds", "bodies"):
            keep(self, **{name: check_positive(name, getattr(self, name), at_most=2**20)})
        for rate in (*self.rates.values(), *([] if self.rate is None else [self.rate])):
            check_positive("rate", rate, at_most=2**20)


class Rates:
    """How long a team must wait until its next request; a minute's worth of requests may come at once.

    Args:
        limits: Requests per minute.
        clock: Returns seconds.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic):
        self._limits, self._clock, self._lock = limits, clock, threading.Lock()
        self._due: dict[str, float] = {}

    def take(self, team: str) -> None:
        """Count a request.

        Raises:
            Problem: It comes too early and is not counted.
        """
        rate = self._limits.rates.get(team, self._limits.rate)
        if rate is None:
            return
        with self._lock:  # the generic cell rate algorithm: the time at which all requests so far are due
            now, each = self._clock(), 60 / rate
            due = max(now, self._due.get(team, 0.0))
            wait = due + each - now - 60
            if wait <= 0:
                self._due[team] = due + each
                return
        seconds = math.ceil(wait)
        raise Problem(
            "rate", f"{rate} requests per minute are allowed: wait {seconds} seconds", {"Retry-After": str(seconds)}
        )


class Observed:
    """Writes a line of JSON for each request, and counts it.

    Args:
        app: The application.
        registry: Where Prometheus looks.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry):
        self._app = app
        self._requests = Counter("requests", "Requests.", ["path", "status"], "extractlib", registry=registry)
        self._seconds = Histogram("request_seconds", "Time to answer.", ["path"], "extractlib", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 0, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - start
            # The route, not the address: a client that requests arbitrary addresses must not fill the memory.
            path = getattr(scope.get("route"), "path", "none")
            status = status or 500
            self._requests.labels(path, status).inc()
            self._seconds.labels(path).observe(seconds)
            line = {"method": scope["method"], "path": path, "status": status, "seconds": round(seconds, 4)}
            LOG.info("request", extra={"fields": line | scope.get("state", {}).get("noted", {})})


class JsonLines(logging.Formatter):
    """Formats each record of a log as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


def who_asks(keys: Keys) -> Callable[..., Awaitable[str]]:
    """Return a route dependency that identifies the team by its key, and refuses clients without a valid one."""

    async def team_of(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> str:
        team = None if given is None else await answered(keys.team, given.credentials)
        if team is None:
            detail = "the header Authorization is not Bearer with a valid key: ask the host for one"
            raise Problem("key", detail, {"WWW-Authenticate": "Bearer"})
        _note(request, team=team)
        return team

    return team_of


async def body_of(request: Request, *, megabytes: int, seconds: int) -> bytes:
    """Return the whole body; one that is too large is read to its end, or many clients would not see the answer.

    Raises:
        Problem: It is larger than that many 2^20 bytes, does not arrive in that time, or breaks off.
    """
    parts: list[bytes] = []
    size, most = 0, megabytes * 2**20
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                parts = parts if size <= most else []
                parts.append(part)
    except TimeoutError:
        raise Problem("slow", f"the body took more than {seconds} seconds: send less at a time") from None
    except ClientDisconnect:
        raise Problem("slow", "the connection was closed before the body had arrived: send it again") from None
    if size > most:
        raise Problem("too-large", f"the body has {size:,} bytes: send at most {most:,}")
    return b"".join(parts)


@dataclass(frozen=True)
class Service:
    """A victim as it is served.

    Attributes:
        name: Its name.
        api: Answers and charges.
        keys: Who may query it.
        limits: The limits on requests.
        rates: The limits on their rate.
        queries: Counts the queries that were answered.
    """

    name: str
    api: ServedAPI
    keys: Keys
    limits: Limits
    rates: Rates
    queries: Counter

    def router(self) -> APIRouter:
        """Return the routes of this victim."""
        router = APIRouter()
        bodies: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(self.limits.bodies))
        fingerprint = self.keys.claim(self.name, self.api.fingerprint)
        asking = anyio.CapacityLimiter(ASKING)

        Team = Annotated[str, Depends(who_asks(self.keys))]

        @router.get("/victim")
        async def victim(team: Team) -> dict[str, Any]:
            """Describe the victim and what an answer shows."""
            return {
                "victim": self.name,
                "classes": self.api.classes,
                "granularity": str(self.api.granularity),
                "fingerprint": fingerprint,
                "image_shape": self.api.image_shape,
                "limits": {"images": self.limits.images, "megabytes": self.limits.megabytes},
            }

        @router.post("/query", openapi_extra=BODY)
        async def query(request: Request, team: Team) -> Response:
            """Answer images and charge for them, all or nothing; free if sent again with the same Idempotency-Key."""
            self.rates.take(team)
            request_id = request.headers.get("Idempotency-Key", uuid.uuid4().hex)
            if not wire.REQUEST_ID.fullmatch(request_id):
                raise Problem("invalid", "the Idempotency-Key is not 1 to 255 visible ASCII characters: use another")
            async with bodies[team]:
                images = await self._images(request)
                _note(request, request=request_id, images=len(images))
                as_npy = wire.NPY in request.headers.get("Accept", "")
                return await answered(self._ask, images, team, request_id, as_npy, limiter=asking)

        @router.get("/usage")
        async def usage(team: Team) -> dict[str, Any]:
            """Return what was charged and what is left."""
            used = await answered(self.api.usage, self._account(team))
            return asdict(used) | {"remaining": used.remaining}

        @router.get("/answers")
        async def answers(
            team: Team,
            after: Annotated[str, Query(pattern=f"^({wire.REQUEST_ID.pattern})?$")] = "",
            limit: Annotated[int, Query(ge=1, le=100)] = 20,
        ) -> dict[str, Any]:
            """Return the team's answers again, in the order of their ids, those after `after`; for free."""
            self.rates.take(team)
            found = await answered(lambda: self.api.answers(self._account(team), after=after, most=limit))
            last = found[-1][0] if len(found) == limit else None
            return {"answers": [{"request": name} | wire.answers_to_json(given) for name, given in found], "next": last}

        return router

    def _account(self, team: str) -> str:
        """Return the meter's name for a team that queries this victim."""
        return f"{self.name}/{team}"

    def _ask(self, images: torch.Tensor, team: str, request_id: str, as_npy: bool) -> Response:
        api = self.api
        answers = api.query(images, client=self._account(team), request=request_id)
        self.queries.labels(self.name).inc(len(images))
        headers = {"Idempotency-Key": request_id}
        if not as_npy:
            return JSONResponse({"request": request_id} | wire.answers_to_json(answers), headers=headers)
        packed = api.granularity.pack(answers, api.granularity.record(len(api.classes)))
        return Response(wire.to_npy(packed), media_type=wire.NPY, headers=headers)

    async def _images(self, request: Request) -> torch.Tensor:
        """Return the images of a request's body.

        Raises:
            Problem: There are none that can be used.
        """
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in (wire.NPY, wire.JSON, "multipart/form-data", *wire.ENCODED):
            detail = f"the body's type is {shown(kind)}: send {wire.NPY}, {wire.JSON}, multipart/form-data or an image"
            raise Problem("format", detail)
        body = await body_of(request, megabytes=self.limits.megabytes, seconds=self.limits.seconds)
        try:
            files = await self._files(request, body) if kind == "multipart/form-data" else [body]
            return await run_in_threadpool(self._decoded, kind, files)
        except wire.TooLarge as error:
            raise Problem("too-large", str(error)) from None
        except InputError as error:
            raise Problem("invalid", str(error)) from None

    async def _files(self, request: Request, body: bytes) -> list[bytes]:
        """Return the files of a multipart body, all of which must be called images."""

        async def stream() -> AsyncGenerator[bytes, None]:
            yield body

        try:
            most = self.limits.images + 1
            form = await MultiPartParser(request.headers, stream(), max_files=most, max_fields=0).parse()
        except Exception as error:  # a parser can fail on arbitrary bytes in any way
            reason = error.message if isinstance(error, MultiPartException) else "it cannot be read"
            raise InputError(
                f"the body is not a multipart of files called images ({reason}): send only those"
            ) from None
        try:
            wire.check_count(len(form.multi_items()), self.limits.images)
            if {name for name, _ in form.multi_items()} - {"images"}:
                raise InputError("a part of the body is not called images: call all files images")
            return [await file.read() for file in form.getlist("images") if isinstance(file, UploadFile)]
        finally:
            await form.close()

    def _decoded(self, kind: str, files: list[bytes]) -> torch.Tensor:
        """Return images that can be queried."""
        if kind == wire.NPY:
            images = wire.images_from_npy(files[0])
            wire.check_count(len(images) if images.ndim else 0, self.limits.images)
            return self.api.check(images)
        if kind == wire.JSON:
            files = wire.files_from_json(files[0], most=self.limits.images)
        return self.api.check(wire.images_from_files(files, self.api.image_shape))


def make_app(
    apis: Mapping[str, ServedAPI],
    keys: Keys,
    limits: Limits | None = None,
    *,
    at_end: Sequence[Callable[[], object]] = (),
) -> FastAPI:
    """Return the application that serves some APIs: a single one at the root, several each under its name.

    The APIs are closed when it stops.

    Args:
        apis: Each API by its name.
        keys: Who may query them.
        limits: The limits on requests.
        at_end: Further functions to call when it stops.

    Raises:
        InputError: The database holds the answers of something else under the same name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        for close in (*(api.close for api in apis.values()), *at_end):
            await run_in_threadpool(close)

    app, registry = FastAPI(title="extractlib", lifespan=lifespan), CollectorRegistry()
    app.add_middleware(Observed, registry=registry)
    queries = Counter("queries", "Queries that were answered.", ["victim"], "extractlib", registry=registry)
    limits = limits or Limits()
    rates = Rates(limits)
    for name, api in apis.items():
        router = Service(name, api, keys, limits, rates, queries).router()
        app.include_router(router, prefix="" if len(apis) == 1 else f"/{name}")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Report that the models and the database respond."""
        if not all(api.is_alive for api in apis.values()):
            raise Problem("unavailable", "a model's thread has ended: restart the server")
        await answered(keys.all)
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return counts of requests, for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/problems")
    async def problems() -> dict[str, dict[str, Any]]:
        """List the kinds of problems."""
        return {kind: {"status": status, "title": title} for kind, (status, title) in PROBLEMS.items()}

    for kind in (Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _told)
    return app


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application from a thread of this process, on a free port of this machine, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=20))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise InputError("the server does not start: see its log")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


async def answered(
    call: Callable[..., Returned], *arguments: Any, limiter: anyio.CapacityLimiter | None = None
) -> Returned:
    """Return the result of a call that may have to wait for the database or the model.

    Args:
        call: Is called on a thread.
        arguments: What it is called with.
        limiter: Bounds how many such calls run at a time; the threads that all others share if None.

    Raises:
        Problem: It refuses.
    """
    try:
        return await anyio.to_thread.run_sync(call, *arguments, limiter=limiter)
    except Problem:
        raise
    except BudgetExceeded as error:
        raise Problem("budget", str(error)) from None
    except RequestReused as error:
        raise Problem("reused", str(error)) from None
    except Fault:
        LOG.exception("fault")
        raise Problem("fault", "tell the host, who has a log") from None
    except InputError:  # from the database, which is not the client's concern
        LOG.exception("unavailable")
        raise Problem("unavailable", "send it again later under the same id", {"Retry-After": "5"}) from None
    except Exception:  # handled here, since the server closes the connection if an error escapes
        LOG.exception("fault")
        raise Problem("fault", "tell the host, who has a log") from None


def _note(asked: Request, **fields: Any) -> None:
    """Add fields to the log line of a request."""
    asked.scope.setdefault("state", {}).setdefault("noted", {}).update(fields)


async def _told(request: Request, error: Exception) -> Response:
    """Return the response that tells a client about an error."""
    match error:
        case Problem():
            return error.response()
        case RequestValidationError():
            first = error.errors()[0]
            return Problem("invalid", f"{first['loc'][-1]}: {first['msg']}").response()
        case HTTPException():
            title = HTTPStatus(error.status_code).phrase
            return _problem("about:blank", title, error.status_code, f"{title}: see /docs", dict(error.headers or {}))
    return Problem("fault", "tell the host, who has a log").response()


def _problem(kind: str, title: str, status: int, detail: str, headers: dict[str, str]) -> Response:
    said = {"type": kind, "title": title, "status": status, "detail": detail}
    return Response(json.dumps(said), status, headers, wire.PROBLEM)
