"""Dataset inference, on models whose margins are known."""

import numpy as np
import pytest
import torch

from extractlib.data.images import ImageSet
from extractlib.defenses.ownership import STEPS, OtherClasses, _regression, dataset_inference, margins
from extractlib.errors import InputError


class Holds:
    """Names a flat gray image 0 until its pixels are spread by more than its reach, which depends on its brightness."""

    def __init__(self, reach):
        self.reach = reach

    def predict(self, images):
        pixels = images.float().flatten(1)
        return (pixels.std(1, correction=0) > self.reach(pixels.mean(1))).long()


def flat(values, name="images"):
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    return ImageSet(name, images, torch.zeros(len(values), dtype=torch.int64), classes=("a", "b"))


DARK, LIGHT = flat(range(100, 120)), flat(range(140, 160))


def test_the_margin_is_the_first_step_at_which_the_label_is_lost():
    model = Holds(lambda brightness: torch.where(brightness < 110, 20.0, torch.where(brightness < 135, 0.0, 1e9)))
    found = np.exp(margins(model, flat([100, 120, 150]).images, torch.zeros(3, dtype=torch.int64), directions=2))
    assert found.shape == (3, 6)
    # The spread is the step times that of a direction whose mean square is 1: nearly the step itself.
    past = min(step for step in STEPS if step > 20)
    assert found[0] == pytest.approx(past)
    assert found[1] == pytest.approx(STEPS[0])
    assert found[2] == pytest.approx(2 * STEPS[-1])


def test_a_walk_has_sixteen_steps_and_three_directions_of_each_kind_unless_told_otherwise():
    assert (STEPS[0], STEPS[-1], len(STEPS)) == (pytest.approx(2), pytest.approx(128), 16)
    never = Holds(lambda brightness: -1 + 0 * brightness)
    assert margins(never, flat([100]).images, torch.zeros(1, dtype=torch.int64)).shape == (1, 9)


def test_directions_are_of_three_kinds_around_nothing_and_of_mean_square_one():
    """A model that always gives the label is asked at all steps; the eleventh is of 32 gray levels."""
    asked = []

    class Recording:
        def predict(self, images):
            asked.append(images.double().flatten() - 128)
            return torch.zeros(len(images), dtype=torch.int64)

    margins(Recording(), flat([128]).images, torch.zeros(1, dtype=torch.int64), directions=2)
    assert len(asked) == 2 * 3 * len(STEPS) and STEPS[10] == pytest.approx(32)
    directions = torch.stack(asked[10 :: len(STEPS)]) / 32
    assert (directions**2).mean(1).tolist() == pytest.approx([1] * 6, abs=0.05)
    # Of 256 pixels the mean is 0 with a standard deviation of 1/16.
    assert directions.mean(1).abs().max() < 0.25
    # A uniform one ends at √3, and the others do not; Laplace's has the longest tails.
    highest = directions.abs().amax(1)
    assert highest[:2].max() < 1.76 and highest[2:4].min() > 2.2 and highest[4:].min() > 3


def test_the_regression_by_hand():
    """Margins of ±m around the middle: w = n m / (n m² + 0.001 n), and smaller ones count little beside the ridge."""
    for margin in (1.0, 0.01):
        sides = np.full((3, 1), 2 + margin), np.full((3, 1), 2 - margin)
        assert _regression(*sides) == pytest.approx([margin / (margin**2 + 0.001)])


def test_a_model_with_the_victims_margins_is_accused_and_others_are_not():
    def spread(brightness):
        return 10 * (brightness % 5)

    victim = Holds(lambda brightness: torch.where(brightness < 130, 30.0, 8.0) + spread(brightness))
    other = Holds(lambda brightness: 15 + spread(brightness))
    reversed_ = Holds(lambda brightness: torch.where(brightness < 130, 8.0, 30.0) + spread(brightness))
    sides = {"private": DARK, "public": LIGHT}
    assert dataset_inference(victim, victim, **sides) < 0.001
    assert dataset_inference(victim, other, **sides) > 0.05
    assert dataset_inference(victim, reversed_, **sides) > 0.999


def test_only_the_images_that_count_are_walked_from():
    """The victim's margins are of the first halves, which the regression learns from, the suspect's of the second."""
    asked = {"victim": set(), "suspect": set()}

    class Recording:
        def __init__(self, name):
            self.name = name

        def predict(self, images):
            asked[self.name] |= {round(float(image.float().mean())) for image in images}
            return torch.ones(len(images), dtype=torch.int64)  # wrong at once: nothing but the first step is walked

    dataset_inference(Recording("victim"), Recording("suspect"), private=DARK, public=LIGHT)
    assert min(asked["suspect"]) >= 108 and max(asked["victim"]) <= 152


