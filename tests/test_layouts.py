"""Published data sets in their true layout: what is read, how it is split, and what is refused."""

import csv
import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from layouts import (
    PATHS,
    WRITE,
    write_caltech256,
    write_cifar10,
    write_cub200,
    write_diabetic5,
    write_gtsrb,
    write_image,
    write_imagenet,
    write_openimages,
    write_tinyimagenet,
)
from PIL import Image
from test_datasets import write_folder

from extractbook.reproduction.cells import Cell
from extractbook.reproduction.setups import Setup
from extractlib.data import decoding, download, transforms
from extractlib.data.decoding import decode
from extractlib.data.images import ImageSet
from extractlib.data.layouts import folder, listing
from extractlib.data.pixels import read_image
from extractlib.data.sets import SETS, Listing, register
from extractlib.data.sources import Loader, Source
from extractlib.errors import InputError
from extractlib.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def rows(found, split):
    """A split's images as tuples of path, class and, where there is one, group."""
    return list(found.splits[split].itertuples(index=False, name=None))


def paths(found):
    return [path for table in found.splits.values() for path in table["path"]]


# -- layouts and splits ----------------------------------------------------------


def test_caltech256_keeps_25_test_images_a_class_and_drops_clutter(tmp_path):
    write_caltech256(tmp_path)
    found = listing("caltech256", tmp_path)
    assert found.classes == ("001.ak47", "002.american-flag")
    assert Counter(found.splits["test"]["class"]) == {"001.ak47": 25, "002.american-flag": 25}
    assert Counter(found.splits["train"]["class"]) == {"001.ak47": 3, "002.american-flag": 3}
    assert not any("clutter" in path or "RENAME" in path for path in paths(found))


def test_the_split_by_names_is_the_same_for_every_reader(tmp_path):
    write_caltech256(tmp_path)
    train = [path.rpartition("/")[2] for path in listing("caltech256", tmp_path).splits["train"]["path"]]
    assert train == ["001_0011.jpg", "001_0002.jpg", "001_0025.jpg", "002_0018.jpg", "002_0005.jpg", "002_0002.jpg"]
    # A training file that is missing changes nothing for the others.
    (tmp_path / "256_ObjectCategories/001.ak47" / train[0]).unlink()
    fewer = listing("caltech256", tmp_path).splits["train"]["path"]
    assert [path.rpartition("/")[2] for path in fewer] == train[1:]


def test_cub200_has_its_official_split(tmp_path):
    write_cub200(tmp_path)
    found = listing("cub200", tmp_path)
    assert found.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    images = "CUB_200_2011/images/"
    first, second = found.classes
    assert rows(found, "train") == [(images + PATHS[1], first), (images + PATHS[3], second)]
    assert rows(found, "test") == [(images + PATHS[2], first)]


def test_diabetic5_keeps_200_test_images_a_class_and_patients_together(tmp_path):
    write_diabetic5(tmp_path)
    found = listing("diabetic5", tmp_path)
    assert Counter(found.splits["test"]["class"]) == dict.fromkeys(found.classes, 200)
    assert Counter(found.splits["train"]["class"]) == dict.fromkeys(found.classes, 2)
    eyes = {row for split in found.splits for row in rows(found, split)}
    assert {("train/7_left.jpeg", "Moderate", "7"), ("train/7_right.jpeg", "Moderate", "7")} < eyes


def test_gtsrb_is_split_by_track(tmp_path, store):
    write_gtsrb(tmp_path)
    found = listing("gtsrb", tmp_path)
    assert found.classes == ("00000", "00001")
    assert found.splits["test"]["class"].tolist() == ["00000", "00001"]
    assert Counter(found.splits["train"]["group"]) == {
        f"{label:05}/{track:05}": 3 for label in range(2) for track in range(10)
    }
    parts = Loader(store=store, folders={"gtsrb": tmp_path}).task("gtsrb", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 42,  # 14 of 20 tracks
        "detector": 6,
        "adversary": 6,
        "validation": 6,
        "test": 2,
    }
    tracks = tracks_of(found, parts)
    assert sum(map(len, tracks.values())) == 20 == len(set().union(*tracks.values()))


def tracks_of(found, parts):
    """The tracks that each part's pixels come from."""
    track = {read_image(found.root / path, size=32).tobytes(): group for path, _, group in rows(found, "train")}
    return {
        part: {track[image.numpy().tobytes()] for image in images.images}
        for part, images in parts.items()
        if part != "test"
    }


