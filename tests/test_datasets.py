"""Image folders and sources by name: their parts, what an attacker sends, and what is refused."""

import copy
from pathlib import Path

import imagehash
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import extractlib as xl
from extractbook.reproduction.scales import scale
from extractlib.data import decoding, drawn, sources, transforms
from extractlib.data.decoding import decode
from extractlib.data.groups import near_duplicate_groups
from extractlib.data.layouts import folder
from extractlib.data.pixels import Reading, read_image
from extractlib.data.sets import names_of
from extractlib.data.sources import Folder, Loader, Source, noise
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
        patch.setattr(decoding, "read_square", lambda *_, **__: pytest.fail("decoded a second time"))
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
    parts = Loader(store=store, folders={"folder:pets": tmp_path / "pets"}).task("folder:pets", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "victim": 70,
        "detector": 10,
        "adversary": 10,
        "validation": 10,
        "test": 8,
    }


def test_without_one_a_test_part_is_cut(tmp_path, store):
    write_folder(tmp_path / "pets", count=100)
    parts = Loader(store=store, folders={"folder:pets": tmp_path / "pets"}).task("folder:pets", seed=0)
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
    assert near_duplicate_groups(torch.cat([images, brighter])).tolist() == [0, 1, 2, 3, 0]


def test_what_is_alike_by_way_of_a_third_shares_its_group(monkeypatch):
    bits = np.zeros((4, 64), dtype=bool)
    bits[1, :4] = bits[2, :8] = bits[3, :13] = True  # 4, 4 and 5 bits from one to the next
    hashes = iter(bits)
    monkeypatch.setattr(imagehash, "phash", lambda _: imagehash.ImageHash(next(hashes)))
    assert near_duplicate_groups(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)).tolist() == [0, 0, 0, 1]


def saved(quality):
    return lambda images: transforms.apply(images, f"jpeg-{quality}")


def smaller(images):
    half = torch.nn.functional.interpolate(images.float(), scale_factor=0.75, mode="bicubic", antialias=True)
    return torch.nn.functional.interpolate(half, 32, mode="bicubic").round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("change", "recall"),
    [
        (saved(90), 1.0),
        (saved(75), 1.0),
        (smaller, 1.0),
        (lambda images: (images * 1.1).clamp(0, 255).to(torch.uint8), 0.98),
    ],
    ids=["JPEG 90", "JPEG 75", "resized", "brighter"],
)
def test_changed_copies_are_recognized_and_different_images_are_not(change, recall):
    images = drawn.draw("objects", part="test", size=200, seed=0).images
    group = near_duplicate_groups(torch.cat([images, change(images)]))
    assert (group[:200] == group[200:]).double().mean() >= recall
    assert len(group[:200].unique()) >= 198


def test_smooth_pictures_are_not_all_alike():
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32] / 31
    skies = []
    for _ in range(180):
        first, last = generator.uniform(60, 255, (2, 3, 1, 1))
        slope = rows + generator.uniform(-0.6, 0.6) * columns
        slope = ((slope - slope.min()) / np.ptp(slope)) ** generator.uniform(0.5, 2)
        skies.append((first + (last - first) * slope).round().astype(np.uint8))
    group = near_duplicate_groups(torch.from_numpy(np.stack(skies)))
    assert group.bincount().max() <= 5


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
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), "has no images in class folders"),
        (corrupt, r"1 of 4 files and empty folders cannot be used, 'cats/0.png' \(its content is not an image"),
        (cut_short, r"'dogs/1.png' \(image file is truncated\)"),
        (huge, r"'cats/0.png' \(it has 10000 x 10000 pixels, but at most 50,000,000 are allowed, at 12 bytes"),
        (strange_test, "has a class 'cows' that .* does not have"),
    ],
    ids=["missing", "empty", "corrupt", "cut short", "huge", "test class"],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, store, make, message):
    make(tmp_path / "pets")
    with pytest.raises(InputError, match=message) as caught:
        decode(folder(tmp_path / "pets"), name="folder:pets", store=store)
    assert "\n" not in str(caught.value)


@pytest.fixture
def loader(store):
    """The sizes of the smallest scale."""
    smoke = scale("smoke")
    return Loader(sizes={**smoke.task_sizes, **smoke.pool_sizes}, noise_size=256, store=store)


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("task", "sign", "unknown task or pool 'sign': use one of .*signs"),
        ("task", "birds", "there is no size for birds/victim: use one of signs, objects, atlas, web"),
        ("task", "folder:pets", "folder:pets is not available: name its folder, as in --task folder:PATH"),
        ("task", "gtsrb", "gtsrb is not available: name its folder, as in --data DIR"),
        ("task", "atlas", "atlas is not a task: use one of .*signs.*gtsrb"),
        ("pool", "atlantis", "unknown task or pool 'atlantis'"),
        ("pool", "signs", "signs is not a pool: use one of atlas, web"),
        ("pool", "tinyimagenet", "tinyimagenet is not available"),
    ],
)
def test_unknown_names_are_refused(loader, role, name, message):
    with pytest.raises(InputError, match=message):
        getattr(loader, role)(name, seed=0)["victim" if role == "task" else "queries"]


