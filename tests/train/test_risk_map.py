"""The risk map: brute force, the properties that the two readings promise, and odd input."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxfer.metrics import LabelStatistics, conditional_log_probs, leep
from jaxfer.tasks import IGNORE
from jaxfer.train.risk_map import (
    FLOOR,
    amplified,
    border_limited,
    instance_risk,
    normalised,
    positional_risk,
    smoothed,
)

CLASSES, SOURCES = 3, 4


def draw(seed, shape, *, ignored=0.2, sharpness=2.0, classes=CLASSES):
    """θ, labels and what counts of images of one slice."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape)
    known = rng.standard_normal((classes, SOURCES))
    logits = sharpness * (rng.standard_normal((*shape, SOURCES)) + known[labels])
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs = (probs / probs.sum(-1, keepdims=True)).astype(np.float32)
    return probs, labels, rng.random(shape) >= ignored


def table(probs, labels, valid):
    """log P(y|z) over the pixels that count."""
    stats = LabelStatistics.zeros(CLASSES, probs.shape[-1])
    return conditional_log_probs(stats.update(logs(probs), np.where(valid, labels, 0), mask=valid))


def logs(probs):
    with np.errstate(divide="ignore"):
        return np.log(probs)


def instance(probs, labels, valid):
    return instance_risk(logs(probs), labels, table(probs, labels, valid), valid)


def positional(probs, labels, valid, *, stride=2, smoothing=0.0, prior=None):
    prior = np.full(CLASSES, 1 / CLASSES) if prior is None else np.asarray(prior, float)
    return positional_risk(probs, labels, valid, prior, stride=stride, smoothing=smoothing)


def minus_leep(theta, labels):
    """Equation by equation over the pixels of one cell."""
    theta = theta.astype(np.float64)
    joint = np.zeros((CLASSES, theta.shape[1]))
    for row, label in zip(theta, labels, strict=True):
        joint[label] += row
    with np.errstate(invalid="ignore"):
        conditional = np.nan_to_num(joint / joint.sum(0))
    rows = zip(theta, labels, strict=True)
    return -np.mean([np.log(conditional[label] @ row) for row, label in rows])


def each_cell(shape, stride):
    for row in range(0, shape[1], stride):
        for column in range(0, shape[2], stride):
            yield np.s_[row : row + stride, column : column + stride]


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 100])
def test_every_cell_is_minus_the_leep_of_its_pixels(stride):
    probs, labels, valid = draw(0, (3, 7, 9))
    found = positional(probs, labels, valid, stride=stride)
    assert found.shape == (7, 9)
    for cell in each_cell(labels.shape, stride):
        inside = valid[:, *cell]
        expected = 0.0
        if inside.any():
            expected = minus_leep(probs[:, *cell][inside], labels[:, *cell][inside])
            if len(np.unique(labels[:, *cell][inside])) > 1:
                score = leep(
                    logs(probs[:, *cell]),
                    np.where(inside, labels[:, *cell], 0),
                    num_classes=CLASSES,
                    mask=inside,
                )
                assert -float(score) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(found[cell], expected, rtol=1e-6, atol=1e-7)


def test_the_mean_of_the_instance_map_is_minus_leep():
    probs, labels, valid = draw(1, (2, 6, 5, 4))
    risk = instance(probs, labels, valid)
    score = leep(logs(probs), np.where(valid, labels, 0), num_classes=CLASSES, mask=valid)
    assert risk[valid].mean(dtype=np.float64) == pytest.approx(-float(score), rel=1e-6)
    assert risk[valid].mean(dtype=np.float64) == pytest.approx(
        minus_leep(probs[valid], labels[valid]), rel=1e-6
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 5),
    stride=st.integers(1, 4),
    sharpness=st.floats(0, 30),
    ignored=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_without_smoothing_a_cell_lies_between_zero_and_the_log_of_its_classes(
    seed, images, stride, sharpness, ignored
):
    probs, labels, valid = draw(seed, (images, 5, 6), ignored=ignored, sharpness=sharpness)
    found = positional(probs, labels, valid, stride=stride)
    for cell in each_cell(labels.shape, stride):
        present = len(np.unique(labels[:, *cell][valid[:, *cell]]))
        assert found[cell].min() >= 0
        assert found[cell].max() <= np.log(max(present, 1)) + 1e-6
        weights = amplified(found[cell], "exp", gain=1.0, base=10.0, clip=100.0)
        assert weights.max() <= max(present, 1) + 1e-5


