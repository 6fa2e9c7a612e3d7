"""The transfer risk map: per pixel of a target image, how hard the transfer is.

"Transfer Risk Map" (arXiv 2502.02340) publishes no equation; two readings have public relatives,
and both are here. θ is the frozen source's softmax, y the target's label, P(y|z) the table that
LEEP forms from both, EEP(p) = Σ_z P(y(p)|z) θ(p)_z the expected prediction of the true label.

* ``instance``: −log EEP(p), the table over all pixels of the training cases; one map per image.
* ``positional``: −mean_i log EEP_i(p), the table over the training cases at one place (a cell
  of stride × stride pixels of an axial slice, whether the network sees slices or volumes); one map
  for all cases, which must share a grid. Without smoothing it lies in [0, log(number of classes in
  the cell)]: exp of it never exceeds that number.

The maps use the target's labels: they are made of training cases only.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Shaped, UInt8
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from jaxfer.metrics import log_expected_prediction
from jaxfer.tasks import IGNORE

FLOOR = 1e-7
"""Least EEP: a float32 softmax knows no smaller number apart from 1."""


def instance_risk(
    log_probs: Float[np.ndarray, "*n s"],
    labels: Integer[np.ndarray, "*n"],
    log_conditional: Float[Array, "c s"],
    valid: Bool[np.ndarray, "*n"],
) -> Float32[np.ndarray, "*n"]:
    """−log EEP of the true label at every pixel, in nats; 0 where not valid.

    Args:
        log_probs: log θ, of the source.
        labels: target classes; read where valid.
        log_conditional: log P(y|z) over the training cases.
        valid: pixels that are not ignored.
    """
    safe = np.where(valid, labels, 0)
    log_expected = log_expected_prediction(log_probs, safe, log_conditional, mask=valid)
    return np.minimum(-np.asarray(log_expected), -np.log(FLOOR)).astype(np.float32)


def _cells(values: Shaped[np.ndarray, "n h w *k"], stride: int) -> Shaped[np.ndarray, "u v m *k"]:
    """The pixels of all images in each stride × stride cell; what the edge lacks is zero."""
    n, h, w, *rest = values.shape
    padding = [(0, 0), (0, -h % stride), (0, -w % stride)] + [(0, 0)] * len(rest)
    padded = np.pad(values, padding)
    rows, columns = padded.shape[1] // stride, padded.shape[2] // stride
    blocks = padded.reshape(n, rows, stride, columns, stride, *rest)
    return np.moveaxis(blocks, (1, 3), (0, 1)).reshape(rows, columns, -1, *rest)


def positional_risk(
    probs: Float[np.ndarray, "n h w s"],
    labels: Integer[np.ndarray, "n h w"],
    valid: Bool[np.ndarray, "n h w"],
    prior: Float[np.ndarray, " c"],
    *,
    stride: int,
    smoothing: float,
) -> Float32[np.ndarray, "h w"]:
    """−LEEP of every cell of one slice that n aligned images share, in nats.

    Args:
        probs: θ of the same slice in every image.
        labels: target classes; read where valid.
        valid: pixels that are not ignored.
        prior: P(y) over the training cases.
        stride: side, in pixels, of a cell: its table is made of its pixels in all images. With
            few images a table of one pixel each would only repeat its own labels.
        smoothing: pixels of prior, spread as P(y), that each source class's column gets.

    Returns:
        The map, constant on each cell; 0, the minimum, where no image has a valid pixel (the
        ancestor's public code leaves a value below the valid range there).
    """
    classes = len(prior)
    theta = _cells(np.where(valid[..., None], probs, 0.0), stride).astype(np.float64)
    usable = _cells(valid, stride)
    truth = _cells(np.where(valid, labels, 0), stride)
    indicator = (truth[..., None] == np.arange(classes)) & usable[..., None]
    joint = np.einsum("uvmc,uvms->uvcs", indicator.astype(np.float64), theta)
    joint += smoothing * np.asarray(prior, np.float64)[:, None]
    mass = joint.sum(2, keepdims=True)
    conditional = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    rows = np.take_along_axis(conditional, truth[..., None], axis=2)
    expected = np.clip((rows * theta).sum(-1), FLOOR, 1.0)
    total = np.where(usable, -np.log(expected), 0.0).sum(2)
    risk = total / np.maximum(usable.sum(2), 1)
    spread = np.repeat(np.repeat(risk, stride, axis=0), stride, axis=1)
    return spread[: valid.shape[1], : valid.shape[2]].astype(np.float32)


def smoothed(
    risk: Float32[np.ndarray, "_ _ _"],
    valid: Bool[np.ndarray, "_ _ _"],
    axes: tuple[int, ...],
    sigma: float,
) -> Float32[np.ndarray, "_ _ _"]:
    """The mean of the valid pixels around each, weighted by a Gaussian; 0 where not valid.

    Args:
        axes: along which the Gaussian reaches.
        sigma: its standard deviation in pixels; 0 changes nothing.
    """
    if not sigma:
        return np.where(valid, risk, 0).astype(np.float32)
    widths = [sigma if axis in axes else 0.0 for axis in range(3)]
    inside = np.where(valid, risk, 0).astype(np.float64)
    total = gaussian_filter(inside, widths, mode="constant")
    mass = gaussian_filter(valid.astype(np.float64), widths, mode="constant")
    return np.where(valid, total / np.where(valid, mass, 1.0), 0).astype(np.float32)


def border_limited(
    risk: Float32[np.ndarray, "_ _ _"],
    classes: UInt8[np.ndarray, "_ _ _"],
    axes: tuple[int, ...],
    width: int,
) -> Float32[np.ndarray, "_ _ _"]:
    """The risk, near borders no higher than the median of the class away from them.

    Where two labels meet, where exactly is often a matter of taste, and the risk is high in any
    transfer. A class that is nowhere away from a border is limited by its median over all.

    Args:
        axes: along which a border is near.
        width: pixels that are near; 0 changes nothing.
    """
    valid = classes != IGNORE
    found = np.where(valid, risk, 0).astype(np.float32)
    if not width:
        return found
    sides = tuple(2 * width + 1 if axis in axes else 1 for axis in range(3))
    highest = maximum_filter(np.where(valid, classes, 0), size=sides, mode="nearest")
    lowest = minimum_filter(np.where(valid, classes, IGNORE), size=sides, mode="nearest")
    near = valid & (highest != lowest)
    for index in np.unique(classes[valid]):
        own = classes == index
        away = own & ~near
        limit = np.median(found[away] if away.any() else found[own])
        found[own & near] = np.minimum(found[own & near], limit)
    return found


def normalised(
    risk: Float[np.ndarray, "*n"], valid: Bool[np.ndarray, "*n"], how: str
) -> Float32[np.ndarray, "*n"]:
    """One image's risk in comparable units: as it is, in [0, 1], of mean 1, or as ranks.

    Args:
        risk: in nats, not negative.
        valid: pixels that decide the scale; the others become 0.
        how: "none", "minmax", "mean1" or "rank" (mid-ranks over the number of valid pixels). A
            constant map becomes 0 under "minmax", 1 under "mean1" and 0.5 under "rank".
    """
    inside = np.asarray(risk, np.float64)[valid]
    if not inside.size or how == "none":
        values = inside
    elif how == "minmax":
        span = inside.max() - inside.min()
        values = (inside - inside.min()) / (span if span > 0 else 1.0)
    elif how == "mean1":
        values = inside / inside.mean() if inside.mean() > 0 else np.ones_like(inside)
    elif how == "rank":
        _, inverse, counts = np.unique(inside, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        values = ((last - (counts - 1) / 2 - 0.5) / inside.size)[inverse.reshape(-1)]
    else:
        raise ValueError(f"normalise {how!r}: one of 'none', 'minmax', 'mean1', 'rank'")
    result = np.zeros(risk.shape, np.float32)
    result[valid] = values
    return result


def amplified(
    risk: Float[np.ndarray, "*n"], how: str, *, gain: float, base: float, clip: float
) -> Float32[np.ndarray, "*n"]:
    """Weights from risks, at most ``clip``: the risk itself, exp(gain · risk) or base^risk.

    exp with gain 1 is the inverse expected prediction; with gain ½ and a source that ignores the
    image it is √(1/P(y)), the square-root inverse-frequency class weight.
    """
    values = np.asarray(risk, np.float64)
    if how == "exp":
        values = np.exp(np.minimum(gain * values, 80.0))
    elif how == "pow":
        values = np.power(base, np.minimum(values, 80.0 / np.log(base)))
    elif how != "identity":
        raise ValueError(f"amplify {how!r}: one of 'identity', 'exp', 'pow'")
    return np.minimum(values, clip).astype(np.float32)
