"""The command line of the library: ``extractlib attack | data | serve | keys | challenge``.

Each command imports what it needs itself, so the list of commands appears at once.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import extractlib
from extractlib import cli_challenge, cli_serve
from extractlib.errors import InputError, check_choice, check_output

if TYPE_CHECKING:
    from extractlib.api.granularity import Granularity
    from extractlib.attacks import Knockoff
    from extractlib.data import download
    from extractlib.data.images import ImageSet
    from extractlib.data.pixels import Reading
    from extractlib.data.sources import Source
    from extractlib.evaluation import Evaluation
    from extractlib.models.classifier import Victim

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True)
app.add_typer(data_app, name="data", help="Published data sets: list, get and check them, and see how they are split.")
app.add_typer(cli_serve.keys_app, name="keys", help="Who may query a server: add, revoke, rotate and list keys.")
app.add_typer(cli_challenge.app, name="challenge", help="A class challenge: create and serve it, with a scoreboard.")
app.command()(cli_serve.serve)

DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the data sets; EXTRACTLIB_DATA or the user's data folder if not given."),
]


Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="Which images of a task stay together: a pattern found in their paths, or a .csv of path and group.",
    ),
]
DropCopies = Annotated[
    bool, typer.Option("--drop-copies", help="Leave out test images that are copies of training images.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be read, and say how many.")]
Ground = Annotated[str, typer.Option(help="Color behind transparent images: white, black or #RRGGBB.")]
MostPixels = Annotated[int, typer.Option(min=1, help="Most pixels of an image; each takes 12 bytes of memory.")]


def print_version(wanted: bool) -> None:
    """Print the version and exit, if it is requested."""
    if wanted:
        print(extractlib.__version__)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version.")]

LABELED = "--reward needs them, so give labeled images, in a folder for each class"
"""What is said of a pool without labels."""

NEAR = 0.1
"""A warning is printed if the victim's accuracy is less than this above that of the most frequent label."""


@app.callback()
def main(version: Version = False) -> None:
    """Model extraction attacks on image classifiers, and defenses against them."""


@app.command()
def attack(
    task: Annotated[str, typer.Option(help="Task whose model is attacked: signs, or folder:PATH with labeled images.")],
    pool: Annotated[
        str,
        typer.Option(help="The attacker's images: atlas, or folder:PATH (41% of its images can be queries)."),
    ] = "atlas",
    victim: Annotated[
        Path | None, typer.Option(help="The victim's weights (.safetensors); shipped or trained if not given.")
    ] = None,
    network: Annotated[str, typer.Option(help="The victim's architecture.")] = "resnet",
    answers: Annotated[str, typer.Option(help="full, top-K, rounded-DIGITS, label or temperature-T.")] = "full",
    budget: Annotated[
        int | None, typer.Option(help="Queries; by default as many as the pool holds, at most 10,000.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="Choose adaptively, by certainty, diversity, loss or all.")] = None,
    surrogate: Annotated[str, typer.Option(help="The copy's architecture.")] = "resnet",
    scratch: Annotated[bool, typer.Option("--scratch", help="Train without the shipped weights.")] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32, help="Seed for images, queries, copy, and the victim if it is trained.")
    ] = 0,
    size: Annotated[int, typer.Option(min=8, max=4_096, help="Height and width of images in files, in pixels.")] = 32,
    group: Group = None,
    drop_copies: DropCopies = False,
    skip_bad: SkipBad = False,
    ground: Ground = "white",
    most_pixels: MostPixels = 50_000_000,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best available if not given.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the copy's weights here (.safetensors).")] = None,
) -> None:
    """Steal a model: query it with the pool's images, train a copy on its answers, and compare both on test images."""
    import extractlib as xl
    from extractlib.attacks import AdaptiveKnockoff, Knockoff
    from extractlib.data.sources import Source
    from extractlib.models import devices
    from extractlib.store import default_store

    place = str(devices.resolve(device or devices.default_device()))
    how = {"backbone": None if scratch else "shipped", "device": place}
    reading = read_how(
        [task, pool], group=group, drop_copies=drop_copies, skip_bad=skip_bad, ground=ground, most_pixels=most_pixels
    )
    if save is not None:
        check_output(save)
    # Refuse whatever can be refused before images are decoded and a victim is trained.
    granularity = xl.api.Granularity.parse(answers)
    for one in (network, surrogate):
        check_choice("network", one, xl.models.networks.NETWORKS)
    if not scratch:
        for one in {surrogate, *([] if victim else [network])}:
            xl.models.networks.backbone_of(one, "shipped")
    chosen = {"budget": 1 if budget is None else budget, "seed": seed}
    strategy = Knockoff(**chosen) if reward is None else AdaptiveKnockoff(reward=reward, **chosen)
    task_source, pool_source = Source.parse(task), Source.parse(pool)
    if task_source.in_files and (task_source.folder or task) == (pool_source.folder or pool):
        raise InputError(
            f"task and pool are both {task}: the queries would be the victim's own images, so name a different pool"
        )
    if reward is not None:
        _check_reward(reward, pool_source, granularity)
    images: dict[str, Any] = {"seed": seed, "store": default_store(), "image_size": size}
    of_task, of_pool = ({"reading": reading} if one.in_files else {} for one in (task_source, pool_source))
    parts = xl.load(task_source, role="task", **images, **of_task)
    queries = xl.load(pool_source, role="pool", labeled=reward is not None, **images, **of_pool)["queries"]
    if reward is not None:
        queries.known_labels(LABELED)  # of images that are not in files, it shows only now
    if budget is None:
        strategy = replace(strategy, budget=min(10_000, len(queries)))
    _check_fits(strategy, queries, parts["test"], granularity)
    if victim is not None:
        model = _victim_of(victim, network, parts["test"].classes)
    elif task_source.in_files or scratch or network != "resnet":
        model = xl.Victim.train(parts["victim"], network=network, seed=seed, store=images["store"], **how)
    else:
        model = xl.load_victim(task)
    api = xl.PredictionAPI(model.to(place), answers=granularity, budget=strategy.budget)
    copy = strategy(api, queries, surrogate=surrogate, **how)
    if save is not None:
        copy.save(save)
    _print_outcome(strategy.budget, xl.evaluate(model, copy, parts["test"]))