def test_a_source_that_ignores_the_image_gives_the_rarity_of_each_class():
    _, labels, valid = draw(2, (2, 6, 5))
    probs = np.broadcast_to(np.float32([0.5, 0.3, 0.15, 0.05]), (*labels.shape, SOURCES))
    shares = np.bincount(labels[valid], minlength=CLASSES) / valid.sum()
    expected = np.where(valid, -np.log(shares)[labels], 0)
    risk = instance(probs, labels, valid)
    np.testing.assert_allclose(risk, expected, rtol=1e-5)
    weights = amplified(risk, "exp", gain=0.5, base=10.0, clip=100.0)
    np.testing.assert_allclose(weights[valid], shares[labels[valid]] ** -0.5, rtol=1e-5)
    entropy = -(shares * np.log(shares)).sum()
    np.testing.assert_allclose(positional(probs, labels, valid, stride=6), entropy, rtol=1e-5)


def test_a_perfect_source_is_no_risk():
    _, labels, valid = draw(3, (2, 6, 5))
    renamed = np.array([2, 0, 3])[labels]
    probs = np.eye(SOURCES, dtype=np.float32)[renamed]
    for risk in (instance(probs, labels, valid), positional(probs, labels, valid)):
        assert not risk.any()
        assert (amplified(risk, "exp", gain=0.5, base=10.0, clip=20.0) == 1).all()


def both(probs, labels, valid):
    return instance(probs, labels, valid), positional(probs, labels, valid)


