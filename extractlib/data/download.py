"""Where the data sets come from: what can be downloaded is downloaded and verified, the rest is named.

A checksum is the one that the source publishes, never one of ours. Where it publishes none, the SHA-256 of the first
download is written beside the data, and a later one is compared with it.
"""

import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock
from platformdirs import user_data_path
from tqdm.auto import tqdm

from extractlib.data.decoding import room_for
from extractlib.data.layouts import IMAGENET_PARTS, POOLS, TASKS, Listing, listing, record
from extractlib.errors import InputError, one_of

CHECKSUMS = "SHA256SUMS"
"""File beside the data that keeps what was first downloaded, in the form of ``sha256sum``."""

ATTEMPTS = 5
CHUNK = 2**20
TIMEOUT = 60
"""Seconds without a byte after which a transfer counts as broken off."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: Where it is.
        holds: The path that it unpacks to, below the data set's folder.
        md5: The checksum that its source publishes; None where it publishes none.
        cited: Who publishes the checksum.
    """

    url: str
    holds: str
    md5: str | None = None
    cited: str = ""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and how much it should be.

    Attributes:
        page: Its own page.
        download: About how much is to be downloaded.
        counts: Images of each half as published, with the split of Knockoff nets where none is.
        classes: Number of classes.
        archives: What `get` downloads; empty where a login is needed or the choice is the reader's.
        by_hand: What to do where there are no archives.
        even: Images a class of each half, of those in which all classes have equally many.
    """

    page: str
    download: str
    counts: Mapping[str, int]
    classes: int
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    even: Mapping[str, int] = field(default_factory=dict)


GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "caltech256": Source(
            page="https://data.caltech.edu/records/nyy15-4j048",
            download="1.2 GB",
            counts={"train": 23_380, "test": 6_400},
            classes=256,
            even={"test": 25},
            archives=(
                Archive(
                    "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
                    "256_ObjectCategories",
                    "67b4f42ca05d46448c6bb8ecd2220f6d",
                    "torchvision 0.26, datasets/caltech.py",
                ),
            ),
        ),
        "cub200": Source(
            page="https://data.caltech.edu/records/65de6-vp158",
            download="1.2 GB",
            counts={"train": 5_994, "test": 5_794},
            classes=200,
            archives=(
                Archive(
                    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                    "CUB_200_2011",
                    "97eceeb196236b17998738112f37df78",
                    "the record at CaltechDATA",
                ),
            ),
        ),
        "diabetic5": Source(
            page="https://www.kaggle.com/c/diabetic-retinopathy-detection/data",
            download="about 35 GB",
            counts={"train": 34_126, "test": 1_000},
            classes=5,
            even={"test": 200},
            by_hand="log in at Kaggle, accept the competition's rules, join and unpack train.zip.001 to .005 into"
            " train, and unpack trainLabels.csv.zip beside it",
        ),
        "gtsrb": Source(
            page="https://benchmark.ini.rub.de/gtsrb_dataset.html",
            download="0.4 GB",
            counts={"train": 39_209, "test": 12_630},
            classes=43,
            archives=(
                # Not torchvision's GTSRB-Training_fixed.zip, which is the online competition's smaller training set.
                Archive(f"{GTSRB}GTSRB_Final_Training_Images.zip", "GTSRB/Final_Training"),
                Archive(
                    f"{GTSRB}GTSRB_Final_Test_Images.zip",
                    "GTSRB/Final_Test",
                    "c7e4e6327067d32654124b0fe9e82185",
                    "torchvision 0.26, datasets/gtsrb.py",
                ),
                Archive(
                    f"{GTSRB}GTSRB_Final_Test_GT.zip",
                    "GT-final_test.csv",
                    "fe31e9c9270bbcd7b84b7f21a9d9d9e5",
                    "torchvision 0.26, datasets/gtsrb.py",
                ),
            ),
        ),
        "cifar10": Source(
            page="https://www.cs.toronto.edu/~kriz/cifar.html",
            download="0.2 GB",
            counts={"train": 50_000, "test": 10_000},
            classes=10,
            even={"train": 5_000, "test": 1_000},
            archives=(
                Archive(
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "cifar-10-batches-bin",
                    "c32a1d4ab5d03f1284b67883e8d87530",
                    "the data set's own page",
                ),
            ),
        ),
        "imagenet": Source(
            page="https://www.image-net.org/download.php",
            download="138 GB",
            counts={part: 1_000 * count for part, count in IMAGENET_PARTS.items()},
            classes=1_000,
            even=IMAGENET_PARTS,
            by_hand="register and log in, download ILSVRC2012_img_train.tar (MD5 1d675b47d978889d74fa0da5fadfb00e,"
            " torchvision 0.26, datasets/imagenet.py), unpack it into train, and each of its archives, such as"
            " n01440764.tar, into a folder of that name",
        ),
        "openimages": Source(
            page="https://github.com/cvdfoundation/open-images-dataset",
            download="36 GB",
            counts={"queries": 100_349, "detector": 12_543, "validation": 6_272, "test": 6_272},
            classes=0,
            by_hand="aws s3 --no-sign-request sync s3://open-images-dataset/test test (125,436 images, no login"
            " needed); other images do as well, and images.csv with a column ImageID names those to use",
        ),
        "tinyimagenet": Source(
            page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            download="0.2 GB",
            counts={"train": 100_000, "test": 10_000},
            classes=200,
            even={"train": 500, "test": 50},
            archives=(Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200"),),
        ),
    }
)


def default_data() -> Path:
    """Return the folder of the data sets: the one that EXTRACTLIB_DATA names, or else in the user's data."""
    named = os.environ.get("EXTRACTLIB_DATA")
    return Path(named).expanduser() if named else user_data_path("extractlib")


