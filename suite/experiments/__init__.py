"""Experiments: protocols that end in one record."""

from suite.experiments import distillation

__all__ = ["distillation"]
