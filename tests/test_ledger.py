"""Verdicts on hand-computed rows."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest

from extractbook.reproduction import Cell, Row, first_edition, ledger, paper
from extractbook.reproduction.experiments.shortcut import PROCESSING
from extractbook.reproduction.ledger import Verdict
from extractlib.errors import InputError

HALF_WIDTH = 4.302653 * 0.01 / 3**0.5
"""Of the 95% interval of three values with a standard deviation of 0.01: Student's t with 2 degrees of freedom."""


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


def entry(recoveries: dict[str, list[float]], claim: str) -> ledger.Entry:
    return judged(rows(recoveries), claim)


def judged(rows: list[Row], claim: str) -> ledger.Entry:
    evidence = ledger.Evidence(rows)
    return ledger._entry(paper.claim(claim), evidence)


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
    assert (missing.verdict, missing.reason) == (Verdict.NOT_RUN, ledger.MISSING)


def test_c2_knows_the_medical_task_in_a_folder():
    held = entry({"folder:diabetic5": around(0.5), "folder:gtsrb": around(0.9)}, "C2")
    assert held.verdict == Verdict.HOLDS
    assert held.bounds[0].authors == 0.21


def test_one_seed_gives_no_verdict():
    single = entry({"signs": around(0.9), "objects": [0.2]}, "C1")
    assert single.verdict == Verdict.NOT_RUN
    assert single.reason == "r(objects) ≥ 0.75: 1 of at least 2 seeds"


def test_claims_without_results_are_not_run():
    entries = ledger.verdicts([])
    assert [entry.claim for entry in entries] == [*paper.claims(), *paper.our_claims()]
    assert {entry.verdict for entry in entries} == {"not run"}
    plain = [row("signs", seed, {"recovery": 0.9, "agreement": 0.8, "victim_accuracy": 0.9}) for seed in range(3)]
    ran = [entry.claim.id for entry in ledger.verdicts(plain) if entry.verdict != "not run"]
    assert ran == ["C1", "B5"]


def test_rows_of_other_tables_are_passed_over():
    other = [
        *rows({"signs": around(0.1)}, budget=1_000),
        *rows({"signs": around(0.1)}, granularity="label"),
        *rows({"signs": around(0.1)}, defense="shuffle"),
    ]
    held = judged(other + rows({"signs": around(0.9)}), "C1")
    assert held.verdict == Verdict.HOLDS
    assert held.provenance.cells == 3


def test_two_rows_of_one_cell_are_refused_if_they_differ():
    made = rows({"signs": around(0.9)})
    shared = replace(made[1], provenance=PROVENANCE | {"date": "2026-02-02T03:04:05+00:00"})
    assert ledger.verdicts([*made, shared])[0].bounds == ledger.verdicts(made)[0].bounds
    with pytest.raises(InputError, match="two rows for task 'signs' and seed 1 of the same cell differ"):
        ledger.verdicts([*made, replace(made[1], result=made[0].result)])


def test_two_scales_are_refused():
    with pytest.raises(InputError, match="scales drawn, smoke: a ledger is of one scale"):
        ledger.verdicts(rows({"signs": around(0.9)}) + rows({"objects": around(0.9)}, scale="smoke"))


def test_provenance_sums_up_the_rows():
    provenance = entry({"signs": around(0.9), "objects": around(0.9)}, "C1").provenance
    assert (provenance.commits, provenance.devices, provenance.checked) == (("abc",), ("cpu",), 0)
    assert (provenance.cells, provenance.seconds, provenance.seeds) == (6, 120.0, (0, 1, 2))
    assert provenance.versions == ("torch 2.6.0",)
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


# -- every claim, on rows made up so that all hold ------------------------------

