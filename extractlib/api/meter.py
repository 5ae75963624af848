"""The meter: the API's own record of who asked what, and what it cost.

Each request is stored with its answer and its charge in one transaction. Sent again, it is answered from the record
for free, so a client that was cut off anywhere is charged once and answered once.
"""

import math
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from extractlib.errors import InputError, positive

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    client TEXT PRIMARY KEY,
    budget INTEGER,
    price REAL,
    queries INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS requests (
    client TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BLOB NOT NULL,
    queries INTEGER NOT NULL,
    cost REAL NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (client, id)
);
"""


class BudgetExceeded(InputError):
    """A request asks for more queries than its client has left; it was refused whole and charged nothing."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a client may ask and pays.

    Attributes:
        budget: Queries it may send in all, at least 1; None for no limit.
        price: Cost of one query, at least 0, in any currency; None for nothing agreed.

    Raises:
        InputError: A value is out of range.
    """

    budget: int | None = None
    price: float | None = None

    def __post_init__(self):
        if self.budget is not None:
            positive("budget", self.budget)
        if self.price is None:
            return
        number = isinstance(self.price, int | float) and not isinstance(self.price, bool)
        if not number or not 0 <= self.price < math.inf:
            raise InputError(f"price is {self.price!r}: a finite number from 0 is wanted")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a client has asked so far.

    Attributes:
        queries: Queries charged.
        budget: Queries it may send in all; None for no limit.
        cost: What the queries cost together, in the currency of the price.
    """

    queries: int
    budget: int | None
    cost: float

    @property
    def remaining(self) -> int | None:
        """Queries left, at least 0; None for no limit."""
        return None if self.budget is None else max(0, self.budget - self.queries)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as the meter knows it.

    Attributes:
        client: Who asks.
        id: The client's name for the request; sent again, it means the same request.
        digest: Digest of the API and the images.
        queries: Number of images.
    """

    client: str
    id: str
    digest: bytes
    queries: int

    def __post_init__(self):
        for kind, name in (("client", self.client), ("request", self.id)):
            if not isinstance(name, str) or not name:
                raise InputError(f"{kind} is {name!r}: a name that is not empty is wanted")


class Meter:
    """Accounts and requests in an SQLite database, in a file or in memory.

    Threads may share a meter. Several processes may use one file, each through a meter of its own, opened after any
    fork. APIs that share a meter share their clients' accounts.

    Args:
        path: File of the database, made if it is not there; None keeps everything in memory.

    Raises:
        InputError: The file cannot be opened or is no database.
    """

    def __init__(self, path: Path | None = None):
        self._lock = threading.Lock()
        try:
            self._connection = _open(path or ":memory:")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is no meter's file ({error}): name one, or a new one") from None
        self.close = weakref.finalize(self, self._connection.close)

    def register(self, client: str, terms: Terms) -> None:
        """Give a client terms of its own; what they leave open stays as the API has it."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO accounts (client, budget, price) VALUES (?, ?, ?)"
                " ON CONFLICT (client) DO UPDATE SET budget = excluded.budget, price = excluded.price",
                (client, terms.budget, terms.price),
            )

    def usage(self, client: str, terms: Terms) -> Usage:
        """Return what a client has used; `terms` hold where it has none of its own."""
        with self._lock:
            return self._account(client, terms)[0]

    def check(self, request: Request, terms: Terms) -> bytes | None:
        """Return the stored answer of a request, or None if it is new and within the budget.

        Raises:
            InputError: The id was used for other images or at another API.
            BudgetExceeded: The request is new and asks for more than is left.
        """
        with self._lock:
            return self._check(request, terms)[0]

    def charge(self, request: Request, answer: bytes, terms: Terms) -> bytes:
        """Store a request with its answer and charge for it, in one transaction.

        Returns:
            The answer to give: `answer`, or the one stored meanwhile under the same id, which is not charged again.

        Raises:
            InputError: As `check` does, and nothing is charged.
        """
        with self._transaction():
            stored, price = self._check(request, terms)
            if stored is not None:
                return stored
            cost = request.queries * price
            self._connection.execute(
                "INSERT INTO requests (client, id, digest, queries, cost, answer) VALUES (?, ?, ?, ?, ?, ?)",
                (request.client, request.id, request.digest, request.queries, cost, answer),
            )
            self._connection.execute(
                "INSERT INTO accounts (client, queries, cost) VALUES (?, ?, ?) ON CONFLICT (client)"
                " DO UPDATE SET queries = queries + excluded.queries, cost = cost + excluded.cost",
                (request.client, request.queries, cost),
            )
            return answer

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the database's only write lock from the first read to the commit; roll back on any error."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield

    def _check(self, request: Request, terms: Terms) -> tuple[bytes | None, float]:
        """Return the stored answer, if there is one, and the client's price."""
        usage, price = self._account(request.client, terms)
        found = self._connection.execute(
            "SELECT digest, answer FROM requests WHERE client = ? AND id = ?", (request.client, request.id)
        ).fetchone()
        if found is None:
            if usage.remaining is not None and request.queries > usage.remaining:
                raise BudgetExceeded(
                    f"client {request.client!r} asks {request.queries} queries and {usage.remaining} of"
                    f" {usage.budget} are left: ask at most {usage.remaining}"
                )
            return None, price
        digest, answer = found
        if digest != request.digest:
            raise InputError(
                f"request {request.id!r} of client {request.client!r} was made with other images or to another API:"
                " use a new id"
            )
        return answer, price

    def _account(self, client: str, terms: Terms) -> tuple[Usage, float]:
        row = self._connection.execute(
            "SELECT queries, cost, budget, price FROM accounts WHERE client = ?", (client,)
        ).fetchone()
        queries, cost, budget, price = row or (0, 0.0, None, None)
        budget = terms.budget if budget is None else budget
        price = (terms.price or 0.0) if price is None else price
        return Usage(queries=queries, budget=budget, cost=cost), price


def _open(path: Path | str) -> sqlite3.Connection:
    # No isolation level: transactions begin where the code says so, not where the driver guesses.
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
