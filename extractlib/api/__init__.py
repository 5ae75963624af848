"""The prediction API: it serves a victim, shows answers at a granularity, and meters every query."""
