"""Answers as plain data, and in what way one differs from another."""

import numpy as np
import torch

from extractlib.errors import InputError

KINDS = {bool: "a truth value", int: "a whole number", float: "a number", str: "a text", list: "a list"}
ARRAYS = {"b": ("truth values", np.bool_), "i": ("whole numbers", np.int64), "f": ("numbers", np.float64)}


def plain(value: object) -> object:
    """Return `value` as plain data: bool, int, float, str, an array of bool, int64 or float64, or a list of such.

    Tensors become arrays, an array of no dimension a number, tuples and sets lists.

    Raises:
        InputError: It is of another type, or holds such a one.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        _, dtype = ARRAYS[value.dtype.kind.replace("u", "i")]
        return value.astype(dtype) if value.ndim else value.item()
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError("a whole number of more than 63 bits cannot be checked: give a smaller one")
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in value), key=str)
    raise InputError(f"a value of type {type(value).__name__} cannot be checked: give numbers, texts or arrays")


def fitted(given: object, right: object) -> object:
    """Return `given` in the type of `right`, whose values and shape it need not have.

    Raises:
        InputError: It is of another type, or holds NaN or an infinite value.
    """
    if isinstance(right, list):
        return _fitted_list(given, right)
    if isinstance(right, np.ndarray):
        given = _fitted_array(given, right.dtype.kind)
    elif isinstance(right, bool | str):
        _require(isinstance(given, type(right)), given, KINDS[type(right)])
    else:
        number = isinstance(given, int | float) and not isinstance(given, bool)
        _require(number and (isinstance(right, float) or float(given).is_integer()), given, KINDS[type(right)])
    for name, test in (("NaN", np.isnan), ("an infinite value", np.isinf)):
        if isinstance(given, float | np.ndarray) and test(given).any():
            raise InputError(f"it holds {name}: finite numbers are wanted")
    return given


def _fitted_array(given: object, kind: str) -> np.ndarray:
    try:
        array = plain(np.asarray(given)) if isinstance(given, list) else given
    except (ValueError, OverflowError, InputError):
        array = None
    fits = isinstance(array, np.ndarray) and array.dtype.kind in ("if" if kind == "f" else kind)
    _require(fits, given, f"an array of {ARRAYS[kind][0]}")
    return array


def _fitted_list(given: object, right: list) -> list:
    given = given.tolist() if isinstance(given, np.ndarray) else given
    _require(isinstance(given, list), given, KINDS[list])
    if _are_names(right):
        return [fitted(part, "") for part in given]
    if len(given) != len(right):
        raise InputError(f"{len(given)} values where {len(right)} are wanted")
    return [fitted(*pair) for pair in zip(given, right, strict=True)]


def _require(fits: bool, given: object, kind: str) -> None:
    if fits:
        return
    if isinstance(given, np.ndarray):
        what = f"an array of {ARRAYS[given.dtype.kind][0]}"
    else:
        what = KINDS.get(type(given), "nothing")
        what = what if isinstance(given, list) else f"{given!r:.60} is {what}"
    raise InputError(f"{what} where {kind} is wanted")


def _are_names(value: list) -> bool:
    return all(isinstance(part, str) for part in value)


def difference(given: object, right: object, *, tolerance: float) -> str | None:
    """Return in what way `given`, which `fitted` returned, differs from `right`, or None where it does not.

    The words tell the kind of the mistake and never the value. Texts are equal whatever their case and spaces; lists of
    texts in whatever order; numbers up to `tolerance`, relative to the largest, and whole ones exactly.
    """
    if isinstance(right, str):
        return None if normalized(given) == normalized(right) else "another answer is right"
    if isinstance(right, list) and _are_names(right):
        return _names_differ(set(map(normalized, given)), set(map(normalized, right)))
    if isinstance(right, list):
        parts = enumerate(zip(given, right, strict=True), start=1)
        reasons = ((number, difference(*pair, tolerance=tolerance)) for number, pair in parts)
        return next((f"in part {number} of {len(right)}, {reason}" for number, reason in reasons if reason), None)
    exact = isinstance(right, int) or (isinstance(right, np.ndarray) and right.dtype.kind in "bi")
    return _numbers_differ(np.asarray(given, float), np.asarray(right, float), 0.0 if exact else tolerance)


def normalized(text: str) -> str:
    """Return a text in small letters with single spaces."""
    return " ".join(text.casefold().split())


def _names_differ(given: set[str], right: set[str]) -> str | None:
    missing, extra = len(right - given), len(given - right)
    if not missing and not extra:
        return None
    return f"{missing} of the right names {'is' if missing == 1 else 'are'} missing, and {extra} too many"


def _numbers_differ(given: np.ndarray, right: np.ndarray, tolerance: float) -> str | None:
    if given.shape != right.shape:
        return f"shape {given.shape} where {right.shape} is wanted"

    def equal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first - second) <= tolerance * np.abs(right).max(initial=0)

    if equal(given, right).all():
        return None
    if equal(given, -right).all():
        return "the sign is turned round"
    if not right.ndim:
        return f"the number is too {'large' if given > right else 'small'}"
    if right.ndim == 2 and _sum_to_one(right) and not _sum_to_one(given):
        return "the rows do not sum to 1"
    if equal(np.sort(given, None), np.sort(right, None)).all():
        return "the values are right and their order is not"
    factor = (given * right).sum() / max((right * right).sum(), 1e-300)
    if equal(given, factor * right).all() and factor:
        return f"all values are too {'large' if abs(factor) > 1 else 'small'}, by the same factor"
    if equal(given - right, (given - right).mean()).all():
        return f"all values are too {'large' if (given > right).all() else 'small'}, by the same amount"
    return f"{(~equal(given, right)).sum()} of {right.size} values are wrong"


def _sum_to_one(rows: np.ndarray) -> bool:
    return bool((np.abs(rows.sum(1) - 1) < 1e-3).all())
