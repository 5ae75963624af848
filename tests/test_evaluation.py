"""Evaluation: a surrogate beside its victim, by hand."""

import json
import math
import warnings

import pytest
import torch

import extractlib as xl
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, ResultWarning


class Fixed:
    """Gives the labels that it was made with, one for each image in turn."""

    def __init__(self, *labels: int, count: int = 3):
        self.labels, self.count = torch.tensor(labels), count

    def logits(self, images):
        return torch.eye(self.count)[self.labels[: len(images)]]


class Named(Fixed):
    """A model with class names that gives the labels 0, 1, 2."""

    def __init__(self, classes):
        super().__init__(0, 1, 2)
        self.classes = classes


def labeled(*labels: int) -> ImageSet:
    images = torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8)
    return ImageSet("test", images, torch.tensor(labels), ("a", "b", "c"))


def test_a_case_by_hand():
    """Eight images, five of class a; the victim has six right, the surrogate three, and they agree on three."""
    truth = labeled(0, 0, 0, 0, 0, 1, 1, 2)
    victim, surrogate = Fixed(0, 0, 0, 0, 0, 1, 0, 0), Fixed(0, 1, 1, 2, 0, 0, 1, 0)
    found = xl.evaluate(victim, surrogate, truth)
    assert found.victim_accuracy == 6 / 8 and found.surrogate_accuracy == 3 / 8
    assert found.recovery == 0.5
    assert found.agreement == 3 / 8  # images 0, 4 and 7: on the last both are wrong
    assert found.constant_accuracy == 5 / 8
    # The victim errs on images 6 and 7, and the surrogate repeats the second error only.
    assert (found.errors, found.errors_repeated) == (2, 0.5)
    assert found.n == 8
    assert str(found) == "recovery 0.50, agreement 0.38 (victim 0.75, surrogate 0.38; n = 8)"
    assert found.to_json() == {
        "victim_accuracy": 0.75,
        "surrogate_accuracy": 0.375,
        "recovery": 0.5,
        "agreement": 0.375,
        "constant_accuracy": 0.625,
        "errors": 2,
        "errors_repeated": 0.5,
        "n": 8,
        "both_right": 2 / 8,  # images 0 and 4
        "balanced": False,
    }
    # The variance of the recovery's logarithm is (3/8 + 6/8 - 2 · 2/8) / (8 · 3/8 · 6/8) = 5/18.
    half = 1.959964 * (5 / 18) ** 0.5
    assert found.recovery_interval == pytest.approx((0.5 * math.exp(-half), 0.5 * math.exp(half)), rel=1e-6)


def test_a_copy_that_is_right_where_its_victim_is_has_an_interval_of_no_width():
    truth = labeled(0, 1, 2, 0)
    found = xl.evaluate(Fixed(0, 1, 1, 0), Fixed(0, 1, 0, 0), truth)
    assert found.recovery_interval == (1.0, 1.0)


def test_a_recovery_of_0_has_no_interval():
    found = xl.evaluate(Fixed(0, 1, 2, 0), Fixed(1, 0, 0, 1), labeled(0, 1, 2, 0))
    with pytest.raises(InputError, match="the accuracies are 0.0 and 1.0"):
        _ = found.recovery_interval


def test_balanced_accuracies_by_hand():
    """Classes of five, two and one images: the victim has 5, 1 and 0 of them right, the surrogate 2, 1 and 0."""
    truth = labeled(0, 0, 0, 0, 0, 1, 1, 2)
    victim, surrogate = Fixed(0, 0, 0, 0, 0, 1, 0, 0), Fixed(0, 1, 1, 2, 0, 0, 1, 0)
    found = xl.evaluate(victim, surrogate, truth, balanced=True)
    assert found.victim_accuracy == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found.surrogate_accuracy == pytest.approx((2 / 5 + 1 / 2 + 0) / 3)
    assert found.constant_accuracy == pytest.approx(1 / 3)
    assert found.recovery == pytest.approx(0.3 / 0.5) and found.agreement == 3 / 8
    assert found.recovery_above_constant == pytest.approx((0.3 - 1 / 3) / (0.5 - 1 / 3))


def test_sides_are_not_confused():
    """A surrogate may be better than its victim; recovery is its accuracy over the victim's, not the other way."""
    truth = labeled(0, 1, 2, 0)
    found = xl.evaluate(Fixed(0, 0, 0, 1), Fixed(0, 1, 2, 0), truth)
    assert (found.recovery, found.agreement) == (4.0, 0.25)
    assert (found.errors, found.errors_repeated) == (3, 0.0)


