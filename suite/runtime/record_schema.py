"""What a result record holds, key by key; its check; and the reader of the schema before it."""

from typing import Annotated, Any, NotRequired, Required

from pydantic import Field
from typing_extensions import TypedDict  # that of `typing` can be read from Python 3.12 on

from suite.storage.plain_files import misfit

SCHEMA = 2
"""The schema that is written. `upgraded` reads schema 1, which ended with version 0.1 of the suite."""

ACCURACY, MEMORY, FULL_DATA = "accuracy", "memory", "full data"
"""The usual quantity, and the two methods that tables treat apart."""


Count = Annotated[int, Field(ge=0)]
"""A whole number from 0."""

Amount = Annotated[float, Field(ge=0)]
"""A number from 0."""


class ValuesRecord(TypedDict):
    """The values of a measurement, and their statistics."""

    split: str
    """Of which images: 'test' or 'validation'."""
    values: Annotated[list[float], Field(min_length=1)]
    """One number for each of what `over` names, at least one."""
    over: str
    """What the values are spread over, such as 'evaluation networks' or 'episodes'."""
    mean: float
    """Of the values."""
    std: Amount | None
    """The sample standard deviation (n - 1) of the values; None for a single one."""
    n: int
    """The number of values."""


class MeasuredRecord(ValuesRecord):
    """One measurement: the fields of `suite.types.Measurement` with their statistics."""

    method: str
    """What was measured: 'memory', a control such as 'random real images' or 'full data', a baseline such as 'ER'."""
    quantity: str
    """'accuracy'; of a stream 'RA', 'LA', 'BTI', 'BWT' or 'forgetting'; or another rate. Always in percent."""
    network: str
    """The architecture it was measured on; '' for the run's own."""
    episodes: str
    """The kind of episode, such as '2-way' or '5-way, 1 shot'; '' where there are none."""
    note: str
    """What a reader must know of it, such as the images and steps of its training; '' for nothing."""


class BudgetRecord(TypedDict):
    """What a memory stores and recalls: `suite.types.Budget`."""

    stored_numbers: Count
    """Every number that the memory stores; of a stream, all its memories together, or the replayed images."""
    images_per_class: Amount
    """The same as real images per class."""
    recalled_per_class: Count
    """Images that the memory recalls of each class; 0 for methods without a memory."""


class ScaleRecord(TypedDict):
    """How much of the paper's compute the run used."""

    label: str
    """The scale's name, such as 'paper', 'cpu' or 'smoke'."""
    reduced: bool
    """Whether it used less than the paper; reduced runs are never ranked with full ones."""
    reduced_by: NotRequired[list[str]]
    """What was less, each as a text such as '200 of 50000 iterations'."""
    protocol: NotRequired[str]
    """The evaluation protocol in words."""
    iterations: NotRequired[Count]
    """Outer iterations; of a stream, of all its tasks together."""
    paper_iterations: NotRequired[Count]
    """Outer iterations of the paper."""
    fraction: NotRequired[float]
    """iterations / paper_iterations."""
    validation_held_out: NotRequired[float]
    """The fraction of the training images that was held out for validation."""
    full_data_epochs: NotRequired[int]
    """Epochs of the full-data control."""


