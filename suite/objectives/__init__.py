"""Objectives: how a memory gets its gradient."""

from suite.objectives import bptt, distribution_matching, gradient_matching, judged_often, pool, windows

__all__ = ["bptt", "distribution_matching", "gradient_matching", "judged_often", "pool", "windows"]
