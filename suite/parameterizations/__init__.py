"""Parameterizations: what a memory stores, and how images are recalled from it."""

from suite.parameterizations import addressing, downsampled, image_queries, imported, soft_labels, standard

__all__ = ["addressing", "downsampled", "image_queries", "imported", "soft_labels", "standard"]
