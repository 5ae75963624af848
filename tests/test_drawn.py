"""Drawn images: the stored pictures, what a seed fixes, and what each set promises.

`drawn_reference.npz` holds the first pictures of each set; `python tests/test_drawn.py` writes it anew, which a new
`versions.VERSIONS["drawn"]` needs.
"""

import importlib
import json
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from extractlib.data import drawn
from extractlib.data.drawn.canvas import Sketch, X, Y, seed_from
from extractlib.data.drawn.vocabulary import COLORS, PATTERNS, SHAPES, Part
from extractlib.errors import InputError
from extractlib.store import Store, digest
from extractlib.versions import VERSIONS, versions

REFERENCE = Path(__file__).with_name("drawn_reference.npz")
SETS = drawn.TASKS + drawn.POOLS


def few(name: str, *, part: str = "test", size: int = 12, seed: int = 0, shifted: bool = False):
    return drawn.draw(name, part=part, size=size, seed=seed, shifted=shifted)


def kept(folder: Path, *, shifted: bool = False):
    return drawn.draw("signs", part="test", size=4, seed=0, shifted=shifted, store=Store(folder))


def distinct(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def room(name: str):
    return importlib.import_module(f"extractlib.data.drawn.{name}")


def labels(name: str, size: int, *, part: str = "test") -> torch.Tensor:
    return drawn.labels(name, size, part=part, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SETS)
def test_pictures_are_the_stored_ones(name):
    """Processors round otherwise: one gray level of difference is allowed on 0.01% of the values."""
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
    own, shifted, again = (few(name, part="adversary", size=40, shifted=wanted) for wanted in (False, True, True))
    assert torch.equal(shifted.images, again.images) and torch.equal(shifted.labels, again.labels)
    assert shifted.fingerprint == again.fingerprint != own.fingerprint
    assert own.fingerprint == digest(
        "drawn", name, str(VERSIONS["drawn"]), "adversary", "40", "0"
    )  # as before any shift
    assert shifted.name == f"shifted {name}/adversary" and shifted.classes == own.classes
    assert shifted.images.shape == (40, 3, 32, 32) and shifted.images.dtype == torch.uint8
    assert not distinct(own) & distinct(shifted)
    by_the_same_hand = drawn.draw_by_class(shifted.labels, room(name).draw, seed=seed_from(*shifted.name.split("/"), 0))
    assert not distinct(shifted) & {image.numpy().tobytes() for image in by_the_same_hand}


@pytest.mark.parametrize("name", drawn.TASKS)
def test_parts_of_a_shifted_source_share_no_picture(name):
    parts = [distinct(few(name, part=part, size=20, shifted=True)) for part in drawn.TASK_PARTS]
    assert len(set.union(*parts)) == 20 * len(parts)


@pytest.mark.parametrize("name", drawn.TASKS)
def test_a_shifted_source_has_each_class_as_often(name, monkeypatch):
    monkeypatch.setattr(drawn, "draw_by_class", lambda labels, *_, **__: torch.zeros(len(labels), 3, 8, 8).byte())
    own, shifted = (few(name, part="adversary", size=4_000, shifted=wanted).labels for wanted in (False, True))
    assert not torch.equal(own, shifted)
    classes = len(room(name).CLASSES)
    counts = torch.stack([labels.bincount(minlength=classes) for labels in (own, shifted)]).float()
    # Signs and grades are sampled: five standard deviations of the difference of two counts; the others are balanced.
    tolerance = 5 * (2 * counts.mean(0)).sqrt() if name in ("signs", "retina") else torch.zeros(classes)
    assert bool(((counts[0] - counts[1]).abs() <= tolerance).all())


def test_a_set_is_kept_by_all_that_makes_it(tmp_path):
    own, shifted = (kept(tmp_path, shifted=wanted) for wanted in (False, True))
    assert not torch.equal(own.images, shifted.images)
    keys = sorted((json.loads(path.read_text()) for path in tmp_path.glob("drawn/*/key.json")), key=repr)
    key = {"name": "signs", "part": "test", "seed": 0, "size": 4, "versions": versions("drawn")}
    assert keys == [key | {"shifted": False}, key | {"shifted": True}]
    assert len(list(tmp_path.glob("drawn/*/images.npy"))) == 2


def test_the_environment_names_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path))
    few("signs")
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_placed_in_a_shifted_picture_moves_together():
    plain, shifted = Sketch(64, seed=0), Sketch(64, seed=0, shift=1.0)
    assert torch.equal(plain.x, X) and torch.equal(plain.y, Y)
    # A turned and resized picture: a pixel to the right and one down are as long everywhere, and at right angles.
    right = torch.stack([axis[:, :-1, 1:] - axis[:, :-1, :-1] for axis in (shifted.x, shifted.y)]) * 16
    down = torch.stack([axis[:, 1:, :-1] - axis[:, :-1, :-1] for axis in (shifted.x, shifted.y)]) * 16
    length = right.norm(dim=0)
    assert 1 / 1.05 - 1e-4 < float(length.min()) and float(length.max()) < 1 / 0.85 + 1e-4
    assert float(length.flatten(1).std(1).max()) < 1e-4 < float(length.mean((1, 2)).std())
    assert torch.allclose(length, down.norm(dim=0), atol=1e-4)
    assert torch.allclose((right * down).sum(0), torch.zeros(()), atol=1e-4)
    for x in (-0.3, 0.3):
        shifted.place(x, 0.1, 0.5)
        assert torch.allclose(shifted.u, (shifted.x - x) / 0.5) and torch.allclose(shifted.v, (shifted.y - 0.1) / 0.5)
    shifted.reset()
    assert torch.equal(shifted.u, shifted.x) and torch.equal(shifted.v, shifted.y)


