"""Policies: each returns no more than it says, and asking again gains nothing."""

import hashlib
import hmac
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_victim import linear_victim, noise

from extractlib.api.service import PredictionAPI
from extractlib.defenses.policies import POLICIES, Deny, LabelOnly, Shuffle, Unchanged, policy
from extractlib.defenses.watermark import KeyedSample, Mislabel
from extractlib.errors import InputError

SECRET = b"between us"
IMAGES = noise(8)
PROBABILITIES = torch.softmax(torch.randn(8, 10, generator=torch.Generator().manual_seed(0)) * 3, 1)
ALL = torch.ones(8, dtype=torch.bool)


def test_the_shuffle_is_the_permutation_that_the_key_gives():
    shown = Shuffle(SECRET).answer(PROBABILITIES, ALL, IMAGES)
    for row, image, true in zip(shown, IMAGES, PROBABILITIES, strict=True):
        key = hmac.new(SECRET, image.numpy().tobytes(), hashlib.sha256).digest()
        order = np.random.default_rng(int.from_bytes(key, "big")).permutation(10)
        assert row.tolist() == true[order].tolist()


def test_another_secret_or_pixel_gives_another_permutation():
    shown = Shuffle(SECRET).answer(PROBABILITIES, ALL, IMAGES)
    assert torch.equal(Shuffle(SECRET).answer(PROBABILITIES, ALL, IMAGES), shown)
    other = Shuffle(b"another").answer(PROBABILITIES, ALL, IMAGES)
    touched = IMAGES.clone()
    touched[:, 0, 0, 0] ^= 1
    moved = Shuffle(SECRET).answer(PROBABILITIES, ALL, touched)
    assert (other == shown).all(1).sum() == (moved == shown).all(1).sum() == 0


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12))
def test_a_shuffle_keeps_the_numbers(values):
    row = torch.tensor([values])
    [shown] = Shuffle(SECRET).answer(row, ALL[:1], IMAGES[:1])
    assert sorted(shown.tolist()) == sorted(row[0].tolist())


def test_a_shuffled_label_is_uniform_over_many_images():
    """Chi-square of 2,000 places of the highest probability, 9 degrees of freedom, below its 99.9% bound."""
    images = noise(2_000, seed=3)
    certain = torch.eye(10)[torch.zeros(2_000, dtype=torch.int64)]
    places = Shuffle(SECRET).answer(certain, torch.ones(2_000, dtype=torch.bool), images).argmax(1)
    counts = torch.bincount(places, minlength=10).double()
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


def test_a_mark_swaps_the_highest_with_another():
    shown = Mislabel(SECRET).answer(PROBABILITIES, ALL, IMAGES)
    true = PROBABILITIES.argmax(1)
    assert (shown.argmax(1) != true).all()
    # Two places of each row differ, and they hold each other's number.
    assert (shown != PROBABILITIES).sum(1).tolist() == [2] * 8
    assert torch.equal(shown.sort(1).values, PROBABILITIES.sort(1).values)


def test_the_wrong_class_is_the_one_that_the_key_gives():
    shown = Mislabel(SECRET).answer(PROBABILITIES, ALL, IMAGES)
    for label, image, true in zip(shown.argmax(1), IMAGES, PROBABILITIES.argmax(1), strict=True):
        key = hmac.new(SECRET, image.numpy().tobytes(), hashlib.sha256).digest()
        further = int(np.random.default_rng(int.from_bytes(key, "big")).integers(1, 10))
        assert int(label) == (int(true) + further) % 10


def test_marked_labels_are_spread_over_all_other_classes():
    images = noise(900, seed=4)
    certain = torch.eye(10)[torch.full((900,), 3)]
    labels = Mislabel(SECRET).answer(certain, torch.ones(900, dtype=torch.bool), images).argmax(1)
    counts = torch.bincount(labels, minlength=10)
    assert counts[3] == 0 and counts[counts > 0].min() > 60 and len(counts[counts > 0]) == 9


# -- no more than it says ----------------------------------------------------------

