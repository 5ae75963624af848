"""Model extraction attacks on image classifiers, and defenses against them: the package behind the book.

A newcomer reads the rooms in this order: `drawn` (the images), `victims`, `api`, `attacks.knockoff`, `experiments`.
"""


def __getattr__(name: str) -> str:
    """Return ``__version__``, that of the installed distribution, when it is first asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("extractlib")
