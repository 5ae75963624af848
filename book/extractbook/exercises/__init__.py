"""Exercises that check themselves: ``check("5.2", answer)`` says whether an answer is right and, if not, why.

How to add one:

1. Add an `Exercise` to ``EXERCISES`` in ``chapter_NN.py``: id, title, kind, minutes and the right answer.
   An answer is a value, compared with ``right(**parameters)``, or a function if there are ``cases``: it is run on each
   case, and its result is compared with that of ``right``. If many answers are right, give a ``judge``.
2. In ``slips``, list known mistakes: the reason to report and a function that makes the mistake.
   Common mistakes are noticed without an entry.
   If the exercise is about doing without something that the reader's function could call, name it in ``without``.
3. In ``variants``, list the values that may differ between two courses, the book's own value first.
4. In the notebook, add three cells before "Limits": the statement (tag ``exercise``), which ends by opening the
   solution; one code cell (tag ``solution``) with the solution between ``### BEGIN SOLUTION`` and
   ``### END SOLUTION``, whose first line sets its numbers and whose last line is ``book.check("ID", NAME)``; and a text
   that closes the solution (tag ``solution``). Chapter 5 shows the form.
   The code cell must need no other cell than the section's first code cell.
5. In ``tests/mistakes.py``, add two ways to break the solution that the check must notice.

A chapter has four to six exercises and all five kinds; the tests enforce this.
"""

from extractbook.exercises.exercise import Exercise, Verdict, known, lookup

__all__ = ["Exercise", "Verdict", "check", "known", "trial"]


def check(exercise: str, answer: object, *, seed: int | None = None) -> Verdict:
    """Say whether `answer` is right.

    Args:
        exercise: The exercise's id, for example ``"5.2"``.
        answer: A number, text, list of names, array or tensor, or a function, as the exercise asks.
        seed: Seed of an assessed variant, from 0; None for the book's own numbers.

    Raises:
        InputError: There is no such exercise, it asks for a written answer, or the seed is not a whole number from 0.
    """
    return lookup(exercise).check(answer, seed=seed)


def trial(exercise: str, answer: object) -> Verdict:
    """Report what may be known of an answer before it is graded: a function is tried, a value's kind is checked.

    Raises:
        InputError: There is no such exercise, or it asks for a written answer.
    """
    return lookup(exercise).trial(answer)
