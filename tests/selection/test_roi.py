"""RoI analysis: a common grid whatever the shapes, and means over the pairs that mean something."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.selection.roi import GRID, foreground_masks, on_common_grid, roi_similarity
from jaxfer.tasks import IGNORE

USUAL = {"k1": 0.01, "k2": 0.03}


def box(start, size, shape=(20, 20, 20)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def grid(*masks):
    return np.stack([on_common_grid(mask) for mask in masks])


def ssim(a, b, k1, k2):
    """Equation by equation, in float64."""
    a, b = a.astype(float), b.astype(float)
    c1, c2 = k1**2, k2**2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
    return luminance * (2 * covariance + c2) / (a.var() + b.var() + c2)


def test_identical_masks_are_alike_to_one():
    masks = grid(box((3, 4, 5), (6, 7, 8)))
    assert roi_similarity(masks, masks, **USUAL).mean == pytest.approx(1, rel=1e-6)


def test_is_the_mean_of_the_formula_over_all_pairs():
    ours = grid(box((3, 4, 5), (6, 7, 8)), box((1, 1, 1), (12, 5, 9)))
    theirs = grid(box((4, 4, 4), (6, 6, 6)), box((10, 2, 3), (3, 9, 5)), box((0, 0, 0), (20, 3, 3)))
    expected = np.mean([ssim(a, b, **USUAL) for a in ours for b in theirs])
    found = roi_similarity(ours, theirs, **USUAL)
    assert found.mean == pytest.approx(expected, rel=1e-5)
    assert (found.pairs, found.empty) == (6, 0)
    assert roi_similarity(theirs, ours, **USUAL).mean == pytest.approx(found.mean, rel=1e-6)
    other = roi_similarity(ours, theirs, k1=0.3, k2=0.3).mean
    assert other == pytest.approx(
        np.mean([ssim(a, b, 0.3, 0.3) for a in ours for b in theirs]), rel=1e-5
    )


def test_nearer_and_more_alike_is_more_similar():
    target = grid(box((5, 5, 5), (6, 6, 6)))
    ladder = [
        box((5, 5, 5), (6, 6, 6)),
        box((6, 5, 5), (6, 6, 6)),
        box((8, 8, 5), (6, 6, 6)),
        box((12, 12, 12), (6, 6, 6)),
    ]
    found = [roi_similarity(grid(mask), target, **USUAL).mean for mask in ladder]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] > found[2] > found[3]


def test_pairs_with_an_empty_mask_are_left_out_and_counted():
    lesion, nothing = box((3, 3, 3), (4, 4, 4)), np.zeros((20, 20, 20), bool)
    found = roi_similarity(grid(lesion, nothing), grid(lesion, nothing, nothing), **USUAL)
    assert (found.pairs, found.empty) == (1, 5)
    assert found.mean == pytest.approx(1, rel=1e-6)
    none = roi_similarity(grid(nothing), grid(lesion, nothing), **USUAL)
    assert (none.pairs, none.empty) == (0, 2)
    assert np.isnan(none.mean)


def test_the_field_of_view_is_stretched():
    coarse = box((2, 1, 3), (3, 2, 4), (8, 4, 16))
    fine = coarse.repeat(3, 0).repeat(5, 1).repeat(2, 2)
    np.testing.assert_array_equal(on_common_grid(coarse), on_common_grid(fine))
    assert on_common_grid(coarse).mean() == pytest.approx(coarse.mean())
    full = on_common_grid(coarse).reshape(GRID, GRID, GRID)
    rows = [np.flatnonzero(full.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert [(r[0], r[-1]) for r in rows] == [(16, 39), (16, 47), (12, 27)]


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 64, 200), (63, 65, 128)])
def test_any_shape_is_covered(shape):
    half = np.broadcast_to(np.arange(shape[2]) >= shape[2] / 2, shape)
    found = on_common_grid(half).reshape(GRID, GRID, GRID)
    assert found[..., GRID // 2 :].all()
    assert not found[..., : GRID // 2].any()
    assert on_common_grid(np.ones(shape, bool)).all()


def test_no_side_is_favoured():
    mask = np.random.default_rng(0).random((5, 96, 200)) < 0.5
    found = on_common_grid(mask).reshape(GRID, GRID, GRID)
    mirrored = on_common_grid(mask[::-1, ::-1, ::-1]).reshape(GRID, GRID, GRID)
    np.testing.assert_array_equal(mirrored, found[::-1, ::-1, ::-1])


def test_foreground_is_every_class_but_not_the_ignored():
    volume = np.zeros((4, 4, 4), np.uint8)
    volume[0], volume[1], volume[2] = 1, 7, IGNORE
    (found,) = foreground_masks([volume])
    by_slice = found.reshape(4, -1).mean(1)
    np.testing.assert_array_equal(by_slice, [1, 1, 0, 0])
    assert foreground_masks([volume, volume[:3]]).shape == (2, GRID**3)
