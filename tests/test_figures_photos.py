"""What chapter 11 shows: photographed tasks beside their drawn twins, and photographs where they are at hand."""

from types import SimpleNamespace

import pandas as pd
import photographs
import pytest
import torch

from extractbook import figures
from extractbook.reproduction import results
from extractbook.reproduction.claims import claims
from extractbook.reproduction.judging import Bound, Entry, Limit, Verdict
from extractbook.reproduction.ledger import Ledger
from extractbook.reproduction.scales import scale
from extractlib.errors import InputError
from extractlib.store import Store

chapter_11 = figures.chapter_11


def rows(*lines: tuple[str, float], **fields) -> pd.DataFrame:
    """Return a row a task and value, its recovery, with these fields."""
    made = pd.DataFrame(lines, columns=["task", "recovery"])
    plain = {"victim_accuracy": 0.5, "constant_accuracy": 0.1, "surrogate_accuracy": 0.25, "agreement": 0.75}
    plain |= {"images": 1_000, "errors": 200, "errors_repeated": 0.5, "surrogate_weights": "A", "granularity": "full"}
    made = made.assign(**{"validation_accuracy": 0.3} | plain | fields)
    made["resampled.recovery"] = [[value - 0.1, value, value + 0.1] for value in made["recovery"]]
    return made


PHOTOS = rows(("gtsrb", 0.7), ("gtsrb", 0.9), ("caltech101", 0.7))
DRAWN = rows(("signs", 0.95), ("things", 0.6))
CONTROLS = rows(("gtsrb", 0.6), ("caltech101", 0.65), errors_repeated=0.25)


def marks(figure) -> dict[tuple[str, str], float]:
    return {(line.iloc[0], line.iloc[1]): line.iloc[2] for _, line in figure.data.iterrows()}


def test_a_photographed_task_stands_beside_its_drawn_twin_the_authors_and_a_constant():
    found = marks(chapter_11.recoveries(PHOTOS, DRAWN))
    assert found["photographs", "GTSRB (signs)"] == pytest.approx(0.8)
    assert found["drawn twin", "GTSRB (signs)"] == 0.95
    assert found["authors", "Caltech101 (things)"] == 0.97
    assert found["constant predictor", "GTSRB (signs)"] == pytest.approx(0.2)
    assert len(found) == 8


def test_words_name_the_most_and_the_least_recovered_and_count():
    words = chapter_11.recovery_words(PHOTOS, DRAWN)
    assert "At least three quarters are recovered from 1 of 2." in words
    assert "*GTSRB* is recovered most (0.80) and *Caltech101* least (0.70)" in words
    assert "the drawn twin is recovered more on 1 of 2" in words


def test_victims_copies_and_controls_stand_side_by_side():
    controls = CONTROLS.assign(surrogate_accuracy=0.2, seed=0)
    table = chapter_11.victims_table(PHOTOS.assign(seed=0), controls)
    assert "| GTSRB | 1,000 | 1,500 | 0.50 | 0.25 | 0.20 | 0.10 | 0.75 | 0.75 |" in table
    assert "the mean over classes on Caltech101 and EyePACS; agreement; one seed**" in table
    assert "; agreement; mean over 1 to 2 seeds**" in chapter_11.victims_table(PHOTOS.assign(seed=[0, 1, 0]), controls)


def test_a_control_is_fair_within_three_points_on_validation_images_either_way():
    near = CONTROLS.assign(validation_accuracy=[0.34, 0.275])  # gtsrb, caltech101; the copies have 0.3
    said = "On validation images, the control is within three points of the copy on"
    assert chapter_11.fair_words(PHOTOS, near) == (
        f"{said} Caltech101.\nOn GTSRB, it is more accurate than the copy, without a single query."
    )
    assert chapter_11.fair_words(PHOTOS, near.assign(validation_accuracy=0.1)) == f"{said} no task."
    assert chapter_11.fair_words(PHOTOS, near.assign(validation_accuracy=0.3)) == f"{said} Caltech101 and GTSRB."