def flat(path, *, count=20):
    (write_folder(path, classes=("loose",), count=count) / "loose").rename(path.parent / "loose")
    path.rmdir()
    (path.parent / "loose").rename(path)
    return path


def test_a_pool_needs_no_class_folders(tmp_path, store):
    """Files ``pool/0.png``: the same pixels in the same parts as with one class folder, and no labels in any part."""
    one = write_folder(tmp_path / "one", classes=("loose",), count=80)
    names = {"folder:flat": flat(tmp_path / "flat", count=80), "folder:one": one}
    (tmp_path / "flat" / "empty").mkdir()
    loader = Loader(store=store, folders=names)
    parts = loader.pool("folder:flat", seed=0, labeled=True)
    sizes = {name: len(part) for name, part in parts.items()}
    assert sizes == {"pretraining": 39, "queries": 33, "detector": 4, "validation": 2, "test": 2}
    sent, same = (loader.queries(name, seed=0) for name in names)
    assert torch.equal(sent.images, same.images)
    assert parts["queries"].labels is None and parts["pretraining"].classes == ()
    with pytest.raises(InputError, match="has no labels: the adaptive strategy needs them"):
        parts["queries"].known_labels("the adaptive strategy needs them")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (flat, "pets has no class folders: a task needs at least two class folders"),
        (lambda path: write_folder(path, classes=("cats",)), r"pets has images of one class only \(cats\): a task"),
    ],
    ids=["flat", "one class"],
)
def test_a_task_needs_two_classes(tmp_path, store, make, message):
    make(tmp_path / "pets")
    with pytest.raises(InputError, match=message):
        Loader(store=store, folders={"folder:pets": tmp_path / "pets"}).task("folder:pets", seed=0)


def test_a_pool_lacks_the_sizes_that_are_not_given(store):
    with pytest.raises(InputError, match="there is no size for atlas/queries: use one of folder:PATH"):
        Loader(sizes={}, store=store).queries("atlas", seed=0)


def test_files_need_a_store(tmp_path):
    write_folder(tmp_path / "pets", count=2)
    loader = Loader(folders={"folder:pets": tmp_path / "pets"})
    with pytest.raises(InputError, match="folder:pets is stored in files, which are decoded into a store: give one"):
        loader.task("folder:pets", seed=0)


def test_only_the_pretraining_part_of_a_pool_keeps_its_labels(tmp_path, store):
    photos = write_folder(tmp_path / "photos", count=100)
    loader = Loader(store=store, folders={"folder:photos": photos})
    parts = loader.pool("folder:photos", seed=0)
    assert {part: len(images) for part, images in parts.items()} == {
        "pretraining": 98,
        "queries": 82,
        "detector": 10,
        "validation": 5,
        "test": 5,
    }
    assert [part for part, images in parts.items() if images.labels is not None] == ["pretraining"]
    assert all(images.labels is not None for images in loader.pool("folder:photos", seed=0, labeled=True).values())


# -- sources by name ---------------------------------------------------------------

POOL_NAMES, TASK_NAMES = names_of("pool"), names_of("task")
PATHS = st.text().filter(lambda path: not path.startswith("~"))  # which names a user
SOURCES = st.one_of(
    st.sampled_from([*POOL_NAMES, *TASK_NAMES, "noise"]).map(Source),
    st.sampled_from(TASK_NAMES).map(lambda name: Source(name).shifted()),
    st.builds(lambda name, count: Source(name).cut(count), st.sampled_from(POOL_NAMES), st.integers(1, 10**9 - 1)),
    PATHS.map(Folder),
    st.sampled_from(["a/shifted", "a/27", "/tmp/with blank", "ä/ö", "shifted", "7", ""]).map(Folder),
    PATHS.map(lambda path: Folder(path).shifted()),
)


@given(SOURCES)
def test_a_source_is_read_back_from_its_text(source):
    assert Source.parse(str(source)) == source
    assert Source.parse(source) is source


def test_the_text_of_a_source_by_hand():
    for text, source in {
        "signs": Source("signs"),
        "signs/shifted": Source("signs").shifted(),
        "atlas/27": Source("atlas").cut(27),
        "noise": Source("noise"),
        "folder:pets/27": Folder("pets/27"),
        "folder:pets/shifted": Folder("pets/shifted"),
        "shifted:folder:pets": Folder("pets").shifted(),
    }.items():
        assert (str(source), Source.parse(text)) == (text, source)
    assert Source.parse("gtsrb/shifted") == Source("gtsrb", is_shifted=True)
    assert Folder(Path("pets")) == Source("folder:pets")


