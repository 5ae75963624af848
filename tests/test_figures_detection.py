"""The figures and tables of chapters 9 and 10, and the marks and images in rows that they are made of."""

from math import comb

import numpy as np
import pandas as pd
import pytest
import torch

from extractbook import figures
from extractbook.figures import chapter_09, chapter_10
from extractlib.errors import InputError


def frame(lines: list[dict]) -> pd.DataFrame:
    """Return lines as `book.frame` does, with what all of them share."""
    shared = {"seed": 200, "images": 1_000, "part": "test", "attack": "random", "granularity": "full"}
    return pd.DataFrame(
        [shared | {"constant_accuracy": 0.1, "victim_accuracy": 0.8, "budget": 100} | one for one in lines]
    )


DEFENDED = frame(
    [
        {"task": "things", "defense": "none", "recovery": 0.9},
        {"task": "things", "defense": "none", "recovery": 0.7, "seed": 201},
        {"task": "things", "defense": "shuffle", "recovery": 0.2, "honest_caught": 0.25, "honest_accuracy": 0.6},
        {"task": "signs", "defense": "shuffle", "recovery": 0.1, "honest_caught": 0.0, "honest_accuracy": 0.8},
    ]
)


def test_a_whisker_that_passes_one_ends_inside_the_plot():
    [axes] = figures.dots({"eyes": {"copy": [0.9, 1.3]}}, xlabel="recovery").axes
    assert axes.get_xlim() == pytest.approx((0, 1.04 * (1.1 + 0.08**0.5)))  # the deviation of the two is √0.08
    [axes] = figures.dots({"eyes": {"copy": [0.9]}}, xlabel="recovery").axes
    assert axes.get_xlim() == (0, 1.05)


def test_dots_have_a_row_a_group_and_a_whisker_where_there_are_seeds():
    plot = figures.dots({"things": {"a": [0.2, 0.4], "b": [0.5]}, "signs": {"a": [0.3]}}, xlabel="recovery")
    lines = plot.data.to_dict("records")
    assert [(one["Series"], one["Group"]) for one in lines] == [("a", "things"), ("a", "signs"), ("b", "things")]
    assert [one["recovery"] for one in lines] == pytest.approx([0.3, 0.3, 0.5])
    assert lines[0]["±"] == pytest.approx(np.sqrt(0.02)) and np.isnan(lines[1]["±"])
    [axes] = plot.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["things", "signs"]
    assert axes.get_ylim() == (1.5, -0.5)


def test_a_gallery_shows_each_row_from_its_first_image_to_its_last():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    picture = figures.gallery({"three": images[:3], "five": images}, columns=4)
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in picture.axes]
    assert shown == [0, 1, 2, 0, 1, 2, 3]
    tops = [axes.get_position().y1 for axes in picture.axes]
    assert len({round(top, 6) for top in tops[:3]}) == 1 and max(tops[3:]) < min(tops[:3])
    assert [text.get_text() for text in picture.texts] == ["three", "five"]


def test_values_are_taken_by_task_of_the_cells_asked_for():
    twice = pd.concat([DEFENDED, DEFENDED.assign(recovery=0.5)])
    with pytest.raises(InputError, match="things has several values of recovery at seed 200: choose rows by one more"):
        chapter_09.of_tasks(twice, "recovery", defense="none")
    assert chapter_09.of_tasks(DEFENDED, "recovery", defense="none") == {"things": [0.9, 0.7]}
    assert chapter_09.of_tasks(DEFENDED, "recovery", defense="shuffle") == {"things": [0.2], "signs": [0.1]}
    assert chapter_09.mean({"things": [0.9, 0.7]}) == {"things": pytest.approx(0.8)}
    assert chapter_09.constant(DEFENDED)["things"] == pytest.approx([0.125] * 2)


def test_a_caption_names_seeds_and_images_as_they_are():
    assert chapter_09.about(DEFENDED) == "mean ± sd over 1 to 2 seeds, 1,000 test images"
    assert chapter_09.about(DEFENDED[DEFENDED["seed"] == 200]) == "one seed, so no spread, 1,000 test images"


def test_denial_with_and_without_a_charge_is_compared_at_the_same_seeds():
    cells = [
        (200, "deny", 0.5, 100),
        (201, "deny", 0.1, 100),
        (200, "deny-free", 0.75, 200),
        (200, "shuffle", 0.1, 100),
    ]
    names = ("seed", "defense", "recovery", "asked")
    rows = frame([{"task": "signs"} | dict(zip(names, cell, strict=True)) for cell in cells])
    assert chapter_09.uncharged(rows) == (
        "In the figure, a denied query is charged. Where it is not, the attacker goes on, here to the end of its pool,"
        " 200 queries. Over one seed with both, the copies then recover 0.75 instead of 0.50 (signs), so charging"
        " costs the attacker at most 0.25."
    )


