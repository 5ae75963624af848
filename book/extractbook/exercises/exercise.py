"""One exercise: what it asks, what is right, and how an answer is judged."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from extractbook.exercises.answers import Raised, difference, fitted, plain, words
from extractlib.errors import InputError, one_of, positive

KINDS = ("understand", "modify", "implement", "attack or defend", "discuss")
SEEDS = range(1_000_000)
"""Variants of an exercise whose cases are drawn from a seed."""
TOO_LONG = 200


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        exercise: Its id.
        right: Whether the answer is right.
        reason: Why it is not, in words that do not give the answer away; empty where it is right.
    """

    exercise: str
    right: bool
    reason: str

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
        slips: What is told of a known mistake, with the function that makes it, called as `right` is.
        judge: Returns why an answer is wrong, or None, given what was found, what `right` says, and the cases, each
            one entry a case; None to compare found and right.
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
        one_of("kind", self.kind, KINDS)
        positive("minutes", self.minutes)

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

    def outputs(self, answer: object, *, seed: int | None = None) -> list:
        """Return what is judged of an answer, as plain data: itself, or what it returns for each case.

        A function is called no further after a case in which it fails.

        Raises:
            InputError: The answer is of no type that can be checked, or a function is wanted and it is none.
        """
        if answer is None or answer is ...:
            return []
        if self.cases is None:
            return [plain(answer)]
        if not callable(answer):
            raise InputError(f"the answer to {self.id} is of type {type(answer).__name__}: a function is wanted")
        found = []
        for case in self.cases(**self.parameters(seed)):
            found.append(called(answer, case))
            if isinstance(found[-1], Raised):
                break
        return found

    def judged(self, found: list, *, seed: int | None = None) -> Verdict:
        """Return the verdict on what `outputs` returned.

        Raises:
            InputError: A value is of another type than the exercise asks for, or holds NaN.
        """
        parameters = self.parameters(seed)
        cases = self.cases(**parameters) if self.cases else []
        wanted = self._made_by(self.right, parameters)
        reason = self._failure(found) or self._reason(found, wanted, cases, parameters)
        return Verdict(self.id, not reason, reason or "")

    def _made_by(self, function: Callable, parameters: Mapping[str, object]) -> list:
        if self.cases is None:
            return [plain(function(**parameters))]
        return [plain(function(*case)) for case in self.cases(**parameters)]

    def _failure(self, found: list) -> str | None:
        if not found:
            return "there is no answer yet"
        return found[-1].message if isinstance(found[-1], Raised) else None

    def _reason(self, found: list, wanted: list, cases: list[tuple], parameters: Mapping[str, object]) -> str | None:
        try:
            found = [fitted(*pair) for pair in zip(found, wanted, strict=True)]
        except InputError as error:
            if self.cases:
                return f"the function's result does not fit: {error}"
            raise InputError(f"the answer to {self.id} does not fit: {error}") from None
        self._check_choices(found)
        if self.judge:
            return self.judge(found, wanted, cases)
        reason = self._differ(found, wanted)
        for told, slip in self.slips.items() if reason else ():
            if not self._differ(found, self._made_by(slip, parameters)):
                return told
        return reason

    def _check_choices(self, found: list) -> None:
        names = found[0] if isinstance(found[0], list) else found
        for name in names if self.choices else ():
            one_of("answer", words(name), self.choices)

    def _differ(self, found: list, wanted: list) -> str | None:
        for number, pair in enumerate(zip(found, wanted, strict=True), start=1):
            reason = difference(*pair, tolerance=self.tolerance)
            if reason:
                return f"on input {number} of {len(wanted)}, {reason}" if len(wanted) > 1 else reason
        return None


def called(function: Callable, case: tuple) -> object:
    """Return what the function returns for a case, as plain data, or how it fails."""
    try:
        return plain(function(*case))
    except NotImplementedError:
        return Raised("there is no answer yet")
    except InputError as error:
        return Raised(f"the function stops: {str(error)[:TOO_LONG]}")
    except Exception as error:  # whatever a reader's code may raise is told, not passed on
        return Raised(f"the function raises {type(error).__name__}: {str(error)[:TOO_LONG]}")


def lookup(id: str) -> Exercise:
    """Return the exercise of this id.

    Raises:
        InputError: There is none.
    """
    entries = {entry.id: entry for entry in known()}
    return entries[one_of("exercise", id, entries)]


def known(chapter: int | None = None) -> tuple[Exercise, ...]:
    """Return the exercises of a chapter, or of all, in order.

    Raises:
        InputError: The chapter has none.
    """
    names = sorted(name for _, name, _ in pkgutil.iter_modules([str(Path(__file__).parent)]) if name[-1].isdigit())
    if chapter is not None:
        names = [one_of("chapter with exercises", f"chapter_{chapter:02}", names)]
    modules = [import_module(f"extractbook.exercises.{name}") for name in names]
    return tuple(entry for module in modules for entry in module.EXERCISES)
