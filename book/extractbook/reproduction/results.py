"""Results files: one row a line, appended under a lock and never rewritten."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from pydantic import ValidationError

from extractbook.reproduction import edition_1, editions, grids, scales
from extractbook.reproduction.cells import Cell, Row
from extractlib.errors import InputError, check_output
from extractlib.store import digest, held
from extractlib.versions import check_keys

FOLDER = Path(__file__).parents[1] / "results"
"""Where the committed rows lie, by edition and scale."""

SUFFIX = ".jsonl"

ALL: Mapping[str, Collection[str]] = MappingProxyType({})
"""Of a table, all cells."""


def append_row(path: Path, row: Row) -> None:
    """Add a row to the end of a results file, on the disk when this returns; the file's other bytes stay as they are.

    Raises:
        InputError: The file is none of this edition, or its last line is cut.
    """
    check_suffix(path)
    append_line(path, row.to_json())


def append_line(path: Path, record: Mapping) -> None:
    """Add a record to the end of a file of JSON lines, under a lock.

    Raises:
        InputError: The file's last line is cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), f"adds to {path}"), open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise _cut(path)
        file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a results file, of this edition (``.jsonl``) or the first one (``.json``).

    Raises:
        InputError: The file is missing or cut, a line is no row or of unknown versions, or two rows that were made
            alike differ. The message names file, line and remedy.
    """
    if path.suffix == ".json":
        return edition_1.read(path)
    check_suffix(path)
    rows = [_row(line, f"{path}, line {number}") for number, line in enumerate(read_lines(path), start=1)]
    _check_alike(path, rows)
    return rows


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of JSON lines.

    Raises:
        InputError: The file is missing, no text, or its last line is cut.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: make it with extractbook results") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a results file that can") from None
    except ValueError as error:
        raise InputError(f"{path} is no results file ({error}): move it away") from None
    if content and not content.endswith("\n"):
        raise _cut(path)
    return content.splitlines()


def read_all(folder: Path) -> list[Row]:
    """Return the rows of all results files in a folder, file by file in the order of their names.

    Raises:
        InputError: There is none, or one cannot be used (see `read_rows`).
    """
    paths = sorted(path for path in folder.glob("*.json*") if path.suffix in (".json", SUFFIX))
    if not paths:
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    return [row for path in paths for row in read_rows(path)]


def first_edition(scale: str, table: str | None = None) -> list[Row]:
    """Return the rows of the first edition at a scale, of all its tables or of one.

    Raises:
        InputError: There are none.
    """
    folder = FOLDER / "edition-1" / scale
    return read_all(folder) if table is None else read_rows(folder / f"{table}.json")


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table of one line each.

    Its columns are the fields of the cell (``task``, ``seed``, …), what the provenance says in one value (``commit``,
    ``date``, ``seconds``, ``device``, …) and the numbers of the result by their paths, such as ``recovery`` or
    ``binary.pool.tnr``; what a row does not have is NaN. Lists of a result, as of a curve, are kept as they are.
    """
    lines = [{**row.cell.to_json(), **_plain(row.provenance), **row.result} for row in rows]
    return pd.json_normalize(lines) if lines else pd.DataFrame(columns=[field.name for field in fields(Cell)])


def newest(
    *tables: str, scale: str = "drawn", beside: Sequence[str] = (), only: Mapping[str, Collection[str]] = ALL
) -> pd.DataFrame:
    """Return what the chapters show of tables: a line a cell and seed, the second edition's rows that count.

    Of a table that has not all deciding cells of any seed yet, it is the exploration's: a seed or few, judged on
    validation images. Tables that are asked for together are compared, so all are the exploration's where one is. Of
    two rows of one cell it is the later.

    Args:
        tables: Their names, such as ``"granularity"``. One cell of several tables is one line, of the first of them.
        scale: At which scale.
        beside: Other tables that these are compared with, as if they were asked for together.
        only: By field of a cell the values that are shown, all others where it is missing; other cells are not waited
            for, and their rows left out.

    Returns:
        The columns of `frame`; ``table``, ``edition`` (``"second"`` or ``"exploring"``) and ``part`` (``"test"`` or
        ``"validation"``); ``libraries`` and ``data`` (a digest) in a word. Its ``attrs`` hold ``editions``, ``parts``
        and ``seeds`` of its lines.

    Raises:
        InputError: There is no row of a table.
    """
    shown, found = {table: _shown(table, scale, only) for table in tables}, []
    others = [_shown(table, scale, only) for table in beside]
    if len({where["edition"] for _, where in (*shown.values(), *others)}) > 1:
        shown = {table: _shown(table, scale, only, second=False) for table in tables}
    for table, (rows, where) in shown.items():
        lines = frame(rows).assign(table=table, **where)
        lines["libraries"] = [", ".join(map(" ".join, row.provenance["libraries"].items())) for row in rows]
        lines["data"] = [digest(json.dumps(row.provenance["data"], sort_keys=True)) for row in rows]
        found.append(lines)
    cell = [field.name for field in fields(Cell)]
    every = pd.concat(found, ignore_index=True)
    every["table"] = every.groupby([*cell, "edition"], dropna=False)["table"].transform("first")
    latest = every.sort_values("date", kind="stable").drop_duplicates([*cell, "edition"], keep="last")
    lines = latest.sort_index().reset_index(drop=True)
    said = {"editions": "edition", "parts": "part", "seeds": "seed"}
    lines.attrs = {name: tuple(sorted(set(lines[column]))) for name, column in said.items()}
    return lines


