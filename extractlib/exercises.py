"""Where `check` was before the book's exercises moved to ``extractbook``; kept for one release."""

import warnings

from extractlib.errors import InputError, pip_install


def check(exercise: str, answer: object, *, seed: int | None = None) -> object:
    """Forward to ``extractbook.exercises.check``.

    Raises:
        InputError: The book's package is not installed.
    """
    words = "extractlib.exercises.check will be removed in the next release: import check from extractbook.exercises"
    warnings.warn(words, DeprecationWarning, stacklevel=2)
    try:
        from extractbook import exercises
    except ModuleNotFoundError as error:
        if error.name != "extractbook":
            raise
        raise InputError(f"extractbook is not installed: run {pip_install('book')}") from None
    return exercises.check(exercise, answer, seed=seed)
