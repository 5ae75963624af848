"""Knockoff nets' adaptive strategy (Orekondy et al. 2019, section 4.1.2): a bandit learns which classes to query.

The pool's labels are the actions, in a hierarchy: first a coarse cluster of classes, then a class within it. Each step
queries a small batch of one class's images; its reward raises the preference for what was chosen if it is above the
mean of the last rewards, and lowers it if below. The original code was never published.
"""

import warnings
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import nn

from extractlib.api.granularity import Label
from extractlib.attacks.knockoff import API, Choices, Knockoff, recipe_for
from extractlib.attacks.transfer import Header
from extractlib.data.images import ImageSet
from extractlib.errors import InputError, ResultWarning, check_choice, check_positive, keep
from extractlib.models import devices
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit, predict

REWARDS = ("certainty", "diversity", "loss", "all")
LEARNING = ("loss", "all")
"""Rewards that compare an answer with a surrogate trained along the way."""

ONLINE = Recipe(epochs=1, learning_rate=0.05, batch_size=128, weight_decay=0.0, shift=0, schedule="cosine")
"""How an online surrogate is trained on a batch of answers; your own module at a tenth of the learning rate."""

LABELED = "the adaptive strategy needs them, so load the pool with labeled=True"
"""What is said of a pool without labels."""

OF_A_CLASS = 20
"""Number of images whose mean represents a class when classes are clustered."""


