"""A PostgreSQL of the tests' own, in a temporary folder and without a port, where its programs are installed."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sql

SERVER = "postgres"
"""The user that Debian's package makes; PostgreSQL refuses to run as root."""


def programs() -> Path | None:
    """Return the folder of initdb and pg_ctl, those of the newest version; None if there is none."""
    found = [Path(place).parent for place in [shutil.which("pg_ctl")] if place]
    found += Path("/usr/lib/postgresql").glob("*/bin")
    whole = [folder for folder in found if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file()]
    return max(whole, key=lambda folder: [int(number) for number in re.findall("[0-9]+", str(folder))], default=None)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a cluster whose files lie in a folder, and give the address of its server, without a database."""
    as_user = {"user": SERVER, "group": SERVER, "extra_groups": []} if os.geteuid() == 0 else {}
    with TemporaryDirectory(prefix="pg-", dir="/tmp") as place:  # a socket's path must be short
        if as_user:
            shutil.chown(place, SERVER, SERVER)

        def run(program: str, *words: str) -> None:
            command = [str(folder / program), "-D", f"{place}/data", *words]
            subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, **as_user)

        run("initdb", "--username", SERVER, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
        options = f"-c listen_addresses= -c unix_socket_directories={place} -c max_connections=50"
        run("pg_ctl", "-w", "-s", "-l", f"{place}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://{SERVER}@/{{database}}?host={place}"
        finally:
            run("pg_ctl", "-w", "-s", "-m", "immediate", "stop")


def new_database(address: str) -> str:
    """Return the address of a new, empty database."""
    name = f"meter_{uuid.uuid4().hex}"
    execute(address.format(database="postgres"), f"CREATE DATABASE {name}")
    return address.format(database=name)


def engine(place: Path | str) -> sql.Engine:
    """Return what reads a meter's file or address without the meter."""
    address = place if isinstance(place, str) else sql.URL.create("sqlite", database=str(place))
    return sql.create_engine(address, poolclass=sql.NullPool)


def execute(place: Path | str, statement: str, **values: object) -> None:
    """Carry out one statement, past the meter."""
    with engine(place).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sql.text(statement), values)


def charges(place: Path | str) -> tuple[int, int | None]:
    """Return requests and queries as a database has them, read without the meter."""
    with engine(place).connect() as connection:
        requests, queries = connection.execute(sql.text("SELECT count(*), sum(queries) FROM requests")).one()
        held = connection.execute(sql.text("SELECT sum(queries) FROM accounts")).scalar()
    assert held == queries or (not held and not queries)
    return requests, None if queries is None else int(queries)
