"""The paper's experiments: a cell is one run with every setting fixed, and a table is a list of cells."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "backbones",
        "claims",
        "edition_1",
        "editions",
        "freshness",
        "grids",
        "judging",
        "ledger",
        "paper",
        "results",
        "run",
        "scales",
        "schedule",
        "setups",
        "verify",
    ],
    submod_attrs={
        "cells": ["Cell", "Row"],
        "freshness": ["is_current"],
        "grids": ["TABLES", "table_cells"],
        "results": ["append_row", "first_edition", "read_all", "read_rows"],
        "run": ["EXPERIMENTS", "run_cell"],
        "schedule": ["run_table"],
        "setups": ["Setup"],
    },
)
