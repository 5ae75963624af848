"""The book's own package: reproduction of the paper, figures, exercises, Sphinx parts and the build."""
