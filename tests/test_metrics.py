"""Metrics against cases worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extractlib.api.granularity import Granularity
from extractlib.errors import InputError
from extractlib.metrics import (
    accuracy,
    agreement,
    auroc,
    constant_accuracy,
    errors_repeated,
    hidden_and_divergence,
    mean_class_accuracy,
    mutual_information,
    per_class_accuracy,
    recovery,
    recovery_above_constant,
    roc_curve,
    summary,
    t_interval,
    threshold_at,
    tnr_at_tpr,
    tpr_tnr,
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


def test_mean_class_accuracy_leaves_absent_classes_out():
    assert mean_class_accuracy(VICTIM, LABELS) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert mean_class_accuracy(torch.tensor([0, 3, 3]), torch.tensor([0, 3, 0])) == pytest.approx((1 / 2 + 1) / 2)


def test_recovery_above_a_constant_by_hand():
    assert recovery_above_constant(0.7, 0.9, 0.5) == pytest.approx(0.5)
    assert recovery_above_constant(0.5, 0.9, 0.5) == 0
    assert recovery_above_constant(0.4, 0.9, 0.5) == pytest.approx(-0.25)
    with pytest.raises(InputError, match="^the victim's accuracy is 0.5 and a constant's 0.5"):
        recovery_above_constant(0.4, 0.5, 0.5)


def test_tnr_at_tpr_sets_its_threshold_on_validation():
    """Of 20 validation scores the 19th, 19, accepts 95%; of the other side 20 and 25 are above it."""
    validation, ood = torch.arange(1.0, 21.0), torch.tensor([3.0, 19.0, 20.0, 25.0])
    assert tnr_at_tpr(validation, ood) == 0.5
    assert tnr_at_tpr(validation, ood, tpr=1.0) == 0.25  # above 20
    assert tnr_at_tpr(validation, ood, tpr=0.0) == 1.0


def test_scores_may_have_gradients():
    benign, ood = torch.tensor([0.1, 0.2, 0.6], requires_grad=True), torch.tensor([0.4, 0.8], requires_grad=True)
    # Of the six pairs, only 0.4 is not above 0.6.
    assert auroc(benign, ood) == pytest.approx(5 / 6)
    assert tpr_tnr(benign, ood, 0.5) == (pytest.approx(2 / 3), 0.5)
    assert threshold_at(benign, 1.0) == pytest.approx(0.6)
    tpr, tnr = roc_curve(benign, ood, points=4)
    assert tpr.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1]) and tnr.tolist() == [1, 1, 1, 0]
    assert not (tpr.requires_grad or tnr.requires_grad)
    assert benign.requires_grad and ood.requires_grad  # the caller's tensors stay as they are


def test_mutual_information_by_hand():
    certain, equal = torch.eye(4), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert mutual_information(certain) == pytest.approx(math.log(4))
    # Uncertain answers that are all the same are not varied.
    assert mutual_information(equal) == pytest.approx(0, abs=1e-12)
    # The mean is (.6, .4); entropies of the answers: that of (.9, .1) and that of (.3, .7).
    mixed = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    entropy = [-sum(p * math.log(p) for p in row) for row in ([0.6, 0.4], [0.9, 0.1], [0.3, 0.7])]
    assert mutual_information(mixed) == pytest.approx(entropy[0] - (entropy[1] + entropy[2]) / 2, abs=1e-6)


TRUE = torch.tensor([[0.62, 0.3, 0.04, 0.04]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "hidden", "divergence"),
    [
        ("full", 0.0, 0.0),
        ("top-2", 0.08, 0.0),
        ("label", 0.38, 0.0),
        # 0.6 and 0.3 are shown of 0.62 and 0.3: scaled, 2/3 and 1/3 of 62/92 and 30/92.
        ("rounded-1", 0.08, 62 / 92 * math.log(62 / 92 * 3 / 2) + 30 / 92 * math.log(30 / 92 * 3)),
    ],
)
def test_what_an_answer_hides_by_hand(text, hidden, divergence):
    shown = Granularity.parse(text).show(TRUE).targets(4, fill="renormalized")
    mass, apart = hidden_and_divergence(TRUE, shown)
    assert mass.tolist() == pytest.approx([hidden], abs=1e-6)
    assert apart.tolist() == pytest.approx([divergence], abs=1e-6)


def test_a_flattened_answer_hides_nothing_and_is_far_off():
    mass, apart = hidden_and_divergence(TRUE, torch.full((1, 4), 0.25))
    assert mass.item() == 0
    assert apart.item() == pytest.approx(sum(p * math.log(4 * p) for p in TRUE[0].tolist()))


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
        (lambda: accuracy(LABELS[:, None], LABELS), r"labels are \(6, 1\) and \(6,\): .*; for logits, take argmax"),
        (lambda: accuracy(LABELS, LABELS.numpy()), r"labels are \(6,\) and a ndarray: expected two tensors"),
        (lambda: accuracy(LABELS[:3], LABELS), "3 and 6 labels cannot be compared"),
        (lambda: agreement(LABELS[:0], LABELS[:0]), "0 and 0 labels cannot be compared"),
        (lambda: errors_repeated(LABELS[:1], LABELS, LABELS), "1 and 6 labels cannot be compared"),
        (lambda: errors_repeated(LABELS, LABELS[:1], LABELS), "1 and 6 labels cannot be compared"),
        (lambda: per_class_accuracy(LABELS[:3], LABELS, 3), "3 and 6 labels cannot be compared"),
        (
            lambda: threshold_at(torch.tensor([0.1, torch.nan, 0.3]), 0.9),
            "have NaN: expected a tensor of at least one number",
        ),
        (lambda: recovery(0.5, 0.0), "the victim's accuracy is 0.0"),
        (lambda: summary([0.5]), r"1 value\(s\) have no spread"),
        (lambda: t_interval([]), r"0 value\(s\) have no spread"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
