"""What chapter 12 shows beside the ledger's own page."""

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from extractbook.figures import chapter_12
from extractbook.reproduction import claims, editions, ledger, results
from extractbook.reproduction.judging import Entry, Verdict
from extractbook.reproduction.scales import scale

EMPTY = results.frame([])


def made(*verdicts: tuple[str, str, Verdict]) -> ledger.Ledger:
    return ledger.Ledger(scale("drawn"), tuple(Entry(*one, reason="") for one in verdicts), {})


def test_words_are_counted_for_the_papers_claims_and_for_ours():
    said = chapter_12.counted(made(("C2", "birds", Verdict.HOLDS), ("B1", "birds", Verdict.NOT_TESTABLE)))
    assert said == "of the paper's 15 claims, 1 holds, 14 are not run; of our 13, 1 is not testable, 12 are not run."


def test_claims_that_differ_between_tasks_are_named():
    cells = [("C3", "birds", Verdict.HOLDS), ("C3", "things", Verdict.DOES_NOT_HOLD), ("C4", "birds", Verdict.HOLDS)]
    assert chapter_12.mixed(made(*cells)) == "claims that hold on some tasks and not on others: C3."
    assert chapter_12.mixed(made(*cells[1:])).endswith("none so far.")


def test_numbers_are_the_second_editions_once_it_has_several_seeds():
    lines = [("signs", 200, 0.9, "extraction"), ("signs", 201, 0.8, "extraction"), ("signs", 200, 0.1, "control")]
    frame = pd.DataFrame(lines, columns=["task", "seed", "recovery", "experiment"]).assign(images=900)
    assert chapter_12.numbers(frame) == ({"signs": [0.9, 0.8]}, 900, "the second edition")
    found, images, whose = chapter_12.numbers(frame[frame["seed"] == 200])
    assert [len(values) for values in found.values()] == [5] * 5 and images == 1_000
    assert whose.startswith("the first edition")
    assert found["signs"] == [
        row.result["recovery"] for row in results.first_edition("drawn", "reproduction") if row.cell.task == "signs"
    ]


def test_a_bound_has_the_floor_of_half_an_image():
    # t(1) exceeds 25.4517 once in eighty: the half width is 25.4517 · 0.0005 / √2 where two seeds are equal.
    low, high = chapter_12.bound([0.8, 0.8], 1_000).interval
    assert (high - low) / 2 == pytest.approx(25.4517 * 0.0005 / 2**0.5, rel=1e-5)
    assert chapter_12.bound([0.8, 0.8], 1_000).holds is True and chapter_12.bound([0.7, 0.9], 1_000).holds is None


def test_the_first_editions_verdicts_are_folded():
    page = BeautifulSoup(chapter_12.first_edition_fold(), "html.parser")
    assert page.details.summary.text == "The first edition's verdicts" and len(page("tr")) == 1 + 24
    [line] = [line for line in page("tr") if line.th.text == "C1"]
    assert [cell.text for cell in line("td")][1:] == ["undecided", "holds"]


def test_a_verdict_that_changed_since_the_first_edition_is_named():
    # The first edition's words on drawings: C1 undecided, C7 holds.
    cells = [(claim, "birds", Verdict.HOLDS) for claim in ("C1", "C7", "B5", "B10")]
    # B5's statement is a different one, and B10 is new.
    assert chapter_12.changed(made(*cells)) == (
        "On drawn images, 3 of its 24 claims have a verdict from the second edition's rows. Stated differently now, and"
        " so not compared: B5. Among the others, the verdict is different for C1 (undecided, now holds); their"
        " experiments and tests are new, so it is not one and the same result that changed."
    )
    assert chapter_12.changed(made()).startswith("On drawn images, none of its 24 claims")


