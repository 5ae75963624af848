"""Files of a reader's own as they come: companions, odd names, damage, depth, transparency, copies across parts."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layouts import write_caltech256, write_diabetic5, write_gtsrb, write_image, write_tinyimagenet
from PIL import Image
from test_datasets import write_folder

import extractlib as xl
from extractlib.data import layouts, pixels
from extractlib.data.decoding import decode
from extractlib.data.files import COMPANIONS, image_files, is_companion, subfolders
from extractlib.data.pixels import MOST_PIXELS, Allowance, Reading, read_image, read_square
from extractlib.data.sources import Loader, parts_table
from extractlib.data.splits import group_names
from extractlib.data.tables import read_table
from extractlib.errors import DataWarning, InputError
from extractlib.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def read(tmp_path, store):
    """Decode the folder `pets` and return what was read, and what was told."""

    def call(**options):
        size = options.pop("size", 32)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = decode(
                layouts.folder(tmp_path / "pets"), name="pets", store=store, size=size, reading=Reading(**options)
            )
        return found, [str(one.message) for one in told if issubclass(one.category, DataWarning)]

    return call


def noisy(*, seed=0, size=32, mode="RGB"):
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


# -- the listing ---------------------------------------------------------------------

LEFT_BY_SYSTEMS = (
    "._1.png .DS_Store .hidden.png __MACOSX Thumbs.db thumbs.db ehthumbs.db desktop.ini Desktop.ini @eaDir"
    " .ipynb_checkpoints .git .Trashes #recycle $RECYCLE.BIN lost+found 1.png~ ~$1.png ~1.png #1.png# 1.png.bak 1.tmp"
    " .1.png.swp 1.png.part 1.png.crdownload 1.png:Zone.Identifier .directory .picasa.ini __pycache__"
).split()


@pytest.mark.parametrize("name", [*LEFT_BY_SYSTEMS, "Icon\r", "System Volume Information"])
def test_what_systems_and_editors_leave_is_a_companion(name):
    assert is_companion(name)


@given(st.from_regex(r"[a-zäß0-9][a-zäß0-9 _'\"().,+-]{0,20}(\.(png|jpg))?", fullmatch=True))
def test_names_that_people_give_are_none(name):
    assert is_companion(name) == (name.endswith((".bak", ".tmp", ".swp", ".part")))
    assert all(pattern == pattern.lower() for pattern in COMPANIONS)


def test_companions_beside_and_within_class_folders_change_nothing(tmp_path, read):
    write_folder(tmp_path / "pets", count=3)
    clean, _ = read()
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".hidden"):
        write_image(tmp_path / "pets" / name / "1.png", seed=9)
    (tmp_path / "pets" / ".empty").mkdir()
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "0.png~"):
        (tmp_path / "pets" / "cats" / name).write_bytes(b"\0\5\x16\7")
    found, told = read()
    assert found.splits["train"].classes == ("cats", "dogs") and told == []
    assert found.splits["train"].fingerprint == clean.splits["train"].fingerprint


def test_companions_are_passed_over_in_published_layouts(tmp_path):
    write_gtsrb(tmp_path / "gtsrb", tracks=2)
    base = tmp_path / "gtsrb/GTSRB/Final_Training/Images"
    (base / ".ipynb_checkpoints").mkdir()
    (base / "00000" / "._00000_00000.ppm").write_bytes(b"\0\5\x16\7")
    write_caltech256(tmp_path / "caltech256")
    (tmp_path / "caltech256/256_ObjectCategories/__MACOSX").mkdir()
    write_tinyimagenet(tmp_path / "tinyimagenet")
    (tmp_path / "tinyimagenet/tiny-imagenet-200/train/.ipynb_checkpoints").mkdir()
    for name, classes in {"gtsrb": 2, "caltech256": 2, "tinyimagenet": 2}.items():
        found = layouts.listing(name, tmp_path / name)
        assert len(found.classes) == classes and found.empty == ()
        assert not any("/." in path for path in found.files())


def test_images_of_all_suffixes_and_of_none_are_read(tmp_path, read):
    kinds = ("jpg", "jpeg", "jfif", "png", "bmp", "webp", "gif", "tif", "tiff", "avif", "ppm", "pgm", "JPG")
    for number, kind in enumerate(kinds):
        place = tmp_path / "pets" / f"class {number:02}"
        place.mkdir(parents=True)
        noisy(seed=number, mode="L" if kind == "pgm" else "RGB").save(place / f"1.{kind}")
    for number, name in enumerate(("no suffix", "odd.dat"), start=len(kinds)):
        place = tmp_path / "pets" / f"class {number:02}" / name
        place.parent.mkdir()
        noisy(seed=number).save(place, "PNG")
    found, told = read()
    assert len(found.splits["train"].classes) == len(kinds) + 2 and told == []
    assert found.splits["train"].labels.tolist() == list(range(len(kinds) + 2))


def test_images_that_cannot_be_read_are_refused_by_name_and_texts_are_told(tmp_path, read):
    write_folder(tmp_path / "pets", count=2)
    (tmp_path / "pets/cats/notes.txt").write_text("of my cats")
    (tmp_path / "pets/dogs/P4.txt").write_text("P4 is no header here")
    assert read()[1] == ["pets: 2 files that are not images are skipped, starting with cats/notes.txt"]
    (tmp_path / "pets/dogs/9.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"'dogs/9.HEIC' \(.HEIC is a format that is not read: convert it to PNG\)"):
        read()


def test_an_empty_class_is_named_and_can_be_left_out(tmp_path, read):
    write_folder(tmp_path / "pets", count=2)
    (tmp_path / "pets/cows").mkdir()
    (tmp_path / "pets/hens").mkdir()
    (tmp_path / "pets/hens/read me.txt").write_text("no hens yet")
    with pytest.raises(
        InputError, match=r"2 of 6 .*'cows' \(it holds no images\), 'hens' \(it holds no images\): repair"
    ):
        read()
    found, told = read(skip_bad=True)
    assert found.splits["train"].classes == ("cats", "dogs")
    assert "pets: 2 files or empty folders are left out, 'cows' (it holds no images)" in told[1]
    write_gtsrb(tmp_path / "gtsrb")
    (tmp_path / "gtsrb/GTSRB/Final_Training/Images/00002").mkdir()
    assert layouts.listing("gtsrb", tmp_path / "gtsrb").empty == ("GTSRB/Final_Training/Images/00002",)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val", "VALIDATION"])
def test_a_validation_folder_is_the_validation_part(tmp_path, store, name):
    write_folder(tmp_path / "pets" / "train", count=50)
    write_folder(tmp_path / "pets" / name, count=7, seed=1)
    loader = Loader(store=store, folders={"folder:pets": tmp_path / "pets"})
    parts = loader.task("folder:pets", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 68,
        "detector": 8,
        "adversary": 9,
        "test": 15,
        "validation": 14,
    }
    listed = {read_image(file, size=32).tobytes() for file in (tmp_path / "pets" / name).rglob("*.png")}
    assert {image.numpy().tobytes() for image in parts["validation"].images} == listed
    write_folder(tmp_path / "pets" / "Test", count=5, seed=2)
    parts = loader.task("folder:pets", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 80,
        "detector": 10,
        "adversary": 10,
        "validation": 14,
        "test": 10,
    }


def test_folders_of_splits_are_told_from_classes(tmp_path, read):
    write_folder(tmp_path / "pets", classes=("car", "plane", "train", "test"), count=2)
    assert read()[0].splits["train"].classes == ("car", "plane", "test", "train")
    write_folder(tmp_path / "pets" / "train", classes=("a", "b"), count=1)
    assert "train" in read()[0].splits["train"].classes  # it holds images of its own


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "val", "dev"), "has dev and val, which are both for validation: keep one"),
        (("val", "test"), "has val, test but no train: rename the training folder to train"),
    ],
)
def test_splits_that_do_not_fit_are_refused(tmp_path, folders, message):
    for name in folders:
        write_folder(tmp_path / "pets" / name, count=1)
    with pytest.raises(InputError, match=message):
        layouts.folder(tmp_path / "pets")


def test_what_lies_beside_is_told(tmp_path, read):
    write_folder(tmp_path / "pets" / "train", count=2)
    write_folder(tmp_path / "pets" / "test", classes=("cats",), count=2, seed=1)
    write_folder(tmp_path / "pets" / "extra", count=2, seed=2)
    write_image(tmp_path / "pets" / "train" / "loose.png")
    _, told = read()
    assert [re.sub(r"/\S*/", "", one) for one in told] == [
        "pets: folders other than those of the splits are skipped: extra",
        "pets: 1 images in train are not in a class folder and are skipped",
        "pets: test has no images of 1 classes, starting with 'dogs'",
    ]


def test_images_in_folders_of_a_class_are_its_own(tmp_path, read):
    write_folder(tmp_path / "pets" / "cats", classes=("tabby", "black"), count=2)
    write_folder(tmp_path / "pets" / "dogs", classes=("a", "b", "c"), count=2, seed=1)
    images = read()[0].splits["train"]
    assert images.classes == ("cats", "dogs") and Counter(images.labels.tolist()) == {0: 4, 1: 6}


def test_class_names_count_as_one_however_their_accents_are_composed(tmp_path, read):
    write_folder(tmp_path / "pets" / "train", classes=("caf\u00e9", "thé"), count=2)
    write_folder(tmp_path / "pets" / "test", classes=("cafe\u0301", "the\u0301"), count=2, seed=1)
    found = read()[0].splits
    assert found["test"].classes == found["train"].classes == ("caf\u00e9", "th\u00e9")
    assert found["test"].labels.tolist() == [0, 0, 1, 1]


# -- the file system --------------------------------------------------------------------


def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path, read):
    write_folder(tmp_path / "pets", count=2)
    cats = tmp_path / "pets" / "cats"
    os.mkfifo(cats / "pipe.png")
    (cats / "zeros.png").symlink_to("/dev/zero")
    (cats / "itself.png").symlink_to("itself.png")
    (cats / "nowhere.png").symlink_to("gone.png")
    (cats / "nothing.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        read()
    for said in (
        "5 of 9 files",
        "'cats/pipe.png' (it is no regular file)",
        "'cats/zeros.png' (it is no regular file)",
        "'cats/itself.png' (Too many levels of symbolic links)",
        "'cats/nowhere.png' (it is missing)",
        "'cats/nothing.png' (it is empty)",
    ):
        assert said in str(caught.value)
    assert len(read(skip_bad=True)[0].splits["train"]) == 4


def test_links_are_followed_once(tmp_path, read):
    write_folder(tmp_path / "elsewhere", count=3)
    (tmp_path / "pets").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere/cats/again").symlink_to(tmp_path / "elsewhere/cats")
    (tmp_path / "elsewhere/cats/up").symlink_to(tmp_path / "pets")
    images = read()[0].splits["train"]
    # The link upward shows both classes below the cats, once.
    assert Counter(images.labels.tolist()) == {0: 6, 1: 3}


def test_a_file_above_the_limit_is_not_opened(tmp_path, read, monkeypatch):
    write_folder(tmp_path / "pets", count=2)
    with open(tmp_path / "pets/cats/0.png", "r+b") as file:
        file.truncate(13 * MOST_PIXELS)
    with pytest.raises(
        InputError, match=r"'cats/0.png' \(it has 650,000,000 bytes, and at most 601,048,576 are read\)"
    ):
        read()


def test_names_that_are_not_utf8_are_read_and_written_as_they_are(tmp_path, read, command, monkeypatch):
    write_folder(tmp_path / "pets", count=12)
    odd = os.fsdecode(b"caf\xe9")
    os.rename(tmp_path / "pets/cats", tmp_path / "pets" / odd)
    os.rename(tmp_path / "pets" / odd / "0.png", tmp_path / "pets" / odd / os.fsdecode(b"\xff.png"))
    found, _ = read()
    assert found.splits["train"].classes == (odd, "dogs")
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / "cache"))
    words = [sys.executable, "-m", "extractlib", "data", "parts", f"folder:{tmp_path / 'pets'}"]
    done = subprocess.run(words, capture_output=True)  # as bytes, which no text of Python's holds
    assert done.returncode == 0 and b",caf\xe9/\xff.png,caf\xe9," in done.stdout, done.stderr
    (tmp_path / "pets" / odd / "1.png").write_bytes(b"no picture")
    status, _, errors = command("data", "parts", f"folder:{tmp_path / 'pets'}")
    assert status == 2 and "'caf\\udce9/1.png'" in errors and "Traceback" not in errors


def test_names_with_blanks_quotes_and_line_ends_stay_on_one_line(tmp_path, read):
    write_folder(tmp_path / "pets", classes=('it\'s a "cat"', "line\nend"), count=2)
    assert read()[0].splits["train"].classes == ('it\'s a "cat"', "line\nend")
    (tmp_path / "pets" / "line\nend" / "0.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        read()
    assert "\n" not in str(caught.value)


# -- damage ---------------------------------------------------------------------------


def test_all_bad_files_are_named_at_once_and_can_be_left_out(tmp_path, read):
    write_folder(tmp_path / "pets", count=10)
    clean, _ = read()
    bad = ["cats/3.png", "cats/7.png", "dogs/0.png", "dogs/1.png", "dogs/9.png"]
    kept = [path for path in clean.tables["train"]["path"] if path not in bad]
    for path in bad:
        file = tmp_path / "pets" / path
        file.write_bytes(b"" if path == bad[0] else file.read_bytes()[:99] if path == bad[1] else b"no picture")
    with pytest.raises(InputError) as caught:
        read()
    assert "5 of 20 files and empty folders cannot be used" in str(caught.value)
    assert all(f"'{path}' (" in str(caught.value) for path in bad) and "BytesIO" not in str(caught.value)
    found, told = read(skip_bad=True)
    assert len(told) == 1 and told[0].startswith("pets: 5 files or empty folders are left out, 'cats/3.png' (it is em")
    assert found.tables["train"]["path"].tolist() == kept
    assert found.splits["train"].labels.tolist() == [0] * 8 + [1] * 7
    chosen = [path not in bad for path in clean.tables["train"]["path"]]
    assert torch.equal(found.splits["train"].images, clean.splits["train"].images[torch.tensor(chosen)])
    with pytest.raises(InputError, match="5 of 20 files"):  # what was left out is not forgotten
        read()


def test_a_message_names_fifty_files_and_counts_the_rest(tmp_path, read):
    write_folder(tmp_path / "pets", count=40)
    for file in (tmp_path / "pets").rglob("*.png"):
        if file.name != "0.png":
            file.write_bytes(b"no picture")
    with pytest.raises(InputError, match="78 of 80 files .* 28 more: repair") as caught:
        read()
    assert len(re.findall(r"'(cats|dogs)/\d+\.png'", str(caught.value))) == 50


def test_a_class_or_a_split_that_keeps_no_image_is_refused(tmp_path, read):
    write_folder(tmp_path / "pets" / "train", count=2)
    write_folder(tmp_path / "pets" / "test", count=1, seed=1)
    (tmp_path / "pets/train/dogs/0.png").write_bytes(b"")
    (tmp_path / "pets/train/dogs/1.png").write_bytes(b"no picture")
    with pytest.raises(
        InputError, match="no image of class 'dogs' in train can be read: repair one, or drop the class"
    ):
        read(skip_bad=True)
    write_image(tmp_path / "pets/train/dogs/2.png", seed=5)
    for name in ("cats", "dogs"):
        (tmp_path / "pets/test" / name / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match="no image of test can be read"):
        read(skip_bad=True)


def test_a_listed_file_that_is_missing_can_be_left_out(tmp_path, store):
    write_diabetic5(tmp_path / "diabetic5")
    (tmp_path / "diabetic5/train/7_left.jpeg").unlink()
    found = layouts.listing("diabetic5", tmp_path / "diabetic5")
    with pytest.raises(InputError, match=r"1 of 1,010 .* 'train/7_left.jpeg' \(it is missing\)"):
        decode(found, name="diabetic5", store=store, size=8)
    with pytest.warns(DataWarning, match="1 files or empty folders are left out, 'train/7_left.jpeg'"):
        images = decode(found, name="diabetic5", store=store, size=8, reading=Reading(skip_bad=True))
    assert sum(map(len, images.splits.values())) == 1_009


def test_a_damaged_tiff_says_nothing_on_the_error_stream(tmp_path, read, capfd):
    write_folder(tmp_path / "pets", count=2)
    noisy(size=64).save(tmp_path / "pets/cats/2.tif", compression="tiff_deflate")
    file = tmp_path / "pets/cats/2.tif"
    data = bytearray(file.read_bytes())
    data[200:260] = bytes(60)
    file.write_bytes(data)
    with pytest.raises(InputError, match="'cats/2.tif'"):
        read()
    assert "Decod" not in capfd.readouterr().err


# -- pixels ---------------------------------------------------------------------------


def png(values):
    """A PNG of 16 bits a channel, of values of shape (height, width, channels)."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def transparent():
    """Left half: black, opaque. Right half: black, fully transparent. The first row: red, alpha 128."""
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 16, 32))
    picture.paste((255, 0, 0, 128), (0, 0, 32, 1))
    return picture


