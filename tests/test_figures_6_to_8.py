"""What chapters 6 to 8 show: figures, tables and sentences, on rows made by hand."""

import pandas as pd
import pytest
import torch

from extractbook import figures
from extractlib.api.granularity import Label, TopK

chapter_06, chapter_07, chapter_08 = figures.chapter_06, figures.chapter_07, figures.chapter_08

PLAIN = {
    "seed": 0,
    "pool": "atlas",
    "budget": 10_000,
    "steps": 2_500,
    "victim": "resnet",
    "victim_weights": "A",
    "surrogate": "resnet",
    "surrogate_weights": "A",
    "granularity": "full",
    "fill": "even",
    "held_out_agreement": 0.5,
    "victim_accuracy": 0.8,
    "constant_accuracy": 0.2,
}


def frame(*lines: dict) -> pd.DataFrame:
    """Return a frame of rows with these fields, the others those of the plain cell."""
    rows = pd.DataFrame([PLAIN | line for line in lines])
    rows.attrs = {"seeds": tuple(sorted(set(rows["seed"]))), "parts": ("test",)}
    return rows


def marks(figure) -> dict:
    """Return a plot's values by series and group."""
    return {tuple(line[:2]): line[2] for line in figure.data.itertuples(index=False)}


# -- dots ----------------------------------------------------------------------


def test_dots_show_a_mark_a_series_and_the_constant_predictor():
    rows = frame(
        {"task": "a", "recovery": 0.5}, {"task": "a", "recovery": 0.7, "seed": 1}, {"task": "b", "recovery": 1}
    )
    groups = figures.grouped(rows, "granularity", {"full": "whole", "label": "label"})
    assert groups == {"a": {"whole": [0.5, 0.7]}, "b": {"whole": [1.0]}}
    figure = figures.dots(groups, xlabel="recovery", constant=figures.constant_recovery(rows))
    assert marks(figure) == {
        ("whole", "a"): pytest.approx(0.6),
        ("whole", "b"): 1.0,
        ("constant predictor", "a"): 0.25,
        ("constant predictor", "b"): 0.25,
    }
    assert figure.data["±"].iloc[0] == pytest.approx(0.02**0.5)
    assert figure.data["±"].isna().sum() == 3
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_a_caption_says_over_how_many_seeds():
    assert figures.of_seeds(frame({"task": "a"})) == "one seed, test images"
    two = figures.of_seeds(frame({"task": "a"}, {"task": "a", "seed": 1}))
    assert figures.seed_count(frame({"task": "a"})) == "one seed"
    assert figures.seed_count(frame({"task": "a"}, {"task": "b"}, {"task": "a", "seed": 1})) == "2 seeds"
    assert two == "mean ± sd over 2 seeds, test images"


# -- chapter 5 -----------------------------------------------------------------


def test_a_line_joins_the_victims_that_were_attacked_with_every_budget():
    """A victim with one budget, and a recovery of 0.9, would make a step of its line."""
    cells = [(budget, seed, 0.5) for budget in (1_000, 2_500) for seed in (0, 1)] + [(2_500, 2, 0.9)]
    rows = frame(*({"task": "a", "budget": budget, "seed": seed, "recovery": r} for budget, seed, r in cells))
    kept = figures.chapter_05.with_every_budget(rows)
    assert sorted(zip(kept["budget"], kept["seed"], strict=True)) == [(1_000, 0), (1_000, 1), (2_500, 0), (2_500, 1)]
    assert set(kept["recovery"]) == {0.5}


# -- chapter 6 -----------------------------------------------------------------

ROWS = frame(
    {"task": "birds", "recovery": 0.9},
    {"task": "birds", "recovery": 0.8, "granularity": "top-2", "held_out_agreement": 0.6},
    {"task": "birds", "recovery": 0.7, "granularity": "top-2", "fill": "renormalized", "held_out_agreement": 0.5},
    {"task": "birds", "recovery": 0.6, "granularity": "label"},
    {"task": "signs", "recovery": 1.0},
    {"task": "signs", "recovery": 0.7, "granularity": "top-2", "held_out_agreement": 0.5},
    {"task": "signs", "recovery": 0.9, "granularity": "top-2", "fill": "renormalized", "held_out_agreement": 0.6},
    {"task": "signs", "recovery": 0.5, "granularity": "label"},
).assign(errors_repeated=[0.7, 0.6, 0.6, 0.3, 0.9, 0.5, 0.5, 0.4])


