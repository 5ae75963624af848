"""A victim without training, for tests of what stands around a victim."""

from dataclasses import dataclass

import torch

SIDE = 4


@dataclass(frozen=True, eq=False)
class LinearVictim:
    """Logits are a fixed linear function of the pixels; `calls` holds the size of each batch it has seen."""

    classes: tuple[str, ...]
    fingerprint: str
    weights: torch.Tensor
    calls: list[int]
    image_shape: tuple[int, int, int] = (3, SIDE, SIDE)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        return (images.float() / 255 - 0.5).flatten(1) @ self.weights


def linear_victim(classes: int = 10, *, seed: int = 0) -> LinearVictim:
    generator = torch.Generator().manual_seed(seed)
    # Gradients are asked for, as of a real network: none may leave with an answer.
    weights = torch.randn(3 * SIDE * SIDE, classes, generator=generator).requires_grad_()
    names = tuple(f"class {number}" for number in range(classes))
    return LinearVictim(names, f"linear {classes} {seed}", weights, [])


def noise(count: int, *, seed: int = 1) -> torch.Tensor:
    """Return random images, uint8 of shape (count, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
