"""What is looked at in a memory beside its accuracy: gradients through the unroll, and similarity of classes."""

import math
from typing import Any

import torch

from suite.keys import Key
from suite.memory import cosine_similarities
from suite.types import ClassRows, DatasetInfo, Params, Setting


def gradient_norms(
    objective: Any, setting: Setting, real: ClassRows, memories: dict[str, Params], unrolls: int, key: Key
) -> dict[str, list[list[float | None]]]:
    """For each memory and unroll the norm of d outer loss / d w_t at every inner step t = 0, ..., T.

    A norm that overflowed is None, since JSON has no infinity. Nothing where no unrolls are asked for.
    """
    if not unrolls:
        return {}
    return {
        name: [
            [norm if math.isfinite(norm) else None for norm in objective.gradient_norms(setting, memory, real, key(i))]
            for i in range(unrolls)
        ]
        for name, memory in memories.items()
    }


def coefficient_similarity(memory: Params, info: DatasetInfo) -> dict[str, Any]:
    """Mean cosine similarity of classes' coefficients, within superclasses and between them (paper, figure 2).

    Nothing for a memory without addressing matrices, or a data set without superclasses.
    """
    if "matrices" not in memory or len(info.superclasses) < 2:
        return {}
    similarities = cosine_similarities(memory["matrices"])
    group_of = {name: i for i, (_, names) in enumerate(info.superclasses) for name in names}
    groups = torch.tensor([group_of[name] for name in info.class_names], device=similarities.device)
    same = groups[:, None] == groups[None, :]
    others = ~torch.eye(len(groups), dtype=torch.bool, device=similarities.device)
    within, between = similarities[same & others].mean(), similarities[~same].mean()
    return {"coefficient_similarity": {"within superclasses": within.item(), "between": between.item()}}
