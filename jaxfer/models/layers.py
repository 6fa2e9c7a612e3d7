"""The layers of a U-Net by name: how coarse each one is along each axis, and how wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxfer.models.levels import Levels


class Layer(NamedTuple):
    """One layer's output.

    Attributes:
        scale: pixels or voxels of the image along each side of one of its cells.
        channels: features of a cell.
    """

    scale: tuple[int, ...]
    channels: int


def layers_of(widths: Sequence[int], axes: int, strides: Levels = ()) -> dict[str, Layer]:
    """The layers of a U-Net, from the image to the head.

    ``encoder_0`` and ``decoder_0`` have the image's resolution; each level divides it by a stride.

    Args:
        widths: channels per level, finest first.
        axes: spatial ones of the image, 2 or 3.
        strides: what each axis is divided by between the levels; () = 2 everywhere.
    """
    levels = [Layer((1,) * axes, widths[0])]
    for width, step in zip(widths[1:], strides or ((2,) * axes,) * (len(widths) - 1), strict=True):
        levels.append(Layer(_product(levels[-1].scale, step), width))
    down = {f"encoder_{level}": layer for level, layer in enumerate(levels)}
    up = {f"decoder_{level}": layer for level, layer in enumerate(levels[:-1])}
    return down | dict(reversed(up.items()))


def _product(scale: tuple[int, ...], step: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(scale, step, strict=True))
