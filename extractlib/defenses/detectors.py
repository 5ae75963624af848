"""Detectors of out-of-distribution queries: the paper's binary classifier, ODIN and Mahalanobis beside it (section 5).

The higher a score, the more out of distribution an image is; an image is caught if its score is above the threshold.
The paper calls in-distribution images positive: TPR is the share of them that is accepted, TNR the share of the
attacker's queries that is caught (`metrics.tpr_tnr`).

Examples:
    >>> import extractlib as xl
    >>> detector = xl.detectors.OdinDetector(xl.load_victim("signs"), temperature=10.0, epsilon=0.0)
    >>> detector.score(xl.load("signs").test.images[:4]).shape
    torch.Size([4])
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from pytorch_ood.detector import ODIN, MahalanobisODIN
from torch import nn

from extractlib.data.images import ImageSet, Rows
from extractlib.errors import InputError
from extractlib.metrics import auroc, tpr_tnr
from extractlib.models.classifier import Classifier
from extractlib.models.devices import device_of
from extractlib.models.fitted import Trainer
from extractlib.models.networks import fingerprint_of
from extractlib.models.training import predict
from extractlib.store import digest
from extractlib.versions import versions


class Detector(Protocol):
    """What all detectors here have in common; `api.PredictionAPI` takes any of them."""

    threshold: float
    fingerprint: str

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores, float32 of shape (n,), of uint8 images of shape (n, channels, height, width)."""

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,): whether each image is caught."""


class Thresholded:
    """Catches what has a score above the threshold."""

    threshold: float

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores, float32 of shape (n,), of uint8 images of shape (n, channels, height, width)."""
        raise NotImplementedError

    def detect(self, images: torch.Tensor) -> torch.Tensor:
        """Return bool of shape (n,): whether the score of each image is above the threshold."""
        return self.score(images) > self.threshold


class BinaryDetector(Thresholded):
    """The paper's detector: a network with two outputs, score = softmax(logits)[1], the probability of being ood.

    Args:
        model: Network that was trained with label 0 for in-distribution and 1 for out-of-distribution images.

    Attributes:
        threshold: 0.5.
        fingerprint: Digest of the weights.
    """

    def __init__(self, model: nn.Module):
        self.model, self.threshold = model, 0.5
        self.fingerprint = digest("binary", fingerprint_of(model.state_dict()))

    @classmethod
    def train(cls, benign: ImageSet, ood: ImageSet, trainer: Trainer) -> "BinaryDetector":
        """Train the paper's detector, or read the one that was trained before with the same settings (section 5).

        Args:
            benign: Images like the victim's.
            ood: Images of a pool such as an attacker may send; of both sides the first ones, equally many, are used.
            trainer: How it is made.

        Raises:
            InputError: A side has no images, or network or backbone do not fit.
        """
        count = min(len(benign), len(ood))
        if not count:
            raise InputError(f"{benign.name} has {len(benign)} images and {ood.name} {len(ood)}: both need some")
        images = ImageSet(
            "detector",
            torch.cat([benign.images[:count], ood.images[:count]]),
            fingerprint=digest("detector", benign.fingerprint, ood.fingerprint, str(count)),
        )
        labels = torch.arange(2).repeat_interleave(count)
        return cls(trainer.fit_or_load("detector", images, labels, classes=2, key=versions("detect")))

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the probability, float32 of shape (n,), that each image is out of distribution."""
        logits = predict(self.model, _checked(images))
        return F.softmax(logits.to(torch.get_default_dtype()), 1)[:, 1]


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

    def __init__(self, victim: Classifier, *, temperature: float, epsilon: float, threshold: float = math.inf):
        self._victim, self.threshold = victim, threshold
        spread = list(victim.model.std)
        self._method = ODIN(_Classify(victim.model), eps=epsilon, temperature=temperature, norm_std=spread)
        self.fingerprint = digest("odin", victim.fingerprint, repr((temperature, epsilon, threshold)))

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return minus the highest softmax probability, float32 of shape (n,), after temperature and perturbation."""
        return _in_batches(self._victim.model, self._method.predict, images)


