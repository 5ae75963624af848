"""Downloads from a server of the test's own: verified, gone on with, atomic; and what a folder of data sets lacks."""

import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pytest
from layouts import write_cifar10, write_gtsrb, write_openimages, write_tinyimagenet

from extractlib.data import download as sources
from extractlib.data.download import CHECKSUMS, SOURCES, check, fetch, get
from extractlib.data.layouts import LAYOUTS, SUFFIXES
from extractlib.errors import InputError

CONTENT = bytes(range(256)) * 1_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path; can break off, and can be one that knows nothing of ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.breaks = {"/file.bin": CONTENT}, True, []
        self.asked: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        upto = self.server.breaks.pop(0) if self.server.breaks else len(content)
        self.wfile.write(content[first:upto])

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


def test_a_download_is_verified_and_only_then_has_its_name(server, tmp_path):
    fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]


def test_a_transfer_that_broke_off_is_gone_on_with(server, tmp_path):
    server.breaks = [100_000, 150_000]
    fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_one_that_broke_off_for_good_is_kept_for_the_next_call(server, tmp_path):
    server.breaks = [100_000, 100_000]
    with pytest.raises(InputError, match=r"broke off after 100,000 bytes with 156,000 to go: give the command again"):
        fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert [file.name for file in tmp_path.iterdir()] == ["file.bin.part"]
    fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert server.asked[-1] == "bytes=100000-"
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"other bytes")
    fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert server.asked == ["bytes=11-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_what_is_whole_already_is_not_sent_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    wrong = hashlib.md5(b"").hexdigest()
    with pytest.raises(InputError, match=f"has the md5 {MD5}, but published is {wrong}: nothing is kept"):
        fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_and_a_server_that_is_not(server, tmp_path):
    with pytest.raises(InputError, match="/none answers 404 Not Found"):
        fetch(server.url("/none"), tmp_path / "none", md5=None)
    server.server_close()
    with pytest.raises(InputError, match="cannot be reached"):
        fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=None)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_does_not_fit_is_refused_before_it_begins(server, tmp_path, monkeypatch):
    usage = sources.shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="file.bin would take 0.0 GB and"):
        fetch(server.url("/file.bin"), tmp_path / "file.bin", md5=MD5)
    assert list(tmp_path.iterdir()) == []


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
    for archive in SOURCES[name].archives:
        file = urlparse(archive.url).path.rpartition("/")[2]
        server.files[f"/{file}"] = contents[file]
        md5 = archive.md5 and hashlib.md5(contents[file]).hexdigest()
        archives.append(replace(archive, url=server.url(f"/{file}"), md5=md5))
    return {name: replace(SOURCES[name], archives=tuple(archives))}


