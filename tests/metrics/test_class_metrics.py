"""What the metrics of moments share: any split, any device, jit and vmap, degenerate input."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.metrics import FeatureStatistics
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.gbc import gbc, gbc_from_statistics, log_gbc, log_gbc_from_statistics
from jaxfer.metrics.lda import lda, lda_from_statistics
from jaxfer.metrics.posterior import PosteriorStatistics, linear_classifier
from jaxfer.metrics.regularized_h_score import (
    regularized_h_score,
    regularized_h_score_from_statistics,
)
from jaxfer.metrics.transrate import transrate, transrate_from_statistics

CLASSES, FEATURES = 3, 6
ONE_PASS = {
    regularized_h_score: (FeatureStatistics, regularized_h_score_from_statistics),
    transrate: (ClassFeatureStatistics, transrate_from_statistics),
    gbc: (ClassFeatureStatistics, gbc_from_statistics),
    log_gbc: (ClassFeatureStatistics, log_gbc_from_statistics),
}
every = pytest.mark.parametrize("name", [*ONE_PASS, lda], ids=lambda f: f.__name__)


def on_parts(name, parts, together):
    """The score of parts (features, labels, mask); `together` puts their statistics together."""
    kind, finalise = ONE_PASS.get(name, (ClassFeatureStatistics, lda_from_statistics))
    stats = together([kind.zeros(CLASSES, FEATURES).update(*p[:2], mask=p[2]) for p in parts])
    if name is lda:
        classifier = linear_classifier(stats)
        zeros = PosteriorStatistics.zeros(CLASSES)
        stats = together([zeros.update(*p[:2], classifier, mask=p[2]) for p in parts])
    return finalise(stats)


@every
def test_any_split_over_batches_cases_and_devices_gives_the_same(name, draw):
    voxels = draw(0)
    mask = np.ones(120, bool)
    mask[30:60] = False  # the second part has nothing
    mask[61:90] = False  # the third has one voxel
    whole = [np.asarray(x) for x in (voxels.features, voxels.labels, mask)]
    expected = float(name(voxels.features[mask], voxels.labels[mask], num_classes=CLASSES))
    shards = [x.reshape(4, 30, *x.shape[1:]) for x in whole]
    parts = list(zip(*shards, strict=True))
    merged = on_parts(name, parts[::-1], lambda stats: reduce(lambda a, b: a.merge(b), stats))
    assert float(merged) == pytest.approx(expected, rel=1e-6)

    def pooled(stats):
        return type(stats[0]).pool(jax.tree.map(lambda *x: jnp.stack(x), *stats), np.ones(4))

    assert float(on_parts(name, parts, pooled)) == pytest.approx(expected, rel=1e-6)

    def on_device(*part):
        return on_parts(name, [part], lambda stats: stats[0].psum("devices"))

    mapped = jax.pmap(on_device, axis_name="devices", out_axes=None)(*shards)
    assert float(mapped) == pytest.approx(expected, rel=1e-6)
    assert int(mapped.n_used) == mask.sum()


@every
def test_jit_and_vmap(name, draw):
    cases = [draw(seed) for seed in range(3)]
    features, labels = (jnp.stack([case[i] for case in cases]) for i in (0, 2))

    def score(features, labels):
        return name(features, labels, num_classes=CLASSES)

    expected = [float(score(case.features, case.labels)) for case in cases]
    np.testing.assert_allclose(jax.jit(jax.vmap(score))(features, labels).score, expected, 1e-5)
    if name is lda:  # two passes; that a plain `vmap` works is of the decorator all share
        np.testing.assert_allclose(jax.vmap(score)(features, labels).score, expected, 1e-5)


@every
def test_order_names_absent_classes_and_masked_voxels_change_nothing(name, draw):
    voxels = draw(1)
    expected = float(name(voxels.features, voxels.labels, num_classes=CLASSES))
    features = np.concatenate([voxels.features, np.full((4, 6), np.nan, np.float32)])
    labels = np.concatenate([np.array([4, 0, 3])[voxels.labels], np.full(4, 99)])
    mask = np.arange(124) < 120
    order = np.random.default_rng(0).permutation(124)
    before = features.copy()
    found = name(features[order], labels[order], num_classes=5, mask=mask[order])
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert (int(found.n_used), int(found.classes_present), found.reasons) == (120, 3, ())
    np.testing.assert_array_equal(features, before)


@every
def test_degenerate_input_is_nan_with_a_reason(name, draw):
    voxels = draw(2)

    def score(features, labels, mask=None):
        return name(features, labels, num_classes=CLASSES, mask=mask)

    single = score(voxels.features, np.zeros(120, np.int32))
    assert np.isnan(float(single))
    assert single.reasons == ("few classes",)
    nothing = score(*voxels[::2], mask=np.zeros(120, bool))
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few classes")
    one = score(*voxels[::2], mask=np.arange(120) == 7)
    assert np.isnan(float(one))
    assert "few classes" in one.reasons
    spoilt = voxels.features.copy()
    spoilt[3, 2] = np.inf
    found = score(spoilt, voxels.labels)
    assert np.isnan(float(found))
    assert (int(found.n_invalid), found.reasons) == (1, ("invalid input",))
    with pytest.raises(ValueError, match=r"labels must be whole numbers in \[0, 2\]"):
        score(voxels.features, voxels.labels - 1)


@every
def test_a_source_that_knows_more_scores_higher(name, draw):
    voxels = draw(3)
    blind = voxels.features[np.random.default_rng(0).permutation(120)]
    knows, guesses = (
        float(name(features, voxels.labels, num_classes=CLASSES))
        for features in (voxels.features, blind)
    )
    assert knows > guesses


@pytest.mark.parametrize("name", [regularized_h_score, transrate])
def test_constant_features_score_zero(name, draw):
    found = name(np.full((120, 6), 0.1, np.float32), draw(4).labels, num_classes=CLASSES)
    assert float(found) == pytest.approx(0, abs=1e-6)
