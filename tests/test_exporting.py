"""Memories for other programs: arrays and tables that hold the very numbers, and say where they are from."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
import torch
from command_line import said
from pyarrow import parquet
from test_memory import NAMES, made

from suite.errors import RunError, UsageError
from suite.memory import Memory, sharing
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard


def soft() -> Memory:
    """A memory with labels of its own, all of which differ."""
    memory = made(SoftLabels(of=Standard()))
    noise = {k: torch.linspace(-1, 1, v.numel()).view(v.shape) for k, v in memory.tensors.items() if "label" in k}
    assert noise
    return replace(memory, tensors=memory.tensors | noise)


def arrays(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def same(array: Any, tensor: torch.Tensor) -> bool:
    """To the bit, and of the same type."""
    return bool(torch.from_numpy(array).dtype == tensor.dtype and torch.equal(torch.from_numpy(array), tensor))


@pytest.mark.parametrize("kind", ["none", "standardize", "zca_image"])
def test_arrays_hold_the_very_numbers(kind: str, tmp_path: Path) -> None:
    memory = made(kind=kind)
    found = arrays(memory.export(tmp_path / "images.npz"))
    (images, labels), (pixels, _) = memory.recall(), memory.display()
    assert same(found["images"], images) and same(found["labels"], labels) and same(found["pixels"], pixels)
    assert found["class_names"].tolist() == list(NAMES) and json.loads(str(found["about"])) == memory.about
    assert set(found) == {"images", "labels", "pixels", "class_names", "about"}
    memory.export(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "images.npz").read_bytes()


def test_soft_labels_are_what_networks_are_taught(tmp_path: Path) -> None:
    memory = soft()
    taught = memory.dataset().tensors[1]
    assert taught.is_floating_point()
    found = arrays(memory.export(tmp_path / "images.npz"))
    assert same(found["soft_labels"], taught) and same(found["labels"], memory.recall()[1])
    rows = parquet.read_table(memory.export(tmp_path / "images.parquet"))
    assert torch.equal(torch.tensor(rows.column("soft_label").to_pylist()), taught)


@pytest.mark.parametrize("memory", [made(), soft()], ids=["hard", "soft"])
def test_a_table_is_read_by_datasets_to_the_bit(memory: Memory, tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    file = memory.export(tmp_path / "images.parquet")
    rows = library.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    images, labels = memory.recall()
    assert rows.features["pixel_values"] == library.Array3D((3, 8, 8), "float32")
    assert same(np.array(rows.with_format("numpy")["pixel_values"][:], dtype="float32"), images)
    assert rows["label"][:] == labels.tolist() and rows.features["label"].names == list(NAMES)
    shown = torch.from_numpy(np.array(rows[2]["image"])).permute(2, 0, 1)
    assert shown.equal(memory.display()[0][2].mul(255).round().byte())
    if "soft_label" in rows.column_names:
        assert torch.equal(torch.tensor(rows["soft_label"][:]), memory.dataset().tensors[1])
    assert ("soft_label" in rows.column_names) == memory.dataset().tensors[1].is_floating_point()


def test_without_its_preprocessing_a_memory_gives_its_numbers_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = replace(made(kind="zca_image"), transform=None)
    found = arrays(memory.export(tmp_path / "images.npz"))
    assert "pixels" not in found and same(found["images"], memory.recall()[0])
    rows = parquet.read_table(memory.export(tmp_path / "images.parquet"))
    assert rows.column_names == ["pixel_values", "label"]
    said_of = capsys.readouterr().err.splitlines()
    assert len(said_of) == 2 and all("preprocessing can't be undone" in line for line in said_of)


def test_what_is_there_stays(tmp_path: Path) -> None:
    for name in ("images.npz", "images.parquet"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match="is there already; name a new file"):
            made().export(tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    with pytest.raises(RunError, match="can't write"):
        made().export(tmp_path / "images.npz" / "other.npz")


def test_a_table_without_its_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RunError, match=r"pip install 'addressable-memory-suite\[huggingface\]'"):
        made().export(tmp_path / "images.parquet")
    assert not list(tmp_path.iterdir())


def test_a_table_counts_with_32_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.memory.exporting.MOST_NUMBERS", 100)
    with pytest.raises(UsageError, match=r"too many for a table; export them to a file \.npz"):
        made().export(tmp_path / "images.parquet")


def test_the_command_exports_in_every_form(tmp_path: Path) -> None:
    made().save(tmp_path / "memory.safetensors")
    file = str(tmp_path / "memory.safetensors")
    for name in ("images.npz", "images.parquet", "pictures"):
        done = said(sharing.main, ["export", file, str(tmp_path / name)])
        assert done.status == 0 and done.out == f"exported to {tmp_path / name}\n", done.err
    assert len(list((tmp_path / "pictures").glob("*/*.png"))) == len(made().recall()[1])
    assert arrow.parquet.read_metadata(tmp_path / "images.parquet").num_rows == len(made().recall()[1])
    done = said(sharing.main, ["export", file, str(tmp_path / "images.npz")])
    assert done.status == 2 and done.err.count("\n") == 1
    assert said(sharing.main, ["export", str(tmp_path / "none"), str(tmp_path / "x")]).status == 1
