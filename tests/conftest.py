"""What all tests share: a cache of their own, one thread each, and a way to run a command."""

import os
import sys
import tempfile

import pytest
from hypothesis import settings

LIBRARY = ("attack", "data", "serve", "keys", "challenge")
"""Commands of ``extractlib``; all others are those of ``extractbook``."""

settings.register_profile("unhurried", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("unhurried")
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; the workers share the cores


def pytest_configure(config):
    """Give the whole run one empty cache, so that no test reads or fills the user's."""
    if hasattr(config, "workerinput"):
        return  # a worker inherits the folder from the process that started it
    folder = tempfile.TemporaryDirectory(prefix="extractlib-tests-", ignore_cleanup_errors=True)
    os.environ["EXTRACTLIB_CACHE"] = folder.name
    config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session")
def postgresql():
    """Return what makes an empty database of a PostgreSQL of the run's own, and gives its address."""
    import postgres

    folder = postgres.programs()
    if folder is None:
        if os.environ.get("POSTGRESQL") == "required":
            pytest.fail("PostgreSQL is not installed, and this run must try it")
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster(folder) as address:
        yield lambda: postgres.new_database(address)


@pytest.fixture
def reseeded(monkeypatch):
    """Return the seeds that all GPUs are given from now on; where there is none, torch would ignore them."""
    import torch

    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
    assert seeds == [11]  # so it is through this function that torch reaches them
    seeds.clear()
    return seeds


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command of the library or of the book and return its exit status, output and errors."""
    from extractbook.__main__ import main as book
    from extractlib.__main__ import main as library

    monkeypatch.setenv("EXTRACTLIB_DEVICE", "cpu")

    def call(*words: str) -> tuple[int, str, str]:
        name, main = ("extractlib", library) if words[0] in LIBRARY else ("extractbook", book)
        monkeypatch.setattr(sys, "argv", [name, *words])
        try:
            status = main()
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return call
