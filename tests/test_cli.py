"""The command line: what it prints, and that a wrong input is one line and exit status 2."""

import json
import os
import re
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from layouts import write_gtsrb, write_image, write_tinyimagenet
from safetensors import SafetensorError
from test_datasets import write_folder

from extractbook.cli import in_turn, print_rows
from extractbook.reproduction import Row, editions, read_rows, schedule, table_cells
from extractbook.reproduction.grids import with_options
from extractbook.reproduction.scales import scale

WRONG = {
    "table": (["run", "reproductions"], "unknown table 'reproductions': use one of"),
    "scale": (["run", "reproduction", "--scale", "huge"], "unknown scale 'huge': use one of smoke, drawn"),
    "task": (["run", "reproduction", "--scale", "smoke", "--task", "sign"], "unknown task or pool 'sign': use one of"),
    "pool": (["run", "reproduction", "--scale", "smoke", "--pool", "sea"], "unknown task or pool 'sea': use one of"),
    "network": (["run", "reproduction", "--network", "vgg99"], "unknown network 'vgg99': use one of"),
    "granularity": (["run", "reproduction", "--granularity", "top"], "top"),
    "part": (["run", "reproduction", "--part", "train"], "unknown part 'train': use one of test, validation"),
    "no budget": (["run", "reproduction", "--scale", "smoke", "--budget", "0"], "budget"),
    "budget below nothing": (["run", "reproduction", "--scale", "smoke", "--budget", "-1"], "-1"),
    "budget above the pool": (["run", "reproduction", "--scale", "smoke", "--budget", "513"], "513"),
    "no folder": (["run", "reproduction", "--task", "folder:/no/such", "--pool", "atlas"], "/no/such is not a folder"),
    "no pool": (["run", "reproduction", "--task", "folder:/no/such"], "/no/such is not a folder"),
    "no results": (["verify", "--results", "nowhere"], "nowhere holds no results: make them with"),
    "drawn only": (
        ["run", "own_images", "--task", "folder:/no/such", "--pool", "atlas"],
        "table 'own_images' needs more than folders hold: for folders, use one of reproduction, control",
    ),
    "no data": (
        ["run", "reproduction", "--task", "gtsrb", "--pool", "tinyimagenet", "--data", "/no/such"],
        "gtsrb is not available, since /no/such/gtsrb is not a folder: run extractlib data get gtsrb",
    ),
    "no cell for a task": (
        ["run", "classes", "--task", "birds", "--pool", "atlas"],
        "table 'classes' has no cell for birds and seed 0: use reproduction",
    ),
    "no folder for classes": (
        ["run", "classes", "--task", "folder:/no/such", "--pool", "atlas"],
        "/no/such is not a folder: name",
    ),
    "no ledger": (["ledger", "--results", "nowhere"], "nowhere holds no results: make them with"),
    "no edition": (["ledger", "--edition", "3"], "unknown edition '3': use one of 1, 2"),
    "no claim": (["ledger", "--claim", "C99"], "unknown claim 'C99': use one of C1, "),
    "no such device": (["run", "reproduction", "--device", "tpu"], "unknown device 'tpu': use one of cpu, cuda"),
    "no gpu": (["run", "reproduction", "--device", "cuda:99"], "device 'cuda:99' was requested, but there"),
    "no such device for tables": (["results", "--device", "tpu"], "unknown device 'tpu': use one of cpu, cuda"),
    "no weights": (["weights", "--scale", "paper"], "scale 'paper' pre-trains nothing"),
    "no such table": (["results", "--table", "speed", "--plan"], "unknown table 'speed': use one of"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_input_is_one_line_and_status_two(command, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output, errors = command(*words)
    assert status == 2
    assert output == ""
    lines = [line for line in errors.splitlines() if line.startswith(("extractlib: ", "extractbook: "))]
    assert len(lines) == 1 and message in lines[0]
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["output", "cache"])
def test_a_folder_that_cannot_be_made_is_one_line_and_nothing_is_computed(command, place, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / ("file" if place == "cache" else "store")))
    output = tmp_path / ("file" if place == "output" else "results") / "below" / "rows.jsonl"
    status, printed, errors = command("run", "reproduction", "--scale", "smoke", "--output", str(output))
    assert (status, printed) == (2, "")
    [line] = [line for line in errors.splitlines() if line.startswith(("extractlib: ", "extractbook: "))]
    said = "name a file in a writable folder" if place == "output" else "Not a directory: name another folder"
    assert str(tmp_path / "file") in line and said in line
    assert "Traceback" not in errors and not output.exists() and not (tmp_path / "store").exists()


def test_memory_and_disk_that_do_not_suffice_are_one_line(command, monkeypatch):
    failures = {
        "the device has too little memory (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB)": (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB. More words")
        ),
        "weights cannot be written (I/O error: No space left on device (os error 28))": SafetensorError(
            "I/O error: No space left on device (os error 28)"
        ),
        "an array cannot be written (9 requested and 8 written values)": OSError("9 requested and 8 written"),
    }
    for line, failure in failures.items():

        def fail(_failure=failure, **_):
            raise _failure

        monkeypatch.setattr("extractbook.cli.app", fail)
        status, printed, errors = command("ledger")
        assert (status, printed, errors.count("\n")) == (2, "", 1)
        assert errors.startswith(f"extractbook: {line}: ")
    monkeypatch.setattr("extractbook.cli.app", Mock(side_effect=SafetensorError("header too large")))
    with pytest.raises(SafetensorError):
        command("ledger")


@pytest.mark.parametrize("budget", ["0", "-1"])
def test_an_impossible_budget_is_refused_before_anything_is_drawn_or_trained(command, budget):
    status, output, errors = command("run", "reproduction", "--scale", "smoke", "--budget", budget)
    expected = f"extractbook: budget is {budget}: expected a whole number of at least 1"
    assert (status, output, errors.strip()) == (2, "", expected)


def test_a_run_on_image_folders_ends_in_a_file(command, tmp_path):
    write_folder(tmp_path / "pets" / "train", count=100)
    write_folder(tmp_path / "pets" / "test", count=20, seed=1)
    write_folder(tmp_path / "photos", classes=("sea", "sky", "sand"), count=40, seed=2)
    output = tmp_path / "rows.jsonl"
    images = ["--task", f"folder:{tmp_path}/pets", "--pool", f"folder:{tmp_path}/photos"]
    options = ["--network", "tiny", "--budget", "40", "--output", str(output)]
    status, printed, _ = command("run", "reproduction", "--scale", "smoke", *images, *options)
    assert status == 0
    [row] = read_rows(output)
    assert re.fullmatch(r"folder:pets@[0-9a-f]{8}", row.cell.task) and row.cell.budget == 40
    assert re.fullmatch(r"folder:photos@[0-9a-f]{8}", str(row.cell.pool))
    assert str(tmp_path) not in json.dumps(row.to_json())
    assert "folder:pets" in printed and f"{row.result['recovery']:.3f}" in printed


@pytest.mark.parametrize("table", ["adaptive", "classes", "detection", "defended"])
def test_other_tables_run_on_ones_own_folders_too(command, tmp_path, table):
    """Without --budget as many are asked as the pool holds, all of the task's cells and no other task's."""
    write_folder(tmp_path / "pets" / "train", count=100)
    write_folder(tmp_path / "pets" / "test", count=20, seed=1)
    write_folder(tmp_path / "photos", classes=("sea", "sky", "sand"), count=40, seed=2)
    images = ["--task", f"folder:{tmp_path}/pets", "--pool", f"folder:{tmp_path}/photos"]
    output = tmp_path / "rows.jsonl"
    status, printed, errors = command(
        "run", table, "--scale", "smoke", "--network", "tiny", *images, "--output", str(output)
    )
    assert status == 0, errors
    rows = read_rows(output)
    held = {row.cell.budget for row in rows}
    assert len(rows) == printed.count("(seed 0, n = ") == {"adaptive": 4, "defended": 4}.get(table, 1)
    if table != "detection":
        assert len(held) == 1 and f"the pool has {held.pop()} images for them beside those for pre-" in errors
    else:
        assert rows[0].result["caught"].keys() == {"benign", "pool", "second", "own", "shifted"}


def test_a_folder_that_both_networks_are_pretrained_on_is_told_of_and_needs_classes(command, tmp_path):
    write_folder(tmp_path / "pets", count=60)
    write_folder(tmp_path / "photos", classes=("sea", "sky"), count=40, seed=2)
    write_folder(tmp_path / "flat", classes=("",), count=40, seed=2)
    other = "extractlib attack starts both networks from the weights that ship, and needs no classes in a pool\n"
    words = [*RUN, "--task", f"folder:{tmp_path}/pets", "--pool"]
    status, printed, errors = command(*words, f"folder:{tmp_path}/flat")
    assert (status, printed) == (2, "") and errors == (
        f"extractbook: --pool folder:{tmp_path}/flat has fewer than two class folders, but scale 'smoke' pre-trains on"
        f" its labels: give class folders; {other}"
    )
    status, printed, errors = command(*words, f"folder:{tmp_path}/photos")
    assert status == 0 and "recovery" in printed
    told = f"extractbook: at scale 'smoke', both networks start from weights trained on images of {tmp_path}/photos al"
    assert told in errors and other in errors
    assert "pre-train" not in command(*words, "atlas")[2]


TENTHS = r"(\w+)/\d*(\d)\."
RUN = ("run", "reproduction", "--scale", "smoke", "--network", "tiny", "--budget", "20")


def test_a_row_is_of_the_images_that_made_it(command, tmp_path):
    """Two folders of one name, a folder whose images are exchanged, and another cut: each has a row of its own."""
    for number, name in enumerate("ab"):
        write_folder(tmp_path / name / "images", count=60, seed=number)
    output, rows = tmp_path / "rows.jsonl", []
    first, second = (f"folder:{tmp_path}/{name}/images" for name in "ab")

    def run(task, *options):
        status, printed, errors = command(*RUN, "--task", task, "--pool", first, "--output", str(output), *options)
        assert status == 0, errors
        rows.append(len(read_rows(output)))
        return printed

    shown = run(first)
    other = run(second)  # the same last name, beside the first as its pool
    assert run(first) == shown != other
    assert rows == [1, 2, 2]
    tasks = [row.cell.task for row in read_rows(output)]
    assert len(set(tasks)) == 2 and all(re.fullmatch("folder:images@[0-9a-f]{8}", task) for task in tasks)
    images = tmp_path / "b" / "images"
    for number in range(50):  # other images within one folder
        (images / "cats" / f"{number}.png").write_bytes((tmp_path / f"a/images/cats/{number}.png").read_bytes())
    run(second)
    run(second, "--group", TENTHS)  # the same images, cut otherwise
    run(second, "--group", TENTHS)
    assert rows == [1, 2, 2, 3, 4, 4]
    found = {(row.cell.task, row.provenance["data"]["victim"]) for row in read_rows(output)}
    assert len(found) == 4


def test_a_published_set_that_was_changed_has_another_row(command, tmp_path):
    write_gtsrb(tmp_path / "gtsrb", tracks=30)
    write_tinyimagenet(tmp_path / "tinyimagenet", count=60)
    words = [*RUN, "--task", "gtsrb", "--pool", "tinyimagenet", "--data", str(tmp_path)]
    output = tmp_path / "rows.jsonl"
    for _ in range(2):
        assert command(*words, "--output", str(output))[0] == 0
    assert len(read_rows(output)) == 1
    write_image(tmp_path / "gtsrb/GTSRB/Final_Training/Images/00000/00000_00000.ppm", seed=77)
    assert command(*words, "--output", str(output))[0] == 0
    first, second = read_rows(output)
    assert first.cell == second.cell and first.provenance["data"] != second.provenance["data"]


@pytest.mark.parametrize("place", ["/proc/x.jsonl", "/dev/null/x.jsonl", "pipe.jsonl", "folder.jsonl"])
def test_an_output_that_cannot_be_written_is_told_before_anything_is_computed(command, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schedule, "run_cell", lambda *_, **__: pytest.fail("a cell was run"))
    os.mkfifo("pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    before = sorted(tmp_path.iterdir())
    status, printed, errors = command("run", "reproduction", "--scale", "smoke", "--output", place)
    assert (status, printed) == (2, "")
    assert re.search(r"cannot be written \(.*\): name a file|is not a regular file: name a file", errors)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("table", "option"),
    [
        ("detection", "--budget=7"),
        ("detection", "--granularity=label"),
        ("overlap", "--budget=7"),
        ("answers", "--granularity=label"),
        ("control", "--budget=7"),
        ("control", "--granularity=label"),
        ("accounts", "--granularity=label"),
    ],
)
def test_options_that_a_table_does_not_use_are_refused(command, table, option):
    status, printed, errors = command("run", table, "--scale", "smoke", option)
    assert (status, printed) == (2, "")
    assert f"{table} does not use {option.partition('=')[0]}: leave it out" in errors


def test_an_option_changes_only_what_uses_it():
    cells = table_cells("detection", scale("smoke"), seeds=[0])
    assert {(cell.victim, cell.surrogate) for cell in with_options(cells, network="vgg")} == {("vgg", "")}
    cells = table_cells("own_images", scale("smoke"), seeds=[0])
    changed = with_options(cells, granularity="label")
    told = {cell.attack: set() for cell in changed}
    for cell in changed:
        told[cell.attack].add(str(cell.granularity))
    assert told == {"random": {"label"}, "own-labels": {"full"}}
    assert len(changed) == len(set(changed)) < len(cells)  # two became one


def test_help_lists_the_commands(command):
    status, printed, _ = command("--help")
    assert status == 0
    assert all(word in printed for word in ("run", "results", "verify", "weights", "ledger"))


def test_numbers_of_a_result_are_told_in_words(capsys):
    result = {"validation_tpr": 0.9, "binary": {"pool": {"tnr": 0.8, "roc": [[0, 1], [1, 0]]}}, "settings": {}}
    [cell] = table_cells("detection", scale("smoke"), seeds=[2])[:1]
    print_rows([Row(cell, result, {})])
    assert capsys.readouterr().out == "signs, detection (seed 2): validation tpr 0.900, binary pool tnr 0.800\n"


def test_recovery_has_its_interval_and_a_weak_victim_is_told(capsys):
    cells = table_cells("reproduction", scale("smoke"), seeds=[0, 1])[:1]
    one = {"victim_accuracy": 0.9, "constant_accuracy": 0.3, "images": 1_200, "errors": 1_234}
    print_rows([Row(replace(cells[0], seed=0), {"recovery": 0.8} | one, {})])
    printed = capsys.readouterr()
    assert "(seed 0, n = 1,200): recovery 0.800, victim accuracy 0.900" in printed.out and "errors 1,234" in printed.out
    assert printed.err == ""
    weak = one | {"victim_accuracy": 0.35}
    # The mean's t interval with one degree of freedom: 0.9 ± 12.706 · (0.1 √2) / √2.
    print_rows([Row(replace(cells[0], seed=seed), {"recovery": 0.8 + 0.2 * seed} | weak, {}) for seed in (0, 1)])
    printed = capsys.readouterr()
    assert "recovery 0.900 ± 0.141 (95% interval -0.371 to 2.171)" in printed.out
    assert "victim is +0.05 above the most frequent label alone: recovery says little" in printed.err


def test_an_experiment_of_each_kind_runs_from_the_command_line(command, tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path))
    for table in ("detection", "accounts", "classes"):
        status, printed, _ = command("run", table, "--scale", "smoke", "--task", "objects")
        assert status == 0
        assert printed.startswith("objects, ")
    assert "recovery" in printed


