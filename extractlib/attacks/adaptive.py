"""Knockoff nets' adaptive strategy (Orekondy et al. 2019, section 4.1.2): a bandit learns which classes to ask about.

The pool's labels are the bandit's arms, without any hierarchy among them. Its policy is a softmax of one preference a
class; each answer earns a reward, and the preference of the class that was asked about rises if the reward was above
the mean, and falls if below.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from extractlib.attacks.knockoff import API, Knockoff
from extractlib.attacks.transfer import TransferFile, TransferSet
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, check_choice
from extractlib.models import devices
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit, predict

REWARDS = ("certainty", "diversity", "loss", "all")
LEARNING = ("loss", "all")
"""Rewards that compare an answer with a surrogate trained meanwhile."""


ONLINE = Recipe(epochs=1, learning_rate=0.05, batch_size=128, weight_decay=0.0, shift=0, schedule="cosine")
"""How an online surrogate is trained on a chunk of answers."""


class OnlineModel(Protocol):
    """A surrogate that is trained while queries are chosen."""

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities, float32 of shape (n, classes), of uint8 images."""

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Learn from images and the answers to them, float32 of shape (n, classes)."""


class OnlineSurrogate:
    """A network that sees each chunk of answers once.

    Args:
        trainer: What it is built like, and the recipe of each chunk.
        classes: Number of the victim's classes.
    """

    def __init__(self, trainer: Trainer, *, classes: int):
        # A copy: a module of one's own is trained afresh on the whole transfer set afterwards.
        self.model = deepcopy(trainer.build(classes)).to(devices.resolve(trainer.device)).eval()
        self._trainer = trainer

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities, float32 of shape (n, classes), of uint8 images (n, channels, height, width)."""
        return F.softmax(predict(self.model, images).to(torch.get_default_dtype()), 1)

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Train once on images and the answers to them, float32 of shape (n, classes)."""
        how = self._trainer
        fit(self.model, images, targets, how.recipe, seed=how.seed, device=how.device)


class Bandit:
    """A gradient bandit (Sutton and Barto, section 2.8) as Orekondy et al. use it.

    With preferences H, policy π = softmax(H), reward r of class z and mean r̄ of the rewards before it::

        H(z)  ← H(z)  + (r - r̄) (1 - π(z)) / N(z)
        H(z') ← H(z') - (r - r̄) π(z') / N(z)         for all other classes z'

    N(z) is how often z has been chosen, this time included; π is that of all classes at the time of the step. The first
    reward is its own mean. The original's code was never published; here r̄ is over all steps so far.

    Args:
        classes: Number of the pool's classes.

    Attributes:
        preferences: H, float64 of shape (classes,).
    """

    def __init__(self, classes: int):
        self.preferences = np.zeros(classes)
        self._chosen = np.zeros(classes)
        self._rewards, self._steps = 0.0, 0

    def policy(self, available: np.ndarray | None = None) -> np.ndarray:
        """Return the probability of each class, float64 of shape (classes,); 0 for those that are not available.

        The highest preference is subtracted first, so that no exponential overflows.
        """
        preferences = self.preferences if available is None else np.where(available, self.preferences, -np.inf)
        weights = np.exp(preferences - preferences.max())
        return weights / weights.sum()

    def update(self, chosen: int, reward: float) -> None:
        """Take one step for the reward of a class that was asked about."""
        mean = self._rewards / self._steps if self._steps else reward
        self._chosen[chosen] += 1
        step = (reward - mean) / self._chosen[chosen]
        self.preferences -= step * self.policy()
        self.preferences[chosen] += step
        self._rewards += reward
        self._steps += 1


class ClassSampler:
    """The images of a pool that have not been asked about, by class: one number an image.

    Args:
        labels: Class of each image, int64 of shape (n,).
        classes: Number of classes.
        generator: Draws classes and images.
    """

    def __init__(self, labels: torch.Tensor, classes: int, generator: np.random.Generator):
        labels = labels.numpy()
        mixed = generator.permutation(len(labels))
        self._order = mixed[np.argsort(labels[mixed], kind="stable")]
        self.left = np.bincount(labels, minlength=classes)
        self._next = np.cumsum(self.left) - self.left
        self._generator = generator

    def draw(self, count: int, bandit: Bandit) -> tuple[np.ndarray, np.ndarray]:
        """Take `count` images: their classes are drawn from the policy, and what a class lacks from the others.

        Returns:
            Classes and indices in the pool, each int64 of shape (count,).
        """
        classes, indices = np.empty(0, np.int64), np.empty(0, np.int64)
        while len(classes) < count:
            policy = bandit.policy(self.left > 0)
            wanted = self._generator.choice(len(policy), count - len(classes), p=policy)
            turn = _earlier_equals(wanted)
            there = turn < self.left[wanted]
            wanted, turn = wanted[there], turn[there]
            indices = np.append(indices, self._order[self._next[wanted] + turn])
            classes = np.append(classes, wanted)
            taken = np.bincount(wanted, minlength=len(policy))
            self.left -= taken
            self._next += taken
        return classes, indices


def _earlier_equals(values: np.ndarray) -> np.ndarray:
    """Return of each value how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    grouped = values[order]
    turn = np.empty_like(order)
    turn[order] = np.arange(len(values)) - np.searchsorted(grouped, grouped)
    return turn


class Reward:
    """Turns answers into rewards (Orekondy et al. 2019, section 4.1.2).

    Certainty is the highest probability less the second; diversity is Σ max(0, y - ȳ) over the classes, with ȳ the mean
    of all earlier answers (0 before the first); loss is the cross-entropy of the learner's probabilities against the
    answer. ``"all"`` is the mean of the three, each less its mean and divided by its standard deviation over all
    rewards so far, this chunk's included. The original's code was never published; all means here are over everything
    so far.

    Args:
        reward: One of `REWARDS`.
        learner: Needed for ``"loss"`` and ``"all"``.
    """

    def __init__(self, reward: str, learner: OnlineModel | None):
        self._reward, self._learner = reward, learner
        self._answers, self._asked = 0.0, 0
        self._count, self._sum, self._squares = 0, np.zeros(3), np.zeros(3)

    def of(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """Return the reward of each answer in order, float64 of shape (n,).

        Args:
            images: The images asked about, uint8 of shape (n, 3, height, width).
            targets: The answers, float32 of shape (n, classes).
        """
        kinds = REWARDS[:3] if self._reward == "all" else (self._reward,)
        found = np.stack([getattr(self, f"_{kind}")(images, targets.double()) for kind in kinds])
        if self._reward != "all":
            return found[0]
        self._count += found.shape[1]
        self._sum += found.sum(1)
        self._squares += (found**2).sum(1)
        mean = self._sum / self._count
        spread = np.sqrt(np.maximum(self._squares / self._count - mean**2, 1e-12))
        return ((found - mean[:, None]) / spread[:, None]).mean(0)

    def _certainty(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        first, second = targets.topk(2).values.T
        return (first - second).numpy()

    def _diversity(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        sums = self._answers + targets.cumsum(0)
        before = torch.arange(self._asked, self._asked + len(targets)).clamp(min=1)
        mean = (sums - targets) / before[:, None]
        self._answers, self._asked = sums[-1], self._asked + len(targets)
        return (targets - mean).clamp(min=0).sum(1).numpy()

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        logs = self._learner.probabilities(images).double().clamp(min=1e-12).log()
        return -(targets * logs).sum(1).numpy()


@dataclass(frozen=True, kw_only=True)
class AdaptiveKnockoff(Knockoff):
    """The adaptive strategy: classes are chosen by a bandit, images within a class at random, without replacement.

    The bandit's policy is fixed while a chunk is asked, and takes one step for each of its answers afterwards.

    Attributes:
        reward: ``"certainty"``, ``"diversity"``, ``"loss"`` or ``"all"`` (see `Reward`).

    Raises:
        InputError: A value does not fit.
    """

    reward: str = "all"

    def __post_init__(self):
        super().__post_init__()
        check_choice("reward", self.reward, REWARDS)

    def _collect(self, api: API, pool: ImageSet, path: Path | None, trainer: Trainer) -> TransferSet:
        learner = None
        if self.reward in LEARNING:
            learner = OnlineSurrogate(replace(trainer, recipe=ONLINE), classes=len(api.classes))
        return self.collect(api, pool, path, learner=learner, progress=trainer.progress)

    def collect(
        self,
        api: API,
        pool: ImageSet,
        path: Path | None = None,
        *,
        learner: OnlineModel | None = None,
        progress: bool = False,
    ) -> TransferSet:
        """Spend the budget and keep the answers; killed anywhere and called again, it goes on.

        What is held already is replayed, so that bandit and learner end as in an unbroken run. A denied answer earns 0
        and teaches nothing.

        Args:
            api: The victim's API.
            pool: The attacker's images, labeled.
            path: The transfer set's file, new or to be resumed; None keeps it in memory.
            learner: A fresh surrogate that is trained meanwhile; needed for the rewards ``"loss"`` and ``"all"``.
            progress: Whether to show a bar.

        Returns:
            The transfer set, as it was stored.

        Raises:
            InputError: The pool has no labels, the learner is missing, the budget is above the pool, or the file is of
                another collection or another learner.
            BudgetExceeded: The API allows fewer queries.
        """
        if pool.labels is None:
            raise InputError(f"{pool.name} has no labels: the adaptive strategy needs them")
        if self.reward in LEARNING and learner is None:
            raise InputError(f"reward {self.reward!r} compares with a surrogate: give a learner")
        header = self.header(api, pool, strategy=f"adaptive-{self.reward}")
        bandit, reward = Bandit(len(pool.classes)), Reward(self.reward, learner)
        generator = np.random.default_rng([self.seed, *b"adaptive"])
        sampler = ClassSampler(pool.labels, len(pool.classes), generator)
        with TransferFile(path, header) as file, tqdm(total=self.budget, unit="query", disable=not progress) as bar:
            held, chunks = file.transfer, file.chunks
            for chunk in range(-(-self.budget // self.chunk)):
                classes, chosen = sampler.draw(header.records_in(chunk), bandit)
                images = pool.images[torch.from_numpy(chosen)]
                if chunk < chunks:
                    rows = slice(chunk * self.chunk, chunk * self.chunk + len(chosen))
                    if held.indices[rows].tolist() != chosen.tolist():
                        raise InputError(f"{path} was collected with another learner: give that, or name another file")
                    answers = held.answers[rows]
                else:
                    asked = api.query(images, client=self.client, request=f"{header.digest}-{chunk}")
                    answers = file.append(torch.from_numpy(chosen), asked)
                answered = ~answers.denied
                rewards = np.zeros(len(chosen))
                if answered.any():
                    targets = answers[answered].targets(len(api.classes))
                    rewards[answered.numpy()] = reward.of(images[answered], targets)
                    if self.reward in LEARNING and learner is not None:
                        learner.update(images[answered], targets)
                for step in zip(classes.tolist(), rewards.tolist(), strict=True):
                    bandit.update(*step)
                bar.update(len(chosen))
            return file.transfer