class FactsRecord(TypedDict):
    """What else identifies the run. Only `dataset` is in every record; experiments may add keys."""

    dataset: str
    """The name of the data set or stream."""
    dataset_digest: NotRequired[str]
    """Digest of the images and labels that were loaded."""
    preprocessing: NotRequired[dict[str, Any]]
    """The transform of the images, with its constants."""
    images: NotRequired[dict[str, int]]
    """Distillation: the number of images of each split."""
    memory_sha256: NotRequired[str]
    """Distillation: hash of the memory's file."""
    skipped_outer_steps: NotRequired[int]
    """Distillation: outer steps left out because their gradient was not finite."""
    imported: NotRequired[dict[str, Any]]
    """Judging: the file of somebody else's set with its hash, what was declared of it, how its images were converted
    and how far their pixels fell outside [0, 1], and what its authors printed or stored as their accuracies."""
    coefficient_similarity: NotRequired[dict[str, float]]
    """Distillation: mean cosine similarity of the classes' coefficients, within superclasses and between them."""
    gradient_norms: NotRequired[dict[str, list[list[float | None]]]]
    """Distillation: by when ('at the start', 'at the end'), unroll and inner step t, the norm of d loss / d w_t."""
    tasks: NotRequired[list[Any]]
    """Streams: how each task was made. Synthesis: the class names of each task."""
    matrices: NotRequired[list[list[list[float | None]]]]
    """Streams: by network, R[i][j], the accuracy on task j after task i; None where it was not measured."""
    differs: NotRequired[list[str]]
    """Streams: known deviations from the published benchmark."""
    storage_numbers: NotRequired[int]
    """Compress-then-recall: numbers that the method may store."""
    most_stored_numbers: NotRequired[int]
    """Compress-then-recall: numbers stored at the most at any time."""
    working_numbers: NotRequired[int]
    """Compress-then-recall: numbers of the memory that is being learned."""
    episodes: NotRequired[dict[str, list[list[int]]]]
    """Task extrapolation: by kind of episode, the classes of each."""
    preprocessing_of: NotRequired[str]
    """Task extrapolation: whether images are preprocessed for each task or for all classes together."""
    extractor_numbers: NotRequired[int]
    """Image recall: numbers of the feature extractor, which the budget does not count."""
    classifier: NotRequired[str]
    """Image recall: the accuracy of the full-data classifier on all classes, in words."""
    classifier_labels: NotRequired[dict[str, float]]
    """Image recall: how often the full-data classifier labels shots rightly, and how often labels conflict (%)."""


class CostRecord(TypedDict):
    """What the run cost. It differs from run to run, so comparisons of records leave it out."""

    finished_at: NotRequired[Amount]
    """When the run ended, in seconds since 1970; absent from records of before it was written down."""
    last_attempt_seconds: NotRequired[float]
    """Wall-clock time of the attempt that finished the run, from its start to its record."""
    upkeep_seconds_of_it: NotRequired[float]
    """The part of it that went into checkpoints and the journal."""
    attempts: NotRequired[int]
    """How often the run was started or resumed, the last attempt included."""
    loading_seconds: NotRequired[float]
    """Distillation: loading and preprocessing the data."""
    distillation_seconds: NotRequired[float]
    """Distillation: outer steps, earlier attempts included."""
    evaluation_seconds: NotRequired[float]
    """Distillation: the evaluation of the memory and its controls in the last attempt."""
    training_seconds: NotRequired[float]
    """Baselines on streams: training and testing their networks in the last attempt."""
    seconds_per_iteration: NotRequired[float]
    """Mean seconds of an outer step."""
    runs_at_once: NotRequired[int]
    """Runs that took turns in the process, so that times and peaks are of all of them; left out for one."""
    rollouts: NotRequired[int]
    """Rollouts of an outer step; left out for one."""
    ranks: NotRequired[int]
    """Processes that shared them in the last attempt, each with a device of its own where there are GPUs; left out for
    one. Times are of all of them together as they passed, a peak is of the first."""
    peak_memory_mib: NotRequired[float]
    """On a GPU: peak allocation there in MiB."""
    process_peak_memory_mib: NotRequired[float]
    """On a CPU: peak resident size of the process in MiB."""


class EnvironmentRecord(TypedDict, total=False):
    """Versions, hardware and code state. It holds no host name and no path. Tables need the device alone."""

    suite: str | None
    """Version of the suite, if it is installed."""
    python: str
    """Version of Python."""
    packages: dict[str, str | None]
    """Versions of the packages that results depend on; None for one that is not installed."""
    system: str
    """The operating system, such as 'Linux'."""
    processor: str
    """The CPU's model name."""
    threads: int
    """Threads of torch."""
    device: Required[str]
    """The GPU's name, or 'cpu'."""
    cuda: str | None
    """CUDA version of torch on a GPU; None on a CPU."""
    deterministic: bool
    """Whether all operations were deterministic."""
    code: dict[str, Any]
    """`commit` of the suite's checkout and whether it was `changed`; None for both outside a checkout."""
    unrolls: str
    """How inner loops that are differentiated were run: 'eager' or 'captured', whichever was asked for."""
    mixed: list[str]
    """What of the environment changed between attempts; [] if nothing did."""


