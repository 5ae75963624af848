"""The second edition's freezes: what was fixed before any deciding seed was run, and which rows count since then.

``EDITIONS.toml`` holds an entry for each freeze, ``drawn`` and ``photos``, and each deviation from one. The seeds are
given in ``paper/claims.toml``: those for exploring, those that decide, in two looks, and those of the independent
controls.
"""

import json
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractbook.reproduction.scales import read_toml
from extractlib.errors import InputError, check_choice
from extractlib.store import digest
from extractlib.versions import VERSIONS

if TYPE_CHECKING:
    from extractbook.reproduction.cells import Row

FOLDER = Path(__file__).parent
FILE = FOLDER / "EDITIONS.toml"
TESTS = ("judging.py", "claims.py", "paper/claims.toml", "paper/tables.json", "paper/victims.toml")
"""What decides a verdict: the same, byte for byte, in both freezes, except for deviations from the first."""

CANARIES = "../../../tests/canaries.json"
TABLES = "grids/tables.toml"
FROZEN = {
    edition: (
        *TESTS,
        f"scales/{edition}.toml",
        f"grids/{edition}.toml",
        TABLES,
        "grids/cut.toml",
        CANARIES,
    )
    for edition in ("drawn", "photos")
}
"""The files of each freeze: tests, scale, grids, canaries. Each entry of tables and canaries is frozen separately."""


# -- seeds -----------------------------------------------------------------------


def of_scale(scale: str) -> str:
    """Return the freeze that a scale belongs to."""
    return "photos" if scale.startswith("photos") else "drawn"


def spans(ends: Iterable[Sequence[int]]) -> list[range]:
    """Return the range of seeds from each first to each last one."""
    return [range(first, last + 1) for first, last in ends]


@cache
def _seeds() -> dict[str, Any]:
    return read_toml(FOLDER / "paper/claims.toml")["seeds"]


def looks(edition: str) -> list[range]:
    """Return the seeds of the first look, and those of both looks."""
    return spans(_seeds()[edition])


def first_look(scale: str) -> range:
    """Return the seeds of the first look at a scale, or 0 to 4 where no claim is judged."""
    return looks(scale)[0] if scale in FROZEN else range(5)


def controls() -> range:
    """Return the seeds of the independent controls that repeated errors are compared with."""
    return spans([_seeds()["controls"]])[0]


def deciding() -> frozenset[int]:
    """Return all seeds that decide a claim, at any scale, and those of the controls."""
    return frozenset().union(*looks("drawn"), *looks("photos"), controls())


def check_seeds(scale: str, seeds: Iterable[int]) -> None:
    """Refuse seeds that decide claims as long as there is no freeze.

    Raises:
        InputError: One of the seeds decides claims, and the scale's freeze has no entry.
    """
    edition, early = of_scale(scale), sorted(deciding() & set(seeds))
    if early and edition not in read_toml(FILE):
        exploring = spans([_seeds()["exploring"]])[0]
        raise InputError(
            f"seed {early[0]} decides claims, and the freeze {edition!r} is not in {FILE.name}: explore on seeds"
            f" {exploring[0]} to {exploring[-1]}"
        )


# -- freezes -----------------------------------------------------------------------


def freeze(name: str) -> dict[str, Any]:
    """Enter a freeze of the checkout's commit into ``EDITIONS.toml``, to be committed next.

    Raises:
        InputError: There is no such freeze, it already has an entry, files differ from the commit, or tests differ from
            those of the first freeze and its deviations.
    """
    check_choice("freeze", name, FROZEN)
    entries = read_toml(FILE)
    if name in entries:
        raise InputError(f"the freeze {name!r} is already in {FILE.name}: enter a deviation instead")
    if _git("status", "--porcelain"):
        raise InputError("files differ from the commit to freeze: commit them first")
    digests = _digests(name, VERSIONS)
    first = entries.get("drawn", {}).get("digests", digests) | _corrected("drawn")
    changed = [file for file in TESTS if first[file] != digests[file]]
    if changed:
        raise InputError(f"{changed[0]} differs from the freeze 'drawn': restore it, or enter a deviation")
    entry = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _git("rev-parse", "HEAD")}
    tables = {"": entry, ".versions": VERSIONS, ".digests": digests}
    with open(FILE, "a", encoding="utf-8") as file:
        for table, values in tables.items():
            lines = (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())
            print(f"\n[{name}{table}]", *lines, sep="\n", file=file)
    return read_toml(FILE)[name]


def _git(*command: str) -> str:
    return subprocess.run(["git", "-C", FOLDER, *command], capture_output=True, text=True, check=True).stdout.strip()


def frozen(edition: str) -> dict[str, Any]:
    """Return the entry of a freeze, empty if there is none."""
    return read_toml(FILE).get(edition, {})


def deviations(edition: str) -> list[dict[str, Any]]:
    """Return the deviations from a freeze, each with ``date``, ``reason``, ``what`` and ``now``, in order."""
    return [entry for entry in read_toml(FILE).get("deviations", []) if entry["freeze"] == edition]


def _corrected(edition: str) -> dict[str, Any]:
    """Return what deviations changed, with its new value."""
    return {one["what"]: one["now"] for one in deviations(edition)}


def changed_files(edition: str) -> list[str]:
    """Return what is frozen but matches neither the freeze nor a deviation; nothing if there is no freeze.

    A canary whose version was bumped is not included: the rows that use that version do not count (see `refusal`).
    """
    entry = frozen(edition)
    if not entry:
        return []
    now = _digests(edition, entry["versions"])
    digests = entry["digests"] | _corrected(edition)
    return [what for what in entry["digests"] if now.get(what, "") not in ("bumped", digests[what])]


def _digests(edition: str, versions: Mapping[str, int]) -> dict[str, str]:
    """Return the digests of what is frozen: files, or a file's entries if more can be added without changing a row."""
    found = {}
    for file in FROZEN[edition]:
        content = (FOLDER / file).read_bytes()
        entries: Mapping[str, Any] = {}
        if file == TABLES:
            entries = tomllib.loads(content.decode())
        elif file == CANARIES:
            entries = json.loads(content)["canaries"]
        for name, entry in entries.items():
            bumped = file == CANARIES and not entry["versions"].items() <= versions.items()
            found[f"{file}: {name}"] = "bumped" if bumped else digest(json.dumps(entry, sort_keys=True))
        if not entries:
            found[file] = digest(content)
    return found


def refusal(row: "Row") -> str:
    """Return why a row does not count for the claims, or an empty string if it counts."""
    edition, made = of_scale(row.cell.scale), row.provenance
    entry = frozen(edition)
    if not entry:
        return f"the freeze {edition!r} has not been entered"
    if row.cell.seed not in deciding():
        return f"seed {row.cell.seed} is not a deciding seed"
    if made["commit"].endswith("+"):
        return f"it was made by files that differ from commit {made['commit'].rstrip('+')}"
    if made["date"] < entry["date"]:
        return f"it was made on {made['date'][:10]}, before the freeze"
    wanted = entry["versions"] | _corrected(edition)
    for key, version in made["versions"].items():
        if version != wanted.get(key):
            return f"it was made by version {version} of {key!r}, and the freeze has {wanted.get(key)}"
    return ""


def counts(row: "Row") -> bool:
    """Return whether a row counts: it was made after the freeze, at a deciding seed, with the freeze's versions."""
    return not refusal(row)
