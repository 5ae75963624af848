"""Cells and tables: a row follows from its cell alone, a run goes on where it stopped, a stale row is found."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import psutil
import pytest
import torch

from extractbook.reproduction import (
    Row,
    Setup,
    claims,
    grids,
    is_current,
    read_rows,
    run_cell,
    run_table,
    schedule,
    setups,
    table_cells,
)
from extractbook.reproduction.experiments import accounts, detection, extraction, shortcut
from extractbook.reproduction.experiments.answers import cost_of
from extractbook.reproduction.experiments.extraction import _paid, api_of, collected, compare, control_of, surrogate_of
from extractbook.reproduction.experiments.shortcut import ATTACKED, EVASIONS, PROCESSING
from extractbook.reproduction.freshness import versions_of
from extractbook.reproduction.results import append_row, frame
from extractbook.reproduction.scales import SCALES, scale
from extractlib import versions
from extractlib.api.granularity import Answers, Granularity
from extractlib.api.service import PredictionAPI
from extractlib.attacks.transfer import TransferSet
from extractlib.attacks.twice import TwiceKnockoff
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import Detector
from extractlib.defenses.ownership import OtherClasses
from extractlib.errors import InputError
from extractlib.store import Store, digest

SMOKE, DRAWN = scale("smoke"), replace(scale("drawn"), cuts=0)


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
    cells = [cell for cell in table_cells("budget", DRAWN, seeds=[0]) if cell.steps == DRAWN.surrogate.steps]
    assert sorted({cell.budget for cell in cells}) == [1_000, 2_500, 5_000]
    assert len(cells) == 15


def test_queries_and_steps_are_two_axes():
    cells = table_cells("budget", DRAWN, seeds=[0]) + table_cells("reproduction", DRAWN, seeds=[0])
    found = {(cell.budget, cell.steps) for cell in cells if cell.task == "signs"}
    steps = (DRAWN.surrogate.steps, *DRAWN.other_steps)
    assert found == {(budget, number) for budget in DRAWN.budgets for number in steps}


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
    small = scale("small-cpu")
    counted = {name: len(table_cells(name, small, seeds=range(3))) for name in grids.tables_for(small)}
    assert counted == {
        "reproduction": 6,
        "control": 6,
        "classes": 6,
        "answers": 2,
        "detection": 6,
        "defended": 3 * 6 + 2 + 1,  # the shifted one on the task on which nobody is accused
        "own_images": 6 + 2 * 6,
        "architecture": 2 * 6 + 2 * 6,
        "weights": 4 * 6,
        "diversity": 6 + 2 * 4,
        "overlap": 4 * 6 + 4 * 2,
        "accounts": 6,
        "shortcut": 6,
        "watermark": 6,
        "accusation": 3,
        "asked_twice": 6,
        "perturbation": 3 * 3 + 3,
        "adaptive": 4 * 6 + 2 * 2,
        "budget": 6 + 2 * 2,
        "granularity": 4 * 6 + 2 * 6 + 2 * 2,
        "public": 6,
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
    assert result["constant_accuracy"] == pytest.approx(0.1)
    assert 0 <= result["agreement"] <= 1
    assert result["images"] == 200


def test_every_number_of_a_row_by_hand(row, cell, shared):
    """On the drawn objects, whose accuracy is balanced at this scale, from the models themselves."""
    setup, result = Setup(cell, store=shared), row.result
    surrogate, victim, held_out = surrogate_of(setup), setup.victim, setup.held_out
    theirs, ours, labels = victim.predict(held_out.images), surrogate.predict(held_out.images), held_out.labels
    copied, taught = (
        sum((one[labels == label] == label).double().mean().item() for label in range(10)) / 10
        for one in (ours, theirs)
    )
    assert result["surrogate_accuracy"] == pytest.approx(copied)
    assert result["recovery"] == pytest.approx(copied / taught)
    wrong = theirs != labels
    assert result["errors"] == int(wrong.sum())
    assert result["errors_repeated"] == pytest.approx((ours == theirs)[wrong].double().mean().item())
    assert result["recovery_above_constant"] == pytest.approx((copied - 0.1) / (taught - 0.1))
    known, asked = setup.task["validation"], setup.pool["validation"].images
    right = surrogate.predict(known.images) == known.labels
    by_class = [right[known.labels == label].double().mean().item() for label in range(10)]
    assert result["validation_accuracy"] == pytest.approx(sum(by_class) / 10)
    same = surrogate.predict(asked) == victim.predict(asked)
    assert result["held_out_agreement"] == pytest.approx(same.double().mean().item())
    assert "dataset_inference_p" not in result  # copies are accused on signs only


class Fixed:
    """A model of two classes that answers the same labels, whatever it is asked about."""

    def __init__(self, *labels):
        self.labels = torch.tensor(labels)

    def logits(self, images):
        return torch.eye(2)[self.labels]


def test_two_models_are_compared_by_hand():
    """Of ten images, six of them of the first class, the victim has nine right and the surrogate eight."""
    labels = torch.tensor([0] * 6 + [1] * 4)
    images = ImageSet("test", torch.zeros(10, 3, 2, 2, dtype=torch.uint8), labels, ("a", "b"))
    found = compare(Fixed(*[0] * 6, 1, 1, 1, 0), Fixed(*[0] * 6, 1, 1, 0, 0), images)
    assert (found["victim_accuracy"], found["surrogate_accuracy"], found["constant_accuracy"]) == (0.9, 0.8, 0.6)
    assert found["recovery"] == pytest.approx(8 / 9)
    assert found["recovery_above_constant"] == pytest.approx(2 / 3)
    assert (found["agreement"], found["errors"], found["errors_repeated"], found["images"]) == (0.9, 1, 1.0, 10)
    # By class the victim has 1 and 3/4 right, the surrogate 1 and 1/2.
    by_class = compare(Fixed(*[0] * 6, 1, 1, 1, 0), Fixed(*[0] * 6, 1, 1, 0, 0), images, balanced=True)
    assert by_class["recovery"] == pytest.approx(0.75 / 0.875)


def test_what_cannot_be_said_is_none():
    images = ImageSet("test", torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    found = compare(Fixed(0, 1), Fixed(0, 0), images)
    assert (found["errors"], found["errors_repeated"], found["recovery_above_constant"]) == (0, None, 0.0)
    found = compare(Fixed(0, 0), Fixed(0, 1), images)
    assert (found["errors_repeated"], found["recovery_above_constant"], found["images"]) == (0.0, None, 2)


def test_heads_of_victim_and_surrogate_start_apart_and_their_bodies_together(cell, shared):
    setup = Setup(cell, store=shared)
    victim, surrogate = (
        trainer.build(10).state_dict() for trainer in (setup.victim_trainer(), setup.surrogate_trainer())
    )
    same = {name: torch.equal(victim[name], surrogate[name]) for name in victim}
    assert not same["head.weight"] and all(equal for name, equal in same.items() if not name.startswith("head."))
    other = setup.but(surrogate_weights="B").surrogate_trainer().build(10).state_dict()
    assert torch.equal(other["head.weight"], surrogate["head.weight"])
    assert not all(torch.equal(other[name], surrogate[name]) for name in other)


def test_steps_and_weights_and_the_independent_control(row, cell, shared):
    """The control is one for all steps; a copy of more steps, or from other weights, is another one."""
    control = run_cell(replace(cell, experiment="control", budget=0), store=shared).result
    assert control["victim_accuracy"] == row.result["victim_accuracy"]
    assert control["surrogate_accuracy"] != row.result["surrogate_accuracy"]
    assert "held_out_agreement" not in control
    setup = Setup(cell, store=shared)
    models = [control_of(setup), control_of(setup.but(steps=4)), control_of(setup.but(surrogate_weights="B"))]
    prints = [model.fingerprint for model in models]
    assert prints[0] == prints[1] != prints[2]
    assert surrogate_of(setup).fingerprint != surrogate_of(setup.but(steps=4)).fingerprint
    assert control["errors_repeated"] == compare(setup.victim, models[0], setup.held_out)["errors_repeated"]


def test_copies_and_controls_are_accused_where_the_scale_says_so(cell, shared):
    signs = replace(cell, task="signs")
    for changes in ({}, {"experiment": "control", "budget": 0}):
        result = run_cell(replace(signs, **changes), store=shared).result
        assert 0 <= result["dataset_inference_p"] <= 1
    assert "dataset_inference_p" not in run_cell(replace(signs, steps=4), store=shared).result


def test_where_classes_would_decide_nobody_is_accused(cell, shared, monkeypatch):
    def refuse(*_, **__):
        raise OtherClasses("the victim's images come class by class")

    monkeypatch.setattr(extraction, "dataset_inference", refuse)
    setup = Setup(replace(cell, task="signs"), store=shared)
    assert extraction.inferred(setup, setup.victim) == {}


def test_classes_add_up_to_the_row(row, cell, shared):
    result = run_cell(replace(cell, experiment="classes"), store=shared).result
    assert result["recovery"] == row.result["recovery"]
    assert result["images"] == 200
    setup = Setup(cell, store=shared)
    theirs, ours = (model.predict(setup.held_out.images) for model in (setup.victim, surrogate_of(setup)))
    added = (theirs == setup.held_out.labels) & (ours != setup.held_out.labels)
    assert result["errors_introduced"] == int(added.sum())
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


def test_rows_that_are_finished_after_another_cell_failed_are_kept():
    begun, failed, found = Event(), Event(), []

    def run(number: int) -> int:
        if number == 1:
            begun.wait(10)
            raise InputError("the second cell")
        begun.set()
        failed.wait(10)
        return number

    with ThreadPoolExecutor(2) as workers:
        futures = [workers.submit(run, number) for number in range(2)]
        Timer(0.05, failed.set).start()
        with pytest.raises(InputError, match="the second cell"):
            found += schedule._finished(futures)  # a list that grows as the rows come
    assert found == [0]


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
        # An honest account sends 100; of the 64 other images a quarter are of the task.
        ({"experiment": "accounts"}, "objects/adversary holds 10 images, but 100 are needed"),
        ({"experiment": "overlap", "overlap": 0.25}, "atlas/detector holds 10 images, but 48 are needed"),
        ({"experiment": "overlap", "overlap": 1.0}, "objects/detector holds 10 images, but 64 are needed"),
    ],
)
def test_too_few_images_are_told_before_anything_is_trained(change, message, cell, tmp_path, monkeypatch):
    few = ImageSet("few", torch.zeros(10, 3, 32, 32, dtype=torch.uint8), None, (), "few")
    for place, name in (("task", cell.task), ("pool", "atlas")):
        parts = {part: replace(few, name=f"{name}/{part}") for part in ("victim", "adversary", "detector", "test")}
        monkeypatch.setattr(Setup, place, parts)
    with pytest.raises(InputError, match=message):
        run_cell(replace(cell, **change), store=Store(tmp_path))
    assert not (tmp_path / "victim").exists() and not (tmp_path / "detector").exists()


def test_what_detectors_are_asked_about_comes_from_the_whole_part():
    pixels = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    images = ImageSet("numbers", pixels, None, (), "f")
    assert detection.evenly(images, 4).images[:, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert len(detection.evenly(images.subset(torch.arange(3)), 4)) == 3


def test_rows_of_another_part_are_not_taken_for_those_asked_for(row, tmp_path):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    with pytest.raises(InputError, match="table.jsonl holds rows of a part other than 'validation': name another file"):
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
    with pytest.raises(InputError, match="granularity.json is not a results file that rows can be added to"):
        run_table([cell], path, store=Store(tmp_path))
    assert not (tmp_path / "victim").exists()


# -- the other tables ----------------------------------------------------------


@pytest.mark.parametrize("table", grids.tables_for(DRAWN))
def test_every_table_names_each_cell_once(table):
    cells = table_cells(table, DRAWN, seeds=range(5))
    assert len(set(cells)) == len(cells) > 0
    assert all(grids.expected_seconds(cell) > 0 for cell in cells)


def test_the_plan_of_the_drawn_profile():
    counts = {table: len(table_cells(table, DRAWN, seeds=range(5))) for table in grids.tables_for(DRAWN)}
    # Five tasks and five seeds; retina has no top-5, since those are all its classes; three seeds for what is shown.
    assert counts["granularity"] == 25 * 6 - 2 * 5 + 15 * 2
    assert counts["reproduction"] == counts["detection"] == counts["accounts"] == counts["control"] == 25
    assert counts["architecture"] == 2 * 2 * 5 + 2 * 6 * 3
    assert counts["weights"] == 4 * 25
    assert counts["watermark"] == 2 * 25
    assert counts["accusation"] == 2 * 5


def few(table: str) -> list:
    """Return the cells of a table at scale smoke on objects, seed 3 named 0 so that all policies are there."""
    return [replace(cell, seed=3) for cell in table_cells(table, SMOKE, seeds=[0]) if cell.task == "objects"]


TABLES_OF_ATTACKS = ["granularity", "architecture", "diversity", "own_images", "weights", "adaptive", "budget"]


@pytest.mark.parametrize("table", TABLES_OF_ATTACKS)
def test_tables_of_attacks_give_recoveries(table, shared):
    for cell in few(table):
        setup, result = Setup(cell, store=shared), run_cell(cell, store=shared).result
        taught = (setup.victim.predict(setup.held_out.images) == setup.held_out.labels).double().mean().item()
        assert result["victim_accuracy"] == pytest.approx(taught)
        assert result["recovery"] == pytest.approx(result["surrogate_accuracy"] / taught)


@pytest.fixture(scope="module")
def made(shared):
    """The rows of the tables about detectors, by table."""
    tables = ("detection", "overlap", "accounts", "shortcut")
    return {table: [run_cell(cell, store=shared) for cell in few(table)] for table in tables}


def test_the_rows_have_every_column_that_the_claims_ask_for(made):
    columns = {table: set(frame(rows)) for table, rows in made.items()}
    asked = [
        (term["experiment"], term[key].format_map(words))
        for claim in claims.claims()
        for limit in (*claim.bounds, *claim.preconditions, *claim.shown)
        for words in limit.each or ({},)
        for term in limit.terms
        for key in ("column", "images")
        if term.get("experiment") in made and key in term
    ]
    assert {table for table, _ in asked} == set(made)
    assert [(table, column) for table, column in asked if column not in columns[table]] == []
    assert all("images" in names for names in columns.values())


def test_rates_by_hand():
    """At 0.2 three of four benign scores are accepted, and two of three others are caught."""
    found = detection.rates(torch.tensor([0.1, 0.2, 0.2, 0.6]), torch.tensor([0.2, 0.5, 0.7]), 0.2)
    assert found == pytest.approx({"tpr": 3 / 4, "tnr": 2 / 3, "balanced_accuracy": 17 / 24})


def test_a_detection_row_says_what_each_detector_catches(made, shared):
    [row] = made["detection"]
    result, setup = row.result, Setup(row.cell, store=shared)
    most = setup.settings.judged_on
    honest, pool = (setups.evenly(one, most).images for one in (setup.held_out, setup.pool[setup.part]))
    right = (~setup.detector.detect(honest)).double().mean().item(), setup.detector.detect(pool).double().mean().item()
    assert result["binary"]["pool"]["balanced_accuracy"] == pytest.approx(sum(right) / 2)
    for name in ("binary", "odin", "mahalanobis"):
        for pool in ("pool", "second"):
            found = result[name][pool]
            assert 0 <= found["tnr_at_95"] <= 1
            accepted, caught = found["roc"]
            assert (accepted[0], caught[0], accepted[-1], caught[-1]) == (0, 1, 1, 0)
            # The area under the curve by trapezoids, of 41 points, is about the AUROC.
            area = sum((accepted[i + 1] - accepted[i]) * (caught[i] + caught[i + 1]) / 2 for i in range(40))
            assert area == pytest.approx(found["auroc"], abs=0.03)
    assert result["caught"]["benign"] == pytest.approx(1 - result["binary"]["pool"]["tpr"])
    assert result["caught"]["pool"] == pytest.approx(result["binary"]["pool"]["tnr"])
    assert set(result["caught"]) == {"benign", "pool", "second", "own", "shifted"}
    assert result["images"] == 128


class Known(Detector):
    """Catches the images that it does not know."""

    threshold, fingerprint = 0.5, "known"

    def __init__(self, *known: ImageSet):
        self.known = {image.numpy().tobytes() for one in known for image in one.images[:]}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([float(image.numpy().tobytes() not in self.known) for image in images[:]])


def test_a_detector_that_knows_the_task_catches_the_pools_and_the_shifted_source_by_hand(shared, monkeypatch):
    [cell] = few("detection")
    setup = Setup(cell, store=shared)
    own = [setup.task[part] for part in ("validation", "test", "adversary")]
    monkeypatch.setattr(Setup, "detector", Known(*own))
    result = detection.detection(setup)
    assert result["caught"] == {"benign": 0, "pool": 1, "second": 1, "own": 0, "shifted": 1}
    perfect = {"tpr": 1, "tnr": 1, "balanced_accuracy": 1, "auroc": 1, "tnr_at_95": 1}
    for pool in ("pool", "second"):
        assert {name: value for name, value in result["binary"][pool].items() if name != "roc"} == perfect
    # The other two accept all of the validation images, as it does: their highest scores are their thresholds.
    assert result["validation_tpr"] == 1
    labels = setup.held_out.labels
    right = (setup.victim.logits(setup.held_out.images).argmax(1) == labels).double().mean().item()
    assert result["victim_accuracy"] == pytest.approx(right)
    # Where some classes are rare the accuracy is the mean over them.
    monkeypatch.setattr(Setup, "balanced", True)
    rare = setup.held_out.subset(torch.cat([(labels == 0).nonzero()[:4, 0], (labels == 1).nonzero()[:1, 0]]))
    guess = setup.victim.logits(rare.images).argmax(1)
    by_class = [(guess[:4] == 0).double().mean().item(), float(guess[4] == 1)]
    assert detection._accuracy(setup, guess, rare) == pytest.approx(sum(by_class) / 2)


@pytest.mark.parametrize(("share", "tnr", "public"), [(0.0, 1.0, 1.0), (0.25, 0.75, 1.0), (1.0, 0.0, None)])
def test_overlap_by_hand(share, tnr, public, shared, monkeypatch):
    """A detector that takes the shifted source for the victim's catches the public part alone."""
    cell = replace(few("overlap")[0], overlap=share, pool="objects/shifted")
    setup = Setup(cell, store=shared)
    knows = Known(setup.held_out, setup.queries())
    monkeypatch.setattr(Setup, "detector_of", lambda self, benign, ood, chain: knows)
    found = detection.overlap(setup)
    assert found["tpr"] == 1 and found["tnr"] == tnr and found["tnr_public"] == public
    assert found["balanced_accuracy"] == (1 + tnr) / 2
    assert found["auroc"] == pytest.approx(tnr + (1 - tnr) / 2)
    assert found["images"] == 64