def test_a_truncated_answer_is_filled_in_as_agrees_better_with_the_api():
    kept = chapter_06.filled(ROWS)
    assert kept.loc[kept["granularity"] == "top-2", "fill"].tolist() == ["even", "renormalized"]
    assert marks(chapter_06.recoveries(ROWS))["top-2", "signs"] == 0.9
    tie = chapter_06.filled(ROWS.assign(held_out_agreement=0.5))
    assert set(tie["fill"]) == {"even"}


def test_what_granularities_cost():
    labels = chapter_06.drops(ROWS)
    assert list(labels.index) == ["signs", "birds"]
    assert labels.tolist() == pytest.approx([0.5, 0.3])
    assert chapter_06.drops(ROWS, "top-2").tolist() == pytest.approx([0.1, 0.1])
    words = chapter_06.drop_words(
        pd.concat([ROWS, *(ROWS.iloc[[0, 4]].assign(granularity=word) for word in ("rounded-1", "top-5"))])
    )
    assert "cost most on *signs* (0.50 of recovery) and least on *birds* (0.30)" in words
    assert "that have all of these answers (*birds*, *signs*): 0.000 for one decimal, " in words
    assert words.endswith(" 0.400 for label.")


def test_what_the_better_fill_gains():
    assert chapter_06.gains(ROWS).to_dict() == pytest.approx({"signs": 0.2, "birds": -0.1})
    assert chapter_06.gain_words(ROWS) == (
        "Compared with evenly filled answers, renormalized ones change recovery by +0.20 on *signs*, −0.10 on *birds*:"
        " they recover more on 1 of 2 tasks."
    )
    assert marks(chapter_06.fills(ROWS))["renormalized", "birds"] == 0.7


def test_how_often_the_rule_takes_the_better_fill():
    words = chapter_06.rule_words(ROWS)
    assert " in 2 of 2 runs; it chooses the other on no task." in words
    assert words.endswith("would cost 0.10 of recovery, the mean of 2 tasks, instead of the 0.10 in the main figure.")
    ties = chapter_06.rule_words(ROWS.assign(held_out_agreement=0.5))  # even is taken, which on signs recovers 0.2 less
    assert " in 1 of 2 runs; it chooses the other on *signs* in 1 of 1 (0.200 of recovery lost on average)." in ties
    assert ties.endswith("would cost 0.10 of recovery, the mean of 2 tasks, instead of the 0.20 in the main figure.")


def test_errors_that_copies_and_the_control_repeat():
    control = frame({"task": "birds"}, {"task": "signs"}).assign(errors_repeated=[0.2, 0.5], recovery=[0.9, 0.98])
    assert marks(chapter_06.repeated(ROWS, control))["control", "signs"] == 0.5
    assert chapter_06.repeated_words(ROWS, control) == (
        "Copies from labels repeat fewer of the victim's errors than copies from full answers do on 2 of 2 tasks, and"
        " more than the independent control does on 1 of 2.\nOn average, the control recovers 0.94, copies from full"
        " answers 0.95, and copies from labels 0.55.\nThe control's recovery minus that of copies from full answers is"
        " +0.000 on *birds*, −0.020 on *signs*."
    )


def test_what_a_temperature_changes_that_is_left_in():
    assert chapter_06.temperature_words(ROWS) == ""
    later = ROWS.iloc[[0]].assign(seed=1, recovery=0.5)  # a seed without such a row, which is not counted
    soft = ROWS.iloc[[0, 4]].assign(granularity="temperature-4.0", recovery=[0.95, 0.97])
    assert chapter_06.temperature_words(pd.concat([ROWS, later, soft])) == (
        "Training on answers at temperature 4 as they are changes recovery, compared with full answers, by +0.050 on"
        " *birds*, −0.030 on *signs* (one seed)."
    )


def test_what_an_answer_hides_is_a_table():
    full = torch.tensor([[0.5, 0.3, 0.15, 0.05, 0.0, 0.0]])
    lines = chapter_06.hidden_table({"pool": full}).splitlines()
    assert lines[0] == "**What an answer hides, mean over 1 images of pool**"
    assert lines[2].split(" | ")[1:] == ["Hidden mass, pool", "Divergence, pool |"]
    assert "| top-2 | 0.200 | 0.0000 |" in lines and "| label | 0.500 | 0.0000 |" in lines


