"""Results files: rows are appended and never rewritten, damage is named by file and line, bumps make rows stale."""

import json
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractbook.figures import provenance_of
from extractbook.reproduction import (
    Cell,
    Row,
    editions,
    freshness,
    is_current,
    read_all,
    read_rows,
    results,
    table_cells,
)
from extractbook.reproduction.cells import plain_cell
from extractbook.reproduction.freshness import settings_of, versions_of
from extractbook.reproduction.grids import tables_for
from extractbook.reproduction.results import append_row, frame
from extractbook.reproduction.run import headline, name_of
from extractbook.reproduction.scales import SCALES, BanditSettings, scale
from extractlib import versions
from extractlib.errors import InputError
from extractlib.models import networks

MADE = {
    "commit": "abc",
    "lock": "0",
    "date": "2026-11-27T00:00:00+00:00",
    "seconds": 1.0,
    "device": "cpu",
    "processor": "AVX2",
    "libraries": {"torch": "2"},
    "data": {"victim": "v", "test": "t", "pool": "p"},
}


def cells() -> list[Cell]:
    """Return the cells of all tables of the drawn scale and of photographs, of two seeds."""
    scales = (scale("drawn"), scale("small-cpu"))
    return [cell for at in scales for table in tables_for(at) for cell in table_cells(table, at, seeds=[0, 1])]


def row_of(cell: Cell, **result) -> Row:
    return Row(cell, {"recovery": 0.5, **result}, MADE | {"versions": versions_of(cell), "settings": settings_of(cell)})


CELL = table_cells("reproduction", scale("smoke"), seeds=[3])[0]


@pytest.fixture
def row():
    return row_of(CELL)


def test_rows_survive_the_file_and_are_appended(row, tmp_path):
    path, second = tmp_path / "below" / "table.jsonl", replace(row, cell=replace(row.cell, seed=4))
    append_row(path, row)
    before = path.read_bytes()
    append_row(path, second)
    assert path.read_bytes().startswith(before)
    assert read_rows(path) == [row, second]
    assert read_all(tmp_path / "below") == [row, second]


# -- what the chapters show --------------------------------------------------


def make(folder: str, *, table: str = "granularity", date: str = "2026-11-27", **result) -> Row:
    """Append a row of the first cell of a table, with seed 200 or, in the exploration, 1000."""
    [cell] = [cell for cell in table_cells(table, scale("drawn"), seeds=[200]) if cell.task == "signs"][:1]
    made = row_of(replace(cell, seed=1000) if folder == "exploring" else cell, **result)
    made = replace(made, provenance=made.provenance | {"date": f"{date}T00:00:00+00:00", "data": {"test": date}})
    append_row(results.FOLDER / folder / "drawn" / f"{table}.jsonl", made)
    return made


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Folders of rows of which those of the second edition count."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(editions, "refusal", lambda row: "" if row.cell.seed == 200 else "explored")
    monkeypatch.setattr(results, "complete", lambda rows, table, scale, only=None: {row.cell.seed for row in rows})


def test_chapters_show_the_exploration_until_a_row_counts(shown):
    make("exploring", recovery=0.25)
    before = results.newest("granularity")
    assert before["recovery"].tolist() == [0.25]
    assert before.attrs == {"editions": ("exploring",), "parts": ("validation",), "seeds": (1000,)}
    assert "rows of the exploration, one seed, 1000, measured on validation images;" in provenance_of(before)
    make("edition-2", recovery=0.5, binary={"pool": {"tnr": 0.75}})
    after = results.newest("granularity")
    assert after[["recovery", "binary.pool.tnr", "seed", "table"]].values.tolist() == [[0.5, 0.75, 200, "granularity"]]
    assert after.attrs == {"editions": ("second",), "parts": ("test",), "seeds": (200,)}
    assert (
        "the second edition's rows, one seed, 200, measured on test images; a claim is judged with 8 seeds or more, so"
        " none is judged by these yet; commit `abc`"
    ) in provenance_of(after)
    enough = pd.concat([after.assign(seed=seed) for seed in range(200, 208)])
    assert "8 seeds, 200 to 207, measured on test images; commit `abc`" in provenance_of(enough)
    for seeds, said in (((204, 200), "2 seeds, 200 and 204,"), ((200, 201, 204), "3 seeds, 200, 201 and 204,")):
        assert said in provenance_of(pd.concat([after.assign(seed=seed) for seed in seeds]))
    assert "2 seeds, 200 and 201," in provenance_of(enough[enough["seed"] < 202])


