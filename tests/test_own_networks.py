"""Networks by the import path of their class: built as declared, unrolled exactly, and refused where they can't be."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import QUICK, as_people_run_it, command, only_run, resolve, sets
from torch import nn

from suite.architectures.module import Module, OutsideNetwork
from suite.core.networks import fresh_network, label_of, require_pure
from suite.core.unroll import InnerLoop, hypergradient, hypergradient_by_full_graph
from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.evaluation.training import group_size, train
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.memory import Memory
from suite.parameterizations.standard import Standard
from suite.registry import describe, fingerprint, load_plugin
from suite.types import ImageShape, Params, Setting, Split

SHAPE = ImageShape(1, 8, 8)

NETS = '''
import torch
from torch import nn
from torch.nn import Linear
from torch.nn import functional as F


class Small(nn.Module):
    def __init__(self, num_classes, in_channels=3, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.LazyLinear(num_classes)

    def forward(self, x):
        maps = self.body(x)
        return self.head(maps.view(len(maps), -1))


class Own(nn.Module):
    """Names of its own for everything."""

    def __init__(self, size, hidden, out, extra=None):
        super().__init__()
        self.sizes = size, hidden, out, extra
        first, last = nn.Linear(size[0] * size[1], hidden), nn.Linear(hidden, out)
        self.layers = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)

    def forward(self, x):
        return self.layers(x)


class Twice(nn.Module):
    def __init__(self, num_classes, n_classes=10):
        super().__init__()
        self.head = nn.Linear(64, num_classes)


class Normed(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(6))
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


class Attentive(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed, self.head = nn.Linear(8, 8), nn.Linear(8, num_classes)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        rows = self.embed(x[:, 0])
        return self.head(self.attend(rows, rows, rows, need_weights=False)[0].mean(1))


class Convolved(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.only = nn.Conv2d(1, num_classes, 8)

    def forward(self, x):
        return self.only(x).flatten(1)


class Wrong(nn.Module):
    def __init__(self, how, num_classes):
        super().__init__()
        self.how, self.head, self.passes = how, nn.Linear(64, num_classes), 0
        self.register_buffer("mean", torch.zeros(()))
        if how == "unused":
            self.spare = nn.Linear(3, 3)
        if how == "frozen":
            self.head.bias.requires_grad_(False)
        if how == "none":
            del self.head
        if how == "dropout":
            self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x, how = x.flatten(1), self.how
        self.passes += 1
        if how == "none":
            return x[:, :10]
        if how == "in place, unseen":
            with torch.no_grad():
                self.head.weight.clamp_(-0.01, 0.01)
        if how == "in place":
            self.head.weight.mul_(0.5)
        if how == "data":
            return F.linear(x, self.head.weight.data, self.head.bias)
        if how == "buffer":
            self.mean += x.detach().mean()
        if how == "new buffer":
            self.mean = 0.9 * self.mean + x.detach().mean()
        if how == "random":
            x = F.dropout(x, training=self.training)
        if how == "state":
            x = x * self.passes
        if how == "shape":
            return self.head(x)[:, :3]
        if how == "pair":
            return self.head(x), x
        if how == "pair in training" and self.training:
            return self.head(x), x
        if how == "whole numbers":
            return self.head(x).argmax(1, keepdim=True).expand(-1, self.head.out_features)
        if how == "no derivative":
            return self.head(x).detach()
        if how == "once":
            return Once.apply(self.head(x))
        if how == "blind":
            return self.head(torch.ones_like(x))
        if how == "raises":
            raise KeyError("one\\ntwo")
        return self.head(x)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


def function(num_classes):
    raise AssertionError("somebody called it")


class NoNetwork:
    pass
'''


@pytest.fixture
def nets(tmp_path: Path) -> Iterator[Path]:
    """A file of networks that was named as a plugin."""
    file = tmp_path / "mynets.py"
    file.write_text(NETS)
    load_plugin(file)
    yield file
    for name in [name for name in sys.modules if name.startswith("suite_plugin_mynets")]:
        del sys.modules[name]


def module(name: str, arguments: dict[str, Any] | None = None, **settings: Any) -> Module:
    with as_people_run_it():
        return Module(f"mynets:{name}", arguments, **settings)


def setting(architecture: Module, shape: ImageShape = SHAPE) -> Setting:
    return Setting(shape, 10, architecture, Standard(), "none", torch.device("cpu"))


def built(architecture: Module, shape: ImageShape = SHAPE) -> nn.Module:
    with as_people_run_it():
        return fresh_network(setting(architecture, shape), Key(0))


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as refused, as_people_run_it():
        ask()
    sentence = str(refused.value)
    assert "\n" not in sentence and len(sentence) < 600, sentence
    return sentence


# ---------------------------------------------------------------- built as declared


def test_numbers_of_the_data_are_given_where_their_names_say_so(nets: Path) -> None:
    network = built(module("Small"), ImageShape(3, 8, 8))
    assert isinstance(network, OutsideNetwork) and label_of(module("Small")) == "mynets:Small"
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes["model.body.0.weight"] == (4, 3, 3, 3) and shapes["model.head.weight"] == (10, 4 * 4 * 4)
    x = torch.rand(5, 3, 8, 8, generator=Key(0).generator())
    seen = network.features(x)
    assert seen.shape == (5, 64) and torch.equal(network.model.head(seen), network(x))
    wider = built(module("Small", {"width": 6}))
    assert wider.get_parameter("model.body.0.weight").shape == (6, 1, 3, 3)


def test_arguments_say_what_names_do_not(nets: Path) -> None:
    said = {"size": ("%height", "%width"), "hidden": 5, "out": "%classes", "extra": {"a": [1, "%channels"]}}
    network: Any = built(module("Own", said))
    assert network.model.sizes == ([8, 8], 5, 10, {"a": [1, 1]})
    assert built(module("Small", {"num_classes": 10})).get_parameter("model.head.weight").shape[0] == 10
    assert "gives (2, 7) for 2 images" in refusal(lambda: built(module("Small", {"num_classes": 7})))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("Small", {"num_class": 3}, "takes no argument 'num_class'; did you mean 'num_classes'?"),
        ("Own", {"size": [8, 8], "out": "%classes"}, "needs a value for 'hidden'"),
        ("Own", None, "needs a value for 'size'"),
        ("Twice", None, "takes num_classes and n_classes, of which one may be '%classes'"),
        ("Small", {"width": "%clases"}, "'%clases' stands for nothing; did you mean '%classes'?"),
        ("Small", {"width": [["%x"]]}, "'%x' stands for nothing"),
        ("Small", {"width": float("nan")}, "nan (float) is no plain value"),
        ("Small", {"width": torch.ones(())}, "(Tensor) is no plain value"),
        ("Small", {"width": {1: 2}}, "is no plain value"),
        ("Small", {"is": 3}, "'is' can't be the name of an argument"),
        ("Small", {"two words": 3}, "can't be the name of an argument"),
        ("Small", {3: 3}, "3 can't be the name of an argument"),
    ],
)
def test_arguments_that_are_wrong_are_named(name: str, arguments: Any, words: str, nets: Path) -> None:
    assert words in refusal(lambda: built(module(name, arguments)))


def test_one_of_two_names_may_be_said(nets: Path) -> None:
    for said in ({"n_classes": 3}, {"num_classes": "%classes", "n_classes": 3}):
        with as_people_run_it():
            twice = module("Twice", said)
            if "num_classes" in said:
                assert twice.build(SHAPE, 10).get_parameter("model.head.weight").shape[0] == 10
            else:
                assert "needs a value for 'num_classes'" in refusal(lambda twice=twice: twice.build(SHAPE, 10))


def test_batch_norm_is_replaced_where_the_setting_says_so(nets: Path) -> None:
    assert "mynets:Normed keeps running statistics in 'model.body.1'" in refusal(lambda: built(module("Normed")))
    for norm in ("instance", "group", "layer"):
        network = built(module("Normed", norm=norm))
        assert not list(network.buffers()) and any(isinstance(part, nn.GroupNorm) for part in network.modules())
    small = ImageShape(1, 3, 3)
    sentence = refusal(lambda: module("Normed", norm="instance").build(small, 10))
    assert "maps of one pixel" in sentence and "mynets:Normed" in sentence


def test_a_network_without_a_linear_layer_has_no_features(nets: Path) -> None:
    network: Any = built(module("Convolved"))
    assert "passes no linear layer" in refusal(lambda: network.features(torch.zeros(2, 1, 8, 8)))


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("name", ["Small", "Attentive"])
def test_its_hypergradient_is_plain_autograd_s(name: str, nets: Path) -> None:
    """Also through torch's attention, whose fast way has no second derivative."""
    network = built(module(name)).double()
    images = torch.rand(4, 1, 8, 8, generator=Key(1).generator(), dtype=torch.float64)
    labels = torch.arange(4)

    def loss(params: Params, inputs: Params, t: Any = 0) -> torch.Tensor:
        scores = torch.func.functional_call(network, params, (inputs["images"],))
        return nn.functional.cross_entropy(scores, labels)

    loop = InnerLoop(loss, SGDMomentum(lr=0.1, momentum=0.9), {"images": images})
    params = {k: v.detach() for k, v in network.named_parameters()}
    outer = [lambda params: loss(params, {"images": images.flip(0)})]
    found, plain = hypergradient(loop, outer, params, 4), hypergradient_by_full_graph(loop, outer, params, 4)
    torch.testing.assert_close(found.gradients["images"], plain.gradients["images"], rtol=1e-9, atol=1e-12)
    assert found.gradients["images"].norm() > 1e-4


