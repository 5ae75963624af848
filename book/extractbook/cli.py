"""The command line of the book: ``extractbook run | results | ledger | verify | weights | build | pdf | launch | …``.

Both packages load their submodules on first use, so the list of commands appears at once.
"""

import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

import extractlib as xl
from extractbook import reproduction as lab
from extractlib.cli import (
    NEAR,
    DataFolder,
    DropCopies,
    Ground,
    Group,
    MostPixels,
    SkipBad,
    Version,
    read_how,
)
from extractlib.errors import DataWarning, InputError, check_choice

if TYPE_CHECKING:
    from extractbook.reproduction.cells import Cell, Row
    from extractbook.reproduction.scales import Scale
    from extractlib.data.sources import Loader

CLONE = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
EDITION = RESULTS / "edition-2"
SUMMARY = "The paper's tables, the rows behind the book, its claims with our verdicts, and the build of the book."
app = typer.Typer(help=SUMMARY, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

COUNTS = ("errors", "asked", "errors_introduced")

ScaleName = Annotated[str, typer.Option("--scale", help="Scale of the experiment, for example drawn or small-cpu.")]
OwnScale = Annotated[str | None, typer.Option("--scale", help="Default: drawn, or small-cpu if files are named.")]
Scales = Annotated[list[str] | None, typer.Option("--scale", help="Only this scale; can be repeated.")]
Results = Annotated[Path, typer.Option("--results", help="Folder with the results of an edition.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=1_024, help="Number of parallel processes.")]
SeedCount = Annotated[int, typer.Option("--seeds", min=1, max=10_000, help="Number of seeds.")]
FirstSeed = Annotated[int, typer.Option(min=0, max=2**32, help="The first seed.")]
LookCount = Annotated[int | None, typer.Option("--seeds", min=1, max=10_000, help="Number of seeds.")]
LookSeed = Annotated[int | None, typer.Option("--first-seed", min=0, max=2**32, help="The first seed.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda; the best available if not given.")]
LabDevice = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Edition = Annotated[str, typer.Option("--edition", help="1 or 2; the second is judged on fresh seeds alone.")]
OneClaim = Annotated[str, typer.Option("--claim", help="Only this claim, for example C1, with all that it rests on.")]
Table = Annotated[str, typer.Argument(help="Which table, for example reproduction or granularity.")]
Tables = Annotated[list[str] | None, typer.Option("--table", help="Only this table; can be repeated.")]
Tasks = Annotated[list[str] | None, typer.Option(help="For example signs, cifar10 or folder:PATH; can be repeated.")]
Pool = Annotated[str | None, typer.Option(help="For example atlas, tinyimagenet or folder:PATH.")]
Budget = Annotated[int | None, typer.Option(help="Number of queries of the attack.")]
Answers = Annotated[str | None, typer.Option(help="full, top-K, rounded-DIGITS, label or temperature-T.")]
Network = Annotated[str | None, typer.Option(help="Network of the victim and the surrogate.")]
Part = Annotated[str, typer.Option(help="Compare on the test or on the validation part.")]
Output = Annotated[Path | None, typer.Option(help="File to append the rows to; its name ends in .jsonl.")]
Deciding = Annotated[bool, typer.Option("--deciding", help="Only the cells that claims rest on, as for a second look.")]
Plan = Annotated[bool, typer.Option("--plan", help="Only print what is left to compute and how long it will take.")]
Rate = Annotated[int | None, typer.Option("--rate", min=1, help="Training speed to plan with, in images a second.")]
Ray = Annotated[str | None, typer.Option(help="Address of a Ray cluster that runs the cells; local: on this machine.")]
Turn = Annotated[int | None, typer.Option(min=0, help="Which kinds and rows are checked; by the hour if not given.")]
Everything = Annotated[bool, typer.Option("--all", help="Compute a cell of every kind, not only of four.")]
Record = Annotated[bool, typer.Option("--record", help="Add the results to the record that the pages quote.")]
Weights = Annotated[Path | None, typer.Option("--folder", help="Target folder; the library's own if not given.")]
Chapter = Annotated[int, typer.Option(min=1, help="Number of the chapter.")]
Course = Annotated[str, typer.Option(help="Name of the course's folder; its secret seed is drawn on creation.")]


@app.callback(help=SUMMARY)
def main(version: Version = False) -> None:
    """Accept the options that come before the command."""


@app.command()
def run(
    table: Table,
    name: OwnScale = None,
    task: Tasks = None,
    pool: Pool = None,
    data: DataFolder = None,
    budget: Budget = None,
    granularity: Answers = None,
    network: Network = None,
    seeds: SeedCount = 1,
    first_seed: FirstSeed = 0,
    part: Part = "test",
    jobs: Jobs = 1,
    device: Device = None,
    output: Output = None,
    group: Group = None,
    drop_copies: DropCopies = False,
    skip_bad: SkipBad = False,
    ground: Ground = "white",
    most_pixels: MostPixels = 50_000_000,
) -> None:
    """Run a table's cells on drawn images, published data sets or your own folders, and print the results."""
    use(device)
    in_file = any(xl.data.sources.Source.parse(one).in_files for one in filter(None, (*(task or ()), pool)))
    settings = lab.scales.scale(name or ("small-cpu" if in_file else "drawn"))
    folders = xl.data.download.data_folders(data)
    kept = {"group": group, "drop_copies": drop_copies, "skip_bad": skip_bad}
    reading = read_how(
        [*(task or settings.tasks), pool or settings.pool], **kept, ground=ground, most_pixels=most_pixels
    )
    settings = replace(settings, tasks=tuple(task or settings.tasks), pool=pool or settings.pool)
    cells = lab.table_cells(table, settings, seeds=range(first_seed, first_seed + seeds))
    cells = lab.grids.with_options(cells, budget=budget, granularity=granularity, network=network)
    check_choice("part", part, ("test", "validation"))
    if output:  # fail before hours of work, not after them
        lab.results.check_writable(output)
    _tell_of_pretraining(cells, settings)
    store = xl.store.default_store()
    loader = xl.data.sources.Loader(image_size=settings.image_size, store=store, folders=folders, reading=reading)
    sources = {(name, role) for cell in cells for name, role in ((cell.task, "task"), (str(cell.pool), "pool"))}
    keys = {name: _keyed_folder(name, role, folders, loader) for name, role in sorted(sources)}
    cells = [replace(cell, task=keys[cell.task], pool=keys[str(cell.pool)]) for cell in cells]
    if budget is None:
        cells = within_pool(cells, loader)
    options = {"store": store, "folders": folders, "reading": reading, "jobs": jobs, "device": device, "part": part}
    print_rows(lab.run_table(cells, output, **options))


def _tell_of_pretraining(cells: list["Cell"], settings: "Scale") -> None:
    """Print what both networks start from where that is trained on a pool in a folder.

    Raises:
        InputError: The pool has fewer than two class folders.
    """
    used = [cell for cell in cells if {cell.victim_weights, cell.surrogate_weights} != {"none"}]
    for folder in sorted({cell.pool.folder for cell in used if cell.pool.folder}):
        if settings.shipped or settings.imagenet:
            continue
        remedy = "extractlib attack starts both networks from the weights that ship, and needs no classes in a pool"
        if len(xl.data.layouts.folder(folder).classes) < 2:
            raise InputError(
                f"--pool {xl.data.sources.FOLDER}{folder} has fewer than two class folders, but scale"
                f" {settings.name!r} pre-trains on its labels: give class folders; {remedy}"
            )
        print(
            f"extractbook: at scale {settings.name!r}, both networks start from weights trained on images of {folder}"
            f" alone, and are weak if these are few; {remedy}",
            file=sys.stderr,
        )


def _keyed_folder(name: str, role: str, folders: dict[str, Path], loader: "Loader") -> str:
    """Return `name`, or for ``"folder:PATH"`` ``"folder:LAST PART@DIGEST"``, and enter its path in `folders`.

    The digest is that of the files' contents. So the rows of two machines agree, no row reveals where its images were,
    and different images have a different name.
    """
    folder = xl.data.sources.Source.parse(name).folder
    if folder is None:
        return name
    path = folder.resolve()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the warning is shown when the images are used
        contents = replace(loader, folders={name: path}).files(name, role).contents
    last = os.fsencode(path.name).decode(errors="replace")  # a row is UTF-8
    key = f"{xl.data.sources.FOLDER}{last}@{contents[:8]}"
    folders[key] = path
    return key


@app.command()
def results(
    name: ScaleName = "drawn",
    seeds: LookCount = None,
    first_seed: LookSeed = None,
    deciding: Deciding = False,
    part: Part = "test",
    jobs: Jobs = 2,
    folder: Results = EDITION,
    table: Tables = None,
    plan: Plan = False,
    rate: Rate = None,
    device: LabDevice = "cpu",
    ray: Ray = None,
    data: DataFolder = None,
) -> None:
    """Compute every table of a scale into the committed results, except for rows that are up to date.

    Without --seeds and --first-seed, it takes the seeds by which claims are first judged, or 0 to 4 where none are.
    """
    check_choice("part", part, ("test", "validation"))
    settings = lab.scales.scale(name)
    look = lab.editions.first_look(settings.name)
    first = look[0] if first_seed is None else first_seed
    own, folders, store = None if plan else use(device), xl.data.download.data_folders(data), xl.store.default_store()
    tables = table or lab.grids.tables_for(settings, shown=not deciding)
    chosen = {"seeds": range(first, first + (seeds or len(look))), "shown": not deciding}
    cells = {one: lab.table_cells(one, settings, **chosen) for one in tables}
    paths = {one: folder / settings.name / f"{one}.jsonl" for one in cells}
    left = {one: (cells[one], lab.schedule.missing(cells[one], path)) for one, path in paths.items()}
    print(plan_of(left, settings, jobs=jobs, rate=rate), flush=True)
    if plan:
        return
    options = {"store": store, "folders": folders, "jobs": jobs, "device": own, "part": part, "ray": ray}
    for one, its in cells.items() if ray else in_turn(cells):  # only many cells at a time keep a cluster busy
        rows = lab.run_table(its, paths[one], **options)
        print(f"\n{one}: {paths[one]}")
        print_rows(rows)


def within_pool(cells: list["Cell"], loader: "Loader") -> list["Cell"]:
    """Return the cells, each once, with budgets lowered to what a pool in a folder holds; print it if any were."""
    pools = {(cell.pool, cell.seed) for cell in cells if cell.pool.folder is not None}
    own = {pool: len(loader.queries(pool, seed=seed)) for pool, seed in sorted(pools, key=str)}
    above = sorted({cell.budget for cell in cells if cell.budget > own.get(cell.pool, cell.budget)})
    if above:
        asked, held = " and ".join(f"{budget:,}" for budget in above), " and ".join(f"{n:,}" for n in own.values())
        print(
            f"extractbook: the table needs {asked} queries, the pool has {held} images for them beside those for"
            " pre-training, detectors and tests: using them all",
            file=sys.stderr,
        )
    fitting = [replace(cell, budget=min(cell.budget, own.get(cell.pool, cell.budget))) for cell in cells]
    return list(dict.fromkeys(fitting))


def in_turn(tables: Mapping[str, list["Cell"]]) -> Iterator[tuple[str, list["Cell"]]]:
    """Yield the tables' cells in the order in which they run: seed by seed, and within a seed, cheapest table first."""
    for seed in sorted({cell.seed for cells in tables.values() for cell in cells}):
        groups = {table: [cell for cell in cells if cell.seed == seed] for table, cells in tables.items()}
        yield from sorted(
            ((table, cells) for table, cells in groups.items() if cells),
            key=lambda group: sum(map(lab.grids.expected_seconds, group[1])),
        )


@app.command()
def verify(
    chosen: Scales = None,
    folder: Results = EDITION,
    jobs: Jobs = 2,
    data: DataFolder = None,
    turn: Turn = None,
    everything: Everything = False,
    keep: Record = False,
) -> None:
    """Recompute a committed cell of each of up to four kinds, in rotation; status 1 if one is outside its tolerance."""
    turn = int(time.time() // 3600) if turn is None else turn
    names = chosen or sorted(path.name for path in folder.glob("*") if path.is_dir())
    rows = [row for name in names for row in lab.read_all(folder / lab.scales.scale(name).name)]
    if not rows:
        raise InputError(f"{folder} holds no results: make them with extractbook results")
    stale = sum(not lab.is_current(row) for row in rows)
    images = {"store": xl.store.default_store(), "folders": xl.data.download.data_folders(data)}
    total, rows = len(rows), lab.verify.at_hand(rows, **images)
    missing = f", {total - len(rows)} of images that are not at hand" if len(rows) < total else ""
    print(f"{total} rows, {stale} stale{missing}; --turn {turn} checks the same cells again", flush=True)
    options = {**images, "jobs": jobs}
    kinds = None if everything else lab.verify.KINDS_A_RUN
    checks = []
    for check in lab.verify.verify(rows, turn=turn, kinds=kinds, **options):
        checks.append(check)
        new, old = (lab.run.headline(row) for row in (check.new, check.old))
        told = f"{new:.4f}, committed {old:.4f}, allowed difference {check.allowed:.4f}"
        verdict = f"{'agrees' if check.agrees else 'DIFFERS'} ({check.new.provenance['seconds']:.0f} s)"
        print(f"{lab.run.name_of(check.old.cell)}: {told}: {verdict}", flush=True)
    if keep:
        path = folder / lab.verify.RECORD
        lab.verify.record(path, checks)
        print(f"{path}: {len(lab.verify.recorded(path))} entries")
    if not all(check.agrees for check in checks):
        raise typer.Exit(1)


@app.command()
def weights(name: ScaleName = "drawn", folder: Weights = None, device: Device = None, data: DataFolder = None) -> None:
    """Pre-train a scale's backbones: shipped ones again, with the victims; others once, into the cache."""
    settings, store = lab.scales.scale(name), xl.store.default_store()
    shipped = settings.shipped
    folder = folder or xl.models.networks.WEIGHTS
    folder = folder if shipped else folder / settings.name
    own = use(device or ("cpu" if shipped else None))
    sizes, folders = {**settings.task_sizes, **settings.pool_sizes}, xl.data.download.data_folders(data)
    loader = xl.data.sources.Loader(sizes=sizes, image_size=settings.image_size, store=store, folders=folders)
    for network in (settings.network, settings.other_network):
        for initial in xl.models.networks.INITIAL if shipped else ("A",):
            card = lab.backbones.make_weights(settings, folder, loader, network=network, initial=initial, device=own)
            share = f"{card['validation_accuracy']:.1%} accuracy on {card['classes']} classes"
            name_of = xl.models.networks.backbone_name(network, initial)
            print(f"{folder / name_of}.json: {share}", flush=True)
    for task in settings.tasks if shipped else ():
        cell = lab.Cell(scale=settings.name, task=task, pool=settings.pool, victim=settings.network, seed=0)
        setup = lab.Setup(cell, store=store, device=own, progress=True)
        card = lab.setups.ship_victim(setup, folder / "victims")
        print(f"{folder / 'victims' / task}.json: {card['test_accuracy']:.1%} accuracy", flush=True)


@app.command()
def ledger(name: ScaleName = "drawn", edition: Edition = "2", claim: OneClaim = "", folder: Results = EDITION) -> None:
    """Print the paper's claims, and our own, with our verdicts; for one claim, print all that it rests on."""
    settings = lab.scales.scale(name)
    if check_choice("edition", edition, ("1", "2")) == "1":
        for entry in lab.edition_1.verdicts(lab.first_edition(settings.name)):
            print(f"{entry.claim.id:4} {entry.verdict:15} {entry.claim.statement}")
        return
    known = {one.id: one for one in lab.claims.claims()}
    if claim:
        check_choice("claim", claim, known)
    found = lab.ledger.ledger(name, only=claim, folder=folder)
    for one in (known[claim],) if claim else known.values():
        entries = found.of(one.id)
        tasks = ", ".join(f"{entry.task} {entry.verdict} ({len(entry.seeds)})" for entry in entries)
        print(f"{one.id:4} {found.word(one):15} {one.statement}" + ("" if claim else f": {tasks}"))
        for entry in entries if claim else ():
            print(f"{entry.task}: {entry.verdict}. {entry.reason}")
            print(*(f"  {bound}" for bound in (*entry.preconditions, *entry.bounds, *entry.shown)), sep="\n")
    if claim:
        print(f"rows: {known[claim].command(name)}")
    for reason, count in found.refused.items():
        print(f"{count:,} rows do not count: {reason}")


@app.command()
def build(scale: ScaleName = "drawn", jobs: Jobs = 2) -> None:
    """Execute the chapters that have changed and render the pages into _build/html."""
    raise typer.Exit(room("pages").build(scale=scale, jobs=jobs))


@app.command()
def pdf() -> None:
    """Print the built pages as one PDF; needs chromium."""
    raise typer.Exit(room("pdf").print_book())


@app.command()
def launch() -> None:
    """Write the notebooks that Colab, Binder and others open, with and without solutions, into book/launch."""
    room("courses").write_launch()


@app.command()
def slides() -> None:
    """Make a slide deck of each built chapter, in _build/html/slides."""
    room("publication").write_slides()


@app.command()
def rows(folder: Annotated[Path, typer.Option(help="Folder to write the tables to.")]) -> None:
    """Write all committed rows as CSV and Parquet, with a data card."""
    room("data").write_rows(folder)


@app.command()
def assignment(chapter: Chapter, course: Course) -> None:
    """Write a chapter's exercises as nbgrader source into the folder of a course, under courses."""
    courses = room("courses")
    courses.write_assignment(courses.course_folder(course), chapter)


def room(name: str) -> ModuleType:
    """Return a module of the build, which makes the book from a clone of its repository.

    Raises:
        InputError: This package is not inside a clone of the book's repository.
    """
    if not (CLONE / "_config.yml").exists():
        raise InputError(f"{CLONE} does not contain the book: run this in a clone of its repository")
    return import_module(f"extractbook.build.{name}")


def use(device: str | None) -> str:
    """Make a device the default for this process and those it starts, and return its name.

    Raises:
        InputError: There is no such device.
    """
    name = device or xl.models.devices.default_device()
    xl.models.devices.resolve(name)
    os.environ["EXTRACTLIB_DEVICE"] = name
    return name


def plan_of(
    tables: Mapping[str, tuple[list["Cell"], list["Cell"]]],
    settings: "Scale",
    *,
    jobs: int = 1,
    rate: int | None = None,
) -> str:
    """Return a table of how many cells each of `tables` has, how many are left, and about how long they will take.

    Args:
        tables: By name, all cells and those that are left.
        settings: The scale.
        jobs: Number of parallel processes.
        rate: How many images a second a process trains on; the scale's rate if None.
    """
    rate = rate or settings.rate
    lines, total = [f"{'table':14} {'cells':>6} {'left':>6} {'hours':>9}"], 0.0
    for name, (cells, left) in tables.items():
        hours = sum(lab.grids.expected_seconds(cell, rate=rate) for cell in left) / 3600
        total += hours
        lines.append(f"{name:14} {len(cells):6} {len(left):6} {hours:9,.2f}")
    size = 3 * settings.image_size**2 * settings.budget / 1e9
    lines.append(f"about {total:,.1f} hours at {rate:,} images a second, {total / jobs:,.1f} with --jobs {jobs}")
    return "\n".join([*lines, f"the {settings.budget:,} images of an attack take {size:.2f} GB"])


def print_rows(rows: list["Row"]) -> None:
    """Print each number's mean ± standard deviation over the seeds, one block for each cell without its seed.

    If some seeds have no value, for example for a client that is never flagged, the count of those that do is printed.
    Recovery has the t interval of its mean, and a victim hardly better than the most frequent label gets a warning.
    """
    groups: dict[Cell, list[Row]] = {}
    for row in rows:
        groups.setdefault(replace(row.cell, seed=0), []).append(row)
    for cell, group in groups.items():
        numbers = lab.results.frame(replace(row, provenance={}) for row in group).drop(columns=list(vars(cell)))
        shown = []
        for name, values in numbers.drop(columns="images", errors="ignore").select_dtypes("number").items():
            spread = f" ± {values.std():.3f}" if values.count() > 1 else ""
            some = f" ({values.count()} of {len(group)})" if values.count() < len(group) else ""
            if name == "recovery" and values.count() > 1:
                spread += " (95% interval {:.3f} to {:.3f})".format(*xl.metrics.t_interval(values.dropna()))
            count = name in COUNTS and values.count() == 1
            told = f"{values.mean():,.0f}" if count else f"{values.mean():.3f}"
            shown.append(f"{name.replace('.', ' ').replace('_', ' ')} {told}{spread}{some}")
        seeds = f"{len(group)} seeds" if len(group) > 1 else f"seed {group[0].cell.seed}"
        n = f", n = {numbers['images'].min():,}" if "images" in numbers else ""
        print(f"{lab.run.name_of(cell).rpartition(', seed')[0]} ({seeds}{n}): {', '.join(shown)}")
        if {"victim_accuracy", "constant_accuracy"} <= {*numbers}:
            above = (numbers["victim_accuracy"] - numbers["constant_accuracy"]).mean()
            if above < NEAR:
                print(
                    f"extractbook: {cell.task}'s victim is {above:+.2f} above the most frequent label alone: recovery"
                    " says little, so give the victim more images, or use a scale that trains longer",
                    file=sys.stderr,
                )
