"""Balanced statistics are those of voxels repeated until every class has as many."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from jaxfer.metrics import (
    FeatureStatistics,
    LabelStatistics,
    PredictionStatistics,
    conditional_log_probs,
    h_score,
    h_score_from_statistics,
    leep,
    leep_from_statistics,
    logme_from_statistics,
    nce_from_statistics,
)
from jaxfer.metrics.balance import class_balanced
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.gbc import gbc, gbc_from_statistics
from jaxfer.metrics.lda import lda, lda_from_statistics
from jaxfer.metrics.posterior import PosteriorStatistics, linear_classifier
from jaxfer.metrics.regularized_h_score import (
    ledoit_wolf_shrinkage,
    regularized_h_score_from_statistics,
)
from jaxfer.metrics.transrate import transrate, transrate_from_statistics

CLASSES = 4
TIMES = np.array([1, 2, 0, 5])  # class 2 is absent


@pytest.fixture
def rare(draw):
    """40, 20 and 8 voxels of classes 0, 1 and 3; and the same with the rare ones repeated."""
    voxels = draw(0)
    order = np.argsort(voxels.labels, kind="stable")
    chosen = np.concatenate([order[:40], order[40:60], order[80:88]])
    labels = np.array([0, 1, 3])[voxels.labels[chosen]]
    unequal = voxels._replace(
        features=voxels.features[chosen], log_probs=voxels.log_probs[chosen], labels=labels
    )
    return unequal, type(voxels)(*(x.repeat(TIMES[labels], axis=0) for x in unequal))


def test_the_moments_are_those_of_the_repeated_voxels(rare):
    unequal, equal = rare
    zeros = ClassFeatureStatistics.zeros(CLASSES, 6)
    found = class_balanced(zeros.update(*unequal[::2])).features()
    expected = FeatureStatistics.zeros(CLASSES, 6).update(*equal[::2])
    np.testing.assert_allclose(found.counts, [68 / 3, 68 / 3, 0, 68 / 3], 1e-12)
    share = 68 / 120
    for ours, theirs in zip(found, expected, strict=True):
        scale = 1 if ours is found.means else share
        np.testing.assert_allclose(ours, scale * np.asarray(theirs), 1e-10, 1e-9)


def test_metrics_of_moments_score_as_of_the_repeated_voxels(rare):
    unequal, equal = rare
    zeros = ClassFeatureStatistics.zeros(CLASSES, 6)
    plain = zeros.update(*unequal[::2])
    stats = class_balanced(plain)
    moments = stats.features()
    pairs = {
        h_score: h_score_from_statistics(moments),
        transrate: transrate_from_statistics(stats),
        gbc: gbc_from_statistics(stats),
    }
    for metric, found in pairs.items():
        expected = float(metric(*equal[::2], num_classes=CLASSES))
        assert float(found) == pytest.approx(expected, rel=1e-6), metric.__name__
        assert (int(found.classes_present), round(float(found.n_used))) == (3, 68)
    assert float(pairs[h_score]) != pytest.approx(
        float(h_score_from_statistics(plain.features())), rel=1e-3
    )
    # These depend on n, which stays: the same as of moments of equal shares and 68 voxels.
    repeated = FeatureStatistics.zeros(CLASSES, 6).update(*equal[::2])
    repeated = jax.tree.map(np.asarray, repeated)
    shares = repeated._replace(
        counts=repeated.counts * (68 / 120),
        scatter=repeated.scatter * (68 / 120),
        fourth=repeated.fourth * (68 / 120),
    )
    for finalise in (logme_from_statistics, regularized_h_score_from_statistics):
        assert float(finalise(moments)) == pytest.approx(float(finalise(shares)), rel=1e-6)
    assert float(ledoit_wolf_shrinkage(moments)) == pytest.approx(
        float(ledoit_wolf_shrinkage(repeated)) * 120 / 68, rel=1e-6
    )


def test_leep_and_nce_are_balanced_in_both_passes(rare):
    unequal, equal = rare
    zeros = LabelStatistics.zeros(CLASSES, 4)
    stats = class_balanced(zeros.update(*unequal[1:]))
    predictions = PredictionStatistics.zeros(CLASSES).update(
        *unequal[1:], conditional_log_probs(stats)
    )
    found = leep_from_statistics(class_balanced(predictions))
    expected = float(leep(*equal[1:], num_classes=CLASSES))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert float(leep_from_statistics(predictions)) != pytest.approx(expected, rel=1e-3)
    assert float(nce_from_statistics(stats)) == pytest.approx(
        float(nce_from_statistics(zeros.update(*equal[1:]))), rel=1e-6
    )
    again = class_balanced(stats)
    np.testing.assert_allclose(again.joint, stats.joint, 1e-12)


def test_lda_is_balanced_in_both_passes(rare):
    unequal, equal = rare
    stats = ClassFeatureStatistics.zeros(CLASSES, 6).update(*unequal[::2])
    classifier = linear_classifier(class_balanced(stats))
    posteriors = PosteriorStatistics.zeros(CLASSES).update(*unequal[::2], classifier)
    found = lda_from_statistics(class_balanced(posteriors))
    assert float(found) == pytest.approx(float(lda(*equal[::2], num_classes=CLASSES)), rel=1e-6)


def test_a_useless_source_no_longer_looks_good():
    labels = (np.arange(1000) < 5).astype(np.int32)
    rows = np.log(np.full((1000, 2), 0.5, np.float32))
    assert -0.04 < float(leep(rows, labels, num_classes=2)) < 0
    stats = class_balanced(LabelStatistics.zeros(2, 2).update(rows, labels))
    predictions = PredictionStatistics.zeros(2).update(rows, labels, conditional_log_probs(stats))
    found = leep_from_statistics(class_balanced(predictions))
    assert float(found) == pytest.approx(np.log(0.5), rel=1e-6)


def test_nothing_stays_nothing_and_jit_and_vmap_work(rare):
    empty = class_balanced(LabelStatistics.zeros(2, 2))
    assert all(np.all(np.asarray(x) == 0) for x in empty)
    unequal, _ = rare
    zeros = ClassFeatureStatistics.zeros(CLASSES, 6)
    stats = zeros.update(*unequal[::2])
    expected = h_score_from_statistics(class_balanced(stats).features())

    def score(features, labels):
        return h_score_from_statistics(class_balanced(zeros.update(features, labels)).features())

    batch = [np.stack([x, x[::-1]]) for x in unequal[::2]]
    found = jax.jit(jax.vmap(score))(*batch)
    np.testing.assert_allclose(found.score, np.full(2, float(expected)), 1e-6)


def test_one_scatter_for_all_classes_cannot_be_balanced():
    stats = FeatureStatistics.zeros(2, 3)
    balanced = partial(class_balanced.__wrapped__, stats)  # past the type checks of the tests
    with pytest.raises(ValueError, match="gather ClassFeatureStatistics"):
        balanced()
