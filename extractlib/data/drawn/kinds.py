"""Everyday things, as figures in the language of `vocabulary`: to add a kind, add a line to one of the two files."""

from extractlib.data.drawn.vocabulary import read_figures

COMMON = read_figures("figures.txt")
"""The figures of the atlas, by name."""

OTHERS = read_figures("figures_other.txt")
"""Figures that are not in the atlas."""
