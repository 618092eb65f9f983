"""Back-propagation through time (paper, section 3): a memory should teach a network what real images teach.

An outer step draws a fresh network w_0, recalls the images x, trains the network on them for T inner steps and judges
w_T by its loss L on real images:

    w_{t+1}, s_{t+1} = step(w_t, grad_w L(w_t; x[rows_t]), s_t),    outer loss = L(w_T; real images)

The gradient of the outer loss in x (`suite.core.unroll`) is pulled back through the recall to the memory's tensors.
Where a memory stores labels (`Labelled`), they take the place of the classes in the inner loss, and the outer loss is
differentiated in them as in x.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from suite.core import span, trees
from suite.core.cpu_layers import piece_of
from suite.core.networks import fresh_network
from suite.core.transfer import together
from suite.core.unroll import WHOLE, Hypergradient, InnerLoop, Retention, Watch, Window, hypergradient, through_recall
from suite.images import augment
from suite.inner_optimizers.sgd_momentum import SGDMomentum
from suite.keys import Key
from suite.objectives.footprint import FIXED, outer_loss_bytes, state_bytes, step_bytes
from suite.objectives.losses import Batches, Problem, tf32
from suite.objectives.programs import Differentiated, program
from suite.parameterizations.factors import factors
from suite.registry import ADDED, described_as, objectives
from suite.types import EXPECTED_MIB, ClassRows, Labelled, Optimizer, Params, Passes, Setting
from suite.validation import Above, AtMost, Positive, PositiveInt

IN_SPAN = "trained in the span of what is recalled, where its bases are fewer than half of the pixels"
"""What a plan says of a first layer."""


@objectives.register("bptt")
@dataclass(frozen=True)
class BPTT:
    """The hypergradient of a fresh network's loss on real images, through all its training on recalled ones.

    One draw of the augmentation serves every image and step of an outer step. Paper, sections 3 and A.1.

    >>> import torch
    >>> from suite.architectures.mlp import MLP
    >>> from suite.parameterizations.standard import Standard
    >>> from suite.types import ImageShape, Split
    >>> setting = Setting(ImageShape(1, 8, 8), 2, MLP(width=4), Standard(), "none", torch.device("cpu"))
    >>> memory = Standard().init(setting.shape, 2, 1, Key(0))
    >>> real = ClassRows.of(Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1])), 2)
    >>> gradients, metrics = BPTT(inner_steps=3).gradients(setting, memory, real, Key(1))
    >>> gradients["images"].shape, sorted(metrics)
    (torch.Size([2, 1, 1, 8, 8]), ['inner_loss', 'inner_loss_first', 'loss'])
    """

    inner_optimizer: Optimizer = field(default_factory=SGDMomentum)
    """Trains the network; the hypergradient passes through its state."""
    inner_steps: Annotated[int, Above(0), AtMost(1_000_000)] = 150
    """T."""
    classes_per_step: Annotated[int, Above(1)] | None = None
    """Classes drawn for an outer step; None: all."""
    images_per_class_per_step: PositiveInt = 32
    """Recalled images of each class in an inner step, drawn anew without replacement; all there are, if fewer."""
    real_per_class: PositiveInt = 64
    """Real training images of each class in the outer loss, which is their mean cross-entropy."""
    memory_gib: Positive = 8.0
    """An unroll keeps as many graphs as fit into so many GiB and replays the other steps: more memory, less time, the
    same result up to rounding (`suite.core.unroll.Retention`)."""
    execution: Literal["auto", "eager", "captured"] = field(default="auto", metadata=described_as(auto="eager"))
    """'captured' replays the unroll as a CUDA graph on a GPU (`suite.core.captured`), with the results of 'eager' up to
    rounding; 'auto' does so where there is a GPU. A description of a run calls 'auto' 'eager'."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Of the networks' products: 'tf32' (a GPU's) and 'bfloat16' (by autocast; weights and updates stay in float32)
    change the results."""
    first_layer: Literal["pixels", "span"] = field(default="pixels", metadata=ADDED)
    """'span' trains a first linear layer in the span of what is recalled where it can (`suite.core.span`): with the
    results of 'pixels' up to rounding, in a part of the time."""
    learns_labels: ClassVar[Literal[True]] = True
    """The networks are trained on the labels that a memory stores, and the gradient passes to them, too."""

    # ------------------------------------------------------------ an outer step

    def gradients(
        self, setting: Setting, memory: Params, real: ClassRows, key: Key
    ) -> tuple[Params, dict[str, Tensor]]:
        """The hypergradient in the memory's tensors; the outer loss, and the first and last inner loss."""
        gradients, metrics, _ = self.through(setting, memory, real, key, self.inner_steps)
        return gradients, metrics

    def through(
        self,
        setting: Setting,
        memory: Params,
        real: ClassRows,
        key: Key,
        steps: int,
        window: Window = WHOLE,
        weights: Params | None = None,
    ) -> tuple[Params, dict[str, Tensor], Params]:
        """`gradients` after so many inner steps, of which a window is differentiated, and the network's last weights.

        `weights`: where the network starts; None: freshly drawn. The optimizer's state is fresh in any case.
        """
        leaves = trees.leaves(memory)
        with tf32(setting.device, self.precision == "tf32"):
            in_span = not window.first and not self.why_pixels(setting)
            recalled, network, batches = self.drawn(setting, leaves, real, key, in_span)
            params: Params = dict(network.named_parameters()) if weights is None else weights
            chart, recalled = span.chart(setting.architecture, params, recalled)
            retention, _ = self._retention(setting, network, batches.rows.shape[1], steps - window.first)
            inputs = trees.detached(recalled)
            unroll = self._unroll(setting, inputs, network, batches, steps, retention, window, params, chart=chart)
            gradients = through_recall(recalled, leaves, unroll.gradients)
        losses = unroll.inner_losses
        metrics = {"loss": unroll.loss, "inner_loss_first": losses[0], "inner_loss": losses[-1]}
        return gradients, metrics, unroll.params

    def drawn(
        self, setting: Setting, leaves: Params, real: ClassRows, key: Key, in_span: bool = False
    ) -> tuple[Params, nn.Module, Batches]:
        """What an outer step recalls, `images` and the `labels` that a memory stores; its network, and its batches.

        With `in_span`, where it pays, `images` are coefficients of the `bases` that are given, too.
        """
        classes = self._classes(setting, key)
        if len(classes) < setting.classes:
            queries = classes.to(setting.device)
        else:  # made there: no copy
            queries = torch.arange(setting.classes, device=setting.device)
        augmented = augment.draw(setting.augmentation, key("augmentation"))
        recalled = self._in_span(setting, leaves, queries) if in_span else {}
        if not recalled:
            recalled = {"images": augmented(torch.flatten(setting.parameterization.recall(leaves, queries), 0, 1))}
        per_class = len(recalled["images"]) // len(classes)
        if isinstance(setting.parameterization, Labelled):
            recalled["labels"] = setting.parameterization.labels(leaves, queries).flatten(0, 1)
        labels = classes.repeat_interleave(per_class)

        shown = min(self.images_per_class_per_step, per_class)
        within_class = key("inner").subsets(self.inner_steps * len(classes), per_class, shown)
        class_offset = torch.arange(len(classes)).repeat(self.inner_steps) * per_class
        rows = (within_class + class_offset[:, None]).view(self.inner_steps, -1)

        network = fresh_network(setting, key("network"), self.rewritten)
        drawn = real.draw_rows(classes.tolist(), self.real_per_class, key("real"))
        rows, labels, drawn = together([rows, labels[rows], drawn], setting.device)
        outer = real.split.at(drawn)
        return recalled, network, Batches(rows, labels, augmented(outer.images), outer.labels)

    def _unroll(
        self,
        setting: Setting,
        inputs: Params,
        network: nn.Module,
        batches: Batches,
        steps: int,
        retention: Retention,
        window: Window = WHOLE,
        weights: Params | None = None,
        watch: Watch | None = None,
        chart: span.Span | None = None,
    ) -> Hypergradient:
        """Training from the network's weights, and the way back.

        With `watch`, which a program can't call, steps are run one by one.
        """
        problem = Problem(network, batches, self.precision == "bfloat16")
        params: Params = dict(network.named_parameters()) if weights is None else weights
        inner_inputs = {k: v for k, v in inputs.items() if chart is None or k not in chart.outer_inputs}
        loop = InnerLoop(problem.inner_loss, self.inner_optimizer, inner_inputs, chart)
        if self.unrolls_captured(setting.device) and watch is None:
            judged = tuple(t - window.first for t in window.judged)
            last = Differentiated(steps - window.first, judged, retention)
            return program(self, setting, problem, inputs, last)(problem, params, inputs, window.first)
        params = params if chart is None else chart.begin(params)
        return hypergradient(loop, problem.outer_losses(), params, steps, retention, watch, window)

    def gradient_norms(self, setting: Setting, memory: Params, real: ClassRows, key: Key) -> list[float]:
        """Norms of d outer loss / d w_t in one outer step, for t = 0, ..., T, over all weights together."""
        norms: dict[int, Tensor] = {}

        def watch(t: int, params_bar: Params) -> None:
            norms[t] = torch.stack([g.norm() for g in params_bar.values()]).norm()

        with tf32(setting.device, self.precision == "tf32"):
            recalled, network, batches = self.drawn(setting, memory, real, key)
            inputs = trees.detached(recalled)
            # Every step is recomputed: `watch` sees no step whose graph was kept.
            self._unroll(setting, inputs, network, batches, self.inner_steps, Retention(), watch=watch)
        return torch.stack([norms[t] for t in range(self.inner_steps + 1)]).tolist()

    def why_pixels(self, setting: Setting) -> str:
        """Why the first layer is trained on pixels; empty where it is trained in the span of what is recalled."""
        if self.first_layer == "pixels":
            return "as set"
        if self.unrolls_captured(setting.device):
            return "a GPU replays the steps"
        return span.why_not(setting, self.inner_optimizer)

    def _in_span(self, setting: Setting, leaves: Params, queries: Int64[Tensor, " n"]) -> Params:
        """Coefficients as `images` of so many channels and one pixel, and `bases`; empty where these are too many."""
        coefficients, bases = factors(setting.parameterization, leaves, queries)
        if span.LEAST_GAIN * len(bases) > setting.shape.numel:
            return {}
        return {"images": torch.flatten(coefficients, 0, 1)[:, :, None, None], "bases": torch.flatten(bases, 1)}

    def _classes(self, setting: Setting, key: Key) -> Int64[Tensor, " k"]:
        if self.classes_per_step is None or self.classes_per_step >= setting.classes:
            return torch.arange(setting.classes)
        return key("classes").permutation(setting.classes)[: self.classes_per_step].sort().values

    @property
    def rewritten(self) -> bool:
        """Whether the network gets layers of our own, which autocast does not know."""
        return self.precision != "bfloat16"

    def unrolls_captured(self, device: torch.device) -> bool:
        """Whether the unroll is captured there."""
        return self.execution == "captured" or (self.execution == "auto" and device.type == "cuda")

    # ------------------------------------------------------------ before a run

    def plan(self, setting: Setting, per_class: int) -> dict[str, Any]:
        """Sizes of an outer step on a memory of `per_class` images for each class, and the memory it needs."""
        batch, real = self.sizes(setting, per_class)
        network = fresh_network(setting, Key(0))
        retention, unroll_bytes = self._retention(setting, network, batch, self.inner_steps)
        peak_bytes = unroll_bytes + outer_loss_bytes(setting, piece_of(real, setting.device)) + FIXED
        return {
            "inner steps": self.inner_steps,
            "inner batch": batch,
            "real images in the outer loss": real,
            "network parameters": sum(p.numel() for p in network.parameters()),
            **self._first_layer_plan(setting),
            "inner steps are run": "eager, on a GPU captured" if self.execution == "auto" else self.execution,
            "inner steps whose graphs are kept": min(retention.graphs, self.inner_steps),
            EXPECTED_MIB: round(peak_bytes / 2**20),
        }

    def _first_layer_plan(self, setting: Setting) -> dict[str, Any]:
        if self.first_layer == "pixels":
            return {}
        why = self.why_pixels(setting)
        return {"first layer": f"trained on pixels: {why}" if why else IN_SPAN}

    def work(self, setting: Setting, per_class: int) -> list[Passes]:
        """The inner steps with their way back, those run without a graph first, and the outer loss in pieces.

        Not counted in the span of what is recalled, where a step's work depends on the bases.
        """
        if not self.why_pixels(setting):
            return []
        batch, real = self.sizes(setting, per_class)
        retention, _ = self._retention(setting, fresh_network(setting, Key(0)), batch, self.inner_steps)
        captured = self.unrolls_captured(setting.device)
        replayed = max(0, self.inner_steps - retention.graphs)
        again = replayed * (2 - 1 / retention.stride)  # forth, and between kept states once more
        pieces = math.ceil(real / piece_of(real, setting.device))
        return [
            Passes("step", batch, again, captured),
            Passes("unrolled", batch, self.inner_steps, captured),
            Passes("gradient", real / pieces, pieces, captured),
        ]

    def sizes(self, setting: Setting, per_class: int) -> tuple[int, int]:
        """Recalled images of an inner step, and real ones of the outer loss."""
        classes = min(self.classes_per_step or setting.classes, setting.classes)
        return classes * min(self.images_per_class_per_step, per_class), classes * self.real_per_class

    def _retention(self, setting: Setting, network: nn.Module, batch: int, steps: int) -> tuple[Retention, int]:
        """What `memory_gib` affords, and the bytes that an unroll needs."""
        sizes = steps, state_bytes(network, self.inner_optimizer), step_bytes(setting, batch)
        retention = Retention.within(int(self.memory_gib * 2**30), *sizes)
        return retention, retention.peak_bytes(*sizes)
