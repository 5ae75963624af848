"""Databases of records that must not be lost: opening, locking and readable errors in one place.

SQLite in a file or in memory by default; any other database through its SQLAlchemy address.
"""

import hashlib
import sqlite3
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import sqlalchemy as sql
from sqlalchemy import event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from extractlib.errors import InputError

WAIT = 60
"""Seconds that a write waits for the write of another process."""

SEAL_BYTES = 16
LOCK = 0x65787472
"""Number of the lock that is held while tables are created in PostgreSQL."""

POSTGRESQL = "postgresql+psycopg://USER@HOST/DATABASE"
OTHER_TABLES = "it holds other tables: name another file"
EMPTY = "it is empty: run what writes it, or name another file"
NO_DATABASE = "it is not a database: name one, or a new file"

REASONS = {
    "locked": "another process is using it: wait for that process, or end it",
    "full": "no space is left on its disk: free up some, and try again",
    "unable to open": "it cannot be opened: name a file in a folder that exists and is writable",
    "readonly": "it cannot be written: name a writable file",
    "malformed": "it is damaged: restore it from a backup, or name a new file",
    "not a database": NO_DATABASE,
    "no such": OTHER_TABLES,
}
"""What a database says when it refuses, and the reason and the remedy in plain words."""


class Database:
    """Some tables, created if they do not exist yet. Threads can share one; each process opens its own.

    Args:
        place: File of an SQLite database, or an SQLAlchemy address such as ``"postgresql://…"``; None for memory.
        tables: The tables.
        what: What the database is, for errors: for example ``"meter"``.
        journal: SQLite's journal: ``"WAL"`` commits in half the time, ``"DELETE"`` leaves a single file.
        create: Whether missing tables are created; False only reads, even where nothing can be written.
        beside: Names of other tables that the file may already hold.

    Raises:
        InputError: It cannot be opened, or holds other tables; then it is left as it is.
    """

    def __init__(
        self,
        place: Path | str | None,
        tables: sql.MetaData,
        *,
        what: str,
        journal: str = "DELETE",
        create: bool = True,
        beside: Collection[str] = (),
    ):
        try:
            address = _address(place)
        except exc.ArgumentError:
            raise InputError(f"the {what}'s address cannot be read: use {POSTGRESQL}, or name a file") from None
        shown = address.render_as_string() if _is_address(place) else str(place)  # without its password
        self.name, self._what, self._lock = "memory" if place is None else shown, what, threading.RLock()
        in_sqlite = address.get_backend_name() == "sqlite"
        options: dict[str, Any] = {
            "connect_args": {"timeout": WAIT, "check_same_thread": False},
            "poolclass": StaticPool,
        }
        if not in_sqlite:
            options = {"connect_args": {"options": f"-c lock_timeout={WAIT}s"}, "pool_pre_ping": True}
        try:
            self._engine = sql.create_engine(address, **options)
        except (exc.ArgumentError, ModuleNotFoundError) as error:
            raise self._refusal(f"{error}: run pip install 'psycopg[binary]', and use {POSTGRESQL}") from None
        if in_sqlite:
            path = Path(address.database or "")
            # SQLite would overwrite a file of a single byte.
            if place is not None and path.is_file() and 0 < path.stat().st_size < len(b"SQLite format 3\0"):
                raise self._refusal(NO_DATABASE)
            names = set(tables.tables), set(beside)
            refusals = self._refusal(OTHER_TABLES), self._refusal(EMPTY)  # not self, which the engine would keep alive
            event.listen(self._engine, "connect", _prepare(*names, journal if create else None, *refusals))
            event.listen(self._engine, "begin", _begin if create else _begin_reading)
        self.close = weakref.finalize(self, self._engine.dispose)
        try:
            with self.transaction() as connection:
                if not in_sqlite:  # two servers that start at the same time would both create the tables
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(LOCK)))
                if create:
                    tables.create_all(connection)
        except InputError:
            self.close()
            raise

    @contextmanager
    def transaction(self, *, reads: bool = False) -> Iterator[sql.Connection]:
        """Hold the only write lock from the first read to the commit; roll back on any error.

        Args:
            reads: Whether nothing is written, so that in SQLite no write of another process is waited for.

        Raises:
            InputError: The database refuses; the message says why and what to do.
        """
        try:
            with self._lock, self._engine.connect().execution_options(reads=reads) as connection, connection.begin():
                yield connection
        except exc.DBAPIError as error:
            said = " ".join(str(error.orig).split())
            if self._engine.dialect.name != "sqlite":
                raise self._refusal(f"{said}: check that it is running and writable") from None
            reasons = (reason for words, reason in REASONS.items() if words in said)
            raise self._refusal(next(reasons, f"{said}: name another file")) from None
        except UnicodeDecodeError:  # the driver's failed attempt to report a damaged schema
            raise self._refusal(REASONS["malformed"]) from None

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self._what} {self.name}: {reason}")


def _begin(connection: sql.Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")


def _begin_reading(connection: sql.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def insert_if_absent(connection: sql.Connection, table: sql.Table, values: Mapping[str, object]) -> None:
    """Insert a row unless there is one with the same primary key."""
    connection.execute(_insert(table, connection.dialect.name), dict(values))


@cache
def _insert(table: sql.Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return the statement, built only once: building it takes longer than running it."""
    inserts: Mapping[str, Callable[[sql.Table], sqlite.Insert | postgresql.Insert]]
    inserts = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    return inserts[dialect](table).on_conflict_do_nothing()


def seal(*parts: str | bytes | int) -> bytes:
    """Return the digest of a record, stored with it and compared when it is read."""
    state = hashlib.blake2b(digest_size=SEAL_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "little") + data)
    return state.digest()


def _is_address(place: Path | str | None) -> TypeGuard[str]:
    return isinstance(place, str) and "://" in place


def _address(place: Path | str | None) -> sql.URL:
    if _is_address(place):
        return sql.make_url(place)
    # A path is taken literally: it may contain "?", "#" and "%", and a file may be called ":memory:".
    return sql.URL.create("sqlite", database=":memory:" if place is None else str(Path(place).absolute()))


def _prepare(
    tables: set[str], beside: set[str], journal: str | None, others: InputError, empty: InputError
) -> Callable[[sqlite3.Connection, object], None]:
    """Return the function that prepares each new SQLite connection; without a journal, it is only for reading."""

    def prepare(connection: sqlite3.Connection, record: object) -> None:
        # No isolation level: transactions begin where the code says so, not where the driver guesses.
        connection.isolation_level = None
        held = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not held >= tables and (held - beside or journal is None):  # before anything is written
            connection.close()
            raise others if held - beside else empty
        if journal is not None:
            connection.execute(f"PRAGMA journal_mode = {journal}")
            connection.execute("PRAGMA synchronous = FULL")

    return prepare