def test_the_weakest_victim_is_least_above_a_constant_answer():
    found = PHOTOS.assign(victim_accuracy=[0.5, 0.5, 0.9], constant_accuracy=[0.1, 0.3, 0.1])
    weakest, copy, resampled, by_image = chapter_11.weakest_words(found).splitlines()
    assert weakest == (
        "*GTSRB* is weakest compared with a constant answer, 0.50 against 0.20, so a constant answer alone would"
        " recover 0.40."
    )
    # The means over both seeds are 0.7, 0.8 and 0.9, and 95% of the way between the ends is 0.705 to 0.895.
    assert copy == "The copy is right on 0.25."
    assert resampled.startswith("Under resampled test images, its mean recovery is 0.70 to 0.89, and seeds differ")
    assert by_image == "Counted by image, this victim is right on 80%."


def test_repeated_errors_have_their_number_in_the_row():
    found = marks(chapter_11.repeated(PHOTOS, CONTROLS))
    assert found["copy", "GTSRB (200 errors)"] == 0.5
    assert found["independent control", "Caltech101 (200 errors)"] == 0.25
    words = chapter_11.repeated_words(PHOTOS, CONTROLS.assign(errors_repeated=[0.75, 0.25]))
    assert words.startswith("The copy repeats more than the independent control on 1 of 2: *")
    assert "*GTSRB* 0.50 against" in words and "*Caltech101* 0.50 against" in words


def test_a_task_whose_control_beats_the_copy_is_named_with_its_drawn_twin():
    copies = rows(("gtsrb", 0.7), ("caltech101", 0.7))
    drawn = rows(("signs", 0.95), ("things", 0.75))
    assert chapter_11.beaten_words(copies, drawn, rows(("gtsrb", 0.8), ("caltech101", 0.1))) == (
        "On *GTSRB*, 0.70 is recovered, against 0.95 on its drawn twin; the independent control, with 1,500 labels and"
        " no API, reaches 0.80 of the victim's accuracy."
    )
    assert chapter_11.beaten_words(copies, drawn, copies).startswith("On no task")


def test_answers_are_set_against_the_labels_of_the_control():
    # 15,000 answers cost 14 · 1.5 = 21 dollars; 1,400 labels 140, 1,500 labels 150, and 1,062 labels 106.20.
    assert chapter_11.dollars(15_000) == 21.0 and chapter_11.dollars(500) == 0.0
    copies = rows(("caltech101", 0.7), ("cub2010", 0.7), ("gtsrb", 0.7), budget=15_000)
    controls = copies.assign(validation_accuracy=[0.32, 0.2, 0.4])
    lines = chapter_11.savings_table(copies, controls).splitlines()
    assert lines[4:] == [
        "| Caltech101 | 1,400 | 15,000 | 0.09 | 6.7 times | yes |",
        "| CUB-200-2010 | 1,062 | 15,000 | 0.07 | at least 5.1 times | no (−10.0) |",
        "| GTSRB | 1,500 | 15,000 | 0.10 | at most 7.1 times | no (+10.0) |",
    ]
    assert chapter_11.savings_words(copies, controls).endswith("the saving ends at 1.5 cents a label.")
    fair = chapter_11.savings_words(copies, copies)
    assert fair.endswith("the saving ends at 1.4 to 2.0 cents a label.")
    assert chapter_11.savings_words(copies, copies.assign(validation_accuracy=0.9)).startswith("No control")


def test_labels_alone_cost_what_full_answers_recover_more():
    less = rows(("gtsrb", 0.5), ("caltech101", 0.6), granularity="label")
    less = pd.concat([less, rows(("gtsrb", 0.1), granularity="top-5")])
    assert chapter_11.labels(PHOTOS, less).round(6).to_dict() == {"gtsrb": 0.3, "caltech101": 0.1}
    found = marks(chapter_11.answers(PHOTOS, less))
    assert (found["labels alone", "GTSRB"], found["full answers", "Caltech101"]) == (0.5, 0.7)
    words = chapter_11.label_words(PHOTOS, less)
    assert words.startswith(
        "Labels alone cost 0.30 on *GTSRB* (0.30 to 0.30), 0.10 on *Caltech101* (0.10 to 0.10) of recovery;"
    )
    assert words.endswith("similar classes, Caltech101 loses the least.")
    least = pd.concat([less[less["granularity"] == "label"], rows(("cub2010", 0.7), granularity="label")])
    copies = pd.concat([rows(("gtsrb", 0.5), ("caltech101", 0.7), ("cub2010", 0.6))])
    words = chapter_11.label_words(copies, least)
    assert "−0.10 on *CUB-200-2010* (−0.10 to −0.10)" in words and "0.00 on *GTSRB*" in words
    least = pd.concat([less[less["granularity"] == "label"], rows(("cub2010", 0.1), granularity="label")])
    said = chapter_11.label_words(copies, least)
    assert said.endswith("similar classes, Caltech101 loses the second most and CUB-200-2010 loses the most.")


