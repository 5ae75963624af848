"""What the authors report, as data, and what a claim of the first edition was.

Atli, Szyller, Juuti, Marchal, Asokan. Extraction of Complex DNN Models: Real Threat or Boogeyman?
arXiv:1910.05429v3, AAAI-EDSMLS 2020. The figures were read off the authors' slides: label them with `LABEL`.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LABEL = "authors' slides, 2020"
"""What to write beside every figure of `tables`."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with its test.

    Attributes:
        id: ``"C1"`` to ``"C15"`` for the paper's, ``"B1"`` and on for those that go beyond it.
        statement: The claim in a sentence.
        authors: The figures it rests on (`LABEL`), in words.
        test: What has to come out for it to hold, in words.
        tables: Where the authors show it, as keys of `tables`; for ours the tables of our results.
        bounds: The numbers of the test by name; recoveries, accuracies and differences as shares, not percent.
    """

    id: str
    statement: str
    authors: str
    test: str
    tables: tuple[str, ...]
    bounds: Mapping[str, float]


def drawn(task: str) -> str | None:
    """Return the drawn task that stands for the same of the authors' victims, or None."""
    return next((twin for twin, name in _read("victims.toml")["tasks"].items() if name == victim(task)), None)


def scratch_victim(task: str) -> str | None:
    """Return the authors' victim from no public weights that stands beside a task or its drawn twin, or None."""
    return _read("victims.toml")["scratch"].get(drawn(task) or task)


def tables() -> dict:
    """Return the authors' tables: accuracies in percent, recovery as a ratio, by table and victim."""
    return _read("tables.json")  # read once: look, and change nothing


def victim(task: str) -> str | None:
    """Return the authors' victim that stands beside a task, or None where they have none.

    Args:
        task: A drawn task or ``"folder:NAME"``; ``"folder:CIFAR-10"`` is the authors' ``"CIFAR10-RN34"``.
    """
    return _read("victims.toml")["tasks"].get(task.removeprefix("folder:").lower().replace("-", ""))


@cache
def _read(name: str) -> dict:
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
