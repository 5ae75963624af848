"""The GPU's benchmarks: they run whole on a processor, and count what they should."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks import chapters, device, device_steps, gpu, graft, mutants
from extractlib.data.layouts import listing
from extractlib.data.sources import Loader, parts_table
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.store import Store


def test_every_figure_is_printed_at_a_small_size(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick"])
    gpu.main()
    printed = capsys.readouterr().out
    for wanted in (
        r"Rate of a matrix product, TFLOP/s +[\d.]+",
        r"Trained on per second, resnet-wide, 48 px, batches of 4 +[\d,]+ \(\d+%\)",
        r"Answered per second, resnet-wide, 48 px +[\d,]+ \(\d+%\)",
        r"Trained on per second, resnet-wide, 32 px, batches of 4 +[\d,]+ \(\d+%\)",
        r"Minutes for 100,000 queries and 100 epochs, batches of 4 +[\d,.]+ +goal <= 30",
    ):
        assert re.search(wanted, printed), wanted


def test_a_batch_that_does_not_fit_is_told_and_the_others_are_measured(monkeypatch, capsys):
    def trained(network, images, recipe, device):
        if recipe.batch_size == 8:
            raise InputError("cuda has too little memory")
        return 1_000.0

    monkeypatch.setattr(gpu, "QUICK", replace(gpu.QUICK, batch_sizes=(4, 8)))
    monkeypatch.setattr(gpu, "trained", trained)
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick"])
    gpu.main()
    *_, last = lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if "not run: cuda has too little memory" in line]
    assert len(refused) == 2 and all("batches of 8" in line for line in refused)
    assert last.startswith("Minutes for 100,000 queries and 100 epochs, batches of 4 ")
    assert sum(line.startswith("Minutes") for line in lines) == 1


def test_the_operations_of_a_network_by_hand():
    """A stem of stride 2 at 8 pixels, one block a stage: two operations for each weight and place, forward."""
    forward = gpu.flops("tiny", 8, training=False)
    stem = 2 * 4 * 4 * 16 * 3 * 9
    same = 2 * (2 * 4 * 4 * 16 * 16 * 9)
    halved = 2 * (2 * 2 * 2 * 16 * 16 * 9) + 2 * 2 * 2 * 16 * 16
    assert forward == stem + same + halved + 2 * 16 * gpu.CLASSES
    # Backwards each layer costs twice as much, but the first has no images to pass a gradient to.
    assert gpu.flops("tiny", 8, training=True) == 3 * forward - stem


def test_an_attack_is_its_queries_and_its_training():
    outcome = gpu.attack(64, trained=7_000, queried=10_000)
    # 100,000 / 10,000 s + 100,000 x 100 / 7,000 s.
    assert outcome.figure == f"{(10 + 1428.57) / 60:.1f}" and outcome.met
    assert not gpu.attack(64, trained=5_000, queried=10_000).met


@pytest.mark.parametrize(("rate", "met"), [(6_999, False), (7_000, True)])
def test_the_goal_is_met_or_not(rate, met):
    outcome = gpu.line("trained", rate, 0.5, goal=True)
    assert (outcome.met, outcome.figure) == (met, f"{rate:,} (50%)")


# -- a machine with a GPU and no network: preparing ------------------------------


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """Two small packs with their checksums; the wheel that is downloaded has 5 bytes, and the working tree 100."""
    folder = tmp_path / "packs"
    folder.mkdir()
    contents = {"one.tar.xz": b"1" * 20, "two.tar.xz": b"2" * 30}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()]
    (folder / "SHA256SUMS").write_text("".join(sums))
    monkeypatch.setattr(device, "PACKS", tuple(contents))
    monkeypatch.setattr(device, "download", lambda names, folder: (folder / "a.whl").write_bytes(b"wheel"))
    monkeypatch.setattr(device, "write_weights", lambda path: path.write_bytes(b"weights"))
    monkeypatch.setattr(device, "tree_size", lambda: 100)
    return folder


def test_the_prepared_folder_holds_packs_wheels_and_commit(packs, tmp_path):
    folder = tmp_path / "build" / "device"
    told = device.prepare(packs, folder=folder)
    assert sorted(file.name for file in folder.rglob("*")) == [
        *("a.whl", "commit", device.WEIGHTS, "one.tar.xz", "two.tar.xz", "wheels")
    ]
    assert (folder / "two.tar.xz").read_bytes() == b"2" * 30
    size = 20 + 30 + 7 + 5 + (folder / "commit").stat().st_size
    assert told.endswith(
        f"packs, weights and wheels {size} bytes, working tree 100, together {size + 100} of {64 * 1024 * 1024:,}"
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda packs: (packs / "two.tar.xz").write_bytes(b"2" * 29), "two.tar.xz has the SHA-256 .* get it again"),
        (lambda packs: (packs / "two.tar.xz").unlink(), "two.tar.xz is missing"),
        (lambda packs: (packs / "SHA256SUMS").write_text(""), "one.tar.xz .* has no line in SHA256SUMS"),
        (lambda packs: (packs / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    ],
)
def test_packs_that_are_not_what_they_should_be_are_refused(spoil, message, packs, tmp_path):
    folder = tmp_path / "device"
    device.prepare(packs, folder=folder)
    spoil(packs)
    with pytest.raises(InputError, match=message):
        device.prepare(packs, folder=folder)
    assert (folder / "two.tar.xz").read_bytes() == b"2" * 30  # what was prepared before is still there
    assert sorted(file.name for file in tmp_path.iterdir()) == ["device", "packs"]


def test_a_folder_that_is_too_large_is_refused(packs, tmp_path, monkeypatch):
    device.prepare(packs, folder=tmp_path / "first")
    size = 20 + 30 + 7 + 5 + (tmp_path / "first" / "commit").stat().st_size + 100
    monkeypatch.setattr(device, "LIMIT", size)
    device.prepare(packs, folder=tmp_path / "fits")
    monkeypatch.setattr(device, "LIMIT", size - 1)
    with pytest.raises(InputError, match=f"too large: .* together {size} of {size - 1}"):
        device.prepare(packs, folder=tmp_path / "too-large")
    assert not (tmp_path / "too-large").exists()


def test_the_script_refuses_a_pack_with_another_checksum(tmp_path):
    for name in device.PACKS:
        (tmp_path / name).write_bytes(b"other")
    (tmp_path / "SHA256SUMS").write_text("".join(f"{'0' * 64}  {name}\n" for name in device.PACKS))
    script = [device.ROOT / "benchmarks" / "device_prepare.sh", tmp_path]
    done = subprocess.run(script, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"SHA256SUMS says {'0' * 64}" in done.stderr and "Traceback" not in done.stderr


def test_code_that_has_changed_since_it_was_prepared_is_marked(tmp_path, monkeypatch):
    (tmp_path / "commit").write_text(f"0123456789ab {device.code_digest()}\n")
    assert device.prepared_commit(tmp_path) == "0123456789ab"
    monkeypatch.setattr(device, "code_digest", lambda: "another")
    assert device.prepared_commit(tmp_path) == "0123456789ab+"
    with pytest.raises(InputError, match="is not prepared"):
        device.prepared_commit(tmp_path / "nowhere")


def test_every_wheel_is_pinned_and_every_step_known():
    assert set(device.WHEELS) <= set(device.pins())


def test_wheels_are_of_the_version_for_the_oldest_python(tmp_path, monkeypatch):
    lock = "a-b==1.0 ; python_full_version < '3.12'\na-b==2.0 ; python_full_version >= '3.12'\nc==3.0\n    # via d==4\n"
    (tmp_path / "requirements.txt").write_text(lock)
    monkeypatch.setattr(device, "ROOT", tmp_path)
    assert device.pins() == {"a_b": "1.0", "c": "3.0"}
    assert {step.name for step in device.STEPS} < set(device_steps.STEPS)
    assert {pack for pack, _ in device_steps.SETS.values()} == {*device.PACKS, *device.LATER}
    assert set().union(*device.NEEDS.values()) == {*device.PACKS, *device.LATER}


def test_a_second_call_brings_what_the_first_had_no_room_for(packs, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "LATER", ("two.tar.xz",))
    device.prepare(packs, names=device.LATER, folder=tmp_path / "device")
    assert not (tmp_path / "device" / "one.tar.xz").exists() and (tmp_path / "device" / "two.tar.xz").exists()
    store = Store(tmp_path / "work" / "images")
    store.get("unpacked", {"pack": "one.tar.xz", "every": 1}, lambda folder: None)
    assert device.unpacked(tmp_path / "work") == {"one.tar.xz"} and device.unpacked(tmp_path / "other") == set()


def test_carried_weights_are_those_of_imagenet_in_half_precision(tmp_path, monkeypatch):
    weights = networks.backbone_state(networks.build("lite0", classes=2, seed=0))
    monkeypatch.setitem(networks.IMAGENET, "lite0", lambda: weights)
    device.write_weights(tmp_path / device.WEIGHTS)
    found = load_file(tmp_path / device.WEIGHTS)
    assert all(torch.equal(found[name], value.half()) for name, value in weights.items()) and len(found) == len(weights)


def test_the_steps_need_no_more_than_the_wheels_and_torch():
    absent = "pooch", "pytorch_ood", "typer", "matplotlib"
    code = f"import sys; sys.modules |= dict.fromkeys({absent}); import benchmarks.device_steps"
    environment = os.environ | {"PYTHONPATH": str(device.ROOT / "book")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=device.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- a machine with a GPU and no network: running ----------------------------------


@pytest.fixture
def record(tmp_path):
    return device.Record(tmp_path / "results.jsonl", device="a GPU", torch="2.11", commit="0123456789ab")


def lines(record):
    return [json.loads(line) for line in record.path.read_text().splitlines()]


def test_a_result_is_one_line_with_all_that_it_was_measured_with(record):
    record.write("rates", "training", 7_123.4567, "images/s", seconds=3.14159, batch_size=64)
    record.write("rates", "querying", None, "images/s", seconds=0, error="too little memory")
    first, second = lines(record)
    assert first == {
        "step": "rates",
        "what": "training",
        "value": 7123.46,
        "unit": "images/s",
        "seconds": 3.14,
        "device": "a GPU",
        "torch": "2.11",
        "commit": "0123456789ab",
        "settings": {"batch_size": 64},
    }
    assert (second["value"], second["settings"]) == (None, {"error": "too little memory"})


def test_a_step_that_no_longer_fits_is_skipped_and_a_failed_one_stops_none(record):
    clock = [0.0]
    asked = []

    def run_one(step, limit):
        asked.append((step.name, limit))
        clock[0] += {"rates": 40, "failing": 25, "last": 10}[step.name]
        return "failed with status 1: see the log" if step.name == "failing" else "done"

    steps = [
        device.Step("rates", least=30, most=50),
        device.Step("failing", least=30, most=500),
        device.Step("long", least=36, most=500),
        device.Step("last", least=35, most=500),
    ]
    assert not device.run_steps(steps, run_one, record=record, seconds=100, now=lambda: clock[0])
    assert asked == [("rates", 50), ("failing", 60), ("last", 35)]
    assert [(line["step"], line["value"], line["seconds"]) for line in lines(record)] == [
        ("rates", "done", 40),
        ("failing", "failed with status 1: see the log", 25),
        ("long", "skipped: 35 s left, at least 36 s wanted", 0),
        ("last", "done", 10),
    ]
    assert device.run_steps(steps[:1], run_one, record=record, seconds=30, now=lambda: clock[0])


def test_all_steps_fit_the_nine_minutes_whatever_the_first_ones_take():
    first, second, third, last = device.STEPS
    assert device.SECONDS == 540
    least = third.least + last.least
    assert first.most + second.most + least <= device.SECONDS - device.RESERVE - 60  # for starting and importing


def test_a_process_is_stopped_at_its_limit_with_what_it_started(tmp_path):
    assert device.run_process(["true"], limit=10) == "done"
    assert device.run_process(["sh", "-c", "exit 3"], limit=10) == "failed with status 3: see the log"
    command = ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/child; wait"]
    assert device.run_process(command, limit=0.5) == "stopped at its limit of 0 s"
    stat = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


# -- a machine with a GPU and no network: what is measured ---------------------------


def pack(path, files):
    """Write a pack whose images are noise."""
    generator = np.random.default_rng(0)
    with tarfile.open(path, "w:xz") as archive:
        for name in files:
            content = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(content, "WEBP", quality=92)
            member = tarfile.TarInfo(name)
            member.size = content.tell()
            content.seek(0)
            archive.addfile(member, content)


SIGNS = [
    *(f"gtsrb/train/{c:05}/{track:05}_{frame:05}.webp" for c in (0, 7) for track in range(10) for frame in (0, 3, 6)),
    *(f"gtsrb/test/{c:05}/{number:05}.webp" for c in (0, 7) for number in range(c, c + 5)),
]


@pytest.fixture
def bench(record, tmp_path):
    packs = tmp_path / "packs"
    packs.mkdir()
    pack(packs / "gtsrb-core.tar.xz", SIGNS)
    names = [f"tinyimagenet64/train/n{c}/n{c}_{number}.webp" for c in range(2) for number in range(40)]
    pack(packs / "tinyimagenet64-sample.tar.xz", names)
    settings = replace(device_steps.TINY.settings, network="tiny")
    save_file(networks.backbone_state(networks.build("tiny", classes=2, seed=1)), packs / device.WEIGHTS)
    scale = replace(device_steps.TINY, settings=settings, every=1)
    return device_steps.Bench(record, packs, tmp_path / "work", scale, "cpu")


def test_traffic_signs_are_unpacked_in_their_published_layout(bench, tmp_path):
    device_steps.unpack(bench.packs / "gtsrb-core.tar.xz", tmp_path / "all")
    found = listing("gtsrb", tmp_path / "all" / "gtsrb")
    assert found.classes == ("00000", "00007")
    assert {split: len(table) for split, table in found.splits.items()} == {"train": 60, "test": 10}
    assert found.splits["test"]["class"].tolist() == ["00000"] * 5 + ["00007"] * 5
    tracks = found.splits["train"]["group"].tolist()
    assert len(set(tracks)) == 20 and tracks[:4] == ["00000/00000"] * 3 + ["00000/00001"]
    device_steps.unpack(bench.packs / "gtsrb-core.tar.xz", tmp_path / "some", every=7)
    some = sorted(file.name for file in (tmp_path / "some").rglob("*.webp"))
    assert some == sorted(name.rpartition("/")[2] for name in SIGNS[::7])


def test_no_track_is_parted(bench, tmp_path):
    device_steps.unpack(bench.packs / "gtsrb-core.tar.xz", tmp_path)
    loader = Loader(image_size=32, store=bench.images, folders={"gtsrb": tmp_path / "gtsrb"})
    table, _ = parts_table(loader, "gtsrb", seed=device_steps.SEED)
    rows = table[table["part"] != "test"].to_dict("records")
    tracks = {row["path"].rpartition("_")[0]: {} for row in rows}
    for row in rows:
        tracks[row["path"].rpartition("_")[0]].setdefault(row["part"], []).append(row["path"])
    assert len(tracks) == 20
    assert all([len(frames) for frames in track.values()] == [3] for track in tracks.values())
    parts = bench.parts("gtsrb")
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 42,
        "adversary": 12,
        "validation": 6,
        "detector": 42,
        "test": 10,
    }


def test_an_attack_records_each_stage_as_it_comes(bench):
    device_steps.attack(bench, "gtsrb", "gtsrb")
    found = lines(bench.record)
    answers = ["querying", "surrogate's training", "surrogate's accuracy", "recovery", "agreement"]
    assert [line["what"] for line in found] == ["victim's training", "victim's accuracy", *(2 * answers)]
    assert [line["settings"].get("answers") for line in found] == [None] * 2 + ["full"] * 5 + ["label"] * 5
    # 80 images, in shares of 0.8 and less: as many queries as there are images, not the scale's 15,000.
    assert {line["settings"]["budget"] for line in found} == {64}
    assert {line["settings"]["scale_budget"] for line in found} == {15_000}
    figures = [line["value"] for line in found]
    assert figures[5] == pytest.approx(figures[4] / figures[1], rel=1e-4)
    assert all(10 * share == pytest.approx(round(10 * share)) for share in (figures[1], figures[4], figures[6]))


def test_a_rate_that_cannot_be_measured_does_not_stop_the_others(bench, monkeypatch):
    def trained(network, images, recipe, name):
        if recipe.batch_size == 8:
            raise InputError("cuda has too little memory")
        return 2_000.0

    monkeypatch.setattr(gpu, "trained", trained)
    monkeypatch.setattr(gpu, "answered", lambda network, images, name: 5_000.0)
    monkeypatch.setattr(gpu, "matrix_rate", lambda place, kind, size: 1e12)
    load = replace(gpu.QUICK, batch_sizes=(4, 8), large=8)
    scale = replace(bench.scale, load=load, rated=("tiny", "tiny-plain"))
    device_steps.rates(replace(bench, scale=scale))
    device_steps.querying(replace(bench, scale=scale))
    product, first, failed, augmented, other, _, _, queried, also = lines(bench.record)
    assert (product["value"], product["unit"]) == (1, "TFLOP/s")
    whole = gpu.flops("tiny", 8, training=True)
    assert first["settings"]["share_of_matrix_rate"] == pytest.approx(2_000 * whole / 1e12, abs=1e-4)
    assert (first["value"], queried["value"], augmented["value"]) == (2_000, 5_000, 2_000)
    assert (failed["value"], failed["settings"]["error"]) == (None, "cuda has too little memory")
    assert [line["settings"]["network"] for line in (first, other, queried, also)] == 2 * ["tiny", "tiny-plain"]
    assert [line["step"] for line in (other, also)] == ["rates", "querying"]


# -- the table of chapters ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "teaches"),
    [
        ("import torch\nfrom pathlib import Path", [False, False]),
        ('scale = "drawn"\nbudget = 1_000', [False, True]),
        ("budget = 1_000  # queries\n\n# alone", [True]),
        ("surrogate", [False]),
        ("surrogate_accuracy / victim_accuracy", [True]),
        ('rows = book.frame("granularity").groupby("task").recovery.mean()', [False]),
        ("means = rows.groupby('task').recovery.mean()", [False]),
        ('book.say(f"{(copy == victim).double().mean():.2f}")', [False]),
        ("print(xl.evaluate(victim, surrogate, signs.test))", [False]),
        ("xl.evaluate(victim, surrogate, signs.test)", [True]),
        ("answers = api.query(images)", [True]),
        ("shown = f'{share:.2f}'", [False]),
        ("plt.plot(scores.sort().values)", [False]),
        ("with book.served(victim) as (url, key):\n    api = xl.connect(url, key=key)", [True, True]),
        ("for name in names:\n    print(name)\n    total += cost(name)", [True, False, True]),
        ("def show(x):\n    print(x)", [False, False]),
        ("@torch.no_grad()\ndef f(x):\n    return (x -\n            1)", [True, True, True, True]),
        ("%matplotlib inline\nassert torch.equal(ours, theirs)", [False, True]),
    ],
)
def test_lines_that_teach(source, teaches):
    assert chapters.teaching_lines(source) == teaches


def notebook(*cells: tuple) -> list:
    """Return cells: text alone is Markdown; code comes with its tags, if any."""
    made = []
    for text, *tags in cells:
        new = nbformat.v4.new_code_cell if tags else nbformat.v4.new_markdown_cell
        made.append(new(text, metadata={"tags": [tag for tag in tags if tag != "code"]}))
    return made


def test_a_chapter_is_counted_without_what_is_hidden_or_an_exercise():
    cells = notebook(
        ("# 5. Title\nWhich wins? {cite}`a2016, b2020` and {cite:t}`a2016`\n\n| no | word |\n",),
        ("import torch\nx = f(1)\ny = g(x)", "code"),
        ("book.show(book.bars(x), name='a')", "remove-input"),
        ("The first.\n",),
        ("book.show(book.queries(x, y, z), name='b')", "remove-input"),
        ("::::{exercise} 5.1 Steal: attack or defend, 20 minutes\n::::\n", "markdown"),
        ("steal(victim)", "solution"),
    )
    cells[5] = nbformat.v4.new_markdown_cell(cells[5].source, metadata={"tags": ["exercise"]})
    found = chapters.Counts.of(cells)
    assert (found.lines, found.teaching, found.share) == ((3,), 2, pytest.approx(2 / 3))
    assert (found.pictures, found.references, found.words) == (1, 2, 11)
    assert (found.attacks, found.exercise_minutes) == (1, 20)
    # The second figure is asked about by nothing, and no text follows it.
    assert (found.results, found.asked, found.read) == (2, 1, 1)


def test_median_and_the_cell_that_nine_in_ten_do_not_exceed():
    cells = notebook(*(("\n".join(["x = f(1)"] * lines), "code") for lines in (1, 2, 3, 4, 5, 6, 7, 8, 9, 20)))
    found = chapters.Counts.of(cells)
    assert (found.median, found.most, max(found.lines)) == (5.5, 9, 20)
    assert found.minutes == 10
    assert chapters.Counts.of([]).minutes == 0


# -- mutants -------------------------------------------------------------------------


def judged(file: str, killed: int, survives: int) -> list[dict[str, str]]:
    verdicts = ["killed"] * killed + ["survives"] * survives
    return [{"file": file, "before": "a", "after": str(n), "verdict": verdict} for n, verdict in enumerate(verdicts)]


def test_mutants_are_scored_without_those_that_no_test_can_notice(monkeypatch):
    monkeypatch.setattr(mutants, "equivalents", lambda: {("one.py", "a", "9"): "a reason"})
    found = mutants.counted(judged("one.py", 9, 2) + judged("two.py", 10, 0))
    assert found["one.py"] == {"killed": 9, "equivalent": 1, "survives": 1}
    assert [mutants.score(counts) for counts in found.values()] == [0.9, 1.0, 0.95]
    assert mutants.summary(found).splitlines()[-1].split() == ["all", "21", "19", "1", "0.950"]
    assert mutants.faults(found) == ["killed: 0.950 of 0.96"]
    # One more that survives is too many for its module.
    worse = mutants.counted(judged("one.py", 8, 2) + judged("two.py", 90, 0))
    assert mutants.faults(worse) == ["one.py: 0.889"]


def test_no_more_than_a_share_may_be_called_equivalent(monkeypatch):
    monkeypatch.setattr(mutants, "equivalents", lambda: {("one.py", "a", str(n)): "a reason" for n in (10, 11)})
    assert mutants.faults(mutants.counted(judged("one.py", 10, 2))) == ["called equivalent: 0.167, at most 0.08"]
    assert mutants.faults(mutants.counted(judged("one.py", 10, 0))) == []


def test_a_mutant_meets_the_quickest_tests_of_its_lines():
    mutant = mutants.Mutant("one.py", "number changed", range(3, 5), "a = 1", "a = 2", "a = 2")
    seconds = {"a::slow": 230.0, "a::quick": 1.0, "b::middle": 20.0, "b::reads only": 0.1, "c::elsewhere": 0.1}
    lines = {3: {"a::slow", "a::quick"}, 4: {"b::middle", "b::not timed"}, 5: {"a::quick"}}
    assert mutants.chosen(mutant, lines, seconds) == ["a::quick", "b::middle"]  # the slow one would make it 251 seconds
    # What runs at import only may be looked at by a test that runs no line of the module.
    at_import = mutants.Mutant("one.py", "number changed", range(9, 10), "a = 1", "a = 2", "a = 2")
    assert mutants.chosen(at_import, lines, seconds) == ["b::reads only", "a::quick", "b::middle"]


MODULE = """
LIMIT = 3

