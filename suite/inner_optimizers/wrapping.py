"""What optimizers around another have in common."""

from typing import Any

from suite.types import Averaging
from suite.validation import require


def require_order(optimizer: Any) -> None:
    """Refuse an optimizer around another of its own kind, whose states would share a name, and `averaged` inside it."""
    kinds, inner = [], optimizer.of
    while inner is not None:
        require(optimizer, "of", not isinstance(inner, Averaging), "averaged outside of this, not inside")
        kinds.append(type(inner))
        inner = getattr(inner, "of", None)
    require(optimizer, "of", type(optimizer) not in kinds, "another kind of optimizer than this")
