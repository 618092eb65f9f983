"""Configuration: every shipped file resolves, one line changes one thing, and every mistake is one helpful sentence."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import gin
import pytest
from command_line import QUICK, REPOSITORY, TABLE, command, resolve, sets
from gin import config as gin_config

from suite.config.resolve import Run
from suite.errors import UsageError
from suite.registry import REGISTRIES, Entry, describe, load_plugin
from suite.runtime.execute import directories_of

QUICKSTART = "gin/quickstart.gin"
SMOKE = "gin/scale/smoke.gin"
LEAVES = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "gin").glob("*.gin")) + [
    f"gin/synthesis/{name}.gin" for name in ("extrapolation", "image_recall")
]
SCALES = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "gin" / "scale").glob("*.gin"))
NINETY_CELLS = "gin/ablation_components.gin"
# Seconds for each scale of the largest table, and nothing of its own in them: one will do.
SCALED = [(leaf, scale) for leaf in LEAVES for scale in SCALES if leaf != NINETY_CELLS or "smoke" in scale]


def one(files: list[str], bindings: list[str] | None = None) -> Run:
    (run,) = resolve(files, bindings or [])
    return run


@cache
def unchanged(*files: str, only: tuple[str, ...] = ()) -> list[Run]:
    """The runs of files as they are, with which several tests compare."""
    return resolve(list(files), only=list(only))


def refusal(files: list[str], bindings: list[str], **more: Any) -> str:
    """The sentence of a UsageError."""
    with pytest.raises(UsageError) as error:
        resolve(files, bindings, **more)
    words = str(error.value)
    assert "\n" not in words and len(words) > 20, words
    return words


# ---------------------------------------------------------------- the shipped files


@pytest.mark.slow
@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf != NINETY_CELLS])  # which is in tests/test_cost.py
def test_every_file_dry_runs_from_anywhere_without_data(
    leaf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("--gin", leaf, "--dry-run", "--data-dir", tmp_path / "no-data", "--out", tmp_path / "runs")
    assert done.status == 0 and not done.err, done.err
    assert "nothing was started" in done.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("leaf", "scale"), SCALED)
def test_every_file_resolves_with_every_scale(
    leaf: str, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, scaled = unchanged(leaf), resolve([leaf, scale])
    assert [run.label for run in plain] == [run.label for run in scaled]
    assert {run.scale for run in scaled} == {Path(scale).stem}
    done = command("--gin", leaf, "--gin", scale, "--dry-run", *_first_cell(scaled))
    assert done.status == 0, done.err


def _first_cell(runs: list[Run]) -> list[str]:
    return [word for axis, label in runs[0].cell.items() for word in ("--only", f"{axis}={label}")]


def test_files_are_found_by_absolute_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert one([str(REPOSITORY / QUICKSTART)]).key == one([QUICKSTART]).key


def test_the_folder_gin_does_not_hide_the_package_gin() -> None:
    assert not list((REPOSITORY / "gin").rglob("*.py"))
    code = "import gin; print(gin.__file__, hasattr(gin, 'parse_config'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "site-packages" in done.stdout and "True" in done.stdout


# ---------------------------------------------------------------- one line, one change

MACROS: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
    "DATASET": ("@datasets.mnist()", lambda e: e["dataset"]["is"], "mnist"),
    "ARCHITECTURE": ("@architectures.mlp()", lambda e: e["architecture"]["is"], "mlp"),
    "IMAGES_PER_CLASS": ("7", lambda e: e["images_per_class"], 7),
    "ITERATIONS": ("123", lambda e: e["iterations"], 123),
    "INNER_STEPS": ("11", lambda e: e["objective"].get("inner_steps"), 11),
}
PLACES = {macro: "objective.inner_steps" if macro == "INNER_STEPS" else macro.lower() for macro in MACROS}
"""Where in a described experiment each of them shows."""


NOT_FREE = {
    "gin/synthesis/extrapolation.gin": {"DATASET"},  # whose episodes ask more classes than MNIST has
    "gin/synthesis/image_recall.gin": {"IMAGES_PER_CLASS"},  # whose budget is that of its bases and matrices
    "gin/search.gin": {"ITERATIONS"},  # those of the chosen rate alone; its trials have their own number
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leaf", "macro"), [(leaf, macro) for leaf in LEAVES for macro in MACROS if macro not in NOT_FREE.get(leaf, ())]
)
def test_each_macro_changes_its_one_thing(leaf: str, macro: str) -> None:
    value, read, expected = MACROS[macro]
    text = (REPOSITORY / leaf).read_text()
    if f"['{macro} = " in text and re.search(rf"\['{macro} = [^']*',", text):  # an axis varies it among other things
        assert macro in refusal([leaf], [f"{macro} = {value}"])
        return
    only = ["data set=mnist", "1 I/C"] if "'data set'" in text and macro != "DATASET" else []  # of ninety
    only = ["1 I/C"] if "'data set'" in text and macro == "DATASET" else only
    runs, changed_runs = unchanged(leaf, only=tuple(only)), resolve([leaf], [f"{macro} = {value}"], only=only)
    if f"['{macro} = " in text:  # an axis varies it alone, and is not one any more
        assert 0 < len(changed_runs) < len(runs)
        assert {read(describe(run.experiment)) for run in changed_runs} == {expected}
        return
    runs, changed_runs = ([r for r in some if read(describe(r.experiment))] for some in (runs, changed_runs))
    assert runs
    for before, after in zip(runs, changed_runs, strict=True):
        old, new = describe(before.experiment), describe(after.experiment)
        assert read(new) == expected and read(old) != expected
        flat_old, flat_new = _flat(old), _flat(new)
        changed = {k for k in flat_old | flat_new if flat_old.get(k) != flat_new.get(k)}
        assert changed and all(k.startswith(PLACES[macro]) for k in changed), changed
        assert before.key != after.key and before.seed == after.seed


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, part in tree.items() for k, v in _flat(part, f"{prefix}.{name}".strip(".")).items()}


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf != NINETY_CELLS])
def test_seeds_multiply_the_runs_and_change_nothing_else(leaf: str) -> None:
    plain = resolve([leaf], ["SEEDS = [4]"])
    runs = resolve([leaf], ["SEEDS = [4, 5, 6]"])
    assert len(runs) == 3 * len(plain) and {run.seed for run in runs} == {4, 5, 6}
    assert [describe(run.experiment) for run in runs[::3]] == [describe(run.experiment) for run in plain]
    assert len({run.key for run in runs}) == len(runs)
    again = resolve([leaf], ["SEEDS = [4, 5, 6]"], seed=9)
    assert {run.seed for run in again} == {9} and len(again) == len(plain)


def test_a_later_file_or_binding_may_displace_a_component_and_its_settings() -> None:
    run = one([QUICKSTART], ["PARAMETERIZATION = @parameterizations.standard()"])
    assert describe(run.experiment)["parameterization"] == {"is": "standard"}
    assert "bases" not in run.config_text
    assert one([QUICKSTART, SMOKE], ["ITERATIONS = 3", "ITERATIONS = 4"]).experiment.iterations == 4


# ---------------------------------------------------------------- mistakes

MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    # what: (bindings, words of the sentence)
    "misspelt macro": (["ITERATION = 3"], ["ITERATION;", "did you mean ITERATIONS?"]),
    "misspelt macro of a scale": (["NETWORK = 4"], ["NETWORK;", "did you mean NETWORKS?"]),
    "misspelt field": (["parameterizations.addressing.base = 6"], ["'base'", "did you mean 'bases'"]),
    "misspelt field, scoped": (["outer/inner_optimizers.sgd_momentum.momentun = 0.5"], ["did you mean 'momentum'"]),
    "misspelt field of run": (["run.seed = [1]"], ["'seed'", "did you mean 'seeds'"]),
    "misspelt field of the protocol": (["suite.protocol.network = 3"], ["did you mean 'networks'"]),
    "misspelt field by a short name": (["adam.l = 0.1"], ["adam has no field 'l'; did you mean 'lr'?", "eps_root"]),
    "misspelt short name": (["adm.lr = 1"], ["nothing is called 'adm'; did you mean 'inner_optimizers.adam'?"]),
    "misspelt component": (
        ["DATASET = @datasets.digit()"],
        ["no data set is called 'digit'; did you mean 'digits'", "cifar100"],
    ),
    "misspelt component in a binding": (["parameterizations.adressing.bases = 6"], ["did you mean 'addressing'"]),
    "misspelt kind": (["DATASET = @dataset.digits()"], ["'dataset.digits'", "did you mean 'datasets.digits'"]),
    "misspelt experiment": (["run.experiment = @experiments.distilation()"], ["did you mean 'distillation'"]),
    "macro without a value": (["ITERATIONS = %STEPS"], ["STEPS", "no value"]),
    "unquoted text": (["AUGMENTATION = flip_rotate"], ["needs quotes"]),
    "component as a bare word": (["DATASET = digits"], ["@KIND.NAME()"]),
    "component as a text": (["DATASET = 'digits'"], ["Distillation.dataset", "@datasets.NAME()", "'digits'"]),
    "component without parentheses": (
        ["DATASET = @datasets.digits"],
        ["Distillation.dataset", "the class Digits; did you forget ()?"],
    ),
    "component of another kind": (
        ["PARAMETERIZATION = @architectures.mlp()"],
        ["Distillation.parameterization", "MLP"],
    ),
    "text for a number": (["ITERATIONS = 'many'"], ["iterations", "a whole number", "'many'"]),
    "fraction for a whole number": (["ITERATIONS = 2.5"], ["iterations", "a whole number", "2.5"]),
    "truth for a whole number": (["ITERATIONS = True"], ["iterations", "a whole number"]),
    "None for a number": (["IMAGES_PER_CLASS = None"], ["images_per_class", "a number", "None"]),
    "number for a text": (["AUGMENTATION = 3"], ["augmentation", "a text in quotes"]),
    "text for a number, by a macro": (["OUTER_LR = 'fast'"], ["OUTER_LR: Adam.lr must be a number, not 'fast'"]),
    "number for a list": (["SEEDS = 0"], ["SEEDS: run.seeds must be a list"]),
    "list of the wrong things": (["SEEDS = ['a']"], ["seeds", "a whole number"]),
    "empty list of seeds": (["SEEDS = []"], ["SEEDS", "at least one"]),
    "seed twice": (["SEEDS = [0, 0]"], ["seed 0", "the same run"]),
    "negative": (["ITERATIONS = -1"], ["iterations must be above 0", "-1"]),
    "zero": (["INNER_STEPS = 0"], ["inner_steps must be above 0"]),
    "out of range, another component": (["OUTER_LR = 0"], ["lr must be above 0"]),
    "not one of the choices": (["AUGMENTATION = 'flip'"], ["augmentation must be one of", "flip_rotate", "'flip'"]),
    "not one of the choices, field": (["addressing.initialization = 'kaming'"], ["initialization", "'kaiming'"]),
    "missing '='": (["ITERATIONS 3"], ["NAME = VALUE"]),
    "missing value": (["ITERATIONS = "], ["ITERATIONS = "]),
    "open bracket": (["SEEDS = [1, 2"], ["SEEDS = [1, 2"]),
    "open parenthesis": (["DATASET = @datasets.digits("], ["DATASET = @datasets.digits("]),
    "setting of an absent component": (
        ["inner_optimizers.adam.lr = 0.1"],
        ["inner_optimizers.adam.lr", "nothing uses"],
    ),
    "setting of an absent data set": (["datasets.cifar10.augmentation = 'none'"], ["datasets.cifar10.augmentation"]),
    "setting of an absent scope": (["inner/inner_optimizers.sgd_momentum.lr = 1.0"], ["inner/inner_optimizers"]),
    "setting that the files bind, of a replaced component": (
        ["INNER_OPTIMIZER = @inner_optimizers.adam()", "inner_optimizers.sgd_momentum.lr = 7"],
        ["--set inner_optimizers.sgd_momentum.lr: no run uses it", "write inner_optimizers.adam.lr = …"],
    ),
    "macro of a replaced component": (
        ["INNER_OPTIMIZER = @inner_optimizers.adam()", "INNER_LR = 7"],
        ["INNER_LR: sets", "inner_optimizers.sgd_momentum.lr, which no run uses", "write inner_optimizers.adam.lr = …"],
    ),
    "macro that another binding replaces": (
        ["ITERATIONS = 7", "experiments.distillation.iterations = 8"],
        ["ITERATIONS: no run uses it", "another binding"],
    ),
    "budget that fits nothing": (["IMAGES_PER_CLASS = 0.01"], ["raise the budget"]),
    "table of the wrong shape": (["run.axes = {'a': 3}"], ["run.axes must look like"]),
    "mistake in a cell": (["run.axes = {'a': {'x': ['ITERATION = 3']}}"], ["did you mean ITERATIONS?"]),
    "two cells alike": (
        ["run.axes = {'a': {'x': ['ITERATIONS = 3'], 'y': ['ITERATIONS = 3']}}"],
        ["the same run", "x seed 0", "y seed 0"],
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_with_a_way_out(what: str) -> None:
    bindings, words = MISTAKES[what]
    done = command("--gin", QUICKSTART, "--gin", SMOKE, *sets(*bindings), "--dry-run")
    assert done.status == 2 and not done.out
    assert all(word in done.complaint for word in words), done.complaint
    assert " object at 0x" not in done.complaint, done.complaint


def test_no_configuration_and_a_misspelt_file() -> None:
    assert "--gin gin/quickstart.gin" in refusal([], [])
    words = refusal(["gin/quickstrat.gin"], [])
    assert words.endswith("did you mean 'gin/quickstart.gin'?")
    assert SMOKE in refusal(["mine.gin"], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ITERATIONS = many\n", ["line 2"]),
        ("ITERATIONS 3\n", ["line 2"]),
        ("include 'gin/shared/distilation.gin'\n", ["distilation.gin"]),
        ("import a_module_that_is_not_there\n", ["a_module_that_is_not_there"]),
        ("experiments.distillation.iteration = 3\n", ["did you mean 'iterations'"]),
        ("ITERATION = 3\n", ["did you mean ITERATIONS?"]),
        ("inner_optimizers.adam.lr = 0.1\n", ["inner_optimizers.adam.lr"]),
        ("ITERATIONS = [1,\n", []),
    ],
)
def test_a_mistake_in_a_file_names_the_file_or_the_fix(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "mine.gin"
    file.write_text(f"include '{QUICKSTART}'\n{text}")
    sentence = refusal([str(file)], [])
    assert all(word in sentence for word in words), sentence


def test_a_mistake_in_an_included_file_is_placed_there(tmp_path: Path) -> None:
    (tmp_path / "part.gin").write_text("\n\nITERATIONS = many\n")
    (tmp_path / "whole.gin").write_text(f"include '{QUICKSTART}'\ninclude '{tmp_path / 'part.gin'}'\n")
    sentence = refusal([str(tmp_path / "whole.gin")], [])
    assert "part.gin" in sentence and "line 3" in sentence


def test_a_short_name_that_two_kinds_have_is_answered_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_plugin = Entry("adam", type(None), "An objective of the same name.", "mine.py")
    monkeypatch.setitem(REGISTRIES["objectives"]._entries, "adam", of_a_plugin)
    words = refusal([QUICKSTART], ["adm.lr = 1"])
    assert words.endswith("did you mean 'inner_optimizers.adam' or 'objectives.adam'?")


FIELDS_OF_RUN = {
    # line: words of the sentence
    "run.name = %WORD": "run.name must be a text in quotes, not %WORD",
    "run.name = 5": "run.name must be a text in quotes, not 5",
    "run.cell = %WORD": "run.cell must be {'axis': 'label', …}, where both are texts, not %WORD",
    "run.cell = 5": "where both are texts, not 5",
    "run.cell = {'a': 1}": "where both are texts, not {'a': 1}",
    "run.cell = {1: 'a'}": "where both are texts, not {1: 'a'}",
    "run.then = [1]": "run.then must be a list of bindings, such as ['ITERATIONS = 100'], not [1]",
    "run.then = 5": "run.then must be a list of bindings",
    "run.then = %WORD": "not %WORD",
    "run.choose = ['a']": "run.choose must be the name of an axis in quotes, not ['a']",
    "run.choose = %WORD": "run.choose must be the name of an axis in quotes, not %WORD",
    "run.axes = %WORD": "run.axes must look like",
}


@pytest.mark.parametrize("line", FIELDS_OF_RUN)
def test_a_field_of_run_of_another_kind_is_one_sentence(line: str, tmp_path: Path) -> None:
    """These are read as they are written, so a macro is of another kind, too."""
    file = tmp_path / "mine.gin"
    file.write_text(
        f"include '{QUICKSTART}'\nWORD = 'word'\n"
        "run.axes = {'a': {'x': ['ITERATIONS = 3'], 'y': ['ITERATIONS = 4']}}\nrun.choose = 'a'\n"
        f"{line}\n"
    )
    assert FIELDS_OF_RUN[line] in refusal([str(file)], [])


@pytest.mark.parametrize("axes", ["%AXES", "5", "{'a': 5}", "{'a': {'x': [3]}}"])
def test_axes_of_another_kind_may_be_replaced(axes: str, tmp_path: Path) -> None:
    macro = "AXES = {'a': {'x': ['ITERATIONS = 3']}}\n" if axes == "%AXES" else ""
    (tmp_path / "first.gin").write_text(f"include '{QUICKSTART}'\n{macro}run.axes = {axes}\n")
    (tmp_path / "second.gin").write_text("run.axes = {'a': {'x': ['ITERATIONS = 4']}}\n")
    runs = resolve([str(tmp_path / "first.gin"), str(tmp_path / "second.gin")])
    assert [run.label for run in runs] == ["x seed 0"]


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "mine.gin").write_bytes(b"\xff\xfe\x00\x01")
    assert "mine.gin" in refusal([str(tmp_path / "mine.gin")], [])
    assert "gin" in refusal([str(tmp_path)], [])


# ---------------------------------------------------------------- tables


AXES = [f"run.axes = {TABLE | {'steps': {'3': ['INNER_STEPS = 3'], '4': ['INNER_STEPS = 4']}}!r}", "SEEDS = [0, 1]"]


def test_a_table_is_the_product_of_its_axes_and_seeds() -> None:
    runs = resolve([QUICKSTART], AXES)
    assert [run.label for run in runs] == [
        f"{momentum} {steps} seed {seed}"
        for momentum in ("no momentum", "full momentum")
        for steps in ("3", "4")
        for seed in (0, 1)
    ]
    for run in runs:
        assert run.experiment.objective.inner_steps == int(run.cell["steps"])
        kind = {"no momentum": "no_momentum", "full momentum": "sgd_momentum"}[run.cell["momentum"]]
        assert describe(run.experiment)["objective"]["inner_optimizer"]["is"] == kind
    folders = {directory.name for directory in directories_of(runs, Path("out"))}
    assert len({run.key for run in runs}) == len(folders) == 8


@pytest.mark.parametrize(
    ("only", "labels"),
    [
        (["3"], {"no momentum 3", "full momentum 3"}),
        (["momentum=no momentum"], {"no momentum 3", "no momentum 4"}),
        (["full momentum", "steps=4"], {"full momentum 4"}),
        (["steps=3", "4"], {"no momentum 3", "no momentum 4", "full momentum 3", "full momentum 4"}),
        (["3", "steps=4", "no momentum"], {"no momentum 3", "no momentum 4"}),
    ],
)
def test_cells_are_picked_by_label_or_by_axis_and_label(only: list[str], labels: set[str]) -> None:
    every = {run.label: run for run in resolve([QUICKSTART], AXES)}
    picked = resolve([QUICKSTART], AXES, only=only)
    assert {" ".join(run.cell.values()) for run in picked} == labels
    assert all(every[run.label].key == run.key and every[run.label].config_text == run.config_text for run in picked)


@pytest.mark.parametrize("only", ["full momentun", "momentum=3", "axis=3", "steps", "full momentum=full momentum"])
def test_an_unknown_cell_is_refused_with_those_there_are(only: str) -> None:
    words = refusal([QUICKSTART], AXES, only=[only])
    assert f"'{only}'" in words and "momentum=full momentum" in words and "steps=3" in words


def test_cells_of_what_is_no_table_and_cells_that_exclude_each_other() -> None:
    assert "no cells" in refusal([QUICKSTART], [], only=["3"])
    shared = ["run.axes = {'a': {'x': ['EPOCHS = 3'], '2': []}, 'b': {'x': ['INNER_STEPS = 3'], '2': []}}"]
    assert "x, a=2, b=2" in refusal([QUICKSTART], shared, only=["x", "a=2", "b=2"])
    assert [run.label for run in resolve([QUICKSTART], shared, only=["x", "a=2"])] == ["2 x seed 0"]
    equals = ["run.axes = {'a': {'lr=1': ['OUTER_LR = 1.0'], 'lr=2': ['OUTER_LR = 2.0']}}"]
    assert [run.label for run in resolve([QUICKSTART], equals, only=["lr=2"])] == ["lr=2 seed 0"]


def test_a_setting_may_serve_other_cells_than_those_that_are_picked() -> None:
    adam = {"optimizer": {"SGD": [], "Adam": ["INNER_OPTIMIZER = @inner_optimizers.adam()"]}}
    (run,) = resolve([QUICKSTART], [f"run.axes = {adam!r}", "INNER_LR = 7"], only=["Adam"])
    assert describe(run.experiment)["objective"]["inner_optimizer"]["is"] == "adam"
    (run,) = resolve([QUICKSTART], [f"run.axes = {adam!r}", "inner_optimizers.adam.lr = 7"], only=["SGD"])
    assert describe(run.experiment)["objective"]["inner_optimizer"]["is"] == "sgd_momentum"


def test_a_seed_option_replaces_seeds_however_they_were_set() -> None:
    for binding in ("SEEDS = [1, 2]", "run.seeds = [1, 2]"):
        assert [run.seed for run in resolve([QUICKSTART], [binding], seed=9)] == [9]
    again = resolve([QUICKSTART], ["MINE = [1, 2]", "run.seeds = %MINE"], seed=9)
    assert [(run.key, run.config_text) for run in again] == [
        (run.key, run.config_text) for run in resolve([QUICKSTART], [], seed=9)
    ]


@pytest.mark.parametrize("name", ["SEEDS", "run.seeds", "suite.run.seeds"])
def test_a_seed_option_replaces_the_seeds_of_cells(name: str) -> None:
    cells = {"a": [f"{name} = [1, 2]", "ITERATIONS = 5"], "b": ["ITERATIONS = 6"]}
    axes = f"run.axes = {{'n': {cells!r}}}"
    assert [run.label for run in resolve([QUICKSTART], [axes])] == ["a seed 1", "a seed 2", "b seed 0"]
    assert [run.label for run in resolve([QUICKSTART], [axes], seed=9)] == ["a seed 9", "b seed 9"]
    assert [run.label for run in resolve([QUICKSTART], [axes], seed=9, only=["a"])] == ["a seed 9"]
    alone = f"run.axes = {{'n': {{'a': ['{name} = [1]'], 'b': ['{name} = [2]']}}}}"
    assert [run.label for run in resolve([QUICKSTART], [alone], seed=9)] == ["seed 9"]


def test_a_cell_is_what_its_own_bindings_give_alone(tmp_path: Path) -> None:
    """Each starts from what the files and `--set` bind, imports among it, and from nothing of another cell."""
    file = tmp_path / "mine.gin"
    load_plugin("colorsys")  # a module that is named may be imported
    file.write_text(f"import colorsys\ninclude '{QUICKSTART}'\nrun.name = 'mine'\n")
    cells = {
        "many": ["experiments.distillation.clip = 3.0", "ITERATIONS = 5", "SEEDS = [1, 2]"],
        "one": ["experiments.distillation.controls = [@controls.herding()]"],
        "none": [],
    }
    runs = resolve([str(file)], [f"run.axes = {{'cell': {cells!r}}}", "IMAGES_PER_CLASS = 2"])
    assert [(run.cell["cell"], run.seed) for run in runs] == [("many", 1), ("many", 2), ("one", 0), ("none", 0)]
    for run in runs:
        bindings = ["IMAGES_PER_CLASS = 2", *cells[run.cell["cell"]], f"run.cell = {run.cell!r}"]
        (alone,) = resolve([str(file)], bindings, seed=run.seed)
        assert (run.key, run.config_text) == (alone.key, alone.config_text)
        assert run.operative_text == alone.operative_text and "import colorsys" in run.config_text


def test_a_macro_that_the_table_varies_among_other_things_is_not_to_be_set() -> None:
    both = "run.axes = {'steps': {'3': ['INNER_STEPS = 3', 'ITERATIONS = 2'], '4': ['INNER_STEPS = 4']}}"
    words = refusal([QUICKSTART], [both, "INNER_STEPS = 9"])
    assert "INNER_STEPS" in words and "'steps'" in words and "--only 'steps=3'" in words
    alone = resolve([QUICKSTART], [*AXES, "INNER_STEPS = 9"])
    assert alone and all("steps" not in run.cell for run in alone)


BASES = {"4": ["parameterizations.addressing.bases = 4"], "8": ["parameterizations.addressing.bases = 8"]}
SHORT_BASES = {"4": ["addressing.bases = 4"], "8": ["addressing.bases = 8"]}


@pytest.mark.parametrize("name", ["addressing.bases", "parameterizations.addressing.bases"])
@pytest.mark.parametrize("labels", [BASES, SHORT_BASES])
def test_a_later_file_that_binds_what_an_axis_varies_is_refused_and_a_set_replaces_the_axis(
    labels: dict[str, list[str]], name: str, tmp_path: Path
) -> None:
    table, later = tmp_path / "table.gin", tmp_path / "mine.gin"
    table.write_text(f"include '{QUICKSTART}'\nrun.axes = {{'bases': {labels!r}}}\n")
    later.write_text(f"{name} = 7\n")
    words = refusal([str(table), str(later)], [])
    assert words.startswith(f"--gin {later} ") and "addressing.bases" in words and "axis 'bases'" in words
    run = one([str(table)], [f"{name} = 7"])
    assert not run.cell and describe(run.experiment)["parameterization"]["bases"] == 7


def test_a_later_file_that_binds_what_a_shipped_table_varies_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.gin"
    mine.write_text("parameterizations.addressing.bases = 12\n")
    words = refusal(["gin/bases.gin", str(mine)], [])
    assert "mine.gin" in words and "--only 'bases=4'" in words


def test_what_a_file_binds_beside_or_before_the_table_is_not_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.gin", tmp_path / "second.gin"
    first.write_text(f"include '{QUICKSTART}'\nrun.axes = {{'steps': {{'3': ['INNER_STEPS = 3']}}}}\n")
    second.write_text(f"addressing.bases = 7\nITERATIONS = 2\nrun.axes = {{'bases': {BASES!r}}}\n")
    files = [str(first), str(second)]
    assert [run.label for run in resolve(files)] == ["4 seed 0", "8 seed 0"]
    runs = resolve(files, ["run.axes = {'iterations': {'3': ['ITERATIONS = 3'], '4': ['ITERATIONS = 4']}}"])
    assert [run.label for run in runs] == ["3 seed 0", "4 seed 0"]


# ---------------------------------------------------------------- what is written down

WRITTEN = {
    "quickstart": ([QUICKSTART, SMOKE], []),
    "fashion": (["gin/fashion_mnist.gin"], []),
    "table": ([QUICKSTART], AXES),
    "ablation": (["gin/ablation_momentum.gin"], []),
    "displaced": ([QUICKSTART], ["PARAMETERIZATION = @parameterizations.standard()"]),
    "odd values": ([QUICKSTART], ["OUTER_LR = 0.30000000000000004", "IMAGES_PER_CLASS = 1e1", 'run.name = "it\'s"']),
    "adam": ([QUICKSTART], ["INNER_OPTIMIZER = @inner_optimizers.adam()", "inner_optimizers.adam.lr = 1e-05"]),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_both_written_texts_give_the_same_run_again(what: str, tmp_path: Path) -> None:
    for run in resolve(*WRITTEN[what]):
        for text in (run.config_text, run.operative_text):
            file = tmp_path / "saved.gin"
            file.write_text(text)
            again = one([str(file)])
            assert again.key == run.key and describe(again.experiment) == describe(run.experiment)
            assert (again.name, again.cell, again.seed, again.scale) == (run.name, run.cell, run.seed, run.scale)
            assert again.config_text == text if text == run.config_text else again.operative_text == text


def test_the_operative_text_tells_every_default() -> None:
    text = one([QUICKSTART]).operative_text
    for words in (
        "distillation.validation = 0.1",
        "addressing.initialization = 'kaiming'",
        "distillation.validation = 0.1",
    ):
        assert words in text


def test_resolving_leaves_nothing_behind_in_gin() -> None:
    def bindings() -> dict[Any, Any]:
        return {k: dict(v) for k, v in gin_config._CONFIG.items() if v}

    assert not bindings()
    searched = list(gin_config._LOCATION_PREFIXES)
    first = one([QUICKSTART])
    resolve([QUICKSTART], AXES)
    refusal([QUICKSTART], ["ITERATION = 3"])
    refusal([QUICKSTART], ["ITERATIONS = 'x'"])
    assert not bindings() and not gin.operative_config_str().strip()
    assert searched == gin_config._LOCATION_PREFIXES
    after = one([QUICKSTART])
    assert (after.key, after.config_text, after.operative_text) == (first.key, first.config_text, first.operative_text)


def test_a_configuration_that_was_there_before_does_not_leak_into_a_run() -> None:
    expected = one([QUICKSTART])
    gin.parse_config("experiments.distillation.clip = 7.0\nparameterizations.addressing.coefficient_penalty = 3.0")
    assert one([QUICKSTART]).operative_text == expected.operative_text


def test_the_order_of_sets_of_different_things_does_not_matter() -> None:
    bindings = ["ITERATIONS = 7", "IMAGES_PER_CLASS = 2", "ARCHITECTURE = @architectures.mlp()"]
    runs = [one([QUICKSTART, SMOKE], list(order)) for order in permutations(bindings)]
    assert len({(run.key, run.config_text, run.operative_text) for run in runs}) == 1
    expected = one([QUICKSTART]).experiment.iterations
    assert one([SMOKE, QUICKSTART]).experiment.iterations == expected != 2  # of files, the later wins
    assert one([QUICKSTART, SMOKE]).experiment.iterations == 2


# ---------------------------------------------------------------- the key of a run

SAME = {
    "another name": ["run.name = 'other'"],
    "another scale's label": ["SCALE = 'other'"],
    "the macro or what it stands for": ["experiments.distillation.images_per_class = 1"],
    "a default spelt out": ["experiments.distillation.validation = 0.1", "architectures.convnet.width = 128"],
    "a short selector": ["addressing.bases = 6"],
    "another spelling of the number": ["OUTER_LR = 5e-2"],
}
OTHER = {
    "iterations": "ITERATIONS = 201",
    "outer rate": "OUTER_LR = 1.01",
    "bases": "addressing.bases = 5",
    "clip": "experiments.distillation.clip = 2.0",
    "data set": "DATASET = @datasets.mnist()",
    "preprocessing": "datasets.digits.preprocessing = 'none'",
    "architecture": "ARCHITECTURE = @architectures.mlp()",
    "activation": "architectures.convnet.activation = 'elu'",
    "inner rate": "sgd_momentum.lr = 0.02",
    "protocol": "protocol.lr = 0.02",
    "validation": "distillation.validation = 0.2",
    "seed": "SEEDS = [1]",
}


@pytest.mark.parametrize("what", SAME)
def test_the_key_does_not_depend_on_names_and_spelling(what: str) -> None:
    assert one([QUICKSTART], SAME[what]).key == one([QUICKSTART]).key


def test_the_key_depends_on_every_setting() -> None:
    keys = {what: one([QUICKSTART], [binding]).key for what, binding in OTHER.items()}
    keys["unchanged"] = one([QUICKSTART]).key
    assert len(set(keys.values())) == len(keys), keys


def test_a_dry_run_tells_the_plan_as_text_and_as_json() -> None:
    import json

    text = command(*QUICK, "--dry-run").out
    (plan,) = json.loads(command(*QUICK, "--dry-run", "--json").out)
    assert plan["key"] == one([QUICKSTART, SMOKE], QUICK[5::2]).key
    assert plan["budget"] in text and "624 numbers" in plan["budget"] and plan["inner steps"] == 3