def test_it_is_trained_whole_and_with_its_own_layers(nets: Path) -> None:
    """A ConvNet's batches pass in pieces, with other layers, and small networks are trained side by side."""
    of = setting(module("Small"), ImageShape(1, 16, 16))
    assert group_size(of, 10, Protocol()) == 1
    images = torch.rand(50, 1, 16, 16, generator=Key(2).generator())
    data = Split(images, torch.arange(50) % 10)
    with as_people_run_it():
        network = train(of, data, Protocol(epochs=1, augment=False), Key(0))
    assert {type(part) for part in network.modules()} >= {nn.Conv2d, nn.Linear}


# ---------------------------------------------------------------- refused

WRONG = {
    "unused": "the parameter 'model.spare.weight' takes no part in the loss of mynets:Wrong",
    "frozen": "the parameter 'model.head.bias' of mynets:Wrong is frozen",
    "none": "mynets:Wrong has no parameters that learn",
    "dropout": "mynets:Wrong uses dropout in 'model.drop'",
    "in place, unseen": "mynets:Wrong changes its parameter 'model.head.weight'",
    "in place": "must not change its parameters in place",
    "data": "the parameter 'model.head.weight' takes no part in the loss",
    "buffer": "mynets:Wrong changes its buffer 'model.mean'",
    "new buffer": "mynets:Wrong changes its buffer 'model.mean'",
    "random": "gives the same images other scores when it is asked again",
    "state": "gives the same images other scores when it is asked again",
    "shape": "gives (2, 3) for 2 images, and must give logits (2, 10)",
    "pair": "gives tuple for 2 images, and must give logits (2, 10)",
    "pair in training": "gives tuple for 2 images",
    "whole numbers": "must give logits (2, 10)",
    "no derivative": "can't be unrolled on images of 1x8x8 with 10 classes",
    "once": "must be differentiable twice",
    "blind": "does not depend on its images",
    "raises": "KeyError: 'one\\ntwo'",
}


