"""Controls: real images that a memory of the same budget must beat."""

from suite.controls import herding, k_center, random_images

__all__ = ["herding", "k_center", "random_images"]
