"""The book's own package: the reproduction of the paper, figures, exercises, Sphinx extensions and the build."""
