"""Canaries: no number changes without its version, on any processor; and what a bump makes stale."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import canaries
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extractlib import versions as table
from extractlib.errors import InputError

OTHER_PROCESSORS = {
    "two threads": {"OMP_NUM_THREADS": "2"},
    "no wide instructions": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}


def run_canaries(variables: dict[str, str]) -> subprocess.CompletedProcess:
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | variables
    command = [sys.executable, str(canaries.FILE.with_name("canaries.py"))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def known():
    return canaries.canaries()


@pytest.mark.skipif(bool(canaries.locked()), reason="numbers are held under the locked torch and numpy only")
def test_no_number_has_changed_without_its_version():
    done = run_canaries({})
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2_000:]


@pytest.mark.skipif(not canaries.locked(), reason="the locked torch and numpy are here")
def test_newer_libraries_are_told_what_changed(capsys):
    done = run_canaries({})
    with capsys.disabled():
        print(f"\nunder {canaries.locked()}:\n{done.stdout or 'all canaries agree'}")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variables", OTHER_PROCESSORS.values(), ids=OTHER_PROCESSORS.keys())
def test_other_processors_and_threads_agree(variables):
    done = run_canaries(variables)
    # The miniature's random weights, which stand for public ones, differ in a last bit, and so does their digest.
    only_digests = re.compile(r"cell: photographs: .*: /data/weights is '[0-9a-f]{40}' and was '[0-9a-f]{40}'; none of")
    other = [line for line in done.stdout.splitlines() if not only_digests.match(line)]
    assert other == [] and done.returncode in (0, 1), done.stdout + done.stderr[-2_000:]


RAW = """
import sys; sys.path.insert(0, "tests")
import torch, canaries
from extractlib.models.training import fit
images = canaries.image_set(40)
for kind in (torch.float32, torch.float64):
    torch.set_default_dtype(kind)
    model = fit(canaries.net(), images.images, images.labels, canaries.RECIPE, seed=3)
    print(repr(canaries.loss(model, images.images[:8], images.labels[:8])))
