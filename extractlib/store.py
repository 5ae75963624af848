"""Artifacts that are made once: victims, backbones, decoded images, transfer sets.

An artifact is a folder named by the fingerprint of everything that made it, so equal requests find the same one.

Examples:
    >>> import extractlib as xl
    >>> xl.store.digest("two", "parts") == xl.store.digest("twop", "arts")
    False
"""

import hashlib
import json
import os
import shutil
import stat
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from extractlib.errors import DataWarning, InputError

MANIFEST = "files.json"
"""What an artifact's folder should hold: the size of each file, and its digest unless it is large."""

LARGE = 2**26
"""Bytes above which a file is checked by its size alone, since reading it again would take long."""

PATIENCE = 5
"""Seconds of waiting after which a warning says what the wait is for."""


@dataclass(frozen=True)
class Store:
    """A folder of artifacts; safe for several processes at once.

    Attributes:
        root: Where the artifacts are stored, a path; created when first needed.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def get(self, kind: str, key: Mapping[str, object], make: Callable[[Path], object]) -> Path:
        """Return the folder of an artifact, which is made now if it does not exist yet.

        Args:
            kind: What it is, for example ``"victim"``: the name of a subfolder.
            key: Everything that determines its content, JSON-ready; stored with it as ``key.json``.
            make: Writes the artifact into an empty folder that it is given. Other processes that ask for it wait.

        Returns:
            The finished folder. If `make` raises, nothing is left behind; what a killed process left behind is removed
            by the next call. An artifact with a missing or changed file is made again.
        """
        folder = self.root / kind / fingerprint(key)
        if _is_intact(folder):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.with_suffix(".lock"), f"makes {folder}"):
            if _is_intact(folder):
                return folder
            if folder.exists():
                warnings.warn(f"{folder} is damaged and will be made again", DataWarning, stacklevel=2)
                os.replace(folder, folder.with_name(f".{folder.name}-{uuid.uuid4().hex}"))  # seen by others at once
            for left in folder.parent.glob(f".{folder.name}-*"):  # left by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
            partial.mkdir()
            try:
                make(partial)
                (partial / "key.json").write_text(json.dumps(dict(key), indent=1, sort_keys=True) + "\n")
                (partial / MANIFEST).write_text(json.dumps(_manifest(partial)))
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder


@contextmanager
def held(path: Path, who: str) -> Iterator[None]:
    """Hold a lock that other processes know by its file; warn if one of them holds it for long.

    Args:
        path: The file.
        who: What the other process does, for example ``"makes a victim"``.
    """
    made = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    mode = stat.S_IMODE(os.fstat(made).st_mode)  # like any other file: anyone who shares the folder can share the lock
    os.close(made)
    lock = FileLock(path, mode=mode)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        warnings.warn(f"waiting for another process that {who}: end it if it hangs", DataWarning, stacklevel=3)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _manifest(folder: Path) -> dict[str, list[int | str]]:
    """Return what `MANIFEST` stores about the files of an artifact, by name."""
    found: dict[str, list[int | str]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        size = file.stat().st_size
        content = digest(file.read_bytes()) if size <= LARGE else ""
        found[file.relative_to(folder).as_posix()] = [size, content]
    return found


def _is_intact(folder: Path) -> bool:
    """Return whether an artifact exists unchanged; one that was made before manifests existed is trusted."""
    if not folder.exists():
        return False
    if not (folder / MANIFEST).exists():
        return (folder / "key.json").exists()
    try:
        return bool(json.loads((folder / MANIFEST).read_bytes()) == _manifest(folder))
    except (ValueError, FileNotFoundError):  # another process may be removing it
        return False


def default_store() -> Store:
    """Return the store in the folder that EXTRACTLIB_CACHE names, or else in the user's cache."""
    named = os.environ.get("EXTRACTLIB_CACHE")
    return Store(own_path("EXTRACTLIB_CACHE", named) if named else user_cache_path("extractlib"))


def own_path(what: str, value: str | Path) -> Path:
    """Return a path, with ``~`` replaced by the user's home folder.

    Args:
        what: What holds the path, for a message, such as an environment variable.
        value: The path.

    Raises:
        InputError: There is no such user.
    """
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise InputError(f"{what} is {value}, but there is no such user: name another folder") from None


def fingerprint(key: Mapping[str, object]) -> str:
    """Return the digest (40 hexadecimal digits) of a JSON-ready mapping, regardless of the order of its entries."""
    return digest(json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False))


def digest(*parts: str | bytes) -> str:
    """Return the hexadecimal digest (40 digits) of `parts`, each delimited, in order."""
    return digest_of(parts)


def digest_of(parts: Iterable[str | bytes]) -> str:
    """Return the `digest` of parts that come one at a time and need not fit in memory."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        # As the file system has it, for names that are not UTF-8.
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()
