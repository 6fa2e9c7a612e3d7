"""Prediction over whole volumes: tiles in batches of one shape, blended on the host.

The patch's length decides: two numbers tile every slice of a plane, three the volume.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations, product
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from jaxfer.data.planes import slices_back, slices_last
from jaxfer.models.unet import Features, UNet
from jaxfer.train.step import Params

Patch = tuple[int, ...]

# Batches on their way to the device, or on it, while the host blends an earlier one.
_AHEAD = 2


@dataclass(frozen=True)
class Tile:
    """Where a tile lies: its slice (0 of a 3-D tile), and its first pixel or voxel."""

    z: int
    start: tuple[int, ...]


@partial(jax.jit, static_argnames=("model",))
def forward(
    model: UNet, params: Params, image: Float[Array, "b *s 1"]
) -> tuple[Float[Array, "b *s c"], Features]:
    """Log-probabilities and features of a batch of tiles, without gradients."""
    output: Any = model.apply({"params": params}, image)
    return jax.nn.log_softmax(output[0], axis=-1), output[1]


@partial(jax.jit, static_argnames=("model", "mirror", "layer", "mesh"))
def _outputs(
    model: UNet, params: Params, image: Float[Array, "b *s 1"], mirror: bool, layer: str, mesh: Mesh
) -> Float[Array, "b *s c"]:
    """Class probabilities, or a layer's features, of a batch that the devices share."""
    seen = partial(_seen, model, mirror, layer)
    if mesh.size == 1:
        return seen(params, image)
    cut = PartitionSpec(*mesh.axis_names)
    whole = PartitionSpec()
    # Nothing crosses the devices; unchecked, since loops inside start from constants.
    mapped = jax.shard_map(seen, mesh=mesh, in_specs=(whole, cut), out_specs=cut, check_vma=False)
    return mapped(params, image)


def _seen(
    model: UNet, mirror: bool, layer: str, params: Params, image: Float[Array, "b *s 1"]
) -> Float[Array, "b *s c"]:
    """One device's share; with mirroring, the mean over all reflections."""
    axes = range(1, image.ndim - 1)
    flips = [f for n in range(image.ndim - 1) for f in combinations(axes, n)] if mirror else [()]
    total = jnp.zeros((), jnp.float32)
    for flip in flips:
        logits: Any = model.apply({"params": params}, jnp.flip(image, flip))
        seen = logits[1][layer] if layer else jax.nn.softmax(logits[0], axis=-1)
        total = total + jnp.flip(seen.astype(jnp.float32), flip)
    return total / len(flips)


def _mesh(tiles: int) -> Mesh:
    """The local devices, of which none is without a tile."""
    return Mesh(np.array(jax.local_devices()[:tiles]), ("tiles",))


def starts(size: int, patch: int, overlap: float) -> list[int]:
    """First pixels of the tiles along an axis: evenly spread, the last one at the end."""
    if size <= patch:
        return [0]
    number = 1 + int(np.ceil((size - patch) / max(patch * (1.0 - overlap), 1.0)))
    return [int(s) for s in np.round(np.linspace(0, size - patch, number))]


def tiles(shape: tuple[int, ...], patch: Patch, overlap: float) -> list[Tile]:
    """The tiles that cover a volume: every slice of its last axis, or the whole, by the patch."""
    axes = [starts(n, p, overlap) for n, p in zip(shape, patch, strict=False)]
    slices = range(shape[2]) if len(patch) == 2 else (0,)
    return [Tile(z, start) for z in slices for start in product(*axes)]


def _window(volume: np.ndarray, tile: Tile, patch: Patch) -> np.ndarray:
    """The part of a volume that a tile covers, as a view, cut off at the volume's edge."""
    place: Any = tuple(slice(s, s + p) for s, p in zip(tile.start, patch, strict=True))
    return volume[(*place, tile.z)] if len(patch) == 2 else volume[place]


