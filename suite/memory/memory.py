"""A distilled memory as a file: self-describing, verified when read, and usable without the suite's command line.

memory = suite.load("runs/quickstart/.../memory.safetensors")  # or by its name in the gallery
loader = torch.utils.data.DataLoader(memory.dataset(), batch_size=64, shuffle=True)
"""

import base64
import html
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from suite.core.device import prepare_device
from suite.core.foretold import BYTES, CPU, bytes_of, fresh_memory, gib, tried
from suite.datasets import loading
from suite.datasets.sources import default_data_dir
from suite.errors import RunError, SuiteError, UsageError, one_line, printable
from suite.evaluation.comparison import Comparison, compare
from suite.evaluation.evaluate import recall_all
from suite.evaluation.protocol import Protocol, published
from suite.evaluation.training import train_further
from suite.images import preprocess
from suite.keys import Key, global_generators
from suite.registry import REGISTRIES, component, describe, fingerprint, load_components
from suite.storage import memory_file, sealed
from suite.storage.files import canonical_json, json_sha256, sha256, write_atomic
from suite.storage.gallery import file_of
from suite.storage.memory_file import read_tensors, require_shape
from suite.storage.plain_files import parse_json, shown
from suite.types import (
    Architecture,
    Budget,
    Control,
    Dataset,
    ImageShape,
    Parameterization,
    Params,
    Setting,
    Split,
    Transform,
)

SCHEMA = 1
"""Version of the file's layout and of `about`."""
EMBEDDED_BYTES = 2**20
"""A preprocessing up to this size travels inside the memory's file; a ZCA matrix lies beside it."""

SHOWN_CLASSES, SHOWN_PER_CLASS = 20, 10
"""At most so many classes, and images of each, are in the picture of a memory in a notebook."""
JUDGED = ("distillation", "judging")
"""Experiments whose memories say all that is needed to judge them again."""
SHOWN_PIXELS = 48
"""Smaller images are enlarged in that picture to at least this height, by a whole factor."""


class NotShown(RunError):
    """What is recalled can't be turned back into pixels; everything else of the memory can be used."""