def test_the_spread_over_seeds_is_said_for_the_tasks_at_its_ends():
    """Of 0.7 and 0.9 the deviation is 0.2 / √2, of 0.6 and 0.62 it is 0.02 / √2; a task with one seed has none."""
    copies = pd.concat([PHOTOS, rows(("cifar10", 0.6), ("cifar10", 0.62))])
    assert "a standard deviation of 0.01 (*CIFAR-10*) to 0.14 (*GTSRB*)" in chapter_11.seed_words(copies)
    assert chapter_11.seed_words(rows(("gtsrb", 0.5))) == ""


def test_the_range_of_a_difference_is_of_paired_resamples():
    less = rows(("gtsrb", 0.5), granularity="label")
    less["resampled.recovery"] = [[0.5, 0.5, 0.5]]
    assert "0.30 on *GTSRB* (0.20 to 0.39)" in chapter_11.label_words(PHOTOS, less)  # 2.5% of 0.2, 0.3 and 0.4


def test_a_cost_that_had_another_sign_when_explored_is_said(monkeypatch):
    less = rows(("gtsrb", 0.5), ("caltech101", 0.6), granularity="label")
    before = pd.concat([rows(("gtsrb", 0.5), ("caltech101", 0.6)), less.assign(recovery=[0.4, 0.65])])
    monkeypatch.setattr(chapter_11, "rows_of", lambda edition, claim, scale: [edition, claim.id])
    monkeypatch.setattr(results, "frame", lambda found: before if found == ["exploring", "C3"] else None)
    said = chapter_11.explored_words(PHOTOS, less)
    assert said == "At the exploring seed, on validation images, labels alone cost −0.05 on *Caltech101*."
    assert chapter_11.explored_words(PHOTOS, less.assign(recovery=[0.5, 0.9])) == ""


def test_the_cost_of_a_shift_is_in_points_of_the_victims_accuracy():
    seen = pd.DataFrame({"task": ["gtsrb", "gtsrb", "eyepacs"], "victim_accuracy": [0.9, 0.8, 0.4]})
    seen["shifted_victim_accuracy"] = [0.8, 0.8, 0.4001]
    said = chapter_11.shift_words(seen)
    assert said.endswith("test images by 0.0 points on *EyePACS* and 5.0 points on *GTSRB*.")


def test_a_detector_without_a_chain_sees_images_as_they_come():
    found = pd.DataFrame({"task": ["gtsrb", "cub2010"], "binary.pool.balanced_accuracy": [0.9, 0.8]})
    found["unmatched.pool.balanced_accuracy"] = [0.99, float("nan")]
    found["binary.second.balanced_accuracy"] = [0.85, 0.75]
    shown = marks(chapter_11.detectors(found))
    assert shown["as they come", "GTSRB"] == 0.99
    assert shown["through one chain", "GTSRB"] == 0.9
    assert shown["as they come", "CUB-200-2010"] == 0.8
    assert ("through one chain", "CUB-200-2010") not in shown
    assert (
        chapter_11.chain_words(found) == "The chain lowers the detector's balanced accuracy by 9.0 points on *GTSRB*."
    )
    other = found.assign(**{"binary.pool.balanced_accuracy": [1.0, 0.8]})
    assert chapter_11.chain_words(other).endswith("by -1.0 points on *GTSRB*; a negative number is a gain.")


