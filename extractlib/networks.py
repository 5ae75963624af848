"""Classifiers by name: they take uint8 images and return logits.

Small residual networks (He et al. 2016) for small images. The stem's stride of 2 makes them fast on a processor.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from extractlib.errors import InputError, one_of
from extractlib.images import digest

WEIGHTS = Path(__file__).parent / "weights"
HEAD = "head."


class Normalise(nn.Module):
    """Turns uint8 images into floats of about zero mean and unit spread: (x / 255 - 0.5) / 0.25."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.float() - 127.5) / 63.75


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions."""

    def __init__(self, width_in: int, width: int, *, stride: int):
        super().__init__()
        self.first = convolution(width_in, width, stride=stride)
        self.second = convolution(width, width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else convolution(width_in, width, size=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.second(self.first(x).relu_()) + self.shortcut(x)).relu_()


def convolution(width_in: int, width: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(width_in, width, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(width)
    )


class ResNet(nn.Module):
    """A stem of stride 2, one residual block a stage, mean pooling and a linear head."""

    def __init__(self, widths: tuple[int, ...], *, classes: int):
        super().__init__()
        self.normalise = Normalise()
        self.stem = convolution(3, widths[0], stride=2)
        stages = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(
            *(Block(before, width, stride=1 if number == 0 else 2) for number, (before, width) in enumerate(stages))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, 3, height, width)."""
        x = self.stem(self.normalise(images)).relu_()
        return self.head(self.stages(x).mean((2, 3)))


NETWORKS: Mapping[str, tuple[int, ...]] = {"resnet": (16, 32, 64), "resnet-wide": (32, 64, 128), "tiny": (16, 16)}
"""Width of each stage of each network."""


def build(name: str, *, classes: int, seed: int, backbone: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """Return a network with seeded first weights.

    Args:
        name: One of `NETWORKS`: ``"resnet"`` (78 thousand parameters), ``"resnet-wide"`` or ``"tiny"``.
        classes: Number of classes.
        seed: Seed of the first weights; the caller's generators are left alone.
        backbone: Weights of everything but the head (`backbone_state`), where the network is pre-trained.

    Raises:
        InputError: The name is unknown, there are fewer than two classes, or the backbone is of another network.
    """
    widths = NETWORKS[one_of("network", name, NETWORKS)]
    if classes < 2:
        raise InputError(f"{classes} class(es) cannot be told apart: at least 2 are wanted")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(widths, classes=classes).to(memory_format=torch.channels_last)
    if backbone is not None:
        own = backbone_state(model)
        strange = [key for key in own | backbone if key not in own or key not in backbone]
        strange += [key for key in own if key not in strange and own[key].shape != backbone[key].shape]
        if strange:
            raise InputError(f"the backbone does not fit network {name!r}: {strange[0]} differs")
        model.load_state_dict(dict(backbone), strict=False)
    return model


def backbone_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of all weights and running statistics but the head's, on the CPU."""
    state = model.state_dict().items()
    return {name: value.detach().cpu().contiguous().clone() for name, value in state if not name.startswith(HEAD)}


def fingerprint_of(state: Mapping[str, torch.Tensor]) -> str:
    """Return the digest of weights: their names, shapes and values."""
    entries = sorted(state.items())
    return digest(*(part for name, value in entries for part in (name, str(tuple(value.shape)), _bytes(value))))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def shipped_backbone(name: str = "resnet") -> dict[str, torch.Tensor]:
    """Return the backbone that ships with the package; its recipe lies beside it as JSON.

    Raises:
        InputError: None ships for that network.
    """
    path = WEIGHTS / f"{one_of('network', name, NETWORKS)}.safetensors"
    if not path.exists():
        raise InputError(f"no backbone ships for network {name!r}: make it with extractlib weights")
    return load_file(path)
