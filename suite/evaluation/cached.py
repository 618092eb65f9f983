"""Accuracies of evaluation networks kept on disk: a network that was evaluated once is not trained again.

A file is believed only where it holds what a run wrote: accuracies of exactly what it is asked for, each the percentage
that some number of the tested images makes, under the hash of the whole. Files of before there was a hash are believed
without one, since their networks would take hours again; all else is checked of them, too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from suite.errors import RunError
from suite.evaluation.evaluate import Accuracies, Splits, TrainingSet, evaluate_each
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, group_of, group_size, no_pause
from suite.keys import Key
from suite.storage.files import canonical_json, json_sha256, make_directory, write_atomic
from suite.storage.plain_files import parse_json, read_plain, shown
from suite.types import Setting, Split


def _no_report(_: str) -> None:
    """The report that goes nowhere."""


@dataclass(frozen=True, eq=False)
class CachedAccuracies:
    """Accuracies of networks in a folder, one JSON file for each network, named by the hash of all they depend on.

    Processes may share the folder: files are written atomically, and two that train the same network write the same.
    """

    folder: Path
    """Made when the first file is written."""
    splits: Splits
    """The images to test on."""
    key: Key
    """Decides the networks' draws."""
    report: Callable[[str], None] = _no_report
    """Called with a sentence before each network is trained."""
    pause: Pause = no_pause
    """Called between epochs; may raise to stop. Networks that were finished before are kept."""

    def evaluate(
        self,
        name: str,
        setting: Setting,
        training_set: TrainingSet,
        images: int,
        protocol: Protocol,
        about: dict[str, Any],
    ) -> Accuracies:
        """The same as `suite.evaluation.evaluate.evaluate`, where only networks that are not in the folder are trained.

        `images` is the number of training images of each network; `training_set` is called for missing networks only.
        `about` is plain data that identifies what else the accuracies depend on: the memory or the control, the data,
        the network, the seed. The protocol, the network's number and its group are added to it. Raises RunError for a
        damaged file.
        """

        def reported(i: int) -> Split:
            self.report(f"evaluating {name}: network {i + 1} of {protocol.networks}")
            return training_set(i)

        # The number of networks is no part of it: more networks leave the accuracies of the first ones as they are.
        about = about | {"of": name, "protocol": replace(protocol, networks=1).settings()}
        size = group_size(setting, images, protocol)
        files = [
            _AccuracyFile.of(self.folder, about | {"network": i, "beside": list(group_of(i, size, protocol.networks))})
            for i in range(protocol.networks)
        ]
        known = {i: file.read(self.splits) for i, file in enumerate(files) if os.path.lexists(file.path)}
        missing = [i for i in range(protocol.networks) if i not in known]
        evaluated = evaluate_each(setting, reported, protocol, self.key, missing, self.splits, self.pause)
        for i, accuracies in zip(missing, evaluated, strict=True):
            files[i].write(accuracies)
            known[i] = accuracies
        return {split: tuple(known[i][split] for i in range(protocol.networks)) for split in self.splits}


class LazyTrainingSet:
    """A training set that is made when the first network asks for it; where all networks are cached, it never is."""

    def __init__(self, make: Callable[[], TrainingSet]) -> None:
        self._made = cache(make)

    def __call__(self, number: int) -> Split:
        """The images of the network of this number."""
        return self._made()(number)


MOST_BYTES = 2**20
"""Of one network's file, which has less than one thousandth of it."""


class _Content(TypedDict):
    about: dict[str, Any]
    accuracy: dict[str, Annotated[float, Field(ge=0, le=100)]]
    sha256: NotRequired[str]
    """Of the two others; older files have none."""


@dataclass(frozen=True)
class _AccuracyFile:
    """The file of one network's accuracies."""

    path: Path
    about: dict[str, Any]
    """All that the accuracies depend on, stored beside them; its hash is the file's name."""

    @staticmethod
    def of(folder: Path, about: dict[str, Any]) -> "_AccuracyFile":
        return _AccuracyFile(folder / f"{json_sha256(about)[:24]}.json", about)

    def write(self, accuracies: dict[str, float]) -> None:
        """Write the accuracies by split."""
        make_directory(self.path.parent)
        content = {"about": self.about, "accuracy": accuracies}
        write_atomic(self.path, canonical_json(content | {"sha256": json_sha256(content)}).encode())

    def read(self, splits: Splits) -> dict[str, float]:
        """The accuracies by split; RunError where the file does not hold those of `splits`, or others than written."""
        try:
            content = parse_json(read_plain(self.path, MOST_BYTES), _Content, "it")
        except RunError as error:
            raise self._damaged(str(error).removeprefix("it is damaged: ")) from error
        accuracies = content["accuracy"]
        written = {"about": content["about"], "accuracy": accuracies}
        if content.get("sha256", json_sha256(written)) != json_sha256(written):
            raise self._damaged("it was altered: its sha256 is that of other content")
        if canonical_json(content["about"]) != canonical_json(self.about):
            raise self._damaged("it holds accuracies of something else")
        for name, split in splits.items():
            if name not in accuracies:
                raise self._damaged(f"it holds no accuracy on {name} images")
            images = len(split)
            if not isinstance(split, Split) and not split.counted:
                continue
            if accuracies[name] != 100 * round(accuracies[name] / 100 * images) / images:
                raise self._damaged(f"{shown(accuracies[name])} % of {images} {name} images is no number of images")
        return {split: accuracies[split] for split in splits}

    def _damaged(self, why: str) -> RunError:
        return RunError(f"{self.path} is damaged ({why}); delete it and run the same command again")
