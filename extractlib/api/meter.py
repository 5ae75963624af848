"""The meter: the API's own record of who queried what, and what it cost.

Each request is stored with its answer and its charge in one transaction. Sent again, it is answered from the record
for free, so a client that was cut off at any point is charged once and answered once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from extractlib.database import Database, insert_if_absent, seal
from extractlib.errors import HIGHEST, InputError, check_name, check_positive, keep, shown

HIGHEST_PRICE = 10**12
"""The highest price of a query."""

TABLES = sql.MetaData()
ACCOUNTS = sql.Table(
    "accounts",
    TABLES,
    sql.Column("client", sql.Text, primary_key=True),
    sql.Column("queries", sql.BigInteger, nullable=False),
    sql.Column("cost", sql.Text, nullable=False),  # a decimal number, exact
    sql.Column("seal", sql.LargeBinary, nullable=False),
)
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


# Built once, which takes longer than running them. A row that is read is locked until the transaction ends.
ACCOUNT = sql.select(ACCOUNTS).where(ACCOUNTS.c.client == sql.bindparam("client")).with_for_update()
REQUEST = (
    sql.select(REQUESTS)
    .where((REQUESTS.c.client == sql.bindparam("client")) & (REQUESTS.c.id == sql.bindparam("id")))
    .with_for_update()
)
STORE = sql.insert(REQUESTS)
CHARGE = sql.update(ACCOUNTS).where(ACCOUNTS.c.client == sql.bindparam("charged"))

UNUSED = {"queries": 0, "cost": "0"}
"""The account of a client that has never been seen."""


class BudgetExceeded(InputError):
    """A request asks for more queries than its client has left; it was refused as a whole and nothing was charged."""


class RequestReused(InputError):
    """The id of a request was used before, for other images or at another API; nothing was charged."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How much each client may query, and the price.

    Attributes:
        budget: Queries it may send in all, at least 1; None for no limit.
        price: Cost of one query, 0 to `HIGHEST_PRICE`, in any currency.

    Raises:
        InputError: A value is out of range.
    """

    budget: int | None = None
    price: float = 0.0

    def __post_init__(self) -> None:
        if self.budget is not None:
            keep(self, budget=check_positive("budget", self.budget, at_most=HIGHEST))
        is_number = isinstance(self.price, Real) and not isinstance(self.price, bool)
        if not is_number or not 0 <= self.price <= HIGHEST_PRICE:
            raise InputError(f"price is {shown(self.price)}: expected a finite number from 0 to {HIGHEST_PRICE:,}")
        keep(self, price=float(self.price))


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a client has used so far.

    Attributes:
        queries: Queries charged.
        budget: Queries it may send in all; None for no limit.
        cost: Total cost of the queries, in the currency of the price.
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
        client: Who sends it.
        id: The client's name for the request; sent again, it means the same request.
        digest: Digest of the API and the images.
        queries: Number of images.

    Raises:
        InputError: Client or id is not a name.
    """

    client: str
    id: str
    digest: bytes
    queries: int

    def __post_init__(self) -> None:
        check_name("client", self.client)
        check_name("request", self.id)


