"""Verdicts on hand-computed rows."""

from dataclasses import dataclass, field

import pytest

from extractlib import ledger, paper
from extractlib.errors import InputError
from extractlib.ledger import Verdict

HALF_WIDTH = 4.302653 * 0.01 / 3**0.5
"""Of the 95% interval of three values with a standard deviation of 0.01: Student's t with 2 degrees of freedom."""


@dataclass(frozen=True)
class Cell:
    task: str
    seed: int
    profile: str = "drawn"
    attack: str = "knockoff-random"
    granularity: str = "full"
    budget: int = 10_000
    defence: str = "none"


@dataclass(frozen=True)
class Row:
    cell: Cell
    result: dict
    provenance: dict = field(
        default_factory=lambda: {
            "commit": "abc",
            "date": "2026-01-02T03:04:05+00:00",
            "seconds": 20.0,
            "device": "cpu",
            "versions": {"torch": "2.6.0"},
            "data": {"victim": "1", "pool": "2"},
            "code": "c0de",
        }
    )


def rows(recoveries: dict[str, list[float]], **settings) -> list[Row]:
    """Return a row for each task and seed; the seeds are 0, 1, …"""
    return [
        Row(Cell(task, seed, **settings), {"recovery": value})
        for task, values in recoveries.items()
        for seed, value in enumerate(values)
    ]


def around(mean: float) -> list[float]:
    """Return three values of that mean and a standard deviation of 0.01."""
    return [mean - 0.01, mean, mean + 0.01]


def entry(recoveries: dict[str, list[float]], claim: str) -> ledger.Entry:
    return {entry.claim.id: entry for entry in ledger.verdicts(rows(recoveries))}[claim]


def test_interval_is_students():
    [bound] = entry({"signs": around(0.9)}, "C1").bounds
    assert bound.interval == pytest.approx((0.9 - HALF_WIDTH, 0.9 + HALF_WIDTH), abs=1e-6)
    assert bound.values == pytest.approx((0.89, 0.9, 0.91))
    assert bound.authors == 0.96


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [
        (0.75 + HALF_WIDTH + 1e-4, Verdict.HOLDS),
        (0.75 + HALF_WIDTH - 1e-4, Verdict.UNDECIDED),
        (0.75 - HALF_WIDTH + 1e-4, Verdict.UNDECIDED),
        (0.75 - HALF_WIDTH - 1e-4, Verdict.DOES_NOT_HOLD),
    ],
)
def test_c1_is_decided_only_by_an_interval_on_one_side(mean, verdict):
    assert entry({"objects": around(0.95), "signs": around(mean)}, "C1").verdict == verdict


def test_c1_fails_on_one_task_whatever_the_others_say():
    failed = entry({"objects": around(0.95), "signs": around(0.75), "retina": around(0.4)}, "C1")
    assert failed.verdict == Verdict.DOES_NOT_HOLD
    assert failed.reason == "r(retina) ≥ 0.75: 0.400, interval 0.375 to 0.425"
    assert [bound.holds for bound in failed.bounds] == [True, False, None]
    assert failed.tasks == ("objects", "retina", "signs")


def test_c2_compares_seed_by_seed():
    # Both vary by far more than their difference, which is 0.04, 0.05 and 0.06.
    noisy = {"retina": [0.5, 0.7, 0.9], "signs": [0.54, 0.75, 0.96]}
    held = entry(noisy, "C2")
    assert held.verdict == Verdict.HOLDS
    [bound] = held.bounds
    assert bound.statement == "r(signs) − r(retina) > 0"
    assert bound.values == pytest.approx((0.04, 0.05, 0.06))
    assert bound.interval == pytest.approx((0.05 - HALF_WIDTH, 0.05 + HALF_WIDTH), abs=1e-6)
    assert bound.authors == 0.21


@pytest.mark.parametrize(
    ("retina", "verdict"),
    [([0.5, 0.5, 0.5], "holds"), ([0.9, 0.9, 0.9], "undecided"), ([0.99, 0.99, 0.99], "does not hold")],
)
def test_c2_verdicts(retina, verdict):
    assert entry({"retina": retina, "signs": around(0.9), "birds": around(0.91)}, "C2").verdict == verdict


def test_c2_difference_of_exactly_zero_is_not_above_zero():
    equal = around(0.8)
    assert entry({"retina": equal, "signs": equal}, "C2").verdict == Verdict.DOES_NOT_HOLD


def test_c2_needs_the_medical_task():
    missing = entry({"signs": around(0.9), "objects": around(0.9)}, "C2")
    assert (missing.verdict, missing.reason) == (Verdict.NOT_RUN, "a task that the test names is missing")


def test_c2_knows_the_medical_task_in_a_folder():
    held = entry({"folder:diabetic5": around(0.5), "folder:gtsrb": around(0.9)}, "C2")
    assert held.verdict == Verdict.HOLDS
    assert held.bounds[0].authors == 0.21


def test_one_seed_gives_no_verdict():
    single = entry({"signs": around(0.9), "objects": [0.2]}, "C1")
    assert single.verdict == Verdict.NOT_RUN
    assert single.reason == "r(objects) ≥ 0.75: 1 of at least 2 seeds"
    assert single.seeds == (0, 1, 2)


def test_claims_without_results_are_not_run():
    entries = ledger.verdicts(rows({"signs": around(0.9)}))
    assert [entry.claim for entry in entries] == list(paper.claims())
    assert {entry.verdict for entry in entries[2:]} == {"not run"}
    assert {entry.verdict for entry in ledger.verdicts([])} == {"not run"}


def test_rows_of_other_tables_are_passed_over():
    other = [
        *rows({"signs": around(0.1)}, budget=1_000),
        *rows({"signs": around(0.1)}, granularity="label"),
        *rows({"signs": around(0.1)}, defence="shuffle"),
    ]
    entries = ledger.verdicts(other + rows({"signs": around(0.9)}))
    assert entries[0].verdict == Verdict.HOLDS
    assert entries[0].provenance.cells == 3


def test_two_rows_of_one_cell_are_refused():
    with pytest.raises(InputError, match="two rows for task 'signs' and seed 1"):
        ledger.verdicts(rows({"signs": around(0.9)}) + rows({"signs": around(0.9)})[1:2])


def test_two_profiles_are_refused():
    with pytest.raises(InputError, match="profiles drawn, smoke: a ledger is of one profile"):
        ledger.verdicts(rows({"signs": around(0.9)}) + rows({"objects": around(0.9)}, profile="smoke"))


def test_provenance_sums_up_the_rows():
    provenance = entry({"signs": around(0.9), "objects": around(0.9)}, "C1").provenance
    assert (provenance.commits, provenance.devices, provenance.code) == (("abc",), ("cpu",), ("c0de",))
    assert (provenance.cells, provenance.seconds, provenance.seeds) == (6, 120.0, (0, 1, 2))
    assert provenance.versions == ("torch 2.6.0",)
    assert provenance.dates == ("2026-01-02T03:04:05+00:00",) * 2