def test_rows_of_the_exploration_say_which_deciding_rows_there_are(shown):
    for table in ("granularity", "adaptive"):
        make("exploring", table=table, recovery=0.25)
    both = results.newest("granularity", "adaptive")
    assert "; the rows that decide the claims have not been run yet; commit" in provenance_of(both)
    before = editions.looks("drawn")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "decided", lambda table, scale: set(before) if table == "adaptive" else set(before[:-1]))
        assert (
            "; the rows that decide the claims are available with 8 seeds for adaptive, but not all of those for"
            " granularity; commit"
        ) in provenance_of(both)
        alone = both[both["table"] == "adaptive"]
        assert "with 8 seeds, but not yet for the rows that these are compared with; commit" in provenance_of(alone)


def test_tables_to_be_compared_are_of_one_edition(shown):
    for table, value in (("granularity", 0.25), ("adaptive", 0.75)):
        make("exploring", table=table, recovery=value)
    make("edition-2", recovery=0.5)
    assert results.newest("granularity")["recovery"].tolist() == [0.5]
    assert results.newest("granularity", "adaptive")["recovery"].tolist() == [0.25, 0.75]
    assert results.newest("granularity", beside=["adaptive"])["recovery"].tolist() == [0.25]
    make("edition-2", table="adaptive", recovery=1.0)
    both = results.newest("granularity", "adaptive")
    assert both["recovery"].tolist() == [0.5, 1.0] and both.attrs["editions"] == ("second",)


@pytest.mark.parametrize(("table", "shown"), [("granularity", False), ("accounts", False), ("answers", True)])
def test_a_seed_counts_once_all_its_deciding_cells_are_there(table, shown):
    cells = table_cells(table, scale("drawn"), seeds=[5, 6], shown=shown)
    rows = [row_of(cell) for cell in cells]
    assert len(rows) > 2 and results.complete(rows, table, "drawn") == {5, 6}
    assert results.complete(rows[1:], table, "drawn") == {6}
    assert results.complete([], table, "drawn") == set()


