"""The scales small and paper, end to end on a few images, and cells on a Ray cluster."""

import re
import subprocess
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import torchvision
from layouts import WRITE
from test_datasets import write_folder

from extractbook.cli import plan_of
from extractbook.reproduction import Cell, Setup, run_cell, run_table, table_cells
from extractbook.reproduction.grids import tables_for
from extractbook.reproduction.results import read_rows
from extractbook.reproduction.scales import SCALES, scale
from extractlib.data.layouts import IMAGENET_PARTS
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import predict
from extractlib.store import Store

PAGE = (Path(__file__).parents[1] / "book" / "paper_scale.md").read_text(encoding="utf-8")
RECIPES = ("backbone", "victim", "scratch_victim", "surrogate", "detector")


@pytest.fixture
def folders(tmp_path):
    write_folder(tmp_path / "pets" / "train", count=60)
    write_folder(tmp_path / "pets" / "test", count=8, seed=1)
    write_folder(tmp_path / "photos", classes=("sea", "sky", "sand"), count=40, seed=2)
    return {"folder:pets": tmp_path / "pets", "folder:photos": tmp_path / "photos"}


def shrunk(name: str, monkeypatch) -> str:
    """Enter a scale that is `name` with small images and one epoch a training, and return its name.

    Its learning rate is small: with the scale's own, so few steps diverge, to other labels on each processor.
    """
    settings = scale(name)
    few = {"epochs": 1, "batch_size": 16, "learning_rate": 0.003}
    recipes = {recipe: replace(getattr(settings, recipe), **few) for recipe in RECIPES}
    small = replace(settings, name=f"{name}, shrunk", image_size=32, **recipes)
    monkeypatch.setitem(SCALES, small.name, small)
    return small.name


def cell_of(name: str, **changes) -> Cell:
    settings = scale(name)
    names = {"victim": settings.network, "surrogate": settings.network} | changes
    return Cell(scale=name, task="folder:pets", pool="folder:photos", seed=0, budget=24, **names)


def check(row, *, device: str = "cpu") -> None:
    result = row.result
    assert result["recovery"] == pytest.approx(result["surrogate_accuracy"] / result["victim_accuracy"])
    assert 0 <= result["agreement"] <= 1
    assert row.provenance["device"].startswith(device)


