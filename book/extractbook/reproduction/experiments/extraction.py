"""Extraction: query the victim's API, train a surrogate on the answers, compare the two (the paper, sections 4 to 6).

This module also measures what a defense in front of the API did, what is recovered class by class, and the independent
control: a model that nobody stole, without which neither agreement nor repeated errors say anything.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extractbook.reproduction.cells import DENY_FREE, WATERMARK, plain_cell
from extractbook.reproduction.experiments.resampling import accuracies, joined, kept, means, resamples
from extractbook.reproduction.setups import Setup
from extractlib.api.service import PredictionAPI
from extractlib.attacks.adaptive import AdaptiveKnockoff
from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.own_images import train_alone
from extractlib.attacks.transfer import TransferSet, load
from extractlib.data.images import ImageSet
from extractlib.data.sources import Source
from extractlib.defenses.ownership import OtherClasses, dataset_inference
from extractlib.errors import check_positive
from extractlib.evaluation import evaluate_labels
from extractlib.metrics import accuracy, agreement, mean_class_accuracy, per_class_accuracy, recovery, share
from extractlib.models.classifier import Surrogate, Victim
from extractlib.versions import versions


def extraction(setup: Setup) -> dict:
    """Attack the cell's API and return how much of the victim the surrogate recovers.

    Returns:
        What `measured` returns; ``held_out_agreement``, the share of the pool's validation images to which the
        surrogate gives the API's label, if an API was queried; ``dataset_inference_p`` for the plain cell if copies are
        accused on its task; and if there is a defense, what it did to the attacker and to an honest user.
    """
    cell, surrogate = setup.cell, surrogate_of(setup)
    result = measured(setup, surrogate)
    if cell.attack != "own-labels":
        held_out = setup.pool["validation"].images
        answers = api_of(setup).query(held_out[:], client="held-out")
        result["held_out_agreement"] = agreement(surrogate.predict(held_out), answers.labels)
    if cell == plain_cell(setup.settings, task=cell.task, seed=cell.seed):
        result |= inferred(setup, surrogate)
    if cell.defense == WATERMARK:
        result |= watermark(setup, surrogate)
    elif cell.defense != "none":
        result = joined(result, defended(setup))
    return result


def control(setup: Setup) -> dict:
    """Return what `measured` and `inferred` say about the independent control, which has queried no API."""
    model = control_of(setup)
    return measured(setup, model) | inferred(setup, model)


def surrogate_of(setup: Setup) -> Surrogate:
    """Return the surrogate that results from the cell's attack, trained once and then read from the store."""
    trainer = setup.surrogate_trainer()
    if setup.cell.attack == "own-labels":
        model = train_alone(setup.queries(labeled=True), trainer, budget=setup.cell.budget)
    else:
        attack, transfer = collected(setup)
        model = attack.train(transfer, setup.queries(labeled=setup.cell.attack == "adaptive"), trainer)
    return Surrogate(model, classes=setup.victim.classes)


def control_of(setup: Setup) -> Surrogate:
    """Return the independent control: the surrogate's network and recipe, own images, their true labels, no API.

    One control serves all cells of a task and seed, whatever their budget and steps.
    """
    own = setup.queries(Source(setup.cell.task), labeled=True)
    count = min(setup.settings.control_images.get(setup.cell.task, len(own)), len(own))
    model = train_alone(own, setup.but(steps=0).surrogate_trainer(), budget=count)
    return Surrogate(model, classes=setup.victim.classes)


def collected(setup: Setup) -> tuple[Knockoff, TransferSet]:
    """Return the cell's attack and its transfer set, collected once and then read from the store.

    One collection serves all smaller budgets: an attack's first queries do not depend on its budget. If denied queries
    are free, the whole pool is queried, and the set ends with the last answer that the budget pays for.
    """
    cell, settings = setup.cell, setup.settings
    adaptive, free = cell.attack == "adaptive", cell.defense == DENY_FREE
    pool = setup.queries(labeled=adaptive)
    budget = check_positive("budget", cell.budget)
    whole = len(pool) if free else min(settings.middle_budget if adaptive else settings.budget, len(pool))
    attack = Knockoff(budget=max(budget, whole), seed=cell.seed, fill=cell.fill)
    if adaptive:
        bandit = asdict(settings.bandit) | {"reward": cell.reward}
        attack = AdaptiveKnockoff(budget=attack.budget, seed=cell.seed, fill=cell.fill, **bandit)
    attack.indices(len(pool))  # raises an error, if any, before a victim is trained
    api = api_of(setup, budget=attack.budget)
    key: dict[str, Any] = {
        "api": api.fingerprint,
        "pool": pool.fingerprint,
        "attack": asdict(attack) | {"name": cell.attack},
        "versions": versions("api", "knockoff", "policy", "watermark"),
    }
    if adaptive:  # the queries depend on a surrogate that is trained in the meantime
        key["versions"] |= versions("adaptive", "network", "train")
        key["learner"] = [cell.surrogate, cell.surrogate_weights]
    else:
        del key["attack"]["fill"]

    def make(folder: Path) -> None:
        trainer = setup.surrogate_trainer(keep=False) if adaptive else None
        attack.collect(api, pool, folder / "transfer.db", trainer=trainer, progress=setup.progress)

    transfer = load(setup.store.get("transfer", key, make) / "transfer.db")
    return attack, transfer.first(_paid(transfer, budget) if free else budget)


