"""The paper's experiments: a cell is one run with every setting fixed, a table is a list of cells."""

from extractlib.experiments.cells import Cell, Row
from extractlib.experiments.freshness import is_current
from extractlib.experiments.results import append_row, read_all, read_rows
from extractlib.experiments.run import EXPERIMENTS, run_cell
from extractlib.experiments.scene import Scene
from extractlib.experiments.tables import TABLES, run_table, table_cells

__all__ = [
    "EXPERIMENTS",
    "TABLES",
    "Cell",
    "Row",
    "Scene",
    "append_row",
    "is_current",
    "read_all",
    "read_rows",
    "run_cell",
    "run_table",
    "table_cells",
]
