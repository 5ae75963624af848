"""Small prediction APIs that are attacked in the exercises of several chapters, and other code that these share."""

from itertools import pairwise

import numpy as np
import torch

from extractlib.api.granularity import Answers
from extractlib.api.meter import BudgetExceeded, Usage
from extractlib.api.service import PredictionAPI
from extractlib.errors import InputError
from extractlib.tensors import is_plain, kind_of


class Service:
    """A service that answers no more queries than its budget allows."""

    def __init__(self, budget: int):
        self._left = budget

    def charge(self, queries: int) -> None:
        """Subtract queries from the budget.

        Raises:
            BudgetExceeded: There are more of them than are left.
        """
        if queries > self._left:
            raise BudgetExceeded(f"{queries} queries are sent and {self._left} are left: send fewer")
        self._left -= queries


def check_vectors(vectors: torch.Tensor, features: int) -> torch.Tensor:
    """Return vectors if their shape is (n, features), so that each of them counts as one query.

    Raises:
        InputError: They are no tensor, or of another shape.
    """
    if not is_plain(vectors):
        raise InputError(f"the queries are {kind_of(vectors)}: expected a tensor of shape (n, {features})")
    if vectors.ndim != 2 or vectors.shape[1] != features:
        raise InputError(f"the queries are of shape {tuple(np.shape(vectors))}: expected (n, {features})")
    return vectors


class OneAccount(PredictionAPI):
    """A prediction API with a single budget, whatever names its clients use."""

    def query(self, images: torch.Tensor, *, client: str = "anonymous", request: str | None = None) -> Answers:
        """Answer like `PredictionAPI.query`, with every query charged to one account."""
        return super().query(images, request=request)

    def usage(self, client: str | None = None) -> Usage:
        """Return the queries sent under all names, and how many are left."""
        return super().usage("anonymous")


class LinearService(Service):
    """A prediction API for vectors: softmax(weights x + bias)."""

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, budget: int):
        super().__init__(budget)
        self._weights, self._bias = weights, bias

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float64 of shape (n, classes), for vectors of shape (n, features).

        Raises:
            BudgetExceeded: There are more queries than are left.
        """
        self.charge(len(check_vectors(vectors, self._weights.shape[1])))
        return probabilities(vectors.double(), self._weights, self._bias)


class NetworkService(Service):
    """A prediction API with full answers: a random network of one hidden layer on vectors of 8 features, 5 classes."""

    FEATURES, HIDDEN, CLASSES = 8, 12, 5

    def __init__(self, generator: torch.Generator, budget: int):
        super().__init__(budget)
        sizes = (self.FEATURES, self.HIDDEN, self.CLASSES)
        self._layers = [
            torch.randn(rows, columns, generator=generator, dtype=torch.float64) for rows, columns in pairwise(sizes)
        ]

    def vectors(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return vectors as a customer of the service would send them, float64 of shape (count, features)."""
        return torch.randn(count, self.FEATURES, generator=generator, dtype=torch.float64)

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the victim's softmax, float64 of shape (n, classes)."""
        first, second = self._layers
        return (vectors.double() @ first).tanh() @ second

    def labels(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the victim's labels, int64 of shape (n,), without charging a budget."""
        return self.logits(vectors).argmax(1)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the probabilities, float64 of shape (n, classes), for vectors of shape (n, features).

        Raises:
            BudgetExceeded: There are more queries than are left.
        """
        self.charge(len(check_vectors(vectors, self.FEATURES)))
        return self.logits(vectors).softmax(1)


def agreement(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of labels that are the victim's, over all cases, and the name of this number.

    Raises:
        InputError: The number of labels is not the number of vectors.
    """
    if any(labels.shape != true.shape for labels, true in zip(found, wanted, strict=True)):
        raise InputError(f"the shape is {found[0].shape}: expected {wanted[0].shape}")
    return float(np.mean([(labels == true).mean() for labels, true in zip(found, wanted, strict=True)])), "agreement"


def probabilities(vectors: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return softmax(weights x + bias) for n vectors, float64 of shape (n, classes)."""
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
