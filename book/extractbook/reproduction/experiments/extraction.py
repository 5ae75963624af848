"""Extraction: query the victim's API, train a surrogate on the answers, compare the two (the paper, sections 4 to 6).

Also what a defense in front of the API did, and what is recovered class by class.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from extractbook.reproduction.cells import WATERMARK
from extractbook.reproduction.freshness import versions_of
from extractbook.reproduction.setups import Setup
from extractlib.api.service import PredictionAPI
from extractlib.attacks.adaptive import ONLINE, AdaptiveKnockoff, OnlineSurrogate
from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.own_images import train_alone
from extractlib.attacks.transfer import TransferSet, load
from extractlib.data.images import ImageSet
from extractlib.defenses.policies import policy
from extractlib.defenses.watermark import KeyedSample
from extractlib.evaluation import evaluate
from extractlib.metrics import accuracy, agreement, per_class_accuracy, recovery, share
from extractlib.models.classifier import Surrogate, Victim


def extraction(setup: Setup) -> dict:
    """Attack the cell's API and return how much of the victim the surrogate recovers.

    Returns:
        What `compare` returns, and where there is a defense what it did to the attacker and to an honest user.
    """
    surrogate = surrogate_of(setup)
    result = compare(setup.victim, surrogate, setup.held_out)
    if setup.cell.defense == WATERMARK:
        result |= watermark(setup)
    elif setup.cell.defense != "none":
        result |= defended(setup)
    return result


def surrogate_of(setup: Setup) -> Surrogate:
    """Return the surrogate that the cell's attack ends with, trained once and then read from the store."""
    cell = setup.cell
    trainer = setup.trainer(cell.surrogate, setup.settings.surrogate)
    if cell.attack == "own-labels":
        model = train_alone(setup.queries(labeled=True), trainer, budget=cell.budget)
    else:
        attack, transfer = collected(setup)
        model = attack.train(transfer, setup.queries(labeled=cell.attack == "adaptive"), trainer)
    return Surrogate(model, classes=setup.victim.classes)


def collected(setup: Setup) -> tuple[Knockoff, TransferSet]:
    """Return the cell's attack and its transfer set, collected once and then read from the store.

    One collection serves all smaller budgets: what an attack asks first does not depend on how much it may ask.
    """
    cell, settings = setup.cell, setup.settings
    adaptive = cell.attack == "adaptive"
    pool = setup.queries(labeled=adaptive)
    whole = settings.adaptive_budgets[-1] if adaptive else min(settings.budget, len(pool))
    budget = max(cell.budget, whole)
    if adaptive:
        attack = AdaptiveKnockoff(budget=budget, seed=cell.seed, reward=cell.reward)
    else:
        attack = Knockoff(budget=budget, seed=cell.seed)
    # What cannot be asked is refused before a victim is trained.
    Knockoff(budget=cell.budget, seed=cell.seed).indices(len(pool))
    api = api_of(setup, budget=budget)
    key = {
        "api": api.fingerprint,
        "pool": pool.fingerprint,
        "attack": asdict(attack) | {"name": cell.attack},
        "versions": versions_of(cell),
    }

    def make(folder: Path) -> None:
        learner = {"learner": _learner(setup)} if adaptive else {}
        attack.collect(api, pool, folder / "transfer.db", progress=setup.progress, **learner)

    transfer = load(setup.store.get("transfer", key, make) / "transfer.db")
    return attack, transfer.first(cell.budget)


def _learner(setup: Setup) -> OnlineSurrogate:
    trainer = setup.trainer(setup.cell.surrogate, ONLINE, keep=False)
    return OnlineSurrogate(trainer, classes=len(setup.victim.classes))


def api_of(setup: Setup, *, budget: int | None = None) -> PredictionAPI:
    """Return the API that the cell describes, its defense included."""
    cell = setup.cell
    secret = f"the server's secret {cell.seed}".encode()
    defense = {}
    if cell.defense == WATERMARK:
        sample = KeyedSample(rate=setup.settings.watermark_rate, secret=secret)
        defense = {"detector": sample, "policy": policy("mislabel", secret=secret)}
    elif cell.defense != "none":
        defense = {"detector": setup.detector, "policy": policy(cell.defense, secret=secret)}
    return PredictionAPI(setup.victim, answers=cell.granularity, budget=budget, **defense)


