"""Attacks: small objects whose settings are given when they are made, and the API and the images when they run."""