def test_cifar10_is_read_from_the_binary_version_bit_for_bit(tmp_path, store):
    pixels = write_cifar10(tmp_path)
    sets = decode(listing("cifar10", tmp_path), name="cifar10", store=store).splits
    assert sets["train"].classes[:2] == ("airplane", "automobile")
    assert np.array_equal(sets["train"].images.numpy(), pixels[:5].reshape(20, 3, 32, 32))
    assert np.array_equal(sets["test"].images.numpy(), pixels[5].reshape(4, 3, 32, 32))
    assert sets["train"].labels.tolist() == [0, 1, 2, 3] * 5
    larger = decode(listing("cifar10", tmp_path), name="cifar10", store=store, size=48).splits
    assert larger["test"].images.shape == (4, 3, 48, 48)
    assert larger["test"].fingerprint != sets["test"].fingerprint


def test_tinyimagenet_takes_its_validation_images_for_testing(tmp_path):
    write_tinyimagenet(tmp_path)
    found = listing("tinyimagenet", tmp_path)
    assert found.classes == ("n01443537", "n01629819")
    assert Counter(found.splits["train"]["class"]) == {"n01443537": 20, "n01629819": 20}
    assert rows(found, "test") == [
        ("tiny-imagenet-200/val/images/val_0.JPEG", "n01443537"),
        ("tiny-imagenet-200/val/images/val_1.JPEG", "n01629819"),
    ]


def test_imagenet_gives_100_queries_a_class_and_parts_that_share_no_file(tmp_path, store):
    write_imagenet(tmp_path)
    found = listing("imagenet", tmp_path)
    assert {part: len(entries) for part, entries in found.splits.items()} == {
        "queries": 200,
        "detector": 20,
        "validation": 10,
        "test": 10,
    }
    assert Counter(found.splits["queries"]["class"]) == {"n01440764": 100, "n01443537": 100}
    assert len(set(paths(found))) == len(paths(found)) == 240
    parts = Loader(store=store, folders={"imagenet": tmp_path}).pool("imagenet", seed=0)
    assert [images.labels for images in parts.values()] == [None] * 4


def test_parts_that_are_used_by_their_first_images_do_not_come_class_by_class(tmp_path, store):
    write_gtsrb(tmp_path / "gtsrb", tracks=100, frames=2)
    write_tinyimagenet(tmp_path / "tinyimagenet", count=300)
    write_imagenet(tmp_path / "imagenet")
    loader = Loader(store=store, folders={name: tmp_path / name for name in ("gtsrb", "tinyimagenet", "imagenet")})
    task = loader.task("gtsrb", seed=0)
    pools = [loader.pool(name, seed=0, labeled=True) for name in ("tinyimagenet", "imagenet")]
    for parts, listed in (task, ("victim", "test")), (pools[0], ("pretraining", "queries")), (pools[1], ("queries",)):
        for part, images in parts.items():
            labels = images.labels.tolist()
            assert (labels == sorted(labels)) == (part in listed), (images.name, labels)
    # The two frames of a track stay side by side.
    labels = task["adversary"].labels
    assert torch.equal(labels[::2], labels[1::2])


def test_openimages_are_cut_by_shares(tmp_path):
    write_openimages(tmp_path)
    found = listing("openimages", tmp_path)
    assert {part: len(entries) for part, entries in found.splits.items()} == {
        "queries": 16,
        "detector": 2,
        "validation": 1,
        "test": 1,
    }
    assert found.classes == ()


@pytest.mark.parametrize(
    ("name", "options"), [("caltech256", {"count": 60}), ("gtsrb", {}), ("cifar10", {"records": 12})]
)
def test_no_two_parts_share_an_image(tmp_path, store, name, options):
    WRITE[name](tmp_path, **options)
    images = Loader(store=store, folders={name: tmp_path}).task(name, seed=1)
    seen = Counter(image.numpy().tobytes() for part in images.values() for image in part.images)
    whole = decode(listing(name, tmp_path), name=name, store=store).splits
    assert seen == Counter(image.numpy().tobytes() for half in whole.values() for image in half.images)
    assert set(seen.values()) == {1}


def test_near_duplicates_of_a_published_task_stay_together(tmp_path, store):
    write_tinyimagenet(tmp_path)
    base = tmp_path / "tiny-imagenet-200/train/n01443537/images"
    for index in range(20):
        picture = Image.open(base / f"n01443537_{index}.JPEG").convert("RGB")
        picture.save(base / f"twin_{index}.png")  # the same pixels
    parts = Loader(store=store, folders={"tinyimagenet": tmp_path}).pool("tinyimagenet", seed=0)
    where = {}
    for part, images in parts.items():
        for image in images.images:
            where.setdefault(image.numpy().tobytes(), []).append(part)
    assert Counter(map(len, where.values())) == {1: 20, 2: 20}
    assert all(len(set(found)) == 1 for found in where.values())


