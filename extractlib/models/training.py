"""One plain training loop for hard and soft labels, and prediction in batches."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from extractlib.errors import InputError, one_of
from extractlib.models import devices as acceleration
from extractlib.store import digest

SCHEDULES = ("one-cycle", "cosine", "step")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: stochastic gradient descent with momentum.

    Attributes:
        epochs: Passes over the training images.
        learning_rate: The highest learning rate of the schedule.
        batch_size: Images a step.
        momentum: Momentum of the gradient.
        weight_decay: Factor of the squared weights in the loss.
        shift: Each image is moved at random by up to this many pixels.
        flip: Whether an image is mirrored left to right half of the time.
        schedule: ``"one-cycle"``, ``"cosine"`` or ``"step"``.
        step_epochs: With schedule ``"step"``, after how many epochs each time the learning rate falls to a tenth.
        nesterov: Whether the momentum is Nesterov's.
        crop: Whether each image is a random crop, brought back to size (see `training.augment`).
    """

    epochs: int
    learning_rate: float
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 2
    flip: bool = False
    schedule: str = "one-cycle"
    step_epochs: int = 0
    nesterov: bool = True
    crop: bool = False


def fit(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: bool = False,
    compile_mode: str | None = None,
) -> nn.Module:
    """Train a network, in place, by stochastic gradient descent on the cross-entropy.

    With soft targets y the loss of an image is -Σ y log p, the surrogate's loss of Orekondy et al. 2019 (section 4.2).
    Where ``torchrun`` started several processes (`acceleration.joined`), each of them must call this with the same
    arguments: they share each batch, and all end with the same weights.

    Args:
        model: Network that takes uint8 images and returns logits.
        images: uint8 of shape (n, 3, height, width); may be memory-mapped.
        targets: Labels, int64 of shape (n,), or probabilities, float of shape (n, classes) with rows that sum to 1.
        recipe: Epochs, learning rate and the rest.
        seed: Seed of the order of the images, of their shifts, flips and crops, and of dropout.
        device: Where to train; the model is back on the CPU afterwards.
        checkpoint: File that holds the state after each epoch; if it is there, training goes on from it and ends equal
            to an unbroken run.
        progress: Whether to show a bar.
        compile_mode: Mode of ``torch.compile``; None runs the network as it is.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: Images and targets do not fit each other or the recipe, the checkpoint is of another run, there is
            no such device, or its memory does not suffice.
    """
    _check(images, targets, recipe)
    place = acceleration.usable(device)
    size = f"{images.shape[2]} x {images.shape[3]}"
    needs = f"batches of {recipe.batch_size} images of {size}: lower the recipe's batch_size or the image_size"
    if targets.is_floating_point():
        targets = targets.to(next(model.parameters()).dtype)
    with acceleration.tuned(place, needs=needs):
        _train(model, images, targets.to(place), recipe, seed, place, checkpoint, progress, compile_mode)
    return model.cpu().eval()


def _train(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    checkpoint: Path | None,
    progress: bool,
    compile_mode: str | None,
) -> None:
    model.to(device, memory_format=torch.channels_last).train()
    images = acceleration.placed(images, device)
    together = acceleration.parallel(model, device)
    network = torch.compile(together, mode=compile_mode, dynamic=False) if compile_mode else together
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=True if device.type == "cuda" else None,
    )
    # What is too small for float16 is scaled up; elsewhere this does nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=acceleration.half(device) is torch.float16)
    steps = math.ceil(len(images) / recipe.batch_size)
    run = digest(json.dumps([asdict(recipe), seed, len(images), [list(p.shape) for p in model.parameters()]]))
    first = _restore(checkpoint, model, optimiser, scaler, run) if checkpoint and checkpoint.exists() else 0
    rank, processes = acceleration.ranks()
    bar = tqdm(total=recipe.epochs, initial=first, desc="training", unit="epoch", disable=not progress or rank > 0)
    with bar:
        for epoch in range(first, recipe.epochs):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            with acceleration.seeded(seed * 1_000_003 + epoch + rank, device):
                batches = _batches(images, targets, recipe, generator, device)
                for step, (batch, target, count) in enumerate(batches, start=epoch * steps):
                    for group in optimiser.param_groups:
                        group["lr"] = learning_rate(recipe, step / (recipe.epochs * steps))
                    with acceleration.autocast(device):
                        loss = F.cross_entropy(network(batch), target)
                    if processes > 1:  # the mean over the processes is to be that over the images
                        loss = loss * (len(batch) * processes / count)
                    optimiser.zero_grad()
                    scaler.scale(loss).backward()
                    scaler.step(optimiser)
                    scaler.update()
            if checkpoint and rank == 0:
                _save(checkpoint, model, optimiser, scaler, run, epoch + 1)
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")