def _victim_of(path: Path, network: str, classes: Sequence[str]) -> "Victim":
    """Return the victim in a file, which may name the task's classes in another order."""
    from extractlib.models.classifier import OtherOrder, Victim

    try:
        return Victim.load(path, network=network, classes=classes)
    except OtherOrder:
        return Victim.load(path, network=network)


def _check_reward(reward: str, pool: "Source", granularity: "Granularity") -> None:
    """Refuse a reward that the answers or the pool's files cannot give, before an image is decoded.

    Raises:
        InputError: It is the same for all answers, or the files have no labels.
    """
    from extractlib.api.granularity import Label
    from extractlib.data.sets import data_folders
    from extractlib.data.sources import Loader

    if reward == "certainty" and isinstance(granularity, Label):
        raise InputError("--reward certainty is 1 for every label: use another reward with --answers label")
    if pool.in_files and not pool.is_task:
        folders = data_folders() if pool.folder is None else {pool.name: pool.folder}
        if not Loader(folders=folders).listing(pool.name).classes:
            raise InputError(f"{pool} has no labels: {LABELED}")


def _check_fits(strategy: "Knockoff", queries: "ImageSet", test: "ImageSet", granularity: "Granularity") -> None:
    """Refuse settings that would otherwise fail only after a victim has been trained.

    Raises:
        InputError: The budget exceeds the pool, or an answer would show more classes than there are.
    """
    granularity.record(len(test.classes))
    strategy.indices(len(queries))


def _print_outcome(budget: int, found: "Evaluation") -> None:
    """Print how much was recovered, and the accuracy of always answering the most frequent label."""
    print(f"{budget:,} queries: {found}")
    low, high = found.recovery_interval if found.surrogate_accuracy > 0 else (0.0, 0.0)
    if low < high:  # if both models are right, or wrong, on all n images, there is no spread to estimate
        print(f"recovery on other test images of the task: {low:.2f} to {high:.2f} (95% interval)")
    print(f"always answering the most frequent label: accuracy {found.constant_accuracy:.2f}")
    if found.victim_accuracy < found.constant_accuracy + NEAR:
        print(
            f"extractlib: the victim's accuracy is {found.victim_accuracy:.2f}, little above that: recovery says little"
            " here, so train the victim longer or give it more images",
            file=sys.stderr,
        )


