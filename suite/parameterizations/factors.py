"""What a memory recalls as coefficients times bases."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from suite.types import Factored, Parameterization, Params


def factors(
    parameterization: Parameterization, memory: Params, queries: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "n per_class bases"], Float[Tensor, "bases c h w"]]:
    """Coefficients and bases whose products are what is recalled; of a memory that names none each image is a basis."""
    if isinstance(parameterization, Factored):
        return parameterization.factors(memory, queries)
    images = parameterization.recall(memory, queries)
    bases = torch.flatten(images, 0, 1)
    return torch.eye(len(bases), dtype=bases.dtype, device=bases.device).view(*images.shape[:2], -1), bases