ANSWERS = frame(
    [
        {"task": "things", "defense": "deny", "recovery": 0.5, "caught": 0.75},
        {"task": "things", "defense": "shuffle", "recovery": 0.2, "caught": 0.75},
        {"task": "things", "defense": "label", "recovery": 0.7, "caught": 0.75},
        {"task": "signs", "defense": "deny", "recovery": 0.2, "caught": 0.96},
        {"task": "signs", "defense": "deny", "recovery": 0.4, "caught": 0.98, "seed": 201},
    ]
)
BUDGETS = frame(
    [
        {"task": task, "defense": "none", "budget": budget, "recovery": recovery}
        for task, budget, recovery in (("things", 20, 0.4), ("things", 100, 0.9), ("signs", 20, 0.6))
    ]
)


def test_true_answers_are_those_to_queries_that_were_not_detected_and_all_labels():
    assert chapter_09.received(ANSWERS, "deny") == {"things": 25, "signs": pytest.approx(3)}
    assert chapter_09.received(ANSWERS, "shuffle") == {"things": 25}
    assert chapter_09.received(ANSWERS, "label") == {"things": 100}


def test_a_policy_is_drawn_at_its_number_of_true_answers_beside_smaller_budgets():
    plot = chapter_09.true_answers(ANSWERS, BUDGETS)
    assert plot.data.iloc[:, :2].values.tolist() == [
        ["things: no defense", 20],
        ["things: no defense", 100],
        ["signs: no defense", 20],
        ["things: denied", 25],
        ["things: shuffled", 25],
        ["things: label only", 100],
        ["signs: denied", pytest.approx(3)],
    ]
    assert plot.data["recovery"].tolist() == pytest.approx([0.4, 0.9, 0.6, 0.5, 0.2, 0.7, 0.3])
    assert [axes.get_title() for axes in plot.axes if axes.axison] == ["things", "signs"]
    assert plot.axes[0].get_xscale() == "log"


def test_denial_is_compared_with_the_nearest_budget():
    assert chapter_09.smaller_budget(ANSWERS, BUDGETS) == (
        "The copy recovers this much from the true answers that denial leaves, and from the nearest budget without a"
        " defense: 0.50 from 25 and 0.40 from 20 (*things*); 0.30 from 3 and 0.60 from 20 (*signs*)."
    )


def test_on_the_second_pool_the_task_on_which_two_detectors_differ_most_is_named():
    cells = [("things", 0.5, 0.9), ("signs", 1.0, 0.99)]
    names = ("task", "binary.second.tnr_at_95", "mahalanobis.second.tnr_at_95")
    said = chapter_09.second_pool_words(frame([dict(zip(names, cell, strict=True)) for cell in cells]))
    assert said == (
        "At 95% TPR on that pool, Mahalanobis catches 90% on *things* and the binary detector 50%; on the other tasks"
        " the two differ by at most 0.010."
    )


def test_what_an_honest_user_pays_is_in_points():
    lines = chapter_09.honest_table(DEFENDED).splitlines()
    assert lines[4] == "| things | 25.0 | 20.0 | – | – |"
    assert lines[7] == "| signs | 0.0 | 0.0 | – | – |"


def test_the_authors_rates_stand_beside_ours():
    rows = frame([{"task": "birds", "binary.pool.tpr": 1.0, "binary.pool.tnr": 0.5, "binary.second.tnr": 0.25}])
    lines = chapter_09.rates_table(rows).splitlines()
    assert lines[5] == "| birds | 100.0 | 50.0 | 25.0 | 93 / 93 | 93 / 93 |"


def test_overlap_is_that_of_the_shifted_source():
    cells = [("signs/shifted", 0.0, 0.9, 0.8), ("signs/shifted", 0.75, 0.6, 0.7), ("signs", 0.75, 0.5, 0.1)]
    names = ("pool", "overlap", "balanced_accuracy", "tnr_public")
    rows = frame([{"task": "signs"} | dict(zip(names, cell, strict=True)) for cell in cells])
    rows = rows.assign(tpr=[0.95, 0.75, 0.0], tnr=[0.8, 0.55, 0.0])
    assert chapter_09.overlap_ends(rows) == {"signs": (0.9, 0.6)}
    # Of four queries three show the task's classes: 0.55 = ¼ · 0.7 + ¾ · 0.5.
    assert chapter_09.overlap_rates(rows).splitlines()[4] == "| signs | 5 | 80 | 25 | 70 | 50 |"
    assert chapter_09.overlap(rows).data.iloc[:, 2].tolist() == [0.9, 0.6]


