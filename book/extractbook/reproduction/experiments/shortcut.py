"""What the detector detects: what an image shows, or how it was processed (beyond the paper).

Victim's images and pool come from different hands, so they differ in how they were compressed and resized too. A
detector may learn that difference instead of the content: it then looks strong, and an attacker who saves its queries
anew walks past it. On drawn images, which one renderer made, nothing but content differs, unless we make it so.
"""

from collections.abc import Mapping

import torch

from extractbook.reproduction.experiments.detection import rates, rivals
from extractbook.reproduction.experiments.extraction import api_of, compare
from extractbook.reproduction.setups import Setup
from extractlib.attacks.knockoff import Knockoff
from extractlib.data import transforms
from extractlib.data.images import ImageSet
from extractlib.defenses.detectors import BinaryDetector, Detector, threshold_at
from extractlib.metrics import share
from extractlib.models.classifier import Surrogate

PROCESSING: Mapping[str, str] = {"compression": "jpeg-75", "resampling": "bicubic"}
"""What is done to the victim's images where the two sides differ, and by an attacker who imitates them."""

BLUR = "blur"
"""What an attacker may try who does not know what was done to the victim's images."""

EVASIONS = ("none", "jpeg-95", "jpeg-90", *PROCESSING.values(), BLUR, "webp-75")
"""What an attacker may do to its queries. The last is left out of the hardening."""

SIDES: Mapping[str, tuple[str, str]] = {
    "plain": ("none", "none"),
    **{f"{kind}-differs": (how, "none") for kind, how in PROCESSING.items()},
    **{f"{kind}-matched": (how, how) for kind, how in PROCESSING.items()},
}
"""How the victim's images and the pool's were processed before a detector was trained on them and asked about them."""

HARDENED = ("plain", *(f"{kind}-differs" for kind in PROCESSING))
"""The sides of which there is a hardened detector too."""

TUNED_ON = 1_000
"""Validation images of each side that ODIN and Mahalanobis are set on."""


def shortcut(setup: Setup) -> dict:
    """Return what is left of the detectors when both sides were processed alike, and when queries are saved anew.

    Returns:
        ``sides``: of each of `SIDES` the ``tpr``, ``tnr`` and ``balanced_accuracy`` of its detector on test images
        processed like its training images, at threshold 0.5. ``caught``: of the detectors of `HARDENED`, plain and
        hardened, of ODIN and of Mahalanobis, by what the attacker does to its queries, the share that is caught.
        ``accepted``: the same of an honest user's images. ``recovery``: of the API without a detector, and of the ones
        behind a detector whose sides differ, plain and hardened, when the queries are as they came, when the attacker
        processed them as the victim's images were, and when it blurred them.
    """
    chosen = Knockoff(budget=setup.cell.budget, seed=setup.cell.seed).indices(len(setup.queries()))
    detectors = {name: _trained(setup, name) for name in SIDES}
    hardened = {f"{name}-hardened": _trained(setup, name, hardened=True) for name in HARDENED}
    asked = {name: detectors[name] for name in HARDENED} | hardened | _of_the_victim(setup, detectors["plain"])
    queries, honest = setup.pool["test"].images[:], setup.held_out.images[:]
    caught, accepted = ({name: {} for name in asked} for _ in range(2))
    for how in EVASIONS:
        sent, received = transforms.apply(queries, how), transforms.apply(honest, how)
        for name, detector in asked.items():
            caught[name][how] = share(detector.detect(sent))
            accepted[name][how] = 1 - share(detector.detect(received))
    return {
        "sides": {name: _quality(setup, detector, *SIDES[name]) for name, detector in detectors.items()},
        "caught": caught,
        "accepted": accepted,
        "recovery": _recoveries(setup, asked, setup.queries().subset(chosen)),
    }


def _trained(setup: Setup, name: str, *, hardened: bool = False) -> BinaryDetector:
    """Return the detector of one of `SIDES`; a hardened one is trained on images that were processed once more."""
    parts = (setup.task["detector"], setup.pool["detector"])
    sides = [transforms.apply_to_set(part, how) for part, how in zip(parts, SIDES[name], strict=True)]
    if hardened:
        sides = [transforms.harden(part, seed=setup.cell.seed + place) for place, part in enumerate(sides)]
    return setup.detector_of(*sides)


def _of_the_victim(setup: Setup, plain: BinaryDetector) -> dict[str, Detector]:
    """Return ODIN and Mahalanobis, which accept as many benign validation images as the plain detector does."""
    validation = setup.task["validation"]
    accepted = 1 - share(plain.detect(validation.images))
    options = {
        "benign": _some(validation),
        "ood": _some(setup.pool["validation"]),
    }
    made = rivals(setup, **options)
    for detector, _ in made.values():
        detector.threshold = threshold_at(detector.score(validation.images[:]), accepted)
    return {name: detector for name, (detector, _) in made.items()}


def _some(images: ImageSet) -> ImageSet:
    """Return `TUNED_ON` images at equal distances, so that as many tracks as can be are among them."""
    count = min(TUNED_ON, len(images))
    return images.subset(torch.arange(count) * len(images) // count)


def _quality(setup: Setup, detector: BinaryDetector, benign: str, ood: str) -> dict[str, float]:
    scores = (
        detector.score(transforms.apply(setup.held_out.images[:], benign)),
        detector.score(transforms.apply(setup.pool["test"].images[:], ood)),
    )
    return rates(*scores, detector.threshold)


def _recoveries(setup: Setup, detectors: Mapping[str, Detector], asked: ImageSet) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {"undefended": {}}
    for sent in ("none", *PROCESSING.values(), BLUR):
        pool = transforms.apply_to_set(asked, sent)
        found["undefended"][sent] = _recovery(_surrogate(setup, pool), setup)
        for kind, how in PROCESSING.items():
            # Whoever imitates a victim's images imitates these, not those of the other victim.
            if sent not in ("none", how, BLUR):
                continue
            for name in (f"{kind}-differs", f"{kind}-differs-hardened"):
                defended = setup.but(defense="shuffle", detector=detectors[name])
                found.setdefault(name, {})[sent] = _recovery(_surrogate(defended, pool), setup)
    return found


def _surrogate(setup: Setup, pool: ImageSet) -> Surrogate:
    """Return the surrogate of an attack with these images on the setup's API."""
    cell = setup.cell
    attack = Knockoff(budget=cell.budget, seed=cell.seed)
    transfer = attack.collect(api_of(setup, budget=cell.budget), pool, progress=setup.progress)
    model = attack.train(transfer, pool, setup.trainer(cell.surrogate, setup.settings.surrogate, keep=False))
    return Surrogate(model, classes=setup.victim.classes)


def _recovery(surrogate: Surrogate, setup: Setup) -> float:
    return compare(setup.victim, surrogate, setup.held_out)["recovery"]
