"""Images cut along their first spatial axis, a slab on each device.

So several devices share one volume, where a batch holds fewer images than there are devices. What
a network does at single pixels needs nothing for that; a convolution needs the planes next to its
slab, and a normalisation the means over all slabs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxfer.models.levels import Levels


def divides_into(side: int, devices: int, strides: Levels) -> bool:
    """Whether every level of a network can be cut into as many slabs of one size.

    Args:
        side: of the images, along their first spatial axis.
        devices: as many slabs.
        strides: what each axis is divided by between the levels.
    """
    return side % (devices * math.prod(step[0] for step in strides)) == 0


def own_slab(x: Float[Array, "b s *t c"], axis_name: str) -> Float[Array, "b r *t c"]:
    """This device's slab of whole images."""
    size = x.shape[1] // lax.psum(1, axis_name)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis_name) * size, size, axis=1)


def whole(x: Float[Array, "b r *t c"], axis_name: str) -> Float[Array, "b s *t c"]:
    """The images that the devices' slabs make."""
    return lax.all_gather(x, axis_name, axis=1, tiled=True)


def with_neighbours(
    x: Float[Array, "b r *t c"], reach: int, axis_name: str
) -> Float[Array, "b w *t c"]:
    """A slab between the nearest planes of the slabs beside it; zeros beyond the image.

    Args:
        reach: planes on either side, no more than a slab has.
    """
    devices = lax.psum(1, axis_name)
    up, down = _pairs(devices, 1), _pairs(devices, -1)
    before = lax.ppermute(x[:, x.shape[1] - reach :], axis_name, up)
    after = lax.ppermute(x[:, :reach], axis_name, down)
    return jnp.concatenate([before, x, after], axis=1)


def _pairs(devices: int, by: int) -> Sequence[tuple[int, int]]:
    """From each device to the one so many places on, where there is one."""
    return [(n, n + by) for n in range(devices) if 0 <= n + by < devices]
