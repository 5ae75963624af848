"""``extractlib challenge``: a secret victim, a key for each team and a scoreboard.

Each command imports what it needs itself, so the list of commands appears at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from extractlib.cli_serve import Place, listen, require_extra
from extractlib.errors import InputError, shown

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The challenge's folder.")]


@app.command("new")
def new(
    folder: Folder,
    teams: Annotated[Path, typer.Option(help="CSV file with a column team.")],
    deadline: Annotated[
        str,
        typer.Option(
            help="When copies stop being accepted, in UTC if no zone is given: 2030-12-24, 2030-12-24T18:00+01:00."
        ),
    ],
    title: Annotated[str, typer.Option(help="Title of the scoreboard.")] = "Model extraction challenge",
    budget: Annotated[int, typer.Option(help="Queries per team.")] = 5_000,
    answers: Annotated[str, typer.Option(help="full, top-K, rounded-DIGITS, label or temperature-T.")] = "full",
    submissions: Annotated[int, typer.Option(help="Copies per team that are scored each day.")] = 3,
    classes: Annotated[int, typer.Option(help="Number of the victim's classes.")] = 20,
    database: Place = None,
) -> None:
    """Create a challenge: draw a secret, train the victim and the host's own models, and give each team a key."""
    require_extra()
    from extractlib.api.keys import teams_of
    from extractlib.challenge import host

    plan = host.Plan(
        teams=tuple(teams_of(teams)),
        deadline=_to_come(deadline),
        title=title,
        budget=budget,
        answers=answers,
        submissions=submissions,
        classes=classes,
        database=database or "challenge.db",
    )
    with _unwinding():
        host.make(folder, plan)
    print(f"{folder / host.KEYS} has a key for each of {len(plan.teams)} teams, and {folder / host.TOML} the rules")
    print(f"  extractlib challenge serve {folder}")


@app.command("serve")
def serve(
    folder: Folder,
    host: Annotated[str | None, typer.Option(help="Address to listen on; as in the TOML if not given.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port to listen on; as in the TOML if not given.")
    ] = None,
    database: Place = None,
) -> None:
    """Serve a challenge: the victim to attack, the submission of copies, and the scoreboard."""
    require_extra()
    from extractlib.challenge.app import challenge_app
    from extractlib.challenge.host import read

    settings = read(folder)
    settings.host, settings.port = host or settings.host, port or settings.port
    settings.database = _with_keys(folder, database) if database else settings.database
    served = challenge_app(folder, settings)
    address = f"http://{settings.host}:{settings.port}"
    print(f"{settings.challenge.title}: scoreboard {address}, notebook {address}/starter.ipynb", flush=True)
    listen(served, settings)


def _with_keys(folder: Path, database: str) -> str:
    """Return the database that `new` wrote for the same option: a relative path is one in the challenge's folder.

    Raises:
        InputError: It is a file that does not exist or has no keys, so that no team could get in.
    """
    from extractlib.api.keys import Keys

    if "://" in database:
        return database
    path, remedy = folder / database, "name the --database that the challenge was created with, or none"
    if not path.is_file():
        raise InputError(f"the database {path} does not exist: {remedy}")
    keys = Keys(path)
    known = keys.all()
    keys.close()
    if not known:
        raise InputError(f"the database {path} has no keys: {remedy}")
    return str(path)


@contextmanager
def _unwinding() -> Iterator[None]:
    """Let the signals that end a process unwind it, as Ctrl+C does, so that what holds secrets is removed."""

    def stop(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in ends if signal.getsignal(one) is signal.SIG_DFL}
    try:
        for one in before:  # not one that is ignored, as under nohup
            signal.signal(one, stop)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _to_come(text: str) -> datetime:
    """Return a deadline that is still to come.

    Raises:
        InputError: It is past, or not a time.
    """
    found = _deadline(text)
    if found <= (now := datetime.now(UTC)):
        raise InputError(f"deadline is {shown(text)}, but it is {now:%Y-%m-%dT%H:%MZ} already: name a later one")
    return found


def _deadline(text: str) -> datetime:
    """Return a time; a day without a time stands for its last second."""
    try:
        found = datetime.combine(date.fromisoformat(text), time(23, 59, 59))
    except ValueError:
        found = _moment(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"deadline is {shown(text)}: expected a day or a time, as in 2030-12-24T18:00+01:00") from None
