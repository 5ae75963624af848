"""Small copies of published sets, in archives of class folders; and the published layouts that stand beside them."""

import hashlib
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from layouts import write_image

from extractlib.data import download, layouts
from extractlib.data.decoding import decode
from extractlib.data.download import CHECKSUMS, SOURCES, Archive, unpack_packs
from extractlib.data.layouts import PACKS, listing
from extractlib.errors import InputError
from extractlib.store import Store

NAME, PACK = "eyepacs", "diabetic5-128.tar.xz"


def write_eyes(root: Path, *, grades: int = 5, tested: int = 5) -> Path:
    """Both eyes of two patients of each grade for training and of one for testing; return the folder."""
    for split, count, first in (("train", grades, 0), ("test", tested, 500)):
        for grade in range(count):
            for patient in range(first, first + (2 if split == "train" else 1)):
                for eye in ("left", "right"):
                    name = f"diabetic5-128/{split}/{grade}/{10 * grade + patient}_{eye}.png"
                    write_image(root / name, seed=100 * grade + patient, size=16)
    return root / "diabetic5-128"


@pytest.fixture
def packs(tmp_path):
    """A folder with the archive of small copies of retinas."""
    folder = tmp_path / "packs"
    folder.mkdir()
    with tarfile.open(folder / PACK, "w:xz") as archive:
        archive.add(write_eyes(tmp_path / "made"), "diabetic5-128")
    return folder


def left(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.iterdir()) if root.exists() else []


# -- archives --------------------------------------------------------------------


def test_small_copies_are_unpacked_once_and_read_by_patient(packs, tmp_path):
    found = unpack_packs(NAME, packs, tmp_path / "data")
    assert found.classes == layouts.DIABETIC_CLASSES
    assert {split: len(table) for split, table in found.splits.items()} == {"train": 20, "test": 10}
    train = found.splits["train"]
    assert train["group"].value_counts().tolist() == [2] * 10
    assert set(train["group"]) == {f"{10 * grade + patient}" for grade in range(5) for patient in (0, 1)}
    assert train.loc[train["path"].str.contains("/3/"), "class"].unique().tolist() == ["Severe"]
    assert left(tmp_path / "data" / NAME) == [".lock", "diabetic5-128"]
    (packs / PACK).unlink()  # what is there is left as it is
    assert len(unpack_packs(NAME, packs, tmp_path / "data").splits["train"]) == 20
    assert download.check(NAME, tmp_path / "data").words == "train 20, test 10"


def test_two_processes_that_unpack_the_same_both_find_it(packs, tmp_path):
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: unpack_packs(NAME, packs, tmp_path / "data"), range(4)))
    assert {len(one.splits["train"]) for one in found} == {20}
    assert left(tmp_path / "data" / NAME) == [".lock", "diabetic5-128"]


def spoil(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


def test_an_archive_that_is_half_there_leaves_nothing(packs, tmp_path):
    spoil(packs / PACK, 0.5)
    with pytest.raises(InputError, match=rf"{PACK} cannot be unpacked \(.*\): get it again") as caught:
        unpack_packs(NAME, packs, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "data" / NAME) in ([".download", ".lock"], [".lock"])
    with pytest.raises(InputError, match="not available|missing|not a folder|eyepacs"):
        listing(NAME, tmp_path / "data" / NAME)


def test_an_archive_that_is_not_that_of_its_checksum_is_not_unpacked(packs, tmp_path):
    good = hashlib.sha256((packs / PACK).read_bytes()).hexdigest()
    (packs / CHECKSUMS).write_text(f"{good}  {PACK}\n")
    unpack_packs(NAME, packs, tmp_path / "first")
    spoil(packs / PACK, 0.9)
    with pytest.raises(InputError, match=f"{PACK} has the SHA-256 .* but {CHECKSUMS} beside it lists another"):
        unpack_packs(NAME, packs, tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gtsrb", "gtsrb-core.tar.xz is missing: gtsrb needs gtsrb-core.tar.xz, gtsrb-rest.tar.xz"),
        ("imagenet", "there are no small copies of imagenet: use one of caltech101, cub2010, eyepacs, gtsrb, cifar10"),
        ("mnist", "unknown data set 'mnist'"),
    ],
)
def test_archives_that_are_not_there_are_named(name, message, packs, tmp_path):
    with pytest.raises(InputError, match=message):
        unpack_packs(name, packs, tmp_path / "data")


def test_an_archive_of_something_else_is_refused(packs, tmp_path):
    with tarfile.open(packs / PACK, "w:xz") as archive:
        archive.add(write_eyes(tmp_path / "made"), "elsewhere")
    with pytest.raises(InputError, match="archives that do not hold diabetic5-128: get them again"):
        unpack_packs(NAME, packs, tmp_path / "data")


def test_small_copies_from_the_command_line(command, packs, tmp_path):
    words = ("data", "get", NAME, "--data", str(tmp_path / "data"), "--from", str(packs))
    status, printed, errors = command(*words)
    assert (status, printed.split()) == (0, ["eyepacs", "complete", "train", "20,", "test", "10"]), errors
    spoil(packs / PACK, 0.5)
    status, _, errors = command("data", "get", NAME, "--data", str(tmp_path / "other"), "--from", str(packs))
    assert status == 2 and "cannot be unpacked" in errors and "Traceback" not in errors


def test_each_archive_unpacks_to_a_set_that_is_known():
    assert {name for name, source in SOURCES.items() if source.packs} == set(PACKS)
    assert {name: pack.classes for name, pack in PACKS.items()} == {name: SOURCES[name].classes for name in PACKS}


# -- class folders ---------------------------------------------------------------------