@pytest.fixture
def imagenet_weights(tmp_path, monkeypatch):
    """Random weights where torchvision would put ImageNet's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = tmp_path / "torch" / "hub" / "checkpoints" / networks.PUBLISHED["resnet-34"][0].url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)  # the same weights in every run
    torch.save(torchvision.models.resnet34().state_dict(), file)


def test_the_paper_end_to_end(folders, imagenet_weights, tmp_path, monkeypatch):
    name, store = shrunk("paper", monkeypatch), Store(tmp_path / "store")
    check(run_cell(cell_of(name), store=store, folders=folders, device="cpu"))
    check(
        run_cell(cell_of(name, victim="cnn-5-wide", victim_weights="none"), store=store, folders=folders, device="cpu")
    )
    assert not (store.root / "backbone").exists()


def test_the_paper_on_its_own_data_sets(imagenet_weights, tmp_path, monkeypatch):
    # ImageNet has no part for pre-training: the weights are torchvision's.
    folders = {name: tmp_path / name for name in ("gtsrb", "imagenet")}
    for data, folder in folders.items():
        folder.mkdir()
        WRITE[data](folder)
    name = shrunk("paper", monkeypatch)
    cell = replace(cell_of(name), task="gtsrb", pool="imagenet", granularity="label", defense="shuffle")
    row = run_cell(cell, store=Store(tmp_path / "store"), folders=folders, device="cpu")
    check(row)
    assert 0 <= row.result["caught"] <= 1


def test_data_sets_are_looked_for_in_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "gtsrb").mkdir()
    WRITE["gtsrb"](tmp_path / "gtsrb")
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path))
    cell = replace(cell_of("small-cpu"), task="gtsrb", pool="tinyimagenet")
    setup = Setup(cell, store=Store(tmp_path / "store"))
    assert len(setup.held_out) == 2
    with pytest.raises(InputError, match=f"^tinyimagenet is not available.*{tmp_path}"):
        setup.queries()


def test_missing_queries_are_told_before_a_victim_is_trained(tmp_path, monkeypatch):
    (tmp_path / "gtsrb").mkdir()
    WRITE["gtsrb"](tmp_path / "gtsrb")
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path))
    store = Store(tmp_path / "store")
    cell = replace(cell_of("small-cpu", victim="cnn-5", victim_weights="none"), task="gtsrb", pool="tinyimagenet")
    with pytest.raises(InputError, match="^tinyimagenet is not available"):
        run_cell(cell, store=store, device="cpu")
    assert not (store.root / "victim").exists()


def test_small_end_to_end_with_a_backbone_of_the_projects_own(folders, tmp_path, monkeypatch):
    name, store = shrunk("small", monkeypatch), Store(tmp_path / "store")
    other = scale(name).other_network
    check(run_cell(cell_of(name, surrogate=other), store=store, folders=folders, device="cpu"))
    assert len(list((store.root / "backbone").glob("*/model.safetensors"))) == 2


@pytest.fixture(scope="module")
def cluster():
    """Skip, and say so, where Ray is not installed or starts no cluster on this machine in five minutes."""
    pytest.importorskip("ray", reason="Ray, an extra of the package, is not installed")
    start = "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)"
    try:
        subprocess.run([sys.executable, "-c", start], timeout=300, check=True, capture_output=True)
    except subprocess.TimeoutExpired:
        pytest.skip("Ray started no cluster on this machine within five minutes")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Ray starts no cluster on this machine: {error.stderr.decode().strip().splitlines()[-1]}")


def test_a_row_of_a_ray_cluster_is_that_of_a_serial_run(cluster, tmp_path):
    [cell] = table_cells("reproduction", scale("smoke"), seeds=[3])[1:]
    path = tmp_path / "rows.jsonl"
    [row] = run_table([cell], path, store=Store(tmp_path / "ray"), device="cpu", ray="local")
    [serial] = run_table([cell], None, store=Store(tmp_path / "serial"), device="cpu")
    assert row.result == serial.result
    # What is there is not run again, and what cannot be run is told in one line.
    assert run_table([cell], path, store=Store(tmp_path / "other"), device="cpu", ray="local")[0] == row
    assert not (tmp_path / "other").exists()
    path.unlink()
    with pytest.raises(InputError, match="^budget is 513, but the pool holds 512 images"):
        run_table([replace(cell, budget=513), cell], path, store=Store(tmp_path / "ray"), device="cpu", ray="local")
    assert read_rows(path)[0].result == serial.result  # the other cell's row is kept


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("local", {"address": "local", "num_cpus": 3, "include_dashboard": False}),
        ("10.0.0.1:6379", {"address": "10.0.0.1:6379"}),
    ],
)
def test_ray_joins_the_cluster_that_is_named_or_starts_its_own(address, asked, tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    def init(*, runtime_env, log_to_driver, **options):
        raise Asked(options)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    cells = table_cells("reproduction", scale("smoke"), seeds=[3])
    with pytest.raises(Asked) as found:
        run_table(cells, None, store=Store(tmp_path), device="cpu", ray=address, jobs=3)
    assert found.value.args == (asked,)


def test_a_cluster_needs_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    cells = table_cells("reproduction", scale("smoke"), seeds=[3])
    with pytest.raises(InputError, match=r"^a Ray cluster needs Ray.*pip install 'extractlib\[grid\] @ "):
        run_table(cells, None, store=Store(tmp_path), device="cpu", ray="local")


@pytest.mark.parametrize("name", ["paper", "small"])
def test_the_page_shows_the_plan_that_the_profile_gives(name):
    settings = scale(name)
    cells = {table: table_cells(table, settings, seeds=range(3)) for table in tables_for(settings)}
    assert plan_of({table: (all_, all_) for table, all_ in cells.items()}, settings) in PAGE


def test_the_page_counts_bytes_rightly():
    rows = re.findall(r"\| ([\d,]+) \| ([\d.]+) GB \|", PAGE)
    assert len(rows) == 7
    assert f"{1_000 * sum(IMAGENET_PARTS.values()):,}" in dict(rows)
    for images, gigabytes in rows:
        assert int(images.replace(",", "")) * 3 * 224**2 / 1e9 == pytest.approx(float(gigabytes), abs=0.005)
    for name, gigabytes in (("resnet-34", 0.09), ("vgg-16", 0.55)):
        parameters = networks.PUBLISHED[name][0].meta["num_params"]
        assert 4 * parameters / 1e9 == pytest.approx(gigabytes, abs=0.005)
        assert f"{gigabytes} GB for {'ResNet-34' if name == 'resnet-34' else 'VGG-16'}" in PAGE


def test_the_page_names_the_batches_that_the_profiles_use():
    def largest(name: str) -> int:
        settings = scale(name)
        recipes = (settings.victim, settings.scratch_victim, settings.surrogate, settings.detector)
        return max(recipe.batch_size for recipe in recipes)

    answered = signature(predict).parameters["batch_size"].default
    assert f"`paper` trains on batches of {largest('paper')} images and answers {answered} at a time" in PAGE


COMMAND = re.compile(r"extractbook run reproduction --scale (\S+) --task (\w+)")


def test_the_pages_commands_name_all_tasks_of_their_scales():
    found = COMMAND.findall(PAGE)
    assert sorted(found) == sorted((name, task) for name in ("paper", "photos") for task in scale(name).tasks)


def test_the_gpu_notebook_runs_both_tasks_with_full_answers_and_labels():
    notebook = nbformat.read(Path(__file__).parents[1] / "benchmarks" / "photos_gpu.ipynb", as_version=4)
    lines = [line for cell in notebook.cells for line in cell.source.splitlines()]
    assert "%env RUN=extractbook run reproduction --scale photos-gpu --device cuda" in lines
    runs = [line.removeprefix("!$RUN --task ").split(" --output")[0] for line in lines if line.startswith("!$RUN")]
    assert runs == ["cifar10", "cifar10 --granularity label", "gtsrb", "gtsrb --granularity label"]
    fetched = {line.removeprefix("!extractlib data get ") for line in lines if line.startswith("!extractlib")}
    assert fetched == {"cifar10", "gtsrb", scale("photos-gpu").pool}
    assert not any(cell.get("outputs") for cell in notebook.cells)