def test_equal_margins_everywhere_accuse_nobody():
    never = Holds(lambda brightness: -1 + 0 * brightness)
    victim = Holds(lambda brightness: torch.where(brightness < 130, 30.0, 8.0))
    assert dataset_inference(victim, never, private=DARK, public=LIGHT) == 1.0


@pytest.mark.parametrize(("count", "chance"), [(4, 1 / 6), (20, 1 / 184_756)])
def test_sides_without_spread_are_judged_by_their_order(count, chance):
    """Constant margins leave Welch's test nothing to divide by; of C(4, 2) = 6 choices of two, one is as extreme."""
    victim = Holds(lambda brightness: torch.where(brightness < 130, 30.0, 8.0))
    reversed_ = Holds(lambda brightness: torch.where(brightness < 130, 8.0, 30.0))
    sides = {"private": flat([100] * count), "public": flat([140] * count)}
    assert dataset_inference(victim, victim, **sides) == pytest.approx(chance)
    assert dataset_inference(victim, reversed_, **sides) == 1.0


def test_too_few_images_and_unlabeled_ones_are_refused():
    with pytest.raises(InputError, match="mine has 3 images or no labels: give at least 4 labeled ones"):
        dataset_inference(Holds(None), Holds(None), private=flat(range(3), "mine"), public=LIGHT)
    with pytest.raises(InputError, match="^private images has 20 images or no labels: give at least 4 labeled ones$"):
        dataset_inference(Holds(None), Holds(None), private=DARK.images, public=LIGHT)
    with pytest.raises(InputError, match="images has 20 images or no labels"):
        dataset_inference(Holds(None), Holds(None), private=DARK, public=LIGHT.unlabeled())


def labeled(labels, name):
    images = torch.full((len(labels), 1, 2, 2), 100, dtype=torch.uint8)
    return ImageSet(name, images, torch.tensor(labels), classes=("a", "b", "c"))


def test_sides_of_other_classes_are_refused():
    """In the order of a folder, class by class, a model that learned nothing from the images would be accused."""
    ordered, mixed = labeled([0] * 20 + [1] * 20, "mine"), labeled([0, 1] * 20, "others")
    with pytest.raises(OtherClasses, match=r"^mine has other classes in its first half .*subset\(torch\.randperm\("):
        dataset_inference(Holds(None), Holds(None), private=ordered, public=mixed)
    with pytest.raises(OtherClasses, match="^mine has other classes in its first half"):
        dataset_inference(Holds(None), Holds(None), private=mixed, public=ordered)
    with pytest.raises(OtherClasses, match="^first and others have other shares of the classes: draw both at random"):
        dataset_inference(Holds(None), Holds(None), private=labeled([2] * 40, "first"), public=mixed)
    never = Holds(lambda brightness: -1 + 0 * brightness)
    shuffled = ordered.subset(torch.randperm(40, generator=torch.Generator().manual_seed(0)))
    assert 0 <= dataset_inference(never, never, private=shuffled, public=mixed, directions=1) <= 1
    # Classes count by name: these are all "a".
    renamed = ImageSet("renamed", mixed.images, torch.ones(40, dtype=torch.int64), classes=("b", "a"))
    alike = {"private": labeled([0] * 40, "mine"), "public": renamed}
    assert 0 <= dataset_inference(never, never, **alike, directions=1) <= 1


def test_labels_are_those_of_a_models_classes():
    """With the classes of the images in another order, a model that names its own gets the same verdict."""

    class Named(Holds):
        classes = ("b", "a")

        def predict(self, images):
            return 1 - super().predict(images)

    def reach(brightness):
        return torch.where(brightness < 130, 30.0, 8.0) + 10 * (brightness % 5)

    found = [
        dataset_inference(kind(reach), kind(reach), private=DARK, public=LIGHT, directions=1) for kind in (Holds, Named)
    ]
    assert found[0] == found[1] < 0.01


def test_what_gives_no_labels_is_refused():
    with pytest.raises(InputError, match="suspect is a Linear without 'predict': wrap a module in Victim"):
        dataset_inference(Holds(lambda b: b), torch.nn.Linear(2, 2), private=DARK, public=LIGHT)
