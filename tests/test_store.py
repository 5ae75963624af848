"""The store: made once, whole or not at all, and found again by all that made it."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from extractlib import store as module
from extractlib.data.sets import default_data
from extractlib.errors import DataWarning, InputError
from extractlib.store import MANIFEST, Store, default_store, digest, fingerprint, held


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


def two_files(calls):
    def make(folder: Path) -> None:
        calls.append(1)
        (folder / "text").write_text("whole")
        (folder / "below").mkdir()
        (folder / "below" / "numbers").write_bytes(bytes(range(100)))

    return make


DAMAGE = {
    "emptied": lambda folder: (folder / "text").write_text(""),
    "cut": lambda folder: (folder / "below" / "numbers").write_bytes(bytes(range(99))),
    "a bit": lambda folder: (folder / "below" / "numbers").write_bytes(bytes([1, *range(1, 100)])),
    "missing": lambda folder: (folder / "text").unlink(),
    "more": lambda folder: (folder / "other").write_text("x"),
    "no key": lambda folder: (folder / "key.json").unlink(),
    "no list": lambda folder: (folder / MANIFEST).write_text("{"),
    "empty": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_artefact_is_made_again_and_that_is_told(tmp_path, how):
    store, calls = Store(tmp_path), []
    folder = store.get("note", {"a": 1}, two_files(calls))
    DAMAGE[how](folder)
    with pytest.warns(DataWarning, match=f"{folder} is damaged and will be made again"):
        assert store.get("note", {"a": 1}, two_files(calls)) == folder
    assert len(calls) == 2 and (folder / "text").read_text() == "whole" and not (folder / "other").exists()
    assert store.get("note", {"a": 1}, two_files(calls)) == folder and len(calls) == 2


def test_a_large_file_is_known_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 50)
    store, calls = Store(tmp_path), []
    folder = store.get("note", {}, two_files(calls))
    (folder / "below" / "numbers").write_bytes(bytes(100))
    assert store.get("note", {}, two_files(calls)) == folder and len(calls) == 1
    (folder / "below" / "numbers").write_bytes(bytes(101))
    with pytest.warns(DataWarning, match="damaged"):
        store.get("note", {}, two_files(calls))
    assert len(calls) == 2


def test_an_artefact_of_before_the_lists_is_believed(tmp_path):
    store, calls = Store(tmp_path), []
    folder = store.get("note", {}, two_files(calls))
    (folder / MANIFEST).unlink()
    assert store.get("note", {}, two_files(calls)) == folder and len(calls) == 1


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_the_umask_says_who_may_read_and_share_a_store(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = Store(tmp_path / "store").get("note", {}, two_files([]))
        assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
        assert folder.with_suffix(".lock").stat().st_mode & 0o777 == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def hold(path: Path, seconds: float) -> None:
    with FileLock(path):
        path.with_suffix(".held").touch()
        time.sleep(seconds)


def test_a_lock_that_another_process_holds_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    folder = Store(tmp_path).root / "note" / fingerprint({})
    folder.parent.mkdir()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(folder.with_suffix(".lock"), 2))
    other.start()
    while not folder.with_suffix(".held").exists():
        time.sleep(0.01)
    with pytest.warns(DataWarning, match=f"waiting for another process that makes {folder}: end it if it hangs"):
        Store(tmp_path).get("note", {}, two_files([]))
    other.join()
    assert (folder / "text").read_text() == "whole"


def test_the_users_own_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, found in {"EXTRACTLIB_CACHE": lambda: default_store().root, "EXTRACTLIB_DATA": default_data}.items():
        monkeypatch.setenv(variable, "~/my cache ä")
        assert found() == tmp_path / "my cache ä"
        monkeypatch.setenv(variable, "~nobody-here/x")
        with pytest.raises(InputError, match=f"{variable} is ~nobody-here/x, but there is no such user: name"):
            found()


def test_names_that_are_not_utf8_have_a_digest():
    assert digest("caf\udce9") == digest(b"caf\xe9") != digest("caf\u00e9")


def test_an_artifact_that_another_process_removes_is_made_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    folder = store.get("thing", {"a": 1}, lambda folder: (folder / "x").write_text("1"))
    (folder / "x").write_text("2")
    seen, replace = [], os.replace

    def recorded(first, second):
        seen.append((Path(first).name, Path(second).name[:1]))
        replace(first, second)

    monkeypatch.setattr(os, "replace", recorded)
    with pytest.warns(DataWarning, match="is damaged and will be made again"):
        store.get("thing", {"a": 1}, lambda folder: (folder / "x").write_text("1"))
    assert seen[0] == (folder.name, ".")  # moved away at once, not file by file
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
    monkeypatch.setattr("extractlib.store._manifest", lambda folder: (folder / "gone").stat())
    assert not module._is_intact(folder)


def test_a_lock_is_like_any_other_file_and_leaves_the_umask_alone(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        (tmp_path / "file").touch()
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("another thread could make a file meanwhile"))
        with held(tmp_path / "lock", "waits"):
            pass
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode == (tmp_path / "file").stat().st_mode
