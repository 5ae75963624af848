"""Detecting the attacker's queries, one by one and client by client (the paper, sections 5 and 6)."""

import time
from collections.abc import Callable, Mapping

import torch

from extractbook.reproduction.setups import Setup
from extractlib.attacks.knockoff import Knockoff
from extractlib.data.images import ImageSet, mix
from extractlib.data.sources import Source
from extractlib.defenses.accounts import CountingDetector, StatefulDetector, accounts_needed, choose_delta, split_among
from extractlib.defenses.detectors import Detector, MahalanobisDetector, OdinDetector, features_of, threshold_at, tune
from extractlib.errors import InputError
from extractlib.metrics import auroc, balanced_accuracy, roc_curve, share, tpr_tnr

TIMED = 256
"""Images of the request whose time is taken."""

ACCEPTED = 0.95
"""Share of the benign validation images that is accepted at the threshold chosen on them."""


def detection(setup: Setup) -> dict:
    """Return how well the paper's detector, ODIN and Mahalanobis tell queries of two pools from benign ones.

    The binary detector has threshold 0.5. The other two are set, on the validation part, to the TPR it has there.

    Returns:
        For each of ``"binary"``, ``"odin"`` and ``"mahalanobis"``: for ``"pool"`` and ``"second"`` (the pool that no
        detector has seen, if the scale has one) ``tpr``, ``tnr``, ``balanced_accuracy``, ``auroc``, ``tnr_at_95``
        (at the threshold that accepts 95% of the benign validation images) and ``roc``; ``milliseconds`` a query;
        ``settings``.
        ``validation_tpr``; and ``caught``, the share that the binary detector catches of benign images, of both pools,
        and of the adversary's own images from the victim's very source and from the shifted one.
    """
    validation, ood = setup.task["validation"], {"pool": setup.pool["test"]}
    if setup.settings.second_pool:
        ood["second"] = setup.second_pool["test"]
    binary = setup.detector
    accepted = 1 - share(binary.detect(validation.images))
    made = {"binary": (binary, {})} | rivals(setup, benign=validation, ood=setup.pool["validation"])
    result: dict = {"validation_tpr": accepted}
    for name, (detector, settings) in made.items():
        scores = detector.score(validation.images)
        threshold = binary.threshold if name == "binary" else threshold_at(scores, accepted)
        benign = detector.score(setup.held_out.images)
        result[name] = {"settings": settings, "milliseconds": _milliseconds(detector.score, validation.images[:TIMED])}
        for pool, images in ood.items():
            result[name][pool] = _quality(
                benign, detector.score(images.images), threshold, threshold_at(scores, ACCEPTED)
            )
    return result | {"caught": _caught(setup, ood)}


def rivals(setup: Setup, *, benign: ImageSet, ood: ImageSet) -> dict[str, tuple[Detector, dict[str, float]]]:
    """Return ODIN and Mahalanobis by name, each with the settings that do best on validation images of both sides."""
    victim, known, sides = setup.victim, setup.task["victim"], {"benign": benign, "ood": ood}
    features = features_of(victim, known.images)
    return {
        "odin": tune(lambda **settings: OdinDetector(victim, **settings), OdinDetector.SETTINGS, **sides),
        "mahalanobis": tune(
            lambda **settings: MahalanobisDetector(victim, known, features=features, **settings),
            MahalanobisDetector.SETTINGS,
            **sides,
        ),
    }


def rates(benign: torch.Tensor, ood: torch.Tensor, threshold: float) -> dict[str, float]:
    """Return the TPR, the TNR and the balanced accuracy of scores of both sides at a threshold."""
    tpr, tnr = tpr_tnr(benign, ood, threshold)
    return {"tpr": tpr, "tnr": tnr, "balanced_accuracy": balanced_accuracy(tpr, tnr)}


def _quality(benign: torch.Tensor, ood: torch.Tensor, threshold: float, strict: float) -> dict:
    return rates(benign, ood, threshold) | {
        "auroc": auroc(benign, ood),
        "tnr_at_95": tpr_tnr(benign, ood, strict)[1],
        "roc": [[round(value, 4) for value in values.tolist()] for values in roc_curve(benign, ood, points=41)],
    }


def _caught(setup: Setup, ood: Mapping[str, ImageSet]) -> dict[str, float]:
    own = Source(setup.cell.task)
    images = {
        "benign": setup.held_out,
        "own": setup.task["adversary"],
        "shifted": setup.queries(own.shifted()),
    }
    return {name: share(setup.detector.detect(part.images)) for name, part in (images | dict(ood)).items()}


