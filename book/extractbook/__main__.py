"""Entry point of ``extractbook`` and ``python -m extractbook``."""

import sys

from extractlib.errors import InputError

ROOM = "make room or name another folder, with an option or with EXTRACTLIB_CACHE"
MEMORY = "use a scale of smaller images, or --device cpu"


def main() -> int:
    """Run the command line; what cannot be used or does not suffice becomes one line and exit status 2."""
    # Imported here: `extractbook` on its own should fail in words even where a dependency is missing.
    import torch
    from safetensors import SafetensorError

    try:
        from extractbook.cli import app

        app(prog_name="extractbook")
    except InputError as error:
        print(f"extractbook: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not error.strerror:
            raise  # of no file or device, so nothing that another folder would mend
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"extractbook: {where}{error.strerror}: {ROOM}", file=sys.stderr)
        return 2
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        print(f"extractbook: weights cannot be written ({error}): {ROOM}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[:3])
        print(f"extractbook: the device has too little memory ({asked}): {MEMORY}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
