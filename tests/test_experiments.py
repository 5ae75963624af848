"""Cells and tables: a row follows from its cell alone, a run goes on where it stopped, a stale row is found."""

import json
from dataclasses import replace

import pytest

from extractlib.errors import InputError
from extractlib.experiments import Row, read_rows, run_cell, run_table, table_cells, tables
from extractlib.profiles import profile
from extractlib.store import Store

SMOKE = profile("smoke")


@pytest.fixture(scope="module")
def cell():
    return table_cells("reproduction", SMOKE, seeds=[3])[1]


@pytest.fixture(scope="module")
def row(cell, tmp_path_factory):
    return run_cell(cell, store=Store(tmp_path_factory.mktemp("store")))


def test_reproduction_has_a_cell_a_task_and_seed():
    cells = table_cells("reproduction", SMOKE, seeds=range(3))
    assert [(cell.task, cell.seed, cell.budget) for cell in cells] == [
        (task, seed, 256) for seed in range(3) for task in ("signs", "objects")
    ]
    assert {cell.pool for cell in cells} == {"atlas"}


def test_budget_table_holds_the_smaller_budgets():
    cells = table_cells("budget", profile("drawn"), seeds=[0])
    assert sorted({cell.budget for cell in cells}) == [1_000, 2_500, 5_000]
    assert len(cells) == 15


@pytest.mark.parametrize(
    ("table", "scale", "message"),
    [("reproductions", "drawn", "unknown table"), ("reproduction", "small-cpu", "has no images of its own")],
)
def test_tables_that_do_not_exist_are_refused(table, scale, message):
    with pytest.raises(InputError, match=message):
        table_cells(table, profile(scale), seeds=[0])


def test_a_row_is_consistent(row, cell):
    result = row.result
    assert row.cell == cell
    assert result["recovery"] == pytest.approx(result["surrogate_accuracy"] / result["victim_accuracy"])
    assert sum(result["queries_per_class"]) == cell.budget == 256
    assert len(result["victim_per_class"]) == len(result["surrogate_per_class"]) == 10
    # The test part holds equally many images of each class, so the mean over classes is the mean over images.
    assert sum(result["victim_per_class"]) / 10 == pytest.approx(result["victim_accuracy"], abs=1e-4)
    assert sum(result["surrogate_per_class"]) / 10 == pytest.approx(result["surrogate_accuracy"], abs=1e-4)
    assert result["constant_accuracy"] == pytest.approx(0.1)
    assert 0 <= result["agreement"] <= 1


def test_a_row_follows_from_its_cell(row, cell, tmp_path):
    again = run_cell(cell, store=Store(tmp_path / "again"))
    assert again.result == row.result
    assert {key: again.provenance[key] for key in ("data", "code")} == {
        key: row.provenance[key] for key in ("data", "code")
    }
    other = run_cell(replace(cell, seed=4), store=Store(tmp_path / "other"))
    assert other.provenance["data"] != row.provenance["data"]
    assert other.result["victim_per_class"] != row.result["victim_per_class"]


def test_a_smaller_budget_asks_a_part_of_the_same_queries(row, cell, tmp_path):
    smaller = run_cell(replace(cell, budget=64), store=Store(tmp_path))
    assert sum(smaller.result["queries_per_class"]) == 64
    assert all(
        few <= many
        for few, many in zip(smaller.result["queries_per_class"], row.result["queries_per_class"], strict=True)
    )


@pytest.mark.parametrize("queries", [0, -1, 513])
def test_a_budget_that_does_not_fit_the_pool_is_refused(cell, queries, tmp_path):
    with pytest.raises(InputError, match=f"budget.*{queries}|{queries}.*budget"):
        run_cell(replace(cell, budget=queries), store=Store(tmp_path))


def test_rows_survive_the_file(row, tmp_path):
    tables.write_rows(tmp_path / "table.json", [row])
    [read] = read_rows(tmp_path / "table.json")
    assert read == row


def test_a_table_goes_on_where_it_stopped(row, cell, tmp_path, monkeypatch):
    path = tmp_path / "results" / "table.json"
    ran = []

    def counted(cell, **_):
        ran.append(cell.seed)
        if cell.seed == 5:
            raise KeyboardInterrupt
        return Row(cell, row.result, row.provenance)

    monkeypatch.setattr(tables, "run_cell", counted)
    cells = [replace(cell, seed=seed) for seed in (3, 4, 5)]
    with pytest.raises(KeyboardInterrupt):
        run_table(cells, path, store=Store(tmp_path))
    assert [read.cell.seed for read in read_rows(path)] == [3, 4]
    run_table(cells[:2], path, store=Store(tmp_path), code=row.provenance["code"])
    assert ran == [3, 4, 5]
    run_table(cells[:2], path, store=Store(tmp_path), code="other code")
    assert ran == [3, 4, 5, 3, 4]


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"rows": []}', '{"format": "other", "rows": []}'])
def test_what_is_no_results_file_is_refused_and_kept(cell, content, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(InputError, match="is no results file"):
        run_table([cell], path, store=Store(tmp_path))
    assert path.read_text() == content


def with_result(row: Row, seed: int, recovery: float) -> Row:
    return Row(replace(row.cell, seed=seed), dict(row.result) | {"recovery": recovery}, row.provenance)


def test_tolerance_is_four_deviations_and_at_least_three_hundredths(row):
    rows = [with_result(row, 0, 0.90), with_result(row, 1, 0.92), with_result(row, 2, 0.94)]
    assert tables.tolerance(rows, rows[0].cell) == pytest.approx(0.08)
    assert tables.tolerance([with_result(row, 0, 0.900), with_result(row, 1, 0.901)], rows[0].cell) == 0.03
    assert tables.tolerance(rows[:1], rows[0].cell) == 0.03


def test_verify_agrees_with_a_true_row_and_finds_a_false_one(row, tmp_path):
    path, store = tmp_path / "table.json", Store(tmp_path / "store")
    tables.write_rows(path, [row])
    _, new, allowed = tables.verify(path, choice=7, store=store)
    assert (new.result, allowed) == (row.result, 0.03)

    tables.write_rows(path, [with_result(row, row.cell.seed, row.result["recovery"] + 0.04)])
    with pytest.raises(InputError, match="more than 0.030 apart"):
        tables.verify(path, choice=7, store=store)

    tables.write_rows(path, [row])
    content = json.loads(path.read_text())
    content["rows"][0]["provenance"]["code"] = "older"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 of 1 rows were made by other code"):
        tables.verify(path, choice=7, store=store)
