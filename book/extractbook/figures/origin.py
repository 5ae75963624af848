"""The provenance of a chapter's results, as a line of Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime

import pandas as pd

from extractbook.reproduction import editions, results
from extractbook.reproduction.cells import Cell, commit, describe, libraries
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.store import digest


def provenance_of(frame: pd.DataFrame) -> str:
    """Return where the rows of a frame come from, as one line of Markdown.

    Args:
        frame: A frame from `book.frame`, or some of its lines.

    Raises:
        InputError: There are no rows, or they do not say where they come from.
    """
    if frame.empty or "edition" not in frame:
        raise InputError("no rows that say where they come from: give a frame from book.frame")
    made = []
    for edition, rows in frame.groupby("edition", sort=False):
        seeds = sorted(set(rows["seed"]))
        look = len(editions.looks(editions.of_scale(rows["scale"].iloc[0]))[0])
        said = f"{seed_count(rows)}, {_listed(seeds)}"
        until = "" if edition == "second" else f"; {_waiting(rows)}"
        if edition == "second" and len(seeds) < look:
            until = f"; a claim is judged with {look} seeds or more, so none is judged by these yet"
        who = "the second edition's rows" if edition == "second" else "rows of the exploration"
        made.append(f"{who}, {said}, measured on {rows['part'].iloc[0]} images{until}")
    dates = sorted(frame["date"].str[:10])
    parts = [
        "commit " + ", ".join(f"`{commit}`" for commit in sorted(set(frame["commit"]))),
        dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
        f"{len(frame):,} {'run' if len(frame) == 1 else 'runs'} in {frame['seconds'].sum():,.0f} s",
        *sorted(set(frame["device"])),
        *sorted(set(frame["libraries"])),
        f"data `{digest(*sorted(set(frame['data'])))[:12]}`",
    ]
    return f"*Provenance*: {'; '.join([*made, *parts])}"


def _waiting(rows: pd.DataFrame) -> str:
    """Return, in words, for which tables among exploration rows the deciding rows are available and for which not."""
    scale, tables = rows["scale"].iloc[0], list(dict.fromkeys(rows["table"]))
    look = len(editions.looks(editions.of_scale(scale))[0])
    there = [table for table in tables if len(results.decided(table, scale)) >= look]
    if not there:
        return "the rows that decide the claims have not been run yet"
    if there == tables:
        return (
            f"the rows that decide the claims are available with {look} seeds, but not yet for the rows that these are"
            " compared with"
        )
    ready, missing = (
        ", ".join(table.replace("_", " ") for table in tables if (table in there) is whole) for whole in (True, False)
    )
    return (
        f"the rows that decide the claims are available with {look} seeds for {ready}, but not all of those for"
        f" {missing}"
    )


def _listed(seeds: Sequence[int]) -> str:
    """Return sorted seeds in words: as a range if they are consecutive, otherwise one by one."""
    if len(seeds) == 1:
        return str(seeds[0])
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"


def seed_count(frame: pd.DataFrame) -> str:
    """Return, for a sentence, how many seeds a frame's rows have: ``"one seed"`` or, for example, ``"8 seeds"``."""
    count = frame["seed"].nunique()
    return "one seed" if count == 1 else f"{count} seeds"


def seeds(frame: pd.DataFrame) -> str:
    """Return, for a caption, how many seeds a frame's values cover and, if a cell has several, what the spread is.

    Args:
        frame: A frame from `book.frame`, or a part of it; rows of different cells may have different seeds.
    """
    cell = [field.name for field in fields(Cell) if field.name != "seed" and field.name in frame]
    counts = frame.groupby(cell, dropna=False)["seed"].nunique() if cell else pd.Series([frame["seed"].nunique()])
    least, most = counts.min(), counts.max()
    if most == 1:
        return "one seed" if frame["seed"].nunique() == 1 else "one seed each"
    return f"mean ± sd over {most if least == most else f'{least} to {most}'} seeds"


def run_provenance(images: Iterable[ImageSet], *, seed: int, seconds: float, device: str = "cpu") -> str:
    """Return the provenance of a chapter's own run, as one line of Markdown.

    Args:
        images: All images that the run used.
        seed: The seed of the run.
        seconds: How long it took.
        device: The device on which it ran.
    """
    run = f"commit `{commit()}`; {datetime.now(UTC).date()}; seed {seed}; live in {seconds:,.0f} s; {describe(device)}"
    versions = "; ".join(f"{name} {version}" for name, version in libraries().items())
    data = digest(*(image_set.fingerprint for image_set in images))
    return f"*Provenance*: {run}; {versions}; data `{data[:12]}`"
