"""Text tables that come with images: in any common encoding, with commas, semicolons or tabs between the columns."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from extractlib.errors import InputError, one_line

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte-order marks, and the encoding that each stands for."""

ENCODINGS = ("utf-8", "cp1252", "latin-1")
"""Encodings tried for a table without a mark; the first that fits is used."""

SEPARATORS = (",", ";", "\t", "|")


def read_table(
    file: Path,
    columns: Sequence[str],
    *,
    sep: str | None = None,
    header: bool = True,
    remedy: str = "get it again from its source",
) -> pd.DataFrame:
    """Return columns of a text file as text.

    Args:
        file: The file.
        columns: Their names or, if the file has no header, what to call its first columns.
        sep: What separates columns, possibly a pattern; if None, the one of `SEPARATORS` that separates the header.
        header: Whether the first line names the columns.
        remedy: What to do about a table that cannot be used.

    Raises:
        InputError: The file is missing, is not a table, has no such column or no rows, or a line is cut short.
    """
    text = _text(file, remedy)
    first, options = 1, dict[str, Any](names=columns, usecols=range(len(columns)), header=None)
    if header:
        first, options = 2, {"skipinitialspace": True}
        sep = sep or _separator(next(iter(text.splitlines()), ""), columns)
    try:
        table = pd.read_csv(io.StringIO(text), sep=sep, dtype=str, keep_default_na=False, index_col=False, **options)
    except ValueError as error:  # of pandas
        raise InputError(f"{file} is not the table it should be ({one_line(error)}): {remedy}") from None
    table.columns = [str(name).strip() for name in table.columns]
    for name in columns:
        if name not in table or table.empty:
            raise InputError(f"{file} has no column {name!r}, or no rows: {remedy}")
        if (table[name] == "").any():
            line = (table[name] == "").argmax() + first
            raise InputError(f"{file} is cut short in line {line}: {remedy}")
    return table[list(columns)]


def _text(file: Path, remedy: str) -> str:
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is not a regular file: put the table there")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{file} is missing: {remedy}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): name a table that can") from None
    marked = [(mark, encoding) for mark, encoding in MARKS.items() if data.startswith(mark)]
    if not marked and b"\0" in data[:4]:  # UTF-16 without its mark
        marked = [(b"", "utf-16-be" if data[:1] == b"\0" else "utf-16-le")]
    mark, encodings = (marked[0][0], marked[0][1:]) if marked else (b"", ENCODINGS)
    for encoding in encodings:
        try:
            return data[len(mark) :].decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{file} is not text in {encodings[0]}, although its first bytes say so: save it as UTF-8")


def _separator(line: str, columns: Sequence[str]) -> str:
    """Return the separator with which a header names the columns, or most of them; a comma if none does."""

    def named(sep: str) -> int:
        names = next(csv.reader([line], delimiter=sep, skipinitialspace=True), [])
        return len(set(columns) & {name.strip() for name in names})

    return max(SEPARATORS, key=named)
