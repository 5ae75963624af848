"""Bounds and verdicts on hand-computed numbers."""

import numpy as np
import pandas as pd
import pytest

from extractbook.reproduction import judging
from extractbook.reproduction.judging import (
    Bound,
    Counts,
    Limit,
    Quantity,
    Verdict,
    bound,
    fulfilled,
    holm,
    judge,
    summarize,
)

T = 2.841244
"""Student's t with 7 degrees of freedom at 98.75%."""

SEEDS = range(8)


def quantity(values, *, images: float = 1e6, seeds=SEEDS) -> Quantity:
    return Quantity(pd.DataFrame({0: values}, index=list(seeds), dtype=float), images, frozenset(seeds))


def judged(values, sign: str, limit: float, *, images: float = 1e6, range=(-np.inf, np.inf)) -> Bound:
    stated = Limit(name="r", quantity="r({task})", tasks=["signs"], sign=sign, limit=limit, range=range)
    found = values if isinstance(values, Quantity | Counts) else quantity(values, images=images)
    return bound(stated, found, seeds=SEEDS, words={"task": "signs"})


def around(mean: float) -> list[float]:
    """Return eight values of that mean and a standard deviation of 0.01."""
    step = 0.01 * (7 / 8) ** 0.5
    return [mean - step, mean + step] * 4


HALF = T * 0.01 / 8**0.5


def test_interval_is_students_at_97_5_percent():
    found = judged(around(0.9), "≥", 0.75)
    assert found.interval == pytest.approx((0.9 - HALF, 0.9 + HALF), abs=1e-6)
    assert str(found) == "r(signs) ≥ 0.75: 0.900, interval 0.890 to 0.910, 8 seeds"
    assert found.seeds == tuple(SEEDS)


def test_negative_numbers_have_a_minus_sign():
    found = judged(around(-0.9), "≤", -0.75)
    assert str(found) == "r(signs) ≤ −0.75: −0.900, interval −0.910 to −0.890, 8 seeds"


@pytest.mark.parametrize(("limit", "violation"), [(0.5, 1.0), (0.6, 1 / 4_001), (0.4, 1.0)])
def test_a_violation_counts_the_resamples_that_reach_the_limit(limit, violation):
    """All of 4,000 draws are 0.5: none, or all, reach the limit."""
    values = Quantity(pd.DataFrame(np.full((8, 4), 0.5), index=list(SEEDS)), 1e9, frozenset(SEEDS))
    assert judged(values, "≥", limit).violation == pytest.approx(violation)
    assert judged(values * -1, "≤", -limit).violation == pytest.approx(violation)


@pytest.mark.parametrize(("sign", "fits"), [("≥", True), (">", False), ("≤", True), ("<", False), ("±", True)])
def test_a_precondition_at_its_limit(sign, fits):
    assert fulfilled(judged([0.5] * 8, sign, 0.5)) is fits
    assert fulfilled(judged([0.4] * 8, sign, 0.5)) is (sign in "≤<±")
    assert fulfilled(judged([0.6] * 8, sign, 0.5)) is (sign in "≥>")


@pytest.mark.parametrize("sign", ["≥", ">"])
@pytest.mark.parametrize(
    ("mean", "holds"),
    [(0.75 + HALF + 1e-5, True), (0.75 + HALF - 1e-5, None), (0.75 - HALF + 1e-5, None), (0.75 - HALF - 1e-5, False)],
)
def test_a_bound_is_decided_only_by_an_interval_on_one_side(sign, mean, holds):
    found = judged(around(mean), sign, 0.75)
    assert found.holds is holds
    assert judged(around(-mean), {"≥": "≤", ">": "<"}[sign], -0.75).holds is holds
    # What a bound alone says is what Holm says of it alone.
    assert (found.violation < judging.ERROR) == (holds is False)


@pytest.mark.parametrize("sign", ["≥", ">", "≤", "<"])
def test_an_interval_that_ends_on_its_bound_decides_nothing(sign):
    low, high = (judged([0.0] * 8, sign, 0.5, range=ends).interval for ends in ((0.0, 1.0), (-1.0, 0.0)))
    assert (low[0], high[1]) == (0.0, 0.0)
    for ends in ((0.0, 1.0), (-1.0, 0.0)):  # cut to the range, it ends at the very limit
        assert judged([0.0] * 8, sign, 0.0, range=ends).holds is None


def test_values_that_are_all_equal_vary_by_half_an_image():
    found = judged([0.9] * 8, "≥", 0.75, images=100)
    half = T * 0.005 / 8**0.5
    assert found.interval == pytest.approx((0.9 - half, 0.9 + half), abs=1e-6)
    assert judged([0.754] * 8, "≥", 0.75, images=100).holds is None
    assert judged([0.754] * 8, "≥", 0.75, images=1_000).holds is True


def test_intervals_are_cut_to_the_range():
    found = judged([0.0, 0.1] * 4, "≤", 0.5, range=(0, 1))
    assert found.interval[0] == 0
    assert judged([1.0, 0.9] * 4, "≥", 0.5, range=(0, 1)).interval[1] == 1


