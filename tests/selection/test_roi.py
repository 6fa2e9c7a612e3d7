"""RoI analysis: a common grid whatever the shapes, and means over the pairs that mean something."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.selection.roi import (
    FULL,
    GRID,
    RADIUS,
    centred,
    foreground_masks,
    on_common_grid,
    roi_similarity,
)
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
    a, b = a.astype(float) / FULL, b.astype(float) / FULL
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
    assert on_common_grid(coarse).mean() == pytest.approx(FULL * coarse.mean())
    full = on_common_grid(coarse).reshape(GRID, GRID, GRID)
    rows = [np.flatnonzero(full.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert [(r[0], r[-1]) for r in rows] == [(16, 39), (16, 47), (12, 27)]


@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 64, 200), (63, 65, 128)])
def test_any_shape_is_covered(shape):
    half = np.broadcast_to(np.arange(shape[2]) >= shape[2] / 2, shape)
    found = on_common_grid(half).reshape(GRID, GRID, GRID)
    assert (found[..., GRID // 2 :].mean() == FULL) or shape[2] % 2
    assert not found[..., : GRID // 2 - 1].any()
    assert (on_common_grid(np.ones(shape, bool)) == FULL).all()


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
    np.testing.assert_array_equal(by_slice, [FULL, FULL, 0, 0])
    assert foreground_masks([volume, volume[:3]]).shape == (2, GRID**3)


def test_a_cell_holds_the_share_of_its_volume_that_is_inside():
    shape = (96, 160, 100)
    mask = np.random.default_rng(1).random(shape) < 0.3
    found = on_common_grid(mask).reshape(GRID, GRID, GRID)
    x, y, z = 10, 3, 40
    share = 0.0
    for i, j, k in np.add(np.argwhere(mask[15:17, 7:10, 62:65]), (15, 7, 62)):
        edges = [(n * c / GRID, n * (c + 1) / GRID) for n, c in zip(shape, (x, y, z), strict=True)]
        inside = [min(e, v + 1) - max(b, v) for (b, e), v in zip(edges, (i, j, k), strict=True)]
        share += np.prod(np.maximum(inside, 0))
    share *= GRID**3 / np.prod(shape)
    assert found[x, y, z] == np.ceil(FULL * share - 1e-6)


@pytest.mark.parametrize("place", [(0, 0, 0), (101, 77, 13), (239, 239, 154)])
def test_one_voxel_is_never_lost(place):
    mask = np.zeros((240, 240, 155), bool)
    mask[place] = True
    found = on_common_grid(mask)
    assert found.any()
    volume = found.sum() / FULL * mask.size / GRID**3
    assert 1 <= volume < 2  # of a voxel; cells round up


def test_place_size_and_shape_come_apart():
    box_here, box_there = box((3, 3, 3), (4, 4, 4)), box((11, 12, 10), (4, 4, 4))
    large, plate = box((3, 3, 3), (8, 8, 8)), box((3, 3, 3), (16, 16, 2))
    target = grid(box_here)

    def of(mask, kind):
        return roi_similarity(grid(mask), target, **USUAL, kind=kind).mean

    assert of(box_there, "ssim") < 0.1 < 0.98 < of(box_there, "ssim_centred")
    assert of(box_there, "dice") == 0
    assert of(large, "ssim_centred") < 0.5 < 0.95 < of(large, "ssim_shape")
    assert of(plate, "ssim_shape") < 0.8
    for kind in ("ssim", "ssim_centred", "ssim_shape", "ssim_windowed", "dice"):
        assert of(box_here, kind) == pytest.approx(1, abs=1e-5)


def test_centred_and_scaled_masks_have_one_centre_and_one_radius():
    masks = grid(box((1, 2, 3), (5, 6, 7)), box((9, 9, 4), (3, 8, 4))) / np.float32(FULL)
    axes = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), -1)
    for scaled in (False, True):
        for before, mask in zip(masks, centred(masks, scaled=scaled), strict=True):
            centre = (axes * mask[..., None]).sum((0, 1, 2)) / mask.sum()
            np.testing.assert_allclose(centre, (GRID - 1) / 2, atol=0.05)
            radius = np.sqrt((((axes - centre) ** 2).sum(-1) * mask).sum() / mask.sum() + 3 / 12)
            if scaled:
                assert radius == pytest.approx(RADIUS, rel=0.03)
            else:
                assert mask.sum() == pytest.approx(before.sum(), rel=1e-3)


def test_the_interval_is_over_subjects_of_both_tasks():
    masks = grid(*(box((i, 4, 5), (6, 7, 8)) for i in range(6)), np.zeros((20, 20, 20), bool))
    found = roi_similarity(masks, masks[:4], **USUAL)
    assert found.low < found.mean < found.high
    assert found == roi_similarity(masks, masks[:4], **USUAL)
    alone = roi_similarity(masks, masks[:1], **USUAL)
    assert np.isnan([alone.low, alone.high]).all()
