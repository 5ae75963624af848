"""The paper's tables as lists of cells, defined in ``tables.toml``, with each scale's values in ``NAME.toml``.

``cut.toml`` says which cells are cut first if a seed takes too long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Any

from extractbook.reproduction import editions
from extractbook.reproduction.cells import Cell, plain_cell
from extractbook.reproduction.scales import Cut, Scale, checked, read_toml, scale
from extractlib.api.granularity import Granularity, TopK
from extractlib.data.sources import FOLDER
from extractlib.errors import InputError, check_choice, check_positive
from extractlib.models import networks

DETECTOR_IMAGES = 4_000
"""Number of images of each side that plans assume a detector is trained on."""

RULES = ("tasks", "parity", "decides")
"""Keys that a block may have besides the fields of a cell."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A list of cells for each seed, as given in ``tables.toml``.

    Attributes:
        title: What the table shows.
        blocks: Changes to the plain cell; see the head of the file.
        skip: Cells that are left out.
        folders: Whether tasks and pool can be folders of any images.
        controls: Whether it uses the seeds of the independent controls when claims are decided.
    """

    title: str
    blocks: tuple[Mapping[str, Any], ...]
    skip: tuple[Mapping[str, Any], ...] = ()
    folders: bool = False
    controls: bool = False

    def cells(self, scale: Scale, *, seed: int, shown: bool = True) -> Iterator[Cell]:
        """Yield the cells of a seed, task by task and block by block.

        Args:
            scale: The scale.
            seed: The seed.
            shown: Whether to include cells that decide no claim.
        """
        for task in scale.tasks:
            names = _names(scale, task)
            skip = [{key: _values(stated, names) for key, stated in rule.items()} for rule in self.skip]
            plain = plain_cell(scale, task=task, seed=seed)
            blocks = (block for block in self.blocks if shown or block.get("decides", True))
            for cell in (cell for block in blocks for cell in _expanded(block, plain, names)):
                if not any(_fits(cell, rule) for rule in skip):
                    yield cell


def read_tables(path: Path) -> dict[str, Table]:
    """Return the tables that a TOML file holds, by name.

    Raises:
        InputError: The file is not TOML; or a key is unknown, missing or has a value of another type. The message names
            file, key, value and remedy.
    """
    tables, known = {}, [*(field.name for field in fields(Cell)), *RULES]
    for name, stated in read_toml(path).items():
        tables[name] = table = _table(stated, place=f"{path}: {name}")
        for key, value in (item for rule in (*table.blocks, *table.skip) for item in rule.items()):
            if key not in known:
                raise InputError(f"{path}: {name}: unknown key {key} = {value!r}: use one of {', '.join(known)}")
    return tables


def _table(stated: Mapping[str, Any], *, place: str) -> Table:
    return checked(Table, stated, lambda key: place)


def _names(scale: Scale, task: str) -> dict[str, Any]:
    """Return what each name in braces stands for."""
    middle, own, steps = scale.middle_budget, scale.own_number, scale.surrogate.steps
    weights = networks.INITIAL if scale.other_weights or not scale.imagenet else ()
    public = 4 * own
    low = (scale.narrow_budget, scale.diversity_budget)
    return vars(scale) | {
        "task": task,
        "scratch_network": scale.scratch_networks.get(task, ""),
        "other_network": scale.other_network or (),
        "other_budgets": tuple(budget for budget in scale.budgets[:-1] if budget not in (middle, public)),
        "public_budgets": () if public in (0, middle, scale.budget) else (public,),
        "low_budgets": tuple(budget for budget in dict.fromkeys(low) if budget not in scale.budgets),
        "own_number": own,
        "other_own_budgets": tuple(budget for budget in scale.realistic_budgets if budget != own),
        "middle_budget": middle,
        "other_adaptive_budgets": tuple(budget for budget in scale.adaptive_budgets if budget != middle),
        "deciding_granularities": tuple(kind for kind in scale.granularities if kind not in scale.shown_granularities),
        "truncated": tuple(kind for kind in scale.granularities if kind.startswith(f"{TopK.kind}-")),
        "weights": weights,
        "other_weights": weights[1:],
        "three_steps": (3 * steps,) if steps else (),
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
    changes.pop("decides", None)
    tasks, [parity] = changes.pop("tasks", [plain.task]), changes.pop("parity", [""])
    kind = FOLDER if plain.task.startswith(FOLDER) else plain.task
    if not {plain.task, kind} & set(tasks) or parity not in ("", ("even", "odd")[plain.seed % 2]):
        return
    if "budget" in changes:  # the largest first: its collection serves the smaller ones
        changes["budget"].sort(reverse=True)
    for chosen in product(*changes.values()):
        yield replace(plain, **dict(zip(changes, chosen, strict=True)))


def _fits(cell: Cell, rule: Mapping[str, list]) -> bool:
    return all(any(cell == replace(cell, **{key: value}) for value in values) for key, values in rule.items())


TABLES: Mapping[str, Table] = MappingProxyType(read_tables(Path(__file__).with_name("tables.toml")))
"""The tables in the order in which they are computed."""


def read_cuts(path: Path) -> tuple[Cut, ...]:
    """Return the cuts in a TOML file, in the order in which they are made.

    Raises:
        InputError: The file is not TOML; a key is unknown, missing or of another type; or a table is unknown.
    """
    cuts = tuple(checked(Cut, stated, lambda key: path) for stated in read_toml(path)["cuts"])
    for cut in cuts:
        check_choice("table", cut.table, TABLES)
    return cuts


CUTS = read_cuts(Path(__file__).with_name("cut.toml"))
"""What is cut if a seed takes too long, in this order; a scale says how many cuts are made."""


def table_cells(table: str, scale: Scale, *, seeds: Iterable[int], shown: bool = True) -> list[Cell]:
    """Return the cells of a table, seed by seed; those that decide no claim only for the first ``fewer_seeds`` seeds.

    Args:
        table: The name of the table.
        scale: The scale.
        seeds: The seeds. If they decide claims, a table of controls uses the seeds of the controls instead.
        shown: Whether to include cells that decide no claim, which a second look does not need.

    Raises:
        InputError: There is no such table, or it has no cell for the scale's tasks.
    """
    chosen, seeds = TABLES[check_choice("table", table, TABLES)], list(seeds)
    if chosen.folders < _on_folders(scale):
        fitting = ", ".join(tables_for(scale))
        raise InputError(f"table {table!r} needs more than folders hold: for folders, use one of {fitting}")
    if chosen.controls and editions.deciding() & set(seeds):
        seeds = list(editions.controls())
    cells = [
        cell
        for number, seed in enumerate(seeds)
        for cell in chosen.cells(scale, seed=seed, shown=shown and number < scale.fewer_seeds)
        if not _is_cut(cell, table, scale)
    ]
    if _on_folders(scale):  # drop the task's own images as a pool, since then its detector knows no pool
        cells = [cell for cell in cells if str(cell.pool) == scale.pool]
    if not cells:
        tasks, numbers = ", ".join(scale.tasks), ", ".join(map(str, seeds))
        raise InputError(f"table {table!r} has no cell for {tasks} and seed {numbers}: use reproduction")
    return cells


def with_options(
    cells: Iterable[Cell], *, budget: int | None = None, granularity: str | None = None, network: str | None = None
) -> list[Cell]:
    """Return cells with other settings, each once.

    Args:
        cells: The cells of a table.
        budget: Number of queries of the attack; as in the table if None.
        granularity: What an answer shows; as in the table if None.
        network: Network of the victim and the surrogate; as in the table if None.

    Raises:
        InputError: A value is invalid, or no cell uses it.
    """
    changes: dict[str, Any] = {}
    if budget is not None:
        changes["budget"] = check_positive("budget", budget)
    if granularity is not None:
        changes["granularity"] = Granularity.parse(granularity)
    if network is not None:
        changes["victim"] = changes["surrogate"] = check_choice("network", network, networks.NETWORKS)
    cells = list(cells)
    for name in changes:
        if name != "surrogate" and not any(_uses(cell, name) for cell in cells):
            raise InputError(f"{cells[0].experiment} does not use --{name}: leave it out")
    return list(
        dict.fromkeys(
            replace(cell, **{name: value for name, value in changes.items() if _uses(cell, name)}) for cell in cells
        )
    )


def _uses(cell: Cell, option: str) -> bool:
    """Return whether a cell's outcome depends on an option."""
    asks = cell.budget > 0 and cell.attack != "own-labels" and cell.experiment != "accounts"
    return {"victim": True, "surrogate": cell.surrogate != "", "budget": cell.budget > 0, "granularity": asks}[option]