def test_without_overlap_the_detector_is_one_for_both_sources(shared, monkeypatch):
    asked = []

    def noted(self, benign, ood, *, chain):
        asked.append(ood.fingerprint)
        return Always(1.0)

    monkeypatch.setattr(Setup, "detector_of", noted)
    for pool in ("objects/shifted", "objects"):
        for share in (0.0, 0.5):
            detection.overlap(Setup(replace(few("overlap")[0], overlap=share, pool=pool), store=shared))
    assert asked[0] == asked[2] and len(set(asked)) == 3


def test_a_defended_row_says_what_the_defense_did(shared):
    found = {(cell.defense, str(cell.pool)): run_cell(cell, store=shared).result for cell in few("defended")}
    denied, shuffled, label = (found[defense, "atlas"] for defense in ("deny", "shuffle", "label"))
    assert denied["answered"] == pytest.approx(1 - denied["caught"])
    assert shuffled["answered"] == label["answered"] == 1
    assert {result["asked"] for result in (denied, shuffled, label)} == {256}
    # An honest user gets the label where only the label is shown, so loses nothing.
    assert label["honest_accuracy"] == denied["victim_accuracy"]
    assert denied["honest_accuracy"] <= denied["victim_accuracy"]
    assert denied["honest_refused"] == denied["honest_caught"] == shuffled["honest_caught"]
    assert shuffled["honest_refused"] == label["honest_refused"] == 0
    # A denied answer is off by all that is missing.
    assert denied["honest_l1"] == pytest.approx(denied["honest_refused"], abs=1e-6)
    assert 0 < label["honest_l1"] <= 2 * label["honest_caught"]
    assert ("shuffle", "objects/shifted") in found


