"""Detecting the attacker's queries, one by one and client by client (the paper, sections 5 and 6)."""

import time
from collections.abc import Callable, Mapping

import torch

from extractlib.attacks.knockoff import Knockoff
from extractlib.detection import MahalanobisDetector, OdinDetector, threshold_at, tune
from extractlib.experiments.scene import Scene
from extractlib.images import ImageSet, mix
from extractlib.metrics import auroc, balanced_accuracy, roc_curve, tpr_tnr
from extractlib.stateful import StatefulDetector, accounts_needed, choose_delta, split_among

TIMED = 256
"""Images of the request whose time is taken."""

ACCEPTED = 0.95
"""Share of the benign validation images that is accepted at the threshold chosen on them."""


def detection(scene: Scene) -> dict:
    """Return how well the paper's detector, ODIN and Mahalanobis tell queries of two pools from benign ones.

    The binary detector has threshold 0.5. The other two are set, on the validation part, to the TPR it has there.

    Returns:
        For each of ``"binary"``, ``"odin"`` and ``"mahalanobis"``: for ``"pool"`` and ``"second"`` (the pool that no
        detector has seen) ``tpr``, ``tnr``, ``balanced_accuracy``, ``auroc``, ``tnr_at_95`` (at the threshold that
        accepts 95% of the benign validation images) and ``roc``; ``milliseconds`` a query; ``settings``.
        ``validation_tpr``; and ``caught``, the share that the binary detector catches of benign images, of both pools,
        and of the adversary's own images from the victim's very source and from the shifted one.
    """
    validation, second = scene.task["validation"], scene.second_pool
    strangers = {"pool": scene.pool["test"], "second": second["test"]}
    binary = scene.detector
    accepted = 1 - _share(binary.detect(validation.images))
    victim, known = scene.victim, scene.task["victim"]
    made = {
        "binary": (binary, {}),
        "odin": tune(
            lambda **settings: OdinDetector(victim, **settings),
            OdinDetector.SETTINGS,
            benign=validation,
            strangers=scene.pool["validation"],
        ),
        "mahalanobis": tune(
            lambda **settings: MahalanobisDetector(victim, known, **settings),
            MahalanobisDetector.SETTINGS,
            benign=validation,
            strangers=scene.pool["validation"],
        ),
    }
    result: dict = {"validation_tpr": accepted}
    for name, (detector, settings) in made.items():
        scores = detector.score(validation.images)
        threshold = binary.threshold if name == "binary" else threshold_at(scores, accepted)
        benign = detector.score(scene.held_out.images)
        result[name] = {"settings": settings, "milliseconds": _milliseconds(detector.score, validation.images[:TIMED])}
        for pool, images in strangers.items():
            result[name][pool] = _quality(
                benign, detector.score(images.images), threshold, threshold_at(scores, ACCEPTED)
            )
    return result | {"caught": _caught(scene, strangers)}


def _quality(benign: torch.Tensor, strangers: torch.Tensor, threshold: float, strict: float) -> dict:
    tpr, tnr = tpr_tnr(benign, strangers, threshold)
    return {
        "tpr": tpr,
        "tnr": tnr,
        "balanced_accuracy": balanced_accuracy(tpr, tnr),
        "auroc": auroc(benign, strangers),
        "tnr_at_95": tpr_tnr(benign, strangers, strict)[1],
        "roc": [[round(value, 4) for value in values.tolist()] for values in roc_curve(benign, strangers, points=41)],
    }


def _caught(scene: Scene, strangers: Mapping[str, ImageSet]) -> dict[str, float]:
    task = scene.cell.task
    images = {"benign": scene.held_out, "own": scene.task["adversary"], "shifted": scene.queries(f"{task}/shifted")}
    return {name: _share(scene.detector.detect(part.images)) for name, part in (images | dict(strangers)).items()}


