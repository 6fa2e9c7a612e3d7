"""The network's outputs at drawn voxels, picked out of the batches as they pass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from jaxfer.data.sampler import TaskCase
from jaxfer.selection.cells import owners
from jaxfer.selection.draw import Draw
from jaxfer.selection.foreign import SourceModel
from jaxfer.selection.network import Batch, Outputs, Seconds, batches, network_outputs
from jaxfer.train.predict import Patch, Tile

AT_ONCE = 256
"""Sampled voxels that are picked out in one call, so that one compilation serves all batches."""


@dataclass(frozen=True)
class Wanted:
    """Sampled rows that are asked for: of which output, at which voxels."""

    output: str
    draw: Draw


@dataclass(frozen=True)
class Samples:
    """The rows of an output at the voxels of a draw, K · N · D numbers."""

    values: Float32[np.ndarray, "k n d"]
    draw: Draw


@dataclass
class Collector:
    """Picks the rows that are wanted out of the batches."""

    wanted: Mapping[str, Wanted]
    patch: Patch
    _found: dict[str, Float32[np.ndarray, "v d"]] = field(default_factory=dict)
    _places: dict[tuple[str, int], _Places] = field(default_factory=dict)

    def tiles_of(self, number: int, shape: tuple[int, ...]) -> list[Tile]:
        """The tiles of a case that hold a wanted voxel, in their order."""
        needed: set[Tile] = set()
        for name in self.wanted:
            needed |= self._of(name, number, shape).by_tile.keys()
        return sorted(needed, key=lambda tile: (tile.z, tile.start))

    def collect(self, number: int, shape: tuple[int, ...], batch: Batch, outputs: Outputs) -> None:
        """Takes what is wanted of a batch of a case."""
        for name, wanted in self.wanted.items():
            places = self._of(name, number, shape)
            slots, cells = places.within(batch.tiles, wanted.draw.scale)
            values = outputs[wanted.output]
            if name not in self._found:
                shape_of_all = (wanted.draw.labels.size, values.shape[-1])
                self._found[name] = np.zeros(shape_of_all, np.float32)
            for first in range(0, len(slots), AT_ONCE):
                own = slots[first : first + AT_ONCE]
                padded = np.zeros((AT_ONCE, cells.shape[1]), np.int32)
                padded[: len(own)] = cells[first : first + AT_ONCE]
                self._found[name][own] = np.asarray(_rows(values, jnp.asarray(padded)))[: len(own)]

    def samples(self) -> dict[str, Samples]:
        """All that was wanted."""
        found = {}
        for name, wanted in self.wanted.items():
            rows = self._found.get(name, np.zeros((0, 1), np.float32))
            values = rows.reshape(*wanted.draw.labels.shape, rows.shape[-1])
            found[name] = Samples(values, wanted.draw)
        return found

    def _of(self, name: str, number: int, shape: tuple[int, ...]) -> _Places:
        if (name, number) not in self._places:
            self._places[name, number] = _Places.of(
                self.wanted[name].draw, number, shape, self.patch
            )
        return self._places[name, number]


@jax.jit
def _rows(values: Float[Array, "b *s d"], cells: Int[Array, "m k"]) -> Float[Array, "m d"]:
    return values[tuple(cells[:, axis] for axis in range(cells.shape[1]))]


@dataclass(frozen=True)
class _Places:
    """The drawn voxels of a case by tile: their slots in the draw, and their places in the tile."""

    by_tile: Mapping[Tile, tuple[Int[np.ndarray, " _"], Int[np.ndarray, "_ axes"]]]
    axes: int

    @classmethod
    def of(cls, draw: Draw, number: int, shape: tuple[int, ...], patch: Patch) -> _Places:
        axes = len(patch)
        slots: Int[np.ndarray, " m"] = np.flatnonzero(draw.cases.reshape(-1) == number)
        voxels = draw.voxels.reshape(-1, 3)[slots]
        sides = zip(shape, patch, voxels.T, strict=False)
        starts = np.stack([owners(n, p)[places] for n, p, places in sides], axis=1)
        slices = voxels[:, 2:] if axes == 2 else np.zeros_like(voxels[:, 2:])
        keys: Shaped[np.ndarray, "m k"] = np.concatenate([slices, starts], axis=1)
        order = np.lexsort(keys.T[::-1])
        keys, inside = keys[order], (voxels[:, :axes] - starts)[order]
        fresh: Bool[np.ndarray, " m"] = np.ones(len(order), bool)
        fresh[1:] = (keys[1:] != keys[:-1]).any(1)
        ends = [*np.flatnonzero(fresh), len(order)]
        found = {}
        for first, end in itertools.pairwise(ends):
            z, *start = map(int, keys[first])
            found[Tile(z, tuple(start))] = (slots[order][first:end], inside[first:end])
        return cls(found, axes)

    def within(
        self, chosen: Sequence[Tile], scale: tuple[int, ...]
    ) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, "m k"]]:
        """Of the tiles of a batch: slots, and each one's row in the batch and cell in the tile."""
        parts = [(r, self.by_tile[tile]) for r, tile in enumerate(chosen) if tile in self.by_tile]
        slots = np.concatenate([np.zeros(0, np.int64), *(own for _, (own, _) in parts)])
        cells = [np.column_stack([np.full(len(p), r), p // scale]) for r, (_, p) in parts]
        return slots, np.concatenate([np.zeros((0, 1 + self.axes), np.int64), *cells])


def sample_source(
    source: SourceModel,
    cases: Sequence[TaskCase],
    wanted: Mapping[str, Wanted],
    *,
    patch: Patch,
    batch_size: int,
) -> dict[str, Samples]:
    """The wanted rows alone: the network sees only the tiles that hold one."""
    collector = Collector(wanted, patch)
    layers = [w.output for w in wanted.values()]
    for number, case in enumerate(cases):
        shape = case.sliced_image().shape
        places = collector.tiles_of(number, shape)
        for batch in batches(case, patch, batch_size, places=places):
            outputs = network_outputs(source, batch, layers, Seconds())
            collector.collect(number, shape, batch, outputs)
    return collector.samples()
