"""Fitted models: trained once for all who ask for the same one, and anew as soon as anything differs."""

import json
import multiprocessing
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import fitted, networks
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe
from extractlib.store import Store
from extractlib.versions import versions

RECIPE = Recipe(epochs=1, learning_rate=0.05, batch_size=8)


def noise(seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", images, torch.arange(20) % 3, ("a", "b", "c"))


def ask(root: Path, **changes) -> nn.Module:
    """Return the model of the usual wish, or of one that differs."""
    options = {"network": "tiny", "recipe": RECIPE, "seed": 0, "store": Store(root)} | changes
    images, kind = options.pop("images", noise()), options.pop("kind", "victim")
    about = {name: options.pop(name) for name in ("classes", "key") if name in options}
    targets = options.pop("targets", noise().labels)
    return Trainer(**options).fit_or_load(kind, images, targets, **({"classes": 3} | about))


def print_of(model: nn.Module) -> str:
    return networks.fingerprint_of(model.state_dict())


def kept(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/model.safetensors"))


@pytest.fixture
def trainings(monkeypatch):
    """Count how often something is trained."""
    count, fit = [], fitted.fit
    monkeypatch.setattr(fitted, "fit", lambda *args, **options: (count.append(1), fit(*args, **options))[1])
    return count


def test_the_second_wish_is_read(tmp_path, trainings):
    first, again = ask(tmp_path), ask(tmp_path)
    assert len(trainings) == 1 and len(kept(tmp_path)) == 1
    assert print_of(first) == print_of(again) == print_of(ask(tmp_path, store=None))
    assert not first.training and not again.training
    assert len(trainings) == 2  # without a store nothing is kept


@pytest.mark.parametrize(
    "change",
    [
        {"images": noise(1)},
        {"images": replace(noise(), fingerprint="other")},
        {"targets": noise().labels.roll(1)},
        {"targets": torch.eye(3)[noise().labels]},
        {"targets": torch.full((20, 3), 1 / 3)},
        {"classes": 4},
        {"network": "tiny-plain"},
        {"seed": 1},
        {"salt": "surrogate"},
        {"backbone": networks.backbone_state(networks.build("tiny", classes=3, seed=5))},
        {"backbone": networks.backbone_state(networks.build("tiny", classes=3, seed=6))},
        {"kind": "detector"},
        {"key": {"transfer": "one"}},
        {"key": {"transfer": "two"}},
        {"key": {"versions of the attack": versions("knockoff")}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_is_trained_anew(tmp_path, trainings, change):
    ask(tmp_path)
    ask(tmp_path, **change)
    assert len(trainings) == len(kept(tmp_path)) == 2
    ask(tmp_path, **change)
    assert len(trainings) == 2


OTHER = {
    "epochs": 2,
    "steps": 5,
    "learning_rate": 0.04,
    "batch_size": 9,
    "momentum": 0.5,
    "weight_decay": 0.0,
    "shift": 1,
    "flip": True,
    "schedule": "cosine",
    "step_epochs": 1,
    "nesterov": False,
    "crop": True,
    "optimizer": "adamw",
    "class_weights": True,
}


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_every_setting_of_a_recipe_makes_another(tmp_path, trainings, field):
    ask(tmp_path)
    changes = {field: OTHER[field]} | ({"epochs": 0} if field == "steps" else {})
    ask(tmp_path, recipe=replace(RECIPE, **changes))
    assert len(trainings) == len(kept(tmp_path)) == 2


@pytest.mark.parametrize("behavior", ["network", "train", "augment", "numerics"])
def test_a_bump_of_a_version_makes_another(tmp_path, trainings, monkeypatch, behavior):
    ask(tmp_path)
    now = fitted.versions
    bumped = {behavior: now(*(() if behavior == "numerics" else (behavior,)))[behavior] + 1}
    monkeypatch.setattr(fitted, "versions", lambda *keys: now(*keys) | bumped)
    ask(tmp_path)
    assert len(trainings) == len(kept(tmp_path)) == 2


@pytest.mark.parametrize("pretrained", [True, False])
def test_models_of_one_seed_and_other_salts_start_apart(pretrained):
    backbone = networks.backbone_state(networks.build("tiny", classes=3, seed=5)) if pretrained else None
    options = {"network": "tiny", "recipe": RECIPE, "seed": 2, "backbone": backbone}
    plain = Trainer(**options).build(3)
    assert torch.equal(plain.head.weight, networks.build("tiny", classes=3, seed=2).head.weight)
    one, again, other = (Trainer(**options, salt=salt).build(3) for salt in ("surrogate", "surrogate", "control"))
    assert print_of(one) == print_of(again)
    assert not torch.allclose(one.head.weight, plain.head.weight)
    assert not torch.allclose(one.head.weight, other.head.weight)
    bodies = {networks.fingerprint_of(networks.backbone_state(model)) for model in (plain, one, other)}
    assert len(bodies) == (1 if pretrained else 3)
    with_next_seed = Trainer(**(options | {"seed": 3}), salt="surrogate").build(3)
    assert not torch.allclose(one.head.weight, with_next_seed.head.weight)


def test_the_key_lies_beside_the_model(tmp_path):
    ask(tmp_path, key={"transfer": "one"})
    [file] = kept(tmp_path)
    key = json.loads((file.parent / "key.json").read_text())
    assert (key["images"], key["network"], key["transfer"]) == (noise().fingerprint, "tiny", "one")
    assert key["versions"] == versions("network", "train", "augment")
    assert key["recipe"]["learning_rate"] == 0.05


def answer(root: Path, prints) -> None:
    prints.put(print_of(ask(root)))


def test_processes_that_ask_at_once_train_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    prints = spawn.Queue()
    workers = [spawn.Process(target=answer, args=(tmp_path, prints)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert prints.get(timeout=120) == prints.get(timeout=120)
    for worker in workers:
        worker.join()
    assert len([path for path in (tmp_path / "victim").iterdir() if path.is_dir()]) == 1


def test_a_copy_of_a_module_of_ones_own_is_trained_and_not_kept(tmp_path):
    module = networks.build("tiny", classes=3, seed=0)
    with pytest.raises(InputError, match="your own module is not kept in a store: give store=None"):
        ask(tmp_path, network=module)
    assert list(tmp_path.iterdir()) == []
    before = print_of(module)
    trained = ask(tmp_path, network=module, store=None)
    assert print_of(module) == before != print_of(trained) == print_of(ask(tmp_path))


def test_a_device_that_is_not_there_is_refused_even_if_nothing_is_to_be_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ask(tmp_path)
    for device, message in (("cuda", "there is no GPU that torch can use"), ("tpu", "unknown device 'tpu'")):
        with pytest.raises(InputError, match=message):
            ask(tmp_path, device=device)


def test_nothing_is_left_of_a_training_that_fails(tmp_path):
    with pytest.raises(InputError, match="20 images and 3 targets"):
        ask(tmp_path, targets=torch.arange(3))
    assert kept(tmp_path) == []
    assert [path for path in (tmp_path / "victim").iterdir() if path.suffix != ".lock"] == []
