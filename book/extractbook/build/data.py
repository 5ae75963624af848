"""The rows behind the book as files for others: CSV and Parquet, one of each a table, with a data card."""

import shutil
from pathlib import Path

from extractbook.reproduction import results

CARD = results.FOLDER / "README.md"
UNPUBLISHED = ("smoke",)
"""Scales whose rows say nothing of any claim."""


def write_rows(folder: Path) -> list[Path]:
    """Write all rows into ``EDITION/SCALE/TABLE.csv`` and ``.parquet`` under a folder, and the data card.

    A line is a row, a column one of its settings, its provenance or its numbers (see `results.frame`); a list, as of a
    curve, is JSON in CSV and a list in Parquet.

    Returns:
        The CSV files, in the order of their names.
    """
    written = []
    for path in sorted(results.FOLDER.glob("edition-*/*/*.json*")):
        edition, scale = path.parent.parent.name, path.parent.name
        if scale in UNPUBLISHED:
            continue
        target = folder / edition / scale / path.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = results.frame(results.read_rows(path))
        rows.to_parquet(target.with_suffix(".parquet"), index=False)
        rows.to_csv(target.with_suffix(".csv"), index=False)
        written.append(target.with_suffix(".csv"))
    shutil.copy(CARD, folder / CARD.name)
    return written