def test_where_a_denied_query_is_free_the_attacker_goes_on_until_the_budget_is_answered(cell, shared):
    setup = Setup(replace(cell, defense="deny-free", budget=64), store=shared)
    attack, transfer = collected(setup)
    answered = ~transfer.answers.denied
    assert attack.budget == len(setup.queries()) == 512
    assert answered.sum() == 64 and answered[-1] or len(transfer) == 512
    assert len(transfer) > 64
    result = run_cell(setup.cell, store=shared).result
    assert result["asked"] == len(transfer)
    assert result["answered"] == pytest.approx(answered.double().mean().item())


@pytest.mark.parametrize(("denied", "budget", "paid"), [("0101001", 2, 3), ("0101001", 4, 6), ("0101001", 9, 7)])
def test_queries_that_a_budget_of_answers_pays_for_by_hand(denied, budget, paid):
    labels = torch.tensor([-1 if sign == "1" else 0 for sign in denied])
    assert _paid(TransferSet(torch.arange(7), Answers(labels), None), budget) == paid


def test_a_perturbation_is_as_strong_as_costs_no_more_than_shuffling_does(shared):
    cells = table_cells("perturbation", SMOKE, seeds=[3])
    found = {(cell.defense, cell.pool.is_task): run_cell(cell, store=shared).result for cell in cells}
    assert {task for *_, task in [(cell.task,) for cell in cells]} == {"signs"} and len(found) == 6
    for own in (False, True):
        for name in ("misinformation", "reverse-sigmoid"):
            result = found[name, own]
            assert result["strength"] in setups.STRENGTHS[name]
            assert result["caught"] == result["honest_caught"] == 1 and result["honest_refused"] == 0
            assert result["strength"] == found[name, not own]["strength"]
    setup = Setup(cells[1], store=shared)
    validation = setup.task["validation"].images[:]
    probabilities = setup.victim.logits(validation).softmax(1)
    shuffling = setup.but(defense="shuffle").defense
    caught = shuffling.detector.detect(validation)
    costs = [
        (policy.answer(probabilities, where, validation) - probabilities).abs().sum(1).mean().item()
        for policy, where in ((setup.defense.policy, caught | True), (shuffling.policy, caught))
    ]
    assert costs[0] <= costs[1] + 1e-6


