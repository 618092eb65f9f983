"""What a data set gives is looked at once, before the first step; and a class of few images is fair to the others."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_session import FakeSession

from suite.architectures.mlp import MLP
from suite.controls.herding import Herding
from suite.controls.k_center import KCenter
from suite.controls.random_images import RandomImages
from suite.datasets.digits import Digits
from suite.datasets.loading import check_data, load
from suite.errors import RunError
from suite.evaluation import evaluate
from suite.evaluation.protocol import Protocol
from suite.experiments.distillation import Distillation
from suite.keys import Key
from suite.objectives.bptt import BPTT
from suite.types import Data, DatasetInfo, Split


def digits(data_dir: Path) -> Data:
    return Digits().load(data_dir, Key(0), 0.1)


def with_split(data: Data, part: str, images: Any = None, labels: Any = None) -> Data:
    old: Split = getattr(data, part)
    made = object.__new__(Split)  # the tests' type checks would refuse the very tensors that these tests are about
    object.__setattr__(made, "images", old.images if images is None else images(old.images))
    object.__setattr__(made, "labels", old.labels if labels is None else labels(old.labels))
    object.__setattr__(made, "targets", None)
    return replace(data, **{part: made})


def not_finite(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(images: torch.Tensor) -> torch.Tensor:
        images = images.clone()
        images[7, 0, 3, 3] = value
        return images

    return change


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "labels from 1": ({"labels": lambda y: y + 1}, "labels are 1 to 10; with 10 classes they must be 0 to 9"),
    "a negative label": ({"labels": lambda y: y - 1}, "labels are -1 to 8; with 10 classes they must be 0 to 9"),
    "a label too few": ({"labels": lambda y: y[:-1]}, "labels; give one to each"),
    "int32 labels": ({"labels": lambda y: y.int()}, "labels are int32 numbers of 1 axes, not int64"),
    "one-hot labels": ({"labels": lambda y: torch.eye(10).long()[y]}, "labels are int64 numbers of 2 axes, not int64"),
    "float64 images": ({"images": lambda x: x.double()}, "images are float64 numbers of 4 axes, not float32"),
    "bytes": ({"images": lambda x: x.byte()}, "images are uint8 numbers of 4 axes, not float32"),
    "no channel": ({"images": lambda x: x[:, 0]}, "images are float32 numbers of 3 axes, not float32"),
    "another size": ({"images": lambda x: x[..., :7]}, "images have shape (1, 8, 7), and its info says (1, 8, 8)"),
    "three channels": ({"images": lambda x: x.expand(-1, 3, -1, -1)}, "images have shape (3, 8, 8), and its info"),
    "NaN": ({"images": not_finite(float("nan"))}, "image 7 holds NaN or infinity"),
    "infinity": ({"images": not_finite(float("inf"))}, "image 7 holds NaN or infinity"),
}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_any_part_is_one_sentence(data_dir: Path, fault: str, part: str) -> None:
    changes, sentence = FAULTS[fault]
    with pytest.raises(RunError) as refused:
        check_data(with_split(digits(data_dir), part, **changes))
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert {"train": "training", "validation": "validation", "test": "test"}[part] in str(refused.value)


def test_what_there_must_be_some_of(data_dir: Path) -> None:
    data = digits(data_dir)
    check_data(data)
    check_data(replace(data, validation=data.validation.at(torch.arange(0))))
    with pytest.raises(RunError, match=r"^digits has no test images"):
        check_data(replace(data, test=data.test.at(torch.arange(0))))
    for missing, words in (([3], "class '3'; add"), ([3, 5], "class '3' and 1 other classes; add")):
        kept = torch.tensor([int(y) not in missing for y in data.train.labels])
        with pytest.raises(RunError, match=r"^digits has no training image of") as refused:
            check_data(replace(data, train=data.train.at(kept.nonzero()[:, 0])))
        assert words in str(refused.value)


@dataclass(frozen=True)
class Untested:
    """Digits, without a test image of some classes."""

    missing: tuple[int, ...]
    of: Digits = field(default_factory=Digits)
    augmentation: str = "none"

    @property
    def info(self) -> DatasetInfo:
        return self.of.info

    def load(self, data_dir: Path, key: Key, validation: float) -> Data:
        data = self.of.load(data_dir, key, validation)
        kept = torch.tensor([int(y) not in self.missing for y in data.test.labels])
        return replace(data, test=data.test.at(kept.nonzero()[:, 0]))


@pytest.mark.parametrize(
    ("missing", "words"), [((), ""), ((3,), "class '3';"), ((3, 5, 9), "class '3' and 2 other classes;")]
)
def test_classes_that_nothing_is_measured_on_are_named(
    missing: tuple[int, ...], words: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(Untested(missing), data_dir, Key(0), 0.1)
    said = capsys.readouterr().err
    assert said.count("\n") == bool(missing) and words in said


# ---------------------------------------------------------------- a class of few images


@dataclass(frozen=True)
class Rare:
    """Digits, of whose last class there are only so many training images."""

    images: int = 2
    of: Digits = field(default_factory=Digits)
    augmentation: str = "none"

    @property
    def info(self) -> DatasetInfo:
        return self.of.info

    def load(self, data_dir: Path, key: Key, validation: float) -> Data:
        data = self.of.load(data_dir, key, validation)
        rare = (data.train.labels == 9).nonzero()[self.images :, 0]
        kept = torch.ones(len(data.train), dtype=torch.bool)
        kept[rare] = False
        return replace(data, train=data.train.at(kept.nonzero()[:, 0]))


def experiment(images: int) -> Distillation:
    dataset: Any = Rare(images)
    return Distillation(
        dataset=dataset,
        architecture=MLP(width=8),
        objective=BPTT(inner_steps=2),
        images_per_class=5,
        iterations=1,
        evaluation=Protocol(networks=1, epochs=1),
        controls=[RandomImages(), Herding(epochs=0), KCenter(epochs=0)],
        full_data_epochs=0,
        validation_points=0,
    )


def test_a_rare_class_takes_what_it_has_and_leaves_the_others_theirs(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    original = evaluate.train_group

    def counting(setting: Any, data: list[Split], *rest: Any, **more: Any) -> Any:
        seen.extend(torch.bincount(split.labels, minlength=10).tolist() for split in data)
        return original(setting, data, *rest, **more)

    monkeypatch.setattr(evaluate, "train_group", counting)
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    outcome = experiment(2).run(session)
    notes = {
        m.method: m.note for m in outcome.measurements if m.method in ("random real images", "herding", "k-center")
    }
    assert len(notes) == 3
    for note in notes.values():
        assert note.startswith("5 real images per class") and "fewer (2 of the smallest)" in note
    assert seen[1:] == [[5] * 9 + [2]] * 3  # of the three controls; the first is the memory's


def test_a_class_without_images_is_refused_before_the_first_step(data_dir: Path, tmp_path: Path) -> None:
    session: Any = FakeSession(data_dir, tmp_path, due=False)
    with pytest.raises(RunError, match=r"digits has no training image of class '9'"):
        experiment(0).run(session)
    assert load(Rare(1), data_dir, Key(0), 0.1).train.labels.max() == 9
