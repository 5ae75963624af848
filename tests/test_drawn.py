"""Drawn images: the stored pictures, what a seed fixes, and what each set promises.

`drawn_reference.npz` holds the first pictures of each set; `python tests/test_drawn.py` writes it anew, which a new
`drawn.VERSION` needs.
"""

import importlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from extractlib import drawn
from extractlib.errors import InputError
from extractlib.profiles import DRAWN

REFERENCE = Path(__file__).with_name("drawn_reference.npz")
SETS = drawn.TASKS + drawn.POOLS


def few(name: str, *, part: str = "test", size: int = 12, seed: int = 0):
    return drawn.draw(name, part=part, size=size, seed=seed, cache=None)


def room(name: str):
    return importlib.import_module(f"extractlib.drawn.{name}")


def labels(name: str, size: int, *, part: str = "test") -> torch.Tensor:
    return room(name).labels(size, part=part, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SETS)
def test_pictures_are_the_stored_ones(name):
    """Processors round otherwise: one grey level of difference is allowed on 0.01% of the values."""
    images = few(name)
    with np.load(REFERENCE, allow_pickle=False) as stored:
        difference = np.abs(images.images.numpy().astype(int) - stored[f"{name}.images"])
        assert images.labels.tolist() == stored[f"{name}.labels"].tolist()
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4


@pytest.mark.parametrize("name", SETS)
def test_a_seed_fixes_the_pictures_and_another_changes_them(name):
    first, again, other = few(name), few(name), few(name, seed=1)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", drawn.TASKS)
def test_a_shifted_source_has_the_same_classes_in_other_pictures(name):
    own, shifted = (drawn.draw(name, part="adversary", size=40, seed=0, shifted=s, cache=None) for s in (False, True))
    again = drawn.draw(name, part="adversary", size=40, seed=0, shifted=True, cache=None)
    assert torch.equal(shifted.images, again.images) and shifted.fingerprint == again.fingerprint
    assert shifted.fingerprint != own.fingerprint and shifted.name == f"shifted {name}/adversary"
    assert shifted.classes == own.classes
    pictures = {image.numpy().tobytes() for image in own.images}
    assert not pictures & {image.numpy().tobytes() for image in shifted.images}


@pytest.mark.parametrize("name", drawn.TASKS)
def test_a_shift_moves_colours_and_grounds_but_not_beyond_recognition(name):
    """Drawn from the same random numbers for its labels, a class keeps more of its look than classes share."""
    size = 400
    own, shifted = (drawn.draw(name, part="adversary", size=size, seed=0, shifted=s, cache=None) for s in (False, True))
    # A cast of the channels: the ratio of mean red to mean blue varies more from picture to picture.
    spread = [
        (images.images[:, 0].float().mean((1, 2)) + 9).div(images.images[:, 2].float().mean((1, 2)) + 9).log().std()
        for images in (own, shifted)
    ]
    assert spread[1] > spread[0] * 0.95
    means = [images.images.float().mean() for images in (own, shifted)]
    assert abs(means[0] - means[1]) < 40


@pytest.mark.parametrize("name", drawn.POOLS)
def test_a_pool_has_no_shifted_source(name):
    with pytest.raises(InputError, match=f"{name} is a pool: only a task"):
        drawn.draw(name, part="test", size=1, seed=0, shifted=True)


@pytest.mark.parametrize("name", SETS)
def test_parts_share_no_picture(name):
    parts = {part: few(name, part=part, size=60) for part in drawn.PARTS[name]}
    pictures = {part: {image.numpy().tobytes() for image in images.images} for part, images in parts.items()}
    assert min(len(found) for found in pictures.values()) == 60
    assert [pair for pair in combinations(pictures, 2) if pictures[pair[0]] & pictures[pair[1]]] == []


@pytest.mark.parametrize("name", SETS)
def test_pictures_are_labelled_and_not_blank(name):
    images = few(name)
    assert images.images.shape == (12, 3, 32, 32)
    assert images.name == f"{name}/test" and images.classes == room(name).CLASSES
    assert float(images.images.float().flatten(1).std(1).min()) > 3


def test_sets_have_as_many_classes_as_their_twins():
    counts = {name: len(room(name).CLASSES) for name in SETS}
    expected = {"signs": 43, "objects": 10, "birds": 40, "retina": 5}
    assert {name: counts[name] for name in expected} == expected
    assert all(len(set(room(name).CLASSES)) == counts[name] for name in SETS)


def test_things_overlap_with_the_atlas_and_do_not_lie_within_it():
    things, atlas = set(room("things").CLASSES), set(room("atlas").CLASSES)
    assert len(things) >= 60
    assert 0.3 * len(things) <= len(things & atlas) < len(things)


@pytest.mark.parametrize("name", ["retina", "signs", "objects", "birds", "things"])
def test_the_test_part_is_balanced(name):
    counts = labels(name, DRAWN.task_sizes[name]["test"]).bincount(minlength=len(room(name).CLASSES))
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("name", ["signs", "objects"])
def test_each_class_has_a_hundred_test_images(name):
    counts = labels(name, DRAWN.task_sizes[name]["test"]).bincount(minlength=len(room(name).CLASSES))
    assert int(counts.min()) >= 100


def test_retina_is_as_uneven_as_the_disease_where_it_is_trained():
    counts = labels("retina", 4_000, part="victim").bincount(minlength=5)
    assert int(counts.argmax()) == 0 and int(counts.max()) > 2 * int(counts.min())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cats"}, r"'cats'.*signs"),
        ({"part": "train"}, r"'train'.*victim"),
        ({"size": 0}, "signs/test: a size of 0 was asked for: at least 1 is wanted"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        drawn.draw(**{"name": "signs", "part": "test", "size": 4, "seed": 0, "cache": None} | options)


def test_the_cache_gives_the_same_pictures_without_drawing(tmp_path, monkeypatch):
    first = drawn.draw("signs", part="test", size=4, seed=0, cache=tmp_path)
    monkeypatch.setattr(drawn, "draw_by_class", None)
    again = drawn.draw("signs", part="test", size=4, seed=0, cache=tmp_path)
    assert torch.equal(first.images, again.images)
    again.images[:] = 0
    assert torch.equal(drawn.draw("signs", part="test", size=4, seed=0, cache=tmp_path).images, first.images)


def test_a_failed_drawing_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(drawn, "draw_by_class", fail)
    with pytest.raises(KeyboardInterrupt):
        drawn.draw("signs", part="test", size=4, seed=0, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def write_reference() -> None:
    stored = {}
    for name in SETS:
        images = few(name)
        stored |= {f"{name}.images": images.images.numpy(), f"{name}.labels": images.labels.numpy()}
    np.savez_compressed(REFERENCE, **stored)


if __name__ == "__main__":
    write_reference()
