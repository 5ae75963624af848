"""One exercise: what it asks, what is right, and how an answer is judged."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from extractbook.exercises.answers import difference, fitted, normalized, plain
from extractlib.errors import InputError, check_choice, check_positive

KINDS = ("understand", "modify", "implement", "attack or defend", "discuss")
SEEDS = range(1_000_000)
"""Variants of an exercise whose cases are drawn from a seed."""
NO_ANSWER = "there is no answer yet"
TOO_LONG = 200


class FunctionFails(Exception):
    """A reader's function returns nothing that can be judged; the message is the verdict's reason."""


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        exercise: Its id.
        reason: Why the answer is not right, in words that do not give it away; empty where it is right.
    """

    exercise: str
    reason: str

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return not self.reason

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {'right' if self.right else f'not yet; {self.reason}'}."

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self}**" if self.right else f"**Exercise {self.exercise}: not yet.** Reason: {self.reason}."


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """An exercise, as a chapter's module declares it.

    Attributes:
        id: Chapter and number, for example ``"5.2"``.
        title: As the notebook has it.
        kind: One of `KINDS`.
        minutes: What a reader will need.
        right: Returns the right answer: of the parameters if the answer is a value, of one case if it is a function.
        cases: Returns, of the parameters, the arguments of each call of the reader's function; None for a value.
        variants: The parameters by name, each with the values it can have, the book's own first.
        choices: The texts of which an answer names one or several; empty where it is none of given texts.
        slips: The reason for a known mistake, with the function that makes it, called as `right` is.
        judge: Returns why an answer is wrong, or None, given what the answer makes of the cases, what `right` makes of
            them, and the cases; None to compare the two.
        tolerance: Relative difference up to which numbers are equal; whole numbers must be exactly so.

    Raises:
        InputError: The kind is unknown or the minutes are no whole number from 1.
    """

    id: str
    title: str
    kind: str
    minutes: int
    right: Callable
    cases: Callable[..., list[tuple]] | None = None
    variants: Mapping[str, Sequence] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    slips: Mapping[str, Callable] = field(default_factory=dict)
    judge: Callable[[list, list, list[tuple]], str | None] | None = None
    tolerance: float = 1e-4

    def __post_init__(self):
        check_choice("kind", self.kind, KINDS)
        check_positive("minutes", self.minutes)

    def parameters(self, seed: int | None = None) -> dict[str, object]:
        """Return the parameters of the book (None) or of the assessed variant of this seed.

        Raises:
            InputError: The seed is no whole number from 0.
        """
        if seed is None:
            return {name: values[0] for name, values in self.variants.items()}
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed is {seed!r}: a whole number from 0 is wanted")
        generator = np.random.default_rng([seed, *self.id.encode()])
        return {name: values[generator.integers(len(values))] for name, values in self.variants.items()}

    def check(self, answer: object, *, seed: int | None = None) -> Verdict:
        """Say whether an answer is right; a function is called no further after a case in which it fails.

        Raises:
            InputError: The answer is of another type than the exercise asks for, of none that can be checked, or holds
                NaN.
        """
        parameters = self.parameters(seed)
        try:
            reason = NO_ANSWER if answer is None or answer is ... else self._reason(answer, parameters)
        except FunctionFails as failure:
            reason = str(failure)
        return Verdict(self.id, reason or "")

    def _reason(self, answer: object, parameters: Mapping[str, object]) -> str | None:
        """Return why an answer is wrong, or None."""
        if self.cases and not callable(answer):
            raise InputError(f"the answer to {self.id} is of type {type(answer).__name__}: a function is wanted")
        given = self._results(_guarded(answer), parameters) if self.cases else [plain(answer)]
        right = self._results(self.right, parameters)
        try:
            given = [fitted(*pair) for pair in zip(given, right, strict=True)]
        except InputError as error:
            if self.cases:
                return f"the function's result does not fit: {error}"
            raise InputError(f"the answer to {self.id} does not fit: {error}") from None
        if self.choices:
            for name in given[0] if isinstance(given[0], list) else given:
                check_choice("answer", normalized(name), self.choices)
        if self.judge:
            return self.judge(given, right, self.cases(**parameters))
        reason = self._difference(given, right)
        if reason:
            slips = (
                slip
                for slip, make in self.slips.items()
                if not self._difference(given, self._results(make, parameters))
            )
            reason = next(slips, reason)
        return reason

    def _results(self, function: Callable, parameters: Mapping[str, object]) -> list:
        """Return what a function makes of the parameters or of each case, which are made anew, as plain data."""
        if self.cases is None:
            return [plain(function(**parameters))]
        return [plain(function(*case)) for case in self.cases(**parameters)]

    def _difference(self, given: list, right: list) -> str | None:
        for number, pair in enumerate(zip(given, right, strict=True), start=1):
            reason = difference(*pair, tolerance=self.tolerance)
            if reason:
                return f"on input {number} of {len(right)}, {reason}" if len(right) > 1 else reason
        return None


def _guarded(function: Callable) -> Callable:
    """Return a function whose every failure is a `FunctionFails`."""

    def call(*case: object) -> object:
        try:
            return plain(function(*case))
        except NotImplementedError:
            raise FunctionFails(NO_ANSWER) from None
        except InputError as error:
            raise FunctionFails(f"the function stops: {str(error)[:TOO_LONG]}") from None
        except Exception as error:  # whatever a reader's code may raise is a reason, not a fault of the check
            raise FunctionFails(f"the function raises {type(error).__name__}: {str(error)[:TOO_LONG]}") from None

    return call


def lookup(id: str) -> Exercise:
    """Return the exercise of this id.

    Raises:
        InputError: There is none.
    """
    entries = {entry.id: entry for entry in known()}
    return entries[check_choice("exercise", id, entries)]


def known(chapter: int | None = None) -> tuple[Exercise, ...]:
    """Return the exercises of a chapter, or of all, in order.

    Raises:
        InputError: The chapter has none.
    """
    names = sorted(name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)]) if name[-1].isdigit())
    if chapter is not None:
        names = [check_choice("chapter with exercises", f"chapter_{chapter:02}", names)]
    modules = [import_module(f"extractbook.exercises.{name}") for name in names]
    return tuple(entry for module in modules for entry in module.EXERCISES)
