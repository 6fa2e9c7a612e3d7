"""Convolution of volumes, and the gradient of its kernel, as one matrix product for every plane.

What the taps see lies side by side as channels in an array that goes from plane to plane: just the
newest plane is written, in the place of the oldest, and what lies beyond the edges stays zero. So a
plane is copied once for each row or column of the kernel, not for each of its taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Kept = tuple[Array, tuple[Array, Array]]
"""From plane to plane: the sum; what the taps see of the input and of the slopes."""


def convolve_planes(
    x: Float[Array, "b d h w i"], kernel: Float[Array, "t r c i o"], *, bordered: bool = False
) -> Float[Array, "b e h w o"]:
    """Cross-correlation of stride 1, zeros beyond the edge, an output as large as the input.

    Args:
        x: volumes; images are the planes of one volume, with a kernel of one tap along them.
        kernel: of odd sides.
        bordered: x brings along the planes beyond its edges; the output has as many fewer.
    """
    taps, rows, columns, inputs, outputs = kernel.shape
    batch, _, height, width, _ = x.shape
    reach = 0 if bordered else taps // 2
    x = pad(x, 1, reach, reach)
    # One product for every row of the kernel, over as many rows more; the rows are added then.
    tall = height + rows - 1
    weights = kernel.transpose(0, 2, 3, 1, 4).reshape(taps, columns * inputs, rows * outputs)

    def step(seen: Array, number: Array) -> tuple[Array, Array]:
        plane, slot = _plane(x, number), number % taps
        for column in range(columns):
            at = (slot * columns + column) * inputs
            seen = _write(seen, plane, at, axis=1, by=column - columns // 2, row=rows // 2)
        # The newest plane is the last tap's.
        turned = jnp.roll(weights, number + 1, 0).reshape(-1, rows * outputs)
        found = _product(seen.reshape(tall * width, -1), turned)
        found = found.reshape(tall, width, rows, outputs)
        parts = [found[row : row + height, :, row] for row in range(rows)]
        return seen, sum(parts[1:], parts[0]).astype(x.dtype)

    seen = jnp.zeros((tall, width, taps * columns * inputs), x.dtype)
    _, planes = lax.scan(step, seen, jnp.arange(batch * x.shape[1]))
    return planes.reshape(batch, x.shape[1], height, width, outputs)[:, taps - 1 :]


def kernel_gradient(
    x: Float[Array, "b d h w i"],
    slope: Float[Array, "b e h w o"],
    sides: Sequence[int],
    *,
    bordered: bool = False,
) -> Float[Array, "t r c i o"]:
    """Sum over the positions of the input at each tap times the output's slope.

    Args:
        x: as in ``convolve_planes``.
        slope: derivatives with respect to its output.
        sides: of the kernel.
        bordered: as there.
    """
    taps, rows, columns = sides
    inputs, outputs = x.shape[-1], slope.shape[-1]
    if inputs > outputs:
        # The wider of the two is kept for all taps, which a product of more columns than rows is
        # faster for; they then run backwards.
        if bordered:
            slope = pad(slope, 1, taps // 2, taps // 2)
        found = kernel_gradient(slope, x, sides)
        return jnp.flip(found, (0, 1, 2)).swapaxes(-1, -2)
    batch, depth, height, width, _ = slope.shape
    x = pad(x, 1, 0 if bordered else taps // 2, 0)
    # Slopes of zero after a volume, so that none meets the planes of the next.
    slope = pad(slope, 1, 0, x.shape[1] - depth)

    def step(kept: Kept, number: Array) -> tuple[Kept, None]:
        total, (left, right) = kept
        plane, slopes, slot = _plane(x, number), _plane(slope, number), -number % taps
        for column in range(columns):
            left = _write(left, plane, column * inputs, axis=1, by=column - columns // 2)
        for row in range(rows):
            at = (slot * rows + row) * outputs
            right = _write(right, slopes, at, axis=0, by=rows // 2 - row)
        found = _product(left.reshape(height * width, -1).T, right.reshape(height * width, -1))
        total += jnp.roll(found.reshape(total.shape), number, 1)
        return (total, (left, right)), None

    total = jnp.zeros((columns * inputs, taps, rows * outputs), of_sums(x))
    left = jnp.zeros((height, width, columns * inputs), x.dtype)
    right = jnp.zeros((height, width, taps * rows * outputs), x.dtype)
    (total, _), _ = lax.scan(step, (total, (left, right)), jnp.arange(batch * x.shape[1]))
    total = total.reshape(columns, inputs, taps, rows, outputs).transpose(2, 3, 0, 1, 4)
    return total.astype(x.dtype)


def pad(x: Array, axis: int, before: int, after: int) -> Array:
    """With zeros before and after, along one axis."""
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])


def of_sums(x: Array) -> jnp.dtype:
    """Sums over planes and rows have float32's digits at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _product(a: Float[Array, "n k"], b: Float[Array, "k m"]) -> Float[Array, "n m"]:
    return jnp.matmul(a, b, preferred_element_type=of_sums(a))


def _plane(x: Float[Array, "b d h w c"], number: Int[Array, ""]) -> Float[Array, "h w c"]:
    """Of all planes, volume after volume."""
    return lax.dynamic_index_in_dim(x.reshape(-1, *x.shape[2:]), number, keepdims=False)


def _write(
    buffer: Float[Array, "H w k"],
    plane: Float[Array, "h w c"],
    channel: int | Int[Array, ""],
    *,
    axis: int,
    by: int,
    row: int = 0,
) -> Float[Array, "H w k"]:
    """Writes the plane at ``position + by`` to the channels from this one on, and to the rows from
    this one on; what lies beyond its edge is left as it was."""
    size = plane.shape[axis]
    if abs(by) >= size:
        return buffer
    inside = lax.slice_in_dim(plane, max(by, 0), size + min(by, 0), axis=axis)
    start = [row, 0, channel]
    start[axis] += max(-by, 0)
    return lax.dynamic_update_slice(buffer, inside, [jnp.asarray(s, jnp.int32) for s in start])
