"""Tensors that are sent together arrive as they were, and a network's parts stay what they are to each other."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.architectures.convnet import ConvNet
from suite.core.layers import to_device
from suite.core.transfer import ALIGNMENT, together
from suite.keys import Key, global_generators
from suite.types import ImageShape

ELSEWHERE = torch.device("xpu")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What is sent elsewhere, each as one tensor of bytes, which stays here."""
    flat: list[Tensor] = []
    to = Tensor.to

    def noting(self: Tensor, *given: Any, **named: Any) -> Tensor:
        if given and given[0] == ELSEWHERE:
            flat.append(self)
            return self
        return to(self, *given, **named)

    monkeypatch.setattr(Tensor, "to", noting)
    return flat


def test_one_copy_holds_all_shapes_and_types(sent: list[Tensor]) -> None:
    given = [
        torch.arange(6).view(2, 3),
        torch.tensor(1.5),
        torch.zeros(0, 4),
        torch.arange(12, dtype=torch.float64).view(3, 4).t(),
        torch.tensor([True, False, True]),
        torch.ones(200, requires_grad=True),
    ]
    found = together(given, ELSEWHERE)
    assert len(sent) == 1
    for one, other in zip(found, given, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other) and one.is_contiguous() and not one.requires_grad
        assert one.storage_offset() * one.element_size() % ALIGNMENT == 0


def test_on_a_cpu_nothing_is_copied() -> None:
    given = [torch.ones(2), torch.arange(3)]
    assert [a is b for a, b in zip(together(given, torch.device("cpu")), given, strict=True)] == [True, True]
    assert together([], ELSEWHERE) == []


class Shared(nn.Module):
    """Two layers of one weight, one of which is frozen, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.other.bias.requires_grad_(False)
        self.register_buffer("steps", torch.arange(3))


def test_a_network_is_sent_as_one_tensor_and_stays_itself(sent: list[Tensor]) -> None:
    with global_generators(Key(0)):
        networks = [Shared(), ConvNet(width=3).build(ImageShape(1, 16, 16), 2)]
    for network in networks:
        before = {k: v.clone() for k, v in network.state_dict().items()}
        needed = [p.requires_grad for p in network.parameters()]
        sent.clear()
        assert to_device(network, ELSEWHERE) is network
        assert len(sent) == 1
        assert list(network.state_dict()) == list(before)
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert [p.requires_grad for p in network.parameters()] == needed
        assert all(p.is_leaf and isinstance(p, nn.Parameter) for p in network.parameters())
    assert networks[0].one.weight is networks[0].other.weight
