"""kNN accuracy: a loop over voxels, ties, subjects, and degenerate input."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.metrics.knn_accuracy import knn_accuracy
from tests.metrics import contract

CLASSES = 3


def oracle(features, labels, k, subjects=None):
    """The chance that each voxel is right, by sorting; exact for integers."""
    chances = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i if subjects is None else subjects != subjects[i]
        distances = ((features[others].astype(float) - features[i]) ** 2).sum(1)
        voters = labels[others]
        last = np.sort(distances)[min(k, len(voters)) - 1]
        nearer, level = distances < last, distances == last
        share = (min(k, len(voters)) - nearer.sum()) / level.sum()
        votes = np.array(
            [(voters[nearer] == c).sum() + share * (voters[level] == c).sum() for c in range(3)]
        )
        winners = np.flatnonzero(votes >= votes.max() - 1e-9)
        chances.append((labels[i] in winners) / len(winners))
    return np.array(chances)


def score(features, labels, **kwargs):
    return knn_accuracy(features, labels, num_classes=CLASSES, **kwargs)


@pytest.mark.parametrize("k", [1, 4, 5])
def test_is_a_vote_of_the_nearest(k, draw):
    voxels = draw(0, n=60, features=4)
    chances = oracle(voxels.features, voxels.labels, k)
    found = score(voxels.features, voxels.labels, k=k)
    assert float(found) == pytest.approx(chances.mean(), rel=1e-6)
    assert found.reasons == ()
    assert 0.3 < float(found) < 1


def test_equal_distances_and_equal_votes_by_the_stated_rule():
    rng = np.random.default_rng(1)
    features = rng.integers(0, 3, (60, 2)).astype(np.float32)  # nine places: ties everywhere
    labels = rng.integers(0, 3, 60)
    for k in (4, 5):
        expected = oracle(features, labels, k).mean()
        assert float(score(features, labels, k=k)) == pytest.approx(expected, rel=1e-6)


def test_duplicates_are_neighbours_and_the_voxel_itself_is_not():
    features = np.array([[0], [0], [0], [9], [9], [9]], np.float32)
    labels = np.array([0, 0, 1, 1, 1, 0])
    found = knn_accuracy(features, labels, num_classes=2, k=2)
    # Of each three equal voxels, the odd one is outvoted; the others see one friend and one foe.
    assert float(found) == pytest.approx((0.5 + 0.5 + 0) / 3, rel=1e-6)


def test_constant_features_leave_every_voxel_to_the_majority_of_the_others():
    labels = np.array([0] * 40 + [1] * 20)
    found = score(np.full((60, 4), 0.1, np.float32), labels)
    assert float(found) == pytest.approx(40 / 60, rel=1e-6)
    balanced = score(np.full((60, 4), 0.1, np.float32), labels, balanced=True)
    assert float(balanced) == pytest.approx(1 / 2, rel=1e-6)


def test_balanced_accuracy_is_the_mean_over_the_classes(draw):
    voxels = draw(2, n=60, features=4)
    labels = np.where(np.arange(60) < 45, 0, voxels.labels)
    chances = oracle(voxels.features, labels, 5)
    expected = np.mean([chances[labels == c].mean() for c in np.unique(labels)])
    found = score(voxels.features, labels, balanced=True)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert abs(chances.mean() - expected) > 0.05


def test_neighbours_of_the_same_subject_have_no_vote(draw):
    voxels = draw(3, n=60, features=4)
    subjects = np.arange(60) % 4
    features = voxels.features.copy()
    features[:, 0] += 50 * subjects  # what a subject's voxels share
    honest = score(features, voxels.labels, subjects=subjects)
    assert float(honest) == pytest.approx(
        oracle(features, voxels.labels, 5, subjects).mean(), rel=1e-6
    )
    assert float(honest) != pytest.approx(float(score(features, voxels.labels)))
    alone = score(features, voxels.labels, subjects=np.zeros(60, int))
    assert np.isnan(float(alone))
    assert alone.reasons == ("no voxels", "few classes", "reduced")


def test_blocks_change_nothing(draw):
    voxels = draw(4, n=60, features=4)
    expected = float(score(voxels.features, voxels.labels))
    for entries in (1, 7 * 60):
        found = score(voxels.features, voxels.labels, max_entries=entries)
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_more_neighbours_than_voxels_are_reduced_and_flagged(draw):
    voxels = draw(5, n=60, features=4)
    found = score(voxels.features, voxels.labels, k=60)
    assert found.reasons == ("reduced",)
    assert float(found) == float(score(voxels.features, voxels.labels, k=59)) == 0
    few = score(voxels.features, voxels.labels, k=5, mask=np.arange(60) % 15 == 0)
    assert "reduced" in few.reasons
    assert np.isfinite(float(few))


def test_separated_classes_and_a_far_offset(draw):
    labels = draw(6, n=60).labels
    rng = np.random.default_rng(6)
    features = 1000 + 10 * np.eye(3, 4)[labels] + rng.standard_normal((60, 4))
    assert float(score(features.astype(np.float32), labels)) == 1


def test_one_voxel_far_away_blurs_no_distance(draw):
    voxels = draw(8, n=60, features=4)
    features = (voxels.features * np.float32(2**-10)).copy()
    features[0] = 1e4
    expected = oracle(features, voxels.labels, 5).mean()
    assert float(score(features, voxels.labels)) == pytest.approx(expected, rel=1e-6)


def test_the_contract(draw):
    voxels = draw(7, n=60, features=4)
    contract.check(knn_accuracy, voxels.features, voxels.labels, 1e-6)


def test_arguments_that_make_no_sense(draw):
    voxels = draw(0, n=60, features=4)
    with pytest.raises(ValueError, match="k must be at least 1: found 0"):
        score(voxels.features, voxels.labels, k=0)
