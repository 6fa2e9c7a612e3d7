"""Arguments that are no arrays, and masks that are not true or false.

The annotations, which tests check, refuse these too: the functions are called without that check.
"""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.metrics.validation import check_mask, check_samples

LABELS = np.zeros(3, np.int32)


def test_lists_are_refused_by_name():
    check = check_samples.__wrapped__
    with pytest.raises(ValueError, match="labels must be an array: found list"):
        check(np.zeros((3, 2)), [0, 1, 0], None, name="features")
    with pytest.raises(ValueError, match="features must be an array: found list"):
        check([[0.0], [1.0], [2.0]], LABELS, None, name="features")
    with pytest.raises(ValueError, match="mask must be an array: found list"):
        check_mask.__wrapped__(LABELS, [True, True, False])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_of_numbers_are_refused(dtype):
    # Of a mask that holds 2 only the lowest bit would count.
    with pytest.raises(ValueError, match=r"mask must be of bool: found .*; pass mask != 0"):
        check_mask.__wrapped__(LABELS, np.full(3, 2, dtype))
