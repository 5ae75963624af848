"""Cells and tables: a row follows from its cell alone, a run goes on where it stopped, a stale row is found."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extractlib.api import PredictionAPI
from extractlib.detection import Thresholded
from extractlib.errors import InputError
from extractlib.experiments import (
    TABLES,
    Row,
    Scene,
    code_of,
    read_rows,
    run_cell,
    run_table,
    shortcut,
    table_cells,
    tables,
)
from extractlib.experiments.detection import _accounts
from extractlib.experiments.extraction import api_of, collected
from extractlib.experiments.shortcut import BLUR, EVASIONS, PROCESSING
from extractlib.images import ImageSet
from extractlib.profiles import DRAWN, profile
from extractlib.store import Store

SMOKE = profile("smoke")


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
    assert {cell.pool for cell in cells} == {"atlas"}


def test_budget_table_holds_the_smaller_budgets():
    cells = table_cells("budget", profile("drawn"), seeds=[0])
    assert sorted({cell.budget for cell in cells}) == [1_000, 2_500, 5_000]
    assert len(cells) == 15


@pytest.mark.parametrize(
    ("table", "scale", "message"),
    [
        ("reproductions", "drawn", "unknown table"),
        ("classes", replace(profile("drawn"), tasks=("birds",)), "'classes' has no cell for birds and seed 0"),
    ],
)
def test_tables_that_do_not_exist_are_refused(table, scale, message):
    with pytest.raises(InputError, match=message):
        table_cells(table, profile(scale) if isinstance(scale, str) else scale, seeds=[0])


def test_small_cpu_decides_claims_with_all_seeds_and_the_rest_with_one():
    counted = {name: len(table_cells(name, profile("small-cpu"), seeds=range(3))) for name in TABLES}
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
        cell.task: (cell.pool, cell.budget)
        for cell in table_cells("diversity", profile("small-cpu"), seeds=[0])
        if "/" not in cell.pool and cell.pool != "noise"
    }
    assert narrow == {"cifar10": ("gtsrb", 3_500), "gtsrb": ("gtsrb", 3_500)}
    drawn = {cell.budget for cell in table_cells("diversity", profile("drawn"), seeds=[0]) if cell.pool == "retina"}
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
    assert {key: again.provenance[key] for key in ("data", "code")} == {
        key: row.provenance[key] for key in ("data", "code")
    }
    other = run_cell(replace(cell, seed=4), store=Store(tmp_path / "other"))
    assert other.provenance["data"] != row.provenance["data"]
    assert other.result != row.result


def test_a_smaller_budget_asks_a_part_of_the_same_queries(cell, shared):
    few = collected(Scene(replace(cell, budget=64), store=shared))[1]
    many = collected(Scene(cell, store=shared))[1]
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
        ({"experiment": "stateful"}, "objects/adversary holds 10 images and stateful needs 200"),
        ({"experiment": "overlap", "overlap": 0.25}, "atlas/detector holds 10 images and overlap needs 48"),
        ({"experiment": "overlap", "overlap": 1.0}, "objects/detector holds 10 images and overlap needs 64"),
    ],
)
def test_too_few_images_are_told_before_anything_is_trained(change, message, cell, tmp_path, monkeypatch):
    few = ImageSet("few", torch.zeros(10, 3, 32, 32, dtype=torch.uint8), None, (), "few")
    for place, name in (("task", cell.task), ("pool", "atlas")):
        parts = {part: replace(few, name=f"{name}/{part}") for part in ("adversary", "detector", "test")}
        monkeypatch.setattr(Scene, place, parts)
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


def test_rows_survive_the_file(row, tmp_path):
    tables.write_rows(tmp_path / "table.json", [row])
    [read] = read_rows(tmp_path / "table.json")
    assert read == row


def test_rows_that_cannot_be_written_leave_no_part_behind(row, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        tables.write_rows(tmp_path / "table.json", [row])
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_part_are_not_taken_for_those_asked_for(row, tmp_path):
    path = tmp_path / "table.json"
    tables.write_rows(path, [row])
    with pytest.raises(InputError, match="table.json holds rows of another part than 'validation': name another file"):
        run_table([row.cell], path, store=Store(tmp_path), part="validation")
    assert read_rows(path) == [row]


def test_a_table_goes_on_where_it_stopped(row, cell, tmp_path, monkeypatch):
    path = tmp_path / "results" / "table.json"
    ran = []

    def counted(cell, **_):
        ran.append(cell.seed)
        if cell.seed == 5:
            raise KeyboardInterrupt
        return Row(cell, row.result, row.provenance)

    monkeypatch.setattr(tables, "run_cell", counted)
    cells = [replace(cell, seed=seed) for seed in (3, 4, 5)]
    with pytest.raises(KeyboardInterrupt):
        run_table(cells, path, store=Store(tmp_path))
    assert [read.cell.seed for read in read_rows(path)] == [3, 4]
    run_table(cells[:2], path, store=Store(tmp_path), current=True)
    assert ran == [3, 4, 5]
    assert tables.missing(cells, path) == cells[2:]
    monkeypatch.setattr(tables, "code_of", lambda cell: "other code")
    assert tables.missing(cells, path) == cells
    run_table(cells[:2], path, store=Store(tmp_path), current=True)
    assert ran == [3, 4, 5, 3, 4]


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"rows": []}', '{"format": "other", "rows": []}'])
def test_what_is_no_results_file_is_refused_and_kept(cell, content, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is no results file"):
        run_table([cell], path, store=Store(tmp_path))
    assert path.read_text() == content


def with_result(row: Row, seed: int, recovery: float) -> Row:
    return Row(replace(row.cell, seed=seed), dict(row.result) | {"recovery": recovery}, row.provenance)


def test_tolerance_is_four_deviations_and_at_least_three_hundredths(row):
    rows = [with_result(row, 0, 0.90), with_result(row, 1, 0.92), with_result(row, 2, 0.94)]
    assert tables.tolerance(rows, rows[0].cell) == pytest.approx(0.08)
    assert tables.tolerance([with_result(row, 0, 0.900), with_result(row, 1, 0.901)], rows[0].cell) == 0.03
    assert tables.tolerance(rows[:1], rows[0].cell) == 0.03


def test_verify_agrees_with_a_true_row_and_finds_a_false_one(row, tmp_path):
    path, store = tmp_path / "table.json", Store(tmp_path / "store")
    tables.write_rows(path, [row])
    _, new, allowed = tables.verify(path, choice=7, store=store)
    assert (new.result, allowed) == (row.result, 0.03)

    tables.write_rows(path, [with_result(row, row.cell.seed, row.result["recovery"] + 0.04)])
    with pytest.raises(InputError, match="more than 0.030 apart"):
        tables.verify(path, choice=7, store=store)

    tables.write_rows(path, [row])
    content = json.loads(path.read_text())
    content["rows"][0]["provenance"]["code"] = "older"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 of 1 rows were made by other code"):
        tables.verify(path, choice=7, store=store)


# -- the other tables ----------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_every_table_names_each_cell_once(table):
    cells = table_cells(table, DRAWN, seeds=range(5))
    assert len(set(cells)) == len(cells) > 0
    assert all(tables.expected_seconds(cell) > 0 for cell in cells)


def test_the_plan_of_the_drawn_profile():
    counts = {table: len(table_cells(table, DRAWN, seeds=range(5))) for table in TABLES}
    # Five tasks and five seeds; retina has no top-5, since those are all its classes; a temperature has three seeds.
    assert counts["granularity"] == 5 * 5 * 6 - 5 - 2 * 5
    assert counts["reproduction"] == counts["detection"] == counts["stateful"] == 25
    assert counts["architecture"] == 2 * 4 * 5
    assert counts["watermark"] == 5 * 3


def few(table: str) -> list:
    """Return the cells of a table in profile smoke on objects, seed 3 named 0 so that all policies are there."""
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


def test_a_defended_row_says_what_the_defence_did(shared):
    found = {(cell.defence, cell.pool): run_cell(cell, store=shared).result for cell in few("defended")}
    denied = found["deny", "atlas"]
    assert denied["answered"] == pytest.approx(1 - denied["caught"])
    assert found["shuffle", "atlas"]["answered"] == found["label", "atlas"]["answered"] == 1
    # An honest user gets the label where only the label is shown, so loses nothing.
    assert found["label", "atlas"]["honest_accuracy"] == denied["victim_accuracy"]
    assert denied["honest_accuracy"] <= denied["victim_accuracy"]


def test_a_watermark_marks_about_its_share_and_the_marked_answers_are_wrong(shared):
    [cell] = few("watermark")
    scene = Scene(cell, store=shared)
    transfer = collected(scene)[1]
    images = scene.queries().images[transfer.indices]
    truth = PredictionAPI(scene.victim).query(images).labels
    marked = transfer.answers.labels != truth
    assert 3 <= int(marked.sum()) <= 30  # 12.8 of 256 are expected
    assert run_cell(cell, store=shared).result["marked"] == int(marked.sum())
    assert api_of(scene).fingerprint != api_of(Scene(replace(cell, defence="none"), store=shared)).fingerprint


def test_overlap_and_stateful_rows(shared):
    shares = {cell.overlap: run_cell(cell, store=shared).result for cell in few("overlap") if "/" in cell.pool}
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
    monkeypatch.setattr(shortcut, "_trained", lambda scene, name, hardened=False: Always(float(hardened)))
    [cell] = few("shortcut")
    result = shortcut.shortcut(Scene(cell, store=shared))
    open_to_all = result["recovery"]["undefended"]
    for kind, how in PROCESSING.items():
        # Where nothing is caught the API answers as if undefended.
        assert result["recovery"][f"{kind}-differs"] == {sent: open_to_all[sent] for sent in ("none", how, BLUR)}
        stopped = result["recovery"][f"{kind}-differs-hardened"]
        assert all(stopped[sent] != open_to_all[sent] for sent in stopped)
        assert result["caught"][f"{kind}-differs-hardened"] == dict.fromkeys(EVASIONS, 1.0)
        assert result["accepted"][f"{kind}-differs-hardened"] == dict.fromkeys(EVASIONS, 0.0)


def test_a_row_depends_on_the_code_that_makes_it_and_on_no_other():
    [plain] = [cell for cell in table_cells("reproduction", DRAWN, seeds=[0]) if cell.task == "signs"]
    assert code_of(plain) == code_of(replace(plain, task="birds", seed=3, granularity="label"))
    others = [
        replace(plain, defence="shuffle"),
        replace(plain, attack="knockoff-adaptive-all"),
        replace(plain, surrogate="vgg"),
        replace(plain, profile="smoke"),
        replace(plain, experiment="detection"),
        replace(plain, experiment="stateful"),
    ]
    assert len({code_of(cell) for cell in [plain, *others]}) == 7


def test_each_file_is_verified(row, cell, tmp_path, shared):
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in paths:
        tables.write_rows(path, [row])
    found = list(tables.each_file(tables.verify, paths, choices=[0, 5], store=shared, jobs=2))
    assert [old.cell for old, _, _ in found] == [cell, cell]


def of_other_code(row: Row, **result) -> Row:
    return Row(row.cell, {**row.result, **result}, {**row.provenance, "code": "other"})


def test_rows_of_other_code_stand_where_a_sample_comes_out_equal(row, cell, tmp_path, shared):
    path = tmp_path / "table.json"
    twin = Row(replace(cell, seed=4), {"recovery": 0.5}, row.provenance | {"code": "other"})
    tables.write_rows(path, [of_other_code(row), twin])
    [(old, new, equal)] = tables.confirm(path, choice=0, store=shared)
    assert (old.cell, new.result, equal) == (cell, row.result, True)
    for kept in read_rows(path):
        assert tables.is_current(kept)
        assert kept.provenance["confirmed"] == {
            "was": "other",
            "commit": new.provenance["commit"],
            "date": new.provenance["date"],
        }
        assert kept.provenance["commit"] == row.provenance["commit"]
    assert [kept.result for kept in read_rows(path)] == [row.result, {"recovery": 0.5}]
    # What is current is not run.
    assert tables.confirm(path, choice=0, store=shared) == []


def test_rows_of_other_code_are_left_alone_where_one_differs(row, tmp_path, shared):
    path = tmp_path / "table.json"
    tables.write_rows(path, [of_other_code(row, recovery=row.result["recovery"] + 1e-9)])
    before = path.read_bytes()
    [(_, _, equal)] = tables.confirm(path, choice=0, store=shared)
    assert not equal
    assert path.read_bytes() == before


def test_a_task_of_its_own_is_sampled_and_times_do_not_count(row, cell, tmp_path, shared, monkeypatch):
    path = tmp_path / "table.json"
    signs = replace(cell, task="signs")
    rows = [
        Row(each, {"milliseconds": 1.0, "auroc": 0.9}, {**row.provenance, "code": "other"}) for each in (cell, signs)
    ]
    tables.write_rows(path, rows)
    results = {"objects": {"milliseconds": 2.0, "auroc": 0.9}, "signs": {"milliseconds": 1.0, "auroc": 0.8}}
    monkeypatch.setattr(tables, "run_cell", lambda cell, **_: Row(cell, results[cell.task], row.provenance))
    assert {old.cell.task: equal for old, _, equal in tables.confirm(path, choice=1, store=shared)} == {
        "objects": True,
        "signs": False,
    }
    # One that differs is enough: the same code makes both.
    assert not any(map(tables.is_current, read_rows(path)))
