"""Exercises of chapter 5, Knockoff nets."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from extractbook.exercises.exercise import SEEDS, Exercise
from extractbook.exercises.services import LinearService, linear_victim, logits_and_targets, probabilities


def draws(seed: int) -> list[tuple]:
    """Return sizes of pool, budgets and seeds; the first twice, and once with another seed."""
    generator = np.random.default_rng(seed)
    pool, budget, first = (int(generator.integers(*bounds)) for bounds in ((900, 1_100), (580, 620), (0, 1_000)))
    return [(pool, budget, first), (pool, budget, first), (pool, budget, first + 1), (5, 400, first)]


def judge_draws(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Any fair draw with replacement that its seed alone decides is right."""
    for drawn, like, (pool, budget, _) in zip(found, wanted, cases, strict=True):
        if drawn.shape != like.shape:
            return f"shape {drawn.shape} where {like.shape} is wanted"
        if drawn.min() < 0 or drawn.max() >= pool:
            return "an index lies outside the pool"
        expected = pool * (1 - (1 - 1 / pool) ** budget)
        # The variance of the number of different images is below the expected number of those drawn twice or more.
        if abs(len(np.unique(drawn)) - expected) > 6 * math.sqrt(max(budget - expected, 1) + 1) and budget < pool:
            return "repeats are not as frequent as chance makes them"
        if abs(drawn.mean() - (pool - 1) / 2) > 6 * pool / math.sqrt(12 * budget):
            return "some images are more likely than others"
        if budget > pool and len(np.unique(drawn)) < pool:
            return "some images are never drawn"
    if not np.array_equal(found[0], found[1]):
        return "the same seed gives another draw when asked again"
    if np.array_equal(found[0], found[2]):
        return "another seed gives the same draw"
    return None


def gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean soft cross-entropy, by automatic differentiation."""
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(logits, targets), logits)[0]


def accuracies(seed: int) -> list[tuple]:
    """Return accuracies of surrogate, victim and constant predictor, the surrogate's once below the constant's."""
    generator = np.random.default_rng(seed)
    cases = []
    for low, high in ((0.5, 1.0), (0.8, 1.1), (-0.4, -0.1)):
        constant, gain = generator.uniform(0.05, 0.4), generator.uniform(0.2, 0.5)
        cases.append((constant + gain * generator.uniform(low, high), constant + gain, constant))
    return [tuple(map(float, case)) for case in cases]


def linear_services(seed: int) -> list[tuple]:
    """Return linear services with one query more than they have features, and the numbers of features."""
    cases = []
    for features, classes in ((4, 3), (12, 5)):
        weights, bias = linear_victim(seed, features, classes)
        cases.append((LinearService(weights, bias, features + 1), features))
    return cases


def answers_as(weights: np.ndarray, bias: np.ndarray, victim: torch.Tensor, vectors: torch.Tensor) -> tuple[bool, bool]:
    """Say whether a copy gives the victim's classes on all but one vector in a hundred, and its probabilities."""
    copy = probabilities(vectors, torch.from_numpy(weights).double(), torch.from_numpy(bias).double())
    same = (copy.argmax(1) != victim.argmax(1)).double().mean() <= 0.01
    return bool(same), bool((copy - victim).abs().max() <= 1e-3)


def judge_copies(found: list, wanted: list, cases: list[tuple]) -> str | None:
    """Right is whatever answers as the victim does: weights are known only up to a constant."""
    for (weights, bias), (true_weights, true_bias) in zip(found, wanted, strict=True):
        for part, true_part in ((weights, true_weights), (bias, true_bias)):
            if part.shape != true_part.shape:
                return f"shape {part.shape} where {true_part.shape} is wanted"
        vectors = torch.randn(200, weights.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        victim = probabilities(vectors, torch.from_numpy(true_weights), torch.from_numpy(true_bias))
        same, equal = answers_as(weights, bias, victim, vectors)
        if not equal and all(answers_as(weights - bias[:, None], bias, victim, vectors)):
            return "the answer to a vector with one feature still has the bias in it: take off the answer to zeros"
        if not equal and all(answers_as(weights, true_bias, victim, vectors)):
            return "the weights are the victim's, and the bias is not: the vector of zeros tells it"
        if not same:
            return "the copy names another class on some new vectors"
        if not equal:
            return "the copy names the same classes with other probabilities"
    return None


EXERCISES = (
    Exercise(
        id="5.1",
        title="The price of a broken line",
        kind="understand",
        minutes=5,
        variants={
            "requests": (40, *range(20, 100)),
            "chunk": (250, *range(50, 500, 10)),
            "breaks": (3, *range(2, 15)),
        },
        right=lambda requests, chunk, breaks: (requests - breaks) * chunk,
        slips={
            "that is what an attacker holds who asks again under the same id": lambda requests, chunk, breaks: (
                requests * chunk
            ),
            "a lost answer was charged before it was lost, and the limit is on what is charged": (
                lambda requests, chunk, breaks: (requests + breaks) * chunk
            ),
            "count images, not requests": lambda requests, chunk, breaks: requests - breaks,
        },
    ),
    Exercise(
        id="5.2",
        title="A careless draw",
        kind="modify",
        minutes=8,
        variants={"seed": SEEDS},
        cases=draws,
        right=lambda pool_size, budget, seed: np.random.default_rng(seed).integers(pool_size, size=budget),
        judge=judge_draws,
    ),
    Exercise(
        id="5.3",
        title="The gradient that steals",
        kind="implement",
        minutes=15,
        variants={"seed": SEEDS},
        cases=logits_and_targets,
        right=gradient,
    ),
    Exercise(
        id="5.4",
        title="Recovery from nothing",
        kind="modify",
        minutes=10,
        variants={"seed": SEEDS},
        cases=accuracies,
        right=lambda surrogate, victim, constant: (surrogate - constant) / (victim - constant),
        slips={
            "a constant predictor does not get 0": lambda surrogate, victim, constant: surrogate / victim,
            "the victim itself does not get 1": lambda surrogate, victim, constant: (surrogate - constant) / victim,
        },
    ),
    Exercise(
        id="5.5",
        title="A victim stolen to the last digit",
        kind="attack or defend",
        minutes=25,
        variants={"seed": SEEDS},
        cases=linear_services,
        right=lambda service, features: (service._weights, service._bias),
        judge=judge_copies,
    ),
    Exercise(
        id="5.6",
        title="What the attack stands on",
        kind="discuss",
        minutes=12,
    ),
)