class Counter:
    step = 1

    def up(self, number, by=2):
        # More.
        return number + by * self.step

def above(numbers):
    return [number for number in numbers if number > LIMIT]

def adder(first):
    return lambda second: first + second

add = adder(1)
"""


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("number + by", "number - by", (8, [4], 6)),
        ("number > LIMIT", "number >= LIMIT", (12, [3, 4], 6)),
        ("first + second", "first * second", (12, [4], 5)),
        ("return [number", "return numbers and [number", (12, [4], 6)),
    ],
)
def test_loaded_functions_are_given_changed_code(old, new, result):
    module = ModuleType("changed")
    exec(compile(MODULE, "changed.py", "exec"), vars(module))
    changed = list(graft.differences(MODULE, MODULE.replace(old, new)))
    assert graft.graft(graft.functions("changed.py"), changed)
    assert (module.Counter().up(10), module.above([2, 3, 4]), module.add(5)) == result


@pytest.mark.parametrize(("old", "new"), [("LIMIT = 3", "LIMIT = 4"), ("by=2", "by=3"), ("step = 1", "step = 2")])
def test_what_runs_at_import_cannot_be_changed_in_a_loaded_module(old, new):
    assert list(graft.differences(MODULE, MODULE.replace(old, new))) == []
    assert list(graft.differences(MODULE, MODULE.replace("LIMIT = 3", "LIMIT = 3  # the same"))) == []


def test_a_function_that_uses_other_variables_around_it_is_not_changed():
    module = ModuleType("changed")
    exec(compile(MODULE, "changed.py", "exec"), vars(module))
    loaded = [one for one in graft.functions("changed.py") if one is module.add]
    assert not graft.graft(loaded, graft.differences(MODULE, MODULE.replace("first + second", "second")))
    assert module.add(5) == 6
