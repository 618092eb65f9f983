"""A first layer in the span of what is recalled gives the results of one on pixels, and is left where it can't be."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from suite.architectures.convnet import ConvNet
from suite.architectures.mlp import MLP
from suite.contracts.problem import relative_error
from suite.core import span
from suite.errors import UsageError
from suite.experiments import timing
from suite.experiments.continual.companions import with_stand_ins
from suite.inner_optimizers.adam import Adam
from suite.inner_optimizers.averaged import Averaged
from suite.inner_optimizers.forward_only_momentum import ForwardOnlyMomentum
from suite.inner_optimizers.no_momentum import NoMomentum
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.bptt import BPTT, IN_SPAN
from suite.objectives.judged_often import JudgedOften
from suite.objectives.pool import Pool
from suite.objectives.windows import Windows
from suite.parameterizations.addressing import Addressing
from suite.parameterizations.downsampled import Downsampled
from suite.parameterizations.factors import factors
from suite.parameterizations.soft_labels import SoftLabels
from suite.parameterizations.standard import Standard
from suite.streams.permutations import Permutations
from suite.streams.rotations import Rotations
from suite.types import ClassRows, ImageShape, Parameterization, Params, Setting, Split

SHAPE, CLASSES = ImageShape(2, 8, 8), 3
BASES = BPTT(SGDMomentum(lr=0.1), inner_steps=7, images_per_class_per_step=2, real_per_class=4, first_layer="span")
STORED: dict[str, Parameterization] = {
    "addressing": Addressing(bases=4),
    "halved": Downsampled(of=Addressing(bases=6)),
    "images": Standard(),
    "with labels": SoftLabels(of=Addressing(bases=4)),
}


def setting(parameterization: Parameterization, depth: int = 1) -> Setting:
    return Setting(SHAPE, CLASSES, MLP(width=9, depth=depth), parameterization, "none", torch.device("cpu"))


def problem(of: Setting, parameterization: Parameterization | None = None) -> tuple[Params, ClassRows]:
    """A memory and real images in float64."""
    memory = (parameterization or of.parameterization).init(SHAPE, CLASSES, 4, Key(3))
    images = torch.randn(12, 2, 8, 8, generator=Key(4).generator(), dtype=torch.float64)
    return {k: v.double() for k, v in memory.items()}, ClassRows.of(Split(images, torch.arange(12) % CLASSES), CLASSES)


@pytest.fixture(autouse=True)
def in_float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def charts_used(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The bases of every span that is used from now on."""
    used, begin = [], span.Span.begin

    def counted(self: span.Span, params: Params) -> Params:
        used.append(self.outer_inputs["bases"])
        return begin(self, params)

    monkeypatch.setattr(span.Span, "begin", counted)
    return used


@pytest.mark.parametrize("optimizer", [SGDMomentum(lr=0.1), NoMomentum(lr=0.3)], ids=["momentum", "none"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("stored", STORED)
def test_the_hypergradient_is_that_on_pixels(
    stored: str, depth: int, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, what = charts_used(monkeypatch), setting(STORED[stored], depth)
    memory, real = problem(what)
    in_span = replace(BASES, inner_optimizer=optimizer)
    for graphs in (8.0, 1e-9):  # all graphs are kept, or none
        found, metrics = replace(in_span, memory_gib=graphs).gradients(what, memory, real, Key(1))
        expected, on_pixels = replace(in_span, first_layer="pixels").gradients(what, memory, real, Key(1))
        assert relative_error(found, expected) < 1e-10
        assert all(torch.allclose(metrics[k], v, rtol=1e-10) for k, v in on_pixels.items())
    assert len(used) == 2


@pytest.mark.parametrize("stream", [Permutations(), Rotations()], ids=["permutations", "rotations"])
def test_stand_ins_have_factors_too(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = ImageShape(1, 28, 28)
    own = Addressing(bases=5)
    what = with_stand_ins(replace(setting(own), shape=shape), stream, 2, Key(5))
    memory = {k: v.double() for k, v in own.init(shape, CLASSES, 4, Key(3)).items()}
    coefficients, bases = factors(what.parameterization, memory, torch.tensor([2, 0]))
    recalled = what.parameterization.recall(memory, torch.tensor([2, 0]))
    assert torch.allclose(torch.einsum("nrk,kchw->nrchw", coefficients, bases), recalled)
    real = ClassRows.of(Split(torch.randn(12, 1, 28, 28), torch.arange(12) % CLASSES), CLASSES)
    used = charts_used(monkeypatch)
    found, _ = BASES.gradients(what, memory, real, Key(1))
    expected, _ = replace(BASES, first_layer="pixels").gradients(what, memory, real, Key(1))
    assert relative_error(found, expected) < 1e-10 and len(used) == 1


def test_objectives_around_it_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    what = setting(Addressing(bases=4))
    memory, real = problem(what)
    used = charts_used(monkeypatch)
    for around in (JudgedOften, Pool):
        found, expected = (
            around(of=replace(BASES, first_layer=layer)).gradients(what, memory, real, Key(1))[0]
            for layer in ("span", "pixels")
        )
        assert relative_error(found, expected) < 1e-10
    assert len(used) == 2
    with pytest.raises(UsageError, match="first_layer 'pixels': the weights before a window are constants"):
        Windows(of=BASES, window=3)


def test_what_is_not_counted_is_timed() -> None:
    what = setting(Addressing(bases=4))
    for objective in (BASES, JudgedOften(of=BASES), Pool(of=replace(BASES, inner_steps=3), networks=2, oldest=6)):
        seconds = timing.outer_step(what, objective, 4, 2)
        assert seconds > 0 and objective.plan(what, 2)["first layer"].startswith("trained in the span")
    assert BASES.work(what, 2) == JudgedOften(of=BASES).work(what, 2) == []
    assert Pool(of=BASES).work(what, 2) == replace(BASES, first_layer="pixels").work(what, 2) != []


def test_where_it_can_t_be_the_layer_is_trained_on_pixels_and_the_plan_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    what = setting(Addressing(bases=4))
    assert BASES.plan(what, 2)["first layer"] == IN_SPAN
    assert "first layer" not in replace(BASES, first_layer="pixels").plan(what, 2)
    used = charts_used(monkeypatch)
    for of, objective, why in (
        (replace(what, architecture=ConvNet(width=4, depth=1)), BASES, "does not read its pixels by one linear layer"),
        (what, replace(BASES, inner_optimizer=Adam(lr=0.1)), "a step of the inner optimizer is not linear"),
        (what, replace(BASES, inner_optimizer=ForwardOnlyMomentum()), "a step of the inner optimizer is not linear"),
        (
            what,
            replace(BASES, inner_optimizer=Averaged(of=SGDMomentum())),
            "a step of the inner optimizer is not linear",
        ),
        (replace(what, augmentation="flip_rotate"), BASES, "what is recalled is augmented"),
        (what, replace(BASES, execution="captured"), "a GPU replays the steps"),
    ):
        assert why in objective.plan(of, 2)["first layer"]
        memory, real = problem(of)
        objective.gradients(of, memory, real, Key(1))

    assert not used


def test_more_bases_than_half_of_the_pixels_do_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    used = charts_used(monkeypatch)
    for bases, in_span in ((64, 1), (65, 1)):
        what = setting(Addressing(bases=bases))
        memory = {k: v.double() for k, v in what.parameterization.init(SHAPE, CLASSES, 23, Key(3)).items()}
        _, real = problem(setting(Standard()))
        BASES.gradients(what, memory, real, Key(1))
        assert len(used) == in_span
