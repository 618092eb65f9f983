"""The tool that measures a GPU, at small sizes on a CPU: every stage that can run here, and what fails is said."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tools import gpu_check


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "gpu_check.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_figure_is_written_with_what_it_is_of(tmp_path: Path) -> None:
    stages = ["machine", "correct", "times", "kernels", "at_once", "evaluation", "released", "settings"]
    assert gpu_check.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--stages", *stages]) == 0
    found = lines(tmp_path)
    assert not [line for line in found if "failed" in line]
    assert [line["name"] for line in found if line["what"] == "stage"] == stages
    exact = [line for line in found if line["what"] == "captured against eager"]
    assert len(exact) == 9 and all(line["error"] < 1e-12 for line in exact)
    steps = [line for line in found if line["what"] == "outer step"]
    assert {line["execution"] for line in steps} == {"eager", "captured"}
    assert all(min(line["seconds"]) > 0 for line in steps)


def test_a_figure_that_fails_is_said_and_the_next_stage_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_check.STAGES, "machine", fails)
    words = ["--out", str(tmp_path), "--device", "cpu", "--small", "--stages", "machine", "released"]
    assert gpu_check.main(words) == 0
    failed, skipped, done = lines(tmp_path)
    assert failed["failed"] == "RuntimeError: no such kernel" and failed["name"] == "machine"
    assert skipped["skipped"] == "no --reference" and done["name"] == "released"


def test_without_time_a_stage_is_left_out(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--device", "cpu", "--small", "--stages", "machine", "--seconds", "1"]
    assert gpu_check.main(words) == 0 and [line["what"] for line in lines(tmp_path)] == ["no time"]


def test_there_has_to_be_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path), "--device", "cuda:77"]) == 2
    assert "there is no cuda:77 on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_the_run_is_packed_and_goes_on_where_it_was(tmp_path: Path, data_dir: Path) -> None:
    first, second = tmp_path / "first" / "out", tmp_path / "second" / "out"
    shared = ["--device", "cpu", "--small", "--stages", "run", "--data-dir", str(data_dir)]
    assert gpu_check.main(["--out", str(first), *shared]) == 0
    ended = lines(first)[0]
    assert ended["status"] == 0, ended["tail"]
    with tarfile.open(first / "runs.tar.gz") as tar:
        assert [name for name in tar.getnames() if name.endswith("result.json")]
    assert gpu_check.main(["--out", str(second), *shared, "--runs", str(first / "runs.tar.gz")]) == 0
    assert "done before" in lines(second)[0]["tail"] or "is finished" in lines(second)[0]["tail"]
