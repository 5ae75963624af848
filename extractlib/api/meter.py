"""The meter: the API's own record of who asked what, and what it cost.

Each request is stored with its answer and its charge in one transaction. Sent again, it is answered from the record
for free, so a client that was cut off anywhere is charged once and answered once.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from extractlib.database import Database, insert_if_absent, seal
from extractlib.errors import InputError, check_name, check_positive

LARGEST = 2**63 - 1
"""The highest budget that a database holds."""

DEAREST = 10**12
"""The highest price of a query."""

TABLES = sql.MetaData()
ACCOUNTS = sql.Table(
    "accounts",
    TABLES,
    sql.Column("client", sql.Text, primary_key=True),
    sql.Column("budget", sql.BigInteger),
    sql.Column("price", sql.Text),
    sql.Column("queries", sql.BigInteger, nullable=False),
    sql.Column("cost", sql.Text, nullable=False),  # a decimal number, exact
    sql.Column("seal", sql.LargeBinary, nullable=False),
)
UNUSED = {"budget": None, "price": None, "queries": 0, "cost": "0"}
"""The account of a client that was never seen."""

REQUESTS = sql.Table(
    "requests",
    TABLES,
    sql.Column("client", sql.Text, primary_key=True),
    sql.Column("id", sql.Text, primary_key=True),
    sql.Column("digest", sql.LargeBinary, nullable=False),
    sql.Column("queries", sql.BigInteger, nullable=False),
    sql.Column("cost", sql.Text, nullable=False),
    sql.Column("answer", sql.LargeBinary, nullable=False),
    sql.Column("seal", sql.LargeBinary, nullable=False),
)


class BudgetExceeded(InputError):
    """A request asks for more queries than its client has left; it was refused whole and charged nothing."""


class RequestReused(InputError):
    """The id of a request was used before, for other images or at another API; nothing was charged."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a client may ask and pays.

    Attributes:
        budget: Queries it may send in all, at least 1; None for no limit.
        price: Cost of one query, 0 to `DEAREST`, in any currency; None for nothing agreed.

    Raises:
        InputError: A value is out of range.
    """

    budget: int | None = None
    price: float | None = None

    def __post_init__(self):
        if self.budget is not None:
            check_positive("budget", self.budget, at_most=LARGEST)
        if self.price is None:
            return
        number = isinstance(self.price, int | float) and not isinstance(self.price, bool)
        if not number or not 0 <= self.price <= DEAREST:
            raise InputError(f"price is {self.price!r}: a finite number from 0 to {DEAREST:,} is wanted")


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

    Raises:
        InputError: Client or id is no name.
    """

    client: str
    id: str
    digest: bytes
    queries: int

    def __post_init__(self):
        check_name("client", self.client)
        check_name("request", self.id)


@dataclass(frozen=True)
class Account:
    """A client's terms, the API's where it has none of its own, and what it has used."""

    budget: int | None
    price: Decimal
    queries: int
    cost: Decimal

    @property
    def usage(self) -> Usage:
        """What may be told to the client."""
        return Usage(queries=self.queries, budget=self.budget, cost=float(self.cost))


