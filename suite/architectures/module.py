"""Any network of torch's by the import path of its class: of a plugin, or one of torchvision's."""

import inspect
import keyword
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter

from suite.architectures.layers import AsIsOrReplaced, refuse_single_pixels, replace_batch_norm
from suite.errors import UsageError, printable
from suite.registry import architectures, nearest, plugin_module, suggestion
from suite.storage.files import json_sha256
from suite.storage.source_code import code_of
from suite.types import ImageShape

TORCHVISION = "torchvision.models"
"""The one module that no command needs to name: its classifiers are listed, and built without weights."""

OF_CLASSES = ("num_classes", "n_classes", "nclasses")
"""What a class calls its number of classes, where `arguments` does not say."""

OF_CHANNELS = ("in_channels", "in_chans", "input_channels")
"""Likewise its number of channels."""

STANDS_FOR = ("%classes", "%channels", "%height", "%width")
"""Texts in `arguments` that stand for numbers of the data set."""


class OutsideNetwork(nn.Module):
    """A network of somebody else with the methods of `suite.types.Architecture`'s networks."""

    as_written: ClassVar[bool] = True
    """Its code may need maps that lie in memory channel by channel (`view`), and may do more than its layers do: no
    layer of it is replaced on a CPU, and batches pass through it whole."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self._name = name

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n features"]:
        """What the last linear layer sees. Raises UsageError for a network without one."""
        seen: list[Tensor] = []
        layers = [part for part in self.model.modules() if isinstance(part, nn.Linear)]
        hooks = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in layers]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        if not seen:
            raise UsageError(
                f"{self._name} passes no linear layer, so it has no features; choose an objective and controls that "
                "need none"
            )
        return seen[-1].flatten(1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Any:
        """What the network gives, which must be logits of the classes."""
        with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention has no second derivative
            return self.model(x)


@architectures.register("module")
@dataclass(frozen=True)
class Module:
    """Any class of torch's networks by its import path, `FILE:CLASS`, of a plugin or of torchvision.models.

    The class must be written in a file or module that this very command names, by `--plugin` (in Python by
    `suite.registry.load_plugin`): a configuration alone runs no code. `torchvision.models:NAME` is any of torchvision's
    classifiers, untrained.

    >>> network = Module("torchvision.models:squeezenet1_1", {"dropout": 0.0}).build(ImageShape(3, 32, 32), classes=10)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    model: str = ""
    """The class: 'mynets:SmallNet' for `--plugin mynets.py`, 'lab.nets:SmallNet' for `--plugin lab.nets`."""
    arguments: dict[str, Any] | None = None
    """What the class is called with: texts, numbers, True, False, None, and lists and tables of these. '%classes',
    '%channels', '%height' and '%width' stand for the data set's numbers. What is not said: a parameter `num_classes`
    and one `in_channels` (or `n_classes`, `in_chans`, ...) get theirs, others their defaults."""
    norm: AsIsOrReplaced = "as_is"
    """What takes the place of batch norm; 'as_is' keeps it: such a network may evaluate a memory but not distil one."""

    def __post_init__(self) -> None:
        if self.arguments is not None:
            _require_names(self.arguments)
            object.__setattr__(self, "arguments", _plain(self.arguments))
        if self.model:
            self._place()
            if self._of_torchvision:
                _refuse_weights(self.arguments or {})
            else:
                self._class()

    @property
    def outside_source(self) -> str | None:
        """The hash of the code that is run, as `suite.registry.describe` has it; None for torchvision's."""
        if not self.model or self._of_torchvision:
            return None
        kind = self._class()
        parents = {parent.__module__ for parent in kind.__mro__}
        installed = frozenset(name for name in parents if name.split(".")[0] in ("torch", "torchvision"))
        return json_sha256(code_of(kind, installed))[:16]

    def build(self, shape: ImageShape, classes: int) -> nn.Module:
        """The network for images of this shape, as its class initialises it.

        Raises UsageError for a name that is not there, arguments that the class does not take or lacks, and where
        instance norm would see maps of one pixel.
        """
        if not self.model:
            raise UsageError(
                "Module.model: name the class of a network, as in --plugin mynets.py "
                "--set \"architectures.module.model = 'mynets:SmallNet'\""
            )
        make = self._builder() if self._of_torchvision else self._class()
        model = make(**self._given(make, shape, classes))
        if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
            with torch.no_grad():  # a lazy layer takes its size from what it sees first
                model.eval()(torch.zeros(2, shape.channels, shape.height, shape.width))
        if self.norm != "as_is":
            replace_batch_norm(model, self.norm)
        if self.norm == "instance":
            refuse_single_pixels(model, shape, self.model)
        return OutsideNetwork(model.train(), self.model)

    # ------------------------------------------------------------ the class

    @property
    def _of_torchvision(self) -> bool:
        return self.model.startswith(f"{TORCHVISION}:")

    def _place(self) -> tuple[str, str]:
        """Module and name. Raises UsageError for a path of another form."""
        found = re.fullmatch(r"([\w.-]{1,200}):([^\W\d]\w{0,200})", self.model)
        if found is None:
            raise UsageError(
                f"Module.model must be MODULE:CLASS, as in 'mynets:SmallNet' or '{TORCHVISION}:resnet18', not "
                f"'{printable(self.model)[:200]}'"
            )
        return found[1], found[2]

    def _class(self) -> type[nn.Module]:
        """The class, of a module that was named as a plugin. Raises UsageError for what is none, or is of another."""
        place, name = self._place()
        module = plugin_module(place)
        own = {key: value for key, value in vars(module).items() if _is_network(value, module.__name__)}
        if name not in own:
            other = getattr(module, name, None)
            why = f"{place} has no network '{name}'"
            if isinstance(other, type) and issubclass(other, nn.Module):
                why = f"{name} is of {other.__module__}, not of {place}: name that module as a plugin, too, or a class"
            raise UsageError(f"Module.model: {why}; {suggestion(name, sorted(own)) if own else 'it has no nn.Module'}")
        return own[name]

    def _builder(self) -> Callable[..., nn.Module]:
        """torchvision's function of this name."""
        from torchvision import models  # takes a second to import, and few runs need it

        _, name = self._place()
        known = models.list_models(module=models)
        if name not in known:
            words = f"{nearest(name, known)}torchvision.models.list_models() has all"
            raise UsageError(f"torchvision has no classifier '{name}'; {words}")
        return models.get_model_builder(name)

    # ------------------------------------------------------------ its arguments

    def _given(self, make: Callable[..., nn.Module], shape: ImageShape, classes: int) -> dict[str, Any]:
        """What the class is called with. Raises UsageError for what it does not take, and for what nothing gives."""
        numbers = {"%classes": classes, "%channels": shape.channels, "%height": shape.height, "%width": shape.width}
        said = self.arguments or {}
        given = {name: _filled(value, numbers) for name, value in said.items()}
        if self._of_torchvision:
            return {"num_classes": classes} | given
        parameters = inspect.signature(make).parameters
        any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        unknown = [name for name in given if name not in named and not any_name]
        if unknown:
            raise UsageError(f"{self.model} takes no argument '{unknown[0]}'; {suggestion(unknown[0], named)}")
        for stands_for, words in (("%classes", OF_CLASSES), ("%channels", OF_CHANNELS)):
            meant = [name for name in words if name in named]
            if not set(meant) & set(given) and stands_for not in _texts(said):
                if len(meant) > 1:
                    raise UsageError(
                        f"{self.model} takes {' and '.join(meant)}, of which one may be '{stands_for}'; say which, in "
                        "architectures.module.arguments"
                    )
                given |= {name: numbers[stands_for] for name in meant}
        lacking = [name for name in named if name not in given and parameters[name].default is inspect.Parameter.empty]
        if lacking:
            raise UsageError(
                f"{self.model} needs a value for '{lacking[0]}', which nothing gives; say it, as in --set "
                f"\"architectures.module.arguments = {{'{lacking[0]}': 32}}\" ({', '.join(STANDS_FOR)} stand for the "
                "data set's numbers)"
            )
        return given


