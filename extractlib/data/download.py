"""Where the data sets come from: what can be downloaded is downloaded and verified, and the rest is named.

The facts about each are in ``published.toml``. A checksum is always the one that the source publishes, never our own.
If it publishes none, the SHA-256 of the first download is written beside the data, and a later one is compared with it.
"""

import logging
import lzma
import os
import shutil
import tarfile
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pooch
import requests

from extractlib.data.decoding import require_free_space
from extractlib.data.layouts import PACKS, listing, packed
from extractlib.data.sets import Listing
from extractlib.data.sets import data_folders as data_folders
from extractlib.data.sets import default_data as default_data
from extractlib.errors import InputError, check_choice, one_line
from extractlib.store import held

CHECKSUMS = "SHA256SUMS"
"""File beside the data with the checksums of the first downloads, in the format of ``sha256sum``."""

DOWNLOADS = ".download"
"""Folder beside the data for what is not unpacked yet; it is removed when the data set is complete."""

BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What unpacking a damaged archive raises."""

TIMEOUT = 60
"""Seconds without a byte after which a transfer counts as interrupted."""


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: Where it is.
        holds: The path that it unpacks to, below the data set's folder.
        size: Bytes.
        md5: The checksum that its source publishes; None if it publishes none.
        cited: Who publishes the checksum.
        inner: Path of an archive inside it that holds that path; empty if it holds the path itself.
    """

    url: str
    holds: str
    size: int
    md5: str | None = None
    cited: str = ""
    inner: str = ""

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Published:
    """Where a data set comes from, and how much it should contain.

    Attributes:
        page: Its own page.
        terms: What its source says about who may use it and how.
        download: Approximate size of the download.
        classes: Number of classes.
        counts: Images in each split as published, or in the split of Knockoff nets if none is published.
        files: What `get` downloads; empty if a login is needed or the choice is the reader's.
        by_hand: What to do if there are no files.
        packs: Names of the archives of its small copies, which `unpack_packs` takes.
    """

    page: str
    terms: str
    download: str
    classes: int
    counts: Mapping[str, int]
    files: tuple[Archive, ...] = ()
    by_hand: str = ""
    packs: tuple[str, ...] = ()


def _published() -> dict[str, Published]:
    facts = tomllib.loads((files("extractlib.data") / "published.toml").read_text(encoding="utf-8"))
    lists = ("files", "packs")
    found = {name: [tuple(fact.pop(key, ())) for key in lists] for name, fact in facts.items()}
    archives = {name: tuple(Archive(**file) for file in files) for name, (files, _) in found.items()}
    return {name: Published(**fact, files=archives[name], packs=tuple(found[name][1])) for name, fact in facts.items()}


SOURCES: Mapping[str, Published] = _published()


def get(name: str, data: Path, *, sources: Mapping[str, Published] = SOURCES) -> Listing:
    """Download, verify and unpack a data set into ``data/NAME``; what is already there is left as it is.

    An archive is kept until it is unpacked, so it is not downloaded again after an interrupted call.

    Args:
        name: Which one.
        data: The folder of the data sets.
        sources: Where they come from.

    Returns:
        What is there now.

    Raises:
        InputError: It cannot be downloaded without a login, a transfer was interrupted, a checksum is wrong, an archive
            does not hold what it should, or the disk has too little space.
    """
    source, root = sources[check_choice("data set", name, sources)], data / name
    if not source.files:
        raise InputError(f"{name} must be downloaded by hand, into {root}: {source.by_hand} (see {source.page})")
    with _filling(root, f"downloads {name}"):
        for archive in source.files:
            if not (root / archive.holds).exists():
                _unpack(fetch(archive, root), root, archive)
    try:
        return listing(name, root)
    except InputError as error:
        raise InputError(f"{error}; the data is damaged: delete {root} and run the command again") from None


