"""What starts refuse in one way."""

from suite.errors import UsageError
from suite.types import ClassRows


def require_images(start: str, real: ClassRows, each: int) -> None:
    """Raise UsageError for a class of fewer than `each` training images, in the name of a start."""
    for c, rows in enumerate(real.rows):
        if len(rows) < each:
            raise UsageError(
                f"{start} can't start {each} images of class {c}, which has {len(rows)} training images; "
                "lower the budget, or start from noise (START = None)"
            )
