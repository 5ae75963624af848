"""Classifiers: any module, its answers by hand, its fingerprint, and what is refused."""

import copy
import math
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import extractlib as xl
from extractlib.api.service import PredictionAPI
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, ResultWarning
from extractlib.models import networks
from extractlib.models.classifier import Surrogate, Victim, load_victim
from extractlib.models.networks import FromFloats
from extractlib.models.training import Recipe
from extractlib.store import Store

RECIPE = Recipe(epochs=1, learning_rate=0.05, batch_size=8)
PAIR = ("cat", "dog")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random images, uint8 of a shape."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def linear(weights: torch.Tensor) -> nn.Module:
    """Return a module whose outputs are `weights`, of shape (outputs, values of an image), times the pixels it gets."""
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    layer.weight = nn.Parameter(weights)
    return nn.Sequential(nn.Flatten(), layer)


def seeded(make, seed: int = 0) -> nn.Module:
    """Return what `make` makes from the weights of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


class Returning(nn.Module):
    """Returns what a function makes of its images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# -- what a module sees and what its answers become --------------------------------


def test_logits_of_three_channels_by_hand():
    """One pixel, (51, 102, 204) / 255 = (.2, .4, .8), less the mean and divided by the spread: (-1, 1, 2)."""
    pixel = torch.tensor([51, 102, 204], dtype=torch.uint8).view(1, 3, 1, 1)
    module = linear(torch.tensor([[1.0, 0.0, 0.0], [1.0, 10.0, 100.0]]))
    victim = Victim(module, classes=PAIR, mean=[0.3, 0.3, 0.4], std=[0.1, 0.1, 0.2])
    assert victim.logits(pixel).tolist() == [pytest.approx([-1.0, -1 + 10 + 200])]
    assert victim.predict(pixel).tolist() == [1]
    plain = Victim(module, classes=PAIR)
    assert plain.logits(pixel).tolist() == [pytest.approx([0.2, 0.2 + 4 + 80])]
    one_for_all = Victim(module, classes=PAIR, mean=[0.3], std=torch.tensor([0.1]))
    assert one_for_all.logits(pixel).tolist() == [pytest.approx([-1.0, -1 + 10 + 500])]


def test_logits_of_one_channel_by_hand():
    images = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).view(2, 1, 1, 2)
    victim = Victim(linear(torch.eye(2)), classes=PAIR, mean=[0.5], std=[0.25])
    # (x / 255 - 0.5) / 0.25.
    torch.testing.assert_close(victim.logits(images), torch.tensor([[-2.0, 2.0], [-1.2, -0.4]]))


