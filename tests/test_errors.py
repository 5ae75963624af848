"""What a reader is told: one line, values cut, whole numbers and names checked in one place."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import extractlib as xl
from extractlib.data.sources import Loader, Source
from extractlib.errors import (
    HIGHEST,
    HIGHEST_SEED,
    InputError,
    brief,
    check_classes,
    check_name,
    check_output,
    check_positive,
    check_seed,
    in_bytes,
    shown,
)
from extractlib.models import networks
from extractlib.models.fitted import Trainer
from extractlib.models.training import Recipe, fit


class Unshowable:
    def __repr__(self):
        raise SystemError("no")


def test_a_message_is_one_line_and_its_values_are_cut():
    long = str(InputError(f"budget is {'9' * 5_000}: less\nis wanted\r\nplease\u2028now"))
    assert long == f"budget is {'9' * 100}… less is wanted please now"
    assert str(InputError("a" * 300 + " b")) == "a" * 300 + " b"  # as long as a path may be
    assert len(str(InputError("word " * 10**6))) == 20_001
    assert str(xl.api.meter.BudgetExceeded("x" * 999)) == "x" * 100 + "…"


@given(st.text(max_size=5_000))
def test_what_holds_for_all_messages(text):
    line = brief(text)
    assert len(line.splitlines()) <= 1 and len(line) <= len(text) + 1
    assert max(map(len, line.split()), default=0) <= 300
    assert brief(line) == line


def test_values_are_shown_whatever_they_are():
    assert shown("x" * 200) == "'" + "x" * 99 + "…"
    assert shown(10**5_000) == "a int that cannot be shown"
    assert shown(Unshowable()) == "a Unshowable that cannot be shown"


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, "1", None, HIGHEST + 1, 2**99, torch.tensor(3)])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match=r"^queries is .*: expected a whole number (of at least 1|from 1 to [0-9,]+)$"):
        check_positive("queries", value)
    with pytest.raises(InputError, match="^queries is .*: expected a whole number from 1 to 7$"):
        check_positive("queries", value, at_most=7)
    assert [check_positive("queries", number) for number in (1, HIGHEST)] == [1, HIGHEST]
    assert check_positive("queries", 7, at_most=7) == 7


def test_whole_numbers_of_numpy_are_ints():
    """A repr or JSON of NumPy's would be another one."""
    attack = xl.attacks.AdaptiveKnockoff(budget=np.int64(5), seed=np.uint8(3), batch=np.int32(2), window=np.int64(7))
    assert repr(attack) == repr(xl.attacks.AdaptiveKnockoff(budget=5, seed=3, batch=2, window=7))
    trainer = Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.1), seed=np.int32(4))
    assert type(trainer.seed) is int and type(xl.api.meter.Terms(budget=np.int64(5)).budget) is int
    drawing = [xl.data.drawn.draw("signs", part="test", size=kind(2), seed=kind(1)) for kind in (int, np.int64)]
    assert drawing[0].fingerprint == drawing[1].fingerprint
    api = xl.PredictionAPI(xl.load_victim("signs"), budget=np.int64(5))
    pool = drawing[0].subset(torch.arange(2))
    assert len(xl.attacks.Knockoff(budget=np.int64(2), seed=np.int64(1)).collect(api, pool)) == 2
    for wrong in (np.bool_(True), True, np.float64(5)):
        with pytest.raises(InputError, match="^budget is .*: expected a whole number of at least 1$"):
            xl.attacks.Knockoff(budget=wrong)


BAD_SEEDS = [-1, True, 1.0, "1", None, HIGHEST_SEED + 1, 2**99]


