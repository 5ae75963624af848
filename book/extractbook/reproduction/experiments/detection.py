"""Detect the attacker's queries one by one (the paper, sections 5 and 6)."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from extractbook.reproduction.experiments.resampling import accuracies, kept, means, resamples
from extractbook.reproduction.setups import Setup, evenly
from extractlib.data.images import ImageSet, mix
from extractlib.data.sources import Source
from extractlib.defenses.detectors import (
    Detector,
    LayeredMahalanobisDetector,
    OdinDetector,
    layers_of,
    stages_of,
    tune,
)
from extractlib.errors import InputError
from extractlib.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    mean_class_accuracy,
    roc_curve,
    share,
    threshold_at,
    tpr_tnr,
)

TIMED = 256
"""Number of images in the request that is timed."""

ACCEPTED = 0.95
"""Share of the benign validation images accepted at the threshold that is chosen on them."""


def detection(setup: Setup) -> dict:
    """Return how well the paper's detector, ODIN and Mahalanobis distinguish queries of two pools from benign ones.

    The binary detector has threshold 0.5. The thresholds of the other two are set to its TPR on the validation part.

    Returns:
        For each of ``"binary"``, ``"odin"`` and ``"mahalanobis"``: for ``"pool"`` and ``"second"`` (the pool that no
        detector has seen, if the scale has one) ``tpr``, ``tnr``, ``balanced_accuracy``, ``auroc``, ``tnr_at_95``
        (at the threshold that accepts 95% of the benign validation images) and ``roc``; ``milliseconds`` per query;
        ``settings``. ``validation_tpr``; ``caught``, the share that the binary detector catches of benign images, of
        both pools, and of the adversary's own images from the victim's own source and from the shifted one;
        ``victim_accuracy`` and ``shifted_victim_accuracy``, on benign and on shifted images; ``images``, the smallest
        number of images behind a value. If the binary detector brings all images to one size, ``"unmatched"`` is one
        that does not. ``resampled``, for numbers that claims rest on (see `resamples`).
    """
    most, tuned_on = setup.settings.judged_on, setup.settings.tuned_on
    validation, benign = evenly(setup.task["validation"], most), evenly(setup.held_out, most)
    ood = {"pool": evenly(setup.pool[setup.part], most)}
    if setup.settings.second_pool:
        ood["second"] = evenly(setup.second_pool[setup.part], most)
    own = Source(setup.cell.task)
    shifted = evenly(setup.queries(own.shifted(), labeled=True), most)
    sources = {"benign": benign, **ood, "own": evenly(setup.task["adversary"], most), "shifted": shifted}
    binary = setup.detector
    accepted = 1 - share(binary.detect(validation.images))
    made: dict[str, tuple[Detector, dict[str, float]]] = {"binary": (binary, {}), **baselines(setup)}
    if setup.chain != "none":
        made["unmatched"] = setup.detector_of(setup.task["detector"], setup.pool["detector"]), {}
    weights = {name: resamples(setup, len(one), name) for name, one in sources.items()}
    result: dict = {"validation_tpr": accepted}
    resampled: dict = {}
    for name, (detector, settings) in made.items():
        known = detector.score(validation.images)
        thresholds = (
            detector.threshold if name in ("binary", "unmatched") else threshold_at(known, accepted),
            threshold_at(known, ACCEPTED),
        )
        timed = validation.images[: min(TIMED, tuned_on)]
        result[name] = {"settings": settings, "milliseconds": _milliseconds(detector.score, timed)}
        scores = {"benign": detector.score(benign.images)}
        scores |= {pool: detector.score(one.images) for pool, one in ood.items()}
        result[name] |= {pool: _quality(scores["benign"], scores[pool], *thresholds) for pool in ood}
        resampled[name] = {pool: _resampled(scores, pool, weights, *thresholds) for pool in ood}
    caught = {name: binary.detect(one.images) for name, one in sources.items()}
    resampled["caught"] = {name: means(weights[name], one) for name, one in caught.items()}
    result |= {"caught": {name: share(one) for name, one in caught.items()}}
    for name, images, source in (("", benign, "benign"), ("shifted_", shifted, "shifted")):
        labels = setup.victim.logits(images.images).argmax(1)
        result[f"{name}victim_accuracy"] = _accuracy(setup, labels, images)
        resampled[f"{name}victim_accuracy"] = accuracies(weights[source], labels, images.known_labels(), setup.balanced)
    return result | {"images": min(map(len, sources.values()))} | kept(setup, resampled)


def baselines(setup: Setup) -> dict[str, tuple[Detector, dict[str, float]]]:
    """Return ODIN and Mahalanobis by name, each with the settings that work best on validation images of both sides."""
    victim, known, tuned_on = setup.victim, setup.task["victim"], setup.settings.tuned_on
    if setup.settings.fitted_on:
        known = evenly(known, setup.settings.fitted_on)
    benign, ood = (evenly(one["validation"], tuned_on) for one in (setup.task, setup.pool))
    layers = stages_of(victim)
    features = layers_of(victim, known.images, layers)
    layered = partial(
        LayeredMahalanobisDetector, victim, known, benign=benign, ood=ood, layers=layers, features=features
    )
    return {
        "odin": tune(partial(OdinDetector, victim), OdinDetector.SETTINGS, benign=benign, ood=ood),
        "mahalanobis": tune(layered, LayeredMahalanobisDetector.SETTINGS, benign=benign, ood=ood),
    }


def rates(benign: torch.Tensor, ood: torch.Tensor, threshold: float) -> dict[str, float]:
    """Return the TPR, the TNR and the balanced accuracy at a threshold, from the scores of both sides."""
    tpr, tnr = tpr_tnr(benign, ood, threshold)
    return {"tpr": tpr, "tnr": tnr, "balanced_accuracy": balanced_accuracy(tpr, tnr)}


def _quality(benign: torch.Tensor, ood: torch.Tensor, threshold: float, strict: float) -> dict:
    return rates(benign, ood, threshold) | {
        "auroc": auroc(benign, ood),
        "tnr_at_95": tpr_tnr(benign, ood, strict)[1],
        "roc": [[round(value, 4) for value in values.tolist()] for values in roc_curve(benign, ood, points=41)],
    }


def _resampled(
    scores: Mapping[str, torch.Tensor], pool: str, weights: Mapping[str, np.ndarray], threshold: float, strict: float
) -> dict[str, np.ndarray]:
    """Return the balanced accuracy and the TNR at 95% TPR under each resample of the images."""
    caught = {name: means(weights[name], scores[name] > threshold) for name in ("benign", pool)}
    return {
        "balanced_accuracy": (1 - caught["benign"] + caught[pool]) / 2,
        "tnr_at_95": means(weights[pool], scores[pool] > strict),
    }


def _milliseconds(score: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    started = time.perf_counter()
    score(images)
    return round(1000 * (time.perf_counter() - started) / len(images), 4)


def _accuracy(setup: Setup, labels: torch.Tensor, images: ImageSet) -> float:
    return (mean_class_accuracy if setup.balanced else accuracy)(labels, images.known_labels())


def overlap(setup: Setup) -> dict:
    """Return how well a detector does against a pool with a share of images that show the victim's own classes.

    The share `overlap` comes from the cell's pool: images of the task from a shifted source or from the same one. The
    rest is the ordinary pool. The detector is trained against such a mixture and tested on another draw of it.

    Returns:
        ``tpr``, ``tnr`` and ``balanced_accuracy`` at threshold 0.5, and ``auroc``; ``tnr_public``, the TNR on the
        ordinary pool's images alone, None if there are none; ``images``, the number on the smaller side; ``resampled``.
    """
    count, source, public = setup.settings.overlap_images, setup.queries(), setup.pool[setup.part]
    own = round(count * setup.cell.overlap)
    seen = _mixture(first(source, 0, own), first(setup.pool["detector"], 0, count - own))
    unseen = _mixture(first(source, count, own), first(public, 0, count - own))
    detector = setup.detector_of(first(setup.task["detector"], 0, count), seen, chain=setup.chain)
    benign, ood = detector.score(setup.held_out.images), detector.score(unseen.images)
    found = rates(benign, ood, detector.threshold) | {
        "auroc": auroc(benign, ood),
        "tnr_public": share(ood[own:] > detector.threshold) if own < count else None,
        "images": min(len(benign), len(ood)),
    }
    sides = {"benign": benign, "own": ood[:own], "public": ood[own:]}
    caught = {name: means(resamples(setup, len(one), name), one > detector.threshold) for name, one in sides.items()}
    tnr = (own * np.nan_to_num(caught["own"]) + (count - own) * np.nan_to_num(caught["public"])) / count
    resampled = {"balanced_accuracy": (1 - caught["benign"] + tnr) / 2, "tnr_public": caught["public"]}
    return found | kept(setup, resampled)


def first(images: ImageSet, start: int, count: int) -> ImageSet:
    """Return `count` images, starting at position `start`.

    Raises:
        InputError: There are fewer images.
    """
    if len(images) < start + count and count:
        raise InputError(
            f"{images.name} holds {len(images)} images, but {start + count} are needed: use a larger data set, or a"
            " scale that needs fewer"
        )
    return images.subset(torch.arange(start, start + count))


def _mixture(own: ImageSet, public: ImageSet) -> ImageSet:
    """Return both sets as one; without own images, the public set itself, so that all sources share its detector."""
    return mix(own.unlabeled(), public.unlabeled(), name="pool with overlap") if len(own) else public