def test_gray_images_are_three_equal_channels_to_a_module_that_normalizes_three():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)))
    victim = Victim(module, classes=PAIR, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    gray = noise(5, 1, 8, 8)
    torch.testing.assert_close(victim.logits(gray), victim.logits(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [(32, 32), (7, 7), (33, 48), (224, 160)])
def test_images_may_have_any_size_that_the_module_takes(size):
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    victim, images = Victim(module, classes=("a", "b", "c"), mean=[0.5] * 3, std=[0.25] * 3), noise(3, 3, *size)
    with torch.no_grad():
        expected = module((images.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(victim.logits(images), expected)


def test_a_network_of_torchvisions_with_a_thousand_classes():
    module = seeded(lambda: models.resnet18(num_classes=1_000))
    victim = Victim(module, classes=range(1_000), mean=networks.IMAGENET_MEAN, std=networks.IMAGENET_SPREAD)
    images = noise(2, 3, 64, 64)
    mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (networks.IMAGENET_MEAN, networks.IMAGENET_SPREAD))
    with torch.no_grad():
        expected = module.eval()((images.float() / 255 - mean) / spread)
    torch.testing.assert_close(victim.logits(images), expected)
    assert (victim.classes[999], len(victim.classes)) == ("999", 1_000)
    answers = PredictionAPI(victim, answers="full").query(images)
    torch.testing.assert_close(answers.probabilities, expected.softmax(1), rtol=1e-3, atol=1e-6)


def test_probabilities_come_back_from_the_api_as_they_are():
    rows = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    victim = Victim(Returning(lambda x: rows[: len(x)]), classes=("a", "b", "c"), outputs="probabilities")
    images = noise(2, 3, 4, 4)
    torch.testing.assert_close(victim.logits(images)[0], rows[0].log())
    assert victim.logits(images).isfinite().all()
    torch.testing.assert_close(PredictionAPI(victim).query(images).probabilities, rows, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_logit_is_that_of_the_second_class(shape):
    values = torch.tensor([0.0, math.log(3), -2.0])
    victim = Victim(Returning(lambda x: values[: len(x)].view(shape)), classes=PAIR, outputs="logit")
    images = noise(3, 3, 4, 4)
    torch.testing.assert_close(victim.logits(images), torch.stack([torch.zeros(3), values], 1))
    probabilities = PredictionAPI(victim).query(images).probabilities
    assert probabilities[1].tolist() == pytest.approx([0.25, 0.75])
    assert probabilities[2, 1].item() == pytest.approx(1 / (1 + math.exp(2)))


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_probability_is_that_of_the_second_class(shape):
    values = torch.tensor([0.5, 0.75, 0.0, 1.0])
    victim = Victim(Returning(lambda x: values[: len(x)].view(shape)), classes=PAIR, outputs="probability")
    images = noise(4, 3, 4, 4)
    assert victim.logits(images).isfinite().all()
    found = PredictionAPI(victim).query(images).probabilities
    torch.testing.assert_close(found, torch.stack([1 - values, values], 1), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="a single probability is for two classes, but there are 3"):
        Victim(Returning(lambda x: x), classes=("a", "b", "c"), outputs="probability")
    with pytest.raises(InputError, match="not probabilities: use outputs='logits'"):
        Victim(Returning(lambda x: 3 * x[:, 0, 0, 0] + 2), classes=PAIR, outputs="probability").logits(images)


def test_a_sigmoid_declared_as_a_logit_gives_a_warning():
    sigmoid = nn.Sequential(linear(torch.eye(1, 12)), nn.Sigmoid())
    with pytest.warns(UserWarning, match="^pets returns only numbers from 0 to 1.* use outputs='probability'"):
        Victim(sigmoid, classes=PAIR, outputs="logit", name="pets").logits(noise(8, 3, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Victim(sigmoid, classes=PAIR, outputs="logit").logits(noise(7, 3, 2, 2))
        Victim(sigmoid, classes=PAIR, outputs="probability").logits(noise(8, 3, 2, 2))
        Victim(linear(4 * torch.eye(1, 12)), classes=PAIR, outputs="logit").logits(noise(8, 3, 2, 2))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (torch.Tensor.to_sparse, "a tensor of torch.float32 that is sparse"),
        (lambda logits: logits.to(torch.complex64), "a tensor of torch.complex64 that is sparse, complex"),
        (lambda logits: logits.numpy(), "a ndarray"),
        (lambda logits: {"logits": logits}, "a dict"),
    ],
)
def test_a_module_that_returns_no_plain_tensor_is_refused(spoil, words):
    module = Returning(lambda x: spoil(x[:, 0, 0, :2].clone()))
    with pytest.raises(InputError, match=f"the module returned {words}.*: wrap it so that it returns a tensor of num"):
        Victim(module, classes=PAIR).logits(noise(2, 3, 2, 2))


def test_a_module_whose_weights_have_no_shape_yet_is_refused():
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(InputError, match="the module's weights have no shape yet: call it on an image once"):
        Victim(module, classes=PAIR)
    module(torch.zeros(1, 3, 2, 2))
    assert Victim(module, classes=PAIR).logits(noise(2, 3, 2, 2)).shape == (2, 2)


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6),
    st.sampled_from(["logits", "probabilities", "logit"]),
)
def test_whatever_a_module_returns_its_probabilities_are_the_same(row, outputs):
    """The three kinds of output say the same of one row; of more than two classes there is no single logit."""
    logits = torch.tensor([row])
    if outputs == "logit":
        logits = logits[:, :2]
        returned = logits[:, 1] - logits[:, 0]
    else:
        returned = logits if outputs == "logits" else logits.softmax(1)
    classes = [str(number) for number in range(logits.shape[1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logits may sum to 1
        found = Victim(Returning(lambda x: returned), classes=classes, outputs=outputs).logits(noise(1, 3, 2, 2))
    torch.testing.assert_close(found.softmax(1), logits.softmax(1), atol=1e-6, rtol=1e-4)


# -- what is checked on the first images -------------------------------------------


def test_a_softmax_declared_as_logits_gives_one_warning():
    module = nn.Sequential(linear(torch.eye(2, 12)), nn.Softmax(1))
    victim = Victim(module, classes=PAIR, name="pets")
    with pytest.warns(UserWarning, match="^pets returns rows that sum to 1.* use outputs='probabilities'"):
        victim.logits(noise(5, 3, 2, 2))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")  # as in a program: the same warning from the same line once
        for seed in range(3):
            victim.logits(noise(5, 3, 2, 2, seed=seed))
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Victim(module, classes=PAIR, outputs="probabilities").logits(noise(5, 3, 2, 2))
        Victim(linear(torch.eye(2, 12)), classes=PAIR).logits(noise(5, 3, 2, 2))
        assert victim.logits(noise(0, 3, 2, 2)).shape == (0, 2)


CONVOLUTION = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 2))


@pytest.mark.parametrize(
    ("module", "images", "options", "message"),
    [
        (CONVOLUTION, noise(2, 3, 9, 9), {}, r"failed on images of shape \(3, 9, 9\) \(RuntimeError: mat1 and mat2"),
        (CONVOLUTION, noise(2, 1, 8, 8), {}, r"failed on images of shape \(1, 8, 8\) \(RuntimeError: Given groups=1"),
        (CONVOLUTION, noise(2, 4, 8, 8), {"mean": [0.5] * 3}, r"failed on images of shape \(4, 8, 8\)"),
        (
            CONVOLUTION,
            noise(2, 3, 8, 8),
            {"classes": "abc"},
            r"of shape \(2, 2\) for 2 images: expected \(2, 3\) with 3 classes",
        ),
        (CONVOLUTION, noise(2, 3, 8, 8), {"outputs": "logit"}, r"shape \(2, 4\) .* expected \(2, 2\) .*; say what"),
        (CONVOLUTION, noise(2, 3, 8, 8), {"outputs": "probabilities"}, "not probabilities: use outputs='logits'"),
        (
            Returning(lambda x: x[:1, 0, 0, :2]),
            noise(2, 3, 8, 8),
            {},
            r"returned logits of shape \(1, 2\) for 2 images",
        ),
        (Returning(lambda x: x.flatten()[:4]), noise(2, 3, 8, 8), {}, r"of shape \(4,\) .*; say what it returns with"),
        (Returning(lambda x: (x, x)), noise(2, 3, 8, 8), {}, "returned a tuple: wrap it so"),
        (
            Returning(lambda x: {}["logits"]),
            noise(2, 3, 8, 8),
            {},
            r"failed on images .* \(KeyError: 'logits'\): .*, or mend the module",
        ),
        (CONVOLUTION, torch.rand(2, 3, 8, 8), {}, r"are torch.float32 .* uint8 of shape \(n, channels, height"),
        (CONVOLUTION, noise(3, 8, 8), {}, r"of shape \(3, 8, 8\): expected uint8 of shape \(n, channels"),
        (
            CONVOLUTION,
            noise(2, 3, 9, 9),
            {"image_shape": [3, 8, 8]},
            r"expected uint8 of shape \(n, 3, 8, 8\), n at least 0",
        ),
        (networks.build("tiny", classes=2, seed=0), noise(2, 1, 8, 8), {}, "the package's networks take"),
        (
            networks.build("tiny", classes=3, seed=0),
            noise(2, 3, 8, 8),
            {},
            r"returned logits of shape \(2, 3\) for 2 images: expected \(2, 2\) with 2 classes; give .* 3 names$",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(module, images, options, message):
    options = {"classes": PAIR} | options
    options["classes"] = tuple(options["classes"])
    with pytest.raises(InputError, match=message) as caught:
        Victim(module, **options).logits(images)
    assert "\n" not in str(caught.value)


def test_every_size_is_looked_at():
    """The first images fit; others that do not are told as clearly."""
    victim = Victim(CONVOLUTION, classes=PAIR)
    assert victim.logits(noise(2, 3, 8, 8)).shape == (2, 2)
    with pytest.raises(InputError, match=r"failed on images of shape \(3, 9, 9\)"):
        victim.logits(noise(2, 3, 9, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat"]}, r"there are 1 class\(es\): expected at least 2"),
        ({"classes": []}, r"there are 0 class\(es\)"),
        ({"classes": "cats"}, "classes are 'cats': expected a name for each class"),
        ({"classes": 10}, "classes are 10: expected a name for each class"),
        ({"outputs": "softmax"}, "unknown kind of outputs 'softmax': use one of logits, probabilities, logit"),
        ({"classes": "abc", "outputs": "logit"}, "classes are 'abc'"),
        ({"classes": tuple("abc"), "outputs": "logit"}, "a single logit is for two classes, but there are 3"),
        ({"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\] .* one or three numbers"),
        ({"mean": "gray"}, "mean is 'gray' and std None: expected one or three numbers"),
        ({"mean": []}, r"mean is \[\]"),
        ({"mean": ["gray"]}, "one or three numbers"),
        ({"mean": [math.nan]}, "one or three numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "std above 0"),
        ({"std": [-1.0]}, "std above 0"),
        ({"std": [math.inf]}, "one or three numbers"),
        ({"layer": "2.first"}, "unknown layer '2.first': use one of 0, 1, 2"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Victim(CONVOLUTION, **({"classes": PAIR} | options))


@pytest.mark.parametrize("module", [None, "resnet", lambda x: x, models.resnet18])
def test_what_is_no_module_is_refused(module):
    with pytest.raises(InputError, match="the module is a .*: expected a torch.nn.Module"):
        Victim(module, classes=PAIR)


@pytest.mark.parametrize("option", [{"mean": [0.5]}, {"std": [0.5]}, {"outputs": "probabilities"}, {"layer": "head"}])
def test_a_network_of_the_packages_takes_no_such_setting(option):
    with pytest.raises(InputError, match="a ResNet takes uint8 images: leave out mean, std, outputs and layer"):
        Victim(networks.build("tiny", classes=2, seed=0), classes=PAIR, **option)


def test_a_module_is_met_where_its_weights_are_and_in_their_precision():
    there = FromFloats(nn.Linear(2, 2, device="meta"), mean=[0.5], std=[0.25], outputs="logits", layer=None)
    assert there.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8, device="meta")).device.type == "meta"
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    images = torch.tensor([[255, 0], [51, 102]], dtype=torch.uint8).view(2, 1, 1, 2)
    for kind in (torch.float64, torch.bfloat16):
        logits = Victim(linear(weights).to(kind), classes=PAIR, mean=[0.0], std=[0.5]).logits(images)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, torch.tensor([[2.0, 6.0], [2.0, 4.4]]), rtol=2**-7, atol=0)


def test_a_module_without_weights_can_be_a_victim():
    victim = Victim(Returning(lambda x: x[:, 0, 0, :2]), classes=PAIR, mean=[0.0], std=[0.1])
    assert victim.logits(noise(1, 3, 2, 2) * 0 + 51).tolist() == [pytest.approx([2.0, 2.0])]


def test_a_victim_is_in_evaluation_mode():
    module = nn.Sequential(nn.Dropout(), linear(torch.eye(2, 12))).train()
    victim, images = Victim(module, classes=PAIR), noise(4, 3, 2, 2)
    assert torch.equal(victim.logits(images), victim.logits(images))
    assert not victim.model.training


def test_a_module_is_used_as_it_is_and_put_into_evaluation_mode_as_is_said():
    module = nn.Sequential(nn.Dropout(), linear(torch.eye(2, 12))).train()
    victim = Victim(module, classes=PAIR)
    assert victim.model.module is module
    assert [part.training for part in module.modules()] == [False] * 5
    module.train()  # as one who goes on training it does
    victim.logits(noise(4, 3, 2, 2))
    assert [part.training for part in module.modules()] == [True] * 5
    victim.as_module()
    assert not module.training
    assert "evaluation mode" in xl.models.classifier.Classifier.__doc__.split("        classes:")[0]


def test_a_classifier_is_moved_and_returned(monkeypatch):
    """The device "meta" stands for a GPU: it keeps shapes alone."""
    victim = Victim(linear(torch.eye(2, 12)), classes=PAIR, mean=[0.5] * 3, std=[0.25] * 3)
    images = noise(4, 3, 2, 2)
    before, answers = victim.fingerprint, victim.logits(images)
    assert victim.to("cpu") is victim and victim.to(torch.device("cpu")) is victim
    assert victim.fingerprint == before and torch.equal(victim.logits(images), answers)
    with pytest.raises(InputError, match="unknown device 'tpu': use one of cpu, cuda"):
        victim.to("tpu")
    assert [weight.device.type for weight in victim.model.parameters()] == ["cpu"]
    monkeypatch.setattr("extractlib.models.devices.resolve", torch.device)
    assert [weight.device.type for weight in victim.to("meta").model.parameters()] == ["meta"]
    assert isinstance(load_victim("signs").to("cpu"), Victim)


# -- fingerprints ------------------------------------------------------------------

BASE = {"classes": PAIR, "mean": [0.5] * 3, "std": [0.25] * 3, "outputs": "logits"}


def print_of(module=None, **changes) -> str:
    return Victim(module or linear(torch.eye(2, 12)), **(BASE | changes)).fingerprint


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (linear(torch.eye(2, 12) * 2), {}),
        (nn.Sequential(*linear(torch.eye(2, 12)), nn.ReLU()), {}),
        (None, {"classes": ("dog", "cat")}),
        (None, {"classes": ("cat", "dogs")}),
        (None, {"mean": [0.5, 0.5, 0.4]}),
        (None, {"std": [0.25, 0.25, 0.2]}),
        (None, {"outputs": "probabilities"}),
        (None, {"outputs": "logit"}),
        (None, {"layer": "1"}),
    ],
    ids=lambda value: "weights" if isinstance(value, nn.Module) else ", ".join(value or ["as it was"]),
)
def test_whatever_differs_makes_another_fingerprint(module, changes):
    assert print_of(module, **changes) != print_of()


def test_the_same_makes_the_same_fingerprint():
    """However the numbers are written, and whatever the victim is called."""
    same = (
        print_of(),
        print_of(mean=(0.5, 0.5, 0.5)),
        print_of(std=torch.full((3,), 0.25)),
        print_of(name="other"),
        print_of(classes=list(PAIR)),
    )
    assert len(set(same)) == 1
    assert len(same[0]) == 40


def test_a_wrapped_module_keeps_how_it_is_used():
    prints = []
    for mean in (0.5, 0.4):
        module = FromFloats(linear(torch.eye(2, 12)), mean=[mean], std=[0.25], outputs="logits", layer=None)
        prints += [Surrogate(module, classes=PAIR).fingerprint, Victim(module, classes=PAIR).fingerprint]
    assert prints[0] == prints[1] != prints[2] == prints[3]


def test_two_victims_of_other_weights_have_other_answers_behind_one_attack():
    """The transfer set's header names the API, and so the victim's weights."""
    apis = [PredictionAPI(Victim(linear(torch.eye(2, 12) * scale), classes=PAIR)) for scale in (1, 1, 2)]
    assert apis[0].fingerprint == apis[1].fingerprint != apis[2].fingerprint


def test_what_a_victim_shows_of_itself():
    victim = Victim(linear(torch.eye(2, 12)), classes=PAIR, name="pets")
    assert repr(victim) == f"Victim('pets', 2 classes, {victim.fingerprint[:12]})"


# -- features ----------------------------------------------------------------------


def test_features_are_what_goes_into_the_named_layer():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)))
    images = noise(3, 3, 8, 8)
    floats = (images.float() / 255 - 0.5) / 0.25
    for layer, count in (("3", 3), ("2", 2), ("0", 0)):
        victim = Victim(module, classes=PAIR, mean=[0.5], std=[0.25], layer=layer)
        with torch.no_grad():
            found = victim.model.features(victim.model.normalize(images))
            torch.testing.assert_close(found, module[:count](floats).flatten(1))
    assert not any(child._forward_pre_hooks for child in module.modules())


def test_a_layer_is_named_and_used():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.used(x.flatten(1))

    floats = torch.zeros(2, 1, 2, 2)
    with pytest.raises(InputError, match="no feature layer is named: give Victim\\(module, layer='…'\\)"):
        Victim(Spare(), classes=PAIR).model.features(floats)
    with pytest.raises(InputError, match="layer 'spare' is not used by the module"):
        Victim(Spare(), classes=PAIR, layer="spare").model.features(floats)


# -- what tells one victim from another ------------------------------------------


class Elsewhere(nn.Module):
    """Answers from somewhere else, as a scikit-learn model or a service would: it has no weights."""

    def __init__(self, flip: bool = False):
        super().__init__()
        self.flip = flip

    def forward(self, x):
        logits = x.mean((2, 3))[:, :2]
        return logits.flip(1) if self.flip else logits


def test_modules_without_weights_are_different_victims_unless_one_says_otherwise():
    first, second = (Victim(Elsewhere(), classes=PAIR) for _ in range(2))
    assert first.fingerprint == first.fingerprint != second.fingerprint
    named = [Victim(Elsewhere(), classes=PAIR, fingerprint="forest 1").fingerprint for _ in range(2)]
    assert named == ["forest 1"] * 2
    with pytest.raises(InputError, match="fingerprint is '': expected a non-empty name"):
        Victim(Elsewhere(), classes=PAIR, fingerprint="")


def test_an_attack_on_another_module_without_weights_is_not_resumed(tmp_path):
    """Its file holds the other victim's answers."""
    pool, attack = xl.images(noise(20, 3, 8, 8)), xl.attacks.Knockoff(budget=20)
    victims = [Victim(Elsewhere(flip), classes=PAIR, image_shape=(3, 8, 8)) for flip in (False, True)]
    labels = attack.collect(xl.PredictionAPI(victims[0]), pool, tmp_path / "t.db").answers.labels
    with pytest.raises(InputError, match="is the transfer set of another api"):
        attack.collect(xl.PredictionAPI(victims[1]), pool, tmp_path / "t.db")
    assert (attack.collect(xl.PredictionAPI(victims[1]), pool).answers.labels == 1 - labels).all()


def test_plain_attributes_of_a_module_are_part_of_its_fingerprint():
    class Divided(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by, self.inner = by, nn.Linear(3, 2)

        def forward(self, x):
            return self.inner(x.mean((2, 3))) / self.by

    first, second = Divided(1.0), Divided(100.0)
    second.load_state_dict(first.state_dict())
    prints = [Victim(module, classes=PAIR).fingerprint for module in (first, first, second)]
    assert prints[0] == prints[1] != prints[2]


class Holding(nn.Module):
    """Weights that are always the same, and one attribute."""

    def __init__(self, held):
        super().__init__()
        self.held, self.inner = held, nn.Linear(3, 2)
        nn.init.ones_(self.inner.weight)
        nn.init.zeros_(self.inner.bias)

    def forward(self, x):
        return self.inner(x.mean((2, 3)))


class Settings:
    """A configuration as other libraries have them."""

    def __init__(self, order):
        self.order = order


@pytest.mark.parametrize(
    ("held", "other"),
    [
        ([0, 1, 2], [2, 0, 1]),
        ((1, (2, 3)), (1, (2, 4))),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (torch.arange(3), torch.arange(3).flip(0)),
        (np.arange(3.0), np.arange(3.0) + 1),
        (np.float32(1), np.float32(2)),
        (Settings([1]), Settings([2])),
        (torch.relu, torch.tanh),
        (partial(torch.softmax, dim=1), partial(torch.softmax, dim=2)),
        ([nn.Linear(1, 1)], [nn.Linear(1, 1)]),
    ],
    ids=lambda held: type(held).__name__,
)
def test_any_plain_attribute_is_part_of_a_fingerprint(held, other):
    prints = [Victim(Holding(one), classes=PAIR).fingerprint for one in (held, copy.deepcopy(held), other)]
    assert prints[0] == prints[1] != prints[2]


def test_private_attributes_are_part_of_a_fingerprint():
    prints = []
    for scale in (1.0, 1.0, 5.0):
        module = Holding([1])
        module._scale = scale
        prints.append(Victim(module, classes=PAIR).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_a_recurrent_layer_of_ones_own_has_one_fingerprint():
    """Torch's keep their weights a second time, as weak references."""

    class Own(nn.GRU):
        def forward(self, x):
            return super().forward(x.mean(2))[0][:, -1]

    module = Own(8, 2, batch_first=True)
    prints = [Victim(copy.deepcopy(module), classes=PAIR).fingerprint for _ in range(2)]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("held", [lambda x: x, object(), [threading.Lock()]], ids=["lambda", "object", "lock"])
def test_what_cannot_be_digested_makes_a_fingerprint_new_each_time(held):
    first, second = (Victim(Holding(held), classes=PAIR) for _ in range(2))
    assert first.fingerprint == first.fingerprint != second.fingerprint


def test_a_list_that_holds_itself_ends_in_no_error():
    held = []
    held.append(held)
    assert Victim(Holding(held), classes=PAIR).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.inner.weight.data.mul_(-1),
        lambda module: module.inner.bias.data.add_(1),
        lambda module: setattr(module, "held", [2]),
        lambda module: module.held.append(2),
    ],
    ids=["weight", "bias", "attribute", "list"],
)
def test_a_fingerprint_follows_changes_through_data_and_of_attributes(change):
    module = Holding([1])
    victim = Victim(module, classes=PAIR)
    before = victim.fingerprint
    assert victim.fingerprint == before
    change(victim.model.module)
    assert victim.fingerprint != before


@pytest.mark.parametrize("shape", [48, (48, 48), (3, 48, 0), (3.0, 8, 8)])
def test_an_image_shape_has_three_sizes(shape):
    with pytest.raises(InputError, match=r"image_shape is .*: expected \(channels, height, width\)"):
        Victim(CONVOLUTION, classes=PAIR, image_shape=shape)


def test_classes_come_in_an_order():
    for classes in ({0: "cat", 1: "dog"}, {"cat", "dog"}):
        with pytest.raises(InputError, match="expected a name for each class, in order"):
            Victim(CONVOLUTION, classes=classes)
    assert Victim(CONVOLUTION, classes=np.arange(2)).classes == ("0", "1")


# -- kept in a file ----------------------------------------------------------------


def test_probabilities_in_half_precision_sum_to_one():
    """A module may return bfloat16, in which 1 - 0.3 has an error above the tolerance of the check."""
    module = Returning(lambda x: torch.full((len(x),), 0.3, dtype=torch.bfloat16))
    logits = Victim(module, classes=PAIR, outputs="probability").logits(noise(9, 3, 2, 2))
    assert torch.allclose(logits.logsumexp(1), torch.zeros(9), atol=1e-6)


def test_a_saved_victim_takes_images_of_the_same_shape_as_before(tmp_path):
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    Victim(module, classes=PAIR, image_shape=(3, 8, 8)).save(tmp_path / "own.safetensors")
    again = Victim.load(tmp_path / "own.safetensors", network=module)
    assert again.image_shape == (3, 8, 8)
    with pytest.raises(InputError, match=r"expected uint8 of shape \(n, 3, 8, 8\)"):
        again.predict(noise(2, 3, 5, 5))


def test_name_and_given_fingerprint_are_kept_and_numbers_as_classes_are_names(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    Victim(module, classes=range(3), name="pets", fingerprint="v1").save(tmp_path / "own.safetensors")
    again = Victim.load(tmp_path / "own.safetensors", network=module, classes=[0, 1, 2])
    assert (again.name, again.fingerprint, again.classes) == ("pets", "v1", ("0", "1", "2"))
    with pytest.raises(InputError, match="has the classes in another order"):
        Victim.load(tmp_path / "own.safetensors", network=module, classes=[2, 1, 0])


def test_a_saved_victim_is_read_back(tmp_path):
    first = Victim(networks.build("tiny", classes=2, seed=4), classes=PAIR, image_shape=(3, 8, 8), name="pets")
    first.save(tmp_path / "pets.safetensors")
    options = {"image_shape": (3, 8, 8), "name": "pets"}
    again = Victim.load(tmp_path / "pets.safetensors", network="tiny", classes=PAIR, **options)
    assert (again.fingerprint, repr(again), again.image_shape) == (first.fingerprint, repr(first), (3, 8, 8))
    assert isinstance(again, Victim) and not again.model.training
    assert torch.equal(again.logits(noise(4, 3, 8, 8)), first.logits(noise(4, 3, 8, 8)))
    assert isinstance(Surrogate.load(tmp_path / "pets.safetensors", network="tiny", classes=PAIR), Surrogate)


def test_weights_that_share_their_memory_can_be_saved(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, 2))
    module[2].weight = module[1].weight
    Victim(module, classes=PAIR).save(tmp_path / "tied.safetensors")
    assert (tmp_path / "tied.safetensors").stat().st_size > 4 * (2 * 144 + 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "resnet"}, "holds no weights of 'resnet' with 2 classes"),
        ({"network": "alexnet"}, "unknown network 'alexnet'"),
        (
            {"classes": ("a", "b", "c")},
            r"pets has 2 classes, \['cat', 'dog'\], but 3 are given, \('a', 'b', 'c'\): give a name for each of its",
        ),
        ({"classes": ("a",)}, r"there are 1 class\(es\)"),
        ({"path": "missing"}, "missing does not exist: name a file of weights, as save writes it"),
        ({"path": "."}, "is not a regular file: name a file of weights, as save writes it"),
        ({"path": "damaged"}, "damaged holds no weights of 'tiny'"),
        ({"path": "foreign"}, "foreign holds no weights of 'tiny'"),
    ],
    ids=lambda change: str(next(iter(change.items()))) if isinstance(change, dict) else "",
)
def test_files_that_hold_other_weights_are_refused(tmp_path, change, message):
    Victim(networks.build("tiny", classes=2, seed=4), classes=PAIR).save(tmp_path / "pets")
    Victim(linear(torch.eye(2, 12)), classes=PAIR).save(tmp_path / "foreign")
    (tmp_path / "damaged").write_bytes((tmp_path / "pets").read_bytes()[:-100])
    options = {"path": "pets", "network": "tiny", "classes": PAIR} | change
    with pytest.raises(InputError, match=message) as caught:
        Victim.load(tmp_path / options.pop("path"), **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_victim_that_does_not_ship_is_refused():
    with pytest.raises(InputError, match="unknown shipped victim 'gtsrb'"):
        load_victim("gtsrb")


# -- trained -----------------------------------------------------------------------


def task() -> ImageSet:
    return ImageSet("toy/victim", noise(30, 3, 16, 16), torch.arange(30) % 3, ("a", "b", "c"), "toy")


def trained(**changes) -> Victim:
    options = {"network": "tiny", "recipe": RECIPE, "seed": 0, "backbone": None, "progress": False} | changes
    return Victim.train(options.pop("task", task()), **options)


def test_a_trained_victim_is_read_back_as_it_was_trained(tmp_path):
    first, again = trained(store=Store(tmp_path)), trained(store=Store(tmp_path))
    assert len(list((tmp_path / "victim").glob("*/model.safetensors"))) == 1
    assert first.fingerprint == again.fingerprint == trained().fingerprint
    assert torch.equal(first.logits(task().images), again.logits(task().images))
    assert (first.classes, first.image_shape, first.name) == (("a", "b", "c"), (3, 16, 16), "toy/victim")
    assert not first.model.training


def test_training_on_the_processor_reseeds_no_gpu(reseeded):
    trained(seed=5, device="cpu")
    assert reseeded == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": replace(RECIPE, learning_rate=0.04)},
        {"network": "tiny-plain"},
        {"task": replace(task(), images=noise(30, 3, 16, 16, seed=1))},
        {"backbone": networks.backbone_state(networks.build("tiny", classes=3, seed=5))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_makes_another_victim(change):
    assert trained(**change).fingerprint != trained().fingerprint


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (7, r"^the network returned \(1, 7\) for 1 image: expected logits of shape \(1, 3\)$"),
        (2, r"^the network returned \(1, 2\) for 1 image: expected logits of shape \(1, 3\)$"),
    ],
)
def test_a_network_with_another_number_of_outputs_is_refused_before_training(monkeypatch, outputs, message):
    monkeypatch.setattr("extractlib.models.fitted.fit", lambda *_, **__: pytest.fail("it is trained"))
    with pytest.raises(InputError, match=message):
        trained(network=linear(torch.zeros(outputs, 3 * 16 * 16)))


