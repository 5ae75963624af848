"""The scale of photographs, in miniature: every experiment runs on files, and its rows are what the claims ask for."""

import json
from dataclasses import replace

import numpy as np
import photographs
import pytest
import torch

from extractbook.reproduction import TABLES, Setup, claims, editions, grids, run_cell, table_cells
from extractbook.reproduction.experiments import accounts, resampling, shortcut
from extractbook.reproduction.freshness import settings_of, versions_of
from extractbook.reproduction.results import frame
from extractbook.reproduction.run import EXPERIMENTS, headline
from extractbook.reproduction.scales import SCALES, Cut, Scale, scale
from extractlib.data.sources import Loader
from extractlib.defenses.detectors import BinaryDetector
from extractlib.errors import InputError
from extractlib.evaluation import evaluate_labels
from extractlib.metrics import balanced_accuracy, mean_class_accuracy
from extractlib.models import networks
from extractlib.store import Store

MINI, PHOTOS = photographs.miniature(), scale("photos")


@pytest.fixture(scope="module", autouse=True)
def registered():
    photographs.register()
    yield
    photographs.forget()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return photographs.write_files(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def run(folders, store):
    rows = {}

    def run(cell):
        if cell not in rows:
            rows[cell] = run_cell(cell, store=store, folders=folders, device="cpu")
        return rows[cell]

    return run


def cells(table: str, *, task: str = "gtsrb", seed: int = 1, **wanted) -> list:
    found = [cell for cell in table_cells(table, MINI, seeds=[seed]) if cell.task == task]
    return [cell for cell in found if all(getattr(cell, name) == value for name, value in wanted.items())]


def the(table: str, **wanted):
    [cell] = cells(table, **wanted)
    return cell


def setup_of(cell, folders, store) -> Setup:
    return Setup(cell, store=store, folders=folders, device="cpu")


# -- every experiment runs, and says what the claims need ------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_a_cell_of_every_block_of_every_table_runs(table, run):
    """The first of each kind of cell: by experiment, attack, defense and weights."""
    if not any(TABLES[table].cells(MINI, seed=1)):
        pytest.skip("the miniature has no such cells")
    seen = set()
    for cell in table_cells(table, MINI, seeds=[1]):
        kind = (cell.experiment, cell.attack, cell.reward, cell.defense, cell.victim_weights, cell.surrogate_weights)
        if kind in seen:
            continue
        seen.add(kind)
        row = run(cell)
        assert np.isfinite(headline(row))
        assert row.result["images"] > 0
        assert row.provenance["settings"] == settings_of(cell)
    assert {cell[0] for cell in seen} <= set(EXPERIMENTS)


def test_every_claim_finds_its_rows_by_a_cell_of_the_scale():
    """What a bound asks for is a cell of some table at the scale, but where the grid leaves it out on photographs."""
    made = {cell for table in TABLES for cell in listed(table, shown=False)}
    asked = Asked(made)
    for claim in (claim for claim in claims.claims() if not claim.photos):
        for stated in (*claim.bounds, *claim.preconditions):
            for task in PHOTOS.tasks:
                if (claims.paper.drawn(task)) in stated.tasks:
                    list(asked.bounds(stated, task))
    between = {kind for kind in PHOTOS.granularities if kind != "label"}
    left_out = {
        (experiment, task, tuple(sorted(cell.items())))
        for experiment, task, cell in (
            *(("accounts", task, {}) for task in PHOTOS.tasks if task != "gtsrb"),
            *(("extraction", "cifar10", {"granularity": kind}) for kind in between),
            *(("extraction", "cifar10", {"granularity": kind, "fill": "renormalized"}) for kind in ("top-5", "top-2")),
        )
    }
    # The controls of B11 have seeds of their own.
    assert {one for one in asked.lacking if one[0] != "control"} == left_out
    assert asked.found > 100


def listed(table: str, of: Scale = PHOTOS, *, shown: bool = True) -> list:
    """Return the cells of a table; none where all are left out."""
    try:
        return table_cells(table, of, seeds=[1000], shown=shown)
    except InputError as error:
        assert f"table {table!r} has no cell for" in str(error)
        return []


class Asked(claims.Evidence):
    """Evidence without rows that notes which cells it is asked for, and which of them no table has."""

    def __init__(self, made: set):
        rows = [{**cell.to_json(), "seed": cell.seed} for cell in made]
        import pandas as pd

        super().__init__(pd.DataFrame(rows), PHOTOS, seeds=(1000,))
        self.lacking, self.found = set(), 0

    def rows(self, task, *, experiment="extraction", seeds=(), **cell):
        found = super().rows(task, experiment=experiment, seeds=seeds, **cell)
        self.found += len(found)
        if found.empty:
            self.lacking.add((experiment, task, tuple(sorted(cell.items()))))
        return found.iloc[:0]


def test_claims_on_photographs_use_the_wider_of_two_intervals(run):
    rows = [run(the("reproduction", seed=seed)) for seed in (1, 2)]
    found = frame(rows)
    evidence = claims.Evidence(found, MINI, seeds=(1, 2))
    quantity = evidence.find("recovery", "gtsrb")
    assert quantity.values.shape == (2, 1 + MINI.resamples)
    assert evidence.find("constant", "gtsrb").values.shape == (2, 1 + MINI.resamples)
    both = evidence.find("recovery", "gtsrb") - evidence.find("victim_accuracy", "gtsrb")
    assert both.values.shape == (2, 1 + MINI.resamples)


NUMBERS = {
    "reproduction": ("recovery", "recovery_above_constant", "victim_accuracy"),
    "control": ("recovery", "victim_accuracy"),
    "asked_twice": ("recovery_consistent", "recovery_all"),
    "detection": (
        *(f"{name}.{pool}.balanced_accuracy" for name in ("binary", "unmatched") for pool in ("pool", "second")),
        *(f"{name}.pool.tnr_at_95" for name in ("binary", "odin", "mahalanobis")),
        *("caught.shifted", "caught.benign", "victim_accuracy", "shifted_victim_accuracy"),
    ),
    "shortcut": (
        "sides.compression-differs.balanced_accuracy",
        "caught.resampling-differs.bicubic",
        "caught.compression-differs-hardened.jpeg-75",
    ),
}


@pytest.mark.parametrize("table", NUMBERS)
def test_numbers_under_resamples_stand_beside_their_numbers(table, run):
    row = frame([run(cells(table)[0])]).iloc[0]
    for name in NUMBERS[table]:
        draws = row[f"resampled.{name}"]
        assert len(draws) == MINI.resamples
        assert np.isfinite(row[name]) and np.isfinite(draws).all()


def test_defended_rows_hold_what_honest_users_lose_under_resamples(run):
    row = frame([run(the("defended", defense="deny"))]).iloc[0]
    for name in ("honest_accuracy", "honest_refused", "recovery"):
        assert len(row[f"resampled.{name}"]) == MINI.resamples


def test_overlap_under_resamples_is_of_both_parts(run):
    row = run(cells("overlap", overlap=0.5)[0])
    assert set(row.result["resampled"]) == {"balanced_accuracy", "tnr_public"}
    assert abs(np.mean(row.result["resampled"]["tnr_public"]) - row.result["tnr_public"]) <= 0.5


# -- resamples -----------------------------------------------------------------


class Resampled:
    """Stands for a setup at a scale with many resamples."""

    settings = replace(MINI, resamples=4_000)


def test_resamples_are_the_same_for_all_and_draw_as_many_images():
    first = resampling.resamples(Resampled, 30, "held out")
    assert first.shape == (4_000, 30) and (first.sum(1) == 30).all()
    assert np.array_equal(first, resampling.resamples(Resampled, 30, "held out"))
    assert not np.array_equal(first, resampling.resamples(Resampled, 30, "pool"))


def test_accuracies_by_hand():
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 2, 0], [0, 4, 0, 0]])
    predicted, labels = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])
    assert resampling.accuracies(weights, predicted, labels, False).tolist() == [0.5, 1.0, 0.0]
    # Of the third resample one class alone was drawn.
    assert resampling.accuracies(weights, predicted, labels, True).tolist() == [0.5, 1.0, 0.0]
    uneven = np.array([[3.0, 1, 0, 1]])
    assert resampling.accuracies(uneven, predicted, labels, True).tolist() == [(3 / 4 + 0) / 2]


