"""Data sets: one file per family of files, and what they share.

digits, mnist, svhn, cifar, tiny_imagenet   readers of the published files; importing them registers the data sets
some_classes                                a few classes of another data set
training_only                               its training images alone, for choosing settings
base                                        what every data set does: prepare, split, preprocess
sources                                     published files: downloaded once, verified always
"""

from suite.datasets import base, cifar, digits, mnist, some_classes, sources, svhn, tiny_imagenet, training_only

__all__ = [
    "base",
    "cifar",
    "digits",
    "mnist",
    "some_classes",
    "sources",
    "svhn",
    "tiny_imagenet",
    "training_only",
]
