"""The shape of the code: imports run one way, outside packages stay where they belong, and no draw is unkeyed."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command_line import REPOSITORY, ended, start

LAYERS = [
    ["errors"],
    ["terminal"],
    ["keys"],
    ["types"],
    ["storage", "validation"],
    ["registry"],
    ["images"],
    ["schedules"],
    ["architectures", "datasets", "inner_optimizers", "parameterizations"],
    ["streams"],
    ["avalanche", "core"],
    ["evaluation"],
    ["controls", "memory", "objectives"],
    ["importers", "starts"],
    ["experiments"],
    ["config", "contracts"],
    ["tracking"],
    ["runtime"],
    ["api", "check", "doctor", "evaluate", "run", "runs", "sweep", "sync"],
    ["__main__"],
]
"""Lower to higher: a part may import from parts below its own line, and from within itself."""

SIDEWAYS = {"evaluate": {"run"}, "runs": {"run"}, "sweep": {"run"}, "parameterizations": {"architectures"}}
"""Inside one line, these directions and no others: `image_queries` has a ConvNet as its default extractor."""

LOOSE_AT_MOST = 13
"""Modules of `suite/` that lie in no room."""

SUITE = REPOSITORY / "suite"
MODULES = {".".join(p.relative_to(SUITE).with_suffix("").parts): p for p in sorted(SUITE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imported(module: str) -> Iterator[tuple[str, int]]:
    """Every dotted name a module imports anywhere, whatever the form, and the line."""
    package = ["suite", *module.split(".")[:-1]]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])] if node.level else None
            base = base or (node.module or "").split(".")
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                inner = whole.removeprefix("suite.")
                is_module = inner in MODULES or f"{inner}.__init__" in MODULES
                yield (whole if is_module else ".".join(base)), node.lineno


def part(module: str) -> str:
    return module.split(".")[0]


def level(name: str) -> int:
    (found,) = [i for i, names in enumerate(LAYERS) if name in names]
    return found


def test_few_modules_lie_loose() -> None:
    loose = [module for module in MODULES if "." not in module and module not in ("__init__", "__main__")]
    assert len(loose) <= LOOSE_AT_MOST, loose


LONGEST_EXPERIMENT, LONGEST_FUNCTION = 250, 40
"""Lines of a file of `suite/experiments`, and of a function there."""


def test_an_experiment_reads_like_a_section_of_the_paper() -> None:
    for module in (m for m in MODULES if part(m) == "experiments"):
        assert len(MODULES[module].read_text().splitlines()) <= LONGEST_EXPERIMENT, module
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, (module, node.name)


def test_every_module_has_its_place() -> None:
    placed = {name for names in LAYERS for name in names}
    assert {part(m) for m in MODULES} - {"__init__"} <= placed


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_run_one_way(module: str) -> None:
    for name, line in imported(module):
        if not name.startswith("suite.") or part(name.removeprefix("suite.")) == part(module):
            continue
        other = part(name.removeprefix("suite."))
        allowed = level(other) < level(part(module)) or other in SIDEWAYS.get(part(module), set())
        assert allowed, f"{MODULES[module]}:{line}: {part(module)} must not import {other}"


def test_no_circle() -> None:
    needs = {m: {part(n.removeprefix("suite.")) for n, _ in imported(m) if n.startswith("suite.")} for m in MODULES}
    parts = {p: set().union(*(needs[m] for m in needs if part(m) == p)) - {p} for p in {part(m) for m in MODULES}}
    while parts:
        free = {p for p, other in parts.items() if not other & set(parts)}
        assert free, f"a circle among {sorted(parts)}"
        parts = {p: other for p, other in parts.items() if p not in free}


def test_components_of_one_kind_do_not_know_those_of_another() -> None:
    kinds = {"architectures", "datasets", "inner_optimizers", "parameterizations"}
    named = {"parameterizations.image_queries": {"architectures"}}  # its default extractor is a ConvNet
    for module in MODULES:
        if part(module) in kinds:
            known = {part(name.removeprefix("suite.")) for name, _ in imported(module) if name.startswith("suite.")}
            assert known & (kinds - {part(module)}) == named.get(module, set()), module


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("mlflow", {"tracking.store"}),
        ("gin", {"config.gin_state", "config.gin_text", "config.root", "registry"}),
        ("matplotlib", {"experiments.drawing"}),
        ("tqdm", {"runtime.session"}),
        ("triton", {"core.triton_kernels"}),
        ("h5py", {"importers.rat_bptt"}),
        ("msgpack", {"importers.rcig"}),
        ("ray", {"sweep.ray_tasks"}),
        ("submitit", {"sweep.submitit_jobs"}),
        ("avalanche", set()),  # by name alone, in suite.avalanche
    ],
)
def test_outside_packages_are_met_in_one_place(package: str, places: set[str]) -> None:
    found = {m for m in MODULES for name, _ in imported(m) if name.split(".")[0] == package}
    assert found == places


LEADERBOARD = [
    ["pages", "published", "records"],
    ["rows"],
    ["format", "tables"],
    ["charts", "lines"],
    ["columns", "downloads", "front"],
    ["speedrun"],
    ["markdown", "site"],
    ["build"],
    ["collect", "serve"],
]
"""Lower to higher, as in `suite`."""

KNOWN_TO_THE_LEADERBOARD = (
    "errors",
    "runtime.record",
    "runtime.run_directory",
    "runtime.title",
    "storage.files",
    "storage.plain_files",
    "terminal",
    "tracking",
)
"""The modules of `suite` that read and check records, none of which needs torch."""


def test_the_leaderboard_knows_records_and_no_engine() -> None:
    places = {name: i for i, names in enumerate(LEADERBOARD) for name in names}
    files = sorted((REPOSITORY / "leaderboard").glob("*.py"))
    assert {file.stem for file in files} - {"__init__"} == set(places)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            whole = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in whole:
                package, _, rest = name.partition(".")
                if package == "leaderboard":
                    assert places[rest.split(".")[0]] < places[file.stem], (file.name, name)
                assert package != "suite" or rest.startswith(KNOWN_TO_THE_LEADERBOARD), name
                assert package not in {"torch", "mlflow"}, (file.name, name)
    assert not [module for module in MODULES for name, _ in imported(module) if name.startswith("leaderboard")]


def test_no_private_name_crosses_modules() -> None:
    for module in MODULES:
        for node in ast.walk(tree(module)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            private = [name for name in names if name.startswith("_") and not name.startswith("__")]
            assert not private, f"{MODULES[module]}:{node.lineno}"


def test_nothing_is_unpickled() -> None:
    """Only the reader of CIFAR's published batches knows the module, for its restricted unpickler. torch's files are
    opened in one place, where the names that they may ask for are listed."""
    assert {m for m in MODULES for name, _ in imported(m) if name.split(".")[0] == "pickle"} <= {"datasets.cifar"}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and dotted(node.func) == "torch.load" and module == "importers.torch_files":
                restricted = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert restricted.get("weights_only") == "True"
            elif isinstance(node, ast.Call):
                assert dotted(node.func) not in {"torch.load", "torch.save", "eval", "exec", "os.system"}, module


def test_every_package_of_the_suite_is_in_the_wheel() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {".".join(file.relative_to(REPOSITORY).parent.parts) for file in SUITE.rglob("__init__.py")}
    assert set(listed) == folders | {"suite.packaged.gin", "leaderboard"}


def test_the_configuration_folder_is_no_package() -> None:
    assert not list((REPOSITORY / "gin").rglob("*.py"))


def test_what_sends_to_a_tracker_starts_without_torch() -> None:
    """A process of its own for every command: it must be quick and small."""
    code = "import sys, suite.sync; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert ended(start(code=["-c", code])).status == 0


# ---------------------------------------------------------------- randomness


def dotted(node: ast.AST) -> str:
    """'a.b.c' of a name or an attribute of names; '' for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
