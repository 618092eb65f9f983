"""Memories that are learned in turn: what a checkpoint of theirs gives back."""

from pathlib import Path
from typing import Any

import torch
from fake_session import FakeSession

from suite.experiments.learning import Series


def test_a_memory_may_be_called_after_classes_of_any_name(tmp_path: Path) -> None:
    first: Any = FakeSession(tmp_path, tmp_path)
    made = Series(first, outer_steps=1).once("oracle of one: two, three", lambda: {"x": torch.arange(3.0)})
    second: Any = FakeSession(tmp_path, tmp_path, before=first)
    restored = Series(second, outer_steps=1)
    assert list(restored.tensors) == ["oracle of one: two, three"]
    assert torch.equal(restored.tensors["oracle of one: two, three"]["x"], made["x"])


def test_what_was_made_or_measured_before_is_not_made_again(tmp_path: Path) -> None:
    first: Any = FakeSession(tmp_path, tmp_path)
    series = Series(first, outer_steps=1)
    series.once("weights", lambda: {"x": torch.ones(1)})
    series.measure("episodes", 2, lambda n: {"memory": float(n)})
    second: Any = FakeSession(tmp_path, tmp_path, before=first)
    restored, asked = Series(second, outer_steps=1), []

    def measured(n: int) -> dict[str, float]:
        asked.append(n)
        return {"memory": float(n)} | ({"bound": 9.0} if n == 2 else {})

    restored.once("weights", lambda: {"x": torch.zeros(1)} if asked.append(-1) else {})
    assert restored.measure("episodes", 3, measured) == {"memory": (0.0, 1.0, 2.0), "bound": (9.0,)}
    assert asked == [2]