def test_cifar10_is_downloaded_and_unpacked_once(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    found = get("cifar10", tmp_path / "data", sources=changed)
    assert {half: len(entries) for half, entries in found.halves.items()} == {"train": 20, "test": 4}
    assert sorted(file.name for file in (tmp_path / "data/cifar10").iterdir()) == [".lock", "cifar-10-batches-bin"]
    get("cifar10", tmp_path / "data", sources=changed)
    assert len(server.asked) == 1


def test_gtsrb_is_put_together_from_three_archives(server, tmp_path):
    tree = tmp_path / "true"
    write_gtsrb(tree, tracks=1)
    contents = {
        "GTSRB_Final_Training_Images.zip": packed(tree, "zip", "GTSRB/Final_Training"),
        "GTSRB_Final_Test_Images.zip": packed(tree, "zip", "GTSRB/Final_Test"),
        "GTSRB_Final_Test_GT.zip": packed(tree, "zip", "GT-final_test.csv"),
    }
    found = get("gtsrb", tmp_path / "data", sources=from_server("gtsrb", server, contents))
    assert {half: len(entries) for half, entries in found.halves.items()} == {"train": 6, "test": 2}
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
    with pytest.raises(InputError, match="has the sha256 .*, but the first download had"):
        get("tinyimagenet", data, sources=changed)
    assert sorted(file.name for file in (data / "tinyimagenet").iterdir()) == [".lock", CHECKSUMS]


def test_an_archive_that_lies_there_is_verified_before_it_is_unpacked(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    root = tmp_path / "data/cifar10"
    root.mkdir(parents=True)
    file = root / "cifar-10-binary.tar.gz"
    file.write_bytes(content + b"more")
    found, published = (hashlib.md5(data).hexdigest() for data in (content + b"more", content))
    with pytest.raises(InputError, match=f"{file} has the md5 {found}, but published is {published}: take it away"):
        get("cifar10", tmp_path / "data", sources=changed)
    assert sorted(left.name for left in root.iterdir()) == [".lock", file.name]
    file.write_bytes(content)
    assert len(get("cifar10", tmp_path / "data", sources=changed).halves["test"]) == 4
    assert server.asked == []


def test_a_damaged_data_set_says_what_to_take_away(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    changed = from_server("cifar10", server, {"cifar-10-binary.tar.gz": content})
    data = tmp_path / "data"
    get("cifar10", data, sources=changed)
    (data / "cifar10/cifar-10-batches-bin/test_batch.bin").unlink()
    with pytest.raises(InputError, match=f"test_batch.bin is missing.*: take {data}/cifar10 away and give"):
        get("cifar10", data, sources=changed)
    words = check("cifar10", data).words
    assert f"take {data}/cifar10 away and give extractlib data get cifar10 --data {data}" in words


def test_what_a_killed_call_left_is_cleared(server, tmp_path):
    write_cifar10(tmp_path / "true")
    content = packed(tmp_path / "true", "tar", "cifar-10-batches-bin")
    root = tmp_path / "data/cifar10"
    (root / ".unpacking-killed").mkdir(parents=True)
    get("cifar10", tmp_path / "data", sources=from_server("cifar10", server, {"cifar-10-binary.tar.gz": content}))
    assert sorted(left.name for left in root.iterdir()) == [".lock", "cifar-10-batches-bin"]


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
    assert sorted(file.name for file in (tmp_path / "data/cifar10").iterdir()) == [".lock", "cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("name", ["diabetic5", "imagenet", "openimages"])
def test_what_is_to_be_got_by_hand_says_how(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is to be got by hand, into .*https://") as caught:
        get(name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_checksum_is_cited_and_every_set_has_a_source():
    assert list(SOURCES) == list(LAYOUTS)
    for source in SOURCES.values():
        assert bool(source.archives) != bool(source.by_hand)
        for archive in source.archives:
            assert bool(archive.md5) == bool(archive.cited)
            assert archive.md5 is None or len(archive.md5) == 32
    missing = [
        archive.url.rpartition("/")[2] for source in SOURCES.values() for archive in source.archives if not archive.md5
    ]
    assert missing == ["GTSRB_Final_Training_Images.zip", "tiny-imagenet-200.zip"]


# -- what is there -------------------------------------------------------------------


def test_a_complete_data_set_is_one_with_the_published_counts(tmp_path):
    write_cifar10(tmp_path / "cifar10", records=10)
    small = replace(SOURCES["cifar10"], counts={"train": 50, "test": 10}, even={"train": 5, "test": 1})
    state = check("cifar10", tmp_path, sources={"cifar10": small})
    assert (state.state, state.words) == ("complete", "train 50, test 10")


def test_what_is_missing_is_counted_and_named(tmp_path):
    write_cifar10(tmp_path / "cifar10", records=10)
    state = check("cifar10", tmp_path)
    assert state.state == "incomplete"
    assert state.words.startswith(
        "train 50 of 50,000, test 10 of 10,000, class airplane has 5 of 5,000 in train, and 9 more"
    )
    write_gtsrb(tmp_path / "gtsrb")
    (tmp_path / "gtsrb/GTSRB/Final_Test/Images/00001.ppm").unlink()
    words = check("gtsrb", tmp_path).words
    assert "train 60 of 39,209, test 2 of 12,630, classes 2 of 43" in words
    assert "1 files of test are not there, GTSRB/Final_Test/Images/00001.ppm the first" in words
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
    assert "60,000 images" in printed and "got by hand" in printed
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path))
    status, _, errors = command("data", "get", "imagenet")
    assert status == 2 and f"into {tmp_path}/imagenet" in errors
    (tmp_path / "file").write_text("")
    for words, message in {
        ("get", "cifar10", "--data", f"{tmp_path}/file"): f"{tmp_path}/file/cifar10 cannot be made",
        ("check", f"{tmp_path}/none"): f"{tmp_path}/none is no folder",
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
    assert status == 2 and "openimages is not at hand, as" in errors


def test_the_page_on_data_says_what_the_package_knows():
    page = (Path(__file__).parent.parent / "book" / "data.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        counts = ", ".join(f"{half} {count:,}" for half, count in source.counts.items())
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}`")]
        assert source.page in row and counts in row and source.download in row
        for archive in source.archives:
            file = archive.url.rpartition("/")[2]
            [row] = [line for line in page.splitlines() if line.startswith(f"| {file} |")]
            assert row == f"| {file} | {archive.md5 or 'missing'} | {archive.cited + ' ' if archive.cited else ''}|"
    [line] = [line for line in page.splitlines() if line.startswith("In a folder of yours")]
    assert set(re.findall(r"`(\.\w+)`", line)) == SUFFIXES