def test_training_images_are_taken_in_any_form():
    labels = task().labels.tolist()
    pairs = list(zip(task().images, labels, strict=True))
    assert trained(task=pairs).fingerprint == trained(task=xl.images(pairs)).fingerprint
    with pytest.raises(InputError, match="^images has no labels: a victim needs them"):
        trained(task=task().images)


def test_training_starts_from_the_backbone():
    still = replace(RECIPE, learning_rate=1e-12, weight_decay=0.0)
    backbone = networks.backbone_state(networks.build("tiny", classes=3, seed=5))
    found = networks.backbone_state(trained(recipe=still, backbone=backbone).model)
    name = "stages.0.first.0.weight"
    assert torch.allclose(found[name], backbone[name], atol=1e-6)


def test_the_shipped_backbone_is_where_a_victim_starts_unless_told_otherwise():
    still = replace(RECIPE, learning_rate=1e-12, weight_decay=0.0)
    found = networks.backbone_state(Victim.train(task(), recipe=still, progress=False).model)
    shipped = networks.shipped_backbone("resnet")
    name = "stages.0.first.0.weight"
    assert torch.allclose(found[name], shipped[name], atol=1e-6)


def test_a_copy_of_a_module_of_ones_own_is_trained(tmp_path):
    """It gets (x / 255 - 0.5) / 0.25, in training as in answering; in a store it cannot be kept."""
    module = linear(torch.zeros(3, 3 * 16 * 16))
    victim = trained(network=module)
    assert module[1].weight.abs().max() == 0
    module = victim.model.module
    assert module[1].weight.abs().max() > 0
    with torch.no_grad():
        expected = module((task().images.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(victim.logits(task().images), expected)
    with pytest.raises(InputError, match="your own module is not kept in a store"):
        trained(network=module, store=Store(tmp_path))


def test_a_trained_victim_learns():
    colors = torch.zeros(60, 3, 16, 16, dtype=torch.uint8)
    for number in range(60):
        colors[number, number % 3] = 200 + number % 50
    recipe = Recipe(epochs=20, learning_rate=0.1, batch_size=20)
    victim = trained(task=ImageSet("colors", colors, torch.arange(60) % 3, ("red", "green", "blue")), recipe=recipe)
    assert victim.predict(colors).tolist() == (torch.arange(60) % 3).tolist()
    assert F.cross_entropy(victim.logits(colors), torch.arange(60) % 3) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": task().unlabeled()}, "toy/victim has no labels: a victim needs them"),
        ({"backbone": "shipped"}, "no backbone ships for network 'tiny': give your own weights, or backbone=None"),
        ({"network": "alexnet"}, "unknown network 'alexnet'"),
        ({"task": ImageSet("gray", noise(4, 1, 8, 8), torch.arange(4) % 2, PAIR)}, "the package's networks take"),
        ({"task": ImageSet("one", noise(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), ("a",))}, r"1 class\(es\)"),
    ],
)
def test_tasks_that_cannot_be_learned_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        trained(**change)


