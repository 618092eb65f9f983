"""Judge somebody else's distilled set as if it were ours: `python -m suite.evaluate FILE --as FORMAT …`.

Exit status as of `suite.run`: 0 done, 1 failed, 2 usage error, 75 stopped by a signal (the same command goes on).
"""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite import terminal
from suite.errors import RunError, UsageError, printable
from suite.run import add_options, look_ahead, perform, status_of
from suite.runtime.signals import end
from suite.validation import AtLeast, AtMost, number_option

if TYPE_CHECKING:
    from suite.config.resolve import Run
    from suite.evaluation.protocol import Protocol
    from suite.experiments.judging import Judging
    from suite.importers.base import Format
    from suite.memory import Memory

SETTINGS = "gin/shared/judging.gin"
"""The configuration that everything else is added to."""

PROBING = ("robustness", "membership")
"""Files of gin/protocols/ that test the networks of the paper's protocol on more than test images."""

LONGEST_NAME = 200
"""Letters of a file's name that a record keeps."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    command = argparse.ArgumentParser(
        prog="python -m suite.evaluate",
        description="Judge a distilled set of somebody else by the suite's protocol. docs/judging.md says how.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add("file", metavar="FILE", help="the set's file or folder, or hf:USER/NAME")
    add("--as", dest="format", metavar="FORMAT", help="its layout; without one the command names them all")
    add("--data-set", metavar="NAME", help="what it was distilled from: a registered name, or @datasets.NAME()")
    add("--space", metavar="S", help="what was done to its pixels: pixels, standardized:MEAN/STD, zca:FILE, …")
    add("--classes", metavar="C", help="'data-set', its classes' names in its order, or file:NAMES")
    add("--labels", metavar="KIND", help="of labels of several numbers: probabilities, weights, logits, regression")
    add("--lr", metavar="R", help="'file' (the rate it stores), 'protocol' or a number")
    whole = number_option(int, AtLeast(0))
    add("--experiment", type=whole, metavar="N", help="which of several sets in one file, from 0")
    add("--waves", metavar="W", help="FIRST/OTHERS, frequencies of the layers of networks of sines, as 30/10")
    add("--factor", type=number_option(int, AtLeast(1)), metavar="N", help="tiles along each side of its images")
    percent = number_option(float, AtLeast(0), AtMost(100))
    add("--printed", type=percent, metavar="A", help="the accuracy in percent that its authors printed")
    add("--protocols", nargs="+", metavar="P", help="judge by each of these: gin/protocols/ has them (paper, …)")
    apart = "with --protocols: judge again without its own labels, its own rate and the augmentation, one at a time"
    add("--apart", action="store_true", help=apart)
    add_options(command)
    return command


@terminal.command
def main(arguments: list[str] | None = None) -> int:
    """Import and judge what the arguments name (default: those of the process); returns the exit status."""
    options = parser().parse_args(arguments)
    return status_of("suite.evaluate", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    import suite.importers  # noqa: F401  # the formats register themselves
    from suite.config.resolve import resolve
    from suite.importers.base import format_of
    from suite.registry import load_components, load_plugin

    load_components()
    options.plugin = [load_plugin(plugin) for plugin in options.plugin]
    layout = format_of(options.format)
    options.set = [*_data_set(options.data_set, layout), *options.set]
    options.only = []
    runs = []
    for name in _protocols(options):
        files = [SETTINGS, *([f"gin/protocols/{name}.gin"] if name else []), *options.gin]
        for run in resolve(files, options.set, options.seed):
            runs += _of_set(run, name, layout, options)
    if options.dry_run:
        return look_ahead(runs, options)
    records = perform(runs, options)
    if not options.json:
        if options.protocols:
            print("\n" + matrix(records))
        print("\n" + beside_authors(records, ours=not options.protocols))
    return 0


def _protocols(options: argparse.Namespace) -> list[str]:
    """The protocols that judge; '' for the configuration's own, where none is named. Raises UsageError."""
    from suite.evaluation.protocol import PROTOCOLS
    from suite.registry import suggestion

    def published(name: str) -> str:
        if name not in (names := [*PROTOCOLS, *PROBING]):
            raise UsageError(f"--protocols: there is no '{printable(name)}'; {suggestion(name, names)}")
        return name

    if options.apart and not options.protocols:
        raise UsageError("--apart takes protocols apart: name them, such as --protocols paper")
    return [published(name) for name in dict.fromkeys(options.protocols or [])] or [""]