@pytest.mark.parametrize(("place", "nested"), [("in place of the set's folder", False), ("within it", True)])
def test_small_copies_lie_in_either_place(tmp_path, place, nested):
    folder = write_eyes(tmp_path / NAME)
    assert len(listing(NAME, tmp_path / NAME if nested else folder).splits["test"]) == 10


@pytest.mark.parametrize(
    ("options", "where", "count"),
    [({"grades": 4}, "train", 4), ({"tested": 3}, "test", 3), ({"grades": 6}, "train", 6)],
)
def test_a_class_that_is_missing_is_told_before_anything_is_decoded(options, where, count, tmp_path):
    write_eyes(tmp_path, **options)
    message = f"diabetic5-128/{where} has images of {count} classes, but eyepacs has 5: get it again"
    with pytest.raises(InputError, match=message):
        listing(NAME, tmp_path)


def test_frames_of_a_track_are_one_group(tmp_path, monkeypatch):
    monkeypatch.setitem(layouts.PACKS, "gtsrb", layouts.Pack("gtsrb", 2, group=PACKS["gtsrb"].group))
    for label in ("00000", "00001"):
        for track in (0, 1):
            for frame in (0, 3):
                write_image(tmp_path / "gtsrb" / "train" / label / f"{track:05}_{frame:05}.webp", size=16)
    table = listing("gtsrb", tmp_path).splits["train"]
    assert table["group"].tolist() == [f"{label:05}/{track:05}" for label in (0, 1) for track in (0, 0, 1, 1)]


@pytest.mark.parametrize(("size", "fits"), [(16, True), (15, False)])
def test_images_too_small_to_be_enlarged_are_refused(size, fits, tmp_path):
    for split in ("train", "test"):
        for grade in range(5):
            for patient in (0, 1):
                name = f"diabetic5-128/{split}/{grade}/{10 * grade + patient}_left.png"
                write_image(tmp_path / name, seed=10 * grade + patient, size=size)
    found = listing(NAME, tmp_path)
    if fits:
        assert decode(found, name=NAME, store=Store(tmp_path / "store"), size=128).splits["train"].image_shape[1] == 128
        return
    with pytest.raises(InputError, match="has 15 x 15 pixels: at size 128 at least 16 x 16 are needed"):
        decode(found, name=NAME, store=Store(tmp_path / "store"), size=128)


# -- published layouts --------------------------------------------------------------------


def test_caltech101_drops_clutter_and_the_faces_that_are_there_twice(tmp_path):
    base = tmp_path / "101_ObjectCategories"
    for name, count in {"accordion": 10, "Faces": 13, "Faces_easy": 5, "BACKGROUND_Google": 5}.items():
        for number in range(count):
            write_image(base / name / f"image_{number:04}.jpg", seed=number)
    found = listing("caltech101", tmp_path)
    assert found.classes == ("Faces", "accordion")
    counts = pd.concat(found.splits).groupby(level=0)["class"].value_counts().to_dict()
    assert counts == {
        ("train", "Faces"): 10,
        ("train", "accordion"): 8,
        ("test", "Faces"): 3,
        ("test", "accordion"): 2,
    }
    again = listing("caltech101", tmp_path)
    assert again.index() == found.index()


def test_cub2010_has_its_published_lists(tmp_path):
    names = ["001.Black/a.jpg", "001.Black/b.jpg", "002.Laysan/c.jpg", "002.Laysan/d.jpg"]
    for name in names:
        write_image(tmp_path / "images" / name)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("".join(f"{name}\n" for name in names[::2]))
    (tmp_path / "lists/test.txt").write_text("".join(f"{name}\n" for name in names[1::2]))
    found = listing("cub2010", tmp_path)
    assert found.classes == ("001.Black", "002.Laysan")
    assert found.splits["test"]["path"].tolist() == ["images/001.Black/b.jpg", "images/002.Laysan/d.jpg"]
    (tmp_path / "lists/test.txt").write_text("003.Sooty/e.jpg\n")
    with pytest.raises(InputError, match=r"lists/test.txt gives image 0 the class '003.Sooty'"):
        listing("cub2010", tmp_path)
    (tmp_path / "lists/train.txt").unlink()
    with pytest.raises(InputError, match=r"lists/train.txt is missing: get it again from its source"):
        listing("cub2010", tmp_path)


def test_miniplaces_has_scenes_below_letters(tmp_path):
    names = ["train/a/abbey/00000001.jpg", "train/s/swimming_pool/outdoor/00000002.jpg"]
    for name in names:
        write_image(tmp_path / "images" / name)
    (tmp_path / "train.txt").write_text(f"{names[0]} 0\n{names[1]} 1\n")
    found = listing("miniplaces", tmp_path)
    assert found.classes == ("abbey", "swimming_pool/outdoor")
    assert found.splits["train"]["path"].tolist() == [f"images/{name}" for name in names]


def test_an_archive_within_an_archive_is_unpacked(tmp_path):
    base = tmp_path / "made" / "101_ObjectCategories" / "accordion"
    write_image(base / "image_0001.jpg")
    inner = tmp_path / "101_ObjectCategories.tar.gz"
    with tarfile.open(inner, "w:gz") as archive:
        archive.add(base.parent, "101_ObjectCategories")
    root = tmp_path / "caltech101"
    (root / download.DOWNLOADS).mkdir(parents=True)
    file = root / download.DOWNLOADS / "caltech-101.zip"
    with zipfile.ZipFile(file, "w") as outer:
        outer.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
    [known] = SOURCES["caltech101"].files
    download._unpack(file, root, Archive(known.url, known.holds, 1, known.md5, known.cited, known.inner))
    assert (root / "101_ObjectCategories/accordion/image_0001.jpg").exists()
