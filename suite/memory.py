"""A distilled memory as a file: self-describing, verified when read, and usable without the suite's command line.

memory = suite.load("runs/quickstart/.../memory.safetensors")
loader = torch.utils.data.DataLoader(memory.dataset(), batch_size=64, shuffle=True)
"""

import base64
import html
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import TensorDataset

from suite.core.device import prepare_device
from suite.datasets import loading
from suite.datasets.sources import default_data_dir
from suite.errors import RunError, SuiteError, UsageError
from suite.evaluation.comparison import Comparison, compare
from suite.evaluation.evaluate import recall_all
from suite.evaluation.protocol import Protocol, published
from suite.images import preprocess
from suite.keys import Key
from suite.registry import REGISTRIES, component, describe, fingerprint, load_components
from suite.storage import sealed
from suite.storage.files import canonical_json, json_sha256, make_directory, sha256, write_atomic
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
SHOWN_PIXELS = 48
"""Smaller images are enlarged in that picture to at least this height, by a whole factor."""


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
        """The same with the preprocessing undone: pixels in [0, 1]."""
        if self.transform is None:
            name = _beside(self.about["preprocessing"])
            raise RunError(f"the preprocessing can't be undone without {name}, which belongs beside the memory's file")
        images, labels = self.recall()
        return self.transform.display(images), labels

    def dataset(self) -> TensorDataset:
        """(image, label) pairs for a torch DataLoader: a label is a class number.

        Of a memory with learned labels (`soft_labels`) it is the probabilities of all classes, a row of float32.
        torch's `cross_entropy` takes either; `recall` gives the class numbers in any case.
        """
        split = self._recalled()
        return TensorDataset(split.images, split.taught)

    def _recalled(self) -> Split:
        return recall_all(self.parameterization, self.tensors, len(self.class_names))

    def export(self, directory: str | Path) -> Path:
        """PNG files, a folder for each class, in display space; readable by torchvision's ImageFolder.

        Raises UsageError for images of other than 1 or 3 channels, which a PNG file would not give back.
        """
        from torchvision.utils import save_image

        if self.shape.channels not in (1, 3):
            raise UsageError(
                f"images of {self.shape.channels} channels can't be exported as PNG files, which have 1 or 3; take "
                "them from the memory's dataset()"
            )

        images, labels = self.display()
        target = Path(directory)
        for c, name in enumerate(self.class_names):
            folder = make_directory(target / f"{c:03d}_{_file_name(name)}")
            for i, image in enumerate(images[labels == c]):
                save_image(image, folder / f"{i:04d}.png")
        return target

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
        if config.get("is") != "distillation":
            made_by = config.get("is", "none that it names")
            raise RunError(f"evaluate() is for memories of the experiment distillation; this one is of {made_by}")
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
        beside = [_component("controls", c) for c in (config["controls"] if controls is None else controls)]
        data = loading.load(dataset, folder, key("data"), config["validation"])
        if data.digest != self.about["dataset_digest"]:
            raise RunError(f"{data.info.name} in {folder} is not the data that the memory was distilled from")
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
            parts.append(f"iteration {about['iteration']} of {about['iterations']}")
        return f"Memory({', '.join(parts)})"

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
            if sum(v.numel() * v.element_size() for v in fitted.values()) <= EMBEDDED_BYTES:
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
        if "suite" not in metadata:
            raise RunError(f"{path} is a safetensors file, but not a memory of this suite")
        try:
            about = dict(json.loads(metadata["suite"]))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged: its description can't be read; fetch or distil it again") from error
        if about.get("schema") != SCHEMA:
            raise RunError(f"{path} has memory schema {about.get('schema')}; this version of the suite reads {SCHEMA}")
        if _seal(tensors, about) != about.get("sha256"):
            raise RunError(f"{path} is damaged: it does not hold what was saved; fetch or distil it again")
        fitted = _under("preprocessing/", tensors)
        beside = path.with_name(_beside(about["preprocessing"]))
        if not fitted and beside.is_file():
            fitted = _under("preprocessing/", _read(beside)[0])
        needs = about["preprocessing_stored"]
        transform = preprocess.restore(about["preprocessing"], fitted) if fitted or not needs else None
        return Memory(_under("memory/", tensors), about, transform)


load = Memory.load
"""Read and verify a memory's file; `suite.load` is this."""


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
        "protocol": asdict(experiment.evaluation),
        "config": describe(experiment),
        "config_hash": fingerprint(experiment),
    }


def rebuilt(kind: str, description: dict[str, Any]) -> Any:
    """A registered component from its description; one among its fields is of its kind, or of the kind that has it."""

    def inner(name: str) -> str:
        homes = [one for one in REGISTRIES if name in REGISTRIES[one].names()]
        return kind if kind in homes or not homes else homes[0]

    fields = {
        k: rebuilt(inner(v["is"]), v) if isinstance(v, dict) and "is" in v else v
        for k, v in description.items()
        if k not in ("is", "source")
    }
    try:
        return REGISTRIES[kind][description["is"]].build(**fields)
    except (SuiteError, TypeError) as error:
        raise RunError(f"the memory needs {kind}.{description['is']}: {error}") from error


def _read(path: Path) -> tuple[Params, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunError(f"there is no file {path}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} can't be read as a memory ({error}); it is damaged or of another kind") from error


def _seal(tensors: Params, about: dict[str, Any]) -> str:
    """SHA-256 of every tensor and of the description."""
    return json_sha256([sealed.digest(tensors), {k: v for k, v in about.items() if k != "sha256"}])


def _under(prefix: str, tensors: Params) -> Params:
    return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}


def _beside(preprocessing: dict[str, Any]) -> str:
    return f"preprocessing-{preprocessing['sha256'][:12]}.safetensors"


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def with_colours(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n shown h wide"]:
    """Images that can be shown: those of 1 or 3 channels as they are, of others the channels side by side in grey."""
    if images.shape[1] in (1, 3):
        return images
    return torch.cat(images.split(1, dim=1), dim=3)


def cosine_similarities(matrices: Float[Tensor, "r classes bases"]) -> Float[Tensor, "classes classes"]:
    """Cosine similarity of every two classes' coefficients: all r rows of a class, one after the other."""
    vectors = torch.nn.functional.normalize(torch.flatten(matrices.transpose(0, 1), 1), dim=1)
    return vectors @ vectors.T
