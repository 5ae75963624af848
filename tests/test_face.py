"""The face: `import extractlib as xl`, the attack in ten lines, on drawn signs and on a torchvision model."""

import doctest
import importlib
import json
import re
import subprocess
import sys

import pytest
import torch
import torchvision

import extractlib as xl
from benchmarks import readme
from extractlib.models.training import Recipe

NAMES = ("load", "load_victim", "images", "Victim", "PredictionAPI", "attacks", "detectors", "policies", "evaluate")


@pytest.mark.parametrize("name", [*NAMES, "Full", "TopK", "Rounded", "Label", "Temperature", "Folder", "InputError"])
def test_the_face_has_its_names(name):
    assert name in dir(xl)
    assert getattr(xl, name) is not None


@pytest.mark.parametrize(
    ("package", "module", "name"),
    [
        ("attacks", "knockoff", "OutOfBudget"),
        ("attacks", "jacobian", "jacobian_augmentation"),
        ("models", "fitted", "Trainer"),
    ],
)
def test_what_a_reader_catches_or_calls_needs_no_module_path(package, module, name):
    found = getattr(getattr(xl, package), name)
    assert found is getattr(importlib.import_module(f"extractlib.{package}.{module}"), name)
    assert name in dir(getattr(xl, package))


def test_importing_the_package_imports_no_torch():
    code = "import sys, extractlib as xl; xl.__version__; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ten_lines_on_drawn_signs(capsys):
    signs, atlas = xl.load("signs"), xl.load("atlas")
    victim = xl.load_victim("signs")
    api = xl.PredictionAPI(victim, answers="full", budget=2_000)
    attack = xl.attacks.Knockoff(budget=2_000, seed=0)
    surrogate = attack(api, atlas.queries)
    found = xl.evaluate(victim, surrogate, signs.test)
    assert found.n == 8_600
    assert found.victim_accuracy > 0.97
    assert found.recovery > 0.55 and found.agreement > 0.55
    assert str(found).startswith("recovery 0.") and str(found).endswith("n = 8,600)")
    assert api.usage("attacker").remaining == 0
    told = capsys.readouterr().err
    assert "queries" in told and "training" in told  # progress is shown


def test_ten_lines_on_a_torchvision_resnet_18():
    objects, atlas = xl.load("objects"), xl.load("atlas")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torchvision.models.resnet18(num_classes=10)
    learned = objects.victim.subset(torch.arange(2_000))
    recipe = Recipe(epochs=4, learning_rate=0.03)
    trained = xl.Victim.train(learned, network=module, recipe=recipe, progress=False)
    victim = xl.Victim(trained.model.module, classes=trained.classes, mean=[0.5] * 3, std=[0.25] * 3, layer="fc")
    assert victim.fingerprint != trained.fingerprint  # another use of the same weights
    api = xl.PredictionAPI(victim, answers="full", budget=1_000)
    surrogate = xl.attacks.Knockoff(budget=1_000)(api, atlas.queries, progress=False)
    found = xl.evaluate(victim, surrogate, objects.test)
    assert found.victim_accuracy >= 0.6 and found.recovery >= 0.5


@pytest.mark.parametrize("task", ["signs", "objects", "birds", "retina", "things"])
def test_a_shipped_victim_is_as_good_as_its_card_says(task):
    folder = importlib.import_module("extractlib.models.classifier").SHIPPED
    card = json.loads((folder / f"{task}.json").read_text())
    victim, test = xl.load_victim(task), xl.load(task).test
    assert xl.evaluate(victim, victim, test).victim_accuracy == pytest.approx(card["test_accuracy"], abs=0.005)
    assert victim.classes == test.classes
    assert (folder / f"{task}.safetensors").stat().st_size < 1_000_000


def test_a_victim_that_does_not_ship_is_refused():
    with pytest.raises(xl.InputError, match="unknown shipped victim 'cars': use one of birds, objects, retina, signs"):
        xl.load_victim("cars")


@pytest.mark.parametrize("name", xl.__all__)
def test_each_name_has_an_example_that_runs(name):
    examples = doctest.DocTestFinder(recurse=False).find(getattr(xl, name), name, globs={})
    assert sum(len(found.examples) for found in examples) > 1  # more than an import
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for found in examples:
        runner.run(found)
    assert runner.failures == 0


def test_the_examples_of_the_classifier_run():
    found = doctest.testmod(importlib.import_module("extractlib.models.classifier"))
    assert found.attempted > 4 and found.failed == 0


def test_the_readme_shows_the_ten_lines_and_what_they_printed():
    text = readme.README.read_text(encoding="utf-8")
    source, said = readme.code(text), readme.BLOCK.search(text)[4]
    assert "budget=10_000" in source and len(source.splitlines()) <= 10
    assert re.fullmatch(
        r"recovery 0\.\d\d, agreement 0\.\d\d \(victim 0\.\d\d, surrogate 0\.\d\d; n = 8,600\)\n"
        r"\(\d+ seconds on one core\)\n",
        said,
    )
