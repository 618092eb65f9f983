"""Accuracies on disk: no network is trained twice, and files of earlier versions are found."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.errors import RunError
from suite.evaluation.cached import CachedAccuracies, LazyTrainingSet
from suite.evaluation.evaluate import evaluate
from suite.evaluation.protocol import Protocol
from suite.keys import Key
from suite.parameterizations.standard import Standard
from suite.types import Architecture, ImageShape, Setting, Split

SHAPE, CLASSES, IMAGES = ImageShape(1, 6, 6), 3, 6
ABOUT = {"memory": "0123"}


def setting(network: Architecture | None = None) -> Setting:
    return Setting(SHAPE, CLASSES, network or MLP(width=4, depth=1), Standard(), "none", torch.device("cpu"))


def protocol(**fields: Any) -> Protocol:
    return Protocol(**({"name": "small", "networks": 4, "epochs": 2, "batch": 12} | fields))


def noise(n: int = IMAGES, seed: int = 0) -> Split:
    pixels = torch.randn(n, 1, 6, 6, generator=Key(seed)("noise").generator())
    return Split(pixels, torch.arange(n) % CLASSES)


SPLITS = {"test": noise(100, 1), "validation": noise(50, 2)}


class Recording:
    """A training set that records which networks asked for it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, number: int) -> Split:
        self.numbers.append(number)
        return noise()


def cached(folder: Path, **fields: Any) -> CachedAccuracies:
    return CachedAccuracies(folder, SPLITS, Key(0), **fields)


def test_they_are_those_of_evaluate_and_no_network_is_trained_twice(tmp_path: Path) -> None:
    sets, sentences = Recording(), []
    accuracies = cached(tmp_path / "new", report=sentences.append)
    first = accuracies.evaluate("the memory", setting(), sets, IMAGES, protocol(), ABOUT)
    assert first == evaluate(setting(), lambda _: noise(), protocol(), Key(0), SPLITS)
    assert sets.numbers == [0, 1, 2, 3]
    assert sentences == [f"evaluating the memory: network {i} of 4" for i in (1, 2, 3, 4)]
    assert accuracies.evaluate("the memory", setting(), sets, IMAGES, protocol(), ABOUT) == first
    assert cached(tmp_path / "new").evaluate("the memory", setting(), sets, IMAGES, protocol(), ABOUT) == first
    assert sets.numbers == [0, 1, 2, 3]


def test_only_missing_networks_are_trained_and_with_the_same_result(tmp_path: Path) -> None:
    """An MLP's networks are trained in groups of two here, a ConvNet's one by one."""
    for name, network, trained in (("mlp", MLP(width=4, depth=1), [2, 3]), ("convnet", ConvNet(width=2, depth=1), [2])):
        sets, folder = Recording(), tmp_path / name
        first = cached(folder).evaluate("the memory", setting(network), sets, IMAGES, protocol(), ABOUT)
        (missing,) = [f for f in folder.iterdir() if json.loads(f.read_text())["about"]["network"] == 2]
        missing.unlink()
        sets.numbers.clear()
        assert cached(folder).evaluate("the memory", setting(network), sets, IMAGES, protocol(), ABOUT) == first
        assert sets.numbers == trained and missing.is_file()


def test_networks_that_were_finished_before_a_stop_are_kept(tmp_path: Path) -> None:
    sets = Recording()

    def stops() -> None:
        if sets.numbers == [0, 1]:
            raise InterruptedError

    network = ConvNet(width=2, depth=1)
    with pytest.raises(InterruptedError):
        cached(tmp_path, pause=stops).evaluate("the memory", setting(network), sets, IMAGES, protocol(), ABOUT)
    sets.numbers.clear()
    cached(tmp_path).evaluate("the memory", setting(network), sets, IMAGES, protocol(), ABOUT)
    assert sets.numbers == [1, 2, 3]


def test_more_networks_leave_those_before_as_they_are_where_groups_stay(tmp_path: Path) -> None:
    network, sets = ConvNet(width=2, depth=1), Recording()
    few = cached(tmp_path).evaluate("the memory", setting(network), sets, IMAGES, protocol(networks=2), ABOUT)
    more = cached(tmp_path).evaluate("the memory", setting(network), sets, IMAGES, protocol(networks=3), ABOUT)
    assert sets.numbers == [0, 1, 2] and all(more[split][:2] == few[split] for split in SPLITS)


def test_whatever_they_depend_on_has_files_of_its_own(tmp_path: Path) -> None:
    sets = Recording()
    for name, fields, about in (
        ("the memory", {}, ABOUT),
        ("another", {}, ABOUT),
        ("the memory", {"epochs": 1}, ABOUT),
        ("the memory", {}, {"memory": "4567"}),
    ):
        sets.numbers.clear()
        cached(tmp_path).evaluate(name, setting(), sets, IMAGES, protocol(**fields), about)
        assert sets.numbers == [0, 1, 2, 3]


