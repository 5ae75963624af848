"""Entry point of ``extractlib`` and ``python -m extractlib``, and the code shared with the book's command line."""

import errno
import io
import re
import sys
import warnings
from importlib import import_module
from typing import Any

from extractlib.errors import DataWarning, InputError, ResultWarning, pip_install

ARGUMENT = 4_096
"""Most characters of an argument: as many as the longest path has."""

PLACE = "name another folder, with an option or with EXTRACTLIB_CACHE"
ROOM = f"free up space or {PLACE}"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"you are not allowed to write there: {PLACE}"),
    errno.EMFILE: "close other programs, or allow more open files (ulimit -n)",
}
"""What to do about an error of the file system, by error number."""

MEMORY = "use a scale with smaller images, or --device cpu"


def main(program: str = "extractlib") -> int:
    """Run the command line of a package; an error that the reader can fix becomes one line and exit status 2."""
    longest = max(map(len, sys.argv[1:]), default=0)
    if longest > ARGUMENT:
        print(f"{program}: an argument has {longest:,} characters: at most {ARGUMENT:,} can be used", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names as the file system has them
    usual = warnings.showwarning

    def tell(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, DataWarning | ResultWarning):
            print(f"{program}: {message}", file=sys.stderr)
        else:
            usual(message, category, *place, **options)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
            # Imported here: without its dependencies, the package should still fail with a readable message.
            import_module(f"{program}.cli").app(prog_name=program)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        print(f"{program}: {line}", file=sys.stderr)
        return 2
    return 0


def explanation(error: Exception) -> str | None:
    """Return what to say about an error that the reader can fix, or None for any other error."""
    said = str(error)
    if isinstance(error, InputError):
        return said
    if isinstance(error, OSError) and error.strerror:  # without it, no file or device is involved
        file = "" if error.filename is None else f"{error.filename}: "
        return f"{file}{error.strerror}: {REMEDIES.get(error.errno or 0, PLACE)}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(("extractlib", "extractbook")):
        return f"{error.name} is not installed: run {pip_install('book')}"
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", said):  # NumPy's, on a full disk
        return f"an array cannot be written ({said} values): {ROOM}"
    # By name, since importing the modules that these come from would take seconds.
    kind = type(error).__name__
    if kind == "SafetensorError" and "os error" in said:
        return f"weights cannot be written ({said}): {ROOM if 'os error 28' in said else PLACE}"
    if kind == "OutOfMemoryError":
        return f"the device has too little memory ({'. '.join(said.split('. ')[:3])}): {MEMORY}"
    return None


if __name__ == "__main__":
    sys.exit(main())
