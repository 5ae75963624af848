"""What the authors report, as data: their figures and their claims.

Atli, Szyller, Juuti, Marchal, Asokan. Extraction of Complex DNN Models: Real Threat or Boogeyman?
arXiv:1910.05429v3, AAAI-EDSMLS 2020. The figures were read off the authors' slides: label them with `LABEL`.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from extractlib.errors import InputError, check_choice

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


def twin(task: str, tasks: Iterable[str]) -> str:
    """Return the one of `tasks` that stands for the same of the authors' victims: a drawn task's data set, or itself.

    Raises:
        InputError: There is none.
    """
    tasks, wanted = tuple(tasks), victim(task)
    alike = [other for other in tasks if other == task or (wanted and victim(other) == wanted)]
    if not alike:
        raise InputError(f"none of the tasks {', '.join(tasks)} is a twin of {task!r}: use another scale")
    return alike[0]


def drawn(task: str) -> str | None:
    """Return the drawn task that stands for the same of the authors' victims, or None."""
    return next((twin for twin, name in _read("victims.toml")["tasks"].items() if name == victim(task)), None)


def recovery(task: str, table: str = "reproduction", surrogate: str = "") -> float | None:
    """Return the authors' recovery of a task's victim in one of their tables, by a surrogate if there are several."""
    row = tables()[table]["rows"].get(victim(task), {})
    return row.get(f"{surrogate}_recovery" if surrogate else "recovery")


def scratch_recovery(task: str) -> float | None:
    """Return the authors' recovery of a drawn task's victim that starts from no public weights."""
    return tables()["architecture"]["rows"].get(_read("victims.toml")["scratch"].get(task), {}).get("RN34_recovery")


def tables() -> dict:
    """Return the authors' tables: accuracies in percent, recovery as a ratio, by table and victim."""
    return _read("tables.json")  # read once: look, and change nothing


def claims() -> tuple[Claim, ...]:
    """Return the paper's claims, C1 to C15."""
    return _claims("claims")


def our_claims() -> tuple[Claim, ...]:
    """Return the claims that go beyond the paper, B1 and on."""
    return _claims("ours")


def _claims(key: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(**{**entry, "tables": tuple(entry["tables"]), "bounds": MappingProxyType(entry["bounds"])})
        for entry in _read("claims.toml")[key]
    )


def claim(id: str) -> Claim:
    """Return the claim of that id.

    Raises:
        InputError: There is none.
    """
    by_id = {claim.id: claim for claim in (*claims(), *our_claims())}
    return by_id[check_choice("claim", id, by_id)]


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
