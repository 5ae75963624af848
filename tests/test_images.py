"""Image sets: what they refuse, and what their cuts keep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extractlib.data import images as module
from extractlib.data.images import ImageSet, Rows, mix, split_indices
from extractlib.errors import InputError, one_of
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
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), None, "of shape (2, 1, 4, 4)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "3 labels for 2 images"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "labels run from 0 to 2, outside 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(images, labels, message):
    with pytest.raises(InputError) as caught:
        ImageSet("set", images, labels, ("a", "b"), "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_subset_keeps_order_labels_and_changes_the_fingerprint():
    images = numbered(6)
    chosen = images.subset(torch.tensor([4, 1]))
    assert chosen.images[:, 0, 0, 0].tolist() == [4, 1]
    assert chosen.labels.tolist() == [1, 1]
    assert chosen.fingerprint == images.subset(torch.tensor([4, 1])).fingerprint
    assert len({chosen.fingerprint, images.fingerprint, images.subset(torch.tensor([1, 4])).fingerprint}) == 3


def test_unlabelled_hides_labels_and_names():
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


def test_digest_tells_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a") == digest(b"a")
    assert len(digest()) == 40


def test_one_of_names_the_value_and_the_choices():
    assert one_of("task", "signs", ("signs", "birds")) == "signs"
    with pytest.raises(InputError, match="^unknown task 'sign': use one of signs, birds$"):
        one_of("task", "sign", ("signs", "birds"))


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
