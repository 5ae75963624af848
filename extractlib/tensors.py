"""Whether a value is a tensor of numbers, what to call it in a message if it is not, and random draws of one's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch

CLOSE = 1e-3
"""How far the sum of a row of probabilities may be from 1."""


def is_plain(value: object) -> TypeGuard[torch.Tensor]:
    """Return whether a value is a tensor of real numbers in memory: not sparse, complex, quantized or meta."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not (value.is_complex() or value.is_quantized or value.is_meta)
    )


def kind_of(value: object) -> str:
    """Return a description of a value that does not fit, for a message: ``"(3, 4)"``, ``"a NoneType"``."""
    if is_plain(value):
        return str(tuple(value.shape))
    if isinstance(value, torch.Tensor):
        return f"a tensor of {value.dtype} that is sparse, complex, quantized or without data"
    return f"a {type(value).__name__}"


@contextmanager
def own_draws(device: torch.device, *, seed: int | None = None) -> Iterator[None]:
    """Leave the caller's random draws as they would have been, whatever is drawn in this context.

    Args:
        device: Where it draws, besides the CPU: a GPU, or the CPU itself.
        seed: What the draws are seeded with at the start (see `seed_draws`); None to go on from the caller's.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            seed_draws(seed, device)
        yield


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of the device, if that is a GPU; all other GPUs' stay as they are.

    Args:
        seed: The seed, a whole number.
        device: Where there will be draws, besides the CPU.
    """
    # Not torch.manual_seed, which reseeds every GPU, and fork_rng would restore only those that it is given.
    torch.default_generator.manual_seed(int(seed))
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(int(seed))
