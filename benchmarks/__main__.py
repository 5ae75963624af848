"""Print speeds as ratios, each taken in one run, on one thread, with its goal and whether it was met.

Ours and the reference are timed in turn, several times, and the ratio is the median over the pairs: a busy machine
slows both alike.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from extractlib.api.service import PredictionAPI
from extractlib.attacks.adaptive import AdaptiveKnockoff, OnlineSurrogate
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet, Rows
from extractlib.models import networks
from extractlib.models.classifier import Victim
from extractlib.models.devices import half
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit

CLASSES = 43
CLASS_NAMES = tuple(f"class {number}" for number in range(CLASSES))
SHAPE = (3, 32, 32)
QUERIES = 256
"""Images sent at a time."""

RECIPE = Recipe(epochs=1, learning_rate=0.05, batch_size=128, shift=0)
POOL_SIZE = 1_280_000
BUDGET = 50_000


@dataclass(frozen=True)
class Outcome:
    """What was measured, the figure in words, the goal in words, and whether it was met (None if there is no goal)."""

    what: str
    figure: str
    goal: str = "none"
    met: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "met", False: "NOT MET", None: ""}[self.met]
        return f"{self.what:<66} {self.figure:>12}   goal {self.goal:<12} {verdict}".rstrip()


def main() -> None:
    """Measure everything and print a line for each."""
    torch.set_num_threads(1)
    print(f"One thread, torch {torch.__version__}, bfloat16 {'on' if half('cpu') else 'off'}", flush=True)
    for measure in (
        querying,
        querying_folded,
        training,
        training_from_files,
        bookkeeping,
        adapting,
        adapting_and_learning,
        beside_art,
    ):
        print(measure(), flush=True)


def querying() -> Outcome:
    """Compare PredictionAPI with a plain loop over the model, in the same batches, up to the probabilities."""
    model = new_model()
    images = random_images(2 * QUERIES)
    api = PredictionAPI(victim(model))

    def plain() -> None:
        with torch.inference_mode():
            for batch in images.split(QUERIES):
                model(batch).softmax(1)

    def ours() -> None:
        for batch in images.split(QUERIES):
            api.query(batch)

    ratio = speed_ratio(ours, plain, pairs=301)
    return Outcome(
        "Querying through PredictionAPI, speed / plain model(x) loop", f"{ratio:.3f}", ">= 0.97", ratio >= 0.97
    )


def querying_folded() -> Outcome:
    """Time PredictionAPI with batch normalization as it is and folded into the weights, in images per second."""
    images = random_images(2 * QUERIES)

    def answering(model: nn.Module) -> Callable[[], None]:
        api = PredictionAPI(victim(model))

        def answer() -> None:
            for batch in images.split(QUERIES):
                api.query(batch)

        return answer

    as_is, folded = answering(new_model()), answering(fold(new_model()))
    ratio = speed_ratio(folded, as_is, pairs=101)
    speeds = (f"{len(images) / statistics.median(seconds(each) for _ in range(51)):,.0f}" for each in (as_is, folded))
    return Outcome(f"Batch-norm folded, answers per second / not ({' and '.join(speeds)})", f"{ratio:.3f}")


def training() -> Outcome:
    """Compare `training.fit` with a hand-written loop, on the same soft labels, with the same optimizer and batches."""
    images, targets = random_images(2_048), random_answers(2_048)

    def plain() -> None:
        model = new_model().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        for _ in range(RECIPE.epochs):
            for chosen in torch.randperm(len(images)).split(RECIPE.batch_size):
                loss = F.cross_entropy(model(images[chosen]), targets[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def ours() -> None:
        fit(new_model(), images, targets, RECIPE, seed=0)

    ratio = speed_ratio(ours, plain, pairs=41)
    return Outcome("Training by training.fit, speed / plain loop", f"{ratio:.3f}", ">= 1.5", ratio >= 1.5)


def training_from_files() -> Outcome:
    """Compare `training.fit` on images mapped from a file, as a view of a large subset, with the same images in memory.

    The first, unmeasured pair is the first epoch, which brings the file into the system's cache.
    """
    images, targets = random_images(2_048), random_answers(2_048)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images.numpy())
        mapped = Rows(torch.from_numpy(np.load(path, mmap_mode="c")), torch.arange(len(images)))
        ratio = speed_ratio(
            lambda: fit(new_model(), mapped, targets, RECIPE, seed=0),
            lambda: fit(new_model(), images, targets, RECIPE, seed=0),
            pairs=21,
        )
    what = "Training from memory-mapped files, speed / in memory"
    return Outcome(what, f"{ratio:.3f}", ">= 1.0", ratio >= 1.0)


def bookkeeping() -> Outcome:
    """Time a query without reading the image and the victim's work: choosing, hashing, metering, writing."""
    # One image stands for all of them, so that the pool takes no memory.
    pool = ImageSet("pool", random_images(1).expand(POOL_SIZE, *SHAPE), None, (), "pool")
    attack = Knockoff(budget=BUDGET, batch=QUERIES)
    indices = attack.indices(POOL_SIZE)
    instant = victim(Instant())

    def collect() -> None:
        with tempfile.TemporaryDirectory() as folder:
            attack.collect(PredictionAPI(instant), pool, Path(folder) / "transfer.bin")

    def read() -> None:
        for chosen in indices.split(QUERIES):
            pool.images[chosen]

    milliseconds = statistics.median(seconds(collect) - seconds(read) for _ in range(9)) * 1_000 / BUDGET
    what = f"Bookkeeping per query, pool of {POOL_SIZE:,} indices"
    return Outcome(what, f"{milliseconds:.4f} ms", "<= 0.005 ms", milliseconds <= 0.005)