def overlap(setup: Setup) -> dict:
    """Return how well a detector does against a pool of which a share shows the victim's own classes.

    The pool's share `overlap` is the cell's pool, images of the task from a shifted source or from the very same; the
    rest is the ordinary pool. The detector is trained against such a mixture and tested on another draw of it.

    Returns:
        ``tpr``, ``tnr`` and ``balanced_accuracy`` at threshold 0.5, and ``auroc``.
    """
    count, source = setup.settings.overlap_images, setup.queries()
    own = round(count * setup.cell.overlap)
    seen = _mixture(_first(source, 0, own), _first(setup.pool["detector"], 0, count - own))
    unseen = _mixture(_first(source, count, own), _first(setup.pool["test"], 0, count - own))
    benign = _first(setup.task["detector"], 0, count)
    detector = setup.detector_of(benign, seen)
    scores = detector.score(setup.held_out.images), detector.score(unseen.images)
    return rates(*scores, detector.threshold) | {"auroc": auroc(*scores)}


def _first(images: ImageSet, start: int, count: int) -> ImageSet:
    if len(images) < start + count and count:
        raise InputError(
            f"{images.name} holds {len(images)} images and {start + count} are needed: use a larger data set, or a"
            " scale that asks for fewer"
        )
    return images.subset(torch.arange(start, start + count))


def _mixture(first: ImageSet, second: ImageSet) -> ImageSet:
    return mix(first.unlabeled(), second.unlabeled(), name="pool with overlap")


def stateful(setup: Setup) -> dict:
    """Return when a detector that watches all queries of a client flags it, and how Sybil accounts slip through.

    Both detectors are set on honest clients, who send images of the victim's own source; others are then watched.

    Returns:
        For ``"prada"`` and ``"counting"``: ``honest_flagged``, the share of the honest test clients that are flagged;
        ``pool_until`` and ``shifted_until``, after how many queries one client with the whole budget, of pool images or
        of the shifted source, is flagged, or None; ``sybil_accounts``, how many accounts must share the pool queries
        to stay below that; ``sybil_flagged``, the share of them that is flagged all the same. Also PRADA's ``delta``,
        the ``rate`` of honest queries caught, and ``traces``: PRADA's statistic over the number of queries, of a client
        of each kind.
    """
    length, clients = setup.settings.stream, setup.settings.streams
    honest = _accounts(
        _first(setup.task["adversary"], 0, 2 * clients * length).images[:], clients=clients, length=length
    )
    streams = {}
    for name, pool in (("pool", setup.cell.pool), ("shifted", Source(setup.cell.task).shifted())):
        images = setup.queries(pool)
        attack = Knockoff(budget=min(setup.cell.budget, len(images)), seed=setup.cell.seed)
        streams[name] = images.subset(attack.indices(len(images))).images
    result, traces = {}, {}

    def labeled(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, setup.victim.logits(images).argmax(1)

    prada = StatefulDetector(delta=choose_delta(map(labeled, honest[:clients])))
    result["prada"] = _watch(
        lambda images: prada.queries_until_flagged(*labeled(images)), honest[clients:], streams
    ) | {"delta": prada.delta}
    for name, images in {"honest": honest[clients], **streams}.items():
        counts, statistics = prada.statistics(*labeled(images))
        traces[name] = [counts, [round(value, 4) for value in statistics]]
    caught = setup.detector.detect
    counting = CountingDetector.fit(torch.cat([caught(images) for images in honest[:clients]]))
    result["counting"] = _watch(
        lambda images: counting.queries_until_flagged(caught(images)), honest[clients:], streams
    ) | {"rate": counting.rate}
    return result | {"traces": traces}


def _accounts(images: torch.Tensor, *, clients: int, length: int) -> list[torch.Tensor]:
    """Return the images of `clients` clients of the validation side and as many of the test side, `length` of each.

    The frames of one track lie side by side: the two sides share one at most, and each client sends some of all of its.
    """
    sides = images[: 2 * clients * length].split(clients * length)
    return [side[client::clients] for side in sides for client in range(clients)]


def _watch(
    until: Callable[[torch.Tensor], int | None], honest: list[torch.Tensor], streams: Mapping[str, torch.Tensor]
) -> dict:
    """Return what a stateful detector, given as the number of queries until it flags a client, makes of each client."""
    pool = streams["pool"]
    found = until(pool)
    accounts = accounts_needed(len(pool), found)
    flagged = [until(pool[chosen]) is not None for chosen in split_among(len(pool), accounts)]
    return {
        "honest_flagged": sum(until(images) is not None for images in honest) / len(honest),
        "pool_until": found,
        "shifted_until": until(streams["shifted"]),
        "sybil_accounts": accounts,
        "sybil_flagged": sum(flagged) / accounts,
    }


def _milliseconds(score: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    started = time.perf_counter()
    score(images)
    return round(1000 * (time.perf_counter() - started) / len(images), 4)
