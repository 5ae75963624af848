"""The rows looked up by what their cells are, and the verdicts that are kept."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from extractbook.reproduction import Cell, Row, edition_1, first_edition, ledger
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError
from extractlib.store import digest

PROVENANCE = {
    "commit": "abc",
    "date": "2026-01-02T03:04:05+00:00",
    "seconds": 20.0,
    "device": "cpu",
    "versions": {"torch": "2.6.0"},
    "data": {"victim": "1", "pool": "2"},
    "code": "c0de",
}
"""Of a row of the first edition."""

LATER = {
    "commit": "def",
    "lock": "10c4",
    "date": "2026-03-04T05:06:07+00:00",
    "seconds": 30.0,
    "device": "cpu",
    "libraries": {"python": "3.12.1", "torch": "2.11.0"},
    "versions": {"train": 4, "api": 2},
    "data": {"victim": "1", "pool": "2"},
}
"""Of a row of the second edition."""


def row(task: str, seed: int, result: dict, **changes) -> Row:
    """Return a row of the reproduction with changes to its cell."""
    plain = {"scale": "drawn", "pool": "atlas", "victim": "resnet", "surrogate": "resnet", "budget": 10_000}
    return Row(Cell(task=task, seed=seed, **(plain | changes)), result, PROVENANCE)


def rows(recoveries: dict[str, list[float]], **changes) -> list[Row]:
    """Return a row for each task and seed; the seeds are 0, 1, …"""
    return [
        row(task, seed, {"recovery": value}, **changes)
        for task, values in recoveries.items()
        for seed, value in enumerate(values)
    ]


def around(mean: float) -> list[float]:
    """Return three values of that mean and a standard deviation of 0.01."""
    return [mean - 0.01, mean, mean + 0.01]


def test_rows_of_other_tables_are_passed_over():
    other = [
        *rows({"signs": around(0.1)}, budget=1_000),
        *rows({"signs": around(0.2)}, granularity="label"),
        *rows({"birds": around(0.3)}, defense="shuffle"),
    ]
    evidence = ledger.Evidence(other + rows({"signs": around(0.9)}))
    assert evidence.tasks == ("signs",)
    assert evidence.values("signs") == {0: 0.89, 1: 0.9, 2: 0.91}
    assert evidence.values("signs", granularity="label") == dict(enumerate(around(0.2)))
    assert evidence.values("signs", budget=1_000) == dict(enumerate(around(0.1)))
    assert evidence.values("birds", defense="shuffle") == {}
    assert [row.cell.seed for row in evidence.reproduction] == [0, 1, 2]


def test_the_plain_attack_has_the_highest_budget_that_there_is():
    made = rows({"signs": around(0.1)}, budget=1_000) + rows({"signs": around(0.2)}, budget=2_500)
    evidence = ledger.Evidence(made)
    assert evidence.tasks == ("signs",)
    assert evidence.values("signs") == dict(enumerate(around(0.2)))


def test_what_a_cell_of_an_experiment_lacks_need_not_be_said():
    alone = {"surrogate": "", "budget": 0}
    made = rows({"signs": around(0.9)})
    made.append(row("signs", 0, {"binary": {"pool": {"tnr": 0.5}}}, experiment="detection", **alone))
    made.append(row("signs", 1, {"binary": {"pool": {}}}, experiment="detection", **alone))
    made.append(row("signs", 0, {"prada": {"delta": 0.8}}, experiment="stateful", surrogate=""))
    made.append(row("signs", 2, {"recovery": {"undefended": {"none": 0.7}}}, experiment="shortcut", budget=2_500))
    evidence = ledger.Evidence(made)
    assert evidence.values("signs", "binary", "pool", "tnr", experiment="detection") == {0: 0.5}
    assert evidence.values("signs", "prada", "delta", experiment="stateful") == {0: 0.8}
    assert evidence.values("signs", "recovery", "undefended", "none", experiment="shortcut") == {2: 0.7}


def test_the_plain_cell_has_the_steps_of_the_scale():
    """Rows of the second edition, whose budget curve has other steps at the whole budget."""
    steps = scale("drawn").surrogate.steps
    made = rows({"signs": around(0.9)}, steps=steps) + rows({"signs": around(0.5)}, steps=2 * steps)
    alone = {"surrogate": "", "steps": 0}
    made.append(row("signs", 0, {"images": 50}, experiment="accounts", **alone))
    made.append(row("signs", 0, {"images": 7}, experiment="overlap", budget=0, overlap=0.5, **alone))
    evidence = ledger.Evidence(made)
    assert evidence.values("signs") == dict(enumerate(around(0.9)))
    assert evidence.values("signs", "images", experiment="accounts") == {0: 50}
    assert evidence.values("signs", "images", experiment="overlap", overlap=0.5) == {0: 7}


def test_seeds_that_only_one_of_two_cells_has_have_no_difference():
    made = rows({"signs": [0.9, 0.8, 0.7]}) + rows({"signs": [0.5, 0.6]}, granularity="label")
    evidence = ledger.Evidence(made)
    gap = evidence.series("signs") - evidence.series("signs", granularity="label")
    assert gap.dropna().to_dict() == pytest.approx({0: 0.4, 1: 0.2})


def test_two_rows_of_one_cell_are_refused_if_they_differ():
    made = rows({"signs": around(0.9)})
    shared = replace(made[1], provenance=PROVENANCE | {"date": "2026-02-02T03:04:05+00:00"})
    assert ledger.Evidence([*made, shared]).values("signs") == ledger.Evidence(made).values("signs")
    with pytest.raises(InputError, match="two rows for task 'signs' and seed 1 of the same cell differ"):
        ledger.Evidence([*made, replace(made[1], result=made[0].result)])


def test_two_scales_are_refused():
    with pytest.raises(InputError, match="scales drawn, smoke: a ledger is of one scale"):
        ledger.Evidence(rows({"signs": around(0.9)}) + rows({"objects": around(0.9)}, scale="smoke"))


def test_provenance_sums_up_the_rows():
    provenance = ledger.Provenance.of(rows({"signs": around(0.9), "objects": around(0.9)}))
    assert (provenance.commits, provenance.devices, provenance.checked) == (("abc",), ("cpu",), 0)
    assert (provenance.cells, provenance.seconds, provenance.seeds) == (6, 120.0, (0, 1, 2))
    assert provenance.versions == ("torch 2.6.0",)
    assert provenance.data == digest('{"pool": "2", "victim": "1"}')
    assert provenance.dates == ("2026-01-02T03:04:05+00:00",) * 2


def test_provenance_counts_what_only_a_sample_stands_for():
    first, second, third = rows({"signs": around(0.9)})
    check = {"code": "newer", "commit": "def", "date": "2026-01-05T00:00:00+00:00"}
    taken = replace(second, provenance=PROVENANCE | {"history": [check, check]})
    assert ledger.Provenance.of([first, taken, third]).checked == 1


def test_provenance_takes_rows_of_both_editions():
    first, second, _ = rows({"signs": around(0.9)})
    provenance = ledger.Provenance.of([first, replace(second, provenance=LATER)])
    assert provenance.versions == ("python 3.12.1", "torch 2.11.0", "torch 2.6.0")
    assert provenance.commits == ("abc", "def")
    assert provenance.dates == ("2026-01-02T03:04:05+00:00", "2026-03-04T05:06:07+00:00")
    assert (provenance.cells, provenance.seconds, provenance.checked) == (2, 50.0, 0)


def test_the_ledger_is_that_of_the_rows_of_a_folder(tmp_path):
    with pytest.raises(InputError, match="none holds no results: make them with extractbook results"):
        ledger.ledger("drawn", folder=tmp_path / "none")
    nothing = ledger.ledger("drawn", only="C1", folder=tmp_path)
    assert {(entry.claim, entry.verdict) for entry in nothing.entries} == {("C1", "not run")}
    assert (nothing.scale.name, nothing.refused, nothing.of("C2")) == ("drawn", {}, [])


def test_rows_that_do_not_count_are_left_out_and_counted_by_the_reason(monkeypatch):
    judged = []
    monkeypatch.setattr(ledger.editions, "refusal", lambda row: "it is odd" if row.cell.seed % 2 else "")
    monkeypatch.setattr(
        ledger.claims, "verdicts", lambda frame, scale, only: judged.append((sorted(frame["seed"]), only)) or ()
    )
    found = ledger.Ledger.of_rows(rows({"signs": [0.9] * 5}), scale("drawn"), only="C1")
    assert (found.refused, judged) == ({"it is odd": 2}, [([0, 2, 4], "C1")])


def test_the_worst_class_is_chosen_on_one_half_and_measured_on_the_other():
    # Class 0 is worst on the first half, class 1 on the second; class 2's victim knows too little to count.
    result = {
        "victim_accuracy": [[1.0, 1.0, 0.1], [1.0, 0.8, 0.9]],
        "surrogate_accuracy": [[0.5, 0.9, 0.0], [0.9, 0.4, 0.0]],
    }
    worst, shortfall = ledger.worst_class(result, 0.2)
    assert worst == 0
    assert shortfall == pytest.approx((0.9 + 0.5) / 2 - 0.9)


# -- the first edition's verdicts ---------------------------------------------------

FIRST_EDITION = {"drawn": "04a2d6bf3b50db16", "small-cpu": "68b44acf3f6615a0"}
"""Digests of the verdicts with all statements, values and intervals, as the first edition's ledger had them."""