"""


def losses(variables: dict[str, str]) -> tuple[list[float], list[float]]:
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | variables
    root = canaries.FILE.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", RAW], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    single, double = map(json.loads, done.stdout.splitlines())
    return single, double


def test_a_raw_float32_loss_differs_between_processors_far_more_than_the_canary():
    single, double = losses({})
    other_single, other_double = losses(OTHER_PROCESSORS["no wide instructions"])
    # How far apart float32 is depends on the processor that runs this test: from 1e-7 to above the tolerance.
    assert np.abs(np.subtract(single, other_single)).max() > 1e4 * np.abs(np.subtract(double, other_double)).max()
    assert not list(canaries.differences(double, other_double, canaries.TOLERANCE))


def test_the_training_canary_is_of_about_two_thousand_weights():
    assert sum(parameter.numel() for parameter in canaries.net().parameters()) == 2_707


def test_every_version_has_a_canary_of_its_own(known):
    stages = {key for name, canary in known.items() if not name.startswith("cell: ") for key in canary.versions}
    cells = {key for name, canary in known.items() if name.startswith("cell: ") for key in canary.versions}
    assert stages | cells == set(table.VERSIONS)
    assert "experiment" in cells


def test_cells_of_every_experiment_granularity_reward_and_policy_are_there(known):
    names = " ".join(known)
    for word in (
        "top-2",
        "label",
        "rounded-1",
        "temperature-4.0",
        "full",
        "accounts",
        "overlap",
        "shortcut",
        "noise",
        "control",
    ):
        assert word in names
    for word in ("defense shuffle", "defense deny", "defense label", "watermark", "own-labels", "weights none to A"):
        assert word in names
    for word in ("answers, seed", "asked_twice", "weights B to A", "4 steps", "renormalized", "deny-free"):
        assert word in names
    for word in ("misinformation", "reverse-sigmoid"):
        assert word in names
    for reward in canaries.REWARDS:
        assert f"adaptive {reward}" in names


# -- comparing, on made-up canaries ----------------------------------------------


def canary(**versions: int) -> canaries.Canary:
    return canaries.Canary(versions, dict)


def entry(values: dict, **versions: int) -> dict:
    return {"versions": versions, "values": values}


def test_a_changed_value_asks_for_a_bump():
    recorded = {"one": entry({"a": [1.0, 2]}, split=1), "two": entry({"b": "x"}, split=1)}
    found = {"one": {"a": [1.0 + 2e-6, 2]}, "two": {"b": "x"}}
    [told] = canaries.faults(recorded, found, {"one": canary(split=1), "two": canary(split=1)})
    assert told.startswith("one: /a/0 is 1.000002 and was 1.0; none of its versions (split) is new: bump one or undo")


def test_a_bump_asks_for_a_record_and_says_which():
    recorded = {"one": entry({"a": 1}, split=1, numerics=1)}
    [told] = canaries.faults(recorded, {"one": {"a": 2}}, {"one": canary(split=2, numerics=1)})
    assert told == "one: its versions changed (split), record it"


def test_new_and_lost_canaries_are_told():
    told = list(canaries.faults({"old": entry({}, split=1)}, {"new": {}}, {"new": canary(split=1)}))
    assert told == ["new: new, record it", "old: recorded, and no canary now: record to take it out"]


@pytest.mark.parametrize(
    ("recorded", "found", "told"),
    [
        (1.0, 1.0 + 1e-7, []),
        (1.0, 1.0 + 1e-5, [" is 1.00001 and was 1.0"]),
        (1, 1.0, []),
        (1, 2, [" is 2 and was 1"]),
        ("a", "b", [" is 'b' and was 'a'"]),
        ([1, 2], [1], [" has 1 entries and had 2"]),
        ({"x": 1}, {"y": 1}, ["/x is gone", "/y is new"]),
        (float("nan"), float("nan"), []),
        (float("nan"), 1.0, [" is 1.0 and was nan"]),
        (0.0, 1e-10, []),
    ],
)
def test_differences(recorded, found, told):
    assert list(canaries.differences(recorded, found, 1e-6)) == told


@given(st.floats(1e-3, 1e6), st.floats(-9e-7, 9e-7))
def test_a_float_within_the_tolerance_is_the_same(value, error):
    assert not list(canaries.differences(value, value * (1 + error), canaries.TOLERANCE))


def test_the_file_survives_and_an_edit_by_hand_is_refused(tmp_path):
    path, known = tmp_path / "canaries.json", {"one": canary(split=1), "two": canary(drawn=2)}
    canaries.write({"one": {"a": 1.5}, "two": {}}, known, path)
    assert canaries.read(path)["one"]["values"] == {"a": 1.5}
    text = path.read_text()
    path.write_text(text.replace("1.5", "1.6"))
    with pytest.raises(InputError, match="canaries.json: canary 'one' was edited by hand.*git checkout"):
        canaries.read(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="canaries.json is no file of canaries.*git checkout"):
        canaries.read(path)
    path.unlink()
    with pytest.raises(InputError, match="canaries.json is no file of canaries"):
        canaries.read(path)


@pytest.mark.parametrize(
    ("versions", "message"), [({"splits": 1}, "unknown version key 'splits'"), ({}, "no versions")]
)
def test_a_canary_of_unknown_versions_is_refused(versions, message, tmp_path):
    path = tmp_path / "canaries.json"
    canaries.write({"one": {}}, {"one": canaries.Canary(versions, dict)}, path)
    with pytest.raises(InputError, match=f"canary 'one'.*{message}"):
        canaries.read(path)


def test_the_committed_file_is_whole():
    entries = canaries.read()
    assert len(entries) == len(canaries.canaries())
    assert Path(canaries.FILE).stat().st_size < 500_000


def test_float64_is_undone():
    with pytest.raises(RuntimeError), canaries.float64():
        assert torch.get_default_dtype() is torch.float64
        raise RuntimeError
    assert torch.get_default_dtype() is torch.float32


def test_a_mutated_rate_is_caught(monkeypatch):
    recorded = canaries.read()["augment"]
    monkeypatch.setattr(canaries, "RECIPE", replace(canaries.RECIPE, shift=1))
    found = {"augment": canaries.augmented() | {"cropped": [0.0]}}
    [told] = canaries.faults({"augment": recorded}, found, {"augment": canaries.canaries()["augment"]})
    assert "bump one or undo" in told
