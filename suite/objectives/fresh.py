"""What objectives share: networks that are new in every outer step, and how small a rehearsal of one is."""

FEW_CLASSES = 10

AFFORDED = 3.0
"""Seconds that measuring one piece of a rehearsal at its full size may take."""


def few(images: int, groups: int) -> int:
    """How many of `images` of each group the first try of a rehearsal takes."""
    return max(1, min(images, 16 // groups))
