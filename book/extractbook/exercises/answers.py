"""Answers as plain data, and how one differs from another."""

from collections.abc import Callable
from typing import Any

import numpy as np

from extractlib.errors import InputError

KINDS = {bool: "a truth value", int: "a whole number", float: "a number", str: "text", list: "a list"}
LARGEST = 10_000_000
"""Most values that an answer may hold."""
NEAR = 0.01
"""Relative difference below which a number may only have been rounded."""
ARRAYS = {"b": ("truth values", np.bool_), "i": ("whole numbers", np.int64), "f": ("numbers", np.float64)}


def plain(value: Any) -> Any:
    """Return `value` as plain data: bool, int, float, str, an array of bool, int64 or float64, or a list of such.

    Tensors become arrays, arrays without dimensions become numbers, and tuples and sets become lists. Size and type are
    checked before anything is copied.

    Raises:
        InputError: It is of another type or contains a value of one, it is too large, its lists are nested too deeply,
            or its own code fails while it is read.
    """
    try:
        return _plain(value, depth=8)
    except InputError:
        raise
    except Exception as error:  # from the reader's own class
        kind = type(error).__name__
        raise InputError(f"an answer that raises {kind} when it is read cannot be checked: give numbers") from None


def _plain(value: Any, *, depth: int) -> Any:
    if hasattr(value, "detach") and hasattr(value, "is_quantized"):  # a tensor
        if value.is_sparse or value.is_quantized or value.is_meta or value.is_complex():
            raise InputError("a tensor that is sparse, quantized, complex or without data cannot be checked")
        _require_size(value.numel())
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        _require_size(value.size)
        value = value.astype(ARRAYS[value.dtype.kind.replace("u", "i")][1])
        return value if value.ndim else value.item()
    if isinstance(value, int) and abs(int(value)) >= 2**63:
        raise InputError("a whole number of more than 63 bits cannot be checked: give a smaller one")
    if isinstance(value, bool | int | float | str):
        return next(kind for kind in (bool, int, float, str) if isinstance(value, kind))(value)
    if isinstance(value, list | tuple | set | frozenset):
        _require_size(len(value))
        if not depth:
            raise InputError("lists nested that deeply cannot be checked: give an array")
        parts = [_plain(part, depth=depth - 1) for part in value]
        return parts if isinstance(value, list | tuple) else sorted(parts, key=str)
    raise InputError(f"a value of type {type(value).__name__} cannot be checked: give numbers, text or arrays")


def _require_size(count: int) -> None:
    if count > LARGEST:
        raise InputError(f"{count:,} values cannot be checked: give at most {LARGEST:,}")


def fitted(given: Any, right: Any) -> Any:
    """Return `given` converted to the type of `right`; their values and shapes may differ.

    Raises:
        InputError: It cannot be converted, or contains NaN or an infinite value.
    """
    if isinstance(right, list):
        given = given.tolist() if isinstance(given, np.ndarray) else given
        _require(isinstance(given, list), given, KINDS[list])
        if not _are_names(right) and len(given) != len(right):
            raise InputError(f"there are {len(given)} values: expected {len(right)}")
        return [fitted(*pair) for pair in zip(given, [""] * len(given) if _are_names(right) else right, strict=True)]
    if isinstance(right, np.ndarray):
        kind = right.dtype.kind
        array = _of_kind(_as_array(given), kind)
        _require(array is not None, given, f"an array of {ARRAYS[kind][0]}")
        given = array
    elif isinstance(right, bool | str):
        _require(isinstance(given, type(right)), given, KINDS[type(right)])
    else:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        _require(number and (isinstance(right, float) or float(given).is_integer()), given, KINDS[type(right)])
    if isinstance(given, float | np.ndarray) and not np.isfinite(given).all():
        raise InputError(
            "the result contains NaN or an infinite value: look for a division by zero, a logarithm of zero, zero "
            "times infinity, or an exponential that overflows"
        )
    return given


def _of_kind(array: np.ndarray | None, kind: str) -> np.ndarray | None:
    """Return an array as the kind that is wanted, ``"b"``, ``"i"`` or ``"f"``, if no value is lost."""
    if array is None or array.dtype.kind in ("if" if kind == "f" else kind):
        return array
    wanted: np.ndarray | None = array.astype(ARRAYS[kind][1]) if np.isfinite(array).all() else None
    return wanted if kind != "f" and wanted is not None and np.array_equal(wanted, array) else None