def test_a_watermark_marks_about_its_share_and_the_marked_answers_are_wrong(shared):
    cell, longer = few("watermark")
    assert (cell.steps, longer.steps) == (8, 24)
    setup = Setup(cell, store=shared)
    transfer = collected(setup)[1]
    images = setup.queries().images[transfer.indices]
    truth = PredictionAPI(setup.victim).query(images).labels
    marked = transfer.answers.labels != truth
    assert 3 <= int(marked.sum()) <= 30  # 12.8 of 256 are expected
    told, result = transfer.answers.labels[marked], run_cell(cell, store=shared).result
    assert result["marked"] == int(marked.sum())
    for name, model in (("", surrogate_of(setup)), ("_by_control", control_of(setup))):
        assert result[f"marks_repeated{name}"] == int((model.predict(images[marked]) == told).sum())
    after = run_cell(longer, store=shared).result
    assert after["marked"] == result["marked"]
    assert after["marks_repeated_by_control"] == result["marks_repeated_by_control"]
    undefended = setup.but(defense="none")
    assert api_of(setup).fingerprint != api_of(undefended).fingerprint
    with pytest.raises(InputError, match="^the cell's defense is none: name one$"):
        _ = undefended.defense


def test_costs_of_granularities_by_hand():
    """One answer, 0.5, 0.3, 0.2: what is hidden, and how far off a surrogate is told to be."""
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    label, top, even = (cost_of(Granularity.parse(name), logits) for name in ("label", "top-1", "temperature-1.0"))
    assert label == pytest.approx({"hidden_mass": 0.5, "divergence_shown": 0.0, "l1": 0.5}, abs=1e-6)
    # Filled in evenly: 0.5, 0.25, 0.25; renormalized: 1, 0, 0.
    wanted = {"hidden_mass": 0.5, "divergence_shown": 0.0, "l1_even": 0.05, "l1_renormalized": 0.5}
    assert top == pytest.approx(wanted, abs=1e-6)
    assert even == pytest.approx({"hidden_mass": 0.0, "divergence_shown": 0.0, "l1": 0.0}, abs=1e-6)