def test_only_a_shifted_ground_has_stripes_of_one_other_color():
    grounds = []
    for wanted in (False, True):
        sketch = Sketch(64, seed=0, shift=float(wanted))
        sketch.backdrop(torch.full((64, 3, 32, 32), 0.5))
        grounds.append(sketch.image)
    assert torch.equal(grounds[0], torch.full((64, 3, 32, 32), 0.5))
    changed = (grounds[1] != 0.5).any(1)
    assert 0.4 < float(changed.float().mean()) < 0.6
    for image, where in zip(grounds[1], changed, strict=True):
        assert len(image[:, where].unique(dim=1).T) <= 1
        assert float((image - 0.5).abs().max()) <= 0.5 * 0.45 + 1e-6  # the strongest stripe of the farthest color


def test_only_a_shifted_camera_casts_a_color():
    means = []
    for wanted in (False, True):
        sketch = Sketch(64, seed=0, shift=float(wanted))
        sketch.image = torch.full((64, 3, 32, 32), 0.5)
        finished = sketch.finish(brightness=(1, 1), contrast=(1, 1), noise=0.0, blur=0.0)
        means.append(finished.float().mean((2, 3)))
    assert means[0].unique().tolist() == [127]
    # Factors between 0.8 and 1.2 on 127.5, each channel by itself, then rounded down.
    assert 100 < float(means[1].min()) < 106 and 149 < float(means[1].max()) < 154
    assert float((means[1].amax(1) - means[1].amin(1)).mean()) > 15


@pytest.mark.parametrize("name", drawn.POOLS)
def test_a_pool_has_no_shifted_source(name):
    with pytest.raises(InputError, match=f"{name} is a pool: only a task"):
        drawn.draw(name, part="test", size=1, seed=0, shifted=True)


@pytest.mark.parametrize("name", SETS)
def test_parts_share_no_picture(name):
    parts = {part: few(name, part=part, size=60) for part in drawn.PARTS[name]}
    pictures = {part: distinct(images) for part, images in parts.items()}
    assert min(len(found) for found in pictures.values()) == 60
    assert [pair for pair in combinations(pictures, 2) if pictures[pair[0]] & pictures[pair[1]]] == []


