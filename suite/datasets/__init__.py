"""Data sets: one file per family of files, and what they share.

digits, mnist, svhn, cifar, tiny_imagenet   readers of the published files; importing them registers the data sets
image_folder, arrays, hugging_face          your own: pictures in folders, numpy's arrays, the Hugging Face Hub
from_torch                                  torch's data sets, written as arrays
some_classes                                a few classes of another data set
training_only                               its training images alone, for choosing settings
base                                        what every data set does: prepare, split, preprocess
decoding                                    pictures of any size as images of one
sources                                     published files: downloaded once, verified always
"""

from suite.datasets import (
    arrays,
    base,
    cifar,
    digits,
    hugging_face,
    image_folder,
    mnist,
    some_classes,
    sources,
    svhn,
    tiny_imagenet,
    training_only,
)

__all__ = [
    "arrays",
    "base",
    "cifar",
    "digits",
    "hugging_face",
    "image_folder",
    "mnist",
    "some_classes",
    "sources",
    "svhn",
    "tiny_imagenet",
    "training_only",
]
