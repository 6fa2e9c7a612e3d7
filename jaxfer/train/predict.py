"""Prediction over whole volumes: tiles of slices in batches of one shape, blended on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxfer.data.planes import slices_back, slices_last
from jaxfer.models.unet import Features, UNet
from jaxfer.train.step import Params


@dataclass(frozen=True)
class Tile:
    """Where a tile lies: its slice, and the first pixel of its part of the slice."""

    z: int
    start: tuple[int, int]


@partial(jax.jit, static_argnames=("model",))
def forward(
    model: UNet, params: Params, image: Float[Array, "b h w 1"]
) -> tuple[Float[Array, "b h w c"], Features]:
    """Log-probabilities and features of a batch of tiles, without gradients."""
    output: Any = model.apply({"params": params}, image)
    return jax.nn.log_softmax(output[0], axis=-1), output[1]


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """First pixels of the tiles along an axis: evenly spread, the last one at the end."""
    if size <= patch:
        return [0]
    number = 1 + int(np.ceil((size - patch) / max(patch * (1.0 - overlap), 1.0)))
    return [int(s) for s in np.round(np.linspace(0, size - patch, number))]


def tiles(shape: tuple[int, ...], patch: tuple[int, int], overlap: float) -> list[Tile]:
    """The tiles that cover every slice of a volume whose last axis counts them."""
    rows, columns = (starts(n, p, overlap) for n, p in zip(shape[:2], patch, strict=True))
    return [Tile(z, (r, c)) for z in range(shape[2]) for r in rows for c in columns]


def read_tile(
    volume: np.ndarray, tile: Tile, patch: tuple[int, int], outside: int | float
) -> np.ndarray:
    """A tile of a volume; pixels beyond the volume's edge have the value ``outside``."""
    part = volume[
        tile.start[0] : tile.start[0] + patch[0], tile.start[1] : tile.start[1] + patch[1], tile.z
    ]
    filled = np.full(patch, outside, volume.dtype)
    filled[: part.shape[0], : part.shape[1]] = part
    return filled


def tile_batches(
    image: np.ndarray, places: list[Tile], patch: tuple[int, int], batch_size: int
) -> Iterator[tuple[list[Tile], Float32[np.ndarray, "b h w 1"]]]:
    """Tiles of an image in batches of one size; the last is filled up with zeros."""
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        batch = np.zeros((batch_size, *patch, 1), np.float32)
        for row, tile in enumerate(chosen):
            batch[row, ..., 0] = read_tile(image, tile, patch, 0.0)
        yield chosen, batch


def _blending(patch: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """A Gaussian bump over a tile: its centre is seen with the most context."""
    axes = [np.exp(-0.5 * ((np.arange(p) - (p - 1) / 2) / (p / 8)) ** 2) for p in patch]
    return np.maximum(np.outer(*axes), 1e-3).astype(np.float32)


def predict_volume(
    model: UNet,
    params: Params,
    image: np.ndarray,
    *,
    patch: tuple[int, int],
    overlap: float,
    batch_size: int,
    plane: str = "axial",
    on_tiles: Callable[[int], None] = lambda _: None,
) -> Float32[np.ndarray, "x y z c"]:
    """Class probabilities of every voxel of a volume on the working grid.

    Args:
        image: [x, y, z], as stored.
        patch: pixels of a tile; the size that the network was trained with.
        overlap: share of a tile that its neighbour covers too, 0 … 1.
        batch_size: tiles per call of the network; the result does not depend on it.
        plane: of the slices that the tiles are of.
        on_tiles: called with the number of tiles after each batch.
    """
    image = slices_last(image, plane)
    weights = _blending(patch)
    total = np.zeros((*image.shape, model.num_classes), np.float32)
    mass = np.zeros(image.shape[:2], np.float32)
    places = tiles(image.shape, patch, overlap)
    for tile in places:
        if tile.z == 0:
            window = mass[tile.start[0] :, tile.start[1] :][: patch[0], : patch[1]]
            window += weights[: window.shape[0], : window.shape[1]]

    def blend(chosen: list[Tile], log_probs: Float[Array, "b h w c"]) -> None:
        probs = np.exp(np.asarray(log_probs))
        for row, tile in enumerate(chosen):
            window = total[tile.start[0] :, tile.start[1] :, tile.z][: patch[0], : patch[1]]
            h, w = window.shape[:2]
            window += probs[row, :h, :w] * weights[:h, :w, None]
        on_tiles(len(chosen))

    # The next batch is on its way to the device while the host blends the last one.
    waiting: tuple[list[Tile], Float[Array, "b h w c"]] | None = None
    for chosen, batch in tile_batches(image, places, patch, batch_size):
        log_probs, _ = forward(model, params, jnp.asarray(batch))
        if waiting is not None:
            blend(*waiting)
        waiting = (chosen, log_probs)
    if waiting is not None:
        blend(*waiting)
    return slices_back(total / mass[:, :, None, None], plane)
