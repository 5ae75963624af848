"""Backbones: the one that ships is what its recipe makes, the others are trained once."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from extractbook.reproduction.backbones import INITIAL, SEED, backbone_for, make_weights, pretrain, trainer_of
from extractbook.reproduction.scales import scale
from extractlib.data import drawn
from extractlib.data.images import ImageSet
from extractlib.data.sources import Loader
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import Recipe
from extractlib.store import Store, digest
from extractlib.versions import VERSIONS

DRAWN, SMOKE = scale("drawn"), scale("smoke")
CARD = json.loads((networks.WEIGHTS / "resnet.json").read_text())


def loader(store: Store) -> Loader:
    return Loader(sizes=SMOKE.pool_sizes, store=store)


def test_the_card_says_what_the_profile_would_make():
    size = DRAWN.pool_sizes["atlas"]["pretraining"]
    assert Recipe(**CARD["recipe"]) == DRAWN.backbone
    assert (CARD["network"], CARD["pool"], CARD["images"], CARD["seed"]) == (DRAWN.network, "atlas", size, SEED)
    pictures = drawn.draw("atlas", part="pretraining", size=4, seed=SEED)
    assert CARD["classes"] == len(pictures.classes)


def test_the_card_is_of_the_pictures_as_they_are_drawn_now():
    """The fingerprint needs no pixels, so it is worked out as `drawn.draw` does, without drawing 30,000 pictures."""
    name, size = DRAWN.pool, DRAWN.pool_sizes[DRAWN.pool]["pretraining"]
    parts = ("drawn", name, str(VERSIONS["drawn"]), "pretraining", str(size), str(SEED))
    assert CARD["fingerprint"] == digest(*parts)


@pytest.mark.parametrize("initial", networks.INITIAL)
def test_a_profile_with_a_shipped_backbone_trains_none(tmp_path, initial):
    state = backbone_for(DRAWN, None, network="resnet", initial=initial, store=Store(tmp_path), device="cpu")
    assert networks.fingerprint_of(state) == networks.fingerprint_of(networks.shipped_backbone(initial=initial))
    assert list(tmp_path.iterdir()) == []


def test_b_is_another_start():
    assert tuple(INITIAL) == networks.INITIAL
    assert INITIAL == {"A": 2020, "B": 2021}


def test_other_initial_weights_are_trained_where_none_ship(tmp_path):
    store = Store(tmp_path)
    states = [backbone_for(SMOKE, None, network="tiny", initial=which, store=store, device="cpu") for which in "ABB"]
    prints = [networks.fingerprint_of(state) for state in states]
    assert prints[0] != prints[1] == prints[2]
    keys = [json.loads(path.read_text()) for path in (tmp_path / "backbone").glob("*/key.json")]
    images = {key["seed"]: key["images"] for key in keys}
    assert set(images) == {2020, 2021} and images[2020] == images[2021]


@pytest.mark.parametrize(
    ("name", "initial", "known"), [("paper", "B", "A"), ("small", "C", "A, B"), ("drawn", "b", "A")]
)
def test_initial_weights_that_a_scale_lacks_are_refused(tmp_path, name, initial, known):
    with pytest.raises(InputError, match=f"unknown initial weights '{initial}': use one of {known}"):
        backbone_for(scale(name), None, network="resnet", initial=initial, store=Store(tmp_path), device="cpu")


def test_pre_training_needs_labels_and_has_versions_of_its_own(tmp_path):
    images = ImageSet("pool", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, ("a", "b"))
    trainer = trainer_of(SMOKE, "tiny", store=Store(tmp_path), device="cpu", progress=False)
    pretrain(images, trainer)
    [key] = (tmp_path / "backbone").glob("*/key.json")
    assert json.loads(key.read_text())["versions of pre-training"]["backbone"] == VERSIONS["backbone"]
    with pytest.raises(InputError, match="pool has no labels: pre-training needs them"):
        pretrain(images.unlabeled(), trainer)
    with pytest.raises(InputError, match="pool has images of one class only: pre-training needs at least two"):
        pretrain(replace(images, labels=torch.zeros(4, dtype=torch.long), classes=("a",)), trainer)


def test_another_profile_trains_its_backbone_once(tmp_path):
    state, again = (backbone_for(SMOKE, None, network="tiny", store=Store(tmp_path), device="cpu") for _ in range(2))
    assert networks.fingerprint_of(state) == networks.fingerprint_of(again)
    assert len(list((tmp_path / "backbone").glob("*/model.safetensors"))) == 1


def test_weights_that_do_not_ship_stay_in_the_store_and_their_card_is_written(tmp_path):
    store = Store(tmp_path / "store")
    card = make_weights(SMOKE, tmp_path, loader(store), network="tiny", progress=False)
    assert card == json.loads((tmp_path / "tiny.json").read_text())
    assert card["recipe"] == asdict(SMOKE.backbone)
    assert not (tmp_path / "tiny.safetensors").exists()
    [file] = (store.root / "backbone").glob("*/model.safetensors")
    kept = {name: value for name, value in load_file(file).items() if not name.startswith(networks.HEAD)}
    state = backbone_for(SMOKE, None, network="tiny", store=store, device="cpu")
    assert networks.fingerprint_of(state) == networks.fingerprint_of(kept)
    assert len(list((store.root / "backbone").glob("*/model.safetensors"))) == 1


def test_weights_that_ship_are_written_and_only_their_pictures_are_kept(tmp_path):
    shipping = replace(SMOKE, shipped=True)
    make_weights(shipping, tmp_path, loader(Store(tmp_path / "store")), network="tiny", progress=False)
    state = networks.backbone_state(networks.build("tiny", classes=2, seed=0))
    assert set(load_file(tmp_path / "tiny.safetensors")) == set(state)
    assert [folder.name for folder in (tmp_path / "store").iterdir()] == ["drawn"]


def test_a_profile_of_imagenets_weights_pre_trains_nothing(tmp_path):
    with pytest.raises(InputError, match="scale 'paper' pre-trains nothing: torchvision downloads"):
        make_weights(scale("paper"), tmp_path, loader(Store(tmp_path)), network="resnet-34")


@pytest.mark.slow
@pytest.mark.parametrize(("network", "initial"), [("resnet", "A"), ("vgg", "B")])
def test_the_recipe_makes_the_shipped_backbone_again(tmp_path, network, initial):
    """Another processor rounds otherwise, so what the backbones do is compared, and not their weights.

    A linear head on top of either must tell the drawn birds apart equally well.
    """
    name = networks.backbone_name(network, initial)
    shipped = json.loads((networks.WEIGHTS / f"{name}.json").read_text())
    options = {"network": network, "initial": initial, "progress": False}
    card = make_weights(DRAWN, tmp_path, loader(Store(tmp_path / "store")), **options)
    assert card["validation_accuracy"] == pytest.approx(shipped["validation_accuracy"], abs=0.02)
    assert Recipe(**card["recipe"]) == Recipe(**shipped["recipe"])
    free = {"recipe": 0, "validation_accuracy": 0, "versions": 0}
    assert card | free == shipped | free
    made = linear_probe(load_file(tmp_path / f"{name}.safetensors"), network)
    assert made == pytest.approx(linear_probe(networks.shipped_backbone(network, initial=initial), network), abs=0.05)


def linear_probe(state, network: str = "resnet") -> float:
    """Return the accuracy of a ridge regression from the backbone's features to the classes of birds."""
    model = networks.build(network, classes=40, seed=0, backbone=state).eval()
    model.head = torch.nn.Identity()
    features, labels = [], []
    for part, size in (("victim", 2_000), ("validation", 1_000)):
        birds = drawn.draw("birds", part=part, size=size, seed=SEED)
        with torch.inference_mode():
            seen = model(birds.images)
        features.append(torch.cat([seen, torch.ones(len(seen), 1)], 1).double())
        labels.append(birds.labels)
    gram = features[0].T @ features[0] + 0.1 * torch.eye(features[0].shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, features[0].T @ F.one_hot(labels[0], 40).double())
    return (features[1] @ weights).argmax(1).eq(labels[1]).double().mean().item()


def test_the_shipped_backbone_knows_more_than_first_weights():
    fresh = networks.backbone_state(networks.build("resnet", classes=2, seed=0))
    assert linear_probe(networks.shipped_backbone()) > linear_probe(fresh) + 0.1


def test_recipes_are_frozen():
    with pytest.raises(AttributeError):
        DRAWN.backbone.epochs = 1
    assert replace(DRAWN.backbone, epochs=1).epochs == 1
