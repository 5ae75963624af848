"""Errors that a reader can act on, and the checks that raise them."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

SHOWN, LONGEST = 100, 20_000
"""Characters of a value that a message shows, and of a message."""

WORD = 300
"""Characters without a blank above which a message cuts them: longer than a usual path."""

HIGHEST = 2**63 - 1
"""The highest whole number that a database or a tensor holds."""

SOURCE = "https://github.com/extractlib/extractlib/archive/main.zip"
"""Where pip gets the package; in the public index its name belongs to another project."""

HIGHEST_SEED = 2**40
"""Generators are seeded by a million times a seed and more, in 64 bits."""


class InputError(ValueError):
    """A value that cannot be used.

    The message is one line, names the value and says what would be right.
    The command line prints it and exits with status 2.

    Examples:
        >>> import extractlib as xl
        >>> try:
        ...     xl.PredictionAPI(xl.load_victim("signs"), answers="top-0")
        ... except xl.InputError as error:
        ...     print(error)
        unknown granularity 'top-0': use full, top-K with K from 1, ... or temperature-T with T from 0.01 to 100
    """

    def __init__(self, message: str = ""):
        super().__init__(brief(message))


class DataWarning(UserWarning):
    """What a reader may not expect of images in files: some left out, scaled, or alike across parts."""


class ResultWarning(UserWarning):
    """What makes a result other than it looks: a surrogate that has learned nothing, a threshold without evidence."""


def pip_install(extra: str) -> str:
    """Return the command that installs the package with one of its extras."""
    return f"pip install 'extractlib[{extra}] @ {SOURCE}'"


def brief(text: str) -> str:
    """Return a text on one line, cut where it or one of its words is long, as a number of a thousand digits."""
    line = " ".join(text.splitlines())
    line = re.sub(rf"\S{{{WORD + 1},}}", lambda word: f"{word[0][:SHOWN]}…", line)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def shown(value: object) -> str:
    """Return a value as a message shows it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # a number of too many digits, or another's code
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def kind_name(value: object) -> str:
    """Return what a value is, for a message: ``"a dict"``, of a class ``"the class ResNet"``."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def one_line(error: BaseException) -> str:
    """Return what an error of another library says, as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_output(path: Path) -> Path:
    """Return `path` if a file can be written there; its folder is made, and nothing else is changed.

    Raises:
        InputError: It cannot be written; the message says why.
    """
    try:
        was_there = path.exists()
        if was_there and not path.is_file():
            raise InputError(f"{path} is no regular file: name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
        if not was_there:
            path.unlink()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be written ({reason}): name a file in a folder that can") from None
    return path


def in_bytes(count: float) -> str:
    """Return a number of bytes in the unit that suits it, as ``"3.3 MB"``."""
    unit, size = next((one for one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= one[1]), ("bytes", 1))
    return f"{count / size:,.{int(size > 1)}f} {unit}"


def check_choice(kind: str, value: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`.

    Args:
        kind: What the value stands for, for example ``"task"``.
        value: The value given.
        choices: The values allowed.

    Raises:
        InputError: `value` is none of them; the message lists them.
    """
    if not _is_one_of(value, choices):
        raise InputError(f"unknown {kind} {shown(value)}: use one of {', '.join(choices)}")
    return value


def _is_one_of(value: object, choices: Collection[str]) -> bool:
    try:
        return value in choices
    except Exception:  # not hashable, or of another's code that cannot be compared
        return False


def check_positive(kind: str, value: int, *, at_most: int | None = None) -> int:
    """Return `value` if it is a whole number from 1.

    Args:
        kind: What the value stands for, for example ``"budget"``.
        value: The value given.
        at_most: The highest number allowed; `HIGHEST` if None.

    Raises:
        InputError: It is none; truth values are none either.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    highest = HIGHEST if at_most is None else at_most
    if not is_whole or not 1 <= value <= highest:
        end = f" to {highest:,}" if at_most is not None or (is_whole and value > highest) else ""
        raise InputError(f"{kind} is {shown(value)}: a whole number from 1{end} is wanted")
    return value


def check_seed(value: int) -> int:
    """Return `value` if it is a seed: a whole number from 0 to `HIGHEST_SEED`.

    Raises:
        InputError: It is none; truth values are none either.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HIGHEST_SEED:
        raise InputError(f"seed is {shown(value)}: a whole number from 0 to {HIGHEST_SEED:,} is wanted")
    return value


def check_has(kind: str, value: object, names: Collection[str], *, remedy: str) -> None:
    """Check that an object has all that will be asked of it.

    Raises:
        InputError: One of the attributes is missing; the message names it and the remedy.
    """
    for name in names:
        if not hasattr(value, name):
            raise InputError(f"the {kind} is a {type(value).__name__} without {name!r}: {remedy}")


def check_classes(classes: object) -> tuple[str, ...]:
    """Return the names of classes: text or whole numbers, each once, at least two.

    Raises:
        InputError: They are something else.
    """
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise InputError(f"classes are {shown(classes)}: a name for each class is wanted")
    listed = list(classes)
    for name in listed:
        if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
            raise InputError(f"a class is called {shown(name)}: a name that is not empty is wanted")
    names = tuple(map(str, listed))
    if len(names) < 2:
        raise InputError(f"{len(names)} class(es) cannot be told apart: at least 2 are wanted")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two classes are called {shown(twice)}: give each a name of its own")
    return names


def check_name(kind: str, value: str) -> str:
    """Return `value` if it is a name: text of at least one character, all of which UTF-8 can write.

    Raises:
        InputError: It is none.
    """
    if not isinstance(value, str) or not value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{kind} is {shown(value)}: a name that is not empty is wanted")
    return value
