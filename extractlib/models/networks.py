"""Classifiers by name: they take uint8 images and return logits.

There are small residual networks (He et al. 2016) and plain ones for small images. A first stride of 2 makes them fast
on a CPU. For a GPU, there are torchvision's ResNet-34 and VGG-16, as they are and with a stem for images of 32 pixels.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torchvision import models

from extractlib.data.images import Rows
from extractlib.errors import InputError, check_choice, one_line, shown
from extractlib.models import devices, lite
from extractlib.models.activations import Activations
from extractlib.registry import Registry
from extractlib.store import Store, digest
from extractlib.tensors import is_plain, kind_of, own_draws
from extractlib.versions import versions

WEIGHTS = Path(__file__).parent / "weights"
INITIAL = ("A", "B")
"""The shipped backbones of a network: B was trained on the same images as A, from another seed."""

HEAD = "head."

IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], per channel, as used to train torchvision's weights."""

PUBLISHED: Mapping[str, tuple[models.WeightsEnum, str]] = {
    "resnet-34": (models.ResNet34_Weights.IMAGENET1K_V1, "fc."),
    "vgg-16": (models.VGG16_Weights.IMAGENET1K_V1, "classifier.6."),
}
"""ImageNet weights by network, and what the names of the head's weights begin with."""


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions."""

    def __init__(self, width_in: int, width: int, *, stride: int):
        super().__init__()
        self.first = convolution(width_in, width, stride=stride)
        self.second = convolution(width, width)
        same = stride == 1 and width_in == width
        self.shortcut = nn.Identity() if same else convolution(width_in, width, size=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.second(self.first(x).relu_()) + self.shortcut(x))


def convolution(width_in: int, width: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch normalization."""
    return nn.Sequential(
        nn.Conv2d(width_in, width, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(width)
    )


class Network(nn.Module):
    """A classifier of uint8 images in three steps: `normalize` returns floats, `features` vectors, and `head` logits.

    The floats have the default dtype at the time of construction, like the weights.

    Attributes:
        std: What pixels in [0, 1] are divided by, per channel.
        channels_last: Whether it can be trained in torch's layout of that name.
    """

    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    channels_last = True

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.get_default_dtype()
        self.head: nn.Linear

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return floats of about zero mean and unit spread, (x / 255 - 0.5) / 0.25, of uint8 images.

        Raises:
            InputError: The images do not have three channels.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"images are of shape {tuple(images.shape)}: the package's networks take (n, 3, height, width); repeat"
                " a gray channel three times, or give your own module"
            )
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.to(self.dtype) - 127.5) / 63.75

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the head sees, float of shape (n, width), of normalized images, float of the images' shape."""
        raise NotImplementedError

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, float of shape (n, classes), of normalized images."""
        logits: torch.Tensor = self.head(self.features(x))
        return logits

    def lowered(self, images: torch.Tensor | Rows) -> torch.Tensor | Rows:
        """Return what `forward` takes in place of uint8 images if layers are frozen; here, the images themselves."""
        return images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images of shape (n, 3, height, width)."""
        return self.classify(self.normalize(images))