def adapting() -> Outcome:
    """Time the adaptive strategy with all rewards: bandit, inference and metering, without the learner's updates."""
    speed = adaptive_speed(updates=False)
    return Outcome("Adaptive queries per second, updates not counted", f"{speed:,.0f}", ">= 5,000", speed >= 5_000)


def adapting_and_learning() -> Outcome:
    """Time the adaptive strategy, with the learner's updates counted."""
    speed = adaptive_speed(updates=True)
    return Outcome("Adaptive queries per second, updates counted", f"{speed:,.0f}", ">= 2,500", speed >= 2_500)


def adaptive_speed(*, updates: bool) -> float:
    """Return queries per second of `AdaptiveKnockoff` with reward ``"all"`` against a pool of 20,000 in 162 classes."""
    budget, size = 20 * QUERIES, 20_000
    labels = torch.randint(0, 162, (size,), generator=torch.Generator().manual_seed(2))
    pool = ImageSet("pool", random_images(size), labels, tuple(map(str, range(162))), "labeled pool")
    attack = AdaptiveKnockoff(budget=budget, batch=QUERIES)

    def collect() -> float:
        spent, update = 0.0, OnlineSurrogate.update

        def timed(*batch: torch.Tensor) -> None:
            nonlocal spent
            spent += seconds(lambda: update(*batch))

        with tempfile.TemporaryDirectory() as folder, patch.object(OnlineSurrogate, "update", timed):
            api, path = PredictionAPI(victim(new_model())), Path(folder) / "transfer.bin"
            whole = seconds(lambda: attack.collect(api, pool, path, trainer=surrogates(RECIPE)))
        return budget / (whole if updates else whole - spent)

    collect()  # the first training step of a process loads much of torch
    return statistics.median(collect() for _ in range(5))


def beside_art() -> Outcome:
    """Compare the whole attack, label only, with ART's: query in batches of 256, then train equally long."""
    what = "Knockoff nets (random, label), speed / ART's KnockoffNets"
    if importlib.util.find_spec("art") is None:
        return Outcome(what, "not measured", "run `make bench`, which installs ART")
    from art.attacks.extraction import KnockoffNets
    from art.estimators.classification import PyTorchClassifier

    budget, model = 10 * QUERIES, new_model()
    pool = ImageSet("pool", random_images(4 * budget), None, (), "pool")
    floats = pool.images.float().numpy()

    def classifier(network: nn.Module) -> PyTorchClassifier:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
        module = nn.Sequential(ToBytes(), network)
        return PyTorchClassifier(module, nn.CrossEntropyLoss(), SHAPE, CLASSES, optimizer=optimizer, device_type="cpu")

    def theirs() -> None:
        attack = KnockoffNets(
            classifier(model),
            batch_size_fit=RECIPE.batch_size,
            batch_size_query=QUERIES,
            nb_epochs=RECIPE.epochs,
            nb_stolen=budget,
            verbose=False,
        )
        attack.extract(floats, thieved_classifier=classifier(new_model()))

    def ours() -> None:
        attack = Knockoff(budget=budget, batch=QUERIES)
        api = PredictionAPI(victim(model), answers="label")
        with tempfile.TemporaryDirectory() as folder:
            transfer = attack.collect(api, pool, Path(folder) / "transfer.bin")
        attack.train(transfer, pool, surrogates(RECIPE))

    ratio = speed_ratio(ours, theirs, pairs=15)
    return Outcome(what, f"{ratio:.3f}", ">= 2.0", ratio >= 2.0)


class Instant(networks.Network):
    """A victim that answers at once, and always with the same answer."""

    def __init__(self):
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(images), -1)


class ToBytes(nn.Module):
    """Turns ART's float images back into the uint8 images that our networks take."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.uint8)


def new_model() -> nn.Module:
    """Return the drawn scale's network, in evaluation mode."""
    return networks.build("resnet", classes=CLASSES, seed=0).eval()


def fold(model: nn.Module) -> nn.Module:
    """Return the network with each batch normalization folded into the convolution before it."""
    for part in list(model.modules()):
        if isinstance(part, nn.Sequential) and [type(each) for each in part] == [nn.Conv2d, nn.BatchNorm2d]:
            part[0], part[1] = fuse_conv_bn_eval(part[0], part[1]), nn.Identity()
    return model


def victim(model: nn.Module) -> Victim:
    """Return a victim that answers with the model."""
    return Victim(model, classes=CLASS_NAMES, image_shape=SHAPE, name="benchmark")


def surrogates(recipe: Recipe) -> Trainer:
    """Return how surrogates are made: the drawn scale's network, from scratch."""
    return Trainer(network="resnet", recipe=recipe, seed=0)


def random_images(count: int) -> torch.Tensor:
    """Return noise, uint8 of shape (count, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def random_answers(count: int) -> torch.Tensor:
    """Return probabilities, float32 of shape (count, CLASSES)."""
    return torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)


def speed_ratio(ours: Callable[[], None], reference: Callable[[], None], *, pairs: int) -> float:
    """Return how many times as fast as the reference ours is: the median over pairs, after one unmeasured pair.

    The two take turns going first.
    """
    ours()
    reference()
    ratios = []
    for pair in range(pairs):
        actions = (ours, reference) if pair % 2 else (reference, ours)
        taken = {action: seconds(action) for action in actions}
        ratios.append(taken[reference] / taken[ours])
    return statistics.median(ratios)


def seconds(action: Callable[[], None]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
