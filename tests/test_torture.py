"""The torture tool on a few kills, and that it notices what it is there to notice."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import torture


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run from noise: each process would else import scikit-learn for a moment's work before the first step."""
    place = tmp_path_factory.mktemp("untouched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(torture.RUNS, "distillation", [*torture.RUNS["distillation"], "--set", "START = None"])
        ended = torture.start(place, place / "events.txt", "distillation").wait()
        assert ended == 0, (place / "output.txt").read_text()
        yield place


@pytest.mark.slow
def test_a_run_that_is_killed_now_and_then_ends_as_the_untouched_one(untouched: Path, tmp_path: Path) -> None:
    """In a checkpoint's file, in the evaluation, in what is sent; the tool itself knows every kind of write."""
    kinds = ["write state.json", "after rename .evaluation/N.json"]
    kinds += ["mlflow log_batch, after"]  # last, since the sender is behind when others are at work
    assert set(kinds) <= set((untouched / "events.txt").read_text().split("\n"))
    for kind, way in zip(kinds, itertools.cycle(torture.WAYS)):
        status = torture.start(tmp_path, tmp_path / "events.txt", "distillation", way, kind, 1).wait()
        assert status == -9, kind
    assert torture.start(tmp_path, tmp_path / "events.txt", "distillation").wait() == 0
    assert torture.differences(torture.ended_as(untouched), torture.ended_as(tmp_path)) == []


@pytest.mark.slow
def test_what_is_not_as_the_untouched_run_is_seen(untouched: Path, tmp_path: Path) -> None:
    sound = torture.ended_as(untouched)
    assert sound["tracked"]["run 0"][0] == "FINISHED" and len(sound["tracked"]) == 1
    assert len(sound["tracked"]["run 0"][2]["loss"]) == 12 and "result.json" in sound["tracked"]["run 0"][3]
    other = tmp_path / "other"
    shutil.copytree(untouched, other)
    (record,) = (other / "runs").glob("*/*/result.json")
    changed = json.loads(record.read_text())
    changed["measurements"][0]["values"][0] += 0.1
    record.write_text(json.dumps(changed))
    (metrics,) = (other / "runs").glob("*/*/metrics.csv")
    metrics.write_text(metrics.read_text() + "12,loss,0.5\n")
    unequal = torture.differences(sound, torture.ended_as(other))
    assert {line.split(":")[0] for line in unequal} == {"/metrics.csv", "/record/measurements"}


def test_a_call_without_a_wish_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        torture.main([])
    assert ended.value.code == 2 and "--kills" in capsys.readouterr().err