def test_the_papers_pattern_is_seen_where_it_is():
    words = f"{chapter_06.label_words(ROWS)}\n{chapter_06.between_words(ROWS)}"
    assert "which is not the paper's pattern" in words
    assert ", as in the paper;" in chapter_06.label_words(ROWS.replace({"task": {"signs": "things"}}))
    assert "those on *signs* (0.50 here, 0.03 there) and *birds* (0.30 here, 0.36 there)" in words
    assert words.endswith("Two classes cost less than labels do on 2 of 2 tasks.")


def test_queries_are_shown_with_what_is_cut_from_their_answers():
    full, names = torch.tensor([[0.5, 0.3, 0.2, 0.0]]), ["a", "b", "c", "the longest of all names"]
    answers = {"top-2": TopK(2).show(full), "label": Label().show(full.flip(1))}
    figure = chapter_06.shown(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), answers, names)
    assert [text.get_text() for text in figure.texts] == ["top-2", "label", "0.50 a\n0.30 b", "the lo…l names"]
    assert len(figure.axes) == 1


def plane(points: torch.Tensor) -> torch.Tensor:
    """Return logits of three classes by the first coordinate alone."""
    return torch.stack([points[:, 0], 0 * points[:, 0], -points[:, 0] - 1], 1)


def test_agreement_in_the_plane():
    copies = (None, plane, lambda x: -plane(x))
    lines = chapter_06.agreements(plane, lambda count, seed: copies, (10, 20), seeds=2, within=2.0)
    assert lines[0] == ["full answers", "1.000 ± 0.000", "1.000 ± 0.000"]
    name, first, second = lines[1]
    assert name == "labels" and first == second and float(first.split()[0]) < 0.1


def test_agreement_in_the_plane_is_measured_inside_a_circle():
    asked = []

    def copy(x):
        asked.append(x)
        return plane(x)

    chapter_06.agreements(plane, lambda count, seed: (None, copy, copy), (10,), seeds=1, within=0.5)
    assert {len(points) for points in asked} == {5_000}
    assert max(points.norm(dim=1).max().item() for points in asked) < 0.5


def test_borders_are_drawn_a_panel_a_copy():
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    figure = chapter_06.borders(plane, {"full answers": [("2 queries", points, plane)] * 2})
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 and panels[0].get_title() == "2 queries"
    colors = panels[0].images[0].get_array().reshape(-1, 3)
    assert len({tuple(color) for color in colors.tolist()}) == 3
    assert not panels[0].patches
    [circled] = chapter_06.borders(plane, {"labels": [("2 queries", points, plane)]}, circle=1.5).axes
    assert [patch.radius for patch in circled.patches] == [1.5]


# -- chapter 7 -----------------------------------------------------------------

CROSSED = frame(
    *(
        {"task": "signs", "victim_weights": one, "surrogate_weights": other, "recovery": value}
        for one, other, value in (("A", "A", 1.0), ("A", "B", 0.6), ("B", "A", 0.7), ("B", "B", 0.9))
    )
).assign(errors_repeated=[0.8, 0.4, 0.2, 0.6], errors=[5, 5, 9, 9], surrogate_accuracy=[0.8, 0.5, 0.7, 0.6])


def test_the_square_of_initial_weights():
    figure = chapter_07.grid(CROSSED, "weights", {"A": "A", "B": "B"})
    found = {(line.victim, line.surrogate): line.recovery for line in figure.data.itertuples()}
    assert found == {("A", "A"): 1.0, ("A", "B"): 0.6, ("B", "A"): 0.7, ("B", "B"): 0.9}
    [axes] = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.60", "0.70", "0.90"]
    assert chapter_07.crossed(CROSSED).to_dict() == pytest.approx({"signs": 0.3})
    assert chapter_07.crossed_words(CROSSED) == (
        "At 2,500 steps, starting from the same weights as the victim raises recovery by 0.30 on *signs*, averaged over"
        " both directions."
    )


def test_a_square_of_networks_leaves_open_what_was_not_run():
    rows = frame({"task": "signs", "recovery": 1.0}, {"task": "signs", "recovery": 0.5, "surrogate": "vgg"})
    figure = chapter_07.grid(rows, "network", {"resnet": "ResNet", "vgg": "VGG"})
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "0.50"]
    assert figure.axes[0].images[0].get_array().mask.tolist() == [[False, False], [True, True]]


ARCHITECTURES = frame(
    {"task": "signs", "recovery": 1.0},
    {"task": "signs", "recovery": 0.5, "surrogate": "vgg"},
    {"task": "signs", "recovery": 0.7, "victim": "cnn-5", "victim_weights": "none", "victim_accuracy": 0.78},
    {"task": "birds", "recovery": 0.9},
)