def test_cells_that_are_not_shown_are_not_waited_for(tmp_path, monkeypatch):
    """Where labels alone are asked for, a table counts once its rows of labels are there, and shows nothing else."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(editions, "counts", lambda row: True)
    cells = table_cells("granularity", scale("drawn"), seeds=[200], shown=False)
    labels = [cell for cell in cells if str(cell.granularity) == "label"]
    assert 0 < len(labels) < len(cells)
    rows = [row_of(cell) for cell in labels]
    only = {"granularity": ("label", "full")}
    assert results.complete(rows, "granularity", "drawn") == set()
    assert results.complete(rows, "granularity", "drawn", only=only) == {200}
    assert results.complete(rows[1:], "granularity", "drawn", only=only) == set()
    make("exploring", recovery=0.25)
    for row in [*rows, row_of(next(cell for cell in cells if cell not in labels))]:
        append_row(tmp_path / "edition-2" / "drawn" / "granularity.jsonl", row)
    assert results.newest("granularity").attrs["editions"] == ("exploring",)
    found = results.newest("granularity", only=only)
    assert (found.attrs["editions"], len(found)) == (("second",), len(labels))


def test_of_two_rows_of_a_cell_the_later_is_shown_once(shown):
    make("edition-2", recovery=0.1, date="2026-12-02")
    first = make("edition-2", recovery=0.2, date="2026-12-01")
    again = replace(first, result={"recovery": 0.3}, provenance=first.provenance | {"date": "2026-12-03"})
    append_row(results.FOLDER / "edition-2" / "drawn" / "copied.jsonl", again)
    assert results.newest("granularity")["recovery"].tolist() == [0.1]
    assert results.newest("granularity", "copied")[["table", "recovery"]].values.tolist() == [["granularity", 0.3]]


def test_a_table_without_rows_is_refused(shown):
    make("exploring")
    with pytest.raises(InputError, match="no rows of table 'weights' at scale 'drawn': make them"):
        results.newest("granularity", "weights")


def test_a_frame_that_says_nothing_of_its_rows_has_no_provenance(shown):
    make("exploring")
    with pytest.raises(InputError, match="give a frame from book.frame"):
        provenance_of(results.newest("granularity").query("task == 'birds'"))


def append_some(path: Path, first: int) -> None:
    for seed in range(first, first + 20):
        append_row(path, row_of(Cell(scale="smoke", task="signs", pool="atlas", victim="tiny", seed=seed)))


def test_two_writers_lose_nothing(tmp_path):
    path, spawn = tmp_path / "table.jsonl", multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_some, args=(path, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(read.cell.seed for read in read_rows(path)) == [*range(20), *range(100, 120)]


def test_a_row_that_cannot_be_written_leaves_the_file_as_it_was(row, tmp_path, monkeypatch):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    whole = path.read_bytes()

    def full(_):
        raise OSError("no space left on device")

    with monkeypatch.context() as changed, pytest.raises(OSError, match="no space left"):
        changed.setattr(results.os, "fsync", full)
        append_row(path, row)
    assert path.read_bytes() == whole
    append_row(path, row)
    assert path.read_bytes() == 2 * whole


def test_a_file_cut_in_half_is_refused_by_name_and_line(row, tmp_path):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    for use in (read_rows, lambda path: append_row(path, row)):
        with pytest.raises(InputError, match=r"table.jsonl: its last line is cut off.*remove it"):
            use(path)
    assert path.read_bytes() == whole + whole[: len(whole) // 2]


BROKEN = {
    "no json": ("{", "line 2 is not a row"),
    "nested deep": ("[" * 100_000, "line 2 is not a row"),
    "a list": ("[1]", "line 2 is not a row"),
    "no provenance": (json.dumps({"cell": {}, "result": {}}), "line 2 is not a row .provenance: Field required"),
    "a setting of no cell": (lambda row: row["cell"].update(color=1), "line 2 is not a row .*'color'"),
    "a result under a name of the cell": (
        lambda row: row["result"].update(pool={"tnr": 1.0}),
        "line 2 is not a row .*the result has 'pool', which is a field of the cell",
    ),
    "a cell without its task": (lambda row: row["cell"].pop("task"), "line 2 is not a row.*task"),
    "no commit": (lambda row: row["provenance"].pop("commit"), "line 2 is not a row .provenance.commit: Field"),
    "unknown key": (lambda row: row["provenance"]["versions"].update(magic=1), "line 2: unknown version key 'magic'"),
    "later version": (lambda row: row["provenance"]["versions"].update(split=99), "line 2: version 99 of 'split'"),
    "a time that is text": (
        lambda row: row["provenance"].update(seconds="9"),
        "line 2 is not a row .provenance.seconds: ",
    ),
    "a version that is text": (
        lambda row: row["provenance"]["versions"].update(split="1"),
        "line 2 is not a row .provenance.versions.split: ",
    ),
    "data that is none": (lambda row: row["provenance"].update(data=None), "line 2 is not a row .provenance.data: "),
    "a seed that is text": (lambda row: row["cell"].update(seed="3"), "line 2 is not a row .seed of a cell is '3'"),
    "a seed below zero": (lambda row: row["cell"].update(seed=-3), "line 2 is not a row .seed is -3"),
    "a task that is none": (lambda row: row["cell"].update(task=None), "line 2 is not a row .task of a cell is None"),
    "a pool that is a list": (lambda row: row["cell"].update(pool=["atlas"]), "line 2 is not a row .the source of"),
    "a budget below zero": (lambda row: row["cell"].update(budget=-1), "line 2 is not a row .budget, steps and"),
    "NaN": ('{"cell": NaN}', "line 2 is not a row .NaN is not a number"),
    "text that is none": (lambda row: row["result"].update(note="\udcff"), "line 2 is not a row .'utf-8' codec"),
    "something beside": (lambda row: row.update(more=1), "line 2 is not a row .more: Extra inputs are not permitted"),
    "no version": (lambda row: row["provenance"].update(versions={}), "line 2: it names no versions"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_line_that_is_no_row_is_refused_by_name(damage, message, row, tmp_path):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    if callable(damage):
        content = json.loads(path.read_text())
        damage(content)
        damage = json.dumps(content)
    path.write_text(path.read_text() + damage + "\n")
    with pytest.raises(InputError, match=f"table.jsonl, {message}"):
        read_rows(path)


VALUES = st.sampled_from([None, True, -1, 2**70, 1e300, "", "x", [], {}, [1], {"a": 1}, "top-3", "\udcff", "9" * 999])


@given(st.data())
def test_a_row_that_was_changed_anywhere_is_refused_in_words_or_read(data):
    """No change of a value, and none of the bytes, ends in an error without a file's name."""
    content = json.loads(json.dumps(row_of(CELL).to_json()))
    place = content
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and place:
        place[key] = data.draw(VALUES)
    line = bytearray(json.dumps(content).encode())
    if data.draw(st.booleans()):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255).filter(lambda one: one != 10))
    with TemporaryDirectory() as folder:
        path = Path(folder, "table.jsonl")
        path.write_bytes(bytes(line) + b"\n")
        try:
            for found in read_rows(path):
                is_current(found), name_of(found.cell), frame([found]), headline(found)
        except InputError as error:
            assert "\n" not in str(error)


