"""At which scale an experiment runs: every size and training setting, by the name of its profile.

A chapter's code is the same in each profile; only the parameter ``profile`` differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from extractlib.errors import one_of
from extractlib.models.training import Recipe


@dataclass(frozen=True)
class Profile:
    """The scale of every experiment.

    Attributes:
        name: Name of the profile.
        tasks: The victims' tasks.
        pool: The attacker's pool.
        second_pool: A pool of another hand, which the defence is not trained against; empty where there is none.
        network: Architecture of victims and surrogates (see `networks`).
        other_network: Another architecture, for surrogates that are not built like their victim.
        scratch_networks: Architecture of a task's victim that starts from no public weights.
        backbone: Recipe of the pre-training on the pool's labelled part, the same for both architectures.
        shipped: Whether the pre-trained backbones ship with the package. Elsewhere they are trained and cached.
        victim: Recipe of the victims, fine-tuned from the backbone.
        scratch_victim: Recipe of the victims that are trained from scratch.
        surrogate: Recipe of the surrogates, fine-tuned from the same backbone.
        detector: Recipe of the detectors, fine-tuned from the same backbone.
        budget: Queries of an attack.
        budgets: Query budgets of the budget curve, ascending, `budget` last.
        realistic_budgets: Query budgets of the adversary with in-distribution images, ascending: its last is half of
            `budget`, or what the adversary's part of a real task holds.
        adaptive_budgets: Query budgets at which the adaptive strategy is set against the random one.
        granularities: What an answer may show, from more to less.
        pool_classes: To how many of its classes the pool is cut, descending, for queries of less diversity.
        diversity_budget: Queries to those cut pools, and to the whole one beside them.
        overlaps: Shares of the pool's images that show the victim's own classes, ascending.
        overlap_images: Images of each side that a detector of the overlap experiment is trained on, and tested on.
        stream: Queries of one honest client that a stateful detector watches.
        streams: Honest clients of each of its two sides, validation and test.
        watermark_rate: Share of the queries that a watermarking API answers wrongly.
        task_sizes: Number of images of each part of each drawn task.
        pool_sizes: Number of images of each part of each drawn pool.
        image_size: Height and width that photographs are brought to, in pixels.
        imagenet: Whether the backbones are ImageNet's, which torchvision downloads, and none is trained.
        fewer_seeds: Seeds of the cells that decide no claim.
        rate: Images a second that a process is reckoned to train, an assumption that only plans are made with: of one
            core of a processor of 2024, or of the GPU that the profile is made for.
    """

    name: str
    tasks: tuple[str, ...]
    pool: str
    second_pool: str
    network: str
    other_network: str
    scratch_networks: Mapping[str, str]
    backbone: Recipe
    shipped: bool
    victim: Recipe
    scratch_victim: Recipe
    surrogate: Recipe
    detector: Recipe
    budget: int
    budgets: tuple[int, ...]
    realistic_budgets: tuple[int, ...]
    adaptive_budgets: tuple[int, ...]
    granularities: tuple[str, ...]
    pool_classes: tuple[int, ...]
    diversity_budget: int
    overlaps: tuple[float, ...]
    overlap_images: int
    stream: int
    streams: int
    watermark_rate: float
    task_sizes: Mapping[str, Mapping[str, int]]
    pool_sizes: Mapping[str, Mapping[str, int]]
    image_size: int = 32
    imagenet: bool = False
    fewer_seeds: int = 3
    rate: int = 4_000


def _task_sizes(
    victim: int, *, test: int, detector: int = 4_000, adversary: int = 10_000, validation: int = 1_000
) -> dict[str, int]:
    return {"victim": victim, "detector": detector, "adversary": adversary, "validation": validation, "test": test}


GRANULARITIES = ("top-5", "top-2", "label", "rounded-2", "rounded-1", "temperature-4.0")
OVERLAPS = (0.0, 0.25, 0.5, 0.75, 1.0)


SMOKE = Profile(
    name="smoke",
    tasks=("signs", "objects"),
    pool="atlas",
    second_pool="web",
    network="tiny",
    other_network="tiny-plain",
    scratch_networks={"signs": "tiny-plain", "objects": "tiny-plain"},
    backbone=Recipe(epochs=1, learning_rate=0.1),
    shipped=False,
    victim=Recipe(epochs=2, learning_rate=0.1),
    scratch_victim=Recipe(epochs=2, learning_rate=0.1),
    surrogate=Recipe(epochs=2, learning_rate=0.1),
    detector=Recipe(epochs=2, learning_rate=0.1),
    budget=256,
    budgets=(64, 256),
    realistic_budgets=(64, 128),
    adaptive_budgets=(64,),
    granularities=("top-2", "label", "rounded-1"),
    pool_classes=(54,),
    diversity_budget=64,
    overlaps=(0.0, 0.5, 1.0),
    overlap_images=64,
    stream=50,
    streams=2,
    watermark_rate=0.05,
    task_sizes={
        "signs": _task_sizes(430, detector=128, adversary=256, validation=100, test=430),
        "objects": _task_sizes(300, detector=128, adversary=256, validation=100, test=200),
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
    other_network="vgg",
    scratch_networks={"signs": "cnn-5", "objects": "cnn-9"},
    backbone=Recipe(epochs=10, learning_rate=0.2, batch_size=128),
    shipped=True,
    victim=Recipe(epochs=12, learning_rate=0.05),
    scratch_victim=Recipe(epochs=24, learning_rate=0.1),
    # No augmentation and no weight decay, as in the original (Orekondy et al.); epochs and learning rate were chosen on
    # the validation part of seed 100.
    surrogate=Recipe(epochs=16, learning_rate=0.1, batch_size=128, weight_decay=0.0, shift=0),
    detector=Recipe(epochs=8, learning_rate=0.05, batch_size=128),
    budget=10_000,
    budgets=(1_000, 2_500, 5_000, 10_000),
    realistic_budgets=(500, 1_000, 2_500, 5_000),
    adaptive_budgets=(1_000, 2_500, 5_000),
    granularities=GRANULARITIES,
    pool_classes=(81, 27, 9),
    diversity_budget=1_000,
    overlaps=OVERLAPS,
    overlap_images=2_000,
    stream=1_000,
    streams=5,
    watermark_rate=0.005,
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
    tasks=("cifar10", "gtsrb"),
    pool="tinyimagenet",
    second_pool="",
    network="resnet-wide",
    other_network="vgg",
    scratch_networks={"gtsrb": "cnn-5", "cifar10": "cnn-9"},
    backbone=Recipe(epochs=8, learning_rate=0.2, batch_size=128, flip=True),
    shipped=False,
    victim=Recipe(epochs=10, learning_rate=0.1, batch_size=128, flip=True),
    scratch_victim=Recipe(epochs=20, learning_rate=0.1, batch_size=128, flip=True),
    surrogate=Recipe(epochs=8, learning_rate=0.1, batch_size=128, flip=True),
    detector=Recipe(epochs=8, learning_rate=0.1, batch_size=128, flip=True),
    budget=40_000,
    budgets=(3_500, 10_000, 20_000, 40_000),
    realistic_budgets=(500, 1_000, 2_000, 3_500),
    adaptive_budgets=(3_500, 10_000, 20_000),
    granularities=GRANULARITIES,
    pool_classes=(100, 50, 20),
    diversity_budget=3_500,
    overlaps=OVERLAPS,
    overlap_images=1_500,
    stream=300,
    streams=5,
    watermark_rate=0.005,
    task_sizes={},
    pool_sizes={},
    fewer_seeds=1,
    rate=1_500,
)

SMALL = Profile(
    name="small",
    tasks=("cifar10", "gtsrb"),
    pool="tinyimagenet",
    second_pool="",
    network="resnet-34-32",
    other_network="vgg-16-32",
    scratch_networks={"gtsrb": "cnn-5-wide", "cifar10": "cnn-9-wide"},
    backbone=Recipe(epochs=30, learning_rate=0.1, batch_size=256, shift=4, flip=True),
    shipped=False,
    victim=Recipe(epochs=15, learning_rate=0.02, batch_size=128, shift=4, flip=True),
    scratch_victim=Recipe(epochs=40, learning_rate=0.1, batch_size=128, shift=4, flip=True),
    surrogate=Recipe(epochs=10, learning_rate=0.05, batch_size=128, weight_decay=0.0, shift=0),
    detector=Recipe(epochs=8, learning_rate=0.02, batch_size=128, shift=4, flip=True),
    budget=40_000,  # of the 100,000 training images of Tiny ImageNet, the rest pre-trains and trains detectors
    budgets=(3_500, 10_000, 20_000, 40_000),
    realistic_budgets=(500, 1_000, 2_000, 3_500),
    adaptive_budgets=(3_500, 10_000, 20_000),
    granularities=GRANULARITIES,
    pool_classes=(100, 50, 20),
    diversity_budget=3_500,
    overlaps=OVERLAPS,
    overlap_images=1_500,
    stream=300,
    streams=5,
    watermark_rate=0.005,
    task_sizes={},
    pool_sizes={},
    rate=2_500,  # a T4
)

# Knockoff nets' own recipes (Orekondy et al. 2019, and the code they published): victims with, surrogates without
# augmentation.
_ORIGINAL_VICTIM = Recipe(
    epochs=100,
    learning_rate=0.1,
    momentum=0.5,
    shift=0,
    flip=True,
    schedule="step",
    step_epochs=30,
    nesterov=False,
    crop=True,
)

PAPER = Profile(
    name="paper",
    tasks=("caltech256", "cub200", "diabetic5", "gtsrb", "cifar10"),
    pool="imagenet",
    second_pool="openimages",
    network="resnet-34",
    other_network="vgg-16",
    scratch_networks={"gtsrb": "cnn-5-wide", "cifar10": "cnn-9-wide"},
    # Of no use while the backbones are downloaded: torchvision's own recipe for ResNet-34.
    backbone=Recipe(
        epochs=90,
        learning_rate=0.1,
        batch_size=256,
        weight_decay=1e-4,
        shift=0,
        flip=True,
        schedule="step",
        step_epochs=30,
        nesterov=False,
        crop=True,
    ),
    shipped=False,
    victim=_ORIGINAL_VICTIM,
    scratch_victim=_ORIGINAL_VICTIM,
    surrogate=replace(_ORIGINAL_VICTIM, learning_rate=0.01, weight_decay=0.0, flip=False, step_epochs=60, crop=False),
    detector=Recipe(epochs=10, learning_rate=0.01, shift=0, flip=True, crop=True),
    budget=100_000,
    budgets=(5_000, 10_000, 25_000, 50_000, 100_000),
    realistic_budgets=(100, 250, 500),
    adaptive_budgets=(10_000, 25_000, 50_000),
    granularities=GRANULARITIES,
    pool_classes=(300, 100, 50),
    diversity_budget=5_000,
    overlaps=OVERLAPS,
    overlap_images=250,
    stream=100,
    streams=2,
    watermark_rate=0.005,
    task_sizes={},
    pool_sizes={},
    image_size=224,
    imagenet=True,
    rate=7_000,  # an H200, the goal of `make bench-gpu`
)

PAPER_FAST = replace(
    PAPER,
    name="paper-fast",
    # Larger batches fill a large GPU, and a one-cycle schedule needs a fifth of the epochs.
    victim=Recipe(epochs=30, learning_rate=0.05, batch_size=128, shift=0, flip=True, crop=True),
    scratch_victim=Recipe(epochs=60, learning_rate=0.1, batch_size=128, shift=0, flip=True, crop=True),
    surrogate=Recipe(epochs=20, learning_rate=0.05, batch_size=256, weight_decay=0.0, shift=0),
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (SMOKE, DRAWN, SMALL_CPU, SMALL, PAPER, PAPER_FAST)
}


def profile(name: str) -> Profile:
    """Return the profile of that name.

    Raises:
        InputError: There is none of that name.
    """
    return PROFILES[one_of("profile", name, PROFILES)]
