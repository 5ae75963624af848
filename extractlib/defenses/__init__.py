"""Defenses: detectors of queries and of accounts, and policies for what a detected query gets."""