def test_what_the_authors_slides_cannot_mean_is_named():
    tables = ("reproduction", "granularity", "query_diversity", "defended")
    found = [slip for table in tables for slip in chapter_12.slips(table)]
    assert found == [
        "GTSRB-RN34: 41.9 / 98.1 is 0.43, but the slides print 0.44",
        "CIFAR10-RN34: 28.6 / 94.6 is 0.30, but the slides print 0.32",
        "CIFAR10-RN34: 2.8% is far below the 10% that guessing among balanced classes reaches",
    ]  # fmt: skip


def test_the_authors_tables_are_printed_with_their_notes():
    page = BeautifulSoup(chapter_12.authors(), "html.parser")
    rows = {line.th.text: [cell.text for cell in line("td")] for line in page("tr") if line.td}
    assert rows["horse"] == ["96 / 79"] and rows["GTSRB-5L"] == ["91.5", "54.5", "0.59", "55.8", "0.6"]
    notes = [text.text for text in page("p") if text.text.startswith("Note: ")]
    assert any("Orekondy et al. report 76.5 and 68.0" in note for note in notes)
    assert any("class 21 99 vs 0" in note for note in notes) and len(notes) == 7
    [doubt] = [note for note in notes if "interchanged" in note]
    assert doubt.startswith("Note: GTSRB-RN34 and CIFAR10-RN34: the two figures")


def test_a_verdict_that_later_seeds_would_not_bear_out_is_named():
    """C1 on retina: 0.8 at the first look's seeds, and at the second look's 0.6 or, in a second try, still 0.8."""

    def judged(later: float) -> str:
        rows = [
            {"task": task, "seed": seed, "recovery": 0.8 if seed < 208 or task == "signs" else later, "images": 1000}
            for task, seeds in (("retina", range(200, 216)), ("signs", range(200, 208)))
            for seed in seeds
        ]
        settings = {"scale": "drawn", "experiment": "extraction"} | claims.Evidence(EMPTY, scale("drawn"))._plain
        found = pd.DataFrame([settings | row for row in rows])
        entries = claims.verdicts(found, scale("drawn"), only="C1")
        return chapter_12.closed_early(ledger.Ledger(scale("drawn"), tuple(entries), {}, found))

    said = judged(0.6)
    assert said.startswith("Of the 2 entries that were closed at the first look, 1 can be judged at all seeds of")
    assert "comes out for 1: C1 on *retina* holds by the first seeds (r(retina) ≥ 0.75: 0.800" in said
    assert ", 8 seeds), and is undecided by all of them (r(retina) ≥ 0.75: 0.700" in said
    assert judged(0.8).endswith("comes out for 0: none. The matrix and the chapters keep the first look's.")


def test_deviations_are_counted_for_each_freeze(tmp_path, monkeypatch):
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text(
        '[drawn]\ndate = "2026-12-01T10:00:00+00:00"\n[[deviations]]\nfreeze = "drawn"\nwhat = "train"\n'
    )
    assert chapter_12.deviated() == "Deviations so far: 1 from the freeze of drawn."


def test_the_command_makes_the_claims_table():
    assert chapter_12.command() == "extractbook results --scale drawn --table reproduction"


