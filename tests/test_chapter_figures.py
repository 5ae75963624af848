"""The figures of single chapters: what they mark, on hand-made rows."""

import pandas as pd
import pytest
import torch

from extractbook import figures
from extractbook.reproduction import editions, results
from extractlib.errors import InputError

chapter_05 = figures.chapter_05


def rows(**recoveries: list[float]) -> pd.DataFrame:
    """Return rows of tasks with these recoveries, one a seed."""
    lines = [
        {"task": task, "recovery": value, "errors_repeated": value / 2, "errors": 100, "budget": 10, "reward": ""}
        for task, values in recoveries.items()
        for value in values
    ]
    return pd.DataFrame(lines).assign(constant_accuracy=0.1, victim_accuracy=0.5)


COPIES, CONTROLS = rows(signs=[0.8, 1.0], birds=[0.5]), rows(birds=[0.75], signs=[0.875])
LABELS = {"signs": 5_000, "birds": 3_200}
SIGNS, BIRDS = "signs (5,000 labels; GTSRB)", "birds (3,200 labels; CUBS)"


def marks(figure) -> dict[tuple[str, str], float]:
    """Return the value of each mark by its series and row."""
    return {(line.iloc[0], line.iloc[1]): line.iloc[2] for _, line in figure.data.iterrows()}


def drawn(figure, name: str) -> list[float]:
    """Return where the marks of a series are."""
    [found] = [one for one in figure.axes[0].containers if one.get_label() == name]
    return found.lines[0].get_xdata().tolist()


def test_recoveries_stand_beside_the_authors_the_control_and_a_constant():
    figure = chapter_05.recoveries(COPIES, CONTROLS, LABELS)
    found = marks(figure)
    assert found["copy", SIGNS] == pytest.approx(0.9)
    assert found["independent control", BIRDS] == 0.75
    assert (found["authors", SIGNS], found["Orekondy et al.", BIRDS]) == (0.96, 0.89)
    assert ("Orekondy et al.", SIGNS) not in found
    assert found["constant predictor", BIRDS] == pytest.approx(0.2)
    assert drawn(figure, "copy") == pytest.approx([0.9, 0.5])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["signs\n(5,000 labels; GTSRB)", "birds\n(3,200 labels; CUBS)"]


def test_one_seed_has_no_spread():
    data = chapter_05.recoveries(COPIES, CONTROLS, LABELS).data.set_index(["Series", "Group"])["±"]
    assert data["copy", SIGNS] == pytest.approx(0.1414, abs=1e-4)
    assert pd.isna(data["copy", BIRDS])


def test_an_answer_is_worth_the_controls_labels_divided_by_the_answers():
    copies = COPIES.assign(budget=10_000, validation_accuracy=[0.80, 0.84, 0.5], seed=[0, 1, 0])

    def worth(signs: float, birds: float, **options) -> list[str]:
        controls = CONTROLS.assign(validation_accuracy=[birds, signs])
        return chapter_05.worth_table(copies, controls, LABELS, **options).splitlines()

    caption, _, heads, _, signs, birds = worth(signs=0.825, birds=0.495)
    assert "a label costs 10 cents" in caption and "over 1 point more or less accurate" in caption
    assert heads.endswith("| Labels per answer | Querying stops paying above |")
    assert signs == "| signs | 5,000 | 10,000 | 0.50 | 5.0 cents |"
    assert birds == "| birds | 3,200 | 10,000 | 0.32 | 3.2 cents |"
    *_, signs, birds = worth(signs=0.84, birds=0.48, label_price=20)
    assert signs == "| signs | 5,000 | 10,000 | at most 0.50 | at most 10.0 cents |"
    assert birds == "| birds | 3,200 | 10,000 | at least 0.32 | at least 6.4 cents |"


def test_solved_layers_have_a_line_for_each_network_and_a_column_for_each_set_of_answers():
    found = {("victim", 65, "pool"): 1.0, ("victim", 65, "noise"): 0.996}
    found |= {("backbone A", 65, "pool"): 0.25, ("backbone A", 65, "noise"): 0.034}
    assert chapter_05.solved_table(found, images=1_000).splitlines() == [
        "**Agreement with the victim on 1,000 test images; one seed, live**",
        "",
        "| Features | 65 answers to pool | 65 answers to noise |",
        "| :--- | ---: | ---: |",
        "| victim | 1.00 | 1.00 |",
        "| backbone A | 0.25 | 0.03 |",
    ]


def test_repeated_errors_have_their_number_in_the_row():
    found = marks(chapter_05.repeated(COPIES, CONTROLS))
    assert found["copy", "signs (100 errors)"] == pytest.approx(0.45)
    assert found["independent control", "birds (100 errors)"] == 0.375


def test_rewards_stand_beside_as_many_random_queries():
    adaptive = pd.concat([rows(signs=[0.7]).assign(reward="loss"), rows(signs=[0.6]).assign(reward="all")])
    found = marks(chapter_05.rewards(adaptive, COPIES))
    assert found["loss", "signs"] == 0.7 and found["all", "signs"] == 0.6
    assert found["random", "signs"] == pytest.approx(0.9) and ("loss", "birds") not in found