TASKS = ("birds", "objects", "retina", "signs", "things")
SEEDS = range(5)
SHORTCUT = {
    "gain": 0.2,  # balanced accuracy where the sides differ, above that where they match
    "caught": 0.1,  # share of the queries processed like the victim's images, of 0.9 as they came
    "more": 0.5,  # recovery with them above that with queries as they came
    "hardened caught": 0.88,
    "hardened accepted": 0.94,  # of honest images, of 0.95 without hardening
    "hardened": 0.3,  # recovery behind the hardened detector
}
HOLDING = {
    "recovery": {"birds": 0.92, "objects": 0.95, "retina": 0.8, "signs": 0.95, "things": 0.93},
    "agreement": 0.7,
    "drop": {"birds": 0.3, "things": 0.2},  # of label-only answers; 0.01 elsewhere
    "between": {"top-5": 0.3, "top-2": 0.6, "rounded-2": 0.2, "rounded-1": 0.5},  # shares of that drop
    "vgg": 0.05,  # below the ResNet surrogate
    "scratch": 0.2,  # below the pre-trained victim
    "narrow": {"retina": 0.95},  # recovery with images of retina; 0.3 elsewhere
    "worst": 0.5,  # recovery of the worst class
    "balanced": {"things": 0.7},  # 0.95 elsewhere
    "second": 0.01,  # above the first pool
    "odin": 0.1,  # below the binary detector's TNR
    "mahalanobis": 0.05,
    "shuffle": 0.2,  # share of the recovery that is left
    "honest": 0.01,  # accuracy that an honest user loses
    "shifted caught": 0.05,
    "benign caught": 0.02,
    "shifted": 0.03,  # above the recovery with the pool
    "slope": -0.3,
    "adaptive": 0.03,  # above random
    "sybils flagged": 0.0,
    "until": 20,
    "mark": 0.8,
    **{f"{kind} {name}": fact for kind in PROCESSING for name, fact in SHORTCUT.items()},
}


def shortcut(facts, r: float, noise: float) -> dict:
    """Return a result of the experiment of that name."""
    made: dict = {"sides": {}, "caught": {}, "accepted": {}, "recovery": {"undefended": {"none": r}}}
    for kind, how in PROCESSING.items():
        plain, hardened = f"{kind}-differs", f"{kind}-differs-hardened"
        fact = {name: facts[f"{kind} {name}"] + noise for name in SHORTCUT}
        made["sides"] |= {
            plain: {"balanced_accuracy": 0.7 + fact["gain"]},
            f"{kind}-matched": {"balanced_accuracy": 0.7},
        }
        made["caught"] |= {
            plain: {"none": 0.9, how: fact["caught"]},
            hardened: {"none": 0.9, how: fact["hardened caught"]},
        }
        made["accepted"] |= {plain: {how: 0.95}, hardened: {how: fact["hardened accepted"]}}
        made["recovery"] |= {
            plain: {"none": 0.1, how: 0.1 + fact["more"]},
            hardened: {how: fact["hardened"]},
        }
    return made


def world(**changes) -> list[Row]:
    """Return rows of all tables in which every claim holds, but for the changes."""
    facts = HOLDING | changes
    made = []

    def add(task: str, seed: int, recovery: float, result: dict | None = None, **cell) -> None:
        base = {"recovery": recovery, "victim_accuracy": 0.9, "agreement": facts["agreement"]}
        made.append(row(task, seed, base | (result or {}), **cell))

    for seed in SEEDS:
        noise = (seed - 2) * 1e-4
        for task in TASKS:
            r = facts["recovery"][task] + noise * (1 + TASKS.index(task))
            drop = facts["drop"].get(task, 0.01)
            add(task, seed, r)
            add(task, seed, r - drop, granularity="label")
            for shown, share in facts["between"].items():
                add(task, seed, r - share * drop, granularity=shown)
            if task in ("signs", "objects"):
                add(task, seed, r - facts["vgg"], surrogate="vgg")
                made.append(row(task, seed, shortcut(facts, r, noise), experiment="shortcut", budget=2_500))
                network = {"signs": "cnn-5", "objects": "cnn-9"}[task]
                add(task, seed, r - facts["scratch"], victim=network, pretrained=False)
                halves = [[0.9, 0.8, 0.1]] * 2, [[0.9, 0.8 * facts["worst"], 0.0]] * 2
                made.append(
                    row(
                        task,
                        seed,
                        {"victim_accuracy": halves[0], "surrogate_accuracy": halves[1], "recovery": r},
                        experiment="classes",
                    )
                )
            add(task, seed, facts["narrow"].get(task, 0.3) + noise, pool="retina")
            for policy in ("shuffle", "deny", "label"):
                served = {"honest_accuracy": 0.9 - facts["honest"] - noise}
                add(task, seed, r * facts["shuffle"], served, defense=policy)
            add(task, seed, r + facts["shifted"] + noise, pool=f"{task}/shifted", budget=5_000)
            add(task, seed, r - 0.2, budget=2_500)
            add(task, seed, r - 0.2 + facts["adaptive"] + noise, budget=2_500, attack="adaptive", reward="all")
            add(task, seed, r, {"mark_agreement": facts["mark"] + noise}, defense="watermark")
            first = facts["balanced"].get(task, 0.95) + noise
            alone = {"experiment": "detection", "surrogate": "", "budget": 0}
            found = {
                "binary": {
                    "pool": {"balanced_accuracy": first, "tnr": 0.9},
                    "second": {"balanced_accuracy": first + facts["second"] + noise},
                },
                "odin": {"pool": {"tnr": 0.9 - facts["odin"] - noise}},
                "mahalanobis": {"pool": {"tnr": 0.9 - facts["mahalanobis"] - noise}},
                "caught": {"shifted": facts["shifted caught"], "benign": facts["benign caught"] + noise},
            }
            made.append(row(task, seed, found, **alone))
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                result = {"balanced_accuracy": 0.95 + share * (facts["slope"] + noise)}
                cell = alone | {"experiment": "overlap", "pool": f"{task}/shifted", "overlap": share}
                made.append(row(task, seed, result, **cell))
            counting = {"pool_until": facts["until"], "sybil_flagged": facts["sybils flagged"]}
            made.append(
                row(task, seed, {"counting": counting}, **(alone | {"experiment": "stateful", "budget": 10_000}))
            )
    return made


