"""Metrics against cases worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extractlib.errors import InputError
from extractlib.metrics import (
    accuracy,
    agreement,
    constant_accuracy,
    per_class_accuracy,
    recovery,
    summary,
    t_interval,
)

LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
VICTIM = torch.tensor([0, 0, 1, 1, 2, 2])
SURROGATE = torch.tensor([0, 1, 1, 1, 2, 0])


def test_shares_by_hand():
    assert accuracy(VICTIM, LABELS) == pytest.approx(4 / 6)
    assert accuracy(SURROGATE, LABELS) == pytest.approx(2 / 6)
    # Agreement counts what is equal, be it right or wrong: images 0, 2, 3 and 4.
    assert agreement(SURROGATE, VICTIM) == pytest.approx(4 / 6)
    assert constant_accuracy(LABELS) == pytest.approx(3 / 6)
    assert recovery(0.45, 0.9) == pytest.approx(0.5)


def test_per_class_accuracy_by_hand():
    values = per_class_accuracy(VICTIM, LABELS, classes=4).tolist()
    assert values[:3] == pytest.approx([2 / 3, 1 / 2, 1])
    assert math.isnan(values[3])


def test_t_interval_of_a_textbook():
    # Mean 3, standard deviation sqrt(2.5), t(4, 0.975) = 2.776445: half-width 2.776445 * sqrt(2.5 / 5).
    low, high = t_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)
    assert summary([1, 2, 3, 4, 5]) == pytest.approx((3, math.sqrt(2.5)))


def test_t_interval_of_equal_values_is_a_point():
    assert t_interval([0.75, 0.75, 0.75]) == (0.75, 0.75)


def test_a_surer_interval_is_wider():
    narrow, wide = (t_interval([0.7, 0.8, 0.9], confidence=c) for c in (0.9, 0.99))
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=50), st.integers(0, 4))
def test_no_constant_beats_the_constant_predictor(labels, guess):
    labels = torch.tensor(labels)
    assert accuracy(torch.full_like(labels, guess), labels) <= constant_accuracy(labels)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_classes_weighted_by_their_size_give_the_accuracy(pairs):
    predicted, labels = torch.tensor(pairs).T
    counts = labels.bincount(minlength=4)
    weighted = (per_class_accuracy(predicted, labels, 4) * counts).nansum() / counts.sum()
    assert weighted.item() == pytest.approx(accuracy(predicted, labels))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(LABELS[:3], LABELS), "3 and 6 labels cannot be compared"),
        (lambda: agreement(LABELS[:0], LABELS[:0]), "0 and 0 labels cannot be compared"),
        (lambda: recovery(0.5, 0.0), "the victim's accuracy is 0.0"),
        (lambda: summary([0.5]), r"1 value\(s\) have no spread"),
        (lambda: t_interval([]), r"0 value\(s\) have no spread"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