OWN = frame(
    [
        {"task": "signs", "defense": "none", "experiment": "extraction"} | one
        for one in (
            {"pool": "signs/shifted", "budget": 25, "recovery": 0.9},
            {"pool": "signs/shifted", "budget": 25, "recovery": 0.8, "granularity": "label"},
            {"pool": "atlas", "budget": 25, "recovery": 0.5},
            {"pool": "atlas", "budget": 100, "recovery": 0.8},
            {"pool": "atlas", "budget": 0, "recovery": 0.95, "experiment": "control"},
        )
    ]
)


def test_own_images_are_set_against_as_many_public_ones_and_four_times_as_many():
    asked = OWN[OWN["experiment"] == "extraction"]
    assert chapter_10.gains(asked) == {"signs": (pytest.approx(0.4), pytest.approx(0.1))}
    [(same, more)] = chapter_10.gains(asked[(asked["pool"] != "atlas") | (asked["budget"] == 100)]).values()
    assert np.isnan(same) and more == pytest.approx(0.1)
    data = chapter_10.own_and_public(asked).data
    assert data["Series"].tolist() == ["signs: own images", "signs: public images", "signs: public images"]
    assert data["recovery"].tolist() == [0.9, 0.5, 0.8]


def test_shuffling_is_compared_on_the_task_that_it_costs_most_and_the_others():
    cells = [
        ("signs", "signs/shifted", 25, "none", 0.9, 0.0, 0.0),
        ("signs", "signs/shifted", 25, "shuffle", 0.8, 0.25, 0.125),
        ("signs", "signs/shifted", 5, "none", 0.3, 0.0, 0.0),
        ("signs", "atlas", 100, "none", 0.7, 0.0, 0.0),
        ("signs", "atlas", 100, "shuffle", 0.1, 0.9, 0.125),
        ("signs", "atlas", 25, "shuffle", 0.2, 0.9, 0.125),
        ("birds", "birds/shifted", 25, "none", 0.9, 0.0, 0.0),
        ("birds", "birds/shifted", 25, "shuffle", 0.95, 0.05, 0.0),
    ]
    names = ("task", "pool", "budget", "defense", "recovery", "caught", "honest_caught")
    rows = frame([dict(zip(names, cell, strict=True)) for cell in cells])
    data = chapter_10.shuffled(rows).data
    assert data.iloc[:, [0, 2]].values.tolist() == [
        ["own images, no defense", 0.9],
        ["own images, no defense", 0.9],
        ["own images, shuffled", 0.95],
        ["own images, shuffled", 0.8],
        ["public images, no defense", 0.7],
        ["public images, shuffled", 0.1],
    ]
    said = chapter_10.shuffled_words(rows)
    assert "0.10 of recovery on *signs* and at most 0.00 on the other tasks" in said
    assert "catches 25% of these queries, and 12% of the customers' images; on the others, at most 5.0%" in said


def test_own_images_with_and_without_labels_stand_in_a_line():
    control = OWN["experiment"] == "control"
    lines = chapter_10.labels_table(OWN[~control], OWN[control]).splitlines()
    assert lines[2] == "| Task | queries, full answers | queries, labels | independent control | constant predictor |"
    assert lines[7] == "| signs | 0.90 | 0.80 | 0.95 | 0.12 |"
    assert lines[0] == "**Recovery with 25 own images; the control has more images, from the victim's own source**"
    twice = pd.concat([OWN, OWN[control].assign(seed=201)])
    caption = chapter_10.labels_table(twice[twice["experiment"] != "control"], twice[twice["experiment"] == "control"])
    assert "; the column “queries, full answers” has 1 of 2 seeds; " in caption.splitlines()[0]
    assert chapter_10.against_control(OWN) == "no task, behind it on *signs*"
    level = OWN.assign(recovery=OWN["recovery"].where(~control, 0.903))
    assert chapter_10.against_control(level) == "no task, level with it (to within 0.005) on *signs*"


def test_answers_are_worth_what_they_recover_more_than_true_labels():
    cells = [(200, "random", "full", 0.9), (200, "random", "label", 0.7), (200, "own-labels", "full", 0.75)]
    names = ("seed", "attack", "granularity", "recovery")
    plain = {"task": "signs", "pool": "signs/shifted", "budget": 25}
    rows = frame([plain | dict(zip(names, cell, strict=True)) for cell in [*cells, (201, "random", "full", 0.1)]])
    assert chapter_10.answers_words(rows) == (
        "Compared with true labels of the same images, the API's labels alone are worth −0.05 (signs) of recovery, and"
        " its full answers +0.15 (signs); averaged over one seed."
    )


