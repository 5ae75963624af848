"""Progress of long steps: a bar if someone is watching, one line for each finished step in a log."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm.auto import tqdm


class Line:
    """Takes the place of a bar: counts silently, and prints at the end what was done and how long it took."""

    def __init__(self, total: int, *, what: str, unit: str):
        self.total, self.what, self.unit = total, what, unit
        self.done, self.started = 0, time.monotonic()

    def update(self, done: int = 1) -> None:
        """Count more units as done."""
        self.done += done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self.started
        print(
            f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {seconds:,.1f} s", file=sys.stderr, flush=True
        )


def bar(total: int, *, what: str, unit: str, show: bool = True) -> "tqdm[None] | Line":
    """Return a counter of the units of a step, for a ``with`` statement.

    Args:
        total: How many units the step has.
        what: The step's name, such as ``"training"``.
        unit: The name of the units in the plural, such as ``"steps"``.
        show: Whether anything is shown at all.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    if show and not watched:
        return Line(total, what=what, unit=unit)
    return tqdm(total=total, desc=what, unit=f" {unit}", disable=not show)