def data_folders(data: Path | None = None) -> dict[str, Path]:
    """Return the folder of each published data set within the one that holds them all, `default_data` if None."""
    place = data or default_data()
    return {name: place / name for name in (*TASKS, *POOLS)}


def get(name: str, data: Path, *, sources: Mapping[str, Source] = SOURCES) -> Listing:
    """Download, verify and unpack a data set into ``data/NAME``; what is there already is left as it is.

    An archive is taken away once it is unpacked. What broke off is kept, and the next call goes on there.

    Args:
        name: Which one.
        data: The folder of the data sets.
        sources: Where they come from.

    Returns:
        What is there now.

    Raises:
        InputError: It cannot be downloaded without a login, a transfer broke off, a checksum is wrong, an archive does
            not hold what it should, or the disk has too little space.
    """
    source, root = sources[one_of("data set", name, sources)], data / name
    if not source.archives:
        raise InputError(f"{name} is to be got by hand, into {root}: {source.by_hand} (see {source.page})")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root} cannot be made ({error.strerror}): name another folder by --data") from None
    with FileLock(root / ".lock"):
        for archive in source.archives:
            if (root / archive.holds).exists():
                continue
            file = root / archive.url.rpartition("/")[2]
            if not file.exists():
                fetch(archive.url, file, md5=archive.md5)
            elif wrong := _wrong(file, file, archive.md5):
                raise InputError(f"{file} has {wrong}: take it away and give the command again")
            _unpack(file, root, archive.holds)
            if archive.md5 is None:
                _remember(file)
            file.unlink()
    try:
        return listing(name, root)
    except InputError as error:
        raise InputError(f"{error}; what is there is damaged: take {root} away and give the command again") from None


def fetch(url: str, path: Path, *, md5: str | None) -> None:
    """Download a file, verify it, and only then give it its name.

    Meanwhile it is called ``NAME.part``; one that is there is gone on with, where the server can do that.

    Args:
        url: Where it is.
        path: Where it goes.
        md5: The checksum that its source publishes. Without one the SHA-256 is compared with that of the first
            download, if `CHECKSUMS` beside the file has it.

    Raises:
        InputError: The server does not answer or has no such file, the transfer broke off, the disk has too little
            space, or the checksum is wrong: then nothing is kept.
    """
    part = path.with_name(path.name + ".part")
    for _ in range(ATTEMPTS):
        had = _size(part)
        missing = _transfer(url, part)
        if not missing or _size(part) <= had:
            break
    if missing:
        raise InputError(
            f"{url} broke off after {_size(part):,} bytes with {missing:,} to go: give the command again, it goes on"
        )
    if wrong := _wrong(part, path, md5):
        part.unlink()
        raise InputError(f"{url} has {wrong}: nothing is kept; give the command again")
    os.replace(part, path)


