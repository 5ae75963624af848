"""What an exercise is about doing without: a reader's function that calls it is stopped.

It is named by the place where it is found, each with what a message calls it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pkgutil import resolve_name
from types import CodeType
from typing import Any, NoReturn
from unittest import mock

from extractlib.errors import InputError

SHIPPED_AND_DRAWN = {
    "extractlib.models.classifier.Victim.load": "the shipped victims",
    "extractlib.data.drawn.draw": "the package's pictures",
    "extractlib.data.drawn.canvas.Sketch": "the package's pictures",
}
"""Everything that an attacker with nothing but an API would not have."""
DERIVATIVES = dict.fromkeys(
    ("torch.autograd.grad", "torch.autograd.backward", "torch.autograd.forward_ad.make_dual"),
    "automatic differentiation",
)


@contextmanager
def without(names: Mapping[str, str]) -> Iterator[None]:
    """Replace functions, methods and classes by ones that raise an `InputError`."""
    with ExitStack() as stack:
        for name, what in names.items():
            stack.enter_context(mock.patch(name, _refusing(what)))
        yield


def check_own(function: Callable, names: Mapping[str, str]) -> None:
    """Check that a function is none of the named ones and refers to none of them by a name of its own.

    Raises:
        InputError: It is or does.
    """
    used = [function, *_globals_of(function)]
    for name, what in names.items():
        if any(resolve_name(name) is one for one in used):
            _refusing(what)()


def _refusing(what: str) -> Callable:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise InputError(f"this exercise is about doing without {what}")

    return refuse


def _globals_of(function: Callable) -> list[Any]:
    """Return the global values that the code of a function may use; none for a function that is not Python's."""
    code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    return [known[name] for name in _names(code) if name in known] if isinstance(code, CodeType) else []


def _names(code: CodeType) -> set[str]:
    """Return the names in code and in the functions that it defines."""
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)
