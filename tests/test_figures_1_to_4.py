"""What chapters 1 to 4 alone show."""

import pandas as pd
import pytest
import torch

from extractbook.build import execute
from extractbook.figures import chapter_01, chapter_02, chapter_03, chapter_04
from extractbook.reproduction import paper
from extractlib.api.granularity import Full, Granularity, Label, TopK
from extractlib.data.drawn import SIZES, TASKS, atlas, draw, things
from extractlib.data.images import ImageSet
from extractlib.models.classifier import load_victim

ROW = torch.tensor([[0.2, 0.5, 0.3]])


@pytest.mark.parametrize(
    ("kind", "seen"), [(Full(), [0.2, 0.5, 0.3]), (TopK(2), [None, 0.5, 0.3]), (Label(), [None, 1.0, None])]
)
def test_what_an_answer_shows_of_each_class(kind: Granularity, seen: list):
    answer = kind.show(ROW)
    assert [chapter_04.shown(answer, label) for label in range(3)] == pytest.approx(seen)


def test_one_query_shows_the_likeliest_classes_and_hides_what_is_hidden():
    signs = draw("signs", part="test", size=86, seed=0)
    full = torch.zeros(1, 43).index_fill_(1, torch.tensor([7]), 0.7).index_fill_(1, torch.tensor([4]), 0.3)
    answers = {"full": Full().show(full), "top-1": TopK(1).show(full)}
    figure = chapter_04.one_query(signs.images[0], answers, signs)
    cells = figure.axes[1]
    written = [text.get_text() for text in cells.texts]
    assert written == ["full", "0.70", "0.30", "0.00", "0.00", "0.00", "0.00", "top-1", "0.70"]
    assert [bool(patch.get_hatch()) for patch in cells.patches] == [False] * 7 + [True] * 5
    # The query, then a sign of each class.
    shown = [torch.from_numpy(axes.images[0].get_array().data) for axes in figure.axes if axes.images]
    assert len(shown) == 7
    assert torch.equal(shown[1], signs.images[(signs.labels == 7).nonzero()[0, 0]].permute(1, 2, 0))


def test_measures_of_the_five_victims():
    pool = draw("atlas", part="queries", size=40, seed=0).images
    data = chapter_04.measured(["label", "full"], {"images of the pool": pool}, count=30)
    assert len(data) == 3 * len(TASKS) and (data["full"] < 1e-6).all()
    # Of a label the distance is one minus the confidence.
    confidence = load_victim("birds").logits(pool).softmax(1).amax(1).mean().item()
    line = data[(data["task"] == "birds") & (data["images"] == "images of the pool")].iloc[0]
    assert line["label"] == pytest.approx(1 - confidence, abs=1e-5)
    assert 0 < line["mutual information"] < line["mean entropy"] + line["mutual information"] < 5.33


def test_plots_of_what_was_measured():
    data = pd.DataFrame(
        [["signs", "noise", 0.1, 1.5, 0.5], ["signs", "images of the pool", 0.4, 1.0, 2.0]],
        columns=["task", "images", "label", "mean entropy", "mutual information"],
    )
    (panel,) = chapter_04.distances(data, ["label"]).axes
    assert {line.get_label(): line.get_xdata()[0] for line in panel.lines} == {"noise": 0.1, "images of the pool": 0.4}
    (axes,) = chapter_04.varieties(data).axes
    assert {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines} == {
        "noise": (1.5, 0.5),
        "images of the pool": (1.0, 2.0),
    }


# -- chapter 1 -----------------------------------------------------------------


def test_copies_on_the_same_images_are_marked_right_or_wrong():
    labels = torch.tensor([0, 1])
    copies = {"noise": torch.tensor([1, 1]), "own": torch.tensor([0, 0])}
    figure = chapter_01.same_images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), labels, copies, ("stop", "yield"))
    written = [text.get_text() for text in figure.texts]
    assert written == ["stop", "✗ noise: yield", "✓ own", "yield", "✓ noise", "✗ own: stop"]