class Meter:
    """Accounts and requests in a database: SQLite in a file or in memory, or what an SQLAlchemy address names.

    Threads may share a meter. Several processes may use one database, each through its own meter, opened after any
    fork. APIs that share a meter share their clients' accounts.

    Args:
        place: File of the database, created if it does not exist, or an address; None keeps everything in memory.

    Raises:
        InputError: It cannot be opened or is not a database.
    """

    def __init__(self, place: Path | str | None = None):
        self._database = Database(place, TABLES, what="meter", journal="WAL")
        self.close = self._database.close

    def usage(self, client: str, terms: Terms) -> Usage:
        """Return what a client has used."""
        check_name("client", client)
        with self._database.transaction(reads=True) as connection:
            return _usage(self._account(connection, client), terms)

    def clients(self) -> list[str]:
        """Return who was charged, in the order of their names."""
        with self._database.transaction(reads=True) as connection:
            return list(connection.scalars(sql.select(ACCOUNTS.c.client).order_by(ACCOUNTS.c.client)))

    def total(self) -> Usage:
        """Return what all clients have used together; they have no common budget.

        Raises:
            InputError: A record is damaged.
        """
        with self._database.transaction(reads=True) as connection:
            rows = [row._asdict() for row in connection.execute(sql.select(ACCOUNTS))]
        accounts = [self._unsealed(row, client=row["client"]) for row in rows]
        cost = sum((Decimal(account["cost"]) for account in accounts), Decimal())
        return Usage(queries=sum(account["queries"] for account in accounts), budget=None, cost=float(cost))

    def check(self, request: Request, terms: Terms) -> bytes | None:
        """Return the stored answer of a request, or None if it is new and within the budget.

        Raises:
            RequestReused: The id was used for other images or at another API.
            InputError: The record is damaged.
            BudgetExceeded: The request is new and asks for more than is left.
        """
        with self._database.transaction(reads=True) as connection:
            return self._stored(connection, request, self._account(connection, request.client), terms)

    def charge(self, request: Request, answer: bytes, terms: Terms) -> bytes:
        """Store a request with its answer and charge for it, in one transaction.

        Returns:
            The answer to give: `answer`, or the one stored meanwhile under the same id, which is not charged again.

        Raises:
            InputError: As for `check`; nothing is charged.
        """
        with self._database.transaction() as connection:
            insert_if_absent(connection, ACCOUNTS, _sealed({"client": request.client, **UNUSED}))
            account = self._account(connection, request.client)
            stored = self._stored(connection, request, account, terms)
            if stored is not None:
                return stored
            cost = request.queries * Decimal(str(terms.price))
            record = {**vars(request), "cost": str(cost), "answer": answer}
            connection.execute(STORE, _sealed(record))
            account["queries"] += request.queries
            account["cost"] = str(Decimal(account["cost"]) + cost)
            connection.execute(CHARGE, {**_sealed(account), "charged": request.client})
            return answer

    def answers(self, client: str, *, after: str = "", most: int = 100) -> list[tuple[str, bytes]]:
        """Return ids and answers of a client's requests in the order of the ids: at most `most` after `after`.

        Raises:
            InputError: A record is damaged.
        """
        where = (REQUESTS.c.client == client) & (REQUESTS.c.id > after)
        chosen = sql.select(REQUESTS).where(where).order_by(REQUESTS.c.id).limit(most)
        with self._database.transaction(reads=True) as connection:
            rows = [self._unsealed(row._asdict(), id=row.id) for row in connection.execute(chosen)]
        return [(row["id"], row["answer"]) for row in rows]

    def _stored(
        self, connection: sql.Connection, request: Request, account: Mapping[str, Any], terms: Terms
    ) -> bytes | None:
        """Return the stored answer, if there is one."""
        found = self._find(connection, REQUEST, client=request.client, id=request.id)
        if found is None:
            usage = _usage(account, terms)
            if usage.remaining is not None and request.queries > usage.remaining:
                raise BudgetExceeded(
                    # A canary of the freeze holds these words.
                    f"client {request.client!r} asks {request.queries} queries and {usage.remaining} of {usage.budget}"
                    f" are left: ask at most {usage.remaining}"
                )
            return None
        if found["digest"] != request.digest:
            raise RequestReused(
                f"request {request.id!r} of client {request.client!r} was made with other images or to another API:"
                " use a new id"
            )
        answer: bytes = found["answer"]
        return answer

    def _account(self, connection: sql.Connection, client: str) -> dict[str, Any]:
        return self._find(connection, ACCOUNT, client=client) or {"client": client, **UNUSED}

    def _find(self, connection: sql.Connection, statement: sql.Select[Any], **key: str) -> dict[str, Any] | None:
        """Return the row that a statement finds, without its seal, if there is one."""
        found = connection.execute(statement, key).first()
        return None if found is None else self._unsealed(found._asdict(), **key)

    def _unsealed(self, found: Mapping[str, Any], **key: str) -> dict[str, Any]:
        """Return a row without its seal."""
        row = {name: value for name, value in found.items() if name != "seal"}
        if _sealed(row) != found:
            what = " and ".join(f"{name} {value!r}" for name, value in key.items())
            raise InputError(f"meter {self._database.name}: the record of {what} is damaged: restore it from a backup")
        return row


def _usage(account: Mapping[str, Any], terms: Terms) -> Usage:
    return Usage(queries=account["queries"], budget=terms.budget, cost=float(account["cost"]))


def _sealed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its seal; a value of another type gives another seal."""
    return {
        **row,
        "seal": seal(*(row[name] if isinstance(row[name], bytes) else repr(row[name]) for name in sorted(row))),
    }
