"""Print what the page on data says of near-duplicates: `python -m benchmarks.copies DIR`, with small copies in DIR.

How many altered copies of training images are recognized, and how many test images have a look-alike among the
victim's if frames of one recording are not named.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from extractlib.data.decoding import decode
from extractlib.data.groups import alike_pairs, signature
from extractlib.data.layouts import PACKS, listing
from extractlib.data.sets import Listing
from extractlib.data.splits import cut, overlap
from extractlib.store import Store

SETS = {"CIFAR-10": "cifar10", "Caltech101": "caltech101", "EyePACS": "eyepacs"}
COUNT = 1_500
"""Training images of each set, chosen at random."""

EVERY = 3
"""Which frames of a GTSRB track are read: those whose numbers this divides."""


def saved(image: Image.Image, quality: int) -> Image.Image:
    """Return an image as it is after being saved as JPEG."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


COPIES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG 90": lambda image: saved(image, 90),
    "saved as JPEG 75": lambda image: saved(image, 75),
    "resized to three quarters": lambda image: image.resize(
        (image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.BICUBIC
    ),
    "10% brighter": lambda image: image.point(lambda value: round(1.1 * value)),
    "one pixel cropped from each side": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
}


def recognized(images: list[Image.Image], change: Callable[[Image.Image], Image.Image]) -> float:
    """Return the share of images that are near-duplicates of their changed copies."""
    ours, theirs = (np.stack([signature(one) for one in some]) for some in (images, map(change, images)))
    return sum(int((first == second).sum()) for first, second in alike_pairs(ours, theirs)) / len(images)


def training_images(folder: Path, name: str) -> list[Image.Image]:
    """Return training images of a data set, chosen at random."""
    found = listing(name, folder / name)
    paths = found.splits["train"]["path"].to_numpy()
    chosen = np.random.default_rng(0).choice(len(paths), size=min(COUNT, len(paths)), replace=False)
    return [Image.open(found.root / paths[number]).convert("RGB") for number in chosen]


def look_alikes(folder: Path) -> dict[str, float]:
    """Return the share of test images with a look-alike among the victim's, for every third frame of GTSRB."""
    whole = listing("gtsrb", folder / "gtsrb")
    table = whole.splits["train"]
    frames = table["path"].str.extract(r"_(\d+)\.\w+$")[0].astype(int)
    kept = table.loc[frames % EVERY == 0, ["path", "class"]].reset_index(drop=True)
    with tempfile.TemporaryDirectory() as store:
        some = Listing(whole.root, whole.classes, {"train": kept})
        files = decode(some, name="frames", store=Store(Path(store)))
        found = {
            named: overlap(files, cut(files, "task", seed=0, group=group), group=group)
            for named, group in (("not named", None), ("named", PACKS["gtsrb"].group))
        }
    return {named: one.alike / one.images for named, one in found.items()}


def main() -> None:
    """Print the table of altered copies, and the shares of test images with look-alikes."""
    folder = Path(sys.argv[1])
    images = {title: training_images(folder, name) for title, name in SETS.items()}
    titles = [f"{title} ({its[0].width} pixels)" for title, its in images.items()]
    print(f"| copy | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}")
    for what, change in COPIES.items():
        shares = (f"{recognized(its, change):.1%}".replace(".0%", "%") for its in images.values())
        print(f"| {what} | {' | '.join(shares)} |", flush=True)
    for named, share in look_alikes(folder).items():
        print(f"GTSRB, every third frame, tracks {named}: {share:.0%} of the test images have a look-alike")


if __name__ == "__main__":
    main()
