"""Writers of the layouts that importers read, as their authors' code writes them."""

import io
from pathlib import Path
from typing import Any

import datasets
import h5py
import msgpack
import numpy as np
import scipy.fft
import torch
from PIL import Image
from torch import Tensor


def dc(file: Path, sets: list[tuple[Tensor, Tensor]], accuracies: dict[str, list[float]], old: bool = False) -> Path:
    """As DatasetCondensation's `main.py`; `old`: as torch wrote before 1.6, and numpy before 2."""
    pairs = [[images, labels] for images, labels in sets]
    table = {network: [np.float64(value) for value in values] for network, values in accuracies.items()}
    written = io.BytesIO()
    torch.save({"data": pairs, "accs_all_exps": table}, written, _use_new_zipfile_serialization=not old)
    data = written.getvalue()
    if old:
        assert b"cnumpy._core.multiarray\nscalar\n" in data or not any(accuracies.values())
        data = data.replace(b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n")
    file.write_bytes(data)
    return file


def mtt(folder: Path, images: Tensor, labels: Tensor, rate: Tensor | float | None = None) -> Path:
    """As MTT's and DATM's `distill.py`."""
    folder.mkdir()
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    if rate is not None:
        torch.save(rate, folder / "lr_best.pt")
    return folder


def fred(folder: Path, frequencies: Tensor, mask: Tensor, labels: Tensor) -> Path:
    """As FreD's `main_TM_FreD.py`: images of the frequencies that a mask keeps, in the scale of scipy's type II."""
    kept = (frequencies * mask).double().numpy()
    images = torch.from_numpy(scipy.fft.idctn(kept, axes=(2, 3))).float()
    mtt(folder, images, labels)
    torch.save(mask, folder / "mask.pt")
    return folder


class Hallucinator(torch.nn.Module):
    """As HaBa's `StyleTranslator`, with weights that are not those of a fresh one."""

    def __init__(self, given: int, channels: int, side: int, kernel: int = 3) -> None:
        super().__init__()
        self.enc = torch.nn.Conv2d(given, channels, kernel)
        self.scale = torch.nn.Parameter(torch.rand(1, channels, side - kernel + 1, side - kernel + 1))
        self.shift = torch.nn.Parameter(torch.rand(1, channels, side - kernel + 1, side - kernel + 1))
        self.dec = torch.nn.ConvTranspose2d(channels, channels, kernel)

    def forward(self, images: Tensor) -> Tensor:
        return self.dec(self.scale * self.enc(images) + self.shift)


def haba(folder: Path, images: Tensor, networks: torch.nn.ModuleList) -> Path:
    """As HaBa's `distill_fac.py`."""
    folder.mkdir()
    torch.save(images, folder / "images_best.pt")
    torch.save(networks.state_dict(), folder / "weights_best.pt")
    return folder


class SineField(torch.nn.Module):
    """As DDiF's `Siren`: a linear layer in each entry of `net`, its sine, and a last linear layer."""

    def __init__(self, channels: int, width: int = 5, waves: tuple[float, float] = (30.0, 10.0)) -> None:
        super().__init__()
        self.waves = waves
        self.net = torch.nn.ModuleList(
            torch.nn.ModuleDict({"linear": torch.nn.Linear(inputs, width)}) for inputs in (2, width)
        )
        self.last_layer = torch.nn.ModuleDict({"linear": torch.nn.Linear(width, channels)})

    def colour(self, row: float, column: float) -> Tensor:
        x = torch.tensor([row, column])
        for wave, layer in zip(self.waves, self.net, strict=True):
            x = torch.sin(wave * layer["linear"](x))
        return self.last_layer["linear"](x)


def ddif(file: Path, fields: list[SineField], labels: Tensor, rate: Tensor | None = None) -> Path:
    """As DDiF's `SynSet/DDiF.py`."""
    whole = {"nf": [dict(field.state_dict()) for field in fields], "label": labels}
    torch.save(whole | ({} if rate is None else {"syn_lr": rate}), file)
    return file


def idc(file: Path, images: Tensor, labels: Tensor) -> Path:
    """As IDC's `condense.py`."""
    torch.save([images, labels], file)
    return file


def rat_bptt(file: Path, images: Tensor, labels: Tensor | None = None) -> Path:
    """As RaT-BPTT's `base2.py`."""
    with h5py.File(file, "w") as opened:
        opened.create_dataset("data", data=images.flatten(1).numpy())
        opened.create_dataset("epoch", data=1825)
        if labels is not None:
            opened.create_dataset("label", data=labels.numpy())
    return file


def flax_array(values: np.ndarray[Any, Any]) -> msgpack.ExtType:
    """As flax's `serialization.py`."""
    return msgpack.ExtType(1, msgpack.packb([list(values.shape), values.dtype.name, values.tobytes()]))


def rcig(file: Path, images: Tensor, labels: Tensor, part: str = "ema_average") -> Path:
    """As RCIG's checkpoints."""
    numbers = {
        "x_proto": flax_array(images.permute(0, 2, 3, 1).contiguous().numpy()),
        "y_proto": flax_array(labels.numpy()),
        "log_temp": flax_array(np.float32(0)),
    }
    last = {name: flax_array(np.zeros((2, 2), "float32")) for name in numbers} if part == "ema_average" else numbers
    whole = {"step": flax_array(np.int32(7)), "params": last, "train_it": flax_array(np.int32(7))}
    file.write_bytes(msgpack.packb(whole | {part: numbers}))
    return file


def kip(file: Path, images: Tensor, labels: Tensor) -> Path:
    """As KIP's published sets."""
    np.savez(file, images=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
    return file


def hugging_face(
    file: Path,
    labels: Tensor,
    *,
    pixel_values: Tensor | None = None,
    image: Tensor | None = None,
    soft_label: Tensor | None = None,
    names: list[str] | None = None,
) -> Path:
    """As the package `datasets` writes parquet: exact numbers, pictures of numbers in [0, 1], or both."""
    columns: dict[str, Any] = {"label": labels.tolist()}
    types: dict[str, Any] = {"label": datasets.ClassLabel(names=names) if names else datasets.Value("int64")}
    if pixel_values is not None:
        columns["pixel_values"] = list(pixel_values.numpy())
        types["pixel_values"] = datasets.Array3D(tuple(pixel_values.shape[1:]), "float32")
    if image is not None:
        pixels = image.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        columns["image"] = [Image.fromarray(one[:, :, 0] if one.shape[2] == 1 else one) for one in pixels]
        types["image"] = datasets.Image()
    if soft_label is not None:
        columns["soft_label"] = list(soft_label.numpy())
        types["soft_label"] = datasets.List(datasets.Value("float32"))
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, datasets.Features(types)).to_parquet(file)
    return file
