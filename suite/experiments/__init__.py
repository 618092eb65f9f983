"""Experiments: protocols that end in one record."""

from suite.experiments import distillation, judging
from suite.experiments.continual import avalanche_strategies, compress_then_recall, online
from suite.experiments.synthesis import extrapolation, image_recall

__all__ = [
    "avalanche_strategies",
    "compress_then_recall",
    "distillation",
    "extrapolation",
    "image_recall",
    "judging",
    "online",
]