def _is_cut(cell: Cell, table: str, scale: Scale) -> bool:
    names = _names(scale, cell.task)
    return any(
        cut.table == table
        and cell.task not in cut.tasks
        and _fits(cell, {key: _values(stated, names) for key, stated in cut.cells.items()})
        for cut in (*CUTS[: scale.cuts], *scale.left_out)
    )


def tables_for(scale: Scale, *, shown: bool = True) -> list[str]:
    """Return the names of the tables that a scale's tasks and pool can fill, or their cells that decide claims."""
    fitting = (name for name, table in TABLES.items() if table.folders >= _on_folders(scale))
    cells = {name: TABLES[name].cells(scale, seed=0, shown=shown) for name in fitting}
    return [name for name, its in cells.items() if any(not _is_cut(cell, name, scale) for cell in its)]


def _on_folders(scale: Scale) -> bool:
    return any(name.startswith(FOLDER) for name in (*scale.tasks, scale.pool))


def expected_seconds(cell: Cell, *, rate: int | None = None) -> float:
    """Return about how many seconds a cell takes if what it shares with its task and seed is already computed.

    Args:
        cell: The cell.
        rate: How many images a second a process trains on, which dominates; the scale's rate if None.
    """
    settings = scale(cell.scale)
    rate = rate or settings.rate
    recipe = settings.recipe("surrogate", task=cell.task, steps=cell.steps)
    surrogate = recipe.steps_for(cell.budget or settings.budget) * recipe.batch_size / rate
    detector = 2 * DETECTOR_IMAGES * settings.detector.epochs / rate
    return {
        "extraction": surrogate + 6,
        "control": surrogate + 6,
        "classes": 3,
        "answers": 5,
        "asked_twice": surrogate + 20,
        "detection": detector + 40,
        "overlap": 2 * settings.overlap_images * settings.detector.epochs / rate + 2,
        "shortcut": 8 * detector + 6 * surrogate + 60,
        "accounts": 20,
    }[cell.experiment]