LEAKS = {
    # What may change in the true probabilities without the answer changing.
    "deny": lambda true: torch.softmax(torch.randn_like(true), 1),
    "label": lambda true: torch.softmax(true.log() * 0.3, 1),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_a_policy_hides_does_not_show(name):
    other = LEAKS[name](PROBABILITIES)
    assert not torch.allclose(other, PROBABILITIES)
    shown = [policy(name, secret=SECRET).answer(true, ALL, IMAGES) for true in (PROBABILITIES, other)]
    assert torch.equal(shown[0].nan_to_num(-1), shown[1].nan_to_num(-1))


def test_the_order_of_a_shuffle_depends_on_the_image_and_not_on_the_answer():
    """Whatever the victim says of an image, its numbers go to the same places."""
    [order] = Shuffle(SECRET).answer(torch.arange(10.0)[None], ALL[:1], IMAGES[:1])
    for true in PROBABILITIES:
        [shown] = Shuffle(SECRET).answer(true[None], ALL[:1], IMAGES[:1])
        assert torch.equal(shown, true[order.long()])


def test_deny_and_label_by_hand():
    detected = torch.tensor([True] + [False] * 7)
    assert Deny().answer(PROBABILITIES, detected, IMAGES)[0].isnan().all()
    label = LabelOnly().answer(PROBABILITIES, detected, IMAGES)[0]
    assert label.tolist() == [float(place == int(PROBABILITIES[0].argmax())) for place in range(10)]
    assert torch.equal(Unchanged().answer(PROBABILITIES, detected, IMAGES), PROBABILITIES)


@pytest.mark.parametrize("name", POLICIES)
def test_undetected_rows_are_untouched_and_the_input_too(name):
    detected, before = torch.arange(8) % 3 == 0, PROBABILITIES.clone()
    shown = policy(name, secret=SECRET).answer(PROBABILITIES, detected, IMAGES)
    assert torch.equal(shown[~detected], before[~detected])
    assert torch.equal(PROBABILITIES, before)
    nobody = torch.zeros(8, dtype=torch.bool)
    assert torch.equal(policy(name, secret=SECRET).answer(PROBABILITIES, nobody, IMAGES), before)


def test_each_policy_says_what_it_leaks_and_is_told_from_the_others():
    made = [policy(name, secret=SECRET) for name in POLICIES]
    assert all(isinstance(one.leaks, str) and one.leaks for one in made)
    assert len({one.fingerprint for one in made}) == len(POLICIES)


@pytest.mark.parametrize("make", [Shuffle, Mislabel, lambda secret: KeyedSample(rate=0.1, secret=secret)])
def test_a_secret_shows_nowhere_and_decides_the_fingerprint(make):
    made = make(SECRET)
    shown = f"{made!r} {made} {made.fingerprint}"
    assert not any(part in shown for part in ("between", "us'", SECRET.hex(), "secret"))
    assert made.fingerprint == make(SECRET).fingerprint != make(b"another").fingerprint


def test_a_samples_fingerprint_depends_on_its_rate():
    assert KeyedSample(rate=0.1, secret=SECRET).fingerprint != KeyedSample(rate=0.2, secret=SECRET).fingerprint


def test_the_lot_is_drawn_under_a_key_of_its_own():
    """The lot and the wrong class must not depend on each other: the key of the lot is "sample" and the secret."""
    images = noise(200, seed=7)
    keys = [hmac.new(b"sample" + SECRET, image.numpy().tobytes(), hashlib.sha256).digest() for image in images]
    lots = [np.random.default_rng(int.from_bytes(key, "big")).random() < 0.3 for key in keys]
    assert KeyedSample(rate=0.3, secret=SECRET).detect(images).tolist() == lots


def test_every_policy_is_known_whatever_is_imported_first():
    code = "import extractlib as xl; print(*xl.policies.POLICIES); xl.policies.policy('mislabel', secret=b'any')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["unchanged", "deny", "label", "shuffle", "mislabel"]


# -- behind an API -----------------------------------------------------------------


class Bright:
    """Detects images whose first pixel is bright."""

    fingerprint = "bright"

    def detect(self, images):
        return images[:, 0, 0, 0] > 127


@pytest.mark.parametrize("granularity", ["full", "top-3", "rounded-2", "label"])
@pytest.mark.parametrize("name", POLICIES)
def test_asking_twice_or_in_other_company_gives_the_same_answer(name, granularity):
    api = PredictionAPI(linear_victim(), answers=granularity, detector=Bright(), policy=policy(name, secret=SECRET))
    first = api.query(IMAGES, client="a")
    turned = api.query(IMAGES.flip(0), client="b")
    alone = api.query(IMAGES[3:4], client="c")
    assert torch.equal(first.labels, turned.labels.flip(0))
    assert torch.equal(first.labels[3:4], alone.labels)
    if granularity != "label":
        # To the last bit or nearly: a processor may round the victim's own answer otherwise in another batch.
        torch.testing.assert_close(first.probabilities, turned.probabilities.flip(0))
        torch.testing.assert_close(first.probabilities[3:4], alone.probabilities)


# -- watermark ---------------------------------------------------------------------


def test_a_keyed_sample_picks_its_share_and_always_the_same():
    images = noise(4_000, seed=5)
    sample = KeyedSample(rate=0.1, secret=SECRET)
    picked = sample.detect(images)
    # 400 are expected; four standard deviations of a binomial are 76.
    assert 324 < int(picked.sum()) < 476
    assert torch.equal(sample.detect(images.flip(0)), picked.flip(0))
    assert not torch.equal(KeyedSample(rate=0.1, secret=b"another").detect(images), picked)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_rates_that_cannot_be(rate):
    with pytest.raises(InputError, match="expected a share above 0 and below 1"):
        KeyedSample(rate=rate, secret=SECRET)


@pytest.mark.parametrize(("secret", "wrong"), [(b"", "empty"), ("text", "not bytes"), (None, "not bytes")])
def test_secrets_that_are_none(secret, wrong):
    for make in (Shuffle, Mislabel, lambda secret: KeyedSample(rate=0.1, secret=secret)):
        with pytest.raises(InputError, match=f"^the secret is {wrong}: expected at least one byte$"):
            make(secret)


def test_unknown_policies_are_refused():
    with pytest.raises(InputError, match="unknown policy 'ban': use one of unchanged, deny, label, shuffle, mislabel"):
        policy("ban", secret=SECRET)


def test_only_what_changes_nothing_is_called_unchanged():
    policies = [policy(name, secret=SECRET) for name in POLICIES]
    assert [type(one).__name__ for one in policies if isinstance(one, Unchanged)] == ["Unchanged"]
    assert POLICIES["mislabel"] is Mislabel
