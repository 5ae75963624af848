"""Claims as cards on hand-made rows: the word first, what is missing said, what was explored labeled."""

from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from test_claims import FRAME, SCALE, changed
from test_ledger_page import WORLD, judged
from test_results import MADE

from extractbook import claim_cards as cards
from extractbook.reproduction import claims, ledger, results, table_cells
from extractbook.reproduction.cells import Row
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError

CLAIMS = {claim.id: claim for claim in claims.claims()}


def explored(recoveries: dict[str, float]) -> list:
    """Return the bounds of C1 as explored at seed 1000."""
    cells = [cell for cell in table_cells("reproduction", scale("drawn"), seeds=[1000]) if cell.task in recoveries]
    rows = [Row(cell, {"recovery": recoveries[cell.task], "images": 1_000}, MADE) for cell in cells]
    return cards.explored(rows, CLAIMS["C1"], scale("drawn"))[0]


def read(found: ledger.Ledger, claim: str, bounds: tuple = ()) -> tuple[dict[str, str], BeautifulSoup]:
    """Return a card's lines by their heads, and its section."""
    section = BeautifulSoup(cards.card(CLAIMS[claim], found, bounds), "html.parser").section
    heads, texts = section("dt"), section("dd")
    return {head.get_text(): text.get_text(" ", strip=True) for head, text in zip(heads, texts, strict=True)}, section


def test_a_claim_that_holds_says_so_first_and_names_its_tasks():
    lines, section = read(WORLD, "C1")
    assert section.get_text(" ", strip=True).startswith("✓ holds 8 seeds C1 Knockoff nets steal complex")
    assert section["class"] == ["card", "holds"]
    assert list(lines) == ["Paper", "Ours", "Why", "Test"]
    assert lines["Paper"] == "r 0.75 to 0.97 on all five"
    assert lines["Ours"].count("✓") == 5 and "r(signs) ≥ 0.75: 0.950 0.950 to 0.950" in lines["Ours"]
    assert lines["Why"] == f"All bounds hold on {', '.join(SCALE.tasks)}."
    assert section.a["href"] == "12_ledger.html#drawn-C1"


def test_a_claim_that_fails_names_the_task_and_the_bound():
    lines, section = read(judged(changed("birds", {}, recovery=0.5), only="C1"), "C1")
    assert section["class"] == ["card", "fails"]
    assert lines["Why"] == "r(birds) ≥ 0.75: 0.500, interval 0.500 to 0.500, 8 seeds."
    assert "✗ r(birds) ≥ 0.75: 0.50" in lines["Ours"]


def test_a_claim_of_ours_has_no_figure_in_the_paper():
    assert read(WORLD, "B5")[0]["Paper"] == "makes no such claim"
    assert read(WORLD, "B2")[0]["Paper"] == "says so (section 6), but does not measure it"


def test_without_deciding_rows_a_card_shows_what_was_explored_and_that_it_decides_nothing():
    nothing = judged(results.frame([]), only="C1")
    lines, section = read(nothing, "C1", explored({"birds": 0.8, "signs": 0.7}))
    assert section.get_text(" ", strip=True).startswith("· not run yet C1")
    assert lines["Explored, seed 1000"] == "r(birds) ≥ 0.75: 0.800 r(signs) ≥ 0.75: 0.700"
    assert lines["Why"].endswith("what was explored decides nothing.")
    assert read(nothing, "C1")[0]["Explored"] == "nothing yet"


def test_rows_that_only_a_precondition_has_yet_are_counted_too():
    """Until two seeds exist no precondition is met, so a claim that has one has no bounds yet."""
    cells = [cell for table in CLAIMS["B5"].tables for cell in table_cells(table, scale("photos"), seeds=[200])]
    values = {"validation_accuracy": 0.75, "errors_repeated": 0.5, "images": 1_000}
    frame, photos = results.frame([Row(cell, values, MADE) for cell in cells]), scale("photos")
    entries = tuple(claims.verdicts(frame, photos, only="B5"))
    assert {entry.seeds for entry in entries} == {()}
    lines, section = read(ledger.Ledger(photos, entries, {}, frame), "B5")
    assert lines["Why"].startswith("There are rows from 1 deciding seed, too few for a verdict;")
    assert section.select_one("a")["href"] == "12_ledger.html#photos-B5"


