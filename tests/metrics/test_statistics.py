"""The statistics are those of float64 numpy, for every split over batches, cases and devices."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics import FeatureStatistics, LabelStatistics, class_order
from jaxfer.metrics.class_statistics import ClassFeatureStatistics

CLASSES, SOURCES, FEATURES = 3, 4, 6


def label_oracle(log_probs, labels):
    joint, hard = np.zeros((2, CLASSES, SOURCES))
    for row, label in zip(np.exp(log_probs.astype(np.float64)), labels, strict=True):
        joint[label] += row
        hard[label, row.argmax()] += 1
    return LabelStatistics(joint, hard, np.zeros(()))


def moments(features):
    """Second to fourth, around the mean."""
    centred = features - features.mean(0)
    squares = (centred**2).sum(1)
    return centred.T @ centred, squares @ centred, squares @ squares


def feature_oracle(features, labels):
    features = features.astype(np.float64)
    means = [features[labels == c].mean(0) for c in range(CLASSES)]
    counts = np.bincount(labels, minlength=CLASSES).astype(np.float64)
    return FeatureStatistics(counts, np.stack(means), *moments(features), np.zeros(()))


def class_oracle(features, labels):
    features = features.astype(np.float64)
    means = [features[labels == c].mean(0) for c in range(CLASSES)]
    counts = np.bincount(labels, minlength=CLASSES).astype(np.float64)
    by_class = zip(*(moments(features[labels == c]) for c in range(CLASSES)), strict=True)
    return ClassFeatureStatistics(counts, np.stack(means), *map(np.stack, by_class), np.zeros(()))


def of(kind, voxels):
    return voxels.log_probs if kind is LabelStatistics else voxels.features


def zeros(kind):
    return kind.zeros(CLASSES, SOURCES if kind is LabelStatistics else FEATURES)


def oracle(kind, voxels):
    oracles = {
        LabelStatistics: label_oracle,
        FeatureStatistics: feature_oracle,
        ClassFeatureStatistics: class_oracle,
    }
    return oracles[kind](of(kind, voxels), voxels.labels)


def assert_equal(found, expected, rtol=1e-10):
    assert type(found) is type(expected)
    for name in expected._fields:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert np.asarray(ours).dtype == np.float64, name
        np.testing.assert_allclose(ours, theirs, rtol, atol=1e-10, err_msg=name)


each = pytest.mark.parametrize("kind", [LabelStatistics, FeatureStatistics, ClassFeatureStatistics])


@each
@pytest.mark.parametrize("seed", range(3))
def test_one_batch_is_the_oracle(kind, seed, draw):
    voxels = draw(seed)
    found = zeros(kind).update(of(kind, voxels), voxels.labels)
    assert_equal(found, oracle(kind, voxels))


@each
def test_any_split_and_any_order_give_the_same(kind, draw):
    voxels = draw(0)
    cuts = (0, 1, 41, 41, 120)
    parts = [
        zeros(kind).update(of(kind, voxels)[a:b], voxels.labels[a:b]) for a, b in pairwise(cuts)
    ]
    a, b, empty, c = parts
    assert_equal(a.merge(b).merge(empty).merge(c), oracle(kind, voxels))
    assert_equal(c.merge(empty.merge(b.merge(a))), oracle(kind, voxels))
    assert_equal(empty.merge(empty), zeros(kind))
    running = zeros(kind)
    for start in range(0, 120, 40):
        batch = slice(start, start + 40)
        running = kind.update(running, of(kind, voxels)[batch], voxels.labels[batch])
    assert_equal(running, oracle(kind, voxels))


@each
def test_volumes_need_no_flattening(kind, draw):
    voxels = draw(1)
    volume = of(kind, voxels).reshape(2, 5, 12, -1)
    found = zeros(kind).update(volume, voxels.labels.reshape(2, 5, 12))
    assert_equal(found, oracle(kind, voxels))


@each
def test_masked_voxels_contribute_nothing_even_when_nan(kind, draw):
    voxels = draw(2)
    spoilt = np.concatenate([of(kind, voxels), np.full_like(of(kind, voxels)[:30], np.nan)])
    labels = np.concatenate([voxels.labels, np.full(30, 250, np.int32)])
    mask = np.arange(150) < 120
    order = np.random.default_rng(0).permutation(150)
    found = zeros(kind).update(spoilt[order], labels[order], mask=mask[order])
    assert_equal(found, oracle(kind, voxels))


@each
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_unusable_voxels_are_counted_and_spoil_nothing(kind, value, draw):
    voxels = draw(3)
    spoilt = np.concatenate([of(kind, voxels), np.full_like(of(kind, voxels)[:2], value)])
    labels = np.concatenate([voxels.labels, np.zeros(2, np.int32)])
    found = zeros(kind).update(spoilt, labels)
    assert float(found.n_invalid) == 2
    assert_equal(found._replace(n_invalid=np.zeros(())), oracle(kind, voxels))


@each
def test_under_jit_a_label_out_of_range_is_counted(kind, draw):
    voxels = draw(3)
    labels = np.concatenate([voxels.labels, np.array([-1, CLASSES, 250], np.int32)])
    samples = np.concatenate([of(kind, voxels), of(kind, voxels)[:3]])
    found = jax.jit(kind.update)(zeros(kind), samples, labels)
    assert float(found.n_invalid) == 3
    assert_equal(found._replace(n_invalid=np.zeros(())), oracle(kind, voxels))


def test_under_jit_logits_are_counted(draw):
    voxels = draw(3)
    found = jax.jit(LabelStatistics.update)(
        zeros(LabelStatistics), 3 * voxels.log_probs, voxels.labels
    )
    assert float(found.n_invalid) > 100


@pytest.mark.parametrize("kind", [FeatureStatistics, ClassFeatureStatistics])
def test_an_offset_costs_no_digits(kind, draw):
    voxels = draw(4)
    shifted = voxels._replace(features=voxels.features + np.float32(2**14))
    found = zeros(kind)
    for start in range(0, 120, 40):
        batch = slice(start, start + 40)
        found = found.update(shifted.features[batch], voxels.labels[batch])
    assert_equal(found, oracle(kind, shifted), rtol=1e-9)


@pytest.mark.parametrize("kind", [FeatureStatistics, ClassFeatureStatistics])
def test_several_blocks_with_an_outlier_first(kind, draw):
    # More than two blocks of a batch, the last one not full; the sums' reference is the mean of
    # the first usable rows, and must serve also where they are not like the others.
    voxels = draw(3, n=5000)
    spans = np.logspace(0, -4, FEATURES, dtype=np.float32)
    features = voxels.features * spans + 100
    features[:40] = np.nan
    features[40] += 1000 * spans
    mask = np.arange(5000) >= 40
    found = zeros(kind).update(features, voxels.labels, mask=mask)
    expected = oracle(kind, voxels._replace(features=features[40:], labels=voxels.labels[40:]))
    assert_equal(found, expected, 1e-7)
    for name in ("scatter", "scatters"):
        if hasattr(found, name):
            ours, theirs = (np.linalg.eigvalsh(getattr(x, name)) for x in (found, expected))
            np.testing.assert_allclose(ours, theirs, 1e-6)


def test_a_class_whose_first_voxels_are_not_finite_loses_no_digits(draw):
    voxels = draw(4, n=3000)
    features = voxels.features + np.float32(2**14)
    spoilt = np.flatnonzero(voxels.labels == 1)[:200]
    features[spoilt] = np.nan
    found = zeros(ClassFeatureStatistics).update(features, voxels.labels)
    assert float(found.n_invalid) == 200
    kept = np.isfinite(features).all(1)
    expected = class_oracle(features[kept], voxels.labels[kept])
    assert_equal(found._replace(n_invalid=np.zeros(())), expected, rtol=1e-9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("label_type", [np.uint8, np.int32])
def test_an_order_made_on_the_host_changes_no_bit(masked, label_type, draw):
    voxels = draw(5, n=5000)
    labels = voxels.labels.astype(label_type)
    mask = np.random.default_rng(0).random(5000) < 0.7 if masked else None
    order = class_order(labels, CLASSES, mask=mask)
    members = [np.flatnonzero((labels == c) & (True if mask is None else mask)) for c in range(3)]
    np.testing.assert_array_equal(order.rows[: order.counts.sum()], np.concatenate(members))
    np.testing.assert_array_equal(order.counts, [len(own) for own in members])
    start = zeros(ClassFeatureStatistics)
    for found, expected in zip(
        start.update(voxels.features, labels, mask=mask, order=order),
        start.update(voxels.features, labels, mask=mask),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_of_another_order_no_voxel_counts_for_another_class(draw):
    voxels = draw(5, n=500)
    start, mask = zeros(ClassFeatureStatistics), np.arange(500) < 300
    turned = class_order(voxels.labels[::-1].copy(), CLASSES)
    found = start.update(voxels.features, voxels.labels, order=turned)
    assert 0 < float(found.n_invalid) < 500
    assert np.asarray(found.counts).sum() + float(found.n_invalid) == 500
    own, means = (
        np.asarray(x.means) for x in (found, start.update(voxels.features, voxels.labels))
    )
    assert np.abs(own - means).max() < np.abs(means[:, None] - means[None]).max() / 4
    unmasked = class_order(voxels.labels, CLASSES)
    found = start.update(voxels.features, voxels.labels, mask=mask, order=unmasked)
    assert_equal(found, class_oracle(voxels.features[:300], voxels.labels[:300]))
    for wrong in (class_order(voxels.labels[:9], CLASSES), class_order(voxels.labels, CLASSES + 1)):
        with pytest.raises(ValueError, match="order must be of these labels"):
            start.update(voxels.features, voxels.labels, order=wrong)


@pytest.mark.parametrize("num_classes", [256, 300])
def test_more_classes_than_the_labels_type_can_name(num_classes, draw):
    voxels = draw(5)
    labels, mask = voxels.labels.astype(np.uint8), np.arange(120) < 100
    found = ClassFeatureStatistics.zeros(num_classes, FEATURES).update(
        voxels.features, labels, mask=mask
    )
    expected = class_oracle(voxels.features[:100], labels[:100])
    np.testing.assert_array_equal(found.counts[:CLASSES], expected.counts)
    np.testing.assert_allclose(found.scatters[:CLASSES], expected.scatters, 1e-10)
    assert float(found.n_invalid) == 0
    assert not np.asarray(found.counts)[CLASSES:].any()


def test_labels_of_no_class_come_last_in_the_order():
    labels = np.array([[255, 1], [0, 3]], np.uint8)
    rows, counts = class_order(labels, 3)
    assert counts.tolist() == [1, 1, 0]
    assert rows.tolist() == [2, 1, 0, 3]
    with pytest.raises(ValueError, match="mask must have the labels' shape"):
        class_order(labels, 3, mask=np.ones(4, bool))


def test_the_classes_together_are_the_features(draw):
    voxels = draw(4)
    labels = np.where(voxels.labels == 1, 2, voxels.labels)  # a class is absent
    found = zeros(ClassFeatureStatistics).update(voxels.features, labels).features()
    assert_equal(found, zeros(FeatureStatistics).update(voxels.features, labels))


def test_counters_do_not_stall():
    many = jax.tree.map(lambda x: np.full(x.shape, 2.0**26), zeros(LabelStatistics))
    certain = np.array([[0, -np.inf, -np.inf, -np.inf]], np.float32)
    found = many.update(certain, np.zeros(1, np.int32))
    assert float(found.joint[0, 0]) == float(found.hard_joint[0, 0]) == 2**26 + 1


@each
def test_four_devices_with_unequal_shares(kind, draw):
    voxels = draw(5)
    samples = of(kind, voxels)
    mask = np.ones(120, bool)
    mask[30:60] = False  # the second device has nothing
    mask[61:90] = False  # the third has one voxel

    def on_device(samples, labels, mask):
        return zeros(kind).update(samples, labels, mask=mask).psum("devices")

    shard = [x.reshape(4, 30, *x.shape[1:]) for x in (samples, voxels.labels, mask)]
    found = jax.pmap(on_device, axis_name="devices", out_axes=None)(*shard)
    one = type(voxels)(voxels.features[mask], voxels.log_probs[mask], voxels.labels[mask])
    assert_equal(found, oracle(kind, one))


@each
def test_jit_vmap_and_scan(kind, draw):
    voxels = draw(6)
    samples = of(kind, voxels).reshape(3, 40, -1)
    labels = voxels.labels.reshape(3, 40)

    def one(samples, labels):
        return zeros(kind).update(samples, labels)

    stacked = jax.vmap(one)(samples, labels)
    for i in range(3):
        part = jax.tree.map(lambda x, i=i: x[i], stacked)
        assert_equal(part, one(samples[i], labels[i]))
    with jax.enable_x64(True):
        inside = jax.vmap(jax.jit(one))(samples, labels)
    assert_equal(inside, stacked)
    assert_equal(jax.jit(jax.vmap(one))(samples, labels), stacked)

    scanned, _ = jax.lax.scan(
        lambda stats, batch: (stats.update(*batch), None), zeros(kind), (samples, labels)
    )
    assert_equal(scanned, oracle(kind, voxels))


@each
def test_pool_repeats_parts_and_bootstraps_under_vmap(kind, draw):
    cases = [draw(seed) for seed in range(4)]
    parts = [zeros(kind).update(of(kind, case), case.labels) for case in cases]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *parts)
    weights = np.array([[2, 0, 1, 1], [0, 0, 0, 4], [1, 1, 1, 1]])
    resampled = jax.vmap(kind.pool, in_axes=(None, 0))(stacked, weights)
    for i, row in enumerate(weights):
        expected = zeros(kind)
        for part, times in zip(parts, row, strict=True):
            for _ in range(times):
                expected = expected.merge(part)
        assert_equal(jax.tree.map(lambda x, i=i: x[i], resampled), expected)


@each
def test_one_shape_compiles_once(kind, draw):
    compiled = []

    def listen(event, duration, **kwargs):
        if "compile" in event:
            compiled.append(event)

    stats = zeros(kind)
    for seed in (0, 1):  # the first statistics are of zeros, the second of update
        voxels = draw(seed, n=77)
        stats = stats.update(of(kind, voxels), voxels.labels)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in (2, 3, 4):
            voxels = draw(seed, n=77)
            stats = stats.update(of(kind, voxels), voxels.labels)
        assert not compiled
        stats.update(of(kind, voxels)[:71], voxels.labels[:71])
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@each
def test_inputs_are_not_changed(kind, draw):
    voxels = draw(7)
    samples, labels, mask = of(kind, voxels).copy(), voxels.labels.copy(), np.ones(120, bool)
    before = zeros(kind)
    before.update(samples, labels, mask=mask)
    np.testing.assert_array_equal(samples, of(kind, voxels))
    np.testing.assert_array_equal(labels, voxels.labels)
    assert mask.all()
    assert_equal(before, zeros(kind))


@each
def test_whole_labels_of_any_type_are_taken(kind, draw):
    voxels = draw(8)
    for dtype in (np.uint8, np.float32):
        found = zeros(kind).update(of(kind, voxels), voxels.labels.astype(dtype))
        assert_equal(found, oracle(kind, voxels))


@each
@pytest.mark.parametrize(
    ("label", "text"), [(-1.0, "-1 to 2"), (3.0, "0 to 3"), (0.5, "1 of 120"), (np.nan, "1 of 120")]
)
def test_labels_that_are_no_classes_raise(kind, label, text, draw):
    voxels = draw(9)
    labels = voxels.labels.astype(np.float32)
    labels[np.flatnonzero(labels == 1)[0]] = label
    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 2\]") as error:
        zeros(kind).update(of(kind, voxels), labels)
    assert text in str(error.value)


@pytest.mark.parametrize("wrong", ["logits", "probabilities"])
def test_what_is_no_log_probability_raises(wrong, draw):
    voxels = draw(9)
    rows = {"logits": voxels.log_probs + 2, "probabilities": np.exp(voxels.log_probs)}[wrong]
    with pytest.raises(ValueError, match=r"exp of 120 rows does not sum to 1.*log_softmax"):
        zeros(LabelStatistics).update(rows, voxels.labels)
    masked = np.zeros(120, bool)
    found = zeros(LabelStatistics).update(rows, voxels.labels, mask=masked)
    assert_equal(found, zeros(LabelStatistics))


@each
def test_shapes_that_disagree_raise(kind, draw):
    voxels = draw(9)
    update = zeros(kind).update.__wrapped__  # past the shape checks of the tests themselves
    samples = of(kind, voxels)
    with pytest.raises(ValueError, match=r"\(120, \d\), labels \(119,\)"):
        update(zeros(kind), samples, voxels.labels[1:])
    with pytest.raises(ValueError, match=f"{samples.shape[1]} channels"):
        update(zeros(kind), samples[:, 1:], voxels.labels)
    with pytest.raises(ValueError, match=r"mask must have the labels' shape: \(5,\) != \(120,\)"):
        update(zeros(kind), samples, voxels.labels, mask=np.ones(5, bool))
