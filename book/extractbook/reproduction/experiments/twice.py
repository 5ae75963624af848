"""The attacker that queries each image twice to find out which answers were shuffled (beyond the paper)."""

from extractbook.reproduction.experiments.extraction import api_of, on_held_out, surrogate_of
from extractbook.reproduction.experiments.resampling import kept
from extractbook.reproduction.setups import Setup
from extractlib.attacks.twice import TwiceKnockoff
from extractlib.metrics import auroc, share
from extractlib.models.classifier import Surrogate


def asked_twice(setup: Setup) -> dict:
    """Return whether querying each image twice, shifted by a pixel, distinguishes shuffled answers from true ones.

    Returns:
        ``shuffled``: share of the queries that the cell's defense altered; ``auroc``: how well the disagreement of an
        image's two answers predicts whether either was altered, None if all or none were; ``consistent``: share of the
        images whose answers agree; ``recovery_consistent``: recovery of a surrogate that learns from those images
        alone; ``recovery_all``: recovery of a surrogate that sent as many queries, with twice as many images, and
        learned from every answer; ``images``; ``resampled``, for the recoveries.
    """
    cell, pool = setup.cell, setup.queries()
    attack = TwiceKnockoff(budget=cell.budget, seed=cell.seed)
    transfer = attack.collect(api_of(setup, budget=cell.budget), pool, progress=setup.progress)
    altered = setup.defense.detector.detect(attack.asked(pool).images)
    pairs, disagreement = altered.view(2, -1).any(0), attack.disagreement(transfer)
    model = attack.train(transfer, pool, setup.surrogate_trainer(keep=False))
    surrogates = {"consistent": Surrogate(model, classes=setup.victim.classes), "all": surrogate_of(setup)}
    compared = {f"recovery_{name}": on_held_out(setup, surrogate) for name, surrogate in surrogates.items()}
    return {
        "shuffled": share(altered),
        "auroc": auroc(disagreement[~pairs], disagreement[pairs]) if 0 < pairs.sum() < len(pairs) else None,
        "consistent": share(disagreement <= attack.tolerance),
        **{name: found["recovery"] for name, (found, _) in compared.items()},
        "images": len(setup.held_out),
        **kept(setup, {name: resampled["recovery"] for name, (_, resampled) in compared.items()}),
    }
