"""Measure what the package's conveniences cost: `python -m benchmarks`, or `make bench`."""
