"""What a caller can get wrong with arrays: shapes always, values only outside `jit`.

A value check waits for the device. Under tracing there are no values: there, what these checks
would refuse is counted as invalid instead, and the score is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.precision import AnyArray, compiled_in_float64

ROW_SUM_TOLERANCE = 0.01
"""How far a row of probabilities may sum from 1: wide enough for outputs in half precision."""

_REAL = (jnp.bool_, jnp.integer, jnp.floating)


def check_samples(
    samples: Real[AnyArray, " ..."],
    labels: Real[AnyArray, " ..."],
    mask: Bool[AnyArray, " ..."] | None,
    *,
    name: str,
    channels: int | None = None,
) -> None:
    """Raise ValueError unless labels and mask have the samples' shape without its last axis."""
    check_arrays({name: samples, "labels": labels})
    num_channels(samples, name)
    if samples.shape[:-1] != labels.shape or (channels or samples.shape[-1]) != samples.shape[-1]:
        width = "" if channels is None else f" and {channels} channels"
        raise ValueError(
            f"{name} needs one row for each of the labels{width}: "
            f"found {name} {samples.shape}, labels {labels.shape}"
        )
    check_mask(labels, mask)


def check_mask(labels: Real[AnyArray, " ..."], mask: Bool[AnyArray, " ..."] | None) -> None:
    """Raise ValueError unless the mask has the labels' shape and is true or false."""
    if mask is None:
        return
    check_arrays({"mask": mask})
    if mask.dtype != bool:
        raise ValueError(f"mask must be of bool: found {mask.dtype}; pass mask != 0")
    if mask.shape != labels.shape:
        raise ValueError(f"mask must have the labels' shape: {mask.shape} != {labels.shape}")


def check_arrays(arrays: Mapping[str, object]) -> None:
    """Raise ValueError unless all are arrays of numpy or JAX, of real numbers or of bool."""
    for name, found in arrays.items():
        if not isinstance(found, AnyArray):
            raise ValueError(f"{name} must be an array: found {type(found).__name__}")
        if not any(jnp.issubdtype(found.dtype, kind) for kind in _REAL):
            raise ValueError(f"{name} must hold real numbers: found {found.dtype}")


def num_channels(samples: Real[AnyArray, " ..."], name: str) -> int:
    """The channels on the last axis; ValueError unless it is an array with at least one."""
    check_arrays({name: samples})
    if not samples.ndim or not samples.shape[-1]:
        raise ValueError(f"{name} needs channels on its last axis: found {samples.shape}")
    return int(samples.shape[-1])


def check_num_classes(*numbers: int) -> None:
    """Raise ValueError unless all are whole and at least 1: they are shapes, known to `jit`."""
    for number in numbers:
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(
                f"a number of classes must be a whole number of at least 1: found {number}"
            )


def check_labels(
    labels: Real[AnyArray, "*n"],
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None,
    *,
    name: str = "labels",
) -> None:
    """Raise ValueError unless every unmasked label is a whole number in [0, num_classes)."""
    check_num_classes(num_classes)
    if _traced(labels, mask):
        return
    # Arrays that a caller's `jit` closes over are known while it is traced.
    with jax.ensure_compile_time_eval():
        bad, low, high = (float(x) for x in _label_faults(labels, mask, num_classes=num_classes))
    if bad:
        raise ValueError(
            f"{name} must be whole numbers in [0, {num_classes - 1}]: {bad:.0f} of {labels.size} "
            f"are not (unmasked values span {low:g} to {high:g}); mask the voxels to be ignored"
        )


def check_log_probs(log_probs: Float[AnyArray, "*n s"], mask: Bool[AnyArray, "*n"] | None) -> None:
    """Raise ValueError unless every unmasked finite row of exp(log_probs) sums to 1."""
    if _traced(log_probs, mask):
        return
    with jax.ensure_compile_time_eval():
        bad, low, high = (float(x) for x in _row_faults(log_probs, mask))
    if bad:
        raise ValueError(
            f"log_probs must be log-probabilities: exp of {bad:.0f} rows does not sum to 1 "
            f"within {ROW_SUM_TOLERANCE:g} (sums span {low:g} to {high:g}); for logits pass "
            "jax.nn.log_softmax(logits), for probabilities their logarithm"
        )


def _traced(*arrays: object) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


@compiled_in_float64("num_classes")
def _label_faults(
    labels: Real[AnyArray, "*n"], mask: Bool[AnyArray, "*n"] | None, *, num_classes: int
) -> tuple[Array, Array, Array]:
    labels = jnp.asarray(labels).astype(jnp.float64)
    whole = (labels >= 0) & (labels < num_classes) & (labels == jnp.floor(labels))
    return _span(labels, ~whole, mask)


@compiled_in_float64()
def _row_faults(
    log_probs: Float[AnyArray, "*n s"], mask: Bool[AnyArray, "*n"] | None
) -> tuple[Array, Array, Array]:
    log_probs = jnp.asarray(log_probs).astype(jnp.float64)
    sums = jnp.exp(log_probs).sum(-1)
    # NaN or +inf is a fault of the data, not of the call: such a row is counted, not refused.
    spoilt = (jnp.isnan(log_probs) | jnp.isposinf(log_probs)).any(-1)
    off = jnp.abs(sums - 1) > ROW_SUM_TOLERANCE
    return _span(sums, off, ~spoilt if mask is None else ~spoilt & mask)


def _span(
    values: Float[Array, "*n"], bad: Bool[Array, "*n"], mask: Bool[AnyArray, "*n"] | None
) -> tuple[Array, Array, Array]:
    """How many unmasked values are bad, and the smallest and the largest unmasked value."""
    used = jnp.full(values.shape, True) if mask is None else jnp.asarray(mask)
    low = jnp.min(jnp.where(used, values, jnp.inf), initial=jnp.inf)
    high = jnp.max(jnp.where(used, values, -jnp.inf), initial=-jnp.inf)
    return (bad & used).sum(), low, high