class Meter:
    """Accounts and requests in a database: SQLite in a file or in memory, or what an SQLAlchemy address names.

    Threads may share a meter. Several processes may use one database, each through a meter of its own, opened after
    any fork. APIs that share a meter share their clients' accounts.

    Args:
        place: File of the database, made if it is not there, or an address; None keeps everything in memory.

    Raises:
        InputError: It cannot be opened or is no database.
    """

    def __init__(self, place: Path | str | None = None):
        self._database = Database(place, TABLES, what="meter", journal="WAL")
        self.close = self._database.close

    def register(self, client: str, terms: Terms) -> None:
        """Give a client terms of its own; what they leave open stays as the API has it."""
        check_name("client", client)
        own = {"budget": terms.budget, "price": None if terms.price is None else str(terms.price)}
        with self._database.transaction() as connection:
            _open_account(connection, client)
            _save_account(connection, self._row(connection, client) | own)

    def usage(self, client: str, terms: Terms) -> Usage:
        """Return what a client has used; `terms` hold where it has none of its own."""
        check_name("client", client)
        with self._database.transaction() as connection:
            return self._account(connection, client, terms).usage

    def check(self, request: Request, terms: Terms) -> bytes | None:
        """Return the stored answer of a request, or None if it is new and within the budget.

        Raises:
            RequestReused: The id was used for other images or at another API.
            InputError: The record is damaged.
            BudgetExceeded: The request is new and asks for more than is left.
        """
        with self._database.transaction() as connection:
            return self._stored(connection, request, self._account(connection, request.client, terms))

    def charge(self, request: Request, answer: bytes, terms: Terms) -> bytes:
        """Store a request with its answer and charge for it, in one transaction.

        Returns:
            The answer to give: `answer`, or the one stored meanwhile under the same id, which is not charged again.

        Raises:
            InputError: As `check` does, and nothing is charged.
        """
        with self._database.transaction() as connection:
            _open_account(connection, request.client)
            account = self._account(connection, request.client, terms)
            stored = self._stored(connection, request, account)
            if stored is not None:
                return stored
            cost = request.queries * account.price
            record = {
                "client": request.client,
                "id": request.id,
                "digest": request.digest,
                "queries": request.queries,
                "cost": str(cost),
                "answer": answer,
                "seal": _seal(request, answer),
            }
            connection.execute(sql.insert(REQUESTS), record)
            used = {"queries": account.queries + request.queries, "cost": str(account.cost + cost)}
            _save_account(connection, self._row(connection, request.client) | used)
            return answer

    def answers(self, client: str, *, after: str = "", most: int = 100) -> list[tuple[str, bytes]]:
        """Return ids and answers of a client's requests in the order of the ids: at most so many behind `after`.

        Raises:
            InputError: A record is damaged.
        """
        where = (REQUESTS.c.client == client) & (REQUESTS.c.id > after)
        chosen = sql.select(REQUESTS).where(where).order_by(REQUESTS.c.id).limit(most)
        with self._database.transaction() as connection:
            rows = connection.execute(chosen).all()
        for row in rows:
            request = Request(client=row.client, id=row.id, digest=row.digest, queries=row.queries)
            if not isinstance(row.answer, bytes) or row.seal != _seal(request, row.answer):
                raise self._damaged(f"the record of request {row.id!r}")
        return [(row.id, row.answer) for row in rows]

    def _stored(self, connection: sql.Connection, request: Request, account: Account) -> bytes | None:
        """Return the stored answer, if there is one."""
        where = (REQUESTS.c.client == request.client) & (REQUESTS.c.id == request.id)
        found = connection.execute(
            sql.select(REQUESTS.c.digest, REQUESTS.c.answer, REQUESTS.c.seal).where(where)
        ).first()
        if found is None:
            remaining = account.usage.remaining
            if remaining is not None and request.queries > remaining:
                raise BudgetExceeded(
                    f"client {request.client!r} asks {request.queries} queries and {remaining} of {account.budget} are"
                    f" left: ask at most {remaining}"
                )
            return None
        if found.digest != request.digest:
            raise RequestReused(
                f"request {request.id!r} of client {request.client!r} was made with other images or to another API:"
                " use a new id"
            )
        if not isinstance(found.answer, bytes) or found.seal != _seal(request, found.answer):
            raise self._damaged(f"the record of request {request.id!r}")
        return found.answer

    def _damaged(self, what: str) -> InputError:
        return InputError(f"meter {self._database.name}: {what} is damaged: restore it from a copy")

    def _account(self, connection: sql.Connection, client: str, terms: Terms) -> Account:
        """Return a client's account."""
        row = self._row(connection, client)
        return Account(
            budget=terms.budget if row["budget"] is None else row["budget"],
            price=Decimal(str(terms.price or 0) if row["price"] is None else row["price"]),
            queries=row["queries"],
            cost=Decimal(row["cost"]),
        )

    def _row(self, connection: sql.Connection, client: str) -> dict[str, Any]:
        """Return a client's row of `ACCOUNTS` without its seal, locked until the transaction ends."""
        chosen = sql.select(ACCOUNTS).where(ACCOUNTS.c.client == client).with_for_update()
        found = connection.execute(chosen).mappings().first()
        if found is None:
            return {"client": client, **UNUSED}
        row = dict(found)
        if row.pop("seal") != _account_seal(row):
            raise self._damaged(f"the account of client {client!r}")
        return row


def _open_account(connection: sql.Connection, client: str) -> None:
    row = {"client": client, **UNUSED}
    insert_if_absent(connection, ACCOUNTS, row | {"seal": _account_seal(row)})


def _save_account(connection: sql.Connection, row: dict[str, Any]) -> None:
    values = row | {"seal": _account_seal(row)}
    connection.execute(sql.update(ACCOUNTS).where(ACCOUNTS.c.client == row["client"]).values(values))


def _account_seal(row: dict[str, Any]) -> bytes:
    return seal(*(repr(row[name]) for name in ("client", *UNUSED)))


def _seal(request: Request, answer: bytes) -> bytes:
    return seal(request.client, request.id, request.digest, request.queries, answer)