@pytest.mark.parametrize("how", WRONG)
def test_what_can_t_be_unrolled_is_refused_before_the_first_step(how: str, nets: Path, tmp_path: Path) -> None:
    own = ["ARCHITECTURE = @architectures.module()", "architectures.module.model = 'mynets:Wrong'"]
    own += [f"architectures.module.arguments = {{'how': {how!r}}}"]
    line = ["--plugin", nets, *drop_mlp(QUICK), *sets(*own), "--data-dir", tmp_path, "--tracking-uri", "none"]
    done = command(*line, "--out", tmp_path / "out", "--dry-run")
    assert done.status == 2 and WRONG[how] in done.complaint, done.complaint


def drop_mlp(words: list[str]) -> list[str]:
    """Without the settings of an MLP."""
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return [word for pair in pairs if "mlp" not in pair[1] for word in pair]


def test_a_network_that_only_judges_may_draw_and_keep_statistics(nets: Path, tmp_path: Path) -> None:
    own = sets("TRANSFER = [@a/architectures.module()]", "a/architectures.module.model = 'mynets:Normed'")
    line = ["--plugin", nets, *QUICK, "--data-dir", tmp_path, "--tracking-uri", "none", "--dry-run"]
    done = command(*line, *own)
    assert done.status == 0, done.err
    wrong = sets("TRANSFER = [@a/architectures.module()]", "a/architectures.module.model = 'mynets:Wrong'")
    done = command(*line, *wrong, *sets("a/architectures.module.arguments = {'how': 'pair in training'}"))
    assert done.status == 2 and "gives tuple for 2 images" in done.complaint


