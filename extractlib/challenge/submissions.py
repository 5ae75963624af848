"""What teams hand in: stored under its hash, and scored one after the other on a separate thread."""

import hashlib
import json
import logging
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
import torch

from extractlib.api import keys, meter
from extractlib.challenge.sandbox import Sandbox
from extractlib.challenge.scoring import Hidden, Score
from extractlib.database import Database
from extractlib.errors import InputError
from extractlib.models.classifier import Surrogate

LOG = logging.getLogger("extractlib.challenge")

AGAIN = 60.0
"""Seconds after which a copy is tried again that the host's database refused to record."""

ATTEMPTS = 10
"""Copies that a team may hand in each day, as a multiple of those scored: failed ones do not count as scored."""

TABLES = sql.MetaData()
SUBMISSIONS = sql.Table(
    "submissions",
    TABLES,
    sql.Column("id", sql.Text, primary_key=True),
    sql.Column("team", sql.Text, nullable=False),
    sql.Column("received", sql.Text, nullable=False),
    sql.Column("sha256", sql.Text, nullable=False),
    sql.Column("size", sql.BigInteger, nullable=False),
    sql.Column("network", sql.Text),  # none for a model in ONNX
    sql.Column("queries", sql.BigInteger, nullable=False),
    sql.Column("state", sql.Text, nullable=False),
    sql.Column("reason", sql.Text),
    sql.Column("public", sql.Text),
    sql.Column("final", sql.Text),
)

WAITING, SCORED, FAILED = "waiting", "scored", "failed"


