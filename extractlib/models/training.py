"""One plain training loop for hard and soft labels, and prediction in batches."""

import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from extractlib.data.images import Rows, check_images
from extractlib.errors import InputError, check_amount, check_choice, check_seed, keep, shown, whole
from extractlib.models import devices
from extractlib.progress import bar as progress_bar
from extractlib.tensors import is_plain, kind_of, own_draws, seed_draws

Module = TypeVar("Module", bound=nn.Module)

SCHEDULES = ("one-cycle", "cosine", "step")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a task's images without changing what they show: a mirrored sign may mean something else.

    Attributes:
        shift: Each image is moved at random by up to this many pixels.
        flip: Whether an image is mirrored left to right half of the time.
    """

    shift: int = 0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: stochastic gradient descent with momentum, or AdamW.

    Attributes:
        epochs: Passes over the training images; 0 if `steps` sets the length.
        steps: Steps of the optimizer, whatever the number of images; 0 if `epochs` sets the length.
        learning_rate: The highest learning rate of the schedule.
        batch_size: Images per step.
        momentum: Momentum of the gradient.
        weight_decay: Multiple of the weights that is added to their gradient; with ``"adamw"``, each step shrinks the
            weights themselves by that share times the learning rate.
        shift: Each image is moved at random by up to this many pixels.
        flip: Whether an image is mirrored left to right half of the time.
        schedule: ``"one-cycle"``, ``"cosine"`` or ``"step"``.
        step_epochs: With schedule ``"step"``, the learning rate falls to a tenth each time after this many epochs, or
            after this many steps if `steps` sets the length.
        nesterov: Whether the momentum is Nesterov's.
        crop: Whether each image is a random crop, resized back (see `training.augment`).
        optimizer: ``"sgd"``, or ``"adamw"`` (Loshchilov and Hutter 2019), which has no momentum to choose.
        class_weights: Whether all classes count equally, however many images each has; with soft targets they never do.

    Raises:
        InputError: A value does not fit.
    """

    epochs: int = 0
    steps: int = 0
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
    optimizer: str = "sgd"
    class_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "shift", "step_epochs"):
            value = getattr(self, name)
            if whole(value) is None:
                raise InputError(f"{name} is {shown(value)}: expected a whole number")
            keep(self, **{name: whole(value)})
        for name in ("learning_rate", "momentum", "weight_decay"):
            amount = check_amount(name, getattr(self, name), above_zero=name == "learning_rate")
            keep(self, **{name: amount})
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if min(self.epochs, self.steps) != 0 or max(self.epochs, self.steps) < 1:
            raise InputError(f"epochs is {self.epochs} and steps is {self.steps}: give one of them, at least 1")
        if self.batch_size < 2:
            raise InputError(f"batch_size is {self.batch_size}: expected at least 2")
        if self.shift < 0:
            raise InputError(f"shift is {self.shift}: expected at least 0")
        if check_choice("schedule", self.schedule, SCHEDULES) == "step" and self.step_epochs < 1:
            raise InputError(f"step_epochs is {self.step_epochs}: expected at least 1 with schedule 'step'")

    def on(self, augmentation: Augmentation) -> "Recipe":
        """Return the recipe with the augmentation that a task allows in place of its own."""
        return replace(self, **asdict(augmentation))

    def steps_for(self, images: int) -> int:
        """Return how many steps training on this many images takes."""
        return self.steps or self.epochs * math.ceil(images / self.batch_size)


