"""Small prediction APIs that exercises of several chapters attack, and what such exercises share."""

import torch

from extractlib.api.meter import BudgetExceeded


class Service:
    """Answers no more queries than its budget."""

    def __init__(self, budget: int):
        self._left = budget

    def charge(self, queries: int) -> None:
        """Take queries off the budget.

        Raises:
            BudgetExceeded: These are more than are left.
        """
        if queries > self._left:
            raise BudgetExceeded(f"{queries} queries are asked for and {self._left} are left: ask fewer")
        self._left -= queries


class LinearService(Service):
    """A prediction API for vectors: softmax(weights x + bias)."""

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, budget: int):
        super().__init__(budget)
        self._weights, self._bias = weights, bias

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float64 of shape (n, classes), for vectors of shape (n, features).

        Raises:
            BudgetExceeded: These are more queries than are left.
        """
        self.charge(len(vectors))
        return probabilities(vectors.double(), self._weights, self._bias)


class LabelService(LinearService):
    """A linear service that shows labels alone, int64 of shape (n,)."""

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return super().__call__(vectors).argmax(1)


def probabilities(vectors: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return softmax(weights x + bias) for each of n vectors, float64 of shape (n, classes)."""
    return (vectors @ weights.T + bias).softmax(1)


def linear_victim(seed: int, features: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights (classes, features) and bias (classes,) of a linear victim, float64."""
    generator = torch.Generator().manual_seed(1_000 * seed + features)
    weights = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    return weights, torch.randn(classes, generator=generator, dtype=torch.float64)


def logits_and_targets(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return logits and answers of a few queries; the last logits are so large that a careless softmax overflows."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, classes, scale in ((4, 3, 1.0), (1, 5, 2.0), (6, 10, 1_500.0)):
        logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
        targets = torch.randn(count, classes, generator=generator, dtype=torch.float64).softmax(1)
        cases.append((logits, targets))
    return cases