def _as_array(given: object) -> np.ndarray | None:
    try:
        array = plain(np.asarray(given)) if isinstance(given, list) else given
    except (ValueError, OverflowError, InputError):
        return None
    return array if isinstance(array, np.ndarray) else None


def _require(fits: bool, given: Any, kind: str) -> None:
    if not fits:
        raise InputError(f"the answer is {kind_of(given)}: expected {kind}")


def kind_of(given: Any) -> str:
    """Return a description of what an answer is."""
    if issubclass(type(given), np.ndarray):  # not isinstance, which runs the object's own code
        return f"an array of {ARRAYS[given.dtype.kind][0]}" if given.dtype.kind in ARRAYS else "an array of objects"
    if type(given) in KINDS:
        return KINDS[type(given)] + (f", {given!r:.60}" if not isinstance(given, list) else "")
    return f"of type {type(given).__name__}"


def _are_names(value: list) -> bool:
    return all(isinstance(part, str) for part in value)


def difference(given: Any, right: Any, *, tolerance: float) -> str | None:
    """Return how `given`, which `fitted` returned, differs from `right`, or None if it does not.

    The reason names the kind of mistake and never the right value. Texts are compared without regard to case and
    spacing, and lists of texts without regard to order. Numbers may differ by `tolerance`, relative to the largest;
    whole numbers must be equal.
    """
    if isinstance(right, str):
        return None if normalized(given) == normalized(right) else "a different answer is right"
    if isinstance(right, list) and _are_names(right):
        names, wanted = set(map(normalized, given)), set(map(normalized, right))
        missing, extra = len(wanted - names), len(names - wanted)
        words = f"{missing} of the right names {'is' if missing == 1 else 'are'} missing, and {extra} too many"
        return words if missing or extra else None
    if isinstance(right, list):
        reasons = [difference(*pair, tolerance=tolerance) for pair in zip(given, right, strict=True)]
        return next(
            (f"in part {part} of {len(right)}, {reason}" for part, reason in enumerate(reasons, 1) if reason), None
        )
    exact = isinstance(right, int) or (isinstance(right, np.ndarray) and right.dtype.kind in "bi")
    show = bool if np.asarray(right).dtype.kind == "b" else "{:.6g}".format
    return _numbers_differ(np.asarray(given, float), np.asarray(right, float), 0.0 if exact else tolerance, show)


def normalized(text: str) -> str:
    """Return a text in lowercase with single spaces."""
    return " ".join(text.casefold().split())


def share_named(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of victims whose start is named correctly, in any case and spacing, and this number's name."""
    named = [normalized(given) == normalized(right) for given, right in zip(found, wanted, strict=True)]
    return float(np.mean(named)), "the share of victims named correctly"


def _numbers_differ(
    given: np.ndarray, right: np.ndarray, tolerance: float, show: Callable[[float], object]
) -> str | None:
    if given.shape != right.shape:
        return f"the shape is {given.shape}: expected {right.shape}"
    within = tolerance * np.abs(right).max(initial=0)

    def equal(first: np.ndarray, second: np.ndarray) -> bool:
        return bool((np.abs(first - second) <= within).all())

    size = "large" if (given > right).all() else "small"
    factor = (given * right).sum() / max((right * right).sum(), 1e-300)
    if equal(given, right):
        return None
    if equal(given, -right):
        return "the sign is reversed"
    if not right.ndim:
        near = tolerance and abs(given - right) < NEAR * abs(right)
        rounded = any(np.isclose(given, np.round(right, digits), rtol=1e-9, atol=0) for digits in range(7))
        how = ", by less than 1%" * bool(near) + ": give all digits" * bool(near and rounded)
        return f"the number, {show(given.item())}, is too {size}{how}"
    if right.ndim == 2 and np.allclose(right.sum(1), 1, atol=1e-3) and not np.allclose(given.sum(1), 1, atol=1e-3):
        return "the rows do not sum to 1"
    if equal(np.sort(given, None), np.sort(right, None)):
        return "the values are right, but their order is not"
    if equal(given, factor * right) and factor:
        return f"all values are too {'large' if abs(factor) > 1 else 'small'}, by the same factor"
    if equal(given - right, (given - right).mean()):
        return f"all values are too {size}, by the same amount"
    wrong = np.argwhere(np.abs(given - right) > within)
    place = tuple(wrong[0].tolist())
    where = f"index {place[0] if len(place) == 1 else place}"
    return f"{len(wrong)} of {right.size} values are wrong, the first at {where}, where yours is {show(given[place])}"
