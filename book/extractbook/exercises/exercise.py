"""One exercise: what it asks, what is right, and how an answer is judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from linecache import getline
from pathlib import Path
from traceback import walk_tb
from typing import Any, cast

import numpy as np

from extractbook.exercises.answers import difference, fitted, kind_of, normalized, plain
from extractbook.exercises.without import check_own, without
from extractlib.errors import InputError, check_choice, check_positive, check_seed

KINDS = ("understand", "modify", "implement", "attack or defend", "discuss")
SEEDS = range(2**32)
"""Variants of an exercise whose cases are drawn from a seed: too many to try while a submission is graded."""
NO_ANSWER, NOTHING_YET = "there is no answer yet", "the function returns nothing yet"
"""Reasons that are given only if a function has not answered any input."""
TOO_LONG = 200
"""Most characters of a reader's own message or input that a reason quotes."""


class Unanswered(InputError):
    """There is no answer yet."""


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        exercise: The exercise's id.
        reason: Why the answer is not right, in words that do not give it away; empty if it is right.
        share: Share of the exercise's points, from 0 to 1: 1 if the answer is right, and less for a scored attack or
            defense that does not reach its mark but is still worth something.
        said: What the verdict says if the answer is right.
    """

    exercise: str
    reason: str
    share: float
    said: str = "right"

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return not self.reason

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {self.said if self.right else f'not yet; {self.reason}'}."

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self}**" if self.right else f"**Exercise {self.exercise}: not yet.** Reason: {self.reason}."


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """An exercise, as a chapter's module declares it.

    Attributes:
        id: Chapter and number, for example ``"5.2"``.
        title: The title in the notebook.
        kind: One of `KINDS`.
        minutes: The time a reader will need.
        right: Returns the right answer, given the parameters if the answer is a value, or one case if it is a function.
            None if the exercise asks for a written answer, which people read.
        key: Returns, given the parameters, the right result for each case, if it does not follow from the case; then
            there is no `right`.
        cases: Returns, given the parameters, the arguments of each call of the reader's function; None for a value.
        variants: The parameters by name, each with the values it can have, the book's own first.
        choices: The texts from which an answer names one or several; empty if the answer is not a choice of texts.
        slips: Known mistakes: the reason to report, and the function that makes the mistake, called like `right`.
        judge: Returns why an answer is wrong, or None, given the answer's results for the cases, those of `right`, and
            the cases; None to compare the two.
        score: Called like `judge`; returns how well an attack or defense did, and the name of this number. `marks` are
            then the scores that earn no points and all of them; between them points grow linearly.
        tolerance: Relative difference up to which numbers count as equal; whole numbers must be exactly equal.
        without: What the reader's function may not call: where it is found, and what a message calls it.

    Raises:
        InputError: The kind is unknown or the minutes are not a whole number from 1.
    """

    id: str
    title: str
    kind: str
    minutes: int
    right: Callable | None = None
    key: Callable[..., list] | None = None
    cases: Callable[..., list[tuple]] | None = None
    variants: Mapping[str, Sequence] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    slips: Mapping[str, Callable] = field(default_factory=dict)
    judge: Callable[[list, list, list[tuple]], str | None] | None = None
    score: Callable[[list, list, list[tuple]], tuple[float, str]] | None = None
    marks: tuple[float, float] = (0.0, 1.0)
    tolerance: float = 1e-4
    without: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("kind", self.kind, KINDS)
        check_positive("minutes", self.minutes)

    @property
    def checked(self) -> bool:
        """Whether a program checks the answer."""
        return bool(self.right or self.key)

    def parameters(self, seed: int | None = None) -> dict[str, object]:
        """Return the parameters of the book (None) or of the assessed variant with this seed.

        Raises:
            InputError: The seed is not valid.
        """
        if seed is None:
            return {name: values[0] for name, values in self.variants.items()}
        check_seed(seed)
        generator = np.random.default_rng([seed, *self.id.encode()])
        return {name: values[int(generator.integers(len(values)))] for name, values in self.variants.items()}

    def check(self, answer: Any, *, seed: int | None = None) -> Verdict:
        """Say whether an answer is right; after a case in which a function fails, it is not called again.

        Raises:
            InputError: The exercise asks for a written answer, which people read.
        """
        if not self.checked:
            raise InputError(
                f"exercise {self.id} asks for a written answer, which no program checks: compare it with the rubric"
            )
        parameters = self.parameters(seed)
        try:
            given, right = self._fitted(answer, parameters)
            cases = self.cases(**parameters) if self.cases else []
            if self.score:
                return self._scored(*self.score(given, right, cases), self._slip(given, right, parameters))
            reason = self.judge(given, right, cases) if self.judge else self._difference(given, right, parameters)
        except InputError as error:
            reason = str(error)
        return Verdict(self.id, reason or "", float(not reason))

    def trial(self, answer: Any) -> Verdict:
        """Say whether a function is right on the book's own cases, or whether a value is of the right kind.

        Raises:
            InputError: The exercise asks for a written answer, which people read.
        """
        if self.cases or not self.checked:
            return replace(self.check(answer), said="right on these inputs; the grade is decided on others")
        try:
            self._fitted(answer, self.parameters())
        except InputError as error:
            return Verdict(self.id, str(error), 0.0)
        return Verdict(self.id, "", 1.0, said="the answer is of the right kind; the grade says whether it is right")

    def _fitted(self, answer: Any, parameters: Mapping[str, object]) -> tuple[list, list]:
        """Return the answer's result for each case, converted to the right type, and the right results.

        Raises:
            InputError: There is no answer, or it cannot be compared; the message becomes the verdict's reason.
        """
        if answer is None or answer is ...:
            raise InputError(NO_ANSWER)
        if self.cases and not callable(answer):
            raise InputError(f"the answer is {kind_of(answer)}: expected a function")
        function = _guarded(answer, self.without) if self.cases else lambda **_: answer
        given = self._results(function, parameters)
        right = (
            [plain(one) for one in self.key(**parameters)]
            if self.key
            else self._results(cast(Callable, self.right), parameters)
        )
        places, pairs = _places(len(given)), zip(given, right, strict=True)
        given = [_located(place, fitted, *pair) for place, pair in zip(places, pairs, strict=True)]
        for name in (given[0] if isinstance(given[0], list) else given) if self.choices else ():
            check_choice("answer", normalized(name), self.choices)
        return given, right

    def _scored(self, score: float, what: str, slip: str | None) -> Verdict:
        none, full = self.marks
        share = min(max((score - none) / (full - none), 0.0), 1.0)
        told = f"{slip}; " if slip else ""
        reason = f"{told}{what} is {score:.3f}; points start above {none:g}, and {full:g} earns all of them"
        return Verdict(self.id, "" if share == 1 else reason, share, said=f"right; {what} is {score:.3f}")

    def _results(self, function: Callable, parameters: Mapping[str, object]) -> list:
        """Return a function's results for the parameters, or for each case, generated again, as plain data."""
        if self.cases is None:
            return [plain(function(**parameters))]
        cases = self.cases(**parameters)

        def call(*case: object) -> Any:
            return plain(function(*case))

        return [_located(place, call, *case) for place, case in zip(_places(len(cases)), cases, strict=True)]

    def _difference(self, given: list, right: list, parameters: Mapping[str, object]) -> str | None:
        """Return the slip that leads to the given results, or else where and how they differ from the right ones."""
        if slip := self._slip(given, right, parameters):
            return slip
        where = self._first_difference(given, right)
        if not where or not self.cases:
            return where and where[1]
        number, reason = where
        names = ", ".join(map(shortened, self.cases(**parameters)[number]))
        return f"on input {number + 1} of {len(right)}, ({names}), {reason}"

    def _slip(self, given: list, right: list, parameters: Mapping[str, object]) -> str | None:
        """Return the slip that leads to the given results, or None if they are right or due to something else."""
        if not self.slips or not self._first_difference(given, right):
            return None
        made = ((slip, self._results(make, parameters)) for slip, make in self.slips.items())
        return next((slip for slip, results in made if not self._first_difference(given, results)), None)

    def _first_difference(self, given: list, right: list) -> tuple[int, str] | None:
        """Return the number of the first case in which the two differ, and how they differ."""
        reasons = [difference(*pair, tolerance=self.tolerance) for pair in zip(given, right, strict=True)]
        return next(((number, reason) for number, reason in enumerate(reasons) if reason), None)


