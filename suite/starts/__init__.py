"""Starts: what a memory recalls before its first outer step, made of training images."""

from suite.starts import class_means, k_means, real_images

__all__ = ["class_means", "k_means", "real_images"]