def _is_network(value: Any, module: str) -> bool:
    """Whether a value is a class of networks that is written in a module or below it, and not only imported there."""
    own = isinstance(value, type) and issubclass(value, nn.Module)
    return own and (value.__module__ == module or value.__module__.startswith(f"{module}."))


def _require_names(arguments: dict[Any, Any]) -> None:
    """Raise UsageError for what can't be the name of an argument."""
    for name in arguments:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise UsageError(f"Module.arguments: {printable(repr(name))[:200]} can't be the name of an argument")


def _plain(value: Any) -> Any:
    """Plain data, tuples as lists. Raises UsageError for what no record could hold."""
    if isinstance(value, str) and value.startswith("%") and value not in STANDS_FOR:
        near = suggestion(value, list(STANDS_FOR))
        raise UsageError(f"Module.arguments: '{printable(value)[:200]}' stands for nothing; {near}")
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise UsageError(
        f"Module.arguments: {printable(repr(value))[:200]} ({type(value).__name__}) is no plain value; write texts, "
        "finite numbers, True, False, None, and lists and tables of these"
    )


def _texts(value: Any) -> set[str]:
    """Every text in plain data."""
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    return {value} if isinstance(value, str) else set[str]().union(*map(_texts, inner))


def _filled(value: Any, numbers: dict[str, int]) -> Any:
    """A value with the data set's numbers in place of what stands for them."""
    if isinstance(value, list):
        return [_filled(item, numbers) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, numbers) for key, item in value.items()}
    return numbers.get(value, value) if isinstance(value, str) else value


def _refuse_weights(arguments: dict[str, Any]) -> None:
    """Raise UsageError for what torchvision would fetch from the network; every network here starts untrained."""
    fetched = [name for name in arguments if name.startswith(("weights", "pretrained")) and arguments[name]]
    if fetched:
        raise UsageError(f"Module.arguments: '{fetched[0]}' would fetch trained weights; networks start untrained here")
