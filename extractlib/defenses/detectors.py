"""Detectors of out-of-distribution queries: the paper's binary classifier, with ODIN and Mahalanobis (section 5).

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
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_ood.detector import ODIN, Mahalanobis, MahalanobisODIN
from scipy import optimize
from scipy.special import expit
from torch import nn

from extractlib.data import transforms
from extractlib.data.images import ImageSet, Rows, check_images
from extractlib.data.images import images as as_images
from extractlib.errors import InputError, ResultWarning, check_amount, check_choice, kind_name, shown
from extractlib.metrics import auroc, tnr_at_tpr
from extractlib.models.attributes import checksums_of
from extractlib.models.classifier import Classifier
from extractlib.models.devices import device_of
from extractlib.models.fitted import Trainer
from extractlib.models.networks import Block, FromFloats, Network, fingerprint_of
from extractlib.models.training import Recipe, evaluating, predict
from extractlib.store import digest
from extractlib.tensors import is_plain, kind_of
from extractlib.versions import versions

DETECTOR = Recipe(epochs=8, learning_rate=0.05, batch_size=128)
"""How the paper's detector is trained unless a trainer is given: as at the scale `drawn`."""

EXPECTED = 10
"""Images of a class that a cut should hold, from which on none at all is not by chance: e⁻¹⁰ at random."""


class Detector:
    """What all detectors here have in common: a score, and a threshold above which an image is caught.

    Attributes:
        threshold: The highest score that is accepted.
        fingerprint: Digest of everything that determines the scores and the threshold.
    """

    threshold: float
    fingerprint: str

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return scores, float32 of shape (n,), of uint8 images of shape (n, channels, height, width)."""
        raise NotImplementedError

    def detect(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return bool of shape (n,): whether the score of each image is above the threshold.

        Raises:
            InputError: It has no threshold yet, or a score is NaN, as after a training that diverged.
        """
        if self.threshold == math.inf:
            raise InputError(
                f"the {type(self).__name__} has no threshold and catches nothing: give it one, such as"
                " metrics.threshold_at(detector.score(images), 0.95) for images of the task"
            )
        scores = self.score(images)
        if lost := int(scores.isnan().sum()):
            raise InputError(
                f"the {type(self).__name__} has the score NaN for {lost} of {len(images)} images: make it again,"
                " trained with a lower learning rate"
            )
        return scores > self.threshold


class Everything(Detector):
    """Catches every image: for policies that alter all answers."""

    threshold, fingerprint = -math.inf, "everything"

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        return torch.zeros(len(images))


class _Digested(Detector):
    """A detector whose fingerprint follows from what it is made of and its threshold, both as they are now."""

    def __init__(self, *made_of: str, settings: tuple[object, ...], threshold: float):
        self._made_of, self._settings, self.threshold = made_of, settings, threshold

    @property
    def fingerprint(self) -> str:  # type: ignore[override]  # your own detector may set it
        # Not the repr of a tensor, which is rounded.
        return digest(*self._parts(), repr((*self._settings, self._threshold)))

    def _parts(self) -> tuple[str, ...]:
        """Return digests of what determines the scores, besides the settings."""
        return self._made_of

    @property
    def threshold(self) -> float:
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float) -> None:
        try:
            value = float(threshold)
        except (TypeError, ValueError, RuntimeError):
            value = math.nan
        if math.isnan(value):
            raise InputError(
                f"threshold is {shown(threshold)}: expected a number, such as metrics.threshold_at returns"
            )
        self._threshold = value


