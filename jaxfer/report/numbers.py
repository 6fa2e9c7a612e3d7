"""How numbers are written: one place, so that the page and the terminal agree."""

from __future__ import annotations

import math
from collections.abc import Callable

ABSENT = "–"
INFINITE = "∞"


def number(value: float | str | None) -> float:
    """A number of a record; null is NaN."""
    return float("nan") if value is None else float(value)


def dice_text(value: float | None) -> str:
    """A Dice coefficient in [0, 1], to three decimals."""
    return _written(value, ".3f")


def points_text(value: float | None) -> str:
    """A difference of Dice coefficients in Dice points (× 100), signed, to one decimal."""
    points = 100 * number(value)
    # A gain that rounds to nothing has no sign.
    return _written(points, ".1f" if abs(points) < 0.05 else "+.1f").replace("−0.0", "0.0")


def distance_text(value: float | None) -> str:
    """A distance in mm, to one decimal."""
    return _written(value, ".1f")


def score_text(value: float | None) -> str:
    """The score of a transferability metric: four decimals, more if it is small, fewer if large."""
    size = abs(number(value))
    return _written(value, ".5f" if size < 0.1 else ".4f" if size < 100 else ",.1f")


def percent_text(share: float | None) -> str:
    """A share in whole per cent."""
    percent = _written(None if share is None else 100 * share, ".0f")
    return percent if percent == ABSENT else f"{percent} %"


def span_text(interval: tuple[float, float], write: Callable[[float], str] = dice_text) -> str:
    """An interval, its ends written by `write`; empty when an end is unknown."""
    low, high = interval
    return "" if math.isnan(low) or math.isnan(high) else f"{write(low)} to {write(high)}"


def count_text(n: int, noun: str) -> str:
    """A count with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _written(value: float | None, form: str) -> str:
    value = number(value)
    if math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return INFINITE if value > 0 else f"−{INFINITE}"
    return format(value, form).replace("-", "−")
