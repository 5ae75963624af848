"""What chapter 13 shows, by hand."""

import pandas as pd
import pytest
import torch

from extractbook.figures import chapter_13
from extractlib.defenses.perturbations import ReverseSigmoid


def rows() -> pd.DataFrame:
    """Return rows of two tables: one task without and with each defense, others that are not compared."""
    shared = {
        "task": "signs",
        "pool": "signs/shifted",
        "attack": "random",
        "granularity": "full",
        "experiment": "extraction",
        "budget": 100,
        "victim_accuracy": 0.8,
        "constant_accuracy": 0.2,
    }
    lines = [
        {"table": "own_images", "defense": "none", "recovery": 0.9},
        {"table": "own_images", "defense": "none", "recovery": 0.95, "budget": 200},
        {"table": "own_images", "defense": "none", "recovery": 0.7, "granularity": "label"},
        {"table": "own_images", "defense": "none", "recovery": 0.6, "task": "birds", "pool": "birds/shifted"},
        {
            "table": "perturbation",
            "defense": "shuffle",
            "recovery": 0.5,
            "honest_accuracy": 0.7,
            "seed": 0,
            "honest_l1": 0.1,
        },
        {
            "table": "perturbation",
            "defense": "shuffle",
            "recovery": 0.7,
            "honest_accuracy": 0.6,
            "seed": 1,
            "honest_l1": 0.3,
        },
        {
            "table": "perturbation",
            "defense": "misinformation",
            "recovery": 0.4,
            "honest_accuracy": 0.8,
            "honest_l1": 0.05,
            "strength": 0.3,
        },
        {"table": "perturbation", "defense": "misinformation", "recovery": 0.1, "pool": "atlas"},
    ]
    return pd.DataFrame([shared | line for line in lines])


def test_what_is_compared_has_the_tables_tasks_images_and_budget():
    found = chapter_13.judged(rows())
    assert found["recovery"].tolist() == [0.9, 0.5, 0.7, 0.4]


def test_costs_are_points_of_accuracy_by_task_and_defense():
    found = chapter_13.costs(rows())
    assert found.loc[("signs", "shuffle")].tolist() == pytest.approx([0.6, 15, 0.2])
    assert found.loc[("signs", "misinformation")].tolist() == pytest.approx([0.4, 0, 0.05])
    assert found.loc[("signs", "none"), "recovery"] == 0.9


def test_strengths_of_several_seeds_are_a_span():
    one = rows()
    assert chapter_13.strengths(one) == {("signs", "misinformation"): "0.3"}
    other = one[one["strength"].notna()].assign(strength=0.45)
    assert chapter_13.strengths(pd.concat([one, other])) == {("signs", "misinformation"): "0.3 to 0.45"}


def test_perturbations_show_recovery_over_cost_and_the_constant_predictor():
    figure = chapter_13.perturbations(rows())
    data = figure.data.set_index("Series")
    cost = "points of accuracy that customers lose"
    assert data.loc["signs: shuffling", [cost, "recovery", "±"]].tolist() == pytest.approx([15, 0.6, 0.1 * 2**0.5])
    assert data.loc["signs: misinformation", [cost, "recovery"]].tolist() == pytest.approx([0, 0.4])
    assert data.loc["signs: no defense", [cost, "recovery"]].tolist() == [0, 0.9]
    assert pd.isna(data.loc["signs: no defense", "±"])
    (panel,) = figure.axes
    assert panel.lines[-1].get_ydata() == pytest.approx([0.25, 0.25])


def test_marks_that_are_close_together_get_an_axis_that_fits_them():
    close = rows()[lambda lines: lines["defense"].isin(["none", "misinformation"])]
    close["recovery"] = 0.952
    far = rows().assign(task="things", pool="things/shifted")
    figure = chapter_13.perturbations(pd.concat([close, far]))
    assert [axes.get_title() for axes in figure.axes] == ["signs, axis from 0.95", "things"]
    assert [axes.get_ylim() for axes in figure.axes] == [pytest.approx((0.95, 0.96)), (0, 1.05)]
    assert figure.axes[0].get_xlim() != figure.axes[1].get_xlim()
    assert chapter_13.constant(pd.concat([close, far])) == pytest.approx({"signs": 0.25, "things": 0.25})


def test_below_counts_what_is_less_sure_than_a_threshold():
    data = chapter_13.below({"the pool": torch.tensor([0.2, 0.5]), "customers": torch.tensor([0.9])}, 0.5).data
    shares = data.set_index(["Series", data.columns[1].strip()])["share of the images"]
    assert shares["the pool"].round(3).loc[[0.2, 0.3, 0.5, 0.6]].tolist() == [0, 0.5, 0.5, 1]
    assert shares["customers"].iloc[[90, 91]].tolist() == [0, 1]


def test_attempts_are_marks_in_order_above_the_floor():
    figure = chapter_13.attempts({"first": 0.4, "second": 0.3}, 0.1)
    marks, floor = figure.axes[0].lines
    assert marks.get_xdata().tolist() == [0.4, 0.3] and set(floor.get_xdata()) == {0.1}


def test_the_greatest_strength_changes_answers_by_no_more_than_is_allowed():
    answers = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2]])
    everyone, images = torch.ones(2, dtype=torch.bool), torch.empty(2, 0)

    def change(strength):
        bent = ReverseSigmoid(strength=strength).answer(answers, everyone, images)
        return float((bent - answers).abs().sum(1).mean())

    strength, relabeled = chapter_13.greatest(answers, 0.01)
    assert 0.0098 < change(strength) <= 0.01 < change(1.01 * strength) and relabeled == 0
    assert chapter_13.greatest(answers, 0.0) == (0, 0)


def test_an_answer_and_its_altered_one_stand_beside_the_same_image():
    images = torch.arange(2, dtype=torch.uint8)[:, None, None, None].expand(2, 3, 4, 4)
    true = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    figure = chapter_13.beside(images, true, 1 - true, ("a", "b"))
    assert [text.get_text() for text in figure.texts] == ["1.00 a", "1.00 b", "1.00 b", "1.00 a"]
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes] == [0, 0, 1, 1]


def test_spectra_are_lines_on_a_logarithmic_axis_beside_the_hidden_size():
    shown = {"full": [4.0, 2.0, 1e-6], "2 decimals": [4.0, 2.0, 0.1], "1 decimal": [4.0, 2.0, 1.0]}
    figure = chapter_13.spectra({name: torch.tensor(values) for name, values in shown.items()}, 2)
    full, _, rounded, size = figure.axes[0].lines
    assert full.get_xdata().tolist() == [1, 2, 3]
    assert full.get_ydata().tolist() == pytest.approx([4, 2, 1e-6])
    assert rounded.get_ydata().tolist() == [4, 2, 1]
    assert set(size.get_xdata()) == {2}
    assert figure.axes[0].get_yscale() == "log"
