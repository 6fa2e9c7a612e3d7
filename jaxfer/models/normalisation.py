"""Instance norm and leaky ReLU as one function with a derivative of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_Kept = tuple[Array, Array, Array, Array, Array]


def _along(values: Array, x: Array) -> Array:
    return values.reshape(*(1,) * (x.ndim - 1), -1)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def _mean(values: Array, axis_name: str) -> Array:
    """Over the spatial axes, and over the slabs that the devices have of one image."""
    own = values.mean(_spatial(values), keepdims=True)
    return lax.pmean(own, axis_name) if axis_name else own


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
    x: Float[Array, "b *s c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    slope: float,
    epsilon: float,
    axis_name: str = "",
) -> Float[Array, "b *s c"]:
    """Instance norm over the spatial axes, then leaky ReLU, in float32 whatever x is.

    Instance norm: Ulyanov et al., 2016 (arXiv 1607.08022). The variance is that of the centred
    values: the mean of squares less the square of the mean loses all digits of a bright image. The
    gradient is formed from the input and two numbers per channel, where differentiating through
    the formula keeps several arrays of the image's size.

    Args:
        scale, bias: learned.
        slope: of the leaky ReLU below 0; 1 leaves it out.
        epsilon: added to the variance.
        axis_name: of the devices that have a slab of each image; '' = the images are whole. The
            gradients of scale and bias are those of this slab.
    """
    return _forward(x, scale, bias, slope, epsilon, axis_name)[0]


def _forward(
    x: Array, scale: Array, bias: Array, slope: float, epsilon: float, axis_name: str
) -> tuple[Array, _Kept]:
    wide = x.astype(jnp.float32)
    mean = _mean(wide, axis_name)
    variance = _mean(jnp.square(wide - mean), axis_name)
    inverse = lax.rsqrt(variance + epsilon)
    z = (wide - mean) * (inverse * _along(scale, x)) + _along(bias, x)
    return jnp.where(z >= 0, z, slope * z).astype(x.dtype), (x, mean, inverse, scale, bias)


def _backward(
    slope: float, _epsilon: float, axis_name: str, kept: _Kept, given: Array
) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale, bias = kept
    unit = (x.astype(jnp.float32) - mean) * inverse
    positive = unit * _along(scale, x) + _along(bias, x) >= 0
    given = given.astype(jnp.float32)
    given = jnp.where(positive, given, slope * given)
    axes = _spatial(x)
    size = x[0, ..., 0].size
    plain = given.sum(axes, keepdims=True)
    along = (given * unit).sum(axes, keepdims=True)
    level, tilt = plain / size, along / size
    if axis_name:
        level, tilt = lax.pmean((level, tilt), axis_name)
    back = (given - level - unit * tilt) * (inverse * _along(scale, x))
    return back.astype(x.dtype), along.sum(0).reshape(-1), plain.sum(0).reshape(-1)


normalise.defvjp(_forward, _backward)


class InstanceNorm(nn.Module):
    """Normalises every channel of every image over its pixels, with a learned scale and bias.

    Attributes:
        slope: below 0, of the leaky ReLU that follows; 1 leaves it out.
        slabs: name of the mapped axis whose devices have a slab of each image; '' = none.
    """

    epsilon: float = 1e-5
    slope: float = 1.0
    slabs: str = ""

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        channels: Any = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        return normalise(x, scale, bias, self.slope, self.epsilon, self.slabs)
