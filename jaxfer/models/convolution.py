"""Convolution over two or three spatial axes: one function, the formulation by platform.

GPUs and TPUs get XLA's own convolution. On a CPU that is slow for what a U-Net does most: volumes,
few channels, and gradients with respect to the kernel. There the same sums are formed otherwise
('shifted'); docs/performance.md shows what each part gains. The parameters are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxfer.models.plane_products import convolve_planes, kernel_gradient, of_sums, pad
from jaxfer.models.slabs import with_neighbours

IMPLEMENTATIONS = ("auto", "native", "shifted")

# XLA hands a 2-D convolution to its fast kernels only where one side has more channels than this.
_NARROW = 16
# Pixels of a plane from which on a product for each is about as fast as tap after tap, or faster;
# seen at 16 to 320 channels.
_FEW_PIXELS = 128


def convolve(
    x: Float[Array, "b *s i"],
    kernel: Float[Array, "*k i o"],
    implementation: str = "auto",
    *,
    bordered: bool = False,
) -> Float[Array, "b *t o"]:
    """Cross-correlation of stride 1, zeros beyond the edge, an output as large as the input.

    Args:
        x: images with two or three spatial axes.
        kernel: as many spatial axes, each of an odd length.
        implementation: 'native' is XLA's, 'shifted' sums of what is fast on a CPU; 'auto' takes
            'shifted' on CPUs. They differ by the rounding of float32 sums, and of what is stored of
            them where x is of bfloat16. 'shifted' has no forward-mode derivative.
        bordered: x brings along what lies beyond its edges on the first spatial axis, as far as the
            kernel reaches; the output is shorter by that.

    Raises:
        ValueError: an even kernel, a number of axes that is neither 2 nor 3, an unknown name, an
            image of another type than the kernel.
    """
    sides = kernel.shape[:-2]
    if len(sides) not in (2, 3) or len(sides) != x.ndim - 2 or not all(k % 2 for k in sides):
        raise ValueError(
            f"a kernel of sides {sides} on an array of shape {x.shape}; two or three odd sides, "
            "as many as the array has spatial axes"
        )
    if x.dtype != kernel.dtype:
        raise ValueError(f"a kernel of {kernel.dtype} on an array of {x.dtype}; one type for both")
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r}; one of {', '.join(IMPLEMENTATIONS)}")
    if implementation == "auto":
        implementation = "shifted" if jax.default_backend() == "cpu" else "native"
    form = _shifted if implementation == "shifted" else _native
    return form(x, kernel, bordered)


def _native(x: Array, kernel: Array, bordered: bool, dtype: Any = None) -> Array:
    letters = "XYZ"[: x.ndim - 2]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    edges = [(k // 2, k // 2) for k in kernel.shape[:-2]]
    edges[0] = (0, 0) if bordered else edges[0]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1,) * len(letters),
        edges,
        dimension_numbers=layout,
        preferred_element_type=dtype,
    )


def _fold(x: Array) -> Array:
    """The first spatial axis becomes part of the batch."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _border(x: Array, taps: int) -> Array:
    """With zeros beyond the edges of the first spatial axis, as far as a kernel reaches."""
    return pad(x, 1, taps // 2, taps // 2)


def _plane(x: Array, kernel: Array, bordered: bool = False, dtype: Any = None) -> Array:
    """A 2-D convolution; between narrow layers with an output of zeros, for the fast kernels."""
    *_, inputs, outputs = kernel.shape
    if max(inputs, outputs) > _NARROW:
        return _native(x, kernel, bordered, dtype)
    widened = pad(kernel, 3, 0, _NARROW + 1 - outputs)
    return _native(x, widened, bordered, dtype)[..., :outputs]


def _forward(x: Array, kernel: Array, bordered: bool) -> Array:
    if x.ndim == 4:
        return _plane(x, kernel, bordered)
    taps, *_, inputs, outputs = kernel.shape
    if taps == 1:
        return _plane(_fold(x), kernel[0]).reshape(*x.shape[:-1], -1)
    if max(inputs, outputs) <= _NARROW:
        return convolve_planes(x, kernel, bordered=bordered)
    padded = x if bordered else _border(x, taps)
    batch, depth = len(x), padded.shape[1] - taps + 1

    # Plane by plane: what the taps of a plane share stays in the cache.
    def plane(number: Array) -> Array:
        window = _planes_around(padded, number, depth, taps)
        parts = [_plane(window[t : t + 1], kernel[t], dtype=of_sums(x)) for t in range(taps)]
        return sum(parts[1:], parts[0]).astype(x.dtype)

    return lax.map(plane, jnp.arange(batch * depth)).reshape(batch, depth, *x.shape[2:-1], -1)


def _planes_around(padded: Array, number: Array, depth: int, taps: int) -> Array:
    """The planes that the taps see from a plane of the folded batch, whose volumes are padded.

    Volume after volume: with those of a batch side by side, their planes would have to be moved
    apart again, which takes as long as to convolve them.
    """
    first = number + number // depth * (taps - 1)
    return lax.dynamic_slice_in_dim(_fold(padded), first, taps)


def _plane_kernel_gradient(x: Array, slope: Array, sides: Sequence[int]) -> Array:
    """Of a 2-D kernel, as a convolution with the batch as channels; between narrow layers, which
    XLA has no fast kernels for, as matrix products."""
    inputs, outputs = x.shape[-1], slope.shape[-1]
    if inputs > 1 and max(inputs, outputs) <= _NARROW:
        return kernel_gradient(x[None], slope[None], (1, *sides))[0]
    layout = ("CXYN", "IXYO", "XYNC")
    edges = [(k // 2, k // 2) for k in sides]
    if outputs <= _NARROW < inputs:
        # The wider of the two as outputs, for the fast kernels; the taps then run backwards.
        found = lax.conv_general_dilated(slope, x, (1, 1), edges, dimension_numbers=layout)
        return found[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(x, slope, (1, 1), edges, dimension_numbers=layout)


def _kernel_gradient(x: Array, slope: Array, sides: Sequence[int], bordered: bool) -> Array:
    """Sum over the positions of the input at each tap times the output's slope."""
    taps = sides[0]
    if len(sides) == 2:
        return _plane_kernel_gradient(x, _border(slope, taps) if bordered else slope, sides)
    if taps > 1 and math.prod(slope.shape[2:-1]) >= _FEW_PIXELS:
        return kernel_gradient(x, slope, sides, bordered=bordered)
    padded, depth, folded = x if bordered else _border(x, taps), slope.shape[1], _fold(slope)
    parts = [_fold(padded[:, tap : tap + depth]) for tap in range(taps)]
    return jnp.stack([_plane_kernel_gradient(part, folded, sides[1:]) for part in parts])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x: Array, kernel: Array, bordered: bool) -> Array:
    return _forward(x, kernel, bordered)


def _shifted_forward(x: Array, kernel: Array, bordered: bool) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, bordered), (x, kernel)


def _shifted_backward(
    bordered: bool, kept: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    x, kernel = kept
    *sides, _, _ = kernel.shape
    turned = jnp.flip(kernel, tuple(range(len(sides)))).swapaxes(-1, -2)
    back = _forward(_border(slope, sides[0]) if bordered else slope, turned, False)
    return back, _kernel_gradient(x, slope, sides, bordered)


_shifted.defvjp(_shifted_forward, _shifted_backward)


class Convolution(nn.Module):
    """``convolve`` with a learned kernel, no bias; the parameters are those of ``flax.linen.Conv``.

    Attributes:
        width: output channels.
        sides: of the kernel, odd.
        implementation: of ``convolve``.
        dtype: of the computation; the parameters are float32.
        slabs: name of the mapped axis whose devices have a slab of each image; '' = none.
    """

    width: int
    sides: Sequence[int]
    implementation: str = "auto"
    dtype: Any = jnp.float32
    slabs: str = ""

    @nn.compact
    def __call__(self, x: Float[Array, "b *s i"]) -> Float[Array, "b *s o"]:
        shape = (*self.sides, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        x, kernel, reach = x.astype(self.dtype), kernel.astype(self.dtype), self.sides[0] // 2
        if not self.slabs or not reach:
            return convolve(x, kernel, self.implementation)
        wider = with_neighbours(x, reach, self.slabs)
        return convolve(wider, kernel, self.implementation, bordered=True)


def max_pool(x: Float[Array, "b *s c"], strides: Sequence[int]) -> Float[Array, "b *t c"]:
    """Maximum over blocks, as a reshape: its gradient is several times cheaper on a CPU."""
    for axis, stride in enumerate(strides, start=1):
        if stride > 1:
            shape = x.shape
            halved = (*shape[:axis], shape[axis] // stride, stride, *shape[axis + 1 :])
            x = x.reshape(halved).max(axis + 1)
    return x


class Upsample(nn.Module):
    """Transposed convolution whose kernel equals its stride: matrix product and depth-to-space.

    The same function, without XLA's slow path for it on a CPU.
    """

    width: int
    strides: Sequence[int] = (2, 2)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *t k"]:
        b, *sides, inputs = x.shape
        n = len(sides)
        # As rows: with several axes of them XLA's gradient is slower.
        x = x.reshape(-1, inputs)
        x = nn.Dense(math.prod(self.strides) * self.width, dtype=self.dtype)(x)
        x = x.reshape(b, *sides, *self.strides, self.width)
        woven = [
            axis
            for pair in zip(range(1, n + 1), range(n + 1, 2 * n + 1), strict=True)
            for axis in pair
        ]
        x = x.transpose(0, *woven, 2 * n + 1)
        return x.reshape(b, *(s * t for s, t in zip(sides, self.strides, strict=True)), self.width)
