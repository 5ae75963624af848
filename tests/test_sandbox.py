"""Models that nobody trusts: what they try fails with a reason, and the server goes on."""

import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import hostile
import pytest
import torch

from extractlib.challenge import sandbox
from extractlib.challenge.sandbox import NoSandbox, OutOfTime, Sandbox
from extractlib.errors import InputError

if not hostile.SANDBOX:
    pytest.skip("there is no bubblewrap", allow_module_level=True)


def images(count: int = 300, *, first: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randint(0, 256, (count, *hostile.SHAPE), dtype=torch.uint8, generator=generator)
    if first is not None:
        made[0, 0, 0, 0] = first
    return made


def expected(given: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return (given.flatten(1).double() * scale @ torch.from_numpy(hostile.WEIGHTS).double()).argmax(1)


def test_the_sandbox_is_tight():
    Sandbox().check()


@pytest.mark.parametrize(
    ("model", "scale"),
    [
        (hostile.good(), 1.0),
        (hostile.good(images=hostile.TensorProto.FLOAT), 1 / 255),
        (hostile.good(batch=64), 1.0),  # 300 images are no whole number of batches
        (hostile.good(batch=1000), 1.0),
    ],
    ids=["bytes", "floats", "batches of 64", "batches of 1000"],
)
def test_a_good_model_gives_its_labels(model, scale):
    given = images()
    assert torch.equal(Sandbox().labels(model, given, classes=3), expected(given, scale))


NO_MODEL = "it is not an ONNX model: send the file that torch.onnx.export writes"
OTHER_FILE = "the model keeps weights in another file: export it as one file, with external_data=False"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (b"", NO_MODEL),
        (b"junk", NO_MODEL),
        (hostile.good()[:-20], NO_MODEL),
        (
            hostile.of_a_custom_operator(),
            "onnxruntime does not have one of the model's operators: use only those of ONNX",
        ),
        (hostile.of_another_file("/etc/passwd"), OTHER_FILE),
        (hostile.of_another_file("../../secret"), OTHER_FILE),
        (hostile.of_another_file("weights.bin"), OTHER_FILE),
        (hostile.of_20_gigabytes(), "it needs more memory than allowed: use a smaller model"),
        (hostile.packed(*hostile.linear("y"), outputs=(4,)), ""),
        (
            hostile.good(images=hostile.TensorProto.INT64),
            "the model takes tensor(int64): expected images, tensor(uint8)",
        ),
    ],
    ids=["empty", "junk", "cut", "custom", "passwd", "secret", "file", "20 GB", "outputs", "input"],
)
def test_what_cannot_be_scored_is_told_why(model, words):
    with pytest.raises(InputError) as caught:
        Sandbox().labels(model, images(), classes=3 if words else 4)
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def test_a_model_that_does_not_end_is_ended():
    start = time.monotonic()
    with pytest.raises(OutOfTime, match="^it runs for more than 3 seconds: use a faster model$"):
        Sandbox(seconds=3).labels(hostile.of_an_hour(), images(), classes=3)
    assert time.monotonic() - start < 30


def test_of_a_failure_on_hidden_images_nothing_more_is_told():
    """What onnxruntime says could carry what they show."""
    model = hostile.that_fails_on(77)
    assert len(Sandbox().labels(model, images(first=78), classes=3)) == 300
    with pytest.raises(InputError, match="^it fails on the hidden images but not on noise$"):
        Sandbox().labels(model, images(first=77), classes=3)


# -- a model that has taken over the program that runs it ----------------------


@pytest.fixture
def taken_over(tmp_path):
    """Return what runs code in the place of a model, as a fault of onnxruntime's would let it."""

    def run(code: str, **options) -> str:
        source, place = sandbox.RUNNER.read_text(encoding="utf-8"), "            labels = _labels("
        assert source.count(place) == 1
        indented = "".join(f"            {line}\n" for line in code.splitlines())
        runner = tmp_path / "runner.py"
        runner.write_text(source.replace(place, indented + place), encoding="utf-8")
        with pytest.raises(InputError) as caught:
            Sandbox(runner=runner, **options).labels(b"", images(), classes=3)
        return str(caught.value)

    return run


def test_it_reads_and_writes_no_files(taken_over, tmp_path):
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("secret")
    code = f"""
import glob, pathlib
found = []
for place in [{str(tmp_path)!r}, "/", "/tmp", "/dev", "/usr", "/root", "/home", "/var/tmp", sys.prefix]:
    try:
        pathlib.Path(place, "written").write_text("x")
        found.append("wrote " + place)
    except OSError:
        pass
for place in [{str(tmp_path / "secret")!r}, "/etc/passwd", "/etc/shadow", "/proc/1/environ"]:
    if os.path.exists(place):
        found.append("saw " + place)
raise ValueError("found " + repr(found) + " as " + str(os.getuid() > 0))"""
    assert taken_over(code) == "found [] as True"
    assert not list(tmp_path.rglob("written"))


