"""A source's network over a case, tile by tile: what goes in, what comes out, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from jaxfer.data.sampler import TaskCase
from jaxfer.selection.cells import owned_labels
from jaxfer.selection.foreign import Foreign, SourceModel
from jaxfer.tasks import IGNORE
from jaxfer.train.predict import Patch, Tile, forward, read_tile, tile_batches, tiles

Outputs = dict[str, Float[Array, "b ... _"]]


@dataclass(frozen=True)
class Batch:
    """Tiles of one case.

    Attributes:
        case: that they are of.
        tiles: where they lie; the batch may have empty rows after them.
        image: pixels or voxels.
        disturbed: the same with noise, if a second prediction is asked for.
        labels: of the target, ``IGNORE`` where a voxel does not count in this tile.
    """

    case: TaskCase
    tiles: list[Tile]
    image: Float32[np.ndarray, "b *s 1"]
    disturbed: Float32[np.ndarray, "b *s 1"] | None
    labels: UInt8[np.ndarray, " b *s"]


def batches(
    case: TaskCase,
    patch: Patch,
    batch_size: int,
    *,
    places: Sequence[Tile] | None = None,
    noise: Float32[np.ndarray, "x y z"] | None = None,
) -> Iterator[Batch]:
    """The tiles of a case; all of them, unless places are named.

    Args:
        noise: added to the image for the second prediction, except to a background of exactly 0.
    """
    image, classes = case.sliced_image(), case.sliced_classes()
    chosen_places = tiles(image.shape, patch, 0.0) if places is None else list(places)
    plain = tile_batches(image, chosen_places, patch, batch_size)
    if noise is None:
        second: Iterator[Float32[np.ndarray, "b *s 1"] | None] = iter(lambda: None, 0)
    else:
        noisy = np.where(image == 0, 0, image + noise).astype(np.float32)
        second = (batch for _, batch in tile_batches(noisy, chosen_places, patch, batch_size))
    for (chosen, batch), disturbed in zip(plain, second, strict=False):
        labels = np.full(batch.shape[:-1], IGNORE, np.uint8)
        for row, tile in enumerate(chosen):
            labels[row] = owned_labels(classes, tile, patch)
        yield Batch(case, chosen, batch, disturbed, labels)


@dataclass
class Seconds:
    """Where a source's time goes: the bare network, the statistics, the samples."""

    forward: float = 0.0
    statistics: float = 0.0
    samples: float = 0.0

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        setattr(self, what, getattr(self, what) + time.perf_counter() - start)


def network_outputs(
    source: SourceModel, batch: Batch, layers: Collection[str], seconds: Seconds
) -> Outputs:
    """Log-probabilities, the features of the layers, and the second prediction if there is one."""
    if isinstance(source, Foreign):
        with seconds.of("forward"):
            return _outputs_of_files(source, batch, layers)
    with seconds.of("forward"):
        log_probs, features = forward(source.model, source.params, jnp.asarray(batch.image))
        outputs = {"log_probs": log_probs} | {layer: features[layer] for layer in layers}
        jax.block_until_ready(outputs)
    if batch.disturbed is not None:
        with seconds.of("samples"):
            disturbed, _ = forward(source.model, source.params, jnp.asarray(batch.disturbed))
            outputs["disturbed"] = jax.block_until_ready(disturbed)
    return outputs


def _outputs_of_files(source: Foreign, batch: Batch, layers: Collection[str]) -> Outputs:
    """What the network would have given, cut out of its outputs for the whole case."""
    volumes, patch = source.sliced_outputs(batch.case), batch.labels.shape[1:]
    outputs: Outputs = {}
    for name in ("log_probs", *layers):
        values = np.zeros((*batch.labels.shape, volumes[name].shape[-1]), np.float32)
        for row, tile in enumerate(batch.tiles):
            values[row] = read_tile(volumes[name], tile, patch, 0.0)
        outputs[name] = jnp.asarray(values)
    return outputs