class RunRecord(TypedDict):
    """What a record of either schema says of its run."""

    schema: int
    """`SCHEMA`."""
    experiment: str
    """The registered name of the experiment."""
    name: str
    """The name of the run or table, as in the gin file."""
    cell: dict[str, str]
    """By axis of the table, the label of the run's cell."""
    seed: int
    """The seed of all randomness."""
    run_key: str
    """Hash of configuration and seed, in hexadecimal digits."""
    config: dict[str, Any]
    """The experiment with all its components and settings; `is` names each component."""
    config_text: str
    """A gin file that gives this run alone."""
    config_text_sha256: str
    """Its hash."""
    budget: BudgetRecord
    """What the memory stores."""
    scale: ScaleRecord
    """How much of the paper's compute was used."""
    facts: FactsRecord
    """What else identifies the run."""
    environment: EnvironmentRecord
    """Where it was measured."""
    cost: CostRecord
    """What it cost."""


class Record(RunRecord):
    """A result record: what was measured, of what, how, and at what cost."""

    measurements: list[MeasuredRecord]
    """What was measured, in the order of the tables."""


class Figure1(ValuesRecord):
    """One measurement of schema 1."""

    name: str
    """Holds what schema 2 has as method, quantity, network and kind of episode."""


class Record1(RunRecord):
    """A record of schema 1."""

    figures: list[Figure1]
    """What was measured."""


# ---------------------------------------------------------------- the check


def misshapen(record: Any) -> str | None:
    """What is wrong with a record of either schema that was read as JSON, in words, or None."""
    if not isinstance(record, dict):
        return "it is not a JSON object"
    schema = record.get("schema", SCHEMA)
    if isinstance(schema, int) and schema not in (1, SCHEMA):
        return f"it has schema {schema}, and this version reads 1 and {SCHEMA}"
    shape, part = (Record1, "figures") if schema == 1 else (Record, "measurements")
    problem = misfit(record, shape)
    if problem:
        return problem
    counts = [(len(measured["values"]), measured["n"]) for measured in record[part]]
    wrong = next((i for i, (values, n) in enumerate(counts) if values != n), None)
    return None if wrong is None else f"its '{part}[{wrong}]' has {counts[wrong][0]} values and n = {counts[wrong][1]}"


# ---------------------------------------------------------------- schema 1


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A record that is not `misshapen`, in schema 2; the argument stays as it is.

    Schema 1 had `figures`, each with a `name` that held what schema 2 has as method, quantity, network and kind of
    episode, and two other names in `cost`. Names are parsed here and nowhere else.
    """
    if record["schema"] == SCHEMA:
        return record
    measurements = [
        {key: value for key, value in figure.items() if key != "name"}
        | {"note": str(figure.get("note", ""))}
        | _fields(figure, record["config"])
        for figure in record["figures"]
    ]
    changed = {
        "schema": SCHEMA,
        "measurements": measurements,
        "cost": {COST_KEYS_1.get(key, key): value for key, value in record["cost"].items()},
    }
    return {key: value for key, value in record.items() if key != "figures"} | changed


COST_KEYS_1 = {"last_sitting_seconds": "last_attempt_seconds", "sittings": "attempts"}
"""Keys of the cost that have another name since."""

STREAM_QUANTITIES_1 = ("RA", "LA", "BTI", "BWT", "forgetting")
"""What experiments on streams measured."""

STREAM_METHODS_1 = {
    ("compress_then_recall", ""): MEMORY,
    ("online", "replay"): "ER",
    ("avalanche", "naive"): "naive (Avalanche)",
    ("avalanche", "er"): "ER (Avalanche)",
    ("avalanche", "agem"): "A-GEM (Avalanche)",
    ("avalanche", "mer"): "MER (Avalanche)",
}
"""By experiment and its setting `method`, the method of a stream's measurements, where it is not that setting."""


def _fields(figure: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """What the name of a figure says: 'RA', 'memory on alexnet', '5-way, 1 shot: linear probe', 'full data'."""
    name, episodes, network, quantity = figure["name"], "", "", ACCURACY
    if figure["over"] == "episodes" and ": " in name:
        episodes, name = name.split(": ", 1)
    if name in STREAM_QUANTITIES_1:
        experiment, setting = str(config.get("is", "")), str(config.get("method", ""))
        name, quantity = STREAM_METHODS_1.get((experiment, setting), setting or experiment), name
    elif name.startswith(f"{MEMORY} on "):
        name, network = MEMORY, name.removeprefix(f"{MEMORY} on ")
    return {"method": name, "quantity": quantity, "network": network, "episodes": episodes}
