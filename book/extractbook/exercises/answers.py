"""Answers as plain data, and in what way one differs from another."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from extractlib.errors import InputError

KINDS = {bool: "a truth value", int: "a whole number", float: "a number", str: "a text", list: "a list"}
ARRAY_KINDS = {"b": "truth values", "i": "whole numbers", "f": "numbers"}


@dataclass(frozen=True)
class Raised:
    """Stands for the output of a function that has failed."""

    message: str


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
        kept = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}[value.dtype.kind]
        return value.astype(kept) if value.ndim else value.item()
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InputError("a whole number of more than 63 bits cannot be checked: give a smaller one")
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in value), key=str)
    raise InputError(f"a value of type {type(value).__name__} cannot be checked: give numbers, texts or arrays")


def to_json(value: object) -> object:
    """Return plain data or `Raised` in a form that JSON can hold; `from_json` undoes it."""
    if isinstance(value, Raised):
        return {"raised": value.message}
    if isinstance(value, np.ndarray):
        return {"array": value.ravel().tolist(), "dtype": value.dtype.name, "shape": list(value.shape)}
    return [to_json(part) for part in value] if isinstance(value, list) else value


def from_json(value: object) -> object:
    """Return the plain data that `to_json` was given.

    Raises:
        InputError: It is not of that form.
    """
    if isinstance(value, list):
        return [from_json(part) for part in value]
    if not isinstance(value, dict):
        return plain(value)
    if isinstance(value.get("raised"), str):
        return Raised(value["raised"])
    try:
        if value["dtype"] not in ("bool", "int64", "float64"):
            raise ValueError
        return np.array(value["array"], value["dtype"]).reshape(value["shape"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError("the answer is no array that can be read") from None


def fitted(found: object, wanted: object) -> object:
    """Return `found` in the type of `wanted`, whose values and shape it need not have.

    Raises:
        InputError: It is of another type, or holds NaN or an infinite value.
    """
    if isinstance(wanted, np.ndarray):
        return _fitted_array(found, wanted)
    if isinstance(wanted, list):
        return _fitted_list(found, wanted)
    if isinstance(wanted, bool | str):
        fits = isinstance(found, type(wanted))
    else:
        fits = isinstance(found, int | float) and not isinstance(found, bool)
        fits = fits and (isinstance(wanted, float) or float(found).is_integer())
    if not fits:
        raise InputError(f"{_described(found)} where {KINDS[type(wanted)]} is wanted")
    _finite(found)
    return found


def _fitted_array(found: object, wanted: np.ndarray) -> np.ndarray:
    kind = wanted.dtype.kind
    try:
        array = plain(np.asarray(found)) if isinstance(found, list) else found
    except (ValueError, OverflowError, InputError):
        array = None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in ("if" if kind == "f" else kind):
        raise InputError(f"{_described(found)} where an array of {ARRAY_KINDS[kind]} is wanted")
    _finite(array)
    return array


def _fitted_list(found: object, wanted: list) -> list:
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if not isinstance(found, list):
        raise InputError(f"{_described(found)} where a list is wanted")
    if _are_names(wanted):
        return [fitted(part, "") for part in found]
    if len(found) != len(wanted):
        raise InputError(f"{len(found)} values where {len(wanted)} are wanted")
    return [fitted(*pair) for pair in zip(found, wanted, strict=True)]


def _finite(found: object) -> None:
    if isinstance(found, float | np.ndarray):
        for name, test in (("NaN", np.isnan), ("an infinite value", np.isinf)):
            if test(found).any():
                raise InputError(f"it holds {name}: finite numbers are wanted")


def _described(found: object) -> str:
    """Return what `found` is, in words; of a single value, the value too."""
    if isinstance(found, np.ndarray):
        return f"an array of {ARRAY_KINDS[found.dtype.kind]}"
    kind = KINDS.get(type(found), "nothing")
    return kind if isinstance(found, list) else f"{found!r:.60} is {kind}"


def _are_names(value: list) -> bool:
    return all(isinstance(part, str) for part in value)


def difference(found: object, wanted: object, *, tolerance: float) -> str | None:
    """Return in what way `found`, which `fitted` returned, differs from `wanted`, or None where it does not.

    The words tell the kind of the mistake and never the value. Texts are equal whatever their case and spaces; lists of
    texts in whatever order; numbers up to `tolerance`, relative to the largest, and whole ones exactly.
    """
    if isinstance(wanted, str):
        return None if words(found) == words(wanted) else "another answer is right"
    if isinstance(wanted, list) and _are_names(wanted):
        return _names_differ(set(map(words, found)), set(map(words, wanted)))
    if isinstance(wanted, list):
        parts = enumerate(zip(found, wanted, strict=True), start=1)
        reasons = ((number, difference(*pair, tolerance=tolerance)) for number, pair in parts)
        return next((f"in part {number} of {len(wanted)}, {reason}" for number, reason in reasons if reason), None)
    exact = isinstance(wanted, int) or (isinstance(wanted, np.ndarray) and wanted.dtype.kind in "bi")
    return _numbers_differ(np.asarray(found, float), np.asarray(wanted, float), 0.0 if exact else tolerance)


def words(text: str) -> str:
    """Return a text in small letters with single spaces."""
    return " ".join(text.casefold().split())


def _names_differ(found: Iterable[str], wanted: Iterable[str]) -> str | None:
    missing, extra = len(wanted - found), len(found - wanted)
    if not missing and not extra:
        return None
    return f"{missing} of the right names {'is' if missing == 1 else 'are'} missing, and {extra} too many"


def _numbers_differ(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> str | None:
    if found.shape != wanted.shape:
        return f"shape {found.shape} where {wanted.shape} is wanted"
    scale = tolerance * np.abs(wanted).max(initial=0)

    def equal(first, second) -> np.ndarray:
        return np.abs(first - second) <= scale

    if equal(found, wanted).all():
        return None
    if equal(found, -wanted).all():
        return "the sign is turned round"
    if not wanted.ndim:
        return "the number is too large" if found > wanted else "the number is too small"
    if wanted.ndim == 2 and _sum_to_one(wanted) and not _sum_to_one(found):
        return "the rows do not sum to 1"
    if equal(np.sort(found, None), np.sort(wanted, None)).all():
        return "the values are right and their order is not"
    factor = (found * wanted).sum() / max((wanted * wanted).sum(), 1e-300)
    if equal(found, factor * wanted).all() and factor:
        return f"all values are too {'large' if abs(factor) > 1 else 'small'}, by the same factor"
    if equal(found - wanted, (found - wanted).mean()).all():
        return f"all values are too {'large' if (found > wanted).all() else 'small'}, by the same amount"
    return f"{(~equal(found, wanted)).sum()} of {wanted.size} values are wrong"


def _sum_to_one(rows: np.ndarray) -> bool:
    return bool((np.abs(rows.sum(1) - 1) < 1e-3).all())
