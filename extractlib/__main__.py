"""Entry point of ``extractlib`` and ``python -m extractlib``, and what it shares with the book's command line."""

import errno
import io
import re
import sys
import warnings
from importlib import import_module
from typing import Any

from extractlib.errors import DataWarning, InputError, ResultWarning, pip_install

ARGUMENT = 4_096
"""Characters of an argument at most: those of the longest path."""

PLACE = "name another folder, with an option or with EXTRACTLIB_CACHE"
ROOM = f"make room or {PLACE}"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"it may not be written by you: {PLACE}"),
    errno.EMFILE: "close other programs, or allow more open files (ulimit -n)",
}
"""What to do about an error of the file system, by its number."""

MEMORY = "use a scale of smaller images, or --device cpu"


def main(program: str = "extractlib") -> int:
    """Run the command line of a package; what cannot be used or does not suffice becomes one line and exit status 2."""
    longest = max(map(len, sys.argv[1:]), default=0)
    if longest > ARGUMENT:
        print(f"{program}: an argument has {longest:,} characters: at most {ARGUMENT:,} can be used", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files as the file system has them
    usual = warnings.showwarning

    def tell(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DataWarning | ResultWarning):
            print(f"{program}: {message}", file=sys.stderr)
        else:
            usual(message, category, *place, **options)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
            # Imported here: a package on its own should fail in words even where a dependency is missing.
            import_module(f"{program}.cli").app(prog_name=program)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        print(f"{program}: {line}", file=sys.stderr)
        return 2
    return 0


def explanation(error: Exception) -> str | None:
    """Return what to tell of an error that the reader can mend, or None if it is none of these."""
    said = str(error)
    if isinstance(error, InputError):
        return said
    if isinstance(error, OSError) and error.strerror:  # without it, it is of no file or device
        file = "" if error.filename is None else f"{error.filename}: "
        return f"{file}{error.strerror}: {REMEDIES.get(error.errno or 0, PLACE)}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(("extractlib", "extractbook")):
        return f"{error.name} is not installed: {pip_install('book')} brings it"
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", said):  # NumPy's, of a full disk
        return f"an array cannot be written ({said} values): {ROOM}"
    # By name, since to import where these come from would take seconds.
    kind = type(error).__name__
    if kind == "SafetensorError" and "os error" in said:
        return f"weights cannot be written ({said}): {ROOM if 'os error 28' in said else PLACE}"
    if kind == "OutOfMemoryError":
        return f"the device has too little memory ({'. '.join(said.split('. ')[:3])}): {MEMORY}"
    return None


if __name__ == "__main__":
    sys.exit(main())