def test_a_module_of_ones_own_is_saved_with_how_it_is_used(tmp_path):
    """Into another instance of it; the classes are those of the file, and no other order of them is taken."""
    path, images = str(tmp_path / "new" / "own.safetensors"), noise(6, 3, 4, 4)
    module = linear(torch.randn(2, 3 * 4 * 4, generator=torch.Generator().manual_seed(0)))
    own = Victim(module, classes=PAIR, mean=0.25, std=[0.5, 1, 2])
    own.save(path)
    empty = linear(torch.zeros(2, 3 * 4 * 4))
    read = Victim.load(path, network=empty)
    assert read.classes == own.classes and torch.equal(read.logits(images), own.logits(images))
    assert not empty[1].weight.any()  # a copy of it got the weights
    renamed = Victim.load(path, network=empty, classes=("one", "two"))
    assert renamed.classes == ("one", "two") and torch.equal(renamed.logits(images), own.logits(images))
    with pytest.raises(InputError, match="has the classes in another order, .*: leave out classes=…"):
        Victim.load(path, network=empty, classes=PAIR[::-1])
    for others in (("cat", "bird"), ("cat", "dog", "bird"), ("bird", "cat")):
        with pytest.raises(InputError, match=r"has the classes \['cat', 'dog'\], which agree only in part with \('"):
            Victim.load(path, network=empty, classes=others)
    with pytest.raises(InputError, match="holds no weights of a Sequential with 2 classes .*size mismatch"):
        Victim.load(path, network=linear(torch.zeros(2, 3 * 8 * 8)))