def _places(count: int) -> list[str]:
    """Return how a message begins that is about one of several inputs; there is nothing to say about a single one."""
    return [f"on input {number} of {count}, " for number in range(1, count + 1)] if count > 1 else [""]


def _located(place: str, call: Callable, *given: object) -> Any:
    """Return what a call returns; a failure says where it is.

    Raises:
        InputError: The call failed.
    """
    try:
        return call(*given)
    except Unanswered:
        raise
    except InputError as error:
        raise InputError(f"{place}{error}") from None


def _guarded(function: Callable, forbidden: Mapping[str, str]) -> Callable:
    """Return a function that does without what is forbidden, and whose every failure becomes an `InputError`.

    Raises:
        InputError: It is forbidden itself, or has it under a name of its own.
    """
    check_own(function, forbidden)
    answered = False

    def call(*case: object) -> object:
        nonlocal answered
        try:
            with without(forbidden):
                result = function(*case)
        except (Exception, SystemExit) as error:  # whatever a reader's code raises is a reason, not a bug here
            if isinstance(error, NotImplementedError) and not answered:
                raise Unanswered(NO_ANSWER) from None
            what = "stops" if isinstance(error, InputError) else f"raises {type(error).__name__}"
            raise InputError(f"the function {what}: {shortened(error, str)}{_line_of(error, function)}") from None
        if result is None or result is ...:
            raise InputError("the function returns nothing") if answered else Unanswered(NOTHING_YET)
        answered = True
        return result

    return call