@pytest.mark.parametrize(
    ("ground", "right", "mixed"),
    [("white", (255,) * 3, (255, 127, 127)), ("black", (0,) * 3, (128, 0, 0)), ("#0a0b0c", (10, 11, 12), (133, 5, 6))],
)
@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
def test_transparency_is_laid_over_the_ground(tmp_path, kind, ground, right, mixed):
    options = {"lossless": True, "exact": True} if kind == "webp" else {}
    transparent().save(tmp_path / f"1.{kind}", **options)
    found = read_image(tmp_path / f"1.{kind}", size=32, reading=Reading(ground=ground))
    assert tuple(found[:, 9, 4]) == (0, 0, 0) and tuple(found[:, 9, 30]) == right
    assert np.abs(found[:, 0, 4].astype(int) - mixed).max() <= 1


def test_transparency_of_gray_and_of_palettes_is_laid_over_white(tmp_path):
    gray = Image.merge("LA", (Image.new("L", (32, 32), 9), Image.new("L", (32, 32), 0)))
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    gray.save(tmp_path / "gray.png")
    palette.save(tmp_path / "palette.png", transparency=1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    Image.new("RGB", (32, 32), (7, 7, 7)).save(tmp_path / "key.png", transparency=(7, 7, 7))
    for file in tmp_path.iterdir():
        assert np.unique(read_image(file, size=32)).tolist() == [255], file.name
    palette.save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "opaque.png", size=32)[:, 3, 3].tolist() == [10, 20, 30]


