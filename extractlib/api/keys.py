"""Keys by which a server identifies its clients, and the secret of each victim it serves, in the meter's database.

A key has a public number and a secret of 256 random bits. It is shown once; only the secret's SHA-256 is stored,
which for a secret of that size needs neither a salt nor a slow hash.
"""

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sql

from extractlib.api import meter
from extractlib.data.tables import read_table
from extractlib.database import Database, insert_if_absent
from extractlib.errors import InputError, shown
from extractlib.store import digest

FRESH = 1.0
"""Seconds after which a server reads the keys again: a revoked one may stay valid that long."""

TABLES = sql.MetaData()
KEYS = sql.Table(
    "keys",
    TABLES,
    sql.Column("number", sql.Text, primary_key=True),
    sql.Column("team", sql.Text, nullable=False),
    sql.Column("hash", sql.LargeBinary, nullable=False),
    sql.Column("made", sql.Text, nullable=False),
    sql.Column("revoked", sql.Text),
)
VICTIMS = sql.Table(
    "victims",
    TABLES,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("secret", sql.LargeBinary, nullable=False),
    sql.Column("fingerprint", sql.Text),
)


@dataclass(frozen=True)
class Key:
    """What is stored about a key.

    Attributes:
        number: Its public part.
        team: The team it belongs to.
        hash: SHA-256 of its secret part.
        made: When it was created, in UTC.
        revoked: When it was revoked, in UTC; None while it is valid.
    """

    number: str
    team: str
    hash: bytes
    made: str
    revoked: str | None


class Keys:
    """The keys in a meter's database. Threads may share the object; several processes may use one database.

    Args:
        place: The meter's file or address; None keeps the keys in memory.

    Raises:
        InputError: It cannot be opened, or is of another kind.
    """

    def __init__(self, place: Path | str | None = None):
        if place is not None:
            meter.Meter(place).close()  # creates its tables first: a meter refuses a file that holds only other tables
        self._database = Database(place, TABLES, what="keys", journal="WAL", beside=tuple(meter.TABLES.tables))
        self.close = self._database.close
        self._lock, self._read_at = threading.Lock(), float("-inf")
        self._known: dict[str, Key] = {}

    def add(self, team: str) -> str:
        """Return a new key for a team, which is shown only here.

        Raises:
            InputError: The team's name cannot be used.
        """
        check_team(team)
        with self._database.transaction() as connection:
            key = _insert(connection, team)
        self._read_at = float("-inf")
        return key

    def revoke(self, name: str) -> int:
        """Revoke the key with that number, or all keys of the team with that name, and return how many.

        Raises:
            InputError: There is no valid key.
        """
        chosen = sql.or_(KEYS.c.number == name, KEYS.c.team == name) & KEYS.c.revoked.is_(None)
        with self._database.transaction() as connection:
            count = connection.execute(sql.update(KEYS).where(chosen).values(revoked=_now())).rowcount
        self._read_at = float("-inf")
        if not count:
            raise InputError(f"{shown(name)} is not a team or number of a valid key: see extractlib keys list")
        return count

    def rotate(self, team: str) -> str:
        """Revoke all keys of a team and return a new one; the team keeps its budget and answers.

        Raises:
            InputError: The team has no valid key.
        """
        old = (KEYS.c.team == team) & KEYS.c.revoked.is_(None)
        with self._database.transaction() as connection:  # if it fails, the old keys stay valid
            if not connection.execute(sql.update(KEYS).where(old).values(revoked=_now())).rowcount:
                raise InputError(f"team {shown(team)} has no valid key: see extractlib keys list")
            key = _insert(connection, team)
        self._read_at = float("-inf")
        return key

    def all(self) -> list[Key]:
        """Return all keys, the oldest first."""
        with self._database.transaction(reads=True) as connection:
            return [Key(*row) for row in connection.execute(sql.select(KEYS).order_by(KEYS.c.made, KEYS.c.number))]

    def teams(self) -> list[str]:
        """Return the teams that have a valid key, in the order of their names."""
        return sorted({key.team for key in self.all() if key.revoked is None})

    def team(self, key: str) -> str | None:
        """Return the team whose valid key this is, or None; the comparison takes the same time for all keys."""
        number, _, secret = key.removeprefix("xl-").partition("-")
        found = self._valid().get(number)
        expected = _hash("") if found is None else found.hash
        same = hmac.compare_digest(_hash(secret), expected)
        return found.team if same and found is not None else None

    def secret(self, victim: str) -> bytes:
        """Return the secret of a victim, 32 random bytes created on first use, for its policy and its name."""
        with self._database.transaction() as connection:
            insert_if_absent(connection, VICTIMS, {"name": victim, "secret": secrets.token_bytes(32)})
            return bytes(connection.execute(sql.select(VICTIMS.c.secret).where(VICTIMS.c.name == victim)).scalar_one())

    def claim(self, victim: str, fingerprint: str) -> str:
        """Record what is served under a name, and return the fingerprint that clients are shown.

        It is a digest that includes the victim's secret: it changes when the answers do, and reveals nothing else.

        Raises:
            InputError: Something else was served under this name: its answers could not be read.
        """
        secret = self.secret(victim)
        row = VICTIMS.c.name == victim
        with self._database.transaction() as connection:
            connection.execute(
                sql.update(VICTIMS).where(row & VICTIMS.c.fingerprint.is_(None)).values(fingerprint=fingerprint)
            )
            held = connection.execute(sql.select(VICTIMS.c.fingerprint).where(row)).scalar_one()
        if held != fingerprint:
            raise InputError(
                f"{self._database.name} holds answers of another victim, granularity or policy under the name"
                f" {victim!r}: serve the same again, or name another database"
            )
        return digest(secret, fingerprint)

    def _valid(self) -> dict[str, Key]:
        with self._lock:
            if time.monotonic() - self._read_at > FRESH:
                self._known = {key.number: key for key in self.all() if key.revoked is None}
                self._read_at = time.monotonic()
            return self._known


def teams_of(path: Path) -> list[str]:
    """Return the column ``team`` of a CSV file, in any common encoding and with any common separator.

    Raises:
        InputError: The file cannot be read, has no such column, or names a team twice or one that cannot be used.
    """
    named = read_table(path, ("team",), remedy="name a CSV file with a team in each row of its column team")["team"]
    teams = [check_team(team) for team in named.str.strip()]
    if twice := [team for team in teams if teams.count(team) > 1]:
        raise InputError(f"{path} names team {shown(twice[0])} twice: name it once")
    return teams


def check_team(name: str) -> str:
    """Return the name of a team if it is one: 1 to 100 printable characters without a slash.

    Raises:
        InputError: It is not one.
    """
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable() or "/" in name:
        raise InputError(f"team is {shown(name)}: expected 1 to 100 printable characters without a slash")
    return name


def _insert(connection: sql.Connection, team: str) -> str:
    """Store a new key of a team and return it."""
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {"number": number, "team": team, "hash": _hash(secret), "made": _now()}
    connection.execute(sql.insert(KEYS), row)
    return f"xl-{number}-{secret}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