def _line_of(error: BaseException, function: Callable) -> str:
    """Return where an error arose in the file or the cell of a function, as the end of a message."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    numbers = [number for frame, number in walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    line = " ".join(getline(file, numbers[-1]).split()) if file and numbers else ""
    return f", in the line {shortened(line, str)}" if line else ""


def shortened(value: object, show: Callable = repr) -> str:
    """Return a value as a message quotes it, on one line; a large one is described by its kind."""
    try:
        text = " ".join(show(value).split())
    except Exception:  # the repr of a reader's class may fail
        text = f"a value of type {type(value).__name__}"
    shape = getattr(value, "shape", None)
    if shape and len(text) > 60:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    return text if len(text) <= TOO_LONG else f"{text[:TOO_LONG]}…"


def lookup(id: str) -> Exercise:
    """Return the exercise with this id.

    Raises:
        InputError: There is no such exercise.
    """
    entries = {entry.id: entry for entry in (*known(), *assigned())}
    return entries[check_choice("exercise", id, entries)]


def known(chapter: int | None = None) -> tuple[Exercise, ...]:
    """Return the exercises of a chapter, or of all chapters, in order.

    Raises:
        InputError: The chapter has no exercises.
    """
    names = sorted(path.stem for path in Path(__file__).parent.glob("chapter_*.py"))
    if chapter is not None:
        names = [check_choice("chapter with exercises", f"chapter_{chapter:02}", names)]
    modules = [import_module(f"extractbook.exercises.{name}") for name in names]
    return tuple(entry for module in modules for entry in module.EXERCISES)


def assigned() -> tuple[Exercise, ...]:
    """Return the exercises that are not on any page and are only handed out, in order."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("assigned/chapter_*.py"))
    return tuple(import_module(f"extractbook.exercises.assigned.{name}").EXERCISE for name in names)
