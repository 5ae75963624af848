"""Small trees in each data set's true layout, as tests write them."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_image(file: Path, *, seed: int = 0, size: int = 8) -> None:
    """Write a noisy picture in the format of the file's suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def write_caltech256(root: Path, *, classes=("001.ak47", "002.american-flag"), count: int = 28) -> None:
    """`count` images a class, one of clutter, and the stray files that the archive holds."""
    base = root / "256_ObjectCategories"
    for number, name in enumerate((*classes, "257.clutter"), start=1):
        for index in range(1, count + 1 if name != "257.clutter" else 2):
            write_image(base / name / f"{number:03}_{index:04}.jpg", seed=1_000 * number + index)
    (base / classes[0] / "RENAME2").write_text("no picture")


def write_cub200(root: Path) -> None:
    """Three birds of two species; the second is for testing."""
    base = root / "CUB_200_2011"
    for number in (1, 2, 3):
        write_image(base / "images" / PATHS[number], seed=number)
    (base / "images.txt").write_text("".join(f"{number} {path}\n" for number, path in PATHS.items()))
    (base / "image_class_labels.txt").write_text("1 1\n2 1\n3 2\n")
    (base / "train_test_split.txt").write_text("1 1\n2 0\n3 1\n")
    (base / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")


PATHS = {
    1: "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    2: "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
    3: "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
}


def write_diabetic5(root: Path, *, patients: int = 505) -> None:
    """Both eyes of each patient, of the same grade: patient p has grade p % 5."""
    rows = [(f"{patient}_{eye}", patient % 5) for patient in range(patients) for eye in ("left", "right")]
    for seed, (name, _) in enumerate(rows):
        write_image(root / "train" / f"{name}.jpeg", seed=seed)
    with open(root / "trainLabels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "level"), *rows])


def write_gtsrb(root: Path, *, classes: int = 2, tracks: int = 10, frames: int = 3) -> None:
    """`tracks` tracks of `frames` frames in each class, and a test image of each class."""
    for label in range(classes):
        for track in range(tracks):
            for frame in range(frames):
                name = f"{label:05}/{track:05}_{frame:05}.ppm"
                write_image(root / "GTSRB/Final_Training/Images" / name, seed=10_000 * label + 100 * track + frame)
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(classes):
        write_image(root / "GTSRB/Final_Test/Images" / f"{label:05}.ppm", seed=90_000 + label)
        lines.append(f"{label:05}.ppm;8;8;1;1;6;6;{label}")
    (root / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def write_cifar10(root: Path, *, records: int = 4) -> np.ndarray:
    """Six batches of `records` records in the binary layout; return their pixels, uint8 of shape (6, records, 3072)."""
    base = root / "cifar-10-batches-bin"
    base.mkdir(parents=True)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    (base / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    pixels = np.random.default_rng(0).integers(0, 256, (6, records, 3_072), dtype=np.uint8)
    for batch, content in zip([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"], pixels, strict=True):
        labels = np.arange(records, dtype=np.uint8)[:, None] % 10
        (base / f"{batch}.bin").write_bytes(np.concatenate([labels, content], 1).tobytes())
    return pixels


def write_tinyimagenet(root: Path, *, count: int = 20) -> None:
    """`count` training images and one for validation of each of two classes."""
    base = root / "tiny-imagenet-200"
    lines = []
    for label, name in enumerate(("n01443537", "n01629819")):
        for index in range(count):
            write_image(base / "train" / name / "images" / f"{name}_{index}.JPEG", seed=100 * label + index)
        (base / "train" / name / f"{name}_boxes.txt").write_text("")
        write_image(base / "val" / "images" / f"val_{label}.JPEG", seed=1_000 + label)
        lines.append(f"val_{label}.JPEG\t{name}\t0\t32\t44\t62\n")
    (base / "val" / "val_annotations.txt").write_text("".join(lines))


def write_imagenet(root: Path, *, count: int = 121) -> None:
    """`count` images of each of two classes."""
    for label, name in enumerate(("n01440764", "n01443537")):
        for index in range(count):
            write_image(root / "train" / name / f"{name}_{index}.JPEG", seed=1_000 * label + index)


def write_openimages(root: Path, *, count: int = 20) -> None:
    """`count` images without labels in a folder of their own."""
    for index in range(count):
        write_image(root / "test" / f"{index:016x}.jpg", seed=index)


WRITE = {
    "caltech256": write_caltech256,
    "cub200": write_cub200,
    "diabetic5": write_diabetic5,
    "gtsrb": write_gtsrb,
    "cifar10": write_cifar10,
    "tinyimagenet": write_tinyimagenet,
    "imagenet": write_imagenet,
    "openimages": write_openimages,
}
