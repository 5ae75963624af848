"""Jacobian-based augmentation (Papernot et al. 2017): a few images, moved step by step toward the decision boundaries.

PRADA was designed to detect this attack; here it is the positive control for detectors of accounts.
"""

import torch

from extractlib.attacks.knockoff import API, check_budget
from extractlib.data.images import ImageSet
from extractlib.data.images import images as as_images
from extractlib.errors import InputError, check_positive
from extractlib.models.devices import device_of
from extractlib.models.fitted import Trainer
from extractlib.models.networks import Network

TOGETHER = 256
"""Queries per request, and images whose gradients are computed at a time."""


def jacobian_augmentation(
    api: API, seeds: ImageSet, trainer: Trainer, *, budget: int, step: float = 0.1, client: str = "attacker"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Query seed images, train a surrogate on the answers, move all images by its gradient, query those, and so on.

    Each round doubles the set: x' = x + step · sign(∂ logit of the answered label / ∂ x), pixels in [0, 1], clipped to
    the range of pixels.

    Args:
        api: The victim's API.
        seeds: Natural images of the victim's kind, or anything that `images` accepts.
        trainer: How the surrogate of each round is made.
        budget: Queries to send, at least as many as there are seeds.
        step: Size of a move, in pixels of range 1, above 0.
        client: The name the attacker goes by.

    Returns:
        The queries in the order sent, uint8 of shape (budget, channels, height, width), and the label that each was
        answered with, int64 of shape (budget,).

    Raises:
        InputError: The budget is below the number of seeds, there is one seed image and more to query, the step is not
            above 0, or the API denies an answer, which is known only once it is paid for.
        BudgetExceeded: The API allows fewer queries; a client that has sent no queries yet is charged nothing.
    """
    seeds = as_images(seeds, name="seeds")
    budget = check_positive("budget", budget)
    if budget < len(seeds) or not len(seeds):
        raise InputError(f"budget is {budget}, but there are {len(seeds)} seed images: query each at least once")
    if len(seeds) == 1 < budget:
        raise InputError("there is 1 seed image, but a surrogate needs two to learn from: give at least two")
    if not step > 0:
        raise InputError(f"step is {step}: expected a number above 0")
    check_budget(api, client, budget)
    classes = len(api.classes)
    sent, new = torch.empty(0, *seeds.image_shape, dtype=torch.uint8), seeds.images[:]
    targets, labels = torch.empty(0, classes), torch.empty(0, dtype=torch.int64)
    while True:
        answers = [api.query(some, client=client) for some in new.split(TOGETHER)]
        sent, targets = torch.cat([sent, new]), torch.cat([targets, *(one.targets(classes) for one in answers)])
        # Not the targets' highest: rounded ones may be equal where the probabilities were not.
        labels = torch.cat([labels, *(one.labels for one in answers)])
        if len(sent) == budget:
            return sent, labels
        model = trainer.fit(sent, targets, classes=classes)
        new = _moved(model, sent, labels, step)[: budget - len(sent)]


def _moved(model: Network, images: torch.Tensor, labels: torch.Tensor, step: float) -> torch.Tensor:
    device, parts = device_of(model), []
    for chunk, label in zip(images.split(TOGETHER), labels.split(TOGETHER), strict=True):
        x = model.normalize(chunk.to(device)).requires_grad_()
        logits = model.classify(x).gather(1, label.to(device)[:, None])
        (gradient,) = torch.autograd.grad(logits.sum(), x)
        parts.append((chunk + 255 * step * gradient.sign().cpu()).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)