def test_resampled_queries_stand_beside_those_that_come_as_they_are():
    found = pd.DataFrame({"task": ["gtsrb", "gtsrb", "cifar10"], "seed": [0, 1, 0], "images": 500})
    for number, name in enumerate(chapter_11.DETECTORS):
        found[f"caught.{name}.none"] = [1.0, 0.9, 0.8 - number / 10]
        found[f"caught.{name}.bicubic"] = [0.5, 0.25, 0.125]
    found.attrs = {"seeds": (0, 1)}
    lines = chapter_11.evasions_table(found).splitlines()
    assert lines[0].startswith("**Share of 500 queries that is caught; mean over ")
    assert lines[4] == "| GTSRB (32 pixels) | trained on images as they come | 0.95 | 0.38 |"
    assert lines[9] == "| CIFAR-10 (32 pixels) | every image resampled, in training and in use | 0.60 | 0.12 |"


def test_every_claim_has_a_line_with_its_words_at_both_scales():
    table = chapter_11.verdicts_table(*(Ledger(scale(name), (), {}) for name in ("drawn", "photos")))
    lines = table.splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [claim.id for claim in claims()]
    assert all("not run" in line for line in lines)
    assert "no verdict: with the weights at hand it is B10" in table
    assert [line.split(" | ")[0] for line in lines if "no verdict: its rows would take too long" in line] == ["| B11"]


def bound(value: float, *, limit: float = 0.5, sign: str = ">", counts=(), rows=()) -> Bound:
    stated = Limit(name="r", quantity="r", tasks=("signs",), sign=sign, limit=limit, counts=counts)
    plain = {"mean": float("nan"), "interval": (0.0, 1.0), "holds": None, "violation": 1.0, "authors": None}
    return Bound(stated=stated, statement="r", limit=limit, values={1000: value}, rows=rows, missing=(), **plain)


def test_claims_of_which_the_exploration_misses_half_are_listed(monkeypatch):
    found = {"C1": [bound(0.9), bound(0.1)], "C2": [bound(0.9)], "B1": [bound(0.1)], "B3": [bound(0.1, counts=({},))]}
    monkeypatch.setattr(chapter_11, "rows_of", lambda edition, claim, scale: claim.id)
    monkeypatch.setattr(chapter_11, "explored", lambda rows, claim, scale: (found.get(claim.id, []), []))
    empty = Ledger(scale("photos"), (), {})
    # B3's hits need a control's, which one seed cannot judge.
    assert chapter_11.missed(empty) == "The exploring seed misses at least half of the bounds of C1 and B1."
    found.clear()
    assert chapter_11.missed(empty).endswith("of no claim.")


def test_tasks_are_named_beside_a_count_where_they_are_few(monkeypatch):
    of = [SimpleNamespace(cell=SimpleNamespace(task=task)) for task in ("gtsrb", "cifar10", "eyepacs")]
    found = [bound(0.9, rows=(0, 1)), bound(0.5, rows=(1,)), bound(0.9, counts=({},), rows=(2,))]
    monkeypatch.setattr(chapter_11, "rows_of", lambda edition, claim, scale: of)
    monkeypatch.setattr(chapter_11, "explored", lambda rows, claim, scale: (found, []))
    told = chapter_11._count(claims()[0], "exploring", scale("photos"))
    assert told == "1 of 2 on GTSRB and CIFAR-10"  # 0.5 is not above 0.5
    found.append(bound(0.9, rows=(2,)))
    assert chapter_11._count(claims()[0], "exploring", scale("photos")) == "2 of 3"
    found.clear()
    assert chapter_11._count(claims()[0], "exploring", scale("photos")) is None


def test_images_of_the_task_are_set_against_public_ones():
    copies = PHOTOS.assign(budget=15_000)
    own = rows(("gtsrb", 0.75), ("caltech101", 0.9), budget=900, attack="random").assign(
        pool=["gtsrb/shifted", "c/shifted"]
    )
    other = own.assign(granularity="label", recovery=0.0)
    assert chapter_11.own_words(copies, pd.concat([own, other])) == (
        "With 900 images of the task, the attacker recovers more than with 15,000 public ones on 1 of 2; the difference"
        " is +0.20 (Caltech101), −0.05 (GTSRB)."
    )


def test_the_weakest_detector_of_the_second_pool_is_named():
    found = pd.DataFrame({"task": ["gtsrb", "cub2010"], "binary.second.balanced_accuracy": [0.85, 0.75]})
    assert chapter_11.second_pool_words(found).endswith("the detector is weakest on *CUB-200-2010* (0.75).")


