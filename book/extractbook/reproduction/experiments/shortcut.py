"""What the detector detects: what an image shows, or how it was processed (beyond the paper).

The victim's images and the pool come from different origins, so they also differ in how they were compressed and
resized. A detector may learn that difference instead of the content: it then looks strong, but an attacker who
re-encodes the queries gets past it. Drawn images come from one renderer and differ only in content, unless we change
that.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from extractbook.reproduction.experiments.detection import baselines, rates
from extractbook.reproduction.experiments.extraction import api_of, compare
from extractbook.reproduction.experiments.resampling import kept, means, resamples
from extractbook.reproduction.setups import Setup, evenly
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import transforms
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import BinaryDetector, Detector
from extractlib.metrics import share, threshold_at
from extractlib.models.classifier import Surrogate

PROCESSING: Mapping[str, str] = {"compression": "jpeg-75", "resampling": "bicubic"}
"""What is done to the victim's images if the two sides differ, and by an attacker who imitates them."""

EVASIONS = ("none", "jpeg-95", "jpeg-90", *PROCESSING.values(), "blur", "webp-75")
"""What an attacker can do to its queries. The last is left out of the hardening."""

SIDES: Mapping[str, tuple[str, str]] = {
    "plain": ("none", "none"),
    **{f"{kind}-differs": (how, "none") for kind, how in PROCESSING.items()},
    **{f"{kind}-matched": (how, how) for kind, how in PROCESSING.items()},
}
"""How the victim's images and the pool's were processed before a detector was trained and evaluated on them."""

HARDENED = ("plain", *(f"{kind}-differs" for kind in PROCESSING))
"""The sides that also have a hardened detector."""

ATTACKED = "compression"
"""The processing for which attacks are run to the end."""


def sides_of(setup: Setup) -> dict[str, tuple[str, str]]:
    """Return how both sides are processed: as in `SIDES`, after photographs were brought to one size.

    Photographs come in different sizes, so their resampling differs from the start: the images of the pool are resized
    to the size of the victim's, and back, except where resampling is supposed to differ.
    """
    base, kinds = base_of(setup), {PROCESSING["resampling"]: "none"}
    if base == "none":
        return dict(SIDES)
    done = {name: [_then(base, kinds.get(how, how)) for how in both] for name, both in SIDES.items()}
    return {name: (benign, ood) for name, (benign, ood) in done.items()} | {"resampling-differs": ("none", "none")}


def base_of(setup: Setup) -> str:
    """Return the transform that brings photographs to one size; drawings already have one, so it is ``"none"``."""
    size = setup.settings.matched.get(setup.cell.task)
    return f"size-{size}" if size else "none"


def _then(first: str, second: str) -> str:
    return "+".join(how for how in (first, second) if how != "none") or "none"


def shortcut(setup: Setup) -> dict:
    """Return how well detectors do when both sides were processed alike, and when queries are re-encoded.

    Returns:
        ``sides``: for each of `SIDES`, the ``tpr``, ``tnr`` and ``balanced_accuracy`` of its detector on test images
        processed like its training images, at threshold 0.5. ``caught``: for the detectors of `HARDENED`, plain and
        hardened, for ODIN and for Mahalanobis, the share of queries that is caught, by what the attacker does to them.
        ``accepted``: the accepted share of an honest user's images, in the same form. ``recovery``: the recovery from
        the API without a detector, and behind a detector whose sides differ by compression, plain and hardened, with
        unchanged queries and with queries that the attacker processed like the victim's images; it is missing, as are
        ODIN and Mahalanobis, if the scale does not run these attacks. ``images``: the number on the smaller side.
        ``resampled``: see `resamples`.
    """
    played = setup.settings.played
    chosen = Knockoff(budget=setup.cell.budget, seed=setup.cell.seed).indices(len(setup.queries()))
    detectors = {name: _trained(setup, name) for name in SIDES}
    hardened = {f"{name}-hardened": _trained(setup, name, hardened=True) for name in HARDENED}
    asked: dict[str, Detector] = {**{name: detectors[name] for name in HARDENED}, **hardened}
    if played:
        asked |= _of_the_victim(setup, detectors["plain"])
    queries, honest = (one.images[:] for one in _asked(setup))
    weights = resamples(setup, len(queries), "pool")
    caught: dict[str, dict[str, float]] = {name: {} for name in asked}
    accepted: dict[str, dict[str, float]] = {name: {} for name in asked}
    resampled: dict[str, dict[str, np.ndarray]] = {name: {} for name in asked}
    for how in EVASIONS:
        for base, names in _by_base(setup, asked).items():
            done = _then(base, base_of(setup) if how == PROCESSING["resampling"] and base_of(setup) != "none" else how)
            sent, received = transforms.apply(queries, done), transforms.apply(honest, done)
            for name in names:
                flags = asked[name].detect(sent)
                caught[name][how], resampled[name][how] = share(flags), means(weights, flags)
                accepted[name][how] = 1 - share(asked[name].detect(received))
    found = {name: _quality(setup, detector, *sides_of(setup)[name]) for name, detector in detectors.items()}
    result = {
        "sides": {name: quality for name, (quality, _) in found.items()},
        "caught": caught,
        "accepted": accepted,
        "images": min(len(queries), len(honest)),
    }
    if played:
        result["recovery"] = _recoveries(setup, asked, setup.queries().subset(chosen))
    sides = {name: {"balanced_accuracy": draws} for name, (_, draws) in found.items()}
    return result | kept(setup, {"sides": sides, "caught": resampled})