class BinaryDetector(_Digested):
    """The paper's detector: a network with two outputs, score = softmax(logits)[1], the probability of being ood.

    Args:
        model: Network that was trained with label 0 for in-distribution and 1 for out-of-distribution images; your own
            module as a `Classifier` of two classes, which says how its pixels are scaled.
        chain: What every image goes through first (see `transforms.apply`), so that all are processed alike.

    Attributes:
        threshold: 0.5.
        fingerprint: Digest of the weights as they are now, how your own module is used, the chain and the threshold.

    Raises:
        InputError: The model is a module that does not say what it takes, or has another number of classes.
    """

    def __init__(self, model: Network | Classifier, *, chain: str = "none"):
        if isinstance(model, Classifier):
            if len(model.classes) != 2:
                raise InputError(f"{model.name} has {len(model.classes)} classes: a detector needs two, the second ood")
        elif not isinstance(model, Network):
            raise InputError(
                f"the detector's model is {kind_name(model)}: give your own module as Victim(module, classes=('benign',"
                " 'ood'), mean=…, std=…)"
            )
        self._given = model
        self.model: Network = model.model if isinstance(model, Classifier) else model
        self.chain = chain
        self._digested: tuple[object, str] | None = None
        others = () if chain == "none" else (chain, repr(versions("transform")))
        super().__init__("binary", *others, settings=(), threshold=0.5)

    def _parts(self) -> tuple[str, ...]:
        kind, *others = self._made_of
        return kind, self._weights(), *others

    def _weights(self) -> str:
        """Return the digest of the weights, computed anew when they have changed."""
        if isinstance(self._given, Classifier) and isinstance(self.model, FromFloats):
            return self._given.fingerprint
        sums = checksums_of(self.model)
        if self._digested is None or self._digested[0] != sums:
            self._digested = sums, fingerprint_of(self.model.state_dict())
        return self._digested[1]

    @classmethod
    def train(
        cls, benign: ImageSet, ood: ImageSet, trainer: Trainer | None = None, *, chain: str = "none"
    ) -> "BinaryDetector":
        """Train the paper's detector, or read the one that was trained before with the same settings (section 5).

        Args:
            benign: Images like the victim's.
            ood: Images of a pool that an attacker may send; the first images of both sides, equally many, are used. If
                they are sorted by class, the rest is never seen, with a warning where labels show it.
            trainer: How it is made; if None, from the shipped weights by `DETECTOR`, with seed 0.
            chain: What every image goes through first.

        Raises:
            InputError: A side has no images, they are of two shapes, or the network or backbone does not fit.
        """
        if trainer is None:
            trainer = Trainer(network="resnet", recipe=DETECTOR, seed=0, backbone="shipped")
        benign, ood = as_images(benign, name="benign"), as_images(ood, name="ood")
        count = min(len(benign), len(ood))
        if not count:
            raise InputError(f"{benign.name} has {len(benign)} images and {ood.name} {len(ood)}: both need some")
        if benign.image_shape != ood.image_shape:
            raise InputError(
                f"{benign.name} has images of shape {benign.image_shape} and {ood.name} of {ood.image_shape}: resize"
                " them to one size first"
            )
        for side in (benign, ood):
            _check_cut(side, count)
        images = ImageSet(
            "detector",
            torch.cat([benign.images[:count], ood.images[:count]]),
            fingerprint=digest("detector", benign.fingerprint, ood.fingerprint, str(count)),
        )
        images = transforms.apply_to_set(images, chain)
        labels = torch.arange(2).repeat_interleave(count)
        return cls(trainer.fit_or_load("detector", images, labels, classes=2, key=versions("detect")), chain=chain)

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the probability, float32 of shape (n,), that each image is out of distribution.

        Raises:
            InputError: The images are of another kind, or the network has another number of outputs.
        """
        images = check_images(images, at_least=1)
        if self.chain != "none":
            images = transforms.apply(images[:], self.chain)
        logits = predict(self.model, images)
        if logits.shape != (len(images), 2):
            raise InputError(
                f"the detector's network returned {tuple(logits.shape)} for {len(images)} images: expected two logits"
                " for each"
            )
        return F.softmax(logits.to(torch.get_default_dtype()), 1)[:, 1]


def _check_cut(side: ImageSet, count: int) -> None:
    """Warn if the first `count` images of a labeled set leave out classes that a random cut would hold."""
    if side.labels is None or count == len(side):
        return
    held, there = (torch.bincount(labels, minlength=len(side.classes)) for labels in (side.labels[:count], side.labels))
    lost = [side.classes[label] for label in ((held == 0) & (there * count >= EXPECTED * len(side))).nonzero()[:, 0]]
    if lost:
        warnings.warn(
            f"only the first {count:,} of {len(side):,} images of {side.name} are used, and none is of class"
            f" {lost[0]!r}{f' or {len(lost) - 1} others' if len(lost) > 1 else ''}: draw them at random first, as in"
            " images.subset(torch.randperm(len(images)))",
            ResultWarning,
            stacklevel=3,
        )


class _Baseline(_Digested):
    """A score of the victim's own answer or features, by a method of pytorch-ood on normalized images."""

    def __init__(self, model: Any, method: Any, *made_of: str, settings: tuple[object, ...], threshold: float):
        super().__init__(*made_of, settings=settings, threshold=threshold)
        self._model, self._method = model, method

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        return _in_batches(self._model, self._method.predict, images)


