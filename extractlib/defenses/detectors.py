"""Detectors of out-of-distribution queries: the paper's binary classifier, ODIN and Mahalanobis beside it (section 5).

A score is the higher, the more out of distribution an image is; an image is caught if its score is above the threshold.
The paper calls in-distribution images positive: TPR is the share of them that is accepted, TNR the share of the
attacker's queries that is caught (`metrics.tpr_tnr`).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from pytorch_ood.detector import ODIN, MahalanobisODIN
from safetensors.torch import load_file, save_file

from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.metrics import auroc, tpr_tnr
from extractlib.models import devices as acceleration
from extractlib.models import networks
from extractlib.models.training import Recipe, default_device, fit, predict
from extractlib.models.victims import Victim
from extractlib.store import Store, digest, fingerprint
from extractlib.versions import versions

PIXEL_SPREAD = [0.25, 0.25, 0.25]
"""What `networks.Normalise` divides pixels in [0, 1] by, a channel: the size of a perturbation is told in pixels."""


class Detector(Protocol):
    """What all detectors here have in common; `api.PredictionAPI` takes any of them."""

    threshold: float
    fingerprint: str

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores, float32 of shape (n,), of uint8 images of shape (n, 3, height, width)."""

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,): whether each image is caught."""


class Thresholded:
    """Catches what has a score above the threshold."""

    threshold: float

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,): whether the score of each image is above the threshold."""
        return self.score(images) > self.threshold


