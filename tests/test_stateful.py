"""Detection per client: distances by brute force, flags on made streams, and the arithmetic of Sybil accounts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_victim import noise
from scipy import stats

from extractlib.defenses import accounts as stateful
from extractlib.defenses.accounts import (
    CountingDetector,
    StatefulDetector,
    accounts_needed,
    choose_delta,
    entry_cost,
    nearest_earlier_distances,
    normality,
    split_among,
)
from extractlib.errors import InputError, ResultWarning


def brute_force(images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    pixels = images.flatten(1).double() / 255
    found = []
    for place in range(len(images)):
        earlier = [torch.dist(pixels[place], pixels[j]).item() for j in range(place) if labels[j] == labels[place]]
        found.append(min(earlier, default=float("nan")))
    return found


@pytest.mark.parametrize("block", [3, 7, 1_000])
def test_distances_are_those_of_a_double_loop(monkeypatch, block):
    monkeypatch.setattr(stateful, "BLOCK", block)
    images, labels = noise(40), torch.arange(40) ** 2 % 3
    found = nearest_earlier_distances(images, labels).numpy()
    np.testing.assert_allclose(found, brute_force(images, labels), rtol=1e-4)
    assert np.isnan(found).sum() == len(labels.unique())


def test_a_repeated_query_is_at_no_distance():
    images = noise(3)[[0, 1, 0]]
    found = nearest_earlier_distances(images, torch.zeros(3, dtype=torch.int64))
    assert found[2].item() == pytest.approx(0, abs=1e-3)


def test_normality_is_shapiros_without_outliers():
    values = np.random.default_rng(0).normal(5, 1, 200)
    values = values[np.abs(values - values.mean()) <= 3 * values.std()]
    spoiled = np.concatenate([values, [np.nan, np.nan]])
    assert normality(spoiled) == pytest.approx(stats.shapiro(values).statistic)
    for place in (1e3, values.mean() + 3.5 * values.std()):
        assert normality(np.append(values, place)) == pytest.approx(stats.shapiro(values).statistic)


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [3.0] * 50, [np.nan] * 10])
def test_too_little_says_nothing(values):
    assert normality(np.array(values)) == 1.0


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0, 1.0], [0.0, 0.25, 1.0]])
def test_distances_that_differ_say_something(values):
    assert normality(np.array(values)) == stats.shapiro(values).statistic < 0.98


def test_only_the_newest_5000_distances_count():
    newest = np.random.default_rng(2).normal(5, 1, 5_000)
    expected = stats.shapiro(newest[np.abs(newest - newest.mean()) <= 3 * newest.std()]).statistic
    assert normality(np.append(7.5, newest)) == expected
    assert normality(np.append(newest[1:], 7.5)) != expected


def test_what_detectors_of_accounts_are_unless_told_otherwise():
    assert vars(StatefulDetector(delta=0.9)) == {"delta": 0.9, "first": 100, "every": 100}
    assert vars(CountingDetector(rate=0.1)) == {"rate": 0.1, "chance": 1e-6}
    assert stateful.GRID.tolist() == [number / 100 for number in range(70, 100)]


def stream(gaps: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images on a line, each as many gray levels (of one pixel) from the last as `gaps` says."""
    images = torch.zeros(len(gaps), 3, 20, 20, dtype=torch.uint8)
    for place, gap in enumerate(gaps):
        # A one in as many pixels, elsewhere each time: the distance to every earlier image grows with the gap.
        images[place].view(-1)[(place * 7) % 1_200 : (place * 7) % 1_200 + int(gap)] = 255
    return images, torch.zeros(len(gaps), dtype=torch.int64)


def test_two_kinds_of_distance_are_flagged_and_one_is_not():
    generator = np.random.default_rng(1)
    honest = generator.normal(60, 6, 400).round()
    crafted = np.where(np.arange(400) % 2, 3, 100) + generator.normal(0, 1, 400).round()
    detector = StatefulDetector(delta=0.9, first=50, every=50)
    assert detector.queries_until_flagged(*stream(honest)) is None
    assert detector.queries_until_flagged(*stream(crafted)) in (50, 100)


def test_the_statistic_is_looked_at_when_it_should_be():
    counts, statistics = StatefulDetector(delta=0.5, first=20, every=30).statistics(*stream(np.full(100, 30)))
    assert counts == [20, 50, 80] and len(statistics) == 3
    assert StatefulDetector(delta=0.5).statistics(noise(99), torch.zeros(99, dtype=torch.int64)) == ([], [])


def test_a_client_is_flagged_below_the_threshold_and_not_at_it(monkeypatch):
    monkeypatch.setattr(StatefulDetector, "statistics", lambda self, *client: ([100, 200, 300], [0.95, 0.9, 0.89]))
    assert StatefulDetector(delta=0.9).queries_until_flagged(None, None) == 300
    assert StatefulDetector(delta=0.89).queries_until_flagged(None, None) is None


