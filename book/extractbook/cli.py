"""The command line of the book: ``extractbook run | results | ledger | verify | weights | build | pdf | course``.

What a command needs it imports itself, so that the list of commands appears at once.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extractbook.build.commands import COMMANDS
from extractlib.cli import DataFolder, Version, named_folder
from extractlib.errors import InputError, check_choice, check_positive

if TYPE_CHECKING:
    from extractbook.reproduction.cells import Cell, Row
    from extractbook.reproduction.scales import Scale

RESULTS = Path(__file__).parent / "results"
EDITION, FIRST_EDITION = RESULTS / "edition-2", RESULTS / "edition-1"

app = typer.Typer(
    help="The paper's tables, the rows behind the book, and its claims with our verdicts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main(version: Version = False) -> None:
    """The paper's tables, the rows behind the book, its claims with our verdicts, and what makes the book."""


ScaleName = Annotated[str, typer.Option("--scale", help="Scale of the experiment, as drawn or small-cpu.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of the results of an edition.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes at a time.")]
SeedCount = Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda; the best at hand if not given.")]
OnlyTables = Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")]
Plan = Annotated[bool, typer.Option("--plan", help="Only print what is left and how long it will take.")]
Rate = Annotated[int | None, typer.Option("--rate", min=1, help="Images a second to plan with.")]