def test_a_file_without_the_names_of_its_classes_needs_them(tmp_path):
    save_file(networks.state_of(networks.build("tiny", classes=2, seed=4)), tmp_path / "bare")
    assert Victim.load(tmp_path / "bare", network="tiny", classes=PAIR).classes == PAIR
    with pytest.raises(InputError, match="bare names no classes: give classes=…"):
        Victim.load(tmp_path / "bare", network="tiny")


def test_as_a_module_it_takes_floats_up_to_1():
    victim, images = Victim(networks.build("tiny", classes=2, seed=4), classes=PAIR), noise(6, 3, 16, 16)
    floats = (images.float() / 255).requires_grad_()
    logits = victim.as_module()(floats)
    torch.testing.assert_close(logits, victim.logits(images), rtol=1e-4, atol=1e-5)
    logits[:, 0].sum().backward()
    assert floats.grad.abs().max() > 0


def test_a_change_of_the_weights_is_another_fingerprint():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    victim = Victim(module, classes=("a", "b"))
    first = victim.fingerprint
    assert victim.fingerprint == first
    with torch.no_grad():
        module[1].weight += 1
    second = victim.fingerprint
    with torch.no_grad():
        module[1].weight -= 1
        module[1].weight.copy_(module[1].weight)
    module[1].bias.data = module[1].bias.data + 1
    assert len({first, second, victim.fingerprint}) == 3


