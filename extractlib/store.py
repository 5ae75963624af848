"""Artifacts that are made once: victims, backbones, decoded images, transfer sets.

An artifact is a folder named by the fingerprint of all that made it, so equal wishes find the same one.

Examples:
    >>> import extractlib as xl
    >>> xl.store.digest("two", "parts") == xl.store.digest("twop", "arts")
    False
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path


@dataclass(frozen=True)
class Store:
    """A folder of artifacts; safe for several processes at once.

    Attributes:
        root: Where the artifacts lie; made when first needed.
    """

    root: Path

    def get(self, kind: str, key: Mapping, make: Callable[[Path], object]) -> Path:
        """Return the folder of an artifact, made now if it is not there yet.

        Args:
            kind: What it is, for example ``"victim"``: the name of a sub-folder.
            key: All that decides its content, JSON-ready; kept beside it as ``key.json``.
            make: Given an empty folder, writes the artifact into it. Another process that asks meanwhile waits.

        Returns:
            The finished folder. If `make` raises, nothing is left; what a killed process left goes with the next call.
        """
        folder = self.root / kind / fingerprint(key)
        if folder.exists():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.exists():
                return folder
            for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                make(partial)
                (partial / "key.json").write_text(json.dumps(dict(key), indent=1, sort_keys=True) + "\n")
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder


def default_store() -> Store:
    """Return the store in the folder that EXTRACTLIB_CACHE names, or else in the user's cache."""
    named = os.environ.get("EXTRACTLIB_CACHE")
    return Store(Path(named) if named else user_cache_path("extractlib"))


def fingerprint(key: Mapping) -> str:
    """Return the digest (40 hexadecimal digits) of a JSON-ready mapping, whatever the order of its entries."""
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