def test_what_networks_and_scratch_cost():
    assert marks(chapter_07.starts(ARCHITECTURES)) == {
        ("ResNet A, as the victim", "signs"): 1.0,
        ("VGG A", "signs"): 0.5,
        ("constant predictor", "signs"): 0.25,
    }
    assert marks(chapter_07.scratch(ARCHITECTURES))["small CNN from scratch", "signs"] == 0.7
    assert chapter_07.start_words(ARCHITECTURES) == "The other network lowers recovery by 0.500 on *signs*."
    same = frame({"task": "signs", "recovery": 0.8, "surrogate_weights": "B"})
    assert chapter_07.start_words(pd.concat([ARCHITECTURES, same])) == (
        "The other network lowers recovery by 0.500 on *signs*. Other weights for the victim's own network lower it by"
        " 0.200 on *signs*; as a share of that loss at the same seeds, 40% on *signs* (one seed)."
    )
    assert chapter_07.scratch_words(ARCHITECTURES) == (
        "The small victim from scratch lowers the attacker's recovery by 0.300 on *signs*. The small network costs the"
        " owner 0.020 on *signs* of accuracy. Rows of a ResNet from scratch, which would keep the architecture, are"
        " missing."
    )
    alone = frame({"task": "signs", "recovery": 0.8, "victim_weights": "none", "victim_accuracy": 0.85})
    vgg = frame({"task": "signs", "recovery": 0.65, "surrogate": "vgg", "surrogate_weights": "B"})
    rows = pd.concat([ARCHITECTURES, alone, same, vgg])
    words = chapter_07.scratch_words(rows)
    assert "by 0.300 on *signs*, other weights against the pre-trained victim by 0.200 on *signs*." in words
    assert words.endswith(
        "A ResNet from scratch, which keeps the architecture, lowers recovery by 0.200 on *signs* (one seed, where"
        " other weights cost 0.200 on *signs*), and costs the owner −0.050 on *signs* of accuracy."
    )
    assert chapter_07.start_words(rows).endswith(
        " Where neither has the victim's weights, the other network recovers less by 0.15 on *signs*."
    )


def test_two_victims_of_a_seed_are_one_value():
    control = frame({"task": "signs"}, {"task": "birds"}).assign(errors_repeated=[0.1, 0.9], surrogate_accuracy=0.75)
    figure = chapter_07.repeated(CROSSED, control)
    assert marks(figure) == {
        ("copy, same weights", "signs"): pytest.approx(0.7),
        ("copy, other weights", "signs"): pytest.approx(0.3),
        ("control, same weights", "signs"): 0.1,
    }
    assert figure.data["±"].isna().all()
    assert chapter_07.repeated_words(CROSSED, control) == (
        "Shares of the victim's errors that are repeated: on *signs*, where the victims make 5 (A) and 9 (B) errors,"
        " copies from the same weights repeat 70% (accuracy 0.700), copies from other weights 30% (accuracy 0.600), and"
        " the control 10% (accuracy 0.750)."
    )


def test_the_cards_of_the_backbones():
    lines = chapter_07.backbones().splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| resnet A", "| resnet B", "| vgg A", "| vgg B"]
    assert lines[4].split(" | ")[1:5] == ["77,522", "30,000", "2,343", "2020"]


def test_filters_are_scaled_each_to_its_own_range():
    weights = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    figure = chapter_07.filters({"one": weights, "two": -weights})
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 4
    assert [(float(part.min()), float(part.max())) for part in shown] == [(0, 1)] * 4
    assert abs(shown[0] + shown[2] - 1).max() < 1e-6


def test_fits_of_the_backbones():
    figure = chapter_07.fits({"signs": {"resnet A": 0.6, "vgg A": 0.5}})
    assert marks(figure) == {("resnet A", "signs"): 0.6, ("vgg A", "signs"): 0.5}


# -- chapter 8 -----------------------------------------------------------------

POOLS = frame(
    {"task": "retina", "recovery": 0.9},
    {"task": "signs", "recovery": 1.0},
    {"task": "retina", "recovery": 0.99, "pool": "retina"},
    {"task": "signs", "recovery": 0.1, "pool": "retina"},
    {"task": "signs", "recovery": 0.7, "budget": 2_500},
    {"task": "signs", "recovery": 0.6, "budget": 1_000},
    {"task": "signs", "recovery": 0.4, "budget": 1_000, "pool": "atlas/9"},
    {"task": "signs", "recovery": 0.2, "budget": 1_000, "steps": 625},
)