def _by_base(setup: Setup, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the detectors by what was done to the images they are evaluated on before any evasion."""
    bases: dict[str, list[str]] = {}
    for name in names:
        as_they_come = name.startswith("resampling-differs")
        bases.setdefault("none" if as_they_come else base_of(setup), []).append(name)
    return bases


def _asked(setup: Setup) -> tuple[ImageSet, ImageSet]:
    """Return the pool's images and the task's that detectors are evaluated on."""
    return evenly(setup.pool[setup.part], setup.settings.asked), evenly(setup.held_out, setup.settings.asked)


def _trained(setup: Setup, name: str, *, hardened: bool = False) -> BinaryDetector:
    """Return the detector for one of `SIDES`; a hardened one is trained on images that were processed once more."""
    parts = [evenly(side["detector"], setup.settings.trained_on) for side in (setup.task, setup.pool)]
    sides = [transforms.apply_to_set(part, how) for part, how in zip(parts, sides_of(setup)[name], strict=True)]
    if hardened:
        smallest = setup.settings.matched.get(setup.cell.task, 0)
        sides = [
            transforms.harden(part, seed=setup.cell.seed + place, smallest=smallest) for place, part in enumerate(sides)
        ]
    return setup.detector_of(*sides)


def _of_the_victim(setup: Setup, plain: BinaryDetector) -> dict[str, Detector]:
    """Return ODIN and Mahalanobis, which accept as many benign validation images as the plain detector does."""
    validation = setup.task["validation"]
    accepted = 1 - share(plain.detect(validation.images))
    made = baselines(setup)
    for detector, _ in made.values():
        detector.threshold = threshold_at(detector.score(validation.images[:]), accepted)
    return {name: detector for name, (detector, _) in made.items()}


def _quality(setup: Setup, detector: BinaryDetector, benign: str, ood: str) -> tuple[dict[str, float], np.ndarray]:
    """Return the rates of a detector, and its balanced accuracy under each resample."""
    queries, honest = _asked(setup)
    sent, received = transforms.apply(queries.images[:], ood), transforms.apply(honest.images[:], benign)
    scores = {"benign": detector.score(received), "pool": detector.score(sent)}
    caught = {name: means(resamples(setup, len(one), name), one > detector.threshold) for name, one in scores.items()}
    found = rates(scores["benign"], scores["pool"], detector.threshold)
    return found, (1 - caught["benign"] + caught["pool"]) / 2


def _recoveries(setup: Setup, detectors: Mapping[str, Detector], asked: ImageSet) -> dict[str, dict[str, float]]:
    behind = {name: detectors[name] for name in (f"{ATTACKED}-differs", f"{ATTACKED}-differs-hardened")}
    apis = {"undefended": setup} | {name: setup.but(defense="shuffle", detector=one) for name, one in behind.items()}
    pools = {sent: transforms.apply_to_set(asked, sent) for sent in ("none", PROCESSING[ATTACKED])}
    return {
        name: {sent: _recovery(_surrogate(api, pool), setup) for sent, pool in pools.items()}
        for name, api in apis.items()
    }


def _surrogate(setup: Setup, pool: ImageSet) -> Surrogate:
    """Return the surrogate from an attack on the setup's API with these images."""
    cell = setup.cell
    attack = Knockoff(budget=cell.budget, seed=cell.seed)
    transfer = attack.collect(api_of(setup, budget=cell.budget), pool, progress=setup.progress)
    model = attack.train(transfer, pool, setup.surrogate_trainer(keep=False))
    return Surrogate(model, classes=setup.victim.classes)


def _recovery(surrogate: Surrogate, setup: Setup) -> float:
    return compare(setup.victim, surrogate, setup.held_out, balanced=setup.balanced)["recovery"]
