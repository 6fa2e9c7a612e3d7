"""Dice and HD95 against all pairs of boundary voxels, and the policy for empty masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxfer.metrics import dice, hd95, outcome

NEIGHBOURS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def boundary(mask):
    """Voxels with a face neighbour in the background or outside of the grid."""
    inside = {tuple(voxel) for voxel in np.argwhere(mask)}
    return np.array(
        [
            v
            for v in sorted(inside)
            if any(tuple(np.add(v, step)) not in inside for step in NEIGHBOURS)
        ]
    )


def oracle(a, b, spacing):
    a, b = boundary(a) * spacing, boundary(b) * spacing
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shares=st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)),
    spacing=st.tuples(*[st.floats(0.2, 4)] * 3),
)
def test_hd95_is_all_pairs_of_boundary_voxels(seed, shares, spacing):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((6, 7, 5)) < share for share in shares)
    a[tuple(rng.integers(0, 5, 3))] = b[tuple(rng.integers(0, 5, 3))] = True
    assert hd95(a, b, spacing) == pytest.approx(oracle(a, b, spacing))
    assert hd95(a, b, spacing) == hd95(b, a, spacing)


def test_hd95_of_boxes_apart_and_at_the_edge():
    a, b = np.zeros((2, 20, 20, 20), bool)
    a[0:4, 0:4, 0:4] = True
    b[0:4, 0:4, 8:12] = True
    assert hd95(a, b, (1.0, 1.0, 3.0)) == pytest.approx(24)
    assert hd95(a, b, (1.0, 3.0, 1.0)) == pytest.approx(8)
    assert hd95(a, a, (1, 1, 1)) == 0


def test_hd95_ignores_a_twentieth_of_the_boundary():
    a, b = np.zeros((2, 40, 40, 3), bool)
    a[5:15, 5:15, 1] = b[5:15, 5:15, 1] = True
    b[39, 39, 2] = True  # one stray voxel beside 100
    assert hd95(a, b, (1, 1, 1)) == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.1, 0.9))
def test_dice_is_twice_the_overlap_over_both(seed, share):
    a, b = np.random.default_rng(seed).random((2, 4, 4, 4)) < share
    a[0, 0, 0] = True
    expected = 2 * sum((a & b).flat) / (sum(a.flat) + sum(b.flat))
    assert dice(a, b) == dice(b, a) == pytest.approx(expected)


def test_the_policy_for_empty_masks():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    table = {
        "both_empty": (empty, empty, np.nan, np.nan),
        "missed": (empty, full, 0, np.inf),
        "spurious": (full, empty, 0, np.inf),
        "scored": (full, full, 1, 0),
    }
    for name, (prediction, reference, overlap, distance) in table.items():
        assert outcome(prediction, reference) == name
        np.testing.assert_equal(dice(prediction, reference), overlap)
        np.testing.assert_equal(hd95(prediction, reference, (1, 1, 1)), distance)


def test_a_mask_of_one_voxel_is_its_own_boundary():
    a, b = np.zeros((2, 5, 5, 5), bool)
    a[0, 0, 0] = b[4, 3, 0] = True
    assert hd95(a, b, (1, 1, 1)) == pytest.approx(5)


def test_inputs_are_not_changed():
    a, b = np.random.default_rng(0).random((2, 5, 5, 5)) < 0.4
    before = a.copy(), b.copy()
    hd95(a, b, (1, 1, 1)), dice(a, b)
    np.testing.assert_array_equal((a, b), before)


def test_misuse_raises():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) != \(3, 3\)"):
        outcome.__wrapped__(mask, mask[0])
    with pytest.raises(ValueError, match=r"found uint8 and bool.*label map"):
        outcome.__wrapped__(mask.astype(np.uint8), mask)
    for spacing in [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, np.nan, 1.0)]:
        with pytest.raises(ValueError, match="one positive edge in mm per axis"):
            hd95(mask, mask, spacing)