def test_the_narrow_pool():
    assert marks(chapter_08.narrow(POOLS))["images of retinas", "signs"] == 0.1
    assert chapter_08.narrow_words(POOLS) == (
        "Images of retinas recover 0.99 on *retina*, where the diverse pool recovers 0.90; elsewhere, they"
        " recover 0.10 on *signs*."
    )


def test_pools_cut_to_fewer_kinds_beside_the_whole_one():
    assert chapter_08.cut_pools(POOLS) == {"signs": {9: [0.4], 189: [0.6]}}
    assert chapter_08.cut_pools(POOLS[POOLS["budget"] > 1_000]) == {}


def test_what_fewer_kinds_cost_by_hand():
    """Seed by seed: 1 - 0.3/0.6 and 1 - 0.45/0.5 on signs, so 30%; a gain of 10% on objects."""
    recovery = {("signs", 0): (0.3, 0.6), ("signs", 1): (0.45, 0.5), ("objects", 0): (0.88, 0.8)}
    rows = [
        {"task": task, "seed": seed, "pool": pool, "budget": 1_000, "steps": 2_500, "recovery": value}
        for (task, seed), values in recovery.items()
        for pool, value in zip(("atlas/81", "atlas"), values, strict=True)
    ]
    unlike = [{**rows[1], "steps": 625, "recovery": 0.1}, {**rows[1], "seed": 7, "recovery": 0.1}]
    words = chapter_08.fewer_words(pd.DataFrame([*rows, *unlike]))
    assert "81 kinds instead of 189 cost −10% on *objects*, 30% on *signs* (1,000 queries, 2 seeds)" in words
    assert chapter_08.fewer_words(pd.DataFrame([*rows, {**rows[1], "task": "birds"}])) == ""


def test_what_a_cut_costs_is_a_share_of_what_all_kinds_recover():
    assert chapter_08.cut_words({"signs": {9: [0.3], 189: [0.6]}, "objects": {9: [0.9], 27: [0.5], 189: [1.0]}}) == (
        "With 9 kinds instead of 189, the recovery is lower by these shares: *objects* 10%, *signs* 50%. So"
        " *signs* depended most on many kinds."
    )
    gaining = chapter_08.cut_words({"signs": {9: [0.3], 189: [0.6]}, "retina": {9: [0.55], 189: [0.5]}})
    assert "shares: *signs* 50%; *retina* gains 10%. So *signs*" in gaining
    old = chapter_08.first_edition_cuts()
    assert len(old) == 5 and {tuple(of) for of in old.values()} == {(9, 27, 81, 189)}
    assert {len(values) for of in old.values() for values in of.values()} == {5}


def test_the_last_three_quarters_of_the_budget_are_compared_at_one_number_of_steps():
    atlas = POOLS[POOLS["pool"] == "atlas"]
    assert chapter_08.budget_words(atlas) == "From 2,500 to 10,000 queries, recovery changes by +0.30 on *signs*."


def test_queries_and_steps_are_two_axes():
    figure = chapter_08.steps_grid({(250, 75): 0.1, (1_000, 75): 0.2, (250, 300): 0.3, (1_000, 300): 0.9})
    [axes] = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.20", "0.30", "0.90"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["250", "1,000"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["75", "300"]


def test_points_have_their_names():
    data = pd.DataFrame([("noise", 2.0, 0.1), ("atlas", 9.0, 0.5)], columns=["Pool", "classes", "recovery"])
    figure = chapter_08.scatter(data, xlabel="classes", ylabel="recovery", named=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["noise", "atlas"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[2.0, 0.1], [9.0, 0.5]]


def test_the_difference_of_two_confusion_matrices():
    figure = chapter_08.difference([[10, 0], [0, 4]], [[5, 5], [0, 4]], ["a", "b"])
    assert figure.data.to_numpy().tolist() == [["a", "a", -0.5], ["a", "b", 0.5]]
    assert figure.axes[0].images[0].get_array().tolist() == [[-0.5, 0.5], [0, 0]]


def test_how_unevenly_classes_are_recovered():
    row = {"task": "signs", "errors_introduced": 3, "images": 20, "queries": [7, 2]}
    row |= {"victim_confusion": [[8, 2], [0, 10]], "surrogate_confusion": [[4, 6], [0, 10]]}
    assert chapter_08.class_words(pd.DataFrame([row])) == (
        "With 10,000 queries, on *signs* the lowest recovery of a class is 0.50, the copy adds errors on 15.0% of the"
        " images, and the rank correlation of queries and accuracy is −1.00."
    )
