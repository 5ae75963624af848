"""A transform changes an image's pixels as its name says, and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from extractlib import versions
from extractlib.data import drawn, transforms
from extractlib.data.images import ImageSet
from extractlib.errors import InputError

NAMES = ("jpeg-95", "jpeg-75", "webp-75", "bilinear", "bicubic", "lanczos", "blur")


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return drawn.draw("signs", part="validation", size=40, seed=0)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.float() - second.float()).abs().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_a_transform_changes_pixels_a_little_and_the_same_way_each_time(images, name):
    done = transforms.apply(images.images, name)
    assert done.shape == images.images.shape and done.dtype == torch.uint8
    assert 0 < distance(done, images.images) < 25  # of 255; a drawing's noise is what compression drops first
    assert torch.equal(done, transforms.apply(images.images, name))
    assert torch.equal(done[3:5], transforms.apply(images.images[3:5], name))


def test_jpeg_is_what_pillow_saves_and_reads(images):
    pixels = images.images[7].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=75)
    expected = np.asarray(Image.open(file))
    assert np.array_equal(transforms.apply(images.images[7:8], "jpeg-75")[0].permute(1, 2, 0).numpy(), expected)


def test_lower_quality_changes_more(images):
    changes = [
        distance(transforms.apply(images.images, f"jpeg-{quality}"), images.images) for quality in (95, 75, 30, 5)
    ]
    assert changes == sorted(changes) and changes[0] < changes[-1] / 2


def test_blur_and_resampling_leave_a_plain_image_as_it_is():
    plain = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    for name in ("blur", "bilinear", "bicubic", "lanczos"):
        assert torch.equal(transforms.apply(plain, name), plain)


def test_none_is_the_very_set(images):
    assert transforms.apply(images.images, "none") is images.images
    assert transforms.apply_to_set(images, "none") is images


def test_a_transformed_set_has_a_name_and_a_fingerprint_of_its_own(images):
    sets = [images, *(transforms.apply_to_set(images, name) for name in NAMES), transforms.harden(images, seed=0)]
    assert len({one.fingerprint for one in sets}) == len(sets) == len({one.name for one in sets})
    assert all(torch.equal(one.labels, images.labels) for one in sets)


@pytest.mark.parametrize("shape", [(3, 48, 32), (3, 32, 48), (1, 32, 32), (1, 20, 40)])
def test_gray_and_oblong_images_keep_their_shape(shape):
    many = ImageSet("oblong", torch.randint(256, (20, *shape), generator=torch.manual_seed(0)).to(torch.uint8))
    for done in (transforms.shift_domain(many, seed=0), transforms.harden(many, seed=0)):
        assert done.images.shape == many.images.shape and not torch.equal(done.images, many.images)
    for name in ("jpeg-75", "webp-75", "chain-16"):
        assert transforms.apply(many.images, name).shape == many.images.shape


def test_an_image_moves_by_a_share_of_its_height_and_of_its_width(monkeypatch):
    monkeypatch.setattr(transforms, "LIGHT", 0.0)
    rows = torch.arange(100).view(1, 1, 100, 1).expand(300, 3, 100, 20).to(torch.uint8)
    columns = torch.arange(20).view(1, 1, 1, 20).expand(300, 3, 100, 20).to(torch.uint8)
    down = transforms.shift_domain(ImageSet("rows", rows), seed=0).images[:, 0, 50, 10].int() - 50
    right = transforms.shift_domain(ImageSet("columns", columns), seed=0).images[:, 0, 50, 10].int() - 10
    assert (int(down.min()), int(down.max()), int(right.min()), int(right.max())) == (-10, 10, -2, 2)


def test_the_shift_follows_its_seed_and_leaves_the_callers_draws_alone(images, reseeded):
    state = torch.get_rng_state()
    first, again, other = (transforms.shift_domain(images, seed=seed).images for seed in (9, 9, 10))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state) and reseeded == []


def test_hardening_draws_each_kind_and_follows_its_seed(images):
    many = images.subset(torch.arange(40).repeat(5))
    first, again, other = (transforms.harden(many, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    untouched = (first == many.images).flatten(1).all(1).double().mean().item()
    assert 0.15 < untouched < 0.35  # one of four kinds is none


@pytest.mark.parametrize("name", ["jpeg", "jpeg-0", "jpeg-101", "jpeg-x", "gif-75", "nearest", ""])
def test_a_transform_that_does_not_exist_is_refused(images, name):
    with pytest.raises(InputError, match=f"^unknown transform '{name}': use one of none, jpeg-75"):
        transforms.apply(images.images, name)


def test_a_fingerprint_changes_with_the_version_of_what_made_it_and_earlier_ones_stay(monkeypatch):
    """Else a victim that was trained on images as they were made before would be taken for one of these."""
    images = ImageSet("images", torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8))
    assert versions.later(transform=versions.VERSIONS["transform"]) == ()

    def prints():
        return {
            transforms.apply_to_set(images, "blur").fingerprint,
            transforms.shift_domain(images, seed=0).fingerprint,
        }

    before = prints()
    monkeypatch.setattr(versions, "VERSIONS", versions.VERSIONS | {"transform": 2})
    assert versions.later(transform=1, decode=3) == ("transform 2",)
    assert len(before | prints()) == 4