@pytest.mark.parametrize("seed", BAD_SEEDS)
def test_a_seed_is_checked_wherever_one_is_given(seed, tmp_path):
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    uses = {
        "itself": lambda: check_seed(seed),
        "a set": lambda: xl.load("signs", seed=seed),
        "a pool": lambda: xl.load("atlas", seed=seed),
        "queries": lambda: Loader().queries("noise", seed=seed),
        "a drawing": lambda: xl.data.drawn.draw("signs", part="test", size=2, seed=seed),
        "an attack": lambda: xl.attacks.Knockoff(budget=2, seed=seed),
        "a trainer": lambda: Trainer(network="tiny", recipe=Recipe(epochs=1, learning_rate=0.1), seed=seed),
        "training": lambda: fit(
            networks.build("tiny", classes=2, seed=0),
            images,
            torch.tensor([0, 1, 0, 1]),
            Recipe(epochs=1, learning_rate=0.1),
            seed=seed,
        ),
    }
    for name, use in uses.items():
        with pytest.raises(InputError, match="^seed is .*: expected a whole number from 0 to 1,099,511,627,776$"):
            use()
            pytest.fail(name)


def test_the_highest_seed_works():
    assert check_seed(0) == 0 and len(xl.data.drawn.draw("signs", part="test", size=2, seed=HIGHEST_SEED)) == 2
    network, recipe = networks.build("tiny", classes=2, seed=HIGHEST_SEED), Recipe(epochs=2, learning_rate=0.1)
    fit(network, torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), recipe, seed=HIGHEST_SEED)


@pytest.mark.parametrize("size", [0, -1, True, 8.0, None, 4_097, 2**70])
def test_a_size_of_images_is_checked(size):
    with pytest.raises(InputError, match="image size is .*: expected a whole number from 1 to 4,096"):
        Loader(image_size=size)
    with pytest.raises(InputError, match="number of noise images is"):
        Loader(noise_size=-1)


@pytest.mark.parametrize("name", ["", None, 1, True, b"a", ["a"], "a\ud800"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="^client is .*: expected a non-empty name$"):
        check_name("client", name)
    with pytest.raises(InputError, match="^name of a network is .*: expected a non-empty name$"):
        networks.NETWORKS.add(name, None)


def test_names_of_classes():
    assert check_classes(["a", 1, "ä b"]) == ("a", "1", "ä b")
    assert check_classes(name for name in "ab") == ("a", "b")
    assert check_classes(("caf\udce9", "x")) == ("caf\udce9", "x")  # a folder's name that is not UTF-8


@pytest.mark.parametrize("text", [None, 7, b"signs", ["signs"], "atlas/07", "atlas/1_0", "atlas/٣", "atlas/+3"])
def test_what_names_no_source_is_refused(text):
    with pytest.raises(InputError):
        Source.parse(text)


def test_an_output_is_tried_and_left_as_it_was(tmp_path):
    new, old = tmp_path / "new" / "rows", tmp_path / "old"
    old.write_bytes(b"kept")
    assert check_output(new) == new and new.parent.is_dir() and not new.exists()
    assert check_output(old) == old and old.read_bytes() == b"kept"
    for wrong in (tmp_path, tmp_path / "old" / "below", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot be written|is not a regular file"):
            check_output(wrong)


def test_an_argument_without_end_is_not_printed(command):
    for words in (("data", "parts", "x" * 5_000), ("run", "reproduction", "--budget", "9" * 10**6)):
        status, printed, errors = command(*words)
        assert (status, printed) == (2, "") and len(errors) < 200
        assert "an argument has " in errors and "characters: at most 4,096 can be used" in errors


@pytest.mark.parametrize(
    "words",
    [
        ["run", "reproduction", "--seeds", "1000000"],
        ["run", "reproduction", "--jobs", "1000000000"],
        ["run", "reproduction", "--first-seed", str(2**70)],
        ["attack", "--task", "signs", "--seed", str(2**70)],
        ["attack", "--task", "signs", "--size", str(2**40)],
        ["data", "parts", "cifar10", "--size", "0"],
    ],
)
def test_numbers_beyond_their_range_are_refused_at_once(command, words):
    status, printed, errors = command(*words)
    assert (status, printed) == (2, "") and re.search(
        "should be (less|greater) than or", re.sub(r"[\s│]+", " ", errors)
    )


def test_numbers_of_bytes_have_the_unit_that_suits_them():
    counts = (0, 999, 1_000, 3_345_000, 999_949_999, 1e9, 138e9)
    assert [in_bytes(count) for count in counts] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "3.3 MB",
        "999.9 MB",
        "1.0 GB",
        "138.0 GB",
    ]
