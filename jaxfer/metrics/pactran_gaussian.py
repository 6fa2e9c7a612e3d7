"""PACTran with a Gaussian prior: the best linear head's error, and how sharp its minimum is."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.pactran import DIRICHLET_CARD
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.samples import check_voxels, first_largest, used_samples
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import product

RIDGE = 1e-12
"""On the Hessian, in units of its mean diagonal: a constant added to all biases changes nothing."""


def pactran_gaussian(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    strength: float = 1.0,
    prior_variance: float = 10.0,
    max_rounds: int = 100,
    tolerance: float = 1e-8,
) -> Score:
    """Least regularised cross-entropy of a linear head, plus how sharp its minimum is.

    min over W, b of F = CE + ‖W‖²/(2λn), plus (CD/(2λn)) s² log(λn tr(∇²F)/(CD)); CE is the mean
    over the voxels, the trace runs over weights and biases. Lower is better, real-valued. Ding et
    al., ECCV 2022 (arXiv 2203.05126).

    We depart from published code in that the features are centred here (there only because another
    metric has done it in place); that the minimum of this convex function is found by Newton's
    method from 0 (there L-BFGS from a random start, at most 100 rounds); and that the Hessian is
    that of F itself (there the cross-entropy's is summed over the voxels instead of averaged, which
    adds about (C s²D/(2λn)) log n, hardly different between sources).

    Args:
        features: any real values.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        strength: λ, static; published grid 0.1, 1, 10. Choose it on held-out targets.
        prior_variance: s²·D, static; published grid 1 to 1000 with λ.
        max_rounds: Newton steps, static.
        tolerance: largest entry of the gradient at the end, static.

    Returns:
        The score in nats per voxel; flagged `NOT_CONVERGED` when the steps ran out.

    Raises:
        ValueError: shapes disagree, or a parameter ≤ 0; outside `jit`, also for labels out of
            range.
    """
    check_voxels(features, labels, num_classes, mask)
    if min(strength, prior_variance, max_rounds) <= 0:
        raise ValueError(
            "strength, prior_variance and max_rounds must be positive: "
            f"found {strength}, {prior_variance}, {max_rounds}"
        )
    return _gaussian(
        features,
        labels,
        mask,
        num_classes=num_classes,
        strength=strength,
        prior_variance=prior_variance,
        max_rounds=max_rounds,
        tolerance=tolerance,
    )


class _Step(NamedTuple):
    done: Int[Array, ""]
    weights: Float[Array, "c p"]
    largest: Float[Array, ""]


@compiled_in_float64(
    "num_classes", "strength", "prior_variance", "max_rounds", "tolerance", cast_back=True
)
def _gaussian(
    features: Float[AnyArray, "*n d"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    strength: float,
    prior_variance: float,
    max_rounds: int,
    tolerance: float,
) -> Score:
    samples = used_samples(features, labels, mask, num_classes)
    classes, n = samples.classes, jnp.maximum(samples.n_used, 1)
    present = classes.sum(0) > 0
    width = samples.features.shape[1]
    used = samples.used[:, None]
    inputs = jnp.concatenate([samples.features, used.astype(jnp.float64)], axis=1)
    decay = jnp.where(jnp.arange(width + 1) < width, 1 / (strength * n), 0)

    def log_probabilities(weights: Float[Array, "c p"]) -> Float[Array, "v c"]:
        logits = jnp.where(present[None, :], product(inputs, weights.T), -jnp.inf)
        return jax.nn.log_softmax(jnp.where(present.any(), logits, 0), axis=1)

    def loss(weights: Float[Array, "c p"]) -> Float[Array, ""]:
        own = jnp.where(classes > 0, log_probabilities(weights), 0).sum()
        return -own / n + (decay[None, :] * weights**2).sum() / 2

    def probabilities(weights: Float[Array, "c p"]) -> Float[Array, "v c"]:
        return jnp.where(used, jnp.exp(log_probabilities(weights)), 0)

    def gradient(weights: Float[Array, "c p"]) -> Float[Array, "c p"]:
        error = probabilities(weights) - classes
        return product(error.T, inputs) / n + decay[None, :] * weights

    def direction(weights: Float[Array, "c p"], slope: Float[Array, "c p"]) -> Float[Array, "c p"]:
        probs = probabilities(weights)
        size = weights.size

        def block(pair: Array) -> Float[Array, "p p"]:
            first, second = pair // num_classes, pair % num_classes
            factor = probs[:, first] * ((first == second) - probs[:, second])
            return product((factor[:, None] * inputs).T, inputs) / n

        blocks = jax.lax.map(block, jnp.arange(num_classes**2))
        blocks = blocks.reshape(num_classes, num_classes, width + 1, width + 1)
        hessian = blocks.transpose(0, 2, 1, 3).reshape(size, size)
        hessian = hessian + jnp.diag(jnp.tile(decay, num_classes))
        ridge = RIDGE * jnp.maximum(jnp.trace(hessian) / size, jnp.finfo(jnp.float64).tiny)
        solved = jnp.linalg.solve(hessian + ridge * jnp.eye(size), slope.reshape(size, 1))
        return solved.reshape(weights.shape)

    def improve(state: _Step) -> _Step:
        slope = gradient(state.weights)
        step = direction(state.weights, slope)
        # Step lengths 1, ½, ¼ …: the first of them may overshoot far from the minimum.
        lengths = 0.5 ** jnp.arange(20)
        losses = jax.lax.map(lambda length: loss(state.weights - length * step), lengths)
        losses = jnp.where(jnp.isnan(losses), jnp.inf, losses)
        length = lengths[first_largest(-losses, 0)]
        weights = state.weights - length * step
        return _Step(state.done + 1, weights, jnp.abs(gradient(weights)).max())

    def unfinished(state: _Step) -> Bool[Array, ""]:
        return (state.done < max_rounds) & (state.largest > tolerance)

    zero = jnp.zeros((num_classes, width + 1), jnp.float64)
    start = _Step(jnp.zeros((), jnp.int32), zero, jnp.abs(gradient(zero)).max())
    found = jax.lax.while_loop(unfinished, improve, start)

    probs = probabilities(found.weights)
    curvature = product((probs * (1 - probs)).T, inputs**2).sum() / n
    size = jnp.maximum(present.sum() * width, 1)
    trace = curvature + size / (strength * n)
    sharpness = jnp.log(strength * n * trace / size)
    variance = prior_variance / width
    value = loss(found.weights) + size / (2 * strength * n) * variance * sharpness
    return make_score(
        value,
        class_counts=classes.sum(0),
        n_invalid=samples.n_invalid,
        flags=flag_where(found.largest > tolerance, Flag.NOT_CONVERGED),
    )


GAUSSIAN_CARD = Metric(
    name="pactran_gaussian",
    direction="lower",
    reference=DIRICHLET_CARD.reference,
    meaning="regularised error of the best linear head, and how sharp that minimum is",
    needs="features",
    range="unbounded, nats per voxel",
    comparable="within one target, the same n for every source and features of one unit",
    cost="O(n C² D² + C³ D³) a Newton step",
    departure="features centred; Newton from 0 (published: L-BFGS from a random start); the mean "
    "loss's Hessian (published: the sum's)",
    compute=pactran_gaussian,
)
