"""The authors' figures and claims as data."""

import pytest

from extractbook.reproduction import paper


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
