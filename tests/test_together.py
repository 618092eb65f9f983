"""`tools.together` on a small stream's run: what it reads, what it gives, what it refuses."""

import json
from pathlib import Path

import pytest
from command_line import command, only_run, sets

from tools import together

SMALL = sets(
    "DATASET = @datasets.digits()",
    "TASKS = 3",
    "SAMPLES = 60",
    "SEEDS = [0]",
    "ABSORBED = 60",
    "KEPT_NETWORKS = 1",
    "NETWORKS = 2",
    "EPOCHS = 20",
    "architectures.mlp.width = 32",
)


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a stream's run by the recipe, whose memories absorbed all that came in."""
    out = tmp_path_factory.mktemp("out")
    place = ["--out", out, "--data-dir", data_dir, "--tracking-uri", "none", "--only", "method=absorbed alone"]
    done = command("--gin", "gin/continual/permutations.gin", "--gin", "gin/recipe/streams.gin", *SMALL, *place)
    assert done.status == 0, done.err
    return only_run(out)


def rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, float]]:
    assert together.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_memories_alone_and_together_by_the_length_of_training(
    run: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (run, "--data-dir", data_dir, "--together", 1, 3, "--epochs", 1, 20, "--networks", 2)
    found = rows(capsys, *asked)
    by = {(row["together"], row["epochs"]): row["accuracy"] for row in found}
    assert len(by) == 4 and by[1, 20] > by[1, 1] + 5  # twenty passes teach more than one
    assert rows(capsys, *asked) == found
    # As long as the run's own networks were trained, by other draws of them: near what its record has.
    record = json.loads((run / "result.json").read_text())
    (retained,) = [m["mean"] for m in record["measurements"] if (m["method"], m["quantity"]) == ("memory", "RA")]
    assert by[3, 20] == pytest.approx(retained, abs=10)
    assert [m["n"] for m in record["measurements"] if m["method"] == "memory, network kept"] == [1] * 5
    real = rows(capsys, *asked, "--images")
    assert [row["accuracy"] for row in real] != [row["accuracy"] for row in found]


def test_the_table_has_memories_down_and_epochs_across(
    run: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(run), "--data-dir", str(data_dir), "--together", "3", "--epochs", "2", "1"]
    assert together.main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| memories | 1 epochs | 2 epochs |" and lines[2].startswith("| 3 | ") and len(lines) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ([], "is no finished run of compress-then-recall: it needs result.json and memories/"),
        (["--together", "4"], "--together 4 is more than the 3 memories of the run"),
    ],
)
def test_what_is_no_stream_is_refused(
    change: list[str], sentence: str, run: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = run if change else tmp_path
    assert together.main([str(where), "--data-dir", str(data_dir), "--epochs", "1", *change]) == 2
    assert sentence in capsys.readouterr().err