class ResNet(Network):
    """A stem of stride 2, one residual block per stage, mean pooling and a linear head."""

    def __init__(self, widths: tuple[int, ...], *, classes: int):
        super().__init__()
        self.stem = convolution(3, widths[0], stride=2)
        stages = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(
            *(Block(before, width, stride=1 if number == 0 else 2) for number, (before, width) in enumerate(stages))
        )
        self.head = nn.Linear(widths[-1], classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mean(self.stages(self.stem(x).relu_()), (2, 3))


class PlainNet(Network):
    """Convolutions in a row, the first of stride 2, with pooling after each stage, and two fully connected layers.

    Modeled on VGG (Simonyan and Zisserman 2015), with batch normalization. A halved one looks at means of 2 x 2
    pixels.
    """

    def __init__(self, stages: tuple[tuple[int, ...], ...], *, classes: int, hidden: int = 128, halved: bool = False):
        super().__init__()
        self.halved = halved
        layers, before = [], 3
        for stage in stages:
            for width in stage:
                layers += [convolution(before, width, stride=2 if before == 3 else 1), nn.ReLU(inplace=True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.stages = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(4 * before, hidden), nn.ReLU(inplace=True))
        self.head = nn.Linear(hidden, classes)

    def extra_repr(self) -> str:
        """Return what the layers do not tell."""
        return "halved" if self.halved else ""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.hidden(self.stages(nn.functional.avg_pool2d(x, 2) if self.halved else x))
        return features


class PublishedNet(Network):
    """A torchvision network without its last layer, which becomes the head.

    Args:
        make: Makes the network without its last layer; it is kept under the name ``body``.
        width: Size of its output for an image.
        classes: Number of classes.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, make: Callable[[], nn.Module], width: int, *, classes: int):
        super().__init__()
        self.body = make()
        self.head = nn.Linear(width, classes)
        # From our normalization, mean 0.5 and spread 0.25, to that of ImageNet's weights.
        mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_SPREAD))
        self.register_buffer("scale", 0.25 / spread, persistent=False)
        self.register_buffer("offset", (0.5 - mean) / spread, persistent=False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(x * self.scale + self.offset)
        return features


class LiteNet(Network):
    """EfficientNet-Lite (see `lite`), with some of the first stages frozen and the others trained.

    The output of the frozen stages for an image is the same in every epoch and in every network with these weights: it
    is computed once, in half precision if the device supports it, and can be kept in a store.

    Args:
        plans: The stages between the first and the last convolution.
        frozen: How many of the first convolution, the stages and the last convolution, in this order, are frozen.
        classes: Number of classes.
        stem, last: Channels after the first and after the last convolution.

    Attributes:
        watched: Names of three stages after or before which the image becomes smaller; detectors look at these.
    """

    def __init__(
        self, plans: Sequence[lite.Plan], *, frozen: int, classes: int, stem: int = lite.STEM, last: int = lite.LAST
    ):
        super().__init__()
        self.stages = nn.ModuleList(lite.stages_of(plans, stem=stem, last=last))
        self.head = nn.Linear(last, classes)
        self.frozen = frozen
        self._store: tuple[Path, str] | None = None
        self._kept: dict[tuple[str, torch.Size], Activations] = {}
        self.stages[:frozen].requires_grad_(False)
        ends = [number for number, plan in enumerate(plans[1:], start=1) if plan.stride > 1]
        self.watched = tuple(f"stages.{number}" for number in (*ends, len(plans))[-3:])

    def extra_repr(self) -> str:
        """Return how many stages are frozen."""
        return f"frozen={self.frozen}"

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self._upper(self._lower(x))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 of shape (n, classes), of uint8 images or of what `lowered` returns for them."""
        if images.dtype == torch.uint8:
            return super().forward(images)
        logits: torch.Tensor = self.head(self._upper(images.to(self.dtype), products=images.device.type == "cpu"))
        return logits

    def keep_in(self, store: Store | None) -> None:
        """Keep the outputs of the frozen stages, with their current weights, in a store; None to keep nothing."""
        self._kept.clear()
        self._store = None
        if store is not None and self.frozen:
            self._store = store.root / "activations", fingerprint_of(self.stages[: self.frozen].state_dict())

    def lowered(self, images: torch.Tensor | Rows) -> torch.Tensor | Rows:
        """Return the frozen stages' output for uint8 images, float16 (n, channels, height, width), on the CPU.

        If none is frozen, this is the images themselves.
        """
        if not self.frozen or images.dtype != torch.uint8:
            return images
        if self._store is None:
            return self._computed(images)
        # The precision is that of the device where the network is now, not the one where it was made.
        precision = str(devices.half(devices.device_of(self)) if self.dtype == torch.float32 else self.dtype)
        asked = precision, images.shape[1:]
        if asked not in self._kept:
            place, weights = self._store
            folder = place / digest(weights, precision, repr(versions("network")))
            self._kept[asked] = Activations(folder / "x".join(map(str, images.shape[1:])))
        return self._kept[asked].of(images, self._computed)

    @torch.no_grad()
    def _computed(self, images: torch.Tensor | Rows) -> torch.Tensor:
        device = devices.device_of(self)
        with devices.autocast(device):
            parts = [self._lower(self.normalize(batch.to(device))).half().cpu() for batch in images.split(64)]
        return torch.cat(parts).contiguous()

    def _lower(self, x: torch.Tensor) -> torch.Tensor:
        # From our normalization, mean 127.5 and spread 63.75 of the pixels, to 127 and 128, which these weights expect.
        x = (x * 63.75 + 0.5) / 128
        for stage in self.stages[: self.frozen]:
            x = stage(x)
        return x

    def _upper(self, x: torch.Tensor, *, products: bool = False) -> torch.Tensor:
        if products:
            return lite.by_products(self.stages[self.frozen :], x).flatten(1)
        for stage in self.stages[self.frozen :]:
            x = stage(x)
        return x.flatten(1)


OUTPUTS = ("logits", "probabilities", "logit", "probability")
"""What a module may return: logits or probabilities of shape (n, classes), or with two classes only the second one's
logit or probability, of shape (n,) or (n, 1)."""


def _each(values: object) -> tuple[float, ...]:
    return (float(values),) if isinstance(values, int | float) else tuple(map(float, values))  # type: ignore[call-overload]


class FromFloats(Network):
    """A module that takes floats, wrapped so that it takes uint8 images and returns logits.

    Args:
        module: Takes floats of shape (n, channels, height, width): (x / 255 - mean) / std.
        mean, std: One number per channel, or one for all; 0 and 1 if None.
        outputs: One of `OUTPUTS`.
        layer: Name of an inner module, as in ``named_modules``, whose input is what detectors call features.

    Raises:
        InputError: A value does not fit.
    """

    channels_last = False  # the module may use view

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        outputs: str = "logits",
        layer: str | None = None,
    ):
        super().__init__()
        self.module, self.outputs, self.layer = module, check_choice("kind of outputs", outputs, OUTPUTS), layer
        if layer is not None:
            check_choice("layer", layer, [name for name, _ in module.named_modules() if name])
        try:
            self.mean, self.std = _each(0.0 if mean is None else mean), _each(1.0 if std is None else std)
            finite = all(map(math.isfinite, self.mean + self.std))
            fits = finite and {len(self.mean), len(self.std)} <= {1, 3} and min(self.std) > 0
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise InputError(
                f"mean is {shown(mean)} and std {shown(std)}: expected one or three numbers each, std above 0"
            )
        if any(isinstance(weight, UninitializedParameter) for weight in module.parameters()):
            raise InputError("the module's weights have no shape yet: call it on an image once before giving it")

    def extra_repr(self) -> str:
        """Return how the module is used."""
        return f"mean={self.mean}, std={self.std}, outputs={self.outputs!r}, layer={self.layer!r}"

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images as the floats that the module expects."""
        weights = (weight for weight in self.module.parameters() if weight.is_floating_point())
        like = next(weights, torch.empty(0, device=images.device))
        mean, std = (like.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        # The module may use view, which needs this layout.
        return (images.to(like.dtype).contiguous() / 255 - mean) / std

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, float of shape (n, classes), of normalized images."""
        returned = self.module(x)
        if not is_plain(returned):
            raise InputError(f"the module returned {kind_of(returned)}: wrap it so that it returns a tensor of numbers")
        # Half precision would round 1 - p and detectors' scores.
        returned = returned.to(torch.promote_types(returned.dtype, torch.float32))
        if self.outputs in ("logit", "probability"):
            returned = returned.flatten(1) if returned.ndim > 1 else returned.view(-1, 1)
        if self.outputs == "probability":
            returned = torch.cat([1 - returned, returned], 1)
        if self.outputs in ("probability", "probabilities"):
            return returned.clamp(min=torch.finfo(returned.dtype).tiny).log()
        if self.outputs == "logit":
            return torch.cat([torch.zeros_like(returned), returned], 1)
        return returned

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the layer, float of shape (n, width), for normalized images."""
        if self.layer is None:
            raise InputError(
                "no feature layer is named: give Victim(module, layer='…'), a name from module.named_modules() whose"
                " input the detector looks at, such as the last linear layer's"
            )
        caught: list[torch.Tensor] = []
        layer, asked_by = self.module.get_submodule(self.layer), threading.get_ident()

        def catch(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if threading.get_ident() == asked_by:  # other threads may be using the module
                if not inputs:
                    raise InputError(f"layer {self.layer!r} is called by keyword: name another whose input is a tensor")
                caught.append(inputs[0].flatten(1).clone())  # the layer may work in place

        with layer.register_forward_pre_hook(catch):
            self.module(x)
        if not caught:
            raise InputError(
                f"layer {self.layer!r} is not used by the module: name another from module.named_modules()"
            )
        return caught[0].to(torch.get_default_dtype())


def _resnet_34(*, small: bool = False) -> nn.Module:
    body: nn.Module = models.resnet34()
    body.fc = nn.Identity()
    if small:
        # He et al. 2016, section 4.2: for images of 32 pixels, one 3 x 3 convolution without stride or pooling.
        first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        body.conv1, body.maxpool = first, nn.Identity()
    return body


def _vgg_16() -> nn.Module:
    body: nn.Module = models.vgg16()
    body.set_submodule("classifier.6", nn.Identity())
    return body


def _vgg_16_32(width: int = 512) -> nn.Module:
    """VGG-16 with batch normalization, whose five poolings reduce an image of 32 pixels to one position."""
    layers = models.vgg.make_layers(models.vgg.cfgs["D"], batch_norm=True)
    hidden = (layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU(inplace=True), nn.Dropout()))
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *hidden)


NETWORKS: Registry[Callable[..., Network]] = Registry("network")
"""The architectures by name: each makes a `Network` for a given number of classes."""

_MAKES: Mapping[str, Callable[..., Network]] = {
    "resnet": partial(ResNet, (16, 32, 64)),
    "resnet-wide": partial(ResNet, (32, 64, 128)),
    "tiny": partial(ResNet, (16, 16)),
    "vgg": partial(PlainNet, ((16, 16), (24, 24, 24), (40, 40, 40)), hidden=128),
    "tiny-plain": partial(PlainNet, ((16,), (16,))),
    "cnn-5": partial(PlainNet, ((16,), (32,), (64,))),
    "cnn-9": partial(PlainNet, ((16, 16), (32, 32), (64, 64, 64))),
    "cnn-5-wide": partial(PlainNet, ((64,), (128,), (256,)), hidden=512),
    "cnn-9-wide": partial(PlainNet, ((64, 64), (128, 128), (256, 256, 256)), hidden=512),
    "resnet-34": partial(PublishedNet, _resnet_34, 512),
    "resnet-34-32": partial(PublishedNet, partial(_resnet_34, small=True), 512),
    "vgg-16": partial(PublishedNet, _vgg_16, 4096),
    "vgg-16-32": partial(PublishedNet, _vgg_16_32, 512),
    "cnn-5-halved": partial(PlainNet, ((16,), (32,), (64,)), halved=True),
    "cnn-9-halved": partial(PlainNet, ((16, 16), (32, 32), (64, 64, 64)), halved=True),
    **{
        f"{name}{suffix}": partial(LiteNet, plans, frozen=frozen)
        for name, plans in lite.PLANS.items()
        for suffix, frozen in (("", 0), ("-4", 5), ("-5", 6), ("-6", 7), ("-head", 9))
    },
}
for _name, _make in _MAKES.items():
    NETWORKS.add(_name, _make)


def build(name: str, *, classes: int, seed: int, backbone: Mapping[str, torch.Tensor] | None = None) -> Network:
    """Return a network with seeded first weights.

    Args:
        name: One of `NETWORKS`: ``"resnet"`` (78 thousand parameters), ``"resnet-wide"``, the VGG-like ``"vgg"``, the
            CNNs of 5 and 9 layers ``"cnn-5"`` and ``"cnn-9"``, or ``"tiny"`` and ``"tiny-plain"`` for tests. For a
            GPU, ``"resnet-34"`` and ``"vgg-16"``, with ``"-32"`` appended for images of 32 pixels, and the CNNs with
            ``"-wide"`` appended. EfficientNet-Lite is ``"lite0"`` and ``"lite1"``, unfrozen; with ``"-4"``, ``"-5"`` or
            ``"-6"`` appended, everything up to that stage is frozen, with ``"-head"`` everything but the head.
        classes: Number of classes.
        seed: Seed of the first weights; the caller's generators are left alone.
        backbone: Weights of everything but the head (`backbone_state`), if the network is pre-trained.

    Raises:
        InputError: The name is unknown or does not make a `Network`, there are fewer than two classes, or the backbone
            is of another network.
    """
    make = NETWORKS[name]
    if classes < 2:
        raise InputError(f"there are {classes} class(es): expected at least 2")
    with own_draws(torch.get_default_device(), seed=seed):  # where torch makes the weights
        model = make(classes=classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    if not isinstance(model, Network):
        raise InputError(f"network {name!r} makes a {type(model).__name__}: expected a networks.Network")
    if backbone is not None:
        head = {name: value for name, value in model.state_dict().items() if name.startswith(HEAD)}
        try:
            model.load_state_dict(dict(backbone) | head)
        except RuntimeError as error:
            raise InputError(f"the backbone does not fit network {name!r} ({one_line(error)})") from None
    return model


Backbone = Mapping[str, torch.Tensor] | str | None
"""Weights of everything but the head, ``"shipped"``, ``"shipped-B"``, ``"imagenet"``, or None."""


def backbone_of(network: str, backbone: Backbone) -> Mapping[str, torch.Tensor] | None:
    """Return the weights that a word stands for; weights, and None, are returned as they are.

    Raises:
        InputError: The word is unknown, or there are no such weights for the network.
    """
    if not isinstance(backbone, str):
        return backbone
    found = {"shipped": shipped_backbone, "imagenet": imagenet_backbone}
    found |= {f"shipped-{initial}": partial(shipped_backbone, initial=initial) for initial in INITIAL[1:]}
    return found[check_choice("backbone", backbone, found)](network)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of all weights and running statistics, on the CPU; no two share memory, as safetensors requires.

    Raises:
        InputError: Something else is among them.
    """
    others = [name for name, value in model.state_dict().items() if not is_plain(value)]
    if others:
        raise InputError(f"{others[0]} is no tensor of numbers, as in a quantized module: keep it with torch.export")
    return {name: value.cpu().contiguous().clone() for name, value in model.state_dict().items()}


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what `state_of` does without the frozen weights, which are still those that training started from."""
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return {name: value for name, value in state_of(model).items() if name not in frozen}


def backbone_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of all weights and running statistics except the head's, on the CPU."""
    return {name: value for name, value in state_of(model).items() if not name.startswith(HEAD)}


def fingerprint_of(state: Mapping[str, torch.Tensor]) -> str:
    """Return the digest of weights: their names, shapes and values."""
    parts: list[str | bytes] = []
    for name, value in sorted(state.items()):
        # As bytes, since numpy has no bfloat16.
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts += [name, str(tuple(value.shape)), content]
    return digest(*parts)


def shipped_backbone(name: str = "resnet", *, initial: str = "A") -> dict[str, torch.Tensor]:
    """Return a backbone that ships with the package; its recipe is beside it as JSON.

    Args:
        name: One of `NETWORKS`.
        initial: Which of the initial weights, one of `INITIAL`.

    Raises:
        InputError: None ships for that network.
    """
    check_choice("network", name, NETWORKS)
    path = WEIGHTS / f"{backbone_name(name, initial)}.safetensors"
    if not path.exists():
        raise InputError(
            f"no backbone ships for network {name!r}: give your own weights, or backbone=None"
            " (--scratch) to train from scratch"
        )
    return load_file(path)


def backbone_name(network: str, initial: str = "A") -> str:
    """Return the name of a backbone's files: the network's name, and which initial weights it has if not A.

    Raises:
        InputError: There are no such initial weights.
    """
    check_choice("initial weights", initial, INITIAL)
    return network if initial == "A" else f"{network}-{initial}"


def imagenet_backbone(name: str) -> dict[str, torch.Tensor]:
    """Return the ImageNet weights of a network: torchvision downloads its own once and verifies their checksum.

    Raises:
        InputError: There are none for that network, or they are not available.
    """
    return IMAGENET[name]()


def _torchvisions(name: str) -> dict[str, torch.Tensor]:
    weights, head = PUBLISHED[name]
    try:
        state = weights.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        place = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"the ImageNet weights of {name} are not available ({error}): download {weights.url} into {place}"
        ) from None
    return {f"body.{key}": value for key, value in state.items() if not key.startswith(head)}


IMAGENET: Registry[Callable[[], dict[str, torch.Tensor]]] = Registry("network with ImageNet weights")
"""Functions that return the ImageNet weights, all but the head's, by network."""

for _name in PUBLISHED:
    IMAGENET.add(_name, partial(_torchvisions, _name))
for _name in NETWORKS:
    if (_base := _name.partition("-")[0]) in lite.PLANS:
        IMAGENET.add(_name, partial(lite.published, _base))
