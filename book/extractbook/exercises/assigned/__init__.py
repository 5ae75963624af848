"""Exercises that are not on any page of the book: each chapter's last one, handed out only in assignments.

Each is an attack or a defense, scored on a victim or on data that nobody has seen before the grading: it is drawn from
the assignment's seed. To add one, put `EXERCISE` in ``chapter_NN.py``, its statement, solution and explanation in
``chapter_NN.ipynb`` (in the same form as in the chapters), and its mistakes in ``tests/mistakes.py``.
"""