def fit(
    model: Module,
    images: torch.Tensor | Rows,
    targets: torch.Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    progress: bool = False,
) -> Module:
    """Train a network, in place, by gradient descent on the cross-entropy; frozen layers stay unchanged.

    With soft targets y the loss of an image is -Σ y log p, the surrogate's loss of Orekondy et al. 2019 (section 4.2).

    Args:
        model: Network that takes uint8 images and returns logits.
        images: uint8 of shape (n, channels, height, width); may be memory-mapped.
        targets: Labels, whole numbers of any type and of shape (n,), from 0 to below the number of classes; or
            probabilities, float of shape (n, classes) with rows that sum to 1.
        recipe: Epochs, learning rate and the rest.
        seed: Seed of the order of the images, of their shifts, flips and crops, and of dropout; the caller's generators
            are left alone.
        device: Where to train, and where the model is afterward.
        progress: Whether to show a bar.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: Images and targets do not fit each other or the recipe, targets are not of the network's classes,
            there is no such device, it has too little memory, or the model cannot be trained this way (see
            `check_trainable`).
    """
    check_images(images, at_least=2)
    seed = check_seed(seed)
    check_trainable(model, recipe)
    targets = _targets_for(model, images, targets)
    place = devices.resolve(device)
    # Faster, but not for your own module, which may use view.
    layout = torch.channels_last if getattr(model, "channels_last", False) else torch.preserve_format
    model.to(place, memory_format=layout).train()  # type: ignore[call-overload]  # not in its stubs
    _freeze_statistics(model)
    images, targets = devices.placed(_lowered(model, images), place), targets.to(place)
    weights = None
    optimizer = _optimizer(model, recipe, fused=True if place.type == "cuda" else None)
    # Gradients too small for float16 are scaled up; otherwise this does nothing.
    scaler = torch.amp.GradScaler(place.type, enabled=devices.half(place) is torch.float16)
    total, batches = recipe.steps_for(len(images)), _batches(images, targets, recipe, seed, place)
    needs = f"batches of {recipe.batch_size} images of {_size(images)}: lower the recipe's batch_size or the image_size"
    with (
        devices.enough_memory(place, needs=needs),
        devices.tuned(place),
        own_draws(place),
        progress_bar(total, what="training", unit="steps", show=progress) as bar,
    ):
        for step, (batch, target) in enumerate(itertools.islice(batches, total)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step / total)
            with devices.autocast(place):
                logits = model(batch)
                if step == 0:  # its width is known only now, and no weight has changed
                    _check_targets(targets, logits)
                if recipe.class_weights and not targets.is_floating_point() and weights is None:
                    weights = _class_weights(targets, logits.shape[1])
                loss = F.cross_entropy(logits, target, weights)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            bar.update()
    return model.eval()


def _targets_for(model: nn.Module, images: torch.Tensor | Rows, targets: torch.Tensor) -> torch.Tensor:
    """Return the targets of the images with the type that the loss takes: int64, or that of the model's weights.

    Raises:
        InputError: They are not a tensor of numbers, or not as many as the images.
    """
    if not is_plain(targets) or not targets.ndim:
        raise InputError(f"the targets are {kind_of(targets)}: expected a tensor of labels, or of probabilities")
    if len(images) != len(targets):
        raise InputError(f"{len(images)} images and {len(targets)} targets: expected equally many")
    return targets.to(next(model.parameters()).dtype if targets.is_floating_point() else torch.int64)


def _check_targets(targets: torch.Tensor, logits: torch.Tensor) -> None:
    """Reject targets of other classes than a network has, given its logits for a batch.

    Raises:
        InputError: They do not fit, or the network does not return a logit for each class.
    """
    if not is_plain(logits) or logits.ndim != 2:
        raise InputError(f"the network returned {kind_of(logits)}: expected logits of shape (n, classes)")
    classes, shape = logits.shape[1], tuple(targets.shape)
    if targets.is_floating_point():
        if shape != (len(targets), classes):
            raise InputError(
                f"the targets are probabilities of shape {shape}, but the network has {classes} classes: give"
                f" {(len(targets), classes)}, or whole numbers as labels, targets.long()"
            )
        return
    if targets.ndim != 1:
        raise InputError(f"the targets are labels of shape {shape}: expected ({len(targets)},), one for each image")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"the labels run from {low} to {high}, but the network has {classes} classes: number them from 0 to"
            f" {classes - 1}, or give a network with more classes"
        )