def test_a_count_is_drawn_beside_what_chance_explains():
    flags = {"public": torch.ones(30, dtype=torch.bool), "customer": torch.zeros(60, dtype=torch.bool)}
    [axes] = chapter_10.counts(flags, rate=0.01).axes
    bound, public, customer, flag = (line.get_xydata() for line in axes.lines)
    # Three of three have probability 1e-6, which is not below it; four of four have 1e-8.
    assert flag.tolist() == [[4.0, 4.0]]
    assert public[-1].tolist() == [30.0, 30.0] and customer[-1].tolist() == [60.0, 0.0]
    assert bound[3].tolist() == [4.0, 4.0]


COUNTING = {"flag_times": [10, 30, 20], "accounts": 345, "sybil_flagged": 0.02, "honest_flagged": 0.0}
PRADA = {"flag_times": [None, None, 50], "accounts": 20, "sybil_flagged": 0.0, "honest_flagged": 0.04}
ACCOUNTS = frame(
    [
        {"task": "signs", "counting.positive_control_flagged": True, "prada.positive_control_flagged": False}
        | {f"counting.{name}": value for name, value in COUNTING.items()}
        | {f"prada.{name}": value for name, value in PRADA.items()}
    ]
)


def test_accounts_have_a_median_where_most_are_flagged():
    lines = chapter_10.accounts_table(ACCOUNTS).splitlines()
    assert lines[4] == "| signs, count | 3 of 3 | 20 | 345 | 2.0 | 0.0 |"
    assert lines[5] == "| signs, PRADA | 1 of 3 | – | 20 | 0.0 | 4.0 |"
    # Of four accounts three are flagged, and the one that is not is later than those.
    three = ACCOUNTS.assign(**{"counting.flag_times": [[10, 30, None, 20]]})
    assert chapter_10.accounts_table(three).splitlines()[4].startswith("| signs, count | 3 of 4 | 25 |")
    said = chapter_10.accounts_sentence(ACCOUNTS)
    assert said.startswith(
        "The count flags crafted queries on 1 of 1 tasks; it flags most of the adversary's single accounts at this many"
        " seeds: 1 (signs); and it flags at most 2.0% of the Sybils on any task."
    )
    assert "PRADA flags crafted queries on 0 of 1 tasks" in said
    assert "Within as many queries as a customer sends, 200, the count flags 3 of the 3 accounts" in said


def test_distances_are_shares_of_those_that_there_are():
    plot = chapter_10.distances({"own": torch.tensor([1.5, 1.6, 3.5, torch.nan])}, highest=25.0)
    found = plot.data[plot.data.iloc[:, 2] > 0]
    assert found.iloc[:, 1].tolist() == [1.0, 3.0] and found.iloc[:, 2].tolist() == pytest.approx([2 / 3, 1 / 3])


MARKS = frame(
    [
        {"task": "signs", "steps": 10, "marked": 41, "marks_repeated": 6, "marks_repeated_by_control": 0},
        {"task": "signs", "steps": 30, "marked": 41, "marks_repeated": 25, "marks_repeated_by_control": 0},
        {"task": "birds", "steps": 10, "marked": 40, "marks_repeated": 20, "marks_repeated_by_control": 40},
    ]
)


def test_marks_are_judged_at_the_upper_bound_of_the_controls_rate():
    # With none of 41 the bound is the rate at which none has a probability of 2.5%.
    rate = 1 - 0.025 ** (1 / 41)
    by_hand = sum(comb(41, k) * rate**k * (1 - rate) ** (41 - k) for k in range(6, 42))
    assert chapter_10.p_value(6, 41, 0) == pytest.approx(by_hand)
    assert chapter_10.p_value(40, 40, 40) == 1.0
    lines = chapter_10.marks_table(MARKS).splitlines()
    assert lines[4] == "| birds, 10 steps | 40 | 20 | 40 | 1.000 | 1.000 | yes |"
    assert lines[5] == "| signs, 10 steps | 41 | 6 | 0 | 0.137 | 0.013 | no |"
    # All six of 82 answers that repeat a mark are the copy's.
    assert chapter_10.fisher(6, 41, 0) == pytest.approx(comb(41, 6) / comb(82, 6))
    assert chapter_10.p_words(5.2e-6) == "5 × 10⁻⁶" and chapter_10.p_words(0.04) == "0.040"
    assert chapter_10.p_words(2e-300) == "2 × 10⁻³⁰⁰" and chapter_10.p_words(0.0) == "below 10⁻³⁰⁰"
    two = pd.concat([MARKS.assign(seed=seed) for seed in (200, 201)])
    assert chapter_10.marks_table(two).splitlines()[0].endswith("get one; counts of 2 seeds together**")
    assert chapter_10.marks_table(two).splitlines()[5].startswith("| signs, 10 steps | 82 | 12 | 0 |")
    # Of three lines: 25 of 41 beside a control of none, 6 of 41 beside none, and 20 of 40 beside a control of all.
    assert chapter_10.accused(MARKS) == (
        "At one in a thousand, the p value with the bound as given accuses in 1 of these 3 lines, Fisher's in 1, and"
        " the rule of half the marks in 2."
    )
    assert chapter_10.longer(MARKS) == {"signs": (pytest.approx(6 / 41), pytest.approx(25 / 41))}


