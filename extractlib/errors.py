"""Errors that a reader can act on."""


class InputError(ValueError):
    """A value that cannot be used.

    The message is one line, names the value and says what would be right.
    The command line prints it and exits with status 2.
    """


def one_of(kind: str, value: str, choices) -> str:
    """Return `value` if it is one of `choices`.

    Args:
        kind: What the value stands for, for example ``"task"``.
        value: The value given.
        choices: The values allowed.

    Raises:
        InputError: `value` is none of them; the message lists them.
    """
    if value not in choices:
        raise InputError(f"unknown {kind} {value!r}: use one of {', '.join(choices)}")
    return value


def positive(kind: str, value: int) -> int:
    """Return `value` if it is a whole number from 1.

    Args:
        kind: What the value stands for, for example ``"budget"``.
        value: The value given.

    Raises:
        InputError: It is none; truth values are none either.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{kind} is {value!r}: a whole number from 1 is wanted")
    return value
