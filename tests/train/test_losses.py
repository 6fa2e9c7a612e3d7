"""The losses: by hand, against optax, and what ignored pixels and empty images must not do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer.tasks import IGNORE
from jaxfer.train.losses import (
    map_weighted_cross_entropy,
    pixel_cross_entropy,
    soft_dice,
    tversky,
)

LOG2 = np.log(2.0)
WAYS = [
    (region, *way)
    for region in ("all", "foreground")
    for way in (("pixels", None), ("foreground", None), ("foreground", 0.25))
]


@pytest.fixture
def patch():
    """Two images: logits, labels, weights, and which pixels count."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 4, 5))
    valid = rng.random((2, 4, 5)) < 0.8
    return (
        jnp.asarray(rng.standard_normal((2, 4, 5, 3)), jnp.float32),
        jnp.asarray(np.where(valid, labels, IGNORE), jnp.int32),
        jnp.asarray(rng.uniform(0.5, 3.0, (2, 4, 5)), jnp.float32),
        jnp.asarray(valid),
    )


def weighted(logits, labels, weights, valid, region, denominator, fraction):
    return map_weighted_cross_entropy(
        logits,
        labels,
        weights,
        valid,
        region=region,
        denominator=denominator,
        foreground_fraction=None if fraction is None else jnp.full(len(labels), fraction),
    )


def losses(*patch):
    """Every loss of this module, by name."""
    logits, labels, _, valid = patch
    found = {" ".join(map(str, way)): weighted(*patch, *way) for way in WAYS}
    return found | {"dice": soft_dice(logits, labels, valid)}


def same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), found, expected)


def slopes(logits, labels, weights, valid):
    """Gradients of every loss, summed over the images, with respect to the logits."""

    def sums(logits):
        found = losses(logits, labels, weights, valid)
        return {name: total.sum() for name, (total, _) in found.items()}

    return jax.jacrev(sums)(logits)


def test_ones_over_pixels_is_plain_cross_entropy(patch):
    logits, labels, _, valid = patch
    everywhere = jnp.ones_like(valid)
    labels = jnp.where(valid, labels, 0)

    def ours(logits):
        ones = jnp.ones(labels.shape)
        total, used = map_weighted_cross_entropy(
            logits, labels, ones, everywhere, denominator="pixels"
        )
        return total.sum() / used.sum()

    def theirs(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    (value, slope), (expected, expected_slope) = (
        jax.value_and_grad(f)(logits) for f in (ours, theirs)
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(*map(np.asarray, (slope, expected_slope)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("way", "expected"),
    list(zip(WAYS, [14 / 3, 14 / 2, 14 / 0.75, 13 / 2, 13 / 2, 13 / 0.75], strict=True)),
)
def test_by_hand(way, expected):
    true = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 2])  # probability of the true class
    labels = np.array([0, 1, 1, IGNORE])
    other = np.where(labels == 1, 1 - true, true), np.where(labels == 1, true, 1 - true)
    logits = jnp.asarray(np.log(np.stack(other, -1)).reshape(1, 2, 2, 2), jnp.float32)
    total, used = weighted(
        logits,
        jnp.asarray(labels.reshape(1, 2, 2)),
        jnp.array([[[1.0, 2.0], [3.0, 4.0]]]),
        jnp.asarray(labels.reshape(1, 2, 2) != IGNORE),
        *way,
    )
    assert total[0] == pytest.approx(expected * LOG2, rel=1e-6)
    assert used[0] == 1


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30])
def test_ignored_pixels_change_nothing_whatever_they_hold(patch, rubbish):
    logits, labels, weights, valid = patch
    spoilt = (
        jnp.where(valid[..., None], logits, rubbish),
        jnp.where(valid, labels, -7),
        jnp.where(valid, weights, rubbish),
        valid,
    )
    assert not pixel_cross_entropy(spoilt[0], spoilt[1], valid)[~valid].any()
    same(losses(*spoilt), losses(*patch))
    same(slopes(*spoilt), slopes(*patch))
    for slope in slopes(*spoilt).values():
        assert not np.asarray(slope)[~np.asarray(valid)].any()
        assert np.abs(np.asarray(slope)[np.asarray(valid)]).max() > 0


def test_weights_outside_of_the_region_change_nothing(patch):
    logits, labels, weights, valid = patch
    spoilt = jnp.where(valid & (labels > 0), weights, jnp.nan)

    def loss(logits, weights):
        return map_weighted_cross_entropy(logits, labels, weights, valid, region="foreground")[0]

    np.testing.assert_array_equal(loss(logits, spoilt), loss(logits, weights))
    found, expected = (jax.grad(lambda x, w=w: loss(x, w).sum())(logits) for w in (spoilt, weights))
    np.testing.assert_array_equal(found, expected)


