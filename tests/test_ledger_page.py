"""The ledger's page on hand-made rows: what stands in its table, its entries and its forest plot."""

from dataclasses import replace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_claims import FRAME, LOOK, SCALE, TASKS, changed

from extractbook import ledger_page
from extractbook.build import data
from extractbook.reproduction import claims, editions, ledger, results, table_cells
from extractbook.reproduction.cells import Row
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError


def judged(frame: pd.DataFrame, *, only: str = "") -> ledger.Ledger:
    return ledger.Ledger(SCALE, tuple(claims.verdicts(frame, SCALE, only=only)), {}, frame)


WORLD = judged(FRAME)
BROKEN = judged(changed("birds", {}, recovery=0.5))


def cells(html: str) -> list[list[str]]:
    """Return a table's lines as the texts of their cells."""
    lines = BeautifulSoup(html, "html.parser").find_all("tr")
    return [[cell.get_text(" ", strip=True) for cell in line.find_all(["th", "td"])] for line in lines]


def test_the_matrix_has_a_line_a_claim_its_word_first_and_the_seeds_of_each_cell():
    head, *lines = cells(ledger_page.matrix(BROKEN))
    assert head == ["claim", "verdict", *TASKS, "across"]
    assert [line[0] for line in lines] == [claim.id for claim in claims.claims()]
    by_claim = {line[0]: line[1:] for line in lines}
    assert by_claim["C1"] == ["does not hold", "✓ 8", "✗ 8", "✓ 8 †", "✓ 8", "✓ 8", ""]
    assert by_claim["C5"] == ["holds", "", "", "", "✓ 8", "✓ 8", ""]
    assert by_claim["C11"] == ["holds", "✓ 8", "✓ 8", "✓ 8", "✓ 8", "✓ 8", "✓ 8"]


def test_what_was_explored_is_counted_beside_the_verdict():
    explored = {name: [bound for entry in BROKEN.of(name) for bound in entry.bounds] for name in ("C1", "C5", "B3")}
    head, *lines = cells(ledger_page.matrix(judged(results.frame([])), explored=explored))
    assert head[:3] == ["claim", "verdict", "explored"]
    words = {line[0]: line[1:3] for line in lines}
    # Birds miss C1's bound; B3's bounds are of hits and have no mean to compare.
    assert words["C1"] == ["not run", "4 of 5"] and words["C5"] == ["not run", "4 of 4"]
    assert words["B3"] == words["C2"] == ["not run", ""]


def test_a_cell_of_some_seeds_is_not_run_and_says_how_many_there_are():
    frame = FRAME[~((FRAME["task"] == "signs") & (FRAME["seed"].isin(LOOK[3:])))]
    lines = {line[0]: line[1:] for line in cells(ledger_page.matrix(judged(frame, only="C1")))}
    assert lines["C1"] == ["not run", "✓ 8", "✓ 8", "✓ 8 †", "· 3", "✓ 8", ""]


def test_a_bound_of_too_few_seeds_has_no_word_in_the_forest():
    """Three of eight seeds are no look, wherever their interval lies."""
    frame = FRAME[~((FRAME["task"] == "signs") & (FRAME["seed"].isin(LOOK[3:])))]
    early = judged(frame, only="C1")
    assert sorted(ledger_page.forest(early).data["task"]) == sorted({*SCALE.tasks} - {"signs"})
    assert ledger_page.unjudged(early) == "1 bound has rows, but from too few seeds to be judged."
    assert ledger_page.unjudged(judged(FRAME, only="C1")) == ledger_page.unjudged(judged(results.frame([]))) == ""


def test_without_rows_nothing_is_run():
    empty = judged(results.frame([]))
    lines = cells(ledger_page.matrix(empty))[1:]
    assert {line[1] for line in lines} == {"not run"}
    assert len(ledger_page.forest(empty).data) == 0


def test_each_claim_leads_to_its_entry_which_has_a_test_bounds_rows_and_a_command(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)  # there are no rows to link
    found = WORLD
    page = BeautifulSoup(ledger_page.entries(found), "html.parser")
    links = BeautifulSoup(ledger_page.matrix(found), "html.parser").select("th a")
    assert [page.find(id=link["href"][1:]).name for link in links] == ["p"] * len(claims.claims())
    c1 = page.find(id="drawn-C1").find_parent("details")
    assert c1.find("summary").get_text() == "C1 Knockoff nets steal complex, pre-trained victims: holds"
    assert "extractbook results --scale drawn --table reproduction" in c1.get_text()
    assert c1.find("a") is None


