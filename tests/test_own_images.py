"""The independent control: the adversary's own images with their true labels, and no API."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from linear_victim import SIDE, noise

import extractlib as xl
from extractlib.attacks import own_images
from extractlib.attacks.own_images import train_alone
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, predict
from extractlib.store import Store

LABELS = torch.arange(60) * 7 % 4
OWN = ImageSet("own", noise(60), LABELS, tuple("abcd"), "own images")
RECIPE = Recipe(epochs=2, learning_rate=0.05, batch_size=10, shift=0)
BACKBONE = networks.backbone_state(networks.build("tiny", classes=9, seed=5))


def trainer(**changes) -> Trainer:
    return Trainer(**{"network": "tiny", "recipe": RECIPE, "seed": 0, "backbone": BACKBONE} | changes)


@pytest.fixture
def fits(monkeypatch) -> list[dict]:
    """What `fit` is called with, the weights as they are before it; nothing is trained."""
    calls = []

    def fit(model, images, targets, recipe, **options):
        calls.append({"images": images, "targets": targets, "recipe": recipe, "state": deepcopy(model.state_dict())})
        calls[-1] |= options
        return model

    monkeypatch.setattr("extractlib.models.fitted.fit", fit)
    return calls


def chosen(call: dict) -> list[int]:
    """Return which of the adversary's images were trained on; they all differ."""
    return [int((OWN.images == image).flatten(1).all(1).nonzero()) for image in call["images"]]


@pytest.mark.parametrize("budget", [2, 25, 60])
def test_it_learns_pairs_of_the_set_and_no_image_twice(fits, budget):
    train_alone(OWN, trainer(), budget=budget)
    (call,) = fits
    numbers = chosen(call)
    assert len(set(numbers)) == len(numbers) == budget
    assert call["targets"].tolist() == LABELS[numbers].tolist()
    assert call["recipe"] == RECIPE


def test_the_images_may_be_pairs_with_their_labels(fits):
    train_alone(list(zip(OWN.images, LABELS.tolist(), strict=True)), trainer(), budget=25)
    train_alone(OWN, trainer(), budget=25)
    assert chosen(fits[0]) == chosen(fits[1])
    with pytest.raises(InputError, match="^images has no labels: the control needs them"):
        train_alone(OWN.images, trainer(), budget=25)


def test_the_images_are_drawn_at_random_by_the_seed(fits):
    for seed in (0, 0, 1):
        train_alone(OWN, trainer(seed=seed), budget=25)
    first, again, other = map(chosen, fits)
    assert first == again and set(first) != set(other)
    assert set(first) != set(range(25))
    assert [call["seed"] for call in fits] == [0, 0, 1]


def test_every_image_may_be_drawn(fits):
    for seed in range(40):
        train_alone(OWN, trainer(seed=seed), budget=15)
    counts = torch.bincount(torch.tensor([number for call in fits for number in chosen(call)]), minlength=60)
    # Each of 60 images is drawn 10 times of 40 in the mean, with a standard deviation of 2.7.
    assert 0 < int(counts.min()) and int(counts.max()) < 22


def test_it_starts_from_the_backbone(fits):
    for backbone in (BACKBONE, None):
        train_alone(OWN, trainer(backbone=backbone), budget=25)
    from_backbone, from_scratch = (call["state"] for call in fits)
    assert all(torch.equal(from_backbone[name], value) for name, value in BACKBONE.items())
    assert not torch.equal(from_scratch["stem.0.weight"], BACKBONE["stem.0.weight"])
    assert from_backbone["head.weight"].shape[0] == 4  # of its own classes


def test_it_is_that_training_and_learns():
    images = torch.zeros(60, 3, SIDE, SIDE, dtype=torch.uint8)
    images[LABELS == 3] = 255
    images[LABELS == 1, 0] = 255
    images[LABELS == 2, 2] = 255
    own = ImageSet("own", images, LABELS, tuple("abcd"))
    model = train_alone(own, trainer(recipe=Recipe(epochs=20, learning_rate=0.05, batch_size=10, shift=0)), budget=40)
    assert not model.training
    assert float((predict(model, images).argmax(1) == LABELS).float().mean()) > 0.95


def test_it_is_evaluated_as_a_surrogate():
    own = replace(OWN, fingerprint="")
    module = train_alone(own, trainer(), budget=25)
    remedy = r"the surrogate is a ResNet without 'logits': wrap a module in Surrogate\(module, classes=…\)"
    with pytest.raises(InputError, match=remedy):
        xl.evaluate(LABELS, module, own)
    found = xl.evaluate(LABELS, xl.Surrogate(module, classes=own.classes), own)
    assert (found.victim_accuracy, found.n) == (1, 60)
    assert found.agreement == float((predict(module, own.images).argmax(1) == LABELS).double().mean())


def test_it_is_kept_in_the_store(tmp_path, fits):
    for seed, budget in ((0, 25), (0, 25), (1, 25), (0, 26)):
        train_alone(OWN, trainer(store=Store(tmp_path), seed=seed), budget=budget)
    assert len(fits) == 3
    assert len(list((tmp_path / "control").glob("*/model.safetensors"))) == 3


def test_it_is_trained_anew_where_its_version_is_another(tmp_path, fits, monkeypatch):
    for number in (1, 1, 2):
        monkeypatch.setattr(own_images, "versions", lambda name, number=number: {name: number})
        train_alone(OWN, trainer(store=Store(tmp_path)), budget=25)
    assert len(fits) == 2


@pytest.mark.parametrize("budget", [0, -1, True, 2.0])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(InputError, match=f"^budget is {budget}: expected a whole number of at least 1$"):
        train_alone(OWN, trainer(), budget=budget)


def test_what_is_too_few_or_unlabeled_is_refused(fits):
    with pytest.raises(InputError, match="^budget is 61, but own holds 60 images: use at most that many$"):
        train_alone(OWN, trainer(), budget=61)
    with pytest.raises(InputError, match="^own has no labels: the control needs them$"):
        train_alone(OWN.unlabeled(), trainer(), budget=25)
    assert fits == []