def test_an_image_without_a_valid_pixel_is_nothing(patch):
    logits, labels, weights, valid = patch
    valid = valid.at[1].set(False)
    for name, (total, used) in losses(logits.at[1].set(jnp.nan), labels, weights, valid).items():
        assert (total[1], used[1]) == (0, 0), name
        assert used[0] == 1, name
    for name, slope in slopes(logits.at[1].set(jnp.nan), labels, weights, valid).items():
        assert np.isfinite(slope).all(), name
        assert not slope[1].any(), name


def test_an_image_without_foreground_is_finite(patch):
    logits, labels, weights, valid = patch
    labels = jnp.where(valid, 0, IGNORE)
    for name, (total, used) in losses(logits, labels, weights, valid).items():
        assert np.isfinite(total).all(), name
        assert (used == 1).all(), name
        if name.startswith("foreground"):
            assert not total.any(), name
    for name, slope in slopes(logits, labels, weights, valid).items():
        assert np.isfinite(slope).all(), name
    assert np.isfinite(weighted(logits, labels, weights, valid, "all", "foreground", 0.0)[0]).all()


@pytest.mark.parametrize("way", WAYS)
def test_the_map_scales_the_loss_and_gets_no_gradient(patch, way):
    logits, labels, weights, valid = patch

    def loss(weights):
        return weighted(logits, labels, weights, valid, *way)[0]

    np.testing.assert_allclose(loss(3 * weights), 3 * loss(weights), rtol=1e-6)
    assert not jax.grad(lambda w: loss(w).sum())(weights).any()


def test_losses_are_per_image_and_move_with_the_image(patch):
    together = losses(*patch)
    alone = losses(*(array[1:] for array in patch))
    flipped = losses(*(array[:, ::-1] for array in patch))
    for name in together:
        np.testing.assert_allclose(together[name][0][1:], alone[name][0], rtol=1e-6)
        np.testing.assert_allclose(flipped[name][0], together[name][0], rtol=1e-6)


def probabilities(rows):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.array(rows, np.float64)).reshape(1, 1, len(rows), -1), float)


