"""Entropies of tables of counts, in nats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from jaxfer.metrics.precision import AnyArray, compiled_in_float64


@compiled_in_float64(cast_back=True)
def label_entropy(counts: Real[AnyArray, " c"]) -> Float[Array, ""]:
    """H(Y) of a distribution given by counts or masses; NaN when they sum to 0.

    −H(Y) is the LEEP and the NCE of a source that knows nothing of the target.
    """
    counts = jnp.asarray(counts).astype(jnp.float64)
    shares = counts / counts.sum()
    return -jax.scipy.special.xlogy(shares, shares).sum()


def negative_conditional_entropy(joint: Float[Array, "c s"]) -> Float[Array, ""]:
    """−H(Y|Z) of a joint table of counts or masses; 0 for an empty table."""
    mass = joint.sum(0)
    # Σ_y P(y|z) log P(y|z) per source class: no difference of two large sums.
    conditional = joint / jnp.where(mass > 0, mass, 1)[None, :]
    inner = jax.scipy.special.xlogy(conditional, conditional).sum(0)
    return (mass * inner).sum() / jnp.where(mass.sum() > 0, mass.sum(), 1)
