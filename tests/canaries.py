"""Canaries: tiny runs of each behavior, whose values are committed, so that no number changes without its version.

``python tests/canaries.py`` compares them with ``canaries.json``; ``--record`` writes those whose version was bumped.

Integer stages are compared by digest. Training and detection are compared by numbers: whatever makes floats runs in
float64 here, where processors and numbers of threads differ by far less than the tolerance.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import photographs
import torch
import torch.nn.functional as F
from PIL import Image

from extractbook.reproduction import TABLES, Cell, backbones, run_cell, table_cells
from extractbook.reproduction.freshness import versions_of
from extractbook.reproduction.results import timeless
from extractbook.reproduction.run import name_of
from extractbook.reproduction.scales import SCALES, BanditSettings, Scale
from extractlib import metrics
from extractlib.api.meter import BudgetExceeded, Meter
from extractlib.api.service import Granularity, PredictionAPI
from extractlib.attacks.adaptive import (
    REWARDS,
    AdaptiveKnockoff,
    Bandit,
    Hierarchy,
    OnlineSurrogate,
    Reward,
    coarse_clusters,
)
from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.own_images import train_alone
from extractlib.data import drawn, layouts, sources, transforms
from extractlib.data.decoding import ImageFiles, decode
from extractlib.data.groups import near_duplicate_groups
from extractlib.data.images import ImageSet, mix
from extractlib.data.splits import POOL_SHARES, cut, split
from extractlib.defenses import accounts as stateful
from extractlib.defenses import detectors as detection
from extractlib.defenses import policies as defenses
from extractlib.defenses.ownership import dataset_inference
from extractlib.defenses.watermark import KeyedSample, Mislabel
from extractlib.errors import InputError
from extractlib.evaluation import evaluate
from extractlib.models import devices, networks, training
from extractlib.models.classifier import Victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import Augmentation, Recipe
from extractlib.store import Store
from extractlib.versions import check_keys, versions

FILE = Path(__file__).with_name("canaries.json")
TOLERANCE = 1e-6
"""Relative difference between processors that is allowed to a float."""

PIXELS = 1e-5
"""The same of a sum of pixels, of which a processor without wide instructions rounds one in a million otherwise."""

LOCKED = ("torch", "numpy")

Values = dict


@dataclass(frozen=True)
class Canary:
    """A tiny run.

    Attributes:
        versions: The versions of the behaviors it uses.
        run: Returns JSON-ready values.
        tolerance: Relative difference that is allowed to a float.
    """

    versions: Mapping[str, int]
    run: Callable[[], Values]
    tolerance: float = TOLERANCE


@contextmanager
def float64() -> Iterator[None]:
    """Make new weights and probabilities float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def digest(*parts: torch.Tensor | np.ndarray | bytes | str) -> str:
    """Return a digest of integers, bytes and text."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            assert not part.is_floating_point(), "floats are compared by number"
            part = part.contiguous().numpy()
        data = (
            part.encode()
            if isinstance(part, str)
            else np.ascontiguousarray(part).tobytes()
            if not isinstance(part, bytes)
            else part
        )
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()[:16]


def noise(count: int, *, seed: int = 0, size: int = 32) -> torch.Tensor:
    """Return images of coarse random squares, uint8 of shape (count, 3, size, size)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 3, size // 4, size // 4), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(4, 2).repeat(4, 3))


