"""Methods of a newcomer's file that break what they must keep to: one sentence says what, where and what to do."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, as_people_run_it, command, said, sets

from suite import check, terminal
from suite.contracts.checks import _check_objective, _place
from suite.contracts.problem import small_setting
from suite.core.outer_loop import OuterState, begin, step
from suite.errors import UsageError
from suite.experiments.distillation import Distillation
from suite.inner_optimizers.adam import Adam
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


# ---------------------------------------------------------------- files that are checked

OPTIMIZER = """from dataclasses import dataclass
from suite.registry import inner_optimizers

@inner_optimizers.register("NAME")
@dataclass(frozen=True)
class Normed:
    \"\"\"Of a test.\"\"\"
    lr: float = 0.1

    def init(self, params):
        return {"m": dict(params)}

"""
STEP = "    def step(self, params, grads, state):\n"
MUST = "step must return (params, state): params a dict of tensors by the parameters' names, state one of such dicts"


def _written(folder: Path, name: str, text: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(text.replace("NAME", name))
    return str(file)


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        ("step_raises", STEP + "        return params['none']\n", "(KeyError: 'none' in FILE, line 14)"),
        ("step_swapped", STEP + "        return state, params\n", "it gave (dict of dict of Tensor, dict of Tensor)"),
        ("step_params", STEP + "        return params\n", "it gave dict of Tensor)"),
        ("step_text", STEP + "        return params, 'm'\n", "it gave (dict of Tensor, str)"),
        (
            "init_flat",
            STEP + "        return params, state\n    init = lambda self, params: params\n",
            "(init gave dict of",
        ),
        ("no_step", "", "suite.types, inner_optimizers (Normed has no method step(params, grads, state))"),
    ],
)
def test_the_check_of_an_inner_optimizer_says_where_it_failed_and_what_it_gave(
    name: str, method: str, words: str, tmp_path: Path
) -> None:
    file = _written(tmp_path, name, OPTIMIZER + method)
    done = said(check.main, [file])
    (broken,) = [line for line in done.out.splitlines() if line.startswith("  broken")]
    assert done.status == 1 and words.replace("FILE", file) in broken, done.out
    assert words.startswith("it gave") == (MUST in broken)


def test_a_component_of_another_kind_is_not_told_what_it_lacks() -> None:
    with as_people_run_it(), pytest.raises(UsageError, match=r"such as @parameterizations\.NAME\(\), not Adam"):
        Distillation(parameterization=Adam())  # type: ignore[arg-type]


def test_a_class_of_a_notebook_has_no_line_to_name() -> None:
    typed: dict[str, Any] = {"__name__": "a_notebook"}  # a module that has no file
    exec("class Bad: pass", typed)
    assert _place(ValueError("no step yet"), typed["Bad"]()) == ""


def test_a_run_says_which_method_a_component_lacks(tmp_path: Path) -> None:
    plugin = _written(tmp_path, "lacks_step", OPTIMIZER)
    words = [*QUICK, "--plugin", plugin, "--dry-run", "--out", tmp_path]
    done = command(*words, *sets("INNER_OPTIMIZER = @inner_optimizers.lacks_step()"))
    assert done.status == 2 and done.complaint.startswith(
        "BPTT.inner_optimizer: Normed has no method step(params, grads, state), which all of inner_optimizers have"
    )


def test_the_check_of_no_method_says_what_is_the_matter_with_the_file(tmp_path: Path) -> None:
    bare = _written(tmp_path, "bare", "class Normed:\n    pass\n")
    raises = _written(tmp_path, "raises", "1 / 0\n")
    for file, sentence in {
        bare: f"{bare} registers nothing; decorate the class with its kind and a name, as in @inner_optimizers.",
        str(tmp_path): f"{tmp_path} is a folder; name a file in it",
        "none.py": "there is no file none.py",
        raises: f"{raises} failed to load (ZeroDivisionError",
    }.items():
        done = said(check.main, [file])
        assert done.status == 2 and done.err.startswith(f"suite.check: {sentence}"), done.err


def test_an_objective_that_gives_a_float_ends_its_run_with_a_sentence(tmp_path: Path) -> None:
    template = Path("docs/templates/objective.py").read_text()
    text = template.replace('"mean_matching"', '"NAME"').replace("loss.detach()}", "loss.item()}")
    plugin = _written(tmp_path, "gives_a_float", text)
    words = [*QUICK, "--plugin", plugin, "--out", tmp_path, "--tracking-uri", "none"]
    done = command(*words, *sets("OBJECTIVE = @objectives.gives_a_float()", "SEEDS = [0]"))
    assert done.status == 2 and "gives_a_float.gradients gave the metrics {'loss': float}, and must give" in done.err


def test_a_package_that_is_missing_is_named_with_the_python_that_lacks_it(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert terminal.command(main)() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"the package torch is not installed in this Python ({sys.executable}); activate the env")
    assert "pip install -e ." in said and said.count("\n") == 1