class BinaryDetector(Thresholded):
    """The paper's detector: a network with two outputs, score = softmax(logits)[1], the probability of a stranger.

    Args:
        model: Network that was trained with label 0 for in-distribution and 1 for out-of-distribution images.
        fingerprint: Digest of all that made it.

    Attributes:
        threshold: 0.5.
    """

    def __init__(self, model: networks.Network, *, fingerprint: str):
        self.model, self.fingerprint, self.threshold = model, fingerprint, 0.5

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probability, float32 of shape (n,), that each image is out of distribution."""
        return F.softmax(predict(self.model, _checked(images)).to(torch.get_default_dtype()), 1)[:, 1]


def train_detector(
    benign: ImageSet,
    strangers: ImageSet,
    *,
    network: str,
    recipe: Recipe,
    seed: int,
    store: Store,
    backbone: Mapping[str, torch.Tensor] | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> BinaryDetector:
    """Train the paper's detector, or read the one that was trained before with the same settings (section 5).

    Args:
        benign: Images like the victim's.
        strangers: Images of a pool such as an attacker may send; of both sides the first ones, equally many, are used.
        network: Architecture (see `networks.build`).
        recipe: How it is trained.
        seed: Seed of the head's first weights and of the order of the images.
        store: Keeps trained detectors.
        backbone: Pre-trained weights to start from; None to train from scratch.
        device: Where to train.
        progress: Whether to show a bar.

    Raises:
        InputError: A side has no images, or network or backbone do not fit.
    """
    count = min(len(benign), len(strangers))
    if not count:
        raise InputError(
            f"{benign.name} has {len(benign)} images and {strangers.name} {len(strangers)}: both need some"
        )
    key = {
        "benign": benign.fingerprint,
        "strangers": strangers.fingerprint,
        "network": network,
        "recipe": asdict(recipe),
        "seed": seed,
        "backbone": None if backbone is None else networks.fingerprint_of(backbone),
        "versions": versions("network", "train", "augment", "detect"),
    }
    model = networks.build(network, classes=2, seed=seed, backbone=backbone)

    def make(folder: Path) -> None:
        images = torch.cat([benign.images[:count], strangers.images[:count]])
        fit(
            model, images, torch.arange(2).repeat_interleave(count), recipe, seed=seed, device=device, progress=progress
        )
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "d.safetensors")

    model.load_state_dict(load_file(store.get("detector", key, make) / "d.safetensors"))
    return BinaryDetector(model.eval(), fingerprint=fingerprint(key))


class OdinDetector(Thresholded):
    """ODIN (Liang et al. 2018): score = -max softmax(f(x') / T), x' = x - ε sign(∇ cross-entropy(f(x) / T, argmax f)).

    Args:
        victim: The network f.
        temperature: T.
        epsilon: Size ε of the perturbation, in pixels of range 1.
        threshold: The highest score that is accepted.
    """

    SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType(
        {"temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028)}
    )
    """Settings to choose from on validation data, as in pytorch-ood and OpenOOD."""

    def __init__(self, victim: Victim, *, temperature: float, epsilon: float, threshold: float = math.inf):
        model, self.threshold = _placed(victim.model), threshold
        self._normalise = model.normalise
        self._method = ODIN(_Head(model), eps=epsilon, temperature=temperature, norm_std=PIXEL_SPREAD)
        self.fingerprint = digest("odin", victim.fingerprint, repr((temperature, epsilon, threshold)))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return minus the highest softmax probability, float32 of shape (n,), after temperature and perturbation."""
        return _in_batches(lambda batch: self._method.predict(self._normalise(batch)), images)


class MahalanobisDetector(Thresholded):
    """Mahalanobis (Lee et al. 2018): score = ½ min over classes of (z - μ)ᵀ Σ⁻¹ (z - μ), z the features of x'.

    The classes' means μ and their common scatter Σ (a sum over the images, not a mean) are those of the victim's
    training images; x' is x moved by ε towards the nearest class. One layer is used, the last before the head.

    Args:
        victim: The network.
        known: Its labelled training images, at least one of each class.
        epsilon: Size ε of the perturbation, in pixels of range 1.
        threshold: The highest score that is accepted.
        features: What `features_of` returns of the two, if it is at hand: it is the same for every ε.

    Raises:
        InputError: A class has no image.
    """

    SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType({"epsilon": (0.0, 0.0005, 0.001, 0.002, 0.005)})
    """Settings to choose from on validation data: the sizes that Lee et al. search, and none."""

    def __init__(
        self,
        victim: Victim,
        known: ImageSet,
        *,
        epsilon: float,
        threshold: float = math.inf,
        features: torch.Tensor | None = None,
    ):
        absent = set(range(len(victim.classes))) - set(known.labels.tolist())
        if absent:
            raise InputError(f"{known.name} has no image of class {victim.classes[min(absent)]!r}: one is needed")
        model, self.threshold = _placed(victim.model), threshold
        self._normalise = model.normalise
        self._method = MahalanobisODIN(model.features, eps=epsilon, norm_std=PIXEL_SPREAD)
        seen = features_of(victim, known.images) if features is None else features
        self._method.fit_features(seen.to(next(model.parameters()).device), known.labels)
        self.fingerprint = digest("mahalanobis", victim.fingerprint, known.fingerprint, repr((epsilon, threshold)))

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return half the squared distance to the nearest class, float32 of shape (n,)."""
        return _in_batches(lambda batch: self._method.predict(self._normalise(batch)), images)


def features_of(victim: Victim, images: torch.Tensor) -> torch.Tensor:
    """Return what the victim's head sees, float32 of shape (n, width), of uint8 images (n, 3, height, width)."""
    model = _placed(victim.model)
    with torch.no_grad():
        return _in_batches(lambda batch: model.features(model.normalise(batch)), images)


def tune(
    make: Callable[..., Detector],
    settings: Mapping[str, Iterable[float]],
    *,
    benign: ImageSet,
    strangers: ImageSet,
) -> tuple[Detector, dict[str, float]]:
    """Return the detector that does best on validation images, with its settings.

    Best is the highest TNR at a TPR of 95%, by which Liang et al. and Lee et al. choose too; of equals the one with the
    higher AUROC, and then the first.

    Args:
        make: Makes a detector from the settings as keyword arguments.
        settings: Values to try of each setting.
        benign: In-distribution validation images.
        strangers: Validation images of the pool.
    """
    best, chosen = (-1.0, -1.0), None
    for values in product(*settings.values()):
        tried = dict(zip(settings, values, strict=True))
        detector = make(**tried)
        scores = detector.score(benign.images), detector.score(strangers.images)
        quality = tpr_tnr(*scores, threshold_at(scores[0], 0.95))[1], auroc(*scores)
        if quality > best:
            best, chosen = quality, (detector, tried)
    return chosen


def threshold_at(scores: torch.Tensor, accepted: float) -> float:
    """Return the lowest threshold that accepts at least a share `accepted`, in [0, 1], of benign images.

    Args:
        scores: Scores of benign images, float of shape (n,).
        accepted: The share; 0 accepts none.

    Raises:
        InputError: There are no scores, or the share is out of range.
    """
    if not len(scores) or not 0 <= accepted <= 1:
        raise InputError(f"share {accepted} of {len(scores)} scores: a share in [0, 1] of at least one is wanted")
    # The tolerance undoes the rounding of a share that was itself counted.
    needed = math.ceil(accepted * len(scores) - 1e-9)
    return scores.sort().values[needed - 1].item() if needed else -math.inf


class _Head(torch.nn.Module):
    """A network from its normalised images on, where perturbations are made."""

    def __init__(self, model: networks.Network):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.head(self.model.features(x))


def _placed(model: networks.Network) -> networks.Network:
    """Return the model where predictions are made: itself on a processor, else a copy on the device."""
    device = acceleration.usable(default_device())
    return model if device.type == "cpu" else copy.deepcopy(model).to(device)


def _in_batches(step: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, size: int = 512) -> torch.Tensor:
    device = acceleration.usable(default_device())
    return torch.cat([step(batch.to(device)).detach().cpu() for batch in _checked(images).split(size)])


def _checked(images: torch.Tensor) -> torch.Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"images are {images.dtype} of shape {tuple(images.shape)}: uint8, at least one, is wanted")
    return images
