"""Verification: up to four kinds of cells a run, in rotation, against their committed rows; and the record of it."""

import json
from dataclasses import replace

import pytest
from test_results import MADE, row_of

from extractbook.build.pages import verified
from extractbook.reproduction import Row, append_row, results, run_cell, table_cells
from extractbook.reproduction.grids import tables_for
from extractbook.reproduction.results import FOLDER, read_all
from extractbook.reproduction.run import EXPERIMENTS, headline
from extractbook.reproduction.scales import scale
from extractbook.reproduction.verify import (
    RECORD,
    Check,
    allowed_between,
    at_hand,
    chosen,
    kind_of,
    record,
    recorded,
    tolerance,
    verify,
)
from extractlib.data.sources import Source
from extractlib.errors import InputError
from extractlib.store import Store


def smoke() -> list[Row]:
    return [
        row_of(cell)
        for table in tables_for(scale("smoke"))
        for cell in table_cells(table, scale("smoke"), seeds=range(3))
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def row(store):
    return run_cell(table_cells("reproduction", scale("smoke"), seeds=[3])[1], store=store)


def test_kinds_are_experiment_attack_granularity_policy_and_source():
    [cell] = [row.cell for row in smoke() if str(row.cell.pool) == "signs/shifted" and row.cell.defense == "shuffle"][
        :1
    ]
    assert kind_of(cell) == ("extraction", "random", "", "full", "shuffle", "shifted")
    kinds = {
        pool: kind_of(replace(cell, pool=pool))[-1] for pool in ("atlas", "atlas/9", "noise", "signs", "folder:a/b")
    }
    assert list(kinds.values()) == ["pool", "cut pool", "noise", "task", "folder"]
    assert kind_of(replace(cell, granularity="top-5")) == kind_of(replace(cell, granularity="top-2"))


def test_every_kind_has_its_turn():
    rows = smoke()
    kinds = {kind_of(row.cell) for row in rows}
    rounds = -(-len(kinds) // 4)
    assert {kind_of(row.cell) for turn in range(rounds) for row in chosen(rows, turn=turn)} == kinds
    taken = [len({kind_of(row.cell) for row in chosen(rows, turn=turn)}) for turn in range(rounds)]
    assert taken == [4] * (len(kinds) // 4) + [len(kinds) % 4] * (len(kinds) % 4 > 0)
    assert [kind_of(row.cell) for row in chosen(rows, turn=3, kinds=None)] == sorted(kinds)


def test_every_row_of_a_kind_has_its_turn():
    rows = [row for row in smoke() if row.cell.experiment == "accounts"]
    assert len(rows) == 6
    assert {row.cell for turn in range(6) for row in chosen(rows, turn=turn)} == {row.cell for row in rows}


def timed(rows: list[Row], seconds: list[float]) -> list[Row]:
    return [
        Row(row.cell, row.result, row.provenance | {"seconds": value}) for row, value in zip(rows, seconds, strict=True)
    ]


def test_a_run_takes_no_longer_than_its_bound_however_long_kinds_are():
    one_each = chosen(smoke(), turn=0, kinds=None)
    rows = timed(one_each, [120.0 + 50 * (number % 4) for number in range(len(one_each))])
    turns = [chosen(rows, turn=turn) for turn in range(2 * len(rows))]
    assert {row.cell for taken in turns for row in taken} == {row.cell for row in rows}
    spent = [sum(row.provenance["seconds"] for row in taken) for taken in turns]
    assert max(spent) == 390  # 120 and 270
    assert {len(taken) for taken in turns} == {1, 2}


def test_a_row_that_takes_longer_than_a_run_is_taken_only_if_its_kind_has_no_other():
    rows = [row for row in smoke() if row.cell.experiment == "accounts"][:3]
    longer = timed(rows, [400.5, 60.0, 400.0])
    assert [chosen(longer, turn=turn) for turn in range(3)] == [[longer[1]], [longer[2]], [longer[1]]]
    alone = timed(rows[:2], [5000.0, 800.0])
    assert [chosen(alone, turn=turn) for turn in range(2)] == [[alone[0]], [alone[1]]]


def with_result(row: Row, seed: int, recovery: float) -> Row:
    return Row(replace(row.cell, seed=seed), dict(row.result) | {"recovery": recovery}, row.provenance)


def test_tolerance_is_four_deviations_and_at_least_three_hundredths(row):
    rows = [with_result(row, 0, 0.90), with_result(row, 1, 0.92), with_result(row, 2, 0.94)]
    assert tolerance(rows, rows[0].cell) == pytest.approx(0.08)
    assert tolerance([with_result(row, 0, 0.900), with_result(row, 1, 0.901)], rows[0].cell) == 0.03
    assert tolerance(rows[:1], rows[0].cell) == 0.03


def test_another_processor_may_round_otherwise_and_the_same_may_not(row):
    rows = [with_result(row, seed, recovery) for seed, recovery in enumerate((0.90, 0.92, 0.94))]
    assert allowed_between(rows, rows[0], rows[0]) == 0.03
    for name, value in {"processor": "AVX9", "device": "cuda", "libraries": {}}.items():
        other = Row(rows[0].cell, rows[0].result, rows[0].provenance | {name: value})
        assert allowed_between(rows, rows[0], other) == pytest.approx(0.08)


def test_verify_agrees_with_a_true_row_and_finds_a_false_one(row, store):
    [check] = verify([row], turn=7, store=store)
    assert (check.new.result, check.allowed, check.difference, check.agrees) == (row.result, 0.03, 0.0, True)
    false = with_result(row, row.cell.seed, row.result["recovery"] + 0.04)
    [check] = verify([false], turn=7, store=store)
    assert check.difference == pytest.approx(0.04) and not check.agrees


def test_rows_of_images_that_are_not_there_are_left_out(row, store, tmp_path):
    cell = replace(row.cell, scale="photos", task="gtsrb", pool=Source.parse("tinyimagenet"))
    other = Row(cell, row.result, row.provenance)
    folders = {name: tmp_path / name for name in ("gtsrb", "tinyimagenet")}
    folders["gtsrb"].mkdir()
    assert at_hand([row, other], store=store, folders=folders) == [row]
    folders["tinyimagenet"].mkdir()
    assert at_hand([row, other], store=store, folders=folders) == [row, other]


def test_stale_rows_are_passed_over_and_nothing_else_is_refused(row, store):
    stale = Row(row.cell, row.result, row.provenance | {"versions": row.provenance["versions"] | {"train": 99}})
    with pytest.raises(InputError, match="none of 1 rows is up to date: recompute them with extractbook results"):
        next(verify([stale], turn=0, store=store))
    [check] = verify([stale, row], turn=0, store=store)
    assert check.old is row


def test_checks_are_recorded_one_after_the_other(row, tmp_path):
    path, made = tmp_path / "verified.jsonl", row.provenance | MADE
    new = Row(row.cell, row.result | {"recovery": row.result["recovery"] - 0.01}, made)
    for _ in range(2):
        record(path, [Check(row, new, 0.03)])
    first, second = recorded(path)
    assert first == second
    assert {name: first[name] for name in ("commit", "processor", "allowed")} == {
        "commit": "abc",
        "processor": "AVX2",
        "allowed": 0.03,
    }
    assert first["difference"] == pytest.approx(0.01)
    assert first["name"].startswith("objects, 256 queries to atlas")


@pytest.mark.parametrize("content", ["{\n", "{}\n", "[1]\n", '{"name": "x"}\n', '{"cell": "x"}\n{'])
def test_a_damaged_record_is_refused_and_kept(content, row, tmp_path):
    path = tmp_path / "verified.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"verified.jsonl(: its last line is cut| is not a record of .*git checkout)"):
        recorded(path)
    if not content.endswith("\n"):
        with pytest.raises(InputError, match="verified.jsonl: its last line is cut off"):
            record(path, [Check(row, row, 0.03)])
    assert path.read_text() == content


def test_the_command_tells_differences_by_its_status(command, row, tmp_path, monkeypatch, store):
    monkeypatch.setenv("EXTRACTLIB_CACHE", str(store.root))
    path = tmp_path / "smoke" / "table.jsonl"
    append_row(path, row)
    words = ["verify", "--results", str(tmp_path), "--jobs", "1", "--turn", "5"]
    status, printed, _ = command(*words, "--record")
    assert status == 0
    assert "1 rows, 0 stale; --turn 5 checks the same cells again" in printed and ": agrees (" in printed
    entry = json.loads((tmp_path / "verified.jsonl").read_text())
    assert entry["difference"] == 0.0
    path.unlink()
    append_row(path, with_result(row, row.cell.seed, row.result["recovery"] + 0.5))
    status, printed, _ = command(*words)
    assert (status, "DIFFERS" in printed) == (1, True)


def test_every_kind_of_committed_row_has_the_number_it_is_compared_by():
    rows = read_all(FOLDER / "edition-2" / "smoke")
    assert {row.cell.experiment for row in rows} == set(EXPERIMENTS)
    assert all(isinstance(headline(row), float) for row in rows)


def test_a_page_lists_the_cells_that_do_not_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    entry = {"cell": "a", "name": "signs, seed 0", "commit": "b", "date": "2026-11-29T10:00", "processor": "AVX2"}
    path = tmp_path / "edition-2" / RECORD
    path.parent.mkdir()
    lines = [entry | {"difference": apart, "allowed": 0.03} for apart in (0.0, 0.03, 0.04)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert verified().endswith("at 1 commit: 2 of them agree with their row, and the largest difference is 0.0300.")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "2 of them agree with their row, and the largest difference is 0.0400." in verified()
    assert verified().endswith("signs, seed 0: 0.0400, where 0.0300 was allowed (processor: AVX2).")
