"""Arguments that are no arrays, and masks that are not true or false.

The annotations, which tests check, refuse these too: the functions are called without that check.
"""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.metrics.validation import (
    check_arrays,
    check_mask,
    check_num_classes,
    check_samples,
    num_channels,
)

LABELS = np.zeros(3, np.int32)


def test_lists_are_refused_by_name():
    check = check_samples.__wrapped__
    with pytest.raises(ValueError, match="labels must be an array: found list"):
        check(np.zeros((3, 2)), [0, 1, 0], None, name="features")
    with pytest.raises(ValueError, match="features must be an array: found list"):
        check([[0.0], [1.0], [2.0]], LABELS, None, name="features")
    with pytest.raises(ValueError, match="mask must be an array: found list"):
        check_mask.__wrapped__(LABELS, [True, True, False])
    with pytest.raises(ValueError, match="log_probs must be an array: found list"):
        num_channels.__wrapped__([[0.0]], "log_probs")


@pytest.mark.parametrize("dtype", [np.complex64, np.str_, object])
def test_arrays_of_what_is_no_real_number_are_refused(dtype):
    with pytest.raises(ValueError, match="labels must hold real numbers: found"):
        check_arrays({"labels": np.zeros(3, dtype)})


def test_what_has_no_channels_is_refused():
    assert num_channels(np.zeros((3, 2)), "features") == 2
    for shape in ((), (3, 0)):
        with pytest.raises(ValueError, match="features needs channels on its last axis: found"):
            num_channels(np.zeros(shape), "features")


@pytest.mark.parametrize("number", [0, -1, 3.0, None])
def test_numbers_of_classes_are_whole_and_positive(number):
    check_num_classes.__wrapped__(1, np.int64(3))
    with pytest.raises(ValueError, match="a whole number of at least 1: found"):
        check_num_classes.__wrapped__(3, number)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_of_numbers_are_refused(dtype):
    # Of a mask that holds 2 only the lowest bit would count.
    with pytest.raises(ValueError, match=r"mask must be of bool: found .*; pass mask != 0"):
        check_mask.__wrapped__(LABELS, np.full(3, 2, dtype))
