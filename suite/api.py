"""The Python face: a memory from a call, for scripts and notebooks, by the same code as the command line.

    memory = suite.distil("digits", images_per_class=1)
    memory.evaluate()

Neither gin files nor a tracker take part. Same settings and seed as a command: the same memory, bit for bit, and with
`test=True` the same run key.
"""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from suite.config.resolve import Run
from suite.config.to_gin import gin_text
from suite.core.device import prepare_device
from suite.datasets.sources import default_data_dir
from suite.errors import UsageError
from suite.evaluation.protocol import Protocol, published
from suite.experiments.accounting import value_of, with_values
from suite.experiments.distillation import Distillation
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.averaged import Averaged
from suite.inner_optimizers.clipped import Clipped
from suite.inner_optimizers.scheduled import Scheduled
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.memory import Memory, rebuilt
from suite.objectives.bptt import BPTT
from suite.parameterizations.addressing import Addressing
from suite.registry import component, describe, load_components, suggestion
from suite.runtime.estimate import plans
from suite.runtime.execute import RunContext, directory_of, execute
from suite.runtime.signals import Stop
from suite.starts.k_means import KMeans
from suite.storage.files import make_directory
from suite.tracking.sender import Sender
from suite.types import Architecture, Dataset, Objective, Optimizer, Parameterization

KINDS = {
    "dataset": "datasets",
    "architecture": "architectures",
    "parameterization": "parameterizations",
    "objective": "objectives",
    "outer_optimizer": "inner_optimizers",
    "start": "starts",
    "controls": "controls",
    "transfer": "architectures",
}
"""The fields of `Distillation` that hold components, and the kind of each."""


def distil(
    dataset: str | Dataset,
    *,
    architecture: str | Architecture | None = None,
    parameterization: str | Parameterization | None = None,
    objective: str | Objective | None = None,
    inner_optimizer: str | Optimizer | None = None,
    outer_optimizer: str | Optimizer | None = None,
    images_per_class: float = 1,
    iterations: int = 150,
    seed: int = 0,
    device: str | None = None,
    directory: str | Path | None = None,
    data_dir: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Memory:
    """Distil a data set into a memory: `memory = suite.distil("digits", images_per_class=1)`.

    A text names a registered component, with its default settings; an object is taken as it is. What is left out is
    that of `gin/quickstart.gin` (a minute or two on two cores for digits): a ConvNet, addressing with 6 bases, BPTT
    through 30 steps of SGD at rate 0.03 with momentum 0.9 on two recalled images per class and 20 real ones, and
    150 outer steps of the fast recipe (`gin/recipe/fast.gin`). The paper takes 50,000. `inner_optimizer` is that of the
    objective. Any other field of `suite.experiments.distillation.Distillation` is a keyword as well. Test images stay
    closed, for `Memory.evaluate`, unless `test=True` has the run open them at its end, as the command does.

    With a `directory` (what --out is to the command) the run is kept there: the same call goes on with a run that was
    interrupted, and reads back one that was finished. `device` is that of --device; `data_dir` that of --data-dir.
    `progress` False: nothing is printed. Raises UsageError for settings that can't be, RunError for a run that failed.
    """
    load_components()
    given: dict[str, Any] = {
        "architecture": architecture,
        "parameterization": parameterization,
        "objective": objective,
        "outer_optimizer": outer_optimizer,
    }
    given = {name: value for name, value in given.items() if value is not None} | settings
    _refuse_unknown(given)
    given |= {"dataset": dataset, "images_per_class": images_per_class, "iterations": iterations}
    experiment = replace(quickstart(), **{name: _built(name, value) for name, value in given.items()})
    if inner_optimizer is not None:
        experiment = replace(experiment, objective=_with_inner(experiment.objective, inner_optimizer))
    rebuilt("parameterizations", describe(experiment.parameterization))  # else the memory could not recall
    run = run_of(experiment, seed)
    prepared = prepare_device(device)
    plans([run], prepared)  # refuses sizes that have no room here
    with _kept_in(directory) as out, nullcontext() if progress else redirect_stderr(io.StringIO()):
        data = Path(data_dir) if data_dir is not None else default_data_dir()
        execute(run, RunContext(out=out, data_dir=data, device=prepared, sender=Sender(None, out), stop=Stop()))
        return Memory.load(directory_of(run, out) / "memory.safetensors")


def quickstart() -> Distillation:
    """The settings of `gin/quickstart.gin`, but that test images stay closed."""
    return Distillation(
        parameterization=Addressing(bases=6),
        objective=BPTT(
            inner_optimizer=SGDMomentum(lr=0.03),
            inner_steps=30,
            classes_per_step=10,
            images_per_class_per_step=2,
            real_per_class=20,
        ),
        start=KMeans(),
        outer_optimizer=Averaged(of=Scheduled(of=Clipped(of=Adam(lr=0.05)), steps=None), decay=0.95),
        clip=None,
        iterations=150,
        evaluation=Protocol(networks=5),
        validation_points=3,
        full_data_epochs=30,
        test=False,
    )


def run_of(experiment: Distillation, seed: int) -> Run:
    """A run of an experiment that was made in Python; where every part has a name, it can be repeated from its text."""
    name = re.sub(r"[^\w.-]+", "-", experiment.dataset.info.name).strip("-.") or "run"
    try:
        text = gin_text(experiment, name, seed)
    except UsageError as error:
        text = f"# Made in Python, and can be repeated there alone: {error}.\n"
    return Run(name, {}, seed, "custom", experiment, text, text)


def _refuse_unknown(settings: dict[str, Any]) -> None:
    """Raise UsageError for a keyword that is none of `distil`."""
    known = sorted({field.name for field in fields(Distillation)} | set(distil.__kwdefaults__ or {}))
    for name in settings:
        if name not in known:
            raise UsageError(f"distil() has no keyword '{name}'; {suggestion(name, known)}")


def _built(field: str, value: Any) -> Any:
    """The value of a field of `Distillation`, names replaced by what they stand for."""
    if field == "evaluation":
        return published(value) if isinstance(value, str) else value
    if field not in KINDS:
        return value
    if isinstance(value, (list, tuple)):
        return [component(KINDS[field], item) for item in value]
    return component(KINDS[field], value)


def _with_inner(objective: Any, inner_optimizer: str | Optimizer) -> Any:
    """The objective with this inner optimizer; UsageError for one that has none."""
    if not is_dataclass(objective) or value_of(objective, "inner_optimizer") is None:
        raise UsageError(f"inner_optimizer: the objective {type(objective).__name__} has none; leave it out")
    return with_values(objective, inner_optimizer=component("inner_optimizers", inner_optimizer))


@contextmanager
def _kept_in(directory: str | Path | None) -> Iterator[Path]:
    """The folder of the run; without a name, one that is gone afterwards."""
    if directory is not None:
        yield make_directory(Path(directory))
        return
    with tempfile.TemporaryDirectory(prefix="memory-suite-") as temporary:
        yield Path(temporary)
