"""Devices: which one, half precision, and images that stay on the GPU or stream to it.

On the CPU, nothing here changes a number or the order of the random draws.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from extractlib.data.images import Rows
from extractlib.errors import InputError, check_choice

RESIDENT = 0.5
"""Share of a GPU's free memory that images may take; the rest is for the network and its batches."""


def default_device() -> str:
    """Return what EXTRACTLIB_DEVICE names, else ``"cuda"`` if there is a GPU, else ``"cpu"``.

    Meant for a program's outermost layer: below it, devices are passed as arguments.
    """
    return os.environ.get("EXTRACTLIB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def resolve(device: str | torch.device) -> torch.device:
    """Return the device with that name, or a device as it is.

    Raises:
        InputError: The name is neither ``"cpu"`` nor ``"cuda"`` nor ``"cuda:NUMBER"``, or there is no such GPU.
    """
    device = str(device)
    kind, _, number = device.partition(":")
    check_choice("device", kind if number.isdecimal() or not number else device, ("cpu", "cuda"))
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} was requested, but there is no GPU that torch can use: use cpu")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {device!r} was requested, but there are {torch.cuda.device_count()} GPUs: count from 0"
        )
    return torch.device(device)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model is: where its first weight is, and the CPU if it has none."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def half(device: str | torch.device) -> torch.dtype | None:
    """Return the half precision that the device supports in hardware, so that it saves time.

    This is bfloat16; without it, float16 on a GPU and None on a CPU.
    """
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else None


def autocast(device: torch.device) -> torch.autocast:
    """Return a context of half precision, if the device supports it.

    Only for training and for frozen layers: what a trained model answers must not depend on the device.
    """
    kind = half(device)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Let cuDNN choose its algorithms by trial on a GPU, unless the user wants deterministic ones.

    What else the user has set stays. It is a setting of the process, so this is for training, not for answering, which
    several threads may do at once.
    """
    before = torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def enough_memory(device: torch.device, *, needs: str) -> Iterator[None]:
    """Report if memory runs out.

    Args:
        device: Where the work is done.
        needs: What the memory is for and what would lower it, as in ``"batches of 64 images: lower the batch size"``.

    Raises:
        InputError: There was not enough memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[1:3])
        raise InputError(f"{device} has too little memory ({asked}) for {needs}") from None


def placed(images: torch.Tensor | Rows, device: torch.device) -> torch.Tensor | Rows:
    """Return the images on the device if they take at most `RESIDENT` of its free memory, else where they are."""
    if device.type == "cuda" and images.nbytes > RESIDENT * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def batches(
    images: torch.Tensor | Rows, chosen: Iterable[torch.Tensor], device: torch.device
) -> Iterator[torch.Tensor]:
    """Yield the images at each of the indices, on the device.

    Images that are not there yet go through pinned memory, so a batch is read while the GPU computes on the previous
    one, and a memory-mapped set is never entirely in memory.

    Args:
        images: uint8 of shape (n, channels, height, width), as `placed` returns them.
        chosen: Indices of each batch, int64 of shape (batch,), on the CPU.
        device: Where to put them.
    """
    for indices in chosen:
        if images.device.type == device.type:
            yield images[indices.to(device)]
        else:
            yield images[indices].pin_memory().to(device, non_blocking=True)