def overlap(scene: Scene) -> dict:
    """Return how well a detector does against a pool of which a share shows the victim's own classes.

    The pool's share `overlap` comes from the shifted source of the task, the rest from the ordinary pool. The detector
    is trained against such a pool and tested on another draw of it.

    Returns:
        ``tpr``, ``tnr`` and ``balanced_accuracy`` at threshold 0.5, and ``auroc``.
    """
    count, share = scene.settings.overlap_images, scene.cell.overlap
    own = round(count * share)
    shifted = scene.queries(f"{scene.cell.task}/shifted")
    seen = _mixture(_first(shifted, 0, own), _first(scene.pool["detector"], 0, count - own))
    unseen = _mixture(_first(shifted, count, own), _first(scene.pool["test"], 0, count - own))
    benign = _first(scene.task["detector"], 0, count)
    detector = scene.detector_of(benign, seen, recipe=scene.settings.detector)
    scores = detector.score(scene.held_out.images), detector.score(unseen.images)
    tpr, tnr = tpr_tnr(*scores, detector.threshold)
    return {"tpr": tpr, "tnr": tnr, "balanced_accuracy": balanced_accuracy(tpr, tnr), "auroc": auroc(*scores)}


def _first(images: ImageSet, start: int, count: int) -> ImageSet:
    return images.subset(torch.arange(start, start + count))


def _mixture(first: ImageSet, second: ImageSet) -> ImageSet:
    return mix(first.unlabelled(), second.unlabelled(), name="pool with overlap")


def stateful(scene: Scene) -> dict:
    """Return when a detector that watches a client's queries flags it, and how Sybil accounts slip through.

    Its threshold is chosen on honest clients; others are then watched. All send images of the victim's own source.

    Returns:
        ``delta``: the threshold. ``honest_flagged``: share of the honest test clients that are flagged. ``pool_until``
        and ``shifted_until``: queries until one client with the whole budget, of pool images or of the shifted source,
        is flagged, or None. ``sybil_accounts``: how many accounts must share the pool queries to stay below that.
        ``sybil_flagged``: share of them that is flagged all the same. ``traces``: the statistic over the number of
        queries, of a client of each kind.
    """
    length, clients = scene.settings.stream, scene.settings.streams
    own = scene.task["adversary"].images
    honest = [_watched(scene, own[start : start + length]) for start in range(0, 2 * clients * length, length)]
    detector = StatefulDetector(delta=choose_delta(honest[:clients]))
    streams = {"honest": honest[clients]}
    for name, pool in (("pool", scene.cell.pool), ("shifted", f"{scene.cell.task}/shifted")):
        images = scene.queries(pool)
        attack = Knockoff(budget=min(scene.cell.budget, len(images)), seed=scene.cell.seed)
        streams[name] = _watched(scene, images.images[attack.indices(len(images))])
    until = {name: detector.queries_until_flagged(*stream) for name, stream in streams.items()}
    accounts = accounts_needed(len(streams["pool"][1]), until["pool"])
    shares = [
        detector.queries_until_flagged(*(part[chosen] for part in streams["pool"]))
        for chosen in split_among(len(streams["pool"][1]), accounts)
    ]
    flagged = [detector.queries_until_flagged(*stream) for stream in honest[clients:]]
    return {
        "delta": detector.delta,
        "honest_flagged": sum(found is not None for found in flagged) / len(flagged),
        "pool_until": until["pool"],
        "shifted_until": until["shifted"],
        "sybil_accounts": accounts,
        "sybil_flagged": sum(found is not None for found in shares) / accounts,
        "traces": {name: _trace(detector, stream) for name, stream in streams.items()},
    }


def _watched(scene: Scene, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with the victim's labels for them: what the API sees of a client."""
    return images, scene.victim.logits(images).argmax(1)


def _trace(detector: StatefulDetector, stream: tuple[torch.Tensor, torch.Tensor]) -> list[list[float]]:
    counts, statistics = detector.statistics(*stream)
    return [[int(count) for count in counts], [round(float(value), 4) for value in statistics]]


def _milliseconds(score: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    started = time.perf_counter()
    score(images)
    return round(1000 * (time.perf_counter() - started) / len(images), 4)


def _share(flags: torch.Tensor) -> float:
    return flags.double().mean().item()