def test_black_letters_on_a_transparent_ground_are_seen_and_unseen_ones_refused(tmp_path, read):
    for number, name in enumerate("ab"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(30):
            picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
            picture.paste((0, 0, 0, 255), (index // 2, 3 * number, index // 2 + 9, 3 * number + 5 + index % 2))
            picture.save(tmp_path / "pets" / name / f"{index}.png")
    images = read()[0].splits["train"].images
    assert images.float().mean() > 200 and (images == 0).any()
    with pytest.raises(
        InputError, match="all 60 images of train are identical once they are read: if they are transparent"
    ):
        read(ground="black")


@pytest.mark.parametrize("color", ["", "sky", "#12", "#11223344", None, 7])
def test_a_ground_that_is_no_color_is_refused(color):
    with pytest.raises(InputError, match="unknown color .*: write white, black or #RRGGBB"):
        Reading(ground=color)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_scaled_by_the_range_of_the_file(tmp_path, channels):
    values = np.random.default_rng(0).integers(100, 4_001, (32, 32, channels))
    values.flat[: 2 * channels] = [100] * channels + [4_000] * channels
    if channels in (2, 4):
        values[:, :, -1] = 65_535
    (tmp_path / "1.png").write_bytes(png(values))
    colors = values[:, :, : 3 if channels > 2 else 1]
    expected = ((colors - 100) / 3_900 * 255).round().transpose(2, 0, 1)
    assert np.array_equal(read_image(tmp_path / "1.png", size=32), np.broadcast_to(expected, (3, 32, 32)))
    with open(tmp_path / "1.png", "rb") as file:  # and from an open file
        assert np.array_equal(read_image(file, size=32), np.broadcast_to(expected, (3, 32, 32)))


def test_16_bits_of_one_value_keep_their_high_eight(tmp_path):
    for channels in (1, 3):
        (tmp_path / "1.png").write_bytes(png(np.full((32, 32, channels), 0x4D80)))
        assert np.unique(read_image(tmp_path / "1.png", size=32)).tolist() == [0x4D]


def test_alpha_of_16_bits_is_laid_over_white(tmp_path):
    values = np.zeros((32, 32, 4), dtype=int)
    values[:, :, 0], values[0, 0, 1] = 4_000, 1
    values[16:, :, 3] = 65_535
    (tmp_path / "1.png").write_bytes(png(values))
    found = read_image(tmp_path / "1.png", size=32)
    assert found[:, 3, 3].tolist() == [255, 255, 255] and found[:, 20, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_deep_tiffs_are_scaled_likewise(tmp_path, mode):
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    values = np.linspace(0, 4_095, 1_024).reshape(32, 32).astype(kind)
    Image.frombytes(mode, (32, 32), values.tobytes()).save(tmp_path / "1.tif")
    expected = (values.astype(np.float32) / 4_095 * 255).round()
    assert np.abs(read_image(tmp_path / "1.tif", size=32)[0] - expected).max() == 0


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = np.full((32, 32), np.nan, dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "1.tif")
    with pytest.raises(InputError, match=r"1.tif cannot be read as an image \(its values are not all finite\)"):
        read_image(tmp_path / "1.tif", size=32)


def deep_tiff(values):
    """A TIFF in colors of 16 bits a channel, uncompressed."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    end = 8 + len(data)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, end + 2 + 10 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", end) + data + struct.pack("<H", 10) + entries + bytes(4) + b"\x10\0" * 3


def test_a_tiff_in_colors_that_would_come_out_black_is_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 65_536, (32, 32, 3))
    (tmp_path / "1.tif").write_bytes(deep_tiff(values))
    assert np.array_equal(read_image(tmp_path / "1.tif", size=32), (values >> 8).transpose(2, 0, 1))
    (tmp_path / "1.tif").write_bytes(deep_tiff(values >> 4))
    with pytest.raises(InputError, match="its colors use few of their 16 bits: save it with 8 bits, or as PNG"):
        read_image(tmp_path / "1.tif", size=32)


def test_that_images_are_scaled_is_said_once(tmp_path, read):
    write_folder(tmp_path / "pets", count=2)
    for index in range(3):
        values = np.random.default_rng(index).integers(0, 4_096, (32, 32, 1))
        (tmp_path / f"pets/cats/deep {index}.png").write_bytes(png(values))
    assert read()[1] == ["pets: 3 images have more than 8 bits per channel; each is scaled by its own range"]


def jpeg(width, height, **options):
    file = io.BytesIO()
    base = noisy(size=64).resize((width, height), Image.Resampling.BILINEAR)
    base.save(file, "JPEG", quality=90, **options)
    file.seek(0)
    return file


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    file = jpeg(2_048, 1_536)
    square, _ = read_square(file, size=32)
    assert square.size == (384, 384)  # a quarter: an eighth would be less than 256
    assert read_square(file, size=128)[0].size == (384, 384)
    assert read_square(file, size=224)[0].size == (768, 768)
    assert read_square(file, size=500)[0].size == (1_536, 1_536)
    full = np.asarray(Image.open(file).crop((256, 0, 1_792, 1_536)).resize((32, 32), Image.Resampling.BICUBIC))
    apart = np.abs(read_image(file, size=32).astype(int) - full.transpose(2, 0, 1))
    assert apart.mean() < 1.5 and apart.max() <= 16


def test_a_picture_of_50_megapixels_is_read_and_the_limit_is_an_option(tmp_path):
    Image.new("RGB", (8_192, 6_144), (9, 8, 7)).save(tmp_path / "phone.jpg", progressive=False)
    assert read_image(tmp_path / "phone.jpg", size=32)[:, 0, 0].sum() in range(22, 27)
    Image.new("1", (8_192, 6_144)).save(tmp_path / "scan.png")
    with pytest.raises(InputError, match="it has 8192 x 6144 pixels, but at most 50,000,000 are allowed, at 12 bytes"):
        read_image(tmp_path / "scan.png", size=32)
    assert read_image(tmp_path / "scan.png", size=8, reading=Reading(most_pixels=51_000_000)).max() == 0


def test_a_progressive_jpeg_counts_whole():
    limit = Reading(most_pixels=1_000_000)
    assert read_image(jpeg(1_200, 1_000), size=32, reading=limit).shape == (3, 32, 32)
    with pytest.raises(InputError, match="it has 1200 x 1000 pixels, but at most 1,000,000 are allowed"):
        read_image(jpeg(1_200, 1_000, progressive=True), size=32, reading=limit)


@pytest.mark.parametrize("number", [0, -1, True, 1.5, None, "9", 178_956_971, 2**70])
def test_a_limit_of_pixels_that_is_none_is_refused(number):
    with pytest.raises(InputError, match="number of pixels is .*: expected a whole number from 1 to 178,956,970"):
        Reading(most_pixels=number)


def test_threads_share_one_allowance_of_memory():
    allowance, held, most = Allowance(100), [0], [0]
    alone = []
    lock = threading.Lock()

    def take(size):
        with allowance.take(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
                if size > 100:
                    alone.append(held[0])
            threading.Event().wait(0.002)
            with lock:
                held[0] -= size

    threads = [threading.Thread(target=take, args=(size,)) for size in [40, 60, 10, 100, 250] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone == [250] * 8  # more than there is goes alone
    assert most[0] == 250 and held[0] == 0


def test_decoding_takes_from_the_allowance(tmp_path, monkeypatch):
    asked = []

    class Noted(Allowance):
        def take(self, size):
            asked.append(size)
            return super().take(size)

    monkeypatch.setattr(pixels, "ALLOWANCE", Noted(10))
    read_image(jpeg(2_048, 1_536), size=32)
    noisy(size=50).save(tmp_path / "1.png")
    read_image(tmp_path / "1.png", size=32)
    assert asked == [12 * 512 * 384, 12 * 50 * 50]


# -- tables ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("sep", [",", ";", "\t", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_are_read_in_any_common_encoding_and_with_any_separator(tmp_path, encoding, sep, end):
    lines = [["image", "level", "note"], ["Köln_1", "3", "ä"], ["b", "0", "–" if encoding != "latin-1" else "-"]]
    (tmp_path / "t.csv").write_bytes((end.join(sep.join(line) for line in lines) + end).encode(encoding))
    found = read_table(tmp_path / "t.csv", ("level", "image"))
    assert found.to_dict("list") == {"level": ["3", "0"], "image": ["Köln_1", "b"]}


def test_quoted_and_padded_headers_are_understood(tmp_path):
    (tmp_path / "t.csv").write_text('"image" ; "level"\n"a;b";"1"\n')
    assert read_table(tmp_path / "t.csv", ("image", "level")).to_dict("list") == {"image": ["a;b"], "level": ["1"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not the table it should be"),
        (b"\xff\xfea", "is not text in utf-16-le, although its first bytes say so: save it as UTF-8"),
        (b"image,level\n", "has no column 'image', or no rows"),
        (b"image|grade\na|1\n", "has no column 'level', or no rows"),
        (b"image,level\na,1\nb\n", "is cut short in line 3|is not the table"),
        (bytes(range(256)), "t.csv"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path, data, message):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "t.csv", ("image", "level"))
    assert "\n" not in str(caught.value) and "t.csv" in str(caught.value)


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    (tmp_path / "z.csv").symlink_to("/dev/zero")
    for name in ("t.csv", "z.csv"):
        with pytest.raises(InputError, match=f"{name} is not a regular file"):
            read_table(tmp_path / name, ("image",))


def test_a_label_table_saved_by_a_spreadsheet_is_read(tmp_path):
    write_diabetic5(tmp_path)
    expected = layouts.listing("diabetic5", tmp_path)
    file = tmp_path / "trainLabels.csv"
    file.write_bytes(file.read_text().replace(",", ";").encode("utf-16"))
    found = layouts.listing("diabetic5", tmp_path)
    assert found.index() == expected.index()


# -- what is never parted, and what is alike all the same ----------------------------------


def frames(path, *, recordings=12, count=10, classes=("left", "right")):
    """Recordings whose frames slowly move: no near-duplicates, and yet of one thing."""
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for recording in range(recordings):
            scene = np.random.default_rng(1_000 * label + recording).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            wide = Image.fromarray(scene).resize((128, 64), Image.Resampling.BICUBIC)
            for frame in range(count):
                wide.crop((2 * frame, 0, 2 * frame + 64, 64)).save(path / name / f"{recording:03}_{frame:03}.png")
    return path


def loader_of(path, store, **options):
    return Loader(store=store, folders={"folder:pets": path}, reading=Reading(**options))


def recordings_of(table):
    return table["class"] + "/" + table["path"].str.extract(r"/(\d+)_")[0]


@pytest.mark.parametrize("how", ["pattern", "table"])
def test_recordings_stay_together_by_a_pattern_or_a_table(tmp_path, store, how):
    pets = frames(tmp_path / "pets")
    group = r"(\w+)/(\d+)_"
    if how == "table":
        listed = sorted(file.relative_to(pets).as_posix() for file in pets.rglob("*.png"))
        rows = pd.DataFrame({"path": listed, "group": [path.rpartition("_")[0] for path in listed]})
        group = str(tmp_path / "groups.csv")
        rows.to_csv(group, index=False, sep=";", encoding="utf-8-sig")
    table, found = parts_table(loader_of(pets, store, group=group), "folder:pets", seed=0)
    parts = table.assign(recording=recordings_of(table)).groupby("recording")["part"].nunique()
    assert len(parts) == 24 and set(parts) == {1}
    assert found.grouped == 0 and table["group"].nunique() == 24
    with pytest.warns(DataWarning, match=r"of \d+ test images, .* say what belongs together with group=… \(--group\)"):
        table, found = parts_table(loader_of(pets, store), "folder:pets", seed=0)
    parts = table.assign(recording=recordings_of(table)).groupby("recording")["part"].nunique()
    assert (parts > 1).mean() > 0.9 and found.alike / found.images > 0.5 and found.copies == 0


def test_groups_by_hand(tmp_path):
    paths = ["a/1_x.png", "a/1_y.png", "b/1_x.png", "other.png"]
    assert group_names(paths, r"\d+(?=_)") == ["1", "1", "1", "other.png"]
    assert group_names(paths, r"(\w)/(\d+)_") == ["a/1", "a/1", "b/1", "other.png"]
    (tmp_path / "g.csv").write_text("path,group\na/1_x.png,one\nb/1_x.png,one\n")
    assert group_names(paths, str(tmp_path / "g.csv")) == ["one", "a/1_y.png", "one", "other.png"]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("(", r"'\(' is not a valid pattern \(missing \)"),
        ("track", r"'track' matches none of 4 images, starting with 'cats/0.png': correct it"),
        ("/no/such.csv", "/no/such.csv is missing"),
    ],
)
def test_groups_that_fit_nothing_are_refused(tmp_path, store, group, message):
    write_folder(tmp_path / "pets", count=2)
    with pytest.raises(InputError, match=message):
        loader_of(tmp_path / "pets", store, group=group).task("folder:pets", seed=0)


def test_images_that_fit_no_group_are_counted(tmp_path, store):
    pets = frames(tmp_path / "pets", recordings=20)
    write_image(pets / "left" / "alone.png", seed=5)
    with pytest.warns(DataWarning, match="1 images match no group of '.*', and each is its own group"):
        loader_of(pets, store, group=r"(\w+)/(\d+)_").task("folder:pets", seed=0)


def test_test_images_that_are_copies_of_training_images_are_counted_and_left_out(tmp_path, store):
    write_folder(tmp_path / "pets" / "train", count=50, size=(48, 48))
    write_folder(tmp_path / "pets" / "test", count=20, size=(48, 48), seed=1)
    for index in range(15):  # saved again, and brighter
        picture = Image.open(tmp_path / f"pets/train/cats/{index}.png").resize((40, 40), Image.Resampling.BICUBIC)
        brighter = picture.point(lambda level: min(255, round(1.08 * level)))
        brighter.save(tmp_path / f"pets/test/cats/copy {index}.jpg", quality=90)
    with pytest.warns(
        DataWarning, match=r"of 55 test images, (\d+) \(\d+\.\d%\) have a near-duplicate among the victim"
    ):
        table, found = parts_table(loader_of(tmp_path / "pets", store), "folder:pets", seed=0)
    victims = set(table[table["part"] == "victim"]["path"])
    among = sum(f"train/cats/{index}.png" in victims for index in range(15))
    assert found.images == 55 and among - 1 <= found.copies <= among
    kept = loader_of(tmp_path / "pets", store, drop_copies=True)
    table, found = parts_table(kept, "folder:pets", seed=0)
    left = set(table[table["part"] == "test"]["path"])
    assert found.copies == 0 and sum("copy" not in path for path in left) == 40 and len(left) <= 41
    assert len(kept.task("folder:pets", seed=0)["test"]) == len(left)


def test_a_patient_in_both_halves_is_counted_and_left_out(tmp_path, store, monkeypatch):
    monkeypatch.setattr(layouts, "DIABETIC_TEST", 50)
    write_diabetic5(tmp_path)
    loader = Loader(store=store, image_size=8, folders={"diabetic5": tmp_path})
    with pytest.warns(DataWarning, match=r"(\d+) \(\d+\.\d%\) share a group with one of them"):
        table, found = parts_table(loader, "diabetic5", seed=0)
    patients = table["path"].str.extract("train/(.*)_")[0]
    victims = set(patients[table["part"] == "victim"])
    assert found.grouped == patients[table["part"] == "test"].isin(victims).sum() > 0
    dropped = Loader(store=store, image_size=8, folders={"diabetic5": tmp_path}, reading=Reading(drop_copies=True))
    table, found = parts_table(dropped, "diabetic5", seed=0)
    assert found.grouped == found.copies == 0 and 0 < found.images < 250


def skies(count, *, kind):
    """Smooth pictures, no two alike."""
    generator, pictures = np.random.default_rng(0), []
    rows = (np.arange(64) / 63)[:, None, None]
    for _ in range(count):
        first, last = generator.uniform(60, 255, (2, 3))
        values = first + (last - first) * (rows if kind == "gradient" else 0 * rows)
        pictures.append(Image.fromarray(np.broadcast_to(values, (64, 64, 3)).round().astype(np.uint8)))
    return pictures


@pytest.mark.parametrize("kind", ["gradient", "flat"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_smooth_pictures_are_told_apart_and_their_copies_are_not(tmp_path, store, kind, suffix):
    for number, picture in enumerate(skies(180, kind=kind)):
        place = tmp_path / "pets" / "ab"[number % 2] / f"{number}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)
        if number < 20:
            picture.save(place.with_name(f"copy {number}.png"))
    table, _ = parts_table(loader_of(tmp_path / "pets", store), "folder:pets", seed=0)
    assert table["group"].value_counts().max() <= 3
    assert table["part"].value_counts()["victim"] in range(105, 130)
    if suffix == "png":
        groups = table.assign(number=table["path"].str.extract(r"(\d+)\.")[0]).groupby("number")["group"].agg(list)
        assert sum(len(one) == 2 for one in groups) == 20 and all(len(set(one)) == 1 for one in groups)


def test_a_part_that_gets_no_image_says_why(tmp_path, store):
    write_folder(tmp_path / "pets", classes=("cats", "dogs"), count=1)
    for number in range(30):  # all but two are one picture
        noisy(size=40).save(tmp_path / f"pets/cats/{number}.jpg", quality=70 + number % 20)
    parts = loader_of(tmp_path / "pets", store).task("folder:pets", seed=0)
    with pytest.raises(InputError, match="folder:pets: no image is left for part '.*', since images that look alike"):
        list(parts.values())


def test_the_cut_is_one_for_all_sizes(tmp_path, store):
    pets = write_folder(tmp_path / "pets", count=40, size=(50, 50))
    for number in range(10):
        Image.open(pets / f"cats/{number}.png").save(pets / f"cats/copy {number}.jpg", quality=85)
    tables = [
        parts_table(Loader(store=store, image_size=size, folders={"folder:pets": pets}), "folder:pets", seed=0)[0]
        for size in (8, 32)
    ]
    assert tables[0].equals(tables[1]) and tables[0]["group"].duplicated().sum() == 10


def test_a_class_that_the_victim_never_sees_is_told(tmp_path, store):
    write_folder(tmp_path / "pets", classes=("cats", "dogs"), count=40)
    for number in range(3):
        noisy(seed=99, size=40).save(tmp_path / f"pets/cows {number}.png")
    (tmp_path / "pets/cows").mkdir()
    for number in range(3):
        os.rename(tmp_path / f"pets/cows {number}.png", tmp_path / f"pets/cows/{number}.png")
    told = []
    for seed in range(8):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            parts = loader_of(tmp_path / "pets", store).task("folder:pets", seed=seed)
        seen = parts["victim"].classes.index("cows") in parts["victim"].labels
        told.append(seen)
        missing = "1 classes have no image among the victim's, starting with 'cows'"
        assert any(missing in str(one.message) for one in found) != seen
    assert set(told) == {True, False}


def test_what_a_pool_leaves_out_is_told(tmp_path, store):
    write_folder(tmp_path / "pets" / "train", count=60)
    write_folder(tmp_path / "pets" / "test", count=5, seed=1)
    with pytest.warns(DataWarning, match="a pool is cut from train, leaving out test"):
        loader_of(tmp_path / "pets", store).pool("folder:pets", seed=0)


# -- by command and by call ----------------------------------------------------------------


def test_options_of_files_are_refused_where_nothing_lies_in_files(command):
    for words in (["attack", "--task", "signs"], ["run", "reproduction", "--scale", "smoke"]):
        for option in (["--skip-bad"], ["--group", "x"], ["--ground", "black"], ["--drop-copies"]):
            status, printed, errors = command(*words, *option)
            assert (status, printed) == (2, "")
            assert f"{option[0]} is for images in files, but signs is drawn: leave it out" in errors


def test_the_options_reach_the_files(command, tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / "cache"))
    pets = frames(tmp_path / "pets", recordings=20)
    (pets / "left" / "bad.png").write_bytes(b"no picture")
    task = f"folder:{pets}"
    status, printed, errors = command("data", "parts", task)
    assert (status, printed) == (2, "") and "'left/bad.png'" in errors and "--skip-bad" in errors
    status, printed, errors = command("data", "parts", task, "--skip-bad", "--group", r"(\w+)/(\d+)_")
    assert status == 0 and len(printed.splitlines()) == 401
    assert f"extractlib: {task}: 1 files or empty folders are left out, 'left/bad.png'" in errors
    assert re.search(rf"{task}: of \d+ test images, 0 \(0\.0%\) have a near-duplicate among the victim's", errors)
    pool = f"folder:{frames(tmp_path / 'others', recordings=20)}"
    words = ["--task", task, "--pool", pool, "--skip-bad", "--group", r"(\w+)/(\d+)_", "--budget", "30"]
    run = ["run", "reproduction", "--scale", "smoke", "--network", "tiny", "--output", str(tmp_path / "rows.jsonl")]
    status, printed, errors = command(*run, *words)
    assert status == 0, errors
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    parts = xl.load(pets, store=Store(tmp_path / "cache"), reading=Reading(skip_bad=True, group=r"(\w+)/(\d+)_"))
    assert row["provenance"]["data"]["victim"] == parts.victim.fingerprint
    small = ["--network", "tiny", "--surrogate", "tiny", "--scratch"]
    status, printed, errors = command("attack", *words, *small)
    assert status == 0 and printed.startswith("30 queries: "), errors
    status, printed, errors = command("attack", *words[:4], *small)
    assert (status, printed) == (2, "") and "'left/bad.png'" in errors


def test_what_was_decoded_otherwise_is_another_set(tmp_path, read):
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(2):
            picture = noisy(seed=index + 5 * (name == "dogs"), mode="RGBA")
            picture.putalpha(100)
            picture.save(tmp_path / "pets" / name / f"{index}.png")
    prints = {
        read(**options)[0].splits["train"].fingerprint
        for options in ({}, {"ground": "black"}, {"size": 24}, {"ground": "black", "size": 24})
    }
    assert len(prints) == 4
    (tmp_path / "pets/dogs/0.png").rename(tmp_path / "pets/dogs/9.png")
    assert read()[0].splits["train"].fingerprint not in prints


def test_listing_and_subfolders_by_hand(tmp_path):
    for path in ("b/1.png", "b/in/2.jpg", "a.png", ".c/3.png", "text.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    assert subfolders(tmp_path) == ["b"]
    assert (image_files(tmp_path).images, image_files(tmp_path).others) == (["a.png"], ["text.txt"])
    assert image_files(tmp_path, deep=True).images == ["a.png", "b/1.png", "b/in/2.jpg"]
    with pytest.raises(InputError, match="a.png cannot be listed .*Not a directory"):
        subfolders(tmp_path / "a.png")


def test_a_folder_may_be_named_from_home(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets", count=20)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store(tmp_path / "cache")
    named = [xl.load(place, store=store).victim.fingerprint for place in (tmp_path / "pets", "~/pets", "folder:~/pets")]
    assert len(set(named)) == 1
