"""What all tests share: a cache of their own, one thread each, and a way to run a command."""

import os
import sys
import tempfile

import pytest

LIBRARY = ("attack", "data")
"""Commands of ``extractlib``; all others are those of ``extractbook``."""

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported; the workers share the cores


def pytest_configure(config):
    """Give the whole run one empty cache, so that no test reads or fills the user's."""
    if hasattr(config, "workerinput"):
        return  # a worker inherits the folder from the process that started it
    folder = tempfile.TemporaryDirectory(prefix="extractlib-tests-", ignore_cleanup_errors=True)
    os.environ["EXTRACTLIB_CACHE"] = folder.name
    config.add_cleanup(folder.cleanup)


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