def test_the_order_of_source_channels_and_of_images_changes_nothing():
    probs, labels, valid = draw(4, (4, 6, 5))
    by_image, by_place = both(probs, labels, valid)
    for found, expected in zip(
        both(probs[..., [3, 1, 0, 2]], labels, valid), (by_image, by_place), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    order = [2, 0, 3, 1]
    other, place = both(probs[order], labels[order], valid[order])
    np.testing.assert_allclose(other, by_image[order], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(place, by_place, rtol=1e-5, atol=1e-7)


def test_taking_every_image_twice_changes_nothing():
    probs, labels, valid = draw(5, (3, 6, 5))
    by_image, by_place = both(probs, labels, valid)
    twice, place = both(*(np.concatenate([a, a]) for a in (probs, labels, valid)))
    np.testing.assert_allclose(twice, np.concatenate([by_image, by_image]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(place, by_place, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rubbish", [0.0, 1e30, np.inf, np.nan])
def test_ignored_pixels_change_nothing_whatever_they_hold(rubbish):
    probs, labels, valid = draw(6, (3, 6, 5))
    spoilt = np.where(valid[..., None], probs, np.float32(rubbish))
    others = np.where(valid, labels, 255)
    expected = both(probs, labels, valid)
    log_conditional = table(probs, labels, valid)
    found = instance_risk(logs(spoilt), others, log_conditional, valid)
    np.testing.assert_array_equal(found, expected[0])
    assert not found[~valid].any()
    np.testing.assert_array_equal(positional(spoilt, others, valid), expected[1])
    np.testing.assert_array_equal(table(spoilt, others, valid), log_conditional)


def test_a_cell_without_a_valid_pixel_is_the_minimum():
    probs, labels, valid = draw(7, (3, 6, 6), ignored=0.0)
    valid[:, 2:4, 4:] = False
    for smoothing in (0.0, 1.0):
        found = positional(probs, labels, valid, smoothing=smoothing)
        assert not found[2:4, 4:].any()
        assert (found[:2] > 0).all()
    assert not positional(probs, labels, np.zeros_like(valid)).any()


def test_a_source_that_breaks_down_is_not_hidden():
    probs, labels, valid = draw(8, (2, 4, 4), ignored=0.0)
    probs[0, 0, 0] = np.nan
    assert np.isnan(positional(probs, labels, valid)[0, 0])
    assert np.isfinite(positional(probs, labels, valid)[2:]).all()


def test_smoothing_by_hand():
    # One pixel in three images: labels 0, 0, 1; the source says z = 0 with ¾, ½ and ¼.
    first = np.array([0.75, 0.5, 0.25])
    probs = np.stack([first, 1 - first], -1).astype(np.float32).reshape(3, 1, 1, 2)
    labels = np.array([0, 0, 1]).reshape(3, 1, 1)
    prior, smoothing = np.array([0.5, 0.3, 0.2]), 2.0
    joint = np.array([[1.25, 0.75], [0.25, 0.75], [0, 0]]) + smoothing * prior[:, None]
    conditional = joint / joint.sum(0)
    expected = -np.mean(
        [np.log(conditional[y] @ [p, 1 - p]) for y, p in zip([0, 0, 1], first, strict=True)]
    )
    found = positional(
        probs, labels, np.full((3, 1, 1), True), stride=1, smoothing=smoothing, prior=prior
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_much_smoothing_leaves_the_prior():
    probs, labels, valid = draw(9, (3, 4, 4), ignored=0.0)
    prior = np.array([0.6, 0.3, 0.1])
    found = positional(probs, labels, valid, stride=4, smoothing=1e9, prior=prior)
    np.testing.assert_allclose(found, -np.log(prior)[labels].mean(), rtol=1e-5)


def test_a_label_that_the_table_never_saw_is_the_largest_risk():
    log_conditional = jnp.log(jnp.array([[1.0, 1.0], [0.0, 0.0]]))
    risk = instance_risk(
        np.log(np.full((2, 2), 0.5, np.float32)),
        np.array([0, 1]),
        log_conditional,
        np.array([True, True]),
    )
    np.testing.assert_allclose(risk, [0, -np.log(FLOOR)], rtol=1e-6, atol=1e-7)


VALUES = np.float32([[3.0, 1.0, 5.0], [1.0, 9.0, 2.0]])
VALID = np.array([[True, True, True], [True, False, True]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [3, 1, 5, 1, 2]),
        ("minmax", [0.5, 0, 1, 0, 0.25]),
        ("mean1", np.array([3, 1, 5, 1, 2]) / 2.4),
        ("rank", [0.7, 0.2, 0.9, 0.2, 0.5]),
    ],
)
def test_normalised_by_hand(how, expected):
    for ignored in (9.0, -9.0, np.nan, np.inf):
        found = normalised(np.where(VALID, VALUES, np.float32(ignored)), VALID, how)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[VALID], expected, rtol=1e-6)
        assert not found[~VALID].any()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 60))
def test_ranks_are_mid_ranks(seed, size):
    values = np.random.default_rng(seed).integers(0, 8, size).astype(np.float32)
    found = normalised(values, np.full(size, True), "rank")
    np.testing.assert_allclose(found, (stats.rankdata(values) - 0.5) / size, rtol=1e-6)
    assert found.mean() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "value"), [("none", 4.0), ("minmax", 0.0), ("mean1", 1.0), ("rank", 0.5)]
)
def test_normalised_of_a_constant_map(how, value):
    np.testing.assert_array_equal(normalised(np.full(6, 4.0), np.full(6, True), how), value)


