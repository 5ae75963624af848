"""What all tests share: a cache of their own, one thread each, and a way to run a command."""

import os
import sys
import tempfile

import pytest

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
    """Run a command and return its exit status, output and errors."""
    from extractlib.__main__ import main

    monkeypatch.setenv("EXTRACTLIB_DEVICE", "cpu")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["extractlib", *words])
        try:
            status = main()
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return call
