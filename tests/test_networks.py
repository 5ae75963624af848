"""Networks: what goes in and comes out, and how backbones are taken and given."""

import json
from urllib.error import URLError

import pytest
import torch
import torchvision

from extractlib.errors import InputError
from extractlib.models import networks

PAIR = ("resnet", "vgg")
IMAGES = torch.arange(2 * 3 * 32 * 32).remainder(256).to(torch.uint8).view(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet", 78_042),
        ("resnet-wide", 308_650),
        ("tiny", 10_266),
        ("vgg", 76_346),
        ("cnn-5", 57_882),
        ("cnn-9", 143_482),
        ("tiny-plain", 12_410),
        ("cnn-5-wide", 901_194),
        ("cnn-9-wide", 2_266_570),
        ("resnet-34-32", 21_282_122),
        ("vgg-16-32", 15_253_578),
    ],
)
def test_size_and_output_of_each_network(name, parameters):
    model = networks.build(name, classes=10, seed=0).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    logits = model(IMAGES)
    assert (logits.shape, logits.dtype) == ((2, 10), torch.float32)


def test_pixels_are_normalized():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    # (x / 255 - 0.5) / 0.25, by hand.
    assert networks.Network().normalize(pixels).flatten().tolist() == pytest.approx([-2.0, -1.2, 2.0])


def test_the_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = (networks.build("tiny", classes=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    prints = [networks.fingerprint_of(model.state_dict()) for model in (first, second, other)]
    assert prints[0] == prints[1] != prints[2]


def test_no_gpu_is_reseeded(reseeded):
    networks.build("tiny", classes=3, seed=7)
    assert reseeded == []


def test_a_backbone_is_everything_but_the_head():
    donor = networks.build("tiny", classes=3, seed=1)
    state = networks.backbone_state(donor)
    assert set(donor.state_dict()) - set(state) == {"head.weight", "head.bias"}
    model = networks.build("tiny", classes=7, seed=2, backbone=state)
    fresh = networks.build("tiny", classes=7, seed=2)
    assert networks.fingerprint_of(networks.backbone_state(model)) == networks.fingerprint_of(state)
    assert torch.equal(model.head.weight, fresh.head.weight)


def test_a_backbone_is_weights_or_a_word_for_them():
    state = networks.backbone_state(networks.build("tiny", classes=3, seed=1))
    assert networks.backbone_of("tiny", state) is state
    assert networks.backbone_of("tiny", None) is None
    shipped = networks.backbone_of("vgg", "shipped")
    assert networks.fingerprint_of(shipped) == networks.fingerprint_of(networks.shipped_backbone("vgg"))


@pytest.mark.parametrize("name", PAIR)
def test_two_backbones_of_a_network_ship_and_each_has_a_word(name):
    words = {"A": "shipped", "B": "shipped-B"}
    assert tuple(words) == networks.INITIAL
    prints = {networks.fingerprint_of(networks.backbone_of(name, word)) for word in words.values()}
    assert prints == {networks.fingerprint_of(networks.shipped_backbone(name, initial=which)) for which in words}
    assert len(prints) == 2
    for which in words:
        networks.build(name, classes=5, seed=0, backbone=networks.shipped_backbone(name, initial=which))
        path = networks.WEIGHTS / f"{networks.backbone_name(name, which)}.safetensors"
        assert path.stat().st_size < 1_000_000


def test_the_vgg_is_as_large_as_the_resnet_within_a_tenth():
    sizes = [sum(weight.numel() for weight in networks.build(name, classes=10, seed=0).parameters()) for name in PAIR]
    assert abs(sizes[1] / sizes[0] - 1) < 0.1


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


def test_fingerprint_takes_weights_of_any_kind_and_layout():
    """numpy has no bfloat16, and a convolution's weights may lie with their channels last."""
    weights = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    laid = weights.contiguous(memory_format=torch.channels_last)
    assert networks.fingerprint_of({"a": laid}) == networks.fingerprint_of({"a": weights})
    halves = {networks.fingerprint_of({"a": weights.to(kind)}) for kind in (torch.bfloat16, torch.float16)}
    assert len(halves | {networks.fingerprint_of({"a": weights})}) == 3
    counts = [networks.fingerprint_of({"a": torch.tensor(count)}) for count in (3, 4)]
    assert counts[0] != counts[1]


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
        (lambda: networks.build("tiny", classes=1, seed=0), r"there are 1 class\(es\)"),
        (
            lambda: networks.build("tiny", classes=3, seed=0, backbone=networks.shipped_backbone()),
            "the backbone does not fit network 'tiny'",
        ),
        (lambda: networks.shipped_backbone("vgg", initial="D"), "unknown initial weights 'D': use one of A, B"),
        (lambda: networks.shipped_backbone("tiny"), "no backbone ships for network 'tiny'"),
        (
            lambda: networks.backbone_of("resnet", "public"),
            "unknown backbone 'public': use one of shipped, imagenet, shipped-B",
        ),
        (lambda: networks.build("tiny", classes=3, seed=0)(IMAGES[:, :1]), r"\(2, 1, 32, 32\): .* \(n, 3, height"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "layers"),
    [("cnn-5", 5), ("cnn-9", 9), ("vgg", 10), ("cnn-5-wide", 5), ("cnn-9-wide", 9), ("vgg-16-32", 16)],
)
def test_the_names_tell_the_layers(name, layers):
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(module, kinds) for module in networks.build(name, classes=3, seed=0).modules()) == layers