def test_claims_with_a_verdict_are_counted():
    entries = (Entry("C2", "cub2010", Verdict.HOLDS, reason=""), Entry("B1", "gtsrb", Verdict.NOT_TESTABLE, reason=""))
    said = [chapter_11.judged(Ledger(scale("photos"), entries[:count], {})) for count in range(3)]
    assert said == [
        "So far, none of the 28 claims has a verdict there.",
        "So far, 1 of the 28 claims has a verdict there.",
        "So far, 2 of the 28 claims have a verdict there.",
    ]


def test_figures_that_are_compared_share_victims():
    copies = PHOTOS.assign(seed=[200, 201, 201])
    copies.attrs = {"seeds": (200, 201), "parts": ("test",)}
    alone = CONTROLS.assign(seed=[201, 200])
    ours, controls = chapter_11.paired(copies, alone)
    assert ours["recovery"].tolist() == [0.9] and controls["recovery"].tolist() == [0.6]
    assert ours.attrs == {"seeds": (201,), "parts": ("test",)}
    assert copies.attrs["seeds"] == (200, 201) and len(copies) == 3
    assert chapter_11.paired(copies)[0].equals(copies)


def test_tables_are_compared_only_if_all_of_them_have_rows(monkeypatch):
    tables = {"reproduction": PHOTOS.assign(seed=7), "control": CONTROLS.assign(seed=7)}
    asked = []

    def rows(name, *, beside):
        asked.append(beside)
        return tables.get(name)

    monkeypatch.setattr(chapter_11, "rows", rows)
    ours, controls = chapter_11.compared("reproduction", "control")
    assert (len(ours), len(controls)) == (3, 2)
    assert asked == [("reproduction", "control")] * 2  # of one edition
    assert chapter_11.compared("reproduction", "weights") is None


def test_a_table_without_rows_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert chapter_11.rows("reproduction") is None


def test_rows_that_cannot_be_read_are_not_called_missing(monkeypatch, tmp_path):
    path = tmp_path / "exploring/photos/reproduction.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{\n")
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="line 1 is not a row"):
        chapter_11.rows("reproduction")


def test_the_cost_is_that_of_all_rows():
    tables = [pd.DataFrame({"seconds": [1_800, 3_600]}), pd.DataFrame({"seconds": [900]})]
    assert "The 3 rows on photographs that this chapter reads took 1.8 hours" in chapter_11.cost(tables)


# -- photographs, where they are at hand --------------------------------------------


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    photographs.register()
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path / "sets"))
    monkeypatch.setattr(chapter_11, "scale", lambda name: photographs.miniature())
    monkeypatch.setattr(chapter_11, "default_store", lambda: Store(tmp_path / "store"))
    yield photographs.write_files(tmp_path / "sets")
    photographs.forget()


def test_without_photographs_nothing_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_DATA", str(tmp_path))
    assert chapter_11.at_hand() == []


def test_what_is_at_hand_is_shown_a_row_a_set_each_photograph_of_another_class(at_hand):
    assert chapter_11.at_hand() == ["eyepacs", "gtsrb", "tinyimagenet", "miniplaces"]
    assert chapter_11._some("gtsrb", 8).shape == (4, 3, 64, 64)
    assert chapter_11._some("miniplaces", 8).dtype == torch.uint8
    figure = chapter_11.photographs(columns=3)
    assert [text.get_text() for text in figure.texts][0] == "EyePACS"
    assert len(figure.axes) == 12


def test_an_attack_is_played_once_and_shows_queries_and_errors(at_hand):
    chapter_11.attacked.cache_clear()
    played = chapter_11.attacked("gtsrb")
    assert played is chapter_11.attacked("gtsrb")
    assert played.sent.shape == (8, 3, photographs.SIDE, photographs.SIDE)
    assert played.answers.sum(1) == pytest.approx(torch.ones(8), abs=1e-4)
    assert len(played.truth) == len(played.images) == len(played.copy) == 80
    wrong = int((played.victim != played.truth).sum())
    assert len(played.queries().axes) == 8
    if wrong:
        assert played.errors().data["errors"].tolist() == [wrong, wrong]
    chapter_11.attacked.cache_clear()
