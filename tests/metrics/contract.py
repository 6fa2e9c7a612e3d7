"""What every metric of samples in memory owes its caller, checked on one small example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics import Score

CLASSES = 3
SPARSE = 5
SPARSE_IDS = np.array([4, 0, 2])
"""The same classes under other numbers, two of five absent."""


def scores(result: Any) -> list[Score]:
    """The scores of a metric that returns one, or several in a tuple."""
    return [result] if isinstance(result, Score) else list(result)


def values(result: Any) -> np.ndarray:
    return np.array([np.asarray(score.score) for score in scores(result)])


def check(metric: Callable[..., Any], inputs: np.ndarray, labels: np.ndarray, rtol: float) -> None:
    """Check it on inputs of shape [n, …] and labels with classes 0, 1, 2 all present.

    Order and numbering of voxels and classes, absent classes, masked rows, input left alone,
    too little to score, unusable input, errors outside `jit`, also of labels that a caller's `jit`
    closes over; no channels and no classes; `vmap` inside `pmap`, which compiles as `jit` does: the
    scope of float64 ends before the caller's own compilation, where what `vmap` made of an
    operation may need it.
    """
    n = len(labels)
    before = inputs.copy(), labels.copy()
    plain = metric(inputs, labels, num_classes=CLASSES)
    expected = values(plain)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(inputs, before[0])
    np.testing.assert_array_equal(labels, before[1])

    order = np.random.default_rng(0).permutation(n + 4)
    padding = np.full((4, *inputs.shape[1:]), np.nan, inputs.dtype)
    padded = np.concatenate([inputs, padding])[order]
    mask = (np.arange(n + 4) < n)[order]
    names = np.concatenate([SPARSE_IDS[labels], np.full(4, 99)])[order]

    def sparse(inputs: np.ndarray = padded, names: np.ndarray = names, mask: Any = mask) -> Any:
        return metric(inputs, names, num_classes=SPARSE, mask=mask)

    found = sparse()
    np.testing.assert_allclose(values(found), expected, rtol)
    assert all((int(s.n_used), int(s.classes_present)) == (n, CLASSES) for s in scores(found))

    def refuses(result: Any, reason: str) -> None:
        assert np.isnan(values(result)).all()
        assert all(reason in score.reasons for score in scores(result))

    refuses(sparse(mask=np.zeros(n + 4, bool)), "no voxels")
    refuses(sparse(mask=np.arange(n + 4) == np.argmax(mask)), "few classes")
    refuses(sparse(names=np.where(mask, 2, 99)), "few classes")
    spoilt = padded.copy()
    spoilt[np.argmax(mask), 0] = np.nan
    refuses(sparse(spoilt), "invalid input")
    assert all(int(score.n_invalid) == 1 for score in scores(sparse(spoilt)))

    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 2\]"):
        metric(inputs, labels - 1, num_classes=CLASSES)

    with pytest.raises(ValueError, match=r"needs channels on its last axis: found \(\d+, 0\)"):
        metric(inputs[:, :0], labels, num_classes=CLASSES)
    with pytest.raises(ValueError, match="a whole number of at least 1: found 0"):
        metric(inputs, labels, num_classes=0)

    def once(inputs: Any, labels: Any) -> Any:
        return metric(inputs, labels, num_classes=CLASSES)

    several = jnp.stack([inputs, inputs[::-1], inputs[::-1] * 1.0, inputs])
    targets = jnp.stack([labels, labels, labels[::-1], labels])
    other = values(metric(inputs[::-1].copy(), labels, num_classes=CLASSES))
    wanted = np.stack([expected, other, expected, expected], axis=1)
    found = jax.pmap(jax.vmap(once))(several.reshape(4, 1, *inputs.shape), targets[:, None])
    np.testing.assert_allclose(values(found)[..., 0], wanted, rtol)

    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 2\]"):
        jax.jit(lambda inputs: once(inputs, labels - 1))(inputs)
