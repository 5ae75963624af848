"""Exercises that stand on no page of the book: each chapter's last one, handed out by assignments alone.

Each is an attack or a defense that is scored on a victim, or on data, that nobody has seen before the grading: the seed
of an assignment draws it. How to add one: `EXERCISE` in ``chapter_NN.py``, its statement, solution and explanation in
``chapter_NN.ipynb`` in the form of the chapters' own, and its mistakes in ``tests/mistakes.py``.
"""
