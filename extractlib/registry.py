"""Open registries: names that stand for objects, to which anybody may add."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from extractlib.errors import InputError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Objects by name, in the order in which they were added.

    Args:
        kind: What a name stands for, for example ``"network"``: the first word of every error.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        """Return the object of that name.

        Raises:
            InputError: There is none; the message lists all names.
        """
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise InputError(f"unknown {self.kind} {name!r}: use one of {', '.join(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, entry: Entry) -> Entry:
        """Add an object under a new name and return it.

        Raises:
            InputError: The name is empty or taken.
        """
        if not isinstance(name, str) or not name:
            raise InputError(f"{self.kind} is named {name!r}: a name that is not empty is wanted")
        if name in self._entries:
            raise InputError(f"there is a {self.kind} {name!r} already: choose another name")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that adds what it decorates under `name`."""
        return lambda entry: self.add(name, entry)

    def remove(self, name: str) -> None:
        """Take a name out again, as after a trial."""
        del self[name]

    def __delitem__(self, name: str) -> None:
        self[name]  # an unknown name is refused in words
        del self._entries[name]
