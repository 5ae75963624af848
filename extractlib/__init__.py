"""Model extraction attacks on image classifiers, and defences against them: the package behind the book.

A newcomer reads the rooms in this order: `drawn` (the images), `victims`, `api`, `attacks.knockoff`, `experiments`.
"""