@pytest.mark.parametrize("name", sorted(set(networks.NETWORKS) - {"vgg-16"}))
def test_a_network_is_normalize_features_and_head(name):
    model = networks.build(name, classes=3, seed=0).eval()
    with torch.no_grad():
        features = model.features(model.normalize(IMAGES))
        assert features.ndim == 2
        assert torch.equal(model.head(features), model(IMAGES))
        assert torch.equal(model.classify(model.normalize(IMAGES)), model(IMAGES))


@pytest.mark.parametrize("initial", networks.INITIAL)
@pytest.mark.parametrize("name", PAIR)
def test_all_backbones_ship_with_the_same_recipe(name, initial):
    first, card = card_of("resnet", "A"), card_of(name, initial)
    assert (card["network"], card["initial"]) == (name, initial)
    same = ("recipe", "images", "fingerprint")
    assert {key: card[key] for key in same} == {key: first[key] for key in same}
    seeds = {which: card_of(name, which)["seed"] for which in networks.INITIAL}
    assert len(set(seeds.values())) == 2 and seeds["A"] == first["seed"]


@pytest.mark.parametrize("name", PAIR)
def test_backbones_of_a_network_are_equally_good(name):
    """B10's precondition is 2 points; the networks are within a few points of one another."""
    figures = [card_of(name, initial)["validation_accuracy"] for initial in networks.INITIAL]
    assert max(figures) - min(figures) < 0.02
    assert abs(figures[0] - card_of("resnet", "A")["validation_accuracy"]) < 0.04


def card_of(name: str, initial: str) -> dict:
    return json.loads((networks.WEIGHTS / f"{networks.backbone_name(name, initial)}.json").read_text())


@pytest.mark.parametrize(("name", "parameters"), [("resnet-34", 21_797_672), ("vgg-16", 138_357_544)])
def test_the_papers_networks_are_torchvisions(name, parameters):
    """The numbers of parameters are those that torchvision publishes; no memory is taken for them here."""
    with torch.device("meta"):
        model = networks.NETWORKS[name](classes=1000)
        assert model(torch.empty(2, 3, 224, 224, dtype=torch.uint8)).shape == (2, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert networks.PUBLISHED[name][0].meta["num_params"] == parameters


def test_a_network_of_torchvisions_sees_pixels_as_its_weights_want_them():
    model = networks.build("resnet-34", classes=3, seed=0)
    model.body = torch.nn.Flatten()
    pixel = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1)
    # (x / 255 - mean) / spread, by hand.
    assert model.features(model.normalize(pixel)).flatten().tolist() == pytest.approx(
        [-1.9466, -0.2850, 2.5528], abs=1e-3
    )


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights where torchvision would download them to, of first values and not trained."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = networks.PUBLISHED["resnet-34"][0]
    file = tmp_path / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    state = torchvision.models.resnet34().state_dict()
    torch.save(state, file)
    return state


def test_imagenets_weights_become_a_backbone(published):
    backbone = networks.backbone_of("resnet-34", "imagenet")
    assert set(backbone) == {f"body.{name}" for name in published if not name.startswith("fc.")}
    model = networks.build("resnet-34", classes=5, seed=0, backbone=backbone)
    assert torch.equal(model.body.layer4[2].conv2.weight, published["layer4.2.conv2.weight"])


def test_imagenets_weights_that_cannot_be_had_are_told_in_one_line(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    expected = r"weights of resnet-34 are not available \(.*no network.*\): download https://download.pytorch.org/"
    with pytest.raises(InputError, match=expected):
        networks.imagenet_backbone("resnet-34")
    with pytest.raises(InputError, match="unknown network with ImageNet weights 'cnn-5': use one of resnet-34, vgg-16"):
        networks.imagenet_backbone("cnn-5")
