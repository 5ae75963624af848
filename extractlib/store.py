"""Artefacts that are made once: victims, backbones, decoded images, transfer sets.

An artefact is a folder named by the fingerprint of all that made it, so equal wishes find the same one.
"""

import ast
import io
import json
import os
import shutil
import tempfile
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from extractlib.errors import InputError
from extractlib.images import digest

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Store:
    """A folder of artefacts; safe for several processes at once.

    Attributes:
        root: Where the artefacts lie; made when first needed.
    """

    root: Path

    def get(self, kind: str, key: Mapping, make: Callable[[Path], object]) -> Path:
        """Return the folder of an artefact, made now if it is not there yet.

        Args:
            kind: What it is, for example ``"victim"``: the name of a sub-folder.
            key: All that decides its content, JSON-ready; kept beside it as ``key.json``.
            make: Given an empty folder, writes the artefact into it. Another process that asks meanwhile waits.

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


def code_hash(*rooms: str) -> str:
    """Return the digest of the code of the package's modules of these names.

    Comments, docstrings and blank lines do not count. A name of a sub-package stands for all its modules.

    Args:
        rooms: Names within the package, for example ``"networks"`` or ``"attacks.knockoff"``.

    Raises:
        InputError: There is no module of that name.
    """
    files = [file for room in rooms for file in _sources(room)]
    return digest(*(part for file in files for part in (file.name, bare(file.read_text(encoding="utf-8")))))


def bare(source: str) -> str:
    """Return Python source without comments, docstrings, blank lines and spaces at the ends of lines."""
    lines = source.splitlines(keepends=True)
    for start, end in _docstrings(source):
        for number in range(start, end + 1):
            lines[number - 1] = "\n"
    kept = "".join(lines)
    lines = kept.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(kept).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstrings(source: str) -> list[tuple[int, int]]:
    """Return the first and last line of each statement that is nothing but a string."""
    statements = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    texts = (node for node in statements if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str))
    return [(node.lineno, node.end_lineno) for node in texts]


def _sources(room: str) -> list[Path]:
    stem = PACKAGE.joinpath(*room.split("."))
    if stem.is_dir():
        return sorted(stem.rglob("*.py"))
    if not stem.with_suffix(".py").exists():
        raise InputError(f"unknown room {room!r}: name a module of the package, as in 'attacks.knockoff'")
    return [stem.with_suffix(".py")]
