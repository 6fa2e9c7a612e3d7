"""CRank: consistency by loops over voxels, the trap of constant predictions, degenerate input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from skimage.metrics import adapted_rand_error as rand_oracle

from jaxfer.metrics.crank import (
    EFFECTIVE_INVARIANCE,
    HAMMING,
    adapted_rand_error,
    effective_invariance,
    hamming_distance,
)

N, CLASSES = 60, 3


def predictions(seed, disturbance=1.0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((N, CLASSES))
    disturbed = logits + disturbance * rng.standard_normal((N, CLASSES))
    return tuple(log_softmax(x, axis=-1).astype(np.float32) for x in (logits, disturbed))


def invariance_oracle(first, second, counted):
    values = []
    for a, b in zip(
        np.exp(first.astype(np.float64)), np.exp(second.astype(np.float64)), strict=True
    ):
        agree = a.argmax() == b.argmax()
        if counted(a.argmax(), b.argmax()):
            values.append(np.sqrt(a.max() * b.max()) if agree else 0)
    return np.mean(values)


def hamming(first, second, **kwargs):
    return hamming_distance(first, second, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("seed", range(2))
def test_effective_invariance_is_the_formula(seed):
    first, second = predictions(seed)
    found = effective_invariance(first, second)
    expected = invariance_oracle(first, second, lambda *_: True)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert 0 < float(found) < 1
    assert found.reasons == ()
    assert float(found.foreground) == pytest.approx((first.argmax(1) > 0).mean())
    assert float(found.disturbed_foreground) == pytest.approx((second.argmax(1) > 0).mean())
    alone = effective_invariance(first, second, foreground_only=True)
    assert float(alone) == pytest.approx(
        invariance_oracle(first, second, lambda a, b: a > 0 or b > 0), rel=1e-6
    )
    assert float(alone.foreground) == float(found.foreground)


def test_hamming_is_the_share_that_changes():
    first, second = (x.argmax(1) for x in predictions(2))
    assert float(hamming(first, second)) == pytest.approx((first != second).mean())
    either = (first > 0) | (second > 0)
    found = hamming(first, second, foreground_only=True)
    assert float(found) == pytest.approx((first != second)[either].mean())
    assert int(found.score.n_used) == N


def test_the_ends_of_their_ranges():
    certain = np.log(np.eye(CLASSES)[np.arange(N) % CLASSES] + 1e-30).astype(np.float32)
    assert float(effective_invariance(certain, certain)) == pytest.approx(1)
    assert float(effective_invariance(certain, np.roll(certain, 1, 0))) == 0
    labels = certain.argmax(1)
    assert float(hamming(labels, labels)) == 0
    assert float(hamming(labels, np.roll(labels, 1))) == 1


@pytest.mark.parametrize("label", [0, 1])
def test_a_constant_prediction_is_no_evidence(label):
    constant = np.full(N, label)
    found = hamming(constant, constant)
    assert np.isnan(float(found))
    assert found.reasons == ("few classes",)
    assert float(found.foreground) == label
    log_probs = np.log(np.eye(CLASSES)[constant] * 0.7 + 0.1).astype(np.float32)
    found = effective_invariance(log_probs, log_probs)
    assert np.isnan(float(found))
    assert float(found.foreground) == label


@pytest.mark.parametrize("seed", range(2))
def test_adapted_rand_error_is_that_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 4, 200)
    second = np.where(rng.random(200) < 0.7, first, rng.integers(0, 4, 200))
    found = adapted_rand_error(first, second, num_instances=4)
    assert float(found) == pytest.approx(rand_oracle(first, second, ignore_labels=(0,))[0])
    renamed = adapted_rand_error(first, np.array([3, 1, 2, 0])[second], num_instances=4)
    assert float(renamed) == pytest.approx(float(found))
    assert float(found.foreground) == pytest.approx((first > 0).mean())


def test_adapted_rand_error_of_degenerate_instances():
    single = np.arange(6)
    alone = adapted_rand_error(single, single, num_instances=6)
    assert float(alone) == 0
    background = adapted_rand_error(0 * single, single, num_instances=6)
    assert np.isnan(float(background))
    assert background.reasons == ("few classes",)
    assert float(background.disturbed_foreground) == pytest.approx(5 / 6)


def test_masked_order_and_names():
    first, second = predictions(3)
    expected = effective_invariance(first[:40], second[:40])
    first[40:], second[45:] = np.nan, np.inf
    found = effective_invariance(first, second, mask=np.arange(N) < 40)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert int(found.score.n_used) == 40
    order = np.random.default_rng(0).permutation(40)
    names = np.array([0, 2, 1])
    moved = effective_invariance(first[order][:, names], second[order][:, names])
    assert float(moved) == pytest.approx(float(expected), rel=1e-6)


def test_degenerate_input_is_nan_with_a_reason():
    first, second = predictions(4)
    nothing = effective_invariance(first, second, mask=np.zeros(N, bool))
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few classes")
    second[7, 0] = np.nan
    found = effective_invariance(first, second)
    assert np.isnan(float(found))
    assert (int(found.score.n_invalid), found.reasons) == (1, ("invalid input",))
    traced = jax.jit(hamming)(jnp.arange(N) % CLASSES, jnp.arange(N) % 4)
    assert np.isnan(float(traced))
    assert int(traced.score.n_invalid) == N // 4


def test_jit_vmap_and_pmap():
    cases = [predictions(seed) for seed in range(4)]
    first, second = (jnp.stack([case[i] for case in cases]) for i in (0, 1))
    expected = [float(effective_invariance(*case)) for case in cases]
    for mapped in (jax.vmap(effective_invariance), jax.pmap(effective_invariance)):
        np.testing.assert_allclose(mapped(first, second).score.score, expected, 1e-5)
    volume = jax.jit(effective_invariance)(first, second)
    assert float(volume) == pytest.approx(np.mean(expected), rel=1e-5)


def test_misuse_raises():
    first, second = predictions(5)
    with pytest.raises(ValueError, match="log_probs must be log-probabilities"):
        effective_invariance(first, 3 * second)
    with pytest.raises(ValueError, match=r"\(60, 3\) != \(59, 3\)"):
        effective_invariance.__wrapped__(first, second[1:])
    with pytest.raises(ValueError, match=r"disturbed must be whole numbers in \[0, 2\]"):
        hamming(first.argmax(1), first.argmax(1) + 1)
    with pytest.raises(ValueError, match=r"\(60,\) != \(59,\)"):
        hamming_distance.__wrapped__(np.zeros(60), np.zeros(59), num_classes=2)


def test_the_cards_point_the_right_way():
    assert (EFFECTIVE_INVARIANCE.sign, HAMMING.sign) == (1, -1)
    calm, wild = predictions(6, 0.1), predictions(6, 3.0)
    score = EFFECTIVE_INVARIANCE.compute
    assert float(score(*calm)) > float(score(*wild))
