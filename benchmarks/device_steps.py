"""What `benchmarks.device` measures, each step in a process of its own: rates at 224 pixels, then attacks at 32.

The attacks are those of scale `small`, put together from the package's parts: its experiments import scipy, which
together with the packs would be too large to carry.
"""

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks import gpu
from benchmarks.device import Record
from extractbook.reproduction import scales
from extractbook.reproduction.scales import Recipe
from extractlib.api.service import PredictionAPI
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet
from extractlib.data.sources import Loader, Parts
from extractlib.errors import InputError
from extractlib.models import devices, networks
from extractlib.models.classifier import Victim
from extractlib.models.fitted import Trainer
from extractlib.models.training import predict
from extractlib.store import Store

Value = TypeVar("Value")

SEED = 0
POOL = "folder:tinyimagenet64"
SETS = {
    "folder:cifar10": ("cifar10.tar.xz", "cifar10"),
    "gtsrb": ("gtsrb-core.tar.xz", "gtsrb"),
    POOL: ("tinyimagenet64-sample.tar.xz", "tinyimagenet64"),
}
"""The pack of each data set, and the folder that it unpacks to."""

ANSWERS = ("full", "label")
CHANGED = {
    "pool": "15,000 images of Tiny ImageNet, not 100,000: they bound the backbone's images and the budget",
    "folder:cifar10": "JPEG copies of CIFAR-10",
    "gtsrb": "every third frame of GTSRB's training tracks, all copies at 32 px in WebP",
}
"""What the packs differ in from the data sets that scale `small` is made for."""


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        settings: The sizes and recipes of the attacks.
        load: What the rates are measured with: batch sizes in order of worth.
        every: Of each pack, every so many files are used.
    """

    settings: scales.Scale
    load: gpu.Load
    every: int


PAPER, SMALL = scales.scale("paper"), scales.scale("small")
FULL = Scale(SMALL, replace(gpu.Load(), batch_sizes=(PAPER.surrogate.batch_size, 256, 512, 128)), every=1)


def _once(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, batch_size=32)


TINY = Scale(
    replace(
        SMALL,
        name="small, rehearsed",
        network="tiny",
        backbone=_once(SMALL.backbone),
        victim=_once(SMALL.victim),
        surrogate=_once(SMALL.surrogate),
    ),
    gpu.QUICK,
    every=20,
)


@dataclass(frozen=True)
class Bench:
    """What the steps work with.

    Attributes:
        record: Where results go.
        packs: Folder of the packs.
        work: Folder of all that is unpacked, decoded and trained.
        scale: How much is done.
        device: ``"cpu"`` or ``"cuda"``.
    """

    record: Record
    packs: Path
    work: Path
    scale: Scale
    device: str

    @property
    def images(self) -> Store:
        """Unpacked and decoded images; processes wait for each other, so each pack is read once."""
        return Store(self.work / "images")

    @property
    def trained(self) -> Store:
        """What this run has trained; `device.run` empties it first."""
        return Store(self.work / "trained")

    def trainer(self, recipe: Recipe, *, keep: bool, backbone: Mapping[str, torch.Tensor] | None = None) -> Trainer:
        """Return how a model is made, from a backbone or from scratch, to keep in `trained` or not."""
        return Trainer(
            network=self.scale.settings.network,
            recipe=recipe,
            seed=SEED,
            backbone=backbone,
            store=self.trained if keep else None,
            device=self.device,
        )

    def parts(self, name: str) -> Parts:
        """Return a data set of `SETS` in its parts."""
        pack, inner = SETS[name]
        key = {"pack": pack, "bytes": (self.packs / pack).stat().st_size, "every": self.scale.every}
        kept = self.images.get(
            "unpacked", key, lambda folder: unpack(self.packs / pack, folder, every=self.scale.every)
        )
        size = self.scale.settings.image_size
        loader = Loader(image_size=size, store=self.images, folders={name: kept / inner})
        return (loader.pool if name == POOL else loader.task)(name, seed=SEED)


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--results", type=Path, required=True, help="file that the results are added to")
    parser.add_argument("--packs", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is unpacked and trained")
    parser.add_argument("--commit", required=True, help="commit of the code")
    parser.add_argument("--rehearse", action="store_true", help="at a tiny size")
    options = parser.parse_args()
    device = devices.default_device()
    record = Record(options.results, name_of(device), torch.__version__, options.commit)
    STEPS[options.step](Bench(record, options.packs, options.work, TINY if options.rehearse else FULL, device))


def describe(bench: Bench) -> None:
    """Print device and torch as JSON."""
    print(json.dumps({"device": bench.record.device, "torch": bench.record.torch}))


def name_of(device: str) -> str:
    """Return the name of a GPU, or ``"cpu"``.

    Raises:
        InputError: There is no such device.
    """
    place = devices.resolve(device)
    return torch.cuda.get_device_name(place) if place.type == "cuda" else device


def timed(action: Callable[[], Value]) -> tuple[Value, float]:
    """Return what an action returns, and the seconds that it took."""
    start = time.monotonic()
    value = action()
    return value, time.monotonic() - start


# -- rates ---------------------------------------------------------------------


def rates(bench: Bench) -> None:
    """Images a second at 224 pixels, ResNet-34, half precision, channels last, beside what the card could do.

    As in `benchmarks.gpu`. A measurement that fails, for one because its batch does not fit, is recorded as None.
    """
    load, place = bench.scale.load, devices.resolve(bench.device)
    kind = devices.half(place) or torch.float32
    network, size = load.networks[0], load.large
    common = {"precision": str(kind).removeprefix("torch.")}

    def measured(
        what: str, action: Callable[[], float], unit: str = "images/s", *, flops: int | None = None, **settings
    ) -> float | None:
        start = time.monotonic()
        try:
            value = action()
        except Exception as error:  # the next may do
            value, settings = None, settings | {"error": str(error).partition("\n")[0]}
        if value and flops and peak:
            settings["share_of_matrix_rate"] = round(value * flops / (peak * 1e12), 4)
        bench.record.write("rates", what, value, unit, seconds=time.monotonic() - start, **common, **settings)
        return value

    peak = None
    peak = measured(
        "matrix product", lambda: gpu.matrix_rate(place, kind, load.product) / 1e12, "TFLOP/s", size=load.product
    )
    common |= {"network": network, "pixels": size, "images": load.images, "layout": "channels last"}
    images = gpu.random_images(load.images, size)
    forward, whole = (gpu.flops(network, size, training=training) for training in (False, True))

    def training(what: str, recipe: Recipe) -> float | None:
        return measured(
            what,
            lambda: gpu.trained(network, images, recipe, bench.device),
            flops=whole,
            batch_size=recipe.batch_size,
        )

    first, *others = (replace(PAPER.surrogate, batch_size=batch_size) for batch_size in load.batch_sizes)
    trained = {first.batch_size: training("training", first)}
    queried = measured("querying", lambda: gpu.answered(network, images, bench.device), flops=forward)
    for recipe in others:
        trained[recipe.batch_size] = training("training", recipe)
    training("training, cropped and mirrored at random", replace(PAPER.victim, batch_size=first.batch_size))
    for batch_size, rate in trained.items():
        if rate and queried:
            what = f"one attack: {gpu.QUERIES:,} queries, {gpu.EPOCHS} epochs, reckoned from the rates"
            minutes = gpu.attack_minutes(rate, queried)
            bench.record.write("rates", what, minutes, "min", seconds=0, **common, batch_size=batch_size)


# -- attacks ---------------------------------------------------------------------


def attack(bench: Bench, step: str, task: str) -> None:
    """Victim, then a surrogate from full answers and one from labels, with as many queries as the pool has images for.

    Args:
        bench: What the step works with.
        step: Name of the step.
        task: The victim's task, one of `SETS`.
    """
    settings = bench.scale.settings
    parts, pool = bench.parts(task), bench.parts(POOL)
    queries, test = pool["queries"], parts["test"]
    attacker = Knockoff(budget=min(settings.budget, len(queries)), seed=SEED)
    common = {
        "scale": settings.name,
        "network": settings.network,
        "seed": SEED,
        "budget": attacker.budget,
        "scale_budget": settings.budget,
        "victim_images": len(parts["victim"]),
        "backbone_images": len(pool["pretraining"]),
        "test_images": len(test),
        "changed": [CHANGED["pool"], CHANGED[task]],
    }

    def record(what: str, value: float, unit: str, seconds: float, **details) -> None:
        bench.record.write(step, what, value, unit, seconds=seconds, **common, **details)

    def trained(what: str, images: int, recipe: Recipe, seconds: float, **details) -> None:
        record(what, images * recipe.epochs / seconds, "images/s", seconds, epochs=recipe.epochs, **details)

    backbone, seconds = backbone_of(bench, pool["pretraining"])
    if seconds is not None:
        trained("backbone's pre-training", len(pool["pretraining"]), settings.backbone, seconds)
    victim, seconds = timed(lambda: victim_of(bench, parts["victim"], backbone))
    trained("victim's training", len(parts["victim"]), settings.victim, seconds)
    theirs, seconds = timed(lambda: victim.logits(test.images).argmax(1))
    right = same(theirs, test.labels)
    record("victim's accuracy", right, "share", seconds)
    for answers in ANSWERS:
        shown = {"answers": answers}
        api = PredictionAPI(victim, answers=answers, budget=attacker.budget)
        path = bench.work / "trained" / f"{step}-{answers}.transfer"
        transfer, seconds = timed(lambda api=api, path=path: attacker.collect(api, queries, path))
        record("querying", attacker.budget / seconds, "queries/s", seconds, **shown)
        trainer = bench.trainer(settings.surrogate, keep=False, backbone=backbone)
        surrogate, seconds = timed(
            lambda transfer=transfer, trainer=trainer: attacker.train(transfer, queries, trainer)
        )
        trained("surrogate's training", attacker.budget, settings.surrogate, seconds, **shown)
        ours, seconds = timed(lambda surrogate=surrogate: predict(surrogate, test.images).argmax(1))
        accuracy = same(ours, test.labels)
        record("surrogate's accuracy", accuracy, "share", seconds, **shown)
        record("recovery", accuracy / right if right else None, "ratio", 0, **shown)
        record("agreement", same(ours, theirs), "share", 0, **shown)


def backbone_of(bench: Bench, images: ImageSet) -> tuple[Mapping[str, torch.Tensor], float | None]:
    """Return the pre-trained weights, and the seconds of their training if it was done now."""
    before = kept(bench, "backbone")
    trainer = bench.trainer(bench.scale.settings.backbone, keep=True)
    classes = len(images.classes)
    model, seconds = timed(lambda: trainer.fit_or_load("backbone", images, images.labels, classes=classes))
    return networks.backbone_state(model), seconds if kept(bench, "backbone") > before else None


def kept(bench: Bench, kind: str) -> int:
    """Return how many models of a kind this run has trained."""
    return len(list((bench.trained.root / kind).glob("*/key.json")))


def victim_of(bench: Bench, images: ImageSet, backbone: Mapping[str, torch.Tensor]) -> Victim:
    """Return the victim, fine-tuned from the backbone."""
    classes = images.classes
    trainer = bench.trainer(bench.scale.settings.victim, keep=True, backbone=backbone)
    model = trainer.fit_or_load("victim", images, images.labels, classes=len(classes))
    return Victim(model, classes=classes, image_shape=images.image_shape, name=images.name)


def same(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share of equal labels, as `metrics.accuracy` and `metrics.agreement` do."""
    return (first == second).double().mean().item()


