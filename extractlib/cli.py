"""The command line: ``extractlib run | results | verify | weights | ledger``."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from extractlib import ledger as claims
from extractlib import networks
from extractlib.api import Granularity
from extractlib.backbones import make_weights
from extractlib.datasets import FOLDER
from extractlib.errors import InputError, one_of, positive
from extractlib.experiments import TABLES, Cell, Row, read_rows, run_table, table_cells
from extractlib.experiments.cells import code_of
from extractlib.experiments.tables import name_of, verify
from extractlib.metrics import summary
from extractlib.profiles import profile
from extractlib.store import default_store

app = typer.Typer(
    help="Model extraction attacks on image classifiers, and defences against them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ProfileName = Annotated[str, typer.Option("--profile", help="Scale of the experiment.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of the committed results.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes at a time.")]
SeedCount = Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")]


@app.command()
def run(
    table: Annotated[str, typer.Argument(help=f"Which table: {', '.join(TABLES)}.")],
    profile_name: Annotated[
        str | None, typer.Option("--profile", help="Scale: drawn, or small-cpu where a folder is named.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="A drawn task or folder:PATH; may be repeated.")] = None,
    pool: Annotated[str | None, typer.Option(help="A drawn pool or folder:PATH.")] = None,
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
    """Run a table's cells, on drawn images or on folders of yours, and print what came out."""
    in_folders = any(name.startswith(FOLDER) for name in (*(task or ()), pool or ""))
    settings = profile(profile_name or ("small-cpu" if in_folders else "drawn"))
    folders = {}
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
) -> None:
    """Compute every table of a profile into the committed results; rows that are up to date are kept."""
    settings = profile(profile_name)
    code = code_of(settings, {settings.network: networks.shipped_backbone(settings.network)})
    for table in TABLES:
        cells = table_cells(table, settings, seeds=range(seeds))
        path = folder / settings.name / f"{table}.json"
        rows = run_table(cells, path, store=default_store(), jobs=jobs, device="cpu", code=code)
        print(f"\n{table}: {path}")
        print_rows(rows)


@app.command("verify")
def verify_command(profile_name: ProfileName = "drawn", folder: Results = Path("book/results")) -> None:
    """Run one committed cell anew, chosen at random, and fail where it leaves its tolerance."""
    path = folder / profile(profile_name).name / "reproduction.json"
    old, new, allowed = verify(path, choice=secrets.randbelow(1_000_000), store=default_store())
    print(
        f"{name_of(old.cell)}: recovery {new.result['recovery']:.4f}, committed {old.result['recovery']:.4f},"
        f" allowed difference {allowed:.4f}: agrees"
    )


@app.command()
def weights(profile_name: ProfileName = "drawn", folder: Annotated[Path, typer.Option()] = networks.WEIGHTS) -> None:
    """Pre-train the backbone that ships with the package again."""
    card = make_weights(profile(profile_name), folder)
    print(
        f"{folder / card['network']}.safetensors: {card['validation_accuracy']:.1%} of {card['classes']} classes right"
    )


@app.command()
def ledger(profile_name: ProfileName = "drawn", folder: Results = Path("book/results")) -> None:
    """Print the paper's claims with our verdicts."""
    rows = read_rows(folder / profile(profile_name).name / "reproduction.json")
    for entry in claims.verdicts(rows):
        print(f"{entry.claim.id:4} {entry.verdict:15} {entry.claim.statement}")


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


def print_rows(rows: list[Row]) -> None:
    """Print mean ± standard deviation over the seeds, one line for each cell without its seed."""
    groups: dict[Cell, list[Row]] = {}
    for row in rows:
        groups.setdefault(replace(row.cell, seed=0), []).append(row)
    print(f"{'task':24} {'queries':>8} {'victim':>14} {'surrogate':>14} {'recovery':>16} {'agreement':>10}  seeds")
    for cell, group in groups.items():
        means = {}
        for name, digits in (("victim_accuracy", 1), ("surrogate_accuracy", 1), ("recovery", 3), ("agreement", 1)):
            scale = 1 if name == "recovery" else 100
            values = [row.result[name] * scale for row in group]
            spread = f" ± {summary(values)[1]:.{digits}f}" if len(values) > 1 else ""
            means[name] = f"{sum(values) / len(values):.{digits}f}{spread}"
        print(
            f"{cell.task:24} {cell.budget:8,} {means['victim_accuracy']:>14} {means['surrogate_accuracy']:>14}"
            f" {means['recovery']:>16} {means['agreement']:>10}  {len(group)}"
        )