class TooMany(InputError):
    """A team has handed in as many copies as it may for now."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A copy that was handed in.

    Attributes:
        id: Its name.
        team: The team that handed it in.
        received: When it was received, in UTC.
        sha256: Digest of the file.
        size: Its size in bytes.
        network: The architecture of weights in safetensors; None for a model in ONNX.
        queries: How many the team had been charged for when the copy was received.
        state: ``"waiting"``, ``"scored"`` or ``"failed"``.
        reason: Why it failed.
        public, final: Its scores on the two parts of the hidden images.
    """

    id: str
    team: str
    received: str
    sha256: str
    size: int
    network: str | None
    queries: int
    state: str = WAITING
    reason: str | None = None
    public: Score | None = None
    final: Score | None = None

    def shown(self) -> dict[str, Any]:
        """Return what its team may see, ready for JSON: everything but the final score."""
        said = asdict(self)
        return {name: value for name, value in said.items() if name not in ("team", "final")}


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How many copies of a team are scored.

    Attributes:
        a_day: Copies per day, in UTC. Including those that fail, `ATTEMPTS` times as many are accepted.
        queries: Queries that must have been charged for each copy after the first. A score is an answer too, so all
            scores together tell a team less than its queries do, and handing in copies alone gains nothing.
    """

    a_day: int
    queries: int

    def check(self, own: Sequence[Submission], *, team: str, day: str, charged: int) -> None:
        """Refuse one more copy.

        Args:
            own: All copies of the team.
            team: The team.
            day: Today, as 2026-12-24.
            charged: Queries that the team has been charged for.

        Raises:
            TooMany: It must wait, or query more.
        """
        counted = [one for one in own if one.state != FAILED]
        scored, attempts = (sum(one.received.startswith(day) for one in some) for some in (counted, own))
        later = "the next one is accepted from 00:00 UTC"
        if scored >= self.a_day:
            raise TooMany(f"team {team!r} has handed in {scored} copies today: {later}")
        if attempts >= ATTEMPTS * self.a_day:
            raise TooMany(f"team {team!r} has handed in {attempts} copies today, and most failed: {later}")
        # The first copy, too, must be one of the victim, if only from a single query.
        needed = max(self.queries * len(counted), min(self.queries, 1))
        if charged < needed:
            raise TooMany(
                f"team {team!r} has been charged for {charged:,} queries, but copy {len(counted) + 1} is scored only"
                f" from {needed:,} on: query the victim more"
            )


class Submissions:
    """The copies in a challenge's database and folder.

    Args:
        place: File or address of the database, which already holds the meter and the keys.
        folder: Where the files are stored, each under its hash.
        quota: How many copies of a team are scored.
        clock: Returns the time.

    Raises:
        InputError: The database cannot be opened.
    """

    def __init__(
        self,
        place: Path | str,
        folder: Path,
        *,
        quota: Quota,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        others = (*meter.TABLES.tables, *keys.TABLES.tables)
        self._database = Database(place, TABLES, what="submissions", journal="WAL", beside=others)
        self.close = self._database.close
        self._folder, self._quota, self._clock = folder, quota, clock
        folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, team: str, content: bytes, *, network: str | None, queries: int) -> Submission:
        """Store a copy and return it; the same copy handed in again, unless it failed, is the stored one.

        Raises:
            TooMany: The team must wait, or query more.
        """
        sha256, now = hashlib.sha256(content).hexdigest(), self._clock().astimezone(UTC)
        with self._written(sha256, content) as written, self._database.transaction() as connection:
            # PostgreSQL has transactions that write at the same time, SQLite does not.
            if connection.dialect.name == "postgresql":
                connection.execute(sql.text("LOCK TABLE submissions IN EXCLUSIVE MODE"))
            own = [_read(row) for row in connection.execute(_chosen(team=team)).mappings()]
            for one in own:
                if one.state != FAILED and (one.sha256, one.network) == (sha256, network):
                    return one
            self._quota.check(own, team=team, day=now.date().isoformat(), charged=queries)
            os.replace(written, self._folder / sha256)
            added = Submission(
                id=uuid.uuid4().hex,
                team=team,
                received=now.isoformat(timespec="microseconds"),
                sha256=sha256,
                size=len(content),
                network=network,
                queries=queries,
            )
            connection.execute(sql.insert(SUBMISSIONS), asdict(added))
            return added

    def all(self, **where: str) -> list[Submission]:
        """Return the copies whose columns have the given values, the oldest first."""
        with self._database.transaction(reads=True) as connection:
            return [_read(row) for row in connection.execute(_chosen(**where)).mappings()]

    def content(self, submission: Submission) -> Path:
        """Return the file of a copy."""
        return self._folder / submission.sha256

    def scored(self, name: str, public: Score, final: Score) -> None:
        """Record the scores of a copy."""
        scores = {"public": json.dumps(public.to_json()), "final": json.dumps(final.to_json())}
        self._update(name, state=SCORED, **scores)

    def failed(self, name: str, reason: str) -> None:
        """Record why a copy has no score."""
        self._update(name, state=FAILED, reason=reason)

    def _update(self, name: str, **values: str) -> None:
        with self._database.transaction() as connection:
            # What is decided stays so, even if two servers have scored the copy.
            waiting = (SUBMISSIONS.c.id == name) & (SUBMISSIONS.c.state == WAITING)
            connection.execute(sql.update(SUBMISSIONS).where(waiting).values(values))

    @contextmanager
    def _written(self, sha256: str, content: bytes) -> Iterator[Path]:
        """Write a copy to a file of its own, before the database is locked; it is removed unless it was moved."""
        partial = self._folder / f"{sha256}.{uuid.uuid4().hex}.part"
        try:
            partial.write_bytes(content)
            yield partial
        finally:
            partial.unlink(missing_ok=True)


class Judge:
    """Scores waiting copies one after the other on a thread; what a killed server left is scored first.

    Args:
        submissions: The copies.
        hidden: What they are scored on.
        classes: Name of each class.
        sandbox: Where models in ONNX run; None if they cannot be isolated.
    """

    def __init__(self, submissions: Submissions, hidden: Hidden, classes: tuple[str, ...], sandbox: Sandbox | None):
        self._submissions, self._hidden, self._classes, self.sandbox = submissions, hidden, classes, sandbox
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._queued, self._closed = set[str](), False
        for left in submissions.all(state=WAITING):
            self.put(left)
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def put(self, submission: Submission) -> None:
        """Score a copy once those before it are scored; one that is already waiting keeps its place."""
        if submission.id not in self._queued:
            self._queued.add(submission.id)
            self._queue.put(submission)

    def close(self) -> None:
        """Stop scoring; waiting copies are scored when the server runs again."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(5)

    def _work(self) -> None:
        while (submission := self._queue.get()) and not self._closed:
            try:
                self._judge(submission)
            except Exception:  # the host's database: the copy is tried again later, and the judge goes on
                LOG.exception("fault")
                again = threading.Timer(AGAIN, self._queue.put, (submission,))
                again.daemon = True
                again.start()
            else:
                self._queued.discard(submission.id)

    def _judge(self, submission: Submission) -> None:
        try:
            scores = self._hidden.scores(self._labels(submission))
        except InputError as error:
            # Where the host stores the file is not the team's concern.
            reason = str(error).replace(str(self._submissions.content(submission)), "the file")
            self._submissions.failed(submission.id, " ".join(reason.split()))
        except Exception:
            LOG.exception("fault")
            self._submissions.failed(submission.id, "the server failed: tell the host, who has a log")
        else:
            self._submissions.scored(submission.id, *scores)

    def _labels(self, submission: Submission) -> torch.Tensor:
        path, images = self._submissions.content(submission), self._hidden.images
        if submission.network is not None:
            shape = tuple(images.shape[1:])
            copy = Surrogate.load(
                path, network=submission.network, classes=self._classes, image_shape=shape, name="the copy"
            )
            return copy.predict(images)
        if self.sandbox is None:
            raise InputError("this server does not accept ONNX: send safetensors and name the network")
        return self.sandbox.labels(path.read_bytes(), images, classes=len(self._classes))


def _chosen(**where: str) -> sql.Select[Any]:
    return sql.select(SUBMISSIONS).filter_by(**where).order_by(SUBMISSIONS.c.received, SUBMISSIONS.c.id)


def _read(row: Any) -> Submission:
    values = dict(row)
    for part in ("public", "final"):
        values[part] = Score(**json.loads(values[part])) if values[part] else None
    return Submission(**values)
