"""Streams: lists of tasks made of a data set, for continual learning; importing the package registers all of them."""

from suite.streams import class_splits, permutations, rotations

__all__ = ["class_splits", "permutations", "rotations"]
