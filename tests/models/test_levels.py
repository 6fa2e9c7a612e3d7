"""Kernels and strides that heed the spacing."""

from __future__ import annotations

import pytest

from jaxfer.models.levels import automatic_strides, kernel_sides, network_strides, patch_multiples


@pytest.mark.parametrize(
    ("spacing", "strides", "kernels"),
    [
        ((1, 1, 1), ((2, 2, 2),) * 3, ((3, 3, 3),) * 4),
        ((1, 1, 3), ((2, 2, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 1), *((3, 3, 3),) * 3)),
        ((0.5, 0.5, 4), ((2, 2, 1),) * 3, ((3, 3, 1),) * 3 + ((3, 3, 3),)),
        ((3, 1, 1), ((1, 2, 2), (2, 2, 2), (2, 2, 2)), ((1, 3, 3), *((3, 3, 3),) * 3)),
        ((1, 1, 2), ((2, 2, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 1), *((3, 3, 3),) * 3)),
        ((1, 1, 1.9), ((2, 2, 2),) * 3, ((3, 3, 3),) * 4),
    ],
)
def test_thick_slices_wait(spacing, strides, kernels):
    assert automatic_strides(3, 4, tuple(map(float, spacing))) == strides
    assert kernel_sides(strides, tuple(map(float, spacing))) == kernels


def test_in_two_dimensions_the_spacing_changes_nothing():
    strides = automatic_strides(2, 3, (1.0, 4.0, 1.0))
    assert strides == ((2, 2), (2, 2))
    assert kernel_sides(strides, (1.0, 4.0, 1.0)) == ((3, 3),) * 3


def test_patches_divide_by_the_product():
    strides = network_strides(("2x2x1", "2x3x2"), 3, 3, (1.0, 1.0, 1.0))
    assert strides == ((2, 2, 1), (2, 3, 2))
    assert patch_multiples(strides) == (4, 6, 2)


def test_auto_heeds_the_spacing():
    assert network_strides(("auto",), 3, 2, (1.0, 1.0, 3.0)) == ((2, 2, 1),)


@pytest.mark.parametrize(
    ("named", "told"),
    [(("2x2", "2x2"), "2 for 2 levels"), (("2x2x2",), "not 2"), (("2xa",), "whole numbers")],
)
def test_strides_that_are_none(named, told):
    with pytest.raises(ValueError, match=told):
        network_strides(named, 2, 2, (1.0, 1.0, 1.0))
