"""Print how many images a GPU trains on and answers per second: ResNet-34 at 224 and 32 pixels, and the card's peak.

``python -m benchmarks.gpu --device cpu --quick`` runs everything on a few small images.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.__main__ import Outcome, seconds
from extractbook.reproduction.scales import Recipe, scale
from extractlib.errors import InputError
from extractlib.models import devices, networks
from extractlib.models.training import fit, predict

CLASSES = 256
PAPER, SMALL = scale("paper"), scale("small")
QUERIES = PAPER.budget
EPOCHS = PAPER.surrogate.epochs
GOAL_RATE, GOAL_MINUTES = 7_000, 30
"""On one H200, at 224 pixels: images per second in training, and minutes for one attack of the paper."""


@dataclass(frozen=True)
class Load:
    """What is measured.

    Attributes:
        images: Images of an epoch, at 224 pixels; at 32 there are eight times as many.
        large: Height and width of the larger images.
        batch_sizes: Batch sizes to try, starting with that of the original recipe.
        product: Size of the matrices whose product gives the card's rate.
        networks: Names of the networks at the larger and the smaller size.
    """

    images: int = 8_192
    large: int = PAPER.image_size
    batch_sizes: tuple[int, ...] = (PAPER.surrogate.batch_size, 256, 512)
    product: int = 8_192
    networks: tuple[str, str] = (PAPER.network, SMALL.network)


QUICK = Load(images=8, large=48, batch_sizes=(4,), product=128, networks=("resnet-wide", "resnet-wide"))


def main() -> None:
    """Measure everything and print a line for each."""
    from extractbook.reproduction.cells import describe  # the functions below do not need it

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=devices.default_device(), help="cpu or cuda (default: the best available)")
    parser.add_argument("--quick", action="store_true", help="a few small images: does it run?")
    options = parser.parse_args()
    device, load = devices.resolve(options.device), QUICK if options.quick else Load()
    kind = devices.half(device) or torch.float32
    peak = matrix_rate(device, kind, load.product)
    print(f"{describe(str(device))}, torch {torch.__version__}, {str(kind).removeprefix('torch.')}", flush=True)
    print(Outcome("Rate of a matrix product, TFLOP/s", f"{peak / 1e12:,.1f}"), flush=True)
    minutes = []
    sizes = zip(load.networks, (load.large, 32), (load.images, 8 * load.images), strict=True)
    for network, size, count in sizes:
        images = random_images(count, size)
        forward, whole = (flops(network, size, training=training) for training in (False, True))
        rates = {}
        for batch_size in load.batch_sizes:
            recipe = replace(PAPER.surrogate, batch_size=batch_size)
            what = f"Trained on per second, {network}, {size} px, batches of {batch_size}"
            try:
                rate = rates[batch_size] = trained(network, images, recipe, str(device))
            except InputError as error:  # a smaller card continues with what fits
                print(Outcome(what, f"not run: {error}"), flush=True)
                continue
            print(line(what, rate, rate * whole / peak, goal=size == PAPER.image_size), flush=True)
        augmented = trained(network, images, replace(PAPER.victim, batch_size=load.batch_sizes[0]), str(device))
        print(line(f"First batch size again, cropped and mirrored at random, {size} px", augmented, None), flush=True)
        queried = answered(network, images, str(device))
        print(line(f"Answered per second, {network}, {size} px", queried, queried * forward / peak), flush=True)
        if size == load.large:
            minutes = [attack(batch_size, rate, queried) for batch_size, rate in rates.items()]
    print(*minutes, sep="\n", flush=True)


def line(what: str, rate: float, share: float | None, *, goal: bool = False) -> Outcome:
    """Return a rate in images per second, with its share of the card's measured rate and the goal if it has one."""
    shown = f"{rate:,.0f}" + ("" if share is None else f" ({share:.0%})")
    return Outcome(what, shown, f">= {GOAL_RATE:,}", rate >= GOAL_RATE) if goal else Outcome(what, shown)


def attack(batch_size: int, trained: float, queried: float) -> Outcome:
    """Return how long one attack of the paper would take at these rates in images per second."""
    minutes = attack_minutes(trained, queried)
    what = f"Minutes for {QUERIES:,} queries and {EPOCHS} epochs, batches of {batch_size}"
    return Outcome(what, f"{minutes:,.1f}", f"<= {GOAL_MINUTES}", minutes <= GOAL_MINUTES)


def attack_minutes(trained: float, queried: float) -> float:
    """Return the minutes of one attack of the paper at these rates in images per second."""
    return (QUERIES / queried + QUERIES * EPOCHS / trained) / 60


def matrix_rate(device: torch.device, kind: torch.dtype, size: int) -> float:
    """Return the FLOP/s of a product of two random square matrices, the median of ten after three unmeasured."""
    first, second = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    times = [seconds(finished(lambda: first @ second, device)) for _ in range(13)][3:]
    return 2 * size**3 / statistics.median(times)


def flops(network: str, size: int, *, training: bool) -> int:
    """Return the floating-point operations that a network spends per image, forward or in a training step."""
    model = networks.build(network, classes=CLASSES, seed=0).train(training)
    images = random_images(2, size)  # batch normalization cannot learn from one
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        logits = model(images)
        if training:
            logits.sum().backward()
    return counter.get_total_flops() // len(images)


def trained(network: str, images: torch.Tensor, recipe: Recipe, device: str) -> float:
    """Return images per second in the second and third epochs of training; the first has one-time costs too."""
    targets = torch.randn(len(images), CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)

    def epochs(count: int) -> Callable[[], None]:
        model = networks.build(network, classes=CLASSES, seed=0)
        chosen = replace(recipe, epochs=count)
        return lambda: fit(model, images, targets, chosen, seed=0, device=device)

    seconds(epochs(1))
    one, three = seconds(epochs(1)), seconds(epochs(3))
    return 2 * len(images) / max(three - one, 1e-9)


def answered(network: str, images: torch.Tensor, device: str) -> float:
    """Return images per second in prediction, the median of three runs after one unmeasured run."""
    model = networks.build(network, classes=CLASSES, seed=0).eval().to(device)
    times = [seconds(lambda: predict(model, images)) for _ in range(4)][1:]
    return len(images) / statistics.median(times)


def finished(action: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Return the action followed by a wait until the device has finished it."""

    def call() -> None:
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def random_images(count: int, size: int) -> torch.Tensor:
    """Return noise, uint8 of shape (count, 3, size, size): zeros would flatter the card."""
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.gpu: {error}")
