"""Dataset inference (Maini et al. 2021): a model that learned from the owner's training images has wider margins there.

The owner shows a suspect's model the owner's training images and others that no one trained on, walks away from each in
random directions, and records how far the label holds. A copy inherits the wider margins of the training images; a
model that learned the same task from other images does not.
"""

import math
from typing import Protocol

import numpy as np
import torch
from scipy import stats

from extractlib.data.images import ImageSet, Rows
from extractlib.data.images import images as as_images
from extractlib.errors import InputError, check_has, check_positive
from extractlib.evaluation import numbered_as

STEPS = np.geomspace(2, 128, 16)
"""Lengths of the walk, as root mean square of the change in gray levels."""

NOISES = ("uniform", "normal", "laplace")
"""Distributions that the directions of the walk are drawn from."""

EQUAL = 1e-9
"""Scores that differ by a smaller share of the largest one are equal."""

RIDGE = 1e-3
"""Keeps the regression on margins from growing without bound where two directions agree."""

BY_CHANCE = 1e-6
"""Images whose classes differ more than this share of random draws do were not drawn at random."""


class OtherClasses(InputError):
    """Images that are compared are of other classes, whose margins differ whether or not a model was copied."""


class Labeler(Protocol):
    """What can be accused: anything that gives a label for an image, local or remote."""

    def predict(self, images: torch.Tensor | Rows) -> torch.Tensor:
        """Return labels, int64 of shape (n,), of uint8 images of shape (n, channels, height, width)."""


def margins(
    model: Labeler, images: torch.Tensor, labels: torch.Tensor, *, directions: int = 3, seed: int = 0
) -> np.ndarray:
    """Return how far each image can be moved along random directions before its label is lost ("Blind Walk").

    Args:
        model: The model that is queried, with at most directions · 3 · 16 queries per image.
        images: uint8 of shape (n, channels, height, width).
        labels: Their true labels, int64 of shape (n,).
        directions: How many directions from each of `NOISES`.
        seed: Seed of the directions, which are the same for every image.

    Returns:
        float64 of shape (n, 3 · directions), in log gray levels: the first of `STEPS` at which the model no longer
        gives the true label, or twice the last if it still does at the end.
    """
    generator = np.random.default_rng([check_positive("directions", directions), seed])
    columns = []
    for noise in np.repeat(NOISES, directions):
        drawn = getattr(generator, noise)(*((-1, 1) if noise == "uniform" else (0, 1)), size=images.shape[1:])
        direction = torch.from_numpy(drawn / np.sqrt((drawn**2).mean())).float()
        columns.append(np.log(_walk(model, images, labels, direction)))
    return np.stack(columns, axis=1)


def _walk(model: Labeler, images: torch.Tensor, labels: torch.Tensor, direction: torch.Tensor) -> np.ndarray:
    reached = np.full(len(images), 2 * STEPS[-1])
    kept = torch.arange(len(images))
    for step in STEPS:
        moved = (images[kept].float() + step * direction).round().clamp(0, 255).to(torch.uint8)
        holds = model.predict(moved) == labels[kept]
        reached[kept[~holds].numpy()] = step
        kept = kept[holds]
        if not len(kept):
            break
    return reached


def dataset_inference(
    victim: Labeler, suspect: Labeler, *, private: ImageSet, public: ImageSet, directions: int = 3, seed: int = 0
) -> float:
    """Return the p value of the hypothesis that a suspect's model has learned nothing from the victim's images.

    A linear regression learns, from the victim's margins on the first half of each side, what distinguishes the private
    images from the public ones; the suspect's scores on the second halves are compared by a one-sided Welch's t test
    (Maini et al. 2021, section 5, their black-box variant). Where no side has any spread, the p value is that of the
    order alone: one of all ways to choose the private images is as extreme.

    Margins differ by class, so both sides, and both halves of each, must have about the same share of each class: a
    folder's images come class by class, and have to be drawn at random.

    Args:
        victim: The owner's model.
        suspect: The model that may have been stolen from it.
        private: Labeled images that the victim was trained on. Where the classes are some of a model's by name, labels
            are compared by name, otherwise by number.
        public: As many labeled images of the same kind that neither model was trained on.
        directions: See `margins`.
        seed: Seed of the directions.

    Returns:
        A p value in [0, 1]: below the owner's level, the suspect is accused.

    Raises:
        InputError: A side has no labels or fewer than four images, a model gives no labels, or its classes do not fit.
        OtherClasses: The shares of the classes differ more than they would in images that were drawn at random.
    """
    private, public = as_images(private, name="private images"), as_images(public, name="public images")
    for side in (private, public):
        if side.labels is None or len(side) < 4:
            raise InputError(f"{side.name} has {len(side)} images or no labels: give at least 4 labeled ones")
    _check_alike(private, public)

    for who, model in {"victim": victim, "suspect": suspect}.items():
        check_has(who, model, ("predict",), remedy="wrap a module in Victim(module, classes=…)")
    names = getattr(victim, "classes", ())

    def walked(model: Labeler, side: ImageSet, half: slice) -> np.ndarray:
        labels = numbered_as(tuple(getattr(model, "classes", names)), side)
        return margins(model, side.images[half], labels[half], directions=directions, seed=seed)

    known = [walked(victim, side, slice(None, len(side) // 2)) for side in (private, public)]
    weights = _regression(*known)
    scores = [walked(suspect, side, slice(len(side) // 2, None)) @ weights for side in (private, public)]
    both = np.concatenate(scores)
    slight = EQUAL * np.abs(both).max()  # rounding differs between processors
    if np.ptp(both) <= slight:
        return 1.0
    if all(np.ptp(side) <= slight for side in scores):  # no spread to test: how probable is such an order by chance?
        return 1 / math.comb(len(both), len(scores[0])) if scores[0].mean() > scores[1].mean() else 1.0
    return float(stats.ttest_ind(*scores, equal_var=False, alternative="greater").pvalue)


def _check_alike(private: ImageSet, public: ImageSet) -> None:
    """Refuse sides whose classes would decide the verdict.

    Raises:
        OtherClasses: The shares of the classes differ between the sides or between the halves of one.
    """
    named = [np.array(side.classes, dtype=object)[side.known_labels().numpy()] for side in (private, public)]
    remedy = "draw both at random from all their images, as in images.subset(torch.randperm(len(images))[:100])"
    for side, names in zip((private, public), named, strict=True):
        if _apart(*np.split(names, [len(names) // 2])):
            raise OtherClasses(f"{side.name} has other classes in its first half than in its second: {remedy}")
    if _apart(*named):
        raise OtherClasses(f"{private.name} and {public.name} have other shares of the classes: {remedy}")


def _apart(*sides: np.ndarray) -> bool:
    """Return whether a chi-squared test tells two sides apart by the names of their images' classes."""
    present = np.unique(np.concatenate(sides).astype(str))
    if len(present) == 1:
        return False
    counts = np.array([[(side == name).sum() for name in present] for side in sides])
    return bool(stats.chi2_contingency(counts, correction=False).pvalue < BY_CHANCE)


def _regression(private: np.ndarray, public: np.ndarray) -> np.ndarray:
    """Return the weights of a ridge regression whose value is higher for private margins than for public ones."""
    middle = (private.mean(0) + public.mean(0)) / 2
    rows = np.concatenate([private, public]) - middle
    targets = np.repeat([1.0, -1.0], [len(private), len(public)])
    return np.linalg.solve(rows.T @ rows + RIDGE * len(rows) * np.eye(rows.shape[1]), rows.T @ targets)
