"""A miniature of the scale `photos`: tiny frozen networks with random weights, and generated images in files."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from extractbook.reproduction.scales import SCALES, BanditSettings, Scale
from extractlib.models import networks
from extractlib.models.lite import Plan
from extractlib.models.training import Recipe

NETWORK, OTHER = "tiny-lite", "tiny-lite-deeper"
PLANS = {
    NETWORK: (Plan(3, 1, 1, 4, 1), Plan(3, 2, 2, 6, 1), Plan(5, 2, 2, 8, 2), Plan(3, 1, 2, 10, 1)),
    OTHER: (Plan(3, 1, 1, 4, 1), Plan(3, 2, 2, 6, 2), Plan(5, 2, 2, 8, 3), Plan(3, 1, 2, 10, 1)),
}
NAME = "photos-miniature"
SIDE = 32


def register() -> Scale:
    """Add the networks, what stands for their public weights, and the scale, each once, and return the scale."""
    for seed, (name, plans) in enumerate(PLANS.items()):
        if name not in networks.NETWORKS:
            make = partial(networks.LiteNet, plans, frozen=3, stem=4, last=12)
            networks.NETWORKS.add(name, make)
            networks.IMAGENET.add(name, partial(weights, name, seed=seed))
    SCALES[NAME] = miniature()
    return SCALES[NAME]


def forget() -> None:
    """Take all that away again, so that other tests see what the packages have."""
    for name in PLANS:
        networks.NETWORKS.pop(name, None)
        networks.IMAGENET.pop(name, None)
    SCALES.pop(NAME, None)


def weights(name: str, *, seed: int) -> dict:
    """Return random weights of everything but the head, large enough that an image is seen in the last layer."""
    model, generator = networks.build(name, classes=2, seed=0), torch.Generator().manual_seed(seed)
    for layer in (layer for layer in model.stages.modules() if isinstance(layer, torch.nn.Conv2d)):
        torch.nn.init.kaiming_normal_(layer.weight, generator=generator)
    return networks.backbone_state(model)


def miniature() -> Scale:
    """Return the scale with a few dozen images, of which two tasks are in files."""
    recipe = Recipe(epochs=8, learning_rate=0.03, batch_size=32, shift=0, optimizer="adamw", schedule="cosine")
    return replace(
        SCALES["photos"],
        name=NAME,
        tasks=("gtsrb", "eyepacs"),
        network=NETWORK,
        other_weights=OTHER,
        scratch_networks={"gtsrb": "tiny-plain"},
        **dict.fromkeys(("victim", "scratch_victim", "detector"), recipe),
        surrogate=replace(recipe, epochs=0, steps=6),
        balanced=("eyepacs",),
        accused=("gtsrb",),
        accused_images=8,
        control_images={"gtsrb": 20, "eyepacs": 20},
        matched={"gtsrb": 8},
        bandit=BanditSettings(batch=16, window=3, clusters=4),
        flag_times={"gtsrb": {"prada": 6}},
        budget=128,
        budgets=(80, 128),
        realistic_budgets=(8, 16),
        adaptive_budgets=(80,),
        narrow_pool="eyepacs",
        narrow_budget=16,
        diversity_budget=16,
        pool_classes=(6,),
        granularities=("top-2", "label", "rounded-1"),
        overlaps=(0.0, 0.5),
        overlap_images=10,
        stream=8,
        streams=4,
        watermark_rate=0.05,
        image_size=SIDE,
        account_size=16,
        judged_on=20,
        tuned_on=8,
        fitted_on=100,
        asked=16,
        trained_on=16,
        resamples=5,
        left_out=tuple(cut for cut in SCALES["photos"].left_out if cut.table != "accusation"),
    )


def write_files(root: Path) -> dict[str, Path]:
    """Write signs as they are published, small copies of retinas and of both pools, and return their folders."""
    random = np.random.default_rng(0)

    def write(place: Path, look: np.ndarray) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(look + random.integers(-60, 61, look.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place, "PNG")

    def looks(count: int, size: int) -> np.ndarray:
        coarse = random.integers(0, 256, (count, 4, 4, 3))
        return coarse.repeat(size // 4, 1).repeat(size // 4, 2)

    signs, lines = root / "gtsrb", ["Filename;ClassId"]
    for label, look in enumerate(looks(4, 8)):
        for number in range(60):
            name = f"{label:05}/{number // 4:05}_{number % 4:05}.ppm"
            write(signs / "GTSRB/Final_Training/Images" / name, look)
        for number in range(20):
            write(signs / f"GTSRB/Final_Test/Images/{label}-{number}.ppm", look)
            lines.append(f"{label}-{number}.ppm;{label}")
    (signs / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    for label, look in enumerate(looks(5, 16)):
        for split, first, count in (("train", 0, 60 // (1 + label // 3)), ("test", 100, 12)):
            for patient in range(first, first + count // 2):
                for eye in ("left", "right"):
                    place = root / f"eyepacs/diabetic5-128/{split}/{label}/{100 * label + patient}_{eye}.png"
                    write(place, look)
    for name, folder, classes in (("tinyimagenet", "tinyimagenet64", 200), ("miniplaces", "miniplaces64", 100)):
        for label, look in enumerate(looks(classes, 16)):
            for number in range(2):
                write(root / f"{name}/{folder}/train/n{label:03}/{number}.png", look)
    return {name: root / name for name in ("gtsrb", "eyepacs", "tinyimagenet", "miniplaces")}