def test_files_have_the_names_and_the_text_that_they_always_had(tmp_path: Path) -> None:
    """So that what was evaluated by an earlier version is found: name and text are spelt out here, by hand."""
    accuracies = cached(tmp_path).evaluate("random real images", setting(), Recording(), IMAGES, protocol(), ABOUT)
    for i, group in enumerate(("[0,1]", "[0,1]", "[2,3]", "[2,3]")):
        about = (
            f'{{"beside":{group},"memory":"0123","network":{i},"of":"random real images",'
            '"protocol":{"augment":true,"batch":12,"epochs":2,"lr":0.01,"momentum":0.9,"name":"small","networks":1,'
            '"version":1}}'
        )
        file = tmp_path / f"{hashlib.sha256(about.encode()).hexdigest()[:24]}.json"
        test, validation = accuracies["test"][i], accuracies["validation"][i]
        before = f'{{"about":{about},"accuracy":{{"test":{test},"validation":{validation}}}'
        seal = hashlib.sha256(f"{before}}}".encode()).hexdigest()
        assert file.read_text() == f'{before},"sha256":"{seal}"}}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"accuracy": 3}', '{"accuracy": {"test": 1.0}}', '{"accuracy": {"test": null}}']
)
def test_a_damaged_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, protocol(networks=1), ABOUT)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    with pytest.raises(RunError) as failure:
        cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, protocol(networks=1), ABOUT)
    sentence = str(failure.value)
    assert sentence.startswith(f"{file} is damaged (") and "\n" not in sentence
    assert sentence.endswith("delete it and run the same command again")


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another accuracy": (lambda of: of["accuracy"].update(test=99.0), "altered"),
    "another accuracy without its hash": (lambda of: (of.pop("sha256"), of["accuracy"].update(test=99.5)), "no number"),
    "more than all": (lambda of: of["accuracy"].update(test=101.0), "'accuracy.test' is wrong"),
    "less than none": (lambda of: of["accuracy"].update(validation=-1.0), "'accuracy.validation' is wrong"),
    "a text": (lambda of: of["accuracy"].update(test="99"), "'accuracy.test' is wrong"),
    "true": (lambda of: of["accuracy"].update(test=True), "'accuracy.test' is wrong"),
    "of another memory": (lambda of: (of.pop("sha256"), of["about"].update(memory="4567")), "something else"),
    "of nothing": (lambda of: (of.pop("sha256"), of.update(about={})), "something else"),
    "of fewer splits": (lambda of: (of.pop("sha256"), of["accuracy"].pop("test")), "no accuracy on test images"),
    "another hash": (lambda of: of.update(sha256="0" * 64), "altered"),
    "a hash that is none": (lambda of: of.update(sha256=None), "'sha256' is wrong"),
}


@pytest.mark.parametrize(("change", "words"), ALTERED.values(), ids=ALTERED)
def test_an_altered_file_is_not_believed(change: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path) -> None:
    two = protocol(networks=2)
    cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, two, ABOUT)
    file = min(tmp_path.iterdir())
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    max(tmp_path.iterdir()).unlink()
    sets = Recording()
    with pytest.raises(RunError, match=f"{file.name} is damaged .*{words}.*delete it and run the same command again"):
        cached(tmp_path).evaluate("the memory", setting(), sets, IMAGES, two, ABOUT)
    assert sets.numbers == []  # refused before the missing network is trained


def test_a_file_of_before_there_was_a_hash_is_believed(tmp_path: Path) -> None:
    first = cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, protocol(), ABOUT)
    for file in tmp_path.iterdir():
        content = json.loads(file.read_text())
        del content["sha256"]
        file.write_text(json.dumps(content))
    sets = Recording()
    assert cached(tmp_path).evaluate("the memory", setting(), sets, IMAGES, protocol(), ABOUT) == first
    assert sets.numbers == []


@pytest.mark.parametrize("place", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_refused_at_once(place: Callable[[Path], None], tmp_path: Path) -> None:
    cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, protocol(networks=1), ABOUT)
    (file,) = tmp_path.iterdir()
    file.unlink()
    place(file)
    with pytest.raises(RunError, match=file.name):
        cached(tmp_path).evaluate("the memory", setting(), Recording(), IMAGES, protocol(networks=1), ABOUT)


def test_a_lazy_training_set_is_made_once_and_only_when_asked_for(tmp_path: Path) -> None:
    made: list[None] = []

    def make() -> Recording:
        made.append(None)
        return Recording()

    lazy = LazyTrainingSet(make)
    assert made == []
    cached(tmp_path).evaluate("a control", setting(), lazy, IMAGES, protocol(), ABOUT)
    assert made == [None]
    never = LazyTrainingSet(make)
    cached(tmp_path).evaluate("a control", setting(), never, IMAGES, protocol(), ABOUT)
    assert made == [None]
