"""Every file in gin/ does what its head says (that each is planned on its real data: tests/test_config.py)."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import REPOSITORY, command, sets

FOLDERS = [REPOSITORY / "gin", REPOSITORY / "gin" / "continual", REPOSITORY / "gin" / "synthesis"]
FILES = sorted(file for folder in FOLDERS for file in folder.glob("*.gin"))
WRITES = {
    "ablation_adam": "*/figures/gradient_norms.png",
    "bases": "bases.png",
    "figure_bases": "*/figures/bases.png",
    "figure_recall": "*/figures/recalled.png",
    "figure_similarity": "*/figures/similarity.png",
    "extrapolation": "*/figures/recalled.png",
    "image_recall": "*/figures/recalled_*.png",
    "permutations": "*compress*/memories/task-002.safetensors",
    "rotations": "*compress*/figures/after_each_task.png",
    "many": "*compress*/figures/matrix.png",
}
NARROW = ["WIDTH = 16"]
SMALLER = {
    "ablation_components": [*NARROW, "CONTROL_EPOCHS = 1"],
    **{f"ablation_{name}": NARROW for name in ("adam", "momentum")},
    **{f"figure_{name}": NARROW for name in ("bases", "recall", "similarity")},
    **{name: NARROW for name in ("bases", "image_recall", "search", "transfer")},
}
"""Changes of the smoke commands of wide networks: the same work, with a tenth of its operations."""


def line(file: Path, word: str) -> list[str] | None:
    """The arguments of a command in a file's head."""
    found = re.search(rf"^# {word}: +python -m suite\.run (.*)$", file.read_text(), re.MULTILINE)
    return shlex.split(found.group(1)) if found else None


def test_every_file_says_how_it_is_run() -> None:
    assert all(line(file, "Run") for file in FILES)
    assert {file.stem for file in FILES if not line(file, "Smoke")} == {
        "quickstart",
        "fashion_mnist",
    }  # small already


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in FILES if line(file, "Smoke")], ids=lambda file: file.stem)
def test_the_smoke_command_runs(file: Path, data_dir: Path, tmp_path: Path) -> None:
    place = ["--data-dir", data_dir, "--out", tmp_path, "--tracking-uri", "none"]
    done = command(*(line(file, "Smoke") or []), *sets(*SMALLER.get(file.stem, [])), *place)
    assert done.status == 0, done.err
    assert "smoke (reduced)" in done.out and "[data]" not in done.err
    if file.stem in WRITES:
        assert list(tmp_path.glob(f"*/{WRITES[file.stem]}"))
