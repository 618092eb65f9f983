"""Sets that store less than their images: FreD's frequencies, HaBa's hallucinators and DDiF's neural fields.

Each is decoded once, when it is read, and judged by its images; its budget is what it stores for them.
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

from suite.importers import torch_files
from suite.importers.base import (
    ForeignSet,
    Reading,
    images_of,
    importer,
    in_order,
    labels_of,
    refused,
    require_room,
    sizes,
    tensor_of,
)
from suite.importers.trajectories import IMAGES, LABELS, MASK, WEIGHTS

TOLERANCE = 1e-3
"""Of the largest frequency that an image stores, what may be left of those that its mask drops: float32's rounding."""


# ---------------------------------------------------------------- frequencies


@importer("fred")
def read_fred(path: Path, reading: Reading) -> ForeignSet:
    """FreD: a folder as of `mtt` with `mask.pt`: images of the frequencies that a mask of their class keeps.

    Shin et al., Frequency Domain-based Dataset Distillation, NeurIPS 2023. The images are stored decoded. Their budget
    is the frequencies that are kept, and for each class their places, one number for each.
    """
    images = images_of(path / IMAGES, torch_files.load(path / IMAGES), reading)
    labels = labels_of(path / LABELS, torch_files.load(path / LABELS))
    mask = images_of(path / MASK, torch_files.load(path / MASK), reading)
    if labels.ndim != 1 or not len(images) == len(labels) == len(mask):
        raise refused(path, f"it has {len(images)} images, {len(mask)} masks and labels of shape {tuple(labels.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise refused(path / MASK, "a mask holds other numbers than 0 and 1")
    places = 0
    for number in labels.unique():
        of_class = mask[labels == number].flatten(0, 1)
        if not bool((of_class == of_class[0]).all()):
            raise refused(path / MASK, f"the images of class {int(number)}, or their channels, have masks that differ")
        places += int(of_class[0].sum())
    frequencies = _frequencies(images)
    dropped, largest = (frequencies * (1 - mask)).abs().max(), (frequencies * mask).abs().max()
    if not bool(dropped <= TOLERANCE * largest):
        raise refused(path, f"its images have frequencies of {float(dropped):.3g} that its masks drop")
    kept = int(mask.sum())
    note = f"the images are decoded: {kept:,} frequencies and {places:,} places are what is stored"
    return ForeignSet(images, labels, notes=(note,), stored=kept + places)


def _frequencies(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """X_uv = Σ_ij x_ij cos(π u (2i + 1) / 2h) cos(π v (2j + 1) / 2w): the cosine transform, not normalised."""
    rows, columns = (_cosines(side) for side in images.shape[-2:])
    return (rows @ images.double() @ columns.T).float()


def _cosines(side: int) -> Float[Tensor, "side side"]:
    at = torch.arange(side, dtype=torch.float64)
    return torch.cos(math.pi / (2 * side) * at[:, None] * (2 * at + 1))


# ---------------------------------------------------------------- hallucinators


@importer("haba")
def read_haba(path: Path, reading: Reading) -> ForeignSet:
    """HaBa: a folder with `images_best.pt` and `weights_best.pt`: each image passes through each of several networks.

    y = Dᵀ(s ⊙ E(x) + b) by a convolution E, a scale and a shift for each pixel, and a transposed convolution D (Liu et
    al., Dataset Distillation via Factorization, NeurIPS 2022). The images stand class by class, as many of each, and
    may have one channel. Their budget is the images and all weights of the networks.
    """
    images = tensor_of(path / IMAGES, "images", torch_files.load(path / IMAGES), (4,)).float()
    networks = _hallucinators(path / WEIGHTS, torch_files.load(path / WEIGHTS))
    shape = reading.info.shape
    hidden = max(len(network["enc.weight"]) for network in networks) * images[0, 0].numel()
    require_room(path / IMAGES, len(images) * max(hidden, len(networks) * shape.numel))
    try:
        made = torch.stack([_hallucinated(images, network) for network in networks], 1)
    except RuntimeError as error:  # torch's, of sizes that do not fit
        raise refused(path, f"its images of {sizes(images)} do not fit its networks ({error})") from error
    decoded = images_of(path, made.flatten(0, 1), reading)
    stored = images.numel() + sum(weights.numel() for network in networks for weights in network.values())
    labels = in_order(len(images), reading.info.classes).repeat_interleave(len(networks))
    note = f"{len(images)} images and {len(networks)} networks, {stored:,} numbers in all, are what is stored"
    return ForeignSet(decoded, labels, notes=(note,), stored=stored)


PARTS = {"enc.weight": 4, "enc.bias": 1, "scale": 4, "shift": 4, "dec.weight": 4, "dec.bias": 1}
"""Of a hallucinator, its tensors and their axes."""


def _hallucinators(path: Path, value: Any) -> list[dict[str, Tensor]]:
    """The networks of a file, which names the tensors of the first '0.enc.weight' and so on."""
    if not isinstance(value, dict) or not value or len(value) % len(PARTS):
        raise refused(path, f"it is no table of networks of {len(PARTS)} tensors each")
    names = [[f"{i}.{part}" for part in PARTS] for i in range(len(value) // len(PARTS))]
    missing = [name for network in names for name in network if name not in value]
    if missing:
        raise refused(path, f"it has no '{missing[0]}'")
    return [
        {part: tensor_of(path, "weights", value[f"{i}.{part}"], (axes,)).float() for part, axes in PARTS.items()}
        for i in range(len(names))
    ]


def _hallucinated(images: Float[Tensor, "n c h w"], network: dict[str, Tensor]) -> Float[Tensor, "n c h w"]:
    hidden = conv2d(images, network["enc.weight"], network["enc.bias"])
    return conv_transpose2d(network["scale"] * hidden + network["shift"], network["dec.weight"], network["dec.bias"])


# ---------------------------------------------------------------- neural fields


@importer("ddif", waves=True)
def read_ddif(path: Path, reading: Reading) -> ForeignSet:
    """DDiF: `*synset_best.pt`, a small network for each image, which gives the colour at each place.

    Layers of sin(w (W x + b)) and a linear one at the end, at places (row, column) from -1 to 1 (Shin et al.,
    Distilling Dataset into Neural Field, ICLR 2025). `--waves` says w of the first layer and of the others. Its budget
    is all weights.
    """
    whole = torch_files.load(path)
    if not isinstance(whole, dict) or not isinstance(whole.get("nf"), list) or not whole["nf"]:
        raise refused(path, "it has no list of networks under 'nf'")
    layers = _layers(path, whole["nf"])
    shape, fields = reading.info.shape, len(whole["nf"])
    require_room(path, fields * shape.height * shape.width * max(bias.shape[1] for _, bias in layers))
    first, other = reading.waves or (0.0, 0.0)
    rows, columns = (torch.arange(side) / (shape.height - 1) * 2 - 1 for side in (shape.height, shape.width))
    hidden = torch.cartesian_prod(rows, columns).expand(fields, -1, -1)
    for number, (weight, bias) in enumerate(layers):
        hidden = torch.baddbmm(bias[:, None], hidden, weight.transpose(1, 2))
        if number < len(layers) - 1:
            hidden = torch.sin((other if number else first) * hidden)
    made = hidden.transpose(1, 2).unflatten(2, (shape.height, shape.width))
    stored = sum(weight.numel() + bias.numel() for weight, bias in layers)
    rate, labels = whole.get("syn_lr"), labels_of(path, whole.get("label"))
    if labels.ndim != 1:
        raise refused(path, "its labels are no class numbers")
    return ForeignSet(
        images_of(path, made, reading),
        labels,
        None if rate is None else float(tensor_of(path, "rate", rate, (0,))),
        notes=(f"the images are decoded: {stored:,} weights of {fields} networks are what is stored",),
        stored=stored,
    )


def _layers(path: Path, fields: list[Any]) -> list[tuple[Float[Tensor, "fields out in"], Float[Tensor, "fields out"]]]:
    """Weights and biases of every layer, those of all networks together; RunError for networks that are not alike."""
    first = fields[0] if isinstance(fields[0], dict) else {}
    names = [f"net.{i}.linear" for i in range((len(first) - 2) // 2)] + ["last_layer.linear"]
    keys = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    if not all(isinstance(field, dict) and set(field) == keys for field in fields):
        raise refused(path, "its networks have other tensors than those of layers 'net' and of a 'last_layer'")

    def stacked(key: str, axes: int) -> Tensor:
        found = [tensor_of(path, "weights", field[key], (axes,)).float() for field in fields]
        if any(one.shape != found[0].shape for one in found):
            raise refused(path, f"its networks differ in the shape of '{key}'")
        return torch.stack(found)

    layers = [(stacked(f"{name}.weight", 2), stacked(f"{name}.bias", 1)) for name in names]
    width = 2
    for weight, bias in layers:
        if weight.shape[2] != width or weight.shape[1] != bias.shape[1]:
            raise refused(path, "its layers do not fit each other")
        width = weight.shape[1]
    return layers
