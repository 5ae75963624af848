"""The transfer set as a file: queried images with their answers, append-only, pickle-free, resumable.

The file is one line of JSON, the header, and then frames. A frame is a fixed number of records and a seal, a digest of
the header, the frame's number and its records. So a torn frame is shorter than it should be, and an edited one does
not fit its seal.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from extractlib.api.service import Answers, Granularity
from extractlib.errors import InputError, positive
from extractlib.store import digest

VERSION = 2
SEAL_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Header:
    """Where a transfer set comes from, and how its file is laid out.

    Attributes:
        pool: Fingerprint of the pool.
        pool_size: Images of the pool, at most 2 to the power 32.
        api: Fingerprint of the API that answered.
        granularity: What its answers show.
        classes: Number of the victim's classes.
        strategy: How queries were chosen.
        seed: Seed of the choice of queries.
        budget: Records of the complete file.
        chunk: Records of a frame; the last one holds what is left.
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
            positive(name, getattr(self, name))
        if self.budget > self.pool_size or self.pool_size > 2**32:
            raise InputError(
                f"budget is {self.budget} and the pool holds {self.pool_size} images: at most as many queries as"
                " images, and at most 2^32 of those, are possible"
            )
        Granularity.parse(self.granularity).record(self.classes)

    @cached_property
    def line(self) -> bytes:
        """The header as the file's first line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digest of all fields."""
        return digest(self.line)

    @cached_property
    def record(self) -> np.dtype:
        """Layout of one record: index in the pool, and the answer with half-precision probabilities."""
        answer = Granularity.parse(self.granularity).record(self.classes, real="<f2")
        return np.dtype([("index", "<u4"), ("answer", answer)])

    def records_in(self, frame: int) -> int:
        """Return how many records frame number `frame` holds; 0 behind the last."""
        return min(self.chunk, max(0, self.budget - frame * self.chunk))

    def seal(self, frame: int, records: bytes) -> bytes:
        """Return the digest that ends frame number `frame`."""
        start = f"{self.digest}:{frame}:".encode()
        return hashlib.blake2b(start + records, digest_size=SEAL_BYTES).digest()

    @classmethod
    def parse(cls, path: Path, line: bytes) -> "Header":
        """Return the header that is written in `line`, the first of `path`."""
        try:
            values = json.loads(line)
            types = {field.name: field.type for field in fields(cls)}
            if {name: type(value) for name, value in values.items()} != types or values["version"] != VERSION:
                raise ValueError
            return cls(**values)
        except (ValueError, AttributeError):
            raise InputError(f"{path} is no transfer file of version {VERSION}, or its header was edited") from None


@dataclass(frozen=True, eq=False)
class TransferSet:
    """Queried images with their answers.

    Attributes:
        indices: int64 of shape (n,): which images of the pool, in the order of the queries.
        answers: The n answers, their probabilities at the precision of the file.
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
        if positive("budget", count) > len(self):
            raise InputError(f"budget is {count}: the transfer set holds {len(self)} records")
        return TransferSet(self.indices[:count], self.answers[:count], self.header)


class TransferFile:
    """A transfer file open for appending; a new one gets its header, an old one is resumed.

    A torn last frame, left by a writer that was killed, is cut off. Use it as a context manager, or close it.

    Args:
        path: The file; its folder is made if it is not there.
        header: What the file must say of itself.

    Attributes:
        frames: Number of complete frames; also the number of the next one.

    Raises:
        InputError: The file has another header, was edited, or another process is writing it.
    """

    def __init__(self, path: Path, header: Header):
        self.header = header
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{path} is being written by another process: wait, or name another file") from None
        self._file = open(path, "a+b", buffering=0)
        try:
            self.frames = self._resume(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "TransferFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other processes write it."""
        self._file.close()
        self._lock.release()

    @property
    def records(self) -> int:
        """Number of records in complete frames."""
        return min(self.header.budget, self.frames * self.header.chunk)

    def append(self, indices: torch.Tensor, answers: Answers) -> Answers:
        """Write the next frame, and return its answers as the file holds them when it is on the disk.

        Args:
            indices: int64 of shape (n,); n is what the header says of this frame.
            answers: The answers to these images.

        Raises:
            InputError: Their number is another.
        """
        count = self.header.records_in(self.frames)
        if not len(indices) == len(answers) == count > 0:
            raise InputError(f"{len(indices)} indices and {len(answers)} answers: frame {self.frames} takes {count}")
        packed = np.empty(count, self.header.record)
        packed["index"] = indices.numpy()
        granularity = Granularity.parse(self.header.granularity)
        packed["answer"] = granularity.pack(answers, self.header.record["answer"])
        records = packed.tobytes()
        self._write(records + self.header.seal(self.frames, records))
        self.frames += 1
        return granularity.unpack(packed["answer"])

    def _resume(self, path: Path) -> int:
        """Bring the file to the end of its last complete frame and return the number of frames."""
        self._file.seek(0)
        data = self._file.read()
        line = self.header.line
        if len(data) < len(line) and line.startswith(data):
            self._file.truncate(0)
            self._write(line)
            return 0
        if not data.startswith(line):
            raise _other_header(path, Header.parse(path, data.partition(b"\n")[0]), self.header)
        frames = _frames(path, self.header, data[len(line) :])
        size = sum(frame.nbytes + SEAL_BYTES for frame in frames)
        self._file.truncate(len(line) + size)
        return len(frames)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file.fileno(), rest) :]
        os.fsync(self._file.fileno())


def load(path: Path, *, partial: bool = False) -> TransferSet:
    """Read a transfer file.

    Args:
        path: The file.
        partial: Whether to return what is there while the collection is not finished.

    Raises:
        InputError: The file is missing, no transfer file, edited, or not finished.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a transfer file") from None
    line, _, rest = data.partition(b"\n")
    header = Header.parse(path, line)
    records = np.concatenate([np.empty(0, header.record), *_frames(path, header, rest)])
    if len(records) < header.budget and not partial:
        raise InputError(f"{path} holds {len(records)} of {header.budget} records: collect again to resume it")
    indices = torch.from_numpy(records["index"].astype(np.int64))
    return TransferSet(indices, Granularity.parse(header.granularity).unpack(records["answer"]), header)


def _frames(path: Path, header: Header, data: bytes) -> list[np.ndarray]:
    """Return the records of each complete frame; a torn one at the end is left out."""
    frames, start = [], 0
    while count := header.records_in(len(frames)):
        end = start + count * header.record.itemsize
        records, seal = data[start:end], data[end : end + SEAL_BYTES]
        if len(seal) < SEAL_BYTES:
            return frames
        if seal != header.seal(len(frames), records):
            raise InputError(f"{path}: frame {len(frames)} was edited or damaged: collect into a new file")
        frames.append(np.frombuffer(records, header.record))
        start = end + SEAL_BYTES
    if start < len(data):
        raise InputError(f"{path}: {len(data) - start} bytes follow its last record: collect into a new file")
    return frames


def _other_header(path: Path, found: Header, wanted: Header) -> InputError:
    for name, value in asdict(wanted).items():
        if getattr(found, name) != value:
            return InputError(
                f"{path} is the transfer file of another {name.replace('_', ' ')}, {getattr(found, name)!r} and not"
                f" {value!r}: name another file"
            )
    return InputError(f"{path} has a header that was edited: name another file")
