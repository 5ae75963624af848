"""The command line: ``extractlib run | results | verify | confirm | weights | ledger | data``."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from extractlib import ledger as claims
from extractlib import networks, photographs
from extractlib.api import Granularity
from extractlib.backbones import make_weights
from extractlib.datasets import FOLDER, POOLS, TASKS, in_files
from extractlib.errors import InputError, one_of, positive
from extractlib.experiments import TABLES, Cell, Row, run_table, table_cells
from extractlib.experiments.run import headline
from extractlib.experiments.tables import confirm, each_file, expected_seconds, missing, name_of, read_all, verify
from extractlib.metrics import summary
from extractlib.photographs import sources
from extractlib.profiles import profile
from extractlib.store import default_store

app = typer.Typer(
    help="Model extraction attacks on image classifiers, and defences against them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

data_app = typer.Typer(help="Published data sets: what there is, to get it, to check it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ProfileName = Annotated[str, typer.Option("--profile", help="Scale of the experiment.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of the committed results.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes at a time.")]
TASK_NAMES, POOL_NAMES = ", ".join(TASKS), ", ".join(POOLS)
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the data sets; that of EXTRACTLIB_DATA or the user's own if not given."),
]
SeedCount = Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")]


@app.command()
def run(
    table: Annotated[str, typer.Argument(help=f"Which table: {', '.join(TABLES)}.")],
    profile_name: Annotated[
        str | None, typer.Option("--profile", help="Scale: drawn, or small-cpu where a folder is named.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help=f"{TASK_NAMES} or folder:PATH; may be repeated.")] = None,
    pool: Annotated[str | None, typer.Option(help=f"{POOL_NAMES} or folder:PATH.")] = None,
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
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best at hand if not given.")] = None,
    output: Annotated[Path | None, typer.Option(help="JSON file that the rows are added to.")] = None,
) -> None:
    """Run a table's cells, on drawn images, published data sets or folders of yours, and print what came out."""
    settings = profile(profile_name or ("small-cpu" if any(map(in_files, (*(task or ()), pool or ""))) else "drawn"))
    place = data or sources.default_data()
    folders = {name: place / name for name in (*photographs.TASKS, *photographs.POOLS)}
    named = [named_folder(name, folders) for name in task or settings.tasks]
    settings = replace(settings, tasks=tuple(named), pool=named_folder(pool or settings.pool, folders))
    cells = table_cells(table, settings, seeds=range(first_seed, first_seed + seeds))
    changes = {
        "budget": None if budget is None else positive("budget", budget),
        "granularity": granularity and str(Granularity.parse(granularity)),
        "victim": network and one_of("network", network, networks.NETWORKS),
        "surrogate": network,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    cells = list(dict.fromkeys(replace(cell, **changes) for cell in cells))
    one_of("part", part, ("test", "validation"))
    rows = run_table(cells, output, store=default_store(), folders=folders, jobs=jobs, device=device, part=part)
    print_rows(rows)


@app.command()
def results(
    profile_name: ProfileName = "drawn",
    seeds: SeedCount = 5,
    jobs: Jobs = 2,
    folder: Results = Path("book/results"),
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what is left and how long it will take.")] = False,
) -> None:
    """Compute every table of a profile into the committed results; rows that are up to date are kept."""
    settings = profile(profile_name)
    cells = {name: table_cells(name, settings, seeds=range(seeds)) for name in table or TABLES}
    paths = {name: folder / settings.name / f"{name}.json" for name in cells}
    print_plan({name: (cells[name], missing(cells[name], paths[name])) for name in cells}, jobs)
    for name in {} if plan else cells:
        rows = run_table(cells[name], paths[name], store=default_store(), jobs=jobs, device="cpu", current=True)
        print(f"\n{name}: {paths[name]}")
        print_rows(rows)


@app.command("verify")
def verify_command(profile_name: ProfileName = "drawn", folder: Results = Path("book/results"), jobs: Jobs = 2) -> None:
    """Run one committed cell of each table anew, chosen at random, and fail where one leaves its tolerance."""
    for old, new, allowed in each_results(verify, profile_name, folder, jobs):
        print(
            f"{name_of(old.cell)}: {headline(new):.4f}, committed {headline(old):.4f},"
            f" allowed difference {allowed:.4f}: agrees ({new.provenance['seconds']:.0f} s)",
            flush=True,
        )


@app.command("confirm")
def confirm_command(
    profile_name: ProfileName = "drawn", folder: Results = Path("book/results"), jobs: Jobs = 2
) -> None:
    """Let rows stand whose code has changed where a sample of them, run anew, is equal bit for bit."""
    for checked in each_results(confirm, profile_name, folder, jobs):
        for old, new, equal in checked:
            verdict = "equal" if equal else f"differs, {headline(new):.4f} and not {headline(old):.4f}: make results"
            print(f"{name_of(old.cell)}: {verdict}", flush=True)


def each_results(check: Callable[..., Any], profile_name: str, folder: Path, jobs: int) -> Iterator[Any]:
    """Yield what a check returns of each results file of a profile, which sample it takes being left to chance."""
    paths = sorted((folder / profile(profile_name).name).glob("*.json"))
    if not paths:
        raise InputError(f"{folder / profile_name} holds no results: make them with extractlib results")
    choices = [secrets.randbelow(1_000_000) for _ in paths]
    return each_file(check, paths, choices=choices, store=default_store(), jobs=jobs)


@app.command()
def weights(profile_name: ProfileName = "drawn", folder: Annotated[Path, typer.Option()] = networks.WEIGHTS) -> None:
    """Pre-train the backbones that ship with the package again."""
    settings = profile(profile_name)
    for network in (settings.network, settings.other_network):
        card = make_weights(settings, folder, network=network)
        print(f"{folder / network}.safetensors: {card['validation_accuracy']:.1%} of {card['classes']} classes right")


@app.command()
def ledger(profile_name: ProfileName = "drawn", folder: Results = Path("book/results")) -> None:
    """Print the paper's claims, and ours beyond it, with our verdicts."""
    rows = read_all(folder / profile(profile_name).name)
    for entry in claims.verdicts(rows):
        print(f"{entry.claim.id:4} {entry.verdict:15} {entry.claim.statement}")


@data_app.command("list")
def list_command() -> None:
    """List the data sets: what they are for, how many images they have, how much is downloaded, from where."""
    for name, source in sources.SOURCES.items():
        kind = "task" if name in photographs.TASKS else "pool"
        how = "downloaded" if source.archives else "got by hand"
        images = sum(source.counts.values())
        print(f"{name:13} {kind}  {images:9,} images, {source.download:>11}, {how:11}  {source.page}")


@data_app.command("get")
def get_command(
    name: Annotated[str, typer.Argument(help="Which one; extractlib data list names them.")], data: DataFolder = None
) -> None:
    """Download a data set, verify its checksum and unpack it; what broke off is gone on with."""
    place = data or sources.default_data()
    sources.get(name, place)
    print_state(sources.check(name, place))


@data_app.command("check")
def check_command(data: Annotated[Path | None, typer.Argument(help="Folder of the data sets.")] = None) -> None:
    """Say of each data set what a folder holds, what is missing and how to get it; status 1 if one is incomplete."""
    if data and not data.is_dir():
        raise InputError(f"{data} is no folder: name the one that holds a folder for each data set")
    states = [sources.check(name, data or sources.default_data()) for name in sources.SOURCES]
    for state in states:
        print_state(state)
    if any(state.state == "incomplete" for state in states):
        raise typer.Exit(1)


def print_state(state: sources.State) -> None:
    """Print a line on a data set."""
    print(f"{state.name:13} {state.state:11} {state.words}")


def named_folder(name: str, folders: dict[str, Path]) -> str:
    """Return `name`; of ``"folder:PATH"`` only ``"folder:LAST PART"``, and enter its path in `folders`.

    So the rows of two machines agree, and none tells where its images lay.
    """
    if not name.startswith(FOLDER):
        return name
    path = Path(name.removeprefix(FOLDER)).expanduser().resolve()
    short = FOLDER + path.name
    if folders.setdefault(short, path) != path:
        raise InputError(f"{path} and {folders[short]} have the same name: rename one of them")
    return short


def print_plan(tables: Mapping[str, tuple[list[Cell], list[Cell]]], jobs: int) -> None:
    """Print for each table its cells, how many are left, and about how many seconds of one core they will take."""
    print(f"{'table':14} {'cells':>6} {'left':>6} {'seconds':>9}")
    total = 0.0
    for name, (cells, left) in tables.items():
        seconds = sum(map(expected_seconds, left))
        total += seconds
        print(f"{name:14} {len(cells):6} {len(left):6} {seconds:9,.0f}")
    print(f"about {total / 3600:.1f} hours of one core, {total / 3600 / jobs:.1f} with --jobs {jobs}", flush=True)


def print_rows(rows: list[Row]) -> None:
    """Print mean ± standard deviation over the seeds of each number, one block for each cell without its seed."""
    groups: dict[Cell, list[Row]] = {}
    for row in rows:
        groups.setdefault(replace(row.cell, seed=0), []).append(row)
    for cell, group in groups.items():
        shown = []
        for name in numbers(group[0].result):
            values = [numbers(row.result)[name] for row in group]
            spread = f" ± {summary(values)[1]:.3f}" if len(values) > 1 else ""
            shown.append(f"{name} {sum(values) / len(values):.3f}{spread}")
        seeds = f"{len(group)} seeds" if len(group) > 1 else f"seed {group[0].cell.seed}"
        print(f"{name_of(cell).rpartition(', seed')[0]} ({seeds}): {', '.join(shown)}")


def numbers(result: Mapping, *, within: str = "") -> dict[str, float]:
    """Return the numbers of a result by their names in words, those of nested mappings too; lists are passed over."""
    found: dict[str, float] = {}
    for name, value in result.items():
        words = f"{within} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            found |= numbers(value, within=words)
        elif isinstance(value, int | float):
            found[words] = value
    return found