def predict(model: nn.Module, images: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the logits of uint8 images, float32 of shape (n, classes), on the CPU.

    The model is in evaluation mode meanwhile, where no image's answer depends on the others of its batch. It computes
    on `default_device`, on a GPU in half precision; the model itself stays where it is.
    """
    device = next(model.parameters()).device
    device = acceleration.usable(default_device()) if device.type == "cpu" else device
    training = model.training
    if training:
        model.eval()
    size = f"{images.shape[2]} x {images.shape[3]}"
    needs = f"{batch_size} images of {size} at a time: lower the batch_size or the image_size"
    with torch.inference_mode(), acceleration.tuned(device, needs=needs):
        if device.type == "cpu":
            parts = [model(batch).float() for batch in images.split(batch_size)]
        else:
            answer, chosen = acceleration.on_device(model, device), torch.arange(len(images)).split(batch_size)
            with acceleration.autocast(device):
                parts = [answer(batch).float() for batch in acceleration.batches(images, chosen, device)]
    if training:
        model.train()
    # A clone, since tensors made in inference mode cannot take part in training.
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).cpu().clone()


def default_device() -> str:
    """Return what EXTRACTLIB_DEVICE names, else ``"cuda"`` where there is a GPU, else ``"cpu"``."""
    return os.environ.get("EXTRACTLIB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate when a share `progress`, in [0, 1), of the training is done.

    One-cycle: a linear rise over the first quarter, then a cosine fall to zero. Cosine: the fall alone. Step: a tenth
    after each `recipe.step_epochs`.
    """
    if one_of("schedule", recipe.schedule, SCHEDULES) == "step":
        # The tolerance undoes the rounding of a whole number of epochs.
        return recipe.learning_rate * 0.1 ** (int(progress * recipe.epochs + 1e-9) // recipe.step_epochs)
    rise = {"one-cycle": 0.25, "cosine": 0.0}[recipe.schedule]
    if progress < rise:
        return recipe.learning_rate * (0.04 + 0.96 * progress / rise)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def augment(
    images: torch.Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    own: slice = slice(None),
    count: int | None = None,
) -> torch.Tensor:
    """Return the images each mirrored, moved and cropped at random as the recipe says.

    They move by up to `recipe.shift` pixels, edges repeated. A crop is that of Inception (Szegedy et al. 2015) and of
    torchvision's ``RandomResizedCrop``: 8% to 100% of the area, sides of 3 to 4 up to 4 to 3, brought back to size.

    Args:
        images: uint8 of shape (n, 3, height, width).
        recipe: Says what is done.
        generator: Draws, on the CPU, so that all devices do the same.
        own: Which images of a larger batch these are, where processes share one: each draws for all.
        count: Size of that batch.
    """
    _, _, height, width = images.shape
    count, device = len(images) if count is None else count, images.device
    if recipe.flip:
        mirrored = (torch.rand(count, generator=generator) < 0.5)[own]
        images = torch.where(mirrored.to(device).view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (2, count, 1), generator=generator)[:, own].to(device)
        rows = (torch.arange(height, device=device) + moves[0]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=device) + moves[1]).clamp_(0, width - 1)
        which = torch.arange(len(images), device=device)[:, None, None]
        # The result has channels last, the layout that convolutions want.
        images = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if recipe.crop:
        images = cropped(images, crop_boxes(count, generator, aspect=width / height)[own].to(device))
    return images


def crop_boxes(count: int, generator: torch.Generator, *, aspect: float = 1.0) -> torch.Tensor:
    """Return random boxes, float32 of shape (count, 4): left, top, width and height as shares of the image.

    Args:
        count: How many.
        generator: Draws them, ten tries for each; where none fits, the box is the whole image.
        aspect: Width of the image over its height.
    """
    tries = torch.rand(4, count, 10, generator=generator)
    area, ratio = 0.08 + 0.92 * tries[0], ((2 * tries[1] - 1) * math.log(4 / 3)).exp()
    sides = torch.stack([(area * ratio / aspect).sqrt(), (area / ratio * aspect).sqrt()])
    fits = (sides <= 1).all(0)
    first = fits.int().argmax(1)  # the first of the greatest
    width, height = torch.where(fits.any(1), sides[:, torch.arange(count), first], torch.ones(()))
    places = tries[2:, :, 0]
    return torch.stack([places[0] * (1 - width), places[1] * (1 - height), width, height], 1)


def cropped(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return what the boxes (`crop_boxes`) hold of the images, brought back to their size by bilinear sampling."""
    left, top, width, height = boxes.T
    nothing = torch.zeros_like(left)
    # Coordinates run from -1 to 1 between the image's edges.
    maps = [[width, nothing, 2 * left + width - 1], [nothing, height, 2 * top + height - 1]]
    grid = F.affine_grid(torch.stack([torch.stack(row, 1) for row in maps], 1), list(images.shape), align_corners=False)
    return (
        F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False).round_().to(torch.uint8)
    )


def _batches(
    images: torch.Tensor, targets: torch.Tensor, recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Yield this process's images and targets of each batch, and how many the whole batch has."""
    order = torch.randperm(len(images), generator=generator)
    rank, processes = acceleration.ranks()
    least = max(2, processes)  # batch normalisation cannot learn from one image, nor a process from none
    whole = [
        torch.cat([part, order[: least - len(part)]]) if len(part) < least else part
        for part in order.split(recipe.batch_size)
    ]
    own = slice(rank, None, processes)
    read = acceleration.batches(images, (chosen[own] for chosen in whole), device)
    for chosen, batch in zip(whole, read, strict=True):
        batch = augment(batch, recipe, generator, own=own, count=len(chosen))
        yield batch, targets[chosen[own].to(device)], len(chosen)


def _check(images: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> None:
    if not len(images):
        raise InputError("there are no images to train on: at least 2 are wanted")
    if len(images) != len(targets):
        raise InputError(f"{len(images)} images and {len(targets)} targets: equally many are wanted")
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}: uint8 is wanted")
    if recipe.epochs < 1 or recipe.batch_size < 2:
        raise InputError(f"{recipe.epochs} epochs in batches of {recipe.batch_size}: at least 1 and 2 are wanted")
    if one_of("schedule", recipe.schedule, SCHEDULES) == "step" and recipe.step_epochs < 1:
        raise InputError(f"step_epochs is {recipe.step_epochs}: at least 1 is wanted with schedule 'step'")


def _save(
    path: Path, model: nn.Module, optimiser: torch.optim.SGD, scaler: torch.amp.GradScaler, run: str, epoch: int
) -> None:
    """Write the state atomically: weights, momentum, the scale of the gradients, and how far the run has come."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, parameter in enumerate(model.parameters()):
        buffer = optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            state[f"momentum.{number}"] = buffer
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: value.cpu().contiguous().clone() for name, value in state.items()}
    save_file(
        contiguous, partial, metadata={"run": run, "epoch": str(epoch), "scaler": json.dumps(scaler.state_dict())}
    )
    partial.replace(path)


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.SGD, scaler: torch.amp.GradScaler, run: str) -> int:
    """Read what `_save` wrote, and return the number of epochs done."""
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("run") != run:
            raise InputError(f"{path} is the checkpoint of another run: take it away or name another file")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        epoch = int(file.metadata()["epoch"])
        scaler.load_state_dict(json.loads(file.metadata()["scaler"]))
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    for number, parameter in enumerate(model.parameters()):
        if f"momentum.{number}" in tensors:
            # The layout must be the parameter's, or the resumed run would round otherwise.
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{number}"])
            optimiser.state[parameter]["momentum_buffer"] = buffer
    return epoch