@contextmanager
def _filling(root: Path, who: str) -> Iterator[Path]:
    """Yield a data set's folder for unfinished work, to one process at a time; once done, it is removed."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with held(root / ".lock", who):
            (root / DOWNLOADS).mkdir(exist_ok=True)
            yield root / DOWNLOADS
            shutil.rmtree(root / DOWNLOADS, ignore_errors=True)  # along with what killed calls left
    except OSError as error:
        raise InputError(
            f"{root} cannot be written ({error.strerror or one_line(error)}): name another folder with --data"
        ) from None


def unpack_packs(name: str, packs: Path, data: Path, *, sources: Mapping[str, Published] = SOURCES) -> Listing:
    """Unpack the archives of a data set's small copies into ``data/NAME``; what is already there is left as it is.

    Args:
        name: Which one.
        packs: The folder that holds the archives; if it has a `CHECKSUMS` file, those listed there are verified.
        data: The folder of the data sets.
        sources: Says which archives there are.

    Returns:
        What is there now.

    Raises:
        InputError: There are no small copies of it, an archive is missing, damaged or truncated, or the disk has too
            little space; nothing is kept then.
    """
    source, root = sources[check_choice("data set", name, sources)], data / name
    if not source.packs:
        known = ", ".join(one for one, source in sources.items() if source.packs)
        raise InputError(f"there are no small copies of {name}: use one of {known}, or get it without --from")
    inner, sums = PACKS[name].folder, _first_checksums(packs)
    with _filling(root, f"unpacks {name}") as folder, tempfile.TemporaryDirectory(dir=folder) as partial:
        for file in (packs / pack for pack in source.packs if not (root / inner).exists()):
            if not file.is_file():
                raise InputError(f"{file} is missing: {name} needs {', '.join(source.packs)}")
            if sums.get(file.name, found := pooch.file_hash(str(file))) != found:
                raise InputError(
                    f"{file} has the SHA-256 {found}, but {CHECKSUMS} beside it lists another: get it again"
                )
            try:
                shutil.unpack_archive(file, partial, filter="data")
            except BROKEN as error:
                raise InputError(f"{file} cannot be unpacked ({error}): get it again, or free up space") from None
        if not (root / inner).exists():
            if not Path(partial, inner).exists():
                raise InputError(f"{packs} has archives that do not hold {inner}: get them again")
            os.replace(Path(partial, inner), root / inner)
    return listing(name, root)


def fetch(archive: Archive, root: Path) -> Path:
    """Download and verify an archive, and only then give it its name in `DOWNLOADS` below a data set's folder.

    An archive that is already there and has the right checksum is not downloaded again.

    Raises:
        InputError: The server does not answer or has no such file, the transfer was interrupted, the disk has too
            little space, or the checksum is wrong; nothing is kept then.
    """
    folder = root / DOWNLOADS
    checksum = f"md5:{archive.md5}" if archive.md5 else _first_checksums(root).get(archive.name)
    if not (folder / archive.name).exists():
        require_free_space(root, archive.size, f"{archive.url} would")
    pooch.get_logger().setLevel(logging.WARNING)  # it would suggest writing a checksum into the code
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT, chunk_size=2**20)
    try:
        return Path(pooch.retrieve(archive.url, checksum, fname=archive.name, path=folder, downloader=downloader))
    except requests.RequestException as error:
        reason, remedy = str(error), "run the command again, or see the page on data for its source"
    except ValueError as error:  # a wrong checksum
        origin = archive.cited or "the first download"
        reason, remedy = str(error).partition(". ")[0], f"the file was not kept; the known checksum is from {origin}"
    raise InputError(f"{archive.url} cannot be downloaded ({reason}): {remedy}")


def _first_checksums(root: Path) -> dict[str, str]:
    """Return the SHA-256 of the first download of each file whose source publishes no checksum."""
    file = root / CHECKSUMS
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.removeprefix("*"): checksum for checksum, name in pairs}


def _unpack(file: Path, root: Path, archive: Archive) -> None:
    """Unpack an archive beside the data, and move what it should hold into place; the archive is deleted."""
    require_free_space(root, file.stat().st_size, f"the contents of {file.name}")
    with tempfile.TemporaryDirectory(dir=root / DOWNLOADS) as partial:
        source, target = Path(partial, archive.holds), root / archive.holds
        try:
            for one in [file, *([Path(partial, archive.inner)] if archive.inner else [])]:
                if one.suffix == ".zip":
                    shutil.unpack_archive(one, partial)
                else:  # a tar file may name any path; the filter keeps it inside; zip files need none
                    shutil.unpack_archive(one, partial, filter="data")
        except BROKEN as error:
            raise InputError(
                f"{file} cannot be unpacked ({error}): free up space, or delete it and run the command again"
            ) from None
        if not source.exists():
            raise InputError(f"{file} does not hold {archive.holds}: see the page on data for its source")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    if not archive.md5:
        first = _first_checksums(root) | {file.name: pooch.file_hash(str(file))}
        partial_file = root / f"{CHECKSUMS}.part"
        partial_file.write_text("".join(f"{checksum}  {name}\n" for name, checksum in first.items()))
        os.replace(partial_file, root / CHECKSUMS)
    file.unlink()


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


def check(name: str, data: Path, *, sources: Mapping[str, Published] = SOURCES) -> State:
    """Return what ``data/NAME`` holds, compared with what it should.

    The files are only looked for, not read.
    """
    source, root = sources[check_choice("data set", name, sources)], data / name
    place = "" if data == default_data() else f" --data {data}"
    remedy = source.by_hand or f"extractlib data get {name}{place}"
    if not root.is_dir():
        return State(name, "missing", f"{root} is not a folder: {remedy} ({source.download}; {source.page})")
    if source.files:
        remedy = f"delete {root} and run {remedy}"
    try:
        found = listing(name, root)
        lacks = [] if packed(name, root) else _lacks(found, source)
    except InputError as error:
        lacks = [str(error)]
    if lacks:
        return State(name, "incomplete", f"{', '.join(lacks)}; to get it: {remedy} ({source.page})")
    return State(name, "complete", ", ".join(f"{split} {len(table):,}" for split, table in found.splits.items()))


def _lacks(found: Listing, source: Published) -> list[str]:
    """Return what differs from the published set: the numbers of images and of classes, missing files."""
    counts = {split: len(table) for split, table in found.splits.items()} | {"classes": len(found.classes)}
    expected = {**source.counts, "classes": source.classes}
    lacks = [
        f"{what} {counts.get(what, 0):,} of {count:,}"
        for what, count in expected.items()
        if counts.get(what, 0) != count
    ]
    absent = [file for file in found.files() if not (found.root / file).is_file()]
    return lacks + ([f"{len(absent):,} files are missing, starting with {absent[0]}"] if absent else [])