def test_rows_are_linked_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    (tmp_path / "edition-2" / "drawn").mkdir(parents=True)
    (tmp_path / "edition-2" / "drawn" / "reproduction.jsonl").touch()
    links = BeautifulSoup(ledger_page.entry(WORLD, claims.claims()[2]), "html.parser").find_all("a")
    assert [link["href"] for link in links] == ["../data/edition-2/drawn/reproduction.csv"]
    linked = BeautifulSoup(ledger_page.downloads(WORLD), "html.parser").find_all("a")
    names = ["README.md", "edition-2/drawn/reproduction.csv", "edition-2/drawn/reproduction.parquet"]
    assert [link["href"] for link in linked] == [f"../data/{name}" for name in names]


def test_an_entry_has_its_verdicts_and_bounds_by_task():
    c1 = ledger_page.entry(WORLD, claims.claims()[0])
    assert ["signs: holds"] in cells(str(c1))
    assert ["holds", "r(signs) ≥ 0.75", "0.950", "0.950 to 0.950", "8", "0.960"] in cells(str(c1))


def test_a_failing_precondition_stands_with_its_figure():
    found = judged(changed("signs", {"experiment": "classes"}, errors_introduced=40), only="C8")
    entry = ledger_page.entry(found, claims.claims()[7])
    errors = "errors that the surrogate adds on signs ≥ 100"
    assert ["precondition: not met", errors, "40", "–", "8", "–"] in cells(entry)
    assert ["signs: not testable"] in cells(entry)


def test_what_is_doubtful_about_the_authors_figures_stands_beside_them():
    """C12 shows two figures of the authors that look interchanged; B13 shows none of theirs."""
    doubtful, other = (ledger_page.entry(WORLD, claims.claims()[number - 1]) for number in (12, 28))
    assert "<b>C12</b>" in doubtful and "<b>B13</b>" in other
    assert "Note: GTSRB-RN34 and CIFAR10-RN34: the two figures look interchanged" in doubtful
    assert "Note:" not in other


def test_text_in_an_entry_is_escaped():
    entry = ledger_page.entry(WORLD, claims.claims()[4])
    assert "0 &lt; r(same)" in entry and "0 < r(same)" not in entry


def test_the_forest_shows_each_bound_right_of_zero_where_it_holds():
    found = BROKEN
    data = ledger_page.forest(found).data
    assert len(data) == sum(len(entry.bounds) for entry in found.entries)
    assert (data["distance"][data["holds"] == True] > 0).all()  # noqa: E712
    birds = data[(data["claim"] == "C1") & (data["task"] == "birds")].iloc[0]
    assert birds["distance"] == pytest.approx(-0.25)
    assert birds["low"] <= birds["distance"] <= birds["high"]
    [axes] = ledger_page.forest(found).axes
    shapes = {line.get_label(): line.get_marker() for line in axes.lines if line.get_label() in ("holds", "violated")}
    assert shapes == {"holds": "o", "violated": "X"}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(dict.fromkeys(data["claim"]))
    below = data[(data["claim"] == "C5") & data["bound"].str.contains("<")].iloc[0]
    assert below["distance"] == pytest.approx(0.15 - 0.05)


def test_what_does_not_count_is_said_with_its_reason():
    assert ledger_page.refused(WORLD) == ""
    said = ledger_page.refused(replace(WORLD, refused={"seed 0 decides nothing": 1_200}))
    assert said == "Rows that do not count: 1,200: seed 0 decides nothing."


def test_the_number_of_false_cells_to_expect_is_that_of_both_scales():
    cells, false = WORLD.expected_false
    assert ledger_page.expected([WORLD, WORLD]) == (
        f"{2 * cells} entries are judged; chance in the bounds alone is expected to make at most {2 * false:.1f} of"
        " them wrong."
    )


def test_where_nothing_is_judged_no_false_cell_is_expected():
    assert ledger_page.expected([judged(results.frame([]))]) == "No entry has been judged yet."