@pytest.mark.parametrize("name", SETS)
def test_pictures_are_labeled_and_not_blank(name):
    images = few(name)
    assert images.images.shape == (12, 3, 32, 32)
    assert images.name == f"{name}/test" and images.classes == room(name).CLASSES
    assert float(images.images.float().flatten(1).std(1).min()) > 3


def test_sets_have_as_many_classes_as_their_twins():
    counts = {name: len(room(name).CLASSES) for name in SETS}
    expected = {"signs": 43, "objects": 10, "birds": 40, "retina": 5}
    assert {name: counts[name] for name in expected} == expected
    assert all(len(set(room(name).CLASSES)) == counts[name] for name in SETS)


def test_each_part_has_a_usual_size():
    assert list(drawn.SIZES) == [*drawn.TASKS, *drawn.POOLS]
    assert drawn.TASKS == ("signs", "objects", "birds", "retina", "things") and drawn.POOLS == ("atlas", "web")
    for name in drawn.TASKS:
        assert tuple(drawn.SIZES[name]) == drawn.PARTS[name] == drawn.TASK_PARTS
        assert {part: drawn.SIZES[name][part] for part in ("detector", "adversary", "validation")} == {
            "detector": 4_000,
            "adversary": 10_000,
            "validation": 1_000,
        }
    assert [(drawn.SIZES[name]["victim"], drawn.SIZES[name]["test"]) for name in drawn.TASKS] == [
        (5_000, 8_600),
        (4_000, 4_000),
        (4_000, 2_000),
        (4_000, 1_500),
        (6_000, 3_000),
    ]
    assert list(drawn.SIZES["atlas"].values()) == [30_000, 20_000, 5_000, 2_000, 2_000]
    assert drawn.SIZES["web"] == {"queries": 10_000, "validation": 2_000, "test": 2_000}


@pytest.mark.parametrize("name", ["signs", "web"])
def test_labels_are_as_frequent_as_their_prior(name):
    part, size = drawn.PARTS[name][0], 20_000
    prior = torch.tensor(room(name).PRIOR)
    expected = prior / prior.sum() * size
    counts = labels(name, size, part=part).bincount(minlength=len(prior))
    assert bool(((counts - expected).abs() < 5 * expected.sqrt()).all())


def test_species_of_a_genus_differ_from_its_first_in_two_marks():
    birds = room("birds")
    species = [asdict(look) for look in birds.SPECIES.values()]
    assert len({repr(look) for look in species}) == 40
    differences = [
        sum(value != species[place - place % 4][mark] for mark, value in look.items())
        for place, look in enumerate(species)
    ]
    assert differences == [0, 2, 2, 2] * 10


