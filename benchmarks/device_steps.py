"""Measure what `benchmarks.device` asks for at 224 pixels, each step in a separate process: rates, attacks, answers.

The attacks are those of scale `photos-gpu`, put together from the package's parts: the package's experiments import
libraries that would be too large to carry together with the packs.
"""

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file

from benchmarks import gpu
from benchmarks.device import WEIGHTS, Record
from extractbook.reproduction import scales
from extractbook.reproduction.scales import Recipe
from extractlib.api.service import PredictionAPI
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet
from extractlib.data.sets import Parts
from extractlib.data.sources import Loader
from extractlib.errors import InputError
from extractlib.models import devices
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
    "pool": "15,000 images of Tiny ImageNet at 64 px, not 100,000: they bound the budget",
    "folder:cifar10": "JPEG copies of CIFAR-10",
    "gtsrb": "every third frame of GTSRB's training tracks, all copies at 32 px in WebP",
}
"""How the packs differ from the data sets as published."""


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        settings: The sizes and recipes of the attacks.
        load: What the rates are measured with, with batch sizes in order of importance.
        rated: The networks whose rates are measured.
        every: One file in this many is used from each pack.
    """

    settings: scales.Scale
    load: gpu.Load
    rated: tuple[str, ...]
    every: int


PAPER, PHOTOS = scales.scale("paper"), scales.scale("photos-gpu")
LOAD = replace(gpu.Load(), batch_sizes=(128, 512, PAPER.surrogate.batch_size, 256))
FULL = Scale(PHOTOS, LOAD, rated=(PHOTOS.network, PAPER.network), every=1)


def _once(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, steps=0, batch_size=32)


TINY = Scale(
    replace(
        PHOTOS,
        name="photos-gpu, rehearsed",
        image_size=32,
        victim=_once(PHOTOS.victim),
        surrogate=_once(PHOTOS.surrogate),
    ),
    gpu.QUICK,
    rated=("resnet-wide",),
    every=20,
)


@dataclass(frozen=True)
class Bench:
    """What the steps work with.

    Attributes:
        record: Where results go.
        packs: Folder of the packs.
        work: Folder of everything that is unpacked, decoded and trained.
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
        """Models that this run has trained; `device.run` empties it first."""
        return Store(self.work / "trained")

    def trainer(self, recipe: Recipe, *, keep: bool, salt: str = "") -> Trainer:
        """Return how a model is made from the carried ImageNet weights, and whether it is kept in `trained`."""
        weights = {name: value.float() for name, value in load_file(self.packs / WEIGHTS).items()}
        return Trainer(
            network=self.scale.settings.network,
            recipe=recipe,
            seed=SEED,
            salt=salt,
            backbone=weights,
            store=self.trained if keep else None,
            device=self.device,
        )

    def parts(self, name: str) -> Parts:
        """Return a data set of `SETS`, cut into its parts."""
        pack, inner = SETS[name]
        key = {"pack": pack, "every": self.scale.every}  # what an earlier call unpacked is not carried again
        kept = self.images.get(
            "unpacked", key, lambda folder: unpack(self.packs / pack, folder, every=self.scale.every)
        )
        settings = self.scale.settings
        shares = {"task": settings.task_shares, "pool": settings.pool_shares}
        folders = {name: kept / inner}
        loader = Loader(image_size=settings.image_size, store=self.images, folders=folders, shares=shares)
        return (loader.pool if name == POOL else loader.task)(name, seed=SEED)


