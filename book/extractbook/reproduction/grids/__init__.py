"""The paper's tables as lists of cells: ``tables.toml`` says which, and ``NAME.toml`` with which values at a scale."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any

from extractbook.reproduction.cells import Cell
from extractbook.reproduction.scales import Scale, checked_fields, read_toml, scale
from extractlib.data.sources import FOLDER
from extractlib.errors import InputError, check_choice

DETECTOR_IMAGES = 4_000
"""Images of each side that plans take a detector to be trained on."""

RULES = ("tasks", "seeds", "from_seed")
"""What a block or a skipped cell may say beside the fields of a cell."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A list of cells for each seed, as ``tables.toml`` has it.

    Attributes:
        title: What it shows.
        blocks: Changes to the plain cell; see the head of the file.
        skip: Cells that are left out.
        folders: Whether tasks and pool may be folders of any images.
    """

    title: str
    blocks: tuple[Mapping[str, Any], ...]
    skip: tuple[Mapping[str, Any], ...] = ()
    folders: bool = False

    def cells(self, scale: Scale, *, seed: int) -> Iterator[Cell]:
        """Yield the cells of a seed, task by task and block by block."""
        for task in scale.tasks:
            names = _names(scale, task)
            skip = [{key: _values(stated, names) for key, stated in rule.items()} for rule in self.skip]
            plain = Cell(
                profile=scale.name,
                task=task,
                pool=scale.pool,
                victim=scale.network,
                surrogate=scale.network,
                budget=scale.budget,
                seed=seed,
            )
            for cell in (cell for block in self.blocks for cell in _expanded(block, plain, names)):
                if not any(_fits(cell, rule) for rule in skip):
                    yield cell


def read_tables(path: Path) -> dict[str, Table]:
    """Return the tables that a TOML file holds, by name.

    Raises:
        InputError: It is no TOML; or a key is unknown, missing or of another type. The message names file, key, value
            and remedy.
    """
    tables, known = {}, [*(field.name for field in fields(Cell)), *RULES]
    for name, stated in read_toml(path).items():
        tables[name] = table = Table(**checked_fields(Table, stated, f"{path}: {name}"))
        for key, value in (item for rule in (*table.blocks, *table.skip) for item in rule.items()):
            if key not in known:
                raise InputError(f"{path}: {name}: unknown key {key} = {value!r}: use one of {', '.join(known)}")
    return tables


def _names(scale: Scale, task: str) -> dict[str, Any]:
    """Return what each name in braces stands for."""
    middle = scale.adaptive_budgets.index(scale.middle_budget)
    return vars(scale) | {
        "task": task,
        "scratch_network": scale.scratch_networks.get(task, ""),
        "smaller_budgets": scale.budgets[:-1],
        "own_budget": scale.own_budget,
        "middle_budget": scale.middle_budget,
        "adaptive_above": scale.adaptive_budgets[middle + 1 :],
        "adaptive_below": scale.adaptive_budgets[:middle],
    }


def _values(stated: Any, names: Mapping[str, Any]) -> list:
    """Return the values that a value in TOML stands for."""
    if isinstance(stated, list):
        return [value for entry in stated for value in _values(entry, names)]
    if not isinstance(stated, str):
        return [stated]
    used = [check_choice("name in braces", name, names) for _, name, _, _ in Formatter().parse(stated) if name]
    found = [names[name] for name in used]
    options = [list(several) if isinstance(several, tuple | Mapping) else [several] for several in found]
    if used and stated == f"{{{used[0]}}}":
        return options[0]
    return [stated.format_map(dict(zip(used, chosen, strict=True))) for chosen in product(*options)]


def _expanded(block: Mapping[str, Any], plain: Cell, names: Mapping[str, Any]) -> Iterator[Cell]:
    changes = {key: _values(stated, names) for key, stated in block.items()}
    tasks, [seeds] = changes.pop("tasks", [plain.task]), changes.pop("seeds", [math.inf])
    if plain.task not in tasks or plain.seed >= seeds:
        return
    if "budget" in changes:  # the largest first: its collection serves the smaller ones
        changes["budget"].sort(reverse=True)
    for chosen in product(*changes.values()):
        yield replace(plain, **dict(zip(changes, chosen, strict=True)))


def _fits(cell: Cell, rule: Mapping[str, list]) -> bool:
    return all(
        cell.seed >= values[0] if key == "from_seed" else getattr(cell, key) in values for key, values in rule.items()
    )


TABLES: Mapping[str, Table] = MappingProxyType(read_tables(Path(__file__).with_name("tables.toml")))
"""The tables in the order in which they are computed."""


def table_cells(table: str, scale: Scale, *, seeds: Iterable[int]) -> list[Cell]:
    """Return the cells of a table, seed by seed.

    Raises:
        InputError: There is no such table, or it has no cell for the scale's tasks.
    """
    chosen = TABLES[check_choice("table", table, TABLES)]
    if table not in tables_for(scale):
        fitting = ", ".join(tables_for(scale))
        raise InputError(f"table {table!r} needs more than folders hold: for them use one of {fitting}")
    seeds = list(seeds)
    cells = [cell for seed in seeds for cell in chosen.cells(scale, seed=seed)]
    if not cells:
        tasks, numbers = ", ".join(scale.tasks), ", ".join(map(str, seeds))
        raise InputError(f"table {table!r} has no cell for {tasks} and seed {numbers}: use reproduction")
    return cells


def tables_for(scale: Scale) -> list[str]:
    """Return the names of the tables that a scale's tasks and pool can fill."""
    folders = any(name.startswith(FOLDER) for name in (*scale.tasks, scale.pool))
    return [name for name, table in TABLES.items() if table.folders or not folders]


def expected_seconds(cell: Cell, *, rate: int | None = None) -> float:
    """Return about how long a cell takes, in seconds, what its task and seed share being at hand.

    Args:
        cell: The cell.
        rate: Images a second that a process trains, which dominates; the scale's if None.
    """
    settings = scale(cell.profile)
    rate = rate or settings.rate
    surrogate = cell.budget * settings.surrogate.epochs / rate
    detector = 2 * DETECTOR_IMAGES * settings.detector.epochs / rate
    return {
        "extraction": surrogate + 4,
        "classes": 2,
        "detection": detector + 40,
        "overlap": 2 * settings.overlap_images * settings.detector.epochs / rate + 2,
        "shortcut": 8 * detector + 16 * surrogate + 60,
        "stateful": 55,
    }[cell.experiment]