def test_numbers_under_resamples_spread_as_the_binomial_says():
    predicted = (torch.arange(400) % 4 > 0).long()
    draws = resampling.accuracies(
        resampling.resamples(Resampled, 400, "held out"), predicted, torch.ones(400).long(), False
    )
    assert draws.mean() == pytest.approx(0.75, abs=0.002)
    assert draws.std() == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.05)


def test_joined_results_keep_what_both_have_under_resamples():
    first, second = {"a": 1, "resampled": {"a": [1.0]}}, {"b": 2, "resampled": {"b": [2.0]}}
    assert resampling.joined(first, second) == {"a": 1, "b": 2, "resampled": {"a": [1.0], "b": [2.0]}}
    assert resampling.joined({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}


def test_scales_without_resamples_have_rows_as_before():
    class Drawn:
        settings = scale("smoke")

    assert resampling.kept(Drawn, {"a": np.zeros(0)}) == {}


def test_labels_are_compared_as_models_are():
    found = evaluate_labels(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0]), balanced=True)
    assert (found.victim_accuracy, found.surrogate_accuracy, found.errors, found.n) == (0.75, 1.0, 1, 3)


# -- networks, weights, splits ---------------------------------------------------------


def test_the_second_weights_are_another_networks(folders, store):
    setup = setup_of(the("weights"), folders, store)
    trainer = setup.surrogate_trainer()
    assert trainer.network == photographs.OTHER and setup.victim_trainer().network == photographs.NETWORK
    state = networks.fingerprint_of(networks.imagenet_backbone(photographs.OTHER))
    assert networks.fingerprint_of(trainer.backbone) == state


