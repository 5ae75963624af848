"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query.

Examples:
    >>> import extractlib as xl
    >>> xl.api.Granularity.parse("top-5")
    TopK(k=5)
"""

from extractlib.api.granularity import Answers, Full, Granularity, Label, Rounded, Temperature, TopK
from extractlib.api.meter import BudgetExceeded, Meter
from extractlib.api.service import PredictionAPI

__all__ = [
    "Answers",
    "BudgetExceeded",
    "Full",
    "Granularity",
    "Label",
    "Meter",
    "PredictionAPI",
    "Rounded",
    "Temperature",
    "TopK",
]
