"""Entry point of ``extractlib`` and ``python -m extractlib``, and what it shares with the book's command line."""

import sys
from importlib import import_module

from extractlib.errors import InputError

ROOM = "make room or name another folder, with an option or with EXTRACTLIB_CACHE"
MEMORY = "use a scale of smaller images, or --device cpu"


def main(program: str = "extractlib") -> int:
    """Run the command line of a package; what cannot be used or does not suffice becomes one line and exit status 2."""
    try:
        arguments = [renamed(program, argument) for argument in sys.argv[1:]]
        # Imported here: a package on its own should fail in words even where a dependency is missing.
        import_module(f"{program}.cli").app(args=arguments, prog_name=program)
    except Exception as error:
        line = explanation(error)
        if line is None:
            raise
        print(f"{program}: {line}", file=sys.stderr)
        return 2
    return 0


def explanation(error: Exception) -> str | None:
    """Return what to tell of an error that the reader can mend, or None if it is none of these."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # without it, it is of no file or device
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}: {ROOM}"
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(("extractlib", "extractbook")):
        return f"{error.name} is not installed: pip install 'extractlib[book]' brings it"
    # By name, since to import where these come from would take seconds.
    match type(error).__name__:
        case "SafetensorError" if "os error" in str(error):
            return f"weights cannot be written ({error}): {ROOM}"
        case "OutOfMemoryError":
            return f"the device has too little memory ({'. '.join(str(error).split('. ')[:3])}): {MEMORY}"
    return None


def renamed(program: str, argument: str) -> str:
    """Return an argument under today's name: ``--profile`` is called ``--scale``."""
    name, *value = argument.split("=", 1)
    if name != "--profile":
        return argument
    print(f"{program}: --profile is now called --scale", file=sys.stderr)
    return "=".join(["--scale", *value])


if __name__ == "__main__":
    sys.exit(main())