def check_trainable(model: nn.Module, recipe: Recipe) -> None:
    """Reject a network that the training cannot change, before work starts.

    Raises:
        InputError: All weights are frozen, or in half precision, gradients are off, or the recipe augments images
            although frozen layers see each only once.
    """
    if not torch.is_grad_enabled():
        raise InputError("gradients are off, as in torch.no_grad(): train outside of it")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError("the network has no trainable weights: give one with requires_grad set on some")
    halves = [name for name, weight in model.named_parameters() if weight.dtype in (torch.float16, torch.bfloat16)]
    if halves:
        raise InputError(f"the network's weight {halves[0]} is in half precision: train it in float32, module.float()")
    lowers = hasattr(model, "lowered") and bool(getattr(model, "frozen", 0))
    if lowers and (recipe.shift or recipe.flip or recipe.crop):
        raise InputError(
            "the network's frozen layers see each image only once: set the recipe's shift, flip and crop to 0"
        )


def try_step(model: nn.Module, images: torch.Tensor | Rows) -> torch.Tensor:
    """Train a network for one step without changing its weights, and return the logits, (2, classes) if it fits.

    The random draws of its layers are undone.

    Args:
        model: Network that takes uint8 images and returns logits; it stays in training mode.
        images: One image, which is shown twice, since batch normalization cannot learn from one.

    Raises:
        InputError: It returns something else than a tensor.
    """
    place = devices.device_of(model)
    _freeze_statistics(model.train())
    batch = torch.cat([_lowered(model, images)[:]] * 2).to(place)
    with own_draws(place):
        with devices.autocast(place):
            logits = model(batch)
        if not is_plain(logits):
            raise InputError(f"the network returned {kind_of(logits)} in training: expected logits")
        logits.float().sum().backward()
    return logits.detach()


def _optimizer(model: nn.Module, recipe: Recipe, *, fused: bool | None) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        trained = (weight for weight in model.parameters() if weight.requires_grad)
        return torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=fused)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(
        model.parameters(), lr=rate, momentum=recipe.momentum, weight_decay=decay, nesterov=nesterov, fused=fused
    )


def _freeze_statistics(model: nn.Module) -> None:
    """Keep the running mean and variance of batch normalizations whose weights are frozen."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine and not part.weight.requires_grad:
            part.eval()


def _class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return a weight for each class: images / (classes present · images of the class), float of shape (classes,)."""
    counts = labels.bincount(minlength=classes)
    return len(labels) / ((counts > 0).sum() * counts.clamp(min=1)).to(torch.get_default_dtype())


def _lowered(model: nn.Module, images: torch.Tensor | Rows) -> torch.Tensor | Rows:
    """Return the output of the model's frozen layers, which it takes in place of images; or else the images."""
    lowered = getattr(model, "lowered", None)
    return images if lowered is None else lowered(images)