@pytest.mark.parametrize("name", FIRST_EDITION)
def test_the_first_editions_verdicts_and_bounds_have_not_changed(name):
    told = [
        [entry.claim.id, entry.verdict, entry.reason, entry.tasks, entry.seeds]
        + [[bound.statement, bound.authors, bound.values, bound.interval, bound.holds] for bound in entry.bounds]
        for entry in edition_1.verdicts(first_edition(name))
    ]
    assert sha256(json.dumps(told).encode()).hexdigest()[:16] == FIRST_EDITION[name]


@pytest.mark.parametrize("name", FIRST_EDITION)
def test_the_values_that_were_judged_are_those_of_the_rows(name):
    rows = first_edition(name)
    first = edition_1.verdicts(rows)[0]
    evidence = ledger.Evidence(rows)
    judged = [dict(zip(first.seeds, bound.values, strict=True)) for bound in first.bounds]
    assert first.claim.id == "C1" and first.tasks == evidence.tasks
    assert judged == [evidence.values(task) for task in evidence.tasks]


def test_rows_of_a_scale_that_was_not_judged_have_no_verdicts():
    with pytest.raises(InputError, match="unknown scale with verdicts 'smoke': use one of drawn, small-cpu"):
        edition_1.verdicts(rows({"signs": around(0.9)}, scale="smoke"))