class OnlineSurrogate:
    """A network that sees each batch of answers once, while queries are chosen.

    Args:
        trainer: How it is built.
        classes: Number of the victim's classes.
    """

    def __init__(self, trainer: Trainer, *, classes: int):
        # A copy: afterward, your own module is trained on the whole transfer set, from its initial state.
        self.model = deepcopy(trainer.build(classes)).to(devices.resolve(trainer.device)).eval()
        self._trainer = replace(trainer, recipe=recipe_for(trainer.network, ONLINE))

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities, float32 of shape (n, classes), of uint8 images (n, channels, height, width)."""
        return F.softmax(predict(self.model, images).to(torch.get_default_dtype()), 1)

    def update(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Train once on images and the answers to them, float32 of shape (n, classes); skip a single image."""
        how = self._trainer
        if len(images) > 1:  # batch-norm has no statistics of one
            fit(self.model, images, targets, how.recipe, seed=how.seed, device=how.device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the last linear layer, float32 of shape (n, width), for uint8 images.

        Raises:
            InputError: There is no such layer, or it does not see one vector of each image.
        """
        layers = [part for part in self.model.modules() if isinstance(part, nn.Linear)]
        if not layers:
            raise InputError("the surrogate has no linear layer whose input could serve as features: give clusters=1")
        seen: list[torch.Tensor] = []

        def start(*_: object) -> None:
            seen.append(torch.empty(0, 0))

        def catch(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if given:  # of a layer that is used twice, the second time counts
                seen[-1] = given[0].flatten(1).float().cpu()

        with self.model.register_forward_pre_hook(start), layers[-1].register_forward_pre_hook(catch):
            predict(self.model, images)
        found = torch.cat(seen) if len({batch.shape[1] for batch in seen}) == 1 else torch.empty(0)
        if found.ndim != 2 or len(found) != len(images) or not found.numel():
            raise InputError(
                "the surrogate's last linear layer does not see one vector of each image, as features must be: give"
                " clusters=1"
            )
        return found


def coarse_clusters(features: torch.Tensor, labels: torch.Tensor, *, clusters: int, seed: int) -> np.ndarray:
    """Return the cluster of each class, from k-means on the classes' mean features.

    Args:
        features: float of shape (n, width).
        labels: Class of each, int64 of shape (n,).
        clusters: How many, at least 1; fewer result if there are fewer classes.
        seed: Seed of the first centers (k-means++).

    Returns:
        int64 of shape (highest label + 1,); 0 for a class without features.
    """
    present, found = labels.unique(), np.zeros(int(labels.max()) + 1, np.int64)
    means = torch.stack([features[labels == label].mean(0) for label in present]).double().numpy()
    count = min(clusters, len(present))
    generator = np.random.default_rng([seed, *b"clusters"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about clusters that stay empty: there are fewer then
        found[present.numpy()] = kmeans2(means, count, minit="++", seed=generator)[1]
    return found


class Bandit:
    """A gradient bandit (Sutton and Barto, section 2.8) as Orekondy et al. use it.

    With preferences H, policy π = softmax(H), reward r of action z and mean r̄ of the last rewards before it::

        H(z)  ← H(z)  + (r - r̄) (1 - π(z)) / N(z)
        H(z') ← H(z') - (r - r̄) π(z') / N(z)         for all other actions z'

    N(z) is how often z has been chosen, including this time; π is the policy over all actions at the time of the step.
    The first reward is its own mean.

    Args:
        actions: How many.
        window: How many of the last steps the mean is taken over.

    Attributes:
        preferences: H, float64 of shape (actions,).
    """

    def __init__(self, actions: int, *, window: int = 25):
        self.preferences, self._chosen = np.zeros(actions), np.zeros(actions)
        self._rewards: deque[float] = deque(maxlen=window)

    def policy(self, available: np.ndarray | None = None) -> np.ndarray:
        """Return the probability of each action, float64 of shape (actions,); 0 for those that are not available.

        The highest preference is subtracted first, so that no exponential overflows.
        """
        preferences = self.preferences if available is None else np.where(available, self.preferences, -np.inf)
        weights = np.exp(preferences - preferences.max())
        return np.asarray(weights / weights.sum())

    def update(self, chosen: int, reward: float) -> None:
        """Take one step for the reward of an action that was chosen."""
        mean = np.mean(self._rewards) if self._rewards else reward
        self._chosen[chosen] += 1
        step = (reward - mean) / self._chosen[chosen]
        self.preferences -= step * self.policy()
        self.preferences[chosen] += step
        self._rewards.append(reward)


class Hierarchy:
    """A policy in two levels: a bandit chooses a cluster, and the cluster's own bandit chooses a class in it.

    Both learn from the same reward, each relative to the mean of its own last rewards.

    Args:
        cluster_of: Cluster of each class, int64 of shape (classes,).
        window: See `Bandit`.
    """

    def __init__(self, cluster_of: np.ndarray, *, window: int):
        self.members = [np.flatnonzero(cluster_of == cluster) for cluster in np.unique(cluster_of)]
        self.coarse = Bandit(len(self.members), window=window)
        self.fine = [Bandit(len(members), window=window) for members in self.members]
        levels = enumerate(members.tolist() for members in self.members)
        self._path = {label: (cluster, place) for cluster, one in levels for place, label in enumerate(one)}

    def choose(self, available: np.ndarray, generator: np.random.Generator) -> int:
        """Return a class; `available`, bool of shape (classes,), says which have images left, at least one."""
        open_clusters = np.array([available[members].any() for members in self.members])
        cluster = generator.choice(len(self.members), p=self.coarse.policy(open_clusters))
        members = self.members[cluster]
        return int(generator.choice(members, p=self.fine[cluster].policy(available[members])))

    def update(self, chosen: int, reward: float) -> None:
        """Take one step on both levels for the reward of a class that was chosen."""
        cluster, place = self._path[chosen]
        self.coarse.update(cluster, reward)
        self.fine[cluster].update(place, reward)


class ClassSampler:
    """The images of a pool that have not been queried, by class, in random order: one number per image.

    Args:
        labels: Class of each image, int64 of shape (n,).
        classes: Number of classes.
        generator: Draws the order.

    Attributes:
        left: How many images of each class are left, int64 of shape (classes,).
    """

    def __init__(self, labels: torch.Tensor, classes: int, generator: np.random.Generator):
        mixed = generator.permutation(len(labels))
        self._order = mixed[np.argsort(labels.numpy()[mixed], kind="stable")]
        self.left = np.bincount(labels.numpy(), minlength=classes)
        self._ends = np.cumsum(self.left)

    def take(self, label: int, count: int) -> np.ndarray:
        """Return up to `count` images of a class that were not taken before, int64 of shape (n,)."""
        start = self._ends[label] - self.left[label]
        taken = self._order[start : start + min(count, self.left[label])]
        self.left[label] -= len(taken)
        return taken


class Reward:
    """Turns answers into rewards (Orekondy et al. 2019, section 4.1.2).

    Certainty is the highest probability minus the second; diversity is Σ max(0, y - ȳ) over the classes, with ȳ the
    mean of all earlier answers (0 before the first); loss is the cross-entropy of the learner's probabilities against
    the answer. ``"all"`` is the mean of the three, each scaled to [0, 1] by the lowest and the highest of its values so
    far, including this batch's (0 while they are equal).

    Orekondy et al. sum the three, each less its own mean over the last steps, over which they take ȳ too. A mean
    instead of a sum moves the preferences a third as far.

    Args:
        reward: One of `REWARDS`.
        learner: Needed for ``"loss"`` and ``"all"``.
    """

    def __init__(self, reward: str, learner: OnlineSurrogate | None):
        self._reward, self._learner = reward, learner
        self._answers, self._asked = torch.zeros(()), 0
        self._lowest, self._highest = np.full(3, np.inf), np.full(3, -np.inf)

    def of(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """Return the reward of each answer in order, float64 of shape (n,).

        Args:
            images: The images queried, uint8 of shape (n, 3, height, width).
            targets: The answers, float32 of shape (n, classes).
        """
        kinds = REWARDS[:3] if self._reward == "all" else (self._reward,)
        found = np.stack([getattr(self, f"_{kind}")(images, targets.double()) for kind in kinds])
        if self._reward == "all":
            self._lowest = np.minimum(self._lowest, found.min(1))
            self._highest = np.maximum(self._highest, found.max(1))
            spread = self._highest - self._lowest
            # Values that differ only by rounding are equal.
            found = (found - self._lowest[:, None]) / np.where(spread > 1e-6, spread, 1.0)[:, None]
        return np.asarray(found.mean(0))

    def _certainty(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        highest = targets.topk(2).values
        return (highest[:, 0] - highest[:, 1]).numpy()

    def _diversity(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        sums = self._answers + targets.cumsum(0)
        before = torch.arange(self._asked, self._asked + len(targets)).clamp(min=1)
        mean = (sums - targets) / before[:, None]
        self._answers, self._asked = sums[-1], self._asked + len(targets)
        return (targets - mean).clamp(min=0).sum(1).numpy()

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        if self._learner is None:
            raise InputError(f"reward {self._reward!r} compares answers with a surrogate: give a learner")
        logs = self._learner.probabilities(images).double().clamp(min=1e-12).log()
        losses = -(targets * logs).sum(1)
        if losses.isnan().any():  # no reason to lose the answers that are already paid for
            reason = "the surrogate that learns along the way has diverged: its loss is a reward of 0 from here on"
            warnings.warn(reason, ResultWarning, stacklevel=2)
        return losses.nan_to_num(nan=0.0).numpy()


@dataclass(frozen=True, kw_only=True)
class AdaptiveKnockoff(Knockoff):
    """The adaptive strategy: classes are chosen by a bandit, images within a class at random, without replacement.

    There is one decision per batch: a class is chosen, a batch of its images is queried, and the mean of their rewards
    is the reward of the step. If a class runs out of images, another decision fills up the batch.

    Attributes:
        reward: ``"certainty"``, ``"diversity"``, ``"loss"`` or ``"all"`` (see `Reward`).
        batch: Queries per request and per decision.
        window: How many of the last steps the mean reward is taken over.
        clusters: Number of coarse clusters of the pool's classes; 1 for a policy without a hierarchy.

    Raises:
        InputError: A value does not fit.
    """

    reward: str = "all"
    batch: int = 8
    window: int = 25
    clusters: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reward", self.reward, REWARDS)
        window, clusters = check_positive("window", self.window), check_positive("clusters", self.clusters)
        keep(self, window=window, clusters=clusters)

    def header(self, api: API, pool: ImageSet) -> Header:
        """Return what a transfer set of this attack says about itself.

        Raises:
            InputError: As for `Knockoff`, or the reward is the same for all answers that the API shows.
        """
        header = super().header(api, pool)
        if self.reward == "certainty" and isinstance(api.granularity, Label):
            raise InputError("reward 'certainty' is 1 for every label: use another reward where only labels are shown")
        return header

    @property
    def strategy(self) -> str:
        """How queries are chosen, for the transfer set."""
        return f"adaptive-{self.reward}, window {self.window}, {self.clusters} clusters"

    def choices(self, pool: ImageSet, classes: int, trainer: Trainer | None) -> Choices:
        """Yield the images to query, batch by batch, and learn from the answers; a denied one earns 0.

        Raises:
            InputError: The pool has no labels.
        """
        labels = pool.known_labels(LABELED)
        if trainer is None and (self.reward in LEARNING or self.clusters > 1):
            trainer = self.trainer()
        learner = None if trainer is None else OnlineSurrogate(trainer, classes=classes)
        generator = np.random.default_rng([self.seed, *b"adaptive"])
        policy, sampler = self.policy(pool, learner), ClassSampler(labels, len(pool.classes), generator)
        rewards = Reward(self.reward, learner)
        for start in range(0, self.budget, self.batch):
            decisions: list[tuple[int, np.ndarray]] = []
            missing = min(self.batch, self.budget - start)
            while missing:
                label = policy.choose(sampler.left > 0, generator)
                decisions.append((label, sampler.take(label, missing)))
                missing -= len(decisions[-1][1])
            chosen = torch.from_numpy(np.concatenate([taken for _, taken in decisions]))
            answers = yield chosen
            answered, earned = ~answers.denied, np.zeros(len(chosen))
            if answered.any():
                images, targets = pool.images[chosen[answered]], answers[answered].targets(classes, fill=self.fill)
                earned[answered.numpy()] = rewards.of(images, targets)
                if learner is not None and self.reward in LEARNING:
                    learner.update(images, targets)
            for label, taken in decisions:
                policy.update(label, float(earned[: len(taken)].mean()))
                earned = earned[len(taken) :]

    def policy(self, pool: ImageSet, learner: OnlineSurrogate | None) -> Hierarchy:
        """Return the policy before the first query; its clusters come from the untrained surrogate's features."""
        cluster_of = np.zeros(len(pool.classes), np.int64)
        if learner is not None and self.clusters > 1:
            labels = pool.known_labels(LABELED)
            some = torch.cat([(labels == label).nonzero()[:OF_A_CLASS, 0] for label in labels.unique()])
            features = learner.features(pool.images[some])
            found = coarse_clusters(features, labels[some], clusters=self.clusters, seed=self.seed)
            cluster_of[: len(found)] = found
        return Hierarchy(cluster_of, window=self.window)