def main() -> None:
    """Run the step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--results", type=Path, required=True, help="file that the results are added to")
    parser.add_argument("--packs", type=Path, required=True, help="folder of the packs")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is unpacked and trained")
    parser.add_argument("--commit", required=True, help="commit of the code")
    parser.add_argument("--rehearse", action="store_true", help="run at a tiny size")
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
    """Measure images per second in training at 224 pixels, in half precision, channels last, and the card's peak rate.

    As in `benchmarks.gpu`. A measurement that fails, for example because its batch does not fit, is recorded as None.
    """
    load, size = bench.scale.load, bench.scale.load.large
    place, images = devices.resolve(bench.device), gpu.random_images(bench.scale.load.images, size)
    kind = devices.half(place) or torch.float32
    peak = _measured(
        bench, "rates", "matrix product", lambda: gpu.matrix_rate(place, kind, load.product) / 1e12, "TFLOP/s"
    )
    for network in bench.scale.rated:
        whole = gpu.flops(network, size, training=True)
        for batch_size in load.batch_sizes:
            recipe = replace(PAPER.surrogate, batch_size=batch_size)
            rate = partial(gpu.trained, network, images, recipe, bench.device)
            shown = {"network": network, "batch_size": batch_size}
            _measured(bench, "rates", "training", rate, flops=whole, peak=peak, **shown)
        recipe = replace(PAPER.victim, batch_size=load.batch_sizes[0])
        rate = partial(gpu.trained, network, images, recipe, bench.device)
        _measured(bench, "rates", "training, cropped and mirrored at random", rate, network=network)


def querying(bench: Bench) -> None:
    """Measure how many images per second a victim answers at 224 pixels."""
    load = bench.scale.load
    images = gpu.random_images(load.images, load.large)
    for network in bench.scale.rated:
        forward = gpu.flops(network, load.large, training=False)
        rate = partial(gpu.answered, network, images, bench.device)
        _measured(bench, "querying", "querying", rate, flops=forward, network=network)


def _measured(
    bench: Bench,
    step: str,
    what: str,
    action: Callable[[], float],
    unit: str = "images/s",
    *,
    flops: int = 0,
    peak: float | None = None,
    **settings,
) -> float | None:
    start, place = time.monotonic(), devices.resolve(bench.device)
    common = {"precision": str(devices.half(place) or torch.float32).removeprefix("torch.")}
    common |= {"pixels": bench.scale.load.large, "images": bench.scale.load.images, "layout": "channels last"}
    try:
        value = action()
    except Exception as error:  # the next one may succeed
        value, settings = None, settings | {"error": str(error).partition("\n")[0]}
    if value and flops:
        settings["gigaflops"] = round(flops / 1e9, 4)
        settings |= {"share_of_matrix_rate": round(value * flops / (peak * 1e12), 4)} if peak else {}
    bench.record.write(step, what, value, unit, seconds=time.monotonic() - start, **common, **settings)
    return value


# -- attacks ---------------------------------------------------------------------


def attack(bench: Bench, step: str, task: str) -> None:
    """Train a victim, then a surrogate from full answers and one from labels, with as many queries as the pool allows.

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
        "test_images": len(test),
        "changed": [CHANGED["pool"], CHANGED[task]],
    }

    def record(what: str, value: float, unit: str, seconds: float, **details) -> None:
        bench.record.write(step, what, value, unit, seconds=seconds, **common, **details)

    def trained(what: str, images: int, recipe: Recipe, seconds: float, **details) -> None:
        shown = recipe.steps_for(images) * recipe.batch_size
        record(what, shown / seconds, "images/s", seconds, steps=recipe.steps_for(images), **details)

    victim, seconds = timed(lambda: victim_of(bench, parts["victim"]))
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
        trainer = bench.trainer(settings.surrogate, keep=False, salt="surrogate")
        surrogate, seconds = timed(
            lambda transfer=transfer, trainer=trainer: attacker.train(transfer, queries, trainer)
        )
        trained("surrogate's training", attacker.budget, settings.surrogate, seconds, **shown)
        ours, seconds = timed(lambda surrogate=surrogate: predict(surrogate, test.images).argmax(1))
        accuracy = same(ours, test.labels)
        record("surrogate's accuracy", accuracy, "share", seconds, **shown)
        record("recovery", accuracy / right if right else None, "ratio", 0, **shown)
        record("agreement", same(ours, theirs), "share", 0, **shown)


def victim_of(bench: Bench, images: ImageSet) -> Victim:
    """Return the victim, with all its weights fine-tuned."""
    classes = images.classes
    model = bench.trainer(bench.scale.settings.victim, keep=True).fit_or_load(
        "victim", images, images.labels, classes=len(classes)
    )
    return Victim(model, classes=classes, image_shape=images.image_shape, name=images.name)


def same(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the share of equal labels, like `metrics.accuracy` and `metrics.agreement`."""
    return (first == second).double().mean().item()


# -- images ------------------------------------------------------------------------


def read_packs(bench: Bench) -> None:
    """Unpack and decode all packs that were carried, while the GPU is measured."""
    for name in (name for name in SETS if (bench.packs / SETS[name][0]).is_file()):
        parts, seconds = timed(lambda name=name: bench.parts(name))
        count = sum(map(len, parts.values()))
        bench.record.write("unpack", f"unpacked and decoded, {SETS[name][0]}", count, "images", seconds=seconds)


def unpack(pack: Path, folder: Path, *, every: int = 1) -> None:
    """Unpack one file in `every` of a pack, those of GTSRB in the layout in which it is published.

    Read from that layout, the frames of one track are never separated.

    Args:
        pack: A tar file of images ``NAME/HALF/CLASS/FILE``.
        folder: Where the files go.
        every: The first file of each group of this many, in their order, is unpacked.
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
    "querying": querying,
    "cifar10": lambda bench: attack(bench, "cifar10", "folder:cifar10"),
    "gtsrb": lambda bench: attack(bench, "gtsrb", "gtsrb"),
}

if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.device_steps: {error}")
