"""Sphinx extensions: quizzes, sliders, and what stands around the pages."""