def test_a_bound_whose_precondition_fails_in_exploration_is_not_counted():
    """The control of retina is a tenth more accurate than the copy, so it is no fair one."""
    values = {"validation_accuracy": 0.75, "errors_repeated": 0.5, "images": 1_000}
    other = {
        ("signs", "control"): {"validation_accuracy": 0.75, "errors_repeated": 0.25},
        ("retina", "control"): {"validation_accuracy": 0.85, "errors_repeated": 0.25},
    }
    cells = [cell for table in CLAIMS["B5"].tables for cell in table_cells(table, scale("drawn"), seeds=[1000])]
    rows = [
        Row(cell, values | other.get((cell.task, cell.experiment), {}), MADE)
        for cell in cells
        if cell.task in ("signs", "retina")
    ]
    bounds, failing = cards.explored(rows, CLAIMS["B5"], scale("drawn"))
    assert [str(one.values) for one in bounds] == ["{1000: 0.25}"] and "signs" in bounds[0].statement
    assert [one.statement for one in failing] == ["validation accuracy(retina), copy − control ± 0.03"]
    section = BeautifulSoup(
        cards.card(CLAIMS["B5"], judged(results.frame([]), only="B5"), bounds, failing), "html.parser"
    )
    assert "not testable: validation accuracy(retina), copy − control ± 0.03: −0.100" in section.get_text(
        " ", strip=True
    )


def test_what_was_explored_with_other_steps_than_those_that_were_chosen_is_shown():
    [plain] = [cell for cell in table_cells("reproduction", scale("drawn"), seeds=[1000]) if cell.task == "signs"]
    longer = [Row(replace(plain, steps=steps), {"recovery": 0.7, "images": 900}, MADE) for steps in (5_000, 20_000)]
    chosen = Row(plain, {"recovery": 0.9, "images": 900}, MADE)
    for rows, value in ((longer[:1], 0.7), (longer, 0.7), ([*longer, chosen], 0.9)):
        [bound] = cards.explored(rows, CLAIMS["C1"], scale("drawn"))[0]
        assert bound.values == {1000: value}


def test_a_card_gives_few_reasons_and_counts_the_others():
    frame = FRAME.copy()
    frame.loc[frame["task"] == "retina", "recovery"] = 0.99
    lines, _ = read(judged(frame, only="C2"), "C2")
    assert lines["Why"].count("seeds") == cards.REASONS and lines["Why"].endswith("; and 2 more.")


def test_a_card_has_both_bounds_of_a_task():
    bounds = [line.get_text() for line in BeautifulSoup(cards.cards("C5").data, "html.parser").select("ul li")]
    assert len(bounds) == 4
    assert sum("> 0:" in bound for bound in bounds) == sum("< 0.15:" in bound for bound in bounds) == 2


def test_each_bound_has_its_own_mark():
    """Another architecture costs 0.2 on signs: more than nothing, and not less than 0.15."""
    lines, _ = read(judged(changed("signs", {"surrogate": "vgg"}, recovery=0.75), only="C5"), "C5")
    assert "✓ r(signs, same network) − r(signs, other network) > 0: 0.200" in lines["Ours"]
    assert "✗ r(signs, same network) − r(signs, other network) < 0.15: 0.200" in lines["Ours"]


def test_a_card_names_what_was_not_tested_and_the_mean_over_tasks():
    """By the committed rows: PRADA flags too few accounts to have a flag time, and C11 has a bound across tasks."""
    said = BeautifulSoup(cards.cards("B2", "C11").data, "html.parser").get_text(" ", strip=True)
    assert "on things, birds, signs, objects. Not tested, because a precondition fails: T(things, prada) ≥ 20; " in said
    assert "All bounds hold on things, birds, retina, signs, objects and in the mean over the tasks. The test" in said


def test_a_card_leads_to_an_entry_that_the_ledger_has():
    """Of photographs it has none before their first deciding row, and drawn claims are always there."""
    photos = ledger.Ledger.of_rows([], scale("photos"), only="C1")
    for found, anchor in ((judged(FRAME, only="C1"), "drawn-C1"), (photos, "drawn-C1")):
        page = BeautifulSoup(cards.card(CLAIMS["C1"], found, []), "html.parser")
        assert page.find("a")["href"] == f"12_ledger.html#{anchor}"


def test_cards_of_the_book_are_one_grid_and_an_unknown_claim_is_refused():
    page = BeautifulSoup(cards.cards("C1", "B5").data, "html.parser")
    assert [section.a.get_text() for section in page.select("div.cards > section.card")] == ["C1", "B5"]
    with pytest.raises(InputError, match="C99"):
        cards.cards("C99")


def test_of_more_than_three_claims_each_shows_verdict_and_statement_and_folds_the_rest():
    page = BeautifulSoup(cards.cards("C1", "C2", "C3", "B5").data, "html.parser")
    for section, name in zip(page.select("section.card"), ("C1", "C2", "C3", "B5"), strict=True):
        fold = section.find("details", recursive=False)
        assert fold.summary.get_text() == f"{name}: bounds and reasons" and not fold.has_attr("open")
        assert "fold" not in fold.get("class", [])  # the PDF opens all others
        assert [head.get_text() for head in fold.dl("dt")] == ["Paper", "Ours", "Why", "Test"]
        fold.extract()
        assert section.select_one("p.word") and section.a.get_text() == name and not section("dl")


def test_three_claims_or_fewer_are_shown_in_full():
    page = BeautifulSoup(cards.cards("C1", "C2", "C3").data, "html.parser")
    assert len(page.select("section.card > dl")) == 3 and not page.select("section.card > details")
