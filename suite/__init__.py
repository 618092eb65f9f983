"""Distil data sets into addressable memories, and measure what the memories remember."""

__version__ = "0.1.0"