@dataclass(frozen=True, eq=False)
class Memory:
    """The learned tensors, how to recall from them, and what they were learned from.

    `about` holds data set, class names, preprocessing, parameterization, budget, configuration hash and protocol.
    """

    tensors: Params
    """What was learned, by name; what is counted in the budget."""
    about: dict[str, Any]
    """Plain JSON: what the memory was learned from, how, and what it is meant for."""
    transform: Transform | None
    """Preprocessing of the images; None if its matrix was not found beside the file."""

    @property
    def parameterization(self) -> Parameterization:
        """Rebuilt from its description; a method from outside must have been registered before."""
        load_components()
        return rebuilt("parameterizations", self.about["parameterization"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(self.about["class_names"])

    @property
    def shape(self) -> ImageShape:
        """Shape of one recalled image."""
        return ImageShape(*self.about["shape"])

    def recall(self) -> tuple[Float[Tensor, "n channels height width"], Int64[Tensor, " n"]]:
        """Every image, preprocessed as the networks saw it, class by class, and the class that it is stored for."""
        split = self._recalled()
        return split.images, split.labels

    def display(self) -> tuple[Float[Tensor, "n channels height width"], Int64[Tensor, " n"]]:
        """The same with the preprocessing undone: pixels in [0, 1]. Raises NotShown where it can't be."""
        if self.transform is None:
            name = _beside(self.about["preprocessing"])
            raise NotShown(f"the preprocessing can't be undone without {name}, which belongs beside the memory's file")
        images, labels = self.recall()
        try:
            return self.transform.display(images), labels
        except RuntimeError as error:  # torch.linalg's too
            raise NotShown(f"the preprocessing can't be undone: {one_line(error)[:200]}") from error

    def dataset(self) -> TensorDataset:
        """(image, label) pairs for a torch DataLoader: a label is a class number.

        Of a memory with learned labels (`soft_labels`) it is the probabilities of all classes, a row of float32.
        torch's `cross_entropy` takes either; `recall` gives the class numbers in any case.
        """
        split = self._recalled()
        return TensorDataset(split.images, split.taught)

    def _recalled(self) -> Split:
        self._require_room(self.parameterization, CPU)
        return recall_all(self.parameterization, self.tensors, len(self.class_names))

    def _require_room(self, parameterization: Parameterization, device: torch.device) -> None:
        """Raise RunError for more images than the device can hold: a small file may stand for many."""
        stored, classes = sum(tensor.numel() for tensor in self.tensors.values()), len(self.class_names)
        for budget in _budgets(self.about, stored):
            with suppress(UsageError):  # a guess at the budget, which may afford nothing
                images = classes * parameterization.per_class(self.shape, classes, budget)
                numbers = images * self.shape.numel
                if numbers * BYTES > bytes_of(device):
                    raise RunError(
                        f"recalling {images:,} images of {self.shape} takes {gib(numbers * BYTES)}, more than the "
                        f"{gib(bytes_of(device))} of memory of {device} here; do it on a larger machine"
                    )
                return

    def export(self, to: str | Path) -> Path:
        """Write the recalled images for other programs, and return where they are; the name says in which form.

        `images.npz` is a file of arrays, `images.parquet` a table, both with the numbers as they are, labels, and what
        the memory says of itself (`suite.memory.exporting`). Any other name is a folder of PNG files in display space,
        a folder for each class, as torchvision's ImageFolder reads them. Raises UsageError for a file that is there, a
        folder that is not empty, and pictures of other than 1 or 3 channels.
        """
        from suite.memory import exporting

        exporting.export(self, Path(to))
        return Path(to)

    def evaluate(
        self,
        protocol: str | Protocol = "paper",
        *,
        networks: int | None = None,
        epochs: int | None = None,
        controls: Sequence[str | Control] | None = None,
        architecture: str | Architecture | None = None,
        data_dir: str | Path | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> Comparison:
        """Train fresh networks on what the memory recalls, and on its controls' images; test them on the test images.

        `protocol` is a published one by name, or an object; `networks` and `epochs` make it shorter. `controls` are
        real images that a memory of this budget must beat, by name or as objects; None: those it was distilled with.
        `architecture` None: the one it was distilled with. `device` None: a GPU if there is one; it is set up as for a
        run (`suite.core.device.prepare_device`), so that both measure the same. The data set is read from `data_dir`
        (None: the command's default) and must be the one the memory was distilled from. The networks' draws follow
        from the memory's seed.
        Raises RunError for a memory that says too little of itself, and for missing or other data; UsageError for a
        device that is not there.
        """
        load_components()
        config = self.about.get("config", {})
        if config.get("is") not in JUDGED:
            made_by = config.get("is", "none that it names")
            raise RunError(
                f"evaluate() is for memories of the experiments {' and '.join(JUDGED)}; this one is of {made_by}"
            )
        require_shape(config, memory_file.Distilled, "what the memory says of its distillation")
        if not {"seed", "dataset_digest"} <= self.about.keys():
            raise RunError("the memory does not say of which seed and data it is, so evaluate() can't judge it")
        judged_by = _protocol(protocol, networks, epochs)
        key, folder = Key(self.about["seed"]), Path(data_dir) if data_dir is not None else default_data_dir()
        dataset: Dataset = rebuilt("datasets", config["dataset"])
        setting = Setting(
            dataset.info.shape,
            dataset.info.classes,
            _component("architectures", config["architecture"] if architecture is None else architecture),
            self.parameterization,
            dataset.augmentation if config["augmentation"] == "default" else config["augmentation"],
            prepare_device(device),
        )
        if (setting.shape, setting.classes) != (self.shape, len(self.class_names)):
            raise RunError(f"the memory recalls other images or classes than {dataset.info.name} has")
        beside = [_component("controls", c) for c in (config["controls"] if controls is None else controls)]
        data = loading.load(dataset, folder, key("data"), config["validation"])
        if data.digest != self.about["dataset_digest"]:
            raise RunError(f"{data.info.name} in {folder} is not the data that the memory was distilled from")
        self._require_room(setting.parameterization, setting.device)
        return compare(
            setting,
            {name: tensor.to(setting.device) for name, tensor in self.tensors.items()},
            data,
            beside,
            config["images_per_class"],
            judged_by,
            key("evaluation"),
            (lambda sentence: print(sentence, file=sys.stderr)) if progress else (lambda sentence: None),
        )

    # ------------------------------------------------------------ used

    def preprocess(self, pixels: Tensor) -> Float[Tensor, "n channels height width"]:
        """Your own images as the memory's networks see them: uint8 from 0 to 255, or numbers from 0 to 1.

        Raises UsageError for images of another shape, and for numbers outside of 0 to 1, which would be preprocessed to
        something that no network here was trained on.
        """
        if self.transform is None:
            name = _beside(self.about["preprocessing"])
            raise RunError(f"images can't be preprocessed without {name}, which belongs beside the memory's file")
        shape = tuple(self.about["shape"])
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != shape:
            raise UsageError(f"images of shape {tuple(pixels.shape)} were given, and must be (n, {str(shape)[1:-1]})")
        if pixels.dtype != torch.uint8:
            low, high = (float(pixels.min()), float(pixels.max())) if pixels.numel() else (0.0, 0.0)
            if not pixels.is_floating_point() or not (low >= 0 and high <= 1):
                raise UsageError(
                    f"numbers of type {str(pixels.dtype).removeprefix('torch.')} from {low:.4g} to {high:.4g} were "
                    "given, and must be uint8 from 0 to 255 or floating point from 0 to 1; divide them by the largest "
                    "that is possible"
                )
        return self.transform.apply(pixels)

    def train(
        self,
        network: nn.Module,
        *,
        protocol: str | Protocol | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: str | None = None,
        progress: bool = True,
    ) -> nn.Module:
        """Train your own network on what the memory recalls, as those were trained whose accuracy its record has.

        The network is changed in place, and returned on the device and in evaluation mode. Its inputs are preprocessed
        images (`preprocess`), its outputs logits of the memory's classes. `protocol` None: that of the memory's file.
        What is done is printed. Raises UsageError for a network that does not take the images or has other classes.
        """
        split, place = self._recalled(), prepare_device(device)
        judged_by = _protocol(self._own_protocol() if protocol is None else protocol, None, epochs)
        augmentation = self._augmentation()
        network = network.to(place).eval()
        wanted = (len(split.images[:2]), len(self.class_names))
        for mode in (False, True):  # some have other outputs while they train; a copy, which may keep statistics
            try:
                with torch.no_grad(), global_generators(Key(seed)("trial")):
                    given = deepcopy(network).train(mode)(split.images[:2].to(place))
            except Exception as error:  # whatever somebody's network raises
                raise UsageError(
                    f"the network does not take images of {self.shape}: {one_line(error)[:200]}"
                ) from error
            shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            if shape != wanted:
                raise UsageError(f"the network gives {shape} for {wanted[0]} images, and must give logits {wanted}")
        if progress:
            kind = self.about["preprocessing"]["name"]
            print(
                f"training on {len(split)} images of {self.shape}, preprocessed by '{kind}': "
                f"{judged_by.epochs} epochs in batches of {judged_by.batch}, {judged_by.optimizer} at {judged_by.lr:g} "
                f"with momentum {judged_by.momentum:g}, augmentation '{judged_by.augmentation_of(augmentation)}'; give "
                "it images through memory.preprocess()",
                file=sys.stderr,
            )
        own = _Own(network)
        setting = Setting(self.shape, len(self.class_names), own, self.parameterization, augmentation, place)
        network.train()
        with global_generators(Key(seed)("network")):  # dropout draws from them
            train_further(setting, network, split, judged_by, Key(seed))
        return network.eval()

    def _own_protocol(self) -> Protocol:
        """What the file says of the networks that judged the memory; the paper's protocol, where it says nothing."""
        try:
            return Protocol(**self.about.get("protocol", {}))
        except (TypeError, UsageError) as error:
            raise RunError(
                f"the memory's file names no protocol of this suite ({one_line(error)}); name one"
            ) from error

    def _augmentation(self) -> str:
        """Of its training images, as far as the file says."""
        config = self.about.get("config", {})
        named, dataset = config.get("augmentation", "none"), config.get("dataset")
        while named == "default" and isinstance(dataset, dict):
            named, dataset = dataset.get("augmentation", "default"), dataset.get("of")
        return "none" if named == "default" else str(named)

    # ------------------------------------------------------------ shown

    def __repr__(self) -> str:
        """One line: data set, budget, parameterization, images and iteration, as far as `about` says."""
        about, numbers = self.about, sum(tensor.numel() for tensor in self.tensors.values())
        parts = [str(about.get("dataset", "?")), str(about["parameterization"]["is"])]
        budget = about.get("budget", {})
        parts.append(f"{numbers:,} numbers" + (f" ({budget['images_per_class']:.3g} I/C)" if budget else ""))
        images = f"{len(self.class_names) * budget['recalled_per_class']} images" if budget else "images"
        parts.append(f"{images} of {self.shape}")
        if "iteration" in about:
            parts.append(f"iteration {about['iteration']} of {about.get('iterations', '?')}")
        return printable(f"Memory({', '.join(parts)})")

    def _repr_png_(self) -> bytes | None:
        """Recalled images as a PNG, one row for each class; None where the memory can't be shown."""
        try:
            images, labels = self.display()
        except SuiteError:
            return None
        from PIL import Image

        images = with_colours(images)
        shown = [images[labels == c][:SHOWN_PER_CLASS] for c in range(min(len(self.class_names), SHOWN_CLASSES))]
        grid = torch.nn.functional.pad(torch.stack(shown), (1, 1, 1, 1), value=1.0)  # a white line around each image
        rows, columns, channels, height, width = grid.shape
        pixels = grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
        pixels = pixels.clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, -1, 3)
        scale = -(-SHOWN_PIXELS // self.shape.height)
        picture = Image.fromarray(pixels.numpy()).resize(
            (pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST
        )
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str:
        """The line and the picture, for a notebook."""
        line, png = html.escape(repr(self)), self._repr_png_()
        if png is None:
            return f"<code>{line}</code>"
        classes = html.escape(", ".join(self.class_names[:SHOWN_CLASSES]))
        data = base64.b64encode(png).decode()
        return (
            f'<code>{line}</code><br><img alt="recalled images" src="data:image/png;base64,{data}"><br>rows: {classes}'
        )

    # ------------------------------------------------------------ files

    def save(self, path: Path) -> str:
        """Write the memory, a large preprocessing beside it; returns the SHA-256. Same memory, same bytes."""
        tensors = {f"memory/{k}": v.detach().cpu().contiguous().clone() for k, v in self.tensors.items()}
        if self.transform is not None:
            fitted = {f"preprocessing/{k}": v.contiguous().clone() for k, v in self.transform.tensors().items()}
            if _is_embedded(self.transform):
                tensors |= fitted
            else:
                write_atomic(path.with_name(_beside(self.about["preprocessing"])), save(fitted))
        about = self.about | {"schema": SCHEMA}
        about["sha256"] = _seal(tensors, about)
        data = save(tensors, {"suite": canonical_json(about)})  # one key: the order of several is not fixed
        write_atomic(path, data)
        return sha256(data)

    @staticmethod
    def load(file: str | Path) -> "Memory":
        """Read and verify a memory; runs no code. Raises RunError for a file that is missing, foreign or damaged."""
        path = Path(file)
        tensors, metadata = _read(path)
        about = _about(path, tensors, metadata)
        fitted = _under("preprocessing/", tensors)
        beside = path.with_name(_beside(about["preprocessing"]))
        if not fitted and os.path.lexists(beside):
            fitted = _under("preprocessing/", _read(beside)[0])
        needs = about["preprocessing_stored"]
        transform = preprocess.restore(about["preprocessing"], fitted) if fitted or not needs else None
        memory = Memory(_under("memory/", tensors), about, transform)
        _require_whole(path, memory)
        return memory


@dataclass(frozen=True, eq=False)
class _Own:
    """A network that is there, in the place of an architecture."""

    network: nn.Module

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network."""
        return self.network


def load(file: str | Path) -> Memory:
    """Read and verify a memory: its file, or the name of one in the gallery, such as 'digits-1ipc-bptt'.

    `suite.load` is this. Raises RunError for what is missing, foreign or damaged.
    """
    return Memory.load(file_of(file))


def _protocol(protocol: str | Protocol, networks: int | None, epochs: int | None) -> Protocol:
    """A published protocol by its name, or the one that is given, with other numbers of networks and epochs."""
    protocol = published(protocol) if isinstance(protocol, str) else protocol
    networks = protocol.networks if networks is None else networks
    return replace(protocol, networks=networks, epochs=protocol.epochs if epochs is None else epochs)


def _component(kind: str, given: Any) -> Any:
    """A component from its description, from its name, or given as an object."""
    return rebuilt(kind, given) if isinstance(given, dict) else component(kind, given)


def described(experiment: Any, shape: ImageShape, transform: Transform, budget: Budget) -> dict[str, Any]:
    """What a memory's `about` says of the experiment that made it."""
    return {
        "shape": [shape.channels, shape.height, shape.width],
        "preprocessing": transform.describe(),
        "preprocessing_stored": bool(transform.tensors()),
        "parameterization": describe(experiment.parameterization),
        "budget": asdict(budget),
        "architecture": describe(experiment.architecture),
        "protocol": experiment.evaluation.settings(),
        "config": describe(experiment),
        "config_hash": fingerprint(experiment),
    }


def rebuilt(kind: str, description: dict[str, Any]) -> Any:
    """A registered component from its description; one among its fields is of its kind, or of the kind that has it."""

    def inner(part: dict[str, Any]) -> str:
        homes = [one for one in REGISTRIES if part["is"] in REGISTRIES[one].names()]
        return kind if kind in homes or not homes else homes[0]

    fields = {
        k: rebuilt(inner(v), v) if isinstance(v, dict) and "is" in v else v
        for k, v in description.items()
        if k not in ("is", "source")
    }
    name = description["is"]
    if not isinstance(name, str) or not name.isidentifier():
        raise RunError(f"the memory needs one of {kind} that is called {shown(name)}, and none can be")
    if name not in REGISTRIES[kind].names():
        raise _Unknown(f"the memory needs {kind}.{name}: {REGISTRIES[kind].unknown(name)}")
    try:
        return REGISTRIES[kind][name].build(**fields)
    except SuiteError as error:
        raise RunError(f"the memory needs {kind}.{name}: {error}") from error
    except Exception as error:  # of settings that somebody else wrote, and of code from outside
        raise RunError(f"the memory needs {kind}.{name}: {one_line(error)}") from error


class _Unknown(RunError):
    """The memory is of a method that is not registered here."""


def _read(path: Path) -> tuple[Params, dict[str, Any]]:
    """As `read_tensors`, of a file that this machine can verify: it is in memory as bytes and as tensors at once.

    The name may be a link, as all are in a cache of Hugging Face: whatever is read is verified.
    """
    try:
        return read_tensors(path, bytes_of(CPU) // 3, follow=True)
    except FileNotFoundError as error:
        raise RunError(f"there is no file {path}") from error


def _about(path: Path, tensors: Params, metadata: dict[str, Any]) -> dict[str, Any]:
    """What the memory says of itself: of this schema, under the right seal, and of the right types."""
    text = metadata.get("suite")
    if not isinstance(text, str):
        raise RunError(f"{path} is a safetensors file, but not a memory of this suite")
    parse_json(text, dict, str(path))  # refuses NaN and nesting, and might turn numbers into others
    about: dict[str, Any] = json.loads(text)
    if about.get("schema") != SCHEMA:
        schema = shown(about.get("schema"))
        raise RunError(f"{path} has memory schema {schema}; this version of the suite reads {SCHEMA}")
    if _seal(tensors, about) != about.get("sha256"):
        raise RunError(f"{path} is damaged: it does not hold what was saved; fetch or distil it again")
    parse_json(text, memory_file.About, str(path))
    return about


def _require_whole(path: Path, memory: Memory) -> None:
    """Raise RunError for tensors that are not those of the parameterization, or not those of the preprocessing.

    A memory of a method that is not registered here can be looked at; recalling it says what is missing.
    """
    try:
        parameterization = memory.parameterization
    except _Unknown:
        return
    stored = sum(tensor.numel() for tensor in memory.tensors.values())
    wrong = []
    for budget in _budgets(memory.about, stored):
        try:
            fresh = fresh_memory(parameterization, memory.shape, len(memory.class_names), budget)
            wrong.append(memory_file.difference(memory.tensors, fresh))
        except Exception as error:  # of a description that can't be: whatever it leads a method to
            wrong.append(f"can't be ({one_line(error)[:300]})")
    if not wrong or all(wrong):
        name = memory.about["parameterization"]["is"]
        raise RunError(f"{path} is no memory of '{name}': it {wrong[0] if wrong else 'stores nothing'}")
    if memory.transform is not None:
        another: Any = replace(memory.transform)  # type: ignore[type-var]  # one whose inverse, without numbers, goes
        try:
            tried(lambda: another.display(torch.zeros(1, *memory.about["shape"])))
        except (RuntimeError, TypeError) as error:
            raise RunError(
                f"{path} holds a preprocessing '{another.name}' of other images than {memory.shape}"
            ) from error


def _budgets(about: dict[str, Any], stored: int) -> list[float]:
    """The budgets that a memory may have been made of, in images per class: what was asked for first, if it says so.

    Else what it stores, with half a number more, against the rounding of the division. A budget that affords four
    times as much would have made a larger memory.
    """
    config, classes = about.get("config", {}), len(about["class_names"])
    unit = classes * math.prod(about["shape"])
    asked = [config.get("images_per_class"), config.get("images_per_task")]
    numbers = [value if isinstance(value, (int, float)) else 0 for value in asked]
    counts = [about.get("budget", {}).get("stored_numbers", stored), stored]
    budgets = [numbers[0], numbers[1] / classes, *((count + 0.5) / unit for count in counts)]
    return [budget for budget in dict.fromkeys(budgets) if 0 < budget * unit <= 4 * stored + 1]


def _seal(tensors: Params, about: dict[str, Any]) -> str:
    """SHA-256 of every tensor and of the description."""
    return json_sha256([sealed.digest(tensors), {k: v for k, v in about.items() if k != "sha256"}])


def _under(prefix: str, tensors: Params) -> Params:
    return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}


def beside(memory: Memory) -> str | None:
    """The name of the file that a large preprocessing is in, beside the memory's own; None where there is none."""
    stored = memory.about["preprocessing_stored"] and memory.transform is None
    large = memory.transform is not None and not _is_embedded(memory.transform)
    return _beside(memory.about["preprocessing"]) if stored or large else None


def _is_embedded(transform: Transform) -> bool:
    """Whether a preprocessing travels inside the memory's file."""
    return sum(v.numel() * v.element_size() for v in transform.tensors().values()) <= EMBEDDED_BYTES


def _beside(preprocessing: dict[str, Any]) -> str:
    return f"preprocessing-{preprocessing['sha256'][:12]}.safetensors"


def with_colours(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n shown h wide"]:
    """Images that can be shown: those of 1 or 3 channels as they are, of others the channels side by side in grey."""
    if images.shape[1] in (1, 3):
        return images
    return torch.cat(images.split(1, dim=1), dim=3)


def cosine_similarities(matrices: Float[Tensor, "r classes bases"]) -> Float[Tensor, "classes classes"]:
    """Cosine similarity of every two classes' coefficients: all r rows of a class, one after the other."""
    vectors = torch.nn.functional.normalize(torch.flatten(matrices.transpose(0, 1), 1), dim=1)
    return vectors @ vectors.T