def test_answers_are_measured_on_the_pool_and_on_test_images(shared):
    [cell] = few("answers")
    result = run_cell(cell, store=shared).result
    assert result["images"] == 200
    for part in ("on_pool", "on_test"):
        found = result[part]
        assert found["mutual_information"] == pytest.approx(found["entropy_of_mean"] - found["mean_entropy"])
        assert set(found) > set(SMOKE.granularities)
        assert found["label"]["hidden_mass"] > found["top-2"]["hidden_mass"] > 0
        assert found["top-2"]["divergence_shown"] == pytest.approx(0, abs=1e-9)
    assert result["on_pool"] != result["on_test"]


def test_asking_twice_costs_as_much_as_asking_about_twice_as_many_images(shared):
    [cell] = few("asked_twice")
    result = run_cell(cell, store=shared).result
    setup = Setup(cell, store=shared)
    plain = run_cell(replace(cell, experiment="extraction"), store=shared).result
    assert result["recovery_all"] == plain["recovery"]
    attack = TwiceKnockoff(budget=cell.budget, seed=cell.seed)
    altered = setup.detector.detect(attack.asked(setup.queries()).images)
    assert result["shuffled"] == altered.double().mean().item()
    assert 0 <= result["consistent"] <= 1
    assert result["auroc"] is None or 0.5 < result["auroc"] <= 1


