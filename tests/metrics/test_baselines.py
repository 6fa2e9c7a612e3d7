"""Trivial scores of a tidy table: by hand, and without a look at what they are judged on."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.metrics.baselines import BASELINES, grid, random, same_modality, static_mean_rank

NAN = np.nan
TABLE = {
    "target": np.array(["x", "x", "x", "y", "y", "y", "z", "z"]),
    "source": np.array(["a", "b", "c", "a", "b", "c", "a", "c"]),
    "performance": np.array([0.9, 0.5, 0.1, 0.4, 0.4, 0.8, 0.3, 0.2]),
    "source_modality": np.array(["t1", "t2", "t1"] * 2 + ["t1", "t1"]),
    "target_modality": np.array(["t1"] * 3 + ["t2"] * 3 + ["t1", "t2"]),
}


def test_the_mean_place_in_the_other_targets_by_hand():
    # Places: x: a 1, b ½, c 0; y: a ¼, b ¼, c 1; z: a 1, c 0.
    expected = [0.625, 0.25, 0.5, 1, 0.5, 0, 0.625, 0.5]
    np.testing.assert_allclose(static_mean_rank(TABLE), expected)


def test_a_targets_own_truth_is_not_seen():
    other = TABLE | {"performance": TABLE["performance"].copy()}
    other["performance"][:3] = other["performance"][:3][::-1]
    before, after = static_mean_rank(TABLE), static_mean_rank(other)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any()


def test_a_source_of_one_target_has_no_place_elsewhere():
    lonely = {k: v[[0, 1, 2, 3, 5]] for k, v in TABLE.items()}
    np.testing.assert_array_equal(np.isnan(static_mean_rank(lonely)), [0, 1, 0, 0, 0])
    unknown = TABLE | {"performance": np.where(TABLE["target"] == "y", NAN, TABLE["performance"])}
    np.testing.assert_allclose(static_mean_rank(unknown)[:3], [1, NAN, 0])


def test_the_modality():
    np.testing.assert_array_equal(same_modality(TABLE), [1, 0, 1, 0, 1, 0, 1, 0])


def test_random_is_the_seeds():
    np.testing.assert_array_equal(random(TABLE, seed=1), random(TABLE, seed=1))
    assert (random(TABLE, seed=1) != random(TABLE, seed=2)).all()
    assert len(set(random(TABLE, seed=0))) == 8


def test_columns_as_they_stand():
    names = ("validation_dice", "source_size", "zero_shot_dice", "label_ssim", "knn_accuracy")
    full = TABLE | {name: np.arange(8) + i for i, name in enumerate(names)}
    for i, name in enumerate(names):
        np.testing.assert_array_equal(BASELINES[name](full), np.arange(8) + i)
    assert set(BASELINES) == {"random", "static_mean_rank", "same_modality", *names}
    with pytest.raises(ValueError, match="no column knn_accuracy: found performance"):
        BASELINES["knn_accuracy"](TABLE)


def test_by_target_and_source():
    found = grid(TABLE, TABLE["performance"])
    assert (found.targets, found.sources) == (("x", "y", "z"), ("a", "b", "c"))
    np.testing.assert_array_equal(found.values, [[0.9, 0.5, 0.1], [0.4, 0.4, 0.8], [0.3, NAN, 0.2]])
    twice = {k: np.append(v, v[0]) for k, v in TABLE.items()}
    with pytest.raises(ValueError, match="must stand once: 1 rows too many"):
        grid(twice, twice["performance"])