def test_soft_dice_by_hand():
    logits = probabilities([[1 / 2, 1 / 2], [3 / 4, 1 / 4], [1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    labels = jnp.array([[[1, 0, 1, IGNORE]]])
    loss, used = soft_dice(logits, labels, labels != IGNORE)
    assert loss[0] == pytest.approx(1 - (2 * 1.25 + 1) / (1.5 + 2 + 1), rel=1e-6)
    loss, _ = soft_dice(logits, labels, labels != IGNORE, smooth=0.5)
    assert loss[0] == pytest.approx(1 - (2 * 1.25 + 0.5) / (1.5 + 2 + 0.5), rel=1e-6)
    assert used[0] == 1


def test_soft_dice_is_the_mean_over_the_foreground_classes():
    logits = probabilities([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]])
    labels = jnp.array([[[0, 1]]])
    first = (2 * 0.6 + 1) / (0.85 + 1 + 1)
    second = 1 / (0.45 + 1)  # a class that is not there
    loss, _ = soft_dice(logits, labels, labels != IGNORE)
    assert loss[0] == pytest.approx(1 - (first + second) / 2, rel=1e-6)


def test_soft_dice_of_a_perfect_prediction_and_of_an_empty_class_is_zero():
    logits = 40.0 * jax.nn.one_hot(jnp.array([[[0, 1, 1, 0]]]), 3)
    loss, _ = soft_dice(logits, jnp.array([[[0, 1, 1, 0]]]), jnp.full((1, 1, 4), True))
    assert loss[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_volume_of_one_slice_has_the_losses_of_the_slice(patch, axis):
    volume = tuple(jnp.expand_dims(array, axis) for array in patch)
    for found, expected in zip(
        jax.tree.leaves(losses(*volume)), jax.tree.leaves(losses(*patch)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for name, slope in slopes(*patch).items():
        found = jnp.squeeze(slopes(*volume)[name], axis)
        np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-8)


def by_voxels(logits, labels, weights, valid, region, denominator, fraction):
    """The weighted cross-entropy of one image, voxel by voxel in float64."""
    total, foreground, inside = 0.0, 0, 0
    for place in np.argwhere(valid):
        row, label = logits[tuple(place)], labels[tuple(place)]
        foreground += label > 0
        if region == "all" or label > 0:
            inside += 1
            total -= weights[tuple(place)] * np.log(np.exp(row[label]) / np.exp(row).sum())
    if denominator == "pixels":
        return total / inside
    return total / (foreground if fraction is None else fraction * valid.sum())


def dice_by_voxels(logits, labels, valid):
    """The soft Dice loss of one image."""
    probs = [np.exp(row) / np.exp(row).sum() for row in logits[valid]]
    found = []
    for label in range(1, logits.shape[-1]):
        overlap = sum(p[label] for p, own in zip(probs, labels[valid], strict=True) if own == label)
        sums = sum(p[label] for p in probs) + (labels[valid] == label).sum()
        found.append((2 * overlap + 1) / (sums + 1))
    return 1 - np.mean(found)


def test_losses_of_volumes_are_those_of_a_walk_over_the_voxels():
    rng, shape = np.random.default_rng(1), (2, 3, 4, 5)
    labels, valid = rng.integers(0, 3, shape), rng.random(shape) < 0.8
    logits, weights = rng.standard_normal((*shape, 3)), rng.uniform(0.5, 3.0, shape)
    volumes = (
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(np.where(valid, labels, IGNORE), jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(valid),
    )
    found = losses(*volumes)
    for image in range(2):
        own = [array[image] for array in (logits, labels, weights, valid)]
        for way in WAYS:
            loss, used = found[" ".join(map(str, way))]
            assert float(loss[image]) == pytest.approx(by_voxels(*own, *way), rel=1e-5), way
            assert used[image] == 1
        expected = dice_by_voxels(own[0], own[1], own[3])
        assert float(found["dice"][0][image]) == pytest.approx(expected, rel=1e-5)


OTHERS = {
    "rim": {"region": "foreground_rim", "rim": 1, "denominator": "pixels"},
    "weight_sum": {"denominator": "weight_sum"},
    "focal": {"denominator": "pixels", "focal": 2.0},
    "hardest": {"denominator": "pixels", "hardest": 0.3},
}


def other(patch, **how):
    return map_weighted_cross_entropy(*patch, **how)


def one_image(patch):
    """The first image in float64, flat over its pixels: CE, labels, weights, valid."""
    logits, labels, weights, valid = (np.asarray(array[0], np.float64) for array in patch)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    safe = np.where(valid > 0, labels, 0).astype(int)
    losses = -np.take_along_axis(log_probs, safe[..., None], -1)[..., 0]
    return losses, safe, weights, valid > 0


def test_the_rim_takes_in_what_is_near_foreground(patch):
    losses, labels, weights, valid = one_image(patch)
    labels[:] = 0
    labels[0, 0] = 2
    inside = np.zeros_like(valid)
    inside[:2, :2] = True
    inside &= valid | (labels > 0)
    valid = valid | (labels > 0)
    logits = patch[0][:1]
    truth = jnp.asarray(np.where(valid, labels, IGNORE), jnp.int32)[None]
    losses = np.asarray(pixel_cross_entropy(logits, truth, jnp.asarray(valid)[None]))[0]
    found, _ = other((logits, truth, patch[2][:1], jnp.asarray(valid)[None]), **OTHERS["rim"])
    assert float(found[0]) == pytest.approx((weights * losses)[inside].mean(), rel=1e-5)


def test_divided_by_their_sum_the_weights_have_no_unit(patch):
    losses, _, weights, valid = one_image(patch)
    expected = (weights * losses)[valid].sum() / weights[valid].sum()
    for unit in (1.0, 1e-30, 1e30):
        logits, labels, own, inside = patch
        found, _ = other((logits, labels, unit * own, inside), **OTHERS["weight_sum"])
        assert float(found[0]) == pytest.approx(expected, rel=1e-5)
    nothing, used = other((patch[0], patch[1], 0 * patch[2], patch[3]), **OTHERS["weight_sum"])
    assert not nothing.any()
    assert (used == 1).all()


def test_focal_by_the_equation(patch):
    losses, _, weights, valid = one_image(patch)
    expected = (weights * (1 - np.exp(-losses)) ** 2 * losses)[valid].mean()
    assert float(other(patch, **OTHERS["focal"])[0][0]) == pytest.approx(expected, rel=1e-5)


def test_the_hardest_pixels_are_those_of_the_largest_cross_entropy(patch):
    losses, _, weights, valid = one_image(patch)
    number = int(np.ceil(0.3 * valid.sum()))
    hard = np.argsort(-losses[valid])[:number]
    expected = (weights * losses)[valid][hard].mean()
    assert float(other(patch, **OTHERS["hardest"])[0][0]) == pytest.approx(expected, rel=1e-5)


def test_doubt_gives_a_share_of_the_label_to_the_other_classes(patch):
    logits, labels, weights, valid = patch
    doubt = jnp.asarray(np.random.default_rng(4).uniform(0, 0.5, valid.shape), jnp.float32)
    hard = jax.nn.one_hot(jnp.where(valid, labels, 0), 3)
    targets = hard * (1 - doubt[..., None]) + (1 - hard) * doubt[..., None] / 2

    def ours(logits, doubt, labels=labels):
        total, _ = map_weighted_cross_entropy(
            logits, labels, weights, valid, denominator="pixels", doubt=doubt
        )
        return total.sum()

    def theirs(logits):
        losses = optax.softmax_cross_entropy(logits, targets)
        return (jnp.where(valid, weights * losses, 0).sum((1, 2)) / valid.sum((1, 2))).sum()

    found, expected = (jax.value_and_grad(f)(logits) for f in (lambda x: ours(x, doubt), theirs))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), found, expected
    )
    spoilt = (
        jnp.where(valid[..., None], logits, jnp.nan),
        jnp.where(valid, doubt, jnp.nan),
        jnp.where(valid, labels, -7),
    )
    same(jax.value_and_grad(ours)(*spoilt), found)
    without, slope = jax.value_and_grad(lambda x: ours(x, None))(logits)
    same(jax.value_and_grad(ours)(logits, jnp.zeros_like(doubt)), (without, slope))
    assert not jax.grad(ours, argnums=1)(logits, doubt).any()


@pytest.mark.parametrize("missed", [0.2, 0.5, 0.9])
def test_tversky_by_the_equation(patch, missed):
    logits, labels, _, valid = patch
    probs = np.asarray(jax.nn.softmax(logits))[0][np.asarray(valid[0])]
    truth = np.asarray(labels[0])[np.asarray(valid[0])]
    found = []
    for index in (1, 2):
        own = truth == index
        hits, spurious = probs[own, index].sum(), probs[~own, index].sum()
        lost = (1 - probs[own, index]).sum()
        found.append((hits + 0.5) / (hits + (1 - missed) * spurious + missed * lost + 0.5))
    loss, _ = tversky(logits, labels, valid, missed=missed)
    assert float(loss[0]) == pytest.approx(1 - np.mean(found), rel=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_losses_see_no_ignored_pixel_and_bear_empty_images(patch, name):
    logits, labels, weights, valid = patch

    def slope(logits, labels, weights, valid):
        return jax.grad(lambda x: other((x, labels, weights, valid), **OTHERS[name])[0].sum())(
            logits
        )

    spoilt = (
        jnp.where(valid[..., None], logits, jnp.nan),
        jnp.where(valid, labels, -7),
        jnp.where(valid, weights, jnp.inf),
        valid,
    )
    same(other(spoilt, **OTHERS[name]), other(patch, **OTHERS[name]))
    same(slope(*spoilt), slope(*patch))
    background = (logits, jnp.where(valid, 0, IGNORE), weights, valid.at[1].set(False))
    total, used = other(background, **OTHERS[name])
    assert used.tolist() == [1, 0]
    assert total[1] == 0
    assert np.isfinite(np.asarray(total)).all()
    assert np.isfinite(np.asarray(slope(*background))).all()
    assert (float(total[0]) == 0) == (name == "rim")


@pytest.mark.parametrize("name", [*OTHERS, "weighted", "dice", "tversky"])
def test_gradients_are_finite_differences(patch, name):
    logits, labels, weights, valid = patch

    def loss(logits):
        if name in OTHERS:
            return other((logits, labels, weights, valid), **OTHERS[name])[0].sum()
        if name == "weighted":
            return other((logits, labels, weights, valid))[0].sum()
        missed = 0.5 if name == "dice" else 0.8
        return tversky(logits, labels, valid, missed=missed)[0].sum()

    direction = jnp.asarray(np.random.default_rng(3).standard_normal(logits.shape), jnp.float32)
    expected = float((jax.grad(loss)(logits) * direction).sum())
    step = 2e-3
    found = (loss(logits + step * direction) - loss(logits - step * direction)) / (2 * step)
    assert float(found) == pytest.approx(expected, rel=2e-2, abs=2e-3)
    assert abs(expected) > 1e-2


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_the_other_losses_of_a_volume_of_one_slice_are_those_of_the_slice(patch, name, axis):
    volume = tuple(jnp.expand_dims(array, axis) for array in patch)
    found, expected = other(volume, **OTHERS[name]), other(patch, **OTHERS[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