def test_recovery_over_queries_has_a_line_a_task():
    figure = chapter_05.budgets(pd.concat([COPIES, rows(signs=[0.25]).assign(budget=1)]))
    [birds, signs] = [one.lines[0].get_xydata().tolist() for one in figure.axes[0].containers]
    assert signs == [[1, 0.25], [10, pytest.approx(0.9)]] and birds == [[10, 0.5]]


def test_what_was_asked_is_ordered_by_the_first_strategy():
    labels = {"bandit": torch.tensor([2, 2, 0]), "random": torch.tensor([0, 1, 2])}
    bandit, random = chapter_05.asked(labels, 3).axes
    assert bandit.lines[0].get_ydata().tolist() == [0, 0, 1]
    assert random.lines[0].get_ydata().tolist() == [1, 2, 0]
    assert (bandit.get_title(), random.get_title()) == ("bandit:\n2 of 3 classes", "random:\n3 of 3 classes")


def test_a_caption_says_over_how_many_seeds():
    assert figures.seeds(pd.DataFrame({"seed": [1000, 1000]})) == "one seed"
    assert figures.seeds(pd.DataFrame({"seed": [200, 201, 200]})) == "mean ± sd over 2 seeds"


def test_cells_of_different_seeds_have_no_spread():
    def said(**seeds):
        return figures.seeds(pd.DataFrame([{"task": task, "seed": seed} for task in seeds for seed in seeds[task]]))

    assert said(birds=[200], signs=[1000]) == "one seed each"
    assert said(birds=[200, 201], signs=[200, 201]) == "mean ± sd over 2 seeds"
    assert said(birds=[200, 201], signs=[200]) == "mean ± sd over 1 to 2 seeds"


def test_a_frame_of_nothing_has_no_provenance():
    with pytest.raises(InputError, match="give a frame from book.frame"):
        figures.provenance_of(COPIES)


# -- the front page ------------------------------------------------------------------


def cell(task: str, recovery: float, **changes) -> dict:
    """Return a row of the plain cell of the scale drawn, with changes."""
    plain = {"pool": "atlas", "victim": "resnet", "surrogate": "resnet", "budget": 10_000, "granularity": "full"}
    plain |= {"defense": "none", "attack": "random", "experiment": "extraction", "fill": "even"}
    plain |= {"victim_weights": "A", "surrogate_weights": "A", "table": "reproduction"}
    plain |= {"constant_accuracy": 0.1, "victim_accuracy": 0.5}
    return {"task": task, "recovery": recovery, **plain, **changes}


def test_the_front_page_has_a_row_for_each_condition_that_ran():
    lines = [
        cell("signs", 0.9),
        cell("signs", 0.7, granularity="label", table="granularity"),
        cell("signs", 0.95, pool="signs/shifted", budget=2_500, table="own_images"),
        cell("signs", 0.1, pool="retina", table="diversity"),
        cell("retina", 0.99, pool="retina", table="diversity"),
        cell("birds", 0.4, granularity="top-2", table="granularity"),
    ]
    figure = figures.conditions(pd.DataFrame(lines))
    assert figure.data[["Series", "Group", "recovery"]].values.tolist() == [
        ["signs", "own images, a quarter of the queries", 0.95],
        ["signs", "public images, full answers", 0.9],
        ["signs", "public images, labels only", 0.7],
        ["signs", "images of one other task", 0.1],
        ["signs", "constant predictor", pytest.approx(0.2)],
    ]


def test_the_front_page_does_not_say_which_task_is_which():
    lines = [cell("signs", 0.9), cell("birds", 0.5), cell("signs", 0.7, granularity="label", table="granularity")]
    figure = figures.conditions(pd.DataFrame(lines))
    means = next(line for line in figure.axes[0].lines if line.get_label() == "mean of the tasks")
    assert list(means.get_xdata()) == pytest.approx([0.7, 0.7, 0.2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean of the tasks", "one task"]


def test_the_front_page_says_which_tables_ran_at_which_size(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "read_rows", lambda path: ["row"])
    monkeypatch.setattr(editions, "counts", lambda row: True)
    for name in ("exploring/drawn/a", "exploring/drawn/b", "edition-2/drawn/a", "edition-2/photos/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.jsonl").touch()
    assert figures.sizes() == (
        "Drawn images at 32 px: 1 table on one or more of the deciding seeds, 1 table on one seed of exploration;"
        " photographs at 128 px: 1 table on one or more of the deciding seeds."
        " None of them is at the paper's 224 px."
    )
    (tmp_path / "edition-2" / "paper").mkdir()
    (tmp_path / "edition-2" / "paper" / "a.jsonl").touch()
    assert figures.sizes().endswith("; the paper's images at 224 px: 1 table on one or more of the deciding seeds.")


def test_agreement_is_set_against_the_controls():
    copies = rows(signs=[0.9, 0.7], birds=[0.5]).assign(agreement=[0.9, 0.7, 0.5])
    controls = rows(signs=[0.9], birds=[0.5]).assign(agreement=[0.7, 0.6])
    assert chapter_05.agreement_words(copies, controls) == (
        "The copies agree with their victims on more of the test images than the controls do on 1 of 2 tasks: 0.50"
        " against 0.60 (*birds*), 0.80 against 0.70 (*signs*)."
    )