def _data_set(name: str | None, layout: "Format") -> list[str]:
    """The binding of the data set. Raises UsageError where none is named."""
    from suite.registry import datasets

    if name is None and layout.name != "memory":
        raise UsageError(f"--data-set: say what the set was distilled from; there are: {', '.join(datasets.names())}")
    if name is None:
        return []
    if not name.startswith("@") and name not in datasets.names():
        raise UsageError(f"--data-set: {datasets.unknown(printable(name))}")
    return [f"DATASET = {name if name.startswith('@') else f'@datasets.{name}()'}"]


# ---------------------------------------------------------------- from a file to a run


def _of_set(run: "Run", protocol: str, layout: "Format", options: argparse.Namespace) -> "list[Run]":
    """The runs that judge the set by a configuration: as it is, and taken apart if the options say so. SuiteError."""
    from suite.experiments.judging import Judging
    from suite.importers.base import Reading
    from suite.memory import Memory

    experiment: Any = run.experiment
    if not isinstance(experiment, Judging):
        raise UsageError("run.experiment: suite.evaluate judges, by @experiments.judging()")
    if options.experiment is not None and not layout.several:
        raise UsageError(f"--experiment {options.experiment}: a file of '{layout.name}' holds one set; leave it out")
    waves = _waves(layout, options.waves)
    judged_by = experiment.evaluation
    with _place(layout, options) as (path, called):
        found = layout.read(path, Reading(experiment.dataset.info, options.experiment, waves))
        about = {"file": called, "sha256": content_hash(path), "accuracies": {}, "notes": []}
        experiment = replace(experiment, file=called, format=layout.name, printed=options.printed)
        if isinstance(found, Memory):
            experiment = _with_memory(experiment, path, found, about, options)
        else:
            experiment = _with_set(experiment, path, layout, found, about, options)
    said = _method_of(found) if isinstance(found, Memory) else experiment.file
    cell = {"set": said + (f", experiment {options.experiment}" if options.experiment is not None else "")}
    cell |= {"protocol": protocol} if protocol else {}
    changed = taken_apart(experiment, judged_by) if options.apart else {}
    parts = [_run_of(run, other, cell | {"without": part}) for part, other in changed.items()]
    return [_run_of(run, experiment, cell), *parts]


def _waves(layout: "Format", given: str | None) -> tuple[float, float] | None:
    """The frequencies that `--waves` gives; UsageError for others, and where the format has them or wants them."""
    if not layout.waves:
        if given is not None:
            raise UsageError(f"--waves {printable(given)}: '{layout.name}' has no networks of sines; leave it out")
        return None
    try:
        first, others = map(float, (given or "").split("/"))
    except ValueError:
        first = others = math.nan
    if not (0 < first < math.inf and 0 < others < math.inf):
        raise UsageError(
            f"--waves: '{layout.name}' does not say the frequencies of its sines; write that of the first layer and "
            "that of the others, as its authors set them: 30/10 for CIFAR in their code"
        )
    return first, others