def test_the_split_is_kept_as_an_index_beside_the_images(tmp_path, store):
    write_gtsrb(tmp_path, tracks=1, frames=1)
    found = listing("gtsrb", tmp_path)
    decode(found, name="gtsrb", store=store)
    [index] = store.root.glob("decoded/*/index.csv")
    assert list(csv.reader(io.StringIO(index.read_text()))) == [
        ["half", "path", "class", "group"],
        ["train", "GTSRB/Final_Training/Images/00000/00000_00000.ppm", "00000", "00000/00000"],
        ["train", "GTSRB/Final_Training/Images/00001/00000_00000.ppm", "00001", "00001/00000"],
        ["test", "GTSRB/Final_Test/Images/00000.ppm", "00000", ""],
        ["test", "GTSRB/Final_Test/Images/00001.ppm", "00001", ""],
    ]


def test_two_copies_of_a_data_set_have_one_fingerprint_and_another_label_changes_it(tmp_path, store):
    sets = []
    for place in ("here", "there", "changed"):
        write_cub200(tmp_path / place)
        if place == "changed":
            (tmp_path / place / "CUB_200_2011/image_class_labels.txt").write_text("1 2\n2 1\n3 2\n")
        sets.append(decode(listing("cub200", tmp_path / place), name="cub200", store=store).splits["train"])
    here, there, changed = (images.fingerprint for images in sets)
    assert here == there != changed


