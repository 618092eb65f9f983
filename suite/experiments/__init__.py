"""Experiments: protocols that end in one record."""

from suite.experiments import (
    avalanche_strategies,
    compress_then_recall,
    distillation,
    extrapolation,
    image_recall,
    online,
)

__all__ = ["avalanche_strategies", "compress_then_recall", "distillation", "extrapolation", "image_recall", "online"]