def test_overlap_rows(made):
    shares = {row.cell.overlap: row.result for row in made["overlap"] if row.cell.pool.is_shifted}
    assert list(shares) == [0.0, 0.5]
    # Each share has a detector of its own.
    assert len({(found["tpr"], found["auroc"]) for found in shares.values()}) == 2


# -- accounts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (range(1, 21), 1),  # of twenty the first
        (range(1, 41), 2),  # of forty the second
        ([*range(30, 40), *[None] * 10], 30),  # half of them are flagged
        ([*range(30, 39), *[None] * 11], None),
        ([None, 500, 100], 100),
        ([None] * 20, None),
    ],
)
def test_the_flag_time_is_the_fifth_percentile_where_half_are_flagged(times, expected):
    assert accounts.flag_time(list(times)) == expected


@pytest.mark.parametrize(
    ("queries", "flag_time", "expected"), [(2_500, 100, 50), (2_500, 99, 51), (2_500, 1_000, 20), (2_500, None, 20)]
)
def test_sybil_accounts_stay_below_half_of_the_flag_time(queries, flag_time, expected):
    """2 · 2,500 / 99 is 50.5."""
    assert accounts.sybil_accounts(queries, flag_time) == expected


def test_an_accounts_row(made):
    [row] = made["accounts"]
    cell, result = row.cell, row.result
    assert result["images"] == 2
    for name in ("prada", "counting"):
        found = result[name]
        assert found["queries"] == cell.budget == 256 and found["accounts"] == len(found["flag_times"]) == 20
        assert isinstance(found["positive_control_flagged"], bool)
        assert 0 <= found["honest_flagged"] <= 1 and 0 <= found["sybil_flagged"] <= 1


