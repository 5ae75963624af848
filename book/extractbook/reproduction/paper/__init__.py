"""What the authors report, as data, and the form of a claim in the first edition.

Atli, Szyller, Juuti, Marchal, Asokan. Extraction of Complex DNN Models: Real Threat or Boogeyman?
arXiv:1910.05429v3, AAAI-EDSMLS 2020. The figures were read from the authors' slides: label them with `LABEL`.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

LABEL = "authors' slides, 2020"
"""The label to write next to every figure of `tables`."""

LATER_NOTES = {
    "defended": {
        "GTSRB-RN34 and CIFAR10-RN34": "the two figures look interchanged: 2.8% is far below chance on ten balanced"
        " classes and near the share of one class among 43"
    }
}
"""Notes by table and rows that were made after the tables' file was frozen with the claims."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with its test.

    Attributes:
        id: ``"C1"`` to ``"C15"`` for the paper's claims, ``"B1"`` and so on for those that go beyond it.
        statement: The claim in a sentence.
        authors: The figures it rests on (`LABEL`), in words.
        test: What has to be the result for it to hold, in words.
        tables: Where the authors show it, as keys of `tables`; for our claims, the tables of our results.
        bounds: The numbers of the test, by name; recoveries, accuracies and differences as shares, not percent.
    """

    id: str
    statement: str
    authors: str
    test: str
    tables: tuple[str, ...]
    bounds: Mapping[str, float]


def drawn(task: str) -> str | None:
    """Return the drawn task that corresponds to the same victim of the authors, or None."""
    return next((twin for twin, name in _read("victims.toml")["tasks"].items() if name == victim(task)), None)


def scratch_victim(task: str) -> str | None:
    """Return the authors' victim without public weights that corresponds to a task or its drawn twin, or None."""
    return _read("victims.toml")["scratch"].get(drawn(task) or task)


def tables() -> dict:
    """Return the authors' tables: accuracies in percent, recovery as a ratio, by table and victim."""
    return _read("tables.json")  # read once and shared: do not change it


def notes(table: str) -> list[str]:
    """Return what is doubtful about rows of one of the authors' tables, to be printed wherever the rows are."""
    rows = tables().get(table, {}).get("rows", {})
    noted = {row: values["note"] for row, values in rows.items() if isinstance(values, dict) and "note" in values}
    return [f"{row}: {note}" for row, note in (noted | LATER_NOTES.get(table, {})).items()]


def victim(task: str) -> str | None:
    """Return the authors' victim that corresponds to a task, or None if they have none.

    Args:
        task: A drawn task or ``"folder:NAME"``; ``"folder:CIFAR-10"`` is the authors' ``"CIFAR10-RN34"``.
    """
    return _read("victims.toml")["tasks"].get(task.removeprefix("folder:").lower().replace("-", ""))


@cache
def _read(name: str) -> dict:
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
