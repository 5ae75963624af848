"""Image sets: what they refuse, and what their cuts keep."""

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import extractlib as xl
from extractlib.data import images as module
from extractlib.data.images import ImageSet, Rows, check_images, from_tensor, mix, split_indices
from extractlib.errors import InputError, check_choice
from extractlib.models.training import Recipe, fit, predict
from extractlib.store import digest, digest_of


def numbered(count: int, *, classes: int = 3) -> ImageSet:
    """A set whose image i is filled with the value i."""
    values = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    names = tuple("abc"[:classes])
    return ImageSet("numbers", values, torch.arange(count) % classes, names, digest("numbers", str(count)))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), None, "images are torch.float32 of shape (2, 3, 4, 4)"),
        (torch.zeros(2, 2, 4, 4, dtype=torch.uint8), None, "of shape (2, 2, 4, 4): expected uint8 of shape (n, 1 or"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), None, "of shape (2, 4, 4, 3)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), None, "of shape (3, 4, 4)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), None, "images are torch.int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), "labels run from -1 to 0, outside 0 to 1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "3 labels for 2 images"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "labels run from 0 to 2, outside 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(images, labels, message):
    with pytest.raises(InputError) as caught:
        ImageSet("set", images, labels, ("a", "b"), "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_shows_what_it_is():
    images = numbered(4)
    assert (len(images), images.image_shape) == (4, (3, 4, 4))
    assert repr(images) == f"ImageSet('numbers', 4 images, 3 classes, {images.fingerprint[:12]})"
    assert ", unlabeled, " in repr(images.unlabeled())


def test_a_fingerprint_that_is_not_given_is_computed_from_the_bytes(monkeypatch):
    pixels, labels = numbered(6).images, torch.arange(6) % 2
    computed = ImageSet("set", pixels, labels, ("a", "b"))
    assert len(computed.fingerprint) == 40
    assert ImageSet("other name", pixels.clone(), labels.clone(), ("a", "b")).fingerprint == computed.fingerprint
    monkeypatch.setattr(module, "LARGE", 0)
    view = computed.subset(torch.arange(6))
    assert isinstance(view.images, Rows)
    assert ImageSet("view", view.images, labels, ("a", "b")).fingerprint == computed.fingerprint


def test_a_subset_by_a_mask_is_that_of_the_places_where_it_is_true():
    images, mask = numbered(6), torch.tensor([False, True, False, False, True, False])
    found, by_place = images.subset(mask), images.subset(torch.tensor([1, 4]))
    assert torch.equal(found.images, images.images[[1, 4]]) and found.fingerprint == by_place.fingerprint


def others() -> dict[str, ImageSet]:
    """Return sets that each differ from all others in one thing."""
    pixels, labels = numbered(6).images, torch.arange(6) % 2
    touched = pixels.clone()
    touched[5, 2, 3, 3] ^= 1
    first, second = numbered(6), numbered(7)
    some = torch.tensor([0, 1])
    return {
        "bytes": ImageSet("set", pixels, labels, ("a", "b")),
        "a pixel": ImageSet("set", touched, labels, ("a", "b")),
        "a label": ImageSet("set", pixels, labels.flip(0), ("a", "b")),
        "no labels": ImageSet("set", pixels),
        "a name of a class": ImageSet("set", pixels, labels, ("a", "c")),
        "shape": ImageSet("set", pixels.reshape(6, 3, 2, 8), labels, ("a", "b")),
        "channels": ImageSet("set", pixels.reshape(6, 1, 6, 8), labels, ("a", "b")),
        "set": first,
        "subset": first.subset(some),
        "subset of another": second.subset(some),
        "other images": first.subset(some + 1),
        "other order": first.subset(some.flip(0)),
        "subset of the subset": first.subset(some).subset(some),
        "unlabeled": first.unlabeled(),
        "unlabeled, of another": second.unlabeled(),
        "mix": mix(first, second, name="mix"),
        "mix the other way": mix(second, first, name="mix"),
        "mix with itself": mix(first, first, name="mix"),
        "part": first.split({"a": 0.5, "b": 0.5}, seed=0)["a"],
        "part of another": second.split({"a": 0.5, "b": 0.5}, seed=0)["a"],
        "other part": first.split({"a": 0.5, "b": 0.5}, seed=0)["b"],
    }


def test_whatever_differs_makes_another_fingerprint():
    prints = {name: images.fingerprint for name, images in others().items()}
    assert len(set(prints.values())) == len(prints), prints
    assert prints == {name: images.fingerprint for name, images in others().items()}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (torch.ones(5, dtype=torch.bool), r"a mask of \(5,\) for 24 images: give one value for each"),
        (torch.ones(50, dtype=torch.bool), r"a mask of \(50,\) for 24 images"),
        (torch.tensor([0, 24]), "indices from 0 to 24 of 24 images: leave others out"),
        (torch.tensor([-25, 0]), "indices from -25 to 0 of 24 images"),
    ],
)
def test_a_subset_of_images_that_are_not_there_is_refused(chosen, words):
    images = ImageSet("pets", torch.zeros(24, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=f"^pets: {words}"):
        images.subset(chosen)
    assert len(images.subset(torch.tensor([], dtype=torch.int64))) == 0 and len(images.subset(torch.tensor([-24]))) == 1


def test_subset_keeps_order_labels_and_changes_the_fingerprint():
    images = numbered(6)
    chosen = images.subset(torch.tensor([4, 1]))
    assert chosen.images[:, 0, 0, 0].tolist() == [4, 1]
    assert chosen.labels.tolist() == [1, 1]
    assert chosen.fingerprint == images.subset(torch.tensor([4, 1])).fingerprint
    assert len({chosen.fingerprint, images.fingerprint, images.subset(torch.tensor([1, 4])).fingerprint}) == 3


def test_unlabeled_hides_labels_and_names():
    hidden = numbered(4).unlabeled()
    assert (hidden.labels, hidden.classes) == (None, ())
    assert hidden.fingerprint != numbered(4).fingerprint


@given(count=st.integers(4, 200), seed=st.integers(0, 2**32), groups=st.booleans())
def test_parts_are_disjoint_complete_and_keep_groups_together(count, seed, groups):
    images = numbered(count)
    group = torch.arange(count) // 3 if groups else None
    parts = images.split({"first": 0.5, "second": 0.25, "third": 0.25}, seed=seed, groups=group)
    values = [part.images[:, 0, 0, 0].tolist() for part in parts.values()]
    assert sorted(sum(values, [])) == list(range(count))
    if groups:
        members = [{value // 3 for value in part} for part in values]
        assert not (members[0] & members[1] or members[0] & members[2] or members[1] & members[2])


def test_split_has_the_asked_sizes_and_follows_its_seed():
    parts = numbered(200).split({"first": 0.7, "second": 0.3}, seed=1)
    assert [len(part) for part in parts.values()] == [140, 60]
    again = numbered(200).split({"first": 0.7, "second": 0.3}, seed=1)
    other = numbered(200).split({"first": 0.7, "second": 0.3}, seed=2)
    assert parts["first"].fingerprint == again["first"].fingerprint != other["first"].fingerprint


@given(count=st.integers(30, 200), seed=st.integers(0, 2**32))
def test_a_shuffled_part_holds_the_same_images_and_its_groups_side_by_side(count, seed):
    options = {"shares": {"first": 0.5, "second": 0.5}, "seed": seed, "groups": torch.arange(count) // 3}
    plain, shuffled = numbered(count).split(**options), numbered(count).split(**options, shuffled=("second",))
    assert shuffled["first"].fingerprint == plain["first"].fingerprint
    found = shuffled["second"].images[:, 0, 0, 0].tolist()
    assert sorted(found) == plain["second"].images[:, 0, 0, 0].tolist()
    groups = list(dict.fromkeys(value // 3 for value in found))
    assert found == [value for group in groups for value in range(3 * group, min(3 * group + 3, count))]


def test_a_shuffled_part_follows_the_seed():
    first, again, other = (
        numbered(200).split({"all": 1.0}, seed=seed, shuffled=("all",))["all"].images[:, 0, 0, 0].tolist()
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first != sorted(first)


@pytest.mark.parametrize("shares", [{"a": 0.8, "b": 0.3}, {"a": 0.0, "b": 0.5}, {"a": -0.1, "b": 0.5}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(InputError, match="must be positive and add up to at most 1"):
        numbered(10).split(shares, seed=0)


def test_mix_puts_one_set_behind_the_other():
    both = mix(numbered(2), numbered(3), name="both")
    assert both.images[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert both.labels is None
    large = ImageSet("large", torch.zeros(1, 3, 8, 8, dtype=torch.uint8), None, (), "f")
    with pytest.raises(InputError, match=r"numbers has images of \(3, 4, 4\) and large of \(3, 8, 8\)"):
        mix(numbered(2), large, name="both")


def test_mix_of_gray_and_color_is_refused():
    gray = ImageSet("gray", torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"numbers has images of \(3, 4, 4\) and gray of \(1, 4, 4\)"):
        mix(numbered(2), gray, name="both")


# -- images of one's own -----------------------------------------------------------


def test_bytes_are_kept_as_they_are():
    pixels = numbered(5).images
    labels = torch.tensor([0, 1, 1, 0, 2])
    found = xl.images(pixels, labels, classes=("a", "b", "c"), name="mine")
    assert (found.name, found.classes, found.labels.tolist()) == ("mine", ("a", "b", "c"), [0, 1, 1, 0, 2])
    assert torch.equal(found.images, pixels)
    assert xl.images(pixels, labels, classes=np.array(["a", "b", "c"])).classes == ("a", "b", "c")
    assert xl.images(pixels, labels).classes == ("0", "1", "2")
    assert (xl.images(pixels).labels, xl.images(pixels).classes) == (None, ())
    assert xl.images(found) is found


def test_floats_are_rounded_to_the_nearest_of_256_levels():
    values = torch.tensor([0.0, 1.0, 0.5, 1 / 255, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255])
    for kind in (torch.float32, torch.float64):
        found = xl.images(values.to(kind).view(8, 1, 1, 1))
        assert found.images.flatten().tolist() == [0, 255, 128, 1, 0, 1, 254, 255]


@given(st.integers(0, 255))
def test_every_level_comes_back(level):
    image = torch.full((1, 3, 2, 2), level, dtype=torch.uint8)
    assert torch.equal(xl.images(image.float() / 255).images, image)


def test_gray_images_get_their_channel():
    gray = torch.arange(12, dtype=torch.uint8).view(2, 2, 3)
    for source in (gray, gray.numpy(), gray[:, None], gray.float() / 255):
        found = xl.images(source)
        assert found.image_shape == (1, 2, 3) and torch.equal(found.images[:, 0], gray)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_arrays_are_taken_like_tensors(kind):
    pixels = numbered(5).images
    array = pixels.numpy() if kind is np.uint8 else (pixels.numpy() / 255).astype(kind)
    found = xl.images(array, np.array([0, 1, 0, 1, 0]))
    assert torch.equal(found.images, pixels)
    assert found.fingerprint == xl.images(pixels, torch.tensor([0, 1, 0, 1, 0])).fingerprint


def test_arrays_that_run_backward_are_taken_as_they_look():
    """As after BGR became RGB, alone and in a data set."""
    array = numbered(5).images.numpy()[:, ::-1]
    expected = torch.from_numpy(array.copy())
    assert torch.equal(xl.images(array).images, expected) and torch.equal(xl.images(list(array)).images, expected)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (torch.tensor([1.01, 0.5]).view(2, 1, 1, 1), {}, "floats outside of 0 to 1, NaN or no images at all: scale"),
        (torch.tensor([-0.01, 0.5]).view(2, 1, 1, 1), {}, "floats outside of 0 to 1"),
        (torch.tensor([math.nan, 0.5]).view(2, 1, 1, 1), {}, "floats outside of 0 to 1"),
        (torch.tensor([math.inf, 0.5]).view(2, 1, 1, 1), {}, "floats outside of 0 to 1"),
        (torch.zeros(0, 3, 4, 4), {}, "no images at all"),
        (numbered(3).images.float(), {}, "floats outside of 0 to 1"),
        (np.full((2, 3, 4, 4), np.nan), {}, "floats outside of 0 to 1"),
        (torch.zeros(2, 4, 4, 3), {}, r"of shape \(2, 4, 4, 3\)"),
        (torch.zeros(4, 4), {}, r"of shape \(4, 4\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), {}, "images are torch.int64"),
        (torch.zeros(2, 3, 4, 4), {"labels": torch.zeros(3, dtype=torch.int64)}, "3 labels for 2 images"),
        (torch.zeros(2, 3, 4, 4), {"labels": [0.5, 1.0]}, r"labels are torch.float32 of shape \(2,\): expected whole"),
        (torch.zeros(2, 3, 4, 4), {"labels": torch.eye(2)}, r"labels are torch.float32 of shape \(2, 2\)"),
        (torch.zeros(2, 3, 4, 4), {"labels": torch.zeros(2, 1, dtype=torch.int64)}, r"of shape \(2, 1\)"),
        (torch.zeros(2, 3, 4, 4), {"labels": [0, 2], "classes": ["a", "b"]}, "labels run from 0 to 2"),
        (numbered(2), {"classes": ["a"]}, "a set of images has its own labels and classes: give neither"),
        ([(torch.zeros(3, 4, 4), 0)], {"labels": [0]}, "the data set has its own labels: give none"),
        (torch.zeros(2, 3, 4, 4), {"labels": 5}, r"labels are torch.int64 of shape \(\): expected whole numbers"),
        (torch.zeros(2, 3, 4, 4), {"labels": []}, r"labels are torch.float32 of shape \(0,\): expected whole numbers"),
        (torch.zeros(2, 3, 4, 4), {"classes": ["a"]}, "classes without labels: give both or neither"),
        (torch.zeros(2, 3, 4, 4), {"labels": ["a", "b"], "classes": ["a"]}, "label 'b' is not one of the classes"),
        ((torch.zeros(2, 3, 4, 4), torch.zeros(2)), {}, r"a pair of tensors: for a pair \(x, y\), call images"),
        (7, {}, "images are a int: expected a tensor, an array or a torch data set"),
        (None, {}, "images are a NoneType"),
        ([], {}, "the data set is empty"),
        ("signs", {}, r"images are 'signs': load them, as in load\(…, role='pool'\).queries"),
        (xl.Folder("pets"), {}, r"images are 'folder:pets': load them"),
        (["signs"], {}, "an image is a str: expected a tensor, an array or a Pillow image"),
        ([(torch.zeros(3, 4, 4), 0), (torch.zeros(3, 4, 5), 1)], {}, r"shapes \[\(3, 4, 4\), \(3, 4, 5\)\]: bring"),
        ([(torch.full((3, 4, 4), 2.0), 0)], {}, "floats outside of 0 to 1"),
        (np.zeros((2, 3, 4, 4), object), {}, "images are an array of object: expected one of numbers"),
        ([np.zeros((3, 4, 4), object)], {}, "images are an array of object: expected one of numbers"),
        ([(torch.zeros(3, 4, 4), {"boxes": []})], {}, r"the label of an item is {'boxes': \[\]}: expected a whole"),
        ([(torch.zeros(3, 4, 4), [0, 1])], {}, r"the label of an item is \[0, 1\]: expected a whole number, or a name"),
    ],
)
def test_images_that_cannot_be_used(source, options, message):
    with pytest.raises(InputError, match=message) as caught:
        xl.images(source, **options)
    assert "\n" not in str(caught.value)


class Pairs(torch.utils.data.Dataset):
    """Images with their labels and the names of the classes, as torchvision has them."""

    classes = ["cat", "dog"]

    def __init__(self, images, labels):
        self._items = list(zip(images, labels, strict=True))

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


LABELS = torch.tensor([0, 1, 1, 0, 1])


def as_pillow(image: torch.Tensor, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy()).convert(mode)


@pytest.mark.parametrize(
    "item",
    [
        lambda image: image,
        lambda image: image.float() / 255,
        lambda image: image.numpy(),
        lambda image: image.numpy() / 255,
        as_pillow,
        lambda image: as_pillow(image, "RGBA"),
    ],
    ids=["bytes", "floats", "array", "array of floats", "Pillow's", "Pillow's with transparency"],
)
@pytest.mark.parametrize("label", [int, lambda number: number, lambda number: number.numpy()], ids=["int", "0-d", "np"])
def test_a_data_set_becomes_a_set(item, label):
    pixels = numbered(5).images
    found = xl.images(Pairs(map(item, pixels), map(label, LABELS)), name="pets")
    assert (found.name, found.classes, found.labels.dtype) == ("pets", ("cat", "dog"), torch.int64)
    assert torch.equal(found.images, pixels) and torch.equal(found.labels, LABELS)
    assert found.fingerprint == xl.images(pixels, LABELS, classes=("cat", "dog")).fingerprint


def test_labels_beside_a_list_may_be_names():
    pixels = numbered(4).images
    found = xl.images([Image.fromarray(one.permute(1, 2, 0).numpy()) for one in pixels], ["dog", "cat", "dog", "dog"])
    assert found.classes == ("cat", "dog") and found.labels.tolist() == [1, 0, 1, 1]
    assert torch.equal(found.images, pixels)
    as_array = xl.images(pixels, np.array(["dog", "cat", "dog", "dog"]))
    assert as_array.fingerprint == xl.images(pixels, ["dog", "cat", "dog", "dog"]).fingerprint
    ordered = xl.images(pixels, ["dog", "cat", "dog", "dog"], classes=["dog", "cat"])
    assert ordered.labels.tolist() == [0, 1, 0, 0]


def test_pictures_in_memory_are_converted_as_those_in_files():
    ramp = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    deep = Image.fromarray((ramp * 60_000).astype(np.uint16))
    for picture in (Image.fromarray(ramp), deep):
        assert xl.images([picture]).images.flatten().tolist()[::15] == [0, 255]
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert xl.images([clear]).images.unique().tolist() == [255]


def test_data_sets_without_labels_or_names():
    pixels = numbered(5).images
    for source in (
        torch.utils.data.TensorDataset(pixels),  # its items are tuples of one
        list(pixels),
        Pairs(pixels, [None] * 5),
    ):
        found = xl.images(source)
        assert torch.equal(found.images, pixels) and (found.labels, found.classes) == (None, ())
    named = xl.images(torch.utils.data.TensorDataset(pixels, LABELS))
    assert named.classes == ("0", "1") and torch.equal(named.labels, LABELS)


def test_gray_and_black_and_white_pictures_have_one_channel():
    gray = torch.arange(16, dtype=torch.uint8).view(4, 4) * 17
    sharp = Image.fromarray(gray.numpy()).point(lambda level: 255 * (level > 100), "1")
    found = xl.images([Image.fromarray(gray.numpy()), sharp])
    assert found.image_shape == (1, 4, 4)
    assert torch.equal(found.images[0, 0], gray)
    assert torch.equal(found.images[1, 0], 255 * (gray > 100).to(torch.uint8))


def test_a_palette_is_looked_up():
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert xl.images([picture]).images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_what_a_torchvision_data_set_gives(tmp_path):
    """A folder of class folders, read by torchvision."""
    for number, name in enumerate(("ash", "oak")):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (4, 4), (number, index, 9)).save(tmp_path / name / f"{index}.png")
    found = xl.images(torchvision.datasets.ImageFolder(str(tmp_path)))
    assert (found.classes, found.labels.tolist()) == (("ash", "oak"), [0, 0, 0, 1, 1, 1])
    assert found.images[:, :, 0, 0].tolist() == [[number, index, 9] for number in range(2) for index in range(3)]


def test_digest_tells_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a") == digest(b"a")
    assert len(digest()) == 40


def test_a_choice_that_is_none_is_named_with_the_choices():
    assert check_choice("task", "signs", ("signs", "birds")) == "signs"
    with pytest.raises(InputError, match="^unknown task 'sign': use one of signs, birds$"):
        check_choice("task", "sign", ("signs", "birds"))


# -- large sets ------------------------------------------------------------------


def test_a_large_subset_is_a_view_that_equals_the_copy(monkeypatch):
    images = numbered(40)
    chosen = torch.tensor([7, 3, 3, 39, 0])
    copy = images.subset(chosen)
    monkeypatch.setattr(module, "LARGE", 4 * 3 * 4 * 4)  # four images
    view = images.subset(chosen)
    assert isinstance(copy.images, torch.Tensor) and isinstance(view.images, Rows)
    assert (view.fingerprint, len(view), view.images.shape) == (copy.fingerprint, 5, copy.images.shape)
    assert torch.equal(view.images[:], copy.images)
    assert view.images.nbytes == copy.images.nbytes == 5 * 3 * 4 * 4
    assert torch.equal(view.images[1], copy.images[1])
    assert torch.equal(view.images[torch.tensor([4, 0])], copy.images[[4, 0]])
    assert torch.equal(torch.cat(list(view.images.split(2))), copy.images)
    assert torch.equal(mix(view, images, name="both").images, mix(copy, images, name="both").images)
    # A view of a view reads from the first set; few images are copied again.
    again, few = view.subset(torch.tensor([4, 3, 2, 1, 0])), view.subset(torch.tensor([1, 0]))
    assert isinstance(again.images, Rows) and isinstance(few.images, torch.Tensor)
    assert torch.equal(again.images[:], copy.images.flip(0))
    assert few.images[:, 0, 0, 0].tolist() == [3, 7]


def test_a_view_holds_no_pixels_of_its_own(monkeypatch):
    images = numbered(40)
    monkeypatch.setattr(module, "LARGE", 0)
    view = images.subset(torch.arange(40))
    images.images[5] = 200
    assert view.images[5].unique().tolist() == [200]
    assert view.images.to("cpu") is view.images
    assert view.images.to("meta").shape == (40, 3, 4, 4)


def test_a_network_learns_the_same_from_a_view(monkeypatch):
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(48, 3)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

        def forward(self, images):
            return self.head(images.flatten(1).float() / 255)

    images, order = numbered(40), torch.arange(39, -1, -1)
    copy = images.subset(order)
    monkeypatch.setattr(module, "LARGE", 0)
    view, recipe = images.subset(order), Recipe(epochs=2, learning_rate=0.1, batch_size=8, shift=1, flip=True)
    models = [fit(Linear(), some.images, some.labels, recipe, seed=0) for some in (copy, view)]
    assert torch.equal(models[0].head.weight, models[1].head.weight) and models[0].head.weight.abs().sum() > 0
    assert torch.equal(predict(models[0], view.images), predict(models[0], copy.images))


def test_parts_come_one_at_a_time_to_the_same_digest():
    assert digest_of(iter(["a", b"b"])) == digest("a", "b")


def test_split_indices_are_those_of_the_sets_that_are_cut():
    shares, groups = {"first": 0.5, "second": 0.5}, torch.arange(40) // 4
    indices = split_indices(40, shares, seed=3, groups=groups, shuffled=("second",))
    parts = numbered(40).split(shares, seed=3, groups=groups, shuffled=("second",))
    assert {part: chosen.tolist() for part, chosen in indices.items()} == {
        part: images.images[:, 0, 0, 0].tolist() for part, images in parts.items()
    }
    assert sorted(torch.cat(list(indices.values())).tolist()) == list(range(40))


def test_sets_without_images_and_items_without_labels_are_refused():
    with pytest.raises(InputError, match="a set without images cannot be split"):
        split_indices(0, {"a": 0.5}, seed=0)
    with pytest.raises(InputError, match="^shares {} must be positive and add up to at most 1$"):
        split_indices(3, {}, seed=0)
    image = torch.zeros(3, 2, 2)
    with pytest.raises(InputError, match="item 1 has no label, although the first one has: label all or none"):
        module.images([(image, 1), (image, None)])
    with pytest.raises(InputError, match=r"labels are \['a', 1\]: expected whole numbers, or names"):
        module.images(torch.zeros(2, 3, 2, 2), ["a", 1])


def test_a_mistyped_path_is_no_set_of_the_book(tmp_path):
    for path in (str(tmp_path / "nothere"), "./nothere", "~/nothere"):
        with pytest.raises(InputError, match="nothere is not a folder: name one with images"):
            xl.load(path)
    for path in ("~nobody-here/pets", "folder:~nobody-here/pets"):
        with pytest.raises(InputError, match="the folder is ~nobody-here/pets, but there is no such user"):
            xl.load(path)


def test_arrays_and_fractions_are_named_with_what_to_do():
    images = from_tensor(torch.zeros(3, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="^images are an array of NumPy, of which torch.from_numpy makes a tensor"):
        check_images(images.images.numpy())
    with pytest.raises(InputError, match="^images: indices are torch.float32: expected int64, or a mask of bool"):
        images.subset(torch.tensor([0.9, 1.9]))
    with pytest.raises(InputError, match=r"^images: indices are of shape \(\): expected \(m,\)$"):
        images.subset(2)
    with pytest.raises(InputError, match=r"^images: indices are of shape \(1, 2\): expected \(m,\)$"):
        images.subset(torch.tensor([[0, 1]]))
    with pytest.raises(
        InputError, match=r"^images: indices are slice\(None, 3, None\): expected whole numbers, or a mask$"
    ):
        images.subset(slice(3))
    assert len(images.subset(torch.tensor([]))) == 0
    with pytest.raises(InputError, match="^images: images are an array of >f4: expected one of numbers in"):
        xl.images(np.zeros((2, 3, 4, 4), ">f4"))