@pytest.mark.parametrize(("time", "number", "flagged"), [(None, 20, 1.0), (3, 171, 0.0)])
def test_the_count_of_an_adversary_that_is_always_caught_by_hand(time, number, flagged, shared, monkeypatch):
    """None of 2 · 100 honest queries is caught: p = 1 / 200, and p³ is the first power below one in a million."""
    [cell] = few("accounts")
    times = {"objects": {"counting": time}} if time else {}
    monkeypatch.setitem(SCALES, "smoke", replace(SMOKE, flag_times=times))
    setup = Setup(cell, store=shared)
    monkeypatch.setattr(Setup, "detector", Known(setup.task["adversary"]))
    found = accounts.accounts(setup)["counting"]
    assert found["rate"] == 1 / 200 and found["honest_flagged"] == 0
    assert found["flag_times"] == [3] * 20 and found["positive_control_flagged"] is True
    # 256 queries: twenty accounts send twelve or thirteen each, and 171 one or two; 2 · 256 / 3 is 170.7.
    assert (found["accounts"], found["sybil_flagged"]) == (number, flagged)


def test_honest_accounts_of_the_two_sides_share_no_image_and_none_sends_one_twice(shared, monkeypatch):
    [cell] = few("accounts")
    sides = []

    def drawn(asked, count, length, generator):
        sides.append(made := real(asked, count, length, generator))
        return made

    real = accounts._drawn
    monkeypatch.setattr(accounts, "_drawn", drawn)
    setup = Setup(cell, store=shared)
    accounts.accounts(setup)
    known, judged, _ = ([[image.numpy().tobytes() for image in one.images] for one in side] for side in sides)
    assert [len(set(one)) for one in (*known, *judged)] == [100] * 4
    assert not set(known[0] + known[1]) & set(judged[0] + judged[1])
    assert known[0] != known[1]


