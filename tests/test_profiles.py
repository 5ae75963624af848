"""Profiles: every size and recipe fits the sets and the budgets."""

from dataclasses import replace

import pytest

from extractbook.reproduction.scales import PROFILES, profile
from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.models.networks import NETWORKS
from extractlib.models.training import Recipe

WITH_DRAWINGS = [settings for settings in PROFILES.values() if settings.task_sizes]


def test_profiles_are_found_by_name():
    assert list(PROFILES) == ["smoke", "drawn", "small-cpu", "small", "paper", "paper-fast"]
    assert all(profile(name).name == name for name in PROFILES)


def test_an_unknown_profile_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="'big'.*smoke, drawn, small-cpu"):
        profile("big")


@pytest.mark.parametrize("settings", PROFILES.values(), ids=PROFILES)
def test_budgets_rise_to_the_budget_and_the_network_exists(settings):
    assert list(settings.budgets) == sorted(set(settings.budgets))
    assert settings.budgets[-1] == settings.budget
    named = (settings.network, settings.other_network, *settings.scratch_networks.values())
    assert set(named) <= set(NETWORKS)
    assert set(settings.scratch_networks) <= set(settings.tasks)
    assert max(settings.adaptive_budgets) <= settings.budget


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


def test_the_papers_recipes_are_the_originals():
    """Knockoff nets' victim and surrogate, value by value as their authors' code has them."""
    paper = profile("paper")
    victim = Recipe(100, 0.1, 64, 0.5, 5e-4, 0, True, "step", 30, False, True)
    surrogate = Recipe(100, 0.01, 64, 0.5, 0.0, 0, False, "step", 60, False, False)
    assert (paper.victim, paper.surrogate) == (victim, surrogate)
    assert (paper.network, paper.other_network, paper.image_size, paper.budget) == ("resnet-34", "vgg-16", 224, 100_000)


def test_the_faster_recipe_differs_in_nothing_else():
    fast, paper = profile("paper-fast"), profile("paper")
    recipes = {name: getattr(paper, name) for name in ("victim", "scratch_victim", "surrogate")}
    assert replace(fast, name="paper", **recipes) == paper
    assert fast.surrogate.epochs * 5 == paper.surrogate.epochs