def test_every_claim_can_hold():
    entries = ledger.verdicts(world())
    assert {entry.claim.id: str(entry.verdict) for entry in entries} == {entry.claim.id: "holds" for entry in entries}
    assert len(entries) == 24 and all(entry.tasks == TASKS for entry in entries)


ALIKE = dict.fromkeys(TASKS, 0.9)
BROKEN = {
    "C1": {"recovery": HOLDING["recovery"] | {"retina": 0.7}},
    "C2": {"recovery": ALIKE | {"retina": 0.95}},
    "C3": {"drop": {"birds": 0.3, "things": 0.005}},
    "C4": {"between": HOLDING["between"] | {"top-2": 1.2}},
    "C5": {"vgg": 0.2},
    "C6": {"scratch": 0.05},
    "C7": {"narrow": {"retina": 0.95, "signs": 0.6}},
    "C8": {"worst": 0.95},
    "C9": {"balanced": {"things": 0.9}},
    "C10": {"second": -0.1},
    "C11": {"odin": -0.01},
    "C12": {"shuffle": 0.6},
    "C13": {"shifted caught": 0.3},
    "C14": {"shifted": -0.05},
    "C15": {"slope": 0.2},
    "B1": {"adaptive": -0.02},
    "B2": {"sybils flagged": 0.2},
    "B3": {"mark": 0.1},
    "B4": {"honest": 0.05},
    "B5": {"agreement": 0.99},
    "B6": {"compression gain": -0.1},
    "B7": {"compression hardened caught": 0.5},
    "B8": {"resampling gain": -0.1},
    "B9": {"resampling hardened caught": 0.5},
}


@pytest.mark.parametrize("claim", BROKEN)
def test_every_claim_can_fail(claim):
    assert judged(world(**BROKEN[claim]), claim).verdict == Verdict.DOES_NOT_HOLD


@pytest.mark.parametrize(
    ("claims", "fact", "value"),
    [
        (("B6", "B8"), "caught", 0.5),
        (("B6", "B8"), "more", -0.05),
        (("B7", "B9"), "hardened accepted", 0.9),
        (("B7", "B9"), "hardened", 0.6),
    ],
)
def test_each_bound_on_the_shortcut_can_fail(claims, fact, value):
    for kind, failing in zip(PROCESSING, claims, strict=True):
        rows = world(**{f"{kind} {fact}": value})
        found = {claim: judged(rows, claim).verdict for claim in ("B6", "B7", "B8", "B9")}
        assert {claim for claim, verdict in found.items() if verdict == Verdict.DOES_NOT_HOLD} == {failing}


def test_a_detection_row_without_a_second_pool_leaves_that_claim_not_run():
    found = [made for made in world() if made.cell.experiment != "detection"]
    for made in world():
        if made.cell.experiment == "detection":
            made.result["binary"].pop("second")
            found.append(made)
    assert judged(found, "C10").verdict == Verdict.NOT_RUN
    assert judged(found, "C9").verdict == Verdict.HOLDS


def test_broken_worlds_cover_every_claim():
    assert list(BROKEN) == [claim.id for claim in (*paper.claims(), *paper.our_claims())]
    assert set(BROKEN) == set(ledger.TESTS)


@pytest.mark.parametrize(
    ("claim", "changes", "words"),
    [
        ("C4", {"drop": dict.fromkeys(TASKS, 0.01)}, "r(full) − r(label) > 0.02 on birds"),
        ("C12", {"recovery": dict.fromkeys(TASKS, 0.5)}, "undefended r(birds) ≥ 0.6"),
        ("B2", {"until": None}, "goes unflagged on 5 of 5 seeds"),
    ],
)
def test_a_failed_precondition_makes_a_claim_not_testable(claim, changes, words):
    found = judged(world(**changes), claim)
    assert found.verdict == Verdict.NOT_TESTABLE
    assert words in found.reason


