"""Servers for tests: in a thread of this process, or in a process of their own that can be killed."""

import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import torch
import uvicorn
from linear_victim import linear_victim, noise

from extractlib.api.batching import ServedAPI
from extractlib.api.client import RemoteAPI
from extractlib.api.keys import Keys
from extractlib.api.meter import Meter
from extractlib.api.server import make_app
from extractlib.attacks import Knockoff
from extractlib.data.images import ImageSet

FORKS = multiprocessing.get_context("forkserver")
# So that a server starts in a moment. Of this module itself the fork server does not know where it lies.
FORKS.set_forkserver_preload(
    ["extractlib.api.server", "extractlib.api.client", "extractlib.attacks.knockoff", "uvicorn"]
)

STATUS = threading.Lock()
"""Held while a process is started, which reads the status of all others, and while one's status is read.

A status can be read once: of two threads that read it together, one gets 255 in its place.
"""

QUIET = {"log_level": "critical", "timeout_graceful_shutdown": 20}


def free_port() -> int:
    """Return a port at which nobody listens, and that no outgoing connection is given.

    The system gives connections ports from 32,768 on: one of those may be taken while a killed server is down.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def exit_code(process: BaseProcess, *, seconds: float | None = None) -> int | None:
    """Return how a process ended, for which it has some seconds; None if it has not."""
    connection.wait([process.sentinel], seconds)
    with STATUS:
        return process.exitcode


@contextmanager
def server_process(place: Path | str, port: int, *, budget: int, kill_at: int | None = None) -> Iterator:
    """Serve the linear victim from a process of its own, which kills itself at a boundary of the meter if it is said.

    Boundaries: before each check, and before and after each charge.
    """
    process = FORKS.Process(target=_serve, args=(place, port, budget, kill_at), daemon=True)
    with STATUS:
        process.start()
    try:
        yield process
    finally:
        process.kill()
        exit_code(process)


def _serve(place: Path | str, port: int, budget: int, kill_at: int | None) -> None:
    passed = iter(range(1_000_000))
    lock = threading.Lock()

    def tick() -> None:
        with lock:
            if next(passed) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    class Dying(Meter):
        def check(self, *arguments):
            tick()
            return super().check(*arguments)

        def charge(self, *arguments):
            tick()
            answer = super().charge(*arguments)
            tick()
            return answer

    keys = Keys(place)
    app = make_app({"linear": ServedAPI(linear_victim(), budget=budget, meter=Dying(place))}, keys)
    uvicorn.run(app, port=port, **QUIET)


def until_healthy(url: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/healthz", timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


def client_process(folder: Path, url: str, key: str, *, budget: int, kill_at: int | None):
    """Return an attack's process, which kills itself before or after it sends, or after it stored what came."""
    process = FORKS.Process(target=_attack, args=(folder, url, key, budget, kill_at), daemon=True)
    process.start()
    return process


def pool_of(count: int) -> ImageSet:
    """Return a pool of random images of four classes."""
    return ImageSet("noise", noise(count), torch.arange(count) % 4, tuple("abcd"), f"noise {count}")


def _attack(folder: Path, url: str, key: str, budget: int, kill_at: int | None) -> None:
    passed = iter(range(1_000_000))

    def tick() -> None:
        if next(passed) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    class Dying(RemoteAPI):
        def _sent(self, *arguments, **options):
            tick()
            response = super()._sent(*arguments, **options)
            tick()
            return response

    api = Dying(url, key=key, journal=folder / "journal.db", patience=60)
    Knockoff(budget=budget, batch=2).collect(api, pool_of(budget), folder / "transfer.db")
