"""Entry point of ``extractlib`` and ``python -m extractlib``."""

import sys

from extractlib.errors import InputError


def main() -> int:
    """Run the command line; an input or a folder that cannot be used becomes one line and exit status 2."""
    # Imported here: `extractlib` on its own should fail in words even where a dependency is missing.
    from extractlib.cli import app

    try:
        app(prog_name="extractlib")
    except InputError as error:
        print(f"extractlib: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not error.strerror:
            raise  # of no file or device, so nothing that another folder would mend
        where = "" if error.filename is None else f"{error.filename}: "
        remedy = "make room or name another folder, with an option or with EXTRACTLIB_CACHE"
        print(f"extractlib: {where}{error.strerror}: {remedy}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
