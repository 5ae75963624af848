"""Downloads from a server of the test's own: verified and atomic; and what a folder of data sets lacks."""

import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from layouts import write_cifar10, write_gtsrb, write_openimages, write_tinyimagenet

from extractlib.data import download as sources
from extractlib.data.download import CHECKSUMS, SOURCES, Archive, _first_checksums, check, fetch, get
from extractlib.data.files import SUFFIXES
from extractlib.data.layouts import CALTECH_TEST, DIABETIC_TEST, IMAGENET_PARTS
from extractlib.data.sets import SETS
from extractlib.errors import InputError

CONTENT = bytes(range(256)) * 1_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path; can break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.breaks, self.requests = {"/file.bin": CONTENT}, [], []

    def archive(self, path: str, *, md5: str | None = None, holds: str = "file.bin") -> Archive:
        url, size = f"http://127.0.0.1:{self.server_port}{path}", len(self.files.get(path, b""))
        return Archive(url, holds, size, md5, "a page" if md5 else "")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.breaks.pop(0)] if self.server.breaks else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_a_download_is_verified_and_only_then_has_its_name(server, tmp_path):
    file = fetch(server.archive("/file.bin", md5=MD5), tmp_path)
    assert file == tmp_path / ".download/file.bin" and file.read_bytes() == CONTENT
    assert left(tmp_path) == [".download/file.bin"]


def test_a_transfer_that_broke_off_leaves_nothing_and_starts_over(server, tmp_path):
    server.breaks = [100_000]
    with pytest.raises(InputError, match="/file.bin cannot be downloaded .*100000.*: run the command again") as caught:
        fetch(server.archive("/file.bin", md5=MD5), tmp_path)
    assert "\n" not in str(caught.value) and left(tmp_path) == []
    assert fetch(server.archive("/file.bin", md5=MD5), tmp_path).read_bytes() == CONTENT


def test_what_is_there_and_right_is_not_sent_again_and_what_is_wrong_is(server, tmp_path):
    file = tmp_path / ".download/file.bin"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert fetch(server.archive("/file.bin", md5=MD5), tmp_path) == file and server.requests == []
    file.write_bytes(b"other bytes")
    assert fetch(server.archive("/file.bin", md5=MD5), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    wrong = hashlib.md5(b"").hexdigest()
    with pytest.raises(
        InputError,
        match=f"expected md5:{wrong} but got {MD5}.*: the file was not kept; the known checksum is from a page",
    ):
        fetch(server.archive("/file.bin", md5=wrong), tmp_path)
    assert left(tmp_path) == []


def test_a_file_that_is_not_there_and_a_server_that_is_not(server, tmp_path):
    with pytest.raises(InputError, match="/none cannot be downloaded .*404.*see the page on data for its source"):
        fetch(server.archive("/none"), tmp_path)
    server.server_close()
    with pytest.raises(InputError, match="/file.bin cannot be downloaded .*: run the command again"):
        fetch(server.archive("/file.bin"), tmp_path)
    assert left(tmp_path) == []


def test_a_download_that_does_not_fit_is_refused_before_it_begins(server, tmp_path, monkeypatch):
    usage = sources.shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="file.bin would take [0-9.]+ kB, but .* has 1.0 kB free"):
        fetch(server.archive("/file.bin", md5=MD5), tmp_path)
    assert server.requests == [] and left(tmp_path) == []


# -- whole data sets -----------------------------------------------------------------


def packed(tree: Path, kind: str, *names: str) -> bytes:
    """Return an archive of some of a tree's top-level names."""
    content = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(content, "w") as archive:
            for name in names:
                for file in [tree / name] if (tree / name).is_file() else sorted((tree / name).rglob("*")):
                    archive.write(file, file.relative_to(tree))
    else:
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            for name in names:
                archive.add(tree / name, name)
    return content.getvalue()


def from_server(name: str, server: Server, contents: dict[str, bytes]) -> dict:
    """Let a data set's archives come from the test's server, each with the checksum of its content if it has one."""
    archives = []
    for archive in SOURCES[name].files:
        content = server.files[f"/{archive.name}"] = contents[archive.name]
        md5 = archive.md5 and hashlib.md5(content).hexdigest()
        archives.append(server.archive(f"/{archive.name}", md5=md5, holds=archive.holds))
    return {name: replace(SOURCES[name], files=tuple(archives))}