def _paid(transfer: TransferSet, budget: int) -> int:
    """Return after how many queries `budget` of them were answered, or the number of all if fewer were."""
    return min(int((transfer.answers.denied.logical_not().cumsum(0) < budget).sum()) + 1, len(transfer))


def api_of(setup: Setup, *, budget: int | None = None) -> PredictionAPI:
    """Return the API that the cell describes, including its defense."""
    both = (None, None) if setup.cell.defense == "none" else (setup.defense.detector, setup.defense.policy)
    return PredictionAPI(setup.victim, answers=setup.cell.granularity, budget=budget, detector=both[0], policy=both[1])


def compare(victim: Victim, surrogate: Surrogate, held_out: ImageSet, *, balanced: bool = False) -> dict:
    """Return how well the surrogate does on labeled images compared with the victim.

    Returns:
        The fields of `evaluation.Evaluation`, with ``n`` named ``images``, and ``recovery_above_constant``; None for
        what is undefined because the victim makes no errors or is no better than the constant predictor.
    """
    theirs, ours = (model.logits(held_out.images).argmax(1) for model in (victim, surrogate))
    return _compared(theirs, ours, held_out.known_labels(), balanced=balanced)


def _compared(theirs: torch.Tensor, ours: torch.Tensor, labels: torch.Tensor, *, balanced: bool) -> dict:
    found = evaluate_labels(theirs, ours, labels, balanced=balanced)
    result: dict = found.to_json() | {"images": found.n}
    del result["balanced"]  # the settings say it
    del result["n"], result["both_right"]
    better = found.victim_accuracy > found.constant_accuracy
    result["recovery_above_constant"] = found.recovery_above_constant if better else None
    return result | ({} if found.errors else {"errors_repeated": None})


def measured(setup: Setup, model: Surrogate) -> dict:
    """Return what `compare` returns for a model on held-out images, ``validation_accuracy`` and ``resampled``."""
    validation = setup.task["validation"]
    result, resampled = on_held_out(setup, model)
    result["validation_accuracy"] = _right(setup, model.predict(validation.images), validation)
    return result | kept(setup, resampled)


def on_held_out(setup: Setup, model: Surrogate) -> tuple[dict, dict[str, np.ndarray]]:
    """Return what `compare` returns for a model on the held-out images, and resamples of the numbers claims rest on.

    If a resample leaves nothing to divide by, it gets the number for all images.
    """
    labels = setup.held_out.known_labels()
    theirs, ours = (one.logits(setup.held_out.images).argmax(1) for one in (setup.victim, model))
    found = _compared(theirs, ours, labels, balanced=setup.balanced)
    weights = resamples(setup, len(labels), "held out")
    victim, surrogate = (accuracies(weights, one, labels, setup.balanced) for one in (theirs, ours))
    wrong, same = theirs.ne(labels).double(), ours.eq(theirs).double()
    constant = accuracies(weights, labels.mode().values.expand_as(labels), labels, setup.balanced)
    numbers = {
        "recovery": (surrogate, victim),
        "recovery_above_constant": (surrogate - constant, victim - constant),
        "errors_repeated": (means(weights, same * wrong), means(weights, wrong)),
    }
    ratios = {
        name: np.divide(above, below, out=np.full_like(below, found[name]), where=below > 0)
        for name, (above, below) in numbers.items()
        if found[name] is not None
    }
    return found, {"victim_accuracy": victim, "surrogate_accuracy": surrogate, **ratios}


def _right(setup: Setup, labels: torch.Tensor, images: ImageSet) -> float:
    """Return the accuracy of labels on images of the task, balanced if the scale says so."""
    return (mean_class_accuracy if setup.balanced else accuracy)(labels, images.known_labels())


def inferred(setup: Setup, model: Surrogate) -> dict:
    """Return ``dataset_inference_p`` (see `ownership.dataset_inference`) if copies are accused, else nothing.

    Photographs that the victim was trained on come class by class; where that would decide the verdict, there is none.
    """
    if setup.cell.task not in setup.settings.accused:
        return {}
    some = torch.arange(setup.settings.accused_images)
    private, public = (setup.task[part].subset(some) for part in ("victim", "validation"))
    try:
        p = dataset_inference(setup.victim, model, private=private, public=public, seed=setup.cell.seed)
    except OtherClasses:
        return {}
    return {"dataset_inference_p": p}


