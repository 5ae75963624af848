"""Open registries: names that stand for objects, to which anyone can add."""

from collections.abc import Callable
from typing import TypeVar

from extractlib.errors import InputError, check_name, shown

Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """Objects by name, in the order in which they were added.

    Args:
        kind: What a name stands for, for example ``"network"``; named in every error.

    Raises:
        InputError: When an unknown name is looked up; the message lists all names.
    """

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __missing__(self, name: str) -> Entry:
        raise InputError(f"unknown {self.kind} {shown(name)}: use one of {', '.join(self)}")

    def add(self, name: str, entry: Entry) -> Entry:
        """Add an object under a new name and return it.

        A class or function takes the place of an earlier one of the same module and name, as when a cell of a notebook
        is run again.

        Raises:
            InputError: The name is empty or taken.
        """
        check_name(f"name of a {self.kind}", name)
        if name in self and _origin(self[name]) != _origin(entry):
            raise InputError(f"there is already a {self.kind} {name!r}: choose another name")
        self[name] = entry
        return entry

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that adds what it decorates under `name`."""
        return lambda entry: self.add(name, entry)


def _origin(entry: object) -> object:
    """Return where a class or function was defined; anything else is its own origin."""
    named = (getattr(entry, "__module__", None), getattr(entry, "__qualname__", None))
    return named if named[1] and "<lambda>" not in named[1] else entry
