"""Back-propagation through time: the memory is judged by what a network learns from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, device, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from suite.core.captured import CapturedHypergradient
from suite.core.cpu_layers import PIECE
from suite.core.networks import fresh_network
from suite.core.unroll import OuterLoss, Retention, hypergradient, through_recall
from suite.errors import UsageError
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.fresh import AFFORDED, few
from suite.registry import objectives
from suite.types import EXPECTED_MEMORY, Architecture, ClassRows, InnerOptimizer, Parameterization, Params, Setting
from suite.validation import Above, Positive, PositiveInt

SLACK = 1.35
"""What a graph was seen to take of a process's memory for each byte it saves: gaps between tensors, and temporaries."""


FIXED = 112 * 2**20
"""What a process was seen to take on top, whatever is kept: workspaces. Promised, not planned with."""


@objectives.register("bptt")
@dataclass(frozen=True)
class BPTT:
    """The hypergradient of a fresh network's loss on real images, through all its training on recalled ones.

    Every outer step takes a fresh network and `classes_per_step` classes (None: all). Every inner step trains it on
    `images_per_class_per_step` of the images recalled for each of them, drawn anew without replacement (all there are,
    if fewer); the outer loss is the cross-entropy on `real_per_class` real training images of each. One draw of the
    augmentation serves every image and step of an outer step. An unroll keeps as many graphs as `memory_gib` affords,
    and replays the other steps: more memory, less time, the same result up to rounding (`suite.core.unroll.Retention`).
    `execution` 'captured' replays two CUDA graphs on a GPU and keeps every state (`suite.core.captured`); 'compiled'
    has torch.compile fuse the steps as well, for runs long enough to make up for the minute that takes. `precision` is
    that of the networks' products: 'tf32' (a GPU's) and 'bfloat16' (by autocast; weights and updates stay in float32)
    change the figures. Paper, sections 3 and A.1.
    """

    inner_optimizer: InnerOptimizer = field(default_factory=SGDMomentum)
    inner_steps: PositiveInt = 150
    classes_per_step: Annotated[int, Above(1)] | None = None
    images_per_class_per_step: PositiveInt = 32
    real_per_class: PositiveInt = 64
    memory_gib: Positive = 8.0
    execution: Literal["eager", "captured", "compiled"] = "eager"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        with _tf32(setting.device) if self.precision == "tf32" else nullcontext():
            return self._gradients(setting, memory, real, key)

    def _gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        leaves = {k: v.detach().requires_grad_() for k, v in memory.items()}
        images, network, data = self._shown(setting, leaves, real, key)
        params: Params = dict(network.named_parameters())
        inputs = {"images": images.detach()}
        if self.execution == "eager":
            problem = _Problem(network, data, self.precision == "bfloat16")
            retention = self._retention(setting, network, data.rows.shape[1])
            losses = problem.inner_loss, problem.outer_losses()
            found = hypergradient(*losses, params, inputs, self.inner_optimizer, self.inner_steps, retention)
        else:
            problem, program = _program(
                self, _Network(**vars(setting)), data.rows.shape[1], len(data.real), len(images)
            )
            problem.data.fill(data)
            found = program(params, inputs)
        metrics = {"loss": found.loss, "inner_loss_first": found.inner_losses[0], "inner_loss": found.inner_losses[-1]}
        return through_recall(images, leaves, found.gradients["images"]), metrics

    def _shown(
        self, setting: Setting, leaves: Params, real: ClassRows, key: Key
    ) -> tuple[Float[Tensor, "n c h w"], nn.Module, "_Data"]:
        """The recalled images of an outer step, its network, and what the network is shown of them and of real ones."""
        classes = self._classes(setting, key)
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        recalled = setting.parameterization.recall(leaves, classes.to(setting.device))
        per_class = recalled.shape[1]
        images = augmented(torch.flatten(recalled, 0, 1))
        labels = classes.repeat_interleave(per_class).to(setting.device)

        each = min(self.images_per_class_per_step, per_class)
        draws = key("inner").subsets(self.inner_steps * len(classes), per_class, each)
        first = torch.arange(len(classes)).repeat(self.inner_steps) * per_class
        rows = (draws + first[:, None]).view(self.inner_steps, -1).to(setting.device)

        network = fresh_network(setting, key("network"), self._rewritten())
        batch = real.draw(classes.tolist(), self.real_per_class, key("real"))
        return images, network, _Data(rows, labels[rows], augmented(batch.images), batch.labels)

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Of one outer step: the norm of d outer loss / d w_t for t = 0, ..., T, over all weights together."""
        norms: dict[int, Tensor] = {}

        def watch(t: int, params_bar: Params) -> None:
            norms[t] = torch.stack([g.norm() for g in params_bar.values()]).norm()

        images, network, data = self._shown(setting, memory, real, key)
        problem = _Problem(network, data, self.precision == "bfloat16")
        losses = problem.inner_loss, problem.outer_losses()
        params: Params = dict(network.named_parameters())
        inputs = {"images": images.detach()}
        hypergradient(*losses, params, inputs, self.inner_optimizer, self.inner_steps, Retention(), watch)
        return torch.stack([norms[t] for t in range(self.inner_steps + 1)]).tolist()

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        classes = min(self.classes_per_step or setting.classes, setting.classes)
        batch = classes * min(self.images_per_class_per_step, per_class)
        real = classes * self.real_per_class
        network = fresh_network(setting, Key(0))
        # A program keeps every state and one graph.
        retention = self._retention(setting, network, batch) if self.execution == "eager" else Retention()
        size = retention.peak_bytes(self.inner_steps, *self._sizes(setting, network, batch))
        # The outer loss has one plain graph of real images: about half of a step's, image for image.
        at_once = min(real, PIECE if setting.device.type == "cpu" else real)
        size += at_once * (_graph_bytes(setting, 2) - _graph_bytes(setting, 1)) // 2
        return {
            "inner steps": self.inner_steps,
            "inner batch": batch,
            "real images in the outer loss": real,
            "network parameters": sum(p.numel() for p in network.parameters()),
            "inner steps are run": self.execution,
            "inner steps whose graphs are kept": min(retention.graphs, self.inner_steps),
            EXPECTED_MEMORY: round((size + FIXED) / 2**20),
        }

    def seconds(self, setting: Setting, per_class: int, measured: Callable[..., float]) -> float:
        """Of one outer step, from measured ones of one and three inner steps; of few images where all take long."""
        groups = min(self.classes_per_step or setting.classes, setting.classes)
        each = min(self.images_per_class_per_step, per_class)
        # To be measured, it would be compiled for a minute.
        short = replace(self, inner_steps=1, execution="eager" if self.execution == "compiled" else self.execution)

        def parts(shown: int, real: int) -> tuple[float, float]:
            """Seconds of an inner step and of the rest, for all images."""
            small = replace(short, images_per_class_per_step=shown, real_per_class=real)
            one, three = measured(small, groups), measured(replace(small, inner_steps=3), groups)
            step = max(three - one, 0.0) / 2
            return step * each / shown, max(one - step, 0.0) * self.real_per_class / real

        step, rest = parts(few(each, groups), few(self.real_per_class, groups))
        if 3 * step + rest < AFFORDED or setting.device.type != "cpu":  # few images leave a GPU idle
            step, rest = parts(each, self.real_per_class)
        return self.inner_steps * step + rest

    def _classes(self, setting: Setting, key: Key) -> Tensor:
        if self.classes_per_step is None or self.classes_per_step >= setting.classes:
            return torch.arange(setting.classes)
        return key("classes").permutation(setting.classes)[: self.classes_per_step].sort().values

    def _rewritten(self) -> bool:
        """Whether the network gets layers of our own, which neither torch.compile nor autocast knows."""
        return self.execution != "compiled" and self.precision != "bfloat16"

    def _retention(self, setting: Setting, network: nn.Module, batch: int) -> Retention:
        return Retention.within(int(self.memory_gib * 2**30), self.inner_steps, *self._sizes(setting, network, batch))

    def _sizes(self, setting: Setting, network: nn.Module, batch: int) -> tuple[int, int]:
        """Bytes of a state and of a step's graph; what a graph saves is measured on one image and on two."""
        state = self.inner_optimizer.init({k: p.detach() for k, p in network.named_parameters()})
        tensors = [*network.parameters(), *(v for part in state.values() for v in part.values())]
        one, two = (_graph_bytes(setting, images) for images in (1, 2))
        graph = int(SLACK * (one + (two - one) * (batch - 1)))
        return sum(v.numel() * v.element_size() for v in tensors), graph


