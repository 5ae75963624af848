"""Which files in a folder are images: the one listing that all layouts use.

Files that systems and editors leave beside pictures are skipped: hidden files and folders, ``__MACOSX``, ``Thumbs.db``,
``desktop.ini``, ``@eaDir``, backup copies. A file counts as an image by its suffix or, if that says nothing, by its
first bytes. Links are followed, and each folder is entered once. Names are handled as the file system gives them, even
if they are not UTF-8.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from PIL import Image

from extractlib.errors import InputError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".avif", ".jp2"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Suffixes of images that can be read."""

FOREIGN = frozenset(
    {".heic", ".heif", ".jxl", ".svg", ".psd", ".xcf", ".dcm", ".raw", ".dng", ".cr2", ".nef", ".arw", ".exr", ".hdr"}
)
"""Suffixes of images that cannot be read, and are rejected by name."""

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "GIF", "TIFF", "AVIF", "JPEG2000")
"""Formats that Pillow is allowed to decode."""

COMPANIONS = (
    *(".*", "__macosx", "thumbs.db", "thumbs.db:*", "ehthumbs*.db", "desktop.ini", "icon\r", "@eadir", "@recycle*"),
    *("#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found", "recycler", "__pycache__"),
    *("*~", "~*", "#*#", "*.bak", "*.tmp", "*.swp", "*.part", "*.crdownload", "*:zone.identifier"),
)
"""Patterns of names that are skipped, in lower case."""


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        images: Paths of the images below the folder, with ``/``, in order.
        others: Paths of the files that are not images.
    """

    images: list[str]
    others: list[str]


def is_companion(name: str) -> bool:
    """Return whether a file or a folder, judging by its name, is not one of the user's.

    Examples:
        >>> from extractlib.data.files import is_companion
        >>> is_companion("._1.jpg"), is_companion("Thumbs.db"), is_companion("1.jpg")
        (True, True, False)
    """
    return any(fnmatch(name.lower(), pattern) for pattern in COMPANIONS)


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders within a folder, in order.

    Raises:
        InputError: It cannot be listed.
    """
    return [name for name in _names(folder) if (folder / name).is_dir()]


def image_files(folder: Path, *, deep: bool = False) -> Found:
    """Return the images in a folder.

    Args:
        folder: The folder.
        deep: Whether to include those in its subfolders.

    Raises:
        InputError: A folder cannot be listed.
    """
    found = Found([], [])
    for path in _walk(folder, deep, set()):
        name = path.relative_to(folder).as_posix()
        (found.images if _is_image(path) else found.others).append(name)
    return found


def fault_of(file: Path, *, most_bytes: int) -> str | None:
    """Return why a file cannot be read, before it is opened; None if there is no reason.

    Args:
        file: The file.
        most_bytes: The largest size allowed.
    """
    try:
        state = os.stat(file)
    except OSError as error:
        return "it is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    if not stat.S_ISREG(state.st_mode):
        return "it is no regular file"
    if file.suffix.lower() in FOREIGN:
        return f"{file.suffix} is a format that is not read: convert it to PNG"
    if state.st_size > most_bytes:
        return f"it has {state.st_size:,} bytes, and at most {most_bytes:,} are read"
    return None if state.st_size else "it is empty"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not is_companion(name))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}): name a folder that can be read") from None


def _walk(folder: Path, deep: bool, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files below a folder, entering each folder once, however many links lead to it."""
    state = os.stat(folder)
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    for name in _names(folder):
        if not (folder / name).is_dir():
            yield folder / name
        elif deep:
            yield from _walk(folder / name, deep, seen)


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES | FOREIGN:
        return True
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # a decoder can fail in any way on arbitrary bytes
        return False
