"""The transfer set: queried images with their answers, kept as they come, pickle-free and resumable.

It is a small SQLite database: a header, and chunks of a fixed number of records, each stored in one transaction with a
seal, a digest of the header, the chunk's number and its records. So a killed writer leaves whole chunks, and an edited
one does not fit its seal.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import sqlalchemy as sql
import torch
from filelock import FileLock, Timeout

from extractlib.api.granularity import Answers, Granularity
from extractlib.database import Database, seal
from extractlib.errors import InputError, check_positive
from extractlib.store import digest

VERSION = 3

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
        pool_size: Images of the pool, at most 2 to the power 32.
        api: Fingerprint of the API that answered.
        granularity: What its answers show.
        classes: Number of the victim's classes.
        strategy: How queries were chosen.
        seed: Seed of the choice of queries.
        budget: Records of the complete set.
        chunk: Records of a chunk; the last one holds what is left.
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

    def __post_init__(self):
        for name in ("pool_size", "classes", "budget", "chunk"):
            check_positive(name, getattr(self, name))
        if self.budget > self.pool_size or self.pool_size > 2**32:
            raise InputError(
                f"budget is {self.budget} and the pool holds {self.pool_size} images: at most as many queries as"
                " images, and at most 2^32 of those, are possible"
            )
        self._granularity.record(self.classes)

    @cached_property
    def line(self) -> str:
        """The header as text."""
        return json.dumps(asdict(self))

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of all fields."""
        return digest(self.line)

    @cached_property
    def record(self) -> np.dtype:
        """Layout of one record: index in the pool, and the answer with half-precision probabilities."""
        return np.dtype([("index", "<u4"), ("answer", self._granularity.record(self.classes, real="<f2"))])

    @cached_property
    def _granularity(self) -> Granularity:
        return Granularity.parse(self.granularity)

    def records_in(self, chunk: int) -> int:
        """Return how many records chunk number `chunk` holds; 0 behind the last."""
        return min(self.chunk, max(0, self.budget - chunk * self.chunk))

    def pack(self, indices: torch.Tensor, answers: Answers) -> np.ndarray:
        """Return records, of dtype `record`, of indices (int64 of shape (n,)) and the answers to those images."""
        packed = np.empty(len(indices), self.record)
        packed["index"] = indices.numpy()
        packed["answer"] = self._granularity.pack(answers, self.record["answer"])
        return packed

    def unpack(self, records: np.ndarray) -> "TransferSet":
        """Return the transfer set that records hold, its probabilities as they were stored."""
        indices = torch.from_numpy(records["index"].astype(np.int64))
        return TransferSet(indices, self._granularity.unpack(records["answer"]), self)

    @classmethod
    def parse(cls, path: Path, line: str) -> "Header":
        """Return the header that is written in `line`."""
        try:
            values = json.loads(line)
            types = {field.name: field.type for field in fields(cls)}
            if {name: type(value) for name, value in values.items()} != types or values["version"] != VERSION:
                raise ValueError
            return cls(**values)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path} is no transfer set of version {VERSION}, or its header was edited") from None


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
        """Return the first `count` records: what an attack of that budget would hold.

        Raises:
            InputError: There are fewer, or `count` is no positive whole number.
        """
        if check_positive("budget", count) > len(self):
            raise InputError(f"budget is {count}: the transfer set holds {len(self)} records")
        return TransferSet(self.indices[:count], self.answers[:count], self.header)


class TransferFile:
    """A transfer set open for appending; a new one gets its header, an old one is resumed.

    Use it as a context manager, or close it.

    Args:
        path: The file; its folder is made if it is not there. None keeps the set in memory.
        header: What the set must say of itself.

    Raises:
        InputError: The file has another header, was edited, is of another kind, or another process is writing it.
    """

    def __init__(self, path: Path | None, header: Header):
        self.header, self._path = header, path
        self._open = ExitStack()
        with self._open as opening:
            if path is not None:
                _make_folder(path.parent)
                opening.callback(_only_writer(path).release)
            self._database = Database(path, TABLES, what="transfer set")
            opening.callback(self._database.close)
            self._held = self._resume()
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
        return self.header.unpack(np.concatenate([np.empty(0, self.header.record), *self._held]))

    def append(self, indices: torch.Tensor, answers: Answers) -> Answers:
        """Store the next chunk, and return its answers as they are stored when they are on the disk.

        Args:
            indices: int64 of shape (n,); n is what the header says of this chunk.
            answers: The answers to these images.

        Raises:
            InputError: Their number is another.
        """
        number, count = self.chunks, self.header.records_in(self.chunks)
        if not len(indices) == len(answers) == count > 0:
            raise InputError(f"{len(indices)} indices and {len(answers)} answers: chunk {number} takes {count}")
        packed = self.header.pack(indices, answers)
        records = packed.tobytes()
        row = {"number": number, "records": records, "seal": seal(self.header.digest, number, records)}
        with self._database.transaction() as connection:
            connection.execute(sql.insert(CHUNKS), row)
        self._held.append(packed)
        return self.header.unpack(packed).answers

    def _resume(self) -> list[np.ndarray]:
        """Return the chunks that are there, once the header is the wanted one."""
        with self._database.transaction() as connection:
            lines = connection.execute(sql.select(HEADERS.c.line)).scalars().all()
            if not lines:
                connection.execute(sql.insert(HEADERS), {"line": self.header.line})
            elif lines != [self.header.line]:
                raise _other_header(self._path, Header.parse(self._path, lines[0]), self.header)
            return _read(connection, self._path, self.header)


def load(path: Path, *, partial: bool = False) -> TransferSet:
    """Read a transfer set.

    Args:
        path: The file.
        partial: Whether to return what is there while the collection is not finished.

    Raises:
        InputError: The file is missing, no transfer set, edited, or not finished.
    """
    if not path.is_file():
        raise InputError(f"{path} cannot be read (no such file): name a transfer set")
    database = Database(path, TABLES, what="transfer set", create=False)
    try:
        with database.transaction() as connection:
            lines = connection.execute(sql.select(HEADERS.c.line)).scalars().all()
            header = Header.parse(path, lines[0] if len(lines) == 1 else "")
            chunks = _read(connection, path, header)
    finally:
        database.close()
    held = sum(map(len, chunks))
    if held < header.budget and not partial:
        raise InputError(f"{path} holds {held} of {header.budget} records: collect again to resume it")
    return header.unpack(np.concatenate([np.empty(0, header.record), *chunks]))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be made ({error.strerror}): name another") from None


def _only_writer(path: Path) -> FileLock:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"{path} is being written by another process: wait, or name another file") from None
    return lock


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


def _other_header(path: Path | None, found: Header, wanted: Header) -> InputError:
    for name, value in asdict(wanted).items():
        if getattr(found, name) != value:
            return InputError(
                f"{path} is the transfer set of another {name.replace('_', ' ')}, {getattr(found, name)!r} and not"
                f" {value!r}: name another file"
            )
    return InputError(f"{path} has a header that was edited: name another file")