def test_what_attackers_recover_is_picked_from_the_tables():
    row = {"granularity": "full", "attack": "random", "seed": 0, "constant_accuracy": 0.2, "victim_accuracy": 0.8}
    lines = [
        row | {"table": "reproduction", "task": "signs", "pool": "atlas", "budget": 10_000, "recovery": 0.9},
        row | {"table": "own_images", "task": "signs", "pool": "signs/shifted", "budget": 2_500, "recovery": 0.95},
        row | {"table": "own_images", "task": "signs", "pool": "signs/shifted", "budget": 5_000, "recovery": 0.5},
        row | {"table": "own_images", "task": "signs", "pool": "signs", "budget": 2_500, "recovery": 0.5},
    ]
    lines.append(lines[1] | {"granularity": "label"})
    lines.append(lines[1] | {"attack": "own-labels"})
    found = chapter_01.recovered(pd.DataFrame(lines))
    assert dict(zip(found["attacker"], found["recovery"], strict=True)) == {
        "public images": 0.9,
        "own images": 0.95,
        "constant": 0.25,
    }
    twice = pd.concat([found, found.assign(recovery=found["recovery"] - 0.1)])
    data = chapter_01.attackers(twice).data.set_index("Series")
    assert data.loc["own images", "recovery"] == pytest.approx(0.9)
    assert data.loc["own images", "±"] == pytest.approx(0.1 / 2**0.5)


def test_the_bill_on_photographs_counts_the_labels_of_controls_that_are_about_as_accurate_as_the_copy():
    names = ["caltech101", "caltech101", "cifar10", "gtsrb"]
    copies = pd.DataFrame({"task": names, "validation_accuracy": [0.7, 0.8, 0.8, 0.6], "budget": 15_000})
    controls = pd.DataFrame({"task": names, "validation_accuracy": [0.7, 0.75, 0.79, 0.64]})
    prices = {"label_price": 0.1, "query_price": 0.001}
    # 1,400 and 3,000 labels at ten cents against 15 dollars; gtsrb's control is four points better than its copy.
    assert chapter_01.factors(copies, controls, **prices) == pytest.approx({"caltech101": 140 / 15, "cifar10": 20})
    said = chapter_01.factor_words(copies, controls, **prices)
    assert "the same prices: about 9 on Caltech101 and about 20 on CIFAR-10; on the other tasks, no control" in said
    assert chapter_01.factors(copies, controls, label_price=0.1, query_price=0.002)["cifar10"] == pytest.approx(10)


# -- chapter 3 -----------------------------------------------------------------


def tiny(labels: list[int]) -> ImageSet:
    """Return gray images of two classes, all alike but for a bright corner that grows along the set."""
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    for number in range(len(labels)):
        images[number, :, : number + 1] = 200
    return ImageSet("tiny", images, torch.tensor(labels), ("stop", "yield"), "1")


def test_victims_are_beside_the_papers_and_a_constant():
    frame = pd.DataFrame({"task": ["signs", "signs"], "victim_accuracy": [0.9, 0.8], "constant_accuracy": [0.1, 0.1]})
    data = chapter_03.victims(frame).data.set_index("Series")["accuracy, %"]
    theirs = paper.tables()["reproduction"]["rows"]["GTSRB-RN34"]["victim"]
    assert data.to_dict() == pytest.approx({chapter_03.OURS: 85, chapter_03.CONSTANT: 10, chapter_03.THEIRS: theirs})


def test_the_surest_errors_come_first():
    answers = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    figure = chapter_03.confident_errors(tiny([0, 0, 0, 1]), answers)
    assert [text.get_text() for text in figure.texts] == ["true: stop", "0.80 yield", "true: stop", "0.60 yield"]


