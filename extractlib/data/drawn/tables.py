"""Read the files in this folder: colors, glyphs, species and figures."""

import tomllib
from importlib.resources import files
from typing import Any


def read_text(name: str) -> str:
    """Return the text of a file beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def read_table(name: str) -> dict[str, Any]:
    """Return the content of a TOML file beside this module; `name` is without the extension."""
    return tomllib.loads(read_text(f"{name}.toml"))
