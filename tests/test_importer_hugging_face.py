"""Distilled sets in tables of parquet: as `datasets` writes them, in one file or several, here or on the Hub."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_sets
import numpy as np
import pyarrow as arrow
import pytest
import torch
from command_line import REPOSITORY, as_people_run_it, said
from PIL import Image
from pyarrow import parquet
from test_importers import CLASSES, DIGITS, PIXELS, SOFT, by_class, refusal, settled
from test_sharing import Hub, served

from suite import evaluate
from suite.errors import RunError, UsageError
from suite.importers.declared import Declared
from suite.importers.hub import fetched
from suite.memory import Memory
from suite.parameterizations.imported import Imported, ImportedLabels

NAMES = list(DIGITS.class_names)
EXACT = PIXELS * 6 - 2
"""In another space than pixels, and no whole 255ths."""
STANDARDIZED = Declared("standardized:0.3/0.2")


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`datasets` keeps what it makes."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


# ---------------------------------------------------------------- as others write them


def test_numbers_come_back_to_the_bit_and_classes_by_their_names(tmp_path: Path) -> None:
    turned = NAMES[::-1]
    file = foreign_sets.hugging_face(tmp_path / "set.parquet", 9 - CLASSES, pixel_values=EXACT, names=turned)
    known = settled("huggingface", file, STANDARDIZED)
    assert torch.equal(known.tensors["images"], by_class(EXACT)) and known.parameterization == Imported()
    assert known.settled["classes"] == "by the names in the file" and known.space.text == "standardized:0.3/0.2"
    assert "say: pixels, standardized" in refusal("huggingface", file, Declared())
    assert "so they are no pixels" in refusal("huggingface", file, Declared("pixels"))
    assert "in another order" in refusal("huggingface", file, replace(STANDARDIZED, classes="data-set"))


def test_pictures_are_pixels_and_their_classes_declared(tmp_path: Path) -> None:
    file = foreign_sets.hugging_face(tmp_path / "set.parquet", CLASSES, image=PIXELS)
    known = settled("huggingface", file, Declared(classes="data-set"))
    assert torch.allclose(known.tensors["images"], by_class(PIXELS), atol=0.5 / 255 + 1e-6)
    assert known.space.text == "pixels" and "the column 'image' is read" in known.notes
    assert "the images of 'huggingface' are pixels" in refusal("huggingface", file, STANDARDIZED)
    assert "--classes: " in refusal("huggingface", file, Declared())
    other = [f"digit {name}" for name in NAMES]
    named = foreign_sets.hugging_face(tmp_path / "named.parquet", CLASSES, image=PIXELS, names=other)
    assert "--classes: " in refusal("huggingface", named, Declared())


def test_soft_labels_go_before_classes_and_their_kind_is_declared(tmp_path: Path) -> None:
    file = foreign_sets.hugging_face(
        tmp_path / "set.parquet", CLASSES, pixel_values=EXACT, image=PIXELS, soft_label=SOFT, names=NAMES
    )
    kinds = "--labels: ", "probabilities, weights, logits, regression"
    sentence = refusal("huggingface", file, STANDARDIZED)
    assert all(words in sentence for words in kinds)
    assert "--classes: " in refusal("huggingface", file, replace(STANDARDIZED, labels="probabilities"))
    known = settled("huggingface", file, replace(STANDARDIZED, labels="probabilities", classes="data-set"))
    assert known.parameterization == ImportedLabels(Imported(), "probabilities")
    assert torch.equal(known.tensors["labels"], by_class(SOFT)) and torch.equal(
        known.tensors["images"], by_class(EXACT)
    )
    assert "the column 'soft_label' is read, not 'label'" in known.notes


def test_an_export_of_a_memory_is_read_to_the_bit(tmp_path: Path) -> None:
    from test_memory import NAMES as FRUIT
    from test_memory import SHAPE, made

    from suite.types import DatasetInfo

    memory = made()
    info = DatasetInfo("fruit", SHAPE, FRUIT, 30, 6)
    file = memory.export(tmp_path / "set.parquet")
    known = settled("huggingface", file, Declared("standardized:data-set"), info=info)
    assert torch.equal(known.tensors["images"].flatten(0, 1), memory.recall()[0])


# ---------------------------------------------------------------- files


def pieces(folder: Path, *names: str) -> Path:
    """Each file has an equal part of the images."""
    each = len(PIXELS) // len(names)
    for number, name in enumerate(names):
        rows = slice(number * each, (number + 1) * each)
        foreign_sets.hugging_face(folder / name, CLASSES[rows], pixel_values=PIXELS[rows], names=NAMES)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        ("train-00000-of-00002-0123456789abcdef.parquet", "train-00001-of-00002-0123456789abcdef.parquet"),
        ("train/0000.parquet", "train/0001.parquet"),
    ],
)
def test_a_set_in_several_files_is_one(names: tuple[str, ...], tmp_path: Path) -> None:
    folder = pieces(tmp_path / "set", *names)
    known = settled("huggingface", folder, Declared("pixels"))
    assert torch.equal(known.tensors["images"], by_class(PIXELS))
    (folder / names[0]).unlink()
    assert "of the 2 files of 'train' it has 1" in refusal("huggingface", folder, Declared("pixels"))


def test_the_part_that_trains_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    folder = foreign_sets.hugging_face(tmp_path / "set" / "train.parquet", CLASSES, pixel_values=PIXELS).parent
    foreign_sets.hugging_face(folder / "test.parquet", CLASSES, pixel_values=1 - PIXELS)
    plain = Declared("pixels", classes="data-set")
    known = settled("huggingface", folder, plain)
    assert torch.equal(known.tensors["images"], by_class(PIXELS))
    assert "the part 'train' is read, not test" in known.notes
    one = settled("huggingface", folder / "test.parquet", plain)
    assert torch.equal(one.tensors["images"], by_class(1 - PIXELS))
    (folder / "train.parquet").rename(folder / "\x1b[2J.parquet")
    sentence = refusal("huggingface", folder, plain)
    assert "holds several sets" in sentence and "name the folder or the file of one" in sentence
    for inner in ("ipc_1", "ipc_10"):
        foreign_sets.hugging_face(tmp_path / "configs" / inner / "train.parquet", CLASSES, pixel_values=PIXELS)
    assert "ipc_1/train, ipc_10/train" in refusal("huggingface", tmp_path / "configs", plain)


def test_files_of_one_set_agree(tmp_path: Path) -> None:
    for other in ({"image": PIXELS}, {"pixel_values": PIXELS, "names": NAMES[::-1]}):
        folder = tmp_path / "-".join(other)
        foreign_sets.hugging_face(folder / "a-00000-of-00002.parquet", CLASSES, pixel_values=PIXELS, names=NAMES)
        settings: dict[str, Any] = {"names": NAMES} | other
        foreign_sets.hugging_face(folder / "a-00001-of-00002.parquet", CLASSES, **settings)
        assert "other columns or classes" in refusal("huggingface", folder, Declared("pixels"))


def test_a_folder_without_tables_and_one_with_a_link_are_refused(tmp_path: Path) -> None:
    assert "no files of parquet" in refusal("huggingface", tmp_path)
    file = foreign_sets.hugging_face(tmp_path / "real.parquet", CLASSES, pixel_values=PIXELS)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").symlink_to(file)
    assert "a link" in refusal("huggingface", tmp_path / "set")


# ---------------------------------------------------------------- hostile

LISTS = [image.tolist() for image in PIXELS]


def table(file: Path, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), file)
    return file


def png(image: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


GREY = png(Image.new("L", (8, 8)))

TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"label": CLASSES.tolist()}, "no column 'pixel_values' or 'image', but label"),
    "no labels": ({"pixel_values": LISTS}, "no column 'soft_label' or 'label', but pixel_values"),
    "no rows": ({"pixel_values": LISTS[:0], "label": arrow.array([], arrow.int64())}, "it has 0 rows"),
    "ragged": ({"pixel_values": [*LISTS[:19], [[[1.0]]]], "label": CLASSES.tolist()}, "have 1 to 8 values"),
    "nothing in a row": ({"pixel_values": [*LISTS[:19], None], "label": CLASSES.tolist()}, "lacks values"),
    "nothing in a pixel": (
        {"pixel_values": [*LISTS[:19], [[[None] * 8] * 8]], "label": CLASSES.tolist()},
        "lacks values",
    ),
    "empty lists": ({"pixel_values": [[]] * 20, "label": CLASSES.tolist()}, "have 0 to 0 values"),
    "whole numbers": ({"pixel_values": [[[[1] * 8] * 8]] * 20, "label": CLASSES.tolist()}, "floating point is read"),
    "texts": ({"pixel_values": ["x"] * 20, "label": CLASSES.tolist()}, "is of string, not of numbers"),
    "NaN": ({"pixel_values": [[[[float("nan")] * 8] * 8]] * 20, "label": CLASSES.tolist()}, "NaN or infinity"),
    "too large": ({"pixel_values": [[[[1e300] * 8] * 8]] * 20, "label": CLASSES.tolist()}, "NaN or infinity"),
    "another size": ({"pixel_values": [[[[1.0] * 9] * 8]] * 20, "label": CLASSES.tolist()}, "its images are 1x8x9"),
    "no label in a row": ({"pixel_values": LISTS, "label": [*CLASSES.tolist()[:19], None]}, "lacks values"),
    "labels of floats": ({"pixel_values": LISTS, "label": CLASSES.double().tolist()}, "neither class numbers nor rows"),
    "labels of texts": ({"pixel_values": LISTS, "label": ["x"] * 20}, "not of numbers"),
    "a class too many": ({"pixel_values": LISTS, "label": (CLASSES + 1).tolist()}, "go from 1 to 10"),
    "no label known": ({"pixel_values": LISTS, "label": [-1] * 20}, "go from -1 to -1"),
    "a picture elsewhere": (
        {"image": [{"bytes": None, "path": "/etc/passwd"}] * 20, "label": CLASSES.tolist()},
        "row 0 is no PNG or JPEG file",
    ),
    "a picture of text": ({"image": [b"GIF89a"] * 20, "label": CLASSES.tolist()}, "row 0 is refused"),
    "texts for pictures": ({"image": ["x"] * 20, "label": CLASSES.tolist()}, "is no PNG or JPEG file"),
    "a picture of another size": (
        {"image": [GREY, png(Image.new("L", (9, 8)))] * 10, "label": CLASSES.tolist()},
        "row 1 is refused: it has 9 x 8 pixels",
    ),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_of_something_else_is_one_sentence(what: str, tmp_path: Path) -> None:
    columns, words = TABLES[what]
    sentence = refusal(
        "huggingface", table(tmp_path / "set.parquet", **columns), Declared("pixels", classes="data-set")
    )
    assert words in sentence, sentence


def test_a_picture_of_a_billion_pixels_is_not_decoded(tmp_path: Path) -> None:
    from test_importers import png as claimed

    file = table(tmp_path / "set.parquet", image=[claimed(100_000, 10_000)] * 20, label=CLASSES.tolist())
    assert "is refused" in refusal("huggingface", file)


@pytest.mark.parametrize("metadata", ["{", "[]", '"x"', "[" * 10_000, '{"info": 1}', "NaN"])
def test_what_a_table_says_of_itself_may_be_anything(metadata: str, tmp_path: Path) -> None:
    columns = {"pixel_values": LISTS, "label": CLASSES.tolist()}
    file = table(tmp_path / "set.parquet", {"huggingface": metadata}, **columns)
    if metadata == '{"info": 1}':
        assert settled("huggingface", file, Declared("pixels", classes="data-set")).settled["classes"]
    else:
        assert "says of its columns is damaged" in refusal("huggingface", file, Declared("pixels"))


def test_a_file_that_is_cut_or_holds_more_than_there_is_room_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = foreign_sets.hugging_face(tmp_path / "set.parquet", CLASSES, pixel_values=PIXELS)
    whole = file.read_bytes()
    for cut in (whole[:-1], whole[100:], whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1", b"PAR1", b""):
        (tmp_path / "cut.parquet").write_bytes(cut)
        assert "is refused" in refusal("huggingface", tmp_path / "cut.parquet", Declared("pixels"))
    zeros = [np.zeros((1, 8, 800_000), "float32").tolist()]
    bomb = table(tmp_path / "bomb.parquet", pixel_values=zeros, label=[0])
    assert bomb.stat().st_size < 500_000
    monkeypatch.setattr("suite.importers.base.most_bytes", lambda: 2**23)
    assert "that a set may take here" in refusal("huggingface", bomb, Declared("pixels"))


# ---------------------------------------------------------------- the Hub


def snapshot(tmp_path: Path) -> Path:
    """A repository as the library keeps it: links to files under other names."""
    folder = tmp_path / "snapshots" / ("c0ffee" + "0" * 34)
    blob = foreign_sets.hugging_face(tmp_path / "blobs" / "0123.parquet", CLASSES, image=PIXELS, names=NAMES)
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train-00000-of-00001.parquet").symlink_to(blob)
    return folder


@pytest.mark.parametrize(
    "source", ["hf:me/digits.set", "hf:me/digits.set@main", "hf:me/digits.set/data", "hf:me/digits.set/"]
)
def test_a_repository_is_fetched_and_named_with_its_commit(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    folder = snapshot(tmp_path)

    def give(name: str, **settings: Any) -> str:
        asked.append((name, settings["revision"], settings["repo_type"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    with fetched(source) as (place, called):
        assert torch.equal(settled("huggingface", place, Declared()).tensors["images"].mul(255).round(),
                           by_class(PIXELS).mul(255).round())  # fmt: skip
        inner = "/data" if source.endswith("data") else ""
        assert called == f"hf:me/digits.set@c0ffee000000{inner}"
    assert not place.exists() and asked == [("me/digits.set", "main" if "@" in source else None, "dataset")]
    line = [source, "--as", "huggingface", "--data-set", "digits", "--dry-run", "--out", str(tmp_path / "out")]
    done = said(evaluate.main, line)
    assert done.status == 0 and called in done.out, done.err


@pytest.mark.parametrize(
    "source", ["hf:", "hf:x", "hf:me/it/../..", "hf:me/it@", "hf:me/it@a b", "hf:\x1b[2J/x", "hf:/etc/x"]
)
def test_a_place_that_is_none_is_refused(source: str) -> None:
    with (
        pytest.raises(UsageError, match=r"a set on the Hub is hf:USER/NAME") as refused,
        as_people_run_it(),
        fetched(source),
    ):
        pass
    assert "\x1b" not in str(refused.value)


def test_without_a_network_the_command_that_fetches_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    command = r"`hf download me/it --repo-type dataset --revision v1 --local-dir set`"
    with pytest.raises(RunError, match=command) as refused, fetched("hf:me/it@v1"):
        pass
    assert "\n" not in str(refused.value)
    done = said(evaluate.main, ["hf:me/it", "--as", "dc", "--data-set", "digits"])
    assert done.status == 2 and "by `hf download`" in done.err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RunError, match=r"pip install 'addressable-memory-suite\[huggingface\]'"), fetched("hf:me/it"):
        pass


class Repository(Hub):
    """A hub with one repository of a set."""

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()
            ]
            self.answer(files)
        else:
            super().do_GET()

    do_HEAD = do_GET


@pytest.mark.slow
def test_a_set_on_a_hub_is_planned(tmp_path: Path) -> None:
    """By the library itself, from a hub that answers as Hugging Face's does."""
    file = foreign_sets.hugging_face(tmp_path / "x.parquet", CLASSES, image=PIXELS, names=NAMES)
    Hub.files = {"data/train-00000-of-00001.parquet": file.read_bytes(), "README.md": b"a set"}
    own = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    own |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "suite.evaluate", "hf:me/it", "--as", "huggingface", "--data-set", "digits"]
    line += ["--dry-run", "--out", str(tmp_path / "out")]
    with served(Repository) as address:
        environment = os.environ | own | {"HF_ENDPOINT": address}
        done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 and f"hf:me/it@{Hub.COMMIT[:12]}" in done.stdout, done.stderr
    again = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    Hub.files = {}
    assert again.returncode == 0, again.stderr  # the hub is gone, and the library has kept it


def test_what_a_memory_s_table_says_of_itself_is_its_description(tmp_path: Path) -> None:
    from test_memory import made

    memory: Memory = made()
    file = memory.export(tmp_path / "set.parquet")
    metadata = parquet.read_schema(file).metadata
    assert json.loads(metadata[b"suite"]) == memory.about