def test_the_shortcut_rows_say_what_the_attack_recovers_behind_each_detector(made):
    [row] = made["shortcut"]
    result = row.result
    sides = {f"{kind}-{how}" for kind in PROCESSING for how in ("differs", "matched")}
    assert set(result["sides"]) == {"plain", *sides}
    assert set(result["recovery"]) == {"undefended", *(f"{ATTACKED}-differs{kind}" for kind in ("", "-hardened"))}
    for found in result["recovery"].values():
        assert set(found) == {"none", PROCESSING[ATTACKED]}
    for name in (*shortcut.HARDENED, *(f"{name}-hardened" for name in shortcut.HARDENED), "odin", "mahalanobis"):
        assert set(result["caught"][name]) == set(result["accepted"][name]) == set(EVASIONS)


class Always(Detector):
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
    # Where nothing is caught the API answers as if undefended.
    assert result["recovery"][f"{ATTACKED}-differs"] == open_to_all
    stopped = result["recovery"][f"{ATTACKED}-differs-hardened"]
    assert all(stopped[sent] != open_to_all[sent] for sent in stopped)
    assert result["caught"][f"{ATTACKED}-differs-hardened"] == dict.fromkeys(EVASIONS, 1.0)
    assert result["accepted"][f"{ATTACKED}-differs-hardened"] == dict.fromkeys(EVASIONS, 0.0)


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Also if it is killed: otherwise each would keep its memory for good."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, os, signal, time\n"
        "from extractbook.reproduction import schedule\n"
        "def work(place):\n"
        "    schedule._start_worker()\n"
        "    open(place, 'w').close()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        f"    one = multiprocessing.get_context('spawn').Process(target=work, args=({str(tmp_path / 'begun')!r},))\n"
        "    one.start()\n"
        "    print(one.pid, flush=True)\n"
        "    while not os.path.exists(" + repr(str(tmp_path / "begun")) + "):\n"
        "        time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    end = time.monotonic() + 60
    while is_running(int(done.stdout)):
        assert time.monotonic() < end, "the worker is still there"
        time.sleep(0.1)


def is_running(process: int) -> bool:
    """Return whether a process exists and has not ended; one that nobody has waited for is listed as a zombie."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