def _shown(
    table: str, scale: str, only: Mapping[str, Collection[str]], *, second: bool = True
) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of `newest`, with edition and part; not `second`, the exploration's."""
    exploring = FOLDER / "exploring" / scale / f"{table}{SUFFIX}"
    counted = _counted(table, scale) if second else []
    whole = complete(counted, table, scale, only=only)
    if whole:
        kept = [row for row in counted if row.cell.seed in whole and _is_shown(row.cell, only)]
        return kept, {"edition": "second", "part": "test"}
    if exploring.exists():
        kept = [row for row in read_rows(exploring) if _is_shown(row.cell, only)]
        return kept, {"edition": "exploring", "part": "validation"}
    raise InputError(f"no rows of table {table!r} at scale {scale!r}: make them with extractbook results")


def _is_shown(cell: Cell, only: Mapping[str, Collection[str]]) -> bool:
    return all(str(getattr(cell, name)) in values for name, values in only.items())


def decided(table: str, scale: str) -> set[int]:
    """Return the seeds at which all rows of a table on which claims rest are there and count."""
    return complete(_counted(table, scale), table, scale)


def _counted(table: str, scale: str) -> list[Row]:
    path = FOLDER / "edition-2" / scale / f"{table}{SUFFIX}"
    return [row for row in read_rows(path) if editions.counts(row)] if path.exists() else []


def complete(rows: Iterable[Row], table: str, scale: str, *, only: Mapping[str, Collection[str]] = ALL) -> set[int]:
    """Return the seeds of rows that have all cells of a table on which claims rest, or all where none does.

    Args:
        rows: The rows.
        table: The table.
        scale: Its scale.
        only: Which cells are looked at (see `newest`).
    """
    cells, settings = {row.cell for row in rows}, scales.scale(scale)
    chosen = {"shown": not any(block.get("decides", True) for block in grids.TABLES[table].blocks)}
    wanted = {seed: grids.table_cells(table, settings, seeds=[seed], **chosen) for seed in {one.seed for one in cells}}
    return {
        seed for seed, needed in wanted.items() if cells.issuperset(cell for cell in needed if _is_shown(cell, only))
    }


def _plain(provenance: Mapping) -> dict:
    return {name: value for name, value in provenance.items() if not isinstance(value, Mapping | list)}


def _row(line: str, where: str) -> Row:
    remedy = "take the line away and compute its row again, or restore the file with git checkout"
    try:
        content = json.loads(line, parse_constant=_no_number)
        json.dumps(content, ensure_ascii=False).encode()  # fails for text that is no text
        row = Row.from_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{where} is no row ({'.'.join(map(str, fault['loc']))}: {fault['msg']}): {remedy}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is no row ({error}): {remedy}") from None
    check_keys(row.provenance["versions"], where)
    return row


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _check_alike(path: Path, rows: Iterable[Row]) -> None:
    seen: dict[str, tuple[int, Mapping]] = {}
    for number, row in enumerate(rows, start=1):
        made = {name: row.provenance[name] for name in ("versions", "settings", "data")}
        identity = json.dumps([row.cell.to_json(), made], sort_keys=True)
        first, result = seen.setdefault(identity, (number, timeless(row.result)))
        if result != timeless(row.result):
            raise InputError(
                f"{path}: lines {first} and {number} are of one cell ({row.cell.task}, seed {row.cell.seed}), made"
                " alike, and differ: find out why, and take the wrong one away"
            )


def timeless(result: Mapping) -> dict:
    """Return a result without the times in it, which differ from run to run."""
    kept = {name: value for name, value in result.items() if name != "milliseconds"}
    return {name: timeless(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def check_writable(path: Path) -> None:
    """Refuse a file that rows cannot be added to, before anything is computed.

    Raises:
        InputError: Its name does not end in `SUFFIX`, or it cannot be written.
    """
    check_suffix(path)
    check_output(path)


def check_suffix(path: Path) -> None:
    """Refuse a name that rows cannot be added to.

    Raises:
        InputError: It does not end in `SUFFIX`.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path} is no results file that rows can be added to: name one that ends in {SUFFIX}")


def _cut(path: Path) -> InputError:
    return InputError(f"{path}: its last line is cut, as by a full disk: take that line away and compute its row again")
