"""The GPU's benchmark: it runs whole on a processor, and counts what it should."""

import re
import sys
from dataclasses import replace

import pytest

from benchmarks import gpu
from extractlib.errors import InputError


def test_every_figure_is_printed_at_a_small_size(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick"])
    gpu.main()
    printed = capsys.readouterr().out
    for wanted in (
        r"Rate of a matrix product, TFLOP/s +[\d.]+",
        r"Trained a second, resnet-wide, 48 px, batches of 4, not compiled +[\d,]+ \(\d+%\)",
        r"Queried a second, resnet-wide, 48 px +[\d,]+ \(\d+%\)",
        r"Trained a second, resnet-wide, 32 px, batches of 4, not compiled +[\d,]+ \(\d+%\)",
        r"Minutes for 100,000 queries and 100 epochs, batches of 4 +[\d,.]+ +goal <= 30",
    ):
        assert re.search(wanted, printed), wanted


def test_a_batch_that_does_not_fit_is_told_and_the_others_are_measured(monkeypatch, capsys):
    def trained(network, images, recipe, device, mode):
        if recipe.batch_size == 8:
            raise InputError("cuda has too little memory")
        return 1_000.0

    monkeypatch.setattr(gpu, "QUICK", replace(gpu.QUICK, batch_sizes=(4, 8)))
    monkeypatch.setattr(gpu, "trained", trained)
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--quick"])
    gpu.main()
    *_, last = lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if "not run: cuda has too little memory" in line]
    assert len(refused) == 2 and all("batches of 8" in line for line in refused)
    assert last.startswith("Minutes for 100,000 queries and 100 epochs, batches of 4 ")
    assert sum(line.startswith("Minutes") for line in lines) == 1


def test_the_operations_of_a_network_by_hand():
    """A stem of stride 2 at 8 pixels, one block a stage: two operations for each weight and place, forward."""
    forward = gpu.flops("tiny", 8, training=False)
    stem = 2 * 4 * 4 * 16 * 3 * 9
    same = 2 * (2 * 4 * 4 * 16 * 16 * 9)
    halved = 2 * (2 * 2 * 2 * 16 * 16 * 9) + 2 * 2 * 2 * 16 * 16
    assert forward == stem + same + halved + 2 * 16 * gpu.CLASSES
    # Backwards each layer costs twice as much, but the first has no images to pass a gradient to.
    assert gpu.flops("tiny", 8, training=True) == 3 * forward - stem


def test_an_attack_is_its_queries_and_its_training():
    outcome = gpu.attack(64, trained=7_000, queried=10_000)
    # 100,000 / 10,000 s + 100,000 x 100 / 7,000 s.
    assert outcome.figure == f"{(10 + 1428.57) / 60:.1f}" and outcome.met
    assert not gpu.attack(64, trained=5_000, queried=10_000).met


@pytest.mark.parametrize(("rate", "met"), [(6_999, False), (7_000, True)])
def test_the_goal_is_met_or_not(rate, met):
    outcome = gpu.line("trained", rate, 0.5, goal=True)
    assert (outcome.met, outcome.figure) == (met, f"{rate:,} (50%)")