def compare(victim: Victim, surrogate: Surrogate, held_out: ImageSet) -> dict:
    """Return how well the surrogate does on labeled images beside the victim (see `evaluation.Evaluation`)."""
    found = evaluate(victim, surrogate, held_out).to_json()
    del found["n"]  # the data's digest stands in the row
    return found


def defended(setup: Setup) -> dict:
    """Return what a defense did (the paper, section 5).

    Returns:
        ``caught``: share of the attacker's queries that were detected; ``answered``: share that was not denied;
        ``honest_accuracy``: share of an honest user's images, the held-out ones, whose answer is right;
        ``honest_caught``: share of those images that were detected.
    """
    api, held_out = api_of(setup), setup.held_out
    transfer = collected(setup)[1]
    answers = api.query(held_out.images, client="honest")
    return {
        "caught": share(setup.detector.detect(setup.queries().subset(transfer.indices).images)),
        "answered": 1 - share(transfer.answers.denied),
        "honest_accuracy": accuracy(answers.labels, held_out.labels),
        "honest_caught": share(setup.detector.detect(held_out.images)),
    }


def watermark(setup: Setup) -> dict:
    """Return whether the surrogate carries the mark (DAWN: Szyller et al. 2021).

    Returns:
        ``marked``: number of wrongly answered queries; ``mark_agreement``: share of them to which the surrogate gives
        the wrong label that it was told; ``unmarked_agreement``: the same of a surrogate of the API without a mark;
        ``honest_accuracy``: share of the held-out images whose answer is right.
    """
    plain = setup.but(defense="none")
    transfer = collected(setup)[1]
    images = setup.queries().subset(transfer.indices).images
    told, truth = transfer.answers.labels, setup.victim.logits(images).argmax(1)
    marked = told != truth
    answers = api_of(setup).query(setup.held_out.images, client="honest")
    return {
        "marked": int(marked.sum()),
        "mark_agreement": agreement(surrogate_of(setup).predict(images[marked]), told[marked]),
        "unmarked_agreement": agreement(surrogate_of(plain).predict(images[marked]), told[marked]),
        "honest_accuracy": accuracy(answers.labels, setup.held_out.labels),
    }


def classes(setup: Setup) -> dict:
    """Return class by class what the attack recovers, on each half of the held-out images.

    Returns:
        ``victim_accuracy`` and ``surrogate_accuracy``: per half, per class; images of a class go to the halves in turn.
        ``queries``: how many of the attacker's queries the victim put into each class. ``victim_confusion`` and
        ``surrogate_confusion``: counts, a row a true class, a column a predicted one. ``recovery``: of all images.
    """
    surrogate, victim, held_out = surrogate_of(setup), setup.victim, setup.held_out
    labels, count = held_out.labels, len(victim.classes)
    predicted = {
        "victim": victim.logits(held_out.images).argmax(1),
        "surrogate": surrogate.predict(held_out.images),
    }
    half = _turn(labels) % 2
    result: dict = {"queries": collected(setup)[1].answers.labels.bincount(minlength=count).tolist()}
    for name, guess in predicted.items():
        result[f"{name}_accuracy"] = [
            [round(value, 4) for value in per_class_accuracy(guess[half == side], labels[half == side], count).tolist()]
            for side in (0, 1)
        ]
        result[f"{name}_confusion"] = (labels * count + guess).bincount(minlength=count**2).view(count, count).tolist()
    right = {name: accuracy(guess, labels) for name, guess in predicted.items()}
    return result | {"recovery": recovery(right["surrogate"], right["victim"])}


def _turn(labels: torch.Tensor) -> torch.Tensor:
    """Return how many earlier images have the same label, int64 of shape (n,)."""
    order = labels.argsort(stable=True)
    grouped = labels[order]
    starts = torch.searchsorted(grouped, grouped)
    return torch.empty_like(labels).scatter_(0, order, torch.arange(len(labels)) - starts)