def _wrong(file: Path, path: Path, md5: str | None) -> str | None:
    """Return in words how the checksum of what is, or will be, at `path` differs from the known one, if it does."""
    kind, wanted, by = ("md5", md5, "published is") if md5 else ("sha256", _remembered(path), "the first download had")
    found = _checksum(file, kind)
    return f"the {kind} {found}, but {by} {wanted}" if wanted and found != wanted else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path) -> int:
    """Add to `part` what a server sends of the rest, and return how many bytes are missing after that."""
    had = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not had:
            raise InputError(
                f"{url} answers {error.code} {error.reason}: see the page on data for its source"
            ) from None
        if (error.headers.get("Content-Range") or "").rpartition("/")[2] == str(had):
            return 0  # there is nothing behind what is here
        part.unlink()  # it is of another file
        return _transfer(url, part)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} cannot be reached ({reason}): give the command again when it can") from None
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
            had = 0
            if answer.status == 206:
                part.unlink()
                return _transfer(url, part)
        length = int(answer.headers.get("Content-Length") or 0)
        with (
            room_for(part.parent, length, f"{url} would"),
            open(part, "ab" if had else "wb") as file,
            tqdm(total=had + length or None, initial=had, desc=part.stem, unit="B", unit_scale=True) as bar,
        ):
            for chunk in _chunks(answer):
                file.write(chunk)
                bar.update(len(chunk))
    return max(0, had + length - _size(part)) if length else 0


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield what arrives; a transfer that breaks off just ends, since its length tells."""
    try:
        while chunk := answer.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        if not answer.headers.get("Content-Length"):
            raise InputError(f"{answer.url} broke off ({error}): give the command again") from None


def _remembered(path: Path) -> str | None:
    """Return the SHA-256 that the first download of a file had, if it is known."""
    return _sums(path).get(path.name)


def _remember(path: Path) -> None:
    sums = _sums(path) | {path.name: _checksum(path, "sha256")}
    path.with_name(CHECKSUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))


def _sums(path: Path) -> dict[str, str]:
    file = path.with_name(CHECKSUMS)
    return dict(reversed(line.split(maxsplit=1)) for line in file.read_text().splitlines()) if file.exists() else {}


def _checksum(file: Path, kind: str) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _unpack(file: Path, root: Path, holds: str) -> None:
    """Unpack an archive beside `root`'s other contents, and move what it should hold into place."""
    for left in root.glob(".unpacking-*"):  # by a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=root))
    try:
        with room_for(root, file.stat().st_size, f"the contents of {file.name}"):
            # Tar files may name any path; the filter keeps them inside, as the unpacker of zip files does by itself.
            shutil.unpack_archive(file, partial, **({} if file.suffix == ".zip" else {"filter": "data"}))
        if not (partial / holds).exists():
            raise InputError(f"{file} does not hold {holds}: see the page on data for its source")
        (root / holds).parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / holds, root / holds)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} cannot be unpacked ({error}): take it away and give the command again") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class State:
    """What a folder holds of a data set.

    Attributes:
        name: Which data set.
        state: ``"complete"``, ``"incomplete"`` or ``"missing"``.
        words: What is there, what is missing, and what to do about it.
    """

    name: str
    state: str
    words: str


def check(name: str, data: Path, *, sources: Mapping[str, Source] = SOURCES) -> State:
    """Return what ``data/NAME`` holds, beside what it should.

    Files are looked for, not read.
    """
    source, root = sources[one_of("data set", name, sources)], data / name
    place = "" if data == default_data() else f" --data {data}"
    remedy = source.by_hand or f"extractlib data get {name}{place}"
    if not root.is_dir():
        return State(name, "missing", f"{root} is no folder: {remedy} ({source.download}; {source.page})")
    if source.archives:
        remedy = f"take {root} away and give {remedy}"
    try:
        found = listing(name, root)
    except InputError as error:
        return State(name, "incomplete", f"{error}; to get it: {remedy} ({source.page})")
    counts = {half: len(entries) for half, entries in found.halves.items()}
    lacks = [
        f"{half} {counts.get(half, 0):,} of {wanted:,}"
        for half, wanted in source.counts.items()
        if counts.get(half, 0) != wanted
    ]
    if len(found.classes) != source.classes:
        lacks.append(f"classes {len(found.classes)} of {source.classes}")
    lacks += _uneven(found, source) + _absent(found)
    if lacks:
        return State(name, "incomplete", f"{', '.join(lacks)}; to get it: {remedy} ({source.page})")
    return State(name, "complete", ", ".join(f"{half} {count:,}" for half, count in counts.items()))


def _uneven(found: Listing, source: Source) -> list[str]:
    """Name the first class of each half that has not as many images as each class should."""
    words = []
    for half, wanted in source.even.items():
        counts = dict.fromkeys(range(len(found.classes)), 0)
        for entry in found.halves.get(half, ()):
            counts[entry.label] += 1
        wrong = [label for label, count in counts.items() if count != wanted]
        if wrong:
            words.append(
                f"class {found.classes[wrong[0]]} has {counts[wrong[0]]:,} of {wanted:,} in {half}"
                + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            )
    return words


def _absent(found: Listing) -> list[str]:
    """Name the first file of each half that a table lists and that is not there."""
    words = []
    for half, entries in found.halves.items():
        files = dict.fromkeys((record(entry.path) or (entry.path,))[0] for entry in entries)
        absent = [file for file in files if not (found.root / file).is_file()]
        if absent:
            words.append(f"{len(absent):,} files of {half} are not there, {absent[0]} the first")
    return words