def test_a_glyph_is_read_from_its_rows_mirrored_or_as_digits():
    glyph = room("signs").glyph
    rows = [[0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert glyph("turn right").tolist() == rows
    assert glyph("mirrored turn right").tolist() == [row[::-1] for row in rows]
    assert glyph("20").tolist()[1] == [0, 0, 1, 0, 1, 0, 1]


def test_a_figure_is_read_from_its_line():
    robin = room("kinds").COMMON["robin"]
    assert robin.palette == ("brown",)
    assert robin.parts[0] == Part("stroke", (-0.3, 0.2, -0.85, 0.35, 0.09), "dark")
    assert room("kinds").COMMON["canary"].parts[1] == Part("ellipse", (0.0, 0.0, 0.46, 0.3), "main", angle=-0.25)
    assert [part.within for part in room("kinds").COMMON["tennis ball"].parts] == [False, True, True]


@pytest.mark.parametrize("figures", ["COMMON", "OTHERS"])
def test_every_word_of_a_figure_means_something(figures):
    for figure in getattr(room("kinds"), figures).values():
        words = {part.color for part in figure.parts} | set(figure.palette)
        assert words - {"main", "second", "dark", "light"} <= set(COLORS)
        assert {part.shape for part in figure.parts} <= {*SHAPES, *PATTERNS, "dots"}


def test_every_word_of_a_sign_means_something():
    signs = room("signs")
    assert len(signs.TABLE["digits"]) == 10
    for _, kind, mark, weight in signs.TABLE["signs"]:
        layers = signs.TABLE["kinds"][kind]
        assert {outline for outline, *_ in layers} <= {*signs.OUTLINES, "mark"}
        assert {color for _, _, color, *_ in layers} <= set(signs.TABLE["colors"])
        assert signs.glyph(mark).shape == (5, 4 * len(mark) - 1 if mark.isdigit() else 5)
        assert weight in (2.0, 0.8, 0.3)


def test_every_theme_names_figures():
    web, kinds = room("web"), room("kinds")
    assert {thing for things in web.THEMES.values() for thing in things} <= set(kinds.COMMON | kinds.OTHERS)


def test_four_fifths_of_the_kinds_of_things_are_in_the_part_of_the_atlas_that_is_queried():
    things, atlas = set(room("things").CLASSES), room("atlas").CLASSES
    asked = {atlas[label] for label in labels("atlas", drawn.SIZES["atlas"]["queries"], part="queries").tolist()}
    assert asked == set(atlas)
    assert (len(things), len(things & asked)) == (100, 84)


def test_a_shift_grows_with_its_strength_and_each_set_has_its_own():
    def difference(shift: float) -> float:
        sketch = Sketch(64, seed=0, shift=shift)
        return float((sketch.x - X).abs().mean() + (sketch.y - Y).abs().mean())

    assert difference(0.5) == pytest.approx(difference(1.0) / 2, rel=0.1)
    assert {name: getattr(room(name), "SHIFT", 1.0) for name in drawn.TASKS} == {
        **dict.fromkeys(("signs", "objects", "retina"), 1.0),
        "birds": 0.75,
        "things": 0.6,
    }
    pictures = room("things").draw(
        0, Sketch(6, seed=seed_from(seed_from("shifted things", "test", 0), 0, 0), shift=0.6)
    )
    few_things = few("things", size=600, shifted=True)
    assert torch.equal(few_things.images[few_things.labels == 0], pictures)


@pytest.mark.parametrize("name", ["retina", "signs", "objects", "birds", "things"])
def test_the_test_part_is_balanced(name):
    counts = labels(name, drawn.SIZES[name]["test"]).bincount(minlength=len(room(name).CLASSES))
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("name", ["signs", "objects"])
def test_each_class_has_a_hundred_test_images(name):
    counts = labels(name, drawn.SIZES[name]["test"]).bincount(minlength=len(room(name).CLASSES))
    assert int(counts.min()) >= 100


def test_retina_is_as_uneven_as_the_disease_where_it_is_trained():
    counts = labels("retina", 4_000, part="victim").bincount(minlength=5)
    assert int(counts.argmax()) == 0 and int(counts.max()) > 2 * int(counts.min())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cats"}, r"'cats'.*signs"),
        ({"part": "train"}, r"'train'.*victim"),
        ({"size": 0}, "size of signs/test is 0: expected a whole number of at least 1"),
        ({"seed": -1}, "seed is -1: expected a whole number from 0 to 1,099,511,627,776"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        drawn.draw(**{"name": "signs", "part": "test", "size": 4, "seed": 0} | options)


def test_the_store_gives_the_same_pictures_without_drawing(tmp_path, monkeypatch):
    first = kept(tmp_path)
    assert torch.equal(first.images, few("signs", size=4).images)
    monkeypatch.setattr(drawn, "draw_by_class", None)
    again = kept(tmp_path)
    assert torch.equal(first.images, again.images)
    again.images[:] = 0
    assert torch.equal(kept(tmp_path).images, first.images)


def test_a_failed_drawing_leaves_nothing_in_the_store(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(drawn, "draw_by_class", fail)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path)
    assert list((tmp_path / "drawn").glob("*/")) == []


def write_reference() -> None:
    stored = {}
    for name in SETS:
        images = few(name)
        stored |= {f"{name}.images": images.images.numpy(), f"{name}.labels": images.labels.numpy()}
    np.savez_compressed(REFERENCE, **stored)


if __name__ == "__main__":
    write_reference()
