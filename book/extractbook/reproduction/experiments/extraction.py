"""Extraction: query the victim's API, train a surrogate on the answers, compare the two (the paper, sections 4 to 6).

Also what a defence in front of the API did, and what is recovered class by class.
"""

from dataclasses import asdict
from pathlib import Path

import torch

from extractbook.reproduction.cells import ADAPTIVE, OWN_LABELS, WATERMARK, Cell
from extractbook.reproduction.freshness import versions_of
from extractbook.reproduction.setting import Scene
from extractlib.api.service import PredictionAPI
from extractlib.attacks.adaptive import AdaptiveKnockoff
from extractlib.attacks.knockoff import Knockoff
from extractlib.attacks.own_images import train_alone
from extractlib.attacks.transfer import TransferSet, load
from extractlib.data.images import ImageSet
from extractlib.defenses.policies import policy
from extractlib.defenses.watermark import KeyedSample
from extractlib.evaluation import evaluate
from extractlib.metrics import accuracy, agreement, per_class_accuracy, recovery, share
from extractlib.models.classifier import Surrogate, Victim


def extraction(scene: Scene) -> dict:
    """Attack the cell's API and return how much of the victim the surrogate recovers.

    Returns:
        What `compare` returns, and where there is a defence what it did to the attacker and to an honest user.
    """
    result = compare(scene.victim, surrogate_of(scene), scene.held_out)
    if scene.cell.defence == WATERMARK:
        result |= watermark(scene)
    elif scene.cell.defence != "none":
        result |= defended(scene)
    return result


def surrogate_of(scene: Scene) -> Surrogate:
    """Return the surrogate that the cell's attack ends with, trained once and then read from the store."""
    cell = scene.cell
    trainer = scene.trainer(cell.surrogate, scene.settings.surrogate)
    if cell.attack == OWN_LABELS:
        model = train_alone(scene.queries(labelled=True), trainer, budget=cell.budget)
    else:
        attack, transfer = collected(scene)
        model = attack.train(transfer, scene.queries(labelled=_is_adaptive(cell)), trainer)
    return Surrogate(model, classes=scene.victim.classes)


def collected(scene: Scene) -> tuple[Knockoff, TransferSet]:
    """Return the cell's attack and its transfer set, collected once and then read from the store.

    One collection serves all smaller budgets: what an attack asks first does not depend on how much it may ask.
    """
    cell, settings = scene.cell, scene.settings
    adaptive = _is_adaptive(cell)
    pool = scene.queries(labelled=adaptive)
    whole = settings.adaptive_budgets[-1] if adaptive else min(settings.budget, len(pool))
    budget = max(cell.budget, whole)
    if adaptive:
        attack = AdaptiveKnockoff(budget=budget, seed=cell.seed, reward=cell.attack.removeprefix(ADAPTIVE))
    else:
        attack = Knockoff(budget=budget, seed=cell.seed)
    api = api_of(scene, budget=budget)
    key = {
        "api": api.fingerprint,
        "pool": pool.fingerprint,
        "attack": asdict(attack) | {"name": cell.attack},
        "versions": versions_of(cell),
    }

    def make(folder: Path) -> None:
        # The adaptive strategy trains a surrogate while it collects.
        trainer = scene.trainer(cell.surrogate, settings.surrogate, keep=False) if adaptive else None
        attack.collect(api, pool, folder / "transfer.db", trainer=trainer, progress=scene.progress)

    transfer = load(scene.store.get("transfer", key, make) / "transfer.db")
    return attack, transfer.first(cell.budget)


def _is_adaptive(cell: Cell) -> bool:
    return cell.attack.startswith(ADAPTIVE)


def api_of(scene: Scene, *, budget: int | None = None) -> PredictionAPI:
    """Return the API that the cell describes, its defence included."""
    cell = scene.cell
    secret = f"the server's secret {cell.seed}".encode()
    defence = {}
    if cell.defence == WATERMARK:
        sample = KeyedSample(rate=scene.settings.watermark_rate, secret=secret)
        defence = {"detector": sample, "policy": policy("mislabel", secret=secret)}
    elif cell.defence != "none":
        defence = {"detector": scene.detector, "policy": policy(cell.defence, secret=secret)}
    return PredictionAPI(scene.victim, answers=cell.granularity, budget=budget, **defence)


def compare(victim: Victim, surrogate: Surrogate, held_out: ImageSet) -> dict:
    """Return how well the surrogate does on labeled images beside the victim (see `evaluation.Evaluation`)."""
    found = evaluate(victim, surrogate, held_out).to_json()
    del found["n"]  # the data's digest stands in the row
    return found


def defended(scene: Scene) -> dict:
    """Return what a defence did (the paper, section 5).

    Returns:
        ``caught``: share of the attacker's queries that were detected; ``answered``: share that was not denied;
        ``honest_accuracy``: share of an honest user's images, the held-out ones, whose answer is right;
        ``honest_caught``: share of those images that were detected.
    """
    api, held_out = api_of(scene), scene.held_out
    transfer = collected(scene)[1]
    answers = api.query(held_out.images, client="honest")
    return {
        "caught": share(scene.detector.detect(scene.queries().subset(transfer.indices).images)),
        "answered": 1 - share(transfer.answers.denied),
        "honest_accuracy": accuracy(answers.labels, held_out.labels),
        "honest_caught": share(scene.detector.detect(held_out.images)),
    }


def watermark(scene: Scene) -> dict:
    """Return whether the surrogate carries the mark (DAWN: Szyller et al. 2021).

    Returns:
        ``marked``: number of wrongly answered queries; ``mark_agreement``: share of them to which the surrogate gives
        the wrong label that it was told; ``unmarked_agreement``: the same of a surrogate of the API without a mark;
        ``honest_accuracy``: share of the held-out images whose answer is right.
    """
    plain = scene.but(defence="none")
    transfer = collected(scene)[1]
    images = scene.queries().subset(transfer.indices).images
    told, truth = transfer.answers.labels, scene.victim.logits(images).argmax(1)
    marked = told != truth
    answers = api_of(scene).query(scene.held_out.images, client="honest")
    return {
        "marked": int(marked.sum()),
        "mark_agreement": agreement(surrogate_of(scene).predict(images[marked]), told[marked]),
        "unmarked_agreement": agreement(surrogate_of(plain).predict(images[marked]), told[marked]),
        "honest_accuracy": accuracy(answers.labels, scene.held_out.labels),
    }


def classes(scene: Scene) -> dict:
    """Return class by class what the attack recovers, on each half of the held-out images.

    Returns:
        ``victim_accuracy`` and ``surrogate_accuracy``: per half, per class; images of a class go to the halves in turn.
        ``queries``: how many of the attacker's queries the victim put into each class. ``victim_confusion`` and
        ``surrogate_confusion``: counts, a row a true class, a column a predicted one. ``recovery``: of all images.
    """
    held_out, count = scene.held_out, len(scene.victim.classes)
    labels = held_out.labels
    predicted = {
        "victim": scene.victim.logits(held_out.images).argmax(1),
        "surrogate": surrogate_of(scene).predict(held_out.images),
    }
    half = _turn(labels) % 2
    result: dict = {"queries": collected(scene)[1].answers.labels.bincount(minlength=count).tolist()}
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
