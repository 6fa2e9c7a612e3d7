"""Losses: each returns (sum, normaliser) per image, so that devices can add both up.

Dividing on each device and averaging afterwards would weight images by how they happened to be
spread over the devices; ``psum(sum) / psum(normaliser)`` does not.

An image is a patch with two or three spatial axes; its voxels are called pixels in both.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SumAndNormaliser = tuple[Float[Array, " b"], Float[Array, " b"]]


def pixel_cross_entropy(
    logits: Float[Array, "b *s c"], labels: Int[Array, " b *s"], valid: Bool[Array, " b *s"]
) -> Float[Array, " b *s"]:
    """−log softmax of the true class in nats; 0 where not valid, whatever stands there."""
    safe = jnp.where(valid[..., None], logits, 0.0)
    index = jnp.where(valid, labels, 0)[..., None]
    log_probs = jax.nn.log_softmax(safe, axis=-1)
    return jnp.where(valid, -jnp.take_along_axis(log_probs, index, axis=-1)[..., 0], 0.0)


def map_weighted_cross_entropy(
    logits: Float[Array, "b *s c"],
    labels: Int[Array, " b *s"],
    weights: Float[Array, " b *s"],
    valid: Bool[Array, " b *s"],
    *,
    region: str = "all",
    denominator: str = "foreground",
    foreground_fraction: Float[Array, " b"] | None = None,
) -> SumAndNormaliser:
    """Cross-entropy weighted by a map, per image: (1 / d_i) Σ_{p∈S} R_i(p) · CE_i(p).

    "Transfer Risk Map" (arXiv 2502.02340) weights the loss by the map and normalises it "with the
    image's foreground size"; its equation is not public. Our reading: the image is the volume, not
    the slice, since a slice with three foreground pixels would else weigh a hundred times the
    others. d_i is the number of foreground pixels that a patch of this size holds on average over
    its volume.

    Args:
        logits: of the network.
        labels: class indices, 0 = background; read where valid.
        weights: R, not negative; no gradient flows into it.
        valid: pixels that count; ignored pixels and padding are not valid.
        region: S, "all" or "foreground".
        denominator: d_i, "foreground" or "pixels" (the number of pixels of S); at least 1 where
            the patch itself is counted.
        foreground_fraction: share of foreground in each patch's volume, for "foreground"; None
            takes the patch itself as the image.

    Returns:
        (loss, 1) per image; (0, 0) for an image without a valid pixel.
    """
    axes = tuple(range(1, valid.ndim))
    losses = pixel_cross_entropy(logits, labels, valid)
    pixels = valid.sum(axes).astype(jnp.float32)
    is_foreground = valid & (labels > 0)
    inside = is_foreground if region == "foreground" else valid
    # Masked before the product: 0 × NaN would come back through the gradient.
    factors = jax.lax.stop_gradient(jnp.where(inside, weights, 0.0))
    total = (factors * losses).sum(axes)
    if denominator == "pixels":
        size = inside.sum(axes).astype(jnp.float32)
    elif foreground_fraction is None:
        size = is_foreground.sum(axes).astype(jnp.float32)
    else:
        size = foreground_fraction * pixels
    floor = 1e-6 if foreground_fraction is not None else 1.0
    used = (pixels > 0).astype(jnp.float32)
    return used * total / jnp.maximum(size, floor), used


def soft_dice(
    logits: Float[Array, "b *s c"],
    labels: Int[Array, " b *s"],
    valid: Bool[Array, " b *s"],
    *,
    smooth: float = 1.0,
) -> SumAndNormaliser:
    """1 − soft Dice, averaged over the foreground classes, per image.

    Dice_c = (2 Σ p_c t_c + s) / (Σ p_c + Σ t_c + s) over the valid pixels, p the softmax, t the
    indicator of class c; s makes a class that is neither there nor predicted a perfect one.

    Returns:
        (loss, 1) per image; (0, 0) for an image without a valid pixel.
    """
    probs = jax.nn.softmax(jnp.where(valid[..., None], logits, 0.0), axis=-1)[..., 1:]
    probs = jnp.where(valid[..., None], probs, 0.0)
    axes = tuple(range(1, valid.ndim))
    index = jnp.where(valid, labels, 0)
    truth = jax.nn.one_hot(index, logits.shape[-1], dtype=probs.dtype)[..., 1:]
    overlap = (probs * truth).sum(axes)
    total = probs.sum(axes) + truth.sum(axes)
    dice = (2.0 * overlap + smooth) / (total + smooth)
    used = valid.any(axes).astype(jnp.float32)
    return used * (1.0 - dice.mean(-1)), used
