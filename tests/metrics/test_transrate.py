"""TransRate: its formula with both class weights, its bounds, its options."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxfer.metrics.transrate import transrate

CLASSES = 3


def rate(features, noise):
    inner = np.eye(features.shape[1]) + features.T @ features / (len(features) * noise)
    return np.linalg.slogdet(inner)[1] / 2


def oracle(features, labels, *, class_weights="count", epsilon=1e-4, scale="none"):
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    if scale == "unit":
        centred /= np.sqrt((centred**2).sum(1).mean())
    present = np.unique(labels)
    value = rate(centred, epsilon)
    for label in present:
        own = labels == label
        weight = own.mean() if class_weights == "count" else 1 / len(present)
        value -= weight * rate(centred[own], epsilon)
    return value


@pytest.mark.parametrize("class_weights", ["count", "uniform"])
@pytest.mark.parametrize(("scale", "epsilon"), [("none", 1e-4), ("unit", 0.1)])
def test_is_the_formula(class_weights, scale, epsilon, draw):
    options = {"class_weights": class_weights, "scale": scale, "epsilon": epsilon}
    voxels = draw(0)
    labels = np.where(voxels.labels == 2, 3, np.minimum(voxels.labels, 1))
    labels[:25] = 3  # classes of unequal size, one absent
    with jax.enable_x64(True):
        found = transrate(voxels.features, labels, num_classes=4, **options)
    assert float(found) == pytest.approx(oracle(voxels.features, labels, **options), rel=1e-9)
    assert int(found.classes_present) == 3
    assert found.reasons == ()


def test_by_hand():
    # Total power 5 of mean square, classes of mean squares 5: (1 + 9)/2 and (1 + 9)/2.
    features = np.array([[-3], [-1], [1], [3]], np.float32)
    apart = transrate(features, np.array([0, 0, 1, 1]), num_classes=2, epsilon=1.0)
    assert float(apart) == pytest.approx(0, abs=1e-6)
    outer = transrate(features, np.array([0, 1, 1, 0]), num_classes=2, epsilon=1.0)
    expected = np.log(6) / 2 - (np.log(10) + np.log(2)) / 4
    assert float(outer) == pytest.approx(expected, rel=1e-6)


def test_count_weights_never_go_below_zero_but_uniform_ones_do(draw):
    for seed in range(5):
        voxels = draw(seed)
        labels = np.random.default_rng(seed).permutation(voxels.labels)
        assert float(transrate(voxels.features, labels, num_classes=CLASSES)) >= 0
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [110, 10])
    features = rng.standard_normal((120, 6)) * np.where(labels == 0, 1, 5)[:, None]
    found = transrate(features.astype(np.float32), labels, num_classes=2, class_weights="uniform")
    assert float(found) < 0


def test_repeats_offsets_and_rotations_change_nothing_and_scaling_takes_the_unit_out(draw):
    voxels = draw(1)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    mapped = (voxels.features.astype(np.float64) @ turn - 7).astype(np.float32).repeat(2, 0)
    found = transrate(mapped, voxels.labels.repeat(2), num_classes=CLASSES)
    assert float(found) == pytest.approx(oracle(*voxels[::2]), rel=1e-4)
    scaled = transrate(100 * mapped, voxels.labels.repeat(2), num_classes=CLASSES, scale="unit")
    assert float(scaled) == pytest.approx(oracle(*voxels[::2], scale="unit"), rel=1e-4)


def test_options_that_are_none_raise(draw):
    voxels = draw(2)
    with pytest.raises(ValueError, match=r"epsilon must be above 0, found 0\.0"):
        transrate(*voxels[::2], num_classes=CLASSES, epsilon=0.0)
