"""Augmentation on the device: the same warp for image, label and risk map."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxfer.tasks import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """How far a patch may be changed; zeros and False change nothing.

    Attributes:
        flip: left-right, half of the time.
        rotation: degrees, at most.
        scale: relative, at most.
        intensity: relative gain and offset, at most; the image has unit variance.
        noise: standard deviation, at most, of the added noise.
    """

    flip: bool
    rotation: float
    scale: float
    intensity: float
    noise: float


def _coordinates(
    key: Key[Array, ""], how: Augmentation, shape: tuple[int, ...]
) -> Float[Array, "2 h w"]:
    """Where each pixel of the warped patch comes from."""
    turn, stretch, mirror = jax.random.split(key, 3)
    angle = jnp.deg2rad(how.rotation) * jax.random.uniform(turn, minval=-1.0, maxval=1.0)
    zoom = 1.0 + how.scale * jax.random.uniform(stretch, minval=-1.0, maxval=1.0)
    sign = jnp.where(jax.random.bernoulli(mirror) & how.flip, -1.0, 1.0)
    u, v = ((jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2) for n in shape)
    u, v = jnp.meshgrid(u * sign, v, indexing="ij")
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    turned = jnp.stack([cos * u - sin * v, sin * u + cos * v])
    return turned + ((jnp.array(shape, jnp.float32) - 1) / 2)[:, None, None]


def augment_patch(
    key: Key[Array, ""],
    how: Augmentation,
    image: Float[Array, "h w 1"],
    label: Int[Array, "h w"],
    risk: Float[Array, "h w"],
) -> tuple[Float[Array, "h w 1"], Int[Array, "h w"], Float[Array, "h w"]]:
    """Warps one patch and changes the image's intensities.

    Pixels from outside of the patch are 0 in the image, ignored in the label, 1 in the risk map.
    Background that is exactly 0 stays so.
    """
    warp, gain, shift, level, grain = jax.random.split(key, 5)
    where = _coordinates(warp, how, label.shape)

    def take(
        values: Shaped[Array, "h w"], order: int, outside: int | float
    ) -> Shaped[Array, "h w"]:
        return map_coordinates(values, list(where), order=order, mode="constant", cval=outside)

    plane = take(image[..., 0], 1, 0.0)
    label = take(label, 0, IGNORE)
    risk = take(risk, 1, 1.0)
    span = how.intensity * jax.random.uniform(gain, minval=-1.0, maxval=1.0)
    offset = how.intensity * jax.random.uniform(shift, minval=-1.0, maxval=1.0)
    noise = jax.random.normal(grain, plane.shape) * how.noise * jax.random.uniform(level)
    changed = plane * (1.0 + span) + offset + noise
    return jnp.where(plane == 0.0, 0.0, changed)[..., None], label, risk
