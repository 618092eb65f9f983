"""Named tensors as one row: the same numbers, and the same steps for every optimizer that says so."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from suite.core.rows import Row, fits_a_row
from suite.inner_optimizers.averaged import Averaged
from suite.inner_optimizers.clipped import Clipped
from suite.keys import Key
from suite.registry import inner_optimizers
from suite.types import Params


def numbers(name: str) -> Params:
    shapes = {"bias": (3,), "weight": (4, 2, 4, 2), "last": (5, 3), "scale": (64,)}
    return {k: torch.randn(shape, generator=Key(0)(name, k).generator()) for k, shape in shapes.items()}


def test_tensors_whose_address_should_be_even_come_first() -> None:
    row = Row.of(numbers("w"))
    assert [k for k, _ in row.shapes] == ["weight", "scale", "bias", "last"]
    packed = row.pack(numbers("w"))
    assert packed["all"].shape == (64 + 64 + 3 + 15,)
    assert all(torch.equal(v, numbers("w")[k]) for k, v in row.unpack(packed).items())


ELEMENTWISE = ["adam", "averaged", "forward_only_momentum", "no_momentum", "scheduled", "sgd_momentum"]


def test_every_optimizer_of_the_suite_is_elementwise_but_clipping_and_one_that_reads_names() -> None:
    of = {name: fits_a_row(inner_optimizers[name].build(), numbers("w")) for name in inner_optimizers.names()}
    assert [name for name, fits in of.items() if fits] == ELEMENTWISE and not of["clipped"] and not of["slowed"]
    assert not fits_a_row(Averaged(of=Clipped()), numbers("w"))
    assert not fits_a_row(object(), numbers("w"))
    assert not fits_a_row(inner_optimizers["adam"].build(), numbers("w") | {"half": torch.zeros(2).half()})


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_three_steps_on_the_row_are_three_steps_on_the_tensors(name: str) -> None:
    optimizer: Any = inner_optimizers[name].build()
    if hasattr(optimizer, "steps"):
        optimizer = replace(optimizer, steps=5)
    params = numbers("w")
    row = Row.of(params)
    packed = row.pack(params)
    state, packed_state = optimizer.init(params), optimizer.init(packed)
    for t in range(3):
        grads = numbers(f"gradient {t}")
        params, state = optimizer.step(params, grads, state)
        packed, packed_state = optimizer.step(packed, row.pack(grads), packed_state)
    assert all(torch.equal(v, params[k]) for k, v in row.unpack(packed).items())
