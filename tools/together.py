"""What memories of a stream are worth alone and together, by how long a network is trained on them.

    python -m tools.together RUN [--together 1 5 20] [--epochs 10 30 100 300] [--networks N]

RUN is the directory of a finished run of compress-then-recall. Fresh networks are trained on all that the first k
memories recall, for so many epochs of the run's own protocol, and tested on the tasks of those k; for k = 1 each memory
is taken alone and the mean over all tasks is given. `--images` has real training images of the run's tasks in the place
of the memories: as many of each class and task, drawn at random.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from suite.config.resolve import resolve
from suite.core.device import prepare_device
from suite.errors import SuiteError, UsageError, report
from suite.evaluation.evaluate import evaluate, recalled
from suite.evaluation.protocol import Protocol
from suite.experiments.continual import streaming
from suite.experiments.continual.compress_then_recall import CompressThenRecall
from suite.keys import Key
from suite.memory import Memory
from suite.registry import load_components
from suite.types import ClassRows, Setting, Split, StreamTask
from suite.validation import AtLeast, number_option


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        load_components()
        prepare_device("cpu")
        stream = LearnedStream.of(options.run, options.data_dir)
        rows = [row(stream, options, k, epochs) for k in options.together for epochs in options.epochs]
    except SuiteError as error:
        report(f"tools.together: {error}")
        return error.status
    print(json.dumps(rows) if options.json else table(rows))
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    command = argparse.ArgumentParser(prog="python -m tools.together", description=(__doc__ or "").split("\n")[0])
    add, whole = command.add_argument, number_option(int, AtLeast(1))
    add("run", type=Path, metavar="RUN", help="directory of a finished run")
    add(
        "--together",
        type=whole,
        nargs="+",
        default=[1, 5, 20],
        metavar="K",
        help="memories of a network (%(default)s)",
    )
    add("--epochs", type=whole, nargs="+", default=[10, 30, 100, 300], metavar="E", help="of a network (%(default)s)")
    add("--networks", type=whole, default=1, metavar="N", help="for each figure (%(default)s)")
    add("--images", action="store_true", help="real images in the place of memories")
    add("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="where data sets are kept")
    add("--json", action="store_true", help="print JSON in place of the table")
    return command


@dataclass(frozen=True, eq=False)
class LearnedStream:
    """A stream whose every task has a memory."""

    experiment: CompressThenRecall
    """What made them."""
    tasks: list[StreamTask]
    """In order."""
    recalls: list[Split]
    """What the memory of each recalls."""
    key: Key
    """The run's."""

    @staticmethod
    def of(run: Path, data_dir: Path) -> "LearnedStream":
        """From a run's directory; UsageError for one that is of no stream's memories, or is not finished."""
        files = sorted((run / "memories").glob("task-*.safetensors"))
        if not files or not (run / "result.json").is_file():
            raise UsageError(f"{run} is no finished run of compress-then-recall: it needs result.json and memories/")
        (resolved,) = resolve([str(run / "config.gin")], [])
        experiment = resolved.experiment
        if not isinstance(experiment, CompressThenRecall) or len(files) != experiment.stream.info.tasks:
            raise UsageError(f"{run} has {len(files)} memories, and is not of as many tasks of compress-then-recall")
        key, setting = Key(resolved.seed), experiment.setting(torch.device("cpu"))
        tasks = list(experiment.stream.tasks(data_dir, key("stream")))
        recalls = [recalled(setting, Memory.load(file).tensors) for file in files]
        return LearnedStream(experiment, tasks, recalls, key)

    def real(self) -> "LearnedStream":
        """With random real images of each class and task in the place of what is recalled."""
        classes = self.experiment.stream.info.classes_per_task
        each, chosen = len(self.recalls[0]) // classes, []
        for t, task in enumerate(self.tasks):
            images = task.train.relabelled(task.classes)
            drawn = ClassRows.of(images, classes).draw_rows(list(range(classes)), each, self.key("real", t))
            chosen.append(images.at(drawn))
        return replace(self, recalls=chosen)

    def accuracy(self, first: int, end: int, protocol: Protocol) -> float:
        """The mean over these tasks and the protocol's networks, trained on all that is recalled of them."""
        info = self.experiment.stream.info
        tasks = self.tasks[first:end]
        plain = self.experiment.setting(torch.device("cpu"))
        setting: Setting = replace(plain, classes=info.outputs, groups=streaming.output_groups(info, tasks))
        labels = [torch.tensor(t.classes)[r.labels] for t, r in zip(tasks, self.recalls[first:end], strict=True)]
        training = Split(torch.cat([r.images for r in self.recalls[first:end]]), torch.cat(labels))
        tests = {str(i): task.test for i, task in enumerate(tasks)}
        found = evaluate(setting, lambda n: training, protocol, self.key("together", first, end), tests)
        return fmean(accuracy for of_task in found.values() for accuracy in of_task)


def row(stream: LearnedStream, options: argparse.Namespace, together: int, epochs: int) -> dict[str, Any]:
    """The accuracy of networks on so many memories; UsageError for more than there are."""
    if together > len(stream.tasks):
        raise UsageError(f"--together {together} is more than the {len(stream.tasks)} memories of the run")
    of = stream.real() if options.images else stream
    protocol = replace(stream.experiment.evaluation, networks=options.networks, epochs=epochs)
    starts = range(len(stream.tasks)) if together == 1 else range(1)
    accuracy = fmean(of.accuracy(t, t + together, protocol) for t in starts)
    return {"together": together, "epochs": epochs, "networks": options.networks, "accuracy": round(accuracy, 2)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Memories together down, epochs across."""
    epochs = sorted({row["epochs"] for row in rows})
    by = {(row["together"], row["epochs"]): row["accuracy"] for row in rows}
    lines = ["| memories | " + " | ".join(f"{e} epochs" for e in epochs) + " |", "| --- |" + " --- |" * len(epochs)]
    for k in sorted({row["together"] for row in rows}):
        lines.append(f"| {k} | " + " | ".join(f"{by[k, e]:.1f}" for e in epochs) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