def threat_rows(table: str, edition: str = "second") -> pd.DataFrame:
    """Return two tasks' rows of a table that the answer to the title reads, at drawn's settings."""
    plain = {"budget": 10_000, "pool": "atlas", "granularity": "full", "attack": "random", "defense": "none"}
    plain |= {"victim_weights": "A", "surrogate_weights": "A", "steps": 2_500, "edition": edition}
    tables: dict[str, list[dict]] = {
        "reproduction": [{"recovery": 0.9}],
        "weights": [
            {"surrogate_weights": "B", "recovery": 0.6},
            {"victim_weights": "B", "surrogate_weights": "B", "recovery": 0.8},
        ],
        "granularity": [{"granularity": "label", "recovery": 0.7}, {"granularity": "top-2", "recovery": 0.1}],
        "own_images": [
            {"pool": "{}/shifted", "budget": 2_500, "recovery": 0.95},
            {"pool": "{}/shifted", "budget": 2_500, "attack": "own-labels", "recovery": 0.75},
            {"pool": "{}", "budget": 2_500, "recovery": 0.2},
            {"pool": "{}/shifted", "budget": 500, "recovery": 0.3},
        ],
        "defended": [
            {"defense": "shuffle", "recovery": 0.1},
            {"defense": "deny", "recovery": 0.4},
            {"defense": "shuffle", "pool": "{}/shifted", "budget": 2_500, "recovery": 0.85},
        ],
        "asked_twice": [{"defense": "shuffle", "recovery_consistent": 0.5, "shuffled": 0.75}],
        "watermark": [
            {"recovery": 0.8, "marked": 10, "marks_repeated": 5, "marks_repeated_by_control": 1},
            {"steps": 7_500, "recovery": 0.4, "marked": 10, "marks_repeated": 9, "marks_repeated_by_control": 9},
        ],
    }
    seed = 200 if edition == "second" else 1_000
    lines = [
        {**plain, **line, "pool": line.get("pool", "atlas").format(task), "task": task, "seed": seed}
        for task in ("signs", "things")
        for line in tables[table]
    ]
    found = pd.DataFrame(lines)
    shift = 0.1 * (found["task"] == "things")  # so that a mean over tasks differs from one task's value
    columns = [column for column in ("recovery", "recovery_consistent") if column in found]
    return found.assign(**{column: found[column] - shift for column in columns})


def test_the_title_is_answered_by_a_row_for_each_condition(monkeypatch):
    monkeypatch.setattr(results, "newest", lambda table, scale="drawn", beside=(): threat_rows(table))
    found = chapter_12.threat("drawn")
    values = [0.85, 0.55, 0.65, 0.9, 0.7, 0.05, 0.45, 0.8, 0.75]  # each 0.05 below the value of signs
    assert found["recovery"].tolist() == pytest.approx(values)
    assert found["plain"].tolist() == pytest.approx([0.85] * 9)
    table = chapter_12.threat_table(found, found.iloc[:0], made())
    lines = table.splitlines()
    assert len(lines) == 2 + 2 + 9
    assert lines[4] == "| public images, the victim's start | 0.85 (things, signs; 1 seed) | not run | C1 not run |"
    assert "| 0.55 against 0.85 (things, signs; 1 seed) | not run | B10 not run |" in lines[5]
    words = chapter_12.threat_words(found, found.iloc[:0])
    assert words.splitlines()[0] == ("An attacker with public images and the victim's start recovers 0.85 on drawings.")
    assert "recovers 0.40 on *things*, where 75.0% of the answers are shuffled, and 0.50 on *signs*" in words


def test_the_title_is_answered_from_exploring_seeds_beside_their_own_copies(monkeypatch):
    def newest(table, scale="drawn", beside=()):
        if table not in ("reproduction", "weights"):
            raise results.NoRows(table)
        return threat_rows(table, "exploring" if "weights" in (table, *beside) else "second")

    monkeypatch.setattr(results, "newest", newest)
    found = chapter_12.threat("drawn")
    assert list(found.index) == ["plain", "start"]
    assert found["edition"].tolist() == ["second", "exploring"] and found["plain"].tolist() == pytest.approx([0.85] * 2)
    assert "0.55 against 0.85 (things, signs; exploring seed)" in chapter_12.threat_table(found, found, made())


def test_accounts_and_marks_are_answered_in_words():
    accounts = pd.DataFrame({"task": ["signs", "signs", "things"]})
    accounts = accounts.assign(**{"counting.sybil_flagged": [0.0, 0.02, 0.005], "prada.sybil_flagged": 0.0})
    assert chapter_12.kept_words(accounts, threat_rows("watermark")) == (
        "When queries with own images are split over many accounts, the count of out-of-distribution queries flags at"
        " most 1.0% and PRADA flags at most 0.0% of the accounts on any task (B2).\n"
        "A copy repeats 50% of the marks, and a control that never saw an answer 10% (B3)."
    )