def test_a_trial_leaves_no_trace(nets: Path) -> None:
    state = torch.random.get_rng_state()
    network = built(module("Small"))
    assert torch.equal(torch.random.get_rng_state(), state)
    before = {k: v.clone() for k, v in network.named_parameters()}
    require_pure(network, SHAPE, 10, "it")
    assert all(torch.equal(before[k], v) and v.grad is None for k, v in network.named_parameters())


# ---------------------------------------------------------------- trust


def test_a_configuration_names_no_module_of_its_own(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_nets.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path, words in {
        "evil_nets:Small": "the module evil_nets is none that this command names",
        "os:system": "the module os is none that this command names",
        "torch.nn:Linear": "the module torch.nn is none that this command names",
        "suite.architectures.module:OutsideNetwork": "is none that this command names",
        "torchvision:models": "is none that this command names",
        "mynets:Linear": "Linear is of torch.nn.modules.linear, not of mynets",
        "mynets:function": "mynets has no network 'function'",
        "mynets:NoNetwork": "mynets has no network 'NoNetwork'",
        "mynets:torch": "mynets has no network 'torch'",
        "mynets:Smal": "did you mean 'Small'?",
        "mynets:__dict__": "mynets has no network '__dict__'",
        "mynets.Small": "must be MODULE:CLASS",
        "mynets:Small:x": "must be MODULE:CLASS",
        "../mynets:Small": "must be MODULE:CLASS",
        "\x1b[2J:x": "must be MODULE:CLASS",
    }.items():
        own = ["ARCHITECTURE = @architectures.module()", f"architectures.module.model = {path!r}"]
        done = command("--plugin", nets, *drop_mlp(QUICK), *sets(*own), "--dry-run")
        assert done.status == 2 and words in done.complaint and "\x1b" not in done.err, (path, done.complaint)
    assert not (tmp_path / "ran").exists() and "evil_nets" not in sys.modules


def test_a_module_is_named_by_every_command_anew(nets: Path, tmp_path: Path) -> None:
    own = ["ARCHITECTURE = @architectures.module()", "architectures.module.model = 'mynets:Small'"]
    resolve(QUICK[1:4:2], own)
    from suite import registry

    registry._named_files.clear()
    with pytest.raises(UsageError, match=r"--plugin mynets\.py, with its folder"):
        resolve(QUICK[1:4:2], own)
    other = tmp_path / "other" / "mynets.py"
    other.parent.mkdir()
    other.write_text(NETS)
    load_plugin(other)
    load_plugin(nets)
    with pytest.raises(UsageError, match="several modules are called 'mynets'"):
        resolve(QUICK[1:4:2], own)


def test_a_package_is_named_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("from lab.nets import Small\n")
    (tmp_path / "lab" / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin("lab")
    assert built(Module("lab:Small")).get_parameter("model.head.weight").shape[0] == 10
    assert "the module lab.nets is none" in refusal(lambda: Module("lab.nets:Small"))
    load_plugin("lab.nets")
    assert Module("lab.nets:Small").outside_source == Module("lab:Small").outside_source
    for name in ("lab", "lab.nets"):
        del sys.modules[name]


def test_an_edited_file_is_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that it imports: accuracies of controls are kept for equal networks."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_blocks.py").write_text("WIDTH = 4\n")
    keys = []
    for edit in ("", "\n# edited\n", "\n# edited\n"):
        if keys[1:]:
            (tmp_path / "own_blocks.py").write_text("WIDTH = 5\n")
        (tmp_path / "mynets.py").write_text("import own_blocks\n" + NETS + edit)
        load_plugin(tmp_path / "mynets.py")
        keys.append(fingerprint(module("Small")))
        for name in [name for name in sys.modules if name.startswith(("suite_plugin_mynets", "own_blocks"))]:
            del sys.modules[name]
    assert len(set(keys)) == 3
    assert "source" not in describe(Module("torchvision.models:resnet18"))


# ---------------------------------------------------------------- whole commands


@pytest.mark.slow
def test_a_network_of_one_s_own_distils_and_judges(nets: Path, data_dir: Path, tmp_path: Path) -> None:
    own = ["ARCHITECTURE = @architectures.module()", "architectures.module.model = 'mynets:Small'"]
    own += ["architectures.module.arguments = {'width': 3}"]
    line = ["--plugin", nets, *drop_mlp(QUICK), *sets(*own), "--data-dir", data_dir, "--out", tmp_path / "out"]
    line += sets("TRANSFER = [@a/architectures.module()]", "a/architectures.module.model = 'mynets:Normed'")
    line += sets("a/architectures.module.arguments = None")
    done = command(*line, "--tracking-uri", "none", "--json")
    assert done.status == 0, done.err
    of_class = {"is": "module", "source": module("Small").outside_source, "model": "mynets:Small"}
    assert done.record["config"]["architecture"] == of_class | {"arguments": {"width": 3}, "norm": "as_is"}
    assert {measured["network"] for measured in done.record["measurements"]} == {"", "mynets:Normed"}
    run = only_run(tmp_path / "out")
    (again,) = resolve([str(run / "config.gin")])
    assert again.key == done.record["run_key"]
    with as_people_run_it():
        judged = Memory.load(run / "memory.safetensors").evaluate(
            networks=1, epochs=1, controls=[], data_dir=data_dir, progress=False
        )
    assert "memory" in repr(judged)


@pytest.mark.slow
def test_a_classifier_of_torchvision_s_is_planned(data_dir: Path) -> None:
    own = ["ARCHITECTURE = @architectures.module()", "architectures.module.model = 'torchvision.models:{}'"]
    words = sets("DATASET = @datasets.cifar10()")

    def planned(name: str, *more: str) -> Any:
        bindings = sets(*(line.format(name) for line in own), *more)
        return command(*drop_mlp(QUICK), *words, *bindings, "--data-dir", data_dir, "--dry-run")

    assert planned("resnet18", "architectures.module.norm = 'group'").status == 0
    assert "resnet18 keeps running statistics" in planned("resnet18").complaint
    assert "no classifier 'resnet19'; did you mean 'resnet18'?" in planned("resnet19").complaint
    assert "no classifier 'get_model'" in planned("get_model").complaint
    for fetched in ("{'weights': 'DEFAULT'}", "{'pretrained': True}", "{'weights_backbone': 'x'}"):
        sentence = planned("resnet18", f"architectures.module.arguments = {fetched}").complaint
        assert "would fetch trained weights" in sentence
