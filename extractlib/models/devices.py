"""Devices: which one, half precision, and images that lie on the GPU or stream to it.

On the CPU nothing here changes a number or the order of the random draws.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from extractlib.errors import InputError, check_choice

RESIDENT = 0.5
"""Share of a GPU's free memory that images may take; the rest is for the network and its batches."""


def default_device() -> str:
    """Return what EXTRACTLIB_DEVICE names, else ``"cuda"`` where there is a GPU, else ``"cpu"``.

    For a program's outermost layer: below it, devices are passed.
    """
    return os.environ.get("EXTRACTLIB_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def resolve(device: str) -> torch.device:
    """Return the device of that name, with its number if it is a GPU.

    Raises:
        InputError: The name is neither ``"cpu"`` nor ``"cuda"`` nor ``"cuda:NUMBER"``, or there is no such GPU.
    """
    kind, _, number = device.partition(":")
    check_choice("device", kind if number.isdecimal() or not number else device, ("cpu", "cuda"))
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"device {device!r} is asked for and there is no GPU that torch can use: use cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise InputError(f"device {device!r} is asked for and there are {torch.cuda.device_count()} GPUs: count from 0")
    return torch.device("cuda", int(number) if number else torch.cuda.current_device())


def device_of(model: nn.Module) -> torch.device:
    """Return where a model is: where its first weight is, and the CPU if it has none."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def has_bfloat16(device: str | torch.device) -> bool:
    """Say whether the device computes in bfloat16 in hardware, so that mixed precision saves time."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def half(device: str | torch.device) -> torch.dtype | None:
    """Return the half precision to compute in: bfloat16, float16 on a GPU without it, None on a processor without."""
    if has_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if torch.device(device).type == "cuda" else None


def autocast(device: torch.device) -> torch.autocast:
    """Return the context in which networks compute in the device's half precision, if it has one."""
    kind = half(device)
    return torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None)


@contextmanager
def tuned(device: torch.device, *, needs: str) -> Iterator[None]:
    """Let cuDNN choose its algorithms by trial, and tell in one line where the device's memory ends.

    Args:
        device: Where the work is done.
        needs: What the memory is for and what would lower it, as in ``"batches of 64 images: lower the batch size"``.

    Raises:
        InputError: The memory did not suffice.
    """
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=device.type == "cuda"):
            yield
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[1:3])
        raise InputError(f"{device} has too little memory ({asked}) for {needs}") from None


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what layers draw by themselves, as dropout does, and leave the caller's generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


# -- images on their way to the device ---------------------------------------


def placed(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the images on the device if they take at most `RESIDENT` of its free memory, else where they are."""
    if device.type == "cuda" and images.nbytes > RESIDENT * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def batches(images: torch.Tensor, chosen: Iterable[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the images at each of the indices, on the device.

    What does not lie there is read two batches ahead by a thread, into pinned memory and on a stream of its own, so
    that a memory-mapped set is never in memory whole.

    Args:
        images: uint8 of shape (n, 3, height, width), as `placed` returns them.
        chosen: Indices of each batch, int64 of shape (batch,), on the CPU.
        device: Where they are wanted.
    """
    if images.device.type == device.type:
        for indices in chosen:
            yield images[indices.to(device)]
        return
    stream = torch.cuda.Stream(device)

    def load(indices: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return images[indices].pin_memory().to(device, non_blocking=True), stream.record_event()

    for batch, copied in read_ahead(load, chosen):
        now = torch.cuda.current_stream(device)
        now.wait_event(copied)
        batch.record_stream(now)
        yield batch


def read_ahead(load: Callable[[Any], Any], items: Iterable, *, count: int = 2) -> Iterator:
    """Yield load(item) of each item in order, while a thread loads the next `count`."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque = deque()
        for item in items:
            waiting.append(reader.submit(load, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
