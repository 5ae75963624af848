"""The store: made once, whole or not at all, and found again by all that made it."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractlib.store import Store, default_store, fingerprint


def write(text: str):
    return lambda folder: (folder / "text").write_text(text)


def test_an_artefact_is_made_once(tmp_path):
    store = Store(tmp_path)
    first = store.get("note", {"a": 1}, write("one"))
    again = store.get("note", {"a": 1}, write("two"))
    other = store.get("note", {"a": 2}, write("three"))
    assert first == again
    assert [(folder / "text").read_text() for folder in (again, other)] == ["one", "three"]
    assert (first / "key.json").read_text() == '{\n "a": 1\n}\n'


def test_a_failure_leaves_nothing_behind(tmp_path):
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        store.get("note", {"a": 1}, fail)
    assert [path for path in tmp_path.rglob("*") if path.name == "half"] == []
    assert (store.get("note", {"a": 1}, write("whole")) / "text").read_text() == "whole"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    store = Store(tmp_path)
    folder = store.get("note", {"a": 1}, write("whole"))
    (tmp_path / "note" / f".{folder.name}-killed").mkdir()
    other = tmp_path / "note" / f".{'0' * 40}-running"
    other.mkdir()
    shutil.rmtree(folder)
    store.get("note", {"a": 1}, write("again"))
    assert sorted(path.name for path in (tmp_path / "note").iterdir() if path.is_dir()) == [other.name, folder.name]


def slow_write(root: Path, log: Path) -> None:
    def make(folder: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        (folder / "text").write_text("made")

    Store(root).get("note", {"a": 1}, make)


def test_processes_that_ask_at_once_make_it_once(tmp_path):
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=slow_write, args=(tmp_path / "root", log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_the_default_folder_can_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path))
    assert default_store() == Store(tmp_path)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=5))
def test_the_order_of_a_key_does_not_count(key):
    assert fingerprint(key) == fingerprint(dict(reversed(key.items())))


def test_fingerprint_tells_keys_apart():
    assert len({fingerprint(key) for key in ({"a": 1}, {"a": "1"}, {"b": 1}, {"a": [1]}, {})}) == 5