def read_tile(volume: np.ndarray, tile: Tile, patch: Patch, outside: int | float) -> np.ndarray:
    """A tile of a volume, whose voxels may have channels; beyond its edge lies ``outside``."""
    part = _window(volume, tile, patch)
    filled = np.full((*patch, *part.shape[len(patch) :]), outside, volume.dtype)
    filled[tuple(map(slice, part.shape))] = part
    return filled


def tile_batches(
    image: np.ndarray, places: Sequence[Tile], patch: Patch, batch_size: int
) -> Iterator[tuple[list[Tile], Float32[np.ndarray, "b *s 1"]]]:
    """Tiles of an image in batches of one size; the last is filled up with zeros."""
    for first in range(0, len(places), batch_size):
        chosen = list(places[first : first + batch_size])
        batch = np.zeros((batch_size, *patch, 1), np.float32)
        for row, tile in enumerate(chosen):
            batch[row, ..., 0] = read_tile(image, tile, patch, 0.0)
        yield chosen, batch


def _blending(patch: Patch) -> Float32[np.ndarray, "*s"]:
    """A Gaussian bump over a tile: its centre is seen with the most context."""
    axes = [np.exp(-0.5 * ((np.arange(p) - (p - 1) / 2) / (p / 8)) ** 2) for p in patch]
    return np.maximum(reduce(np.multiply.outer, axes), 1e-3).astype(np.float32)


def predict_volume(
    model: UNet,
    params: Params,
    image: np.ndarray,
    *,
    patch: Patch,
    overlap: float,
    batch_size: int,
    plane: str = "axial",
    mirror: bool = False,
    layer: str = "",
    on_tiles: Callable[[int], None] = lambda _: None,
) -> Float32[np.ndarray, "x y z c"]:
    """Class probabilities, or features, of every voxel of a volume on the working grid.

    The local devices share every batch. The host holds one array of the volume's size per class
    and a few batches.

    Args:
        image: [x, y, z], as stored.
        patch: pixels or voxels of a tile; the size that the network was trained with.
        overlap: share of a tile that its neighbour covers too, 0 … 1.
        batch_size: tiles per call of the network, rounded up to as many for every device; changes
            nothing but the speed.
        plane: of the slices that 2-D tiles are of.
        mirror: average over the reflections of each tile, 4 in 2-D and 8 in 3-D.
        layer: of the image's resolution, "decoder_0" or "encoder_0", whose features are wanted;
            "": the probabilities.
        on_tiles: called with the number of tiles after each batch.
    """
    image = slices_last(image, plane)
    weights = _blending(patch)
    channels = model.widths[0] if layer else model.num_classes
    total = np.zeros((*image.shape, channels), np.float32)
    mass = np.zeros(image.shape[: len(patch)], np.float32)
    places = tiles(image.shape, patch, overlap)
    for tile in places:
        if tile.z == 0:
            window = _window(mass[..., None] if len(patch) == 2 else mass, tile, patch)
            window += weights[tuple(map(slice, window.shape))]

    def blend(chosen: list[Tile], probs: Float[Array, "b *s c"]) -> None:
        fetched = np.asarray(probs)
        for row, tile in enumerate(chosen):
            window = _window(total, tile, patch)
            inside = tuple(map(slice, window.shape[:-1]))
            window += fetched[row][inside] * weights[inside][..., None]
        on_tiles(len(chosen))

    # The next batches are on their way to the device while the host blends an earlier one.
    mesh = _mesh(len(places))
    rows = ceil(batch_size / mesh.size) * mesh.size
    everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    shares = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
    waiting: deque[tuple[list[Tile], Float[Array, "b *s c"]]] = deque()
    for chosen, batch in tile_batches(image, places, patch, rows):
        placed = jax.device_put(batch, shares)
        waiting.append((chosen, _outputs(model, everywhere, placed, mirror, layer, mesh)))
        if len(waiting) > _AHEAD:
            blend(*waiting.popleft())
    while waiting:
        blend(*waiting.popleft())
    total /= mass.reshape(*mass.shape, *(1,) * (total.ndim - mass.ndim))
    return slices_back(total, plane)