def _batches(
    images: torch.Tensor | Rows, targets: torch.Tensor, recipe: Recipe, seed: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the images and targets of each step, endlessly; seed the draws of layers such as dropout at each epoch."""
    for epoch in itertools.count():
        seed_draws(seed * 1_000_003 + epoch, device)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=generator)
        # Batch normalization cannot learn from one image.
        parts = [torch.cat([part, order[:1]]) if len(part) < 2 else part for part in order.split(recipe.batch_size)]
        for chosen, batch in zip(parts, devices.batches(images, parts, device), strict=True):
            yield augment(batch, recipe, generator), targets[chosen.to(device)]


def predict(model: nn.Module, images: torch.Tensor | Rows, *, batch_size: int = 512) -> torch.Tensor:
    """Return the logits of uint8 images, float32 of shape (n, classes), on the CPU.

    The model runs where it is, in its own precision, and in evaluation mode, in which no image's answer depends on the
    others in its batch.

    Args:
        model: Network that takes uint8 images and returns logits.
        images: uint8 of shape (n, channels, height, width).
        batch_size: Most images at a time; fewer where the device has too little memory for them.

    Raises:
        InputError: The device has too little memory for one image.
    """
    device = devices.device_of(model)
    needs = f"an image of {_size(images)}: lower the image_size"
    # Not inference mode: what a module makes in it and keeps, such as a mask, could not take part in training.
    with evaluating(model), torch.no_grad(), devices.enough_memory(device, needs=needs):
        parts = _predicted(model, _lowered(model, images), batch_size, device)
    # A clone, since a module may keep what it returned.
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).cpu().clone()


def _predicted(
    model: nn.Module, images: torch.Tensor | Rows, batch_size: int, device: torch.device
) -> list[torch.Tensor]:
    """Return the logits of each batch, with half as many images at a time for as long as the memory is too small."""
    try:
        return [model(batch.to(device)).float() for batch in images.split(batch_size)]
    except torch.OutOfMemoryError:
        if batch_size == 1:
            raise
    # Only here, outside of the clause, is the memory of the failed attempt free again.
    return _predicted(model, images, batch_size // 2, device)


_IN_USE: dict[nn.Module, tuple[int, list[nn.Module]]] = {}
"""How many threads evaluate a model now, and which of its parts were in training mode before."""
_CHANGING = threading.Lock()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and what was in training mode back into it once no thread evaluates it."""
    with _CHANGING:
        count, before = _IN_USE.get(model, (0, []))
        training = [part for part in model.modules() if part.training]
        if training:  # setting it takes longer than checking
            model.eval()
        _IN_USE[model] = count + 1, before + training
    try:
        yield
    finally:
        with _CHANGING:
            count, training = _IN_USE.pop(model)
            if count > 1:
                _IN_USE[model] = count - 1, training
            else:
                for part in training:
                    part.training = True


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate when a share `progress`, in [0, 1), of the training is done.

    One-cycle: a linear rise over the first quarter, then a cosine fall to zero. Cosine: the fall alone. Step: a tenth
    after each `recipe.step_epochs`.
    """
    if check_choice("schedule", recipe.schedule, SCHEDULES) == "step":
        # The tolerance undoes the rounding of a whole number of epochs or steps.
        return recipe.learning_rate * 0.1 ** (
            int(progress * (recipe.steps or recipe.epochs) + 1e-9) // recipe.step_epochs
        )
    rise = {"one-cycle": 0.25, "cosine": 0.0}[recipe.schedule]
    if progress < rise:
        return recipe.learning_rate * (0.04 + 0.96 * progress / rise)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def augment(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Return the images, each mirrored, moved and cropped at random as the recipe says.

    They move by up to `recipe.shift` pixels, with edges repeated. Crops are those of Inception (Szegedy et al. 2015)
    and torchvision's ``RandomResizedCrop``: 8% to 100% of the area, sides from 3 to 4 up to 4 to 3, resized back.

    Args:
        images: uint8 of shape (n, channels, height, width).
        recipe: Says what is done.
        generator: Draws on the CPU, so that all devices do the same.
    """
    count, _, height, width = images.shape
    device = images.device
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored.to(device).view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.shift:
        moves = torch.randint(-recipe.shift, recipe.shift + 1, (2, count, 1), generator=generator).to(device)
        rows = (torch.arange(height, device=device) + moves[0]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=device) + moves[1]).clamp_(0, width - 1)
        which = torch.arange(count, device=device)[:, None, None]
        # The result has channels last, the layout that convolutions prefer.
        images = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if recipe.crop:
        images = cropped(images, crop_boxes(count, generator, aspect=width / height).to(device))
    return images


def crop_boxes(count: int, generator: torch.Generator, *, aspect: float = 1.0) -> torch.Tensor:
    """Return random boxes, float32 of shape (count, 4): left, top, width and height as shares of the image.

    Args:
        count: How many.
        generator: Draws them, with ten tries for each; if none fits, the box is the whole image.
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
    """Return the parts of the images in the boxes (`crop_boxes`), resized back by bilinear sampling."""
    left, top, width, height = boxes.T
    nothing = torch.zeros_like(left)
    # Coordinates run from -1 to 1 between the image's edges.
    maps = [[width, nothing, 2 * left + width - 1], [nothing, height, 2 * top + height - 1]]
    grid = F.affine_grid(torch.stack([torch.stack(row, 1) for row in maps], 1), list(images.shape), align_corners=False)
    return (
        F.grid_sample(images.to(grid.dtype), grid, padding_mode="border", align_corners=False).round_().to(torch.uint8)
    )


def _size(images: torch.Tensor | Rows) -> str:
    return f"{images.shape[2]} x {images.shape[3]}"
