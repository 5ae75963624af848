"""Classifiers by name: they take uint8 images and return logits.

Small residual networks (He et al. 2016) and plain ones for small images. A first stride of 2 makes them fast on a
processor.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

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


class Network(nn.Module):
    """A classifier in three steps: `normalise` makes floats of images, `features` vectors of those, `head` logits."""

    def __init__(self):
        super().__init__()
        self.normalise = Normalise()
        self.head: nn.Linear

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the head sees, float of shape (n, width), of normalised images, float of the images' shape."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, 3, height, width)."""
        return self.head(self.features(self.normalise(images)))


class ResNet(Network):
    """A stem of stride 2, one residual block a stage, mean pooling and a linear head."""

    def __init__(self, widths: tuple[int, ...], *, classes: int):
        super().__init__()
        self.stem = convolution(3, widths[0], stride=2)
        stages = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(
            *(Block(before, width, stride=1 if number == 0 else 2) for number, (before, width) in enumerate(stages))
        )
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(x).relu_()).mean((2, 3))


class PlainNet(Network):
    """Convolutions in a row, the first of stride 2, with pooling after each stage, and two fully connected layers.

    Written after VGG (Simonyan and Zisserman 2015), with batch normalisation.
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...], *, classes: int, hidden: int = 128):
        super().__init__()
        layers, before = [], 3
        for stage in stages:
            for width in stage:
                layers += [convolution(before, width, stride=2 if before == 3 else 1), nn.ReLU(inplace=True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.stages = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(4 * before, hidden), nn.ReLU(inplace=True))
        self.head = nn.Linear(hidden, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.hidden(self.stages(x))


NETWORKS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {
        "resnet": partial(ResNet, (16, 32, 64)),
        "resnet-wide": partial(ResNet, (32, 64, 128)),
        "tiny": partial(ResNet, (16, 16)),
        "vgg": partial(PlainNet, ((16, 16), (32, 32, 32), (64, 64, 64)), hidden=256),
        "tiny-plain": partial(PlainNet, ((16,), (16,))),
        "cnn-5": partial(PlainNet, ((16,), (32,), (64,))),
        "cnn-9": partial(PlainNet, ((16, 16), (32, 32), (64, 64, 64))),
    }
)
"""The architectures by name."""


def build(name: str, *, classes: int, seed: int, backbone: Mapping[str, torch.Tensor] | None = None) -> Network:
    """Return a network with seeded first weights.

    Args:
        name: One of `NETWORKS`: ``"resnet"`` (78 thousand parameters), ``"resnet-wide"``, the VGG-like ``"vgg"``, the
            CNNs of 5 and 9 layers ``"cnn-5"`` and ``"cnn-9"``, or ``"tiny"`` and ``"tiny-plain"`` for tests.
        classes: Number of classes.
        seed: Seed of the first weights; the caller's generators are left alone.
        backbone: Weights of everything but the head (`backbone_state`), where the network is pre-trained.

    Raises:
        InputError: The name is unknown, there are fewer than two classes, or the backbone is of another network.
    """
    make = NETWORKS[one_of("network", name, NETWORKS)]
    if classes < 2:
        raise InputError(f"{classes} class(es) cannot be told apart: at least 2 are wanted")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(classes=classes).to(memory_format=torch.channels_last)
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
