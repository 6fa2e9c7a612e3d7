"""LEEP: its formula, its bounds, its two passes, and what it makes of degenerate input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.metrics import (
    LOG_EEP_FLOOR,
    LabelStatistics,
    PredictionStatistics,
    conditional_log_probs,
    label_entropy,
    leep,
    leep_from_statistics,
    leep_lower_bound,
    log_expected_prediction,
)

CLASSES, SOURCES = 3, 4


def oracle(log_probs, labels):
    """Equation by equation, one voxel at a time."""
    theta = np.exp(log_probs.astype(np.float64))
    joint = np.zeros((labels.max() + 1, theta.shape[1]))
    for row, label in zip(theta, labels, strict=True):
        joint[label] += row / len(labels)
    conditional = joint / joint.sum(0)
    return np.mean([np.log(conditional[y] @ row) for row, y in zip(theta, labels, strict=True)])


def one_hot(labels, classes):
    with np.errstate(divide="ignore"):
        return np.log(np.eye(classes, dtype=np.float32)[labels])


@pytest.mark.parametrize("seed", range(4))
def test_is_the_formula(seed, draw):
    voxels = draw(seed)
    expected = oracle(voxels.log_probs, voxels.labels)
    found = leep(voxels.log_probs, voxels.labels, num_classes=CLASSES)
    assert found.score.dtype == jnp.float32
    assert float(found) == pytest.approx(expected, rel=2e-7)
    with jax.enable_x64(True):
        found = leep(voxels.log_probs, voxels.labels, num_classes=CLASSES)
    assert found.score.dtype == jnp.float64
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert (int(found.n_used), int(found.n_invalid), int(found.classes_present)) == (120, 0, 3)
    assert found.reasons == ()


def test_a_perfect_source_scores_zero(draw):
    labels = draw(0).labels
    renamed = np.array([3, 1, 0])[labels]  # source class 2 has no mass
    found = leep(one_hot(renamed, SOURCES), labels, num_classes=CLASSES)
    assert float(found) == 0
    assert found.reasons == ()


def test_a_source_that_ignores_the_image_scores_minus_the_label_entropy(draw):
    voxels = draw(1)
    labels = np.minimum(voxels.labels, 1)
    rows = np.broadcast_to(voxels.log_probs[:1], voxels.log_probs.shape)
    shares = np.array([1, 2]) / 3
    entropy = -(shares * np.log(shares)).sum()
    assert float(leep(rows, labels, num_classes=2)) == pytest.approx(-entropy, rel=1e-6)
    assert float(label_entropy(np.array([40, 80, 0]))) == pytest.approx(entropy, rel=1e-6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.floats(0, 60),
    prevalence=st.floats(0.02, 0.98),
)
def test_the_chain_of_bounds(seed, sharpness, prevalence):
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < prevalence).astype(np.int32) * rng.integers(1, CLASSES, 60)
    labels[:2] = 0, 1
    logits = sharpness * rng.standard_normal((60, SOURCES))
    with jax.enable_x64(True):
        log_probs = np.asarray(jax.nn.log_softmax(logits))
        stats = LabelStatistics.zeros(CLASSES, SOURCES).update(log_probs, labels)
        entropy = float(label_entropy(stats.hard_joint.sum(1)))
        bound = float(leep_lower_bound(stats))
        score = float(leep(log_probs, labels, num_classes=CLASSES))
    assert -entropy - 1e-12 <= bound <= score + 1e-12
    assert score <= 0


def test_two_streamed_passes_over_devices_are_one_call(draw):
    voxels = draw(2)
    log_probs = voxels.log_probs.reshape(4, 30, SOURCES)
    labels = voxels.labels.reshape(4, 30)
    mask = np.ones((4, 30), bool)
    mask[1], mask[2, 5:] = False, False

    def score(log_probs, labels, mask):
        stats = LabelStatistics.zeros(CLASSES, SOURCES).update(log_probs, labels, mask=mask)
        log_conditional = conditional_log_probs(stats.psum("devices"))
        predictions = PredictionStatistics.zeros(CLASSES)
        predictions = predictions.update(log_probs, labels, log_conditional, mask=mask)
        return leep_from_statistics(predictions.psum("devices"))

    found = jax.pmap(score, axis_name="devices", out_axes=None)(log_probs, labels, mask)
    assert float(found) == pytest.approx(oracle(log_probs[mask], labels[mask]), rel=2e-7)
    assert int(found.n_used) == mask.sum()


def test_two_streamed_passes_over_batches_and_cases_are_one_call(draw):
    cases = [draw(seed) for seed in range(3)]
    stats = LabelStatistics.zeros(CLASSES, SOURCES)
    for case in cases:
        stats = stats.update(case.log_probs, case.labels)
    log_conditional = conditional_log_probs(stats)
    parts = [
        PredictionStatistics.zeros(CLASSES).update(case.log_probs, case.labels, log_conditional)
        for case in cases
    ]
    everything = [np.concatenate(x) for x in zip(*cases, strict=True)]
    expected = oracle(everything[1], everything[2])
    merged = parts[0].merge(parts[1]).merge(parts[2])
    pooled = PredictionStatistics.pool(jax.tree.map(lambda *x: jnp.stack(x), *parts), np.ones(3))
    assert float(leep_from_statistics(merged)) == pytest.approx(expected, rel=2e-7)
    assert float(leep_from_statistics(pooled)) == pytest.approx(expected, rel=2e-7)


def test_its_mean_over_voxels_of_any_shape_is_leep(draw):
    voxels = draw(3)
    stats = LabelStatistics.zeros(CLASSES, SOURCES).update(voxels.log_probs, voxels.labels)
    volume = log_expected_prediction(
        voxels.log_probs.reshape(2, 3, 20, SOURCES),
        voxels.labels.reshape(2, 3, 20),
        conditional_log_probs(stats),
    )
    assert volume.shape == (2, 3, 20)
    assert volume.dtype == jnp.float32
    assert float(volume.max()) <= 0
    assert float(volume.mean()) == pytest.approx(oracle(*voxels[1:]), rel=1e-6)


def test_a_row_of_the_table_that_never_met_is_floored_and_counted(draw):
    voxels = draw(4)
    seen = voxels.labels < 2
    stats = LabelStatistics.zeros(CLASSES, SOURCES)
    stats = stats.update(voxels.log_probs, voxels.labels, mask=seen)
    log_conditional = conditional_log_probs(stats)
    assert np.all(np.asarray(log_conditional)[2] == -np.inf)
    found = log_expected_prediction(voxels.log_probs, voxels.labels, log_conditional)
    np.testing.assert_array_equal(found[~seen], np.float32(LOG_EEP_FLOOR))
    assert np.all(found[seen] > -20)
    predictions = PredictionStatistics.zeros(CLASSES)
    predictions = predictions.update(voxels.log_probs, voxels.labels, log_conditional)
    assert float(predictions.n_unseen) == (~seen).sum()
    assert leep_from_statistics(predictions).reasons == ("unseen labels",)


def test_probabilities_that_underflow_do_not(draw):
    labels = draw(5).labels
    log_probs = np.full((120, 2), -2000, np.float32)
    log_probs[np.arange(120), labels % 2] = 0
    found = leep(log_probs, labels, num_classes=CLASSES)
    shares = np.log(0.5)
    assert float(found) == pytest.approx(2 / 3 * shares, rel=1e-6)
    assert found.reasons == ()


def test_masked_voxels_contribute_nothing(draw):
    voxels = draw(6)
    log_probs = np.concatenate([voxels.log_probs, np.full((9, SOURCES), np.nan, np.float32)])
    labels = np.concatenate([voxels.labels, np.full(9, -7, np.int32)])
    mask = np.arange(129) < 120
    found = leep(log_probs, labels, num_classes=CLASSES, mask=mask)
    assert float(found) == pytest.approx(oracle(*voxels[1:]), rel=2e-7)
    stats = LabelStatistics.zeros(CLASSES, SOURCES).update(*voxels[1:])
    per_voxel = log_expected_prediction(log_probs, labels, conditional_log_probs(stats), mask=mask)
    np.testing.assert_array_equal(per_voxel[120:], 0)
    assert np.all(np.asarray(per_voxel[:120]) < 0)


def test_permuting_renaming_and_repeating_change_nothing(draw):
    voxels = draw(7)
    rng = np.random.default_rng(0)
    order, channels, names = rng.permutation(120), rng.permutation(SOURCES), rng.permutation(5)
    log_probs = np.repeat(voxels.log_probs[order][:, channels], 3, axis=0)
    labels = np.repeat(names[voxels.labels[order]], 3)
    found = leep(log_probs, labels, num_classes=5)
    assert float(found) == pytest.approx(oracle(*voxels[1:]), rel=2e-7)
    assert int(found.classes_present) == 3


def test_jit_and_vmap(draw):
    voxels = draw(8)
    log_probs = voxels.log_probs.reshape(3, 40, SOURCES)
    labels = voxels.labels.reshape(3, 40)[:, np.random.default_rng(0).permutation(40)]
    labels[:, :3] = 0, 1, 2

    def score(log_probs, labels):
        return leep(log_probs, labels, num_classes=CLASSES)

    expected = [oracle(*each) for each in zip(log_probs, labels, strict=True)]
    np.testing.assert_allclose(jax.vmap(score)(log_probs, labels).score, expected, 1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(log_probs, labels).score, expected, 1e-6)
    assert float(jax.jit(score)(log_probs[0], labels[0])) == pytest.approx(expected[0], rel=1e-6)
    # Numpy's 64-bit types must survive a map by a caller who has none.
    wide = jax.vmap(score)(log_probs.astype(np.float64), labels.astype(np.int64))
    np.testing.assert_allclose(wide.score, expected, 1e-6)


def test_degenerate_input_is_nan_with_a_reason(draw):
    voxels = draw(9)
    masked = leep(*voxels[1:], num_classes=CLASSES, mask=np.zeros(120, bool))
    assert np.isnan(float(masked))
    assert masked.reasons == ("no voxels", "few classes")
    single = leep(voxels.log_probs, np.ones(120, np.int32), num_classes=CLASSES)
    assert np.isnan(float(single))
    assert single.reasons == ("few classes",)
    assert int(single.n_used) == 120
    spoilt = voxels.log_probs.copy()
    spoilt[5, 1] = np.nan
    found = leep(spoilt, voxels.labels, num_classes=CLASSES)
    assert np.isnan(float(found))
    assert found.reasons == ("invalid input",)
    assert (int(found.n_used), int(found.n_invalid)) == (119, 1)


def test_misuse_raises(draw):
    voxels = draw(9)
    with pytest.raises(ValueError, match="log_softmax"):
        leep(np.exp(voxels.log_probs), voxels.labels, num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        leep(voxels.log_probs, voxels.labels, num_classes=2)
    with pytest.raises(ValueError, match="log_softmax"):
        log_expected_prediction(
            3 * voxels.log_probs, voxels.labels, np.zeros((CLASSES, SOURCES), np.float32)
        )
