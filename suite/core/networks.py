"""Networks for the inner loop: initialised by a key, and refused where their forward pass is not a pure function."""

from torch import nn

from suite.core.layers import to_device
from suite.errors import UsageError
from suite.keys import Key, global_generators
from suite.registry import fingerprint, name_of
from suite.types import Setting


def require_unrollable(module: nn.Module, name: str) -> None:
    """Raise UsageError for a network whose forward pass is not a pure function of its parameters and input.

    Running statistics change with every pass, and dropout draws anew: a recomputed step would not be the same step.
    `name` is the network's in the sentence.
    """
    for part_name, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            raise UsageError(
                f"{name} keeps running statistics in '{part_name}', which no hypergradient can pass through; "
                "set its norm to 'instance', 'group' or 'layer' (it may still evaluate a memory as it is)"
            )
        drops = part.p if isinstance(part, nn.modules.dropout._DropoutNd) else getattr(part, "drop_prob", 0)
        if drops:
            raise UsageError(
                f"{name} uses dropout in '{part_name}', which would draw anew when a step is recomputed; set it to 0"
            )


def network_identity(setting: Setting) -> tuple[object, ...]:
    """Equal for settings that build equal networks on one device: a key for what is measured or built once."""
    architecture = setting.architecture
    return type(architecture), fingerprint(architecture), setting.shape, setting.classes, str(setting.device)


def fresh_network(setting: Setting, key: Key, replace_layers: bool = True) -> nn.Module:
    """A network of the setting, initialised by `key`, on its device as `to_device` puts it there.

    Raises UsageError for a network that `require_unrollable` refuses.
    """
    with global_generators(key):
        network = setting.architecture.build(setting.shape, setting.classes)
    require_unrollable(network, name_of(setting.architecture))
    return to_device(network, setting.device, replace_layers)