def test_normalised_of_nothing():
    for how in ("none", "minmax", "mean1", "rank"):
        assert not normalised(VALUES, np.zeros_like(VALID), how).any()
    np.testing.assert_array_equal(normalised(np.zeros(3), np.full(3, True), "mean1"), 1.0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("identity", [0, 0.5, 2, 4]),
        ("exp", np.exp([0, 0.25, 1, 2])),
        ("pow", [1, np.sqrt(3), 9, 10]),
    ],
)
def test_amplified_by_hand(how, expected):
    found = amplified(np.array([0, 0.5, 2, 4]), how, gain=0.5, base=3.0, clip=10.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("how", ["identity", "exp", "pow"])
def test_amplified_is_clipped_and_never_overflows(how):
    found = amplified(np.array([0.0, 16.0, 1e30]), how, gain=50.0, base=1e6, clip=7.0)
    assert found[1:].tolist() == [7, 7]
    assert np.isnan(amplified(np.array([np.nan]), how, gain=1.0, base=10.0, clip=7.0)).all()


def test_unknown_words():
    with pytest.raises(ValueError, match="minmax"):
        normalised(VALUES, VALID, "softmax")
    with pytest.raises(ValueError, match="pow"):
        amplified(VALUES, "log", gain=1.0, base=10.0, clip=7.0)


def test_smoothed_is_the_weighted_mean_of_the_valid_pixels_around():
    rng = np.random.default_rng(0)
    risk = rng.uniform(0, 3, (9, 8, 2)).astype(np.float32)
    valid = rng.random(risk.shape) < 0.7
    valid[4, 3, 1] = True
    found = smoothed(np.where(valid, risk, np.nan).astype(np.float32), valid, (0, 1), 1.5)
    rows, columns = np.mgrid[:9, :8]
    bump = np.exp(-0.5 * ((rows - 4) ** 2 + (columns - 3) ** 2) / 1.5**2) * valid[..., 1]
    assert found[4, 3, 1] == pytest.approx((bump * risk[..., 1]).sum() / bump.sum(), rel=1e-3)
    assert not found[~valid].any()
    constant = smoothed(np.full_like(risk, 2.0), valid, (0, 1, 2), 2.0)
    np.testing.assert_allclose(constant[valid], 2.0, rtol=1e-6)
    np.testing.assert_array_equal(smoothed(risk, valid, (0, 1), 0.0), np.where(valid, risk, 0))


def test_near_a_border_the_risk_is_limited_by_the_median_away_from_it():
    classes = np.zeros((8, 5, 1), np.uint8)
    classes[4:] = 1
    classes[0, 0] = IGNORE
    risk = np.arange(40, dtype=np.float32).reshape(8, 5, 1)
    found = border_limited(risk, classes, (0, 1), 1)
    away = risk[:3][classes[:3] == 0]
    np.testing.assert_array_equal(found[3], np.minimum(risk[3], np.median(away)))
    np.testing.assert_array_equal(found[4], risk[4])  # lower than its class's median of 25 … 39
    np.testing.assert_array_equal(found[1:3], risk[1:3])
    assert found[0, 0] == 0
    high = risk[::-1].copy()
    assert border_limited(high, classes, (0, 1), 1)[4].max() == np.median(high[5:])
    np.testing.assert_array_equal(border_limited(risk, classes, (2,), 1)[3:], risk[3:])
    np.testing.assert_array_equal(border_limited(risk, classes, (0, 1), 0)[1:], risk[1:])


def test_a_class_that_is_all_border_is_limited_by_its_own_median():
    classes = np.uint8([[[0], [1], [0], [1]]])
    found = border_limited(np.float32([[[1], [2], [3], [6]]]), classes, (0, 1), 1)
    assert found.ravel().tolist() == [1, 2, 2, 4]


@pytest.mark.parametrize("cuts", [(1, 7), (3, 4), (5,)])
def test_a_map_made_in_parts_has_the_bits_of_the_whole(cuts):
    probs, labels, valid = draw(0, (9, 11, 4))
    of_all = table(probs, labels, valid)
    whole = instance_risk(logs(probs), labels, of_all, valid)
    parts = [
        instance_risk(logs(p), own, of_all, inside)
        for p, own, inside in zip(
            *(np.split(array, cuts) for array in (probs, labels, valid)), strict=True
        )
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
