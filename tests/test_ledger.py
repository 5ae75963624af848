"""The ledger of the rows of a folder, and the first edition's verdicts, which are kept."""

import json
from hashlib import sha256

import pytest

from extractbook.reproduction import Cell, Row, edition_1, first_edition, ledger, results
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError

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
    first = edition_1.verdicts(first_edition(name))[0]
    rows = results.frame(first_edition(name, "reproduction"))
    plain = rows[(rows["surrogate"] == rows["victim"]) & (rows["budget"] == rows["budget"].max())].sort_values("seed")
    assert first.claim.id == "C1"
    judged = {task: tuple(bound.values) for task, bound in zip(first.tasks, first.bounds, strict=True)}
    assert judged == {task: tuple(of_task["recovery"]) for task, of_task in plain.groupby("task")}


def test_rows_of_a_scale_that_was_not_judged_have_no_verdicts():
    with pytest.raises(InputError, match="unknown scale with verdicts 'smoke': use one of drawn, small-cpu"):
        edition_1.verdicts(rows({"signs": around(0.9)}, scale="smoke"))
    with pytest.raises(InputError, match="^the rows are of the scales drawn, smoke: use those of one scale$"):
        edition_1.verdicts(rows({"signs": around(0.9)}) + rows({"signs": around(0.9)}, scale="smoke"))
