"""Run the README's ten lines and write what they print, and how long they take, into the README: ``make readme``."""

import contextlib
import io
import re
import time
from pathlib import Path

import torch

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(```python\n)(.*?)(```\n\n```text\n)(.*?)(```)", re.DOTALL)


def code(text: str) -> str:
    """Return the ten lines that a README shows."""
    found = BLOCK.search(text)
    assert found, "the README has no block of Python followed by a block of text"
    return found[2]


def printed(source: str) -> str:
    """Run Python source, here and with one thread, and return what it prints and the seconds it took."""
    torch.set_num_threads(1)
    started, output = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, str(README), "exec"), {"__name__": "readme"})  # the README's own text
    return f"{output.getvalue()}({time.monotonic() - started:.0f} seconds on one core)\n"


def main() -> None:
    """Replace the block of text behind the ten lines."""
    text = README.read_text(encoding="utf-8")
    said = printed(code(text))
    README.write_text(BLOCK.sub(lambda found: found[1] + found[2] + found[3] + said + found[5], text), encoding="utf-8")
    print(said, end="")


if __name__ == "__main__":
    main()