def test_cifar10_is_downloaded_and_unpacked_once(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    found = get("cifar10", tmp_path / "data", sources=changed)
    assert {split: len(table) for split, table in found.splits.items()} == {"train": 20, "test": 4}
    assert sorted(file.name for file in (tmp_path / "data/cifar10").iterdir()) == [".lock", "cifar-10-batches-bin"]
    get("cifar10", tmp_path / "data", sources=changed)
    assert len(server.requests) == 1


def test_gtsrb_is_put_together_from_three_archives(server, tmp_path):
    tree = tmp_path / "true"
    write_gtsrb(tree, tracks=1)
    contents = {
        "GTSRB_Final_Training_Images.zip": packed(tree, "zip", "GTSRB/Final_Training"),
        "GTSRB_Final_Test_Images.zip": packed(tree, "zip", "GTSRB/Final_Test"),
        "GTSRB_Final_Test_GT.zip": packed(tree, "zip", "GT-final_test.csv"),
    }
    found = get("gtsrb", tmp_path / "data", sources=from_server("gtsrb", server, contents))
    assert {split: len(table) for split, table in found.splits.items()} == {"train": 6, "test": 2}
    # Its source publishes no checksum of the training images: the first download's is kept.
    expected = hashlib.sha256(contents["GTSRB_Final_Training_Images.zip"]).hexdigest()
    assert (tmp_path / "data/gtsrb" / CHECKSUMS).read_text() == f"{expected}  GTSRB_Final_Training_Images.zip\n"


def test_without_a_published_checksum_a_later_download_must_equal_the_first(server, tmp_path):
    write_tinyimagenet(tmp_path / "true", count=1)
    content = packed(tmp_path / "true", "zip", "tiny-imagenet-200")
    changed = from_server("tinyimagenet", server, {"tiny-imagenet-200.zip": content})
    data = tmp_path / "data"
    get("tinyimagenet", data, sources=changed)
    (data / "tinyimagenet/tiny-imagenet-200").rename(tmp_path / "moved")
    server.files["/tiny-imagenet-200.zip"] = content + b"more"
    with pytest.raises(
        InputError, match="expected .* but got .*: the file was not kept; the known checksum is from the first download"
    ):
        get("tinyimagenet", data, sources=changed)
    assert left(data / "tinyimagenet") == [".lock", CHECKSUMS]


def test_checksums_are_read_as_sha256sum_writes_them(tmp_path):
    (tmp_path / CHECKSUMS).write_text("aa  first.zip\nbb *second.tar.gz\n\n")
    assert _first_checksums(tmp_path) == {"first.zip": "aa", "second.tar.gz": "bb"}


def test_an_archive_that_lies_there_is_verified_before_it_is_unpacked(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    file = tmp_path / "data/cifar10/.download/cifar-10-binary.tar.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert len(get("cifar10", tmp_path / "data", sources=changed).splits["test"]) == 4
    assert server.requests == [] and not file.parent.exists()


def test_a_damaged_data_set_says_what_to_delete(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    data = tmp_path / "data"
    get("cifar10", data, sources=changed)
    (data / "cifar10/cifar-10-batches-bin/test_batch.bin").unlink()
    with pytest.raises(InputError, match=f"test_batch.bin is missing.*: delete {data}/cifar10 and run"):
        get("cifar10", data, sources=changed)
    words = check("cifar10", data).words
    assert f"delete {data}/cifar10 and run extractlib data get cifar10 --data {data}" in words


def test_what_a_killed_call_left_is_cleared(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    root = tmp_path / "data/cifar10"
    (root / ".download/tmpkilled").mkdir(parents=True)
    (root / ".download/tmpbroken").write_bytes(b"half")
    get("cifar10", tmp_path / "data", sources=from_server("cifar10", server, {"cifar-10-binary.tar.gz": content}))
    assert sorted(file.name for file in root.iterdir()) == [".lock", "cifar-10-batches-bin"]


def test_get_ends_with_status_1_where_something_is_missing(command, tmp_path):
    write_cifar10(tmp_path / "cifar10", records=10)
    status, printed, errors = command("data", "get", "cifar10", "--data", str(tmp_path))
    assert (status, errors) == (1, "") and "incomplete" in printed and "train 50 of 50,000" in printed


@pytest.mark.parametrize("kind", ["another", "broken", "escaping"])
def test_an_archive_that_cannot_be_used_leaves_no_data(server, tmp_path, kind):
    if kind == "broken":
        content, message = b"no archive", "cannot be unpacked"
    else:
        inside = io.BytesIO()
        with tarfile.open(fileobj=inside, mode="w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../outside" if kind == "escaping" else "other"))
        content = inside.getvalue()
        message = "cannot be unpacked" if kind == "escaping" else "does not hold cifar-10-batches-bin"
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    with pytest.raises(InputError, match=message) as caught:
        get("cifar10", tmp_path / "data", sources=changed)
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "data/cifar10") == [".download/cifar-10-binary.tar.gz", ".lock"]


@pytest.mark.parametrize("name", ["diabetic5", "cub2010", "miniplaces", "imagenet", "openimages"])
def test_what_must_be_downloaded_by_hand_says_how(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must be downloaded by hand, into .*https?://") as caught:
        get(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_checksum_is_cited_and_every_set_has_a_source():
    assert list(SOURCES) == [name for name, provider in SETS.items() if provider.layout]
    for source in SOURCES.values():
        assert bool(source.files) != bool(source.by_hand)
        for archive in source.files:
            assert bool(archive.md5) == bool(archive.cited)
            assert archive.md5 is None or len(archive.md5) == 32
        if source.files:
            assert source.download == f"{sum(archive.size for archive in source.files) / 1e9:.1f} GB"
    missing = [archive.name for source in SOURCES.values() for archive in source.files if not archive.md5]
    assert missing == ["GTSRB_Final_Training_Images.zip", "tiny-imagenet-200.zip"]


def test_the_counts_are_those_that_the_layouts_cut():
    assert SOURCES["imagenet"].counts == {part: 1_000 * count for part, count in IMAGENET_PARTS.items()}
    assert SOURCES["caltech256"].counts["test"] == 256 * CALTECH_TEST
    assert SOURCES["diabetic5"].counts["test"] == 5 * DIABETIC_TEST
    assert sum(SOURCES["openimages"].counts.values()) == 125_436


# -- what is there -------------------------------------------------------------------


def test_a_complete_data_set_is_one_with_the_published_counts(tmp_path):
    write_cifar10(tmp_path / "cifar10", records=10)
    small = replace(SOURCES["cifar10"], counts={"train": 50, "test": 10})
    state = check("cifar10", tmp_path, sources={"cifar10": small})
    assert (state.state, state.words) == ("complete", "train 50, test 10")


def test_what_is_missing_is_counted_and_named(tmp_path):
    write_cifar10(tmp_path / "cifar10", records=10)
    state = check("cifar10", tmp_path)
    assert state.state == "incomplete"
    assert state.words.startswith("train 50 of 50,000, test 10 of 10,000; to get it: delete")
    write_gtsrb(tmp_path / "gtsrb")
    (tmp_path / "gtsrb/GTSRB/Final_Test/Images/00001.ppm").unlink()
    words = check("gtsrb", tmp_path).words
    assert "train 60 of 39,209, test 2 of 12,630, classes 2 of 43" in words
    assert "1 files are missing, starting with GTSRB/Final_Test/Images/00001.ppm" in words
    assert "extractlib data get gtsrb" in words


def test_check_names_each_data_set_and_the_logins(command, tmp_path):
    write_openimages(tmp_path / "openimages")
    status, printed, _ = command("data", "check", str(tmp_path))
    assert status == 1
    lines = {line.split()[0]: line for line in printed.splitlines()}
    assert list(lines) == list(SOURCES)
    assert "incomplete  queries 16 of 100,349" in lines["openimages"]
    assert "missing" in lines["diabetic5"] and "log in at Kaggle" in lines["diabetic5"]
    assert "missing" in lines["imagenet"] and "register and log in" in lines["imagenet"]
    assert "extractlib data get cub200" in lines["cub200"]
    (tmp_path / "openimages").rename(tmp_path / "elsewhere")
    assert command("data", "check", str(tmp_path))[0] == 0


def test_list_and_get_from_the_command_line(command, tmp_path, monkeypatch):
    status, printed, _ = command("data", "list")
    assert status == 0
    assert [line.split()[0] for line in printed.splitlines()] == list(SOURCES)
    assert "60,000 images" in printed and "by hand" in printed
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path))
    status, _, errors = command("data", "get", "imagenet")
    assert status == 2 and f"into {tmp_path}/imagenet" in errors
    (tmp_path / "file").write_text("")
    for words, message in {
        ("get", "cifar10", "--data", f"{tmp_path}/file"): f"{tmp_path}/file/cifar10 cannot be written",
        ("check", f"{tmp_path}/none"): f"{tmp_path}/none is not a folder",
    }.items():
        status, _, errors = command("data", *words)
        assert status == 2 and message in errors
    status, _, errors = command("data", "get", "mnist")
    assert status == 2 and "unknown data set 'mnist'" in errors


def test_a_run_on_published_data_sets_ends_in_a_row(command, tmp_path):
    write_gtsrb(tmp_path / "gtsrb", tracks=30)
    write_tinyimagenet(tmp_path / "tinyimagenet", count=60)
    words = ["run", "reproduction", "--scale", "smoke", "--task", "gtsrb", "--pool", "tinyimagenet"]
    options = ["--network", "tiny", "--budget", "20", "--data", str(tmp_path)]
    status, printed, errors = command(*words, *options)
    assert status == 0, errors
    assert printed.startswith("gtsrb, ") and "recovery" in printed
    status, _, errors = command(*words[:-1], "openimages", *options)
    assert status == 2 and "openimages is not available, since" in errors


def test_the_page_on_data_says_what_the_package_knows():
    page = (Path(__file__).parent.parent / "book" / "data.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        counts = ", ".join(f"{half} {count:,}" for half, count in source.counts.items())
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` | [")]
        assert source.page in row and counts in row and source.download in row
        assert f"| `{name}` | {source.terms} |" in page
        for archive in source.files:
            [row] = [line for line in page.splitlines() if line.startswith(f"| {archive.name} |")]
            assert (
                row
                == f"| {archive.name} | {archive.md5 or 'missing'} | {archive.cited + ' ' if archive.cited else ''}|"
            )
    [line] = [line for line in page.splitlines() if line.startswith("In your own folder")]
    assert set(re.findall(r"`(\.\w+)`", line)) == SUFFIXES
