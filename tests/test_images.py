"""Image sets: what they refuse, and what their cuts keep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extractlib.errors import InputError, one_of
from extractlib.images import ImageSet, digest, mix


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
    hidden = numbered(4).unlabelled()
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