def test_a_victim_without_errors_has_none_that_could_be_repeated():
    found = xl.evaluate(Fixed(0, 1), Fixed(0, 0), labeled(0, 1))
    assert found.errors == 0 and found.errors_repeated != found.errors_repeated


def test_a_model_is_its_own_perfect_copy():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    victim = xl.Victim(module, classes=("a", "b", "c"))
    images = torch.randint(0, 256, (2_000, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = xl.evaluate(victim, victim, ImageSet("test", images, torch.arange(2_000) % 3, ("a", "b", "c")))
    assert (found.recovery, found.agreement) == (1.0, 1.0)
    assert str(found).startswith("recovery 1.00, agreement 1.00 (victim 0.")
    assert str(found).endswith("; n = 2,000)")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="test has no labels: give labeled images"):
        xl.evaluate(Fixed(0, 0), Fixed(0, 0), labeled(0, 1).unlabeled())
    with pytest.raises(InputError, match="the victim's accuracy is 0.0: recovery needs one above 0"):
        xl.evaluate(Fixed(1, 0), Fixed(0, 0), labeled(0, 1))
    with pytest.raises(InputError, match="0 and 0 labels cannot be compared"):
        xl.evaluate(Fixed(0), Fixed(0), labeled(0).subset(torch.empty(0, dtype=torch.int64)))


def called(*labels: int, classes: tuple[str, ...]) -> Fixed:
    """Return a model that gives these labels and has names for its classes."""
    model = Fixed(*labels)
    model.classes = classes
    return model


def test_labels_are_compared_by_name_where_the_images_classes_are_some_of_the_model_s():
    """The set has classes a, b, c; c is missing in the second one, which the models call number 0 and a number 2."""
    model = called(2, 1, 0, classes=("c", "b", "a"))
    assert xl.evaluate(model, model, labeled(0, 1, 2)).victim_accuracy == 1
    some = xl.images(labeled(0, 1).images, ["a", "b"])
    found = xl.evaluate(called(2, 1, classes=("c", "b", "a")), called(2, 0, classes=("c", "b", "a")), some)
    assert (found.victim_accuracy, found.surrogate_accuracy, found.agreement) == (1, 0.5, 0.5)


def test_numbered_classes_and_other_names_are_compared_by_number():
    model = called(0, 1, classes=("x", "y", "z"))
    assert xl.evaluate(model, model, xl.images(labeled(0, 1).images, torch.tensor([0, 1]))).victim_accuracy == 1
    assert xl.evaluate(called(0, 1, 2, classes=("x", "y", "z")), Fixed(0, 1, 0), labeled(0, 1, 2)).victim_accuracy == 1


def test_numbers_as_names_in_another_order_are_compared_by_name_with_a_warning():
    """As torchvision orders twelve folders called 0 to 11: number 2 is the folder 10."""
    names = tuple(sorted(map(str, range(12))))
    victim = called(*range(12), classes=names)
    victim.count = 12
    images = torch.zeros(12, 3, 2, 2, dtype=torch.uint8)
    with pytest.warns(ResultWarning, match=r"label 2 is the models' number 4; .* images\(…, labels, classes=victim.cl"):
        found = xl.evaluate(victim, victim, xl.images(images, torch.arange(12)))
    assert found.victim_accuracy == 2 / 12  # 0 and 1 are where they were
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xl.evaluate(victim, victim, xl.images(images, torch.arange(12), classes=names)).victim_accuracy == 1
        numbers = xl.images(images[:3], torch.arange(3), classes=[0, 1, 10])  # names of a victim are text, too
        assert numbers.classes == ("0", "1", "10")
        assert xl.evaluate(victim, victim, numbers).victim_accuracy == 1


@pytest.mark.parametrize(
    ("victim", "surrogate", "words"),
    [
        ("xyz", "xzy", "the classes of victim and surrogate differ"),
        ("abc", "ab", "the classes of victim and surrogate differ"),
        ("wxyz", "wxyz", r"test has 3 classes, .*, and the models 4, .*: call its classes by the same names"),
    ],
)
def test_classes_that_do_not_fit_are_refused(victim, surrogate, words):
    models = called(0, 1, 2, classes=tuple(victim)), called(0, 1, 2, classes=tuple(surrogate))
    with pytest.raises(InputError, match=words):
        xl.evaluate(*models, labeled(0, 1, 2))


def test_labels_take_the_place_of_a_model_that_only_answers():
    labels = torch.tensor([0, 1, 1])
    found = xl.evaluate(labels, Fixed(0, 1, 0), labeled(0, 1, 1))
    assert (found.victim_accuracy, found.agreement) == (1, 2 / 3)
    for wrong in (labels[:2], labels.float(), labels[:, None]):
        with pytest.raises(InputError, match=r"the victim's labels are .*: expected whole numbers of shape \(3,\)"):
            xl.evaluate(wrong, Fixed(0, 1, 0), labeled(0, 1, 1))


def test_a_bare_module_is_told_what_to_be_wrapped_in():
    module, remedy = torch.nn.Flatten(), r"wrap a module in {}\(module, classes=…\), or give labels"
    with pytest.raises(InputError, match=f"the surrogate is a Flatten without 'logits': {remedy.format('Surrogate')}"):
        xl.evaluate(Fixed(0), module, labeled(0))
    with pytest.raises(InputError, match=f"the victim is a Flatten without 'logits': {remedy.format('Victim')}"):
        xl.evaluate(module, Fixed(0), labeled(0))


def test_what_is_no_model_or_set_is_refused_with_the_remedy():
    for victim, images, message in (
        (torch.nn.Flatten(), labeled(0), r"the victim is a Flatten without 'logits': wrap a module in Victim"),
        (Fixed(0), (torch.zeros(1, 3, 2, 2), torch.zeros(1)), "the set of images is a tuple without 'known_labels'"),
    ):
        with pytest.raises(InputError, match=message):
            xl.evaluate(victim, Fixed(0), images)


@pytest.mark.parametrize("others", [("a", "b", "d"), ("c", "a", "b"), ("b", "x", "y")])
def test_classes_that_are_the_same_in_part_are_compared_neither_by_name_nor_by_number(others):
    truth = labeled(0, 1, 2)
    with pytest.raises(InputError, match="the classes of victim and surrogate differ"):
        xl.evaluate(Named(("a", "b", "c")), Named(others), truth)
    if set(others) != {"a", "b", "c"}:
        with pytest.raises(InputError, match="call its classes by the same names"):
            xl.evaluate(Named(others), Named(others), truth)


def test_labels_in_place_of_models_are_numbered_by_the_classes_that_are_given():
    """The images' classes are a, b, c; the models' c, b, a."""
    truth, labels = labeled(0, 1, 2, 2), torch.tensor([2, 1, 0, 0])
    assert xl.evaluate(labels, labels, truth, classes=("c", "b", "a")).victim_accuracy == 1.0
    assert xl.evaluate(labels, labels, truth).victim_accuracy == 0.25
    with pytest.raises(InputError, match="the classes of victim and surrogate differ"):
        xl.evaluate(labels, Named(("a", "b", "c")), truth, classes=("c", "b", "a"))


def test_what_is_no_number_is_none_in_json():
    found = xl.evaluate(Fixed(0, 1), Fixed(0, 0), labeled(0, 1)).to_json()
    assert found["errors_repeated"] is None and found["errors"] == 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_balanced_accuracies_have_no_interval():
    truth = labeled(0, 0, 1, 2)
    found = xl.evaluate(Fixed(0, 0, 1, 1), Fixed(0, 1, 1, 1), truth, balanced=True)
    with pytest.raises(InputError, match="no interval for balanced accuracies: evaluate with balanced=False"):
        _ = found.recovery_interval


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, -1, 1, -1], r"2 of the victim's 4 labels are those of denied answers: .* images.subset\(labels >= 0\)"),
        ([1, 2, 3, 1], "the victim's labels are 1 to 3 for 3 classes: number the classes from 0"),
        ([True, False, True, True], "labels are torch.bool of shape"),
    ],
    ids=["denied", "from one", "Boolean"],
)
def test_labels_that_are_of_no_class_are_refused(labels, words):
    truth = labeled(0, 1, 2, 0)
    with pytest.raises(InputError, match=words):
        xl.evaluate(torch.tensor(labels), Fixed(0, 1, 2, 0), truth)


def test_denied_answers_are_left_out_as_the_message_says():
    truth, labels = labeled(0, 1, 2, 0), torch.tensor([0, -1, 2, 1])
    found = xl.evaluate(labels[labels >= 0], Fixed(0, 2, 0), truth.subset(labels >= 0))
    assert (found.victim_accuracy, found.surrogate_accuracy, found.n) == (2 / 3, 1.0, 3)


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_a_model_that_returns_no_finite_logits_is_refused(spoiled):
    class Spoiled(Fixed):
        def logits(self, images):
            return super().logits(images) * spoiled

    good = Fixed(0, 1, 2, 0)
    with pytest.raises(InputError, match="the surrogate returned NaN or infinite logits"):
        xl.evaluate(good, Spoiled(0, 1, 2, 0), labeled(0, 1, 2, 0))
