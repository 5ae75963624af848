"""Cells and tables: a row follows from its cell alone, a run goes on where it stopped, a stale row is found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extractbook.reproduction import (
    TABLES,
    Row,
    Setup,
    grids,
    is_current,
    read_rows,
    run_cell,
    run_table,
    schedule,
    table_cells,
)
from extractbook.reproduction.experiments import shortcut
from extractbook.reproduction.experiments.detection import _accounts
from extractbook.reproduction.experiments.extraction import api_of, collected
from extractbook.reproduction.experiments.shortcut import BLUR, EVASIONS, PROCESSING
from extractbook.reproduction.freshness import versions_of
from extractbook.reproduction.results import append_row
from extractbook.reproduction.scales import scale
from extractlib import versions
from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import Thresholded
from extractlib.errors import InputError
from extractlib.store import Store, digest

SMOKE, DRAWN = scale("smoke"), scale("drawn")


@pytest.fixture(scope="module")
def cell():
    return table_cells("reproduction", SMOKE, seeds=[3])[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store for all cells of this module, so that its victim is trained once."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def row(cell, shared):
    return run_cell(cell, store=shared)


def test_reproduction_has_a_cell_a_task_and_seed():
    cells = table_cells("reproduction", SMOKE, seeds=range(3))
    assert [(cell.task, cell.seed, cell.budget) for cell in cells] == [
        (task, seed, 256) for seed in range(3) for task in ("signs", "objects")
    ]
    assert {str(cell.pool) for cell in cells} == {"atlas"}


def test_budget_table_holds_the_smaller_budgets():
    cells = table_cells("budget", scale("drawn"), seeds=[0])
    assert sorted({cell.budget for cell in cells}) == [1_000, 2_500, 5_000]
    assert len(cells) == 15


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ("reproductions", DRAWN, "unknown table"),
        ("classes", replace(DRAWN, tasks=("birds",)), "'classes' has no cell for birds and seed 0"),
    ],
)
def test_tables_that_do_not_exist_are_refused(table, settings, message):
    with pytest.raises(InputError, match=message):
        table_cells(table, settings, seeds=[0])


def test_small_cpu_decides_claims_with_all_seeds_and_the_rest_with_one():
    counted = {name: len(table_cells(name, scale("small-cpu"), seeds=range(3))) for name in TABLES}
    assert counted == {
        "reproduction": 6,
        "classes": 6,
        "detection": 6,
        "defended": 2 * (4 + 4 + 4),
        "realistic": 2 * (7 + 5 + 5),
        "architecture": 24,
        "diversity": 30,
        "overlap": 2 * (10 + 5 + 5),
        "stateful": 6,
        "shortcut": 6,
        "watermark": 6,
        "adaptive": 2 * (6 + 1 + 1),
        "budget": 18,
        "granularity": 2 * (6 + 5 + 5),
    }


def test_images_of_one_task_in_files_are_asked_with_as_far_as_they_go():
    narrow = {
        cell.task: (str(cell.pool), cell.budget)
        for cell in table_cells("diversity", scale("small-cpu"), seeds=[0])
        if cell.pool.is_task
    }
    assert narrow == {"cifar10": ("gtsrb", 3_500), "gtsrb": ("gtsrb", 3_500)}
    drawn = {cell.budget for cell in table_cells("diversity", scale("drawn"), seeds=[0]) if cell.pool.is_task}
    assert drawn == {10_000}


def test_a_row_is_consistent(row, cell):
    result = row.result
    assert row.cell == cell
    assert result["recovery"] == pytest.approx(result["surrogate_accuracy"] / result["victim_accuracy"])
    assert result["constant_accuracy"] == pytest.approx(0.1)
    assert 0 <= result["agreement"] <= 1


def test_classes_add_up_to_the_row(row, cell, shared):
    result = run_cell(replace(cell, experiment="classes"), store=shared).result
    assert result["recovery"] == row.result["recovery"]
    assert sum(result["queries"]) == cell.budget == 256
    for who in ("victim", "surrogate"):
        confusion = torch.tensor(result[f"{who}_confusion"])
        assert confusion.sum(1).tolist() == [20] * 10  # test images of each class
        assert confusion.diag().sum() / 200 == pytest.approx(row.result[f"{who}_accuracy"])
        # Both halves hold ten images of each class.
        halves = torch.tensor(result[f"{who}_accuracy"])
        assert torch.allclose(halves.mean(0) * 20, confusion.diag().float(), atol=1e-2)


def test_a_row_follows_from_its_cell(row, cell, tmp_path):
    again = run_cell(cell, store=Store(tmp_path / "again"))
    assert again.result == row.result
    assert {key: again.provenance[key] for key in ("data", "versions", "settings", "lock")} == {
        key: row.provenance[key] for key in ("data", "versions", "settings", "lock")
    }
    assert is_current(again)
    assert again.provenance["lock"] == digest((Path(__file__).parents[1] / "requirements.txt").read_bytes())
    assert again.provenance["versions"] == versions_of(cell) and "knockoff" in versions_of(cell)
    other = run_cell(replace(cell, seed=4), store=Store(tmp_path / "other"))
    assert other.provenance["data"] != row.provenance["data"]
    assert other.result != row.result


def test_a_smaller_budget_asks_a_part_of_the_same_queries(cell, shared):
    few = collected(Setup(replace(cell, budget=64), store=shared))[1]
    many = collected(Setup(cell, store=shared))[1]
    assert len(few) == 64
    assert torch.equal(few.indices, many.indices[:64])
    assert torch.equal(few.answers.probabilities, many.answers.probabilities[:64])


@pytest.mark.parametrize("queries", [0, -1, 513])
def test_a_budget_that_does_not_fit_the_pool_is_refused(cell, queries, tmp_path):
    with pytest.raises(InputError, match=f"budget.*{queries}|{queries}.*budget"):
        run_cell(replace(cell, budget=queries), store=Store(tmp_path))
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Two sides of two clients of 50 images each; of the 64 strangers a quarter are of the task.
        ({"experiment": "stateful"}, "objects/adversary holds 10 images and 200 are needed"),
        ({"experiment": "overlap", "overlap": 0.25}, "atlas/detector holds 10 images and 48 are needed"),
        ({"experiment": "overlap", "overlap": 1.0}, "objects/detector holds 10 images and 64 are needed"),
    ],
)
def test_too_few_images_are_told_before_anything_is_trained(change, message, cell, tmp_path, monkeypatch):
    few = ImageSet("few", torch.zeros(10, 3, 32, 32, dtype=torch.uint8), None, (), "few")
    for place, name in (("task", cell.task), ("pool", "atlas")):
        parts = {part: replace(few, name=f"{name}/{part}") for part in ("adversary", "detector", "test")}
        monkeypatch.setattr(Setup, place, parts)
    with pytest.raises(InputError, match=message):
        run_cell(replace(cell, **change), store=Store(tmp_path))
    assert not (tmp_path / "victim").exists() and not (tmp_path / "detector").exists()


def test_honest_accounts_of_the_two_sides_share_no_track_and_each_sends_some_of_all_of_its_side():
    tracks = torch.arange(12).repeat_interleave(4)
    accounts = _accounts(tracks, clients=2, length=8)
    assert [len(images) for images in accounts] == [8] * 4
    assert [set(images.tolist()) for images in accounts] == [set(range(4))] * 2 + [set(range(4, 8))] * 2


def test_what_odin_is_set_on_comes_from_the_whole_part(monkeypatch):
    monkeypatch.setattr(shortcut, "TUNED_ON", 4)
    pixels = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    images = ImageSet("numbers", pixels, None, (), "f")
    assert shortcut._some(images).images[:, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert len(shortcut._some(images.subset(torch.arange(3)))) == 3


def test_rows_of_another_part_are_not_taken_for_those_asked_for(row, tmp_path):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    with pytest.raises(InputError, match="table.jsonl holds rows of another part than 'validation': name another file"):
        run_table([row.cell], path, store=Store(tmp_path), part="validation")
    assert read_rows(path) == [row]


def test_a_table_goes_on_where_it_stopped(row, cell, tmp_path, monkeypatch):
    path = tmp_path / "results" / "table.jsonl"
    ran = []

    def counted(cell, **_):
        ran.append(cell.seed)
        if cell.seed == 5:
            raise KeyboardInterrupt
        return Row(cell, row.result, row.provenance | {"versions": versions_of(cell)})

    monkeypatch.setattr(schedule, "run_cell", counted)
    cells = [replace(cell, seed=seed) for seed in (3, 4, 5)]
    with pytest.raises(KeyboardInterrupt):
        run_table(cells, path, store=Store(tmp_path))
    assert [read.cell.seed for read in read_rows(path)] == [3, 4]
    run_table(cells[:2], path, store=Store(tmp_path))
    assert ran == [3, 4, 5]
    assert schedule.missing(cells, path) == cells[2:]
    # After a bump the old rows stay where they are, and new ones follow.
    before = path.read_bytes()
    monkeypatch.setattr(versions, "VERSIONS", dict(versions.VERSIONS) | {"train": versions.VERSIONS["train"] + 1})
    assert schedule.missing(cells, path) == cells
    run_table(cells[:2], path, store=Store(tmp_path))
    assert ran == [3, 4, 5, 3, 4]
    assert path.read_bytes().startswith(before)
    assert [read.cell.seed for read in read_rows(path)] == [3, 4, 3, 4]
    assert schedule.missing(cells, path) == cells[2:]


def test_the_first_edition_is_read_only(cell, tmp_path):
    path = tmp_path / "granularity.json"
    path.write_text('{"format": "extractlib results 1", "rows": []}')
    with pytest.raises(InputError, match="granularity.json is no results file that rows can be added to"):
        run_table([cell], path, store=Store(tmp_path))
    assert not (tmp_path / "victim").exists()


# -- the other tables ----------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_every_table_names_each_cell_once(table):
    cells = table_cells(table, DRAWN, seeds=range(5))
    assert len(set(cells)) == len(cells) > 0
    assert all(grids.expected_seconds(cell) > 0 for cell in cells)


def test_the_plan_of_the_drawn_profile():
    counts = {table: len(table_cells(table, DRAWN, seeds=range(5))) for table in TABLES}
    # Five tasks and five seeds; retina has no top-5, since those are all its classes; a temperature has three seeds.
    assert counts["granularity"] == 5 * 5 * 6 - 5 - 2 * 5
    assert counts["reproduction"] == counts["detection"] == counts["stateful"] == 25
    assert counts["architecture"] == 2 * 4 * 5
    assert counts["watermark"] == 5 * 3


def few(table: str) -> list:
    """Return the cells of a table at scale smoke on objects, seed 3 named 0 so that all policies are there."""
    return [replace(cell, seed=3) for cell in table_cells(table, SMOKE, seeds=[0]) if cell.task == "objects"]


@pytest.mark.parametrize("table", ["granularity", "architecture", "diversity", "realistic", "adaptive"])
def test_tables_of_attacks_give_recoveries(table, shared):
    for cell in few(table):
        result = run_cell(cell, store=shared).result
        assert result["recovery"] == pytest.approx(result["surrogate_accuracy"] / result["victim_accuracy"])


def test_the_detection_table_agrees_with_its_curves(shared):
    [cell] = few("detection")
    result = run_cell(cell, store=shared).result
    for name in ("binary", "odin", "mahalanobis"):
        for pool in ("pool", "second"):
            found = result[name][pool]
            assert found["balanced_accuracy"] == pytest.approx((found["tpr"] + found["tnr"]) / 2)
            accepted, caught = found["roc"]
            assert (accepted[0], caught[0], accepted[-1], caught[-1]) == (0, 1, 1, 0)
            # The area under the curve by trapezoids, of 41 points, is about the AUROC.
            area = sum((accepted[i + 1] - accepted[i]) * (caught[i] + caught[i + 1]) / 2 for i in range(40))
            assert area == pytest.approx(found["auroc"], abs=0.03)
    assert result["caught"]["benign"] == pytest.approx(1 - result["binary"]["pool"]["tpr"])
    assert result["caught"]["pool"] == pytest.approx(result["binary"]["pool"]["tnr"])


def test_a_defended_row_says_what_the_defense_did(shared):
    found = {(cell.defense, str(cell.pool)): run_cell(cell, store=shared).result for cell in few("defended")}
    denied = found["deny", "atlas"]
    assert denied["answered"] == pytest.approx(1 - denied["caught"])
    assert found["shuffle", "atlas"]["answered"] == found["label", "atlas"]["answered"] == 1
    # An honest user gets the label where only the label is shown, so loses nothing.
    assert found["label", "atlas"]["honest_accuracy"] == denied["victim_accuracy"]
    assert denied["honest_accuracy"] <= denied["victim_accuracy"]


def test_a_watermark_marks_about_its_share_and_the_marked_answers_are_wrong(shared):
    [cell] = few("watermark")
    setup = Setup(cell, store=shared)
    transfer = collected(setup)[1]
    images = setup.queries().images[transfer.indices]
    truth = PredictionAPI(setup.victim).query(images).labels
    marked = transfer.answers.labels != truth
    assert 3 <= int(marked.sum()) <= 30  # 12.8 of 256 are expected
    assert run_cell(cell, store=shared).result["marked"] == int(marked.sum())
    assert api_of(setup).fingerprint != api_of(Setup(replace(cell, defense="none"), store=shared)).fingerprint


def test_overlap_and_stateful_rows(shared):
    shares = {cell.overlap: run_cell(cell, store=shared).result for cell in few("overlap") if cell.pool.is_shifted}
    assert list(shares) == [0.0, 0.5, 1.0]
    for found in shares.values():
        assert found["balanced_accuracy"] == pytest.approx((found["tpr"] + found["tnr"]) / 2)
    # Each share has a detector of its own.
    assert len({(found["tpr"], found["auroc"]) for found in shares.values()}) == 3
    [cell] = few("stateful")
    result = run_cell(cell, store=shared).result
    for name in ("prada", "counting"):
        flagged = result[name]["pool_until"]
        assert flagged is None or 1 <= flagged <= cell.budget
        assert (result[name]["sybil_accounts"] == 1) == (flagged is None)


def test_the_shortcut_rows_say_what_the_attack_recovers_behind_each_detector(shared):
    [cell] = few("shortcut")
    result = run_cell(cell, store=shared).result
    sides = {f"{kind}-{how}" for kind in PROCESSING for how in ("differs", "matched")}
    assert set(result["sides"]) == {"plain", *sides}
    for found in result["sides"].values():
        assert found["balanced_accuracy"] == pytest.approx((found["tpr"] + found["tnr"]) / 2)
    assert set(result["recovery"]["undefended"]) == {"none", *PROCESSING.values(), BLUR}
    for kind, how in PROCESSING.items():
        for name in (f"{kind}-differs", f"{kind}-differs-hardened"):
            assert set(result["recovery"][name]) == {"none", how, BLUR}
            assert set(result["caught"][name]) == set(EVASIONS)


class Always(Thresholded):
    """Catches every image, or none."""

    threshold = 0.5

    def __init__(self, caught: float):
        self.caught, self.fingerprint = caught, f"always {caught}"

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images),), self.caught)


def test_each_attack_of_the_shortcut_meets_its_own_detector(shared, monkeypatch):
    monkeypatch.setattr(shortcut, "_trained", lambda setup, name, hardened=False: Always(float(hardened)))
    [cell] = few("shortcut")
    result = shortcut.shortcut(Setup(cell, store=shared))
    open_to_all = result["recovery"]["undefended"]
    for kind, how in PROCESSING.items():
        # Where nothing is caught the API answers as if undefended.
        assert result["recovery"][f"{kind}-differs"] == {sent: open_to_all[sent] for sent in ("none", how, BLUR)}
        stopped = result["recovery"][f"{kind}-differs-hardened"]
        assert all(stopped[sent] != open_to_all[sent] for sent in stopped)
        assert result["caught"][f"{kind}-differs-hardened"] == dict.fromkeys(EVASIONS, 1.0)
        assert result["accepted"][f"{kind}-differs-hardened"] == dict.fromkeys(EVASIONS, 0.0)
