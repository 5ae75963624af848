"""Results files: one row per line, appended under a lock and never rewritten."""

import json
import os
import time
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
"""The folder of the committed rows, by edition and scale."""

SUFFIX = ".jsonl"


class NoRows(InputError):
    """A table's rows have not been computed, as opposed to rows that cannot be read."""


ALL: Mapping[str, Collection[str]] = MappingProxyType({})
"""All cells of a table."""


def append_row(path: Path, row: Row) -> None:
    """Append a row to a results file; it is on disk when this returns, and the file's other bytes do not change.

    Raises:
        InputError: The file is not one of this edition, or its last line is cut off.
    """
    check_suffix(path)
    append_line(path, row.to_json())


def append_line(path: Path, record: Mapping) -> None:
    """Append a record to a file of JSON lines, under a lock.

    Raises:
        InputError: The file's last line is cut off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    lock = held(path.with_name(f".{path.name}.lock"), f"adds to {path}")
    with lock, open(path, "a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise _cut(path)
        try:
            if file.write(line) != len(line):
                raise OSError(f"{path} has no space for another row")
            os.fsync(file.fileno())
        except BaseException:  # half a row would make the whole file unreadable
            file.truncate(end)
            raise


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a results file, of this edition (``.jsonl``) or the first one (``.json``).

    Raises:
        InputError: The file is missing or incomplete, a line is not a row or has unknown versions, or two rows made in
            the same way differ. The message names file, line and remedy.
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
        InputError: The file is missing or not a text file, or its last line is cut off.
    """
    try:
        content = path.read_text(encoding="utf-8")
        for _ in range(20 if content else 0):  # another process may be adding a line
            if content.endswith("\n"):
                break
            time.sleep(0.05)
            content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: make it with extractbook results") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a results file that can be read") from None
    except ValueError as error:
        raise InputError(f"{path} is not a results file ({error}): move it away") from None
    if content and not content.endswith("\n"):
        raise _cut(path)
    return content.splitlines()


def read_all(folder: Path) -> list[Row]:
    """Return the rows of all results files in a folder, file by file in the order of their names.

    Raises:
        InputError: There is no such file, or one cannot be used (see `read_rows`).
    """
    paths = sorted(path for path in folder.glob("*.json*") if path.suffix in (".json", SUFFIX))
    if not paths:
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    return [row for path in paths for row in read_rows(path)]


def first_edition(scale: str, table: str | None = None) -> list[Row]:
    """Return the rows of the first edition at a scale, of all its tables or of one table.

    Raises:
        InputError: There are none.
    """
    folder = FOLDER / "edition-1" / scale
    return read_all(folder) if table is None else read_rows(folder / f"{table}.json")


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a data frame with one line per row.

    Its columns are the fields of the cell (``task``, ``seed``, …), the single values of the provenance (``commit``,
    ``date``, ``seconds``, ``device``, …) and the numbers of the result by their paths, such as ``recovery`` or
    ``binary.pool.tnr``; what a row does not have is NaN. Lists in a result, such as a curve, are kept as they are.
    """
    lines = [{**row.cell.to_json(), **_plain(row.provenance), **row.result} for row in rows]
    return pd.json_normalize(lines) if lines else pd.DataFrame(columns=[field.name for field in fields(Cell)])


def newest(
    *tables: str, scale: str = "drawn", beside: Sequence[str] = (), only: Mapping[str, Collection[str]] = ALL
) -> pd.DataFrame:
    """Return the rows that the chapters show: one line per cell and seed, the second edition's rows that count.

    If a table does not yet have all deciding cells for any seed, its rows come from the exploration: one or a few
    seeds, judged on validation images. Tables that are requested together are compared, so if one is the
    exploration's, all are. Of two rows of one cell, the later one is returned.

    Args:
        tables: Names of tables, such as ``"granularity"``. A cell in several tables is one line, of the first table.
        scale: The scale.
        beside: Other tables that these are compared with, as if they were requested together.
        only: The values to show, by field of a cell; all values of fields that are not given. Other cells do not have
            to be complete, and their rows are left out.

    Returns:
        The columns of `frame`; ``table``, ``edition`` (``"second"`` or ``"exploring"``) and ``part`` (``"test"`` or
        ``"validation"``); ``libraries`` and ``data`` (a digest) as text. Its ``attrs`` hold ``editions``, ``parts``
        and ``seeds`` of its lines.

    Raises:
        InputError: A table has no rows.
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
    """Return the rows of `newest`, with edition and part; the exploration's if not `second`."""
    exploring = FOLDER / "exploring" / scale / f"{table}{SUFFIX}"
    counted = _counted(table, scale) if second else []
    whole = complete(counted, table, scale, only=only)
    if whole:
        kept = [row for row in counted if row.cell.seed in whole and _is_shown(row.cell, only)]
        return kept, {"edition": "second", "part": "test"}
    if exploring.exists():
        kept = [row for row in read_rows(exploring) if _is_shown(row.cell, only)]
        return kept, {"edition": "exploring", "part": "validation"}
    raise NoRows(f"no rows of table {table!r} at scale {scale!r}: make them with extractbook results")


