"""``extractlib serve`` and ``extractlib keys``: a victim to attack over the network, and the keys of its clients.

Each command imports what it needs itself, so the list of commands appears at once.
"""

import csv
import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from extractlib.errors import InputError, pip_install

if TYPE_CHECKING:
    from fastapi import FastAPI

    from extractlib.api.keys import Keys
    from extractlib.serve import Settings

DATABASE = "extractlib.db"

keys_app = typer.Typer(no_args_is_help=True)

Config = Annotated[Path | None, typer.Option(help="A TOML file with all settings; see the page on extractlib.serve.")]
Place = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="EXTRACTLIB_DATABASE",
        help=f"File of meter and keys, or an SQLAlchemy address; the TOML's or {DATABASE} if not given.",
    ),
]


def serve(
    victim: Annotated[
        list[str] | None, typer.Option(help="Task whose model is served: a drawn one, or folder:PATH.")
    ] = None,
    answers: Annotated[
        str | None, typer.Option(help="full, top-K, rounded-DIGITS, label or temperature-T; full if not given.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Queries per team; no limit if not given.")] = None,
    price: Annotated[float | None, typer.Option(help="Cost of a query; free if not given.")] = None,
    rate: Annotated[int | None, typer.Option(help="Requests per minute and team; no limit if not given.")] = None,
    config: Config = None,
    database: Place = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not given.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port to listen on; 8000 if not given.")] = None,
) -> None:
    """Serve a victim over HTTP to clients with keys, and meter their queries."""
    require_extra()
    from extractlib import serve as serving
    from extractlib.api.server import make_app
    from extractlib.data.sources import FOLDER

    if (config is None) == (not victim):
        raise InputError("name what to serve: either --victim signs or --config FILE.toml")
    said = {"answers": answers, "budget": budget, "price": price, "rate": rate}
    said = {name: value for name, value in said.items() if value is not None}
    if victim:
        task = _only(victim)
        name = task.removeprefix(FOLDER)
        name = name if name.isidentifier() else "victim"
        said.pop("rate", None)  # a setting of the server, not of the victim
        victims = {name: {"task": task} | said}
        settings = serving.Settings.of({"victims": victims, "rate": rate}, where="the command line")
    elif config is not None:
        if said:
            first = next(iter(said))
            raise InputError(f"--{first} is given along with --config: write it into {config}, and leave out --{first}")
        settings = serving.Settings.read(config)
    settings.database, settings.host = database or settings.database, host or settings.host
    settings.port = port or settings.port
    made = serving.victims_of(settings)  # before a database is created
    keys = _open(settings.database)
    app = make_app(serving.apis_of(settings, keys, made), keys, settings.limits)
    _greet(settings, keys)
    listen(app, settings)


def _only(victims: list[str]) -> str:
    """Return the victim that --victim names.

    Raises:
        InputError: It names several.
    """
    from extractlib.data.sources import FOLDER

    first, *others = victims
    if others or ("," in first and not first.startswith(FOLDER)):
        raise InputError(
            f"--victim is {', '.join(victims)}: it names one victim; for several, give --config FILE.toml with a table"
            " [victims.NAME] for each"
        )
    return first


def listen(app: "FastAPI", settings: "Settings") -> None:
    """Answer requests until the process is told to stop, and log each as a line of JSON."""
    import uvicorn

    from extractlib.api.server import JsonLines

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )


def _greet(settings: "Settings", keys: "Keys") -> None:
    """Print what is served, and create the first key."""
    teams = keys.teams()
    key = "…" if teams else keys.add("one")
    if teams:
        print(f"teams with keys: {len(teams)}; extractlib keys add creates more")
    else:
        print(f"the key of team one, shown only once: {key}")
    for name, victim in settings.victims.items():
        path = "" if len(settings.victims) == 1 else f"/{name}"
        budget = victim.budget or 1_000
        address = f"http://{settings.host}:{settings.port}{path}"
        print(f"{name}, answers {victim.answers}: {address}; attack it with")
        print(f"  api = xl.connect({json.dumps(address)}, key={json.dumps(key, ensure_ascii=False)})")
        print(f'  surrogate = xl.attacks.Knockoff(budget={budget})(api, xl.load("atlas").queries)', flush=True)


@keys_app.command("add")
def add(
    team: Annotated[str | None, typer.Argument(help="Team that gets a key.")] = None,
    teams: Annotated[
        Path | None, typer.Option(help="CSV file with a column team: a key for each team without one.")
    ] = None,
    config: Config = None,
    database: Place = None,
) -> None:
    """Print a new key, or a CSV of new keys; keys are shown only once."""
    from extractlib.api.keys import check_team, teams_of

    if (team is None) == (teams is None):
        raise InputError("name who gets a key: either a team or --teams FILE.csv")
    # Names are checked before a database is created.
    named = [] if teams is None else teams_of(teams)
    if team is not None:
        check_team(team)
    keys = _open(_place(config, database))
    if team is not None:
        print(keys.add(team))
    else:
        have = keys.teams()
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(["team", "key"])
        for name in (name for name in named if name not in have):
            rows.writerow([name, keys.add(name)])
            sys.stdout.flush()  # a key that exists has been shown, even if this is cut off


@keys_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="A team, or the number of a key.")],
    config: Config = None,
    database: Place = None,
) -> None:
    """Revoke a key, or all keys of a team; a running server notices within a second."""
    print(f"{_existing(config, database).revoke(name)} revoked")


@keys_app.command("rotate")
def rotate(
    team: Annotated[str, typer.Argument(help="Team that gets a new key.")],
    config: Config = None,
    database: Place = None,
) -> None:
    """Revoke the keys of a team and print a new one; queries used so far still count."""
    print(_existing(config, database).rotate(team))


@keys_app.command("list")
def list_keys(config: Config = None, database: Place = None) -> None:
    """Print a CSV of all keys, without their secrets."""
    keys = _existing(config, database)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["number", "team", "made", "revoked"])
    rows.writerows([key.number, key.team, key.made, key.revoked] for key in keys.all())


def _existing(config: Path | None, database: str | None) -> "Keys":
    """Return the keys in a database that exists already.

    Raises:
        InputError: It does not exist.
    """
    place = _place(config, database)
    if "://" not in place and not Path(place).exists():
        raise InputError(
            f"the database {place} does not exist: name the server's with --database or --config; extractlib keys add"
            " creates one"
        )
    return _open(place)


def _place(config: Path | None, database: str | None) -> str:
    """Return the file or address of the database that the options name."""
    if config is not None and database is None:
        require_extra()
        from extractlib.serve import Settings

        database = Settings.read(config).database
    return database or DATABASE


def _open(database: str) -> "Keys":
    from extractlib.api.keys import Keys

    return Keys(database)


def require_extra() -> None:
    """Refuse to go on if a package that a server needs is not installed.

    Raises:
        InputError: One is missing; the message gives the remedy.
    """
    needed = ("fastapi", "uvicorn", "prometheus_client", "multipart", "jinja2")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise InputError(f"{missing[0]} is not installed: run {pip_install('serve')}")
