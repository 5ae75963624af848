"""The paper's experiments: a cell is one run with every setting fixed, a table is a list of cells."""

from extractlib.experiments.cells import Cell, Row
from extractlib.experiments.run import EXPERIMENTS, code_of, run_cell
from extractlib.experiments.scene import Scene
from extractlib.experiments.tables import TABLES, read_all, read_rows, run_table, table_cells

__all__ = [
    "EXPERIMENTS",
    "TABLES",
    "Cell",
    "Row",
    "Scene",
    "code_of",
    "read_all",
    "read_rows",
    "run_cell",
    "run_table",
    "table_cells",
]
