"""The layers of a U-Net by name: how coarse each one is, and how wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Layer(NamedTuple):
    """One layer's output.

    Attributes:
        scale: pixels of the image along each side of one of its cells.
        channels: features of a cell.
    """

    scale: int
    channels: int


def layers_of(widths: Sequence[int]) -> dict[str, Layer]:
    """The layers of a U-Net with these channels per level, from the image to the head.

    ``encoder_0`` and ``decoder_0`` have the image's resolution; each level halves it.
    """
    levels = [Layer(2**level, width) for level, width in enumerate(widths)]
    down = {f"encoder_{level}": layer for level, layer in enumerate(levels)}
    up = {f"decoder_{level}": layer for level, layer in enumerate(levels[:-1])}
    return down | dict(reversed(up.items()))
