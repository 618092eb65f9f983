"""Objectives: how a memory gets its gradient."""

from suite.objectives import bptt

__all__ = ["bptt"]
