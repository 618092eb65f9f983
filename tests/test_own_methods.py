"""Methods of a newcomer's file that break what they must keep to: one sentence says what, where and what to do."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from command_line import as_people_run_it

from suite.contracts.checks import _check_objective
from suite.contracts.problem import small_setting
from suite.core.outer_loop import OuterState, begin, step
from suite.errors import UsageError
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.keys import Key
from suite.parameterizations.addressing import Addressing
from suite.types import ClassRows, Params, Setting

# ---------------------------------------------------------------- what an objective gives


@dataclass(frozen=True)
class Gives:
    """An objective that gives zeros, changed in one way."""

    wrong: str = ""

    def gradients(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> Any:
        zeros, loss = {k: torch.zeros_like(v) for k, v in memory.items()}, torch.zeros(())
        wrong: dict[str, Any] = {
            "": (zeros, {"loss": loss}),
            "a float": (zeros, {"loss": 0.5}),
            "several numbers": (zeros, {"loss": loss, "each": torch.zeros(3)}),
            "no loss": (zeros, {"error": loss}),
            "one name": ({"images": torch.zeros(2, 1, 1, 16, 16)}, {"loss": loss}),
            "a shape": ({k: v[None] for k, v in zeros.items()}, {"loss": loss}),
            "a type": ({k: v.double() for k, v in zeros.items()}, {"loss": loss}),
            "None": (dict.fromkeys(zeros), {"loss": loss}),
            "a loss alone": loss,
            "a list": (list(zeros.values()), {"loss": loss}),
            "another network each time": (
                {k: torch.randn_like(v) for k, v in zeros.items()},  # torch's own generator, in place of the key
                {"loss": loss},
            ),
        }
        return wrong[self.wrong]

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        return {}


MEMORY = "'bases': float32 (2, 1, 16, 16), 'matrices': float32 (12, 2, 2)"
SENTENCES = {
    "a float": r"the metrics {'loss': float}, and must give tensors of one number each, 'loss' among them",
    "several numbers": r"the metrics {'loss': float32 (), 'each': float32 (3,)}, and must give tensors of one number",
    "no loss": "the metrics {'error': float32 ()}, and must give tensors of one number each, 'loss' among them",
    "one name": "the gradients {'images': float32 (2, 1, 1, 16, 16)}, and must give one for each tensor of the memory",
    "a shape": "the gradients {'bases': float32 (1, 2, 1, 16, 16), ",
    "a type": "the gradients {'bases': float64 (2, 1, 16, 16), ",
    "None": "the gradients {'bases': NoneType, 'matrices': NoneType}",
    "a loss alone": "Tensor, and must give (gradients, metrics), each a dictionary of tensors",
    "a list": "['list', 'dict'], and must give (gradients, metrics)",
}


def _step(objective: Any, state: OuterState | None = None) -> OuterState:
    setting, _, real = small_setting(Addressing(bases=2))
    optimizer = NoMomentum(lr=1.0)
    state = begin(setting, optimizer, 1.1, Key(0)) if state is None else state
    with as_people_run_it():
        return step(setting, objective, optimizer, real, state, Key(0), None)


@pytest.mark.parametrize("wrong", SENTENCES)
def test_what_an_objective_gives_is_refused_at_the_first_outer_step_and_by_the_check(wrong: str) -> None:
    with pytest.raises(UsageError) as error:
        _step(Gives(wrong))
    assert str(error.value).startswith(f"Gives.gradients gave {SENTENCES[wrong]}"), error.value
    if "the gradients" in SENTENCES[wrong]:
        assert str(error.value).endswith(f"of its shape and type: {{{MEMORY}}}")
    with as_people_run_it():
        broken = [finding for finding in _check_objective(Gives(wrong)) if finding.verdict == "broken"]
    assert str(error.value) in {finding.detail for finding in broken}


def test_what_an_objective_gives_is_looked_at_once_in_a_run() -> None:
    state = _step(Gives())
    assert state.metrics
    with pytest.raises(AttributeError):  # as before: nothing is spent on it in later steps
        _step(Gives("a float"), state)


def test_an_objective_that_draws_from_elsewhere_is_told_where_networks_come_from() -> None:
    said = [finding.detail for finding in _check_objective(Gives("another network each time")) if finding.detail]
    assert len(said) == 1
    assert said[0].startswith("two calls with one key differ; draw from the key, and networks by ")
    assert said[0].endswith("fresh_network(setting, key)")


def test_gradients_in_another_order_than_the_memory_get_the_penalty_of_their_own_tensor() -> None:
    @dataclass(frozen=True)
    class Backwards(Gives):
        def gradients(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> Any:
            grads, metrics = super().gradients(setting, memory, real, key)
            return dict(reversed(grads.items())), metrics

    setting, memory, real = small_setting(Addressing(bases=2, coefficient_penalty=1.0))
    optimizer = NoMomentum(lr=1.0)
    start = begin(setting, optimizer, 1.1, Key(0))
    one, other = (step(setting, o, optimizer, real, start, Key(0), None).memory for o in (Gives(), Backwards()))
    assert all(torch.equal(one[k], other[k]) for k in memory) and not torch.equal(one["matrices"], memory["matrices"])
