"""At which scale an experiment runs: every size and training setting, by the name of its profile.

A chapter's code is the same in each profile; only the parameter ``profile`` differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from extractlib.errors import one_of


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: stochastic gradient descent with Nesterov momentum.

    Attributes:
        epochs: Passes over the training images.
        learning_rate: The highest learning rate of the schedule.
        batch_size: Images a step.
        momentum: Momentum of the gradient.
        weight_decay: Factor of the squared weights in the loss.
        shift: Each image is moved at random by up to this many pixels.
        flip: Whether an image is mirrored left to right half of the time.
        schedule: ``"one-cycle"`` or ``"cosine"``.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 2
    flip: bool = False
    schedule: str = "one-cycle"


@dataclass(frozen=True)
class Profile:
    """The scale of every experiment.

    Attributes:
        name: Name of the profile.
        tasks: The victims' tasks; empty where the user names image folders.
        pool: The attacker's pool; empty where the user names an image folder.
        second_pool: A pool of another hand, which the defence is not trained against.
        network: Architecture of victims and surrogates (see `networks`).
        backbone: Recipe of the pre-training on the pool's labelled part.
        shipped: Whether that pre-trained backbone ships with the package. Elsewhere it is trained and cached.
        victim: Recipe of the victims, fine-tuned from the backbone.
        surrogate: Recipe of the surrogates, fine-tuned from the same backbone.
        budget: Queries of an attack.
        budgets: Query budgets of the budget curve, ascending, `budget` last.
        task_sizes: Number of images of each part of each drawn task.
        pool_sizes: Number of images of each part of each drawn pool.
    """

    name: str
    tasks: tuple[str, ...]
    pool: str
    second_pool: str
    network: str
    backbone: Recipe
    shipped: bool
    victim: Recipe
    surrogate: Recipe
    budget: int
    budgets: tuple[int, ...]
    task_sizes: Mapping[str, Mapping[str, int]]
    pool_sizes: Mapping[str, Mapping[str, int]]


def _task_sizes(victim: int, *, test: int, others: int = 2_000, validation: int = 1_000) -> dict[str, int]:
    return {"victim": victim, "detector": others, "adversary": others, "validation": validation, "test": test}


SMOKE = Profile(
    name="smoke",
    tasks=("signs", "objects"),
    pool="atlas",
    second_pool="web",
    network="tiny",
    backbone=Recipe(epochs=1, learning_rate=0.1),
    shipped=False,
    victim=Recipe(epochs=2, learning_rate=0.1),
    surrogate=Recipe(epochs=2, learning_rate=0.1),
    budget=256,
    budgets=(64, 256),
    task_sizes={
        "signs": _task_sizes(430, others=100, validation=100, test=430),
        "objects": _task_sizes(300, others=100, validation=100, test=200),
    },
    pool_sizes={
        "atlas": {"pretraining": 512, "queries": 512, "detector": 128, "validation": 128, "test": 128},
        "web": {"queries": 512, "validation": 128, "test": 128},
    },
)

DRAWN = Profile(
    name="drawn",
    tasks=("things", "birds", "retina", "signs", "objects"),
    pool="atlas",
    second_pool="web",
    network="resnet",
    backbone=Recipe(epochs=10, learning_rate=0.2, batch_size=128),
    shipped=True,
    victim=Recipe(epochs=12, learning_rate=0.05),
    # No augmentation and no weight decay, as in the original (Orekondy et al.); epochs and learning rate were chosen on
    # the validation part of seed 100.
    surrogate=Recipe(epochs=16, learning_rate=0.1, batch_size=128, weight_decay=0.0, shift=0),
    budget=10_000,
    budgets=(1_000, 2_500, 5_000, 10_000),
    task_sizes={
        "things": _task_sizes(5_670, test=2_430),
        "birds": _task_sizes(4_000, test=2_000),
        "retina": _task_sizes(4_000, test=1_500),
        "signs": _task_sizes(5_000, test=4_300),
        "objects": _task_sizes(4_000, test=2_000),
    },
    pool_sizes={
        "atlas": {
            "pretraining": 30_000,
            "queries": 20_000,
            "detector": 5_000,
            "validation": 2_000,
            "test": 2_000,
        },
        "web": {"queries": 10_000, "validation": 2_000, "test": 2_000},
    },
)

SMALL_CPU = Profile(
    name="small-cpu",
    tasks=(),
    pool="",
    second_pool="",
    network="resnet-wide",
    backbone=Recipe(epochs=8, learning_rate=0.2, batch_size=128, flip=True),
    shipped=False,
    victim=Recipe(epochs=10, learning_rate=0.1, batch_size=128, flip=True),
    surrogate=Recipe(epochs=8, learning_rate=0.1, batch_size=128, flip=True),
    budget=40_000,
    budgets=(5_000, 10_000, 20_000, 40_000),
    task_sizes={},
    pool_sizes={},
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (SMOKE, DRAWN, SMALL_CPU)}


def profile(name: str) -> Profile:
    """Return the profile of that name.

    Raises:
        InputError: There is none of that name.
    """
    return PROFILES[one_of("profile", name, PROFILES)]
