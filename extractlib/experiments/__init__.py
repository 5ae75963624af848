"""The paper's experiments: a cell is one run with every setting fixed, a table is a list of cells."""

from extractlib.experiments.cells import Cell, Row, run_cell
from extractlib.experiments.tables import TABLES, read_rows, run_table, table_cells

__all__ = ["TABLES", "Cell", "Row", "read_rows", "run_cell", "run_table", "table_cells"]
