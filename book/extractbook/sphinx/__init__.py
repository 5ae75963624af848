"""Sphinx extensions: quizzes, sliders, and what surrounds the pages."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template(name: str, **values: object) -> str:
    """Return a file of ``templates``, filled in with the values it names."""
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    return Environment(loader=folder, undefined=StrictUndefined).get_template(f"{name}.jinja").render(values)
