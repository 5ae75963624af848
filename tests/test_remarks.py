"""What stands beside a verdict, on rows whose remarks are known."""

from dataclasses import replace

import pandas as pd
import pytest
from test_claims import FRAME, SCALE, changed
from test_judging import around, judged

from extractbook import claim_cards, ledger_page
from extractbook.remarks import remarks
from extractbook.reproduction import claims, ledger
from extractbook.reproduction.judging import Entry, Verdict


def of(*entries: Entry, frame: pd.DataFrame | None = None) -> ledger.Ledger:
    return ledger.Ledger(SCALE, entries, {}, pd.DataFrame({"experiment": []}) if frame is None else frame)


def entry(claim: str, task: str, verdict: Verdict, **parts) -> Entry:
    return Entry(claim, task, verdict, "", **parts)


def test_a_precondition_that_single_seeds_miss_is_said():
    met = judged([0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.7, 0.7], "≥", 0.8)
    met_by_all, missed = judged(around(0.9), "≥", 0.8), judged(around(0.7), "≥", 0.8)
    assert remarks(of(entry("C1", "signs", Verdict.HOLDS, preconditions=(met, met_by_all, missed))), "C1") == [
        "On signs, a precondition is met in the mean but not at 2 of 8 seeds: r(signs) ≥ 0.8."
    ]
    # Signed differences that cancel in the mean.
    apart = judged([0.05, -0.05, 0.05, -0.05, 0.01, -0.01, 0.01, -0.01], "±", 0.03)
    [said] = remarks(of(entry("B5", "signs", Verdict.UNDECIDED, preconditions=(apart,))), "B5")
    assert "at 4 of 8 seeds" in said


def test_a_violation_that_the_correction_does_not_leave_is_said_and_has_no_cross():
    wrong, open_ = judged(around(0.73), "≥", 0.75), judged([0.7, 0.8] * 4, "≥", 0.75)
    assert wrong.holds is False and open_.holds is None
    undecided = entry("C3", "birds", Verdict.UNDECIDED, bounds=(wrong, open_))
    [said] = remarks(of(undecided), "C3")
    assert said.startswith("Intervals on birds that lie entirely on the wrong side") and said.endswith(": 1 of 2.")
    assert remarks(of(entry("C3", "birds", Verdict.DOES_NOT_HOLD, bounds=(wrong, open_))), "C3") == []
    assert claim_cards._word(wrong, undecided) is Verdict.UNDECIDED


def test_nothing_is_said_before_a_claim_is_judged():
    met = judged([0.9] * 6 + [0.7] * 2, "≥", 0.8)
    assert remarks(of(entry("C1", "signs", Verdict.NOT_RUN, preconditions=(met,))), "C1") == []


def test_the_side_on_which_another_network_fails_is_said():
    some, much = judged(around(0.3), ">", 0), judged(around(0.3), "<", 0.15)
    [said] = remarks(of(entry("C5", "signs", Verdict.DOES_NOT_HOLD, bounds=(some, much))), "C5")
    assert said == "On signs, the loss is larger than the claim allows."


def test_the_second_pool_stands_beside_the_first():
    frame = pd.DataFrame(
        {
            "experiment": "detection",
            "task": ["things", "things", "signs"],
            "binary.second.tnr_at_95": [0.5, 0.3, 1.0],
            "mahalanobis.second.tnr_at_95": [0.9, 0.7, 0.998],
        }
    )
    [said] = remarks(of(entry("C11", "signs", Verdict.HOLDS), frame=frame), "C11")
    assert said.endswith(
        "is −0.199 in the mean over the tasks: −0.400 on things, and at most 0.005 in either direction elsewhere."
    )


def test_seeds_at_which_no_account_is_flagged_are_counted():
    half, most = [None, None, 1, 2], [None, 1, 2, 3]
    frame = pd.DataFrame(
        {"experiment": "accounts", "task": ["signs"] * 2 + ["birds"], "counting.flag_times": [half, most, most]}
    )
    entries = [entry("B2", task, Verdict.HOLDS) for task in ("signs", "birds")]
    assert remarks(of(*entries, frame=frame), "B2") == [
        "The count flags more than half of the single accounts at only 1 of 2 seeds (signs); at the others Sybil "
        "accounts have little to defeat."
    ]