def test_an_attack_on_changed_weights_is_not_resumed(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    victim = Victim(module, classes=("a", "b"))
    pool = ImageSet("pool", torch.randint(0, 256, (20, 3, 2, 2), dtype=torch.uint8))
    api, attack = PredictionAPI(victim), xl.attacks.Knockoff(budget=10, batch=5)
    attack.collect(api, pool, tmp_path / "kept.db")
    with torch.no_grad():
        module[1].weight += 1
    for changed in (api, PredictionAPI(victim)):
        with pytest.raises(InputError, match="another api"):
            attack.collect(changed, pool, tmp_path / "kept.db")
    assert api.usage("attacker").queries == 10


def test_a_module_for_other_libraries_stays_in_evaluation_mode():
    """Tools that export a module save its mode and restore it afterward, also inside."""
    victim = Victim(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2)), classes=("a", "b"))
    module = victim.as_module()
    before = module.training
    module.train(False)
    module.train(before)
    assert not any(inner.training for inner in module.modules())


def test_labels_of_logits_that_are_not_finite_are_refused():
    class Overflows(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * math.inf

    victim = Victim(Overflows(), classes=("a", "b"), name="mine")
    with pytest.raises(InputError, match="mine returned NaN or infinite logits: use float32"):
        victim.predict(torch.ones(3, 3, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_scores_of_a_victim_in_half_precision_are_float32(kind):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    images = torch.randint(0, 256, (200, 3, 2, 2), dtype=torch.uint8)
    scores = []
    for one in (module, nn.Sequential(nn.Flatten(), nn.Linear(12, 4))):
        if one is not module:
            one.load_state_dict(module.state_dict())
            one.to(kind)
        victim = Victim(one, classes=list("abcd"))
        scores.append(xl.detectors.OdinDetector(victim, temperature=1000.0, epsilon=0.0).score(images))
    assert scores[1].dtype == torch.float32
    assert xl.metrics.auroc(scores[0][:100].to(kind), scores[0][:100].to(kind)) == 0.5
    assert len(scores[1].unique()) > 20  # in half precision, almost all were 0.2502


# -- modules of one's own, as they are written -------------------------------------


class Viewing(nn.Module):
    """A convolution, then `view`, which takes one layout only."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4 * 16, 2)

    def forward(self, x):
        x = self.norm(self.first(x))
        return self.last(x.view(x.size(0), -1))


@pytest.mark.parametrize("moved", [{}, {"shift": 1, "flip": True}], ids=["plain", "augmented"])
def test_a_module_that_uses_view_is_trained_and_answers_in_any_layout(moved):
    labeled = xl.images(noise(12, 3, 4, 4), torch.arange(12) % 2, classes=PAIR)
    recipe = replace(RECIPE, **{"shift": 0} | moved)
    victim = Victim.train(labeled, network=seeded(Viewing), recipe=recipe, backbone=None, progress=False)
    backward = noise(12, 3, 4, 4).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(victim.logits(backward), victim.logits(noise(12, 3, 4, 4)))
    api = PredictionAPI(victim, budget=12)
    attack, pool = xl.attacks.Knockoff(budget=12), noise(12, 3, 4, 4)
    copied = attack(api, pool, surrogate=seeded(Viewing), recipe=recipe, progress=False)
    assert copied.logits(backward).shape == (12, 2)


def test_a_module_that_was_converted_after_it_was_given_still_answers():
    module = linear(torch.eye(2, 12))
    victim = Victim(module, classes=PAIR, mean=0.5)
    before = victim.logits(noise(3, 3, 2, 2))
    module.double()
    torch.testing.assert_close(victim.logits(noise(3, 3, 2, 2)), before)


def test_features_are_what_a_layer_gets_although_it_works_in_place():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2)))
    victim = Victim(module, classes=PAIR, layer="1")
    pixels = noise(2, 3, 8, 8).float() / 255
    with torch.no_grad():
        found, expected = victim.model.features(pixels), module[0](pixels).flatten(1)
    torch.testing.assert_close(found, expected)
    assert expected.min() < 0


def test_what_a_module_keeps_while_it_answers_can_take_part_in_training():
    class Masking(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.mask = nn.Linear(12, 2), None

        def forward(self, x):
            if self.mask is None:
                self.mask = torch.ones(12) * 0.5
            return self.inner(x.flatten(1) * self.mask)

    victim = Victim(Masking(), classes=PAIR)
    victim.predict(noise(2, 3, 2, 2))
    pixels = torch.rand(2, 3, 2, 2, requires_grad=True)
    victim.as_module()(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_one_output_of_no_images_is_no_answer_and_no_error():
    for outputs in ("logit", "probability", "logits"):
        module = nn.Sequential(linear(torch.ones(1 if outputs != "logits" else 2, 12)), nn.Sigmoid())
        assert Victim(module, classes=PAIR, outputs=outputs).logits(noise(0, 3, 2, 2)).shape == (0, 2)


def test_threads_get_the_same_answers_from_a_module_that_is_in_training_mode():
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 64), nn.Dropout(), nn.Linear(64, 2)))
    victim = Victim(module, classes=PAIR)
    expected = victim.logits(noise(40, 3, 2, 2), batch_size=1)
    module.train()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: victim.logits(noise(40, 3, 2, 2), batch_size=1), range(30)))
    assert all(torch.equal(answer, expected) for answer in answers)
    assert all(part.training for part in module.modules())


def test_a_quantized_module_answers_behind_an_api_and_says_why_it_cannot_be_saved(tmp_path):
    module = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves quantization to another package
        quantized = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
    victims = [Victim(quantized, classes=PAIR) for _ in range(2)]
    assert victims[0].fingerprint == victims[0].fingerprint != victims[1].fingerprint
    assert PredictionAPI(victims[0]).query(noise(2, 3, 2, 2)).probabilities.shape == (2, 2)
    with pytest.raises(InputError, match="is no tensor of numbers, as in a quantized module"):
        victims[0].save(tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_models_that_answer_differently_from_equal_weights_have_other_fingerprints():
    halved, whole = (
        Victim(networks.build(name, classes=2, seed=0), classes=PAIR) for name in ("cnn-5-halved", "cnn-5")
    )
    assert networks.fingerprint_of(halved.model.state_dict()) == networks.fingerprint_of(whole.model.state_dict())
    assert halved.fingerprint != whole.fingerprint

    def encoder(**options):
        return seeded(
            lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(4, 2, 8, **options), nn.Flatten())
        )

    def scripted(stride):
        return torch.jit.script(seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 1, stride=stride), nn.Flatten())))

    for make, first, second in ((encoder, {}, {"norm_first": True}), (scripted, {"stride": 1}, {"stride": 2})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            prints = [Victim(make(**options), classes=PAIR).fingerprint for options in (first, first, second)]
        assert prints[0] == prints[1] != prints[2]


def test_a_module_that_keeps_what_it_sees_is_named_at_its_first_answer():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.last = nn.Linear(12, 2), None

        def forward(self, x):
            self.last = x.mean()
            return self.inner(x.flatten(1))

    api = PredictionAPI(Victim(Keeping(), classes=PAIR))
    with pytest.warns(ResultWarning, match="fingerprint changes when it answers.* give Victim"):
        api.query(noise(2, 3, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api.query(noise(2, 3, 2, 2, seed=1))
        named = PredictionAPI(Victim(Keeping(), classes=PAIR, fingerprint="mine"))
        first = named.query(noise(2, 3, 2, 2), request="a").probabilities
    assert torch.equal(named.query(noise(2, 3, 2, 2), request="a").probabilities, first)
    assert named.usage().queries == 2


def test_a_surrogates_architecture_may_be_that_of_a_victim():
    labeled = xl.images(noise(12, 3, 16, 16), torch.arange(12) % 2, classes=PAIR)
    other = Victim(networks.build("tiny", classes=2, seed=3), classes=PAIR)
    made = [
        Victim.train(labeled, network=network, recipe=RECIPE, backbone=None, progress=False)
        for network in (other, other.model)
    ]
    assert made[0].fingerprint == made[1].fingerprint != other.fingerprint


def test_training_without_gradients_is_refused_before_a_query():
    api = PredictionAPI(Victim(linear(torch.eye(2, 48)), classes=PAIR), budget=12)
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=r"^gradients are off, as in torch.no_grad\(\): train outside"),
    ):
        xl.attacks.Knockoff(budget=12)(api, noise(12, 3, 4, 4), surrogate=Viewing(), progress=False)
    assert api.usage().queries == 0


def test_a_module_that_cannot_be_copied_is_refused_before_a_query():
    module = Viewing()
    module.lock = threading.Lock()
    api = PredictionAPI(Victim(linear(torch.eye(2, 48)), classes=PAIR), budget=12)
    with pytest.raises(InputError, match=r"^the module cannot be copied \(TypeError: cannot pickle.*lock"):
        xl.attacks.Knockoff(budget=12)(api, noise(12, 3, 4, 4), surrogate=module, progress=False)
    assert api.usage().queries == 0
