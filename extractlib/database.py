"""Databases of records that must not be lost: opened, locked and kept from raising raw errors in one place.

SQLite in a file or in memory by default; any other database by its SQLAlchemy address.
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
"""Seconds that a write waits for another process's."""

SEAL_BYTES = 16
LOCK = 0x65787472
"""Number of the lock under which tables are made in PostgreSQL."""

POSTGRESQL = "postgresql+psycopg://USER@HOST/DATABASE"
OTHER_TABLES = "it holds other tables: name another file"
NO_DATABASE = "it is no database: name one, or a new file"

REASONS = {
    "locked": "another process holds it: wait for that process, or end it",
    "full": "no space is left on its disk: make room, and go on",
    "unable to open": "it cannot be opened: name a file in a folder that exists and can be written",
    "readonly": "it cannot be written: name a file that can",
    "malformed": "it is damaged: restore it from a copy, or name a new file",
    "not a database": NO_DATABASE,
    "no such": OTHER_TABLES,
}
"""What a database says when it says no, and in words why, with the remedy."""


class Database:
    """Some tables, made when they are not there yet. Threads may share one; several processes each open their own.

    Args:
        place: File of an SQLite database, or an SQLAlchemy address such as ``"postgresql://…"``; None for memory.
        tables: The tables.
        what: What the database is, for errors: for example ``"meter"``.
        journal: SQLite's journal: ``"WAL"`` commits in half the time, ``"DELETE"`` leaves a single file.
        create: Whether the tables are made if they are not there; False only reads, also where nothing can be written.
        beside: Names of tables that the file may hold already.

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
            raise InputError(f"the {what}'s address cannot be read: write {POSTGRESQL}, or name a file") from None
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
            raise self._refusal(f"{error}: pip install 'psycopg[binary]', and name {POSTGRESQL}") from None
        if in_sqlite:
            path = Path(address.database or "")
            # SQLite would write over a file of a single byte.
            if place is not None and path.is_file() and 0 < path.stat().st_size < len(b"SQLite format 3\0"):
                raise self._refusal(NO_DATABASE)
            others = self._refusal(OTHER_TABLES)
            names = set(tables.tables), set(beside)
            event.listen(self._engine, "connect", _prepare(*names, journal if create else None, others))
            begin = "BEGIN IMMEDIATE" if create else "BEGIN"
            event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        self.close = weakref.finalize(self, self._engine.dispose)
        try:
            with self.transaction() as connection:
                if not in_sqlite:  # two servers that start at once would both make the tables
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(LOCK)))
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
            said = " ".join(str(error.orig).split())
            if self._engine.dialect.name != "sqlite":
                raise self._refusal(f"{said}: look whether it runs and may be written") from None
            reasons = (reason for words, reason in REASONS.items() if words in said)
            raise self._refusal(next(reasons, f"{said}: name another file")) from None
        except UnicodeDecodeError:  # by which the driver fails to tell of a damaged schema
            raise self._refusal(REASONS["malformed"]) from None

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self._what} {self.name}: {reason}")


def insert_if_absent(connection: sql.Connection, table: sql.Table, values: Mapping[str, object]) -> None:
    """Insert a row unless there is one of the same primary key."""
    connection.execute(_insert(table, connection.dialect.name), dict(values))


@cache
def _insert(table: sql.Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Return the statement, built once: that takes longer than running it."""
    inserts: Mapping[str, Callable[[sql.Table], sqlite.Insert | postgresql.Insert]]
    inserts = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    return inserts[dialect](table).on_conflict_do_nothing()


def seal(*parts: str | bytes | int) -> bytes:
    """Return the digest of a record, stored beside it and compared when it is read."""
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
    # A path is taken as it is: its "?", "#" and "%" are no address's, and a file may be called ":memory:".
    return sql.URL.create("sqlite", database=":memory:" if place is None else str(Path(place).absolute()))


def _prepare(
    tables: set[str], beside: set[str], journal: str | None, others: InputError
) -> Callable[[sqlite3.Connection, object], None]:
    """Return what SQLite does with each new connection; without a journal it only reads."""

    def prepare(connection: sqlite3.Connection, record: object) -> None:
        # No isolation level: transactions begin where the code says so, not where the driver guesses.
        connection.isolation_level = None
        held = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not held >= tables and (held - beside or journal is None):  # before anything is written
            connection.close()
            raise others
        if journal is not None:
            connection.execute(f"PRAGMA journal_mode = {journal}")
            connection.execute("PRAGMA synchronous = FULL")

    return prepare
