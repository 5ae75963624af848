"""Whether a value is a tensor of numbers, and what to call it in a message if it is not."""

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