@data_app.command("list")
def list_command() -> None:
    """List the data sets: what they are for, how many images they have, how much is downloaded, and from where."""
    from extractlib.data import download
    from extractlib.data.sets import SETS

    for name, source in download.SOURCES.items():
        how = "downloaded" if source.files else "by hand"
        images = sum(source.counts.values())
        print(f"{name:13} {SETS[name].role}  {images:9,} images, {source.download:>11}, {how:11}  {source.page}")


@data_app.command("get")
def get_command(
    name: Annotated[str, typer.Argument(help="Name of the data set; extractlib data list shows them.")],
    data: DataFolder = None,
    packs: Annotated[Path | None, typer.Option("--from", help="Folder with the archives of its small copies.")] = None,
) -> None:
    """Download a data set, verify its checksum and unpack it; exit status 1 if the result is incomplete."""
    from extractlib.data import download

    place = data or download.default_data()
    if packs is not None:
        download.unpack_packs(name, packs, place)
    else:
        source = download.SOURCES.get(name)
        if source and source.files:
            print(f"{name}: {source.download} from {source.page} ({source.terms})", flush=True)
        download.get(name, place)
    _tell([download.check(name, place)])


@data_app.command("check")
def check_command(data: Annotated[Path | None, typer.Argument(help="Folder of the data sets.")] = None) -> None:
    """Print what a folder holds of each data set, what is missing and how to get it; status 1 if one is incomplete."""
    from extractlib.data import download

    if data and not data.is_dir():
        raise InputError(f"{data} is not a folder: name the one that holds a folder for each data set")
    _tell([download.check(name, data or download.default_data()) for name in download.SOURCES])


def _tell(states: list["download.State"]) -> None:
    """Print a line about each data set; exit status 1 if one of them is present but incomplete."""
    for state in states:
        print(f"{state.name:13} {state.state:11} {state.words}")
    if any(state.state == "incomplete" for state in states):
        raise typer.Exit(1)


@data_app.command("parts")
def parts_command(
    name: Annotated[str, typer.Argument(help="A published data set or folder:PATH.")],
    size: Annotated[int, typer.Option(min=1, max=4_096, help="Height and width in pixels.")] = 32,
    seed: Annotated[int, typer.Option(min=0, max=2**32, help="Seed for splitting a task.")] = 0,
    data: DataFolder = None,
    group: Group = None,
    drop_copies: DropCopies = False,
    skip_bad: SkipBad = False,
    ground: Ground = "white",
    most_pixels: MostPixels = 50_000_000,
) -> None:
    """Print which image went to which part, as a CSV file to keep or compare, and how similar the parts are."""
    from extractlib.data import download
    from extractlib.data.sources import Loader, Source, parts_table
    from extractlib.store import default_store

    folders, own = download.data_folders(data), Source.parse(name).folder
    if own is not None:
        folders[name] = own
    options = {"group": group, "drop_copies": drop_copies, "skip_bad": skip_bad}
    reading = read_how([name], **options, ground=ground, most_pixels=most_pixels)
    loader = Loader(image_size=size, store=default_store(), folders=folders, reading=reading)
    table, found = parts_table(loader, name, seed=seed)
    if found is not None:
        print(f"{name}: {found}", file=sys.stderr)
    print(table.to_csv(index=False, lineterminator="\n"), end="")


def read_how(names: list[str], **options: Any) -> "Reading":
    """Return how files are read, according to the options.

    Args:
        names: The sets.
        options: Fields of `Reading`.

    Raises:
        InputError: An option has an invalid value, or one is given although no set consists of files.
    """
    from extractlib.data.pixels import Reading
    from extractlib.data.sources import Source

    reading = Reading(**options)
    if reading != Reading() and not any(Source.parse(name).in_files for name in names):
        given = next(name for name, value in options.items() if value != getattr(Reading(), name))
        raise InputError(f"--{given.replace('_', '-')} is for images in files, but {names[0]} is drawn: leave it out")
    return reading
