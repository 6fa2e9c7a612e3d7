"""EMMS: how well a linear map of the features fits the labels' embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.samples import check_voxels, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product

FLOAT64_EPS = float(np.finfo(np.float64).eps)


def emms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    label_embeddings: Float[AnyArray, "m c e"] | None = None,
    rounds: int = 1,
) -> Score:
    """Minus the mean squared error of least squares from features to embeddings of the labels.

    Features and embeddings are standardised. Several embeddings are mixed with weights on the
    simplex: least squares for the map, least squares for the weights, sparsemax, and so on; the
    map is fitted once more to the final mixture. Higher is better, at most 0. Meng et al.,
    Foundation Model is Efficient Multimodal Multitask Model Selector, NeurIPS 2023
    (arXiv 2308.06262). **Without embeddings this is plain least squares on one-hot labels**: minus
    the mean over the present classes of 1 − R².

    We depart from published code in that the error is divided by n and by the embedding's width
    (there a slip multiplies by the width), the map belongs to the final weights (there to the
    first ones), and nothing is standardised in place.

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        label_embeddings: m embeddings of the C classes in e dimensions, of language or vision
            models; dimensions that do not vary are left out. None: one-hot labels.
        rounds: of map and weights, static; as published one. Without effect for m = 1.

    Returns:
        The score; −1 for features that do not vary when m = 1. Flagged `SATURATED` with D ≥ n−1
        features, which fit any labels; `ZERO_FEATURES` and NaN when no embedding varies.

    Raises:
        ValueError: shapes disagree, or rounds < 1; outside `jit`, also for labels out of range.
    """
    check_voxels(features, labels, num_classes, mask)
    if label_embeddings is None:
        label_embeddings = np.eye(num_classes, dtype=np.float32)[None]
    if label_embeddings.shape[1] != num_classes:
        raise ValueError(
            f"label_embeddings need one row for each of {num_classes} classes: "
            f"found {label_embeddings.shape}"
        )
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1: found {rounds}")
    return _emms(features, labels, mask, label_embeddings, num_classes=num_classes, rounds=rounds)


@compiled_in_float64("num_classes", "rounds", cast_back=True)
def _emms(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    label_embeddings: Float[AnyArray, "m c e"],
    *,
    num_classes: int,
    rounds: int,
) -> Score:
    samples = used_samples(features, labels, mask, num_classes)
    counts, n = samples.classes.sum(0), jnp.maximum(samples.n_used, 1)
    shares = counts / n
    targets, varies = _standardised(jnp.asarray(label_embeddings).astype(jnp.float64), shares)

    # All follows from the class means of the features along orthonormal directions.
    spread = (samples.features**2).sum(0) / n
    columns = samples.features / jnp.sqrt(jnp.where(spread > 0, spread, 1))[None, :]
    power, axes = jnp.linalg.eigh(product(columns.T, columns) / n)
    kept = power > columns.shape[1] * FLOAT64_EPS * power[-1]
    scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, power, 1)), 0)
    coordinates = product(columns, axes * scale[None, :])
    sums = product(samples.classes.T, coordinates) / n

    def mix(weights: Float[Array, " m"]) -> Float[Array, "c e"]:
        return (weights[:, None, None] * targets).sum(0)

    # By class: what the mixture's projection on the features has in common with an embedding.
    overlap = product(sums, sums.T)
    gram = jnp.einsum("kce,c,lce->kl", targets, shares, targets, precision="highest")

    def improve(_: Array, weights: Float[Array, " m"]) -> Float[Array, " m"]:
        fitted = product(overlap, mix(weights))
        common = (targets * fitted[None]).sum((1, 2))
        return sparsemax(product(jnp.linalg.pinv(gram, hermitian=True), common[:, None])[:, 0])

    models = targets.shape[0]
    weights = jnp.full((models,), 1 / models, jnp.float64)
    weights = jax.lax.fori_loop(0, rounds, improve, weights)
    mixture = mix(weights)
    size = (shares[:, None] * mixture**2).sum()
    explained = (mixture * product(overlap, mixture)).sum()
    error = jnp.maximum(size - explained, 0) / jnp.maximum(varies.sum(), 1)
    flags = flag_where(columns.shape[1] >= samples.n_used - 1, Flag.SATURATED) | flag_where(
        ~varies.any(), Flag.ZERO_FEATURES
    )
    return make_score(-error, class_counts=counts, n_invalid=samples.n_invalid, flags=flags)


def sparsemax(values: Float[Array, " m"]) -> Float[Array, " m"]:
    """The point of the simplex nearest to the values. Martins & Astudillo, ICML 2016."""
    ordered = jnp.sort(values)[::-1]
    ranks = jnp.arange(1, values.shape[0] + 1)
    summed = jnp.cumsum(ordered)
    support = (1 + ranks * ordered > summed).sum()
    threshold = (summed[support - 1] - 1) / support
    return jnp.maximum(values - threshold, 0)


def _standardised(
    embeddings: Float[Array, "m c e"], shares: Float[Array, " c"]
) -> tuple[Float[Array, "m c e"], Bool[Array, " e"]]:
    """Embeddings with mean 0 and variance 1 over the voxels, and which dimensions vary."""
    weights = shares[None, :, None]
    present = weights > 0
    embeddings = jnp.where(present, embeddings, 0)
    means = (weights * embeddings).sum(1, keepdims=True)
    offsets = jnp.where(present, embeddings - means, 0)
    variances = (weights * offsets**2).sum(1, keepdims=True)
    varies = variances > (FLOAT64_EPS * means) ** 2 * embeddings.shape[1]
    scale = jnp.sqrt(jnp.where(varies, variances, 1))
    return jnp.where(varies, offsets / scale, 0), varies.any((0, 1))


CARD = Metric(
    name="emms",
    meaning="minus the error of least squares from features to embeddings of the labels",
    needs="features",
    direction="higher",
    range="at most 0; [-1, 0] on one-hot labels",
    comparable="within one target, any source with D well below n",
    cost="O(n D² + D³)",
    reference="Meng et al., EMMS, NeurIPS 2023, arXiv 2308.06262",
    departure="without label embeddings it is least squares on one-hot labels; the error is "
    "divided by the width (published: multiplied); the map belongs to the final weights",
    compute=emms,
)
