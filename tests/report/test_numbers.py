"""How numbers are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxfer.report.numbers import (
    count_text,
    dice_text,
    distance_text,
    points_text,
    score_text,
    span_text,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (dice_text(0.81249), "0.812"),
        (dice_text(math.nan), "–"),
        (dice_text(None), "–"),
        (points_text(0.0334), "+3.3"),
        (points_text(-0.0334), "−3.3"),
        (points_text(0.0), "0.0"),
        (points_text(-0.0004), "0.0"),
        (points_text(-0.001), "−0.1"),
        (points_text(math.nan), "–"),
        (distance_text(math.inf), "∞"),
        (distance_text(3.25), "3.2"),
        (score_text(-0.02031), "−0.02031"),
        (score_text(0.41), "0.4100"),
        (score_text(-12345.678), "−12,345.7"),
        (score_text(-math.inf), "−∞"),
        (span_text((0.004, 0.061), points_text), "+0.4 to +6.1"),
        (span_text((0.5, math.nan)), ""),
        (count_text(1, "seed"), "1 seed"),
        (count_text(1200, "voxel"), "1,200 voxels"),
    ],
)
def test_written(written: str, expected: str) -> None:
    assert written == expected


@given(st.floats(-1, 1))
def test_points_have_the_sign_that_they_show(gain: float) -> None:
    text = points_text(gain)
    shown = float(text.replace("−", "-"))
    assert shown == pytest.approx(100 * gain, abs=0.0501)
    assert (text[0] in "+−") == (shown != 0)
