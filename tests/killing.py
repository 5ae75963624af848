"""Processes that are killed by SIGKILL where something is being written, and what they leave."""

import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from extractlib.api.meter import Meter
from extractlib.attacks.transfer import TransferFile


@dataclass
class Clock:
    """Counts the write boundaries of a process, and kills it at one of them.

    Boundaries: before each SQL statement, the file's name before it, and before and after each charge and each append.
    """

    kill_at: int | None = None
    events: list[str] = field(default_factory=list)

    def tick(self, event: str) -> None:
        self.events.append(event)
        if len(self.events) - 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        connect = sqlite3.dbapi2.connect

        def traced_connection(place, *arguments, **options):
            connection = connect(place, *arguments, **options)
            name = Path(place).stem
            connection.set_trace_callback(lambda statement: self.tick(f"{name}: {statement.split()[0]}"))
            return connection

        patch.setattr(sqlite3.dbapi2, "connect", traced_connection)
        patch.setattr(Meter, "charge", self._framed("charge", Meter.charge))
        patch.setattr(TransferFile, "append", self._framed("append", TransferFile.append))

    def _framed(self, name: str, call: Callable) -> Callable:
        def framed(*arguments):
            self.tick(f"before a {name}")
            returned = call(*arguments)
            self.tick(f"after a {name}")
            return returned

        return framed


def boundaries(run: Callable[[], object]) -> list[str]:
    """Run in this process and return the boundaries that are passed."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        clock.install(patch)
        run()
    return clock.events


def killed(run: Callable[[], object], *, at: int) -> None:
    """Run in a process of its own that is killed at one of its boundaries."""
    assert _forked(run, lambda: Clock(kill_at=at).install(pytest.MonkeyPatch())) == -signal.SIGKILL


def killed_after(run: Callable[[], object], seconds: float) -> bool:
    """Run in a process of its own that is killed after so many seconds, wherever it is; return whether it was."""
    status = _forked(run, lambda: signal.setitimer(signal.ITIMER_REAL, seconds))
    assert status in (0, -signal.SIGALRM)
    return status != 0


def _forked(run: Callable[[], object], prepare: Callable[[], object]) -> int:
    """Return with which status a process ended, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)  # a hang ends too
            prepare()
            run()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def charged(place: Path) -> tuple[int, int, float]:
    """Return a meter's requests, queries and cost, as its file has them."""
    connection = sqlite3.connect(place)
    requests = connection.execute("SELECT count(*), coalesce(sum(queries), 0), total(cost) FROM requests").fetchone()
    accounts = connection.execute("SELECT coalesce(sum(queries), 0), total(cost) FROM accounts").fetchone()
    connection.close()
    assert accounts == requests[1:]
    return requests


def content(place: Path) -> list[tuple]:
    """Return all that a transfer set's file holds: its header, and chunks with their seals."""
    connection = sqlite3.connect(place)
    rows = [row for table in ("header", "chunks") for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]
    connection.close()
    return rows