def test_a_pool_in_files_is_told_by_its_name(tmp_path, store):
    assert [Source.parse(name).in_files for name in ("cifar10", "imagenet/27", "folder:x", "signs", "noise")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    write_tinyimagenet(tmp_path)
    loader = Loader(store=store, folders={"tinyimagenet": tmp_path})
    cut = loader.queries("tinyimagenet/1", seed=0, labeled=True)
    assert len(cut.labels.unique()) == 1
    with pytest.raises(InputError, match="unknown variant 'shiften' of cifar10"):
        loader.queries("cifar10/shiften", seed=0)
    with pytest.raises(InputError, match="gtsrb is not available: name its folder, as in --data DIR"):
        loader.task("gtsrb", seed=0)


def test_shifted_images_are_the_adversarys_own_in_other_framing_and_light(tmp_path, store):
    write_gtsrb(tmp_path)
    loader = Loader(store=store, folders={"gtsrb": tmp_path})
    own = loader.queries("gtsrb", seed=0, labeled=True)
    state = torch.random.get_rng_state()
    first, again, other = (loader.queries("gtsrb/shifted", seed=seed, labeled=True) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.images, again.images) and first.fingerprint == again.fingerprint != other.fingerprint
    assert torch.equal(first.labels, own.labels) and len(first) == len(own)
    assert not (first.images == own.images).flatten(1).all(1).any()
    assert loader.queries("gtsrb/shifted", seed=0).labels is None


def test_a_shifted_image_is_moved_by_a_tenth_at_most_and_mirrored_at_its_border(monkeypatch):
    monkeypatch.setattr(transforms, "LIGHT", 0.0)
    ramp = torch.arange(32, dtype=torch.uint8).expand(400, 3, 32, 32)
    moved = transforms.shift_domain(ImageSet("ramps", ramp, None, (), "f"), seed=0).images
    steps = moved[:, 0, 16, 16].int() - 16
    assert set(steps.tolist()) == set(range(-3, 4))
    assert moved[steps == 3][0, 0, 0, -5:].tolist() == [30, 31, 30, 29, 28]


def test_the_pool_that_the_defense_knows_is_the_scales_where_the_attacker_sends_images_of_a_task(tmp_path, store):
    write_tinyimagenet(tmp_path)
    folders = {"tinyimagenet": tmp_path}
    for pool in ("gtsrb", "gtsrb/shifted", "noise", "tinyimagenet", "tinyimagenet/1"):
        cell = Cell(scale="small-cpu", task="gtsrb", pool=pool, victim="tiny", seed=0)
        assert Setup(cell, store=store, folders=folders).pool["detector"].name == "tinyimagenet/train/detector"


def test_a_pool_without_a_part_for_pretraining_is_refused_where_one_is_needed(tmp_path, store):
    write_openimages(tmp_path)
    cell = Cell(scale="small-cpu", task="gtsrb", pool="openimages", victim="tiny", seed=0)
    setup = Setup(cell, store=store, folders={"openimages": tmp_path})
    with pytest.raises(InputError, match="pool openimages has no part for pre-training, which scale 'small-cpu' needs"):
        setup.backbone("tiny")


# -- what is refused ---------------------------------------------------------------


def without(write, path):
    def make(root):
        write(root)
        (root / path).unlink()

    return make


def with_text(write, path, text):
    def make(root):
        write(root)
        (root / path).write_text(text)

    return make


def pickled(root):
    (root / "cifar-10-batches-py").mkdir(parents=True)


def cut_short(root):
    write_cifar10(root)
    file = root / "cifar-10-batches-bin/data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])


CUB = "CUB_200_2011/"
REFUSED = {
    "no such folder": (
        "gtsrb",
        lambda root: None,
        "gtsrb is not available, since .* is not a folder: run extractlib data get gtsrb",
    ),
    "wrong folder": ("gtsrb", write_cub200, "GTSRB/Final_Training/Images is missing"),
    "empty folder": ("openimages", lambda root: root.mkdir(), "has no images: see the page on data"),
    "no split": ("cub200", without(write_cub200, CUB + "train_test_split.txt"), "train_test_split.txt is missing"),
    "split cut short": (
        "cub200",
        with_text(write_cub200, CUB + "train_test_split.txt", "1 1\n2 0\n"),
        "train_test_split.txt has no line for image 3",
    ),
    "half a line": (
        "cub200",
        with_text(write_cub200, CUB + "images.txt", "1\n"),
        "images.txt is not the table it should be",
    ),
    "bird of no class": (
        "cub200",
        with_text(write_cub200, CUB + "image_class_labels.txt", "1 1\n2 1\n3 201\n"),
        "gives image 3 the class '201': expected one of 1 to 2",
    ),
    "no test labels": ("gtsrb", without(write_gtsrb, "GT-final_test.csv"), "GT-final_test.csv is missing"),
    "sign of no class": (
        "gtsrb",
        with_text(write_gtsrb, "GT-final_test.csv", "Filename;ClassId\n00000.ppm;43\n"),
        "gives image 00000.ppm the class '43': expected one of 0 to 1",
    ),
    "another table": (
        "gtsrb",
        with_text(write_gtsrb, "GT-final_test.csv", "Filename;Width\n00000.ppm;8\n"),
        "has no column 'ClassId'",
    ),
    "table cut short": (
        "gtsrb",
        with_text(write_gtsrb, "GT-final_test.csv", "Filename;Width;ClassId\n00000.ppm;8;0\n00001.ppm;8\n"),
        "GT-final_test.csv is cut short in line 3",
    ),
    "grade of no class": (
        "diabetic5",
        with_text(lambda root: root.mkdir(), "trainLabels.csv", "image,level\n10_left,5\n"),
        "gives image 10_left the class '5': expected one of 0 to 4",
    ),
    "no labels": ("diabetic5", lambda root: root.mkdir(), "trainLabels.csv is missing"),
    "too few": (
        "caltech256",
        lambda root: write_caltech256(root, count=25),
        "has 25 images of class 001.ak47: at least 26 are needed",
    ),
    "too few of ImageNet": (
        "imagenet",
        lambda root: write_imagenet(root, count=119),
        "has 119 images of class n01440764: at least 120",
    ),
    "pickles": ("cifar10", pickled, "has CIFAR-10 as pickles, which are not read"),
    "record cut short": ("cifar10", cut_short, "data_batch_3.bin is missing or cut short"),
    "record of no class": (
        "cifar10",
        lambda root: (
            write_cifar10(root, records=11) is None
            or (root / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"\x0a" + bytes(3_072))
        ),
        "test_batch.bin gives image 0 the class '10': expected one of 0 to 9",
    ),
    "image of no class": (
        "tinyimagenet",
        with_text(write_tinyimagenet, "tiny-imagenet-200/val/val_annotations.txt", "val_0.JPEG\tn00000000\t0\n"),
        "gives image val_0.JPEG the class 'n00000000'",
    ),
}


@pytest.mark.parametrize(("name", "make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_as_published_is_one_line(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        listing(name, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown data set 'mnist': use one of caltech256, caltech101, cub200"):
        listing("mnist", tmp_path)


def test_a_layout_is_added_from_outside(tmp_path, store, request):
    request.addfinalizer(lambda: SETS.pop("toys"))

    @register("toys", role="task")
    def toys(root):
        table = pd.DataFrame({"path": [f"{number}.png" for number in range(40)], "class": ["car", "doll"] * 20})
        return Listing(root, ("car", "doll"), {"train": table})

    for number in range(40):
        write_image(tmp_path / "toys" / f"{number}.png", seed=number)
    folders = download.data_folders(tmp_path)
    assert (folders["toys"], Source.parse("toys").in_files) == (tmp_path / "toys", True)
    loader = Loader(store=store, folders=folders)
    parts = loader.task("toys", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 24,
        "detector": 3,
        "adversary": 4,
        "validation": 3,
        "test": 6,
    }
    assert parts["victim"].classes == ("car", "doll")
    assert len(loader.queries("toys/shifted", seed=0)) == 4
    with pytest.raises(InputError, match="there is already a task or pool 'toys': choose another name"):
        register("toys", role="pool")(toys)
    with pytest.raises(InputError, match="unknown role 'toy': use one of task, pool"):
        register("blocks", role="toy")(toys)


def test_a_listed_file_that_is_missing_is_named_and_nothing_is_kept(tmp_path, store):
    write_gtsrb(tmp_path / "gtsrb")
    (tmp_path / "gtsrb/GTSRB/Final_Test/Images/00001.ppm").unlink()
    with pytest.raises(
        InputError,
        match=r"1 of 62 files and empty folders cannot be used, .*Final_Test/Images/00001.ppm' \(it is missing\)",
    ):
        decode(listing("gtsrb", tmp_path / "gtsrb"), name="gtsrb", store=store)
    assert not list(store.root.rglob("*.npy"))


def test_too_little_disk_says_what_is_needed(tmp_path, store, monkeypatch):
    write_cub200(tmp_path / "cub200")
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: decoding.shutil._ntuple_diskusage(9, 9, 8_000))
    with pytest.raises(
        InputError, match="the images of cub200 take 9.2 kB, but .* has 8.0 kB free: free up some, or name"
    ):
        decode(listing("cub200", tmp_path / "cub200"), name="cub200", store=store)
    assert not list(store.root.rglob("*.npy"))


# -- pixels ------------------------------------------------------------------------


def test_cmyk_palette_and_gray_become_rgb(tmp_path):
    red = Image.new("RGB", (40, 40), (254, 0, 0))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    red.quantize(2).save(tmp_path / "palette.png")
    Image.new("RGBA", (40, 40), (254, 0, 0, 255)).save(tmp_path / "opaque.png")
    for file in tmp_path.iterdir():
        pixels = read_image(file, size=32)
        assert np.abs(pixels.reshape(3, -1).astype(int) - [[254], [0], [0]]).max() <= 2, file.name
    Image.new("L", (40, 40), 77).save(tmp_path / "gray.png")
    assert np.unique(read_image(tmp_path / "gray.png", size=32)).tolist() == [77]


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (32, 32), color) for color in ((10, 20, 30), (200, 200, 200))]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / "moving.webp", size=32)[:, 0, 0].tolist() == [10, 20, 30]


