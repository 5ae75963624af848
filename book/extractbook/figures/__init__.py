"""How the book shows things: figures with alternative text, tables, and sentences with measured numbers.

Anything that only one chapter shows is in a module with its number, such as ``chapter_05.py``, and is available as
``book.chapter_05``.
"""

from pathlib import Path

import lazy_loader

CHAPTERS = sorted(path.stem for path in Path(__file__).parent.glob("chapter_*.py"))

COLORS = "BLACK ORANGE SKY GREEN YELLOW BLUE VERMILION PURPLE"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=CHAPTERS,
    submod_attrs={
        "base": [*COLORS.split(), "STYLE", "WIDTH", "Plot", "render"],
        "front": ["ONLY", "TABLES", "conditions", "sizes"],
        "notebook": ["data_table", "mean_sd", "say", "show", "show_html", "table"],
        "plots": [
            "constant_recovery",
            "dots",
            "grouped",
            "lines",
            "of_seeds",
            "roc",
        ],
        "pictures": ["errors", "gallery", "queries", "threat_model"],
        "origin": ["provenance_of", "run_provenance", "seed_count", "seeds"],
    },
)