def test_freezes_and_deviations_stand_in_one_table(tmp_path, monkeypatch):
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text("")
    assert "Nothing is frozen yet." in ledger_page.deviations()
    editions.FILE.write_text(
        '[drawn]\ndate = "2026-12-01T10:00:00+00:00"\ncommit = "0123456789abcdef"\n'
        '[[deviations]]\nfreeze = "drawn"\ndate = 2026-12-02\nwhat = "train"\nnow = 2\nreason = "a <fault>"\n'
    )
    assert cells(ledger_page.deviations())[1:] == [
        ["2026-12-01", "drawn", "frozen", "commit 0123456789ab"],
        ["2026-12-02", "drawn", "train", "a <fault>"],
    ]


# -- rows offered to the ledger ---------------------------------------------------------


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Return a function that offers rows of the reproduction to the ledger, and the ledger of them."""
    monkeypatch.setattr(editions, "FILE", tmp_path / "EDITIONS.toml")
    editions.FILE.write_text('[drawn]\ndate = "2026-12-01T00:00:00+00:00"\n[drawn.versions]\ndrawn = 4\n')
    cell = table_cells("reproduction", scale("drawn"), seeds=LOOK[:1])[0]
    made: dict = {name: {} for name in ("libraries", "settings", "data")}
    made |= {"seconds": 1.0, "device": "cpu", "lock": "", "processor": ""}
    made |= {"commit": "abc", "date": "2026-12-02T00:00:00+00:00", "versions": {"drawn": 4}}

    def offer(*changes: dict) -> ledger.Ledger:
        for change in changes:
            change = dict(change)
            row = Row(
                replace(cell, seed=change.pop("seed", LOOK[0])),
                {"recovery": change.pop("recovery", 0.9), "images": 3_000},
                made | change,
            )
            results.append_row(tmp_path / "drawn" / "reproduction.jsonl", row)
        return ledger.ledger("drawn", only="C1", folder=tmp_path)

    return offer


def test_rows_that_may_not_decide_are_left_out_by_name(offered):
    found = offered(
        {},
        {"seed": 1000},
        {"seed": LOOK[1], "commit": "abc+"},
        {"seed": LOOK[2], "date": "2026-11-30T00:00:00+00:00"},
        {"seed": LOOK[3], "versions": {"drawn": 3}},
    )
    [things] = [entry for entry in found.of("C1") if entry.bounds[0].seeds]
    assert things.bounds[0].seeds == (LOOK[0],)
    assert "<td>bound: 1 of 8 seeds</td>" in ledger_page._line("bound", things.bounds[0])
    assert found.refused == {
        "seed 1000 is not a deciding seed": 1,
        "it was made by files that differ from commit abc": 1,
        "it was made on 2026-11-30, before the freeze": 1,
        "it was made by version 3 of 'drawn', and the freeze has 4": 1,
    }
    assert things.verdict == "not run"
    assert f"seed {', '.join(map(str, LOOK[1:]))}" in things.reason


def test_a_row_offered_twice_with_other_values_is_refused(offered):
    with pytest.raises(InputError, match="lines 1 and 2 are of one cell .*, made in the same way, but differ"):
        offered({}, {"recovery": 0.8})


def test_a_row_offered_twice_with_other_values_and_making_is_refused(offered):
    with pytest.raises(InputError, match=f"two rows for task 'things' and seed {LOOK[0]} of one cell differ: give one"):
        offered({}, {"recovery": 0.8, "data": {"test": "other images"}})


# -- published rows -----------------------------------------------------------------------


def test_published_rows_are_those_of_the_results(tmp_path):
    files = data.write_rows(tmp_path)
    path = tmp_path / "edition-1" / "drawn" / "reproduction.csv"
    assert path in files
    expected = results.frame(results.first_edition("drawn", "reproduction"))
    as_csv, as_parquet = pd.read_csv(path), pd.read_parquet(path.with_suffix(".parquet"))
    for found in (as_csv, as_parquet):
        assert found["recovery"].tolist() == expected["recovery"].tolist()
        assert found["seed"].tolist() == expected["seed"].tolist()
    whole = pd.read_parquet(tmp_path / "rows.parquet")
    first = whole[(whole["edition"] == "edition-1") & (whole["scale"] == "drawn")]
    assert len(first) == len(results.first_edition("drawn"))
    assert f"| edition-1 | drawn | {len(first):,} | 5 |" in (tmp_path / "README.md").read_text()
    assert {path.parts[-3] for path in files} <= {"edition-1", "edition-2"}
    assert not (tmp_path / "edition-2" / "smoke").exists()
