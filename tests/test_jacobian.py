"""Jacobian-based augmentation, on a linear model whose gradient is known."""

from types import SimpleNamespace

import pytest
import torch

from extractlib.api.granularity import Answers
from extractlib.api.meter import BudgetExceeded
from extractlib.attacks.jacobian import jacobian_augmentation
from extractlib.data.images import ImageSet
from extractlib.errors import InputError


class Linear(torch.nn.Module):
    """Logits ±w·x with w = +1 on the upper half of the pixels and -1 on the lower."""

    def __init__(self):
        super().__init__()
        weight = torch.ones(1, 4, 4)
        weight[:, 2:] = -1
        self.weight = torch.nn.Parameter(weight)

    def normalize(self, images):
        return images / 255

    def classify(self, x):
        value = (x * self.weight).flatten(1).sum(1, keepdim=True)
        return torch.cat([value, -value], 1)

    def forward(self, images):
        return self.classify(self.normalize(images.float()))


class LinearTrainer:
    def __init__(self):
        self.sizes = []

    def fit(self, images, targets, *, classes):
        self.sizes.append(len(images))
        assert len(targets) == len(images) and classes == 2
        return Linear()


class Service:
    classes = ("up", "down")

    def __init__(self):
        self.asked = []

    def query(self, images, *, client="anonymous", request=None):
        self.asked.append((len(images), client))

        return Answers((images.float().mean((1, 2, 3)) <= 100).long())


SEEDS = ImageSet("seeds", torch.tensor([120, 80], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4).clone())


def test_each_round_doubles_the_set_and_moves_every_image_along_its_labels_gradient():
    api, trainer = Service(), LinearTrainer()
    queries, labels = jacobian_augmentation(api, SEEDS, trainer, budget=7, step=0.1)
    assert api.asked == [(2, "attacker"), (2, "attacker"), (3, "attacker")]
    assert trainer.sizes == [2, 4]
    assert queries.shape == (7, 1, 4, 4)
    assert torch.equal(queries[:2], SEEDS.images)
    # 120 was answered "up": its upper half brightens by 25.5 and its lower half darkens; 80, "down", the other way.
    assert queries[2, 0, :, 0].tolist() == [146, 146, 94, 94]
    assert queries[3, 0, :, 0].tolist() == [54, 54, 106, 106]
    # The seeds are moved once more in each round, with the images made of them.
    assert torch.equal(queries[4:6], queries[2:4])
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_the_seeds_may_be_a_tensor():
    queries, _ = jacobian_augmentation(Service(), SEEDS.images, LinearTrainer(), budget=4)
    assert torch.equal(queries, jacobian_augmentation(Service(), SEEDS, LinearTrainer(), budget=4)[0])


def test_a_budget_of_the_seeds_alone_trains_nothing():
    api, trainer = Service(), LinearTrainer()
    assert len(jacobian_augmentation(api, SEEDS, trainer, budget=2)[0]) == 2
    assert trainer.sizes == []


def test_a_round_is_sent_in_requests_that_a_server_takes():
    api = Service()
    seeds = ImageSet("seeds", torch.cat([SEEDS.images] * 150))
    queries, labels = jacobian_augmentation(api, seeds, LinearTrainer(), budget=600)
    assert [count for count, _ in api.asked] == [256, 44, 256, 44]
    assert len(queries) == len(labels) == 600
    assert labels[:4].tolist() == [0, 1, 0, 1]


def test_what_does_not_fit_is_refused_before_anything_is_asked():
    limited = Service()
    limited.usage = lambda client: SimpleNamespace(queries=0, budget=5)
    with pytest.raises(BudgetExceeded, match="client 'attacker' may send 5 queries, but the attack needs 7: give it"):
        jacobian_augmentation(limited, SEEDS, LinearTrainer(), budget=7)
    assert limited.asked == []
    api = Service()
    with pytest.raises(InputError, match="budget is 1, but there are 2 seed images"):
        jacobian_augmentation(api, SEEDS, LinearTrainer(), budget=1)
    with pytest.raises(InputError, match="step is 0"):
        jacobian_augmentation(api, SEEDS, LinearTrainer(), budget=4, step=0)
    one = ImageSet("one", SEEDS.images[:1])
    with pytest.raises(InputError, match="^there is 1 seed image, but a surrogate needs two to learn from: give at le"):
        jacobian_augmentation(api, one, LinearTrainer(), budget=2)
    assert api.asked == []
    assert len(jacobian_augmentation(api, one, LinearTrainer(), budget=1)[0]) == 1  # nothing is trained


def test_labels_are_those_that_the_api_gave():
    """Rounded to tenths, 0.41 and 0.44 are equal: the label is the second class all the same."""

    class Rounded(Service):
        def query(self, images, **options):
            count = len(super().query(images, **options))
            return Answers(torch.ones(count, dtype=torch.int64), None, torch.tensor([[0.4, 0.4]]).repeat(count, 1))

    queries, labels = jacobian_augmentation(Rounded(), SEEDS, LinearTrainer(), budget=4)
    assert labels.tolist() == [1, 1, 1, 1]
    assert queries[2, 0, :, 0].tolist() == [94, 94, 146, 146]  # moved toward the second class


def test_a_move_is_the_step_times_255_gray_levels():
    """0.8 · 255 is 204: what was answered "down" loses that above, where it ends at black, and gains it below."""
    seeds = ImageSet("dark", torch.full((2, 1, 4, 4), 20, dtype=torch.uint8))
    queries, _ = jacobian_augmentation(Service(), seeds, LinearTrainer(), budget=3, step=0.8)
    assert queries[2, 0, :, 0].tolist() == [0, 0, 224, 224]
