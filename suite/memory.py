"""A distilled memory as a file: self-describing, verified when read, and usable without the suite's command line.

from suite.memory import Memory
memory = Memory.load("runs/quickstart/…/memory.safetensors")
loader = torch.utils.data.DataLoader(memory.dataset(), batch_size=64, shuffle=True)
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import TensorDataset

from suite.errors import RunError, SuiteError
from suite.images import preprocess
from suite.registry import REGISTRIES, describe, fingerprint, load_components
from suite.storage import sealed
from suite.storage.files import canonical_json, json_sha256, make_directory, sha256, write_atomic
from suite.types import Budget, ImageShape, Parameterization, Params, Transform

SCHEMA = 1
EMBEDDED_BYTES = 2**20
"""A preprocessing up to this size travels inside the memory's file; a ZCA matrix lies beside it."""


@dataclass(frozen=True, eq=False)
class Memory:
    """The learned tensors, how to recall from them, and what they were learned from.

    `about` holds data set, class names, preprocessing, parameterization, budget, configuration hash and protocol.
    """

    tensors: Params
    about: dict[str, Any]
    transform: Transform | None
    """Preprocessing of the images; None if its matrix was not found beside the file."""

    @property
    def parameterization(self) -> Parameterization:
        """Rebuilt from its description; a method from outside must have been registered before."""
        load_components()
        return rebuilt("parameterizations", self.about["parameterization"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.about["class_names"])

    @property
    def shape(self) -> ImageShape:
        return ImageShape(*self.about["shape"])

    def recall(self) -> tuple[Float[Tensor, "n channels height width"], Int64[Tensor, " n"]]:
        """Every image, preprocessed as the networks saw it, class by class, and its label."""
        classes = torch.arange(len(self.class_names))
        with torch.no_grad():
            images = self.parameterization.recall(self.tensors, classes)
        return torch.flatten(images, 0, 1), classes.repeat_interleave(images.shape[1])

    def display(self) -> tuple[Float[Tensor, "n channels height width"], Int64[Tensor, " n"]]:
        """The same with the preprocessing undone: pixels in [0, 1]."""
        if self.transform is None:
            name = _beside(self.about["preprocessing"])
            raise RunError(f"the preprocessing can't be undone without {name}, which belongs beside the memory's file")
        images, labels = self.recall()
        return self.transform.display(images), labels

    def dataset(self) -> TensorDataset:
        """(image, label) pairs for a torch DataLoader."""
        return TensorDataset(*self.recall())

    def export(self, directory: str | Path) -> Path:
        """PNG files, a folder for each class, in display space; readable by torchvision's ImageFolder."""
        from torchvision.utils import save_image

        images, labels = self.display()
        target = Path(directory)
        for c, name in enumerate(self.class_names):
            folder = make_directory(target / f"{c:03d}_{_file_name(name)}")
            for i, image in enumerate(images[labels == c]):
                save_image(image, folder / f"{i:04d}.png")
        return target

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


def cosine_similarities(matrices: Float[Tensor, "r classes bases"]) -> Float[Tensor, "classes classes"]:
    """Of the coefficients of every two classes: all r rows of a class, one after the other, are its vector."""
    vectors = torch.nn.functional.normalize(torch.flatten(matrices.transpose(0, 1), 1), dim=1)
    return vectors @ vectors.T