def _is_shown(cell: Cell, only: Mapping[str, Collection[str]]) -> bool:
    return all(str(getattr(cell, name)) in values for name, values in only.items())


def decided(table: str, scale: str) -> set[int]:
    """Return the seeds for which all of a table's rows that claims rest on exist and count."""
    return complete(_counted(table, scale), table, scale)


def _counted(table: str, scale: str) -> list[Row]:
    path = FOLDER / "edition-2" / scale / f"{table}{SUFFIX}"
    return [row for row in read_rows(path) if editions.counts(row)] if path.exists() else []


def complete(rows: Iterable[Row], table: str, scale: str, *, only: Mapping[str, Collection[str]] = ALL) -> set[int]:
    """Return the seeds whose rows cover all of a table's cells that claims rest on, or all cells if none do.

    Args:
        rows: The rows.
        table: The table.
        scale: Its scale.
        only: Which cells to consider (see `newest`).
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
    remedy = "remove the line and recompute its row, or restore the file with git checkout"
    try:
        content = json.loads(line, parse_constant=_no_number)
        json.dumps(content, ensure_ascii=False).encode()  # fails for text that UTF-8 cannot encode
        row = Row.from_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise InputError(f"{where} is not a row ({place}: {fault['msg']}): {remedy}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is not a row ({error}): {remedy}") from None
    check_keys(row.provenance["versions"], where)
    return row


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _check_alike(path: Path, rows: Iterable[Row]) -> None:
    seen: dict[str, tuple[int, Mapping]] = {}
    for number, row in enumerate(rows, start=1):
        made = {name: row.provenance[name] for name in ("versions", "settings", "data")}
        identity = json.dumps([row.cell.to_json(), made], sort_keys=True)
        first, result = seen.setdefault(identity, (number, timeless(row.result)))
        if result != timeless(row.result):
            raise InputError(
                f"{path}: lines {first} and {number} are of one cell ({row.cell.task}, seed {row.cell.seed}), made"
                " in the same way, but differ: find out why, and remove the wrong one"
            )


def timeless(result: Mapping) -> dict:
    """Return a result without its times, which differ from run to run."""
    kept = {name: value for name, value in result.items() if name != "milliseconds"}
    return {name: timeless(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def check_writable(path: Path) -> None:
    """Refuse a file that rows cannot be added to, before anything is computed.

    Raises:
        InputError: The file's name does not end in `SUFFIX`, or it cannot be written.
    """
    check_suffix(path)
    check_output(path)


def check_suffix(path: Path) -> None:
    """Refuse a name that rows cannot be added to.

    Raises:
        InputError: The name does not end in `SUFFIX`.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path} is not a results file that rows can be added to: name one that ends in {SUFFIX}")


def _cut(path: Path) -> InputError:
    return InputError(f"{path}: its last line is cut off, as after a full disk: remove it and recompute its row")