def test_a_camera_rotation_is_carried_out(tmp_path):
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16] = 255  # light above
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png", size=32)
    assert turned[0, :, 16:].min() == 255 and turned[0, :, :16].max() == 0


def test_the_suffix_does_not_matter(tmp_path):
    write_image(tmp_path / "picture.png", seed=3, size=32)
    (tmp_path / "picture.png").rename(tmp_path / "picture.jpg")
    expected = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(read_image(tmp_path / "picture.jpg", size=32), expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as an image"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "cannot be read as an image")],
    ids=["empty", "a program"],
)
def test_what_is_no_picture_is_named(tmp_path, content, message):
    (tmp_path / "picture.jpg").write_bytes(content)
    with pytest.raises(InputError, match=f"picture.jpg {message}"):
        read_image(tmp_path / "picture.jpg", size=32)


def test_images_of_all_sizes_come_to_one(tmp_path, store):
    write_folder(tmp_path / "pets", count=2, size=(50, 70))
    write_image(tmp_path / "pets/cats/small.png", size=9)
    images = decode(folder(tmp_path / "pets"), name="folder:pets", store=store, size=24).splits["train"]
    assert images.images.shape == (5, 3, 24, 24)


def test_images_are_mapped_from_the_file_not_read_into_memory(tmp_path, store):
    write_folder(tmp_path / "pets", count=2)
    images = decode(folder(tmp_path / "pets"), name="folder:pets", store=store).splits["train"].images
    [path] = store.root.glob("decoded/*/train.npy")
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([255 - int(images[-1, -1, -1, -1])]))
    changed = torch.from_numpy(np.load(path))[-1, -1, -1, -1]
    assert images[-1, -1, -1, -1] == changed
    # Copy on write: nothing reaches the file.
    images[0] = 7
    assert not (np.load(path)[0] == 7).all()
