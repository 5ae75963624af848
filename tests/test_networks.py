"""Networks: what goes in and comes out, and how backbones are taken and given."""

import json

import pytest
import torch

from extractlib import networks
from extractlib.errors import InputError

IMAGES = torch.arange(2 * 3 * 32 * 32).remainder(256).to(torch.uint8).view(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet", 78_042),
        ("resnet-wide", 308_650),
        ("tiny", 10_266),
        ("vgg", 186_938),
        ("cnn-5", 57_882),
        ("cnn-9", 143_482),
        ("tiny-plain", 12_410),
    ],
)
def test_size_and_output_of_each_network(name, parameters):
    model = networks.build(name, classes=10, seed=0).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    logits = model(IMAGES)
    assert (logits.shape, logits.dtype) == ((2, 10), torch.float32)


def test_pixels_are_normalised():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    # (x / 255 - 0.5) / 0.25, by hand.
    assert networks.Normalise()(pixels).flatten().tolist() == pytest.approx([-2.0, -1.2, 2.0])


def test_the_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = (networks.build("tiny", classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    prints = [networks.fingerprint_of(model.state_dict()) for model in (first, second, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_backbone_is_everything_but_the_head():
    donor = networks.build("tiny", classes=3, seed=1)
    state = networks.backbone_state(donor)
    assert set(donor.state_dict()) - set(state) == {"head.weight", "head.bias"}
    model = networks.build("tiny", classes=7, seed=2, backbone=state)
    fresh = networks.build("tiny", classes=7, seed=2)
    assert networks.fingerprint_of(networks.backbone_state(model)) == networks.fingerprint_of(state)
    assert torch.equal(model.head.weight, fresh.head.weight)


def test_backbone_state_is_a_copy():
    model = networks.build("tiny", classes=3, seed=1)
    before = networks.fingerprint_of(state := networks.backbone_state(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert networks.fingerprint_of(state) == before


def test_fingerprint_sees_values_shapes_and_names():
    ones = torch.ones(2, 3)
    prints = [
        networks.fingerprint_of(state)
        for state in ({"a": ones}, {"b": ones}, {"a": ones.view(3, 2)}, {"a": ones * 2}, {"a": ones.clone()})
    ]
    assert len(set(prints)) == 4
    assert prints[0] == prints[4]


def test_the_shipped_backbone_fits_and_is_small():
    model = networks.build("resnet", classes=5, seed=0, backbone=networks.shipped_backbone())
    assert networks.fingerprint_of(networks.backbone_state(model)) == networks.fingerprint_of(
        networks.shipped_backbone()
    )
    assert (networks.WEIGHTS / "resnet.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.build("alexnet", classes=3, seed=0), "unknown network 'alexnet'"),
        (lambda: networks.build("tiny", classes=1, seed=0), r"1 class\(es\) cannot be told apart"),
        (
            lambda: networks.build("tiny", classes=3, seed=0, backbone=networks.shipped_backbone()),
            "the backbone does not fit network 'tiny'",
        ),
        (lambda: networks.shipped_backbone("tiny"), "no backbone ships for network 'tiny'"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("name", "layers"), [("cnn-5", 5), ("cnn-9", 9), ("vgg", 10)])
def test_the_names_tell_the_layers(name, layers):
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(module, kinds) for module in networks.build(name, classes=3, seed=0).modules()) == layers


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_network_is_normalise_features_and_head(name):
    model = networks.build(name, classes=3, seed=0).eval()
    with torch.no_grad():
        features = model.features(model.normalise(IMAGES))
        assert features.ndim == 2
        assert torch.equal(model.head(features), model(IMAGES))


@pytest.mark.parametrize("name", ["resnet", "vgg"])
def test_both_backbones_ship_with_the_same_recipe(name):
    card = json.loads((networks.WEIGHTS / f"{name}.json").read_text())
    other = json.loads((networks.WEIGHTS / "resnet.json").read_text())
    assert card["network"] == name
    assert {key: card[key] for key in ("recipe", "images", "seed", "fingerprint")} == {
        key: other[key] for key in ("recipe", "images", "seed", "fingerprint")
    }
    networks.build(name, classes=5, seed=0, backbone=networks.shipped_backbone(name))
