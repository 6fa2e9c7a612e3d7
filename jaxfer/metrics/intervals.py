"""Intervals over subjects: the subject is the unit that is drawn again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

DRAWS = 10_000


def bootstrap_mean_interval(
    values: Float[np.ndarray, " n"], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over subjects.

    With a handful of subjects the interval is too narrow, as percentile intervals are: read it as
    a lower bound of what is not known.

    Args:
        values: one per subject, finite.
        seed: of the draws.
        level: probability that the interval claims to cover.

    Returns:
        Lower and upper end; NaN with fewer than two subjects.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
