"""A cell is one run with every setting fixed, and a row is its result."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic requires it below Python 3.12

from extractlib.api.granularity import FILLS, Full, Granularity
from extractlib.data.sources import Source
from extractlib.errors import HIGHEST, InputError, check_choice, check_seed, shown
from extractlib.store import digest

if TYPE_CHECKING:
    from extractbook.reproduction.scales import Scale

ATTACKS = ("random", "adaptive", "own-labels")
"""How queries are chosen. The last sends no queries: the adversary trains on its images' true labels."""

WATERMARK = "watermark"
"""The defense that marks its answers and refuses nobody."""

DENY_FREE = "deny-free"
"""The policy ``"deny"`` without charging for denied queries: the attacker moves on to its pool's next image."""

PERTURBATIONS = ("misinformation", "reverse-sigmoid")
"""The defenses that perturb every answer, with a strength chosen on validation images, and need no detector."""

WEIGHTS = ("A", "B", "none")
"""Initial weights of a model: the public weights, those of a second seed, or none (`networks.INITIAL`)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run with every setting fixed.

    Attributes:
        scale: Name of the scale, which fixes sizes and recipes.
        task: The victim's task.
        pool: The source of the images that the attacker sends; can be given by name, such as ``"signs/shifted"``.
        victim: The victim's network.
        seed: Seed of the drawn images or the split, the victim, the choice of queries and the surrogate.
        experiment: What is measured (see `run.EXPERIMENTS`).
        surrogate: The surrogate's network.
        granularity: What an answer shows; can be given by name, such as ``"top-5"``.
        budget: Number of queries that the attacker may send.
        attack: How queries are chosen, one of `ATTACKS`.
        reward: What the adaptive strategy learns from (see `adaptive.Reward`); empty for the others.
        defense: What is put in front of the victim: ``"none"``, the name of a policy for detected queries, or
            ``"watermark"``.
        victim_weights: The victim's initial weights, one of `WEIGHTS`.
        surrogate_weights: The initial weights of the surrogate, or of the independent control.
        steps: Training steps of the surrogate; 0 if the scale's recipe sets them, or no surrogate is trained.
        fill: The surrogate's targets for classes that a truncated answer hides (see `Answers.targets`).
        overlap: Share of the pool's images that show the victim's own classes, in the experiment ``"overlap"``.

    Raises:
        InputError: There is no such pool, granularity, attack, fill or weights, or a value has a wrong type or range.
    """

    scale: str
    task: str
    pool: Source
    victim: str
    seed: int
    experiment: str = "extraction"
    surrogate: str = ""
    granularity: Granularity = Full()
    budget: int = 0
    attack: str = "random"
    reward: str = ""
    defense: str = "none"
    victim_weights: str = "A"
    surrogate_weights: str = "A"
    steps: int = 0
    fill: str = "even"
    overlap: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", Source.parse(self.pool))
        object.__setattr__(self, "granularity", Granularity.parse(self.granularity))
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            kinds: Any = (int, float) if kind is float else kind
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise InputError(f"{field.name} of a cell is {shown(value)}: expected a value of another type")
        check_seed(self.seed)
        if not (0 <= self.budget <= HIGHEST and 0 <= self.steps <= HIGHEST and 0 <= self.overlap <= 1):
            raise InputError(f"budget, steps and overlap are {self.budget}, {self.steps}, {self.overlap}: out of range")
        check_choice("attack", self.attack, ATTACKS)
        check_choice("fill", self.fill, FILLS)
        for weights in (self.victim_weights, self.surrogate_weights):
            check_choice("initial weights", weights, WEIGHTS)
        if (self.reward != "") != (self.attack == "adaptive"):
            raise InputError(f"attack {self.attack!r} with reward {self.reward!r}: only adaptive has a reward")

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with pool and granularity as names, which `Cell` accepts."""
        return asdict(self) | {"pool": str(self.pool), "granularity": str(self.granularity)}


def plain_cell(scale: "Scale", *, task: str, seed: int) -> Cell:
    """Return the cell that tables modify: the scale's pool, network, budget and steps, full answers, no defense."""
    return Cell(
        scale=scale.name,
        task=task,
        pool=Source.parse(scale.pool),
        victim=scale.network,
        surrogate=scale.network,
        budget=scale.budget,
        steps=scale.surrogate.steps,
        seed=seed,
    )


class Provenance(TypedDict):
    """What every row says about how it was made; a row may say more."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    commit: str
    lock: str
    date: str
    seconds: float
    device: str
    processor: str
    libraries: dict[str, str]
    versions: dict[str, int]
    settings: dict[str, Any]
    data: dict[str, str]


class Line(TypedDict):
    """A row as it is stored in a file."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    cell: dict[str, Any]
    result: dict[str, Any]
    provenance: Provenance


LINE = TypeAdapter(Line)


@dataclass(frozen=True)
class Row:
    """The result of a cell.

    Attributes:
        cell: The cell.
        result: What its experiment returns; shares in [0, 1].
        provenance: Commit, lock, date, seconds, device, versions of behaviors, settings, digests of the data.

    Raises:
        ValueError: A number in the result has the name of a field of the cell, and would take its column.
    """

    cell: Cell
    result: Mapping
    provenance: Mapping

    def __post_init__(self) -> None:
        taken = sorted(self.result.keys() & {field.name for field in fields(Cell)})
        if taken:
            raise ValueError(f"the result has {taken[0]!r}, which is a field of the cell")

    def to_json(self) -> dict:
        """Return the row as JSON-ready dictionaries."""
        return {"cell": self.cell.to_json(), "result": dict(self.result), "provenance": dict(self.provenance)}

    @classmethod
    def from_json(cls, row: Mapping) -> "Row":
        """Return the row that `to_json` wrote; anything else raises a TypeError or ValueError."""
        checked = LINE.validate_python(row)
        return cls(Cell(**checked["cell"]), checked["result"], checked["provenance"])


# -- provenance --------------------------------------------------------------


def commit() -> str:
    """Return the commit that the package is at, followed by ``+`` if tracked files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def describe(device: str) -> str:
    """Return a device in words: the name of the accelerator or the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{device}: {names[0] if names else platform.machine()}, {torch.get_num_threads()} thread(s)"


def processor() -> str:
    """Return the widest instruction set that torch uses here, which decides how it rounds, such as ``"AVX512"``."""
    return torch.backends.cpu.get_cpu_capability()


def lock() -> str:
    """Return the digest of the file that pins all libraries, or ``"unknown"`` if it is not there."""
    file = Path(__file__).parents[3] / "requirements.txt"
    return digest(file.read_bytes()) if file.exists() else "unknown"


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that a result may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
