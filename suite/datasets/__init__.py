"""Data sets: one file per family of files, and what they share.

digits, mnist, svhn, cifar, tiny_imagenet   readers of the published files; importing them registers the data sets
some_classes a few classes of another data set
training_only   its training images alone, for choosing settings
base         what every data set does: prepare, split, preprocess
cache        download once, store once, verify always
preprocess   transforms fitted on the training part
augment      keyed, differentiable random changes of images
"""

from suite.datasets import (
    augment,
    base,
    cache,
    cifar,
    digits,
    mnist,
    preprocess,
    some_classes,
    svhn,
    tiny_imagenet,
    training_only,
)

__all__ = [
    "augment",
    "base",
    "cache",
    "cifar",
    "digits",
    "mnist",
    "preprocess",
    "some_classes",
    "svhn",
    "tiny_imagenet",
    "training_only",
]
