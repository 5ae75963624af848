"""`extractlib attack`: a model stolen from the command line, on drawn images and on folders of one's own."""

import re

import pytest
from test_datasets import write_folder

import extractlib as xl
from extractlib.models.training import Recipe

RESULT = re.compile(
    r"(\S+) queries: recovery (\d\.\d\d), agreement (\d\.\d\d) \(victim (\d\.\d\d), surrogate \d\.\d\d; n = (\S+)\)\n"
    r"(?:recovery on other test images of the task: \d\.\d\d to \d+\.\d\d \(95% interval\)\n)?"
    r"always answering the most frequent label: accuracy (\d\.\d\d)\n"
)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "pets" / "train", count=60)
    write_folder(tmp_path / "pets" / "test", count=10, seed=1)
    write_folder(tmp_path / "photos", classes=("sea", "sky", "sand"), count=40, seed=2)
    return [f"--task=folder:{tmp_path / 'pets'}", f"--pool=folder:{tmp_path / 'photos'}"]


def test_folders_of_ones_own(command, folders, tmp_path):
    saved = tmp_path / "copy.safetensors"
    small = ["--network", "tiny", "--surrogate", "tiny", "--scratch"]
    status, printed, errors = command("attack", *folders, *small, "--save", str(saved))
    assert status == 0, errors
    queries, *_, images, _ = RESULT.fullmatch(printed).groups()
    assert (queries, images) == ("49", "20")  # 41% of the pool's 120 images
    copy = xl.Surrogate.load(saved, network="tiny", classes=("cat", "dog"))
    assert copy.logits(xl.load(folders[0].removeprefix("--task=folder:")).test.images).shape == (20, 2)


def test_a_model_file_of_ones_own(command, folders, tmp_path):
    pets = xl.load(folders[0].removeprefix("--task=folder:"))
    recipe = Recipe(epochs=1, learning_rate=0.05)
    own = xl.Victim.train(pets.victim, network="tiny", recipe=recipe, backbone=None, progress=False)
    own.save(tmp_path / "own.safetensors")
    words = ["--victim", str(tmp_path / "own.safetensors"), "--network", "tiny", "--surrogate", "tiny", "--scratch"]
    status, printed, errors = command("attack", *folders, *words, "--budget", "30", "--answers", "label")
    assert status == 0, errors
    assert printed.startswith("30 queries: ")
    status, printed, errors = command("attack", *folders, *words[:3], "vgg", "--budget", "30")
    assert (status, printed) == (2, "") and "holds no weights of 'vgg' with 2 classes" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "sign"], "unknown task or pool 'sign': use one of"),
        (["--task", "atlas"], "atlas is not a task"),
        (["--task", "signs", "--pool", "objects"], "objects is not a pool"),
        (["--task", "signs", "--answers", "top"], "unknown granularity 'top'"),
        (["--task", "signs", "--budget", "0"], "budget is 0: expected a whole number"),
        (["--task", "signs", "--surrogate", "huge"], "unknown network 'huge'"),
        (["--task", "signs", "--device", "tpu"], "unknown device 'tpu': use one of cpu, cuda"),
        (["--task", "folder:/no/such"], "/no/such"),
    ],
)
def test_a_wrong_input_is_one_line_and_status_two(command, words, message):
    status, printed, errors = command("attack", *words)
    assert (status, printed) == (2, "")
    [line] = [line for line in errors.splitlines() if line.startswith("extractlib: ")]
    assert message in line and "Traceback" not in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--answers", "top1"], "unknown granularity 'top1'"),
        (["--reward", "bogus"], "unknown reward 'bogus'"),
        (["--surrogate", "tiny"], r"no backbone ships for network 'tiny': .* backbone=None \(--scratch\)"),
        (["--budget", "0"], "budget is 0: expected a whole number"),
        (
            ["--reward", "certainty", "--answers", "label"],
            "--reward certainty is 1 for every label: use another reward with --answers label",
        ),
        (
            ["--reward", "diversity", "--pool", "folder:unlabeled"],
            "folder:unlabeled has no labels: --reward needs them, so give labeled images, in a folder for each class",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_images_are_read(command, folders, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sea").rename(tmp_path / "unlabeled")
    status, printed, errors = command("attack", *folders, *words)
    assert (status, printed) == (2, "") and re.search(message, errors)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "50"], "budget is 50, but the pool holds 49 images: query at most that many"),
        (["--answers", "top-3"], "granularity top-3: the victim has only 2 classes"),
        (["--pool", "atlas", "--size", "16"], "atlas is drawn, with 32 pixels, and image_size (--size) is for files"),
        (["--reward", "diversity"], "has no labels: --reward needs them, so give labeled images"),
    ],
)
def test_what_cannot_be_is_refused_before_a_victim_is_trained(command, folders, monkeypatch, words, message):
    monkeypatch.setattr("extractlib.Victim.train", lambda *_, **__: pytest.fail("a victim is trained"))
    if "--reward" in words:
        load = xl.load
        monkeypatch.setattr("extractlib.load", lambda *given, **options: load(*given, **options | {"labeled": False}))
    status, printed, errors = command("attack", *folders, "--network", "tiny", "--scratch", *words)
    assert (status, printed) == (2, "") and message in errors


def test_a_task_in_place_of_a_labeled_pool_is_told_as_without_reward(command, folders):
    for words in ([], ["--reward", "diversity"]):
        status, printed, errors = command("attack", folders[0], "--pool", "cifar10", *words)
        assert (status, printed) == (2, "") and "cifar10 is not a pool" in errors


def test_the_victim_is_moved_to_the_device(command, folders, monkeypatch):
    moved, to = [], xl.Victim.to
    monkeypatch.setattr("extractlib.Victim.to", lambda victim, device: moved.append(device) or to(victim, device))
    words = ("--network", "tiny", "--surrogate", "tiny", "--scratch", "--device", "cpu")
    assert command("attack", *folders, *words)[0] == 0
    assert moved == ["cpu"]


def test_a_pool_that_is_the_task_is_refused(command, folders):
    status, printed, errors = command("attack", folders[0], folders[0].replace("--task", "--pool"))
    assert (status, printed) == (2, "") and "task and pool are both folder:" in errors
