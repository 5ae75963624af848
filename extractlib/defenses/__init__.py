"""Defenses: detectors of queries and of accounts, and policies for what a detected query gets."""

import lazy_loader

from extractlib.defenses import policies, watermark  # the second adds its policy to those of the first

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submodules=["accounts", "detectors"])
__all__ = ["accounts", "detectors", "policies", "watermark"]