def test_what_a_source_is():
    names = ("signs", "atlas", "noise", "folder:pets", "gtsrb", "tinyimagenet")
    assert [name for name in names if Source(name).in_files] == ["folder:pets", "gtsrb", "tinyimagenet"]
    assert [name for name in names if Source(name).is_task] == ["signs", "gtsrb"]
    assert sources.Source.parse("folder:pets").in_files and not sources.Source.parse("signs/shifted").in_files
    assert [Source(name).folder for name in names] == [None, None, None, Path("pets"), None, None]
    assert Source.parse("folder:~/pets").folder == Path.home() / "pets"
    assert Source.parse("shifted:folder:a/b").folder == Path("a/b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sea", "unknown task or pool 'sea': use one of signs, .*, folder:PATH$"),
        ("", "unknown task or pool ''"),
        ("/tmp/pets", "unknown source of images ./tmp/pets.: for a folder write folder:/tmp/pets"),
        ("signs/turned", "unknown variant 'turned' of signs: use 'shifted', or a number of classes"),
        ("signs/shifted/27", "unknown variant 'shifted/27' of signs"),
        ("signs/27", "signs is not a registered pool: only such a pool can be cut to fewer classes"),
        ("noise/27", "noise is not a registered pool"),
        ("noise/shifted", "noise is not a task: only a task has a shifted source"),
        ("atlas/shifted", "atlas is not a task: only a task has a shifted source"),
        ("atlas/0", "number of classes is 0: expected a whole number of at least 1"),
        ("atlas/many", "unknown variant 'many' of atlas"),
        ("atlas/", "unknown variant '' of atlas"),
        ("atlas/-1", "unknown variant '-1' of atlas"),
        ("atlas/2 ", "unknown variant '2 ' of atlas"),
        ("atlas/２", "unknown variant '２' of atlas"),
        ("atlas/" + "9" * 5_000, "unknown variant"),
    ],
)
def test_texts_that_name_no_source(text, message):
    with pytest.raises(InputError, match=message):
        Source.parse(text)


def test_a_folder_is_not_cut():
    with pytest.raises(InputError, match="folder:pets is not a registered pool"):
        Folder("pets").cut(2)


# -- what an attacker sends ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown", "count"),
    [
        ("atlas", "atlas/queries", 512),
        ("signs", "signs/adversary", 256),
        ("signs/shifted", "shifted signs/adversary", 256),
        ("noise", "noise", 256),
    ],
)
def test_query_images_by_name(loader, name, shown, count):
    images = loader.queries(name, seed=0)
    assert (images.name, len(images), images.labels, images.classes) == (shown, count, None, ())
    assert loader.queries(Source.parse(name), seed=0).fingerprint == images.fingerprint
    assert loader.queries(name, seed=1).fingerprint != images.fingerprint


def test_queries_are_the_parts_that_nobody_else_has(loader):
    task, pool = loader.task("signs", seed=0), loader.pool("atlas", seed=0)
    assert torch.equal(loader.queries("signs", seed=0).images, task["adversary"].images)
    assert torch.equal(loader.queries("atlas", seed=0).images, pool["queries"].images)
    assert not torch.equal(loader.queries("signs/shifted", seed=0).images, task["adversary"].images)


def test_labels_are_kept_where_wanted(loader):
    assert len(loader.queries("atlas", seed=0, labeled=True).classes) == 189
    assert loader.queries("signs/shifted", seed=0, labeled=True).labels.max() < 43


def test_a_cut_pool_holds_all_images_of_fewer_classes(loader):
    whole, cut, fewer = (loader.queries(name, seed=0, labeled=True) for name in ("atlas", "atlas/54", "atlas/5"))
    kept = cut.labels.unique()
    assert len(kept) == 54
    assert len(cut) == int(torch.isin(whole.labels, kept).sum())
    # Fewer classes are a part of more.
    assert set(fewer.labels.unique().tolist()) < set(kept.tolist())
    assert loader.queries("atlas/54", seed=0).labels is None
    assert torch.equal(loader.queries("atlas/54", seed=0).images, cut.images)
    with pytest.raises(InputError, match="cannot be cut to 190 classes: name a number from 1 to 189"):
        loader.queries("atlas/190", seed=0)
    with pytest.raises(InputError, match="noise cannot be cut to 5 classes: name a number from 1 to 0"):
        sources.fewer_classes(noise(4, seed=0), 5, seed=0)


