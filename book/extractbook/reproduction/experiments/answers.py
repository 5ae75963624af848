"""What answers give away, without training anything: what a granularity hides, and how varied a pool's answers are."""

import torch

from extractbook.reproduction.setups import Setup
from extractlib.api.granularity import FILLS, Granularity, TopK
from extractlib.attacks.knockoff import Knockoff
from extractlib.metrics import hidden_and_divergence, mutual_information


def answers(setup: Setup) -> dict:
    """Return what the scale's granularities cost on the images that an attack sends and on held-out ones.

    Returns:
        For ``"on_pool"`` and ``"on_test"``: in nats, ``mutual_information``, the variety of the full answers, which is
        ``entropy_of_mean`` minus ``mean_entropy``; and for each granularity, by name, what `cost_of` returns.
        ``images``: the number of images in the smaller part.
    """
    pool = setup.queries()
    asked = pool.subset(Knockoff(budget=min(setup.settings.budget, len(pool)), seed=setup.cell.seed).indices(len(pool)))
    result: dict = {"images": min(len(asked), len(setup.held_out))}
    for part, images in (("on_pool", asked), ("on_test", setup.held_out)):
        logits = setup.victim.logits(images.images)
        full = logits.double().softmax(1)
        variety, mean = mutual_information(full), torch.special.entr(full).sum(1).mean().item()
        result[part] = {"entropy_of_mean": variety + mean, "mean_entropy": mean, "mutual_information": variety}
        kinds = map(Granularity.parse, setup.settings.granularities)
        shown = [kind for kind in kinds if not isinstance(kind, TopK) or kind.k < full.shape[1]]
        result[part] |= {str(kind): cost_of(kind, logits) for kind in shown}
    return result


def cost_of(granularity: Granularity, logits: torch.Tensor) -> dict[str, float]:
    """Return how much of the answers a granularity hides; each number is a mean over the images.

    Args:
        granularity: What is shown.
        logits: The victim's logits, float of shape (n, classes).

    Returns:
        ``hidden_mass`` and ``divergence_shown`` (see `metrics.hidden_and_divergence`); ``l1``, the total variation
        distance, in [0, 1], between the full answer and the surrogate's target for it, or for a truncated answer, one
        for each way to fill it in, ``l1_even`` and ``l1_renormalized``.
    """
    full, shown = logits.double().softmax(1), granularity.apply(logits)
    told = {fill: shown.targets(full.shape[1], fill=fill).double() for fill in FILLS}
    mass, divergence = hidden_and_divergence(full, told["renormalized"])
    distances = {fill: ((told[fill] - full).abs().sum(1) / 2).mean().item() for fill in FILLS}
    truncated = isinstance(granularity, TopK)
    lengths = {f"l1_{fill}": found for fill, found in distances.items()} if truncated else {"l1": distances["even"]}
    return {"hidden_mass": mass.mean().item(), "divergence_shown": divergence.mean().item(), **lengths}
