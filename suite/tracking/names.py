"""Names as MLflow takes them: of parameters and metrics."""

import hashlib
import re

LONGEST_NAME = 250
"""Characters of the name of a parameter or metric; what is longer is cut off."""


def accepted(name: str) -> str:
    """What the store is told: letters it refuses become '_', paths are made plain, long names are cut.

    A name that had to be changed ends in eight digits of its own hash, so that it is never another's and the same in
    every store. The true names are in the run's record.

    >>> accepted("test_accuracy/random_real_images"), accepted("a,b"), accepted("a;b")
    ('test_accuracy/random_real_images', 'a_b_1eb7c54d', 'a_b_5719af18')
    """
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    plain = "/".join("_" if part == ".." else part for part in parts if part not in ("", "."))
    if plain == name and 0 < len(name) <= LONGEST_NAME:
        return name
    mark = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain[: LONGEST_NAME - len(mark)] + mark