SEEDING = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}
CLOCKS = {"time.time", "time.time_ns", "time.monotonic", "datetime.now", "os.getpid", "os.urandom", "uuid.uuid4"}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "keys"])
def test_no_module_draws_from_a_global_generator(module: str) -> None:
    names = {name.split(".")[0] for name, _ in imported(module)}
    assert not names & {"random", "secrets"}
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        place = f"{MODULES[module]}:{node.lineno}: {name}"
        assert name not in SEEDING and not name.startswith(("np.random", "numpy.random")), place
        if name.startswith("torch.") and name.removeprefix("torch.") in DRAWS:
            assert any(word.arg == "generator" for word in node.keywords), f"{place} without a generator"
        if name.split(".")[-1] in {"manual_seed", "Key", "Generator", "default_rng"}:
            inside = {dotted(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
            assert not inside & CLOCKS, f"{place} from a clock"


def test_this_test_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("import torch\ntorch.manual_seed(0)\n", "import torch\nx = torch.randn(3)\n", "import random\n"):
        (tmp_path / "bad.py").write_text(text)
        monkeypatch.setitem(MODULES, "bad", tmp_path / "bad.py")
        tree.cache_clear()
        with pytest.raises(AssertionError):
            test_no_module_draws_from_a_global_generator("bad")
    (tmp_path / "bad.py").write_text("def f():\n    from suite.run import main\n")
    monkeypatch.setitem(MODULES, "keys", tmp_path / "bad.py")
    tree.cache_clear()
    with pytest.raises(AssertionError, match="must not import run"):
        test_imports_run_one_way("keys")
    tree.cache_clear()
