"""What is compared over all pairs of two tasks' subjects: the interval of its mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

DRAWS = 1000


def interval_over_subjects(table: Float[np.ndarray, "n m"], seed: int) -> tuple[float, float]:
    """95 % interval of a table's mean, by bootstrap of its rows and of its columns.

    NaN with fewer than two of either: one subject tells nothing of others.
    """
    if min(table.shape) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), size=DRAWS) / n for n in table.shape)
    means = np.einsum("dn,nm,dm->d", rows, table, columns, optimize=True)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