@contextmanager
def _tf32(where: device) -> Iterator[None]:
    """Products of float32 with 10 bits of mantissa on a GPU's tensor cores, and afterwards what there was before."""
    if where.type != "cuda":
        raise UsageError("BPTT.precision 'tf32' is a GPU's; on a CPU use float32 or bfloat16")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True, eq=False)
class _Data:
    """What an outer step shows its network: rows of the recalled images and their labels, and the real images."""

    rows: Int64[Tensor, "steps batch"]
    labels: Int64[Tensor, "steps batch"]
    real: Float[Tensor, "n c h w"]
    real_labels: Int64[Tensor, " n"]

    def fill(self, other: "_Data") -> None:
        """Take over another's numbers, in place."""
        for field_ in fields(self):
            getattr(self, field_.name).copy_(getattr(other, field_.name))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The losses of an outer step."""

    network: nn.Module
    data: _Data
    halved: bool

    def scores(self, params: Params, images: Tensor) -> Tensor:
        # Without its cache, autocast keeps no cast weight from one step or captured graph to the next.
        with torch.autocast(images.device.type, torch.bfloat16, self.halved, cache_enabled=False):
            scores: Tensor = functional_call(self.network, params, (images,))
        return scores.to(images.dtype)

    def inner_loss(self, params: Params, inputs: Params, t: int | Tensor) -> Tensor:
        rows, labels = (
            v[t] if isinstance(t, int) else v.index_select(0, t)[0] for v in (self.data.rows, self.data.labels)
        )
        return cross_entropy(self.scores(params, inputs["images"].index_select(0, rows)), labels)

    def outer_losses(self) -> list[OuterLoss]:
        """The mean over the real images, in pieces."""
        real, labels = self.data.real, self.data.real_labels
        piece = PIECE if real.device.type == "cpu" else len(real)

        def loss(images: Tensor, labels: Tensor, params: Params) -> Tensor:
            return cross_entropy(self.scores(params, images), labels, reduction="sum") / len(real)

        return [partial(loss, *both) for both in zip(real.split(piece), labels.split(piece), strict=True)]


@lru_cache(maxsize=2)
def _program(
    objective: BPTT, setting: "_Network", batch: int, real: int, images: int
) -> tuple[_Problem, CapturedHypergradient]:
    """The program of all outer steps of these sizes, and the problem whose data it reads."""
    network = fresh_network(setting, Key(0), objective._rewritten())
    some = next(network.parameters())
    shape = (setting.shape.channels, setting.shape.height, setting.shape.width)
    steps = objective.inner_steps
    rows = torch.zeros(steps, batch, dtype=torch.long, device=some.device)
    labels = torch.zeros(real, dtype=torch.long, device=some.device)
    data = _Data(rows, rows.clone(), some.new_zeros(real, *shape), labels)
    problem = _Problem(network, data, objective.precision == "bfloat16")
    inputs = {"images": some.new_zeros(images, *shape)}
    params: Params = dict(network.named_parameters())
    how = objective.inner_optimizer, steps, objective.execution == "compiled"
    return problem, CapturedHypergradient(problem.inner_loss, problem.outer_losses(), params, inputs, *how)


@dataclass(frozen=True)
class _Network(Setting):
    """A task as far as its network goes: equal where that is. Hashed without the recipe, whose fields may be lists."""

    architecture: Architecture = field(hash=False)
    parameterization: Parameterization = field(compare=False)
    augmentation: str = field(compare=False)


def _graph_bytes(setting: Setting, images: int) -> int:
    """Bytes that autograd saves for one inner step on so many images, weights left out."""
    return _measured(_Network(**vars(setting)), images)


@lru_cache(maxsize=64)
def _measured(setting: _Network, images: int) -> int:
    network = fresh_network(setting, Key(0))
    params = {k: p.detach().requires_grad_() for k, p in network.named_parameters()}
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    shape = setting.shape
    x = Key(0)("plan", images).generator()
    batch = torch.randn(images, shape.channels, shape.height, shape.width, generator=x)
    batch = batch.to(next(network.parameters())).requires_grad_()
    labels = torch.zeros(images, dtype=torch.long, device=setting.device)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = cross_entropy(functional_call(network, params, (batch,)), labels)
        graph = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    own = {p.untyped_storage().data_ptr() for p in params.values()}
    size = sum(size for pointer, size in seen.items() if pointer not in own)
    del graph  # kept until here, so that no saved tensor's address was used twice
    return size
