"""Our streams in Avalanche (the optional extra `avalanche`): `to_avalanche(stream)` is a benchmark of its own kind.

    from suite.avalanche import to_avalanche
    from suite.streams.rotations import Rotations
    benchmark = to_avalanche(Rotations(), seed=0)

The one module that imports Avalanche.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from suite.datasets.sources import default_data_dir
from suite.errors import UsageError
from suite.keys import Key
from suite.types import Split, Stream, StreamTask


def to_avalanche(stream: Stream, data_dir: Path | None = None, seed: int = 0) -> Any:
    """An Avalanche scenario with the tasks that a run of this seed sees, as experiences of `train` and `test` streams.

    Images, labels and their order are ours. The task label of an image is the number of its task (from 0) where the
    stream gives that at test, else 0. Raises UsageError where Avalanche is not installed.
    """
    return scenario(list(stream.tasks(data_dir or default_data_dir(), Key(seed)("stream"))), stream.info.task_known)


def scenario(tasks: Sequence[StreamTask], task_known: bool) -> Any:
    """The same of tasks that were made already."""
    benchmarks = _module("avalanche.benchmarks")
    data = _module("avalanche.benchmarks.utils")
    attributes = _module("avalanche.benchmarks.utils.data_attribute")

    def wrapped(split: Split, label: int) -> Any:
        labels = attributes.DataAttribute(split.labels.tolist(), "targets")
        same = attributes.DataAttribute([label] * len(split), "targets_task_labels", use_in_getitem=True)
        return data.AvalancheDataset([TensorDataset(split.images, split.labels)], data_attributes=[labels, same])

    parts = {
        name: [wrapped(getattr(task, name), t if task_known else 0) for t, task in enumerate(tasks)]
        for name in ("train", "test")
    }
    made = benchmarks.benchmark_from_datasets(**parts)
    return benchmarks.with_task_labels(benchmarks.with_classes_timeline(made))


def strategy(
    name: str, network: nn.Module, optimizer: Any, criterion: Any, device: Any, *,
    batch: int, stored: int, stored_each: int, replay_batch: int, tasks: int, image: Tensor,
) -> Any:  # fmt: skip
    """One of Avalanche's strategies; it stores `stored` images in all, `agem` `stored_each` of each task.

    Its `model` is what classifies: the network, or for 'scr' the nearest mean of a class in the network's features,
    whose number `image`, one of the stream's, tells.
    """
    training = _module("avalanche.training.supervised")
    storage = _module("avalanche.training.storage_policy")
    plugins = _module("avalanche.training.plugins")
    common = {
        "model": network,
        "optimizer": optimizer,
        "criterion": criterion,
        "train_mb_size": batch,
        "train_epochs": 1,
        "device": device,
        "evaluator": plugins.EvaluationPlugin(),  # of its own none: what it learned is measured as ours is
    }
    if name == "er":
        policy = storage.ReservoirSamplingBuffer(max_size=stored)
        replay = plugins.ReplayPlugin(mem_size=stored, batch_size_mem=replay_batch, storage_policy=policy)
        return training.Naive(**common, plugins=[replay])
    if name == "agem":
        # It draws an equal part from every task, one image at the least.
        drawn = max(replay_batch, tasks)
        return training.AGEM(**common, patterns_per_exp=stored_each, sample_size=drawn)
    if name == "mer":
        # gamma 1 as in the published runs; with its default the weights hardly move in one pass.
        return training.MER(**common, mem_size=stored, batch_size_mem=replay_batch, beta=0.1, gamma=1.0)
    if name == "der":
        # It replays nothing while it stores less than it replays.
        return training.DER(**common, mem_size=stored, batch_size_mem=min(replay_batch, stored), alpha=0.1, beta=0.5)
    if name == "scr":
        prototypes = _module("avalanche.models").SCRModel(_Features(network), _projection(network, image))
        # The means of what is stored now; Avalanche's own are half of older ones, in features of an older network.
        prototypes.eval_classifier.update_class_means_dict = prototypes.eval_classifier.replace_class_means_dict
        own = common | {"model": prototypes, "optimizer": _again(optimizer, prototypes), "eval_mb_size": batch}
        del own["criterion"]
        return training.SCR(**own, mem_size=stored, batch_size_mem=replay_batch)
    return training.Naive(**common)


class _Features(nn.Module):
    """What the head of a network reads."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)


class _Normalized(nn.Module):
    """Vectors of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1)


def _projection(network: Any, image: Tensor) -> nn.Module:
    """Two layers from features to 128 numbers of length 1."""
    with torch.no_grad():
        width = network.features(image[None]).shape[1]
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128), _Normalized())


def _again(optimizer: Any, network: nn.Module) -> Any:
    """An optimizer of the same kind and settings, of another network's weights."""
    return type(optimizer)(network.parameters(), **optimizer.defaults)


def _module(name: str) -> ModuleType:
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about solvers that nothing here uses
            return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "avalanche":
            raise UsageError("Avalanche is not installed; pip install 'addressable-memory-suite[avalanche]'") from error
        raise UsageError(f"Avalanche can't be imported ({error}); install it anew") from error