def test_two_rows_of_one_cell_that_were_made_alike_and_differ_are_refused(row, tmp_path):
    path = tmp_path / "table.jsonl"
    append_row(path, row)
    append_row(path, replace(row, result=row.result | {"milliseconds": 7.0}))
    assert len(read_rows(path)) == 2
    append_row(path, replace(row, result={"recovery": 0.6}))
    with pytest.raises(InputError, match=r"table.jsonl: lines 1 and 3 are of one cell \(signs, seed 3\)"):
        read_rows(path)


@pytest.mark.parametrize("name", ["table.json", "table.csv", "table"])
def test_rows_are_added_to_no_other_file(row, name, tmp_path):
    (tmp_path / name).write_text("kept")
    with pytest.raises(InputError, match=f"{name} is not a results file that rows can be added to.*ends in .jsonl"):
        append_row(tmp_path / name, row)
    assert (tmp_path / name).read_text() == "kept"


# -- what is stale ---------------------------------------------------------------


def with_versions(monkeypatch, **changes: int) -> None:
    monkeypatch.setattr(versions, "VERSIONS", MappingProxyType(dict(versions.VERSIONS) | changes))


@pytest.mark.parametrize("key", versions.VERSIONS)
def test_a_bump_makes_stale_exactly_the_rows_that_use_its_key(key, monkeypatch):
    rows = [row_of(cell) for cell in cells()]
    assert all(map(is_current, rows))
    with_versions(monkeypatch, **{key: versions.VERSIONS[key] + 1})
    stale = {row.cell for row in rows if not is_current(row)}
    assert stale == {row.cell for row in rows if key in row.provenance["versions"]}
    assert stale


def accused(cell: Cell) -> bool:
    """Say whether a row tells a copy, of the plain cell, from an independent model."""
    plain = plain_cell(scale(cell.scale), task=cell.task, seed=cell.seed)
    return cell.task in ("signs", "things", "gtsrb") and (cell.experiment == "control" or cell == plain)


@pytest.mark.parametrize(
    ("key", "used"),
    {
        "drawn": lambda cell: cell.scale == "drawn",
        "decode": lambda cell: cell.scale == "small-cpu",
        "adaptive": lambda cell: cell.attack == "adaptive",
        "control": lambda cell: (
            cell.attack == "own-labels" or cell.experiment == "control" or cell.defense == "watermark"
        ),
        "ownership": accused,
        "accounts": lambda cell: cell.experiment == "accounts",
        "watermark": lambda cell: cell.defense == "watermark",
        "policy": lambda cell: cell.defense != "none" or cell.experiment == "shortcut",
        "detect": lambda cell: (
            cell.defense not in ("none", "watermark")
            or cell.experiment in ("detection", "overlap", "accounts", "shortcut")
        ),
        "api": lambda cell: cell.attack != "own-labels" and cell.experiment not in ("control", "detection", "overlap"),
        "train": lambda cell: True,
    }.items(),
)
def test_rows_use_the_behaviors_they_depend_on(key, used):
    assert all((key in versions_of(cell)) == used(cell) for cell in cells())


