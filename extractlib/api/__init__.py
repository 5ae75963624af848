"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query."""

from extractlib.api.granularity import Full, Granularity, Label, Rounded, Temperature, TopK
from extractlib.api.meter import BudgetExceeded, Meter
from extractlib.api.service import PredictionAPI

__all__ = ["BudgetExceeded", "Full", "Granularity", "Label", "Meter", "PredictionAPI", "Rounded", "Temperature", "TopK"]
