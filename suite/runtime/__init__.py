"""Keeping runs: one run from its configuration to its record."""
