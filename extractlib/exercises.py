"""Where `check` was before the book's exercises moved to ``extractbook``; kept for one release.

The library imports nothing of the book but what the function below imports when it is called.
"""

import warnings

from extractlib.errors import InputError


def check(exercise: str, answer: object, *, seed: int | None = None) -> object:
    """Forward to ``extractbook.exercises.check``.

    Raises:
        InputError: The book's package is not installed.
    """
    warnings.warn(
        "extractlib.exercises.check goes with the next release: import check from extractbook.exercises",
        DeprecationWarning,
        stacklevel=2,
    )
    try:
        from extractbook import exercises
    except ModuleNotFoundError as error:
        if error.name != "extractbook":
            raise
        raise InputError("extractbook is not installed: get it by pip install 'extractlib[book]'") from None
    return exercises.check(exercise, answer, seed=seed)