def test_what_an_untested_defense_costs_is_said():
    frame = pd.DataFrame(
        {
            "experiment": "extraction",
            "task": "things",
            "pool": ["atlas", "things/shifted", "atlas"],
            "defense": ["shuffle", "shuffle", "deny"],
            "victim_accuracy": 0.8,
            "honest_accuracy": [0.6, 0.1, 0.6],
            "honest_refused": [0.0, 0.0, 0.25],
        }
    )
    tested, untested = (
        entry("B4", task, word) for task, word in (("birds", Verdict.HOLDS), ("things", Verdict.NOT_TESTABLE))
    )
    [said] = remarks(of(tested, untested, frame=frame), "B4")
    assert "costs honest users 20.0 points of accuracy, and denial refuses 25.0% of their queries" in said
    assert remarks(of(tested, frame=frame), "B4") == []


def test_a_strength_of_none_is_said():
    frame = pd.DataFrame(
        {"experiment": "extraction", "task": "signs", "defense": ["reverse-sigmoid"] * 2, "strength": [0.0, 0.3]}
    )
    [said] = remarks(of(entry("B13", "signs", Verdict.DOES_NOT_HOLD), frame=frame), "B13")
    assert said.startswith("Reverse sigmoid has a strength of 0, which is no defense at all, in 1 of 2 rows")
    assert remarks(of(entry("B13", "signs", Verdict.DOES_NOT_HOLD), frame=frame.assign(strength=0.1)), "B13") == []


def test_a_row_of_several_tables_is_counted_once():
    frame = pd.concat([FRAME, FRAME], ignore_index=True)
    [claim] = [claim for claim in claims.claims() if claim.id == "C1"]
    found = tuple(claims.verdicts(FRAME, SCALE, only="C1"))

    def again(rows: tuple[int, ...]) -> tuple[int, ...]:
        return (*rows, *(row + len(FRAME) for row in rows))

    doubled = tuple(
        replace(entry, bounds=tuple(replace(bound, rows=again(bound.rows)) for bound in entry.bounds))
        for entry in found
    )
    assert "Rows: 40 of" in ledger_page.entry(ledger.Ledger(SCALE, found, {}, FRAME), claim)
    assert "Rows: 40 of" in ledger_page.entry(ledger.Ledger(SCALE, doubled, {}, frame), claim)


def test_a_card_names_the_tasks_that_could_not_be_tested_though_the_claim_holds():
    frame = changed("signs", {"experiment": "asked_twice"}, shuffled=0.99)
    found = ledger.Ledger(SCALE, tuple(claims.verdicts(frame, SCALE, only="B12")), {}, frame)
    [claim] = [claim for claim in claims.claims() if claim.id == "B12"]
    assert found.word(claim) is Verdict.HOLDS
    card = claim_cards.card(claim, found, [])
    assert "Not tested, because a precondition fails: queries shuffled(signs) ≤ 0.95." in card


@pytest.mark.parametrize(("values", "interval"), [([1, 0, 0, 0, 0, 0, 0, 0], "–"), ([0.5, 0.25] * 4, "0.241 to 0.509")])
def test_a_yes_or_no_by_seed_that_is_only_shown_has_no_t_interval(values, interval):
    shown = judged(values, "", 0.0)
    assert interval in ledger_page._line("shown", shown)


def test_a_flag_time_of_zero_reads_as_accounts_that_are_not_flagged():
    never = judged([0.0] * 8, "≥", 20)
    shown = replace(never, stated=replace(never.stated, terms=({"column": "flag_time"},)))
    assert "most are never flagged" in ledger_page._line("precondition", shown)
    assert "most are never flagged" not in ledger_page._line("precondition", never)


def test_a_card_of_a_claim_that_no_task_can_test_shows_the_preconditions():
    frame = changed("signs", {"experiment": "asked_twice"}, shuffled=0.99)
    frame = changed("things", {"experiment": "asked_twice"}, frame, shuffled=0.98)
    found = ledger.Ledger(SCALE, tuple(claims.verdicts(frame, SCALE, only="B12")), {}, frame)
    [claim] = [claim for claim in claims.claims() if claim.id == "B12"]
    assert found.word(claim) is Verdict.NOT_TESTABLE
    card = claim_cards.card(claim, found, [])
    assert "not testable <small>8 seeds</small>" in card
    assert "queries shuffled(signs) ≤ 0.95: <b>0.990</b>" in card and "queries shuffled(things) ≤ 0.95" in card
