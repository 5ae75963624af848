"""The transfer set (Orekondy et al. 2019, section 4.2): queried images with their answers, kept as they arrive.

It is a small SQLite database: a header, and chunks of a fixed number of records, each stored in one transaction with a
seal: a digest of the header, the chunk's number and its records. So a killed writer leaves only whole chunks, and an
edited chunk does not match its seal. Nothing in it is a pickle.
"""

import json
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import sqlalchemy as sql
import torch
from filelock import FileLock, Timeout

from extractlib.api.granularity import Answers, Granularity
from extractlib.database import Database, seal
from extractlib.errors import InputError, check_positive, keep
from extractlib.store import digest

VERSION = 3

GIVEN = {"seed": "seed", "budget": "budget", "chunk": "batch"}
"""Fields of a header that repeat an attack's arguments, with the arguments' names."""

TABLES = sql.MetaData()
HEADERS = sql.Table("header", TABLES, sql.Column("line", sql.Text, primary_key=True))
CHUNKS = sql.Table(
    "chunks",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("records", sql.LargeBinary, nullable=False),
    sql.Column("seal", sql.LargeBinary, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """Where a transfer set comes from, and how its records are laid out.

    Attributes:
        pool: Fingerprint of the pool.
        pool_size: Number of images in the pool, at most 2 to the power 32.
        api: Fingerprint of the API that answered.
        granularity: What its answers show.
        classes: Number of the victim's classes.
        strategy: How queries were chosen.
        seed: Seed of the choice of queries.
        budget: Records of the complete set.
        chunk: Records per chunk; the last chunk holds what is left.
        version: Version of the layout.

    Raises:
        InputError: A value does not fit.
    """

    pool: str
    pool_size: int
    api: str
    granularity: str
    classes: int
    strategy: str
    seed: int
    budget: int
    chunk: int
    version: int = VERSION

    def __post_init__(self) -> None:
        for name, most in (("pool_size", 2**32), ("classes", None), ("budget", None), ("chunk", None)):
            keep(self, **{name: check_positive(name, getattr(self, name), at_most=most)})
        check_fits_pool(self.budget, self.pool_size)
        if self.version != VERSION:
            raise InputError(f"version is {self.version}: expected layout {VERSION}")
        self.shown.record(self.classes)

    @cached_property
    def line(self) -> str:
        """The header as text."""
        return json.dumps(asdict(self))

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of all fields."""
        return digest(self.line)

    @cached_property
    def shown(self) -> Granularity:
        """What an answer shows."""
        return Granularity.parse(self.granularity)

    @cached_property
    def record(self) -> np.dtype:
        """Layout of one record: index in the pool, and the answer with half-precision probabilities."""
        return np.dtype([("index", "<u4"), ("answer", self.shown.record(self.classes, real="<f2"))])

    def records_in(self, chunk: int) -> int:
        """Return how many records chunk number `chunk` holds; 0 after the last."""
        return min(self.chunk, max(0, self.budget - chunk * self.chunk))

    def unpack(self, chunks: list[np.ndarray]) -> "TransferSet":
        """Return the transfer set that chunks of records hold, its probabilities as they were stored."""
        records = np.concatenate([np.empty(0, self.record), *chunks])
        indices = torch.from_numpy(records["index"].astype(np.int64))
        return TransferSet(indices, self.shown.unpack(records["answer"]), self)


@dataclass(frozen=True, eq=False)
class TransferSet:
    """Queried images with their answers.

    Attributes:
        indices: int64 of shape (n,): which images of the pool, in the order of the queries.
        answers: The n answers, their probabilities at half precision.
        header: Where they come from.
    """

    indices: torch.Tensor
    answers: Answers
    header: Header

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, count: int) -> "TransferSet":
        """Return the first `count` records: what an attack with that budget would hold.

        Raises:
            InputError: There are fewer, or `count` is not a positive whole number.
        """
        if check_positive("budget", count) > len(self):
            raise InputError(f"budget is {count}: the transfer set holds {len(self)} records")
        return TransferSet(self.indices[:count], self.answers[:count], self.header)


class TransferFile:
    """A transfer set open for appending; a new file gets its header, an old one is resumed.

    Use it as a context manager, or close it.

    Args:
        path: The file; its folder is created if it does not exist. None keeps the set in memory.
        header: What the set must say about itself.

    Raises:
        InputError: The file has another header, was edited, is of another kind, or another process is writing it.
    """

    def __init__(self, path: Path | None, header: Header):
        self.header = header
        with ExitStack() as opening:
            if path is not None:
                opening.enter_context(_only_writer(path))
            self._database = opening.enter_context(closing(Database(path, TABLES, what="transfer set")))
            with self._database.transaction() as connection:
                lines = _lines(connection)
                if not lines:
                    connection.execute(sql.insert(HEADERS), {"line": header.line})
                elif lines != [header.line]:
                    raise _another(path, _parse(path, lines), header)
                self._held = _read(connection, path, header)
            self._open = opening.pop_all()

    def __enter__(self) -> "TransferFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other processes write it."""
        self._open.close()

    @property
    def chunks(self) -> int:
        """Number of chunks held; also the number of the next one."""
        return len(self._held)

    @property
    def records(self) -> int:
        """Number of records held."""
        return sum(map(len, self._held))

    @property
    def transfer(self) -> TransferSet:
        """What is held so far."""
        return self.header.unpack(self._held)

    def append(self, indices: torch.Tensor, answers: Answers) -> Answers:
        """Store the next chunk, and return its answers as they are stored once they are on the disk.

        Args:
            indices: int64 of shape (n,); n is what the header says of this chunk.
            answers: The answers to these images.

        Raises:
            InputError: Their number differs from the header's, or they do not show what the header says.
        """
        header, number = self.header, self.chunks
        count = header.records_in(number)
        if not len(indices) == len(answers) == count > 0:
            raise InputError(f"{len(indices)} indices and {len(answers)} answers: chunk {number} takes {count}")
        packed = np.empty(count, header.record)
        packed["index"], packed["answer"] = indices, header.shown.pack(answers, header.record["answer"])
        records = packed.tobytes()
        row = {"number": number, "records": records, "seal": seal(header.digest, number, records)}
        with self._database.transaction() as connection:
            connection.execute(sql.insert(CHUNKS), row)
        self._held.append(packed)
        return header.unpack([packed]).answers


def load(path: Path | str, *, partial: bool = False) -> TransferSet:
    """Read a transfer set.

    Args:
        path: The file.
        partial: Whether to return what is there while the collection is not finished.

    Raises:
        InputError: The file is missing, is not a transfer set, was edited, or is not finished.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} cannot be read (no such file): name a transfer set")
    database = Database(path, TABLES, what="transfer set", create=False)
    with closing(database), database.transaction() as connection:
        header = _parse(path, _lines(connection))
        found = header.unpack(_read(connection, path, header))
    if len(found) < header.budget and not partial:
        raise InputError(f"{path} holds {len(found)} of {header.budget} records: collect again to resume it")
    return found


def check_fits_pool(budget: int, pool_size: int) -> None:
    """Reject a budget above the number of the pool's images.

    Raises:
        InputError: It is above.
    """
    if budget > pool_size:
        raise InputError(f"budget is {budget}, but the pool holds {pool_size} images: query at most that many")


def _only_writer(path: Path) -> AbstractContextManager[object]:
    """Return a lock that is held, as a context manager; the folder is created first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=0)
    except Timeout:
        raise InputError(f"{path} is being written by another process: wait, or name another file") from None
    except OSError as error:
        raise InputError(f"folder {path.parent} cannot be created ({error.strerror}): name another") from None


def _lines(connection: sql.Connection) -> list[str]:
    return list(connection.execute(sql.select(HEADERS.c.line)).scalars())


def _parse(path: Path | None, lines: list[str]) -> Header:
    try:
        [line] = lines
        return Header(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{path} is not a transfer set of version {VERSION}, or its header was edited") from None


def _read(connection: sql.Connection, path: Path | None, header: Header) -> list[np.ndarray]:
    """Return the records of each chunk."""
    chunks: list[np.ndarray] = []
    for number, records, sealed in connection.execute(sql.select(CHUNKS).order_by(CHUNKS.c.number)):
        size = header.records_in(len(chunks)) * header.record.itemsize
        whole = number == len(chunks) and isinstance(records, bytes) and len(records) == size > 0
        if not whole or sealed != seal(header.digest, number, records):
            raise InputError(f"{path}: chunk {len(chunks)} was edited or damaged: collect into a new file")
        chunks.append(np.frombuffer(records, header.record))
    return chunks


def _another(path: Path | None, found: Header, wanted: Header) -> InputError:
    for name, value in asdict(wanted).items():
        old = getattr(found, name)
        if old != value:
            given = GIVEN.get(name)
            remedy = f"give {given}={old}, or name another file" if given else "name another file"
            what = f"another {given or name.replace('_', ' ')}, {old!r} instead of {value!r}"
            return InputError(f"{path} is the transfer set of {what}: {remedy}")
    return InputError(f"{path} has a header that was edited: name another file")
