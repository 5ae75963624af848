"""Scales and grids: every size, recipe and budget fits, the files are read strictly, and no cell has changed."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from extractbook.reproduction import editions, grids
from extractbook.reproduction.grids import read_tables, table_cells
from extractbook.reproduction.scales import FOLDER, GRIDS, SCALES, read_scale, scale
from extractlib.data import drawn
from extractlib.errors import InputError
from extractlib.models.networks import NETWORKS
from extractlib.models.training import Recipe

WITH_DRAWINGS = [settings for settings in SCALES.values() if settings.task_sizes]


def test_scales_are_found_by_name():
    # In a process of its own, since other tests add scales to this one's.
    code = "from extractbook.reproduction.scales import SCALES; print(*SCALES)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["smoke", "drawn", "photos", "photos-gpu", "small", "small-cpu", "paper"]
    assert all(scale(name).name == name for name in SCALES)


def test_an_unknown_scale_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="unknown scale 'big': use one of smoke, drawn, photos, photos-gpu, small"):
        scale("big")


@pytest.mark.parametrize("settings", SCALES.values(), ids=SCALES)
def test_budgets_rise_to_the_budget_and_the_network_exists(settings):
    assert list(settings.budgets) == sorted(set(settings.budgets))
    assert settings.budgets[-1] == settings.budget
    named = (settings.network, settings.other_network, settings.other_weights, *settings.scratch_networks.values())
    assert set(filter(None, named)) <= set(NETWORKS)
    assert {*settings.scratch_networks, settings.narrow_pool} <= set(settings.tasks)
    assert max(settings.adaptive_budgets) <= settings.budget
    assert settings.narrow_budget in (settings.budget, settings.realistic_budgets[-1])
    assert set(settings.shown_granularities) <= set(settings.granularities)
    assert settings.own_number in settings.realistic_budgets and 4 * settings.own_number <= settings.budget
    named = (settings.balanced, settings.accused, settings.augmentation, settings.control_images, settings.flag_times)
    assert all(set(tasks) <= set(settings.tasks) for tasks in named)


@pytest.mark.parametrize("settings", WITH_DRAWINGS, ids=lambda settings: settings.name)
def test_every_surrogate_of_drawings_takes_equally_many_steps(settings):
    assert settings.surrogate.steps > 0 and settings.surrogate.steps not in settings.other_steps
    assert {settings.recipe("surrogate", task=task).steps_for(9) for task in settings.tasks} == {
        settings.surrogate.steps
    }
    assert set(settings.control_images) == set(settings.tasks)
    assert all(count <= settings.task_sizes[task]["adversary"] for task, count in settings.control_images.items())


RECIPES = ("victim", "scratch_victim", "surrogate", "detector")


@pytest.mark.parametrize("settings", SCALES.values(), ids=SCALES)
def test_no_sign_is_mirrored_at_any_scale(settings):
    signs = {"signs", "gtsrb"} & set(settings.tasks)
    assert signs
    assert not any(settings.recipe(name, task=task).flip for name in RECIPES for task in signs)


def test_a_recipe_takes_the_augmentation_of_the_task_if_it_augments_and_the_steps_asked_for():
    small, drawn = scale("small-cpu"), scale("drawn")
    assert small.recipe("victim", task="cifar10") == replace(small.victim, shift=2, flip=True)
    assert small.recipe("victim", task="gtsrb") == replace(small.victim, shift=2, flip=False)
    assert small.recipe("victim", task="folder:pets") == small.victim
    # Knockoff nets train surrogates without augmentation.
    assert drawn.recipe("surrogate", task="signs") == drawn.surrogate
    assert drawn.recipe("surrogate", task="signs", steps=7) == replace(drawn.surrogate, steps=7)
    assert small.recipe("surrogate", task="cifar10", steps=7).epochs == 0


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
    assert (scale("drawn").middle_budget, scale("smoke").middle_budget) == (2_500, 64)


# -- the files are read strictly ---------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """Return copies of the files of scale drawn."""
    return [Path(shutil.copy(folder / "drawn.toml", tmp_path / name)) for folder, name in ((FOLDER, "s"), (GRIDS, "g"))]


@pytest.mark.parametrize(
    ("which", "old", "new", "message"),
    [
        (0, "budget =", "budgt =", "/s: budgt = 10000: unknown key: fix it or restore"),
        (0, 'pool = "atlas"', "", "/s: pool: this key is missing"),
        (0, "shipped = true", 'shipped = "yes"', "/s: shipped = 'yes': Input should be a valid boolean: fix it"),
        (0, "budget = 10_000", "budget = true", "/s: budget = True: Input should be a valid integer"),
        (0, "epochs = 10", "epoch = 10", "/s: backbone.epoch = 10: unknown key"),
        (0, "epochs = 10\n", "", "/s: backbone = .*epochs is 0 and steps is 0: give one of them"),
        (
            0,
            "learning_rate = 0.2",
            "learning_rate = true",
            "/s: backbone.learning_rate = True: Input should be",
        ),
        (0, "stream =", "straem = 1\nstream =", "/s: straem = 1: unknown key"),
        (0, "test = 3_000", "test = 0.5", "/s: task_sizes.things.test = 0.5: Input should be a valid integer"),
        (0, '["things", "birds"', '["things", 2', "/s: tasks.1 = 2: Input should be a valid string"),
        (0, "[backbone]\n", "[backbone\n", "/s is not TOML .*line \\d+.*: fix that line or restore it"),
        (0, "stream =", "rate = 1\nstream =", "/s: rate = 1 is in .*/g too: keep it in one of them"),
        (1, "rate =", "stream =", "/s: stream = .* is in .*/g too"),
        (1, "[1_000, 2_500, 5_000, 10_000]", "7", "/g: budgets = 7: Input should be a valid array"),
        (1, "rate =", "# rate =", "/g: rate: this key is missing"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_key_and_value(which, old, new, message, copied):
    text = copied[which].read_text(encoding="utf-8")
    assert old in text
    copied[which].write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_scale(*copied)


def test_a_file_that_is_not_there_is_refused(copied, tmp_path):
    with pytest.raises(InputError, match=r"none.toml cannot be read \(No such file or directory\): write it or rest"):
        read_scale(copied[0], tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '{ surrogate = "{other',
            '{ surogate = "{other',
            "architecture: unknown key surogate = '{other_network}': use one of scale, ",
        ),
        ("folders = true", "folder = true", "reproduction: folder = True: unknown key"),
        ("blocks = [{ decides = true }]\n", "", "reproduction: blocks: this key is missing"),
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
        '[mine]\ntitle = ""\nblocks = [{ pool = ["{pool}/{pool_classes}", "noise"], budget = [1, 2], tasks = ["signs"],'
        ' parity = "even", decides = false }]\nskip = [{ pool = "noise", budget = 2 }]\n'
    )
    [mine] = read_tables(path).values()
    found = [(cell.task, str(cell.pool), cell.budget) for cell in mine.cells(scale("smoke"), seed=0)]
    assert found == [("signs", "atlas/54", 2), ("signs", "atlas/54", 1), ("signs", "noise", 1)]
    assert list(mine.cells(scale("smoke"), seed=1)) == []
    assert list(mine.cells(scale("smoke"), seed=0, shown=False)) == []


# -- what decides, and what goes first ------------------------------------------------


def test_what_decides_no_claim_runs_at_the_first_fewer_seeds_and_never_again():
    cells = table_cells("granularity", scale("drawn"), seeds=range(1000, 1005))
    seeds = {kind: {cell.seed for cell in cells if str(cell.granularity) == kind} for kind in ("label", "rounded-2")}
    assert seeds == {"label": set(range(1000, 1005)), "rounded-2": {1000, 1001, 1002}}
    again = table_cells("granularity", scale("drawn"), seeds=[1008], shown=False)
    assert {str(cell.granularity) for cell in again} == {"top-5", "top-2", "label", "rounded-1"}


def test_controls_start_from_both_weights_at_their_own_seeds_where_claims_are_decided():
    at = {
        seed: {(cell.task, cell.surrogate_weights) for cell in table_cells("accusation", scale("drawn"), seeds=[seed])}
        for seed in (1000, 1001)
    }
    assert at == {
        1000: {("signs", "A"), ("things", "A")},
        1001: {("signs", "B"), ("things", "B")},
    }
    decided = table_cells("accusation", scale("drawn"), seeds=editions.looks("drawn")[0])
    assert len(decided) == 2 * len(editions.controls()) == 120
    assert {cell.seed for cell in decided} == set(editions.controls())


@pytest.mark.parametrize("number", range(len(grids.CUTS)), ids=lambda number: grids.CUTS[number].what)
def test_each_cut_takes_cells_of_its_table_and_no_others(number):
    cut, settings = grids.CUTS[number], scale("drawn")

    def cells(count: int) -> dict:
        made = replace(settings, cuts=count)
        return {table: set(table_cells(table, made, seeds=[1000])) for table in grids.tables_for(made)}

    before, after = cells(number), cells(number + 1)
    assert {table for table in before if before[table] != after[table]} == {cut.table}
    gone = before[cut.table] - after[cut.table]
    assert gone and after[cut.table] < before[cut.table]
    assert not {cell.task for cell in gone} & set(cut.tasks)


def test_no_cut_takes_what_decides_a_claim_but_where_it_keeps_two_tasks():
    settings, made = (replace(scale("drawn"), cuts=count) for count in (0, len(grids.CUTS)))
    for cut in grids.CUTS:
        whole, left = (set(table_cells(cut.table, at, seeds=[1000], shown=False)) for at in (settings, made))
        assert {cell.task for cell in left} >= (set(cut.tasks) & {cell.task for cell in whole})
        assert whole == left or {cell.task for cell in whole - left} == set(settings.tasks) - set(cut.tasks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[cuts]]\nwhat = ""\ntable = "tea"\ncells = {}\n', "unknown table 'tea'"),
        ('[[cuts]]\nwhat = ""\ncells = {}\n', "table: this key is missing"),
        ('[[cuts]]\nwhat = ""\ntable = "weights"\ncell = {}\n', "cell = {}: unknown key"),
    ],
)
def test_cuts_that_do_not_fit_are_refused(text, message, tmp_path):
    path = tmp_path / "cut.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        grids.read_cuts(path)
