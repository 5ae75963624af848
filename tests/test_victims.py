"""Victims: trained once for all who ask for the same one, and another as soon as anything differs."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.models import networks
from extractlib.models.training import Recipe
from extractlib.models.victims import train_victim
from extractlib.store import Store

RECIPE = Recipe(epochs=1, learning_rate=0.05, batch_size=8)


def task() -> ImageSet:
    images = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet("toy/victim", images, torch.arange(30) % 3, ("a", "b", "c"), "toy")


def victim(root: Path, **changes):
    options = {"network": "tiny", "recipe": RECIPE, "seed": 0, "store": Store(root)} | changes
    return train_victim(options.pop("task", task()), **options)


def test_a_victim_is_read_back_as_it_was_trained(tmp_path):
    first, again = victim(tmp_path), victim(tmp_path)
    assert len(list((tmp_path / "victim").glob("*/victim.safetensors"))) == 1
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.logits(task().images), again.logits(task().images))
    assert (first.classes, first.image_shape, first.model.training) == (("a", "b", "c"), (3, 16, 16), False)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": replace(RECIPE, learning_rate=0.04)},
        {"network": "resnet"},
        {"task": replace(task(), fingerprint="other")},
        {"backbone": networks.backbone_state(networks.build("tiny", classes=3, seed=5))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_makes_another_victim(tmp_path, change):
    assert victim(tmp_path, **change).fingerprint != victim(tmp_path).fingerprint
    assert len(list((tmp_path / "victim").glob("*/victim.safetensors"))) == 2


def test_training_starts_from_the_backbone(tmp_path):
    still = replace(RECIPE, learning_rate=1e-12, weight_decay=0.0)
    backbone = networks.backbone_state(networks.build("tiny", classes=3, seed=5))
    trained = networks.backbone_state(victim(tmp_path, recipe=still, backbone=backbone).model)
    name = "stages.0.first.0.weight"
    assert torch.allclose(trained[name], backbone[name], atol=1e-6)


def ask(root: Path, prints) -> None:
    prints.put(victim(root).fingerprint)


def test_processes_that_ask_at_once_train_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    prints = spawn.Queue()
    workers = [spawn.Process(target=ask, args=(tmp_path, prints)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert prints.get(timeout=120) == prints.get(timeout=120)
    for worker in workers:
        worker.join()
    folders = [path for path in (tmp_path / "victim").iterdir() if path.is_dir()]
    assert len(folders) == 1


def test_a_task_without_labels_is_refused(tmp_path):
    with pytest.raises(InputError, match="toy/victim has no labels: a victim needs them"):
        victim(tmp_path, task=task().unlabeled())