def test_a_task_whose_precondition_fails_is_left_out_and_said():
    found = judged(world(), "C4")
    assert {bound.statement.rpartition(" on ")[2] for bound in found.bounds} == {"birds", "things"}
    assert found.reason.count("not testable: r(full) − r(label) > 0.02 on") == 3


def test_honest_users_count_only_where_the_detector_is_good():
    statements = [bound.statement for bound in judged(world(), "C12").bounds]
    assert [text for text in statements if "honest" in text] == [
        f"honest users' loss({task}) ≤ 0.02" for task in TASKS if task != "things"
    ]


@pytest.mark.parametrize(("failing", "verdict"), [(1, "holds"), (2, "does not hold")])
def test_four_of_five_tasks_are_enough_where_the_test_says_so(failing, verdict):
    """C14 allows one task to fail."""
    weak = TASKS[:failing]
    rows = [
        replace(row, result=row.result | {"recovery": 0.1})
        if row.cell.pool.is_shifted and row.cell.experiment == "extraction" and row.cell.task in weak
        else row
        for row in world()
    ]
    assert judged(rows, "C14").verdict == verdict


def test_the_worst_class_is_chosen_on_one_half_and_measured_on_the_other():
    # Class 0 is worst on the first half, class 1 on the second; class 2's victim knows too little to count.
    result = {
        "victim_accuracy": [[1.0, 1.0, 0.1], [1.0, 0.8, 0.9]],
        "surrogate_accuracy": [[0.5, 0.9, 0.0], [0.9, 0.4, 0.0]],
    }
    worst, shortfall = ledger.worst_class(result, 0.2)
    assert worst == 0
    assert shortfall == pytest.approx((0.9 + 0.5) / 2 - 0.9)


@pytest.mark.parametrize(
    ("sign", "values", "holds"),
    [
        ("≥", [0.5, 0.5], True),
        (">", [0.5, 0.5], False),
        ("≤", [0.5, 0.5], True),
        ("<", [0.5, 0.5], False),
        ("≤", [0.6, 0.6], False),
        ("≤", [0.4, 0.6], None),
    ],
)
def test_bounds_from_both_sides(sign, values, holds):
    assert ledger.bound("x", sign, 0.5, values).holds is holds


@pytest.mark.parametrize(
    ("limit", "statement"), [(0.75, "x-1 ≥ 0.75 on y"), (0, "x-1 ≥ 0 on y"), (-0.005, "x-1 ≥ −0.005 on y")]
)
def test_a_statement_is_made_of_the_limit_that_is_tested(limit, statement):
    assert ledger.bound("x-1", "≥", limit, [], note=" on y").statement == statement


def test_seeds_that_only_one_of_two_cells_has_are_left_out():
    made = rows({"signs": [0.9, 0.8, 0.7]}) + rows({"signs": [0.5, 0.6]}, granularity="label")
    gap = ledger.Evidence(made).gap("signs", granularity="label")
    assert ledger.bound("gap", ">", 0, gap).values == pytest.approx((0.4, 0.2))


def test_many_bounds_that_hold_are_told_by_the_closest():
    recoveries = {"objects": around(0.95), "signs": around(0.8), "birds": around(0.9)}
    held = entry(recoveries, "C1")
    assert held.reason == "3 of 3 bounds hold, and the closest is r(signs) ≥ 0.75: 0.800, interval 0.775 to 0.825"
    assert [bound.margin for bound in held.bounds] == pytest.approx(
        [mean - HALF_WIDTH - 0.75 for mean in (0.9, 0.95, 0.8)], abs=1e-6
    )
    upper = ledger.bound("x", "≤", 0.5, [0.2, 0.3, 0.25])
    assert upper.margin == pytest.approx(0.5 - upper.interval[1])


# -- the first edition's verdicts ---------------------------------------------------

FIRST_EDITION = {"drawn": "04a2d6bf3b50db16", "small-cpu": "68b44acf3f6615a0"}
"""Digests of the verdicts with all statements, values and intervals, as the first edition's ledger had them."""


@pytest.mark.parametrize("name", FIRST_EDITION)
def test_the_first_editions_verdicts_and_bounds_have_not_changed(name):
    told = [
        [entry.claim.id, entry.verdict, entry.reason, entry.tasks, entry.seeds]
        + [[bound.statement, bound.authors, bound.values, bound.interval, bound.holds] for bound in entry.bounds]
        for entry in ledger.verdicts(first_edition(name))
    ]
    assert sha256(json.dumps(told).encode()).hexdigest()[:16] == FIRST_EDITION[name]
