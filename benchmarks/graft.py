"""Put changed code into functions that are already loaded, so that a changed module need not be imported again."""

import gc
import inspect
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType

Pair = tuple[CodeType, CodeType]
"""A function's code before and after."""


def shape(code: CodeType, *, inner: bool = True) -> tuple:
    """Return what code does, whatever its line numbers, with or without the functions in it."""
    constants = (
        (shape(one) if inner else "code") if isinstance(one, CodeType) else (type(one), repr(one))
        for one in code.co_consts
    )
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_qualname, code.co_code, *names, tuple(constants)


def pairs(before: CodeType, after: CodeType) -> list[Pair] | None:
    """Return the functions of a module that differ; None if what runs at import differs.

    Args:
        before, after: The compiled module.
    """
    found: list[Pair] = []
    return found if _collect(before, after, found) else None


def _collect(before: CodeType, after: CodeType, found: list[Pair]) -> bool:
    runs_at_import = not before.co_flags & inspect.CO_OPTIMIZED  # a module or the body of a class
    if shape(before) == shape(after):
        return True
    if not runs_at_import:
        found.append((before, after))
    if shape(before, inner=False) != shape(after, inner=False):
        return not runs_at_import
    inner = ([one for one in code.co_consts if isinstance(one, CodeType)] for code in (before, after))
    return all([_collect(*both, found) for both in zip(*inner, strict=True)])


def functions(file: str) -> list[FunctionType]:
    """Return all loaded functions of a file."""
    return [one for one in gc.get_objects() if isinstance(one, FunctionType) and one.__code__.co_filename == file]


def graft(loaded: Iterable[FunctionType], changed: Iterable[Pair]) -> bool:
    """Give loaded functions their changed code; return whether any of them fit."""
    known = {shape(before): after for before, after in changed}
    try:
        return any([_changed(one, known[shape(one.__code__)]) for one in loaded if shape(one.__code__) in known])
    except ValueError:  # it uses other variables of the function around it
        return False


def _changed(function: FunctionType, code: CodeType) -> bool:
    function.__code__ = code
    return True


def compiled(text: str) -> CodeType:
    """Return a compiled module, with no compiler option of this one."""
    return compile(text, "<changed>", "exec", dont_inherit=True)


def differences(before: str, after: str) -> Iterator[Pair]:
    """Yield the functions of a module that differ, or nothing if what runs at import differs."""
    yield from pairs(compiled(before), compiled(after)) or ()