def image_set(count: int, *, classes: int = 3, seed: int = 0) -> ImageSet:
    """Return labeled images whose classes differ in brightness."""
    labels = torch.arange(count) % classes
    images = (noise(count, seed=seed) // 2 + (labels * (120 // classes)).to(torch.uint8).view(-1, 1, 1, 1)).contiguous()
    return ImageSet("canary", images, labels, tuple("abcdefgh"[:classes]), f"canary-{count}-{classes}-{seed}")


def sums(images: torch.Tensor) -> list[float]:
    """Return of each image a sum of its pixels with fixed random weights."""
    weights = torch.from_numpy(np.random.default_rng(5).uniform(0.5, 1.5, images.shape[1:]))
    return [round(value, 6) for value in (images.double() * weights).sum((1, 2, 3)).tolist()]


def floats(values: torch.Tensor | np.ndarray) -> list:
    """Return numbers as nested lists."""
    return values.double().tolist() if isinstance(values, torch.Tensor) else np.asarray(values, np.float64).tolist()


def net(classes: int = 3, *, seed: int = 0) -> networks.Network:
    """Return a residual network of about 2,600 weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return networks.ResNet((8, 8), classes=classes)


def loss(model: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """Return the cross-entropy of each image."""
    model.eval()
    with torch.no_grad():
        return floats(F.cross_entropy(model(images), targets, reduction="none"))


class Linear:
    """A victim whose logits are exact: sums of pixels in thirds of the image, over 256."""

    classes = ("a", "b", "c")
    fingerprint = "linear"
    image_shape = (3, 32, 32)
    name = "linear"

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return images.long().flatten(1).view(len(images), 3, -1).sum(2).float() / 4096


class Third:
    """A detector that catches every third image by its first pixel."""

    fingerprint = "third"

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, 0] % 3 == 0


# -- the behaviors, one by one ---------------------------------------------------


CLASSES_FEW = ("signs", "objects", "birds", "retina")
"""Drawn sets of which fewer pictures show each thing several times."""


def drawn_pixels() -> Values:
    found: Values = {}
    for name, parts in drawn.PARTS.items():
        for part, shifted in [(parts[-1], False), (parts[0], False), *([(parts[-1], True)] * (name in drawn.TASKS))]:
            images = drawn.draw(name, part=part, size=240 if name in CLASSES_FEW else 800, seed=7, shifted=shifted)
            of_class = [
                torch.tensor(sums(images.images[images.labels == label])).sum().item()
                for label in images.labels.unique()
            ]
            found[images.name] = {"labels": digest(images.labels), "classes": list(images.classes), "sums": of_class}
    return found


def decoded_files() -> Values:
    from layouts import WRITE

    found: Values = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, write in WRITE.items():
            (root / name).mkdir()
            write(root / name)
            found[name] = _decoded(layouts.listing(name, root / name), root, name=name, size=16)
        for number, mode in enumerate(("RGB", "L", "P", "CMYK", "RGBA", "I;16")):
            picture = Image.fromarray(noise(1, seed=number)[0].permute(1, 2, 0).numpy()).resize((40, 31))
            kind = "jpg" if mode == "CMYK" else "png"
            for half in ("train", "test"):
                for copy in range(2):
                    place = root / "folder" / half / f"class {number % 3}" / f"{number}-{copy}.{kind}"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if copy else picture
                    turned.convert("L" if mode == "I;16" else mode).convert(mode).save(place)
        found["folder"] = _decoded(layouts.folder(root / "folder"), root, name="folder", size=32)
    found["alike"] = near_duplicate_groups(torch.cat([noise(6, seed=1), noise(3, seed=1)])).tolist()
    return found


def _decoded(listing: layouts.Listing, root: Path, *, name: str, size: int) -> Values:
    images = decode(listing, name=name, store=Store(root / "store"), size=size)
    groups = [] if images.groups is None else [digest(images.groups)]
    halves = {half: [len(found), digest(found.images[:]), found.fingerprint] for half, found in images.splits.items()}
    labels = {half: digest(found.labels) for half, found in images.splits.items() if found.labels is not None}
    return {
        "halves": halves,
        "labels": labels,
        "groups": groups,
        "classes": list(listing.classes),
        "index": digest(listing.index()),
    }


def transformed() -> Values:
    images = image_set(16, seed=2)
    hows = ("none", "jpeg-75", "jpeg-95", "webp-75", *transforms.FILTERS, "blur")
    found = {how: digest(transforms.apply_to_set(images, how).images) for how in hows}
    found["hardened"] = digest(transforms.harden(image_set(64), seed=3).images)
    return found


def brought_to_one_size() -> Values:
    images = image_set(8, seed=2)
    found: Values = {how: sums(transforms.apply(images.images, how)) for how in ("size-16", "chain-16")}
    found["both"] = sums(transforms.apply(images.images, "size-16+jpeg-75"))
    found["hardened"] = sums(transforms.harden(images, seed=3, smallest=8).images)
    found["weakly shifted"] = sums(transforms.shift_domain(images, seed=9, strength=0.5).images)
    return found


def moved_and_relit() -> Values:
    images = transforms.shift_domain(image_set(32, seed=4), seed=9).images
    return {"size": list(images.shape), "sum": sum(sums(images))}


def splits() -> Values:
    images = ImageSet("all", noise(1, size=4).expand(120, -1, -1, -1), torch.arange(120) % 7, tuple("abcdefg"), "f")
    numbered = replace(images, images=torch.arange(120, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1))
    shares = {"first": 0.5, "second": 0.3, "third": 0.2}
    found: Values = {}

    def kept(name: str, parts: Mapping[str, ImageSet]) -> None:
        found[name] = {
            part: [len(one), digest(one.images[:, 0, 0, 0], *([] if one.labels is None else [one.labels]))]
            for part, one in parts.items()
        }

    groups = torch.arange(120) // 4
    kept("plain", numbered.split(shares, seed=1))
    kept("groups", numbered.split(shares, seed=2, groups=groups))
    kept("shuffled", numbered.split(shares, seed=2, groups=groups, shuffled=("second",)))
    kept("cut", {count: sources.fewer_classes(numbered, count, seed=3) for count in (1, 4)})
    alone = ImageFiles({"train": numbered}, groups)
    both = ImageFiles({"train": numbered, "test": numbered.subset(torch.arange(9))}, groups)
    kept("task", split(alone, cut(alone, "task", seed=5)))
    kept("task with test", split(both, cut(both, "task", seed=5)))
    kept("pool", split(alone, cut(alone, "pool", seed=0)))
    listed = {part: numbered.subset(torch.arange(9 * at, 9 * at + 9)) for at, part in enumerate(POOL_SHARES)}
    several = ImageFiles(listed, None)
    kept("listed pool", split(several, cut(several, "pool", seed=0)))
    kept("mix", {"both": mix(numbered.subset(torch.arange(3)), numbered.subset(torch.arange(7, 9)), name="both")})
    found["noise"] = digest(sources.noise(4, seed=6).images, sources.noise(4, seed=6, image_size=8).images)
    found["sources"] = _sources()
    return found


def shares() -> Values:
    images = ImageSet("all", noise(1, size=4).expand(120, -1, -1, -1), torch.arange(120) % 7, tuple("abcdefg"), "f")
    files = ImageFiles({"train": images, "test": images}, torch.arange(120) // 3)
    settings = SCALES["photos"]
    cuts = {
        role: cut(files, role, seed=2, shares=parts)
        for role, parts in (("task", settings.task_shares), ("pool", settings.pool_shares))
    }
    return {
        role: {part: "whole" if chosen is None else digest(chosen) for part, (_, chosen) in parts.items()}
        for role, parts in cuts.items()
    }


def _sources() -> Values:
    """Return which images each name of a drawn source stands for, by fingerprint and labels."""
    settings = SCALES["smoke"]
    loader = sources.Loader(
        sizes={**settings.task_sizes, **settings.pool_sizes},
        noise_size=settings.budget,
        store=Store(Path(os.environ["EXTRACTLIB_CACHE"])),
    )
    sets = {f"task/{part}": one for part, one in loader.task("signs", seed=2).items()}
    for labeled in (False, True):
        sets |= {f"pool/{part}/{labeled}": one for part, one in loader.pool("atlas", seed=2, labeled=labeled).items()}
        for name in ("atlas", "atlas/20", "signs", "signs/shifted", "noise"):
            sets[f"{name}/{labeled}"] = loader.queries(name, seed=2, labeled=labeled)
    return {
        name: [one.name, len(one), one.fingerprint, "" if one.labels is None else digest(one.labels)]
        for name, one in sets.items()
    }


SMALL_NETWORKS = (
    *("resnet", "resnet-wide", "tiny", "vgg", "tiny-plain", "cnn-5", "cnn-9", "cnn-5-wide", "cnn-9-wide"),
    *("resnet-34-32", "vgg-16-32"),
)


def network_outputs() -> Values:
    images, found = noise(3, seed=8), {}
    with float64(), torch.no_grad():
        for name in SMALL_NETWORKS:
            model = networks.build(name, classes=5, seed=3).eval()
            found[name] = [sum(p.numel() for p in model.parameters()), floats(model(images))]
        backbone = networks.backbone_state(networks.build("tiny", classes=5, seed=3))
        copied = networks.build("tiny", classes=4, seed=4, backbone=backbone).eval()
        found["from a backbone"] = [sorted(backbone), floats(copied(images))]
    return found


def frozen_networks() -> Values:
    photographs.register()
    images, found = noise(2, seed=8), {}
    with float64(), torch.no_grad():
        for name in ("cnn-9-halved", "lite0-6", "lite1-5", photographs.NETWORK):
            model = networks.build(name, classes=5, seed=3).eval()
            kept = model.lowered(images)
            found[name] = [list(kept.shape), floats(model(images)), floats(model(kept))]
    return found


def trained_on_frozen() -> Values:
    photographs.register()
    images, found = image_set(40), {}
    recipe = replace(RECIPE, shift=0, learning_rate=0.01, optimizer="adamw", schedule="cosine")
    with float64():
        backbone = networks.imagenet_backbone(photographs.NETWORK)
        for weighted in (False, True):
            model = networks.build(photographs.NETWORK, classes=3, seed=1, backbone=backbone)
            labels = (images.labels - 1).clamp(min=0)
            training.fit(model, images.images, labels, replace(recipe, class_weights=weighted), seed=3)
            found["weighted" if weighted else "plain"] = loss(model, images.images[:8], labels[:8])
    return found


def backbone_weights() -> Values:
    found: Values = {}
    for name, initial in product(("resnet", "vgg"), networks.INITIAL):
        state = sorted(networks.shipped_backbone(name, initial=initial).items())
        found[networks.backbone_name(name, initial)] = digest(
            *(part for key, value in state for part in (key, value.numpy()))
        )
    images = image_set(24)
    with float64():
        model = backbones.pretrain(images, Trainer(network="tiny", recipe=RECIPE, seed=1))
        found["pretrained"] = loss(model, images.images, images.labels)
    return found


RECIPE = Recipe(epochs=1, learning_rate=0.1, batch_size=8)
RECIPES = {
    "one-cycle": RECIPE,
    "two epochs": replace(RECIPE, epochs=2),
    "cosine, mirrored": replace(RECIPE, schedule="cosine", flip=True, shift=0),
    "step, cropped": replace(RECIPE, schedule="step", step_epochs=1, epochs=2, crop=True, nesterov=False),
    "plain": replace(RECIPE, momentum=0.5, weight_decay=0.0, shift=0, nesterov=False),
    "last batch of one": replace(RECIPE, batch_size=13),
}


def trained() -> Values:
    images = image_set(40)
    soft = F.softmax(torch.from_numpy(np.random.default_rng(1).normal(size=(40, 3))), 1)
    found: Values = {}
    with float64():
        for name, recipe in RECIPES.items():
            for kind, targets in (("hard", images.labels), ("soft", soft)):
                model = training.fit(net(), images.images, targets, recipe, seed=3)
                found[f"{name}, {kind}"] = loss(model, images.images[:8], images.labels[:8])
        dropout = torch.nn.Sequential(net(), torch.nn.Dropout(0.5), torch.nn.Linear(3, 3))
        torch.nn.init.eye_(dropout[2].weight)
        torch.nn.init.zeros_(dropout[2].bias)
        model = training.fit(dropout, images.images, images.labels, RECIPE, seed=3)
        found["dropout"] = loss(model, images.images[:8], images.labels[:8])
        found["predicted"] = floats(training.predict(model.train(), images.images, batch_size=7))
    wide = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    found["bfloat16 where the processor has it"] = devices.half("cpu") is (torch.bfloat16 if wide else None)
    shares = (0.0, 0.1, 0.25, 0.4, 0.99)
    found["rates"] = {
        name: [training.learning_rate(recipe, share) for share in shares] for name, recipe in RECIPES.items()
    }
    return found


def augmented() -> Values:
    images, found = noise(32, seed=3), {}
    for name, changes in {
        "moved": {"shift": 3},
        "mirrored": {"shift": 0, "flip": True},
        "both": {"shift": 1, "flip": True},
        "none": {"shift": 0},
    }.items():
        generator = torch.Generator().manual_seed(5)
        found[name] = digest(training.augment(images, replace(RECIPE, **changes), generator))
    generator = torch.Generator().manual_seed(6)
    found["boxes"] = floats(training.crop_boxes(12, generator, aspect=1.5))
    found["cropped"] = sums(training.augment(images, replace(RECIPE, shift=0, crop=True), generator))
    return found


GRANULARITIES = ("full", "top-1", "top-2", "label", "rounded-0", "rounded-1", "rounded-2", "temperature-4.0")


def answers() -> Values:
    found: Values = {}
    logits = torch.from_numpy(np.random.default_rng(2).integers(-20, 20, (12, 5)) / 8)
    logits[3] = 0.0  # equal classes
    with float64():
        for text in GRANULARITIES:
            shown = Granularity.parse(text)
            probabilities = shown.probabilities(logits)
            probabilities[5] = torch.nan
            given = shown.show(probabilities)
            record = shown.record(5)
            back = shown.unpack(shown.pack(given, record))
            entry = [str(record), digest(given.labels, back.labels), digest(given.denied)]
            if given.classes is not None:
                entry.append(digest(given.classes, back.classes))
            if given.probabilities is not None:
                entry += [floats(given.probabilities), floats(back.probabilities)]
            found[text] = [*entry, floats(given[~given.denied].targets(5))]
    found["charges"] = charges()
    return found


def charges() -> list:
    """Return what a client is charged for requests, repeated ones and refused ones."""
    images, told = noise(10, seed=1), []
    shared = {"answers": "top-2", "batch_size": 3, "meter": Meter()}
    apis = {
        "me": PredictionAPI(Linear(), budget=7, price=0.25, **shared),
        "other": PredictionAPI(Linear(), budget=3, price=0.5, **shared),
    }
    for client, count, request in (("me", 4, "a"), ("me", 4, "a"), ("me", 4, "b"), ("me", 3, "c"), ("other", 2, "a")):
        try:
            told.append(digest(apis[client].query(images[:count], client=client, request=request).labels))
        except BudgetExceeded as refused:
            told.append(str(refused))
        usage = apis[client].usage(client)
        told.append([usage.queries, usage.remaining, usage.cost])
    return told


def knockoff() -> Values:
    pool, found = image_set(64), {}
    for seed in (0, 3):
        found[f"order {seed}"] = digest(Knockoff(budget=50, seed=seed).indices(200))
    with float64(), tempfile.TemporaryDirectory() as folder:
        for granularity in ("full", "top-1", "rounded-1", "label"):
            api = PredictionAPI(Linear(), answers=granularity, detector=Third(), policy=defenses.Deny())
            attack = Knockoff(budget=30, seed=2, batch=8)
            transfer = attack.collect(api, pool, Path(folder) / granularity)
            probabilities = transfer.answers.probabilities
            model = attack.train(transfer, pool, Trainer(network="tiny", recipe=RECIPE, seed=4))
            found[granularity] = [
                digest(transfer.indices, transfer.answers.labels, transfer.first(11).indices),
                [] if probabilities is None else floats(probabilities),
                [api.usage("attacker").queries, transfer.header.strategy],
                loss(model, pool.images[:6], pool.labels[:6]),
            ]
    return found


def adaptive() -> Values:
    pool, found = image_set(90, classes=5), {}
    with float64(), tempfile.TemporaryDirectory() as folder:
        for reward in REWARDS:
            api = PredictionAPI(Linear(), detector=Third(), policy=defenses.Deny())
            attack = AdaptiveKnockoff(budget=70, seed=2, batch=4, window=6, clusters=2, reward=reward)
            trainer = Trainer(network="tiny", recipe=RECIPE, seed=1)
            found[reward] = digest(attack.collect(api, pool, Path(folder) / reward, trainer=trainer).indices)
        learner = OnlineSurrogate(Trainer(network="tiny", recipe=RECIPE, seed=1), classes=3)
        found["features"] = floats(learner.features(pool.images[:2]))
        found["clusters"] = [
            coarse_clusters(learner.features(pool.images), pool.labels, clusters=count, seed=3).tolist()
            for count in (1, 2, 5)
        ]
        targets = F.softmax(Linear().logits(pool.images).double(), 1)
        for reward in REWARDS:
            reward_of = Reward(reward, learner)
            found[f"rewards, {reward}"] = [
                floats(reward_of.of(pool.images[part], targets[part])) for part in (slice(0, 9), slice(9, 20))
            ]
    bandit = Bandit(4)
    for chosen, reward in ((1, 0.5), (2, 0.25), (1, 0.75), (0, 0.1)):
        bandit.update(chosen, reward)
    found["bandit"] = [floats(bandit.preferences), floats(bandit.policy(np.array([True, False, True, True])))]
    policy, generator = Hierarchy(np.array([0, 1, 1, 2]), window=2), np.random.default_rng(4)
    for reward in (0.5, 0.25, 0.75, 0.1):
        policy.update(policy.choose(np.array([True, True, True, False]), generator), reward)
    found["hierarchy"] = [floats(bandit.preferences) for bandit in (policy.coarse, *policy.fine)]
    return found


def control() -> Values:
    images = image_set(40)
    with float64():
        model = train_alone(images, Trainer(network="tiny", recipe=RECIPE, seed=6), budget=25)
        return {"loss": loss(model, images.images[:8], images.labels[:8])}


def ownership() -> Values:
    known, others = image_set(12), image_set(12, seed=1)
    with float64():
        victim, model = (
            Victim(training.fit(net(), one.images, one.labels, RECIPE, seed=seed), classes=one.classes)
            for seed, one in enumerate((known, others))
        )
        sides = {"private": known, "public": others, "directions": 1}
        found: Values = {"p": [dataset_inference(victim, suspect, **sides) for suspect in (victim, model)]}
        found["repeated"] = evaluate(victim, model, others).errors_repeated
    return found


def detectors() -> Values:
    known, benign, others = image_set(40), image_set(20, seed=1), ImageSet("o", noise(20, seed=7), None, (), "o")
    found: Values = {}
    with float64():
        binary = detection.BinaryDetector.train(benign, others, Trainer(network="tiny", recipe=RECIPE, seed=1))
        found["binary"] = [binary.threshold, floats(binary.score(known.images))]
        model = training.fit(net(), known.images, known.labels, replace(RECIPE, epochs=3), seed=1)
        victim = Victim(model, classes=known.classes)
        found["features"] = floats(detection.features_of(victim, benign.images[:4]))
        made = {
            "odin": (partial(detection.OdinDetector, victim), detection.OdinDetector.SETTINGS),
            "mahalanobis": (
                partial(detection.MahalanobisDetector, victim, known),
                detection.MahalanobisDetector.SETTINGS,
            ),
            "layered mahalanobis": (
                partial(detection.LayeredMahalanobisDetector, victim, known, benign=benign, ood=others),
                detection.LayeredMahalanobisDetector.SETTINGS,
            ),
        }
        for name, (make, settings) in made.items():
            lowest, highest = ({key: values[at] for key, values in settings.items()} for at in (0, -1))
            for chosen in (lowest, highest):
                found[f"{name}, {chosen}"] = floats(make(**chosen).score(benign.images))
            found[f"{name}, tuned"] = detection.tune(make, settings, benign=benign, ood=others)[1]
        scores = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.3])
        found["thresholds"] = [metrics.threshold_at(scores, share) for share in (0.2, 0.5, 0.95, 1.0)]
        found["caught"] = digest(binary.detect(benign.images))
    return found


def policies() -> Values:
    images, found = noise(9, seed=4), {}
    probabilities = F.softmax(torch.from_numpy(np.random.default_rng(3).normal(size=(9, 6))), 1)
    detected = torch.arange(9) % 2 == 0
    for name in ("unchanged", "deny", "label", "shuffle"):
        shown = defenses.policy(name, secret=b"canary").answer(probabilities, detected, images)
        found[name] = floats(shown.nan_to_num(-1.0))
    return found


def watermark() -> Values:
    images = noise(60, seed=4)
    probabilities = F.softmax(torch.from_numpy(np.random.default_rng(3).normal(size=(60, 6))), 1)
    marked = KeyedSample(rate=0.2, secret=b"canary").detect(images)
    shown = Mislabel(b"canary").answer(probabilities, marked, images)
    return {"marked": digest(marked), "shown": floats(shown[marked])}


def accounts() -> Values:
    images = noise(240, seed=5)
    labels = torch.arange(240) % 4
    found: Values = {}
    with float64():
        distances = stateful.nearest_earlier_distances(images, labels)
        found["distances"] = floats(distances.nan_to_num(-1.0)[::8])
        found["normality"] = [stateful.normality(distances.numpy()[:count]) for count in (3, 50, 240)]
        found["delta"] = stateful.choose_delta([(images[:120], labels[:120]), (images[120:], labels[120:])])
        for delta in (0.05, 0.999):
            watcher = stateful.StatefulDetector(delta=delta, first=50, every=30)
            found[f"flagged at {delta}"] = watcher.queries_until_flagged(images, labels)
    caught = torch.arange(240) % 5 == 0
    counting = stateful.CountingDetector.fit(caught[:101] & (torch.arange(101) % 50 == 0))
    found["counting"] = [counting.rate, counting.queries_until_flagged(caught), counting.queries_until_flagged(~caught)]
    found["needed"] = [stateful.accounts_needed(1_000, until) for until in (None, 2, 7, 101)]
    found["split"] = [part.tolist() for part in stateful.split_among(7, 3)]
    found["cost"] = stateful.entry_cost(accounts=3, upfront=2.0, queries=10, price=0.5)
    return found


def measures() -> Values:
    labels, guess = torch.arange(30) % 4, (torch.arange(30) * 7 // 3) % 4
    benign = torch.from_numpy(np.random.default_rng(4).integers(0, 40, 50) / 16)
    others = torch.from_numpy(np.random.default_rng(5).integers(10, 60, 40) / 16)
    values = [0.5, 0.75, 0.625, 0.25]
    return {
        "accuracy": metrics.accuracy(guess, labels),
        "agreement": metrics.agreement(guess, labels.flip(0)),
        "recovery": metrics.recovery(0.5, 0.8),
        "share": metrics.share(labels == 1),
        "by class": floats(metrics.per_class_accuracy(guess, labels, 4)),
        "constant": metrics.constant_accuracy(labels),
        "summary": list(metrics.summary(values)),
        "intervals": [list(metrics.t_interval(values, confidence=share)) for share in (0.95, 0.9)],
        "rates": [list(metrics.tpr_tnr(benign, others, at)) for at in (0.5, 1.5)],
        "balanced": metrics.balanced_accuracy(0.9, 0.5),
        "auroc": metrics.auroc(benign, others),
        "roc": [floats(side) for side in metrics.roc_curve(benign, others, points=9)],
    }


# -- every kind of cell ----------------------------------------------------------


def canary_profile() -> Scale:
    """Return a scale of a few dozen images in files, whose pixels are the same on every machine."""
    recipe = Recipe(epochs=2, learning_rate=0.1, batch_size=32)
    return replace(
        SCALES["small-cpu"],
        name="canary",
        tasks=("gtsrb",),
        network="tiny",
        other_network="tiny-plain",
        scratch_networks={"gtsrb": "tiny-plain"},
        **dict.fromkeys(("backbone", "victim", "scratch_victim", "detector"), recipe),
        surrogate=replace(recipe, epochs=0, steps=6),
        augmentation={"gtsrb": Augmentation(shift=1)},
        balanced=("gtsrb",),
        control_images={"gtsrb": 20},
        bandit=BanditSettings(batch=16, window=3, clusters=4),
        flag_times={"gtsrb": {"prada": 6}},
        accused_images=8,
        budget=160,
        budgets=(64, 160),
        other_steps=(4,),
        realistic_budgets=(12, 24),
        adaptive_budgets=(64,),
        granularities=("top-2", "label", "rounded-1", "temperature-4.0"),
        shown_granularities=("temperature-4.0",),
        pool_classes=(6,),
        narrow_budget=24,
        diversity_budget=64,
        overlaps=(0.0, 0.5),
        overlap_images=10,
        stream=10,
        streams=1,
        watermark_rate=0.05,
        image_size=16,
        fewer_seeds=3,
    )


def write_files(root: Path) -> dict[str, Path]:
    """Write a task in GTSRB's layout and a pool in Tiny ImageNet's, and return their folders."""
    random = np.random.default_rng(0)
    looks = random.integers(0, 256, (14, 8, 8, 3))

    def write(place: Path, look: int) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(looks[look] + random.integers(-110, 111, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place, "PNG")

    signs, pool = root / "gtsrb", root / "tinyimagenet"
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(4):
        for number in range(60):
            name = f"{label:05}/{number // 4:05}_{number % 4:05}.ppm"
            write(signs / "GTSRB/Final_Training/Images" / name, label)
        for number in range(30):
            name = f"{label}-{number}.ppm"
            write(signs / "GTSRB/Final_Test/Images" / name, label)
            lines.append(f"{name};8;8;1;1;6;6;{label}")
    (signs / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    for label in range(10):
        name = f"n{label:08}"
        for number in range(60):
            write(pool / "tiny-imagenet-200/train" / name / "images" / f"{name}_{number}.JPEG", 4 + label)
        write(pool / "tiny-imagenet-200/val/images" / f"val_{label}.JPEG", 4 + label)
    (pool / "tiny-imagenet-200/val/val_annotations.txt").write_text(
        "".join(f"val_{label}.JPEG\tn{label:08}\t0\t0\t7\t7\n" for label in range(10))
    )
    return {"gtsrb": signs, "tinyimagenet": pool}


class Cells:
    """Cells of a scale, run on files in a temporary folder.

    Args:
        cells: Which, in their order.
        write: Writes the files, and returns the folder of each set.
        prefix: What the canaries' names begin with.
    """

    def __init__(self, cells: Iterable[Cell], write: Callable[[Path], dict[str, Path]], *, prefix: str):
        self._cells, self._write, self._prefix = dict.fromkeys(cells), write, prefix
        self._folder = tempfile.TemporaryDirectory(prefix="canaries-")
        self._files: dict[str, Path] | None = None

    def canaries(self) -> dict[str, Canary]:
        """Return a canary for each cell, by the cell's name."""
        return {
            f"{self._prefix}: {name_of(cell)}": Canary(versions_of(cell), partial(self._run, cell))
            for cell in self._cells
        }

    def _run(self, cell: Cell) -> Values:
        root = Path(self._folder.name)
        self._files = self._files or self._write(root)
        with float64():
            row = run_cell(cell, store=Store(root / "store"), folders=self._files, device="cpu")
        return json.loads(json.dumps({"result": timeless(row.result), "data": row.provenance["data"]}))


def drawn_cells() -> Cells:
    """Return the cells of every table at the canaries' scale."""
    SCALES["canary"] = canary_profile()
    tables = [table_cells(table, SCALES["canary"], seeds=[1]) for table in TABLES]
    return Cells((cell for table in tables for cell in table), write_files, prefix="cell")


OF_PHOTOGRAPHS = (
    *("reproduction", "control", "detection", "overlap", "accounts", "shortcut", "asked_twice", "weights"),
    *("architecture", "defended"),
)
"""Tables whose first cell of each task has a canary in the miniature of the scale of photographs."""


def cells_of_photographs() -> Cells:
    """Return cells of frozen networks on public weights, with detectors that bring images to one size."""
    scale = photographs.register()
    tables = [table_cells(table, scale, seeds=[1]) for table in OF_PHOTOGRAPHS]
    first = {(number, cell.task): cell for number, table in enumerate(tables) for cell in reversed(table)}
    signs = [cell for (_, task), cell in first.items() if task == "gtsrb"]
    return Cells([*signs, first[0, "eyepacs"]], photographs.write_files, prefix="cell: photographs")


STAGES: dict[str, tuple[tuple[str, ...], Callable[[], Values], float]] = {
    "drawn": (("drawn",), drawn_pixels, PIXELS),
    "decode": (("decode",), decoded_files, TOLERANCE),
    "transform": (("transform",), transformed, TOLERANCE),
    "transform, one size": (("transform",), brought_to_one_size, PIXELS),
    "transform, moved": (("transform",), moved_and_relit, PIXELS),
    "split": (("split", "drawn"), splits, TOLERANCE),
    "split, shares": (("split",), shares, TOLERANCE),
    "network": (("network",), network_outputs, TOLERANCE),
    "network, frozen": (("network",), frozen_networks, TOLERANCE),
    "backbone": (("backbone", "network", "train", "augment"), backbone_weights, TOLERANCE),
    "train": (("train", "network", "augment"), trained, TOLERANCE),
    "train, frozen": (("train", "network", "augment"), trained_on_frozen, TOLERANCE),
    "augment": (("augment",), augmented, PIXELS),
    "api": (("api",), answers, TOLERANCE),
    "knockoff": (("knockoff", "api", "policy", "network", "train", "augment"), knockoff, TOLERANCE),
    "adaptive": (("adaptive", "knockoff", "api", "policy", "network", "train", "augment"), adaptive, TOLERANCE),
    "control": (("control", "network", "train", "augment"), control, TOLERANCE),
    "ownership": (("ownership", "network", "train", "augment", "metrics"), ownership, TOLERANCE),
    "detect": (("detect", "network", "train", "augment", "metrics"), detectors, TOLERANCE),
    "policy": (("policy",), policies, TOLERANCE),
    "watermark": (("watermark", "policy"), watermark, TOLERANCE),
    "accounts": (("accounts",), accounts, TOLERANCE),
    "metrics": (("metrics",), measures, TOLERANCE),
}


def canaries() -> dict[str, Canary]:
    """Return all canaries by name: the behaviors one by one, then every kind of cell."""
    stages = {name: Canary(versions(*keys), run, close) for name, (keys, run, close) in STAGES.items()}
    return stages | drawn_cells().canaries() | cells_of_photographs().canaries()


# -- comparing and recording -------------------------------------------------------


def differences(recorded: object, found: object, tolerance: float, where: str = "") -> Iterator[str]:
    """Yield where two values differ, floats by more than the relative tolerance, and how."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in recorded | found:
            if key not in recorded or key not in found:
                yield f"{where}/{key} is {'new' if key in found else 'gone'}"
            else:
                yield from differences(recorded[key], found[key], tolerance, f"{where}/{key}")
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            yield f"{where} has {len(found)} entries and had {len(recorded)}"
        for number, pair in enumerate(zip(recorded, found, strict=False)):
            yield from differences(*pair, tolerance, f"{where}/{number}")
    elif type(recorded) is float and type(found) is float and not math.isnan(recorded):
        if not math.isclose(recorded, found, rel_tol=tolerance, abs_tol=tolerance * 1e-3):
            yield f"{where} is {found!r} and was {recorded!r}"
    elif recorded != found and not (recorded != recorded and found != found):  # a NaN is itself
        yield f"{where} is {found!r} and was {recorded!r}"


def faults(recorded: Mapping[str, dict], found: Mapping[str, Values], known: Mapping[str, Canary]) -> Iterator[str]:
    """Yield what is wrong with canaries, one line each: a changed value, a bump that is not recorded, a lost canary.

    Args:
        recorded: The committed entries by name, as `read` returns them.
        found: Today's values by name.
        known: Today's canaries by name.
    """
    for name, values in found.items():
        if name not in recorded:
            yield f"{name}: new, record it"
            continue
        entry = recorded[name]
        bumped = [key for key, number in known[name].versions.items() if entry["versions"].get(key) != number]
        if bumped or set(entry["versions"]) != set(known[name].versions):
            yield f"{name}: its versions changed ({', '.join(bumped) or 'a key is gone'}), record it"
            continue
        changed = list(differences(entry["values"], values, known[name].tolerance))
        if changed:
            keys = ", ".join(key for key in entry["versions"] if key != "numerics")
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            yield f"{name}: {changed[0]}{more}; none of its versions ({keys}) is new: bump one or undo the change"
    yield from (f"{name}: recorded, and no canary now: record to take it out" for name in recorded if name not in known)


def read(path: Path = FILE) -> dict[str, dict]:
    """Return the committed entries by name.

    Raises:
        InputError: The file is missing, damaged or edited by hand.
    """
    remedy = "undo with git checkout, or python tests/canaries.py --record after a bump"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["canaries"]
        assert isinstance(entries, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{path} is no file of canaries ({error!r}): {remedy}") from None
    for name, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("seal") != seal(name, entry):
            raise InputError(f"{path}: canary {name!r} was edited by hand or damaged: {remedy}")
        check_keys(entry["versions"], f"{path}: canary {name!r}")
    return entries


def seal(name: str, entry: Mapping) -> str:
    """Return a digest of an entry without its seal."""
    parts = {key: value for key, value in entry.items() if key != "seal"}
    return digest(name, json.dumps(parts, sort_keys=True))


def write(found: Mapping[str, Values], known: Mapping[str, Canary], path: Path = FILE) -> None:
    """Write entries, one canary a line, atomically."""
    lines = []
    for name in known:
        entry = {"versions": dict(known[name].versions), "values": json.loads(json.dumps(found[name]))}
        lines.append(f"{json.dumps(name)}: {json.dumps({**entry, 'seal': seal(name, entry)})}")
    partial_file = path.with_name(f".{path.name}.partial")
    partial_file.write_text('{"canaries": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
    partial_file.replace(path)


def locked() -> dict[str, tuple[str, str]]:
    """Return the libraries whose version is not the lock's, each with the version here and there."""
    from importlib.metadata import version

    from extractbook.build.execute import pinned

    pins = pinned((FILE.parents[1] / "requirements.txt").read_text())
    here = {name: version(name).partition("+")[0] for name in LOCKED}
    return {name: (here[name], pins[name]) for name in LOCKED if here[name] != pins[name]}


def main() -> int:
    """Compare all canaries with the committed ones, or record those whose version was bumped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the values of bumped and new canaries")
    parser.add_argument("--anew", action="append", default=[], help="with --record: a canary that asks otherwise now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EXTRACTLIB_CACHE"] = cache
        known = canaries()
        found = {name: json.loads(json.dumps(canary.run())) for name, canary in known.items()}
    recorded = read() if FILE.exists() else {}
    recorded = {name: entry for name, entry in recorded.items() if not (options.record and name in options.anew)}
    told = list(faults(recorded, found, known))
    for line in told:
        print(line)
    if not options.record:
        return 1 if told else 0
    forbidden = [line for line in told if "bump one or undo" in line]
    if forbidden:
        print("not recorded: these changed without a new version")
        return 1
    kept = {name: recorded[name]["values"] for name in recorded if name in known and not _mentioned(name, told)}
    write(found | kept, known)
    print(f"{FILE}: {len(known)} canaries")
    return 0


def _mentioned(name: str, told: list[str]) -> bool:
    return any(line.startswith(f"{name}: ") for line in told)


if __name__ == "__main__":
    sys.exit(main())
