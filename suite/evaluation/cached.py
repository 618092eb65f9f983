"""Accuracies of evaluation networks kept on disk: a network that was evaluated once is not trained again."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from suite.errors import RunError
from suite.evaluation.evaluate import Accuracies, Splits, TrainingSet, evaluate_each
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import Pause, group_of, group_size, no_pause
from suite.keys import Key
from suite.storage.files import canonical_json, json_sha256, make_directory, write_atomic
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
        about = about | {"of": name, "protocol": asdict(replace(protocol, networks=1))}
        size = group_size(setting, images, protocol)
        files = [
            _AccuracyFile.of(self.folder, about | {"network": i, "beside": list(group_of(i, size, protocol.networks))})
            for i in range(protocol.networks)
        ]
        missing = [i for i, file in enumerate(files) if not file.path.is_file()]
        evaluated = evaluate_each(setting, reported, protocol, self.key, missing, self.splits, self.pause)
        for i, accuracies in zip(missing, evaluated, strict=True):
            files[i].write(accuracies)
        networks = [file.read(self.splits) for file in files]
        return {split: tuple(accuracies[split] for accuracies in networks) for split in self.splits}


class LazyTrainingSet:
    """A training set that is made when the first network asks for it; where all networks are cached, it never is."""

    def __init__(self, make: Callable[[], TrainingSet]) -> None:
        self._made = cache(make)

    def __call__(self, number: int) -> Split:
        """The images of the network of this number."""
        return self._made()(number)


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
        write_atomic(self.path, canonical_json({"about": self.about, "accuracy": accuracies}).encode())

    def read(self, splits: Splits) -> dict[str, float]:
        """The accuracies by split; RunError where the file does not hold those of `splits`."""
        try:
            accuracies = json.loads(self.path.read_text())["accuracy"]
            return {split: float(accuracies[split]) for split in splits}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.path} is damaged ({error}); delete it and run the same command again") from error