def test_a_new_version_key_a_network_a_policy_and_a_field_with_a_default_make_nothing_stale(monkeypatch):
    from dataclasses import dataclass

    from extractlib.data import drawn
    from extractlib.defenses import policies as defenses

    rows = [row_of(cell) for cell in cells()]
    with_versions(monkeypatch, tea=1)
    monkeypatch.setattr(
        networks, "NETWORKS", MappingProxyType(dict(networks.NETWORKS) | {"toy": networks.NETWORKS["tiny"]})
    )
    monkeypatch.setattr(
        defenses, "POLICIES", MappingProxyType(dict(defenses.POLICIES) | {"toy": defenses.POLICIES["deny"]})
    )
    monkeypatch.setattr(drawn, "TASKS", (*drawn.TASKS, "toys"))

    @dataclass(frozen=True)
    class Wider(type(scale("drawn").victim)):
        warm_up: int = 0

    for name, settings in list(SCALES.items()):
        recipe = Wider(**{field: getattr(settings.victim, field) for field in vars(settings.victim)})
        monkeypatch.setitem(SCALES, name, replace(settings, victim=recipe))
    freshness._settings.cache_clear()
    assert all(map(is_current, rows))
    freshness._settings.cache_clear()


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"rate": 1}, lambda cell: False),
        ({"granularities": ("full",)}, lambda cell: cell.experiment == "answers"),
        ({"control_images": {}}, lambda cell: cell.experiment == "control" or cell.defense == "watermark"),
        ({"bandit": BanditSettings(window=9)}, lambda cell: cell.attack == "adaptive"),
        ({"balanced": ("retina", "signs")}, lambda cell: cell.task == "signs"),
        ({"accused_images": 7}, accused),
        (
            {"flag_times": {**scale("drawn").flag_times, "signs": {"prada": 7}}},
            lambda cell: cell.experiment == "accounts" and cell.task == "signs",
        ),
        ({"augmentation": {}, "cuts": 3, "other_steps": (7,)}, lambda cell: False),
        ({"budgets": (1, 10_000)}, lambda cell: False),
        ({"stream": 7}, lambda cell: cell.experiment == "accounts"),
        ({"overlap_images": 7}, lambda cell: cell.experiment == "overlap"),
        ({"watermark_rate": 0.1}, lambda cell: cell.defense == "watermark"),
        (
            {"surrogate": replace(scale("drawn").surrogate, learning_rate=0.2)},
            lambda cell: cell.surrogate != "",
        ),
        (
            {"surrogate": replace(scale("drawn").surrogate, optimizer="adamw")},
            lambda cell: cell.surrogate != "" or cell.experiment == "accounts",
        ),
        (
            {"scratch_victim": replace(scale("drawn").scratch_victim, epochs=1)},
            lambda cell: cell.victim_weights == "none",
        ),
        ({"adaptive_budgets": (7,)}, lambda cell: cell.attack == "adaptive"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else None,
)
def test_a_changed_setting_makes_stale_exactly_the_rows_that_depend_on_it(changes, stale, monkeypatch):
    rows = [row_of(cell) for cell in cells() if cell.scale == "drawn"]
    monkeypatch.setitem(SCALES, "drawn", replace(scale("drawn"), **changes))
    freshness._settings.cache_clear()
    found = {row.cell for row in rows if not is_current(row)}
    freshness._settings.cache_clear()
    assert found == {row.cell for row in rows if stale(row.cell)}


def test_unknown_keys_and_experiments_are_refused():
    with pytest.raises(InputError, match="unknown version key 'trains': use one of numerics, drawn"):
        versions.versions("train", "trains")
    with pytest.raises(InputError, match="unknown experiment 'magic'"):
        versions_of(replace(cells()[0], experiment="magic"))
    assert versions.versions("metrics") == {"numerics": 1, "metrics": 1}


def test_who_reads_while_a_row_is_added_waits_for_its_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b"')
    whole = threading.Timer(0.3, lambda: path.write_text('{"a": 1}\n{"b": 2}\n'))
    whole.start()
    assert results.read_lines(path) == ['{"a": 1}', '{"b": 2}']
    whole.join()
