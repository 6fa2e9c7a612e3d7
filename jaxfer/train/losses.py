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
    logits: Float[Array, "b *s c"],
    labels: Int[Array, " b *s"],
    valid: Bool[Array, " b *s"],
    doubt: Float[Array, " b *s"] | None = None,
) -> Float[Array, " b *s"]:
    """−log softmax of the true class in nats; 0 where not valid, whatever stands there.

    Args:
        doubt: share of each label, 0 … 1, that its pixel's other classes get, all alike: label
            smoothing (Szegedy et al., CVPR 2016) with a strength of its own at every pixel; read
            where valid. None: none. No gradient flows into it.
    """
    safe = jnp.where(valid[..., None], logits, 0.0)
    index = jnp.where(valid, labels, 0)[..., None]
    log_probs = jax.nn.log_softmax(safe, axis=-1)
    losses = -jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
    if doubt is not None:
        others = (-log_probs.sum(-1) - losses) / (logits.shape[-1] - 1)
        losses += jax.lax.stop_gradient(jnp.where(valid, doubt, 0.0)) * (others - losses)
    return jnp.where(valid, losses, 0.0)


def map_weighted_cross_entropy(
    logits: Float[Array, "b *s c"],
    labels: Int[Array, " b *s"],
    weights: Float[Array, " b *s"],
    valid: Bool[Array, " b *s"],
    *,
    region: str = "all",
    denominator: str = "foreground",
    foreground_fraction: Float[Array, " b"] | None = None,
    rim: int = 0,
    focal: float = 0.0,
    hardest: float = 1.0,
    doubt: Float[Array, " b *s"] | None = None,
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
        region: S, "all", "foreground" or "foreground_rim".
        denominator: d_i, "foreground", "pixels" (the number of pixels of S), at least 1 where
            the patch itself is counted, or "weight_sum" (Σ_S R: the weights' unit is without
            meaning).
        foreground_fraction: share of foreground in each patch's volume, for "foreground"; None
            takes the patch itself as the image.
        rim: pixels around the foreground that "foreground_rim" takes in, along each axis.
        focal: γ of (1 − p)^γ · CE, p the probability of the true class (Lin et al., ICCV 2017);
            0 or at least 1. Gradients flow through the factor, as published.
        hardest: share of S, of the largest CE, that counts (OHEM: Shrivastava et al., CVPR 2016);
            chosen in each image.
        doubt: of ``pixel_cross_entropy``.

    Returns:
        (loss, 1) per image; (0, 0) for an image without a valid pixel. The loss of an image with
        valid pixels and none in S is 0, and it counts.
    """
    axes = tuple(range(1, valid.ndim))
    losses = pixel_cross_entropy(logits, labels, valid, doubt)
    pixels = valid.sum(axes).astype(jnp.float32)
    is_foreground = valid & (labels > 0)
    if region == "foreground_rim":
        inside = valid & _dilated(is_foreground, rim)
    else:
        inside = is_foreground if region == "foreground" else valid
    if hardest < 1.0:
        inside &= _hardest(losses, inside, hardest)
    if focal:
        losses = (1.0 - jnp.exp(-losses)) ** focal * losses
    # Masked before the product: 0 × NaN would come back through the gradient.
    factors = jax.lax.stop_gradient(jnp.where(inside, weights, 0.0))
    total = (factors * losses).sum(axes)
    if denominator == "pixels":
        size = inside.sum(axes).astype(jnp.float32)
    elif denominator == "weight_sum":
        # Scaled by the largest weight, so that no unit makes the sum over- or underflow.
        largest = factors.max(axes, keepdims=True)
        factors = factors / jnp.where(largest > 0, largest, 1.0)
        total, size = (factors * losses).sum(axes), factors.sum(axes)
    elif foreground_fraction is None:
        size = is_foreground.sum(axes).astype(jnp.float32)
    else:
        size = foreground_fraction * pixels
    by_fraction = denominator == "foreground" and foreground_fraction is not None
    floor = 1e-6 if by_fraction else 1.0
    used = (pixels > 0).astype(jnp.float32)
    return used * total / jnp.maximum(size, floor), used


def _dilated(mask: Bool[Array, " b *s"], by: int) -> Bool[Array, " b *s"]:
    """The mask and what lies at most so many pixels away along every axis."""
    sides = (1, *(2 * by + 1,) * (mask.ndim - 1))
    return jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, sides, (1,) * mask.ndim, "SAME")


def _hardest(
    losses: Float[Array, " b *s"], inside: Bool[Array, " b *s"], share: float
) -> Bool[Array, " b *s"]:
    """The share of each image's pixels inside with the largest losses, at least one; with ties."""
    size = len(losses)
    flat = jnp.where(inside, jax.lax.stop_gradient(losses), -1.0).reshape(size, -1)
    number = jnp.ceil(share * inside.reshape(size, -1).sum(1)).astype(jnp.int32)
    place = jnp.maximum(number - 1, 0)[:, None]
    least = jnp.take_along_axis(-jnp.sort(-flat, axis=1), place, axis=1)
    return (flat >= least).reshape(losses.shape)


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
    return tversky(logits, labels, valid, missed=0.5, smooth=smooth)


def tversky(
    logits: Float[Array, "b *s c"],
    labels: Int[Array, " b *s"],
    valid: Bool[Array, " b *s"],
    *,
    missed: float,
    smooth: float = 1.0,
) -> SumAndNormaliser:
    """1 − Tversky index, averaged over the foreground classes, per image.

    T_c = (Σ p t + s/2) / ((1 − β) Σ p + β Σ t + s/2), which is TP / (TP + (1 − β) FP + β FN) with
    s/2 added above and below, so that β = ½ is the soft Dice of the same s. Salehi et al., MLMI
    2017 (arXiv 1706.05721).

    Args:
        missed: β, the weight of what is missed, 0 … 1; that of what is spurious is 1 − β.
        smooth: s.

    Returns:
        (loss, 1) per image; (0, 0) for an image without a valid pixel.
    """
    probs = jax.nn.softmax(jnp.where(valid[..., None], logits, 0.0), axis=-1)[..., 1:]
    probs = jnp.where(valid[..., None], probs, 0.0)
    axes = tuple(range(1, valid.ndim))
    index = jnp.where(valid, labels, 0)
    truth = jax.nn.one_hot(index, logits.shape[-1], dtype=probs.dtype)[..., 1:]
    overlap = (probs * truth).sum(axes)
    total = 2.0 * ((1.0 - missed) * probs.sum(axes) + missed * truth.sum(axes))
    index_of_class = (2.0 * overlap + smooth) / (total + smooth)
    used = valid.any(axes).astype(jnp.float32)
    return used * (1.0 - index_of_class.mean(-1)), used