def test_a_plan_reckons_with_the_rate_it_is_given(command, tmp_path):
    words = ["results", "--scale", "paper", "--table", "reproduction", "--seeds", "3", "--results", str(tmp_path)]
    status, printed, _ = command(*words, "--plan", "--rate", "1000", "--jobs", "3")
    # 5 tasks x 3 seeds, each 100,000 images x 100 epochs, whole batches, at 1,000 a second and 6 seconds more.
    hours = 15 * (100 * 1_563 * 64 / 1_000 + 6) / 3600
    assert status == 0
    assert printed.splitlines()[1].split() == ["reproduction", "15", "15", f"{hours:.2f}"]
    assert f"about {hours:.1f} hours at 1,000 images a second, {hours / 3:.1f} with --jobs 3" in printed
    assert "the 100,000 images of an attack take 15.05 GB" in printed  # 3 x 224 x 224 bytes each
    assert list(tmp_path.iterdir()) == []


def test_results_are_by_default_those_of_the_first_look(command, tmp_path):
    """A folder of one's own holds none of them, and the committed one all: 5 tasks at 8 seeds."""
    words = ["results", "--table", "reproduction", "--plan"]
    planned = [command(*words, *more)[1].splitlines()[1].split()[1:3] for more in ([], ["--results", str(tmp_path)])]
    assert planned == [["40", "0"], ["40", "40"]]
    assert editions.first_look("photos") == range(200, 205)
    assert editions.first_look("paper") == editions.first_look("smoke") == range(5)