def test_queries_of_a_folder_are_its_part_for_queries(tmp_path, store):
    photos = write_folder(tmp_path / "photos", count=100)
    loader = Loader(store=store, folders={"folder:photos": photos})
    sent = loader.queries("folder:photos", seed=5)
    assert (len(sent), sent.labels) == (82, None)
    assert torch.equal(sent.images[:], loader.pool("folder:photos", seed=0)["queries"].images[:])


def test_files_are_brought_to_the_loaders_size(tmp_path, store):
    photos = write_folder(tmp_path / "photos", count=20)
    loader = Loader(image_size=12, store=store, folders={"folder:photos": photos})
    assert loader.task("folder:photos", seed=0)["test"].image_shape == (3, 12, 12)
    assert loader.queries("noise", seed=0).image_shape == (3, 12, 12)


# -- parts -------------------------------------------------------------------------


@pytest.fixture
def drawings(monkeypatch):
    """Note which parts are drawn."""
    drawn_parts, draw = [], drawn.draw

    def noted(name, *, part, **options):
        drawn_parts.append(f"{name}/{part}")
        return draw(name, part=part, **options)

    monkeypatch.setattr(drawn, "draw", noted)
    return drawn_parts


def test_only_the_part_that_is_asked_for_is_drawn(loader, drawings):
    task, pool = loader.task("signs", seed=0), loader.pool("atlas", seed=0)
    assert "test" in task and len(task) == 5 and list(pool) == ["queries", "detector", "validation", "test"]
    assert repr(task) == "Parts(victim, detector, adversary, validation, test)"
    assert list(copy.copy(task)) == list(copy.deepcopy(task)) == list(task)
    assert drawings == []
    assert len(task.test) == 430
    assert task["test"] is task.test
    assert drawings == ["signs/test"]
    assert (len(pool.validation), pool.validation.labels) == (128, None)
    assert drawings == ["signs/test", "atlas/validation"]
    assert len(loader.queries("atlas", seed=0)) == 512
    assert drawings == ["signs/test", "atlas/validation", "atlas/queries"]


def test_loading_draws_nothing_until_it_is_asked(drawings, store):
    signs = xl.load("signs", store=store)
    assert drawings == []
    assert signs.validation.fingerprint == xl.load("signs", store=store).validation.fingerprint
    assert drawings == ["signs/validation"] * 2
    assert xl.load("signs", seed=1, store=store).validation.fingerprint != signs.validation.fingerprint


def test_a_part_that_is_not_there_is_told(loader):
    with pytest.raises(AttributeError, match="no part 'tests': use one of victim, detector, adversary, validation"):
        getattr(loader.task("signs", seed=0), "tests")  # noqa: B009


def test_a_folder_is_loaded_by_its_path(tmp_path, store):
    pets = write_folder(tmp_path / "pets", count=50)
    found = [xl.load(source, store=store).test for source in (pets, str(pets), Folder(pets), f"folder:{pets}")]
    assert {images.fingerprint for images in found} == {found[0].fingerprint}
    assert found[0].classes == ("cats", "dogs") and len(found[0]) == 15
    assert xl.load(pets, store=store, image_size=8).test.image_shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sea", "unknown task or pool 'sea'"),
        ("noise", "noise is not a task: use one of signs"),
        ("signs/shifted", "signs/shifted has no parts: load 'signs'"),
        ("atlas/27", "atlas/27 has no parts: load 'atlas'"),
        (Source("atlas").cut(27), "atlas/27 has no parts: load 'atlas'"),
        ("cifar10", "is not a folder|cifar10"),
        (7, "unknown task or pool '7'"),
    ],
)
def test_what_cannot_be_loaded(source, message, store):
    with pytest.raises(InputError, match=message):
        list(xl.load(source, store=store).values())


@pytest.mark.parametrize(
    ("option", "words"),
    [({"image_size": 64}, r"image_size \(--size\)"), ({"reading": Reading(skip_bad=True)}, "reading")],
)
@pytest.mark.parametrize("name", ["signs", "atlas"])
def test_what_is_for_files_is_refused_for_drawn_images(name, option, words, store):
    with pytest.raises(InputError, match=f"^{name} is drawn, with 32 pixels, and {words} is for files: leave it out$"):
        xl.load(name, store=store, **option)


def test_a_labeled_pool_keeps_its_labels(store):
    options = {"store": store}
    assert xl.load("atlas", **options).validation.labels is None
    assert len(xl.load("atlas", labeled=True, **options).validation.classes) == 189


def test_noise_is_uniform():
    images = noise(200, seed=1).images
    counts = torch.bincount(images.flatten().long(), minlength=256).double()
    expected = images.numel() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-square with 255 degrees: 99.97%