def test_delta_is_chosen_for_the_looks_that_the_detector_takes():
    """One that looks earlier sees lower statistics by chance, so its threshold is lower and still flags nobody."""
    clients = [(noise(120, seed=seed), torch.zeros(120, dtype=torch.int64)) for seed in range(6)]
    deltas = {first: choose_delta(clients, first=first, every=first) for first in (10, 100)}
    assert deltas[10] < deltas[100]
    early = StatefulDetector(delta=deltas[10], first=10, every=10)
    assert [early.queries_until_flagged(*client) for client in clients] == [None] * 6
    with pytest.raises(InputError, match="^every is 0"):
        choose_delta(clients, every=0)


def test_delta_is_the_highest_that_flags_no_honest_client(monkeypatch):
    lows = iter([[0.97, 0.914], [0.95, 0.93]])
    monkeypatch.setattr(StatefulDetector, "statistics", lambda self, *client: ([], next(lows)))
    assert choose_delta([(None, None), (None, None)]) == 0.91
    monkeypatch.setattr(StatefulDetector, "statistics", lambda self, *client: ([], [0.2]))
    assert choose_delta([(None, None)]) == 0.70
    # Clients of too few queries, and none at all, say nothing.
    monkeypatch.setattr(StatefulDetector, "statistics", lambda self, *client: ([], []))
    for clients in ([(None, None)], []):
        with pytest.warns(ResultWarning, match="no honest client has sent 100 queries, so there is no evidence for"):
            assert choose_delta(clients) == 0.99


@pytest.mark.parametrize(
    "values", [{"delta": 0.0}, {"delta": 1.0}, {"delta": 0.9, "first": 0}, {"delta": 0.9, "every": -1}]
)
def test_settings_that_cannot_be(values):
    with pytest.raises(InputError, match="expected a"):
        StatefulDetector(**values)


# -- counting ----------------------------------------------------------------------


def test_a_count_is_flagged_at_the_first_improbable_number():
    # All caught at a rate of 1%: P(Binomial(n, .01) >= n) = .01^n, below one in a million from n = 4.
    everything = torch.ones(10, dtype=torch.bool)
    assert CountingDetector(rate=0.01, chance=1.1e-6).queries_until_flagged(everything) == 3
    assert CountingDetector(rate=0.01, chance=0.9e-6).queries_until_flagged(everything) == 4
    assert CountingDetector(rate=0.01).queries_until_flagged(~everything) is None
    late = torch.cat([torch.zeros(50, dtype=torch.bool), everything])
    expected = next(n for n in range(51, 61) if stats.binom.sf(n - 51, n, 0.01) < 1e-6)
    assert CountingDetector(rate=0.01).queries_until_flagged(late) == expected


def test_honest_clients_are_flagged_as_rarely_as_promised():
    generator = torch.Generator().manual_seed(0)
    clients = torch.rand(300, 500, generator=generator) < 0.05
    detector = CountingDetector(rate=0.05, chance=1e-4)
    flagged = sum(detector.queries_until_flagged(client) is not None for client in clients)
    # 500 looks at each of 300 clients, by Bonferroni at most 15 are expected, and far fewer come.
    assert flagged <= 5


def test_the_rate_is_learnt_with_one_more_to_be_safe():
    assert CountingDetector.fit(torch.tensor([True, False, False, False])).rate == 0.5
    assert CountingDetector.fit(torch.zeros(99, dtype=torch.bool)).rate == pytest.approx(1 / 99)
    for hopeless in (torch.ones(5, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)):
        with pytest.raises(InputError, match="expected numbers above 0 and below 1"):
            CountingDetector.fit(hopeless)


# -- Sybil accounts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "until", "accounts"), [(10, 11, 1), (10, 10, 2), (10, 6, 2), (10, 2, 10), (11, 6, 3), (10, None, 1)]
)
def test_accounts_needed_by_hand(budget, until, accounts):
    assert accounts_needed(budget, until) == accounts
    if until:
        assert -(-budget // accounts) < until


def test_accounts_that_no_number_can_be():
    with pytest.raises(InputError, match="flagged after 1 queries: no number of accounts"):
        accounts_needed(10, 1)
    with pytest.raises(InputError, match="budget is 0"):
        accounts_needed(0, 5)


@given(st.integers(1, 200), st.integers(1, 50))
def test_a_split_is_complete_disjoint_and_even(count, accounts):
    parts = split_among(count, accounts)
    assert len(parts) == accounts
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_entry_cost_by_hand():
    assert entry_cost(accounts=3, upfront=10.0, queries=100, price=0.01) == pytest.approx(31.0)