class OdinDetector(_Baseline):
    """ODIN (Liang et al. 2018): score = -max softmax(f(x') / T), x' = x - ε sign(∇ cross-entropy(f(x) / T, argmax f)).

    Args:
        victim: The network f.
        temperature: T, above 0.
        epsilon: Size ε of the perturbation, in pixels of range 1, from 0.
        threshold: The highest score that is accepted.

    Raises:
        InputError: A setting is out of range.
    """

    SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType(
        {"temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028)}
    )
    """Settings to choose from on validation data: those that OpenOOD tries, and no perturbation."""

    def __init__(self, victim: Classifier, *, temperature: float, epsilon: float, threshold: float = math.inf):
        check_amount("temperature", temperature, above_zero=True)
        check_amount("epsilon", epsilon)
        model = victim.model
        method = ODIN(model.classify, eps=epsilon, temperature=temperature, norm_std=list(model.std))
        settings = temperature, epsilon
        super().__init__(model, method, "odin", victim.fingerprint, settings=settings, threshold=threshold)


class MahalanobisDetector(_Baseline):
    """Mahalanobis (Lee et al. 2018): score = ½ min over classes of (z - μ)ᵀ Σ⁻¹ (z - μ), z the features of x'.

    The classes' means μ and their common scatter Σ (a sum over the images, not a mean) are those of the victim's
    training images; x' is x moved by ε toward the nearest class. One layer is used: the last before the head in the
    package's networks, otherwise the one that the victim names.

    Args:
        victim: The network.
        known: Its labeled training images, at least one of each class, and more of them than classes and features.
        epsilon: Size ε of the perturbation, in pixels of range 1, from 0.
        threshold: The highest score that is accepted.
        features: What `features_of` returns for the two, if already computed: it is the same for every ε.

    Raises:
        InputError: A class has no image, the victim names no layer, or epsilon or the features do not fit.
    """

    SETTINGS: Mapping[str, tuple[float, ...]] = MappingProxyType({"epsilon": (0.0, 0.0005, 0.001, 0.002, 0.005)})
    """Settings to choose from on validation data: most of the sizes that the code of Lee et al. tries, and none."""

    def __init__(
        self,
        victim: Classifier,
        known: ImageSet,
        *,
        epsilon: float,
        threshold: float = math.inf,
        features: torch.Tensor | None = None,
    ):
        known = as_images(known, name="known")
        seen = features_of(victim, known.images) if features is None else features
        method = _mahalanobis(victim, victim.model.features, known, seen, epsilon)
        made_of = "mahalanobis", victim.fingerprint, known.fingerprint
        super().__init__(victim.model, method, *made_of, settings=(epsilon,), threshold=threshold)


class LayeredMahalanobisDetector(_Digested):
    """Mahalanobis as published (Lee et al. 2018, algorithm 2): score = Σ α s over several layers, plus a constant.

    The score s of a layer is that of `MahalanobisDetector` on the layer's outputs, averaged over the image, with a
    separate perturbation. The weights α and the constant come from a logistic regression of ood against benign on
    validation images: the score is the log of the odds that an image is out of distribution.

    Args:
        victim: The network.
        known: Its labeled training images, at least one of each class, and more of them than classes and features.
        benign: In-distribution validation images, for the weights.
        ood: Validation images of the pool, for the weights.
        epsilon: Size ε of the perturbations, in pixels of range 1, from 0.
        layers: Names within the victim's module, as in ``named_modules``; those from `stages_of` if None.
        threshold: The highest score that is accepted.
        features: What `layers_of` returns for the victim, training images and layers, if already computed: it is the
            same for every ε.

    Attributes:
        weights: α of each layer and the constant, float64 of shape (layers + 1,).

    Raises:
        InputError: A class has no image, a layer is unknown or returns no tensor, or a setting or the features do not
            fit.
    """

    SETTINGS = MahalanobisDetector.SETTINGS

    def __init__(
        self,
        victim: Classifier,
        known: ImageSet,
        *,
        benign: ImageSet,
        ood: ImageSet,
        epsilon: float,
        layers: Sequence[str] | None = None,
        threshold: float = math.inf,
        features: Sequence[torch.Tensor] | None = None,
    ):
        known, benign, ood = (
            as_images(side, name=name) for name, side in (("known", known), ("benign", benign), ("ood", ood))
        )
        names = stages_of(victim) if layers is None else list(layers)
        made_of = (victim.fingerprint, known.fingerprint, benign.fingerprint, ood.fingerprint)
        super().__init__("layered mahalanobis", *made_of, settings=(names, epsilon), threshold=threshold)
        self._model = victim.model
        seen = layers_of(victim, known.images, names) if features is None else features
        self._methods = [
            _mahalanobis(victim, _Tap(victim.model, name), known, found, epsilon)
            for name, found in zip(names, seen, strict=True)
        ]
        sides = self.layer_scores(benign.images), self.layer_scores(ood.images)
        labels = torch.arange(2).repeat_interleave(torch.tensor([len(side) for side in sides]))
        self.weights = logistic_regression(torch.cat(sides), labels)

    def layer_scores(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the score of each layer alone, float64 of shape (n, layers)."""
        columns = [_in_batches(self._model, method.predict, images).double() for method in self._methods]
        return torch.stack(columns, 1)

    def score(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return the log of the odds, float32 of shape (n,), that each image is out of distribution."""
        return (self.layer_scores(images) @ self.weights[:-1] + self.weights[-1]).to(torch.get_default_dtype())


class _Tap(nn.Module):
    """From normalized images to the outputs of layers, averaged over the image: float of shape (n, channels) for each.

    For a single layer, only that one.
    """

    def __init__(self, model: Any, *layers: str):
        super().__init__()
        inner = getattr(model, "module", model)
        for layer in layers:
            check_choice("layer", layer, [name for name, _ in inner.named_modules() if name])
        self.model, self.names = model, layers
        self.layers = [inner.get_submodule(layer) for layer in layers]

    def forward(self, x: torch.Tensor) -> Any:
        caught: list[list[torch.Tensor]] = [[] for _ in self.layers]
        asked_by = threading.get_ident()

        def catch(name: str, found: list[torch.Tensor], _: nn.Module, given: object, returned: torch.Tensor) -> None:
            # Other threads may be using the model, and the next layer may work in place.
            if threading.get_ident() == asked_by and not found:
                if not is_plain(returned) or returned.ndim < 2:
                    raise InputError(
                        f"layer {name!r} returns {kind_of(returned)}: name one that returns a tensor of shape"
                        " (n, channels, …)"
                    )
                places = returned.flatten(1, -1).unflatten(1, (returned.shape[1], -1))
                found.append(torch.mean(places, 2).to(torch.get_default_dtype()))

        with ExitStack() as hooks:
            for name, layer, found in zip(self.names, self.layers, caught, strict=True):
                hooks.enter_context(layer.register_forward_hook(partial(catch, name, found)))
            self.model.classify(x)
        unused = [name for name, found in zip(self.names, caught, strict=True) if not found]
        if unused:
            raise InputError(f"layer {unused[0]!r} is not used by the module: name another from module.named_modules()")
        means = [mean for [mean] in caught]
        return means[0] if len(means) == 1 else means


def stages_of(victim: Classifier) -> list[str]:
    """Return the names of the layers after which a network of the package gets smaller or ends a block.

    Raises:
        InputError: The victim is another module.
    """
    if watched := getattr(victim.model, "watched", ()):
        return list(watched)
    parts = getattr(victim.model, "stages", nn.Module()).named_children()
    names = [f"stages.{name}" for name, part in parts if isinstance(part, Block | nn.MaxPool2d)]
    if not names:
        raise InputError(
            f"{victim.name} is not a network with stages: give LayeredMahalanobisDetector(…, layers=[…]), names from"
            " module.named_modules() whose outputs it looks at (Victim's layer='…' is for MahalanobisDetector)"
        )
    return names


def layers_of(victim: Classifier, images: torch.Tensor | Rows, layers: Sequence[str]) -> list[torch.Tensor]:
    """Return the outputs of layers of the victim's module, averaged over the image: float32 (n, channels) for each."""
    widths: list[int] = []

    def step(x: torch.Tensor) -> torch.Tensor:
        found = _Tap(victim.model, *layers)(x)
        found = [found] if len(layers) == 1 else found
        widths[:] = [one.shape[1] for one in found]
        return torch.cat(found, 1)

    with torch.no_grad():
        return list(_in_batches(victim.model, step, images).split(widths, 1))


def logistic_regression(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the weights of a logistic regression and its constant, float64 of shape (width + 1,).

    The values are standardized, and half the sum of the squared weights is added to the loss, as is usual (Lee et al.
    use scikit-learn's).

    Args:
        values: float64 of shape (n, width).
        labels: 0 or 1 of each, of shape (n,).
    """
    mean, spread = values.mean(0), values.std(0, correction=0).clamp(min=1e-12)
    x = torch.cat([(values - mean) / spread, torch.ones(len(values), 1)], 1).double().numpy()
    y, kept = labels.numpy(), np.append(np.ones(values.shape[1]), 0.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ weights
        return np.logaddexp(0, z).sum() - y @ z + kept @ weights**2 / 2, x.T @ (expit(z) - y) + kept * weights

    found = torch.from_numpy(optimize.minimize(loss, np.zeros(x.shape[1]), jac=True).x)
    scaled = found[:-1] / spread
    return torch.cat([scaled, (found[-1] - scaled @ mean)[None]])


def _mahalanobis(victim: Classifier, encoder: Any, known: ImageSet, seen: torch.Tensor, epsilon: float) -> Any:
    """Return pytorch-ood's method, fitted to the victim's features of its training images."""
    check_amount("epsilon", epsilon)
    there = set(known.known_labels("the classes' means need them").tolist())
    absent = set(range(len(victim.classes))) - there
    if there and max(there) >= len(victim.classes):
        raise InputError(
            f"{known.name} has images of class {known.classes[max(there)]!r}, number {max(there)}, but the victim has"
            f" {len(victim.classes)} classes: give the images that it was trained on"
        )
    if len(seen) != len(known):
        raise InputError(
            f"features are those of {len(seen)} images, but {known.name} has {len(known)}: give what features_of or"
            " layers_of returns for these"
        )
    if absent:
        raise InputError(f"{known.name} has no image of class {victim.classes[min(absent)]!r}: one is needed")
    needed = len(victim.classes) + seen.shape[1]
    if len(known) < needed:
        warnings.warn(
            f"{known.name} has {len(known)} images for {seen.shape[1]} features and {len(victim.classes)} classes: the"
            f" scores mean little with fewer than {needed}, since the scatter has no inverse",
            ResultWarning,
            stacklevel=4,
        )
    spread = list(victim.model.std)
    # pytorch-ood takes a single spread for that of the first channel only.
    size, spreads = (epsilon / spread[0], None) if len(spread) == 1 else (epsilon, spread)
    method = MahalanobisODIN(encoder, eps=size, norm_std=spreads) if epsilon else Mahalanobis(encoder)
    return method.fit_features(seen.to(device_of(victim.model)), known.labels)


def features_of(victim: Classifier, images: torch.Tensor | Rows) -> torch.Tensor:
    """Return the victim's features, float32 of shape (n, width), of uint8 images (n, channels, height, width)."""
    with torch.no_grad():
        return _in_batches(victim.model, victim.model.features, images)


def tune(
    make: Callable[..., Detector], settings: Mapping[str, Iterable[float]], *, benign: ImageSet, ood: ImageSet
) -> tuple[Detector, dict[str, float]]:
    """Return the detector that does best on validation images, with its settings.

    The best has the highest TNR at a TPR of 95%, by which Liang et al. and Lee et al. choose too; among equals, the one
    with the higher AUROC, and then the first.

    Args:
        make: Makes a detector from the settings as keyword arguments.
        settings: Values to try for each setting.
        benign: In-distribution validation images.
        ood: Validation images of the pool.
    """
    benign, ood = as_images(benign, name="benign"), as_images(ood, name="ood")
    tried = []
    for values in product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        detector = make(**chosen)
        scores = detector.score(benign.images), detector.score(ood.images)
        quality = tnr_at_tpr(scores[0], scores[1]), auroc(*scores)
        tried.append((quality, detector, chosen))
    return max(tried, key=lambda trial: trial[0])[1:]


PIXELS = 512 * 32 * 32
"""Most pixels in a batch: with more, the gradients of larger images would not fit into memory."""


def _in_batches(model: Any, step: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor | Rows) -> torch.Tensor:
    """Return step(normalized images), computed where the model is, which stays as it is."""
    device = device_of(model)
    batches = check_images(images, at_least=1).split(min(512, max(1, PIXELS // images.shape[2:].numel())))
    # Some methods of pytorch-ood leave the gradients of the weights behind, too.
    kept = [(weight, weight.grad) for weight in model.parameters()]
    for weight, _ in kept:
        weight.grad = None
    try:
        with evaluating(model):
            return torch.cat([step(model.normalize(batch.to(device))).detach().cpu() for batch in batches])
    finally:
        for weight, gradient in kept:
            weight.grad = gradient
