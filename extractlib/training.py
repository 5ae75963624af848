"""One plain training loop for hard and soft labels, and prediction in batches."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from extractlib.errors import InputError, one_of
from extractlib.images import digest
from extractlib.profiles import Recipe


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
) -> nn.Module:
    """Train a network, in place, by stochastic gradient descent on the cross-entropy.

    With soft targets y the loss of an image is -Σ y log p, the surrogate's loss of Orekondy et al. 2019 (section 4.2).

    Args:
        model: Network that takes uint8 images and returns logits.
        images: uint8 of shape (n, 3, height, width).
        targets: Labels, int64 of shape (n,), or probabilities, float of shape (n, classes) with rows that sum to 1.
        recipe: Epochs, learning rate and the rest.
        seed: Seed of the order of the images and of their shifts and flips.
        device: Where to train; the model is back on the CPU afterwards.
        checkpoint: File that holds the state after each epoch; if it is there, training goes on from it and ends equal
            to an unbroken run.
        progress: Whether to show a bar.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: Images and targets do not fit each other or the recipe, or the checkpoint is of another run.
    """
    _check(images, targets, recipe)
    images, targets = images.to(device), targets.to(device)
    model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    steps = math.ceil(len(images) / recipe.batch_size)
    run = digest(json.dumps([asdict(recipe), seed, len(images), [list(p.shape) for p in model.parameters()]]))
    first = _restore(checkpoint, model, optimiser, run) if checkpoint and checkpoint.exists() else 0
    bar = tqdm(total=recipe.epochs, initial=first, desc="training", unit="epoch", disable=not progress)
    with bar:
        for epoch in range(first, recipe.epochs):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            batches = _batches(images, targets, recipe, generator)
            for step, (batch, target) in enumerate(batches, start=epoch * steps):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(recipe, step / (recipe.epochs * steps))
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device)):
                    loss = F.cross_entropy(model(batch), target)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if checkpoint:
                _save(checkpoint, model, optimiser, run, epoch + 1)
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.cpu().eval()


def predict(model: nn.Module, images: torch.Tensor, *, batch_size: int = 512) -> torch.Tensor:
    """Return the logits of uint8 images, float32 of shape (n, classes), on the CPU.

    The model is in evaluation mode meanwhile, where no image's answer depends on the others of its batch.
    """
    device = next(model.parameters()).device
    training = model.training
    if training:
        model.eval()
    with torch.inference_mode():
        parts = [model(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    if training:
        model.train()
    # A clone, since tensors made in inference mode cannot take part in training.
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).clone()


def default_device() -> str:
    """Return ``"cuda"`` where there is a GPU, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16(device: str) -> bool:
    """Say whether the device computes in bfloat16 in hardware, so that mixed precision saves time."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate when a share `progress`, in [0, 1), of the training is done.

    One-cycle: a linear rise over the first quarter, then a cosine fall to zero. Cosine: the fall alone.
    """
    rise = {"one-cycle": 0.25, "cosine": 0.0}[one_of("schedule", recipe.schedule, ("one-cycle", "cosine"))]
    if progress < rise:
        return recipe.learning_rate * (0.04 + 0.96 * progress / rise)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def augment(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Return the images each moved at random by up to `recipe.shift` pixels, edges repeated, and perhaps mirrored."""
    count, _, height, width = images.shape
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (2, count, 1), generator=generator).to(images.device)
        rows = (torch.arange(height, device=images.device) + moves[0]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=images.device) + moves[1]).clamp_(0, width - 1)
        which = torch.arange(count, device=images.device)[:, None, None]
        # The result has channels last, the layout that convolutions want.
        images = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return images


def _batches(
    images: torch.Tensor, targets: torch.Tensor, recipe: Recipe, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.randperm(len(images), generator=generator)
    for chosen in order.split(recipe.batch_size):
        # Batch normalisation cannot learn from one image.
        chosen = torch.cat([chosen, order[:1]]) if len(chosen) == 1 else chosen
        chosen = chosen.to(images.device)
        yield augment(images[chosen], recipe, generator), targets[chosen]


def _check(images: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> None:
    if not len(images):
        raise InputError("there are no images to train on: at least 2 are wanted")
    if len(images) != len(targets):
        raise InputError(f"{len(images)} images and {len(targets)} targets: equally many are wanted")
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}: uint8 is wanted")
    if recipe.epochs < 1 or recipe.batch_size < 2:
        raise InputError(f"{recipe.epochs} epochs in batches of {recipe.batch_size}: at least 1 and 2 are wanted")
    one_of("schedule", recipe.schedule, ("one-cycle", "cosine"))


def _save(path: Path, model: nn.Module, optimiser: torch.optim.SGD, run: str, epoch: int) -> None:
    """Write the state atomically: weights, momentum, and how far the run has come."""
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, parameter in enumerate(model.parameters()):
        buffer = optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            state[f"momentum.{number}"] = buffer
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: value.cpu().contiguous().clone() for name, value in state.items()}
    save_file(contiguous, partial, metadata={"run": run, "epoch": str(epoch)})
    partial.replace(path)


def _restore(path: Path, model: nn.Module, optimiser: torch.optim.SGD, run: str) -> int:
    """Read what `_save` wrote, and return the number of epochs done."""
    with safe_open(path, framework="pt") as file:
        if file.metadata().get("run") != run:
            raise InputError(f"{path} is the checkpoint of another run: take it away or name another file")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        epoch = int(file.metadata()["epoch"])
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    for number, parameter in enumerate(model.parameters()):
        if f"momentum.{number}" in tensors:
            # The layout must be the parameter's, or the resumed run would round otherwise.
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{number}"])
            optimiser.state[parameter]["momentum_buffer"] = buffer
    return epoch