@app.command()
def run(
    table: Annotated[str, typer.Argument(help="Which table, as reproduction or granularity.")],
    name: Annotated[str | None, typer.Option("--scale", help="drawn, or small-cpu where files are named.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="As signs, cifar10 or folder:PATH; may be repeated.")] = None,
    pool: Annotated[str | None, typer.Option(help="As atlas, tinyimagenet or folder:PATH.")] = None,
    data: DataFolder = None,
    budget: Annotated[int | None, typer.Option(help="Queries of the attack.")] = None,
    granularity: Annotated[
        str | None, typer.Option(help="full, top-K, rounded-DIGITS, label or temperature-T.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Network of victim and surrogate.")] = None,
    seeds: SeedCount = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    part: Annotated[str, typer.Option(help="Compare on the test or on the validation part.")] = "test",
    jobs: Jobs = 1,
    device: Device = None,
    output: Annotated[
        Path | None, typer.Option(help="File that the rows are added to; its name ends in .jsonl.")
    ] = None,
) -> None:
    """Run a table's cells, on drawn images, published data sets or folders of yours, and print what came out."""
    from extractbook.reproduction import run_table, table_cells
    from extractbook.reproduction.results import check_suffix
    from extractbook.reproduction.scales import scale
    from extractlib.api import Granularity
    from extractlib.data import download
    from extractlib.data.sources import in_files
    from extractlib.models import networks
    from extractlib.store import default_store

    use(device)
    in_file = any(map(in_files, filter(None, (*(task or ()), pool))))
    settings = scale(name or ("small-cpu" if in_file else "drawn"))
    folders = download.data_folders(data)
    named = [named_folder(name, folders) for name in task or settings.tasks]
    settings = replace(settings, tasks=tuple(named), pool=named_folder(pool or settings.pool, folders))
    cells = table_cells(table, settings, seeds=range(first_seed, first_seed + seeds))
    changes = {
        "budget": None if budget is None else check_positive("budget", budget),
        "granularity": granularity and str(Granularity.parse(granularity)),
        "victim": network and check_choice("network", network, networks.NETWORKS),
        "surrogate": network,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    cells = list(dict.fromkeys(replace(cell, **changes) for cell in cells))
    check_choice("part", part, ("test", "validation"))
    if output:  # before hours of work, not after them
        check_suffix(output)
        output.parent.mkdir(parents=True, exist_ok=True)
    rows = run_table(cells, output, store=default_store(), folders=folders, jobs=jobs, device=device, part=part)
    print_rows(rows)


@app.command()
def results(
    name: ScaleName = "drawn",
    seeds: SeedCount = 5,
    jobs: Jobs = 2,
    folder: Results = EDITION,
    table: OnlyTables = None,
    plan: Plan = False,
    rate: Rate = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    ray: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster that runs the cells; local starts one on this machine."),
    ] = None,
    data: DataFolder = None,
) -> None:
    """Compute every table of a scale into the committed results; what is up to date is not computed again."""
    from extractbook.reproduction import run_table, table_cells
    from extractbook.reproduction.grids import tables_for
    from extractbook.reproduction.scales import scale
    from extractbook.reproduction.schedule import missing
    from extractlib.data import download
    from extractlib.store import default_store

    settings = scale(name)
    options = {
        "device": None if plan else use(device),
        "folders": download.data_folders(data),
        "jobs": jobs,
        "ray": ray,
    }
    cells = {one: table_cells(one, settings, seeds=range(seeds)) for one in table or tables_for(settings)}
    paths = {one: folder / settings.name / f"{one}.jsonl" for one in cells}
    left = {one: (cells[one], missing(cells[one], path)) for one, path in paths.items()}
    print(plan_of(left, settings, jobs=jobs, rate=rate), flush=True)
    for one, path in paths.items() if not plan else ():
        rows = run_table(cells[one], path, store=default_store(), **options)
        print(f"\n{one}: {path}")
        print_rows(rows)


@app.command("verify")
def verify_command(
    chosen: Annotated[list[str] | None, typer.Option("--scale", help="Only this one; may be repeated.")] = None,
    folder: Results = EDITION,
    jobs: Jobs = 2,
    data: DataFolder = None,
    turn: Annotated[
        int | None, typer.Option(min=0, help="Which kinds and rows are taken; the hour decides if not given.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Compute a cell of every kind, not of four.")] = False,
    keep: Annotated[
        bool, typer.Option("--record", help="Add what came out to the record that the pages quote.")
    ] = False,
) -> None:
    """Compute a committed cell of each of four kinds anew, in rotation; status 1 where one leaves its tolerance."""
    from extractbook.reproduction import is_current, read_all
    from extractbook.reproduction.run import headline, name_of
    from extractbook.reproduction.scales import scale
    from extractbook.reproduction.verify import KINDS_A_RUN, RECORD, record, recorded, verify
    from extractlib.data import download
    from extractlib.store import default_store

    turn = int(time.time() // 3600) if turn is None else turn
    names = chosen or sorted(path.name for path in folder.glob("*") if path.is_dir())
    rows = [row for name in names for row in read_all(folder / scale(name).name)]
    if not rows:
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    stale = sum(not is_current(row) for row in rows)
    print(f"{len(rows)} rows, {stale} stale; --turn {turn} takes these again", flush=True)
    kinds = None if everything else KINDS_A_RUN
    options = {"store": default_store(), "folders": download.data_folders(data), "jobs": jobs}
    checks = []
    for check in verify(rows, turn=turn, kinds=kinds, **options):
        checks.append(check)
        print(
            f"{name_of(check.old.cell)}: {headline(check.new):.4f}, committed {headline(check.old):.4f},"
            f" allowed difference {check.allowed:.4f}: {'agrees' if check.agrees else 'DIFFERS'}"
            f" ({check.new.provenance['seconds']:.0f} s)",
            flush=True,
        )
    if keep:
        record(folder / RECORD, checks)
        print(f"{folder / RECORD}: {len(recorded(folder / RECORD))} entries")
    if not all(check.agrees for check in checks):
        raise typer.Exit(1)


@app.command()
def weights(
    name: ScaleName = "drawn",
    folder: Annotated[Path | None, typer.Option(help="Where to; the library's own if not given.")] = None,
    device: Device = None,
    data: DataFolder = None,
) -> None:
    """Pre-train a scale's backbones: those that ship again, victims with them; others once, into the cache."""
    from extractbook.reproduction.backbones import make_weights
    from extractbook.reproduction.cells import Cell
    from extractbook.reproduction.scales import scale
    from extractbook.reproduction.setups import Setup, ship_victim
    from extractlib.data import download
    from extractlib.data.sources import Loader
    from extractlib.models import networks
    from extractlib.store import default_store

    folder = folder or networks.WEIGHTS
    settings = scale(name)
    folder = folder if settings.shipped else folder / settings.name
    own = use(device or ("cpu" if settings.shipped else None))
    sizes = {**settings.task_sizes, **settings.pool_sizes}
    loader = Loader(
        sizes=sizes, image_size=settings.image_size, store=default_store(), folders=download.data_folders(data)
    )
    for network in (settings.network, settings.other_network):
        card = make_weights(settings, folder, loader, network=network, device=own)
        figures = f"{card['validation_accuracy']:.1%} of {card['classes']} classes right"
        print(f"{folder / network}.json: {figures}", flush=True)
    for task in settings.tasks if settings.shipped else ():
        cell = Cell(scale=settings.name, task=task, pool=settings.pool, victim=settings.network, seed=0)
        card = ship_victim(Setup(cell, store=default_store(), device=own, progress=True), folder / "victims")
        print(f"{folder / 'victims' / task}.json: {card['test_accuracy']:.1%} right", flush=True)


@app.command()
def ledger(name: ScaleName = "drawn", folder: Results = FIRST_EDITION) -> None:
    """Print the paper's claims, and ours beyond it, with our verdicts."""
    from extractbook.reproduction import read_all
    from extractbook.reproduction.ledger import verdicts
    from extractbook.reproduction.scales import scale

    for entry in verdicts(read_all(folder / scale(name).name)):
        print(f"{entry.claim.id:4} {entry.verdict:15} {entry.claim.statement}")


def use(device: str | None) -> str:
    """Make a device the default of this process and of those it starts, and return its name.

    Raises:
        InputError: There is no such device.
    """
    from extractlib.models import devices

    name = device or devices.default_device()
    devices.resolve(name)
    os.environ["EXTRACTLIB_DEVICE"] = name
    return name


def plan_of(
    tables: Mapping[str, tuple[list["Cell"], list["Cell"]]],
    settings: "Scale",
    *,
    jobs: int = 1,
    rate: int | None = None,
) -> str:
    """Return a table: for each of `tables` its cells, how many are left, and about how long they will take.

    Args:
        tables: By name all cells and those that are left.
        settings: The scale.
        jobs: Processes at a time.
        rate: Images a second that a process trains; the scale's if None.
    """
    from extractbook.reproduction.grids import expected_seconds

    rate = rate or settings.rate
    lines, total = [f"{'table':14} {'cells':>6} {'left':>6} {'hours':>9}"], 0.0
    for name, (cells, left) in tables.items():
        hours = sum(expected_seconds(cell, rate=rate) for cell in left) / 3600
        total += hours
        lines.append(f"{name:14} {len(cells):6} {len(left):6} {hours:9,.2f}")
    pixels = 3 * settings.image_size**2
    lines.append(f"about {total:,.1f} hours at {rate:,} images a second, {total / jobs:,.1f} with --jobs {jobs}")
    lines.append(f"the {settings.budget:,} images of an attack take {settings.budget * pixels / 1e9:.2f} GB")
    return "\n".join(lines)


def print_rows(rows: list["Row"]) -> None:
    """Print mean ± standard deviation over the seeds of each number, one block for each cell without its seed.

    What some seeds have no number for, such as a client that is never flagged, says how many have one.
    """
    from extractbook.reproduction.cells import Row
    from extractbook.reproduction.results import frame
    from extractbook.reproduction.run import name_of

    groups: dict[Cell, list[Row]] = {}
    for row in rows:
        groups.setdefault(replace(row.cell, seed=0), []).append(row)
    for cell, group in groups.items():
        numbers = frame(Row(row.cell, row.result, {}) for row in group).drop(columns=list(vars(cell)))
        shown = []
        for name, values in numbers.select_dtypes("number").items():
            spread = f" ± {values.std():.3f}" if values.count() > 1 else ""
            some = f" ({values.count()} of {len(group)})" if values.count() < len(group) else ""
            words = name.replace(".", " ").replace("_", " ")
            shown.append(f"{words} {values.mean():.3f}{spread}{some}")
        seeds = f"{len(group)} seeds" if len(group) > 1 else f"seed {group[0].cell.seed}"
        print(f"{name_of(cell).rpartition(', seed')[0]} ({seeds}): {', '.join(shown)}")


for make in COMMANDS:
    app.command()(make)
