"""The ledger: the paper's claims next to our rows, with a verdict on each."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from extractbook.reproduction import claims, editions, judging, results
from extractbook.reproduction.cells import Row
from extractbook.reproduction.judging import Verdict
from extractbook.reproduction.scales import Scale, scale
from extractlib.errors import InputError


@dataclass(frozen=True)
class Ledger:
    """The second edition's verdicts at one scale.

    Attributes:
        scale: The scale.
        entries: One for each claim and each task that it is judged on.
        refused: How many rows do not count, by the reason.
        frame: The rows that count (see `results.frame`), with the index that the entries refer to.
    """

    scale: Scale
    entries: tuple[judging.Entry, ...]
    refused: Mapping[str, int]
    frame: pd.DataFrame = field(default_factory=lambda: results.frame([]), compare=False, repr=False)

    @classmethod
    def of_rows(cls, rows: Iterable[Row], scale: Scale, *, only: str = "") -> "Ledger":
        """Judge all claims, or `only` one, by the rows that count (see `editions.refusal`).

        Raises:
            InputError: The same as for `claims.verdicts`.
        """
        counted: list[Row] = []
        refused: Counter[str] = Counter()
        for row in rows:
            reason = editions.refusal(row)
            refused[reason] += 1
            if not reason:
                counted.append(row)
        del refused[""]
        frame = results.frame(counted)
        return cls(scale, tuple(claims.verdicts(frame, scale, only=only)), dict(refused), frame)

    def of(self, claim: str) -> list[judging.Entry]:
        """Return a claim's entries, task by task."""
        return [entry for entry in self.entries if entry.claim == claim]

    def word(self, claim: claims.Claim) -> Verdict:
        """Return the verdict on a claim as a whole."""
        return judging.summarize([entry.verdict for entry in self.of(claim.id)], needed=claim.needed)

    @property
    def expected_false(self) -> tuple[int, float]:
        """How many cells of the matrix were judged, and at most how many of these verdicts are expected to be false."""
        return claims.expected_false(self.entries)


def ledger(name: str, *, only: str = "", folder: Path = results.FOLDER / "edition-2") -> Ledger:
    """Return the verdicts on all claims, or `only` one, by the committed rows of a scale, which may be none.

    Raises:
        InputError: There is no such scale, or the rows cannot be used.
    """
    settings, here = scale(name), folder / name
    if not folder.is_dir():
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    return Ledger.of_rows(results.read_all(here) if here.is_dir() else (), settings, only=only)
