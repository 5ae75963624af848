"""Scales and grids: every size, recipe and budget fits, the files are read strictly, and no cell has changed."""

import json
import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pytest

from extractbook.reproduction.freshness import settings_of
from extractbook.reproduction.grids import TABLES, read_tables, table_cells
from extractbook.reproduction.scales import FOLDER, GRIDS, SCALES, read_scale, scale
from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.models.networks import NETWORKS
from extractlib.models.training import Recipe

WITH_DRAWINGS = [settings for settings in SCALES.values() if settings.task_sizes]


def test_scales_are_found_by_name():
    assert list(SCALES) == ["smoke", "drawn", "small", "small-cpu", "paper"]
    assert all(scale(name).name == name for name in SCALES)


def test_an_unknown_scale_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="unknown scale 'big': use one of smoke, drawn, small, small-cpu, paper"):
        scale("big")


@pytest.mark.parametrize("settings", SCALES.values(), ids=SCALES)
def test_budgets_rise_to_the_budget_and_the_network_exists(settings):
    assert list(settings.budgets) == sorted(set(settings.budgets))
    assert settings.budgets[-1] == settings.budget
    named = (settings.network, settings.other_network, *settings.scratch_networks.values())
    assert set(named) <= set(NETWORKS)
    assert {*settings.scratch_networks, settings.narrow_pool} <= set(settings.tasks)
    assert max(settings.adaptive_budgets) <= settings.budget
    assert settings.narrow_budget in (settings.budget, settings.own_budget)


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
    paper = scale("paper")
    both = {"epochs": 100, "batch_size": 64, "momentum": 0.5, "shift": 0, "schedule": "step", "nesterov": False}
    victim = Recipe(**both, learning_rate=0.1, weight_decay=5e-4, flip=True, step_epochs=30, crop=True)
    surrogate = Recipe(**both, learning_rate=0.01, weight_decay=0.0, flip=False, step_epochs=60, crop=False)
    assert (paper.victim, paper.scratch_victim, paper.surrogate) == (victim, victim, surrogate)
    assert (paper.network, paper.other_network, paper.image_size, paper.budget) == ("resnet-34", "vgg-16", 224, 100_000)


def test_the_budget_in_the_middle():
    assert (scale("drawn").middle_budget, scale("smoke").middle_budget, scale("paper").own_budget) == (2_500, 64, 500)


# -- the files are read strictly ---------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """Return copies of the files of scale drawn."""
    return [Path(shutil.copy(folder / "drawn.toml", tmp_path / name)) for folder, name in ((FOLDER, "s"), (GRIDS, "g"))]


@pytest.mark.parametrize(
    ("which", "old", "new", "message"),
    [
        (0, "budget =", "budgt =", "/s: unknown key budgt = 10000: use one of tasks, pool, network"),
        (0, 'pool = "atlas"', "", "/s: key pool is missing: add one, of type string"),
        (0, "shipped = true", 'shipped = "yes"', "/s: shipped is 'yes': give a value of type boolean"),
        (0, "budget = 10_000", "budget = true", "/s: budget is True: give a value of type integer"),
        (
            0,
            "epochs = 10",
            "epoch = 10",
            "/s: backbone: unknown key epoch = 10: use one of epochs, steps, learning_rate",
        ),
        (0, "epochs = 10\n", "", "/s: backbone: epochs is 0 and steps is 0: give one of them"),
        (0, "learning_rate = 0.2", "learning_rate = 1", "/s: backbone: learning_rate is 1: give a value of type float"),
        (0, "test = 2_430", "test = 0.5", "/s: task_sizes.things.test is 0.5: give a value of type integer"),
        (0, '["things", "birds"', '["things", 2', "/s: tasks is 2: give a value of type string"),
        (0, "[backbone]\n", "[backbone\n", "/s is no TOML .*line 18.*: mend that line, or restore it"),
        (0, "stream =", "rate = 1\nstream =", "/s: unknown key rate = 1"),
        (1, "rate =", "stream =", "/g: unknown key stream = 4000: use one of budgets, realistic_budgets"),
        (1, "[1_000, 2_500, 5_000, 10_000]", "7", "/g: budgets is 7: give a value of type list of integer"),
        (1, "rate =", "# rate =", "/g: key rate is missing"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_key_and_value(which, old, new, message, copied):
    text = copied[which].read_text(encoding="utf-8")
    assert old in text
    copied[which].write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_scale(*copied)


def test_a_file_that_is_not_there_is_refused(copied, tmp_path):
    with pytest.raises(InputError, match=r"none.toml cannot be read \(No such file or directory\): write it"):
        read_scale(copied[0], tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{ surrogate =",
            "{ surogate =",
            "architecture: unknown key surogate = '{other_network}': use one of profile, ",
        ),
        ("folders = true", "folder = true", "reproduction: unknown key folder = True: use one of title, blocks"),
        ("blocks = [{}]\n", "", "reproduction: key blocks is missing: add one, of type list of table"),
    ],
)
def test_tables_that_do_not_fit_are_refused(old, new, message, tmp_path):
    path = tmp_path / "tables.toml"
    path.write_text((GRIDS / "tables.toml").read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_tables(path)


def test_an_unknown_name_in_braces_is_refused(tmp_path):
    path = tmp_path / "tables.toml"
    path.write_text('[mine]\ntitle = ""\nblocks = [{ pool = "{pol}/3" }]\n')
    with pytest.raises(InputError, match="unknown name in braces 'pol': use one of "):
        list(read_tables(path)["mine"].cells(scale("smoke"), seed=0))


def test_a_block_is_the_product_of_its_values(tmp_path):
    path = tmp_path / "tables.toml"
    path.write_text(
        '[mine]\ntitle = ""\nblocks = [{ pool = ["{task}/{pool_classes}", "noise"], budget = [1, 2], tasks = ["signs"],'
        ' seeds = 1 }]\nskip = [{ pool = "noise", budget = 2 }]\n'
    )
    [mine] = read_tables(path).values()
    found = [(cell.task, cell.pool, cell.budget) for cell in mine.cells(scale("smoke"), seed=0)]
    assert found == [("signs", "signs/54", 2), ("signs", "signs/54", 1), ("signs", "noise", 1)]
    assert list(mine.cells(scale("smoke"), seed=1)) == []


# -- no cell and no setting of a cell has changed -----------------------------------

UNCHANGED = {
    "smoke": ("834873b18998473a", "685c9f6495607dbe"),
    "drawn": ("699bc6bf7d19599b", "b94af88f08b95d72"),
    "small": ("24c2cc0cfb410c33", "4f71c7ae7be15b21"),
    "small-cpu": ("879d5f5263ba0f3e", "92dba9805d9e342e"),
    "paper": ("03b0104c7fcb5ed9", "06e9d1bf7522c728"),
}
"""Of each scale the digests of all tables' cells for five seeds, and of the settings that decide their rows."""


@pytest.mark.parametrize("name", UNCHANGED)
def test_cells_and_their_settings_are_those_of_the_first_edition(name):
    cells = {table: table_cells(table, scale(name), seeds=range(5)) for table in TABLES}
    settings = {table: [settings_of(cell) for cell in found] for table, found in cells.items()}
    listed = {table: [asdict(cell) for cell in found] for table, found in cells.items()}
    assert (
        tuple(sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] for found in (listed, settings))
        == (UNCHANGED[name])
    )
