# %% [markdown]
# # Write an inner optimizer
#
# The inner loop trains a network on recalled images, and the hypergradient goes through each of its steps. So an
# inner optimizer is two pure functions: `init` makes a state of parameters, and `step` gives the next parameters and
# state. Autograd differentiates `step` as it is written; nothing else is needed.
#
# This one is Nesterov's momentum: b ← m b + g; w ← w - lr (g + m b).

# %%
from dataclasses import dataclass

import torch

import suite
from suite.types import Params, State
from suite.validation import Fraction, Positive


@dataclass(frozen=True)
class Nesterov:
    """Nesterov's momentum: b <- m b + g; w <- w - lr (g + m b)."""

    lr: Positive = 0.03
    momentum: Fraction = 0.9

    def init(self, params: Params) -> State:
        return {"b": {name: torch.zeros_like(w) for name, w in params.items()}}

    def step(self, params: Params, grads: Params, state: State) -> tuple[Params, State]:
        b = {name: self.momentum * state["b"][name] + g for name, g in grads.items()}
        new = {name: w - self.lr * (grads[name] + self.momentum * b[name]) for name, w in params.items()}
        return new, {"b": b}


# %% [markdown]
# One step by hand: b = 2, and 1 - 0.1 (2 + 0.9 · 2) = 0.62.

# %%
optimizer, params, grads = Nesterov(lr=0.1), {"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}
stepped, state = optimizer.step(params, grads, optimizer.init(params))
print(stepped["w"])

# %% [markdown]
# Is its hypergradient exact? On a tiny problem in float64, against one graph of plain autograd through all steps. In
# a file of its own, `python -m suite.check FILE` asks this and more.

# %%
from suite.contracts.problem import Problem, relative_error
from suite.registry import load_components, parameterizations

load_components()
problem = Problem(Nesterov(), parameterizations["addressing"].build(bases=2), "convnet", steps=5, width=4)
error = relative_error(problem.gradient(), problem.gradient_by_full_graph())
print(f"relative error: {error:.0e}")

# %% [markdown]
# And what does it teach? The quickstart with it, beside the quickstart with plain momentum: one memory of each, so a
# difference of a point means nothing yet. `gin/ablation_momentum.gin` shows how a table with several seeds is
# written.

# %%
from suite.inner_optimizers.sgd_momentum import SGDMomentum

for inner in (Nesterov(), SGDMomentum(lr=0.03)):
    memory = suite.distil("digits", inner_optimizer=inner, progress=False)
    print(inner, memory.evaluate(), sep="\n")
