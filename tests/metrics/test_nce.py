"""NCE: its formula, its ends, and what it makes of degenerate input."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import entropy

from jaxfer.metrics import LabelStatistics, leep, nce, nce_from_statistics

CLASSES, SOURCES = 3, 4


def oracle(source_labels, labels):
    """The entropy of the labels inside each source class, weighted by its size."""
    total = 0.0
    for z in np.unique(source_labels):
        inside = labels[source_labels == z]
        total -= len(inside) * entropy(np.bincount(inside))
    return total / len(labels)


def score(source_labels, labels, **kwargs):
    return nce(source_labels, labels, num_source_classes=SOURCES, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("seed", range(4))
def test_is_the_formula_from_labels_and_from_statistics(seed, draw):
    voxels = draw(seed)
    source_labels = voxels.log_probs.argmax(1)
    expected = oracle(source_labels, voxels.labels)
    stats = LabelStatistics.zeros(CLASSES, SOURCES).update(voxels.log_probs, voxels.labels)
    with jax.enable_x64(True):
        found = score(source_labels, voxels.labels), nce_from_statistics(stats)
    for each in found:
        assert float(each) == pytest.approx(expected, rel=1e-12)
        assert (int(each.n_used), int(each.classes_present), each.reasons) == (120, 3, ())


def test_the_ends_of_its_range(draw):
    labels = draw(0).labels
    assert float(score(np.array([2, 0, 3])[labels], labels)) == 0
    ignorant = score(np.full(120, 1), labels)
    assert float(ignorant) == pytest.approx(-np.log(3), rel=1e-6)


def test_it_is_leep_of_a_certain_source(draw):
    voxels = draw(1)
    source_labels = voxels.log_probs.argmax(1)
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(SOURCES, dtype=np.float32)[source_labels])
    expected = float(leep(certain, voxels.labels, num_classes=CLASSES))
    assert float(score(source_labels, voxels.labels)) == pytest.approx(expected, rel=1e-6)


def test_masks_gaps_and_renaming(draw):
    voxels = draw(2)
    source_labels = voxels.log_probs.argmax(1)
    labels = np.array([4, 0, 2])[voxels.labels]
    found = nce(
        np.concatenate([source_labels, [-1, 99]]) * 2,
        np.concatenate([labels, [250, 250]]),
        num_source_classes=9,
        num_classes=5,
        mask=np.arange(122) < 120,
    )
    assert float(found) == pytest.approx(oracle(source_labels, voxels.labels), rel=1e-6)
    assert int(found.classes_present) == 3


def test_volumes_jit_and_vmap(draw):
    voxels = draw(3)
    source_labels = voxels.log_probs.argmax(1).reshape(2, 3, 20)
    labels = np.random.default_rng(0).permutation(voxels.labels).reshape(2, 3, 20)
    whole = oracle(source_labels.ravel(), labels.ravel())
    assert float(jax.jit(score)(source_labels, labels)) == pytest.approx(whole, rel=1e-6)
    halves = [oracle(a.ravel(), b.ravel()) for a, b in zip(source_labels, labels, strict=True)]
    np.testing.assert_allclose(jax.vmap(score)(source_labels, labels).score, halves, 1e-6)


def test_degenerate_input_is_nan_with_a_reason(draw):
    labels = draw(4).labels
    single = score(labels, np.zeros(120, np.int32))
    assert np.isnan(float(single))
    assert single.reasons == ("few classes",)
    nothing = score(labels, labels, mask=np.zeros(120, bool))
    assert np.isnan(float(nothing))
    assert nothing.reasons == ("no voxels", "few classes")
    traced = jax.jit(score)(labels + 2, labels)
    assert np.isnan(float(traced))
    assert (int(traced.n_invalid), traced.reasons) == (40, ("invalid input",))


def test_misuse_raises(draw):
    labels = draw(5).labels
    with pytest.raises(ValueError, match=r"source_labels must be whole numbers in \[0, 3\]"):
        score(labels + 2, labels)
    with pytest.raises(ValueError, match=r"\blabels must be whole numbers in \[0, 2\]: 40 of 120"):
        score(labels, labels + 1)
    with pytest.raises(ValueError, match=r"\(119,\) != \(120,\)"):
        nce.__wrapped__(labels[1:], labels, num_source_classes=SOURCES, num_classes=CLASSES)
