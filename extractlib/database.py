"""Databases of records that must not be lost: opened, locked and kept from raising raw errors in one place.

SQLite in a file or in memory by default; any other database by its SQLAlchemy address.
"""

import hashlib
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from extractlib.errors import InputError

WAIT = 60
"""Seconds that a write waits for another process's."""

SEAL_BYTES = 16


class Database:
    """Some tables, made when they are not there yet. Threads may share one; several processes each open their own.

    Args:
        place: File of an SQLite database, or an SQLAlchemy address such as ``"postgresql://…"``; None for memory.
        tables: The tables.
        what: What the database is, for errors: for example ``"meter"``.
        create: Whether the tables are made if they are not there.

    Raises:
        InputError: It cannot be opened, or holds no such tables.
    """

    def __init__(self, place: Path | str | None, tables: sql.MetaData, *, what: str, create: bool = True):
        self.name, self._what, self._lock = str(place or "memory"), what, threading.RLock()
        address = place if isinstance(place, str) and "://" in place else f"sqlite:///{place or ':memory:'}"
        options = {"connect_args": {"timeout": WAIT, "check_same_thread": False}, "poolclass": StaticPool}
        self._engine = sql.create_engine(address, **(options if address.startswith("sqlite") else {}))
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _on_connect)
            event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self.close = weakref.finalize(self, self._engine.dispose)
        try:
            with self.transaction() as connection:
                if create:
                    tables.create_all(connection)
        except InputError:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        """Hold the only write lock from the first read to the commit; roll back on any error.

        Raises:
            InputError: The database says no; the message says why and what to do.
        """
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except exc.DBAPIError as error:
            raise InputError(f"{self._what} {self.name}: {_reason(str(error.orig))}") from None


def insert_if_absent(connection: sql.Connection, table: sql.Table, values: Mapping[str, object]) -> None:
    """Insert a row unless there is one of the same primary key."""
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name]
    connection.execute(insert(table).values(values).on_conflict_do_nothing())


def seal(*parts: str | bytes | int) -> bytes:
    """Return the digest of a record, stored beside it and compared when it is read."""
    state = hashlib.blake2b(digest_size=SEAL_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "little") + data)
    return state.digest()


def _on_connect(connection, record) -> None:
    # No isolation level: transactions begin where the code says so, not where the driver guesses.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _reason(said: str) -> str:
    """Return in words why a database said no, with the remedy."""
    for words, reason in {
        "locked": f"another process has held it for {WAIT} seconds: wait for that process, or end it",
        "full": "no space is left on its disk: make room, and go on",
        "unable to open": "it cannot be opened: name a file in a folder that exists and can be written",
        "readonly": "it cannot be written: name a file that can",
        "malformed": "it is damaged: restore it from a copy, or name a new file",
        "not a database": "it is no database: name one, or a new file",
        "no such": "it holds other tables: name another file",
    }.items():
        if words in said:
            return reason
    return f"{said}: name another file"
