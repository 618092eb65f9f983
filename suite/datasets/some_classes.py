"""A few classes of another data set, as a data set of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from suite.datasets.base import ImageSource, OfAnother, Prepared
from suite.datasets.digits import Digits
from suite.errors import UsageError
from suite.registry import datasets
from suite.storage.files import json_sha256
from suite.types import DatasetInfo, relabel


@datasets.register("some_classes")
@dataclass(frozen=True)
class SomeClasses(OfAnother):
    """The named `classes` of another data set (`of`), numbered anew in their order (paper, A.3: five-way tasks).

    Preprocessing is fitted on their images alone.

    >>> SomeClasses(of=Digits(), classes=(7, 3)).info.class_names
    ('7', '3')
    """

    of: ImageSource = field(default_factory=Digits)
    """The whole data set."""
    classes: Sequence[int] = (0, 1)
    """Its classes that are kept, two or more: class i here is `classes[i]` there."""

    def __post_init__(self) -> None:
        count = self.of.info.classes
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UsageError(f"SomeClasses.classes must be two different numbers or more, not {list(self.classes)}")
        if not all(0 <= c < count for c in self.classes):
            raise UsageError(f"SomeClasses.classes must be from 0 to {count - 1}, not {list(self.classes)}")

    @property
    def info(self) -> DatasetInfo:
        """Shape, sizes and class names."""
        whole, k = self.of.info, len(self.classes)
        names = tuple(whole.class_names[c] for c in self.classes)
        superclasses = tuple((s, tuple(n for n in members if n in names)) for s, members in whole.superclasses)
        return replace(
            whole,
            name=f"{whole.name}[{','.join(map(str, self.classes))}]",
            class_names=names,
            train_size=whole.train_size * k // whole.classes,
            test_size=whole.test_size * k // whole.classes,
            superclasses=tuple((s, members) for s, members in superclasses if members),
        )

    def prepare(self, data_dir: Path) -> Prepared:
        """The images of these classes."""
        prepared = self.of.prepare(data_dir)
        raw = prepared.raw
        train_labels, test_labels = (relabel(labels, self.classes) for labels in (raw.train_labels, raw.test_labels))
        train, test = train_labels >= 0, test_labels >= 0
        raw = replace(
            raw,
            train_images=raw.train_images[train],
            train_labels=train_labels[train],
            test_images=raw.test_images[test],
            test_labels=test_labels[test],
        )
        return Prepared(raw, json_sha256([prepared.digest, list(self.classes)]), prepared.file)
