"""Exercises of chapter 6, Granularity."""

import math
from functools import cache

import numpy as np
import torch

from extractbook.exercises import held_out
from extractbook.exercises.exercise import SEEDS, Exercise
from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.metrics import share
from extractlib.models import Recipe, fit, networks, predict
from extractlib.models.classifier import load_victim

HELD_OUT, POOL, LIMIT = "birds", "atlas", 0.6
"""A victim that the chapter does not attack, the attacker's pool, and how much customers may lose (see `prevented`)."""

SENT = 1_000
"""Number of images that each side sends in exercise 6.4."""

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def bits(classes: int, share: float) -> float:
    """Return the entropy of a label in bits, if one class has `share` and the others divide the rest equally."""
    return -share * math.log2(share) - (1 - share) * math.log2((1 - share) / (classes - 1))


def rounded_answers(seed: int) -> list[tuple]:
    """Return answers, each class rounded separately, and their decimals; the sums are below 1, above 1, and 1."""
    generator, cases = np.random.default_rng(seed), []
    for units, decimals, zeros in ((-1, 1, 0), (1, 2, 3), (0, 1, 1)):
        shown = np.zeros(3)
        while round((shown.sum() - 1) * 10**decimals) != units:
            shown = generator.dirichlet(np.ones(3)).round(decimals)
        cases.append((np.append(shown, np.zeros(zeros)), decimals))
    return cases


