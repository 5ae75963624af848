"""Profiles: every size and recipe fits the sets and the budgets."""

import pytest

from extractlib import drawn
from extractlib.errors import InputError
from extractlib.networks import NETWORKS
from extractlib.profiles import PROFILES, profile

WITH_DRAWINGS = [settings for settings in PROFILES.values() if settings.tasks]


def test_profiles_are_found_by_name():
    assert list(PROFILES) == ["smoke", "drawn", "small-cpu"]
    assert all(profile(name).name == name for name in PROFILES)


def test_an_unknown_profile_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="'big'.*smoke, drawn, small-cpu"):
        profile("big")


@pytest.mark.parametrize("settings", PROFILES.values(), ids=PROFILES)
def test_budgets_rise_to_the_budget_and_the_network_exists(settings):
    assert list(settings.budgets) == sorted(set(settings.budgets))
    assert settings.budgets[-1] == settings.budget
    assert settings.network in NETWORKS


@pytest.mark.parametrize("settings", WITH_DRAWINGS, ids=lambda settings: settings.name)
def test_every_part_of_every_set_has_a_size(settings):
    assert set(settings.tasks) == set(settings.task_sizes)
    for sizes in (settings.task_sizes, settings.pool_sizes):
        for name, parts in sizes.items():
            assert set(parts) == set(drawn.PARTS[name])
            assert min(parts.values()) > 0
    assert {settings.pool, settings.second_pool} == set(settings.pool_sizes)


@pytest.mark.parametrize("settings", WITH_DRAWINGS, ids=lambda settings: settings.name)
def test_the_pool_holds_the_budget(settings):
    assert settings.budget <= settings.pool_sizes[settings.pool]["queries"]
