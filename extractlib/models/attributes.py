"""What a module of your own is besides its weights: the plain attributes that may determine what it returns."""

import re
import weakref
from collections.abc import Iterator, Mapping, Set
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from extractlib.models import networks
from extractlib.store import digest
from extractlib.tensors import is_plain

Attribute = tuple[str, str, object]
"""The name of an inner module, that of its attribute, and the value or what stands for it."""

PLAIN = (
    int | float | complex | str | bytes | range | slice | None | Enum | Path | np.generic | torch.dtype | torch.device
)
"""Values that their ``repr`` tells from all others."""


TORCHS = frozenset(name for name in dir(nn.Module()) if name[0] == "_") | {"training"}
"""Attributes that torch sets on every module; the weights among them count by themselves."""


class Unknown(Exception):
    """A value may be anything, such as an open connection: nothing tells it from another one."""


def attributes_of(model: nn.Module, *, unknown: str) -> list[Attribute]:
    """Return the plain attributes of a wrapped module and of those inside it, and the code of scripted ones.

    Args:
        model: A model that takes uint8 images; one of the package's networks has no such attributes.
        unknown: What stands for a value that nothing tells from another, and for all that a module without weights, or
            with weights that are not tensors of numbers, may answer from.
    """
    if not isinstance(model, networks.FromFloats):
        return []
    found = [found for name, one in model.module.named_modules() for found in _attributes(name, one, unknown)]
    state = model.state_dict().values()
    return found if state and all(map(is_plain, state)) else [*found, ("", "unknown", unknown)]


def checksums_of(model: nn.Module) -> list[tuple[int, int, str]]:
    """Return where the weights and running statistics are, how often they were changed, and their sums.

    The sum tells of changes through ``.data``, which are not counted.
    """
    tensors = [*model.parameters(), *model.buffers()]
    with torch.no_grad():
        return [
            (one.data_ptr(), 0 if one.is_inference() else one._version, str(one.sum(dtype=_exact(one)).item()))
            for one in tensors
        ]


def _exact(tensor: torch.Tensor) -> torch.dtype:
    if tensor.is_complex():
        return torch.complex128
    return torch.float64 if tensor.is_floating_point() and tensor.device.type != "mps" else tensor.dtype


def _attributes(name: str, module: nn.Module, unknown: str) -> Iterator[Attribute]:
    if isinstance(module, torch.jit.ScriptModule):
        yield name, "graph", _graph_of(module)
        return
    torchs = type(module).__module__.startswith("torch.")
    for attribute, value in sorted(vars(module).items()):
        # What torch's own layers keep under such names follows from the rest, as the weights of a recurrent one.
        if attribute in TORCHS or value is None or (torchs and attribute[0] == "_"):
            continue
        try:
            yield name, attribute, _told(value)
        except (Unknown, RecursionError):
            yield name, attribute, unknown


def _graph_of(module: torch.jit.ScriptModule) -> str:
    """Return what a scripted module computes, without what differs between two of the same: places and numbered names.

    That of its submodules is part of it; one of these may have none of its own.
    """
    return re.sub(r" # .*|___torch_mangle_\d+\.", "", str(getattr(module, "inlined_graph", "")))


def _told(value: object) -> object:
    """Return a value whose ``repr`` is the same in each process and tells the value from others.

    Raises:
        Unknown: There is none.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), networks.fingerprint_of({"": value}))
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ("array", str(value.dtype), value.shape, digest(np.ascontiguousarray(value).tobytes()))
    if isinstance(value, weakref.ref):  # in torch's recurrent layers
        return _told(value())
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, Set):
        return ("set", sorted(repr(_told(one)) for one in value))
    if isinstance(value, Mapping):
        return ("mapping", [(_told(key), _told(one)) for key, one in value.items()])
    if isinstance(value, nn.Module):
        return ("module", repr(value), networks.fingerprint_of(value.state_dict()))
    if isinstance(value, partial):
        return ("partial", _told(value.func), _told(value.args), _told(value.keywords))
    if callable(value) and "<" not in (name := getattr(value, "__qualname__", "<")):
        return f"{value.__module__}.{name}"  # a class, or a function that is not made anew by each call
    if callable(value) or not hasattr(value, "__dict__"):
        raise Unknown
    return (type(value).__qualname__, _told(vars(value)))
