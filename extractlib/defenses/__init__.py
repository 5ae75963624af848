"""Defenses: detectors of queries and of accounts, and policies for what a detected query gets.

Examples:
    >>> import extractlib as xl
    >>> xl.defenses.accounts.entry_cost(accounts=2, upfront=1.0, queries=500, price=0.01)
    7.0
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["accounts", "detectors", "ownership", "perturbations", "policies", "watermark"]
)