def test_confused_pairs_are_counted_and_shown():
    answers = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.8, 0.2], [0.9, 0.1]])
    images = tiny([0, 0, 0, 1])
    figure = chapter_03.confused({"signs": (images, answers)}, pairs=1)
    assert figure.data.to_dict("records") == [
        {"true": "stop", "taken for": "yield", "images": 2, "of": 3, "Task": "signs"}
    ]
    shown = [axes.images[0].get_array().data[:, 0, 0].tolist() for axes in figure.axes]
    assert shown == [images.images[2][0, :, 0].tolist(), images.images[3][0, :, 0].tolist()]


def test_reliability_in_groups_of_equal_size():
    confidence = torch.tensor([0.9, 0.5, 0.7, 0.6])
    right = torch.tensor([True, False, True, True])
    data = chapter_03.reliability({"signs": (confidence, right)}, groups=2).data
    assert data["confidence"].tolist() == pytest.approx([0.55, 0.8])
    assert data["share correct"].tolist() == [0.5, 1.0]
    assert data["±"].tolist() == pytest.approx([0.5 / 2**0.5, 0.0]) and data["answers"].tolist() == [2, 2]


# -- chapter 2 and the datasheets -------------------------------------------------


def test_rows_of_images_have_names_and_frames():
    first, second = (torch.full((3, 3, 4, 4), value, dtype=torch.uint8) for value in (10, 200))
    figure = chapter_02.rows({"dark": first, "light": second})
    assert [text.get_text() for text in figure.texts] == ["dark", "light"]
    shown = [axes.images[0].get_array().data for axes in figure.axes]
    assert shown[0].shape == (6, 18, 3)  # three images with a frame of one pixel
    assert (shown[0][1, 1] == 10).all() and (shown[1][1, 7] == 200).all() and (shown[0][0] == 255).all()


def test_first_images_of_classes():
    found = chapter_02.of_classes(tiny([1, 0, 1, 1]), ("yield",), each=2)
    assert torch.equal(found["yield"], tiny([1, 0, 1, 1]).images[[0, 2]])


def test_an_image_is_nearest_to_itself():
    images = draw("signs", part="test", size=30, seed=0).images[:]
    seen = chapter_02.features(images)
    assert torch.allclose(seen.norm(dim=1), torch.ones(30), atol=1e-5)
    assert (seen @ seen.T).argmax(1).tolist() == list(range(30))
    table = chapter_02.nearness({"atlas": images}, count=30)
    first = (seen @ seen[:29].T).amax(1)  # as many as there are other images of the task
    assert table.loc["signs", "atlas"] == pytest.approx(first.mean().item(), abs=1e-5) and first[0] > 0.999 > first[29]
    assert table.loc["signs", "the task itself"] < 0.999
    near = chapter_02.near(table)
    assert near.axes[0].get_yticklabels()[0].get_text() == "signs"


def test_the_datasheets_have_the_sets_sizes():
    text = (execute.BOOK / "datasheets.md").read_text(encoding="utf-8")
    lines = [[cell.strip().replace(",", "") for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    sizes = {cells[0]: cells[1:] for cells in lines if cells[0] in SIZES and len(cells) > 2}
    assert sizes.keys() == SIZES.keys()
    for name, (classes, *numbers) in sizes.items():
        assert int(classes) == len(draw(name, part="test", size=1, seed=0).classes)
        assert [int(number) for number in numbers if number != "–"] == list(SIZES[name].values())
    shared = set(things.CLASSES) & set(atlas.CLASSES)
    assert f"Of its {len(things.CLASSES)} kinds *atlas* draws {len(shared)} in the same way" in text


def test_controls_from_shared_and_from_other_weights_are_compared_by_their_means():
    cells = [("A", 0.2), ("A", 0.4), ("B", 0.1), ("B", 0.1)]
    columns = ["task", "surrogate_weights", "errors_repeated"]
    rows = pd.DataFrame([("signs", *cell) for cell in cells], columns=columns)
    rows = rows.assign(recovery=[0.9, 0.8, 0.75, 0.75])
    assert chapter_03.shared_start_words(rows).endswith(
        ": 0.300 ± 0.141 against 0.100 ± 0.000 on *signs*, with a recovery of 0.85 and 0.75 (mean ± sd over 2 controls"
        " each)."
    )