class MahalanobisDetector(Thresholded):
    """Mahalanobis (Lee et al. 2018): score = ½ min over classes of (z - μ)ᵀ Σ⁻¹ (z - μ), z the features of x'.

    The classes' means μ and their common scatter Σ (a sum over the images, not a mean) are those of the victim's
    training images; x' is x moved by ε towards the nearest class. One layer is used: the last before the head in the
    package's networks, else the one that the victim names.

    Args:
        victim: The network.
        known: Its labeled training images, at least one of each class.
        epsilon: Size ε of the perturbation, in pixels of range 1.
        threshold: The highest score that is accepted.
        features: What `features_of` returns of the two, if it is at hand: it is the same for every ε.

    Raises:
        InputError: A class has no image, or the victim names no layer.
    """

    SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType({"epsilon": (0.0, 0.0005, 0.001, 0.002, 0.005)})
    """Settings to choose from on validation data: the sizes that Lee et al. search, and none."""

    def __init__(
        self,
        victim: Classifier,
        known: ImageSet,
        *,
        epsilon: float,
        threshold: float = math.inf,
        features: torch.Tensor | None = None,
    ):
        absent = set(range(len(victim.classes))) - set([] if known.labels is None else known.labels.tolist())
        if absent:
            raise InputError(f"{known.name} has no image of class {victim.classes[min(absent)]!r}: one is needed")
        self._victim, self.threshold = victim, threshold
        model = victim.model
        # pytorch-ood takes one spread for the first channel's alone.
        alone = len(model.std) == 1
        size, spread = (epsilon / model.std[0], None) if alone else (epsilon, list(model.std))
        self._method = MahalanobisODIN(model.features, eps=size, norm_std=spread)
        seen = features_of(victim, known.images) if features is None else features
        self._method.fit_features(seen.to(device_of(model)), known.labels)
        self.fingerprint = digest("mahalanobis", victim.fingerprint, known.fingerprint, repr((epsilon, threshold)))

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return half the squared distance to the nearest class, float32 of shape (n,)."""
        return _in_batches(self._victim.model, self._method.predict, images)


def features_of(victim: Classifier, images: torch.Tensor | Rows) -> torch.Tensor:
    """Return the victim's features, float32 of shape (n, width), of uint8 images (n, channels, height, width)."""
    with torch.no_grad():
        return _in_batches(victim.model, victim.model.features, images)


def tune(
    make: Callable[..., Detector], settings: Mapping[str, Iterable[float]], *, benign: ImageSet, ood: ImageSet
) -> tuple[Detector, dict[str, float]]:
    """Return the detector that does best on validation images, with its settings.

    Best is the highest TNR at a TPR of 95%, by which Liang et al. and Lee et al. choose too; of equals the one with the
    higher AUROC, and then the first.

    Args:
        make: Makes a detector from the settings as keyword arguments.
        settings: Values to try of each setting.
        benign: In-distribution validation images.
        ood: Validation images of the pool.
    """
    tried: list[tuple[tuple[float, float], Detector, dict[str, float]]] = []
    for values in product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        detector = make(**chosen)
        scores = detector.score(benign.images), detector.score(ood.images)
        quality = tpr_tnr(*scores, threshold_at(scores[0], 0.95))[1], auroc(*scores)
        tried.append((quality, detector, chosen))
    _, detector, chosen = max(tried, key=lambda trial: trial[0])
    return detector, chosen


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


class _Classify(nn.Module):
    """A model from its normalized images on, where perturbations are made."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.classify(x)


def _in_batches(
    model: Any, step: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor | Rows, size: int = 512
) -> torch.Tensor:
    """Return step(normalized images), computed where the model is."""
    device = device_of(model)
    batches = _checked(images).split(size)
    return torch.cat([step(model.normalize(batch.to(device))).detach().cpu() for batch in batches])


def _checked(images: torch.Tensor | Rows) -> torch.Tensor | Rows:
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise InputError(f"images are {images.dtype} of shape {tuple(images.shape)}: uint8, at least one, is wanted")
    return images
