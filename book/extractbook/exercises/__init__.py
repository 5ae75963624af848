"""Exercises that check themselves: ``check("5.2", answer)`` says whether an answer is right, and else what is amiss.

How to add one:

1. Add an `Exercise` to ``EXERCISES`` of ``chapter_NN.py``: id, title, kind, minutes and what is right.
   An answer is a value, compared with ``right(**parameters)``, or a function if there are ``cases``: it is run on each
   case and compared with what ``right`` makes of it. Where many answers are right, give a ``judge``.
2. Name in ``slips`` what a known mistake gives, with the reason to tell; common ones are told without it.
3. Name in ``variants`` what may differ between two courses, the book's own value first.
4. In the notebook, before "Limits", three cells: the statement (tag ``exercise``), which ends by opening the solution;
   one code cell (tag ``solution``) with the solution between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, its
   numbers set by the first line, its last line ``book.check("ID", NAME)``; and a text that closes the solution (tag
   ``solution``). Chapter 5 shows the form. The code cell needs nothing but the section's first code cell.
5. In ``tests/mistakes.py``, name two ways to break the solution that the check must notice.

A chapter has four to six exercises and all five kinds; the tests see to it.
"""

from extractbook.exercises.exercise import Exercise, Verdict, known, lookup

__all__ = ["Exercise", "Verdict", "check", "known", "trial"]


def check(exercise: str, answer: object, *, seed: int | None = None) -> Verdict:
    """Say whether `answer` is right.

    Args:
        exercise: The exercise's id, for example ``"5.2"``.
        answer: A number, text, list of names, array or tensor, or a function, as the exercise asks.
        seed: Of an assessed variant, from 0; None for the book's own numbers.

    Raises:
        InputError: There is no such exercise, it asks for a text, or the seed is no whole number from 0.
    """
    return lookup(exercise).check(answer, seed=seed)


def trial(exercise: str, answer: object) -> Verdict:
    """Say of an answer to be graded what may be said before: a function is tried, of a value the kind is looked at.

    Raises:
        InputError: There is no such exercise, or it asks for a text.
    """
    return lookup(exercise).trial(answer)