def test_arithmetic_is_by_seed_and_keeps_the_fewer_images():
    first, second = quantity([1, 2, 3], images=50, seeds=[0, 1, 2]), quantity([10, 20, 30], seeds=[1, 2, 3])
    total = second - first * 2
    assert total.by_seed.to_dict() == {1: 6, 2: 14}
    assert (total.images, total.rows) == (50, {0, 1, 2, 3})
    assert (second / first).by_seed.to_dict() == {1: 5, 2: pytest.approx(20 / 3)}
    assert first.above(1.5).by_seed.to_dict() == {0: 0, 1: 1, 2: 1}
    assert np.isnan((quantity([1], images=np.nan, seeds=[0]) + first).images)


def test_hits_are_judged_exactly():
    all_eight = Counts(quantity([1] * 8), quantity([1] * 8))
    found = judged(all_eight, "≥", 0.5)
    assert found.holds is True
    assert found.interval[0] == pytest.approx(0.0125 ** (1 / 8))
    assert judged(Counts(quantity([1] * 7 + [0]), quantity([1] * 8)), "≥", 0.5).holds is None
    assert judged(Counts(quantity([0] * 8), quantity([1] * 8)), "≥", 0.5).violation == pytest.approx(0.5**8)


@pytest.mark.parametrize(("hits", "holds"), [(6, True), (5, None)])
def test_hits_are_set_against_the_upper_bound_of_the_control(hits, holds):
    # Ten marks a seed, none of which the control repeats: its rate is at most 1 − 0.025^(1/80) = 0.0451.
    control = quantity([0] * 8)
    spread = [hits] + [0] * 7
    found = judged(Counts(quantity(spread), quantity([10] * 8), control), "<", 0.25)
    assert found.limit == pytest.approx(1 - 0.025 ** (1 / 80))
    assert found.mean == hits / 80
    assert found.holds is holds


def some(violation: float, holds: bool | None = None) -> Bound:
    found = judged(around(0.9), "≥", 0.75)
    return Bound(**{**vars(found), "violation": violation, "holds": holds})


@pytest.mark.parametrize(
    ("violations", "count"),
    [
        ([0.0125], 1),
        ([0.0126], 0),
        ([0.0126 / 2, 0.5], 0),
        ([0.0124 / 2, 0.5], 1),
        ([0.0124 / 3, 0.0124 / 2, 0.9], 2),
        ([0.0124 / 3, 0.0126 / 2, 0.0120], 1),
    ],
)
def test_violations_are_judged_by_holm(violations, count):
    assert len(holm([some(value) for value in violations])) == count


def looks(*bounds: Bound):
    return lambda: bounds


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ([some(1.0, True), some(1.0, True)], "holds"),
        ([some(1.0, True), some(0.5)], "undecided"),
        ([some(1.0, True), some(0.001, False)], "does not hold"),
        ([some(1.0, True), some(0.01, False)], "undecided"),  # violated alone, and not among two
        ([], "not run"),
    ],
)
def test_verdict_on_a_task(bounds, verdict):
    assert judge(looks(*bounds))[0] == verdict


def test_a_second_look_is_not_taken_where_the_first_decides():
    refuted = some(0.001, False)

    def never():
        raise AssertionError("a second look")

    assert judge(looks(refuted), never)[0] == "does not hold"
    assert judge(looks(some(1.0, True)), never)[0] == "holds"
    assert judge(looks(some(0.5)), looks(refuted))[3] == 2


H, F, U, N, X = Verdict.HOLDS, Verdict.DOES_NOT_HOLD, Verdict.UNDECIDED, Verdict.NOT_TESTABLE, Verdict.NOT_RUN


@pytest.mark.parametrize(
    ("verdicts", "needed", "word"),
    [
        ([H, H, H], 0, H),
        ([H, N, H], 0, H),
        ([H, U, H], 0, U),
        ([H, U, F], 0, F),
        ([F, X, H], 0, F),
        ([H, X, H], 0, X),
        ([N, N], 0, N),
        ([], 0, X),
        ([H, H, H, H, F], 4, H),
        ([H, H, H, H, U], 4, H),
        ([H, H, H, F, U], 4, U),
        ([H, H, H, F, F], 4, F),
        ([H, H, H, N, N], 4, U),
        ([H, H, H, H, N], 4, H),
    ],
)
def test_word_on_a_claim(verdicts, needed, word):
    assert summarize(verdicts, needed=needed) is word


def test_bootstrap_draws_seeds_and_images():
    same_seeds = np.tile(np.linspace(0, 1, 101), (8, 1))
    draws = judging.bootstrap(same_seeds)
    assert draws.shape == (judging.DRAWS,)
    assert set(np.round(draws, 2)) <= set(np.round(np.linspace(0, 1, 101), 2))  # one resample for all seeds
    seeds_only = np.repeat(np.arange(8.0)[:, None], 50, axis=1)
    assert judging.bootstrap(seeds_only).std() == pytest.approx(np.arange(8).std() / 8**0.5, rel=0.05)
    assert (judging.bootstrap(same_seeds) == draws).all()
