"""Errors that a reader can act on, and the checks that raise them.

Examples:
    >>> import extractlib as xl
    >>> issubclass(xl.api.BudgetExceeded, xl.errors.InputError)
    True
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Set
from numbers import Integral, Real
from pathlib import Path

SHOWN, LONGEST = 100, 20_000
"""Most characters of a value that a message shows, and of a whole message."""

WORD = 300
"""Longest run of characters without a space that a message shows in full: longer than a usual path."""

HIGHEST = 2**63 - 1
"""The largest whole number that a database or a tensor can hold."""

SOURCE = "https://github.com/extractlib/extractlib/archive/main.zip"
"""Where pip gets the package; on the public index its name belongs to another project."""

HIGHEST_SEED = 2**40
"""Highest seed, since generators are seeded with a million times a seed and more, in 64 bits."""


class InputError(ValueError):
    """A value that cannot be used.

    The message is a single line that names the value and says what is expected.
    The command line prints it and exits with status 2.

    Examples:
        >>> import extractlib as xl
        >>> try:
        ...     xl.PredictionAPI(xl.load_victim("signs"), answers="top-0")
        ... except xl.InputError as error:
        ...     print(error)
        unknown granularity 'top-0': use full, top-K with K at least 1, ... or temperature-T with T from 0.01 to 100
    """

    def __init__(self, message: str = ""):
        super().__init__(brief(message))


class DataWarning(UserWarning):
    """Something unexpected about images in files: some are left out, scaled, or alike across parts."""


class ResultWarning(UserWarning):
    """A reason not to trust a result: a surrogate that has learned nothing, a threshold without evidence."""


def pip_install(extra: str) -> str:
    """Return the command that installs the package with one of its extras."""
    return f"pip install 'extractlib[{extra}] @ {SOURCE}'"


def brief(text: str) -> str:
    """Return a text on one line, shortened if it or one of its words is long, such as a thousand-digit number."""
    line = " ".join(text.splitlines())
    line = re.sub(rf"\S{{{WORD + 1},}}", lambda word: f"{word[0][:SHOWN]}…", line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def shown(value: object) -> str:
    """Return a value as a message shows it: its repr, shortened if it is long."""
    try:
        text = repr(value)
    except Exception:  # a number with too many digits, or someone else's code
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def kind_name(value: object) -> str:
    """Return what a value is, for a message: ``"a dict"``, or for a class ``"the class ResNet"``."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def one_line(error: BaseException) -> str:
    """Return the message of an error from another library, as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def described(error: BaseException) -> str:
    """Return an error's kind and message on one line, such as ``"KeyError: 'logits'"``."""
    return f"{type(error).__name__}: {one_line(error)}"


def check_output(path: Path) -> Path:
    """Return `path` if a file can be written there; its folder is created, and nothing else is changed.

    Raises:
        InputError: It cannot be written; the message says why.
    """
    try:
        was_there = path.exists()
        if was_there and not path.is_file():
            raise InputError(f"{path} is not a regular file: name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
        if not was_there:
            path.unlink()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be written ({reason}): name a file in a writable folder") from None
    return path


def in_bytes(count: float) -> str:
    """Return a number of bytes in a suitable unit, such as ``"3.3 MB"``."""
    unit, size = next((one for one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= one[1]), ("bytes", 1))
    return f"{count / size:,.{int(size > 1)}f} {unit}"


def check_choice(kind: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Args:
        kind: What the value stands for, for example ``"task"``.
        value: The value given.
        choices: The values allowed.

    Raises:
        InputError: `value` is not one of them; the message lists them.
    """
    if not _is_one_of(value, choices):
        raise InputError(f"unknown {kind} {shown(value)}: use one of {', '.join(choices)}")
    return value


def _is_one_of(value: object, choices: Collection[str]) -> bool:
    try:
        return value in choices
    except Exception:  # not hashable, or from someone else's code and not comparable
        return False


def whole(value: object) -> int | None:
    """Return a whole number of any type, such as NumPy's, as an int, and None for anything else, truth values too."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def keep(owner: object, **values: object) -> None:
    """Set fields of a frozen dataclass, such as whole numbers that a check has returned as ints."""
    for name, value in values.items():
        object.__setattr__(owner, name, value)


def check_positive(kind: str, value: int, *, at_most: int | None = None) -> int:
    """Return `value` if it is a whole number of at least 1.

    Args:
        kind: What the value stands for, for example ``"budget"``.
        value: The value given.
        at_most: The highest number allowed; `HIGHEST` if None.

    Raises:
        InputError: It is not one; truth values do not count as numbers.
    """
    number, highest = whole(value), HIGHEST if at_most is None else at_most
    if number is None or not 1 <= number <= highest:
        bounded = at_most is not None or (number is not None and number > highest)
        allowed = f"from 1 to {highest:,}" if bounded else "of at least 1"
        raise InputError(f"{kind} is {shown(value)}: expected a whole number {allowed}")
    return number


def check_seed(value: int) -> int:
    """Return `value` if it is a seed: a whole number from 0 to `HIGHEST_SEED`.

    Raises:
        InputError: It is not one; truth values do not count as numbers.
    """
    number = whole(value)
    if number is None or not 0 <= number <= HIGHEST_SEED:
        raise InputError(f"seed is {shown(value)}: expected a whole number from 0 to {HIGHEST_SEED:,}")
    return number


def check_amount(kind: str, value: float, *, above_zero: bool = False) -> float:
    """Return `value` if it is a finite number from 0.

    Args:
        kind: What the value stands for, for example ``"momentum"``.
        value: The value given.
        above_zero: Whether 0 is too low.

    Raises:
        InputError: It is not one; truth values do not count as numbers.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (above_zero and value == 0):
        allowed = "above 0" if above_zero else "of at least 0"
        raise InputError(f"{kind} is {shown(value)}: expected a number {allowed}")
    return value if isinstance(value, int | float) else float(value)


def check_has(kind: str, value: object, names: Collection[str], *, remedy: str) -> None:
    """Check that an object has all the attributes that will be needed.

    Raises:
        InputError: One of the attributes is missing; the message names it and the remedy.
    """
    for name in names:
        if not hasattr(value, name):
            raise InputError(f"the {kind} is a {type(value).__name__} without {name!r}: {remedy}")


def check_classes(classes: object) -> tuple[str, ...]:
    """Return the names of classes: text or whole numbers, at least two, none twice.

    Raises:
        InputError: They are anything else.
    """
    if isinstance(classes, str | Mapping | Set) or not isinstance(classes, Iterable):
        raise InputError(f"classes are {shown(classes)}: expected a name for each class, in order")
    listed = list(classes)
    for name in listed:
        if not isinstance(name, str | Integral) or isinstance(name, bool) or name == "":
            raise InputError(f"a class is called {shown(name)}: expected a non-empty name")
    names = tuple(map(str, listed))
    if len(names) < 2:
        raise InputError(f"there are {len(names)} class(es): expected at least 2")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two classes are called {shown(twice)}: give each its own name")
    return names


def check_name(kind: str, value: str) -> str:
    """Return `value` if it is a name: text of at least one character that UTF-8 can encode.

    Raises:
        InputError: It is not one.
    """
    if not isinstance(value, str) or not value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{kind} is {shown(value)}: expected a non-empty name")
    return value
