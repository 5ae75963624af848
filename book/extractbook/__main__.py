"""Entry point of ``extractbook`` and ``python -m extractbook``."""

import sys

from extractlib.__main__ import main as command_line


def main() -> int:
    """Run the book's command line; an error that the reader can fix becomes one line and exit status 2."""
    return command_line("extractbook")


if __name__ == "__main__":
    sys.exit(main())
