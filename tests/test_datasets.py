"""Image folders: their layout, their parts, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

from extractbook.reproduction.scales import scale
from extractlib.data import decoding
from extractlib.data.decoding import decode, read_image
from extractlib.data.groups import near_duplicate_groups
from extractlib.data.layouts import folder
from extractlib.data.sources import noise, pool_parts, query_images, split_task, task_parts
from extractlib.errors import InputError
from extractlib.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def write_folder(path, *, classes=("cats", "dogs"), count=20, size=(32, 32), seed=0):
    """Write `count` noisy PNG files a class, the classes of different mean brightness."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(50 * number, 50 * number + 100, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{index}.png")
    return path


def test_pixels_and_labels_of_a_folder(tmp_path, store):
    pets = write_folder(tmp_path / "pets", count=3)
    images = decode(folder(pets), name="folder:pets", store=store).splits["train"]
    assert images.classes == ("cats", "dogs")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = np.asarray(Image.open(pets / "cats" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(images.images[0].numpy(), first)


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(tmp_path, store, monkeypatch):
    pets = write_folder(tmp_path / "pets", count=3)
    first = decode(folder(pets), name="folder:pets", store=store).splits["train"]
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_image", lambda *_, **__: pytest.fail("decoded a second time"))
        again = decode(folder(pets), name="folder:pets", store=store).splits["train"]
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.images, first.images)
    Image.new("RGB", (32, 32), (9, 9, 9)).save(pets / "cats" / "0.png")
    changed = decode(folder(pets), name="folder:pets", store=store).splits["train"]
    assert changed.fingerprint != first.fingerprint
    assert changed.images[0].unique().tolist() == [9]


def test_a_published_test_split_is_kept_whole(tmp_path, store):
    write_folder(tmp_path / "pets" / "train", count=50)
    write_folder(tmp_path / "pets" / "test", count=4, seed=1)
    parts = split_task(decode(folder(tmp_path / "pets"), name="folder:pets", store=store), seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 70,
        "detector": 10,
        "adversary": 10,
        "validation": 10,
        "test": 8,
    }


def test_without_one_a_test_part_is_cut(tmp_path, store):
    write_folder(tmp_path / "pets", count=100)
    parts = split_task(decode(folder(tmp_path / "pets"), name="folder:pets", store=store), seed=0)
    assert sum(map(len, parts.values())) == 200
    assert len(parts["test"]) == 30


def test_wide_pictures_are_cut_to_their_center(tmp_path):
    pixels = np.zeros((64, 192, 3), dtype=np.uint8)
    pixels[:, 64:128] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", size=32) >= 199).all()


def test_near_duplicates_share_a_group():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    brighter = images[:1] + 20
    group = near_duplicate_groups(torch.cat([images, brighter]))
    assert group[4] == group[0]
    assert len(set(group.tolist())) == 4


def corrupt(path):
    write_folder(path, count=2)
    (path / "cats" / "0.png").write_bytes(b"no picture")


def cut_short(path):
    write_folder(path, count=2)
    file = path / "dogs" / "1.png"
    file.write_bytes(file.read_bytes()[:-700])


def huge(path):
    write_folder(path, count=2)
    Image.new("1", (10_000, 10_000)).save(path / "cats" / "0.png")


def strange_test(path):
    write_folder(path / "train", count=2)
    write_folder(path / "test", classes=("cats", "cows"), count=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is no folder"),
        (lambda path: path.mkdir(), "has no images in class folders"),
        (lambda path: write_folder(path, classes=("cats",)), r"images of one class only \(cats\)"),
        (corrupt, r"cats/0.png cannot be read as an image"),
        (cut_short, r"dogs/1.png cannot be read as an image"),
        (huge, r"10000 x 10000 pixels: at most 50,000,000"),
        (strange_test, "has a class 'cows' that .* lacks"),
    ],
    ids=["missing", "empty", "one class", "corrupt", "cut short", "huge", "test class"],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, store, make, message):
    make(tmp_path / "pets")
    with pytest.raises(InputError, match=message) as caught:
        decode(folder(tmp_path / "pets"), name="folder:pets", store=store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "name", "at", "message"),
    [
        (task_parts, "sign", "drawn", "unknown task 'sign'"),
        (task_parts, "birds", "smoke", "profile 'smoke' has no task 'birds': use one of signs, objects"),
        (task_parts, "folder:pets", "drawn", "folder:pets is not at hand"),
        (pool_parts, "atlantis", "drawn", "unknown pool 'atlantis'"),
        (pool_parts, "atlas", "small-cpu", "profile 'small-cpu' has no pool 'atlas'"),
    ],
)
def test_unknown_names_are_refused(store, load, name, at, message):
    with pytest.raises(InputError, match=message):
        load(name, scale(at), seed=0, store=store)


def test_only_the_pretraining_part_of_a_pool_keeps_its_labels(tmp_path, store):
    photos = write_folder(tmp_path / "photos", count=100)
    parts = pool_parts("folder:photos", scale("small-cpu"), seed=0, store=store, folders={"folder:photos": photos})
    assert {part: len(images) for part, images in parts.items()} == {
        "pretraining": 98,
        "queries": 82,
        "detector": 10,
        "validation": 5,
        "test": 5,
    }
    assert [part for part, images in parts.items() if images.labels is not None] == ["pretraining"]


# -- what an attacker sends ------------------------------------------------------


@pytest.fixture
def query(tmp_path):
    def call(name: str, **options):
        return query_images(name, scale("smoke"), seed=0, store=Store(tmp_path), **options)

    return call


@pytest.mark.parametrize(
    ("name", "shown", "count"),
    [
        ("atlas", "atlas/queries", 512),
        ("signs", "signs/adversary", 256),
        ("signs/shifted", "shifted signs/adversary", 256),
        ("noise", "noise", 256),
    ],
)
def test_query_images_by_name(query, name, shown, count):
    images = query(name)
    assert (images.name, len(images), images.labels, images.classes) == (shown, count, None, ())
    assert query(name).fingerprint == images.fingerprint


def test_labels_are_kept_where_wanted(query):
    assert len(query("atlas", labelled=True).classes) == 162
    assert query("signs/shifted", labelled=True).labels.max() < 43


def test_a_cut_pool_holds_all_images_of_fewer_classes(query):
    whole, cut, fewer = (query(name, labelled=True) for name in ("atlas", "atlas/54", "atlas/5"))
    kept = cut.labels.unique()
    assert len(kept) == 54
    assert len(cut) == int(torch.isin(whole.labels, kept).sum())
    # Fewer classes are a part of more.
    assert set(fewer.labels.unique().tolist()) < set(kept.tolist())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sea", "unknown pool 'sea'"),
        ("atlas/0", "cannot be cut to '0' classes: name a number from 1 to 162"),
        ("atlas/163", "cannot be cut to '163' classes"),
        ("atlas/many", "cannot be cut to 'many' classes"),
        ("signs/turned", "unknown variant of signs 'turned'"),
        ("birds", "profile 'smoke' has no task 'birds'"),
    ],
)
def test_query_images_that_do_not_exist(query, name, words):
    with pytest.raises(InputError, match=words):
        query(name)


def test_noise_is_uniform():
    images = noise(200, seed=1).images
    counts = torch.bincount(images.flatten().long(), minlength=256).double()
    expected = images.numel() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-square with 255 degrees: 99.97%