def defended(setup: Setup) -> dict:
    """Return what a defense did (the paper, section 5).

    Returns:
        ``caught``: share of the attacker's queries that were detected; ``answered``: share that was not denied;
        ``asked``: how many it sent, including denied ones; ``strength`` of a perturbation; and what `honest` returns.
    """
    defense, transfer = setup.defense, collected(setup)[1]
    result = {
        "caught": share(defense.detector.detect(setup.queries().subset(transfer.indices).images)),
        "answered": 1 - share(transfer.answers.denied),
        "asked": len(transfer),
    }
    return result | honest(setup) | ({} if defense.strength is None else {"strength": defense.strength})


def honest(setup: Setup) -> dict:
    """Return what the defense costs an honest user, who sends the held-out images.

    Returns:
        ``honest_accuracy``: share of these images with a correct answer; ``honest_caught``: share that was detected;
        ``honest_refused``: share that was denied; ``honest_l1``: mean L1 change of an answer's probabilities, 1 if it
        was denied; ``resampled``, for the first and the third.
    """
    defense, held_out = setup.defense, setup.held_out
    images = held_out.images[:]
    probabilities = setup.cell.granularity.probabilities(setup.victim.logits(images))
    caught = defense.detector.detect(images)
    shown = defense.policy.answer(probabilities, caught, images)
    answers = setup.cell.granularity.show(shown)
    weights = resamples(setup, len(held_out), "held out")
    resampled = {
        "honest_accuracy": accuracies(weights, answers.labels, held_out.known_labels(), setup.balanced),
        "honest_refused": means(weights, answers.denied),
    }
    return {
        "honest_accuracy": _right(setup, answers.labels, held_out),
        "honest_caught": share(caught),
        "honest_refused": share(answers.denied),
        "honest_l1": (shown.nan_to_num(0.0) - probabilities).abs().sum(1).mean().item(),
    } | kept(setup, resampled)


def watermark(setup: Setup, surrogate: Surrogate) -> dict:
    """Return whether the surrogate carries the mark (DAWN: Szyller et al. 2021).

    Returns:
        ``marked``: number of wrongly answered queries; ``marks_repeated``: for how many of them the surrogate gives the
        same wrong label as the answer; ``marks_repeated_by_control``: the same for the independent control;
        ``honest_accuracy``: share of the held-out images with a correct answer.
    """
    transfer = collected(setup)[1]
    images, told = setup.queries().subset(transfer.indices).images, transfer.answers.labels
    marked = told != setup.victim.logits(images).argmax(1)
    models = {"marks_repeated": surrogate, "marks_repeated_by_control": control_of(setup)}
    repeated = {name: int((model.predict(images[marked]) == told[marked]).sum()) for name, model in models.items()}
    return {"marked": int(marked.sum()), **repeated, "honest_accuracy": honest(setup)["honest_accuracy"]}


def classes(setup: Setup) -> dict:
    """Return what the attack recovers class by class, on each half of the held-out images.

    Returns:
        ``victim_accuracy`` and ``surrogate_accuracy``: per half and class, 0 if there is no image of the class; images
        of a class are assigned to the halves in turn.
        ``queries``: how many of the attacker's queries the victim put into each class. ``victim_confusion`` and
        ``surrogate_confusion``: counts, with one row per true class and one column per predicted class. ``recovery``:
        on all images. ``errors_introduced``: how many of all ``images`` the victim classifies correctly and the
        surrogate does not.
    """
    surrogate, victim, held_out = surrogate_of(setup), setup.victim, setup.held_out
    labels, count = held_out.known_labels(), len(victim.classes)
    predicted = {
        "victim": victim.logits(held_out.images).argmax(1),
        "surrogate": surrogate.predict(held_out.images),
    }
    half = _turn(labels) % 2
    result: dict = {"queries": collected(setup)[1].answers.labels.bincount(minlength=count).tolist()}
    for name, guess in predicted.items():
        halves = [per_class_accuracy(guess[half == side], labels[half == side], count) for side in (0, 1)]
        result[f"{name}_accuracy"] = [[round(value, 4) for value in one.nan_to_num(0.0).tolist()] for one in halves]
        result[f"{name}_confusion"] = (labels * count + guess).bincount(minlength=count**2).view(count, count).tolist()
    right = {name: _right(setup, guess, held_out) for name, guess in predicted.items()}
    introduced = (predicted["victim"] == labels) & (predicted["surrogate"] != labels)
    return result | {
        "recovery": recovery(right["surrogate"], right["victim"]),
        "errors_introduced": int(introduced.sum()),
        "images": len(labels),
    }


def _turn(labels: torch.Tensor) -> torch.Tensor:
    """Return how many earlier images have the same label, int64 of shape (n,)."""
    order = labels.argsort(stable=True)
    grouped = labels[order]
    starts = torch.searchsorted(grouped, grouped)
    return torch.empty_like(labels).scatter_(0, order, torch.arange(len(labels)) - starts)