def test_what_is_caught_more_often_is_a_difference_of_means():
    rows = frame([{"task": "signs", "caught.shifted": 0.03, "caught.benign": 0.01, "caught.pool": 0.9}])
    assert chapter_10.extra(rows) == {"signs": pytest.approx(0.02)}
    assert chapter_10.caught(rows).data["Series"].tolist() == ["customers", "public images", "attacker's own images"]


def test_asking_twice_has_a_line_a_task():
    names = ("shuffled", "auroc", "consistent", "recovery_consistent", "recovery_all")
    rows = frame([{"task": "things"} | dict(zip(names, (0.75, 0.99, 0.2, 0.8, 0.2), strict=True))])
    assert chapter_10.twice_table(rows).splitlines()[4] == "| things | 0.750 | 0.990 | 0.200 | 0.800 | 0.200 |"


def test_images_with_consistent_answers_are_compared_with_the_nearest_budget():
    found = {"consistent": 0.5, "recovery_consistent": 0.45, "recovery_all": 0.1}
    assert chapter_10.twice_words(frame([{"task": "things"} | found]), BUDGETS) == (
        "On *things*, the copy recovers 0.45 from the 25 images with consistent answers instead of 0.10, and 0.40 from"
        " 20 queries without a defense."
    )


def test_two_starts_are_compared_image_set_by_image_set():
    lines = chapter_10.starts_table(
        {"public": 0.45, "own": 0.9}, {"public": 0.3, "own": 0.91}, caption="signs"
    ).splitlines()
    assert lines[0] == "**signs**"
    assert lines[4:] == ["| public | 0.45 | 0.30 | −0.15 |", "| own | 0.90 | 0.91 | +0.01 |"]


def test_models_that_repeat_more_errors_than_all_controls_but_two_are_accused():
    like = {"task": "signs", "victim": "resnet", "surrogate": "resnet", "victim_weights": "A", "surrogate_weights": "A"}
    own = {"table": "own_images", "pool": "signs/shifted", "attack": "random", "granularity": "full", "budget": 25}
    cells = [
        *({"table": "accusation", "errors_repeated": number / 100, "seed": 300 + number} for number in range(1, 31)),
        *({"table": "accusation", "errors_repeated": 0.1, "surrogate_weights": "B", "seed": n} for n in range(30)),
        own | {"errors_repeated": 0.6},
        own | {"errors_repeated": 0.5, "budget": 5},
        own | {"errors_repeated": 0.4, "pool": "signs"},
        own | {"errors_repeated": 0.28, "attack": "own-labels"},
        {"table": "architecture", "surrogate": "vgg", "errors_repeated": 0.29},
        {"table": "architecture", "surrogate": "vgg", "victim": "vgg", "errors_repeated": 0.9},
        {"table": "reproduction", "errors_repeated": 0.7, "task": "birds"},
    ]
    rows = frame([like | {"pool": "atlas", "attack": "random", "budget": 100} | cell for cell in cells])
    found = chapter_10.suspects(rows)
    assert list(found) == ["signs"]
    assert {kind: len(shares) for kind, shares in found["signs"].items()} == {
        "independent, shared start": 30,
        "independent, other start": 30,
        "independent, own images": 1,
        "copy, own images": 1,
        "copy, another network": 1,
    }
    assert chapter_10.thresholds(found) == {"signs": 0.28}
    data = chapter_10.repeated_errors(rows).data
    assert data["accused"].tolist() == ["2 of 30", "0 of 30", "0 of 1", "1 of 1", "1 of 1"]
    said = chapter_10.repeated_errors_words(rows)
    assert "independent (own images): 0 of 1 (*signs*); copy (own images): 1 of 1 (*signs*)" in said