def test_a_plan_of_the_paper_has_every_table(command, tmp_path):
    status, printed, _ = command("results", "--scale", "paper", "--plan", "--seeds", "1", "--results", str(tmp_path))
    assert status == 0
    assert {line.split()[0]: line.split()[1] for line in printed.splitlines()[1:-2]} == {
        "reproduction": "5",
        "public": "5",
        "control": "5",
        "classes": "2",
        "answers": "5",
        "detection": "5",
        "defended": "25",
        "own_images": "30",
        "architecture": "12",
        "diversity": "30",
        "overlap": "40",
        "accounts": "5",
        "shortcut": "2",
        "watermark": "5",
        "asked_twice": "5",
        "adaptive": "30",
        "budget": "20",
        "granularity": "38",
    }


def test_results_keep_their_rows_and_goes_on_where_it_stopped(command, tmp_path, monkeypatch):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(tmp_path / "cache"))
    words = [
        "results",
        "--scale",
        "smoke",
        "--jobs",
        "1",
        "--table",
        "classes",
        "--seeds",
        "1",
        "--results",
        str(tmp_path),
    ]
    status, printed, _ = command(*words)
    assert status == 0 and "recovery" in printed
    rows = read_rows(tmp_path / "smoke" / "classes.jsonl")
    assert [row.cell.task for row in rows] == ["signs", "objects"]
    command(*words)
    assert read_rows(tmp_path / "smoke" / "classes.jsonl") == rows


