"""The authors' figures and claims as data."""

from dataclasses import FrozenInstanceError

import pytest

from extractbook.reproduction import paper
from extractlib.errors import InputError


def test_main_table_holds_the_authors_figures():
    rows = paper.tables()["reproduction"]["rows"]
    assert {name: row["recovery"] for name, row in rows.items()} == {
        "Caltech-RN34": 0.97,
        "CUBS-RN34": 0.91,
        "Diabetic5-RN34": 0.75,
        "GTSRB-RN34": 0.96,
        "CIFAR10-RN34": 0.93,
    }
    assert rows["Caltech-RN34"]["orekondy_recovery"] == 0.96


@pytest.mark.parametrize("table", ["reproduction", "granularity", "query_diversity", "defended"])
def test_recoveries_are_the_ratio_of_the_accuracies(table):
    tables = paper.tables()
    for name, row in tables[table]["rows"].items():
        ratio = row["surrogate"] / tables["reproduction"]["rows"][name]["victim"]
        assert ratio == pytest.approx(row["recovery"], abs=0.02), name  # read off slides that cut, round and err


def test_fifteen_claims_in_order():
    assert [claim.id for claim in paper.claims()] == [f"C{number}" for number in range(1, 16)]


def test_tests_are_those_frozen_before_any_result():
    assert paper.claim("C1").test == "r ≥ 0.75 on each task"
    assert paper.claim("C1").bounds == {"recovery": 0.75}
    assert paper.claim("C2").test == "r of Retina (Diabetic5) below that of each other task"
    assert paper.claim("C15").test.endswith(
        "the slope of balanced accuracy over overlap is negative, interval excluding 0"
    )


STATED = {
    "C1": {"recovery": (0.75, "r ≥ 0.75 on each task")},
    "C2": {"difference": (0, "below that of each other task")},
    "C3": {"drop": (0, "drop > 0 for Birds and Things"), "difference": (0, "each larger than each drop")},
    "C4": {"precondition": (0.02, "r(full) − r(label) > 0.02"), "reversal": (0.02, "reverses by more than 0.02")},
    "C5": {"lower": (0, "0 < r(ResNet) − r(VGG)"), "upper": (0.15, "r(ResNet) − r(VGG) < 0.15")},
    "C6": {"drop": (0.1, "lower by ≥ 0.10 on both")},
    "C7": {"others": (0.5, "r ≤ 0.5 on the four others"), "own": (0.9, "r ≥ 0.9 on its own")},
    "C8": {
        "drop": (0.1, "≥ 0.10 less than the mean"),
        "images_per_class": (100, "at least 100 test images a class"),
        "victim_accuracy": (0.2, "victim accuracy below 0.2 left out"),
    },
    "C9": {
        "balanced_accuracy": (0.9, "balanced accuracy ≥ 0.90 on the four"),
        "things": (0.85, "< 0.85, on Things"),
        "threshold": (0.5, "at threshold 0.5"),
    },
    "C10": {"difference": (0.05, "within 0.05 of the first")},
    "C11": {"mean": (0, "higher in the mean over tasks"), "tie": (0.005, "nowhere lower by more than 0.005")},
    "C12": {
        "precondition": (0.6, "undefended r ≥ 0.6"),
        "share": (0.5, "r(defended) ≤ 0.5 · r(undefended)"),
        "honest_loss": (0.02, "falls by ≤ 2 points"),
    },
    "C13": {"caught_more": (0.1, "at most 10 points more often"), "tasks": (4, "at least four of five")},
    "C14": {"budget_share": (0.5, "no more than half the budget"), "tasks": (4, "at least four of five")},
    "C15": {"slope": (0, "is negative")},
}
"""Each bound, and the words of the test that say it."""


def test_every_number_of_a_bound_stands_in_its_test():
    assert {claim.id: dict(claim.bounds) for claim in paper.claims()} == {
        claim: {name: number for name, (number, _) in bounds.items()} for claim, bounds in STATED.items()
    }
    said = [(claim, words) for claim, bounds in STATED.items() for _, words in bounds.values()]
    assert [(claim, words) for claim, words in said if words not in paper.claim(claim).test] == []


def test_every_claim_says_which_table_shows_it():
    known = set(paper.tables())
    assert all(claim.tables and set(claim.tables) <= known for claim in paper.claims())


def test_claims_cannot_be_changed():
    claim = paper.claim("C1")
    with pytest.raises(FrozenInstanceError):
        claim.test = "r ≥ 0.5"
    with pytest.raises(TypeError):
        claim.bounds["recovery"] = 0.5


def test_unknown_claim_names_the_known_ones():
    with pytest.raises(InputError, match="unknown claim 'C99': use one of C1, C2, "):
        paper.claim("C99")


@pytest.mark.parametrize(
    ("task", "victim"),
    [
        ("signs", "GTSRB-RN34"),
        ("objects", "CIFAR10-RN34"),
        ("birds", "CUBS-RN34"),
        ("things", "Caltech-RN34"),
        ("retina", "Diabetic5-RN34"),
        ("folder:CIFAR-10", "CIFAR10-RN34"),
        ("folder:pets", None),
    ],
)
def test_tasks_stand_beside_the_authors_victims(task, victim):
    assert paper.victim(task) == victim


@pytest.mark.parametrize(
    ("task", "tasks", "twin"),
    [
        ("objects", ("signs", "objects"), "objects"),
        ("objects", ("cifar10", "gtsrb"), "cifar10"),
        ("gtsrb", ("signs", "objects"), "signs"),
        ("folder:mine", ("signs", "folder:mine"), "folder:mine"),
    ],
)
def test_a_task_has_a_twin_that_stands_for_the_same_victim(task, tasks, twin):
    assert paper.twin(task, tasks) == twin


@pytest.mark.parametrize("task", ["birds", "folder:mine"])
def test_a_task_without_a_twin_is_refused(task):
    with pytest.raises(InputError, match=f"^none of the tasks folder:other, gtsrb is a twin of '{task}'"):
        paper.twin(task, ("folder:other", "gtsrb"))
