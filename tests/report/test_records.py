"""What a gain allows to say, and the order of the methods."""

from __future__ import annotations

import math

import pytest

from jaxfer.report.records import Gain, in_order


def test_methods_stand_in_one_order() -> None:
    assert in_order({"weighted", "shuffled", "plain", "focal", "plain_where", "scratch"}) == (
        "scratch",
        "plain",
        "plain_where",
        "weighted",
        "focal",
        "shuffled",
    )


@pytest.mark.parametrize(
    ("interval", "n", "reading"),
    [
        ((0.01, 0.05), 6, "higher"),
        ((-0.05, -0.01), 6, "lower"),
        ((-0.01, 0.05), 6, "cannot be told"),
        ((0.0, 0.05), 6, "cannot be told"),
        ((math.nan, math.nan), 6, "cannot be told"),
        # An interval over two subjects is narrow by chance.
        ((0.01, 0.05), 2, "cannot be told"),
    ],
)
def test_only_an_interval_clear_of_zero_tells(
    interval: tuple[float, float], n: int, reading: str
) -> None:
    gain = Gain("weighted", "plain", 0.03, interval, {f"p{i}": 0.03 for i in range(n)})
    assert gain.reading == reading


def test_a_gain_counts_its_patients() -> None:
    gain = Gain("plain", "scratch", 0.0, (-1.0, 1.0), {"a": 0.1, "b": -0.2, "c": 0.0, "d": -0.1})
    assert (gain.n, gain.above, gain.below, gain.lowest) == (4, 1, 2, ("b", -0.2))