def test_cells_are_run_seed_by_seed_and_of_a_seed_the_cheapest_table_first():
    names = ("budget", "reproduction", "accusation")
    cells = {name: table_cells(name, scale("drawn"), seeds=[1001, 1000]) for name in names}
    turns = [(table, {cell.seed for cell in its}, len(its)) for table, its in in_turn(cells)]
    assert turns == [
        (table, {seed}, count)
        for seed in (1000, 1001)
        for table, count in (("accusation", 2), ("reproduction", 5), ("budget", 25))
    ]


def test_what_some_seeds_have_no_number_for_says_how_many_have_one(capsys):
    [cell] = table_cells("accounts", scale("smoke"), seeds=[0])[:1]
    results = {"until": 2, "both": 1}, {"until": 4, "both": 2}, {"until": None, "both": 3}
    for order in results, results[::-1]:
        print_rows([Row(replace(cell, seed=seed), result, {}) for seed, result in enumerate(order)])
        printed = capsys.readouterr().out
        assert "(3 seeds): " in printed and "until 3.000 ± 1.414 (2 of 3)" in printed
        assert printed.count("both 2.000 ± 1.000") == 1 and "1.000 (" not in printed


def test_the_device_of_results_is_the_one_that_its_help_names(command):
    """The committed results are a processor's; commands that take the best one say so."""
    said = {name: " ".join(command(name, "--help")[1].replace("│", " ").split()) for name in ("results", "weights")}
    assert "cpu or cuda. [default: cpu]" in said["results"] and "best available" not in said["results"]
    assert "the best available if not given" in said["weights"]
