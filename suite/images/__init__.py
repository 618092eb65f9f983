"""Images as tensors: transforms fitted on training images, and keyed, differentiable augmentations."""