def test_victims_from_scratch_start_from_nothing(folders, store):
    cell = the("architecture", victim="tiny-plain")
    trainer = setup_of(cell, folders, store).victim_trainer()
    assert (trainer.network, trainer.backbone) == ("tiny-plain", None)


def test_rows_say_which_public_weights_made_them(run):
    state = networks.imagenet_backbone(photographs.NETWORK)
    assert run(the("reproduction")).provenance["data"]["weights"] == networks.fingerprint_of(state)


def test_all_models_of_a_cell_share_what_frozen_layers_made(folders, store, run):
    run(the("reproduction"))
    assert len(list(store.root.glob("activations/*"))) <= 2  # of both public weights


def test_the_detector_has_all_images_of_the_owner(folders, store):
    task = setup_of(the("reproduction"), folders, store).task
    known, victim = task["detector"], task["victim"]
    assert len(known) == len(victim)
    assert sorted(map(bytes, known.images[:].numpy())) == sorted(map(bytes, victim.images[:].numpy()))
    first = known.labels[: len(known) // 2].bincount(minlength=4)
    assert first.min() > 0.5 * first.max()  # in random order, not class by class


def test_tracks_and_patients_are_never_parted(folders, store):
    for name in ("gtsrb", "eyepacs"):
        task = setup_of(the("reproduction", task=name), folders, store).task
        parts = [
            set(map(bytes, task[part].images[:].numpy())) for part in ("victim", "adversary", "validation", "test")
        ]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_classes_of_a_weighted_task_count_equally_in_training_and_in_accuracy(run, folders, store):
    cell = the("reproduction", task="eyepacs")
    setup, row = setup_of(cell, folders, store), run(cell)
    assert setup.victim_trainer().recipe.class_weights and setup.surrogate_trainer().recipe.class_weights
    assert not setup_of(the("reproduction"), folders, store).victim_trainer().recipe.class_weights
    labels = setup.held_out.labels
    assert row.result["victim_accuracy"] == mean_class_accuracy(setup.victim.predict(setup.held_out.images), labels)


# -- detectors behind one chain ----------------------------------------------------------


def test_the_detector_brings_both_sides_to_one_size(run, folders, store):
    result = run(the("detection")).result
    assert set(result["unmatched"]) == set(result["binary"])
    setup = setup_of(the("detection"), folders, store)
    assert (setup.chain, setup.detector.chain) == ("chain-8", "chain-8")
    # What differs only where the chain brings it together is one image to the detector.
    image = setup.held_out.images[:1]
    from extractlib.data import transforms

    once = transforms.apply(image, "chain-8")
    assert torch.equal(setup.detector.score(image), BinaryDetector(setup.detector.model).score(once))
    assert setup.detector.fingerprint != BinaryDetector(setup.detector.model).fingerprint
    assert setup_of(the("detection", task="eyepacs"), folders, store).chain == "none"
    assert "unmatched" not in run(the("detection", task="eyepacs")).result


def test_mahalanobis_looks_at_several_layers(folders, store):
    from extractbook.reproduction.experiments.detection import baselines

    detector, _ = baselines(setup_of(the("detection"), folders, store))["mahalanobis"]
    assert len(detector.weights) == 1 + 3


def test_sides_of_the_shortcut_by_hand(folders, store):
    setup = setup_of(the("shortcut"), folders, store)
    assert shortcut.sides_of(setup) == {
        "plain": ("size-8", "size-8"),
        "compression-differs": ("size-8+jpeg-75", "size-8"),
        "compression-matched": ("size-8+jpeg-75", "size-8+jpeg-75"),
        "resampling-differs": ("none", "none"),
        "resampling-matched": ("size-8", "size-8"),
    }


def test_a_shortcut_that_is_not_played_has_no_recoveries(run):
    result = run(the("shortcut")).result
    assert "recovery" not in result and not {"odin", "mahalanobis"} & set(result["caught"])
    assert set(result["caught"]["plain"]) == set(shortcut.EVASIONS)


# -- accounts -----------------------------------------------------------------------------


def test_honest_accounts_share_no_image():
    asked = accounts.Queries(torch.arange(26)[:, None], torch.arange(26), torch.zeros(26).bool())
    found = accounts._apart(asked, 50, 8, np.random.default_rng(0))
    sent = torch.cat([one.labels for one in found])
    assert [len(one.labels) for one in found] == [8, 8, 8] and len(sent.unique()) == 24
    assert len(accounts._apart(asked, 2, 8, np.random.default_rng(0))) == 2


def test_accounts_say_how_many_honest_ones_there_are(run, folders, store):
    part = setup_of(the("accounts"), folders, store).task["adversary"]
    assert run(the("accounts")).result["images"] == len(part) // 2 // MINI.stream


# -- the scale itself ------------------------------------------------------------------------


def test_the_scale_is_the_papers_five_tasks_on_the_public_weights():
    assert [claims.paper.drawn(task) for task in PHOTOS.tasks] == ["things", "birds", "retina", "signs", "objects"]
    for name in (PHOTOS.network, PHOTOS.other_weights):
        assert name in networks.IMAGENET and networks.build(name, classes=2, seed=0).frozen
    recipes = (PHOTOS.victim, PHOTOS.surrogate, PHOTOS.detector)
    assert not any(recipe.shift or recipe.flip or recipe.crop for recipe in recipes)
    assert PHOTOS.surrogate.steps and editions.of_scale("photos") == "photos"


def test_the_middle_budget_is_what_the_tests_say():
    assert PHOTOS.middle_budget == 10_000
    assert {cell.budget for cell in table_cells("public", PHOTOS, seeds=[1000])} == {4 * PHOTOS.own_number}


def test_deciding_seeds_wait_for_the_freeze(tmp_path, monkeypatch):
    editions.check_seeds("photos", editions.looks("photos")[0])
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text("[drawn]\n")
    with pytest.raises(InputError, match="the freeze 'photos' is not in EDITIONS.toml: explore on seeds 1000 to 1009"):
        editions.check_seeds("photos", editions.looks("photos")[0])


def test_what_a_grid_leaves_out_is_no_cell():
    whole = replace(PHOTOS, left_out=())
    rule = Cut(what="", table="weights", cells={"victim_weights": "B"})
    weights = {(cell.victim_weights, cell.surrogate_weights) for cell in table_cells("weights", whole, seeds=[1])}
    assert weights == {(one, other) for one in "AB" for other in "AB"}
    left = {
        (cell.victim_weights, cell.surrogate_weights)
        for cell in table_cells("weights", replace(whole, left_out=(rule,)), seeds=[1])
    }
    assert left == {("A", "A"), ("A", "B")}
    assert all(one.what and one.table in TABLES for one in PHOTOS.left_out)
    made = {cell.surrogate_weights for cell in table_cells("weights", PHOTOS, seeds=[1])}
    assert made == {"B"}
    assert "accusation" not in grids.tables_for(PHOTOS) and "accusation" in grids.tables_for(
        replace(PHOTOS, left_out=())
    )


def test_settings_of_photographs_are_in_their_rows_and_in_no_others():
    own = settings_of(cells("detection")[0])
    assert {name: own[name] for name in ("matched", "judged_on", "resamples", "other_weights", "accounts_apart")} == {
        "matched": 8,
        "judged_on": 20,
        "resamples": 5,
        "other_weights": photographs.OTHER,
        "accounts_apart": True,
    }
    assert "matched" not in settings_of(cells("detection", task="eyepacs")[0])
    drawn = settings_of(table_cells("detection", scale("smoke"), seeds=[1])[0])
    assert not {"matched", "judged_on", "resamples", "task_shares"} & set(drawn)
    assert "transform" in versions_of(cells("reproduction")[0])


def test_a_class_of_which_the_part_has_no_image_counts_as_zero(folders, store):
    missing = 0
    for seed in range(1, 4):
        cell = replace(the("classes"), seed=seed)
        row = run_cell(cell, store=store, folders=folders, device="cpu", part="validation")
        json.dumps(row.to_json(), allow_nan=False)
        absent = np.array(row.result["victim_confusion"]).sum(axis=1) == 0
        assert not np.array(row.result["victim_accuracy"])[:, absent].any()
        missing += absent.sum()
    assert missing


# -- bad inputs -------------------------------------------------------------------------------


def test_a_pool_smaller_than_the_budget_is_refused_before_a_victim_is_trained(folders, tmp_path, monkeypatch):
    cell = replace(the("reproduction"), budget=1_000)
    SCALES["photos-large"] = replace(MINI, name="photos-large", budget=1_000, budgets=(1_000,))
    monkeypatch.setattr(Setup, "victim", property(lambda self: pytest.fail("a victim was trained")))
    try:
        with pytest.raises(InputError, match="budget is 1000, but the pool holds"):
            run_cell(replace(cell, scale="photos-large"), store=Store(tmp_path), folders=folders, device="cpu")
    finally:
        del SCALES["photos-large"]


def test_a_backbone_of_another_network_is_refused(folders, tmp_path, monkeypatch):
    wrong = networks.imagenet_backbone(photographs.OTHER)
    monkeypatch.setitem(networks.IMAGENET, photographs.NETWORK, lambda: wrong)
    with pytest.raises(InputError, match="^the backbone does not fit network 'tiny-lite'"):
        run_cell(the("reproduction"), store=Store(tmp_path), folders=folders, device="cpu")


def test_sources_share_what_is_shifted(folders, store):
    options = {"store": store, "folders": folders, "image_size": photographs.SIDE, "shares": {"task": MINI.task_shares}}
    weak, strong = (
        Loader(**options, shifts={"gtsrb": strength}).queries("gtsrb/shifted", seed=1) for strength in (0.2, 1.0)
    )
    own = Loader(**options).queries("gtsrb", seed=1)
    plain = Loader(**options).queries("gtsrb/shifted", seed=1)
    assert plain.fingerprint == strong.fingerprint != weak.fingerprint
    change = [(one.images[:].float() - own.images[:].float()).abs().mean() for one in (weak, strong)]
    assert change[0] < 0.7 * change[1]
    again = Loader(**options).queries("gtsrb/shifted", seed=1)
    assert torch.equal(again.images[:], plain.images[:])


def test_balanced_accuracy_of_the_shortcut_is_that_of_its_rates(run):
    for rates in run(the("shortcut")).result["sides"].values():
        assert rates["balanced_accuracy"] == balanced_accuracy(rates["tpr"], rates["tnr"])


def test_each_scale_of_photographs_leaves_out_cells_that_there_are():
    for rule in PHOTOS.left_out:
        others = tuple(one for one in PHOTOS.left_out if one is not rule)
        more, fewer = (set(listed(rule.table, replace(PHOTOS, left_out=left))) for left in (others, PHOTOS.left_out))
        assert fewer < more, rule.what
    assert grids.CUTS