@contextmanager
def _place(layout: "Format", options: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """The set's file or folder, fetched if it is on the Hub, and what a record calls it. Raises SuiteError."""
    from suite.importers.hub import HUB, fetched
    from suite.storage.files import user_path

    if options.file.startswith(HUB):
        if not layout.hub:
            raise UsageError(
                f"--as {layout.name}: it reads what is here; fetch it, by `hf download`, and name what was fetched"
            )
        with fetched(options.file) as (path, called):
            yield path, called[:LONGEST_NAME]
        return
    path = user_path(options.file, "FILE")
    if not path.exists():
        raise UsageError(f"there is no {path}; name the file or folder of the set")
    yield path, printable(path.resolve().name)[:LONGEST_NAME]


def _method_of(memory: "Memory") -> str:
    """What tables call a memory of this suite, whose file is called as all of them are: its method and its seed."""
    from suite.runtime.title import method

    seed = memory.about.get("seed")
    words = method(memory.about["config"], {}) + ("" if seed is None else f", seed {seed}")
    return printable(words)[:LONGEST_NAME]


def taken_apart(experiment: "Judging", protocol: "Protocol") -> "dict[str, Judging]":
    """The experiment without each of the set's labels, its rate and the augmentation, where it has them.

    `protocol` is the one before the set's own rate was put into it.
    """
    from suite.experiments import accounting
    from suite.types import Labelled

    judged_by, parts = experiment.evaluation, {}
    if isinstance(experiment.parameterization, Labelled) and judged_by.labels == "stored":
        parts["its labels"] = replace(judged_by, labels="class")
    if judged_by.lr != protocol.lr:
        parts["its rate"] = replace(judged_by, lr=protocol.lr)
    own = accounting.augmentation_of(experiment.dataset, experiment.augmentation)
    if judged_by.augmentation_of(own) != "none" or judged_by.cut_mix:
        parts["augmentation"] = replace(judged_by, augment=False, cut_mix=0.0)
    return {part: replace(experiment, evaluation=evaluation) for part, evaluation in parts.items()}


def _with_set(
    experiment: "Judging", path: Path, layout: "Format", found: Any, about: dict[str, Any], options: argparse.Namespace
) -> "Judging":
    """The experiment of a set that was read and whose declarations hold."""
    from suite.importers.declared import Declared, settle
    from suite.parameterizations.imported import IMAGES

    declared = Declared(options.space, options.labels, options.lr, options.classes, options.factor)
    info = experiment.dataset.info
    known = settle(path, layout, found, declared, info)
    about |= {"accuracies": {k: list(v) for k, v in found.accuracies.items()}, "notes": list(known.notes)}
    protocol, settled = experiment.evaluation, dict(known.settled)
    if known.lr is not None and protocol.optimizer == "sgd":
        protocol = replace(protocol, lr=known.lr)
    elif known.lr is not None:  # a rate of SGD is none of Adam
        settled["lr"] = "the protocol's"
    numbers = sum(tensor.numel() for tensor in known.tensors.values())
    if found.stored is not None:  # in the place of the images that were decoded
        numbers += found.stored - known.tensors[IMAGES].numel()
    experiment = replace(
        experiment,
        parameterization=known.parameterization,
        images_per_class=numbers / (info.classes * info.shape.numel),
        space=known.space.text,
        evaluation=protocol,
        **settled,
    )
    return replace(experiment, identity=_kept(options, known.tensors, known.space.tensors, about))


def _with_memory(
    experiment: "Judging", path: Path, memory: "Memory", about: dict[str, Any], options: argparse.Namespace
) -> "Judging":
    """The experiment of a memory of this suite, whose data set, budget and parameterization it says itself."""
    from suite.memory import rebuilt
    from suite.registry import describe
    from suite.storage.memory_file import Distilled, require_shape

    given = [
        name for name in ("space", "labels", "lr", "classes", "factor", "waves") if getattr(options, name) is not None
    ]
    if given:
        raise UsageError(f"--{given[0]}: a memory of this suite says that itself; leave it out")
    config = memory.about.get("config", {})
    if not {"dataset", "validation", "images_per_class"} <= config.keys():
        raise RunError(f"{path} does not say what it was distilled from; only memories of distillations can be judged")
    require_shape(config, Distilled, "what the memory says of its distillation")
    dataset = rebuilt("datasets", config["dataset"])
    if memory.class_names != dataset.info.class_names:
        raise RunError(f"{path} has other classes, or another order of them, than {dataset.info.name} has here")
    if options.data_set is not None and describe(experiment.dataset) != describe(dataset):
        raise UsageError(f"--data-set: {path} was distilled from {dataset.info.name} with other settings; leave it out")
    experiment = replace(
        experiment,
        dataset=dataset,
        parameterization=memory.parameterization,
        images_per_class=config["images_per_class"],
        validation=config["validation"],
        labels="its own",
    )
    about |= {name: memory.about.get(name) for name in ("preprocessing", "dataset_digest")}
    return replace(experiment, identity=_kept(options, memory.tensors, {}, about))


def _kept(options: argparse.Namespace, tensors: Any, space: Any, about: dict[str, Any]) -> str:
    from suite.importers import cache
    from suite.storage.files import make_directory, user_path

    out = make_directory(user_path(options.out, "--out"))
    return cache.keep(out / "cache", cache.Kept(tensors, space, about))


def _run_of(run: "Run", experiment: "Judging", cell: dict[str, str]) -> "Run":
    """The run with this experiment, and the gin text that gives it again where the set is stored."""
    from suite.config.resolve import Run
    from suite.config.to_gin import gin_text

    cell = run.cell | cell
    try:
        text = gin_text(experiment, "judging", run.seed) + f"run.scale = {run.scale!r}\nrun.cell = {cell!r}\n"
    except UsageError as error:
        text = f"# It can be judged again by suite.evaluate alone: {error}.\n"
    return Run("judging", cell, run.seed, run.scale, experiment, text, text)


def content_hash(path: Path) -> str:
    """SHA-256 of a file; of a folder that of the names and hashes of the files in it and in its folders. RunError."""
    from suite.importers.base import content
    from suite.storage.files import json_sha256, sha256

    if not path.is_dir():
        return sha256(content(path))
    near = (*path.glob("*"), *path.glob("*/*"))  # no layout is deeper
    files = sorted(file for file in near if file.is_file() and not file.is_symlink())
    return json_sha256([[file.relative_to(path).as_posix(), sha256(content(file))] for file in files])


# ---------------------------------------------------------------- what is printed


def matrix(records: list[dict[str, Any]]) -> str:
    """A row for each protocol, whole and taken apart: the set beside real images, and DD-Ranking's scores below."""
    from suite.runtime.protocol_matrix import matrix_of, scores_of

    lines, scores = matrix_of(records), scores_of(records)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    parts = {"HLR": scores.hlr, "IOR": scores.ior, "LRS": scores.lrs, "ARS": scores.ars}
    if shown := ", ".join(f"{name} {value:.1f}" for name, value in parts.items() if value is not None):
        rows.append(f"DD-Ranking, {scores.labels} labels: {shown}")
    return "\n".join(rows)


def beside_authors(records: list[dict[str, Any]], ours: bool = True) -> str:
    """What runs on one set measured (`ours`) beside what its authors printed, and what their file says of it."""
    from suite.runtime.record import of_memory

    source, lines = records[0]["facts"]["imported"], [("whose", "test accuracy", "networks")]
    for record in records if ours else []:
        seed = f", seed {record['seed']}" if len(records) > 1 else ""
        tested = [measured for measured in of_memory(record) if measured["split"] == "test"]
        lines += [(f"ours, protocol {record['scale']['protocol']}{seed}", *_figures(one)) for one in tested]
    lines += [(f"in the file, {printable(name)[:40]}", *_figures(v)) for name, v in source["accuracies"].items()]
    if source["printed"] is not None:
        lines.append(("printed by its authors", f"{source['printed']:.1f}", "?"))
    width = max(len(line[0]) for line in lines)
    said = [f"{first:{width}}  {second:14}{third}" for first, second, third in lines]
    said.append(f"images: {source['space']}, {source['conversion']}")
    outside = source["pixels_outside"]
    if outside:
        span = f"{outside['least']:.2f} to {outside['largest']:.2f}"
        said.append(f"pixels: {100 * outside['fraction']:.1f}% lie outside [0, 1], {span} in all")
    return "\n".join([*said, *(f"note: {note}" for note in source["notes"])])


def _figures(measured: dict[str, Any]) -> tuple[str, str]:
    spread = "" if measured["std"] is None else f" ± {measured['std']:.1f}"
    return f"{measured['mean']:.1f}{spread}", str(measured["n"])


if __name__ == "__main__":
    end(main())