# -- images ------------------------------------------------------------------------


def read_packs(bench: Bench) -> None:
    """Unpack and decode all packs, while the GPU is measured."""
    for name in SETS:
        parts, seconds = timed(lambda name=name: bench.parts(name))
        count = sum(map(len, parts.values()))
        bench.record.write("unpack", f"unpacked and decoded, {SETS[name][0]}", count, "images", seconds=seconds)


def unpack(pack: Path, folder: Path, *, every: int = 1) -> None:
    """Unpack every so many files of a pack, those of GTSRB in the layout in which it is published.

    Read from that layout, the frames of one track are never parted.

    Args:
        pack: A tar file of images ``NAME/HALF/CLASS/FILE``.
        folder: Where they go.
        every: Of the files, in their order, the first of each so many is unpacked.
    """
    tests = []
    with tarfile.open(pack) as archive:
        for number, member in enumerate(member for member in archive if member.isfile()):
            if number % every:
                continue
            name, half, label, file = member.name.split("/")
            if name == "gtsrb":
                place = f"GTSRB/Final_Training/Images/{label}" if half == "train" else "GTSRB/Final_Test/Images"
                member = member.replace(name=f"{name}/{place}/{file}", deep=False)
                if half == "test":
                    tests.append(f"{file};{int(label)}\n")
            archive.extract(member, folder, filter="data")
    if tests:
        (folder / "gtsrb" / "GT-final_test.csv").write_text("".join(["Filename;ClassId\n", *tests]))


STEPS: Mapping[str, Callable[[Bench], None]] = {
    "device": describe,
    "unpack": read_packs,
    "rates": rates,
    "cifar10": lambda bench: attack(bench, "cifar10", "folder:cifar10"),
    "gtsrb": lambda bench: attack(bench, "gtsrb", "gtsrb"),
}

if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.device_steps: {error}")
