"""The rows behind the book as files for others: CSV and Parquet, for each table and for all, with a data card."""

import json
from pathlib import Path

import pandas as pd

from extractbook.build.plain import address
from extractbook.reproduction import results
from extractbook.sphinx import template

UNPUBLISHED = ("smoke", "exploring")
"""Scales and editions whose rows say nothing about any claim."""


def write_rows(folder: Path) -> list[Path]:
    """Write rows into ``EDITION/SCALE/TABLE.csv`` and ``.parquet`` in a folder, all into ``rows``, and a data card.

    Each line is a row; each column is one of its settings, its provenance or its numbers (see `results.frame`). In the
    file of all rows, a list, such as a curve, is JSON.

    Returns:
        The CSV files of the tables, in the order of their names.
    """
    tables: dict[tuple[str, str, str], pd.DataFrame] = {}
    for path in sorted(results.FOLDER.glob("*/*/*.json*")):
        edition, scale = path.parts[-3:-1]
        if not {edition, scale} & set(UNPUBLISHED):
            tables[edition, scale, path.stem] = results.frame(results.read_rows(path))
    written = []
    for (edition, scale, table), rows in tables.items():
        target = folder / edition / scale / table
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(rows, target)
        written.append(target.with_suffix(".csv"))
    whole = pd.concat([rows.assign(edition=edition) for (edition, _, _), rows in tables.items()], ignore_index=True)
    for column in [name for name in whole if whole[name].dtype == object]:  # numbers in one table, lists in another
        whole[column] = whole[column].map(_as_text, na_action="ignore")
    _write(whole, folder / "rows")
    counts = whole.groupby(["edition", "scale"]).agg(rows=("seed", "size"), seeds=("seed", "nunique"))
    lines = [f"| {edition} | {scale} | {row.rows:,} | {row.seeds} |" for (edition, scale), row in counts.iterrows()]
    card = template(
        "data_card",
        counts="\n".join(["| Edition | Scale | Rows | Seeds |", "| :-- | :-- | :-- | :-- |", *lines]),
        columns=len(whole.columns),
        page=address("12_ledger"),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return written


def _as_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


def _write(rows: pd.DataFrame, target: Path) -> None:
    rows.to_parquet(target.with_suffix(".parquet"), index=False)
    rows.to_csv(target.with_suffix(".csv"), index=False)
