"""How good a copy is on the hidden images: a public score on 30% of them, and the final score on the others.

The score starts from the best model without queries: 0 is no better than that model, 1 is as good as the victim. The
public score is rounded so that little can be learned by handing in copies: each score tells less than two answers do.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from extractlib.errors import InputError
from extractlib.metrics import accuracy, agreement, errors_repeated, recovery, recovery_above_constant

PUBLIC_SHARE = 0.3
PUBLIC_DIGITS, FINAL_DIGITS = 2, 4

FREE = "without queries"
"""How the names of models that send no queries begin: the score starts from the best of them."""

CONSTANT = f"{FREE}, one answer to all"


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good a copy is on one part of the hidden images.

    Attributes:
        score: (accuracy - free) / (victim's accuracy - free), at least 0, where free is the best without queries.
        recovery: Accuracy divided by the victim's.
        agreement: Share of images to which it gives the same label as the victim.
        errors_repeated: Share of the victim's errors that it makes too; None if the victim makes none.
    """

    score: float
    recovery: float
    agreement: float
    errors_repeated: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the values by name."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Hidden:
    """The images that copies are scored on, and what the host's own models answer on them.

    Attributes:
        images: uint8 of shape (n, 3, height, width).
        labels: The true ones, int64 of shape (n,).
        public: Which images count for the public score, bool of shape (n,).
        victim: The victim's labels, int64 of shape (n,).
        baselines: The labels of each of the host's models; names of those without queries begin with `FREE`.
    """

    images: torch.Tensor
    labels: torch.Tensor
    public: torch.Tensor
    victim: torch.Tensor
    baselines: Mapping[str, torch.Tensor]

    def scores(self, given: torch.Tensor) -> tuple[Score, Score]:
        """Return the public and the final score of labels, int64 of shape (n,)."""
        return self._score(given, self.public, PUBLIC_DIGITS), self._score(given, ~self.public, FINAL_DIGITS)

    def shown_models(self) -> list[str]:
        """Return which of the host's models are shown: of those without queries, only the constant and the best."""
        free = [name for name in self.baselines if name.startswith(FREE)]
        best = max(free, key=lambda name: self._accuracy(self.baselines[name], self.public))
        return [name for name in self.baselines if name not in free or name in (CONSTANT, best)]

    def _score(self, given: torch.Tensor, part: torch.Tensor, digits: int) -> Score:
        free = (labels for name, labels in self.baselines.items() if name.startswith(FREE))
        own, victim = self._accuracy(given, part), self._accuracy(self.victim, part)
        above = recovery_above_constant(own, victim, max(self._accuracy(labels, part) for labels in free))
        repeated = errors_repeated(given[part], self.victim[part], self.labels[part])
        return Score(
            score=round(max(0.0, above), digits),
            recovery=round(recovery(own, victim), digits),
            agreement=round(agreement(given[part], self.victim[part]), digits),
            errors_repeated=None if math.isnan(repeated) else round(repeated, digits),
        )

    def _accuracy(self, given: torch.Tensor, part: torch.Tensor) -> float:
        return accuracy(given[part], self.labels[part])

    def save(self, path: Path) -> None:
        """Write everything as safetensors that only the owner can read."""
        parts = {"images": self.images, "labels": self.labels, "public": self.public, "victim": self.victim}
        path.touch(mode=0o600)
        save_file(parts | {f"baseline {name}": labels for name, labels in self.baselines.items()}, path)
        os.chmod(path, 0o600)

    @classmethod
    def load(cls, path: Path) -> "Hidden":
        """Return what `save` wrote.

        Raises:
            InputError: The file is missing or damaged.
        """
        try:
            parts = load_file(path)
            own = {name: parts.pop(name) for name in ("images", "labels", "public", "victim")}
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{path} holds no hidden images ({error}): make the challenge again") from None
        return cls(**own, baselines={name.removeprefix("baseline "): labels for name, labels in parts.items()})


def public_part(count: int, seed: int) -> torch.Tensor:
    """Return which of so many images count for the public score, bool of shape (count,), drawn at random."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order < round(PUBLIC_SHARE * count)
