"""A victim without training, and the least that an API may be, for tests of what stands around them."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch

from extractlib.attacks.knockoff import API

SIDE = 4


@dataclass(frozen=True, eq=False)
class LinearVictim:
    """Logits are a fixed linear function of the pixels; `calls` holds the size of each batch it has seen."""

    classes: tuple[str, ...]
    fingerprint: str
    weights: torch.Tensor
    calls: list[int]
    image_shape: tuple[int, int, int] | None = (3, SIDE, SIDE)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        return (images.float() / 255 - 0.5).flatten(1) @ self.weights


def linear_victim(classes: int = 10, *, seed: int = 0) -> LinearVictim:
    generator = torch.Generator().manual_seed(seed)
    # Gradients are asked for, as of a real network: none may leave with an answer.
    weights = torch.randn(3 * SIDE * SIDE, classes, generator=generator).requires_grad_()
    names = tuple(f"class {number}" for number in range(classes))
    return LinearVictim(names, f"linear {classes} {seed}", weights, [])


def remote(api: API, *, without: str = "") -> SimpleNamespace:
    """Return an object that has of an API what an attack may use, as a client of a far one has, and nothing else."""
    names = {"query", "classes", "granularity", "fingerprint"} - {without}
    return SimpleNamespace(**{name: getattr(api, name) for name in names})


def noise(count: int, *, seed: int = 1) -> torch.Tensor:
    """Return random images, uint8 of shape (count, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
