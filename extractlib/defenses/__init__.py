"""Defenses: detectors of queries and of accounts, and policies for what a detected query gets."""

import lazy_loader

import extractlib.defenses.watermark  # noqa: F401  (it adds its policy to the registry)

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["accounts", "detectors", "perturbations", "policies", "watermark"]
)