def alone(shown: np.ndarray, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest probability of each class given its own number alone."""
    return (shown - 0.5 / 10**decimals).clip(min=0), (shown + 0.5 / 10**decimals).clip(max=1)


def together(shown: np.ndarray, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest probability of each class, given that all sum to 1."""
    low, high = alone(shown, decimals)
    return np.maximum(low, 1 - (high.sum() - high)), np.minimum(high, 1 - (low.sum() - low))


def softened(seed: int) -> list[tuple]:
    """Return softened answers of a calibrated victim, the images' true labels, and the temperatures to choose from."""
    generator, cases = np.random.default_rng(seed), []
    for temperature in generator.choice(TEMPERATURES, 4, replace=False).tolist():
        logits = torch.from_numpy(2 * generator.standard_normal((500, 6)))
        # The argmax of logits plus Gumbel noise is a draw from their softmax.
        labels = (logits + torch.from_numpy(generator.gumbel(size=logits.shape))).argmax(1)
        cases.append(((logits / temperature).softmax(1), labels, TEMPERATURES))
    return cases


def likeliest(soft: torch.Tensor, labels: torch.Tensor, temperatures: tuple[float, ...]) -> float:
    """Return the temperature at which the restored answers make the labels most likely."""
    plain = [(soft.log() * temperature).log_softmax(1) for temperature in temperatures]
    return temperatures[int(np.argmax([logs[range(len(labels)), labels].mean() for logs in plain]))]


@cache
def _images(seed: int) -> dict[str, torch.Tensor]:
    """Return 1,000 images each from an attacker, from customers and from other customers, and 1,000 test images."""
    parts = {"attacker": (POOL, "queries"), "customers": (HELD_OUT, "validation"), "test": (HELD_OUT, "test")}
    parts |= {"others": (HELD_OUT, "detector")}
    return {name: drawn.draw(of, part=part, size=SENT, seed=seed).images[:] for name, (of, part) in parts.items()}


def full_answers(seed: int) -> list[tuple]:
    """Return full answers and images, an attacker's mixed with other customers', and the customers' answers."""
    victim, images, order = load_victim(HELD_OUT), _images(seed), mixed(seed)
    asked = torch.cat([images["attacker"], images["others"]])[order]
    return [(victim.logits(asked).softmax(1), asked, victim.logits(images["customers"]).softmax(1))]


def mixed(seed: int) -> np.ndarray:
    """Return the order that mixes the images of the attacker, which come first, with those of others."""
    return held_out.order_of(2 * SENT, seed)


def stolen(images: torch.Tensor, targets: torch.Tensor) -> float:
    """Return how often a copy trained on these answers to images agrees with the victim on test images."""
    victim, test = load_victim(HELD_OUT), _images(0)["test"]
    recipe = Recipe(steps=300, learning_rate=0.1, batch_size=64, weight_decay=0.0, shift=0)
    model = networks.build("resnet", classes=len(victim.classes), seed=0, backbone=networks.shipped_backbone())
    fit(model, images, targets.float(), recipe, seed=0)
    return share(predict(model, test).argmax(1) == victim.predict(test))


@cache
def stolen_in_full(seed: int) -> np.ndarray:
    """Return the same for full answers, followed by the order of the images, of shape (1 + images,)."""
    images = _images(seed)["attacker"]
    return np.append(stolen(images, load_victim(HELD_OUT).logits(images).softmax(1)), mixed(seed))


def prevented(found: list, wanted: list, cases: list[tuple]) -> tuple[float, str]:
    """Return the share of the copy's agreement that altered answers prevent.

    Raises:
        InputError: They are not probabilities, a label changes, or the customers' answers change too much.
    """
    [given], [(answers, images, _)], (full, *order) = found, cases, wanted[0]
    if given.shape != tuple(answers.shape) or given.min() < 0 or np.abs(given.sum(1) - 1).max() > 1e-4:
        raise InputError(f"expected {answers.shape[1]} probabilities that sum to 1 for each of {len(answers)} images")
    if changed := held_out.changed_labels(given, answers.numpy()):
        raise InputError(f"{changed} of {len(answers)} answers have another most probable class than before, or two")
    before = np.argsort(order)
    shown, true, sent = (one[before] for one in (given, answers.numpy(), images.numpy()))
    labels = np.eye(true.shape[1])[true.argmax(1)]
    cost = np.abs(shown - true)[SENT:].sum() / np.abs(labels - true)[SENT:].sum()
    if cost > LIMIT:
        raise InputError(
            f"customers' answers change {cost:.2f} times as much as labels alone change them: "
            f"at most {LIMIT} is allowed"
        )
    left = stolen(torch.from_numpy(sent[:SENT]), torch.from_numpy(shown[:SENT])) / full
    return 1 - left, "the prevented share of the copy's agreement"


EXERCISES = (
    Exercise(
        id="6.1",
        title="What a label carries",
        kind="understand",
        minutes=6,
        variants={"classes": (43, *range(6, 200)), "share": (0.75, *(part / 100 for part in range(30, 95)))},
        right=bits,
        slips={
            "predictable labels carry less information": lambda classes, share: math.log2(classes),
            "bits need logarithms to base 2": lambda classes, share: bits(classes, share) * math.log(2),
            "the frequent class counts too": lambda classes, share: (
                (1 - share) * math.log2((classes - 1) / (1 - share))
            ),
        },
    ),
    Exercise(
        id="6.2",
        title="An unknown temperature",
        kind="modify",
        minutes=12,
        variants={"seed": SEEDS},
        cases=softened,
        right=likeliest,
        slips={
            "that is always the lowest temperature: to undo one, multiply the logarithms and scale the powers to sum"
            " to 1, and judge by the likelihood, since accuracy cannot decide": lambda soft, labels, known: known[0],
        },
    ),
    Exercise(
        id="6.3",
        title="What rounding leaves open",
        kind="implement",
        minutes=12,
        variants={"seed": SEEDS},
        cases=rounded_answers,
        right=together,
        slips={"the other classes' numbers say something too, since all sum to 1": alone},
    ),
    Exercise(
        id="6.4",
        title="Harden without losing customers",
        kind="attack or defend",
        minutes=20,
        variants={"seed": SEEDS},
        cases=full_answers,
        key=lambda seed: [stolen_in_full(seed)],
        score=prevented,
        marks=(0.10, 0.45),
    ),
    Exercise(
        id="6.5",
        title="Hidden or only disguised",
        kind="discuss",
        minutes=9,
    ),
)