def test_it_has_no_network(taken_over):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = f"""
reached = []
for family, address in [(socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("192.0.2.1", 80)),
                        (socket.AF_INET6, ("::1", {port}))]:
    with socket.socket(family) as one:
        one.settimeout(1)
        reached.append(one.connect_ex(address) == 0)
raise ValueError(repr(reached))"""
        assert taken_over(code) == "[False, False, False]"


def test_it_starts_no_processes_and_no_threads(taken_over):
    code = """
import subprocess, threading
failed = []
for start in (os.fork, lambda: subprocess.run([sys.executable]), threading.Thread(target=print).start):
    try:
        start()
    except (OSError, RuntimeError) as error:
        failed.append(type(error).__name__)
raise ValueError(repr(failed))"""
    assert taken_over(code) == "['BlockingIOError', 'BlockingIOError', 'RuntimeError']"


def test_it_has_no_more_memory_than_it_may(taken_over):
    code = "held = [bytes(2**20) for _ in range(20_000)]"
    assert taken_over(code, megabytes=1_000) == "it needs more memory than allowed: use a smaller model"


def test_its_limits_cannot_be_raised(taken_over):
    code = "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))"
    assert taken_over(code) == "not allowed to raise maximum limit"


def test_it_cannot_fill_the_disk_by_what_it_says(taken_over):
    code = """
os.write(1, bytes(2**19))
for _ in range(10_000):
    os.write(1, bytes(2**19))"""
    assert taken_over(code) == "it ended the program that ran it"


@pytest.mark.parametrize("said", ['b"+"', 'b"+" + bytes(599)', 'b"+" + b"\\xff" * 600', 'b"?" * 601'])
def test_what_it_says_is_checked(taken_over, said):
    assert taken_over(f"os.write(1, {said})\nos._exit(0)") == "it ended the program that ran it"


def test_it_is_ended_with_all_that_it_holds(taken_over):
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    code = f"import ctypes\nctypes.CDLL(None).prctl(15, b'{mark[-15:]}')\nwhile True:\n    pass"
    assert taken_over(code, seconds=2) == "it runs for more than 2 seconds: use a faster model"
    end = time.monotonic() + 30
    while mark[-15:] in running():
        assert time.monotonic() < end
        time.sleep(0.1)


def running() -> set[str]:
    """Return the names of all processes."""
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            names.add(path.read_text(errors="replace").strip())
    return names


# -- where nothing can be isolated -----------------------------------------------


def test_without_bubblewrap_or_onnxruntime_it_is_told(monkeypatch):
    monkeypatch.setattr(sandbox, "find_spec", lambda name: None)
    with pytest.raises(NoSandbox, match=r"^onnxruntime is not installed: run pip install 'extractlib\[serve\] @ .*'$"):
        Sandbox().check()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        NoSandbox, match="^there is no bubblewrap: install bubblewrap, and allow it to create namespaces"
    ):
        Sandbox().check()


@pytest.mark.parametrize("hole", ["network", "folder"])
def test_a_hole_in_the_sandbox_is_found(monkeypatch, tmp_path, hole):
    whole, words = sandbox._bubblewrap, {"network": "it has a network.", "folder": "it writes to /dev/shm."}
    tmp_path.chmod(0o777)

    def holed(runner):
        command = whole(runner)
        if hole == "network":
            command.remove("--unshare-net")
        else:
            place = command.index("--remount-ro")
            command[place:place] = ["--bind", str(tmp_path), "/dev/shm"]
        return command

    monkeypatch.setattr(sandbox, "_bubblewrap", holed)
    with pytest.raises(NoSandbox, match=rf"^bubblewrap does not isolate here \({words[hole]}\): install bubblewrap"):
        Sandbox().check()
    assert not list(tmp_path.iterdir())


def test_what_bubblewrap_says_is_told(monkeypatch):
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda runner: ["bwrap", "--no-such-option"])
    with pytest.raises(NoSandbox, match="does not isolate here .*no-such-option.*the page for instructors says how"):
        Sandbox().check()


@pytest.mark.parametrize("values", [{"seconds": 0}, {"megabytes": 0}, {"seconds": True}])
def test_limits_are_checked(values):
    with pytest.raises(InputError, match="expected a whole number "):
        Sandbox(**values)
