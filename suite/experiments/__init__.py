"""Experiments: protocols that end in one record."""

from suite.experiments import compress_then_recall, distillation, online

__all__ = ["compress_then_recall", "distillation", "online"]
