"""All that a chapter needs, under one name: ``from extractbook import book``.

A submodule is loaded when a chapter first uses something from it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    import pandas as pd

    from extractlib import Victim

FIGURES = "ONLY TABLES conditions errors gallery lines of_seeds provenance_of queries roc run_provenance say seed_count"
FIGURES += " seeds show show_html sizes table threat_model"

CHAPTERS = [path.stem for path in Path(__file__).parent.glob("figures/chapter_*.py")]

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "extractbook",
    submod_attrs={
        "exercises": ["check"],
        "figures": [*FIGURES.split(), *CHAPTERS],
        "reproduction": ["paper"],
        "claim_cards": ["all_explored", "cards"],
        "ledger_page": [
            "deviations",
            "downloads",
            "entries",
            "expected",
            "forest",
            "legend",
            "matrix",
            "refused",
            "unjudged",
        ],
        "reproduction.claims": ["claims"],
        "reproduction.ledger": ["ledger"],
        "reproduction.scales": ["scale"],
    },
)


def frame(
    *tables: str, scale: str = "drawn", beside: Sequence[str] = (), only: "Mapping[str, Collection[str]] | None" = None
) -> "pd.DataFrame":
    """Return the rows of tables as a data frame, one line per cell and seed (see `results.newest`).

    Raises:
        InputError: A table has no rows.
    """
    from extractbook.reproduction import results

    return results.newest(*tables, scale=scale, beside=beside, only=only or results.ALL)


@contextmanager
def served(victim: "Victim", **options: "Any") -> Iterator[tuple[str, str]]:
    """Serve a victim on this machine, and yield the address and a key; the options are those of `PredictionAPI`.

    Raises:
        InputError: The packages that a server needs are not installed, or an option is invalid.
    """
    from extractlib.cli_serve import require_extra

    require_extra()
    from extractlib.api import batching, keys, server

    known = keys.Keys()
    with server.running(server.make_app({"victim": batching.ServedAPI(victim, **options)}, known)) as url:
        yield url, known.add("reader")
